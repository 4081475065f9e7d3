package postgres

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"math/big"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgproto3"

	"guard"
	"guard/broker"
	"guard/rotate/rotatetest"
)

const (
	realUser = "real_login"
	planted  = "PLANTED-secret-value-0123456789"
)

// world is a real server, and guard in front of it.
type world struct {
	srv    *rotatetest.Postgres
	h      *Handler
	port   int
	done   func()
	decide func(guard.Use) guard.Decision

	mu      sync.Mutex
	creds   []guard.Credential
	values  map[int]string // by version
	deny    bool
	allow   []string // actions; nil: all
	refused []string
	ended   []string
	uses    []guard.Use
	ends    []string
}

func must(tb testing.TB, err error) {
	tb.Helper()
	if err != nil {
		tb.Fatal(err)
	}
}

func (w *world) change(f func()) {
	w.mu.Lock()
	defer w.mu.Unlock()
	f()
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
			wg.Go(func() { w.h.Serve(ctx, c, host, w.srv.Port) })
		}
	})
	tb.Cleanup(func() { l.Close(); cancel(); wg.Wait() })
	return l.Addr().(*net.TCPAddr).Port
}

func newWorld(tb testing.TB, srv *rotatetest.Postgres, set ...func(*Handler)) *world {
	tb.Helper()
	w := &world{srv: srv, values: map[int]string{1: "value-one-of-the-role"}}
	must(tb, srv.Exec(`DROP ROLE IF EXISTS `+realUser+`; CREATE ROLE `+realUser+` LOGIN PASSWORD 'value-one-of-the-role'`))
	w.creds = []guard.Credential{{Name: "appdb", Context: "c", Version: 1, Kind: "postgres", Hosts: []string{"127.0.0.1", "db.test"}, User: realUser}}
	pem, err := os.ReadFile(srv.CA)
	must(tb, err)
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(pem)
	decide := func(u guard.Use) guard.Decision {
		w.mu.Lock()
		defer w.mu.Unlock()
		if w.deny || w.allow != nil && !slices.Contains(w.allow, u.Action) {
			return guard.Decision{Action: guard.Block, Rule: "rule-seven", Reason: "not today", NextSteps: []string{"ask the user"}}
		}
		return guard.Decision{Action: guard.Pass}
	}
	line := &broker.Line{
		Decide: decide,
		Record: func(u guard.Use, _ guard.Decision) (broker.Result, error) {
			w.mu.Lock()
			defer w.mu.Unlock()
			w.uses = append(w.uses, u)
			return func(outcome string, _ time.Duration, wiped bool) {
				w.mu.Lock()
				defer w.mu.Unlock()
				w.ends = append(w.ends, fmt.Sprint(outcome, " wiped=", wiped))
			}, nil
		},
		Value: func(id guard.SecretID) (guard.Secret, error) {
			w.mu.Lock()
			defer w.mu.Unlock()
			return guard.NewSecret([]byte(w.values[id.Version])), nil
		},
	}
	w.h = &Handler{Login: broker.Login{
		Session:     guard.Session{ID: "s", Context: "c"},
		Credentials: func() []guard.Credential { w.mu.Lock(); defer w.mu.Unlock(); return slices.Clone(w.creds) },
		Use:         line.Use,
		Dial: func(ctx context.Context, host string, port int) (net.Conn, error) {
			return (&net.Dialer{}).DialContext(ctx, "tcp", net.JoinHostPort("127.0.0.1", strconv.Itoa(srv.Port)))
		},
		Open: func(o guard.Origin) guard.Filter {
			if o.Channel != guard.ChannelPostgres || !slices.Contains(o.Home, "appdb") {
				tb.Errorf("origin %+v", o)
			}
			return search()
		},
		TLS: &tls.Config{RootCAs: roots},
	}}
	w.decide = decide
	for _, f := range set {
		f(w.h)
	}
	w.port = w.listen(tb, "127.0.0.1")
	return w
}

func (w *world) pgx(tb testing.TB, db string) (*pgx.Conn, error) {
	tb.Helper()
	cfg, err := pgx.ParseConfig(fmt.Sprintf("host=127.0.0.1 port=%d user=agent dbname=%s sslmode=disable password=guard-placeholder", w.port, db))
	must(tb, err)
	c, err := pgx.ConnectConfig(context.Background(), cfg)
	if err == nil {
		tb.Cleanup(func() { c.Close(context.Background()) })
	}
	return c, err
}

