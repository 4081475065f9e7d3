package testutil

import (
	"os"
	"os/exec"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// TestLeftoversFindsEach leaves something of each kind behind, and then takes
// it away.
func TestLeftoversFindsEach(t *testing.T) {
	Leftovers(t)
	root := os.Geteuid() == 0
	for _, c := range []struct {
		kind  string
		root  bool
		leave func(t *testing.T) (undo func())
	}{
		{"goroutine", false, func(t *testing.T) func() {
			c, done := make(chan struct{}), make(chan struct{})
			go func() { <-c; close(done) }()
			return func() { close(c); <-done }
		}},
		{"file descriptor", false, func(t *testing.T) func() {
			f, err := os.Open("/dev/null")
			if err != nil {
				t.Fatal(err)
			}
			return func() { f.Close() }
		}},
		{"process", false, func(t *testing.T) func() {
			cmd := exec.Command("sleep", "1000")
			if err := cmd.Start(); err != nil {
				t.Fatal(err)
			}
			return func() { cmd.Process.Kill(); cmd.Wait() }
		}},
		{"process", false, func(t *testing.T) func() { // an orphan in a session of its own
			out, err := exec.Command("setsid", "-w", "sh", "-c", "setsid sleep 1000 >/dev/null 2>&1 & echo $!").Output()
			if err != nil {
				t.Fatal(err)
			}
			pid, err := strconv.Atoi(strings.TrimSpace(string(out)))
			if err != nil {
				t.Fatal(err)
			}
			return func() {
				syscall.Kill(pid, syscall.SIGKILL)
				syscall.Wait4(pid, nil, 0, nil)
			}
		}},
		{"mount", true, func(t *testing.T) func() {
			dir := t.TempDir()
			if err := unix.Mount("none", dir, "tmpfs", 0, ""); err != nil {
				t.Skip(err)
			}
			return func() { unix.Unmount(dir, 0) }
		}},
		{"thread in another network namespace", true, func(t *testing.T) func() {
			up, stop, done := make(chan error), make(chan struct{}), make(chan struct{})
			var try func()
			try = func() {
				runtime.LockOSThread() // never unlocked: the thread ends with the goroutine
				if unix.Gettid() == unix.Getpid() {
					go try() // the first thread would not end
					<-stop
					runtime.UnlockOSThread()
					return
				}
				defer close(done)
				up <- unix.Unshare(unix.CLONE_NEWNET)
				<-stop
			}
			go try()
			if err := <-up; err != nil {
				t.Skip(err)
			}
			return func() { close(stop); <-done }
		}},
	} {
		if c.root && !root {
			continue
		}
		settle()
		kinds := osKinds()
		kinds["goroutine"] = goroutines
		before := map[string]map[string]string{}
		for kind, list := range kinds {
			var err error
			if before[kind], err = list(); err != nil {
				t.Fatal(err)
			}
		}
		undo := c.leave(t)
		left := leftovers(kinds, before, 0)
		undo()
		found := false
		for _, l := range left {
			found = found || strings.HasPrefix(l, c.kind+" ")
		}
		if !found {
			t.Errorf("%s: not found in %q", c.kind, left)
		}
		if left := leftovers(kinds, before, 10*time.Second); len(left) > 0 {
			t.Errorf("%s: taken away, and still there: %q", c.kind, left)
		}
	}
}
