package ssh

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"os/exec"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	xssh "golang.org/x/crypto/ssh"

	"guard"
	"guard/broker"
	"guard/internal/testutil"
)

const leak = "value-5d1e77aa0c9b4f21"

// lane is a gateway with a server behind it that runs commands with sh.
type lane struct {
	*world
	g      *Gateway
	decide func(guard.Use) guard.Decision
	ran    chan string // commands
	client func() *xssh.Client
}

func newLane(t testing.TB) *lane {
	t.Helper()
	w := newWorld(t, nil, deploy("git.test:22"))
	_, host := newKey(t, "ed25519")
	w.knows("git.test", host.PublicKey())
	l := &lane{world: w, ran: make(chan string, 100)}
	l.decide = func(u guard.Use) guard.Decision { return w.policy.Use(u) }
	srv := listen(t)
	var wg sync.WaitGroup
	wg.Go(func() {
		for {
			c, err := srv.Accept()
			if err != nil {
				return
			}
			wg.Go(func() { defer c.Close(); l.server(c, host) })
		}
	})
	t.Cleanup(wg.Wait)
	t.Cleanup(func() { srv.Close() })
	key, err := NewHostKey()
	check(t, err)
	l.g = NewGateway(w.a, broker.Login{
		Session: session, Use: w.a.Use, Refused: w.a.Refused,
		Decide: func(u guard.Use) guard.Decision { return l.decide(u) },
		Dial: func(ctx context.Context, _ string, _ int) (net.Conn, error) {
			return (&net.Dialer{}).DialContext(ctx, "tcp", srv.Addr().String())
		},
		Open: func(guard.Origin) guard.Filter {
			var tail []byte
			return func(p []byte, _ guard.Step) ([]byte, guard.Decision) {
				tail = append(tail, p...)
				if bytes.Contains(tail, []byte(leak)) {
					return nil, guard.Decision{Action: guard.Block, Rule: "test", Reason: "r", NextSteps: []string{"n"}, Secret: guard.SecretID{Name: "known"}}
				}
				tail = append(tail[:0], tail[max(0, len(tail)-len(leak)):]...)
				return p, guard.Decision{Action: guard.Pass}
			}
		},
	}, key)
	l.client = func() *xssh.Client {
		t.Helper()
		here, there := tcpPair(t)
		done := make(chan struct{})
		go func() { defer close(done); defer there.Close(); l.g.Serve(t.Context(), there, "git.test", 22) }()
		t.Cleanup(func() { here.Close(); <-done })
		conn, chans, reqs, err := xssh.NewClientConn(here, "git.test", &xssh.ClientConfig{User: "git", HostKeyCallback: xssh.FixedHostKey(key.signer.PublicKey())})
		check(t, err)
		return xssh.NewClient(conn, chans, reqs)
	}
	return l
}

func listen(t testing.TB) net.Listener {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	check(t, err)
	return ln
}

func tcpPair(t testing.TB) (a, b net.Conn) {
	t.Helper()
	ln := listen(t)
	defer ln.Close()
	a, err := net.Dial("tcp", ln.Addr().String())
	check(t, err)
	b, err = ln.Accept()
	check(t, err)
	return a, b
}

// server serves one connection: what is executed, runs; "die" ends the connection.
func (l *lane) server(c net.Conn, host xssh.Signer) {
	config := &xssh.ServerConfig{PublicKeyCallback: func(xssh.ConnMetadata, xssh.PublicKey) (*xssh.Permissions, error) { return nil, nil }}
	config.AddHostKey(host)
	sc, chans, reqs, err := xssh.NewServerConn(c, config)
	if err != nil {
		return
	}
	var wg sync.WaitGroup
	defer wg.Wait()
	defer sc.Close()
	wg.Go(func() { xssh.DiscardRequests(reqs) })
	for nc := range chans {
		if nc.ChannelType() != "session" {
			_ = nc.Reject(xssh.Prohibited, "no")
			continue
		}
		ch, rs, err := nc.Accept()
		if err != nil {
			return
		}
		wg.Go(func() {
			defer ch.Close()
			for r := range rs {
				if r.Type != "exec" {
					answer(r, r.Type == "env" || r.Type == "pty-req")
					continue
				}
				p := reader{b: r.Payload}
				command := string(p.string())
				l.ran <- command
				answer(r, true)
				if command == "die" {
					sc.Close()
					return
				}
				cmd := exec.Command("sh", "-c", command)
				cmd.Stdout, cmd.Stderr = ch, ch.Stderr()
				in, err := cmd.StdinPipe()
				if err != nil || cmd.Start() != nil {
					return
				}
				wg.Go(func() { _, _ = io.Copy(in, ch); in.Close() })
				status := uint32(0)
				if cmd.Wait() != nil {
					status = uint32(cmd.ProcessState.ExitCode())
				}
				_, _ = ch.SendRequest("exit-status", false, binary.BigEndian.AppendUint32(nil, status))
				return
			}
		})
	}
}

