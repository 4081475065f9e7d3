package main

import (
	"bytes"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"guard"
	"guard/audit"
	"guard/broker"
	"guard/matcher"
	"guard/policy"
	"guard/rotate"
	"guard/supervisor"
)

// record is a record of this session.
func (s *session) record(typ string) audit.Record {
	return audit.Record{Type: typ, Session: s.info.ID, Context: s.info.Context, Task: s.info.Task, Profile: s.info.Profile}
}

// begin is written before the agent's first instruction.
func (s *session) begin(boundary string) error {
	r := s.record(audit.TypeSessionStart)
	r.Reason, r.Exe, r.Path, r.Resource = boundary, s.argv[0], s.dir, s.flags.words()
	if n := s.conceal.Skipped + s.conceal.Unread; n > 0 {
		r.Result = fmt.Sprintf("%d files not looked into", n)
	}
	if _, err := s.append(r); err != nil {
		return err
	}
	return s.recordProject()
}

func (s *session) end(result string) {
	r := s.record(audit.TypeSessionEnd)
	r.Result = result
	r.DurationMS = float64(time.Since(s.info.Started).Microseconds()) / 1000
	if _, err := s.append(r); err != nil {
		s.app.say("the session's end could not be recorded: %v", err)
	}
}

// recordLeak is the leak line's record.
func (s *session) recordLeak(l guard.Leak, d guard.Decision) (uint64, error) {
	r := s.record(audit.TypeLeak)
	if name, ok := strings.CutPrefix(l.Source, sourceTask); ok {
		r.Task = name
	}
	r.Time = l.At
	r.Credential, r.Version, r.Class, r.Encoding = l.Secret.Name, l.Secret.Version, l.Class.String(), l.Encoding
	r.Channel, r.PID, r.Exe, r.Host, r.Method, r.Path = string(l.Channel), l.PID, l.Exe, l.Host, l.Method, l.Path
	r.Decision, r.Rule, r.Reason, r.Bytes = d.Action.String(), d.Rule, d.Reason, int64(l.Length)
	r.Result = "contained"
	if _, escaped := rotates(l, d); escaped {
		r.Result = "escaped"
	}
	s.describe(&r)
	if l.Class < guard.Placeholder {
		r.Fingerprint = s.print(l.Secret)
	}
	if l.Class == guard.Live || l.Class == guard.Decoy {
		r.Incident = rotate.IncidentID(l.Secret)
	}
	return s.append(r)
}

// append writes r with every known value masked that a host, a path or a reason
// may hold: an agent chooses those.
func (s *session) append(r audit.Record) (uint64, error) {
	s.mask(&r)
	return s.log.Append(r)
}

func (s *session) mask(r *audit.Record) {
	s.maskEach(&r.Host, &r.Path, &r.Resource, &r.Reason, &r.Result, &r.Task, &r.Exe, &r.Ancestors)
}

// maskEach does not look twice at a text that is in the log already, as it is: most of
// what a use's record says is what the one before said.
func (s *session) maskEach(fields ...*string) {
	s.mu.Lock()
	now := s.folded
	s.mu.Unlock()
	for _, f := range fields {
		if *f == "" || now.clean(*f) {
			continue
		}
		if b := s.conceal.bytes([]byte(*f)); b != nil {
			*f = string(b)
		} else {
			now.keep(*f)
		}
	}
}

// actOnLeak starts what a leak sets off. It does not wait.
func (s *session) actOnLeak(l guard.Leak, d guard.Decision) {
	s.leaks.Add(1)
	if l.Class == guard.Decoy {
		s.alarm(l)
		return
	}
	if replace, escaped := rotates(l, d); replace {
		s.rotateLeak(l, escaped)
	}
}

// rotates is policy's answer. What went from one process of the session to another
// was let through, and is in no place that guard does not control.
func rotates(l guard.Leak, d guard.Decision) (rotate, escaped bool) {
	rotate, escaped = policy.Rotates(l, d)
	return rotate, escaped && d.Rule != supervisor.RuleInside
}

