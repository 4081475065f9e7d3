package main

import (
	"cmp"
	"fmt"
	"maps"
	"net"
	"slices"
	"strconv"
	"strings"
	"time"

	"guard"
	"guard/audit"
	"guard/bpf"
	"guard/rotate"
	"guard/supervisor"
)

// seen is a value that the kernel found, with what was asked about its process at
// once, or a credential found by its form.
type seen struct {
	bpf.Event
	owner
	first   int    // the guard process that it is or descends from; 0: none
	program string // SHA-256
	above   string // its ancestors
	peer    string // program at the other end of a Unix socket
	rule    string // by which form; "": a known value
	why     string

	alone     bool // the bytes are a word of their own: see standsAlone
	elsewhere bool // another user's process, of which no more is known
}

// read takes events from the kernel. What /proc says of a process is there only as
// long as the process is, so it is asked here and not by the judge.
func (m *monitor) read() error {
	// In a storm most finds are only counted: of those less is asked.
	asked, since := map[guard.SecretID]int{}, time.Now()
	for {
		e, err := m.bpf.Read()
		if err != nil {
			return err
		}
		if e.Kind != bpf.Leak {
			continue
		}
		m.needleMu.Lock()
		owners := m.owners[e.Generation]
		m.needleMu.Unlock()
		if owners == nil && m.registry != nil {
			continue // long ago: what it stood for is forgotten
		}
		if int(e.Needle) >= len(owners) {
			return fmt.Errorf("the kernel found needle %d of %d", e.Needle, len(owners))
		}
		f := seen{Event: e, owner: owners[e.Needle]}
		if time.Since(since) > stormFor {
			clear(asked)
			since = time.Now()
		}
		if f.owner.of != nil {
			if first, ok := m.bpf.Kin(f.PID); ok {
				f.first = first
			}
			if m.registry.hit(f.owner.of, f) {
				continue
			}
		}
		f.alone = f.owner.of != nil && f.owner.whole && standsAlone(f.Event)
		f.Window = nil // it holds a value
		asked[f.owner.id]++
		m.describe(&f, asked[f.owner.id] > 4*stormMost)
		m.found <- f // when it is full, so is the ring soon, which counts what it drops
	}
}

// describe adds what can be known of the process while it is there.
func (m *monitor) describe(f *seen, storm bool) {
	if m.bpf != nil {
		f.first, _ = m.bpf.Kin(f.PID)
	}
	if storm {
		return
	}
	switch {
	case f.Channel == bpf.ChannelTLS:
		f.Peer = onlyPeer(f.PID)
	case f.Path == "" && f.FD >= 0:
		f.Path = cmp.Or(fdName(f.PID, f.FD, f.Inode), f.Name)
	}
	if f.PeerPID > 0 {
		f.peer = exeOf(f.PeerPID)
	}
	if f.Exe != "" && exeOf(f.PID) == f.Exe { // else it is gone, and the number may be another's
		f.above = ancestors(f.PID, 1)
	}
}

// judgeAll takes every find to its end, and now and then writes down what was counted.
func (m *monitor) judgeAll() {
	minute, hour := time.NewTicker(stormFor/4), time.NewTicker(time.Hour)
	defer minute.Stop()
	defer hour.Stop()
	for {
		select {
		case f, ok := <-m.found:
			if !ok {
				m.settleStorms(time.Time{})
				return
			}
			m.take(f)
		case now := <-minute.C:
			m.settleStorms(now)
		case <-hour.C:
			m.recordSearched()
		}
	}
}

// again says that f is another form of what was found before it in the same call: the
// value without its public prefix, or a part of it.
func (m *monitor) again(f seen) bool {
	id := f.owner.id
	if f.owner.of != nil {
		id.Name = strconv.Itoa(f.owner.of.uid) // whose it is, is all that is known
	}
	return m.calls.Again(supervisor.Find{TID: f.TID, Call: f.Call, Leak: guard.Leak{Secret: id, Offset: f.Offset, Length: f.Length}})
}

// take sorts one find.
func (m *monitor) take(f seen) {
	again, own := f.rule == "" && m.again(f) || f.Channel == bpf.ChannelBacking, m.ownProgram(f.Event)
	// A part of a value may have been found before all of it.
	told := f.owner.of != nil && !own && f.Channel != bpf.ChannelBacking && m.registry.elsewhere(f)
	switch {
	case again && !told:
		m.counts.again++
	case own:
		m.counts.own++
	case f.owner.of != nil:
		m.recordOthers(f, told)
	case f.first != 0 && m.isOurs(f):
	case f.Channel == guard.ChannelFile && slices.Contains([]string{"/dev/null", "/dev/zero", "/dev/full", "/dev/random", "/dev/urandom"}, f.Path):
		m.counts.discarded++
	case m.trusts(f):
		m.counts.trusted++
	default:
		m.judge(f)
	}
}

