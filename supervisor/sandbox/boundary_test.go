//go:build linux

package sandbox

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
)

const canary = "canary-5a1f-secret"

// holds runs an attack and fails for every line that says BROKEN.
func (w *world) holds(t *testing.T, name string, args ...string) string {
	t.Helper()
	out, e := w.run(t, w.attack(name, args...)...)
	if e.Kind != Exited || e.Code != 0 || out == "" {
		t.Errorf("attack %s ended by %v %d %v", name, e.Kind, e.Code, e.Err)
	}
	for line := range strings.Lines(out) {
		if strings.Contains(line, "BROKEN") {
			t.Errorf("%s: %s", name, line)
		}
	}
	if t.Failed() || testing.Verbose() {
		t.Logf("%s", out)
	}
	return out
}

func TestAgentHasNoPowers(t *testing.T) {
	w := newWorld(t)
	out := w.holds(t, "status")
	status := map[string]string{}
	for line := range strings.Lines(out) {
		k, v, _ := strings.Cut(line, ":")
		status[k] = strings.TrimSpace(v)
	}
	for _, set := range []string{"CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"} {
		if status[set] != "0000000000000000" {
			t.Errorf("%s: %s", set, status[set])
		}
	}
	if status["NoNewPrivs"] != "1" || status["Seccomp"] != "2" {
		t.Errorf("no_new_privs %s, seccomp %s", status["NoNewPrivs"], status["Seccomp"])
	}
	want := os.Getuid()
	if want == 0 {
		want = agentUID()
	}
	for _, f := range strings.Fields(status["Uid"]) {
		if f != strconv.Itoa(want) || f == "0" {
			t.Errorf("uid %s, want %d", f, want)
		}
	}
	if os.Getuid() == 0 && status["Groups"] != "" {
		t.Errorf("groups %q", status["Groups"])
	}
}

func TestSystemCalls(t *testing.T) {
	w := newWorld(t)
	w.holds(t, "syscalls")
	w.holds(t, "abi")
	w.holds(t, "sockets")
	w.holds(t, "kernel")
	w.holds(t, "setuid")
	w.holds(t, "limits")
	w.holds(t, "mounts", w.dir, w.home, w.bin)
	w.c.NoZeroCopy = true
	w.holds(t, "zerocopy")
	w.c.NoZeroCopy = false
	w.sh(t, "cp /etc/passwd copied && cmp /etc/passwd copied")
}

func TestProcesses(t *testing.T) {
	w := newWorld(t)
	victim := exec.Command("sleep", "1000")
	if err := victim.Start(); err != nil {
		t.Fatal(err)
	}
	defer victim.Wait()
	defer victim.Process.Kill()
	out := w.holds(t, "processes", strconv.Itoa(victim.Process.Pid))
	if !strings.Contains(out, "still here") {
		t.Errorf("the session ended early: %s", out)
	}
	if got := w.sh(t, "ls -d /proc/[0-9]* | wc -l"); got > "9" || len(got) > 1 {
		t.Errorf("%s processes in /proc", got)
	}
	if err := victim.Process.Signal(syscall.Signal(0)); err != nil {
		t.Errorf("the host's process is gone: %v", err)
	}
}

