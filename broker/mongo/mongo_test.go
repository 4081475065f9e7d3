package mongo

import (
	"bytes"
	"context"
	"crypto/tls"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"guard"
	"guard/broker"
	"guard/internal/testutil"
	"guard/policy"
)

const (
	realUser = "real_login"
	realPass = "value-one-of-the-user"
	planted  = "PLANTED-secret-value-0123456789"
	holder   = "guard-placeholder-of-docs"
)

func must(tb testing.TB, err error) {
	tb.Helper()
	if err != nil {
		tb.Fatal(err)
	}
}

// server follows the specifications of OP_MSG, hello and SCRAM-SHA-256 on the wire,
// and keeps documents as they come. It is no MongoDB: there is none to be had for
// tests here.
type server struct {
	port     int
	mu       sync.Mutex
	password string
	docs     [][]byte
	got      []string // commands
	raw      bytes.Buffer
}

func startServer(tb testing.TB, cert *tls.Certificate) *server {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	must(tb, err)
	s := &server{port: l.Addr().(*net.TCPAddr).Port, password: realPass}
	ctx, cancel := context.WithCancel(context.Background())
	var wg sync.WaitGroup
	wg.Go(func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			if cert != nil {
				c = tls.Server(c, &tls.Config{Certificates: []tls.Certificate{*cert}})
			}
			wg.Go(func() {
				defer c.Close()
				stop := context.AfterFunc(ctx, func() { c.Close() })
				defer stop()
				s.serve(c)
			})
		}
	})
	tb.Cleanup(func() { l.Close(); cancel(); wg.Wait() })
	return s
}

func (s *server) serve(c net.Conn) {
	in := false
	var sc *login
	for {
		m, err := readMessage(c)
		if err != nil {
			return
		}
		s.mu.Lock()
		s.raw.Write(m)
		s.mu.Unlock()
		cmd, quiet, err := parse(m)
		if err != nil {
			return
		}
		s.mu.Lock()
		s.got = append(s.got, cmd.name)
		doc := build(f64("ok", 1))
		switch payload, _ := get(cmd.body, "payload"); {
		case cmd.name == "hello" || strings.EqualFold(cmd.name, "ismaster"):
			es := []elem{boolean("ismaster", true), boolean("isWritablePrimary", true), boolean("helloOk", true), i32("maxBsonObjectSize", 16<<20), i32("maxMessageSizeBytes", 48000000), i32("maxWriteBatchSize", 100000),
				i32("minWireVersion", 0), i32("maxWireVersion", 13), i32("logicalSessionTimeoutMinutes", 30), f64("ok", 1)}
			if _, ok := get(cmd.body, "compression"); ok {
				es = append(es, sub(0x04, "compression", str("0", "zlib")))
			}
			if _, ok := get(cmd.body, "speculativeAuthenticate"); ok {
				es = append(es, sub(0x03, "speculativeAuthenticate", i32("conversationId", 1)))
			}
			doc = build(es...)
		case cmd.name == "saslStart":
			if sc, err = newLogin(string(payload.data())); err == nil && sc.user == realUser && cmd.db == "admin" {
				doc = build(i32("conversationId", 7), boolean("done", false), bin("payload", []byte(sc.challenge)), f64("ok", 1))
			} else {
				doc = failure(18, "AuthenticationFailed", "Authentication failed.")
			}
		case cmd.name == "saslContinue":
			proof, ok := sc.check(string(payload.data()), s.password)
			if in = ok; ok {
				doc = build(i32("conversationId", 7), boolean("done", true), bin("payload", []byte(proof)), f64("ok", 1))
			} else {
				doc = failure(18, "AuthenticationFailed", "Authentication failed for "+realUser)
			}
		case commands[cmd.name] == free:
			if cmd.name == "connectionStatus" {
				doc = build(sub(0x03, "authInfo", sub(0x04, "authenticatedUsers", sub(0x03, "0", str("user", realUser), str("db", "admin")))), f64("ok", 1))
			}
		case !in:
			doc = failure(13, "Unauthorized", "command "+cmd.name+" requires authentication")
		case cmd.name == "insert":
			all := cmd.seqs["documents"]
			if d, ok := get(cmd.body, "documents"); ok {
				es, _, _ := document(d.raw)
				for _, e := range es {
					all = append(all, e.raw)
				}
			}
			s.docs = append(s.docs, all...)
			doc = build(i32("n", int32(len(all))), f64("ok", 1))
		case cmd.name == "find" || cmd.name == "aggregate":
			var batch []elem
			for i, d := range s.docs {
				batch = append(batch, elem{0x03, strconv.Itoa(i), d})
			}
			doc = build(sub(0x03, "cursor", sub(0x04, "firstBatch", batch...), elem{0x12, "id", make([]byte, 8)}, str("ns", cmd.db+"."+cmd.body[0].text())), f64("ok", 1))
		case cmd.name == "dropDatabase":
			doc = failure(13, "Unauthorized", "not authorized on "+cmd.db+" for user "+realUser)
		case cmd.name == "collStats":
			doc = build(str("note", realPass), f64("ok", 1))
		}
		s.mu.Unlock()
		if !quiet {
			if _, err := c.Write(answer(m, doc)); err != nil {
				return
			}
		}
	}
}

