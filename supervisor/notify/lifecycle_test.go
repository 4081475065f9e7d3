//go:build linux && (amd64 || arm64)

package notify

import (
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

func waitFor(t *testing.T, what string, cond func() bool) {
	t.Helper()
	for end := time.Now().Add(30 * time.Second); !cond(); time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("did not come true: %s", what)
		}
	}
}

func (s *session) waiting() int {
	s.server.parking.Lock()
	defer s.server.parking.Unlock()
	return len(s.server.parked)
}

// When whoever judges is gone, nothing is written any more.
func TestServerGone(t *testing.T) {
	dir := t.TempDir()
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer w.Close()
	s := begin(t, forbid(), true, func(c *exec.Cmd) { c.Stdin = r }, "sh", "-c", `read x; echo hi >"$1"/f; [ -s "$1"/f ] || exit 42`, "sh", dir)
	r.Close()
	s.cancel()
	if err := <-s.served; err != nil {
		t.Error(err)
	}
	s.served <- nil // for end
	if _, err := w.WriteString("go\n"); err != nil {
		t.Fatal(err)
	}
	err = s.cmd.Wait()
	var exit *exec.ExitError
	if !errors.As(err, &exit) || exit.ExitCode() != 42 {
		t.Errorf("%v", err)
	}
	if b, err := os.ReadFile(filepath.Join(dir, "f")); err != nil || len(b) != 0 {
		t.Errorf("%q, %v", b, err)
	}
}

// A writer that is killed while it waits leaves nothing behind, and nothing more
// of its bytes is written.
func TestKilledWhileWaiting(t *testing.T) {
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	s := begin(t, forbid(), true, func(c *exec.Cmd) { c.Stdout = w }, "yes")
	w.Close()
	waitFor(t, "yes waits", func() bool { return s.waiting() == 1 })
	if err := s.cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	s.end()
	if n := s.waiting(); n != 0 {
		t.Errorf("%d writes are still waiting", n)
	}
	b := make([]byte, 1<<20)
	n, _ := r.Read(b)
	if n != 65536 {
		t.Errorf("%d bytes in the pipe", n)
	}
	if n, err := r.Read(b); n != 0 || err == nil {
		t.Errorf("%d more bytes, %v: somebody has the pipe open", n, err)
	}
}

// A stopped reader's writer goes on as soon as there is room.
func TestFullPipeGoesOn(t *testing.T) {
	out, err, _ := run(t, forbid(), nil, "sh", "-c", "head -c 3000000 /dev/zero | { dd bs=1 count=5000 2>/dev/null | wc -c; wc -c; }")
	if err != nil || out != "5000\n2995000\n" {
		t.Errorf("%q, %v", out, err)
	}
}

// A signal ends a wait as it would without: with a count, or by EINTR.
func TestSignalEndsWait(t *testing.T) {
	out, err, _ := run(t, forbid(), nil, "python3", "-c", `
import os, signal
class Rang(Exception): pass
def ring(*a): raise Rang
signal.signal(signal.SIGALRM, ring)
r, w = os.pipe()
for what in "with a count", "without":
    signal.setitimer(signal.ITIMER_REAL, 0.2)
    try:
        os.write(w, bytes(200000))
        print(what, "not interrupted")
    except Rang:
        print(what, "interrupted")
n = 0
os.set_blocking(r, False)
try:
    while True: n += len(os.read(r, 100000))
except BlockingIOError: print(n)
`)
	if err != nil || out != "with a count interrupted\nwithout interrupted\n65536\n" {
		t.Errorf("%q, %v", out, err)
	}
}

// Fatal signals do not wait for a write.
func TestDefaultSignalKills(t *testing.T) {
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	s := begin(t, forbid(), true, func(c *exec.Cmd) { c.Stdout = w }, "yes")
	w.Close()
	waitFor(t, "yes waits", func() bool { return s.waiting() == 1 })
	if err := s.cmd.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	err = s.cmd.Wait()
	if ws, ok := s.cmd.ProcessState.Sys().(syscall.WaitStatus); !ok || ws.Signal() != syscall.SIGTERM {
		t.Errorf("%v", err)
	}
}

