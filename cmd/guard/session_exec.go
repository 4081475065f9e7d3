package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	osuser "os/user"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"

	"guard"
	"guard/broker"
	"guard/broker/dns"
	brokerexec "guard/broker/exec"
	rotateexec "guard/rotate/exec"
	"guard/supervisor/sandbox"
)

// commandStarter starts commands in sandboxes of their own.
type commandStarter struct {
	*session
}

// execHandler runs commands of the user's list for the agent.
func (s *session) execHandler(line *broker.Line) broker.Handler {
	return (&brokerexec.Server{
		Session: s.info, Credentials: s.credentials, Use: line.Use, Refused: line.Refuse, Open: s.line.Open, Hash: s.hashProgram, Start: (&commandStarter{session: s}).start,
		Dir: s.execDir(),
		Rules: func() ([]brokerexec.Rule, error) {
			rules, err := s.app.execRules()
			return slices.DeleteFunc(rules, func(r brokerexec.Rule) bool { return r.Context != s.info.Context }), err
		},
	}).Handler()
}

// execPrefix is how the folders of commands are called; the process that made one
// comes next.
const execPrefix = "guard-exec-"

// execDir is where commands get their folders: in /tmp, of which every session has
// one of its own, wherever TMPDIR leads. What a guard left there that was killed is
// removed.
func (s *session) execDir() string {
	base := filepath.Join("/tmp", execPrefix)
	left, _ := filepath.Glob(base + "*-*")
	for _, d := range left {
		pid, _, _ := strings.Cut(strings.TrimPrefix(d, base), "-")
		n, err := strconv.Atoi(pid)
		if fi, serr := os.Lstat(d); err != nil || n <= 0 || serr != nil || !fi.IsDir() || alive(n) {
			continue
		}
		_ = os.RemoveAll(d) // another user's cannot be removed, and is not ours to
	}
	d, err := os.MkdirTemp("/tmp", fmt.Sprintf("%s%d-", execPrefix, os.Getpid()))
	if err != nil {
		s.app.say("guard exec is not to be had in this session: %v", err)
		return ""
	}
	s.closers = append(s.closers, func() { os.RemoveAll(d) })
	return d
}

func alive(pid int) bool {
	p, err := os.FindProcess(pid)
	if err != nil {
		return false
	}
	err = p.Signal(syscall.Signal(0))
	return err == nil || errors.Is(err, os.ErrPermission)
}

// hashProgram is the hash of a program that the agent cannot write.
func (s *session) hashProgram(path string) (string, error) {
	real, err := filepath.EvalSymlinks(path)
	if err != nil {
		return "", err
	}
	shared, err := s.shared()
	if err != nil {
		return "", err
	}
	for _, p := range []string{path, real} {
		for _, d := range append(shared, s.home) {
			if within(p, d) {
				return "", fmt.Errorf("it lies in %s, which the session shares", d)
			}
		}
	}
	return rotateexec.Hash(path)
}

