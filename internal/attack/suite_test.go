//go:build linux

package attack

import (
	"fmt"
	"os"
	"strings"
	"testing"
)

// TestClaims: every case attacks a line of the threat model, and what it says is not
// held stands in its table.
func TestClaims(t *testing.T) {
	b, err := os.ReadFile("../../THREAT_MODEL.md")
	if err != nil {
		t.Fatal(err)
	}
	seen := map[string]bool{}
	for _, c := range Cases() {
		if seen[c.Name] || c.Claim == "" || !strings.Contains(string(b), "**"+c.Claim) {
			t.Errorf("%s: twice, or THREAT_MODEL.md has no %q", c.Name, c.Claim)
		}
		seen[c.Name] = true
		if row := fmt.Sprintf("| %s | %s |\n", c.Name, c.Weak); strings.Contains(string(b), row) != (c.Weak != "") {
			t.Errorf("%s: the table of THREAT_MODEL.md says otherwise", c.Name)
		}
	}
	if len(seen) < 180 {
		t.Errorf("only %d cases", len(seen))
	}
}
