//go:build linux

package sandbox

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"
)

func TestProbeAgreesWithStart(t *testing.T) {
	r := Probe()
	for _, c := range r.Checks {
		t.Logf("%t %s: %s", c.OK, c.Name, c.Reason)
		if c.Reason == "" {
			t.Errorf("%s has no reason", c.Name)
		}
	}
	w := newWorld(t)
	w.c.Boundary = "auto"
	s := w.start(t, "true")
	if s.Tier != r.Tier {
		t.Errorf("Probe says %s, Start %s: %s", r.Tier, s.Tier, s.Notes)
	}
	last(t, s)
}

func TestUnknownBoundary(t *testing.T) {
	w := newWorld(t)
	w.c.Boundary, w.c.Argv = "strong", []string{"true"}
	if _, err := Start(context.Background(), w.c); err == nil || Unavailable(err) && !strings.Contains(err.Error(), "strong") {
		t.Error(err)
	}
}

// needLandlock skips where the kernel is too old for the restricted tier.
func needLandlock(t *testing.T) {
	t.Helper()
	w := newWorld(t)
	w.c.Boundary, w.c.Argv = "landlock", []string{"true"}
	s, err := Start(context.Background(), w.c)
	if errors.Is(err, errors.ErrUnsupported) && landlockABI() < 4 {
		t.Skip(err)
	}
	if err != nil {
		t.Fatal(err)
	}
	s.Close()
}