type world struct {
	h    *Handler
	srv  *server
	port int

	mu      sync.Mutex
	creds   []guard.Credential
	value   string
	scope   string
	uses    []guard.Use
	refused []string
	did     []string
}

func (w *world) change(f func()) { w.mu.Lock(); defer w.mu.Unlock(); f() }

func newWorld(tb testing.TB, srv *server, set ...func(*world)) *world {
	w := &world{srv: srv, value: realPass}
	w.creds = []guard.Credential{
		{Name: "docs", Context: "c", Version: 1, Kind: "mongodb", Hosts: []string{"127.0.0.1", "docs.test"}, User: realUser, Placeholder: holder},
		{Name: "foreign", Context: "c", Version: 1, Kind: "mongodb", Hosts: []string{"elsewhere.test"}, Placeholder: "placeholder-of-foreign-0001"},
	}
	decide := func(u guard.Use) guard.Decision {
		w.mu.Lock()
		defer w.mu.Unlock()
		sc := policy.Scope{Verb: "use"}
		if w.scope != "" {
			sc, _ = policy.ParseScope(w.scope)
		}
		if !sc.Covers(u.Action, u.Resource) {
			return guard.Decision{Action: guard.Block, Rule: "rule-seven", Reason: u.Action + " on " + u.Resource + " is outside", Secret: u.Credential.ID()}
		}
		return guard.Decision{Action: guard.Pass}
	}
	line := &broker.Line{
		Decide: decide,
		Record: func(u guard.Use, _ guard.Decision) (broker.Result, error) {
			w.change(func() { w.uses = append(w.uses, u) })
			return func(_ string, _ time.Duration, wiped bool) {
				if !wiped {
					tb.Error("not wiped")
				}
			}, nil
		},
		Value: func(guard.SecretID) (guard.Secret, error) {
			w.mu.Lock()
			defer w.mu.Unlock()
			return guard.NewSecret([]byte(w.value)), nil
		},
		Refused: func(u guard.Use, d guard.Decision) {
			w.change(func() { w.refused = append(w.refused, u.Credential.Name+" "+u.Action+" "+u.Resource+" "+u.Method) })
		},
	}
	w.h = &Handler{Login: broker.Login{
		Session: guard.Session{ID: "s"}, Credentials: func() []guard.Credential { w.mu.Lock(); defer w.mu.Unlock(); return slices.Clone(w.creds) },
		Decide: decide, Use: line.Use, Refused: line.Refuse, Ended: func(_ guard.Use, did string, _ time.Duration) { w.change(func() { w.did = append(w.did, did) }) },
		Dial: func(ctx context.Context, _ string, _ int) (net.Conn, error) {
			return (&net.Dialer{}).DialContext(ctx, "tcp", net.JoinHostPort("127.0.0.1", strconv.Itoa(srv.port)))
		},
		Open: func(guard.Origin) guard.Filter {
			var seen []byte
			return func(p []byte, s guard.Step) ([]byte, guard.Decision) {
				seen = append(seen, p...)
				if bytes.Contains(seen, []byte(planted)) {
					return nil, guard.Decision{Action: guard.Block, Rule: "leak-rule-3", Reason: "a secret of this session", Secret: guard.SecretID{Name: "other"}}
				}
				if s == guard.End {
					return seen, guard.Decision{Action: guard.Pass}
				}
				return nil, guard.Decision{Action: guard.Pass}
			}
		},
		Scrub: func([]guard.SecretID) guard.Filter {
			return func(p []byte, _ guard.Step) ([]byte, guard.Decision) {
				return bytes.ReplaceAll(p, []byte(realPass), []byte((holder + "***")[:len(realPass)])), guard.Decision{Action: guard.Pass}
			}
		},
	}}
	for _, f := range set {
		f(w)
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	must(tb, err)
	ctx, cancel := context.WithCancel(context.Background())
	var wg sync.WaitGroup
	wg.Go(func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			wg.Go(func() { w.h.Serve(ctx, c, "127.0.0.1", srv.port) })
		}
	})
	tb.Cleanup(func() { l.Close(); cancel(); wg.Wait() })
	w.port = l.Addr().(*net.TCPAddr).Port
	return w
}

