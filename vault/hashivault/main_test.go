package hashivault_test

import (
	"os"
	"testing"

	"guard/internal/testutil"
)

func pemOf(t *testing.T, ca *testutil.CA) []byte {
	t.Helper()
	b, err := os.ReadFile(ca.File)
	if err != nil {
		t.Fatal(err)
	}
	return b
}
