package redis

import (
	"bufio"
	"context"
	"crypto/tls"
	"fmt"
	"io"
	"net"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"guard"
	"guard/internal/testutil"
)

const (
	realUser = "real_login"
	planted  = "PLANTED-secret-value-0123456789"
	holder   = "guard-placeholder-of-cache"
)

func TestSession(t *testing.T) {
	testutil.Leftovers(t)
	srv := startServer(t)

	t.Run("no password, the placeholder, and others", func(t *testing.T) {
		w := newWorld(t, srv)
		dial(t, w.port).want("+PONG", "PING")
		c := dial(t, w.port)
		c.want("-WRONGPASS", "AUTH", "guess")
		c.want("-WRONGPASS", "AUTH", realUser, "guess-another")
		c.want("-NOPERM guard refused the use of credential foreign", "AUTH", "placeholder-of-foreign-0001")
		c.want("+OK", "AUTH", "anybody", holder)
		c.want("+OK", "AUTH", holder)
		c.want("-WRONGPASS", "AUTH", srv.password)
		c.want("+OK", "SET", "k", "v")
		c.want("v", "GET", "k")
		c.want("anybody", "ACL", "WHOAMI")
		c = dial(t, w.port)
		c.want("-WRONGPASS", "HELLO", "3", "AUTH", "x", "guess")
		if got := c.do("HELLO", "3", "AUTH", "x", holder, "SETNAME", "me"); !strings.HasPrefix(got, "%[server redis") {
			t.Errorf("HELLO: %q", got)
		}
		c.want("me", "CLIENT", "GETNAME")
		c.want("%[", "CONFIG", "GET", "maxmemory")
		w.mu.Lock()
		defer w.mu.Unlock()
		if len(w.uses) == 0 || w.uses[0].Action != "db:query" || w.uses[0].Resource != "0" || w.uses[0].Credential.Name != "cache" {
			t.Errorf("uses %+v", w.uses)
		}
		for _, e := range w.ends {
			if e != "connected wiped=true" {
				t.Error(e)
			}
		}
		if want := []string{"foreign db:query AUTH placeholder at a foreign host"}; !slices.Equal(w.refused, want) {
			t.Errorf("refused %q", w.refused)
		}
	})

	t.Run("values and names stay", func(t *testing.T) {
		w := newWorld(t, srv)
		c := dial(t, w.port)
		all := ""
		for _, cmd := range [][]string{{"ACL", "WHOAMI"}, {"ACL", "LIST"}, {"ACL", "GETUSER", realUser}, {"ACL", "USERS"}, {"CLIENT", "LIST"}, {"CLIENT", "INFO"}, {"CONFIG", "GET", "*"}, {"ACL", "LOG"}, {"SLOWLOG", "GET"}} {
			all += c.do(cmd...) + "\n"
		}
		digest := fmt.Sprintf("%x", sha("value-one-of-the-user"))
		for _, no := range []string{realUser, "value-one-of-the-user", digest} {
			if strings.Contains(all, no) {
				t.Errorf("%q is in: %s", no, all)
			}
		}
		if !strings.Contains(all, "user cache on") || !strings.Contains(all, fmt.Sprintf("%x", sha(holder))) {
			t.Errorf("ACL LIST: %s", all)
		}
		// requirepass is this credential's, after a rotation too.
		w.change(func() { w.values[2] = srv.password; w.creds[0].Version = 2 })
		if got := c.do("CONFIG", "GET", "requirepass"); strings.Contains(got, srv.password) || !strings.HasPrefix(got, "*[requirepass guard-pl") {
			t.Errorf("CONFIG GET requirepass: %q", got)
		}
		srv.ask(t, "ACL", "SETUSER", realUser, "-set")
		if got := c.do("SET", "a", "b"); strings.Contains(got, realUser) || !strings.HasPrefix(got, "-NOPERM") {
			t.Errorf("NOPERM: %q", got)
		}
	})

	t.Run("a wrong value", func(t *testing.T) {
		w := newWorld(t, srv)
		w.change(func() { w.values[1] = "a-wrong-value" })
		got := dial(t, w.port).do("PING")
		if strings.Contains(got, realUser) || strings.Contains(got, "a-wrong-value") || !strings.Contains(got, "cache (WRONGPASS)") {
			t.Errorf("%q", got)
		}
	})

	t.Run("minting", func(t *testing.T) {
		w := newWorld(t, srv)
		c := dial(t, w.port)
		srv.ask(t, "ACL", "SETUSER", "bystander", "off")
		for _, cmd := range [][]string{
			{"ACL", "SETUSER", "evil", "on", ">minted", "+@all", "~*"}, {"acl", "setuser", "evil"}, {"ACL", "GENPASS"}, {"ACL", "DELUSER", "bystander"}, {"acl", "deluser", "bystander", ">x"},
			{"CONFIG", "SET", "requirepass", "x"}, {"config", "set", "maxmemory", "0", "RequirePass", "x"}, {"CONFIG", "SET", "masterauth", "x"},
		} {
			c.want("-NOPERM guard refused the use of credential cache: token:mint is outside", cmd...)
		}
		c.want("+OK", "CONFIG", "SET", "maxmemory", "0")
		if got := srv.ask(t, "ACL", "LIST"); strings.Contains(got, "evil") || !strings.Contains(got, "bystander") {
			t.Error(got)
		}
		w.change(func() { w.scope = "token:mint" })
		var kept []string
		w.h.Minted = func(u guard.Use, user string, p guard.Secret) error {
			kept = append(kept, u.Action+" "+user+" "+string(p.Reveal()))
			return nil
		}
		c.want("+OK", "ACL", "SETUSER", "made", "on", ">first-minted", "~*", ">second-minted")
		c.want("+OK", "CONFIG", "SET", "requirepass", srv.password, "maxmemory", "0")
		if want := []string{"token:mint made first-minted", "token:mint made second-minted", "token:mint default " + srv.password}; !slices.Equal(kept, want) {
			t.Errorf("kept %q", kept)
		}
		c.want(":1", "ACL", "DELUSER", "bystander", ">no-password")
		if len(kept) != 3 {
			t.Errorf("DELUSER kept %q", kept[3:])
		}
		w.h.Minted = func(guard.Use, string, guard.Secret) error { return io.ErrClosedPipe }
		c.want("-NOPERM guard could not keep", "ACL", "SETUSER", "made", ">third-minted")
		w.mu.Lock()
		defer w.mu.Unlock()
		if u := w.uses[len(w.uses)-1]; u.Action != "token:mint" || len(w.refused) != 8 {
			t.Errorf("%+v %q", u, w.refused)
		}
	})

	t.Run("what is refused always", func(t *testing.T) {
		w := newWorld(t, srv)
		c := dial(t, w.port)
		for _, cmd := range [][]string{
			{"MONITOR"}, {"monitor"}, {"PSYNC", "?", "-1"}, {"SYNC"}, {"REPLCONF", "listening-port", "1"}, {"REPLICAOF", "evil.test", "6379"}, {"SLAVEOF", "evil.test", "1"},
			{"MIGRATE", "evil.test", "6379", "k", "0", "1000", "COPY"}, {"CLUSTER", "MEET", "evil.test", "1"}, {"CONFIG", "SET", "dir", "/etc"}, {"CONFIG", "SET", "maxmemory", "1", "DBFILENAME", "x"},
			{"MODULE", "LOAD", "/tmp/x.so"}, {"DEBUG", "SEGFAULT"}, {"CLIENT", "REPLY", "OFF"}, {"CLIENT", "REPLY", "SKIP"}, {"SENTINEL", "x"}, {"NOSUCHCOMMAND", "x"}, {"FAILOVER"},
			{"ACL", "LOAD"}, {"ACL", "SAVE"}, {"CONFIG", "REWRITE"}, {"config", "rewrite"}, {"ACL", "NOSUCH"}, {"DEBUG", "SLEEP", "1"}, {strings.Repeat("x", 100)}, {"SET\r\n", "x"}, {""},
		} {
			c.want("-NOPERM guard", cmd...)
		}
		c.want("+PONG", "PING")
	})
}