type peer struct {
	net.Conn
	tb testing.TB
	id int32
}

func dial(tb testing.TB, port int) *peer {
	c, err := net.Dial("tcp", net.JoinHostPort("127.0.0.1", strconv.Itoa(port)))
	must(tb, err)
	tb.Cleanup(func() { c.Close() })
	c.SetDeadline(time.Now().Add(30 * time.Second))
	return &peer{c, tb, 100}
}

// do is one command and its reply: "ok", or the error's words.
func (p *peer) do(es ...elem) (string, []elem) { return p.with(nil, es...) }

func (p *peer) with(section []byte, es ...elem) (string, []elem) {
	p.tb.Helper()
	p.id++
	if _, err := p.Write(frame(p.id, 0, opMsg, make([]byte, 5), build(es...), section)); err != nil {
		return "gone", nil
	}
	m, err := readMessage(p)
	if err != nil {
		return "gone", nil
	}
	if m.to() != p.id {
		p.tb.Errorf("an answer to %d, not %d", m.to(), p.id)
	}
	reply, _, err := document(m[21:])
	must(p.tb, err)
	ok, _ := get(reply, "ok")
	if f, _ := ok.number(); f == 1 {
		return "ok", reply
	}
	words, _ := get(reply, "errmsg")
	return words.text(), reply
}

func (p *peer) want(want string, es ...elem) []elem {
	p.tb.Helper()
	got, reply := p.do(es...)
	if !strings.HasPrefix(got, want) {
		p.tb.Errorf("%s: %q, want %q", es[0].name, got, want)
	}
	return reply
}

// login is by SCRAM, as drivers do it.
func (p *peer) login(user, password string) string {
	c := newClient(user, password)
	got, es := p.do(i32("saslStart", 1), str("mechanism", "SCRAM-SHA-256"), bin("payload", []byte(c.first())), str("$db", "admin"))
	if got != "ok" {
		return got
	}
	payload, _ := get(es, "payload")
	final, err := c.final(string(payload.data()))
	must(p.tb, err)
	if got, es = p.do(i32("saslContinue", 1), i32("conversationId", 1), bin("payload", []byte(final)), str("$db", "admin")); got != "ok" {
		return got
	}
	payload, _ = get(es, "payload")
	if !c.proven(string(payload.data())) {
		return "not proven"
	}
	got, _ = p.do(i32("saslContinue", 1), i32("conversationId", 1), bin("payload", nil), str("$db", "admin"))
	return got
}

func db(name string) elem { return str("$db", name) }

