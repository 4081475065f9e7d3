// Package mongo serves an agent's MongoDB connections (OP_MSG, and OP_QUERY for the
// first hello): the agent logs in with a placeholder or not at all, guard logs in
// upstream, both by SCRAM-SHA-256.
//
// One connection, top to bottom (Handler.Serve):
//
//	TLS            -> with the session's certificate
//	hello          -> on, without compression and without a login in advance; the
//	                  answer offers SCRAM-SHA-256 and no compression
//	saslStart, ... -> guard is the server, and knows the placeholders
//	other commands -> whole (48 MB at most) through the leak line's filter -> by name
//	                  and arguments: scope -> at the first one: use line, login -> on
//	replies        -> values become placeholders; errors without the real user's name
//
// A command that is refused is answered with ok: 0 and code 13, and the connection
// goes on. BSON is read as far as names need it: the command, its database, the keys
// of pipelines. What is in no table (commands.go) is refused.
//
// Under a scope that reads aggregate has no $out or $merge, and mapReduce is inline.
// Making or changing users and roles is token:mint. Refused under every scope: eval,
// applyOps, what changes the server or copies from another, what shows how users log
// in (system.users, showCredentials). The resource of a scope is the database.
//
// Upstream, TLS is used to another machine, and where the client does; its certificate
// must be good.
//
// What does not hold: the members of a replica set need a host of the credential each;
// values in pieces over several fields are not seen in one piece; SCRAM-SHA-1 and
// X.509 logins, mongodb+srv names and compression are not spoken.
//
// Goroutines: Serve starts one, which reads the server, and waits for it.
package mongo

import (
	"context"
	"crypto/tls"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"guard"
	"guard/broker"
	"guard/vault"
)

// Handler serves connections to MongoDB servers. Credentials, Decide, Use, Dial and
// Open are needed; without one of them every connection is refused.
type Handler struct {
	Session     guard.Session
	Credentials func() []guard.Credential
	// Decide is policy's answer to a use, without a record: broker.Line.Decide.
	Decide func(u guard.Use) guard.Decision
	// Use is the use line: broker.Line.Use.
	Use func(u guard.Use, send func(guard.Secret) (string, error)) (guard.Decision, error)
	// Refused records a command that was refused: broker.Line.Refuse; optional.
	Refused func(u guard.Use, d guard.Decision)
	// Ended records what a connection did, in words without data; optional.
	Ended func(u guard.Use, did string, took time.Duration)
	// Dial reaches a host that policy allows: broker.Egress.Dial.
	Dial func(ctx context.Context, host string, port int) (net.Conn, error)
	// Open starts a stream on the leak line.
	Open guard.OpenFilter
	// Scrub starts a stream in which values become their placeholders; optional.
	Scrub func(ids []guard.SecretID) guard.Filter
	// Minted takes a password that the agent sets for a user, before it is sent;
	// an error refuses the command. Optional.
	Minted func(u guard.Use, user string, password guard.Secret) error
	// GetCertificate gives the certificate that clients see; nil: no TLS.
	GetCertificate func(*tls.ClientHelloInfo) (*tls.Certificate, error)
	// TLS is how to check the upstream's certificate (RootCAs); nil: the system's roots.
	TLS *tls.Config
	// Plain says which servers may be talked to without TLS; nil: loopback only.
	Plain func(host string, port int) bool
}

const (
	opReply = 1
	opQuery = 2004
	opMsg   = 2013

	flagChecksum = 1 << 0
	flagMore     = 1 << 1

	maxMessage  = 48_000_000 + 16<<10
	maxRewrite  = 1 << 20
	timeout     = 20 * time.Second
	maxRecorded = 100
)

var (
	errWire = errors.New("not MongoDB's protocol")
	errGone = errors.New("the connection ended")
)

// message is one on the wire, with its header.
type message []byte

func (m message) id() int32 { return int32(binary.LittleEndian.Uint32(m[4:])) }
func (m message) to() int32 { return int32(binary.LittleEndian.Uint32(m[8:])) }
func (m message) op() int32 { return int32(binary.LittleEndian.Uint32(m[12:])) }

