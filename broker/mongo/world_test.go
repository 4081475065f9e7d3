package mongo

import (
	"bytes"
	"context"
	"crypto/tls"
	"net"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"guard"
	"guard/broker"
	"guard/policy"
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
