package main

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"guard"
	"guard/audit"
	"guard/broker"
	"guard/broker/dns"
	brokerhttp "guard/broker/http"
	"guard/broker/postgres"
	"guard/matcher"
	"guard/policy"
	"guard/rotate"
	"guard/supervisor"
	"guard/supervisor/sandbox"
	"guard/vault"
)

// session is one `guard run`: everything that its parts share. It is made by
// newSession, top to bottom, and used by run.
type session struct {
	app    *app
	flags  runFlags
	argv   []string
	dir    string
	home   string
	info   guard.Session
	vault  *vault.Vault
	log    *audit.Log
	events *os.File
	policy *policy.Policy

	matcher  *matcher.Matcher
	conceal  *conceal
	line     *supervisor.Line
	hidden   []string
	sockets  []string // of other programs, in folders that the session may write
	files    []sandbox.File
	ca       *brokerhttp.CA
	bundle   []byte // session CA and the system's roots, PEM
	token    string // password of the explicit proxy in tiers without a network namespace
	resolves []override
	publish  []published
	runner   *rotate.Runner
	incident *rotate.Incidents
	respond  *rotate.Responder
	pg       *postgres.Handler

	mu          sync.Mutex
	creds       []guard.Credential
	quarantined map[string]int                      // credential -> versions up to this one are refused
	switching   map[string]chan struct{}            // credential -> closed when its new value is current
	kept        map[guard.SecretID][]rotate.Restore // originals of files that were redacted in this session
	folded      *matcher.Matcher                    // values in lower case, for names of hosts
	closers     []func()

	uses, refusals, leaks atomic.Int64
}

// caFile is where a session finds the roots to trust, in tiers with their own
// file tree.
const caFile = "/run/guard/ca.pem"

func (a *app) newSession(o runFlags, argv []string) (_ *session, err error) {
	if err := o.check(); err != nil {
		return nil, err
	}
	s := &session{app: a, flags: o, argv: argv, home: a.userHome(), quarantined: map[string]int{}, switching: map[string]chan struct{}{}, kept: map[guard.SecretID][]rotate.Restore{}}
	defer func() {
		if err != nil {
			s.close()
		}
	}()
	if s.home == "" {
		return nil, errors.New("HOME is not set: guard does not know what of your files to hide")
	}
	if s.dir, err = workingFolder(); err != nil {
		return nil, err
	}
	if err := ordinary(s.dir); err != nil {
		return nil, fmt.Errorf("working folder: %w", err)
	}
	for _, r := range o.resolve {
		v, err := parseResolve(r)
		if err != nil {
			return nil, err
		}
		s.resolves = append(s.resolves, v)
	}
	for _, p := range o.publish {
		v, err := parsePublish(p)
		if err != nil {
			return nil, err
		}
		s.publish = append(s.publish, v)
	}
	if _, err := lookPath(argv[0]); err != nil {
		return nil, err
	}
	if s.vault, err = a.openVault(); err != nil {
		return nil, err
	}
	s.closers = append(s.closers, s.vault.Close)

	now := time.Now()
	s.info = guard.Session{ID: newSessionID(now), Profile: o.profile, Task: o.task, Dir: s.dir, Started: now}
	if s.info.Context, err = a.resolveContext(o.context); err != nil {
		return nil, err
	}
	if s.creds, err = s.vault.List(s.info.Context); err != nil {
		return nil, err
	}
	if s.policy, err = newPolicy(o, s.info, s.creds, findRepoFile(s.dir, s.home)); err != nil {
		return nil, err
	}
	if err := s.openLog(); err != nil {
		return nil, err
	}
	if err := s.openLine(); err != nil {
		return nil, err
	}
	if err := s.openFiles(); err != nil {
		return nil, err
	}
	if err := s.openRotation(); err != nil {
		return nil, err
	}
	return s, nil
}

// newPolicy compiles flags and the repository's file.
func newPolicy(o runFlags, info guard.Session, creds []guard.Credential, repoFile string) (*policy.Policy, error) {
	act, err := o.leakAction()
	if err != nil {
		return nil, err
	}
	grants, err := o.grants()
	if err != nil {
		return nil, err
	}
	var repo *policy.Repo
	for _, file := range []string{repoFile, o.policyFile} {
		if file == "" {
			continue
		}
		r, err := policy.LoadRepo(file)
		if err != nil {
			return nil, err
		}
		if repo != nil {
			r = repo.And(r)
		}
		repo = r
	}
	return policy.New(policy.Options{
		Session: info, Allow: grants, Deny: o.deny, OnLeak: act, Egress: o.egress, AllowHosts: o.allowHosts, HostPorts: o.hostPorts, Repo: repo,
	}, creds)
}

