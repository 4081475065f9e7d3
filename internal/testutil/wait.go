package testutil

import (
	"net"
	"os"
	"os/exec"
	"testing"
	"time"
)

// patience bounds every wait, so that what never comes true fails the test
// instead of hanging it. No test may depend on its length.
const patience = 30 * time.Second

// WaitFor returns when cond holds; it looks again after ever longer pauses,
// from 1 ms to 50 ms. It ends the test when cond does not hold for 30 s.
func WaitFor(t testing.TB, what string, cond func() bool) {
	t.Helper()
	if !waitFor(cond, patience) {
		t.Fatalf("did not come true in %v: %s", patience, what)
	}
}

func waitFor(cond func() bool, limit time.Duration) bool {
	end := time.Now().Add(limit)
	for pause := time.Millisecond; ; pause = min(2*pause, 50*time.Millisecond) {
		if cond() {
			return true
		}
		if time.Now().After(end) {
			return false
		}
		time.Sleep(pause)
	}
}

// FreePort returns a TCP port of 127.0.0.1 on which nothing listened a moment
// ago. Prefer listening on port 0 where the program can.
func FreePort(t testing.TB) int {
	t.Helper()
	port, err := freePort()
	if err != nil {
		t.Fatal(err)
	}
	return port
}

func freePort() (int, error) {
	l, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		return 0, err
	}
	defer l.Close()
	return l.Addr().(*net.TCPAddr).Port, nil
}

// Need returns the path of a program of the Debian package pkg, or skips the test (see
// the package doc).
func Need(t testing.TB, program, pkg string) string {
	t.Helper()
	return need(t, program, pkg)
}

// NeedPython returns a Python that has a module of the Debian package pkg, or skips
// the test (see the package doc). Debian's own is not always the first in PATH.
func NeedPython(t testing.TB, module, pkg string) string {
	t.Helper()
	for _, python := range []string{"python3", "/usr/bin/python3"} {
		if exec.Command(python, "-c", "import "+module).Run() == nil {
			return python
		}
	}
	if os.Getenv("GUARD_TEST_ALL") != "" {
		t.Fatalf("no Python has %s: apt-get install %s", module, pkg)
	}
	t.Skipf("no Python has %s: apt-get install %s", module, pkg)
	return ""
}

// need returns the path of a program, or skips the test (see the package doc).
// pkg is the Debian package that has it.
func need(t testing.TB, program, pkg string) string {
	t.Helper()
	path, err := exec.LookPath(program)
	if err == nil {
		return path
	}
	if os.Getenv("GUARD_TEST_ALL") != "" {
		t.Fatalf("%s is not installed: apt-get install %s", program, pkg)
	}
	t.Skipf("%s is not installed: apt-get install %s", program, pkg)
	return ""
}
