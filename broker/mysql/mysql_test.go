package mysql

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"database/sql"
	"fmt"
	"net"
	"os"
	"os/exec"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	driver "github.com/go-sql-driver/mysql"

	"guard"
	"guard/broker"
	"guard/internal/testutil"
)

const (
	realUser = "real_login"
	password = "value-one-of-the-login"
	planted  = "PLANTED-secret-value-0123456789"
)

var server testutil.MariaDBServer

func TestMain(m *testing.M) {
	code := m.Run()
	server.Stop()
	os.Exit(code)
}

// world is a server, and guard in front of it.
type world struct {
	h    *Handler
	port int // guard's

	mu      sync.Mutex
	creds   []guard.Credential
	values  map[int]string // by version
	allow   []string       // actions
	dbs     []string       // if any: the only ones
	uses    []guard.Use
	ends    []string
	refused []string
	minted  []string
	ended   []string
	dial    func(ctx context.Context) (net.Conn, error)
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

func (w *world) seen(list *[]string) []string {
	w.mu.Lock()
	defer w.mu.Unlock()
	return slices.Clone(*list)
}

// search stops at planted, and masks the password in answers.
func search() guard.Filter {
	var seen []byte
	rel := 0
	return func(p []byte, s guard.Step) ([]byte, guard.Decision) {
		seen = append(seen, p...)
		if bytes.Contains(seen, []byte(planted)) {
			return nil, guard.Decision{Action: guard.Block, Rule: "leak-rule-3", Reason: "a secret of this session", Secret: guard.SecretID{Name: "other"}}
		}
		keep := min(len(planted)-1, len(seen))
		for !bytes.HasSuffix(seen, []byte(planted[:keep])) {
			keep--
		}
		if s == guard.End || s == guard.Pause && keep < 8 {
			keep = 0
		}
		safe := max(rel, len(seen)-keep)
		out := bytes.Clone(seen[rel:safe])
		cut := max(0, safe-len(planted))
		seen, rel = bytes.Clone(seen[cut:]), safe-cut
		return out, guard.Decision{Action: guard.Pass}
	}
}

func mask(p []byte, _ guard.Step) ([]byte, guard.Decision) {
	return bytes.ReplaceAll(p, []byte(password), bytes.Repeat([]byte{'x'}, len(password))), guard.Decision{Action: guard.Pass}
}

func newWorld(tb testing.TB, set ...func(*world)) *world {
	tb.Helper()
	w := &world{values: map[int]string{1: password}, allow: []string{"db:query"}}
	w.creds = []guard.Credential{
		{Name: "appdb", Context: "c", Version: 1, Kind: "mysql", Hosts: []string{"127.0.0.1", "db.test"}, User: realUser, Placeholder: "placeholder-of-appdb"},
		{Name: "elsewhere", Context: "c", Version: 1, Kind: "mysql", Hosts: []string{"other.test"}, Placeholder: "placeholder-of-elsewhere"},
		{Name: "bait", Context: "c", Version: 1, Kind: "mysql", Hosts: []string{"127.0.0.1"}, Decoy: true, Placeholder: "placeholder-of-bait"},
	}
	line := &broker.Line{
		Decide: func(u guard.Use) guard.Decision {
			w.mu.Lock()
			defer w.mu.Unlock()
			if !slices.Contains(w.allow, u.Action) || len(w.dbs) > 0 && !slices.Contains(w.dbs, u.Resource) {
				return guard.Decision{Action: guard.Block, Rule: "rule-seven", Reason: "not today", NextSteps: []string{"ask the user"}}
			}
			return guard.Decision{Action: guard.Pass}
		},
		Record: func(u guard.Use, _ guard.Decision) (broker.Result, error) {
			w.mu.Lock()
			defer w.mu.Unlock()
			w.uses = append(w.uses, u)
			return func(outcome string, _ time.Duration, wiped bool) {
				w.mu.Lock()
				defer w.mu.Unlock()
				w.ends = append(w.ends, fmt.Sprint(u.Action, " ", outcome, " wiped=", wiped))
			}, nil
		},
		Value: func(id guard.SecretID) (guard.Secret, error) {
			w.mu.Lock()
			defer w.mu.Unlock()
			return guard.NewSecret([]byte(w.values[id.Version])), nil
		},
		Refused: func(u guard.Use, d guard.Decision) {
			w.mu.Lock()
			defer w.mu.Unlock()
			w.refused = append(w.refused, u.Credential.Name+" "+u.Action+" "+d.Rule)
		},
	}
	w.h = &Handler{Login: broker.Login{
		Session:     guard.Session{ID: "s", Context: "c"},
		Credentials: func() []guard.Credential { w.mu.Lock(); defer w.mu.Unlock(); return slices.Clone(w.creds) },
		Decide:      line.Decide, Use: line.Use, Refused: line.Refuse,
		Dial: func(ctx context.Context, host string, port int) (net.Conn, error) { return w.dial(ctx) },
		Open: func(o guard.Origin) guard.Filter {
			if o.Channel != guard.ChannelMySQL || !slices.Contains(o.Home, "appdb") {
				tb.Errorf("origin %+v", o)
			}
			return search()
		},
		Scrub: func(ids []guard.SecretID) guard.Filter { return mask },
		Minted: func(u guard.Use, user string, p guard.Secret) error {
			w.mu.Lock()
			defer w.mu.Unlock()
			w.minted = append(w.minted, user+"="+string(p.Reveal()))
			return nil
		},
		Ended: func(u guard.Use, did string, _ time.Duration) {
			w.mu.Lock()
			defer w.mu.Unlock()
			w.ended = append(w.ended, did)
		},
	}}
	for _, f := range set {
		f(w)
	}
	w.port = w.listen(tb, "127.0.0.1")
	return w
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
			wg.Go(func() { w.h.Serve(ctx, c, host, 3306) })
		}
	})
	tb.Cleanup(func() { l.Close(); cancel(); wg.Wait() })
	return l.Addr().(*net.TCPAddr).Port
}