func TestReadScope(t *testing.T) {
	srv := startServer(t)
	w := newWorld(t, srv, func(w *world) { w.scope = "db:read" })
	srv.ask(t, "SET", "k", "v")
	srv.ask(t, "RPUSH", "l", "2", "1")
	srv.ask(t, "GEOADD", "g", "1", "1", "m")
	c := dial(t, w.port)
	for _, cmd := range [][]string{
		{"SET", "k", "x"}, {"set", "k", "x"}, {"DEL", "k"}, {"FLUSHALL"}, {"FLUSHDB"}, {"EVAL", "return redis.call('set','k','x')", "0"}, {"EVALSHA", "x", "0"}, {"FCALL", "f", "0"},
		{"SORT", "l", "STORE", "d"}, {"SORT", "l", "LIMIT", "0", "1", "sToRe", "d"}, {"GEORADIUS", "g", "1", "1", "1", "m", "STORE", "d"},
		{"GEORADIUS", "g", "1", "1", "1", "m", "STOREDIST", "d"}, {"GEORADIUSBYMEMBER", "g", "m", "1", "m", "storedist", "d"},
		{"BITFIELD", "k", "SET", "u8", "0", "1"}, {"BITFIELD", "k", "GET", "u8", "0", "INCRBY", "u8", "0", "1"}, {"GETEX", "k", "EX", "1"}, {"GETEX", "k", "PERSIST"}, {"GETDEL", "k"},
		{"COPY", "k", "d"}, {"MOVE", "k", "1"}, {"SWAPDB", "0", "1"}, {"PUBLISH", "c", "m"}, {"XREADGROUP", "GROUP", "g", "c", "STREAMS", "s", ">"}, {"XGROUP", "CREATE", "s", "g", "$"},
		{"CLIENT", "KILL", "ID", "1"}, {"CONFIG", "SET", "maxmemory", "0"}, {"ACL", "LOG", "RESET"}, {"acl", "log", "reset"}, {"SCRIPT", "FLUSH"}, {"FUNCTION", "FLUSH"}, {"SLOWLOG", "RESET"}, {"SHUTDOWN"}, {"SAVE"},
		{"RESTORE", "d", "0", "x"}, {"PFADD", "h", "x"}, {"BLPOP", "l", "0"}, {"LATENCY", "RESET"}, {"MEMORY", "PURGE"}, {"ACL", "DELUSER", "x"}, {"BITOP", "NOT", "d", "k"}, {"UNLINK", "k"},
		{"EXPIRE", "k", "1"}, {"RENAME", "k", "d"}, {"ZRANGESTORE", "d", "z", "0", "1"}, {"SINTERSTORE", "d", "s"},
	} {
		c.want("-NOPERM guard refused the use of credential cache", cmd...)
	}
	for want, cmd := range map[string][]string{
		"v": {"GET", "k"}, "*[1 2]": {"SORT", "l"}, "*[:118]": {"BITFIELD", "k", "GET", "u8", "0"}, ":1": {"EXISTS", "k"}, "*[m]": {"GEORADIUS", "g", "1", "1", "1", "m"}, "*[": {"SCAN", "0"},
		"+OK": {"SELECT", "1"}, "one": {"ECHO", "one"}, "string": {"OBJECT", "HELP"},
	} {
		if cmd[0] == "OBJECT" {
			want = "*["
		}
		c.want(want, cmd...)
		c.want("+OK", "SELECT", "0")
	}
	c.want("v", "GETEX", "k")
	c.want("v", "EVAL_RO", "return redis.call('get','k')", "0")
	c.want("-ERR", "EVAL_RO", "return redis.call('set','k','x')", "0")
	if got := c.do("EVAL", "return 1", "0"); !strings.Contains(got, "EVAL_RO") || !strings.Contains(got, "rule-seven") {
		t.Errorf("no hint: %q", got)
	}
	// None of it was done.
	if got := srv.ask(t, "GET", "k"); got != "v" {
		t.Error(got)
	}
	if got := srv.ask(t, "DBSIZE"); got != ":3" {
		t.Error(got)
	}
	c.Close()
	testutil.WaitFor(t, "the end is recorded", func() bool { w.mu.Lock(); defer w.mu.Unlock(); return len(w.did) > 0 })
	w.mu.Lock()
	defer w.mu.Unlock()
	if !strings.Contains(w.did[0], "refused") || !strings.Contains(w.did[0], " read") || w.uses[0].Action != "db:read" {
		t.Errorf("%q, %+v", w.did, w.uses[0])
	}
}

