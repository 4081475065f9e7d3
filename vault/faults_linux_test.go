package vault

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"testing"

	"guard"
)

// childStep makes one write, which strace lets end or fail at one of its system calls, and says how
// it went.
func childStep(dir string, key KeyFile) error {
	runtime.LockOSThread() // strace counts the calls of one thread
	v, err := Open(dir, key)
	if err != nil {
		return err
	}
	defer v.Close()
	c, err := v.Set(guard.Credential{Name: "a"}, secret(canary+"-new"))
	if err != nil {
		if !errors.Is(err, syscall.ENOSPC) {
			return err
		}
		// What is said to have failed is not there, or the last sync alone failed.
		s, gerr := v.Get(guard.SecretID{Name: "a"})
		if gerr != nil {
			return gerr
		}
		fmt.Printf("failed, and it is %q\n", strings.TrimPrefix(string(s.Reveal()), canary))
		return nil
	}
	fmt.Println("set", c.Version)
	return nil
}

// At every system call that a write makes, the process is killed, and the disk is full: the value
// before is there, or the new one, whole; and the next write goes on.
func TestEveryStepOfAWrite(t *testing.T) {
	strace, err := exec.LookPath("strace")
	if err != nil {
		if os.Getenv("GUARD_TEST_ALL") != "" {
			t.Fatal(err)
		}
		t.Skipf("strace is not installed: %v", err)
	}
	steps := 0
	for _, call := range []string{"openat", "write", "fsync", "linkat", "unlinkat", "renameat", "fstat", "close"} {
		for _, fault := range []string{"signal=KILL", "error=ENOSPC"} {
			if fault == "error=ENOSPC" && (call == "fstat" || call == "close" || call == "unlinkat") {
				continue // these do not say so
			}
			for n := 1; n < 20; n++ {
				hit := faulted(t, strace, call, fault, n)
				if t.Failed() {
					return
				}
				if !hit {
					if n == 1 {
						t.Errorf("no %s is ever made: this test looks in the wrong place", call)
					}
					break
				}
				steps++
			}
		}
	}
	t.Logf("%d steps", steps)
	if steps < 30 {
		t.Errorf("only %d steps", steps)
	}
}

// faulted has the nth call of a write fail, and says whether there was one.
func faulted(t *testing.T, strace, call, fault string, n int) bool {
	t.Helper()
	v, dir, key := opened(t)
	set(t, v, "", "a", canary+"-old")
	v.Close()
	c := child("step", dir, key)
	args := []string{"strace", "-f", "-qq", "-o", filepath.Join(t.TempDir(), "trace"), "-e", "trace=" + call, "-e", fmt.Sprintf("inject=%s:%s:when=%d", call, fault, n)}
	for _, p := range []string{dir, filepath.Join(dir, fileName), filepath.Join(dir, tmpName), filepath.Join(dir, bakName), filepath.Join(dir, bakName+".tmp"), filepath.Join(dir, lockName)} {
		args = append(args, "-P", p)
	}
	c.Args = append(args, c.Path)
	c.Path = strace
	out, err := c.CombinedOutput()
	trace, terr := os.ReadFile(args[4])
	if terr != nil {
		t.Fatal(terr, string(out))
	}
	name := fmt.Sprintf("%s, the %d. %s: %s", fault, n, call, strings.ReplaceAll(string(out), canary, ""))
	hit := strings.Contains(string(trace), "INJECTED") || strings.Contains(string(trace), "killed by SIGKILL")
	if !hit {
		if err != nil || string(out) != "set 2\n" {
			t.Fatalf("%s: %v", name, err)
		}
		return false
	}
	w, err := Open(dir, key)
	if err != nil {
		t.Fatalf("%s: %v", name, err)
	}
	defer w.Close()
	got := strings.TrimPrefix(get(t, w, "", "a", 0), canary)
	vs := must(w.Versions("", "a"))
	switch said := string(out); {
	case strings.HasPrefix(said, "set "):
		if got != "-new" || len(vs) != 2 {
			t.Errorf("%s: what was said to be stored is not: %s", name, got)
		}
	case strings.HasPrefix(said, "failed"):
		if !strings.Contains(said, fmt.Sprintf("%q", got)) {
			t.Errorf("%s: the process and the file differ: %s", name, got)
		}
		fallthrough
	default:
		if got != "-old" && got != "-new" || len(vs) != 1 && got == "-old" || len(vs) != 2 && got == "-new" || get(t, w, "", "a", 1) != canary+"-old" {
			t.Errorf("%s: %q in %d versions", name, got, len(vs))
		}
	}
	set(t, w, "", "a", canary+"-next")
	if get(t, reopen(t, dir, key), "", "a", 0) != canary+"-next" {
		t.Errorf("%s: the next write is lost", name)
	}
	for _, e := range must(os.ReadDir(dir)) {
		if e.Name() != fileName && e.Name() != bakName && e.Name() != lockName {
			t.Errorf("%s: %s is left", name, e.Name())
		}
	}
	return true
}