// run runs a command through the gateway, with stdin until its end.
func (l *lane) run(command string, stdin io.Reader) (out, errs string, err error) {
	l.t.Helper()
	c := l.client()
	defer c.Close()
	s, err := c.NewSession()
	check(l.t, err)
	defer s.Close()
	var o, e bytes.Buffer
	s.Stdin, s.Stdout, s.Stderr = stdin, &o, &e
	err = s.Run(command)
	return o.String(), e.String(), err
}

func TestGatewayRuns(t *testing.T) {
	l := newLane(t)
	out, errs, err := l.run("cat; echo to stderr >&2; exit 3", strings.NewReader("through"))
	var exit *xssh.ExitError
	if out != "through" || errs != "to stderr\n" || !errors.As(err, &exit) || exit.ExitStatus() != 3 {
		t.Errorf("%q %q %v", out, errs, err)
	}
	if u := l.use(); u.Credential.Name != "deploy" || u.Action != actConnect || u.Host != "git.test" || u.Port != 22 {
		t.Errorf("the use is %+v", u)
	}
	// A known value in what is sent ends it, wherever it is cut.
	for i := 1; i < len(leak); i++ {
		r, w := io.Pipe()
		go func() { io.WriteString(w, "x"+leak[:i]); io.WriteString(w, leak[i:]+"y"); w.Close() }()
		if out, errs, err := l.run("cat", r); err == nil || strings.Contains(out, leak) || !strings.Contains(errs, `"rule":"leak"`) {
			t.Fatalf("cut at %d: %q %q %v", i, out, errs, err)
		}
		r.Close()
	}
	// A server that goes away, in the middle of everything.
	if _, _, err := l.run("die", strings.NewReader("x")); err == nil {
		t.Error("a command on a connection that ended succeeded")
	}
}

func TestGatewayRefuses(t *testing.T) {
	l := newLane(t)
	c := l.client()
	defer c.Close()
	if _, err := c.Listen("tcp", "127.0.0.1:0"); err == nil || l.last() != "ssh forwarding" {
		t.Errorf("a forwarded port: %v, %q", err, l.last())
	}
	s, err := c.NewSession()
	check(t, err)
	if ok, err := s.SendRequest("auth-agent-req@openssh.com", true, nil); ok || err != nil || l.last() != "ssh forwarded" {
		t.Errorf("a forwarded agent: %v, %v, %q", ok, err, l.last())
	}
	s.Close()
	// Another server in its place.
	l.mu.Lock()
	l.hosts = nil
	l.mu.Unlock()
	_, other := newKey(t, "ed25519")
	l.knows("git.test", other.PublicKey())
	reads := l.reads
	if _, errs, err := l.run("true", nil); err == nil || !strings.Contains(errs, `"rule":"ssh host key"`) || l.reads != reads {
		t.Errorf("another host key: %q %v, %d values read", errs, err, l.reads-reads)
	}
	l.hosts = nil
	// No record, no login.
	l.unaudit = true
	if _, errs, err := l.run("true", nil); err == nil || errs == "" {
		t.Errorf("without a log: %q %v", errs, err)
	}
	if len(l.ran) > 0 {
		t.Errorf("%q ran", <-l.ran)
	}
}

