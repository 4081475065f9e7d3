package mysql

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"strings"
	"sync/atomic"
	"testing"

	"guard"
	"guard/internal/testutil"
	"guard/rotate"
	"guard/rotate/rotatetest"
)

var mariadb testutil.MariaDBServer

func TestMain(m *testing.M) {
	code := m.Run()
	mariadb.Stop()
	os.Exit(code)
}

func must(tb testing.TB, err error) {
	tb.Helper()
	if err != nil {
		tb.Fatal(err)
	}
}

const boss, first, second = "the-admin-value-of-mariadb", "first-value-of-the-account", "second-value-of-the-account"

// start runs the server with its admin, except in a child, which attaches.
func start(t testing.TB) *testutil.MariaDB {
	t.Helper()
	if os.Getenv("GUARD_ROTATETEST_CHILD") != "" {
		return nil
	}
	srv := mariadb.Get(t)
	srv.Exec(t, "CREATE OR REPLACE USER boss@'%' IDENTIFIED BY '"+boss+"'; GRANT CREATE USER, CONNECTION ADMIN, PROCESS ON *.* TO boss@'%'; GRANT SELECT ON mysql.* TO boss@'%'")
	return srv
}

var accounts atomic.Int64

type state struct {
	Port      int
	Socket    string
	Log, User string
}

func where(port int) []string { return []string{fmt.Sprintf("127.0.0.1:%d", port)} }

// as logs in.
func as(port int, user, value string) (*manager, error) {
	cr := guard.Credential{Name: "x", Hosts: where(port), User: user}
	_, pw, err := rotate.Password(cr, guard.NewSecret([]byte(value)))
	if err != nil {
		return nil, err
	}
	t := target{host: "127.0.0.1", port: fmt.Sprint(port), user: user}
	db, c, err := connect(context.Background(), rotate.Job{Credential: cr}, t, user, pw)
	if err != nil {
		return nil, err
	}
	return &manager{Conn: c, db: db}, nil
}

// open makes an account that comes from two hosts, rotated by an admin ("admin", and
// "url" for a value that is one) or by itself ("self").
func open(srv *testutil.MariaDB, mode string) rotatetest.Open {
	return func(tb testing.TB, attach string) rotatetest.Fixture {
		tb.Helper()
		st := state{User: fmt.Sprintf(`app '%d"`, accounts.Add(1))}
		if attach != "" {
			must(tb, json.Unmarshal([]byte(attach), &st))
		} else {
			st.Port, st.Socket, st.Log = srv.Port, srv.Socket, srv.Log
			q, err := quote(st.User)
			must(tb, err)
			for _, host := range []string{"%", "10.0.0.1"} {
				srv.Exec(tb, "CREATE USER "+q+"@'"+host+"' IDENTIFIED BY '"+first+"'")
			}
		}
		b, err := json.Marshal(st)
		must(tb, err)
		spec, value := "mysql", first
		if mode != "self" {
			spec += ",admin=boss"
		}
		if mode == "url" {
			value = fmt.Sprintf("mysql://app:%s@127.0.0.1:%d/shop", first, st.Port)
		}
		return rotatetest.Fixture{
			Name: "mysql", Provider: Provider{}, State: string(b), Value: value,
			Credential: guard.Credential{Name: "db", Kind: "mysql", Hosts: where(st.Port), User: st.User, Rotate: spec},
			Others:     []rotatetest.Other{{Credential: guard.Credential{Name: "boss", Kind: "mysql", Hosts: where(st.Port), User: "boss"}, Value: boss}},
			Login: func(v string) error {
				m, err := as(st.Port, st.User, v)
				if err == nil {
					m.close()
				}
				return err
			},
			Session: func(v string) (uint32, func() bool, error) {
				m, err := as(st.Port, st.User, v)
				if err != nil {
					return 0, nil, err
				}
				tb.Cleanup(m.close)
				var id uint32
				must(tb, m.QueryRowContext(context.Background(), "SELECT CONNECTION_ID()").Scan(&id))
				return id, func() bool {
					var one int
					return m.QueryRowContext(context.Background(), "SELECT 1").Scan(&one) == nil
				}, nil
			},
			Lock: func() (func(), error) {
				if mode == "self" {
					return func() { srv.Exec(tb, "SET GLOBAL read_only = 0") }, func() error { _, err := srv.Query("SET GLOBAL read_only = 1"); return err }()
				}
				_, err := srv.Query("REVOKE CREATE USER ON *.* FROM boss@'%'")
				return func() { srv.Exec(tb, "GRANT CREATE USER ON *.* TO boss@'%'") }, err
			},
			Logs: func() []byte {
				b, err := os.ReadFile(st.Log)
				must(tb, err)
				// The fixture itself made the account in clear text.
				return []byte(strings.ReplaceAll(string(b), "IDENTIFIED BY '"+first+"'", ""))
			},
		}
	}
}

func TestConformanceAdmin(t *testing.T) { rotatetest.Test(t, open(start(t), "admin")) }

func TestConformanceSelf(t *testing.T) { rotatetest.Once(t, open(start(t), "self")) }

func TestConformanceURL(t *testing.T) { rotatetest.Once(t, open(start(t), "url")) }

