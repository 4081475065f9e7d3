package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"guard"
	"guard/audit"
	brokerhttp "guard/broker/http"
	"guard/broker/postgres"
	"guard/broker/ssh"
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
	lock   *holder
	log    *audit.Log
	events *os.File
	policy *policy.Policy
	repo   project // guard.toml, as it was at the start

	matcher  *matcher.Matcher
	join     *matcher.Join // nil where what is found goes out anyway
	conceal  *conceal
	found    []*foundValue // values that the vault lends to this session
	noted    bool          // they were told
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
	notify   *notifier
	inKernel kernelPlan // what the kernel is asked for
	respond  *rotate.Responder
	pg       *postgres.Handler
	speaks   []protocol   // set before the first connection
	sshHost  *ssh.HostKey // what the gateway for ssh proves itself with inside; nil: there is none

	mu          sync.Mutex
	creds       []guard.Credential
	quarantined map[string]int                      // credential -> versions up to this one are refused
	switching   map[string]chan struct{}            // credential -> closed when its new value is current
	kept        map[guard.SecretID][]rotate.Restore // originals of files that were redacted in this session
	folded      *foldedValues                       // values in lower case, for names of hosts
	sandbox     *sandbox.Sandbox                    // once the agent runs
	running     chan struct{}                       // closed then
	told        map[string]bool                     // paths of which the user was told
	settled     []rotate.Incident                   // how incidents of this session ended
	procs       processes
	prints      map[guard.SecretID]string // fingerprints
	logins      *logins
	cloud       clouds
	sshTold     int                         // refusals of the ssh agent, likewise
	alarmed     map[string]bool             // uses of decoys that the user was told of
	scrubbers   map[string]*matcher.Matcher // what replies are looked through for, by the versions in it
	scrubSets   atomic.Pointer[[]*scrubSet] // those used last
	kernel      *kernel                     // that searches writes; nil: none
	tenants     *tenants                    // what is from the team's store; nil: nothing
	storeNotes  []audit.Record              // of before the log could be written
	closers     []func()
	stop        context.CancelFunc // ends the session, once it runs
	waiting     []lateLeak         // to be acted on when the vault is open again
	lockedOut   atomic.Bool        // it was ended by a lock
	logged      standing
	approvals   approvals // how the user is asked

	box    sandbox.Config // the session's, for its tasks
	starts sync.Mutex     // a hardened process starts one sandbox at a time

	uses, refusals, leaks atomic.Int64
}

