//go:build linux

package pty

import (
	"errors"
	"io"
	"os"
	"os/exec"
	"syscall"
	"testing"

	"guard/internal/testutil"
)

// An agent whose output cannot be written gets the SIGPIPE that it would have
// got without guard, once the caller closes the pipe.
func TestCopyToAFullDestination(t *testing.T) {
	testutil.Leftovers(t)
	for name, way := range ways {
		for what, want := range map[string]error{"full": syscall.ENOSPC, "nobody reads": syscall.EPIPE} {
			t.Run(name+" "+what, func(t *testing.T) {
				dst, err := os.OpenFile("/dev/full", os.O_WRONLY, 0)
				if what == "nobody reads" {
					var r *os.File
					if r, dst, err = os.Pipe(); err == nil {
						r.Close()
					}
				}
				if err != nil {
					t.Fatal(err)
				}
				defer dst.Close()
				r, w, err := os.Pipe()
				if err != nil {
					t.Fatal(err)
				}
				defer r.Close()
				cmd := exec.Command("yes")
				cmd.Stdout = w
				if err := cmd.Start(); err != nil {
					t.Fatal(err)
				}
				w.Close()
				var src io.Reader = way(r)
				if err := Copy(dst, src, passAll, 0, 0); !errors.Is(err, want) {
					t.Errorf("Copy returned %v", err)
				}
				r.Close()
				err = cmd.Wait()
				if st, ok := cmd.ProcessState.Sys().(syscall.WaitStatus); !ok || !st.Signaled() || st.Signal() != syscall.SIGPIPE {
					t.Errorf("the agent ended with %v", err)
				}
				noGoroutines(t)
			})
		}
	}
}