// openDir is a folder that everybody may write.
func openDir(t *testing.T) string {
	dir := t.TempDir()
	for d, mode := dir, os.FileMode(0o777); d != "/tmp" && d != "/"; d, mode = filepath.Dir(d), 0o755 {
		if err := os.Chmod(d, mode); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

// A call that is held is not answered, and its process can be ended.
func TestHeld(t *testing.T) {
	dir := t.TempDir()
	asked := make(chan struct{}, 1)
	s := begin(t, Options{Judge: func(Write) Verdict { asked <- struct{}{}; return Hold }}, true, nil, "sh", "-c", `echo x >"$1"/f; mkdir "$1"/on`, "sh", dir)
	<-asked
	if err := s.cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	s.end()
	if b, err := os.ReadFile(dir + "/f"); err != nil || len(b) > 0 {
		t.Errorf("%q, %v", b, err)
	}
	if _, err := os.Stat(dir + "/on"); err == nil {
		t.Error("it went on")
	}
}

// Nothing is left: no descriptor, no thread that has another identity.
func TestNothingIsLeft(t *testing.T) {
	count := func() int {
		es, err := os.ReadDir("/proc/self/fd")
		if err != nil {
			t.Fatal(err)
		}
		return len(es)
	}
	run(t, forbid(), nil, "true")
	before := count()
	o := forbid([]byte("never"))
	if os.Geteuid() == 0 {
		o.UID, o.GID = 41234, 41234
	}
	for range 3 {
		dir := openDir(t)
		out, err, _ := run(t, o, func(c *exec.Cmd) {
			if o.UID != 0 {
				c.SysProcAttr.Credential = &syscall.Credential{Uid: uint32(o.UID), Gid: uint32(o.GID)}
			}
		}, "sh", "-c", `yes | head -1000 >/dev/null; echo x >"$1"; seq 1000 | cat | wc -l`, "sh", dir+"/x")
		if err != nil || strings.TrimSpace(out) != "1000" {
			t.Errorf("%q, %v", out, err)
		}
	}
	if after := count(); after > before {
		t.Errorf("%d descriptors before, %d after", before, after)
	}
	// A thread ends a moment after its worker.
	waitFor(t, "no thread is the agent's user any more", func() bool {
		tasks, err := os.ReadDir("/proc/self/task")
		if err != nil {
			t.Fatal(err)
		}
		for _, e := range tasks {
			if b, err := os.ReadFile("/proc/self/task/" + e.Name() + "/status"); err == nil && strings.Contains(string(b), "Uid:\t41234") {
				return false
			}
		}
		return true
	})
}

// The writing is done as the agent's user: what the kernel asks of a writer is
// asked of it, and not of root.
func TestWritesAsTheAgent(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("only root can be another user")
	}
	o := forbid([]byte("never"))
	o.UID, o.GID = 41234, 41234
	var as []string
	judge := o.Judge
	o.Judge = func(w Write) Verdict {
		b, err := os.ReadFile("/proc/thread-self/status")
		if err != nil {
			t.Error(err)
		}
		as = append(as, field(b, "Uid:"), field(b, "CapEff:"), field(b, "Groups:"))
		return judge(w)
	}
	dir := openDir(t)
	if _, err, _ := run(t, o, func(c *exec.Cmd) {
		c.SysProcAttr.Credential = &syscall.Credential{Uid: 41234, Gid: 41234}
	}, "sh", "-c", `echo x >"$1"`, "sh", dir+"/x"); err != nil {
		t.Error(err)
	}
	if len(as) < 3 || as[0] != "41234\t41234\t41234\t41234" || as[1] != "0000000000080000" || as[2] != "" {
		t.Errorf("%q", as)
	}
}