func (s *session) openLog() (err error) {
	if s.flags.events != "" {
		if s.events, err = os.OpenFile(s.flags.events, os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o600); err != nil {
			return fmt.Errorf("open --events: %w", err)
		}
		s.closers = append(s.closers, func() { s.events.Close() })
	}
	if s.log, err = s.app.openAudit(s.vault, s.events); err != nil {
		return err
	}
	s.closers = append(s.closers, func() { s.log.Close() })
	return nil
}

// openLine loads what the scanner looks for.
func (s *session) openLine() error {
	values, err := s.vault.Values(s.info.Context)
	if err != nil {
		return err
	}
	kept := values[:0]
	for _, v := range values {
		if why := matcher.Refuse(v.Secret); why != nil {
			s.app.say("%s version %d cannot be looked for: %v", v.ID.Name, v.ID.Version, why)
			continue
		}
		kept = append(kept, v)
	}
	if s.matcher, err = matcher.New(kept); err != nil {
		return err
	}
	if s.folded, err = fold(kept); err != nil {
		return err
	}
	s.closers = append(s.closers, func() { s.matcher.Close(); s.folded.Close() })
	s.line = &supervisor.Line{Matcher: s.matcher, Decide: s.policy.Leak, Record: s.recordLeak, Act: s.actOnLeak}
	return nil
}

// openFiles finds what the session may read that holds known values, and makes
// the copies it is shown instead.
func (s *session) openFiles() error {
	s.conceal = &conceal{matcher: s.matcher, placeholders: map[string][]string{}, budget: concealFiles}
	values, err := s.vault.Values(s.info.Context)
	if err != nil {
		return err
	}
	for _, v := range values {
		if v.Class == guard.Placeholder {
			s.conceal.placeholders[v.ID.Name] = append(s.conceal.placeholders[v.ID.Name], string(v.Secret.Reveal()))
		}
		v.Secret.Wipe()
	}
	shared, err := s.shared()
	if err != nil {
		return err
	}
	always := append(sshHidden(s.home), s.app.home(), s.app.configDir(),
		// Another vault of this user's, where GUARD_HOME leads elsewhere now.
		vault.GuardHome(func(k string) string {
			if k == "GUARD_HOME" {
				return ""
			}
			return s.app.getenv(k)
		}))
	for _, f := range []string{s.app.unlock.keyfile, s.app.unlock.passphraseFile, s.app.getenv("GUARD_KEYFILE"), s.app.getenv("GUARD_PASSPHRASE_FILE"), s.flags.events} {
		if f == "" {
			continue
		}
		p, err := filepath.Abs(f)
		if err != nil {
			return err
		}
		if p, err = filepath.EvalSymlinks(p); err == nil {
			always = append(always, p)
		}
	}
	all, hidden, err := s.conceal.home(s.home, shared, always)
	if err != nil {
		return err
	}
	for _, p := range shared {
		more, err := s.conceal.tree(p, always)
		if err != nil {
			return err
		}
		all.files = append(all.files, more.files...)
		all.sockets = append(all.sockets, more.sockets...)
	}
	s.hidden = hidden
	s.sockets = all.sockets
	for _, f := range all.files {
		if slices.Contains(hidden, f.Path) || slices.ContainsFunc(s.files, func(g sandbox.File) bool { return g.Path == f.Path }) {
			continue
		}
		s.files = append(s.files, f)
		if filepath.Base(f.Path) == "config" && filepath.Base(filepath.Dir(f.Path)) == ".git" {
			s.app.say("%s holds a known value, so it is shown as a copy and git cannot change it in this session", f.Path)
		}
	}
	if n := s.conceal.Skipped + s.conceal.Unread; n > 0 && s.flags.verbose {
		s.app.say("%d files were not looked into for credentials (over %d MiB, past the first %d, or unreadable): the scanner still watches what leaves", n, concealFileMax>>20, concealFiles)
	}

	if s.ca, err = brokerhttp.NewCA(); err != nil {
		return err
	}
	s.bundle = append(append([]byte{}, systemRoots()...), s.ca.CAPEM()...)
	for _, f := range s.flags.ca {
		b, err := os.ReadFile(f)
		if err != nil {
			return fmt.Errorf("read --ca: %w", err)
		}
		s.bundle = append(append(s.bundle, '\n'), b...)
	}
	var b [16]byte
	_, _ = rand.Read(b[:]) // never fails (crypto/rand)
	s.token = hex.EncodeToString(b[:])
	return nil
}

