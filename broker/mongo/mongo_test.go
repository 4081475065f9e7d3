package mongo

import (
	"bytes"
	"context"
	"crypto/tls"
	"encoding/binary"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"slices"
	"strconv"
	"strings"
	"testing"

	"guard"
	"guard/internal/testutil"
)

const (
	realUser = "real_login"
	realPass = "value-one-of-the-user"
	planted  = "PLANTED-secret-value-0123456789"
	holder   = "guard-placeholder-of-docs"
)

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

// section is an array beside the body (kind 1).
func section(name string, docs ...[]byte) []byte {
	b := append(binary.LittleEndian.AppendUint32([]byte{1}, 0), name+"\x00"...)
	for _, d := range docs {
		b = append(b, d...)
	}
	binary.LittleEndian.PutUint32(b[1:], uint32(len(b)-1))
	return b
}

// TestSections: what a server joins to the body is judged, too.
func TestSections(t *testing.T) {
	srv := startServer(t, nil)
	for _, scope := range []string{"db:read", ""} {
		w := newWorld(t, srv, func(w *world) { w.scope = scope })
		c := dial(t, w.port)
		out := build(sub(0x03, "$out", str("db", "x")))
		doc := build(str("a", "b"))
		for name, m := range map[string]struct {
			section []byte
			body    []elem
		}{
			"pipeline":        {section("pipeline", out), []elem{str("aggregate", "x")}},
			"pipeline, twice": {section("pipeline", out), []elem{str("aggregate", "x"), stage("$match", str("a", "b"))}},
			"find":            {section("insert", doc), []elem{str("find", "x")}},
			"find, documents": {section("documents", doc), []elem{str("find", "x")}},
			"no name":         {section("", doc), []elem{str("find", "x")}},
			"a space":         {section(" ", doc), []elem{str("insert", "x")}},
			"two names":       {section("ops nsInfo", doc), []elem{i32("bulkWrite", 1)}},
			"$db":             {section("$db", doc), []elem{str("insert", "x")}},
			"out":             {section("out", doc), []elem{str("mapReduce", "x"), sub(0x03, "out", i32("inline", 1))}},
			"both":            {section("documents", doc), []elem{str("insert", "x"), sub(0x04, "documents", sub(0x03, "0", str("a", "b")))}},
			"a field twice":   {nil, []elem{str("aggregate", "x"), stage("$match", str("a", "b")), stage("$out", str("a", "b"))}},
			"a name twice":    {nil, []elem{str("find", "x"), str("find", "y")}},
		} {
			if got, _ := c.with(m.section, append(m.body, db("app"))...); !strings.HasPrefix(got, "guard refuses this command: a ") {
				t.Errorf("%q, %s: %q", scope, name, got)
			}
		}
		got, _ := c.with(section("documents", doc), str("insert", "x"), db("app"))
		if want := map[string]string{"": "ok", "db:read": "guard refused the use of credential docs: db:write"}[scope]; !strings.HasPrefix(got, want) {
			t.Errorf("%q: %q, want %q", scope, got, want)
		}
	}
	srv.mu.Lock()
	defer srv.mu.Unlock()
	if slices.Contains(srv.got, "aggregate") || slices.Contains(srv.got, "find") || len(srv.docs) != 1 {
		t.Errorf("got %q, %d documents", srv.got, len(srv.docs))
	}
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
// TestServerGoneAtOnce: what a client sends when the server is just gone ends its own
// connection and nothing else.
func TestServerGoneAtOnce(t *testing.T) {
	testutil.Leftovers(t)
	srv := startServer(t, nil)
	w := newWorld(t, srv)
	w.h.Dial = func(context.Context, string, int) (net.Conn, error) {
		here, there := net.Pipe()
		go func() {
			_, _ = readMessage(there)
			there.Close()
		}()
		return here, nil
	}
	open, seen, gone := w.h.Open, 0, make(chan struct{})
	w.h.Open = func(o guard.Origin) guard.Filter {
		if seen++; seen == 2 {
			<-gone // the second message is looked at while the first one's answer fails to come
		}
		return open(o)
	}
	c := dial(t, w.port)
	hello := frame(1, 0, opMsg, make([]byte, 5), build(i32("hello", 1), db("admin")))
	_, err := c.Write(append(hello, hello...))
	must(t, err)
	_, _ = io.Copy(io.Discard, c)
	close(gone)
	c.Close()
}

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
