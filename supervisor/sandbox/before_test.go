//go:build linux

package sandbox

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
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
				var mine, theirs unix.Stat_t
				if unix.Stat("/proc/self/ns/pid", &mine) != nil || unix.Stat(fmt.Sprintf("/proc/%d/ns/pid", pid), &theirs) != nil {
					t.Error("no such process")
				}
				if (mine.Ino != theirs.Ino) != own {
					t.Error("it is in another pid namespace than it says")
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
