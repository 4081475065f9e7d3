//go:build linux

package main

import (
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"guard/internal/testutil"
)

// sessionHome makes a home with a vault that holds a value, and returns how to run
// guard in it.
func sessionHome(t *testing.T) (value string, run func(stdin []byte, args ...string) string) {
	t.Helper()
	dir := t.TempDir()
	proj := filepath.Join(dir, "proj")
	if err := os.Mkdir(proj, 0o755); err != nil {
		t.Fatal(err)
	}
	value = testutil.Canary(t)
	run = func(stdin []byte, args ...string) string {
		t.Helper()
		c := exec.CommandContext(t.Context(), "guard", args...)
		c.Dir, c.Stdin = proj, bytes.NewReader(stdin)
		c.Env = []string{"HOME=" + dir, "GUARD_HOME=" + dir + "/gh", "GUARD_KEYFILE=" + dir + "/key", "PATH=" + os.Getenv("PATH"), "VALUE=" + value}
		out, err := c.CombinedOutput()
		if err != nil {
			t.Fatalf("guard %q: %v\n%s", args, err, bytes.ReplaceAll(out, []byte(value), []byte("[value]")))
		}
		return string(out)
	}
	run(nil, "init")
	run(nil, "secret", "set", "tok", "--from-env", "VALUE", "--host", "a.example.com")
	return value, run
}

// TestCleanWritesAreNotRefused writes a real build log a hundred thousand times,
// in pieces of all sizes, with every write judged by the matcher.
func TestCleanWritesAreNotRefused(t *testing.T) {
	testutil.Leftovers(t)
	build := exec.CommandContext(t.Context(), "go", "build", "-n", "-a", "net/http")
	log, err := build.CombinedOutput()
	if err != nil || len(log) < 100_000 {
		t.Fatalf("a build log of %d bytes: %v", len(log), err)
	}
	_, run := sessionHome(t)
	out := run(log, "run", "--no-rotate", "--bpf", "off", "--on-leak", "block", "--", "python3", "-c", `
import os, sys
log, at, refused = sys.stdin.buffer.read(), 0, 0
fd = os.memfd_create("log")
sizes = (1, 17, 80, 81, 200, 512, 1000, 4096)
for i in range(100000):
    n = sizes[i % len(sizes)]
    try: os.write(fd, log[at:at + n])
    except OSError: refused += 1
    at += n
    if at >= len(log):
        at = 0
        os.ftruncate(fd, 0)
        os.lseek(fd, 0, os.SEEK_SET)
print("refused", refused)
`)
	if strings.TrimSpace(out) != "refused 0" {
		t.Error(out)
	}
}

// TestFlippedBufferInSession has a thread change the bytes of a write all the
// time: what was judged is what is written.
func TestFlippedBufferInSession(t *testing.T) {
	testutil.Leftovers(t)
	value, run := sessionHome(t)
	out := run([]byte(value), "run", "--no-rotate", "--bpf", "off", "--on-leak", "block", "--", "python3", "-c", `
import os, sys, threading
value = sys.stdin.buffer.read()
clean, buf, stop = b"x" * len(value), bytearray(value), False
view = memoryview(buf)
def flip():
    while not stop:
        view[:] = value
        view[:] = clean
t = threading.Thread(target=flip)
t.start()
refused = passed = escaped = 0
for i in range(2000):
    fd = os.memfd_create("m")
    try:
        os.write(fd, view)
        passed += 1
        escaped += value in os.pread(fd, 1000, 0)
    except PermissionError: refused += 1
    os.close(fd)
stop = True
t.join()
print("tried", refused + passed, "seen both", refused > 0 and passed > 0, "escaped", escaped)
`)
	if !strings.Contains(out, "tried 2000 seen both True escaped 0\n") {
		t.Error(out)
	}
}

// TestSendsInSession sends a value from one process of a session to itself, by Unix sockets and the loopback.
func TestSendsInSession(t *testing.T) {
	testutil.Leftovers(t)
	value, run := sessionHome(t)
	out := run([]byte(value), "run", "--no-rotate", "--bpf", "off", "--on-leak", "block", "--", "python3", "-c", `
import array, os, socket, sys
value = sys.stdin.buffer.read()
wrong = 0
def pairs():
    yield socket.socketpair()
    yield socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
    l = socket.create_server(("127.0.0.1", 0))
    c = socket.create_connection(l.getsockname())
    yield c, l.accept()[0]
for a, b in pairs():
    for how in (a.send, lambda v: a.sendmsg([v[:9], v[9:]]), lambda v: os.write(a.fileno(), v)):
        try:
            how(b"x" + value)
            wrong += 1
        except PermissionError: pass
        wrong += how(b"clean") != 5
        wrong += b.recv(100) != b"clean"
a, b = socket.socketpair()
a.sendmsg([b"fd"], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", [0]))])
wrong += len(b.recvmsg(10, socket.CMSG_LEN(4))[1]) != 1
print("wrong", wrong)
`)
	if !strings.Contains(out, "wrong 0\n") {
		t.Error(out)
	}
	if log := run(nil, "audit", "show", "--json", "--type", "leak"); !strings.Contains(log, `"channel":"socket"`) || !strings.Contains(log, `"method":"sendto"`) || strings.Contains(log, value) {
		t.Error(log)
	}
}