func readMessage(r io.Reader) (message, error) {
	var head [16]byte
	if _, err := io.ReadFull(r, head[:]); err != nil {
		return nil, err
	}
	n := int64(binary.LittleEndian.Uint32(head[:]))
	if n < 16 || n > maxMessage {
		return nil, errWire
	}
	// What is said to come is believed as it comes.
	b := append(make([]byte, 0, min(n, 64<<10)), head[:]...)
	for int64(len(b)) < n {
		k := min(n-int64(len(b)), 1<<20)
		at := len(b)
		b = append(b, make([]byte, k)...)
		if _, err := io.ReadFull(r, b[at:]); err != nil {
			return nil, err
		}
	}
	return b, nil
}

func frame(id, to, op int32, payload ...[]byte) message {
	b := make([]byte, 16)
	for _, p := range payload {
		b = append(b, p...)
	}
	for i, v := range []int32{int32(len(b)), id, to, op} {
		binary.LittleEndian.PutUint32(b[4*i:], uint32(v))
	}
	return b
}

// answer is a reply to m, in its own opcode.
func answer(m message, doc []byte) message {
	if m.op() == opQuery {
		return frame(1, m.id(), opReply, make([]byte, 16), []byte{1, 0, 0, 0}, doc)
	}
	return frame(1, m.id(), opMsg, make([]byte, 5), doc)
}

// parse reads a client's message; quiet: no reply is expected.
func parse(m message) (c *command, quiet bool, err error) {
	c = &command{seqs: map[string][][]byte{}}
	b := []byte(m[16:])
	var doc []byte
	switch m.op() {
	case opQuery:
		if len(b) < 5 {
			return nil, false, errWire
		}
		name, rest, ok := strings.Cut(string(b[4:]), "\x00")
		if !ok || !strings.HasSuffix(name, ".$cmd") || len(rest) < 8 {
			return nil, false, errWire
		}
		c.db = strings.TrimSuffix(name, ".$cmd")
		doc = b[4+len(name)+1+8:]
		if c.body, _, err = document(doc); err != nil || len(c.body) == 0 {
			return nil, false, errWire
		}
		if q, ok := get(c.body, "$query"); ok {
			if c.body, _, err = document(q.raw); err != nil || len(c.body) == 0 {
				return nil, false, errWire
			}
		}
	case opMsg:
		if len(b) < 5 {
			return nil, false, errWire
		}
		flags := binary.LittleEndian.Uint32(b)
		if flags&0xffff&^(flagChecksum|flagMore) != 0 { // bits that must be understood
			return nil, false, errWire
		}
		b = b[4:]
		if flags&flagChecksum != 0 {
			if len(b) < 4 {
				return nil, false, errWire
			}
			b = b[:len(b)-4]
		}
		for len(b) > 0 {
			kind := b[0]
			b = b[1:]
			switch kind {
			case 0:
				es, n, err := document(b)
				if err != nil || doc != nil || len(es) == 0 {
					return nil, false, errWire
				}
				doc, c.body, b = b[:n], es, b[n:]
			case 1:
				if len(b) < 5 {
					return nil, false, errWire
				}
				n := int(int32(binary.LittleEndian.Uint32(b)))
				if n < 5 || n > len(b) {
					return nil, false, errWire
				}
				name, docs, ok := strings.Cut(string(b[4:n]), "\x00")
				if _, twice := c.seqs[name]; !ok || twice {
					return nil, false, errWire
				}
				c.seqs[name] = nil
				for d := []byte(docs); len(d) > 0; {
					k, err := size(0x03, d)
					if err != nil {
						return nil, false, errWire
					}
					c.seqs[name] = append(c.seqs[name], d[:k])
					d = d[k:]
				}
				b = b[n:]
			default:
				return nil, false, errWire
			}
		}
		if doc == nil {
			return nil, false, errWire
		}
		db := 0
		for _, e := range c.body {
			if e.name == "$db" {
				c.db = e.text()
				db++
			}
		}
		if db != 1 || c.db == "" || strings.ContainsAny(c.db, "/\\. \"*<>:|?\x00") {
			return nil, false, errWire
		}
		quiet = flags&flagMore != 0
	default:
		return nil, false, errWire
	}
	c.name = c.body[0].name
	return c, quiet, nil
}

// failure is a reply that says no.
func failure(code int32, name, words string) []byte {
	return build(f64("ok", 0), str("errmsg", words), i32("code", code), str("codeName", name))
}

func denied(d guard.Decision) []byte {
	return failure(13, "Unauthorized", strings.Join(append([]string{"guard refused the use of credential " + d.Secret.Name + ": " + d.Reason}, append(d.NextSteps, fmt.Sprintf("layer: broker, rule: %s, request: %d", d.Rule, d.Record))...), "; "))
}

