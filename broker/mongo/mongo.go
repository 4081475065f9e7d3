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
// of pipelines. What is in no table (commands.go) is refused, and so is a field that is
// there twice, or a section beside the body that the command has not.
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
	"net"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"guard"
	"guard/broker"
)

// Handler serves connections to MongoDB servers. Credentials, Decide, Use, Dial and
// Open are needed; without one of them every connection is refused.
type Handler struct {
	broker.Login
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
		return say(failure(13, "Unauthorized", strings.Join(append([]string{words, d.Reason}, append(d.NextSteps, fmt.Sprintf("layer: leak, rule: %s, request: %s", d.Rule, broker.RequestID(d)))...), "; ")))
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
	if l.wait != nil { // the server is not gone
		l.wait[id] = p
	}
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