func (a *app) newSession(o runFlags, argv []string) (_ *session, err error) {
	if err := o.check(); err != nil {
		return nil, err
	}
	s := &session{app: a, flags: o, argv: argv, home: a.userHome(), quarantined: map[string]int{}, switching: map[string]chan struct{}{}, kept: map[guard.SecretID][]rotate.Restore{}, scrubbers: map[string]*matcher.Matcher{}, told: map[string]bool{}, running: make(chan struct{}), prints: map[guard.SecretID]string{}, alarmed: map[string]bool{}, logins: newLogins()}
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
	if err := s.checkSSH(); err != nil {
		return nil, err
	}
	s.prepareKernel()
	if s.vault, err = a.openSessionVault(); err != nil {
		return nil, err
	}
	s.closers = append(s.closers, s.vault.Close)

	now := time.Now()
	s.info = guard.Session{ID: newSessionID(now), Task: o.task, Dir: s.dir, Started: now}
	if s.info.Context, s.info.Profile, err = a.world(o.context, o.profile); err != nil {
		return nil, err
	}
	if err := a.openContext(s.vault, s.info.Context); err != nil {
		return nil, err
	}
	if s.vault.Stored() { // else there is nothing that guard unlock could open again
		if err := s.holdLock(); err != nil {
			return nil, err
		}
	}
	if err := s.openStore(); err != nil {
		return nil, err
	}
	values, err := s.values()
	if err != nil {
		return nil, err
	}
	lent, err := s.find(values)
	if err != nil {
		return nil, err
	}
	values = append(values, bare(lent)...)
	if s.creds, err = s.vault.List(s.info.Context); err != nil {
		return nil, err
	}
	if err := s.openPolicy(); err != nil {
		return nil, err
	}
	if err := s.allowIssued(); err != nil {
		return nil, err
	}
	if err := s.openLog(); err != nil {
		return nil, err
	}
	if err := s.openLineWith(values); err != nil {
		return nil, err
	}
	if err := s.openFiles(); err != nil {
		return nil, err
	}
	if err := s.startStore(); err != nil {
		return nil, err
	}
	if err := s.openRotation(); err != nil {
		return nil, err
	}
	s.openApprovals()
	if s.inKernel, err = s.planKernel(); err != nil {
		return nil, err
	}
	return s, nil
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

// bareLength is how long a value must be without its public prefix to be looked
// for by itself.
const bareLength = 16

// values is what the scanner looks for: everything of the context, and of values
// with a public prefix, such as ghp_, the rest too: whoever has it has the value.
func (s *session) values() ([]guard.Value, error) {
	values, err := s.vault.Values(s.info.Context)
	return bare(append(values, s.cloud.values()...)), err
}

// bare adds to values with a public prefix what is behind it.
func bare(values []guard.Value) []guard.Value {
	for _, v := range slices.Clone(values) {
		if v.Class >= guard.Placeholder {
			continue
		}
		if n := vault.PrefixLength(v.Secret); n > 0 && v.Secret.Len()-n >= bareLength {
			values = append(values, guard.Value{ID: v.ID, Class: v.Class, Secret: guard.NewSecret(slices.Clone(v.Secret.Reveal()[n:]))})
		}
	}
	return values
}

// openLine loads what the scanner looks for.
func (s *session) openLine() error {
	values, err := s.values()
	if err != nil {
		return err
	}
	return s.openLineWith(values)
}

func (s *session) openLineWith(values []guard.Value) (err error) {
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
	s.folded = s.newFolded()
	s.closers = append(s.closers, func() {
		s.matcher.Close()
		if s.join != nil {
			s.join.Close()
		}
		s.folded.close()
		for _, m := range s.scrubbers {
			m.Close()
		}
	})
	if act, err := s.flags.leakAction(); err == nil && (act == nil || *act < guard.Warn) {
		s.join = matcher.NewJoin(liveOf(kept))
	}
	s.line = &supervisor.Line{Matcher: s.matcher, Join: s.join, Decide: s.policy.Leak, Record: s.recordLeak, Act: s.actOnLeak}
	return nil
}

// liveOf are the values that work.
func liveOf(values []guard.Value) []guard.Value {
	return slices.DeleteFunc(slices.Clone(values), func(v guard.Value) bool { return v.Class != guard.Live })
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
			if err := s.followHeld(); err != nil {
				return err // what leaked elsewhere cannot be told: the session ends
			}
		}
		s.checkLock()
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
	values, err := s.values()
	if err != nil {
		return
	}
	values = slices.DeleteFunc(values, func(v guard.Value) bool { return matcher.Refuse(v.Secret) != nil })
	if err := s.matcher.Set(values); err != nil {
		s.app.say("the scanner keeps its old values: %v", err)
	}
	s.mu.Lock()
	k := s.kernel
	s.mu.Unlock()
	if k != nil {
		if err := k.update(); err != nil {
			s.app.say("the kernel does not look for everything that the scanner does: %v", err)
		}
	}
	if s.join != nil {
		s.join.Add(liveOf(values)...)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.creds = creds
	s.folded = s.newFolded()
}

// run runs the agent and returns guard's exit status.
func (s *session) run(ctx context.Context) (int, error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	s.mu.Lock()
	s.stop = cancel
	s.mu.Unlock()
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
	s.giveUpWaiting()
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
	if s.lockedOut.Load() {
		s.end("the vault was locked")
		return 125, errors.New("the session was ended, since the vault was locked (--lock-ends-session)")
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
	s.mu.Lock()
	s.box = c
	s.mu.Unlock()
	if err := s.begin(boundary); err != nil {
		return supervisor.Status{}, fmt.Errorf("no session without its record: %w", err)
	}
	if err := s.noteFound(); err != nil {
		return supervisor.Status{}, fmt.Errorf("tell what was found: %w", err)
	}
	files, err := s.watched()
	if err != nil {
		return supervisor.Status{}, err
	}
	k := s.openKernel(s.inKernel)
	defer k.close()
	s.mu.Lock()
	s.kernel = k
	s.mu.Unlock()
	c.NoZeroCopy = s.inKernel.power == kernelBlock
	cfg := supervisor.Config{
		Sandbox: c, In: s.app.stdin, Out: s.app.stdout, Err: s.app.stderr, Line: s.line, Input: s.input(), Files: files,
		Writes: s.writes(), Say: func(m string) { s.app.say("%s", m) },
		Serve:  func(ctx context.Context, sb *sandbox.Sandbox) error { return s.serve(ctx, sb, front) },
		Screen: s.approvals.setScreen,
		Started: func(sb *sandbox.Sandbox) {
			s.mu.Lock()
			first := s.sandbox == nil
			s.sandbox = sb
			s.mu.Unlock()
			if first {
				close(s.running)
			}
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
			if s.flags.verbose {
				s.app.say("%s", s.kernelWords(k))
			}
		},
	}
	if k != nil {
		cfg.Kernel = k
	}
	return supervisor.Run(ctx, cfg)
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
		for _, line := range s.settledLines() {
			io.WriteString(s.app.stderr, "guard: "+line+"\n")
		}
		io.WriteString(s.app.stderr, "guard: what was done about them: guard incident ls\n")
	}
}