// A scope may name databases.
func TestDatabaseScope(t *testing.T) {
	srv := startServer(t)
	w := newWorld(t, srv, func(w *world) { w.scope = "db:write/[02]" })
	c := dial(t, w.port)
	c.want("+OK", "SET", "k", "v")
	c.want("-NOPERM", "SELECT", "1")
	c.want("+OK", "SELECT", "2")
	c.want("-NOPERM", "MOVE", "k", "1")
	c.want("-NOPERM", "COPY", "k", "d", "DB", "1")
	c.want(":0", "COPY", "k", "d")
	c.want("-NOPERM", "SWAPDB", "0", "1")
	c.want("-NOPERM", "FLUSHALL")
	c.want("-NOPERM", "EVAL", "redis.call('select', 1)", "0")
}

// What is refused has its error at its place, whatever comes around it.
func TestOrderOfReplies(t *testing.T) {
	srv := startServer(t)
	w := newWorld(t, srv)
	big := strings.Repeat("y", 200<<10)
	for _, size := range []int{1, 7, 100, 1 << 20} {
		c := dial(t, w.port)
		var b []byte
		var want []string
		for i := range 40 {
			b = append(b, wire("SET", fmt.Sprint("k", i), fmt.Sprint("v", i))...)
			want = append(want, "+OK")
			if i%3 == 0 {
				b = append(b, wire("MONITOR")...)
				want = append(want, "-NOPERM")
			}
			if i%5 == 0 {
				b = append(b, wire("ACL", "WHOAMI")...)
				want = append(want, "cache")
			}
			if i%7 == 0 {
				b = append(b, wire("AUTH", holder)...)
				want = append(want, "+OK")
			}
			b = append(b, fmt.Sprintf("GET k%d\r\n\r\n*0\r\n*-1\r\n", i)...)
			want = append(want, fmt.Sprint("v", i))
			if size > 50 && i%10 == 0 {
				b = append(b, wire("SET", "big", big)...)
				b = append(b, wire("CONFIG", "SET", "maxmemory", big)...)
				b = append(b, wire("APPEND", "big", big, "too", "many")...)
				b = append(b, wire("GET", "big")...)
				want = append(want, "+OK", "-NOPERM", "-ERR", big)
			}
		}
		go func() {
			for len(b) > 0 {
				n := min(size, len(b))
				if _, err := c.Write(b[:n]); err != nil {
					return
				}
				b = b[n:]
			}
		}()
		for i, x := range want {
			if got := c.reply(); !strings.HasPrefix(got, x) {
				t.Fatalf("pieces of %d: reply %d is %.80q, want %.80q", size, i, got, x)
			}
		}
		c.want("+OK", "QUIT")
	}
}

