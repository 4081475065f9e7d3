package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"slices"
	"strings"
	"sync"
	"time"

	"guard"
	"guard/audit"
	"guard/bpf"
	"guard/policy"
	"guard/rotate"
	"guard/supervisor"
	"guard/vault"
)

// monitor is one `guard monitor`: a session without an agent. It looks for the values
// of all contexts of its vault, and what it finds goes down the same leak line as
// what a session outputs.
type monitor struct {
	*session
	opts     monitorFlags
	bpf      *bpf.Monitor
	forms    *forms      // nil: not asked for
	registry *registry   // nil: nobody may register
	remote   *watched    // not nil: the kernel is asked by the monitor of the machine, and bpf is nil
	othersIn []time.Time // finds of registered values that are in the log, the latest; the judge's own
	found    chan seen
	failed   chan error
	guards   map[guardKey]guardProcess        // by process; the judge's own
	calls    supervisor.Calls                 // the judge's own
	storms   map[guard.SecretID]*storm        // the judge's own
	replaced map[guard.SecretID][]replacement // by name, without version; the judge's own
	counts   monitorCounts                    // the judge's own
	last     bpf.Stats                        // what was written into the log so far
	started  time.Time
	quiet    bool // finds are shown elsewhere

	guardMu   sync.Mutex        // guards what follows
	ran       map[int]*ranGuard // guards that began while this one watches, the last of each number
	guardsEnd chan struct{}     // closed, and replaced, when one has ended

	needleMu sync.Mutex // guards what follows, and needles while they change
	owners   map[uint64][]owner
	policies map[string]*policy.Policy
}

// monitorCounts say what became of each find.
type monitorCounts struct {
	leaks     int // went down the leak line one by one
	throttled int // the same, but counted only
	own       int // guard's own, and programs that it starts to replace credentials
	sessions  int // of a guard session's processes: its own line judges them
	trusted   int // of programs that --trust names
	discarded int // written to where nothing is kept
	again     int // further forms of the same bytes
	formats   int // credentials found by their form
	others    int // registered values in processes that are not their user's
	unproven  int // hits that the monitor of the machine told of, and that are none
	lost      int // those that it could not tell of
}

// contextPolicy is the policy that judges leaks of one context's values.
func (m *monitor) contextPolicy(context string, creds []guard.Credential) (*policy.Policy, error) {
	info := m.info
	info.Context = context
	return policy.New(policy.Options{Session: info, OnLeak: m.opts.leakAction()}, creds)
}

func (a *app) openMonitor(o monitorFlags) (_ *monitor, err error) {
	s := &session{
		app: a, flags: runFlags{noRotate: o.noRotate, verbose: o.verbose}, argv: []string{"guard monitor"}, home: a.userHome(), quarantined: map[string]int{},
		switching: map[string]chan struct{}{}, kept: map[guard.SecretID][]rotate.Restore{}, prints: map[guard.SecretID]string{},
	}
	m := &monitor{
		session: s, opts: o, found: make(chan seen, 1<<14), failed: make(chan error, 2), guards: map[guardKey]guardProcess{}, ran: map[int]*ranGuard{}, guardsEnd: make(chan struct{}),
		storms: map[guard.SecretID]*storm{}, replaced: map[guard.SecretID][]replacement{}, owners: map[uint64][]owner{}, policies: map[string]*policy.Policy{},
	}
	defer func() {
		if err != nil {
			m.close()
		}
	}()
	options, err := o.scope()
	if err != nil {
		return nil, err
	}
	if s.vault, err = a.openVault(); err != nil {
		return nil, err
	}
	s.closers = append(s.closers, s.vault.Close)
	m.started = time.Now()
	s.info.ID = newSessionID(m.started)
	if err := s.holdLock(); err != nil {
		return nil, err
	}
	seals, err := s.vault.SealedContexts()
	if err != nil {
		return nil, err
	}
	for _, c := range seals {
		a.say("%s is sealed: what is in it is not looked for", c.Context)
	}
	// No context: all of them.
	s.info = guard.Session{ID: s.info.ID, Profile: "monitor", Started: m.started}
	if s.creds, err = s.vault.List(""); err != nil {
		return nil, err
	}
	var tee *os.File
	if o.json {
		tee = a.stdout
	}
	if s.log, err = a.openAudit(s.vault, tee); err != nil {
		return nil, err
	}
	s.closers = append(s.closers, func() { s.log.Close() })
	if err := s.openLine(); err != nil {
		return nil, err
	}
	s.conceal = &conceal{matcher: s.matcher, placeholders: map[string][]string{}}
	s.line = &supervisor.Line{Matcher: s.matcher, Decide: m.decide, Record: m.recordLeak, Act: m.act}
	if err := s.openRotation(); err != nil {
		return nil, err
	}
	// A new value is looked for before anybody is told of it.
	candidate, switched := s.runner.OnCandidate, s.runner.OnSwitch
	s.runner.OnCandidate = func(id guard.SecretID) {
		candidate(id)
		m.update()
	}
	s.runner.OnSwitch = func(from, to guard.SecretID) {
		switched(from, to)
		m.update()
	}
	if err := m.setPolicies(); err != nil {
		return nil, err
	}
	if o.register != "" {
		m.remote, err = m.connect(o.register)
		return m, err
	}
	needles, owners, left := m.needles()
	m.owners[1] = owners
	if len(needles) == 0 && !o.formats && o.listen == "" {
		return nil, errors.New("the vault has no value that the kernel could look for: guard secret set stores one")
	}
	if left > 0 && o.verbose {
		a.say("%d encodings of values are too short for the search in the kernel, or too many", left)
	}
	options.Needles, options.Windows = needles, o.listen != ""
	m.bpf, err = bpf.OpenMonitor(bpf.MonitorOptions{Options: options, TLS: true, Guards: m.noteGuard})
	wipeAll(needles)
	if err == nil && o.formats {
		m.forms, err = m.openForms(options)
	}
	if err == nil && o.listen != "" {
		m.registry, err = m.openRegistry(o.listen)
	}
	return m, err
}