func (w *world) psql(stdin string, args ...string) (string, error) {
	cmd := exec.Command("psql", append([]string{"-X", "-w", "-q", "-At", "-v", "ON_ERROR_STOP=1", "-v", "VERBOSITY=verbose", "-h", "127.0.0.1", "-p", strconv.Itoa(w.port), "-U", "agent", "-d", "postgres"}, args...)...)
	cmd.Env = []string{"PATH=" + os.Getenv("PATH"), "PGCONNECT_TIMEOUT=10"}
	cmd.Stdin = strings.NewReader(stdin)
	out, err := cmd.CombinedOutput()
	return string(out), err
}

func TestRealClients(t *testing.T) {
	srv := rotatetest.StartPostgres(t)
	ctx := context.Background()

	t.Run("psql", func(t *testing.T) {
		w := newWorld(t, srv)
		out, err := w.psql("", "-c", "SELECT 6*7", "-c", "SELECT current_user")
		if err != nil || out != "42\n"+realUser+"\n" {
			t.Errorf("%v: %s", err, out)
		}
		must(t, srv.Exec(`GRANT CREATE ON SCHEMA public TO `+realUser))
		defer srv.Exec(`DROP OWNED BY ` + realUser + ` CASCADE`)
		file := filepath.Join(t.TempDir(), "rows")
		var rows strings.Builder
		for i := range 50000 {
			fmt.Fprintf(&rows, "%d\tname %d\n", i, i)
		}
		must(t, os.WriteFile(file, []byte(rows.String()), 0o600))
		out, err = w.psql("CREATE TABLE t(id int, name text);\n\\copy t FROM '" + file + "'\nSELECT count(*), sum(id) FROM t;\n\\copy t TO '" + file + ".out'\n")
		if err != nil || !strings.Contains(out, "50000|1249975000") {
			t.Errorf("%v: %s", err, out)
		}
		back, err := os.ReadFile(file + ".out")
		if err != nil || string(back) != rows.String() {
			t.Errorf("\\copy out differs: %d bytes, %v", len(back), err)
		}
		if out, err := w.psql("LISTEN ch; NOTIFY ch, 'hello'; SELECT 1;"); err != nil || !strings.Contains(out, `"hello"`) {
			t.Errorf("notify: %v: %s", err, out)
		}
		w.mu.Lock()
		defer w.mu.Unlock()
		for _, e := range w.ends {
			if e != "connected wiped=true" {
				t.Error(e)
			}
		}
		if len(w.uses) == 0 || w.uses[0].Credential.Name != "appdb" || w.uses[0].Resource != "postgres" || w.uses[0].Action != "db:query" {
			t.Errorf("uses: %+v", w.uses)
		}
	})

	t.Run("pgx", func(t *testing.T) {
		w := newWorld(t, srv)
		c, err := w.pgx(t, "postgres")
		must(t, err)
		var n int
		for i := range 50 { // prepared once, then again and again
			must(t, c.QueryRow(ctx, "SELECT $1::int + 1", i).Scan(&n))
			if n != i+1 {
				t.Fatal(n)
			}
		}
		b := &pgx.Batch{}
		for i := range 100 {
			b.Queue("SELECT $1::text || 'x'", strconv.Itoa(i))
		}
		res := c.SendBatch(ctx, b)
		for i := range 100 {
			var s string
			must(t, res.QueryRow().Scan(&s))
			if s != fmt.Sprint(i, "x") {
				t.Fatal(s)
			}
		}
		must(t, res.Close())
		var big string
		must(t, c.QueryRow(ctx, "SELECT repeat('0123456789', 3000000)").Scan(&big))
		if len(big) != 30000000 {
			t.Error(len(big))
		}
		must(t, c.QueryRow(ctx, "SELECT length($1::text)", strings.Repeat("y", 5000000)).Scan(&n))
		if n != 5000000 {
			t.Error(n)
		}
		rows, err := c.Query(ctx, "SELECT i, repeat('z', 100) FROM generate_series(1, 200000) i")
		must(t, err)
		count := 0
		for rows.Next() {
			count++
		}
		if rows.Err() != nil || count != 200000 {
			t.Error(count, rows.Err())
		}
		if got := w.h.Backends(); len(got) != 1 {
			t.Errorf("backends %v", got)
		} else if pids, _ := srv.Query(`SELECT pid FROM pg_stat_activity WHERE usename='` + realUser + `'`); len(pids) != 1 || pids[0] != fmt.Sprint(got[0]) {
			t.Errorf("backends %v; the server says %v", got, pids)
		}
		if len(w.h.BackendsOf("none")) != 0 || len(w.h.BackendsOf("appdb")) != 1 {
			t.Error("BackendsOf")
		}
	})

	t.Run("cancel", func(t *testing.T) {
		w := newWorld(t, srv)
		cmd := exec.Command("psql", "-X", "-w", "-h", "127.0.0.1", "-p", strconv.Itoa(w.port), "-U", "agent", "-d", "postgres", "-c", "SELECT pg_sleep(1000)")
		var out bytes.Buffer
		cmd.Stdout, cmd.Stderr = &out, &out
		must(t, cmd.Start())
		running := func() bool {
			n, err := srv.Query(`SELECT count(*) FROM pg_stat_activity WHERE usename='` + realUser + `' AND query LIKE '%pg_sleep(1000)%'`)
			return err == nil && n[0] == "1"
		}
		for !running() {
			time.Sleep(5 * time.Millisecond)
		}
		must(t, cmd.Process.Signal(os.Interrupt)) // Ctrl-C
		_ = cmd.Wait()
		if !strings.Contains(out.String(), "canceling statement due to user request") {
			t.Errorf("psql: %s", out.String())
		}
		// A key of somebody else's, or of another host, cancels nothing.
		c, err := w.pgx(t, "postgres")
		must(t, err)
		done := make(chan error, 1)
		go func() { _, err := c.Exec(ctx, "SELECT pg_sleep(0.3)"); done <- err }()
		key := slices.Clone(c.PgConn().SecretKey())
		key[0] ^= 1
		send := func(port int, pid uint32, key []byte) {
			n, err := net.Dial("tcp", net.JoinHostPort("127.0.0.1", strconv.Itoa(port)))
			must(t, err)
			defer n.Close()
			msg, err := (&pgproto3.CancelRequest{ProcessID: pid, SecretKey: key}).Encode(nil)
			must(t, err)
			_, err = n.Write(msg)
			must(t, err)
			_, _ = n.Read(make([]byte, 1))
		}
		send(w.port, c.PgConn().PID(), key)
		send(w.listen(t, "db.test"), c.PgConn().PID(), c.PgConn().SecretKey())
		if err := <-done; err != nil {
			t.Errorf("cancelled by a wrong key: %v", err)
		}
		if pid := w.h.Backends()[0]; pid == c.PgConn().PID() {
			t.Error("the client was given the server's own process id")
		}
	})

	t.Run("errors do not name the real user", func(t *testing.T) {
		w := newWorld(t, srv)
		_, err := w.pgx(t, "nosuchdb")
		var pe *pgconn.PgError
		if !errors.As(err, &pe) || pe.Code != "3D000" || strings.Contains(err.Error(), realUser) {
			t.Errorf("wrong database: %v", err)
		}
		must(t, srv.Exec(`ALTER ROLE `+realUser+` CONNECTION LIMIT 0`))
		_, err = w.pgx(t, "postgres")
		if !errors.As(err, &pe) || pe.Code != "53300" || strings.Contains(err.Error(), realUser) || !strings.Contains(err.Error(), `"agent"`) {
			t.Errorf("limit: %v", err)
		}
		must(t, srv.Exec(`ALTER ROLE `+realUser+` CONNECTION LIMIT -1`))
		c, err := w.pgx(t, "postgres")
		must(t, err)
		if got := c.PgConn().ParameterStatus("session_authorization"); got != "agent" {
			t.Errorf("session_authorization %q", got)
		}
		_, err = c.Exec(ctx, `DO $$ BEGIN RAISE EXCEPTION 'user "%" and %_x', current_user, current_user; END $$`)
		if err == nil || !strings.Contains(err.Error(), `user "agent" and `+realUser+`_x`) {
			t.Errorf("in a session: %v", err)
		}
		w.mu.Lock()
		w.values[1] = "a-wrong-value"
		w.mu.Unlock()
		out, err := w.psql("", "-c", "SELECT 1")
		if err == nil || strings.Contains(out, realUser) || strings.Contains(out, "a-wrong-value") || !strings.Contains(out, "appdb") {
			t.Errorf("wrong password: %s", out)
		}
	})

	t.Run("refusals in PostgreSQL's words", func(t *testing.T) {
		w := newWorld(t, srv)
		w.change(func() { w.deny = true })
		out, err := w.psql("", "-c", "SELECT 1")
		for _, want := range []string{"42501", "appdb", "not today", "rule-seven", "ask the user"} {
			if err == nil && !strings.Contains(out, want) || !strings.Contains(out, want) && want != "42501" {
				t.Errorf("%q is not in: %s", want, out)
			}
		}
		w.change(func() { w.deny = false })
		out, err = w.psql("SELECT 'before';\nSELECT '" + planted + "';\nSELECT 'after';\n")
		if err == nil || !strings.Contains(out, "before") || strings.Contains(out, "after") || !strings.Contains(out, "42501") || !strings.Contains(out, "leak-rule-3") {
			t.Errorf("a secret in a query: %v: %s", err, out)
		}
		if log, _ := os.ReadFile(srv.Log); bytes.Contains(log, []byte(planted)) {
			t.Error("the secret reached the server")
		}
		c, err := w.pgx(t, "postgres")
		must(t, err)
		_, err = c.Exec(ctx, "SELECT $1::text", planted)
		var pe *pgconn.PgError
		if !errors.As(err, &pe) || pe.Code != "42501" {
			t.Errorf("a secret in a parameter: %v", err)
		}
		if _, err := w.pgx(t, planted); !errors.As(err, &pe) || pe.Code != "42501" {
			t.Errorf("a secret as a database name: %v", err)
		}
		cfg, err := pgconn.ParseConfig(fmt.Sprintf("host=127.0.0.1 port=%d user=agent dbname=postgres sslmode=disable replication=database", w.port))
		must(t, err)
		if _, err := pgconn.ConnectConfig(ctx, cfg); !errors.As(err, &pe) || pe.Code != "42501" {
			t.Errorf("replication: %v", err)
		}
		w = newWorld(t, srv, func(h *Handler) {
			h.Open = func(guard.Origin) guard.Filter {
				return func(p []byte, _ guard.Step) ([]byte, guard.Decision) {
					return p, guard.Decision{Action: guard.Pass}
				}
			}
		})
		w.change(func() { w.creds[0].Hosts = []string{"127.0.0.1:1"} })
		if _, err := w.pgx(t, "postgres"); !errors.As(err, &pe) || pe.Code != "42501" || !strings.Contains(err.Error(), "no PostgreSQL credential") {
			t.Errorf("a credential of another port: %v", err)
		}
		w = newWorld(t, srv, func(h *Handler) { h.Open = nil })
		if _, err := w.pgx(t, "postgres"); !errors.As(err, &pe) || pe.Code != "42501" {
			t.Errorf("no leak line: %v", err)
		}
	})

	t.Run("rotation under an open connection", func(t *testing.T) {
		w := newWorld(t, srv)
		c, err := w.pgx(t, "postgres")
		must(t, err)
		must(t, srv.Exec(`ALTER ROLE `+realUser+` PASSWORD 'value-two-of-the-role'`))
		var n int
		if err := c.QueryRow(ctx, "SELECT 1").Scan(&n); err != nil {
			t.Errorf("the open connection: %v", err)
		}
		// A new one while the vault still has the old value: it waits for the new.
		timer := time.AfterFunc(100*time.Millisecond, func() {
			w.mu.Lock()
			defer w.mu.Unlock()
			w.values[2] = "value-two-of-the-role"
			w.creds[0].Version = 2
		})
		defer timer.Stop()
		c2, err := w.pgx(t, "postgres")
		must(t, err)
		must(t, c2.QueryRow(ctx, "SELECT 2").Scan(&n))
	})

	t.Run("several credentials for one host", func(t *testing.T) {
		w := newWorld(t, srv)
		w.change(func() {
			w.creds = append(w.creds, guard.Credential{Name: "agent", Context: "c", Version: 1, Kind: "postgres", Hosts: []string{"127.0.0.1"}, User: realUser})
		})
		if _, err := w.pgx(t, "postgres"); err != nil {
			t.Errorf("chosen by its name: %v", err)
		}
		w.change(func() { w.creds[1].Name = "other" })
		if _, err := w.pgx(t, "postgres"); err == nil || !strings.Contains(err.Error(), "several credentials") {
			t.Errorf("ambiguous: %v", err)
		}
	})
}

