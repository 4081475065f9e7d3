package main

import (
	"bytes"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"guard"
	"guard/audit"
	"guard/broker"
	"guard/broker/postgres"
	"guard/matcher"
	"guard/policy"
	"guard/rotate"
	"guard/rotate/exec"
	rotatepg "guard/rotate/postgres"
)

// record is a record of this session.
func (s *session) record(typ string) audit.Record {
	return audit.Record{Type: typ, Session: s.info.ID, Context: s.info.Context, Task: s.info.Task, Profile: s.info.Profile}
}

// begin is written before the agent's first instruction.
func (s *session) begin(boundary string) error {
	r := s.record(audit.TypeSessionStart)
	r.Reason, r.Exe, r.Path = boundary, s.argv[0], s.dir
	if n := s.conceal.Skipped + s.conceal.Unread; n > 0 {
		r.Result = fmt.Sprintf("%d files not looked into", n)
	}
	_, err := s.append(r)
	return err
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
	r.Time = l.At
	r.Credential, r.Version, r.Class, r.Encoding = l.Secret.Name, l.Secret.Version, l.Class.String(), l.Encoding
	r.Channel, r.PID, r.Exe, r.Host, r.Method, r.Path = string(l.Channel), l.PID, l.Exe, l.Host, l.Method, l.Path
	r.Decision, r.Rule, r.Reason, r.Bytes = d.Action.String(), d.Rule, d.Reason, int64(l.Length)
	r.Result = "contained"
	if _, escaped := policy.Rotates(l, d); escaped {
		r.Result = "escaped"
	}
	if l.Class == guard.Live {
		r.Incident = rotate.IncidentID(l.Secret)
	}
	return s.append(r)
}

// append writes r with every known value masked that a host, a path or a reason
// may hold: an agent chooses those.
func (s *session) append(r audit.Record) (uint64, error) {
	for _, f := range []*string{&r.Host, &r.Path, &r.Resource, &r.Reason, &r.Result, &r.Task, &r.Exe} {
		if b := s.conceal.bytes([]byte(*f)); b != nil {
			*f = string(b)
		}
	}
	return s.log.Append(r)
}

// actOnLeak starts what a leak sets off. It does not wait.
func (s *session) actOnLeak(l guard.Leak, d guard.Decision) {
	s.leaks.Add(1)
	if replace, escaped := policy.Rotates(l, d); replace {
		s.respond.Leak(l.Secret, escaped, l)
	}
}

// useLine is the use line's hands.
func (s *session) useLine() *broker.Line {
	return &broker.Line{
		Decide: func(u guard.Use) guard.Decision {
			s.mu.Lock()
			upTo := s.quarantined[u.Credential.Name]
			s.mu.Unlock()
			if u.Credential.Version <= upTo {
				return guard.Decision{Action: guard.Block, Rule: "quarantine", Reason: u.Credential.Name + " leaked and is being replaced",
					NextSteps: []string{"try again in a few seconds"}}
			}
			return s.policy.Use(u)
		},
		Record: func(u guard.Use, d guard.Decision) (broker.Result, error) {
			s.uses.Add(1)
			seq, err := s.append(s.useRecord(u, d))
			if err != nil {
				return nil, err
			}
			return func(outcome string, took time.Duration, wiped bool) {
				r := s.useRecord(u, d)
				r.Type, r.Of, r.Wiped, r.Time = audit.TypeResult, seq, wiped, time.Time{}
				r.Result, r.Reason = resultOf(outcome)
				r.DurationMS = float64(took.Microseconds()) / 1000
				if _, err := s.append(r); err != nil {
					s.app.say("the outcome of a use could not be recorded: %v", err)
				}
			}, nil
		},
		Value: func(id guard.SecretID) (guard.Secret, error) {
			s.awaitSwitch(id.Name)
			id.Version = 0 // the current one, which a rotation may just have changed
			return s.vault.Get(id)
		},
		Refused: func(u guard.Use, d guard.Decision) {
			s.refusals.Add(1)
			if _, err := s.append(s.useRecord(u, d)); err != nil {
				s.app.say("a refusal could not be recorded: %v", err)
			}
		},
	}
}