// isOurs says that a find of a process that descends from guard is not the monitor's, and
// counts it.
func (m *monitor) isOurs(f seen) bool {
	g, ok := m.guard(f.first, f.Call)
	switch {
	case !ok:
		return false // its session is over: whoever is left is on its own
	case !g.session:
		m.counts.own++ // a provider that replaces the credential
	case g.home == m.app.home() && g.context == f.owner.id.Context && f.rule == "":
		m.counts.sessions++
	default:
		return false // that session does not know the value
	}
	return true
}

// ownProgram says that a find is about guard's own executable.
func (m *monitor) ownProgram(e bpf.Event) bool {
	if m.bpf == nil {
		return bpf.Runs(e, "/proc/self/exe")
	}
	return m.bpf.Own(e)
}

// trusts says that --trust names the program.
func (m *monitor) trusts(f seen) bool {
	return slices.ContainsFunc(m.opts.trust, func(path string) bool { return bpf.Runs(f.Event, path) })
}

const (
	// stormFor is how long one storm of leaks is, and stormMost how many leaks of
	// one credential's version are recorded one by one in that time.
	stormFor  = time.Minute
	stormMost = 64
	// typeThrottled is the type of records that say how many leaks were not
	// recorded one by one.
	typeThrottled = "leak.throttled"
	// stormOfForm is no context: the name with it is a rule's, not a credential's.
	stormOfForm = "\x00form"
)

// storm counts the leaks of one value.
type storm struct {
	since time.Time
	n     int
	more  map[guard.Channel]int // not recorded one by one
}

// judge takes a find down the leak line.
func (m *monitor) judge(f seen) {
	key := f.owner.id
	if f.rule != "" {
		key = guard.SecretID{Context: stormOfForm, Name: f.rule}
	}
	s := m.storms[key]
	now := time.Now()
	if s == nil {
		s = &storm{since: now, more: map[guard.Channel]int{}}
		m.storms[key] = s
	}
	if s.n++; s.n > stormMost {
		m.counts.throttled++
		s.more[f.Channel]++
		return
	}
	m.counts.leaks++
	l := m.leak(f)
	if f.Exe != "" && exeOf(f.PID) == f.Exe {
		// It may run another one by now.
		if h := m.procs.hash(f.PID); exeOf(f.PID) == f.Exe {
			f.program = h
		}
	}
	// The line is shared with nobody, and this find's record needs more than a leak holds.
	line := *m.line
	line.Record = func(l guard.Leak, d guard.Decision) (uint64, error) { return m.recordFound(f, l, d) }
	line.Decide = func(l guard.Leak) guard.Decision { return m.decideFound(f, l) }
	if f.rule != "" {
		line.Act = nil // nobody knows whose it is, or how to replace it
		m.counts.formats++
	}
	d := line.Judge(l)
	if !m.quiet {
		m.app.say("%s", supervisor.Words(l, d))
	}
}

const (
	// holdAfter is how many versions of one credential are replaced within holdFor. A program
	// that rightly gets every new value, and writes it, would have it replaced for ever.
	holdAfter = 3
	holdFor   = time.Hour
)

// replacement is a version that leaked, and when first.
type replacement struct {
	version int
	at      time.Time
	told    bool
}

// act starts what a leak sets off, unless the credential was replaced too often.
func (m *monitor) act(l guard.Leak, d guard.Decision) {
	if replace, _ := rotates(l, d); !replace || m.opts.noRotate || !m.hold(l.Secret) {
		m.actOnLeak(l, d)
		return
	}
	m.leaks.Add(1)
}

// hold says that a version is not to be replaced, and says so to people and to the log once.
func (m *monitor) hold(id guard.SecretID) bool {
	name := guard.SecretID{Context: id.Context, Name: id.Name}
	recent := slices.DeleteFunc(m.replaced[name], func(r replacement) bool { return time.Since(r.at) > holdFor })
	i := slices.IndexFunc(recent, func(r replacement) bool { return r.version == id.Version })
	if i < 0 {
		recent = append(recent, replacement{version: id.Version, at: time.Now()})
		i = len(recent) - 1
	}
	m.replaced[name] = recent
	if i < holdAfter {
		return false
	}
	if !recent[i].told {
		recent[i].told = true
		why := fmt.Sprintf("%d versions leaked within %s: it is not replaced again; --trust names a program that rightly writes it", holdAfter, holdFor)
		m.app.say("%s: %s", id.Name, why)
		r := m.record(audit.TypeRotation)
		r.Context, r.Credential, r.Version, r.Step, r.Result, r.Reason = id.Context, id.Name, id.Version, "held", "not replaced", why
		if _, err := m.append(r); err != nil {
			m.app.say("that could not be recorded: %v", err)
		}
	}
	return true
}