// useLine is the use line's hands.
func (s *session) useLine() *broker.Line {
	return &broker.Line{
		Decide: func(u guard.Use) guard.Decision {
			if s.lock.locked() {
				return lockedDecision(u.Credential.Name)
			}
			s.mu.Lock()
			upTo := s.quarantined[u.Credential.Name]
			s.mu.Unlock()
			if u.Credential.Version <= upTo {
				return guard.Decision{Action: guard.Block, Rule: "quarantine", Reason: u.Credential.Name + " leaked, and is refused until a new value is current",
					NextSteps: []string{"try again in a few seconds, if guard can replace it by itself", "ask the user to look at guard incident ls, and to store a new value with guard secret set " + u.Credential.Name}}
			}
			return s.decideUse(u)
		},
		Record: func(u guard.Use, d guard.Decision) (broker.Result, error) {
			s.uses.Add(1)
			s.lock.use()
			use := s.useRecord(u, d) // what the outcome repeats is looked up and masked once
			s.mask(&use)
			seq, err := s.log.Append(use)
			if err != nil {
				return nil, err
			}
			return func(outcome string, took time.Duration, wiped bool) {
				r := use
				r.Type, r.Of, r.Wiped, r.Time = audit.TypeResult, seq, wiped, time.Time{}
				r.Result, r.Reason = resultOf(u, outcome)
				r.DurationMS = float64(took.Microseconds()) / 1000
				s.maskEach(&r.Result, &r.Reason)
				if _, err := s.log.Append(r); err != nil {
					s.app.say("the outcome of a use could not be recorded: %v", err)
				}
			}, nil
		},
		Value: func(id guard.SecretID) (guard.Secret, error) {
			s.awaitSwitch(id.Name)
			if !s.tenants.leases(id.Name) { // whose logins are one with their values
				id.Version = 0 // the current one, which a rotation may just have changed
			}
			return s.vault.Get(id)
		},
		Refused: func(u guard.Use, d guard.Decision) {
			s.refusals.Add(1)
			if _, err := s.append(s.useRecord(u, d)); err != nil {
				s.app.say("a refusal could not be recorded: %v", err)
			}
			if u.Credential.Decoy {
				s.alarm(decoyUse(u))
			}
		},
	}
}

// resultOf is how the log tells an outcome: whether it was a success, and what
// of it.
func resultOf(u guard.Use, outcome string) (result, detail string) {
	if code, ok := strings.CutPrefix(outcome, "status "); ok {
		switch {
		case len(code) >= 3 && code[0] < '4' && u.Action == "repo:push" && u.Method == "POST":
			return "success", "push sent, " + outcome
		case len(code) >= 3 && code[0] < '4':
			return "success", outcome
		default:
			return "failure", outcome
		}
	}
	if outcome == "failed" || outcome == "no value" {
		return "failure", outcome
	}
	return "success", outcome
}

func (s *session) useRecord(u guard.Use, d guard.Decision) audit.Record {
	r := s.record(audit.TypeUse)
	if u.Session.Task != "" {
		r.Task = u.Session.Task // a part of the session's work has its own
	}
	r.Time = u.At
	r.Credential, r.Version, r.Channel, r.Scope, r.Resource = u.Credential.Name, u.Credential.Version, string(u.Channel), u.Action, u.Resource
	r.Host, r.Port, r.Method, r.Path, r.PID, r.Exe = u.Host, u.Port, u.Method, u.Path, u.PID, u.Exe
	r.Decision, r.Rule, r.Reason = d.Action.String(), d.Rule, d.Reason
	r.Fingerprint = s.print(u.Credential.ID())
	s.describe(&r)
	return r
}

// describe adds what is known of the process that r is about.
func (s *session) describe(r *audit.Record) {
	s.mu.Lock()
	sb := s.sandbox
	s.mu.Unlock()
	top := 0
	if sb != nil {
		top = sb.Pid()
	}
	r.ExeSHA256, r.Ancestors = s.procs.about(r.PID, r.Exe, top)
	if sb == nil {
		r.Ancestors = ""
	}
}