// What a client says besides its data is searched as well, and none of it is sent.
func TestGatewaySearchesRequests(t *testing.T) {
	for name, say := range map[string]func(*xssh.Session) error{
		"command":         func(s *xssh.Session) error { return s.Run("echo " + leak + " >/dev/null") },
		"variable":        func(s *xssh.Session) error { check(t, s.Setenv("FOO", leak)); return s.Run("true") },
		"variable's name": func(s *xssh.Session) error { check(t, s.Setenv(leak, "x")); return s.Run("true") },
		"terminal":        func(s *xssh.Session) error { check(t, s.RequestPty(leak, 1, 1, nil)); return s.Run("true") },
		"subsystem": func(s *xssh.Session) error {
			if err := s.RequestSubsystem(leak); err != nil {
				return err
			}
			return s.Wait()
		},
		"git": func(s *xssh.Session) error { return s.Run("git-upload-pack '/" + leak + ".git'") },
	} {
		l := newLane(t)
		c := l.client()
		s, err := c.NewSession()
		check(t, err)
		var errs bytes.Buffer
		s.Stderr = &errs
		if err := say(s); err == nil || !strings.Contains(errs.String(), `"rule":"leak"`) && name != "subsystem" {
			t.Errorf("%s: %v, %q", name, err, errs.String())
		}
		c.Close()
		if len(l.ran) > 0 {
			t.Errorf("%s: %q ran", name, <-l.ran)
		}
	}
	l := newLane(t)
	c := l.client()
	defer c.Close()
	reads := l.reads
	for _, to := range []string{leak + ".test:22", "h.test:22"} {
		_, err := c.Dial("tcp", to)
		if err == nil || strings.Contains(err.Error(), "secret") != strings.Contains(to, leak) {
			t.Errorf("%s: %v", to, err)
		}
	}
	if l.reads != reads+1 {
		t.Errorf("the key was used %d times", l.reads-reads)
	}
}

// Whatever a command looks like, a push is known for one or refused.
func TestGatewayKnowsPushes(t *testing.T) {
	l := newLane(t)
	dir := t.TempDir()
	git := func(args ...string) string {
		t.Helper()
		cmd := exec.Command("git", append([]string{"-C", dir}, args...)...)
		out, err := cmd.CombinedOutput()
		if err != nil {
			t.Fatalf("git %q: %v: %s", args, err, out)
		}
		return strings.TrimSpace(string(out))
	}
	git("init", "-q", "--bare", "-b", "main", "r.git")
	p := &testutil.Packfile{}
	blob := p.Blob("key = " + leak + "\n")
	commit := p.Put(1, fmt.Appendf(nil, "tree %x\nauthor A <a@b> 1 +0000\ncommitter A <a@b> 1 +0000\n\nx\n", p.Put(2, testutil.Tree("100644 conf", blob))))
	line := strings.Repeat("0", 40) + fmt.Sprintf(" %x refs/heads/x\x00report-status", commit)
	push := func() io.Reader {
		return strings.NewReader(fmt.Sprintf("%04x%s0000%s", len(line)+4, line, p.Whole()))
	}
	repo := dir + "/r.git"
	for _, command := range []string{
		"git-receive-pack '" + repo + "'", "git receive-pack '" + repo + "'", `git-receive-pack "` + repo + `"`, "git-receive-pack " + repo, "/usr/lib/git-core/git-receive-pack '" + repo + "'",
		"git-receive-pack   '" + repo + "' ", "sh -c \"git-receive-pack '" + repo + "'\"", "git-receive-pack '" + repo + "'; true", "git-receive-pack $(echo " + repo + ")", "git-receive-pack '" + repo + "' | cat",
		"git -c x.y=z receive-pack '" + repo + "'", "git-receive\\-pack " + repo, "git-'receive'-pack " + repo, "GIT_X=1 git-receive-pack '" + repo + "'", "git-receive-pack --stateless-rpc '" + repo + "'",
		"a=git-recei; ${a}ve-pack '" + repo + "'", "git-receive-pack '" + repo + "'\n", "exec $(echo Z2l0LXJlY2VpdmUtcGFjawo= | base64 -d) '" + repo + "'",
	} {
		out, errs, err := l.run(command, push())
		if err == nil || !strings.Contains(out, "ng refs/heads/x refused by guard") && !strings.Contains(errs, "guard_denied") {
			t.Errorf("%q: %q %q %v", command, out, errs, err)
		}
		if got := git("--git-dir=r.git", "for-each-ref"); got != "" {
			t.Fatalf("%q: it arrived", command)
		}
	}
	if out := git("--git-dir=r.git", "cat-file", "--batch-all-objects", "--batch"); strings.Contains(out, leak) {
		t.Error("the object arrived")
	}
	// A client that goes away in the middle, and one that sends what is no pack.
	for what, r := range map[string]io.Reader{"cut": io.LimitReader(push(), int64(len(line)+50)), "no pack": strings.NewReader(fmt.Sprintf("%04x%s0000", len(line)+4, line) + strings.Repeat("x", 100))} {
		if _, errs, err := l.run("git-receive-pack '"+repo+"'", r); err == nil || !strings.Contains(errs, "uninspectable") {
			t.Errorf("%s: %q %v", what, errs, err)
		}
	}
	for command, want := range map[string]gitCommand{
		`git-upload-pack '/a/it'\''s.git'`: {"upload-pack", "/a/it's.git"},
		"git-upload-archive 'x'":           {"upload-archive", "x"},
		"git-upload-pack 'x' 'y'":          {},
		"git-lfs-authenticate x upload":    {},
	} {
		if got, d := parseGit(command); got != want || d != nil {
			t.Errorf("%q is %+v", command, got)
		}
	}
}

