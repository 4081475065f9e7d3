//go:build linux

package sandbox

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

// The test binary is three programs: the tests, the stages of the sandbox that
// they start, and the attacker that runs inside (attacks_test.go).
func TestMain(m *testing.M) {
	if handled, code := Stage(os.Args); handled {
		os.Exit(code)
	}
	if len(os.Args) > 1 && strings.HasPrefix(os.Args[1], "@") {
		os.Exit(attacker(os.Args[1][1:], os.Args[2:]))
	}
	os.Exit(m.Run())
}

// outsider is a uid that nobody has, for the tests of an ordinary user.
const outsider = 41234

// TestOrdinaryUser runs all tests of this package again as an ordinary user.
func TestOrdinaryUser(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("this is the ordinary user")
	}
	home := t.TempDir()
	for d := home; d != "/tmp" && d != "/"; d = filepath.Dir(d) {
		if err := os.Chmod(d, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Chown(home, outsider, outsider); err != nil {
		t.Fatal(err)
	}
	exe := filepath.Join(filepath.Dir(home), "sandbox.test")
	copyFile(t, exe, "/proc/self/exe")
	cmd := exec.Command(exe, "-test.v="+fmt.Sprint(testing.Verbose()))
	cmd.Dir = home
	cmd.Env = []string{"HOME=" + home, "TMPDIR=" + home, "PATH=" + os.Getenv("PATH"), "USER=outsider"}
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: outsider, Gid: outsider}}
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Errorf("as an ordinary user: %v", err)
	}
	t.Logf("%s", out)
}

func copyFile(t testing.TB, to, from string) {
	t.Helper()
	b, err := os.ReadFile(from)
	if err == nil {
		err = os.WriteFile(to, b, 0o755)
	}
	if err != nil {
		t.Fatal(err)
	}
}

// world is what a test's agent sees of the host.
type world struct {
	dir  string // working folder
	home string
	bin  string // the attacker
	c    Config
}

func newWorld(t testing.TB) *world {
	t.Helper()
	top := t.TempDir()
	w := &world{dir: filepath.Join(top, "project"), home: filepath.Join(top, "home"), bin: filepath.Join(top, "bin")}
	for _, d := range []string{w.dir, w.home, w.bin} {
		if err := os.Mkdir(d, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Link(selfPath(t), filepath.Join(w.bin, "attacker")); err != nil {
		copyFile(t, filepath.Join(w.bin, "attacker"), "/proc/self/exe")
	}
	w.c = Config{
		Dir: w.dir, Home: w.home, Writable: []string{w.dir, w.bin},
		Env: []string{"PATH=/usr/local/bin:/usr/bin:/bin:/usr/sbin:/sbin", "HOME=" + w.home, "TERM=xterm"},
	}
	return w
}

func selfPath(t testing.TB) string {
	p, err := os.Readlink("/proc/self/exe")
	if err != nil {
		t.Fatal(err)
	}
	return p
}

func (w *world) attack(name string, args ...string) []string {
	return append([]string{filepath.Join(w.bin, "attacker"), "@" + name}, args...)
}

// start starts argv, and closes the sandbox when the test ends.
func (w *world) start(t testing.TB, argv ...string) *Sandbox {
	t.Helper()
	c := w.c
	c.Argv = argv
	if c.Boundary == "" {
		c.Boundary = "namespace"
	}
	s, err := Start(context.Background(), c)
	if err != nil {
		t.Fatalf("start %q: %v", argv, err)
	}
	t.Cleanup(func() { s.Close() })
	return s
}

// run runs argv to its end and returns what it wrote and its end.
func (w *world) run(t testing.TB, argv ...string) (string, Event) {
	t.Helper()
	r, wr, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	w.c.Stdout, w.c.Stderr = wr, wr
	s := w.start(t, argv...)
	wr.Close()
	out, err := io.ReadAll(r)
	if err != nil {
		t.Fatal(err)
	}
	e := last(t, s)
	s.Close()
	return string(bytes.TrimSpace(out)), e
}

func (w *world) sh(t testing.TB, script string) string {
	t.Helper()
	out, e := w.run(t, "sh", "-c", script)
	if e.Kind != Exited || e.Code != 0 {
		t.Errorf("%s: %v %d %v: %s", script, e.Kind, e.Code, e.Err, out)
	}
	return out
}

// next waits for an event.
func next(t testing.TB, s *Sandbox) Event {
	t.Helper()
	select {
	case e, ok := <-s.Events():
		if !ok {
			t.Fatal("no more events")
		}
		return e
	case <-time.After(30 * time.Second):
		t.Fatal("no event")
	}
	panic("unreachable")
}

func last(t testing.TB, s *Sandbox) Event {
	t.Helper()
	for {
		if e := next(t, s); e.Kind == Exited || e.Kind == Failed {
			return e
		}
	}
}

func TestExitStatus(t *testing.T) {
	w := newWorld(t)
	for _, c := range []struct {
		script string
		want   Event
	}{
		{"exit 0", Event{Kind: Exited}},
		{"exit 7", Event{Kind: Exited, Code: 7}},
		{"kill -KILL $$", Event{Kind: Exited, Code: 137, Signal: syscall.SIGKILL}},
		{"kill -SEGV $$", Event{Kind: Exited, Code: 139, Signal: syscall.SIGSEGV}},
	} {
		if _, got := w.run(t, "sh", "-c", c.script); got != c.want {
			t.Errorf("%s: got %+v, want %+v", c.script, got, c.want)
		}
	}
}

func TestNotStarted(t *testing.T) {
	w := newWorld(t)
	script := filepath.Join(w.dir, "noexec")
	if err := os.WriteFile(script, []byte("#!/bin/sh\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(w.dir, "badinterp"), []byte("#!/no/such\n"), 0o755); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		argv []string
		dir  string
		code int
	}{
		{[]string{"no-such-program"}, w.dir, 127},
		{[]string{"/no/such/program"}, w.dir, 127},
		{[]string{script}, w.dir, 126},
		{[]string{w.dir}, w.dir, 126},
		{[]string{"./badinterp"}, w.dir, 126},
		{[]string{"true"}, "/no/such/folder", 125},
		{nil, w.dir, 125},
	} {
		cfg := w.c
		cfg.Argv, cfg.Dir, cfg.Boundary = c.argv, c.dir, "namespace"
		s, err := Start(context.Background(), cfg)
		var se *StartError
		if err == nil {
			s.Close()
		}
		if !errors.As(err, &se) || se.Code != c.code {
			t.Errorf("%q in %s: got %v, want status %d", c.argv, c.dir, err, c.code)
		}
	}
}

func TestFilesBelongToTheCaller(t *testing.T) {
	w := newWorld(t)
	w.sh(t, "echo hi >made && mkdir sub && echo there >sub/made")
	for _, name := range []string{"made", "sub", "sub/made"} {
		st, err := os.Stat(filepath.Join(w.dir, name))
		if err != nil {
			t.Fatal(err)
		}
		sys := st.Sys().(*syscall.Stat_t)
		if int(sys.Uid) != os.Getuid() || int(sys.Gid) != os.Getgid() {
			t.Errorf("%s belongs to %d:%d", name, sys.Uid, sys.Gid)
		}
	}
}