func TestRestricted(t *testing.T) {
	needLandlock(t)
	w := newWorld(t)
	w.c.Boundary = "landlock"
	proxy, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer proxy.Close()
	go func() {
		for {
			c, err := proxy.Accept()
			if err != nil {
				return
			}
			fmt.Fprint(c, "from the proxy")
			c.Close()
		}
	}()
	other, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer other.Close()
	w.c.ProxyAddr = proxy.Addr().String()
	key := filepath.Join(w.home, ".ssh", "id")
	rc := filepath.Join(w.home, ".npmrc")
	for _, p := range []string{key, rc, filepath.Join(w.home, "open")} {
		os.MkdirAll(filepath.Dir(p), 0o700)
		if err := os.WriteFile(p, []byte(canary), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	w.c.Hidden = []string{filepath.Dir(key)}
	w.c.Files = []File{{Path: rc, Content: []byte("placeholder")}}
	for _, p := range []string{key, rc} {
		if out := w.sh(t, "cat "+p+" || echo refused; cat ~/open; echo x >made; cat made; echo x >~/no || echo read-only"); strings.Contains(strings.Replace(out, canary, "", 1), canary) ||
			!strings.Contains(out, "refused") || !strings.Contains(out, "read-only") || !strings.Contains(out, canary+"x") {
			t.Error(out)
		}
	}
	if out, _ := w.run(t, w.attack("ask", "tcp:"+w.c.ProxyAddr)...); !strings.Contains(out, "from the proxy") {
		t.Error(out)
	}
	sock := filepath.Join(w.dir, "sock")
	l, err := net.Listen("unix", sock)
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	w.holds(t, "connect", "tcp:"+other.Addr().String(), "tcp:1.2.3.4:9", "udp:127.0.0.1:53", "unix:"+sock, "unix:@abstract")
	w.holds(t, "syscalls")
	w.holds(t, "sockets-restricted")
	out := w.holds(t, "status")
	for _, want := range []string{"CapEff:\t0000000000000000", "CapBnd:\t0000000000000000", "NoNewPrivs:\t1", "Seccomp:\t2"} {
		if !strings.Contains(out, want) && !(os.Getuid() != 0 && strings.HasPrefix(want, "CapBnd")) {
			t.Errorf("no %s", want)
		}
	}
	out, _ = w.run(t, "true")
	s := w.start(t, "true")
	if s.Tier != Restricted || s.TCP != nil || !slices.ContainsFunc(s.Notes, func(n string) bool { return strings.Contains(n, "Unix sockets") }) {
		t.Errorf("%s %s", s.Tier, s.Notes)
	}
}

func TestLowerTiersEndWithEverything(t *testing.T) {
	for _, boundary := range []string{"landlock", "proxy", "none"} {
		if boundary == "landlock" {
			needLandlock(t)
		}
		w := newWorld(t)
		w.c.Boundary, w.c.TTY = boundary, true
		s := w.start(t, "sh", "-c", "stty -echo; (setsid sh -c 'exec sleep 1000' &); tty; read x; exec sleep 1000")
		b := make([]byte, 100)
		n, err := s.PTY.Read(b)
		if !strings.HasPrefix(string(b[:n]), "/dev/pts/") {
			t.Errorf("%s: %q %v", boundary, b[:n], err)
		}
		if s.Pid() == 0 {
			t.Errorf("%s: no process id", boundary)
		}
		pids := append(descendants(s.s.pid), s.s.pid)
		io.WriteString(s.PTY, "\x1a")
		if e := next(t, s); e.Kind != Stopped {
			t.Errorf("%s: %+v", boundary, e)
		}
		s.Signal(syscall.SIGCONT)
		if e := next(t, s); e.Kind != Continued {
			t.Errorf("%s: %+v", boundary, e)
		}
		s.Close()
		for _, p := range pids {
			gone(t, p)
		}
		if _, e := w.run(t, "sh", "-c", "exit 5"); e.Code != 5 {
			t.Errorf("%s: %+v", boundary, e)
		}
		if _, err := Start(context.Background(), func() Config { c := w.c; c.Argv = []string{"not-there"}; return c }()); err == nil || err.(*StartError).Code != 127 {
			t.Errorf("%s: %v", boundary, err)
		}
	}
}

// An agent that stops stage 1 does not make Close wait for ever.
func TestStoppedStage(t *testing.T) {
	w := newWorld(t)
	w.c.Boundary = "none"
	in, tell, _ := os.Pipe()
	defer in.Close()
	w.c.Stdin = in
	s := w.start(t, "sh", "-c", "read x; kill -STOP $PPID; exec sleep 1000")
	fmt.Fprintln(tell, "go")
	tell.Close()
	pids := append(descendants(s.s.pid), s.s.pid)
	s.Close()
	for _, p := range pids {
		gone(t, p)
	}
}

// Root's folders that nobody else may enter are shared through idmapped mounts
// all the same, and nothing around them is.
func TestFoldersThatOnlyRootMayEnter(t *testing.T) {
	if os.Getuid() != 0 {
		t.Skip("an ordinary user has none")
	}
	top, err := os.MkdirTemp("/var/lib", "guard-test-")
	if err != nil {
		t.Fatal(err)
	}
	defer os.RemoveAll(top)
	w := newWorld(t)
	w.dir, w.home = filepath.Join(top, "a", "project"), filepath.Join(top, "home")
	w.c.Home, w.c.Dir, w.c.Writable = w.home, w.dir, []string{w.dir, w.bin}
	for _, d := range []string{w.dir, w.home} {
		if err := os.MkdirAll(d, 0o700); err != nil {
			t.Fatal(err)
		}
	}
	for _, p := range []string{filepath.Join(top, "secret"), filepath.Join(top, "a", "secret"), filepath.Join(w.home, "mine")} {
		if err := os.WriteFile(p, []byte(canary), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	out := w.sh(t, "pwd; echo x >made; cat "+top+"/secret "+top+"/a/secret; cat "+w.home+"/mine; echo y >"+w.home+"/new; ls "+top)
	if !strings.HasPrefix(out, w.dir) || strings.Count(out, canary) != 1 {
		t.Error(out)
	}
	st, err := os.Stat(filepath.Join(w.dir, "made"))
	if err != nil || st.Sys().(*syscall.Stat_t).Uid != 0 {
		t.Error(err)
	}
	w.holds(t, "mounts", w.dir, w.home, w.bin, top, filepath.Join(top, "a"))
}

// A file system that cannot be idmapped is a refusal, not a weaker tier.
func TestNoIdmap(t *testing.T) {
	if os.Getuid() != 0 {
		t.Skip("an ordinary user needs no idmapped mounts")
	}
	w := newWorld(t)
	odd := filepath.Join(w.dir, "ramfs")
	if err := os.Mkdir(odd, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := unix.Mount("ramfs", odd, "ramfs", 0, ""); err != nil {
		t.Fatal(err)
	}
	defer unix.Unmount(odd, unix.MNT_DETACH)
	w.c.Boundary, w.c.Argv, w.c.Writable = "auto", []string{"true"}, append(w.c.Writable, odd)
	s, err := Start(context.Background(), w.c)
	if err == nil {
		s.Close()
		t.Fatalf("started as %s", s.Tier)
	}
	if !errors.Is(err, errors.ErrUnsupported) || Unavailable(err) || !strings.Contains(err.Error(), "ordinary user") {
		t.Error(err)
	}
}

func TestAliases(t *testing.T) {
	mounts := []mount{{"8:1", "/", "/"}, {"8:2", "/", "/data"}, {"8:1", "/home/u/src", "/srv/src"}, {"8:2", "/p", "/home/u/p"}, {"8:2", "/other", "/mnt"}, {"0:5", "/", "/proc"}}
	for _, c := range []struct{ path, want string }{
		{"/home/u/src/.env", "[/srv/src/.env]"},
		{"/srv/src/.env", "[/home/u/src/.env]"},
		{"/home/u/p/.env", "[/data/p/.env]"},
		{"/data/p", "[/home/u/p]"},
		{"/data/x", "[]"},
		{"/etc/x", "[]"},
		{"/home/u/srcs", "[]"},
	} {
		if got := fmt.Sprint(aliases(mounts, c.path)); got != c.want {
			t.Errorf("%s: %s, want %s", c.path, got, c.want)
		}
	}
}

func TestPlanRefuses(t *testing.T) {
	w := newWorld(t)
	hidden := filepath.Join(w.home, "vault")
	os.MkdirAll(filepath.Join(hidden, "in"), 0o755)
	for name, change := range map[string]func(*Config){
		"relative":     func(c *Config) { c.Writable = []string{"x"} },
		"whole":        func(c *Config) { c.Writable = []string{"/"} },
		"hidden":       func(c *Config) { c.Hidden, c.Writable = []string{hidden}, []string{filepath.Join(hidden, "in")} },
		"port 53":      func(c *Config) { c.HostPorts = []int{53} },
		"proxy's port": func(c *Config) { c.HostPorts = []int{ProxyPort} },
		"no argv":      func(c *Config) { c.Argv = nil },
		"no folder":    func(c *Config) { c.Dir = "" },
	} {
		c := w.c
		c.Argv = []string{"true"}
		change(&c)
		s, err := Start(context.Background(), c)
		if err == nil {
			s.Close()
		}
		if err == nil || Unavailable(err) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// What a tier cannot do for a configuration is an error: a project cannot have
// its agent run in a weaker one.
func TestNoWeakerTierByConfiguration(t *testing.T) {
	w := newWorld(t)
	sock := filepath.Join(w.dir, "sock")
	l, err := net.Listen("unix", sock)
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	deep := w.dir + "/" + strings.Repeat(strings.Repeat("x", 250)+"/", 20) + ".env"
	for name, change := range map[string]func(*Config){
		"proc":          func(c *Config) { c.Writable = append(c.Writable, "/proc/sys") },
		"proc as dir":   func(c *Config) { c.Dir = "/proc/self/fd" },
		"sys":           func(c *Config) { c.Writable = append(c.Writable, "/sys/kernel") },
		"cgroup":        func(c *Config) { c.Dir = "/sys/fs/cgroup" },
		"dev":           func(c *Config) { c.Dir = "/dev" },
		"dev/shm":       func(c *Config) { c.Writable = append(c.Writable, "/dev/shm") },
		"device":        func(c *Config) { c.Writable = append(c.Writable, "/dev/null") },
		"run":           func(c *Config) { c.Dir = "/run" },
		"dir is a file": func(c *Config) { c.Dir = filepath.Join(w.bin, "attacker") },
		"upper":         func(c *Config) { c.HomeUpper = "/proc/sys" },
		"long mask":     func(c *Config) { c.Files = []File{{Path: deep}} },
		"NUL":           func(c *Config) { c.Files = []File{{Path: w.dir + "/a\x00b"}} },
		"NUL argv":      func(c *Config) { c.Argv = []string{"/bin/true", "a\x00b"} },
		"too long":      func(c *Config) { c.Argv = []string{"/bin/true", strings.Repeat("x", 65<<20)} },
		"not there":     func(c *Config) { c.Argv = []string{"no-such-program"} },
		"boundary":      func(c *Config) { c.Boundary = "strong" },
	} {
		c := w.c
		c.Argv, c.Boundary, c.Writable = []string{"true"}, "auto", slices.Clone(c.Writable)
		change(&c)
		s, err := Start(context.Background(), c)
		if err == nil {
			if s.Tier != Contained {
				t.Errorf("%s: fell back to %s: %s", name, s.Tier, s.Notes)
			} else if name != "long mask" && name != "NUL" {
				t.Errorf("%s: it started", name)
			}
			s.Close()
			continue
		}
		if Unavailable(err) {
			t.Errorf("%s: would fall back: %v", name, err)
		}
	}
	w.c.Writable = append(w.c.Writable, sock) // a service that is shared on purpose
	last(t, w.start(t, "true"))
}

func TestUnavailable(t *testing.T) {
	for err, want := range map[error]bool{
		lackingNamespaces(unix.ENOSPC):                 true,
		lackingNamespaces(unix.EUSERS):                 true,
		lackingNamespaces(unix.EPERM):                  true,
		lackingNamespaces(unix.EAGAIN):                 false,
		lackingNamespaces(unix.ENOMEM):                 false,
		lacking(unix.ENOSPC):                           false,
		lacking(unix.ENOSYS):                           true,
		lacking(errors.ErrUnsupported):                 true,
		unix.EPERM:                                     false,
		errors.ErrUnsupported:                          false,
		lackError{fmt.Errorf("share: %w", errNoIdmap)}: false,
	} {
		if got := Unavailable(&StartError{125, "x", err}); got != want {
			t.Errorf("%v: %t", err, got)
		}
		// It survives the way from stage 1.
		if got := Unavailable(failed("x", err).message().err()); got != want && !errors.Is(err, errNoIdmap) {
			t.Errorf("%v over the wire: %t", err, got)
		}
	}
}

// Other names of hidden files are told of.
func TestHardLinksAreNoted(t *testing.T) {
	w := newWorld(t)
	p := filepath.Join(w.dir, ".env")
	if err := os.WriteFile(p, []byte(canary), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Link(p, filepath.Join(w.dir, "other")); err != nil {
		t.Fatal(err)
	}
	w.c.Hidden = []string{p}
	s := w.start(t, "true")
	if !slices.ContainsFunc(s.Notes, func(n string) bool { return strings.Contains(n, "2 hard links") }) {
		t.Error(s.Notes)
	}
}

// Without nftables one listener stands for several.
func TestMergedListeners(t *testing.T) {
	var all []net.Listener
	for range 3 {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, l)
	}
	m := merge(all)
	for _, l := range all {
		c, err := net.Dial("tcp", l.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		got, err := m.Accept()
		if err != nil || got.LocalAddr().String() != l.Addr().String() {
			t.Errorf("%v %v", got, err)
		}
		got.Close()
		c.Close()
	}
	m.Close()
	if _, err := m.Accept(); !errors.Is(err, net.ErrClosed) {
		t.Error(err)
	}
}