func TestSession(t *testing.T) {
	testutil.Leftovers(t)
	srv := startServer(t, nil)
	w := newWorld(t, srv)
	c := dial(t, w.port)
	es := c.want("ok", i32("hello", 1), sub(0x04, "compression", str("0", "zlib")), str("saslSupportedMechs", "admin.me"), sub(0x03, "speculativeAuthenticate", i32("saslStart", 1)), db("admin"))
	mechs, _ := get(es, "saslSupportedMechs")
	if _, ok := get(es, "compression"); ok || !bytes.Contains(mechs.raw, []byte("SCRAM-SHA-256")) {
		t.Errorf("hello: %v", es)
	}
	if _, ok := get(es, "speculativeAuthenticate"); ok {
		t.Error("the server was asked for a login in advance")
	}
	if got := c.login("me", "guess"); !strings.HasPrefix(got, "guard: this is no placeholder") {
		t.Error(got)
	}
	if got := c.login("me", realPass); !strings.HasPrefix(got, "guard: this is no placeholder") {
		t.Error(got)
	}
	if got := c.login("me", "placeholder-of-foreign-0001"); !strings.HasPrefix(got, "guard refused the use of credential foreign") {
		t.Error(got)
	}
	if got := c.login("me", holder); got != "ok" {
		t.Error(got)
	}
	c.want("guard takes SCRAM-SHA-256", i32("saslStart", 1), str("mechanism", "PLAIN"), bin("payload", []byte("\x00a\x00b")), db("$external"))
	c.want("ok", str("insert", "things"), sub(0x04, "documents", sub(0x03, "0", str("a", "b"))), db("app"))
	if es := c.want("ok", str("find", "things"), db("app")); !bytes.Contains(build(es...), []byte("firstBatch")) {
		t.Error(es)
	}
	// Without a login, and with documents beside the body.
	c = dial(t, w.port)
	seq := slices.Concat([]byte{1}, []byte{0, 0, 0, 0}, []byte("documents\x00"), build(str("n", "1")), build(str("n", "2")))
	seq[1] = byte(len(seq) - 1)
	if got, es := c.with(seq, str("insert", "things"), db("app")); got != "ok" {
		t.Error(got, es)
	}
	if len(srv.docs) != 3 {
		t.Errorf("%d documents", len(srv.docs))
	}
	// Values and names.
	for _, es := range [][]elem{c.want("ok", i32("connectionStatus", 1), db("admin")), c.want("not authorized on app for user docs", i32("dropDatabase", 1), db("app")), c.want("ok", str("collStats", "x"), db("app"))} {
		if b := build(es...); bytes.Contains(b, []byte(realUser)) || bytes.Contains(b, []byte(realPass)) {
			t.Errorf("%q", b)
		}
	}
	c.want("ok", i32("logout", 1), db("admin"))
	c.want("ok", str("find", "things"), db("app"))
	c.Close()
	testutil.WaitFor(t, "the end is recorded", func() bool { w.mu.Lock(); defer w.mu.Unlock(); return len(w.did) > 0 })
	if u := w.uses[0]; u.Action != "db:query" || u.Resource != "app" || u.Credential.Name != "docs" || !slices.Contains(w.refused, "foreign db:query admin saslContinue") {
		t.Errorf("%+v %q", u, w.refused)
	}
	w.change(func() { w.value = "a-wrong-value" })
	if got, _ := dial(t, w.port).do(str("find", "things"), db("app")); !strings.Contains(got, "refused guard's credential docs") || strings.Contains(got, realUser) {
		t.Error(got)
	}
	w.change(func() { w.value = "mongodb://" + realUser + ":" + realPass + "@127.0.0.1/app?authSource=admin" })
	dial(t, w.port).want("ok", str("find", "things"), db("app"))
}

func stage(name string, es ...elem) elem {
	return sub(0x04, "pipeline", sub(0x03, "0", sub(0x03, name, es...)))
}