// Scopes of git's verbs decide about git's commands, and a login does for all.
func TestGatewayScopes(t *testing.T) {
	l := newLane(t)
	var allowed map[string]bool
	l.decide = func(u guard.Use) guard.Decision {
		if allowed[u.Action] {
			return guard.Decision{Action: guard.Pass}
		}
		return guard.Decision{Action: guard.Block, Rule: "scope", Reason: u.Action + " of " + u.Resource, NextSteps: []string{"n"}}
	}
	l.g.Login.Use = func(u guard.Use, send func(guard.Secret) (string, error)) (guard.Decision, error) {
		if d := l.decide(u); !d.Allowed() {
			return d, broker.ErrRefused
		}
		return l.a.Use(guard.Use{Session: u.Session, Credential: u.Credential, Channel: u.Channel, Action: actConnect, Resource: "git", Host: u.Host, Port: u.Port}, send)
	}
	fetch, push := "git-upload-pack 'o/r.git'", "git-receive-pack 'o/r.git'"
	for _, c := range []struct {
		verbs, command, refused string
	}{
		{"repo:read", fetch, ""}, {"repo:read", push, "repo:push of o/r"}, {"repo:read", "true", "ssh:connect of git"},
		{"repo:read repo:push", push, ""}, {"ssh:connect", push, ""}, {"ssh:connect", fetch, ""}, {"ssh:sign", fetch, "ssh:connect of git"}, {"", push, "ssh:connect of git"},
	} {
		allowed = map[string]bool{}
		for _, v := range strings.Fields(c.verbs) {
			allowed[v] = true
		}
		_, errs, _ := l.run(c.command, strings.NewReader(""))
		if (c.refused == "") == strings.Contains(errs, "guard_denied") || !strings.Contains(errs, c.refused) {
			t.Errorf("%q, %s: %q", c.verbs, c.command, errs)
		}
	}
}

// A pack of 128 MiB goes through in memory that does not grow with it.
func TestGatewayLargePush(t *testing.T) {
	l := newLane(t)
	l.g.SpoolDir = t.TempDir()
	const files, size = 32, 4 << 20
	head := binary.BigEndian.AppendUint32([]byte("PACK\x00\x00\x00\x02"), files)
	line := strings.Repeat("0", 40) + " " + strings.Repeat("1", 40) + " refs/heads/x\x00report-status"
	r, w := io.Pipe()
	sum := newSum()
	go func() {
		out := io.MultiWriter(w, sum)
		fmt.Fprintf(w, "%04x%s0000", len(line)+4, line)
		out.Write(head)
		for i := range files {
			p := &testutil.Packfile{}
			b := randomBytes(uint64(i), size)
			p.Add(3, nil, b, len(b))
			out.Write(p.Bytes())
		}
		w.Write(sum.Sum(nil))
		w.Close()
	}()
	var before, most runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&before)
	stop := make(chan struct{})
	var watch sync.WaitGroup
	watch.Go(func() {
		for {
			select {
			case <-stop:
				return
			case <-time.After(20 * time.Millisecond):
				var m runtime.MemStats
				if runtime.ReadMemStats(&m); m.HeapInuse > most.HeapInuse {
					most = m
				}
			}
		}
	})
	// The far end says nothing, and counts.
	out, errs, err := l.run("printf 0000; wc -c # git-receive-pack", strings.NewReader(""))
	if err == nil {
		t.Errorf("a comment hides a push: %q %q", out, errs)
	}
	dir := t.TempDir()
	if out, err := exec.Command("git", "init", "-q", "--bare", dir+"/r.git").CombinedOutput(); err != nil {
		t.Fatal(string(out))
	}
	out, errs, err = l.run("git-receive-pack '"+dir+"/r.git'", r)
	close(stop)
	watch.Wait()
	// The commit that it is to be is not there, which the server says after it has all.
	if !strings.Contains(out, "unpack ok") || !strings.Contains(out, "ng refs/heads/x") || strings.Contains(out, "refused by guard") {
		t.Errorf("%q %q %v", out, errs, err)
	}
	if grown := int64(most.HeapInuse) - int64(before.HeapInuse); grown > 96<<20 {
		t.Errorf("the heap grew by %d MiB", grown>>20)
	}
}
