package redis

import (
	"bufio"
	"bytes"
	"context"
	"crypto/tls"
	"fmt"
	"io"
	"net"
	"os"
	osexec "os/exec"
	"path/filepath"
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

func must(tb testing.TB, err error) {
	tb.Helper()
	if err != nil {
		tb.Fatal(err)
	}
}

// server is a real one.
type server struct {
	port, tlsPort int
	password      string // of the superuser "default"
	ca            *testutil.CA
}

func startServer(tb testing.TB, args ...string) *server {
	tb.Helper()
	bin, err := osexec.LookPath("redis-server")
	if err != nil {
		if os.Getenv("GUARD_TEST_ALL") != "" {
			tb.Fatal("redis-server is not installed: apt-get install redis-server redis-tools")
		}
		tb.Skip("redis-server is not installed: apt-get install redis-server redis-tools")
	}
	dir := tb.TempDir()
	s := &server{port: testutil.FreePort(tb), tlsPort: testutil.FreePort(tb), password: testutil.Random(24), ca: testutil.NewCA(tb)}
	cert := s.ca.Server(tb, "cache.test", "127.0.0.1")
	pem := filepath.Join(dir, "cert.pem")
	must(tb, os.WriteFile(pem, testutil.PEM(tb, cert), 0o600))
	cmd := osexec.Command(bin, append([]string{"--port", strconv.Itoa(s.port), "--bind", "127.0.0.1", "--save", "", "--dir", dir, "--requirepass", s.password,
		"--user", realUser, "on", ">value-one-of-the-user", "~*", "&*", "+@all",
		"--tls-port", strconv.Itoa(s.tlsPort), "--tls-cert-file", pem, "--tls-key-file", pem, "--tls-ca-cert-file", s.ca.File, "--tls-auth-clients", "no"}, args...)...)
	var log bytes.Buffer
	cmd.Stdout, cmd.Stderr = &log, &log
	must(tb, cmd.Start())
	tb.Cleanup(func() { cmd.Process.Kill(); cmd.Wait() })
	testutil.WaitFor(tb, "redis-server answers", func() bool {
		c, err := net.Dial("tcp", s.addr())
		if err == nil {
			c.Close()
		}
		return err == nil
	})
	return s
}

func (s *server) addr() string { return net.JoinHostPort("127.0.0.1", strconv.Itoa(s.port)) }

// ask is the superuser's own word with the server.
func (s *server) ask(tb testing.TB, args ...string) string {
	tb.Helper()
	c := dial(tb, s.port)
	defer c.Close()
	c.do("AUTH", s.password)
	return c.do(args...)
}

// world is a real server, and guard in front of it.
type world struct {
	srv  *server
	h    *Handler
	port int

	mu      sync.Mutex
	creds   []guard.Credential
	values  map[int]string // by version
	scope   string         // of the grant; "": use
	uses    []guard.Use
	ends    []string
	refused []string
	did     []string
}

func (w *world) change(f func()) {
	w.mu.Lock()
	defer w.mu.Unlock()
	f()
}

// search stops at planted, and keeps back a prefix of it.
func search() guard.Filter {
	var seen []byte
	rel := 0
	return func(p []byte, s guard.Step) ([]byte, guard.Decision) {
		seen = append(seen, p...)
		if k := bytes.Index(seen, []byte(planted)); k >= 0 {
			return bytes.Clone(seen[min(rel, k):k]), guard.Decision{Action: guard.Block, Rule: "leak-rule-3", Reason: "a secret of this session", Secret: guard.SecretID{Name: "other"}}
		}
		keep := min(len(planted)-1, len(seen))
		end := bytes.TrimRight(seen, "\r\n")
		for !bytes.HasSuffix(end, []byte(planted[:keep])) {
			keep--
		}
		if keep > 0 {
			keep += len(seen) - len(end)
		}
		if s == guard.End || s == guard.Pause && keep < 8 {
			keep = 0
		}
		safe := max(rel, len(seen)-keep)
		out := bytes.Clone(seen[rel:safe])
		cut := max(0, safe-2*len(planted))
		seen, rel = bytes.Clone(seen[cut:]), safe-cut
		return out, guard.Decision{Action: guard.Pass}
	}
}

func (w *world) listen(tb testing.TB, host string) int {
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
			wg.Go(func() { w.h.Serve(ctx, c, host, w.srv.port) })
		}
	})
	tb.Cleanup(func() { l.Close(); cancel(); wg.Wait() })
	return l.Addr().(*net.TCPAddr).Port
}