// resultOf is how the log tells an outcome: whether it was a success, and what
// of it.
func resultOf(outcome string) (result, detail string) {
	if code, ok := strings.CutPrefix(outcome, "status "); ok {
		switch {
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
	r.Time = u.At
	r.Credential, r.Version, r.Channel, r.Scope, r.Resource = u.Credential.Name, u.Credential.Version, string(u.Channel), u.Action, u.Resource
	r.Host, r.Method, r.Path, r.PID, r.Exe = u.Host, u.Method, u.Path, u.PID, u.Exe
	r.Decision, r.Rule, r.Reason = d.Action.String(), d.Rule, d.Reason
	return r
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
	for _, name := range []string{lower, strings.ReplaceAll(lower, ".", "")} {
		for _, h := range folded.Scan([]byte(name)) {
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

// fold makes the matcher of decideEgress: every live value in lower case.
func fold(values []guard.Value) (*matcher.Matcher, error) {
	var lower []guard.Value
	for _, v := range values {
		if v.Class >= guard.Placeholder {
			continue
		}
		s := guard.NewSecret(bytes.ToLower(v.Secret.Reveal()))
		if matcher.Refuse(s) == nil {
			lower = append(lower, guard.Value{ID: v.ID, Class: v.Class, Secret: s})
		}
	}
	return matcher.New(lower)
}

// scrub rewrites a reply: the values that were sent become their placeholders
// again. What it finds is no leak, since it goes to the agent.
func (s *session) scrub(ids []guard.SecretID) guard.Filter {
	refuse := func(p []byte, step guard.Step) ([]byte, guard.Decision) {
		return nil, guard.Decision{Action: guard.Block, Rule: "scrub", Reason: "the reply could not be looked through for the credential"}
	}
	var values []guard.Value
	placeholders := map[string]string{}
	for _, c := range s.credentials() {
		placeholders[c.Name] = c.Placeholder
	}
	for _, id := range ids {
		v, err := s.vault.Get(id)
		if err != nil {
			return refuse
		}
		values = append(values, guard.Value{ID: id, Class: guard.Live, Secret: v})
	}
	m, err := matcher.New(values)
	if err != nil {
		return refuse
	}
	return newScrubber(m, placeholders).filter
}

// holdBack is the leak line's: fewer bytes of a value than this may pass when a
// reply pauses in the middle of it.
const holdBack = 8

// scrubber is the Filter of one reply.
type scrubber struct {
	m            *matcher.Matcher
	st           *matcher.Stream
	placeholders map[string]string
	held         []byte
	released     int64
	spent        int
}

func newScrubber(m *matcher.Matcher, placeholders map[string]string) *scrubber {
	return &scrubber{m: m, st: m.Stream(), placeholders: placeholders}
}

func (c *scrubber) filter(p []byte, step guard.Step) ([]byte, guard.Decision) {
	c.held = c.held[:copy(c.held, c.held[c.spent:])]
	c.held = append(c.held, p...)
	hits, safe := c.st.Write(p)
	if step == guard.End {
		hits = append(hits, c.st.Close()...)
	}
	if end := c.released + int64(len(c.held)); step == guard.End || step == guard.Pause && end-safe < holdBack {
		safe = end
	}
	for _, h := range hits {
		from := max(h.Start, c.released)
		part := c.held[from-c.released : h.End-c.released]
		if ph := c.placeholders[h.ID.Name]; h.Encoding == "raw" && len(ph) == int(h.End-h.Start) {
			copy(part, ph[from-h.Start:])
			continue
		}
		matcher.Mask(part[:0], part, []matcher.Hit{{ID: h.ID, Class: h.Class, Encoding: h.Encoding, Start: from, End: h.End}}, from)
	}
	c.spent = int(max(0, safe-c.released))
	c.released += int64(c.spent)
	if step == guard.End {
		c.m.Close()
	}
	return c.held[:c.spent], guard.Decision{Action: guard.Pass}
}

// postgresHandler speaks PostgreSQL for credentials of that kind.
func (s *session) postgresHandler(line *broker.Line, egress *broker.Egress, roots *x509.CertPool) *postgres.Handler {
	return &postgres.Handler{
		Session: s.info, Credentials: s.credentials, Use: line.Use, Dial: egress.Dial, Open: s.line.Open, Plain: egress.Loopback,
		TLS: &tls.Config{RootCAs: roots},
		GetCertificate: func(hello *tls.ClientHelloInfo) (*tls.Certificate, error) {
			if hello.ServerName == "" {
				return s.ca.Leaf("localhost") // libpq before 14, and addresses: they cannot verify a name then
			}
			return s.ca.Leaf(hello.ServerName)
		},
	}
}

// handlers are the protocols besides HTTP, by the hosts of their credentials.
func (s *session) handlers() map[string]broker.Handler {
	hs := map[string]broker.Handler{}
	for _, c := range s.credentials() {
		if c.Kind != "postgres" {
			continue
		}
		for _, h := range c.Hosts {
			host, port := splitHostPort(h, 5432)
			hs[net.JoinHostPort(host, strconv.Itoa(port))] = s.pg.Serve
		}
	}
	return hs
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

// wasKnown says that a file held a value before the session: it is the user's.
func (s *session) wasKnown(path string) bool {
	for _, f := range s.files {
		if f.Path == path {
			return true
		}
	}
	return false
}

// maskLost says that a file that was shown with placeholders was replaced on the
// host, by an editor that renames for example. The mount that hid it went with
// the old file.
func (s *session) maskLost(path string) {
	r := s.record("mask.lost")
	r.Channel, r.Path, r.Reason = string(guard.ChannelFile), path, "replaced from outside during the session: the agent can read it"
	if _, err := s.append(r); err != nil {
		s.app.say("a record could not be written: %v", err)
	}
	s.app.say("%s was replaced during the session: the agent can read what is in it now. Start the session again to hide it", path)
}

// original is what a file held before guard masked it: all of it, or, of a large
// file, the masked bytes.
type original struct {
	Path    string    `json:"path"`
	At      time.Time `json:"at"`
	Content []byte    `json:"content,omitempty"`
	Spans   []span    `json:"spans,omitempty"`
}

type span struct {
	Offset int64  `json:"offset"`
	Bytes  []byte `json:"bytes"`
}

// keepWhole is the size up to which a file is kept whole. Of a larger one the
// masked bytes are, so that an agent cannot fill the disk with copies.
const keepWhole = 256 << 10

// keepOriginal seals what a file held before it is redacted.
func (s *session) keepOriginal(path string, content []byte, found []guard.Leak) error {
	o := original{Path: path, At: time.Now().UTC()}
	if len(content) <= keepWhole {
		o.Content = content
	} else {
		for _, l := range found {
			if end := l.Offset + int64(l.Length); end <= int64(len(content)) {
				o.Spans = append(o.Spans, span{l.Offset, content[l.Offset:end]})
			}
		}
	}
	b, err := json.Marshal(o)
	if err != nil {
		return err
	}
	box, err := s.vault.Seal("original", b)
	clear(b)
	if err != nil {
		return err
	}
	var id [6]byte
	_, _ = rand.Read(id[:]) // never fails (crypto/rand)
	name := hex.EncodeToString(id[:])
	if err := writeFile(filepath.Join(s.app.originalDir(), name), box); err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	seen := map[guard.SecretID]bool{}
	for _, l := range found {
		if !seen[l.Secret] {
			seen[l.Secret] = true
			s.kept[l.Secret] = append(s.kept[l.Secret], rotate.Restore{File: path, Original: name})
		}
	}
	return nil
}

// openRotation sets up what replaces a credential.
func (s *session) openRotation() error {
	var err error
	if s.runner, err = s.app.newRunner(s.vault, func(r rotate.Report, st rotate.Step) { s.recordStep(r, st) }); err != nil {
		return err
	}
	s.runner.Quarantine = func(id guard.SecretID) {
		s.mu.Lock()
		defer s.mu.Unlock()
		s.quarantined[id.Name] = max(s.quarantined[id.Name], id.Version)
	}
	s.runner.Release = func(id guard.SecretID) {
		s.mu.Lock()
		defer s.mu.Unlock()
		delete(s.quarantined, id.Name)
	}
	s.runner.OnCandidate = func(id guard.SecretID) {
		s.refresh()
		s.mu.Lock()
		defer s.mu.Unlock()
		if s.switching[id.Name] == nil {
			s.switching[id.Name] = make(chan struct{})
		}
	}
	s.runner.OnSwitch = func(_, id guard.SecretID) {
		s.refresh()
		s.switched(id.Name)
	}
	s.runner.Spare = func(_, name string) []uint32 {
		if s.pg == nil {
			return nil
		}
		return s.pg.BackendsOf(name)
	}
	s.incident, err = rotate.OpenIncidents(s.app.incidentDir())
	return err
}

// switchWait bounds how long a use waits for a rotation that is under way.
const switchWait = 10 * time.Second

// awaitSwitch waits while a credential is between its old and its new value:
// where the issuer knows one value at a time, the old one fails from the moment
// the new one is made, and the agent would notice.
func (s *session) awaitSwitch(name string) {
	s.mu.Lock()
	done := s.switching[name]
	s.mu.Unlock()
	if done == nil {
		return
	}
	select {
	case <-done:
	case <-time.After(switchWait):
	}
}

// switched lets waiting uses go on, with whatever is current now.
func (s *session) switched(name string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if done := s.switching[name]; done != nil {
		close(done)
		delete(s.switching, name)
	}
}

func (s *session) recordStep(rep rotate.Report, st rotate.Step) {
	if st.Step == rotate.StepRollback {
		s.switched(rep.Credential)
	}
	r := s.record(audit.TypeRotation)
	r.Time = st.At
	r.Credential, r.Context, r.Version, r.Step, r.Result, r.DurationMS = rep.Credential, rep.Context, rep.From, st.Step, st.Result, st.MS
	r.Incident, r.Reason = rep.Incident, rep.Mode+": "+rep.Reason
	if _, err := s.append(r); err != nil {
		s.app.say("a rotation step could not be recorded: %v", err)
	}
}

func (s *session) hooks() rotate.Hooks {
	return rotate.Hooks{
		NoRotate: s.flags.noRotate,
		Fill: func(i *rotate.Incident) {
			i.Uses = s.app.usesOf(i.Context, i.Credential)
			s.mu.Lock()
			defer s.mu.Unlock()
			id := guard.SecretID{Context: i.Context, Name: i.Credential, Version: i.Version}
			for _, r := range s.kept[id] {
				if !slices.Contains(i.Restore, r) {
					i.Restore = append(i.Restore, r)
				}
			}
		},
		Notify: func(i rotate.Incident) {
			if i.State != "open" || i.Report != nil {
				s.switched(i.Credential) // also where the rotation failed half-way
			}
		},
		Failed: func(err error) { s.app.say("an incident could not be written: %v", err) },
	}
}

// usesOf lists what a credential was used for, from the log, the last ones.
func (a *app) usesOf(context, name string) []rotate.Used {
	var out []rotate.Used
	results := map[uint64]string{}
	var seqs []uint64
	err := audit.Read(a.auditDir(), audit.Filter{Credential: name, Context: context}, func(r audit.Record) error {
		switch r.Type {
		case audit.TypeUse:
			out = append(out, rotate.Used{At: r.Time, Session: r.Session, Action: r.Scope, Host: r.Host, Path: r.Path, Result: r.Decision})
			seqs = append(seqs, r.Seq)
		case audit.TypeResult:
			results[r.Of] = r.Result
		}
		return nil
	})
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		a.say("the log could not be read for the incident: %v", err)
	}
	for i := range out {
		if res, ok := results[seqs[i]]; ok {
			out[i].Result = res
		}
	}
	const most = 1000
	if len(out) > most {
		out = out[len(out)-most:]
	}
	return out
}

// providers are the issuers that guard can replace credentials at.
func providers() map[string]rotate.Provider {
	return map[string]rotate.Provider{"postgres": rotatepg.Provider{}, "exec": exec.Provider{}}
}

// pinProvider completes a spec with what is fixed when it is set.
func pinProvider(provider string, options map[string]string) (string, error) {
	if _, ok := providers()[provider]; !ok {
		return "", usagef("--rotate %s: want postgres or exec", provider)
	}
	if provider == "exec" {
		if err := exec.Pin(options); err != nil {
			return "", fmt.Errorf("--rotate exec: %w", err)
		}
	}
	return rotate.FormatSpec(provider, options), nil
}