// link is one connection.
type link struct {
	h      *Handler
	ctx    context.Context
	client net.Conn
	secure bool
	host   string
	port   int
	pid    int
	exe    string
	begin  time.Time
	out    sync.Mutex // writes to the client

	up     net.Conn
	unhook func() bool
	wg     sync.WaitGroup
	mu     sync.Mutex
	wait   map[int32]*pending // by request id
	next   int32              // of guard's own requests

	cred    guard.Credential
	chosen  bool // by a login
	in      bool // logged in upstream
	user    string
	authDB  string
	logging *login
	step    int
	scopes  map[string]string // by database: the action that is allowed, "" for none
	real    string            // the user upstream
	seen    atomic.Pointer[view]

	reads, writes, refusals int
	errors                  atomic.Int64
}

// view is what replies are looked through for, once guard is logged in.
type view struct {
	id   guard.SecretID
	hide rename
}

// pending is a reply that does not go to the client as it is.
type pending struct {
	ch    chan message // guard's own
	hello []elem       // the client's hello
	names bool         // it may name the real user
}

// Serve serves one connection to its end, and closes it.
func (h *Handler) Serve(ctx context.Context, c net.Conn, host string, port int) {
	defer c.Close()
	unhook := context.AfterFunc(ctx, func() { c.Close() })
	defer unhook()
	l := &link{h: h, ctx: ctx, client: c, host: broker.CanonicalHost(host), port: port, begin: time.Now(), wait: map[int32]*pending{}, next: 0x60000000, scopes: map[string]string{}}
	l.pid, l.exe = broker.Process(c)
	p := broker.Peekable(c)
	l.client = p
	if b, err := p.Peek(1, 0); err == nil && b[0] == 0x16 && h.GetCertificate != nil {
		t := tls.Server(p, &tls.Config{GetCertificate: h.GetCertificate, MinVersion: tls.VersionTLS12})
		_ = c.SetDeadline(time.Now().Add(timeout))
		if t.HandshakeContext(ctx) != nil {
			return
		}
		_ = c.SetDeadline(time.Time{})
		l.client, l.secure = t, true
	}
	if h.Credentials == nil || h.Decide == nil || h.Use == nil || h.Dial == nil || h.Open == nil {
		return
	}
	defer func() {
		l.client.Close()
		if l.up != nil {
			l.unhook()
			l.up.Close()
			l.wg.Wait()
		}
		if l.in && h.Ended != nil {
			h.Ended(l.use("db:query", l.authDB), fmt.Sprintf("%d read, %d write, %d refused, %d errors", l.reads, l.writes, l.refusals, l.errors.Load()), time.Since(l.begin))
		}
	}()
	for {
		m, err := readMessage(l.client)
		if err != nil || l.take(m) != nil {
			return
		}
	}
}

func (l *link) tell(m message) error {
	l.out.Lock()
	defer l.out.Unlock()
	_, err := l.client.Write(m)
	return err
}

func (l *link) use(action, db string) guard.Use {
	return guard.Use{
		Session: l.h.Session, Credential: l.cred, Channel: guard.ChannelMongo, Action: action, Resource: db,
		Host: l.host, Port: l.port, Path: "/" + db, PID: l.pid, Exe: l.exe, At: time.Now(),
	}
}