func TestTLS(t *testing.T) {
	srv := rotatetest.StartPostgres(t)
	ctx := context.Background()
	w := newWorld(t, srv)
	w.h.Plain = func(string, int) bool { return false }
	secure := func(t *testing.T, want bool) {
		t.Helper()
		c, err := w.pgx(t, "postgres")
		if err != nil {
			t.Fatal(err)
		}
		var ssl bool
		must(t, c.QueryRow(ctx, "SELECT ssl FROM pg_stat_ssl WHERE pid = pg_backend_pid()").Scan(&ssl))
		if ssl != want {
			t.Errorf("upstream TLS: %v", ssl)
		}
	}
	t.Run("a known certificate", func(t *testing.T) { secure(t, true) })
	t.Run("an unknown certificate, and a login bound to it", func(t *testing.T) {
		known := w.h.TLS
		defer func() { w.h.TLS = known }()
		w.h.TLS = &tls.Config{RootCAs: x509.NewCertPool()}
		secure(t, true)
	})
	t.Run("somebody in the middle", func(t *testing.T) {
		known, dial := w.h.TLS, w.h.Dial
		defer func() { w.h.TLS, w.h.Dial = known, dial }()
		w.h.TLS = &tls.Config{RootCAs: x509.NewCertPool()}
		other := certificate(t)
		w.h.Dial = func(ctx context.Context, host string, port int) (net.Conn, error) {
			real, err := dial(ctx, host, port)
			if err != nil {
				return nil, err
			}
			a, b := net.Pipe()
			go middle(b, real, other)
			return a, nil
		}
		if _, err := w.pgx(t, "postgres"); err == nil {
			t.Error("logged in through somebody in the middle")
		}
	})
	t.Run("a server without TLS", func(t *testing.T) {
		must(t, srv.Exec(`ALTER SYSTEM SET ssl = off`))
		must(t, srv.Exec(`SELECT pg_reload_conf()`))
		for {
			if on, err := srv.Query(`SHOW ssl`); err == nil && on[0] == "off" {
				break
			}
		}
		if _, err := w.pgx(t, "postgres"); err == nil || !strings.Contains(err.Error(), "has no TLS") {
			t.Errorf("plain text to a server elsewhere: %v", err)
		}
		w.h.Plain = nil
		secure(t, false)
	})
	t.Run("towards the client", func(t *testing.T) {
		cert := certificate(t)
		w := newWorld(t, srv, func(h *Handler) {
			h.GetCertificate = func(*tls.ClientHelloInfo) (*tls.Certificate, error) { return &cert, nil }
		})
		if out, err := w.psql("", "-d", "dbname=postgres sslmode=require", "-c", "SELECT 'in TLS'"); err != nil || !strings.Contains(out, "in TLS") {
			t.Errorf("psql: %v: %s", err, out)
		}
		cfg, err := pgconn.ParseConfig(fmt.Sprintf("host=127.0.0.1 port=%d user=agent dbname=postgres sslmode=require sslnegotiation=direct", w.port))
		must(t, err)
		c, err := pgconn.ConnectConfig(ctx, cfg)
		must(t, err)
		defer c.Close(ctx)
		if _, err := c.Exec(ctx, "SELECT 1").ReadAll(); err != nil {
			t.Error(err)
		}
		// Bytes in clear text after the SSLRequest must not count as encrypted.
		n, err := net.Dial("tcp", net.JoinHostPort("127.0.0.1", strconv.Itoa(w.port)))
		must(t, err)
		defer n.Close()
		startup, err := (&pgproto3.StartupMessage{ProtocolVersion: 196608, Parameters: map[string]string{"user": "agent"}}).Encode(nil)
		must(t, err)
		_, err = n.Write(append([]byte{0, 0, 0, 8, 4, 210, 22, 47}, startup...))
		must(t, err)
		answer := make([]byte, 64)
		k, _ := n.Read(answer)
		if m, _ := n.Read(answer[k:]); k != 1 || answer[0] != 'S' || bytes.Contains(answer[k:k+m], []byte("R")) && answer[k] == 'R' {
			t.Errorf("answered %q", answer[:k+m])
		}
	})
}