// shared are the folders that the agent may write: the working folder first,
// then --share, then the state folders of known agents.
func (s *session) shared() ([]string, error) {
	out := []string{s.dir}
	for _, p := range s.flags.share {
		abs, err := filepath.Abs(p)
		if err != nil {
			return nil, err
		}
		if abs, err = filepath.EvalSymlinks(abs); err != nil {
			return nil, fmt.Errorf("--share: %w", err)
		}
		if err := ordinary(abs); err != nil {
			return nil, usageError{fmt.Errorf("--share: %w", err)}
		}
		if within(s.app.home(), abs) || within(abs, s.app.home()) {
			return nil, usagef("--share %s: guard's own folder cannot be shared", p)
		}
		out = append(out, abs)
	}
	for _, name := range []string{".claude", ".claude.json", ".codex", ".aider", ".gemini", ".config/opencode", ".local/share/opencode"} {
		p := filepath.Join(s.home, name)
		if _, err := os.Lstat(p); err == nil {
			out = append(out, p)
		}
	}
	return out, nil
}

// ordinary refuses folders that are the system's, not a person's: a session has
// its own of these, or sharing them would share the whole machine.
func ordinary(dir string) error {
	if dir == "/" {
		return errors.New("/ is the whole machine: choose a project's folder")
	}
	for _, d := range []string{"/proc", "/sys", "/dev"} {
		if within(dir, d) {
			return fmt.Errorf("%s is a part of the kernel's %s: choose a project's folder", dir, d)
		}
	}
	if dir == "/run" || dir == "/tmp" {
		return fmt.Errorf("%s is the session's own: choose a folder in it", dir)
	}
	return nil
}

func within(path, dir string) bool {
	return path == dir || strings.HasPrefix(path, strings.TrimSuffix(dir, string(filepath.Separator))+string(filepath.Separator))
}

// systemRoots are the roots that programs on this machine trust.
func systemRoots() []byte {
	for _, p := range rootFiles {
		if b, err := os.ReadFile(p); err == nil {
			return append(b, '\n')
		}
	}
	return nil
}

// rootFiles is where systems keep them, as one file. In a session they hold the
// session's CA too, for programs that no variable reaches.
var rootFiles = []string{
	"/etc/ssl/certs/ca-certificates.crt", "/etc/pki/tls/certs/ca-bundle.crt", "/etc/ssl/ca-bundle.pem", "/etc/pki/ca-trust/extracted/pem/tls-ca-bundle.pem", "/etc/ssl/cert.pem",
}

func (s *session) close() {
	for i := len(s.closers) - 1; i >= 0; i-- {
		s.closers[i]()
	}
	s.closers = nil
}

// credentials is the session's context, current versions.
func (s *session) credentials() []guard.Credential {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.creds
}

// followEvery is how soon a session learns of a value that another guard stored.
const followEvery = 100 * time.Millisecond

// follow takes over what other processes change in the vault, until ctx ends.
func (s *session) follow(ctx context.Context) error {
	tick := time.NewTicker(followEvery)
	defer tick.Stop()
	seen := s.vault.Generation()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
		now := s.vault.Generation()
		if now == seen {
			continue
		}
		seen = now
		before := map[string]int{}
		for _, c := range s.credentials() {
			before[c.Name] = c.Version
		}
		s.refresh()
		for _, c := range s.credentials() {
			if before[c.Name] == c.Version {
				continue
			}
			// The scanner knows the new value from here on.
			r := s.record("vault.reload")
			r.Credential, r.Version = c.Name, c.Version
			if _, err := s.append(r); err != nil {
				return err
			}
		}
	}
}