// take serves one message of the client's; an error ends the connection.
func (l *link) take(m message) error {
	c, quiet, err := parse(m)
	if err != nil {
		return err
	}
	say := func(doc []byte) error {
		if quiet {
			return nil
		}
		return l.tell(answer(m, doc))
	}
	if d, ok := l.clean(m); !ok {
		l.refusals++
		words := "guard stopped this command: it holds a secret"
		if d.Secret.Name != "" {
			words += " (" + d.Secret.Name + ")"
		}
		return say(failure(13, "Unauthorized", strings.Join(append([]string{words, d.Reason}, append(d.NextSteps, fmt.Sprintf("layer: leak, rule: %s, request: %d", d.Rule, d.Record))...), "; ")))
	}
	if l.up == nil {
		if err := l.connect(); err != nil {
			return say(failure(6, "HostUnreachable", l.failed(err)))
		}
	}
	if m.op() == opQuery && c.name != "hello" && c.name != "isMaster" && c.name != "ismaster" {
		return say(failure(352, "UnsupportedOpQueryCommand", "guard takes OP_QUERY for hello only"))
	}
	wide := l.chosenOrOnly() == "" && l.h.Decide(l.use("db:read", "")).Allowed()
	cl, why := c.judge(wide)
	switch cl {
	case sasl:
		doc, err := l.sasl(c)
		if err != nil {
			doc = failure(18, "AuthenticationFailed", err.Error())
		}
		return say(doc)
	case unknown, never:
		if why == "" {
			why = "guard does not know it, or refuses it whatever the scope"
		}
		l.refused("db:query", c.db, "unknown", guard.Decision{Action: guard.Block, Rule: "mongodb command", Reason: why})
		return say(failure(13, "Unauthorized", "guard refuses this command: "+why))
	case free:
		return l.free(m, c, say)
	}
	if words := l.chosenOrOnly(); words != "" {
		return say(failure(13, "Unauthorized", words))
	}
	action := l.scope(c.db)
	want := map[class]string{read: "db:read", write: "db:write", mint: "token:mint"}[cl]
	if action == "" || action == "db:read" && cl == write {
		if action == "" {
			want = "db:read"
		}
		d := l.h.Decide(l.use(want, c.db))
		d.Secret = l.cred.ID()
		if why != "" {
			d.Reason += " (" + why + ")"
		}
		l.refused(want, c.db, c.name, d)
		return say(denied(d))
	}
	if !l.in {
		if doc := l.login(action, c.db); doc != nil {
			return say(doc)
		}
	}
	switch cl {
	case mint:
		d, err := l.h.Use(l.use("token:mint", c.db), func(guard.Secret) (string, error) { return "sent", nil })
		if err != nil {
			l.refusals++
			return say(denied(d))
		}
		if pwd, ok := get(c.body, "pwd"); ok && pwd.text() != "" && l.h.Minted != nil {
			if l.h.Minted(l.use("token:mint", c.db), c.body[0].text(), guard.NewSecret([]byte(pwd.text()))) != nil {
				return say(failure(13, "Unauthorized", "guard could not keep the password that this command sets, so it was not sent"))
			}
		}
		l.writes++
	case write:
		l.writes++
	default:
		l.reads++
	}
	if c.name == "usersInfo" || c.name == "currentOp" {
		l.expect(m.id(), &pending{names: true})
	}
	return l.send(m)
}

// free serves what needs no login.
func (l *link) free(m message, c *command, say func([]byte) error) error {
	switch c.name {
	case "logout":
		return say(build(f64("ok", 1))) // guard's login stays
	case "hello", "isMaster", "ismaster":
		l.expect(m.id(), &pending{hello: c.body})
		es := without(c.body, "speculativeAuthenticate", "saslSupportedMechs", "compression")
		if m.op() == opQuery {
			es = without(es, "$db")
			return l.send(frame(m.id(), 0, opQuery, make([]byte, 4), []byte(c.db+".$cmd\x00"), make([]byte, 4), []byte{0xff, 0xff, 0xff, 0xff}, build(es...)))
		}
		// Its flags stay, for a hello that waits (exhaustAllowed).
		flags := binary.LittleEndian.AppendUint32(nil, binary.LittleEndian.Uint32(m[16:])&^uint32(flagChecksum))
		return l.send(frame(m.id(), 0, opMsg, flags, []byte{0}, build(es...)))
	case "connectionStatus":
		l.expect(m.id(), &pending{names: true})
	}
	return l.send(m)
}

func (l *link) send(m message) error {
	_, err := l.up.Write(m)
	return err
}

func (l *link) expect(id int32, p *pending) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.wait[id] = p
}

// clean judges a message as one stream.
func (l *link) clean(m message) (guard.Decision, bool) {
	var home []string
	for _, c := range l.h.Credentials() {
		if broker.MatchHost(c.Hosts, l.host, l.port) {
			home = append(home, c.Name)
		}
	}
	f := l.h.Open(guard.Origin{Channel: guard.ChannelMongo, Source: "broker", PID: l.pid, Exe: l.exe, Host: l.host, Port: l.port, Home: home})
	if f == nil {
		return guard.Decision{Rule: "no filter"}, false
	}
	at := 16
	same := func(out []byte) bool {
		ok := len(out) <= len(m)-at && string(out) == string(m[at:at+len(out)])
		at += len(out)
		return ok
	}
	for i := 16; i < len(m); i += 64 << 10 {
		if out, d := f(m[i:min(i+64<<10, len(m))], guard.More); d.Action.Stops() || !same(out) {
			return d, false
		}
	}
	out, d := f(nil, guard.End)
	return d, !d.Action.Stops() && same(out)
}