// middle ends TLS with a certificate of its own and opens it again.
func middle(client, server net.Conn, cert tls.Certificate) {
	defer client.Close()
	defer server.Close()
	req := make([]byte, 8)
	if _, err := client.Read(req); err != nil {
		return
	}
	if _, err := server.Write(req); err != nil {
		return
	}
	if _, err := server.Read(req[:1]); err != nil {
		return
	}
	if _, err := client.Write(req[:1]); err != nil {
		return
	}
	a := tls.Server(client, &tls.Config{Certificates: []tls.Certificate{cert}})
	b := tls.Client(server, &tls.Config{InsecureSkipVerify: true})
	var wg sync.WaitGroup
	wg.Go(func() { copyAll(b, a) })
	wg.Go(func() { copyAll(a, b) })
	wg.Wait()
}

func copyAll(dst, src net.Conn) {
	buf := make([]byte, 4096)
	for {
		n, err := src.Read(buf)
		if n > 0 {
			if _, werr := dst.Write(buf[:n]); werr != nil {
				break
			}
		}
		if err != nil {
			break
		}
	}
	dst.Close()
	src.Close()
}

func certificate(t *testing.T) tls.Certificate {
	t.Helper()
	k, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	must(t, err)
	c := &x509.Certificate{SerialNumber: big.NewInt(2), NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour), IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}}
	der, err := x509.CreateCertificate(rand.Reader, c, c, &k.PublicKey, k)
	must(t, err)
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: k}
}