func TestTransactions(t *testing.T) {
	srv := startServer(t)
	w := newWorld(t, srv)
	c := dial(t, w.port)
	c.want("+OK", "MULTI")
	c.want("+QUEUED", "SET", "a", "1")
	c.want("+QUEUED", "INCR", "a")
	c.want("*[+OK :2]", "EXEC")
	c.want("+OK", "MULTI")
	c.want("+QUEUED", "SET", "a", "9")
	c.want("-NOPERM", "REPLICAOF", "x", "1")
	c.want("-EXECABORT", "EXEC")
	c.want("2", "GET", "a")
	c.want("+OK", "MULTI")
	c.want("-NOPERM", "ACL", "SETUSER", "x")
	c.want("+OK", "DISCARD")
	c.want("-ERR EXEC without MULTI", "EXEC")
	c.want("+OK", "WATCH", "a")
	c.want("+OK", "MULTI")
	c.want("+QUEUED", "GET", "a")
	c.want("*[2]", "EXEC")
}

func TestPubSubTrackingAndBlocking(t *testing.T) {
	srv := startServer(t)
	w := newWorld(t, srv)
	s := dial(t, w.port)
	s.want("*[subscribe ch :1]", "SUBSCRIBE", "ch")
	c := dial(t, w.port)
	c.want(":1", "PUBLISH", "ch", "hello")
	if got := s.reply(); got != "*[message ch hello]" {
		t.Error(got)
	}
	s.want("*[psubscribe p* :2]", "PSUBSCRIBE", "p*")
	s.want("*[pong ]", "PING")
	s.want("*[unsubscribe ch :1]", "UNSUBSCRIBE")
	s.want("*[punsubscribe p* :0]", "PUNSUBSCRIBE")
	s.want("+PONG", "PING")
	s.want("-NOPERM", "MONITOR")
	if got := s.reply(); got != "gone" {
		t.Errorf("a connection that is not counted goes on: %q", got)
	}

	r := dial(t, w.port)
	r.want("%[", "HELLO", "3")
	r.want("+OK", "CLIENT", "TRACKING", "ON")
	r.want("_", "GET", "tracked")
	c.want("+OK", "SET", "tracked", "1")
	if got := r.reply(); got != ">[invalidate *[tracked]]" {
		t.Error(got)
	}
	r.want("1", "GET", "tracked")
	r.want("-NOPERM", "MONITOR")
	r.want("1", "GET", "tracked")
	r.want(">[subscribe ch :1]", "SUBSCRIBE", "ch")
	r.want("1", "GET", "tracked")

	b := dial(t, w.port)
	_, err := b.Write(slices.Concat(wire("BLPOP", "list", "0"), wire("MONITOR"), wire("PING")))
	must(t, err)
	testutil.WaitFor(t, "it blocks", func() bool { return strings.Contains(srv.ask(t, "CLIENT", "LIST"), "cmd=blpop") })
	c.want(":1", "RPUSH", "list", "x")
	for _, want := range []string{"*[list x]", "-NOPERM", "+PONG"} {
		if got := b.reply(); !strings.HasPrefix(got, want) {
			t.Errorf("%q, want %q", got, want)
		}
	}
	// A client that goes away while it blocks takes the server's connection with it.
	_, err = b.Write(wire("BLPOP", "list", "0"))
	must(t, err)
	testutil.WaitFor(t, "it blocks again", func() bool { return strings.Contains(srv.ask(t, "CLIENT", "LIST"), "cmd=blpop") })
	b.Close()
	testutil.WaitFor(t, "it does not any more", func() bool { return !strings.Contains(srv.ask(t, "CLIENT", "LIST"), "cmd=blpop") })
}