// print is the keyed fingerprint of a version's value.
func (s *session) print(id guard.SecretID) string {
	s.mu.Lock()
	p, ok := s.prints[id]
	s.mu.Unlock()
	if ok {
		return p
	}
	if p = s.app.fingerprintOf(s.vault, id); p == "" {
		return "" // gone by now
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.prints[id] = p
	return p
}

// egress is the session's only way out.
func (s *session) egress() *broker.Egress {
	return &broker.Egress{
		Decide: s.decideEgress,
		Refused: func(host string, port int, proto string, d guard.Decision) {
			s.refusals.Add(1)
			r := s.record("egress.refused")
			r.Host, r.Channel, r.Decision, r.Rule, r.Reason = net.JoinHostPort(host, strconv.Itoa(port)), proto, d.Action.String(), d.Rule, d.Reason
			if _, err := s.append(r); err != nil {
				s.app.say("a refusal could not be recorded: %v", err)
			}
		},
		Resolve: func(host string, port int) (netip.AddrPort, bool) {
			for _, o := range s.resolves {
				if o.host == host && o.port == port {
					return o.to, true
				}
			}
			return netip.AddrPort{}, false
		},
		Allow: func(host string, port int, a netip.Addr) bool {
			if a.IsLoopback() {
				// The user's --host-port, for protocols that the broker speaks itself.
				return slices.Contains(s.flags.hostPorts, port) && slices.Contains(loopbackNames, host)
			}
			return !a.IsLinkLocalUnicast() && s.policy.Listed(host, port)
		},
	}
}

// loopbackNames are how credentials and clients call the host's loopback.
var loopbackNames = []string{"localhost", "127.0.0.1", "::1"}

// decideEgress is policy's answer, for a name that holds no credential: a name is
// sent to resolvers, which is a way out too. Names do not tell case apart, so the
// whole name and its labels joined are looked through in lower case.
func (s *session) decideEgress(host string, port int, proto string) guard.Decision {
	lower := strings.ToLower(host)
	s.mu.Lock()
	folded := s.folded
	s.mu.Unlock()
	m, err := folded.matcher()
	if err != nil {
		return guard.Decision{Action: guard.Block, Rule: "host name", Reason: "the name could not be looked through for credentials"}
	}
	for _, name := range []string{lower, strings.ReplaceAll(lower, ".", "")} {
		// In lower case the raw value is found by the folded one, its hex by the other.
		for _, h := range append(m.Scan([]byte(name)), s.matcher.Scan([]byte(name))...) {
			if h.Class == guard.Placeholder {
				continue
			}
			d := s.line.Judge(guard.Leak{
				Origin: guard.Origin{Channel: guard.ChannelSocket, Source: "broker", Port: port},
				Secret: h.ID, Class: h.Class, Encoding: h.Encoding, Length: int(h.End - h.Start), At: time.Now(),
			})
			if d.Action != guard.Pass {
				d.Action = guard.Block // a name cannot be masked
				d.Reason = "the host's name holds the credential " + h.ID.Name
				return d
			}
		}
	}
	return s.policy.Egress(host, port, proto)
}

// foldedValues looks for every live value in lower case. It is made when the first
// name is decided, which is after the session has started.
// It is made anew when values change, and so knows as well in which texts there is none of
// the present ones.
type foldedValues struct {
	once sync.Once
	make func() ([]guard.Value, error)
	m    *matcher.Matcher
	err  error

	mu    sync.Mutex
	empty map[string]struct{}
}

const (
	maxEmpty     = 256  // texts
	maxEmptyText = 1024 // bytes of one
)

func (f *foldedValues) clean(text string) bool {
	if f == nil {
		return false
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	_, ok := f.empty[text]
	return ok
}

func (f *foldedValues) keep(text string) {
	if f == nil || len(text) > maxEmptyText {
		return
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.empty == nil || len(f.empty) >= maxEmpty {
		f.empty = map[string]struct{}{}
	}
	f.empty[text] = struct{}{}
}

func (f *foldedValues) matcher() (*matcher.Matcher, error) {
	f.once.Do(func() {
		var values, lower []guard.Value
		if values, f.err = f.make(); f.err != nil {
			return
		}
		for _, v := range values {
			if v.Class != guard.Placeholder {
				s := guard.NewSecret(bytes.ToLower(v.Secret.Reveal()))
				if matcher.Refuse(s) == nil {
					lower = append(lower, guard.Value{ID: v.ID, Class: v.Class, Secret: s})
				}
			}
			v.Secret.Wipe()
		}
		f.m, f.err = matcher.New(lower)
	})
	return f.m, f.err
}

func (f *foldedValues) close() {
	f.once.Do(func() {})
	if f.m != nil {
		f.m.Close()
	}
}

// newFolded starts over with what the vault holds now.
func (s *session) newFolded() *foldedValues {
	return &foldedValues{make: s.values}
}

// splitHostPort splits "host" or "host:port".
func splitHostPort(s string, port int) (string, int) {
	if h, p, err := net.SplitHostPort(s); err == nil {
		if n, err := strconv.Atoi(p); err == nil {
			return h, n
		}
	}
	return s, port
}
