//go:build linux

package sandbox

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strings"
	"testing"
)

// Nothing is started before Before returned, and what it returns decides.
func TestBefore(t *testing.T) {
	for _, tier := range []string{"namespace", "landlock"} {
		t.Run(tier, func(t *testing.T) {
			w := newWorld(t)
			w.c.Boundary = tier
			calls := 0
			w.c.Before = func(pid int, own bool) error {
				calls++
				if own != (tier == "namespace") {
					t.Errorf("own is %v", own)
				}
				// Who may not trace it, since it is undumpable by now, may not look at its
				// namespaces; how deep it is in them is for everybody.
				if mine, theirs := pidDepth(t, os.Getpid()), pidDepth(t, pid); theirs == 0 || (theirs > mine) != own {
					t.Errorf("it is in another pid namespace than it says: %d deep, and this %d", theirs, mine)
				}
				// However long it takes.
				for range 200 {
					if kids := children(pid); len(kids) > 0 {
						t.Errorf("processes %v were started", kids)
						break
					}
					if _, err := os.ReadFile("/proc/self/mountinfo"); err != nil {
						t.Error(err)
					}
				}
				return nil
			}
			if out := w.sh(t, "echo ran"); out != "ran" || calls != 1 {
				t.Errorf("%q, %d calls", out, calls)
			}
			refused := errors.New("not today")
			c := w.c
			c.Argv = []string{"touch", "ran"}
			c.Before = func(int, bool) error { return refused }
			s, err := Start(context.Background(), c)
			if err == nil {
				s.Close()
			}
			if !errors.Is(err, refused) || Unavailable(err) || !strings.Contains(err.Error(), "search in the kernel") {
				t.Errorf("%v", err)
			}
			if _, err := os.Stat(w.dir + "/ran"); err == nil {
				t.Error("the agent ran")
			}
			// A start that fails for another reason waits for it as well.
			c.Argv, c.Before = []string{"no-such-program"}, func(int, bool) error { return nil }
			if s, err := Start(context.Background(), c); err == nil {
				s.Close()
				t.Error("it ran")
			}
		})
	}
}

// pidDepth is in how many pid namespaces a process has a number; 0: there is none.
func pidDepth(t *testing.T, pid int) int {
	t.Helper()
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		t.Error(err)
		return 0
	}
	for line := range strings.Lines(string(b)) {
		if rest, ok := strings.CutPrefix(line, "NSpid:"); ok {
			return len(strings.Fields(rest))
		}
	}
	return 0
}