// start runs a command in a sandbox of its own: without the user's home,
// with no folder but its own, and with no network but the hosts it is for.
func (s *commandStarter) start(ctx context.Context, j brokerexec.Job) (int, error) {
	s.mu.Lock()
	agent := s.sandbox
	s.mu.Unlock()
	if agent == nil || agent.Tier != sandbox.Contained {
		return 0, errors.New("the session has no namespaces of its own, so that nothing would be out of the agent's reach")
	}
	hidden := append(slices.Clone(s.hidden), s.home, s.app.home(), s.app.configDir())
	// What the agent writes, it must not have the command read, nor reach it by a pipe
	// or a socket there.
	shared, err := s.shared()
	if err != nil {
		return 0, err
	}
	hidden = append(hidden, shared...)
	if u, err := osuser.Current(); err == nil && filepath.IsAbs(u.HomeDir) && u.HomeDir != "/" {
		hidden = append(hidden, u.HomeDir)
	}
	env := &environment{vars: []string{"PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "HOME=/tmp", "LANG=C.UTF-8", "TERM=dumb", "USER=guard", "LOGNAME=guard"}}
	c := sandbox.Config{
		Argv: append([]string{j.Path}, j.Args...), Dir: j.Dir, Writable: []string{j.Dir}, Hidden: hidden, NoCore: true,
		Stdin: j.Stdin, Stdout: j.Stdout, Stderr: j.Stderr, Boundary: "namespace",
	}
	// The program is seen where it is, also where a sandbox has a folder of its own.
	if real, err := filepath.EvalSymlinks(j.Path); err == nil {
		c.Writable, c.ReadOnly = append(c.Writable, real), append(c.ReadOnly, real)
	}
	if len(s.flags.ca) > 0 {
		roots := systemRoots()
		for _, name := range s.flags.ca {
			b, err := os.ReadFile(name)
			if err != nil {
				return 0, err
			}
			roots = append(roots, b...)
		}
		name := brokerexec.FileDir + "/roots.pem"
		c.Files = append(c.Files, sandbox.File{Path: name, Content: roots, Mode: 0o444})
		env.network("", name)
	}
	for _, f := range j.Files {
		c.Files = append(c.Files, sandbox.File{Path: f.Path, Content: f.Content, Mode: 0o444})
	}
	c.Env = append(env.vars, j.Env...)

	ctx, cancel := context.WithCancel(ctx)
	var wg sync.WaitGroup
	defer wg.Wait()
	defer cancel()
	s.starts.Lock()
	sb, err := sandbox.Start(ctx, c)
	s.starts.Unlock()
	if err != nil {
		return 0, err
	}
	defer sb.Close()
	if sb.Tier != sandbox.Contained {
		return 0, errors.New("there are no namespaces on this machine, which a command with a credential needs")
	}
	egress, err := s.commandEgress(j.Hosts)
	if err != nil {
		return 0, err
	}
	names := dns.New(dns.Options{})
	open := func(guard.Origin) guard.Filter { // its bytes are meant for these hosts, and TLS is its own
		return func(p []byte, _ guard.Step) ([]byte, guard.Decision) { return p, guard.Decision{Action: guard.Pass} }
	}
	server := &broker.Server{Name: names.Name, Synthetic: names.Synthetic, Egress: egress, Open: open, Listeners: []net.Listener{sb.TCP}}
	server.HTTP = func(ctx context.Context, c net.Conn, host string, port int) {
		up, err := egress.Dial(ctx, host, port)
		if err != nil {
			return
		}
		defer up.Close()
		_ = broker.Pipe(ctx, c, up, open(guard.Origin{}))
	}
	wg.Go(func() { _ = server.Serve(ctx) })
	wg.Go(func() { _ = names.Serve(ctx, sb.DNSUDP, sb.DNSTCP) })

	for {
		select {
		case <-ctx.Done():
			return 128 + 9, nil
		case n := <-j.Signals:
			_ = sb.Signal(n)
		case e, ok := <-sb.Events():
			switch {
			case !ok:
				return 0, errors.New("its sandbox ended")
			case e.Kind == sandbox.Failed:
				return 0, e.Err
			case e.Kind == sandbox.Exited:
				return e.Code, nil
			}
		}
	}
}

// commandEgress lets a command reach its hosts, and nothing else.
func (s *session) commandEgress(hosts []string) (*broker.Egress, error) {
	e := s.egress()
	e.Decide = func(host string, port int, proto string) guard.Decision {
		if broker.MatchHost(hosts, host, port) {
			return guard.Decision{Action: guard.Pass, Rule: "guard exec"}
		}
		return guard.Decision{
			Action: guard.Block, Rule: "guard exec", Reason: "the command may reach the hosts of its credentials and of its rule, and " + net.JoinHostPort(host, strconv.Itoa(port)) + " is none of them",
			NextSteps: []string{"tell the user: guard exec allow NAME --host " + host}, // the rule is theirs
		}
	}
	e.Allow = func(host string, port int, a netip.Addr) bool {
		return !a.IsLoopback() && !a.IsLinkLocalUnicast() && broker.MatchHost(hosts, host, port)
	}
	var err error
	e.Proxy, err = networkProxy(s.app.getenv)
	return e, err
}