func TestHidden(t *testing.T) {
	// What is hidden, and the name by which the agent tries it, below the top.
	for _, c := range []struct{ hide, try, holds string }{
		{"project/config/.env", "project/config/.env", "project/config/.env"},
		{"home/.ssh", "home/.ssh/id", "home/.ssh/id"},
		{"home/.netrc", "home/.netrc", "home/.netrc"},
		{"project/link", "project/link", "project/real"},
		{"project/link", "project/real", "project/real"},
		{"vault", "vault/v", "vault/v"},
	} {
		for _, attack := range []string{"hidden", "unmask"} {
			w := newWorld(t)
			top := filepath.Dir(w.dir)
			content := func(p string) string {
				if p == filepath.Join(top, c.holds) {
					return canary
				}
				return "nothing"
			}
			var files []string
			for _, p := range []string{"project/config/.env", "home/.ssh/id", "home/.netrc", "project/real", "vault/v"} {
				p = filepath.Join(top, p)
				files = append(files, p)
				if err := os.MkdirAll(filepath.Dir(p), 0o755); err != nil {
					t.Fatal(err)
				}
				if err := os.WriteFile(p, []byte(content(p)), 0o600); err != nil {
					t.Fatal(err)
				}
			}
			if err := os.Symlink("real", filepath.Join(w.dir, "link")); err != nil {
				t.Fatal(err)
			}
			w.c.Hidden = []string{filepath.Join(top, c.hide), filepath.Join(w.dir, "not-there")}
			w.holds(t, attack, filepath.Join(top, c.try), canary)
			for _, p := range files {
				if b, err := os.ReadFile(p); string(b) != content(p) {
					t.Errorf("%s: the host's file is changed: %q %v", p, b, err)
				}
			}
		}
	}
	// The attack finds what is not hidden.
	w := newWorld(t)
	p := filepath.Join(w.dir, "open")
	if err := os.WriteFile(p, []byte(canary), 0o600); err != nil {
		t.Fatal(err)
	}
	if out, _ := w.run(t, w.attack("hidden", p, canary)...); !strings.Contains(out, "BROKEN") {
		t.Errorf("the attack does not work: %s", out)
	}
}