func TestStartupIsStrict(t *testing.T) {
	for _, c := range []string{"", "\x00", "user\x00\x00", "user\x00a", "user\x00a\x00", "user\x00a\x00database\x00\x00", "\x00x\x00user\x00a\x00\x00", "database\x00a\x00\x00"} {
		if p, err := parameters([]byte(c)); err == nil {
			t.Errorf("%q: %v", c, p)
		}
	}
	p, err := parameters([]byte("user\x00a\x00database\x00b\x00options\x00\x00\x00"))
	if err != nil || p["user"] != "a" || p["database"] != "b" || len(p) != 3 {
		t.Errorf("%v, %v", p, err)
	}
	for _, c := range []string{"GET / HTTP/1.1\r\n\r\n", "\x00\x00\x00\x07\x00\x03\x00\x00", "\x7f\xff\xff\xff\x00\x03\x00\x00", strings.Repeat("\x00\x00\x00\x08\x04\xd2\x16\x2f", 5)} {
		a, b := net.Pipe()
		done := make(chan struct{})
		go func() { defer close(done); (&Handler{}).Serve(context.Background(), b, "h", 1) }()
		go func() { _, _ = a.Write([]byte(c)) }()
		buf := make([]byte, 64)
		for {
			if _, err := a.Read(buf); err != nil {
				break
			}
		}
		<-done
		a.Close()
	}
}