// refresh takes over what changed in the vault: a rotation, or the user.
func (s *session) refresh() {
	creds, err := s.vault.List(s.info.Context)
	if err != nil {
		return
	}
	values, err := s.vault.Values(s.info.Context)
	if err != nil {
		return
	}
	values = slices.DeleteFunc(values, func(v guard.Value) bool { return matcher.Refuse(v.Secret) != nil })
	if err := s.matcher.Set(values); err != nil {
		s.app.say("the scanner keeps its old values: %v", err)
	}
	folded, err := fold(values)
	if err != nil {
		s.app.say("names of hosts are looked through for the old values: %v", err)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.creds = creds
	if err == nil {
		s.folded.Close()
		s.folded = folded
	}
}

// config is the sandbox of a boundary; env depends on how the agent reaches the
// broker there.
func (s *session) config(boundary string, proxy string) (sandbox.Config, error) {
	shared, err := s.shared()
	if err != nil {
		return sandbox.Config{}, err
	}
	env := newEnvironment(s.conceal)
	caPath := caFile
	if boundary != "namespace" {
		// Without a file tree of its own the session reads the bundle from the host.
		f, err := os.CreateTemp("", "guard-ca-*.pem")
		if err != nil {
			return sandbox.Config{}, err
		}
		s.closers = append(s.closers, func() { os.Remove(f.Name()) })
		if _, err := f.Write(s.bundle); err != nil {
			return sandbox.Config{}, err
		}
		if err := errors.Join(f.Chmod(0o644), f.Close()); err != nil {
			return sandbox.Config{}, err
		}
		caPath = f.Name()
	}
	if boundary == "none" {
		caPath, proxy = "", ""
	}
	env.network(proxy, caPath)
	for _, c := range s.credentials() {
		if s.flags.allows(c.Name) {
			env.credential(c)
		}
	}
	env.set("GUARD_SESSION", s.info.ID)
	for _, kv := range s.flags.env {
		k, v, _ := strings.Cut(kv, "=")
		if b := s.conceal.bytes([]byte(v)); b != nil {
			v = string(b)
		}
		env.set(k, v)
	}
	argv := s.conceal.env(s.argv)
	c := sandbox.Config{
		Argv: argv, Env: env.vars, Dir: s.dir, Home: s.home, Writable: shared, Hidden: s.hidden, Files: slices.Clone(s.files),
		HostPorts: s.flags.hostPorts, Boundary: boundary,
	}
	if boundary == "namespace" {
		c.Files = append(c.Files, sandbox.File{Path: caFile, Content: s.bundle, Mode: 0o444})
		for _, p := range rootFiles {
			if real, err := filepath.EvalSymlinks(p); err == nil && real == p {
				c.Files = append(c.Files, sandbox.File{Path: p, Content: s.bundle, Mode: 0o444})
			}
		}
		c.HomeUpper = filepath.Join(s.app.home(), "homes", strings.ReplaceAll(s.info.Context, "/", "@"))
		if err := os.MkdirAll(c.HomeUpper, 0o700); err != nil {
			return c, err
		}
	}
	// guard's own program, and what narrows the session, are not the agent's to
	// change, also where they lie in a folder that it may write.
	for _, p := range []string{s.own(), findRepoFile(s.dir, s.home), s.flags.policyFile} {
		if p == "" {
			continue
		}
		if real, err := filepath.EvalSymlinks(p); err == nil && slices.ContainsFunc(shared, func(d string) bool { return within(real, d) }) {
			c.ReadOnly = append(c.ReadOnly, real)
		}
	}
	return c, nil
}

func (s *session) own() string {
	p, err := os.Executable()
	if err != nil {
		return ""
	}
	return p
}

// run runs the agent and returns guard's exit status.
func (s *session) run(ctx context.Context) (int, error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	s.respond = rotate.NewResponder(context.WithoutCancel(ctx), s.runner, s.incident, s.hooks())

	boundaries := []string{s.flags.boundary}
	if s.flags.boundary == "auto" {
		boundaries = []string{"namespace", "landlock", "proxy"}
	}
	var status supervisor.Status
	var err error
	for i, b := range boundaries {
		if status, err = s.start(ctx, b); err == nil || !sandbox.Unavailable(err) {
			break
		}
		if i+1 < len(boundaries) {
			s.app.say("the %s boundary is not to be had here: %v", b, err)
			s.app.say("falling back to %s, which is weaker: guard doctor says what it lets through", boundaries[i+1])
		}
	}
	s.respond.Wait()
	defer func() {
		if err := s.app.keepHead(s.vault, s.log); err != nil {
			s.app.say("how far the log is could not be kept: %v", err)
		}
	}()
	var start *sandbox.StartError
	if errors.As(err, &start) {
		s.end(strconv.Itoa(start.Code))
		return start.Code, fmt.Errorf("%s: %w", s.argv[0], start.Err)
	}
	if err != nil {
		s.end("failed")
		return 125, err
	}
	code := status.ExitCode()
	s.end("exit status " + strconv.Itoa(code))
	s.summary()
	if status.Leak {
		return code, errors.New("the agent was ended because of a leak")
	}
	return code, nil
}

// start runs the agent in one boundary.
func (s *session) start(ctx context.Context, boundary string) (supervisor.Status, error) {
	var front net.Listener
	proxy := fmt.Sprintf("http://127.0.0.1:%d", sandbox.ProxyPort)
	if boundary == "landlock" || boundary == "proxy" {
		var err error
		if front, err = net.Listen("tcp", "127.0.0.1:0"); err != nil {
			return supervisor.Status{}, err
		}
		defer front.Close()
		proxy = fmt.Sprintf("http://guard:%s@%s", s.token, front.Addr())
	}
	c, err := s.config(boundary, proxy)
	if err != nil {
		return supervisor.Status{}, err
	}
	if front != nil {
		c.ProxyAddr = front.Addr().String()
	}
	if err := s.begin(boundary); err != nil {
		return supervisor.Status{}, fmt.Errorf("no session without its record: %w", err)
	}
	files := &supervisor.Files{Root: s.dir, Line: s.line, Keep: s.keepOriginal, Known: s.wasKnown, Replaced: s.maskLost, Say: func(m string) { s.app.say("%s", m) }}
	return supervisor.Run(ctx, supervisor.Config{
		Sandbox: c, In: s.app.stdin, Out: s.app.stdout, Err: s.app.stderr, Line: s.line, Files: files,
		Serve: func(ctx context.Context, sb *sandbox.Sandbox) error { return s.serve(ctx, sb, front) },
		Started: func(sb *sandbox.Sandbox) {
			if err := sandbox.Harden(); err != nil {
				s.app.say("guard could not be made undumpable: %v", err)
			}
			for _, n := range sb.Notes {
				s.app.say("%s", n)
			}
			if len(s.files) > 0 {
				switch {
				case sb.Tier == sandbox.Cooperative || sb.Tier == sandbox.None:
					s.app.say("%d files hold known values, and the agent can read them in this tier", len(s.files))
				case s.flags.verbose && sb.Tier == sandbox.Restricted:
					s.app.say("%d files that hold known values are hidden from the agent", len(s.files))
				case s.flags.verbose:
					s.app.say("%d files that hold known values are shown to the agent as copies with placeholders", len(s.files))
				}
			}
			if s.flags.verbose || sb.Tier == sandbox.Cooperative || sb.Tier == sandbox.None {
				s.app.say("%s", tierWords(sb.Tier))
			}
		},
	})
}

// tierWords says what a boundary holds.
func tierWords(t sandbox.Tier) string {
	switch t {
	case sandbox.Contained:
		return "boundary: contained. Own namespaces, no route out but the broker, no host process, keyring or agent socket in reach"
	case sandbox.Restricted:
		return "boundary: restricted. Landlock and seccomp: TCP to the broker only, no UDP and no Unix sockets, credential files hidden; the host's processes are in sight"
	case sandbox.Cooperative:
		return "boundary: cooperative. Proxy variables alone: the agent could ignore them, read the keychain and reach anything you can"
	}
	return "boundary: NONE. Nothing keeps the agent from your credentials; only its output on the terminal is scanned"
}

// serve is the broker of the session, until ctx ends.
func (s *session) serve(ctx context.Context, sb *sandbox.Sandbox, front net.Listener) error {
	names := dns.New(dns.Options{})
	egress := s.egress()
	line := s.useLine()
	roots, err := brokerhttp.Roots(s.flags.ca...)
	if err != nil {
		return err
	}
	cfg := brokerhttp.Config{
		Line: line, Egress: egress, Creds: s.credentials, Open: s.line.Open, Scrub: s.scrub, CA: s.ca, Roots: roots, Session: s.info,
	}
	if front != nil {
		cfg.Token = s.token
	}
	server := &broker.Server{Name: names.Name, Synthetic: names.Synthetic, Egress: egress, Open: s.line.Open}
	cfg.Tunnel = server.Dispatch
	proxy, err := brokerhttp.New(cfg)
	if err != nil {
		return err
	}
	server.HTTP = proxy.Handle
	if sb.TCP != nil {
		server.Listeners = append(server.Listeners, sb.TCP)
	}
	if front != nil {
		server.Listeners = append(server.Listeners, proxyListener{front})
	}
	s.pg = s.postgresHandler(line, egress, roots)
	server.Handlers = s.handlers()

	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	var wg sync.WaitGroup
	var first error
	var mu sync.Mutex
	part := func(name string, f func(context.Context) error) {
		wg.Go(func() {
			defer cancel() // one part that ends takes the session's network with it
			err := f(ctx)
			mu.Lock()
			defer mu.Unlock()
			if first == nil && err != nil && ctx.Err() == nil {
				first = fmt.Errorf("%s: %w", name, err)
			}
		})
	}
	part("proxy", proxy.Serve)
	part("vault", s.follow)
	if len(server.Listeners) > 0 {
		part("broker", server.Serve)
	}
	if sb.DNSUDP != nil {
		part("dns", func(ctx context.Context) error { return names.Serve(ctx, sb.DNSUDP, sb.DNSTCP) })
	}
	for port, l := range sb.HostPort {
		part("host port", func(ctx context.Context) error { return s.serveHostPort(ctx, l, port) })
	}
	for _, p := range s.publish {
		l, err := net.Listen("tcp", net.JoinHostPort("127.0.0.1", strconv.Itoa(p.host)))
		if err != nil {
			cancel()
			wg.Wait()
			return fmt.Errorf("--publish: %w", err)
		}
		s.app.say("port %d of the session is at %s", p.inside, l.Addr())
		part("publish", func(ctx context.Context) error {
			return serveConns(ctx, l, func(ctx context.Context, c net.Conn) {
				in, err := sb.Dial(ctx, p.inside)
				if err != nil {
					return
				}
				defer in.Close()
				// What the agent answers leaves the session: it goes through the line.
				_ = broker.Pipe(ctx, in, c, s.line.Open(guard.Origin{Channel: guard.ChannelSocket, Source: "broker", Host: "localhost", Port: p.host}))
			})
		})
	}
	wg.Wait()
	return first
}

// proxyListener is a proxy on the host's loopback, for tiers without a network
// of their own: every connection is meant for the proxy itself.
type proxyListener struct{ net.Listener }

func (l proxyListener) Accept() (net.Conn, error) {
	c, err := l.Listener.Accept()
	if err != nil {
		return nil, err
	}
	return proxyConn{c}, nil
}

type proxyConn struct{ net.Conn }

// Dst is the proxy's own address, by which the broker knows its clients.
func (c proxyConn) Dst() netip.AddrPort {
	a, _ := netip.ParseAddrPort(c.LocalAddr().String())
	return a
}

// NetConn lets the broker reach what is below.
func (c proxyConn) NetConn() net.Conn { return c.Conn }

// serveHostPort connects the session to a service on the host's loopback.
func (s *session) serveHostPort(ctx context.Context, l net.Listener, port int) error {
	for _, host := range loopbackNames {
		if h := s.handlers()[net.JoinHostPort(host, strconv.Itoa(port))]; h != nil {
			return serveConns(ctx, l, func(ctx context.Context, c net.Conn) { h(ctx, c, host, port) })
		}
	}
	return serveConns(ctx, l, func(ctx context.Context, c net.Conn) {
		var d net.Dialer
		up, err := d.DialContext(ctx, "tcp", net.JoinHostPort("127.0.0.1", strconv.Itoa(port)))
		if err != nil {
			return
		}
		defer up.Close()
		_ = broker.Pipe(ctx, c, up, s.line.Open(guard.Origin{Channel: guard.ChannelSocket, Source: "broker", Host: "localhost", Port: port}))
	})
}

// serveConns hands each connection of l to f, until ctx ends, and waits for them.
func serveConns(ctx context.Context, l net.Listener, f func(context.Context, net.Conn)) error {
	var wg sync.WaitGroup
	defer wg.Wait()
	stop := context.AfterFunc(ctx, func() { l.Close() })
	defer stop()
	for {
		c, err := l.Accept()
		if err != nil {
			if ctx.Err() != nil || errors.Is(err, net.ErrClosed) {
				return nil
			}
			return err
		}
		wg.Go(func() {
			defer c.Close()
			stop := context.AfterFunc(ctx, func() { c.Close() })
			defer stop()
			f(ctx, c)
		})
	}
}

// summary says at the end what happened, if anything did.
func (s *session) summary() {
	var parts []string
	if n := s.leaks.Load(); n > 0 {
		parts = append(parts, fmt.Sprintf("%d leaks stopped or seen", n))
	}
	if n := s.refusals.Load(); n > 0 {
		parts = append(parts, fmt.Sprintf("%d uses refused", n))
	}
	if len(parts) == 0 {
		return
	}
	io.WriteString(s.app.stderr, "guard: "+strings.Join(parts, ", ")+": guard audit show --session "+s.info.ID+"\n")
	if s.leaks.Load() > 0 {
		io.WriteString(s.app.stderr, "guard: what was done about them: guard incident ls\n")
	}
}