// needles are what the kernel looks for, and what they stand for. left counts those that it
// cannot look for.
func (m *monitor) needles() (ns []bpf.Needle, owners []owner, left int) {
	for _, n := range m.matcher.Needles() {
		// One that is shorter than FastNeedle makes the search of everything slower: only
		// a value that is short itself is worth it.
		if n.Bytes.Len() < bpf.MinNeedle || n.Bytes.Len() < bpf.FastNeedle && n.Encoding != "raw" || len(ns) == bpf.Room() {
			left++
			n.Bytes.Wipe()
			continue
		}
		if o := (owner{id: n.ID, class: n.Class, encoding: n.Encoding}); len(owners) == 0 || owners[len(owners)-1] != o {
			owners = append(owners, o)
		}
		ns = append(ns, bpf.Needle{ID: uint32(len(owners) - 1), Bytes: n.Bytes})
	}
	return ns, owners, left
}

func wipeAll(ns []bpf.Needle) {
	for _, n := range ns {
		n.Bytes.Wipe()
	}
}

// update has the kernel look for what the scanner looks for now.
func (m *monitor) update() {
	err := m.setPolicies()
	if err == nil && m.remote != nil {
		if err := m.remote.register(); err != nil && !errors.Is(err, net.ErrClosed) {
			m.app.say("new values are not registered: %v", err)
		}
		return
	}
	m.needleMu.Lock()
	defer m.needleMu.Unlock()
	needles, owners, _ := m.needles()
	if err == nil && m.bpf != nil {
		err = m.search(needles, owners)
	}
	wipeAll(needles)
	if err != nil && !errors.Is(err, os.ErrClosed) {
		m.app.say("the kernel keeps looking for the values of before: %v", err)
	}
}

// keptGenerations is for how many tables the monitor knows what their needles stand for.
const keptGenerations = 64

// search has the kernel look for needles, and for what is registered. m.needleMu is held.
func (m *monitor) search(needles []bpf.Needle, owners []owner) (err error) {
	var generation uint64
	if m.registry == nil {
		generation, err = m.bpf.SetNeedles(needles)
	} else {
		for range 8 {
			key, hashed, theirs, done := m.registry.hashed(len(owners))
			var left []int
			if generation, left, err = m.bpf.SetHashed(key, needles, hashed); err == nil {
				owners = append(owners, theirs...)
				done(left)
				break
			}
			m.registry.renew()
			done(nil)
			if !errors.Is(err, bpf.ErrTooMany) {
				break
			}
		}
	}
	if err != nil {
		return err
	}
	m.owners[generation] = owners
	if m.registry != nil {
		delete(m.owners, generation-keptGenerations)
	}
	return nil
}

// setPolicies makes a policy for every context that there is now.
func (m *monitor) setPolicies() error {
	creds, err := m.vault.List("")
	if err != nil {
		return err
	}
	m.needleMu.Lock()
	defer m.needleMu.Unlock()
	for _, c := range creds {
		if m.policies[c.Context] != nil {
			continue
		}
		p, err := m.contextPolicy(c.Context, creds)
		if err != nil {
			return err
		}
		m.policies[c.Context] = p
	}
	return nil
}