func TestScopes(t *testing.T) {
	srv := startServer(t, nil)
	w := newWorld(t, srv, func(w *world) { w.scope = "db:read" })
	c := dial(t, w.port)
	one := func(name string) elem { return str(name, "things") }
	for _, es := range [][]elem{
		{one("insert")}, {one("update")}, {one("delete")}, {one("findAndModify")}, {one("findandmodify")}, {one("drop")}, {i32("dropDatabase", 1)}, {one("create")}, {one("createIndexes")}, {one("collMod")},
		{one("aggregate"), stage("$out", str("x", "y"))}, {one("aggregate"), stage("$merge", str("into", "y"))}, {one("aggregate"), stage("$facet", sub(0x04, "a", sub(0x03, "0", str("$out", "x"))))},
		{one("mapReduce"), str("out", "y")}, {one("mapReduce"), sub(0x03, "out", str("replace", "y"))}, {one("mapReduce")}, {str("renameCollection", "a.b"), str("to", "a.c")}, {i32("bulkWrite", 1)},
		{i32("currentOp", 1)}, {i32("killOp", 1)}, {i32("fsync", 1)}, {one("validate")},
	} {
		c.want("guard refused the use of credential docs: db:write", append(es, db("app"))...)
	}
	for _, es := range [][]elem{{one("find")}, {one("aggregate"), stage("$match", str("a", "b"))}, {one("mapReduce"), sub(0x03, "out", i32("inline", 1))}, {one("count")}, {one("distinct")}, {i32("listCollections", 1)}, {i32("ping", 1)}, {sub(0x03, "explain", one("find"))}} {
		c.want("ok", append(es, db("app"))...)
	}
	w.change(func() { w.scope = "" })
	c = dial(t, w.port)
	for _, es := range [][]elem{
		{str("createUser", "evil"), str("pwd", "minted-by-the-agent")}, {str("updateUser", "me"), str("pwd", "x")}, {str("createRole", "r")}, {str("grantRolesToUser", "me")},
	} {
		c.want("guard refused the use of credential docs: token:mint", append(es, db("app"))...)
	}
	for _, es := range [][]elem{
		{str("find", "system.users")}, {str("insert", "system.users")}, {one("aggregate"), stage("$lookup", str("from", "system.users"))}, {one("aggregate"), stage("$currentOp", i32("a", 1))}, {str("usersInfo", "me"), boolean("showCredentials", true)},
		{str("$eval", "1")}, {str("eval", "1")}, {sub(0x04, "applyOps")}, {i32("shutdown", 1)}, {str("getParameter", "*")}, {i32("setParameter", 1)}, {str("copydb", "x")}, {str("noSuchCommand", "x")}, {str("FIND", "x")},
		{i32("authenticate", 1)}, {i32("getnonce", 1)}, {str("_isSelf", "x")}, {sub(0x03, "explain", str("createUser", "x"))}, {str("renameCollection", "a.b"), str("to", "admin.system.users")},
		{i32("bulkWrite", 1), sub(0x04, "nsInfo", sub(0x03, "0", str("ns", "admin.system.users")))},
	} {
		if got, _ := c.do(append(es, db("admin"))...); !strings.HasPrefix(got, "guard") {
			t.Errorf("%s: %q", es[0].name, got)
		}
	}
	srv.mu.Lock()
	for _, no := range []string{"createUser", "dropDatabase", "applyOps", "shutdown", "bulkWrite", "renameCollection"} {
		if slices.Contains(srv.got, no) {
			t.Errorf("%s reached the server", no)
		}
	}
	srv.mu.Unlock()
	// Databases by name.
	w.change(func() { w.scope = "db:write/app" })
	c = dial(t, w.port)
	c.want("ok", one("insert"), db("app"))
	c.want("guard refused the use of credential docs: db:read on other", one("find"), db("other"))
	for _, es := range [][]elem{{one("aggregate"), stage("$lookup", sub(0x03, "from", str("db", "other")))}, {one("aggregate"), stage("$out", str("db", "other"))}, {str("renameCollection", "app.x"), str("to", "other.x")}, {one("mapReduce"), str("out", "x")}} {
		c.want("guard refuses this command: the scope names databases", append(es, db("app"))...)
	}
	// Minting, by its own scope.
	w.change(func() { w.scope = "token:mint" })
	var kept []string
	w.h.Minted = func(_ guard.Use, user string, p guard.Secret) error {
		kept = append(kept, user+" "+string(p.Reveal()))
		return nil
	}
	c = dial(t, w.port)
	c.want("guard refused", str("createUser", "made"), str("pwd", "minted"), db("app")) // of one that may not read, nothing goes on
}