func newWorld(tb testing.TB, srv *server, set ...func(*world)) *world {
	tb.Helper()
	w := &world{srv: srv, values: map[int]string{1: "value-one-of-the-user"}}
	srv.ask(tb, "FLUSHALL")
	srv.ask(tb, "ACL", "SETUSER", realUser, "resetpass", ">value-one-of-the-user", "+@all")
	w.creds = []guard.Credential{
		{Name: "cache", Context: "c", Version: 1, Kind: "redis", Hosts: []string{"127.0.0.1", "cache.test"}, User: realUser, Placeholder: holder},
		{Name: "foreign", Context: "c", Version: 1, Kind: "redis", Hosts: []string{"elsewhere.test"}, Placeholder: "placeholder-of-foreign-0001"},
	}
	decide := func(u guard.Use) guard.Decision {
		w.mu.Lock()
		defer w.mu.Unlock()
		sc := policy.Scope{Verb: "use"}
		if w.scope != "" {
			var err error
			if sc, err = policy.ParseScope(w.scope); err != nil {
				tb.Error(err)
			}
		}
		if !sc.Covers(u.Action, u.Resource) {
			return guard.Decision{Action: guard.Block, Rule: "rule-seven", Reason: u.Action + " is outside", NextSteps: []string{"guard run --allow cache:" + u.Action}, Secret: u.Credential.ID()}
		}
		return guard.Decision{Action: guard.Pass}
	}
	line := &broker.Line{
		Decide: decide,
		Record: func(u guard.Use, _ guard.Decision) (broker.Result, error) {
			w.change(func() { w.uses = append(w.uses, u) })
			return func(outcome string, _ time.Duration, wiped bool) {
				w.change(func() { w.ends = append(w.ends, fmt.Sprint(outcome, " wiped=", wiped)) })
			}, nil
		},
		Value: func(id guard.SecretID) (guard.Secret, error) {
			w.mu.Lock()
			defer w.mu.Unlock()
			return guard.NewSecret([]byte(w.values[w.creds[0].Version])), nil
		},
		Refused: func(u guard.Use, d guard.Decision) {
			w.change(func() { w.refused = append(w.refused, u.Credential.Name+" "+u.Action+" "+u.Method+" "+d.Rule) })
		},
	}
	w.h = &Handler{Login: broker.Login{
		Session:     guard.Session{ID: "s", Context: "c"},
		Credentials: func() []guard.Credential { w.mu.Lock(); defer w.mu.Unlock(); return slices.Clone(w.creds) },
		Decide:      decide, Use: line.Use, Refused: line.Refuse,
		Ended: func(_ guard.Use, did string, _ time.Duration) { w.change(func() { w.did = append(w.did, did) }) },
		Dial: func(ctx context.Context, host string, port int) (net.Conn, error) {
			return (&net.Dialer{}).DialContext(ctx, "tcp", srv.addr())
		},
		Open: func(o guard.Origin) guard.Filter {
			if o.Channel != guard.ChannelRedis || slices.Contains(o.Home, "foreign") {
				tb.Errorf("origin %+v", o)
			}
			return search()
		},
		Scrub: func(ids []guard.SecretID) guard.Filter {
			var r []string
			w.mu.Lock()
			defer w.mu.Unlock()
			for _, id := range ids {
				v := w.values[id.Version]
				r = append(r, v, (holder + strings.Repeat("*", 50))[:len(v)])
			}
			re := strings.NewReplacer(r...)
			return func(p []byte, _ guard.Step) ([]byte, guard.Decision) {
				return []byte(re.Replace(string(p))), guard.Decision{Action: guard.Pass}
			}
		},
		TLS: &tls.Config{RootCAs: srv.ca.Pool()},
	}}
	for _, f := range set {
		f(w)
	}
	w.port = w.listen(tb, "127.0.0.1")
	return w
}

// client speaks RESP as plainly as can be: a reply is what cat of it is.
type client struct {
	net.Conn
	tb testing.TB
	r  *bufio.Reader
}

func dial(tb testing.TB, port int) *client {
	tb.Helper()
	c, err := net.Dial("tcp", net.JoinHostPort("127.0.0.1", strconv.Itoa(port)))
	must(tb, err)
	tb.Cleanup(func() { c.Close() })
	c.SetDeadline(time.Now().Add(30 * time.Second))
	return &client{Conn: c, tb: tb, r: bufio.NewReader(c)}
}

func wire(args ...string) []byte {
	var b [][]byte
	for _, a := range args {
		b = append(b, []byte(a))
	}
	return command(b...)
}

// reply is the next value, in one line: "+OK", "$3 foo", "*2 [...]".
func (c *client) reply() string {
	l, err := c.r.ReadString('\n')
	if err != nil {
		return "gone"
	}
	l = strings.TrimSuffix(l, "\r\n")
	n, _ := strconv.Atoi(l[1:])
	per := 1
	switch l[0] {
	case '$', '=', '!':
		if n < 0 {
			return "nil"
		}
		b := make([]byte, n+2)
		if _, err := io.ReadFull(c.r, b); err != nil {
			return "gone"
		}
		return string(b[:n])
	case '%':
		per = 2
		fallthrough
	case '*', '~', '>':
		var out []string
		for range n * per {
			out = append(out, c.reply())
		}
		return string(l[0]) + "[" + strings.Join(out, " ") + "]"
	}
	return l
}

func (c *client) do(args ...string) string {
	c.tb.Helper()
	if _, err := c.Write(wire(args...)); err != nil {
		return "gone"
	}
	return c.reply()
}

func (c *client) want(want string, args ...string) {
	c.tb.Helper()
	if got := c.do(args...); !strings.HasPrefix(got, want) || want == "" && got != "" {
		c.tb.Errorf("%v: %.300q, want %q", args, got, want)
	}
}