func TestResetAndRotation(t *testing.T) {
	srv := startServer(t)
	w := newWorld(t, srv)
	c := dial(t, w.port)
	c.want("+OK", "SET", "k", "v")
	c.want("+RESET", "RESET")
	c.want("v", "GET", "k") // logged in again
	srv.ask(t, "ACL", "SETUSER", realUser, "resetpass", ">value-two-of-the-user")
	c.want("v", "GET", "k") // an open connection goes on
	timer := time.AfterFunc(100*time.Millisecond, func() {
		w.change(func() { w.values[2] = "value-two-of-the-user"; w.creds[0].Version = 2 })
	})
	defer timer.Stop()
	dial(t, w.port).want("v", "GET", "k") // a new one waits for the new value
	c.want("+RESET", "RESET")
	c.want("v", "GET", "k")
	w.change(func() { w.values[2] = "not the value any more" })
	c.want("+RESET", "RESET")
	if got := c.do("GET", "k"); got != "gone" {
		t.Errorf("a login that failed after RESET: %q", got)
	}
}

func TestLeaks(t *testing.T) {
	srv := startServer(t)
	w := newWorld(t, srv)
	for _, size := range []int{1, 3, 1 << 20} {
		for name, cmd := range map[string][]byte{
			"value": wire("SET", "k", planted), "key": wire("SET", planted, "k"), "command": wire(planted), "inline": []byte("SET k " + planted + "\r\n"),
			"password": wire("AUTH", planted), "user": wire("HELLO", "3", "AUTH", planted, holder), "big": wire("SET", "k", strings.Repeat("z", 100<<10)+planted+strings.Repeat("z", 100<<10)),
		} {
			if size < 10 && name == "big" {
				continue
			}
			c := dial(t, w.port)
			b := slices.Concat(wire("SET", "before", "1"), cmd, wire("SET", "after", "1"))
			go func() {
				for len(b) > 0 {
					n := min(size, len(b))
					if _, err := c.Write(b[:n]); err != nil {
						return
					}
					b = b[n:]
				}
			}()
			if got := c.reply(); got != "+OK" {
				t.Errorf("%s: the one before: %q", name, got)
			} else {
				got = c.reply()
				if !strings.HasPrefix(got, "-NOPERM guard stopped this command: it holds a secret (other)") || strings.Contains(got, planted) {
					t.Errorf("%s: %q", name, got)
				}
			}
			if got := c.reply(); got != "gone" {
				t.Errorf("%s: goes on with %q", name, got)
			}
		}
	}
	if got := srv.ask(t, "KEYS", "*"); got != "*[before]" && got != "*[]" {
		t.Errorf("arrived: %q", got)
	}
	// What only begins like one arrives, and is answered.
	c := dial(t, w.port)
	for n := 1; n < len(planted); n++ {
		c.want("+OK", "SET", "k", planted[:n])
		c.want(planted[:n], "GET", "k")
	}
	_, err := c.Write([]byte("SET k " + planted[:20] + "\r\n"))
	must(t, err)
	if got := c.reply(); got != "+OK" {
		t.Error(got)
	}
	// In pieces of one byte, with pauses, it is one value.
	c = dial(t, w.port)
	c.want("+PONG", "PING")
	for _, b := range []byte("SET slow " + planted + "\r\n") {
		if _, err := c.Write([]byte{b}); err != nil {
			break
		}
	}
	if got := c.reply(); !strings.HasPrefix(got, "-NOPERM guard stopped") || srv.ask(t, "EXISTS", "slow") != ":0" {
		t.Error(got)
	}
}