func (l *link) refused(action, db, command string, d guard.Decision) {
	if l.refusals++; l.h.Refused == nil || l.refusals > maxRecorded {
		return
	}
	u := l.use(action, db)
	u.Method = command
	d.Secret = l.cred.ID()
	l.h.Refused(u, d)
}

// scope is what is allowed on a database: db:query, db:read, or "".
func (l *link) scope(db string) string {
	if a, ok := l.scopes[db]; ok {
		return a
	}
	for _, a := range []string{"db:query", "db:read"} {
		if l.h.Decide(l.use(a, db)).Allowed() {
			l.scopes[db] = a
			return a
		}
	}
	return ""
}

// chosenOrOnly sets the credential: the one that the client logged in with, or the
// only one. The words are an error's.
func (l *link) chosenOrOnly() (words string) {
	var found []guard.Credential
	var names []string
	for _, c := range l.h.Credentials() {
		if c.Kind == "mongodb" && broker.MatchHost(c.Hosts, l.host, l.port) {
			if l.chosen && c.Name == l.cred.Name {
				l.cred = c
				return ""
			}
			found, names = append(found, c), append(names, c.Name)
		}
	}
	switch {
	case l.chosen:
		return "guard has no credential " + l.cred.Name + " for this host any more"
	case len(found) == 1:
		l.cred = found[0]
		return ""
	case len(found) == 0:
		return fmt.Sprintf("guard has no MongoDB credential for %s:%d in this session; the user can add one: guard run --allow NAME, or guard secret set NAME --kind mongodb --host HOST", l.host, l.port)
	}
	return "several credentials are for this host: log in with the placeholder of one of " + strings.Join(names, ", ")
}

// sasl is guard as the server of a login.
func (l *link) sasl(c *command) ([]byte, error) {
	no := errors.New("guard: this is no placeholder of this session; log in with the placeholder (SCRAM-SHA-256), or not at all")
	payload, _ := get(c.body, "payload")
	reply := func(text string, done bool) []byte {
		return build(i32("conversationId", 1), boolean("done", done), bin("payload", []byte(text)), f64("ok", 1))
	}
	switch c.name {
	case "saslStart":
		mech, _ := get(c.body, "mechanism")
		if mech.text() != "SCRAM-SHA-256" {
			return nil, errors.New("guard takes SCRAM-SHA-256: authMechanism=SCRAM-SHA-256")
		}
		s, err := newLogin(string(payload.data()))
		if err != nil {
			return nil, no
		}
		l.logging, l.step, l.authDB = s, 1, c.db
		return reply(s.challenge, false), nil
	case "saslContinue":
		switch {
		case l.logging != nil && l.step == 1:
			s := l.logging
			l.logging = nil
			for _, cred := range l.h.Credentials() {
				for _, p := range placeholders(cred) {
					proof, ok := s.check(string(payload.data()), p)
					if !ok {
						continue
					}
					if cred.Kind != "mongodb" || !broker.MatchHost(cred.Hosts, l.host, l.port) {
						was := l.cred
						l.cred = cred
						l.refused("db:query", c.db, "saslContinue", guard.Decision{Action: guard.Block, Rule: "placeholder at a foreign host", Reason: "it is no MongoDB credential for this host"})
						l.cred = was
						return nil, errors.New("guard refused the use of credential " + cred.Name + ": it is no MongoDB credential for this host")
					}
					if l.in && cred.Name != l.cred.Name {
						return nil, errors.New("guard: this connection is logged in with " + l.cred.Name)
					}
					l.cred, l.chosen, l.user, l.step = cred, true, s.user, 2
					return reply(proof, false), nil
				}
			}
			return nil, no
		case l.step == 2:
			l.step = 0
			return reply("", true), nil
		}
	}
	return nil, no
}

// placeholders are what stands for a credential's password.
func placeholders(c guard.Credential) []string {
	if c.Placeholder == "" {
		return nil
	}
	out := []string{c.Placeholder}
	if written, decoded, ok := vault.Part(c.Placeholder); ok {
		out = append(out, written, decoded)
	}
	return out
}
