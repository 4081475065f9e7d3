package exec

import (
	"testing"

	"guard/rotate/rotatetest"
)

func TestKills(t *testing.T) { rotatetest.Kills(t, open(`"tok_" + secrets.token_hex(16)`)) }