func TestTLS(t *testing.T) {
	srv := startServer(t)
	dialTLS := func(ctx context.Context, _ string, _ int) (net.Conn, error) {
		return (&net.Dialer{}).DialContext(ctx, "tcp", net.JoinHostPort("127.0.0.1", strconv.Itoa(srv.tlsPort)))
	}
	w := newWorld(t, srv, func(w *world) {
		w.h.Plain = func(string, int) bool { return false }
		w.h.Dial = dialTLS
	})
	c := dial(t, w.listen(t, "cache.test"))
	c.want("+OK", "SET", "k", "v")
	c.want("-NOPERM", "MONITOR") // the reader is told over TLS too
	c.want("v", "GET", "k")
	if got := dial(t, w.listen(t, "other.test")).do("PING"); !strings.Contains(got, "no Redis credential") {
		t.Error(got)
	}
	w.change(func() { w.creds[0].Hosts = append(w.creds[0].Hosts, "other.test") })
	if got := dial(t, w.listen(t, "other.test")).do("PING"); !strings.Contains(got, "not trusted") && !strings.Contains(got, "could not reach") {
		t.Errorf("a certificate for another name: %q", got)
	}
	w.h.wait = 300 * time.Millisecond
	w.h.Dial = func(ctx context.Context, _ string, _ int) (net.Conn, error) { return net.Dial("tcp", srv.addr()) }
	if got := dial(t, w.listen(t, "cache.test")).do("PING"); !strings.HasPrefix(got, "-NOPERM") || strings.Contains(got, "PONG") {
		t.Errorf("a server without TLS: %q", got)
	}
	// A URL that says TLS, and a client that does.
	w = newWorld(t, srv, func(w *world) {
		w.values[1] = "rediss://" + realUser + ":value-one-of-the-user@127.0.0.1"
		w.h.Dial = dialTLS
		cert := srv.ca.Server(t, "cache.test")
		w.h.GetCertificate = func(*tls.ClientHelloInfo) (*tls.Certificate, error) { return &cert, nil }
	})
	dial(t, w.port).want("+PONG", "PING")
	w.change(func() { w.values[1] = "value-one-of-the-user" })
	n, err := tls.Dial("tcp", net.JoinHostPort("127.0.0.1", strconv.Itoa(w.port)), &tls.Config{RootCAs: srv.ca.Pool(), ServerName: "cache.test"})
	must(t, err)
	defer n.Close()
	tc := &client{Conn: n, tb: t, r: bufio.NewReader(n)}
	tc.want("+PONG", "PING")
	tc.want("+OK", "AUTH", holder)
}

func TestSeveralCredentials(t *testing.T) {
	srv := startServer(t)
	w := newWorld(t, srv, func(w *world) {
		w.creds = append(w.creds, guard.Credential{Name: "second", Context: "c", Version: 1, Kind: "redis", Hosts: []string{"127.0.0.1"}, User: realUser, Placeholder: "placeholder-of-second-0002"})
	})
	c := dial(t, w.port)
	c.want("-NOAUTH guard: several credentials are for 127.0.0.1", "PING")
	c.want("+OK", "AUTH", "placeholder-of-second-0002")
	c.want("+PONG", "PING")
	c.want("second", "ACL", "WHOAMI")
	c.want("-ERR guard: this connection is logged in with second", "AUTH", holder)
	w.change(func() { w.creds = nil })
	dial(t, w.port).want("-NOPERM guard has no Redis credential", "PING")
	w.h.Open = nil
	dial(t, w.port).want("-NOPERM guard's Redis broker is not set up", "PING")
}