// run watches until ctx ends or the user leaves the screen.
func (m *monitor) run(ctx context.Context, live bool) (err error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	m.respond = rotate.NewResponder(context.WithoutCancel(ctx), m.runner, m.incident, m.hooks())
	if err := m.begin("watches " + m.opts.words()); err != nil {
		return fmt.Errorf("no monitor without its record: %w", err)
	}
	if m.opts.verbose && m.bpf != nil {
		m.sayTLS()
	}
	m.quiet = live || m.opts.json
	var readers, judge sync.WaitGroup
	var sources []func() error
	stop := func() error { return m.remote.close() }
	if m.bpf != nil {
		sources, stop = append(sources, m.bpf.Follow, m.read), m.bpf.Stop
	} else {
		sources = append(sources, m.remote.read)
	}
	if m.forms != nil {
		sources = append(sources, m.forms.run)
	}
	for _, r := range sources {
		readers.Go(func() {
			if err := r(); err != nil && !errors.Is(err, os.ErrClosed) {
				m.failed <- err
				cancel()
			}
		})
	}
	judge.Go(m.judgeAll)
	following := make(chan struct{})
	go func() {
		defer close(following)
		var wg sync.WaitGroup
		if m.registry != nil {
			wg.Go(func() { m.registry.run(ctx) })
		}
		m.followVault(ctx)
		wg.Wait()
	}()
	if m.bpf != nil {
		m.app.say("ready: watching %s", m.opts.words())
	}

	if live {
		err = m.app.runLive(ctx, m.app.auditDir(), audit.Filter{Session: m.info.ID})
		cancel()
	}
	<-ctx.Done()
	<-following
	err = errors.Join(err, stop())
	if m.forms != nil {
		err = errors.Join(err, m.forms.pieces.Stop())
	}
	readers.Wait()
	close(m.failed)
	for e := range m.failed {
		err = errors.Join(err, e)
	}
	close(m.found)
	judge.Wait()
	m.respond.Wait()
	m.recordSearched()
	m.end(m.summaryLine())
	if kerr := m.app.keepHead(m.vault, m.log); kerr != nil {
		m.app.say("how far the log is could not be kept: %v", kerr)
	}
	m.summary()
	return err
}

// followVault takes over what other processes change in the vault.
func (m *monitor) followVault(ctx context.Context) {
	tick := time.NewTicker(followEvery)
	defer tick.Stop()
	seen := m.vault.Generation()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		m.checkLock()
		if now := m.vault.Generation(); now != seen {
			seen = now
			m.refresh()
			m.update()
		}
	}
}

func (m *monitor) close() {
	if m.forms != nil {
		m.forms.close()
	}
	if m.registry != nil {
		m.registry.l.Close()
	}
	if m.remote != nil {
		m.remote.close()
	}
	if m.bpf != nil {
		if err := m.bpf.Close(); err != nil {
			m.app.say("the search in the kernel did not end cleanly: %v", err)
		}
	}
	m.session.close()
}

// recordSearched writes what was searched since it last did, channel by channel.
func (m *monitor) recordSearched() {
	if m.bpf == nil {
		return // the monitor of the machine says it
	}
	st, err := m.bpf.Stats()
	if err != nil {
		m.app.say("what was searched is not known: %v", err)
		return
	}
	diff := bpf.Stats{Channels: map[guard.Channel]bpf.Counters{}, Missed: st.Missed - m.last.Missed}
	for ch, c := range st.Channels {
		if d := c.Minus(m.last.Channels[ch]); d != (bpf.Counters{}) {
			diff.Channels[ch] = d
		}
	}
	m.last = st
	m.recordCoverage(supervisor.SourceKernel, bpfCoverage(diff))
	if m.forms != nil {
		m.forms.recordSearched()
	}
}

// summaryLine is the result of the record of the monitor's end: what became of
// every find, and what was not looked at.
func (m *monitor) summaryLine() string {
	c := m.counts
	var b bytes.Buffer
	fmt.Fprintf(&b, "leaks=%d throttled=%d own=%d sessions=%d trusted=%d discarded=%d again=%d formats=%d others=%d", c.leaks, c.throttled, c.own, c.sessions, c.trusted, c.discarded, c.again, c.formats, c.others)
	if m.bpf == nil {
		fmt.Fprintf(&b, " unproven=%d lost=%d", c.unproven, c.lost)
		return b.String()
	}
	tls := m.bpf.TLS()
	fmt.Fprintf(&b, " seen=%d scanned=%d unreadable=%d oversize=%d dropped=%d refused=%d missed=%d tls_uncovered=%d tls_failed=%d news_lost=%d", m.last.Total.Seen,
		m.last.Total.Scanned, m.last.Total.Unreadable, m.last.Total.Oversize, m.last.Total.Dropped, m.last.Total.Refused, m.last.Missed,
		tls.UncoveredProcesses(), len(tls.Failed), tls.Lost)
	return b.String()
}

// sayTLS says which libraries are searched.
func (m *monitor) sayTLS() {
	tls := m.bpf.TLS()
	var names []string
	for name, fs := range tls.Files {
		names = append(names, name+" ("+strings.Join(fs, ", ")+")")
	}
	slices.Sort(names)
	m.app.say("TLS: %d files have a probe: %s", len(names), strings.Join(names, "; "))
	for name, why := range tls.Failed {
		m.app.say("TLS: no probe in %s: %s", name, why)
	}
}

// homeOf is where a guard with this environment has its vault.
func homeOf(env []string) string {
	return vault.GuardHome(func(k string) string {
		for _, kv := range env {
			if v, ok := strings.CutPrefix(kv, k+"="); ok {
				return v
			}
		}
		return ""
	})
}