func TestLeaksAndStrictness(t *testing.T) {
	srv := startServer(t, nil)
	w := newWorld(t, srv)
	c := dial(t, w.port)
	for _, es := range [][]elem{
		{str("insert", "x"), sub(0x04, "documents", sub(0x03, "0", str("a", planted)))}, {str("find", planted)}, {str("find", "x"), sub(0x03, "filter", str(planted, "a"))},
		{str("insert", "x"), sub(0x04, "documents", sub(0x03, "0", bin("a", []byte(strings.Repeat("z", 300<<10)+planted))))},
	} {
		c.want("guard stopped this command: it holds a secret (other)", append(es, db("app"))...)
	}
	c.want("ok", str("find", "x"), db("app")) // it goes on
	srv.mu.Lock()
	if bytes.Contains(srv.raw.Bytes(), []byte(planted)) {
		t.Error("arrived")
	}
	srv.mu.Unlock()
	body := build(str("find", "x"), db("app"))
	bad := build(str("find", "x"), db("app"))
	bad[0]++
	for name, m := range map[string][]byte{
		"no sections": frame(1, 0, opMsg, make([]byte, 4)), "two bodies": frame(1, 0, opMsg, make([]byte, 5), body, []byte{0}, body), "no $db": frame(1, 0, opMsg, make([]byte, 5), build(str("find", "x"))),
		"two $db": frame(1, 0, opMsg, make([]byte, 5), build(str("find", "x"), db("app"), db("admin"))), "length": frame(1, 0, opMsg, make([]byte, 5), bad), "compressed": frame(1, 0, 2012, body),
		"huge": {0xff, 0xff, 0xff, 0x7f, 0, 0, 0, 0, 0, 0, 0, 0, 0xdd, 7, 0, 0}, "OP_INSERT": frame(1, 0, 2002, body), "unknown flag": frame(1, 0, opMsg, []byte{4, 0, 0, 0, 0}, body),
		"unknown section": frame(1, 0, opMsg, make([]byte, 5), body, []byte{2}), "$db with a dot": frame(1, 0, opMsg, make([]byte, 5), build(str("find", "x"), db("a.b"))), "HTTP": []byte("GET / HTTP/1.1\r\nHost: x\r\n\r\n"),
	} {
		c := dial(t, w.port)
		_, err := c.Write(m)
		must(t, err)
		if b, _ := io.ReadAll(c); len(b) > 0 {
			t.Errorf("%s: answered %q", name, b)
		}
	}
	// A checksum is passed over.
	c = dial(t, w.port)
	_, err := c.Write(frame(9, 0, opMsg, []byte{1, 0, 0, 0, 0}, body, []byte{1, 2, 3, 4}))
	must(t, err)
	if m, err := readMessage(c); err != nil || m.to() != 9 {
		t.Error(err)
	}
}

func TestTLS(t *testing.T) {
	ca := testutil.NewCA(t)
	cert := ca.Server(t, "127.0.0.1")
	srv := startServer(t, &cert)
	w := newWorld(t, srv, func(w *world) {
		w.h.Plain = func(string, int) bool { return false }
		w.h.TLS = &tls.Config{RootCAs: ca.Pool()}
	})
	dial(t, w.port).want("ok", str("find", "x"), db("app"))
	w.h.TLS = nil
	if got, _ := dial(t, w.port).do(str("find", "x"), db("app")); !strings.Contains(got, "certificate is not trusted") {
		t.Error(got)
	}
	plain := startServer(t, nil)
	w.h.Dial = func(context.Context, string, int) (net.Conn, error) {
		return net.Dial("tcp", net.JoinHostPort("127.0.0.1", strconv.Itoa(plain.port)))
	}
	if got, _ := dial(t, w.port).do(str("find", "x"), db("app")); !strings.Contains(got, "could not reach") {
		t.Error(got)
	}
}