func TestPlaceholderCopies(t *testing.T) {
	w := newWorld(t)
	env, rc := filepath.Join(w.dir, ".env"), filepath.Join(w.home, ".npmrc")
	for _, p := range []string{env, rc} {
		if err := os.WriteFile(p, []byte(canary), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	w.c.Files = []File{{Path: env, Content: []byte("KEY=placeholder")}, {Path: rc, Content: []byte("token=placeholder"), Mode: 0o400},
		{Path: filepath.Join(w.home, "new", "ca.pem"), Content: []byte("bundle")}}
	out := w.sh(t, "cat .env ~/.npmrc ~/new/ca.pem; echo x >.env || echo refused; stat -c %a ~/.npmrc")
	if !strings.Contains(out, "KEY=placeholdertoken=placeholderbundle") || !strings.Contains(out, "refused") || !strings.HasSuffix(out, "400") {
		t.Error(out)
	}
	w.holds(t, "hidden", env, canary)
	w.holds(t, "unmask", rc, canary)
}

func TestReadOnlyInside(t *testing.T) {
	w := newWorld(t)
	file := filepath.Join(w.dir, "guard.toml")
	if err := os.WriteFile(file, []byte("keep"), 0o644); err != nil {
		t.Fatal(err)
	}
	w.c.ReadOnly = []string{file}
	w.sh(t, "echo x >guard.toml; rm -f guard.toml; mv guard.toml other; chmod 777 guard.toml; echo ok >other-file")
	if b, _ := os.ReadFile(file); string(b) != "keep" {
		t.Errorf("%q", b)
	}
}

func TestHomeIsAnOverlay(t *testing.T) {
	w := newWorld(t)
	if err := os.WriteFile(filepath.Join(w.home, "settings"), []byte("host"), 0o600); err != nil {
		t.Fatal(err)
	}
	w.c.HomeUpper = filepath.Join(filepath.Dir(w.home), "upper")
	if err := os.Mkdir(w.c.HomeUpper, 0o700); err != nil {
		t.Fatal(err)
	}
	if out := w.sh(t, "cat ~/settings; echo agent >~/settings; mkdir -p ~/.cache/x; echo y >~/.cache/x/y; rm -rf ~/gone; cat ~/settings"); out != "hostagent" {
		t.Error(out)
	}
	if out := w.sh(t, "cat ~/settings ~/.cache/x/y"); out != "agent\ny" {
		t.Errorf("not kept: %s", out)
	}
	if b, _ := os.ReadFile(filepath.Join(w.home, "settings")); string(b) != "host" {
		t.Errorf("the host's home is written: %q", b)
	}
	if names, _ := os.ReadDir(w.home); len(names) != 1 {
		t.Errorf("the host's home is written: %v", names)
	}
	// A second session at the same time gets a layer of its own.
	s := w.start(t, "sleep", "1000")
	if out := w.sh(t, "cat ~/settings; echo other >~/settings"); out != "host" {
		t.Error(out)
	}
	s.Close()
	if out := w.sh(t, "cat ~/settings"); out != "agent" {
		t.Error(out)
	}
	w.c.HomeUpper = ""
	if out := w.sh(t, "cat ~/settings; echo x >~/settings"); out != "host" {
		t.Error(out)
	}
	w.c.Files = []File{}
	if out := w.sh(t, "getent passwd $(id -u) | cut -d: -f3; stat -c %u /etc/ssh/ssh_config; cat /etc/resolv.conf"); !strings.HasPrefix(out, w.sh(t, "id -u; id -u")) {
		t.Errorf("users: %s", out)
	}
}

func TestHostSocketsAreOutOfReach(t *testing.T) {
	w := newWorld(t)
	tcp, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer tcp.Close()
	args := []string{"tcp:" + tcp.Addr().String(), "unix:@guard-test-abstract"}
	abstract, err := net.Listen("unix", "@guard-test-abstract"+strconv.Itoa(os.Getpid()))
	if err != nil {
		t.Fatal(err)
	}
	defer abstract.Close()
	args[1] = "unix:@guard-test-abstract" + strconv.Itoa(os.Getpid())
	for _, dir := range []string{w.dir, w.home, filepath.Dir(w.dir), "/tmp", "/run", "/var/lib"} {
		p := filepath.Join(dir, "guard-test-"+strconv.Itoa(os.Getpid())+".sock")
		l, err := net.Listen("unix", p)
		if err != nil {
			continue // only root may write there
		}
		defer l.Close()
		if err := os.Chmod(p, 0o777); err != nil {
			t.Fatal(err)
		}
		args = append(args, "unix:"+p)
	}
	w.holds(t, "connect", args...)
}

// echo answers one line on every connection with where it came for.
func echo(l net.Listener, got chan<- string) {
	for {
		c, err := l.Accept()
		if err != nil {
			return
		}
		line, _ := bufio.NewReader(c).ReadString('\n')
		gc := c.(*Conn)
		pid, exe := gc.Process()
		fmt.Fprintf(c, "dst=%s", gc.Dst())
		c.Close()
		got <- fmt.Sprintf("%s|%s|%t|%s", strings.TrimSpace(line), gc.Dst(), pid > 0, filepath.Base(exe))
	}
}

func TestNetworkIsHandedOver(t *testing.T) {
	w := newWorld(t)
	free, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	port := free.Addr().(*net.TCPAddr).Port
	free.Close()
	w.c.HostPorts = []int{port}
	r, wr, _ := os.Pipe()
	w.c.Stdout, w.c.Stderr = wr, wr
	tcps := []string{"tcp:1.2.3.4:9", "tcp:203.0.113.77:443", "tcp6:[2001:db8::1]:8443"}
	udps := []string{"udp:8.8.8.8:53", "udp:127.0.0.1:53", "udp:127.0.0.53:53", "udp6:[2001:4860:4860::8888]:53"}
	argv := w.attack("ask", append(append(slices.Clone(tcps), udps...), "tcp:9.9.9.9:53", fmt.Sprintf("tcp:127.0.0.1:%d", port))...)
	s := w.start(t, argv...)
	wr.Close()
	defer r.Close()
	got := make(chan string, 100)
	for _, l := range []net.Listener{s.TCP, s.DNSTCP, s.HostPort[port]} {
		go echo(l, got)
	}
	go func() {
		b := make([]byte, 1500)
		for {
			n, from, err := s.DNSUDP.ReadFrom(b)
			if err != nil {
				return
			}
			s.DNSUDP.WriteTo([]byte("answer to "+string(b[:n])), from)
		}
	}()
	out, _ := io.ReadAll(r)
	last(t, s)
	if strings.Contains(string(out), "BROKEN") || strings.Contains(string(out), "refused") {
		t.Errorf("%s", out)
	}
	for _, a := range udps {
		if !strings.Contains(string(out), a+": answer to hello from "+a) {
			t.Errorf("%s was not answered: %s", a, out)
		}
	}
	var all []string
	for range len(tcps) + 2 {
		all = append(all, <-got)
	}
	for _, want := range []string{
		"hello from tcp:1.2.3.4:9|1.2.3.4:9|true|attacker", "hello from tcp:203.0.113.77:443|203.0.113.77:443|true|attacker",
		"hello from tcp6:[2001:db8::1]:8443|[2001:db8::1]:8443|true|attacker", "hello from tcp:9.9.9.9:53|9.9.9.9:53|true|attacker",
		fmt.Sprintf("hello from tcp:127.0.0.1:%d|127.0.0.1:%d|true|attacker", port, port),
	} {
		if !slices.Contains(all, want) {
			t.Errorf("no %s in %s", want, all)
		}
	}
}

func TestProxyPort(t *testing.T) {
	w := newWorld(t)
	r, wr, _ := os.Pipe()
	in, tell, _ := os.Pipe()
	w.c.Stdout, w.c.Stdin = wr, in
	s := w.start(t, "sh", "-c", "read port; exec "+strings.Join(w.attack("ask", "tcp:127.0.0.1:$port"), " "))
	wr.Close()
	in.Close()
	got := make(chan string, 1)
	go echo(s.TCP, got)
	fmt.Fprintln(tell, ProxyPort)
	tell.Close()
	if want := fmt.Sprintf("127.0.0.1:%d", ProxyPort); !strings.Contains(<-got, want+"|true|attacker") {
		t.Errorf("no connection to %s", want)
	}
	last(t, s)
	r.Close()
}

func TestDial(t *testing.T) {
	for _, addr := range []string{"127.0.0.1:4321", "[::1]:4321"} {
		w := newWorld(t)
		r, wr, _ := os.Pipe()
		w.c.Stdout = wr
		s := w.start(t, w.attack("serve", addr)...)
		wr.Close()
		if line, _ := bufio.NewReader(r).ReadString('\n'); line != "listening\n" {
			t.Fatal(line)
		}
		r.Close()
		if _, err := s.Dial(context.Background(), 4322); err == nil {
			t.Error("connected to a port where nobody listens")
		}
		c, err := s.Dial(context.Background(), 4321)
		if err != nil {
			t.Fatal(err)
		}
		fmt.Fprint(c, "ping")
		c.(*net.TCPConn).CloseWrite()
		if b, err := io.ReadAll(c); string(b) != "ping" {
			t.Errorf("%q %v", b, err)
		}
		c.Close()
		if e := last(t, s); e.Code != 0 {
			t.Errorf("%+v", e)
		}
		if _, err := s.Dial(context.Background(), 4321); err == nil {
			t.Error("connected after the end")
		}
	}
}

func TestInheritsNothing(t *testing.T) {
	w := newWorld(t)
	var fds map[string]string
	out := w.holds(t, "fds")
	if err := json.Unmarshal([]byte(out), &fds); err != nil {
		t.Fatal(err)
	}
	for n, to := range fds {
		if n > "2" || len(n) > 1 {
			t.Errorf("descriptor %s is %s", n, to)
		}
	}
	if fds["0"] != "/dev/null" {
		t.Errorf("standard input is %s", fds["0"])
	}
}

func TestStdinIsPassed(t *testing.T) {
	w := newWorld(t)
	r, wr, _ := os.Pipe()
	w.c.Stdin = r
	go func() { io.WriteString(wr, "from outside"); wr.Close() }()
	if out := w.sh(t, "cat"); out != "from outside" {
		t.Error(out)
	}
	r.Close()
}