// real puts a MariaDB behind w, with a login of its own and a database app.
func real(tb testing.TB, how string) (*testutil.MariaDB, func(*world)) {
	tb.Helper()
	srv := server.Get(tb)
	if how == "" {
		how = "IDENTIFIED BY '" + password + "'"
	}
	srv.Exec(tb, `CREATE DATABASE IF NOT EXISTS app; CREATE TABLE IF NOT EXISTS app.t (id int primary key, name text) ENGINE=InnoDB; DELETE FROM app.t;
		INSERT INTO app.t VALUES (1, 'one'), (2, 'two'); CREATE OR REPLACE USER `+realUser+` `+how+`; GRANT ALL ON *.* TO `+realUser+` WITH GRANT OPTION`)
	return srv, func(w *world) {
		w.dial = func(ctx context.Context) (net.Conn, error) {
			return (&net.Dialer{}).DialContext(ctx, "tcp", net.JoinHostPort("127.0.0.1", strconv.Itoa(srv.Port)))
		}
		pem, err := os.ReadFile(srv.CA)
		must(tb, err)
		roots := x509.NewCertPool()
		roots.AppendCertsFromPEM(pem)
		w.h.TLS = &tls.Config{RootCAs: roots}
	}
}

func (w *world) open(tb testing.TB, params string) *sql.DB {
	tb.Helper()
	db, err := sql.Open("mysql", fmt.Sprintf("agent:placeholder-of-appdb@tcp(127.0.0.1:%d)/app?allowNativePasswords=true%s", w.port, params))
	must(tb, err)
	tb.Cleanup(func() { db.Close() })
	return db
}

// client runs the mariadb program.
func (w *world) client(stdin string, args ...string) (string, error) {
	cmd := exec.Command("mariadb", append([]string{"--no-defaults", "-h", "127.0.0.1", "-P", strconv.Itoa(w.port), "-u", "agent", "-N", "-B", "--connect-timeout=10", "app"}, args...)...)
	cmd.Env = []string{"PATH=" + os.Getenv("PATH"), "MYSQL_PWD=placeholder-of-appdb"}
	cmd.Stdin = strings.NewReader(stdin)
	out, err := cmd.CombinedOutput()
	return string(out), err
}

func errCode(err error) int {
	if e, ok := err.(*driver.MySQLError); ok {
		return int(e.Number)
	}
	return 0
}

func TestRealClients(t *testing.T) {
	_, on := real(t, "")
	t.Run("mariadb", func(t *testing.T) {
		w := newWorld(t, on)
		out, err := w.client("SELECT 6*7; SELECT CURRENT_USER(); SELECT * FROM t ORDER BY id;")
		if err != nil || out != "42\n"+realUser+"@%\n1\tone\n2\ttwo\n" {
			t.Errorf("%v: %s", err, out)
		}
		out, err = w.client("SELECT nosuch; SELECT 1", "--force")
		if err != nil || !strings.Contains(out, "1054") || !strings.HasSuffix(out, "1\n") {
			t.Errorf("%v: %s", err, out)
		}
		for _, e := range w.seen(&w.ends) {
			if e != "db:query connected wiped=true" {
				t.Error(e)
			}
		}
		for len(w.seen(&w.ended)) < 2 { // a connection ends after its client
			time.Sleep(time.Millisecond)
		}
		if got := w.seen(&w.ended); len(got) != 2 || !strings.HasPrefix(got[0], "3 SELECT (4 rows)") {
			t.Errorf("%q", got)
		}
	})
	t.Run("go-sql-driver", func(t *testing.T) {
		w := newWorld(t, on)
		for _, params := range []string{"", "&multiStatements=true", "&interpolateParams=true"} {
			db := w.open(t, params)
			var n int
			must(t, db.QueryRow("SELECT COUNT(*) FROM t WHERE id < ?", 10).Scan(&n))
			if n != 2 {
				t.Error(n)
			}
			var big string
			must(t, db.QueryRow("SELECT REPEAT('0123456789', 4000000)").Scan(&big))
			if len(big) != 40000000 {
				t.Error(len(big))
			}
			must(t, db.QueryRow("SELECT LENGTH(?)", strings.Repeat("y", 20_000_000)).Scan(&n))
			if n != 20_000_000 {
				t.Error(n)
			}
			rows, err := db.Query("SELECT seq, REPEAT('z', 50) FROM seq_1_to_100000")
			must(t, err)
			n = 0
			for rows.Next() {
				n++
			}
			if rows.Err() != nil || n != 100000 {
				t.Error(n, rows.Err())
			}
			tx, err := db.Begin()
			must(t, err)
			_, err = tx.Exec("INSERT INTO t VALUES (?, ?)", 9, "nine")
			must(t, err)
			must(t, tx.Rollback())
		}
		db := w.open(t, "&multiStatements=true")
		rows, err := db.Query("SELECT 1; SELECT 2; INSERT INTO t VALUES (3, 'x'); SELECT COUNT(*) FROM t; DELETE FROM t WHERE id = 3")
		must(t, err)
		var got []int
		for {
			for rows.Next() {
				var n int
				must(t, rows.Scan(&n))
				got = append(got, n)
			}
			if !rows.NextResultSet() {
				break
			}
		}
		if fmt.Sprint(got) != "[1 2 3]" || rows.Err() != nil {
			t.Error(got, rows.Err())
		}
	})
}