// Errors are rewritten, however the server's bytes are cut.
func TestRenameAtEverySplit(t *testing.T) {
	hide := rename{from: "real", to: "agent-x"}
	var stream, want []byte
	add := func(m, w pgproto3.BackendMessage) {
		stream, _ = m.Encode(stream)
		want, _ = w.Encode(want)
	}
	row := &pgproto3.DataRow{Values: [][]byte{[]byte("real"), bytes.Repeat([]byte("E\x00\x00"), 40)}}
	add(row, row)
	add(&pgproto3.ErrorResponse{Severity: "ERROR", Message: `role "real" is surreal, real_x`}, &pgproto3.ErrorResponse{Severity: "ERROR", Message: `role "agent-x" is surreal, real_x`})
	add(&pgproto3.ParameterStatus{Name: "session_authorization", Value: "real"}, &pgproto3.ParameterStatus{Name: "session_authorization", Value: "agent-x"})
	add(&pgproto3.NoticeResponse{Message: "real"}, &pgproto3.NoticeResponse{Message: "agent-x"})
	add(&pgproto3.ReadyForQuery{TxStatus: 'I'}, &pgproto3.ReadyForQuery{TxStatus: 'I'})
	for cut := range len(stream) + 1 {
		var out bytes.Buffer
		between, _ := back(&out, &chunks{[][]byte{stream[:cut], stream[cut:]}}, hide, &tally{}, nil)
		if !between || !bytes.Equal(out.Bytes(), want) {
			t.Fatalf("cut at %d: %q", cut, out.Bytes())
		}
	}
}

type chunks struct{ c [][]byte }

func (c *chunks) Read(p []byte) (int, error) {
	for len(c.c) > 0 && len(c.c[0]) == 0 {
		c.c = c.c[1:]
	}
	if len(c.c) == 0 {
		return 0, errors.New("end")
	}
	n := copy(p, c.c[0])
	c.c[0] = c.c[0][n:]
	return n, nil
}