func job(srv *testutil.MariaDB, user string) rotate.Job {
	return rotate.Job{
		Intent: "i", Credential: guard.Credential{Name: "db", Hosts: where(srv.Port), User: user}, Options: map[string]string{"admin": "boss"},
		Current: guard.NewSecret([]byte(first)), Candidate: guard.NewSecret([]byte(second)),
		Admin: func(string) (guard.Secret, guard.Credential, error) {
			return guard.NewSecret([]byte(boss)), guard.Credential{Name: "boss", User: "boss"}, nil
		},
	}
}

// Both passwords are valid between mint and revoke, so that nobody is refused.
func TestBothWork(t *testing.T) {
	srv := start(t)
	srv.Exec(t, "CREATE OR REPLACE USER pair@'%' IDENTIFIED BY '"+first+"'")
	j := job(srv, "pair")
	_, err := Provider{}.Mint(context.Background(), j)
	must(t, err)
	for _, v := range []guard.Secret{j.Current, j.Candidate} {
		must(t, Provider{}.Verify(context.Background(), j, v))
	}
	must(t, Provider{}.Revoke(context.Background(), j))
	if err := (Provider{}).Verify(context.Background(), j, j.Current); !errors.Is(err, rotate.ErrRefused) {
		t.Error(err)
	}
}

// An intruder who is logged in sets a password of his own, over and over.
func TestIntruderWithAPasswordOfHisOwn(t *testing.T) {
	srv := start(t)
	srv.Exec(t, "CREATE OR REPLACE USER prey@'%' IDENTIFIED BY '"+first+"'")
	const his = "the-password-of-the-intruder"
	done := make(chan int)
	go func() {
		n := 0
		for {
			m, err := as(srv.Port, "prey", first)
			if err != nil {
				if m, err = as(srv.Port, "prey", his); err != nil {
					done <- n
					return
				}
			}
			for err == nil {
				if _, err = m.ExecContext(context.Background(), "SET PASSWORD = PASSWORD('"+his+"')"); err == nil {
					n++
				}
			}
			m.close()
		}
	}()
	testutil.WaitFor(t, "he is in", func() bool {
		m, err := as(srv.Port, "prey", his)
		if err == nil {
			m.close()
		}
		return err == nil
	})
	j := job(srv, "prey")
	j.Emergency = true
	must(t, Provider{}.Revoke(context.Background(), j))
	if n := <-done; n == 0 {
		t.Error("he did nothing")
	}
	_, err := Provider{}.Mint(context.Background(), j)
	must(t, err)
	for _, pw := range []string{first, his} {
		if _, err := as(srv.Port, "prey", pw); !errors.Is(err, rotate.ErrRefused) {
			t.Errorf("%s: %v", pw, err)
		}
	}
	must(t, Provider{}.Verify(context.Background(), j, j.Candidate))
}

// A lock that somebody else set is not lifted.
func TestForeignLock(t *testing.T) {
	srv := start(t)
	srv.Exec(t, "CREATE OR REPLACE USER shut@'%' IDENTIFIED BY '"+first+"' ACCOUNT LOCK")
	j := job(srv, "shut")
	j.Emergency = true
	if err := (Provider{}).Revoke(context.Background(), j); !errors.Is(err, rotate.ErrPermanent) {
		t.Error(err)
	}
	if _, err := (Provider{}).Mint(context.Background(), j); !errors.Is(err, rotate.ErrPermanent) {
		t.Error(err)
	}
	if out := srv.Exec(t, "SHOW CREATE USER shut@'%'"); !strings.Contains(out, "ACCOUNT LOCK") {
		t.Error(out)
	}
}

func TestSaysWhatIsMissing(t *testing.T) {
	srv := start(t)
	srv.Exec(t, "CREATE OR REPLACE USER app@'%' IDENTIFIED BY '"+first+"'; CREATE OR REPLACE USER weak@'%' IDENTIFIED BY 'of-somebody-weak'; CREATE OR REPLACE USER edd@'%' IDENTIFIED VIA ed25519 USING PASSWORD('"+first+"')")
	for what, change := range map[string]func(*rotate.Job){
		"does not exist": func(j *rotate.Job) { j.Credential.User = "nobody" },
		"CONNECTION ADMIN": func(j *rotate.Job) {
			j.Admin = func(string) (guard.Secret, guard.Credential, error) {
				return guard.NewSecret([]byte("of-somebody-weak")), guard.Credential{Name: "weak", User: "weak"}, nil
			}
		},
		"logs in as the account": func(j *rotate.Job) { j.Credential.User = "boss" },
		"whose password":         func(j *rotate.Job) { j.Credential.User = "" },
		"where is the server":    func(j *rotate.Job) { j.Credential.Hosts = nil },
		"ed25519":                func(j *rotate.Job) { j.Credential.User = "edd" },
		"not trusted":            func(j *rotate.Job) { j.Options["tls"] = "yes" },
	} {
		j := job(srv, "app")
		change(&j)
		if err := (Provider{}).Check(context.Background(), j); err == nil || !strings.Contains(err.Error(), what) || strings.Contains(err.Error(), first) {
			t.Errorf("want %q: %v", what, err)
		}
	}
	j := job(srv, "app")
	j.Options["tls"], j.Options["ca"] = "yes", srv.CA
	must(t, Provider{}.Check(context.Background(), j))
}
