//go:build linux

package main

import (
	"bytes"
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"guard/internal/attack"
	"guard/internal/testutil"
)

// TestDoctorAttack: in the default tier, as both users, nothing is had that the threat
// model claims; in the cooperative one the same cases say that things are.
func TestDoctorAttack(t *testing.T) {
	testutil.Leftovers(t)
	self, err := os.ReadFile("/proc/self/exe")
	if err != nil {
		t.Fatal(err)
	}
	users := map[string]func(*exec.Cmd){"me": nil}
	if os.Geteuid() == 0 {
		users["ordinary"] = testutil.AsUser(t, ordinaryUser(t))
	}
	for user, as := range users {
		for _, c := range []struct {
			tier string
			fail bool
		}{{"namespace", false}, {"proxy", true}} {
			t.Run(user+"/"+c.tier, func(t *testing.T) {
				cmd := exec.CommandContext(t.Context(), "guard", "doctor", "--attack", "--json", "--tier", c.tier)
				if as != nil {
					cmd.Env = os.Environ()
					as(cmd)
					cmd.Path, cmd.Err = filepath.Join(cmd.Dir, "guard"), nil
					if err := os.WriteFile(cmd.Path, self, 0o755); err != nil {
						t.Fatal(err)
					}
				}
				var errs bytes.Buffer
				cmd.Stderr = &errs
				out, err := cmd.Output()
				open, tried := 0, 0
				for line := range bytes.Lines(out) {
					var r attack.Row
					if err := json.Unmarshal(line, &r); err != nil {
						t.Fatal(err)
					}
					if r.Result != attack.NotTried {
						tried++
					}
					if r.Result == attack.NotHeld && !r.Declared {
						open++
						if !c.fail {
							t.Errorf("%s: %s", r.Case, r.Reason)
						}
					}
				}
				if tried < 150 {
					t.Errorf("only %d cases were tried: %v %s", tried, err, errs.Bytes())
				}
				if c.tier == "proxy" && (open < 20 || err == nil) {
					t.Errorf("nothing protects there, and %d cases say so: %v", open, err)
				}
				if c.tier == "namespace" && err != nil {
					t.Errorf("%v: %s", err, errs.Bytes())
				}
			})
		}
	}
}