// leak is a find in the leak line's words.
func (m *monitor) leak(f seen) guard.Leak {
	l := guard.Leak{
		Origin: guard.Origin{Channel: f.Channel, Source: supervisor.SourceKernel, PID: f.PID, Exe: cmp.Or(f.Exe, f.Comm), Method: f.Syscall, Path: f.Path},
		Secret: f.owner.id, Class: f.owner.class, Encoding: f.owner.encoding, Offset: f.Offset, Length: f.Length, At: f.At,
		// It is out, unless the call failed; then a part may have gone before.
		Partial: !f.Refused || f.Offset <= -8,
	}
	if f.Peer.IsValid() {
		l.Host, l.Port = f.Peer.Addr().Unmap().String(), int(f.Peer.Port())
	}
	return l
}

// decide is policy's answer for the context of the value.
func (m *monitor) decide(l guard.Leak) guard.Decision {
	m.needleMu.Lock()
	p := m.policies[l.Secret.Context]
	m.needleMu.Unlock()
	return p.Leak(l)
}

func (m *monitor) decideFound(f seen, l guard.Leak) guard.Decision {
	d := guard.Decision{Secret: l.Secret}
	if f.rule == "" {
		d = m.decide(l)
	}
	switch {
	case f.rule != "":
		d.Action, d.Rule, d.Reason = guard.Warn, "format "+f.rule, f.why
	case f.Refused:
		d.Action, d.Rule = guard.Block, supervisor.RuleRefused
	default:
		d.Action, d.Rule = guard.Warn, supervisor.RuleSeen
		d.Reason = "the monitor reports what other programs write, and does not hold it up"
	}
	if f.elsewhere {
		d.Reason = strings.TrimPrefix(d.Reason+"; ", "; ") + fmt.Sprintf("in a process of user %d: the monitor of the machine says that, and no more of it", f.User)
	}
	return d
}

// recordLeak is for leaks that no find is behind: there are none.
func (m *monitor) recordLeak(l guard.Leak, d guard.Decision) (uint64, error) {
	return m.recordFound(seen{}, l, d)
}

func (m *monitor) recordFound(f seen, l guard.Leak, d guard.Decision) (uint64, error) {
	r := m.record(audit.TypeLeak)
	r.Time, r.Context = l.At, l.Secret.Context
	r.Credential, r.Version, r.Encoding = l.Secret.Name, l.Secret.Version, l.Encoding
	r.Channel, r.PID, r.Exe, r.Method, r.Path = string(l.Channel), l.PID, l.Exe, l.Method, l.Path
	if l.Host != "" {
		r.Host = net.JoinHostPort(l.Host, strconv.Itoa(l.Port))
	}
	r.Decision, r.Rule, r.Reason, r.Bytes = d.Action.String(), d.Rule, d.Reason, int64(l.Length)
	r.ExeSHA256, r.Ancestors = f.program, f.above
	if f.PeerPID > 0 {
		r.Resource = strings.TrimSpace(fmt.Sprintf("process %d %s", f.PeerPID, f.peer))
	}
	r.Result = "contained"
	if _, escaped := rotates(l, d); escaped {
		r.Result = "escaped"
	}
	if f.rule == "" {
		r.Class = l.Class.String()
		r.Fingerprint = m.print(l.Secret)
		if l.Class == guard.Live {
			r.Incident = rotate.IncidentID(l.Secret)
		}
	}
	return m.append(r)
}

// settleStorms records what was counted in storms that are over at now; all of them, if
// it is zero.
func (m *monitor) settleStorms(now time.Time) {
	for id, s := range m.storms {
		if !now.IsZero() && now.Sub(s.since) < stormFor {
			continue
		}
		delete(m.storms, id)
		for _, ch := range slices.Sorted(maps.Keys(s.more)) {
			r := m.record(typeThrottled)
			r.Context, r.Credential, r.Version, r.Channel = id.Context, id.Name, id.Version, string(ch)
			if id.Context == stormOfForm {
				r.Context, r.Credential, r.Rule = "", "", "format "+id.Name
			}
			r.Result = fmt.Sprintf("%d more leaks", s.more[ch])
			r.Reason = fmt.Sprintf("after %d in %s they are counted and not recorded one by one", stormMost, stormFor)
			if _, err := m.append(r); err != nil {
				m.app.say("a storm of leaks could not be recorded: %v", err)
			}
		}
	}
}
