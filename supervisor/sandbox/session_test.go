//go:build linux

package sandbox

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// gone waits until process pid is no more.
func gone(t *testing.T, pid int) {
	t.Helper()
	for end := time.Now().Add(20 * time.Second); time.Now().Before(end); time.Sleep(time.Millisecond) {
		b, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
		if err != nil || strings.Contains(string(b), ") Z ") {
			return
		}
	}
	t.Errorf("process %d is still there", pid)
}

func TestNothingOutlivesTheSession(t *testing.T) {
	w := newWorld(t)
	r, wr, _ := os.Pipe()
	stdin, hold, _ := os.Pipe()
	w.c.Stdout, w.c.Stdin = wr, stdin
	defer stdin.Close()
	// A daemon as they come: forked twice, in a session of its own.
	s := w.start(t, "sh", "-c", "(setsid sh -c 'echo up; exec sleep 1000' &) ; read x; exit 3")
	_ = wr.Close()
	defer r.Close()
	line := make([]byte, 3)
	io.ReadFull(r, line)
	pids := descendants(s.s.pid)
	hold.Close()
	if e := last(t, s); e.Code != 3 {
		t.Errorf("%+v", e)
	}
	if len(pids) == 0 {
		t.Error("no processes were found")
	}
	for _, p := range append(pids, s.s.pid) {
		gone(t, p)
	}

	s = w.start(t, "sh", "-c", "(setsid sleep 1000 &); exec sleep 1000")
	pids = append(descendants(s.s.pid), s.s.pid)
	s.Close()
	for _, p := range pids {
		gone(t, p)
	}
	if e := last(t, s); e.Kind != Failed {
		t.Errorf("%+v", e)
	}
}

func TestParentDies(t *testing.T) {
	if os.Getenv("GUARD_TEST_PARENT") != "" {
		w := newWorld(t)
		s := w.start(t, "sh", "-c", "(setsid sleep 1000 &); exec sleep 1000")
		fmt.Printf("pids %d %d\n", s.s.pid, s.Pid())
		select {}
	}
	cmd := exec.Command(selfPath(t), "-test.run=^TestParentDies$")
	// Its temporary folders are below this one, which is removed.
	cmd.Env = append(os.Environ(), "GUARD_TEST_PARENT=1", "TMPDIR="+t.TempDir())
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	var init, agent int
	if _, err := fmt.Fscanf(out, "pids %d %d\n", &init, &agent); err != nil || init == 0 || agent == 0 {
		t.Fatalf("%d %d %v", init, agent, err)
	}
	pids := append(descendants(init), init)
	cmd.Process.Kill()
	cmd.Wait()
	for _, p := range pids {
		gone(t, p)
	}
}

func TestNothingIsLeft(t *testing.T) {
	w := newWorld(t)
	fds := func() int {
		names, err := os.ReadDir("/proc/self/fd")
		if err != nil {
			t.Fatal(err)
		}
		return len(names)
	}
	mounts, _ := os.ReadFile("/proc/self/mountinfo")
	w.run(t, "true")
	before := fds()
	n := 100
	if testing.Short() {
		n = 10
	}
	for i := range n {
		w.c.TTY = i%2 == 0
		w.c.Stdout, w.c.Stderr = nil, nil
		s := w.start(t, "true")
		if i%3 == 0 {
			last(t, s)
		}
		s.Close()
		if _, err := Start(context.Background(), func() Config { c := w.c; c.Argv = []string{"not-there"}; return c }()); i%10 == 0 && err == nil {
			t.Error("it started")
		}
	}
	if after := fds(); after > before {
		t.Errorf("%d descriptors before, %d after", before, after)
	}
	if now, _ := os.ReadFile("/proc/self/mountinfo"); string(now) != string(mounts) {
		t.Error("mounts are left")
	}
	var ws unix.WaitStatus
	if pid, err := unix.Wait4(-1, &ws, unix.WNOHANG, nil); err == nil {
		t.Errorf("child %d is left", pid)
	}
}

func TestSignal(t *testing.T) {
	w := newWorld(t)
	r, wr, _ := os.Pipe()
	w.c.Stdout = wr
	s := w.start(t, w.attack("term")...)
	wr.Close()
	io.ReadFull(r, make([]byte, 3))
	r.Close()
	if err := s.Signal(syscall.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	if e := next(t, s); e.Kind != Stopped || e.Signal != syscall.SIGSTOP {
		t.Errorf("%+v", e)
	}
	s.Signal(syscall.SIGCONT)
	if e := next(t, s); e.Kind != Continued {
		t.Errorf("%+v", e)
	}
	s.Signal(syscall.SIGTERM)
	if e := last(t, s); e.Code != 9 {
		t.Errorf("%+v", e)
	}
	if err := s.Close(); err != nil {
		t.Error(err)
	}
	if err := s.Signal(syscall.SIGTERM); err == nil {
		t.Error("signalled a session that is gone")
	}
}

func TestTerminal(t *testing.T) {
	w := newWorld(t)
	w.c.TTY, w.c.Rows, w.c.Cols = true, 33, 111
	s := w.start(t, "sh", "-c", "tty; stty size; ps -o tty= -p $$ ; echo hi >/dev/tty; read line; stty size; echo got $line; exec cat")
	r := bufio.NewReader(s.PTY)
	expect := func(want string) {
		t.Helper()
		for {
			s.PTY.SetReadDeadline(time.Now().Add(20 * time.Second))
			line, err := r.ReadString('\n')
			if strings.TrimSpace(line) == want {
				return
			}
			if err != nil {
				t.Fatalf("no %q: %v", want, err)
			}
		}
	}
	expect("/dev/pts/0")
	expect("33 111")
	expect("hi")
	if err := s.Resize(50, 200); err != nil {
		t.Fatal(err)
	}
	io.WriteString(s.PTY, "typed\n")
	expect("50 200")
	expect("got typed")
	// Ctrl-Z stops, SIGCONT goes on, and cat still has the terminal.
	io.WriteString(s.PTY, "\x1a")
	if e := next(t, s); e.Kind != Stopped || e.Signal != syscall.SIGTSTP {
		t.Fatalf("%+v", e)
	}
	s.Signal(syscall.SIGCONT)
	if e := next(t, s); e.Kind != Continued {
		t.Fatalf("%+v", e)
	}
	io.WriteString(s.PTY, "again\n")
	expect("again")
	io.WriteString(s.PTY, "\x03")
	if e := last(t, s); e.Signal != syscall.SIGINT || e.Code != 130 {
		t.Errorf("%+v", e)
	}
}

// All that an agent writes before it ends arrives.
func TestTerminalLosesNothing(t *testing.T) {
	w := newWorld(t)
	w.c.TTY = true
	s := w.start(t, "sh", "-c", "seq 1 30000; echo end")
	b, _ := io.ReadAll(s.PTY)
	if !strings.HasSuffix(strings.TrimSpace(string(b)), "30000\r\nend") || strings.Count(string(b), "\n") != 30001 {
		t.Errorf("%d lines arrived", strings.Count(string(b), "\n"))
	}
	last(t, s)
}