// pymongo, as it is.
func TestPymongo(t *testing.T) {
	if exec.Command("/usr/bin/python3", "-c", "import pymongo").Run() != nil {
		if os.Getenv("GUARD_TEST_ALL") != "" {
			t.Fatal("pymongo is missing: apt-get install python3-pymongo")
		}
		t.Skip("pymongo is missing: apt-get install python3-pymongo")
	}
	srv := startServer(t, nil)
	w := newWorld(t, srv)
	out, err := exec.Command("/usr/bin/python3", "-c", fmt.Sprintf(`
import pymongo
c = pymongo.MongoClient("mongodb://me:%s@127.0.0.1:%d/?authSource=admin&directConnection=true", serverSelectionTimeoutMS=10000)
print(c.app.things.insert_many([{"a": i} for i in range(3)]).acknowledged, len(list(c.app.things.find())))
try:
    c.admin.command("createUser", "evil", pwd="x", roles=[])
except pymongo.errors.OperationFailure as e:
    print(e.code, str(e)[:40])
try:
    c.app.things.insert_one({"a": %q})
except pymongo.errors.OperationFailure as e:
    print(e.code, str(e)[:30])
try:
    pymongo.MongoClient("mongodb://me:guess@127.0.0.1:%d/?directConnection=true", serverSelectionTimeoutMS=10000).app.x.find_one()
except pymongo.errors.OperationFailure as e:
    print(e.code, str(e)[:27])
n = pymongo.MongoClient("mongodb://127.0.0.1:%d/?directConnection=true", serverSelectionTimeoutMS=10000)
print(n.app.things.find_one()["a"])
`, holder, w.port, planted, w.port, w.port)).CombinedOutput()
	want := "True 3\n13 guard refused the use of credential docs\n13 guard stopped this command: it \n18 guard: this is no placehol\n0\n"
	if err == nil {
		for _, l := range []string{"True 3\n", "13 guard refused the use of credential docs"[:20], "13 guard stopped this command", "18 guard: this is no placeholder"[:20], "\n0\n"} {
			if !strings.Contains(string(out), l) {
				t.Errorf("%q is not in\n%s", l, out)
			}
		}
		return
	}
	t.Errorf("%v\n%s\nwant\n%s", err, out, want)
}

func FuzzMessage(f *testing.F) {
	f.Add([]byte(frame(1, 0, opMsg, make([]byte, 5), build(str("find", "x"), db("a")))))
	f.Add([]byte(frame(1, 0, opQuery, make([]byte, 4), []byte("admin.$cmd\x00"), make([]byte, 8), build(i32("isMaster", 1)))))
	f.Fuzz(func(t *testing.T, b []byte) {
		m, err := readMessage(bytes.NewReader(b))
		if err != nil {
			return
		}
		c, _, err := parse(m)
		if err != nil {
			return
		}
		for _, wide := range []bool{true, false} {
			c.judge(wide)
		}
		if !bytes.Contains(m, build(c.body...)) && m.op() == opMsg {
			t.Fatal("the body is not what is on the wire")
		}
		if d, err := (rename{from: "a", to: "bb"}).doc(build(c.body...), 0); err == nil {
			if _, _, err := document(d); err != nil {
				t.Fatal(err)
			}
		}
	})
}

func FuzzSCRAM(f *testing.F) {
	f.Add("n,,n=u,r=abc", "c=biws,r=abc,p=AAAA")
	f.Fuzz(func(t *testing.T, first, final string) {
		if l, err := newLogin(first); err == nil {
			if _, ok := l.check(final, "a-password"); ok {
				t.Fatal("logged in")
			}
		}
	})
}
