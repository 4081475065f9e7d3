package postgres

import (
	"context"
	"encoding/json"
	"fmt"
	"net/url"
	"os"
	"strings"
	"sync/atomic"
	"testing"

	"guard"
	"guard/rotate"
	"guard/rotate/rotatetest"
)

var roles atomic.Int64

// state is what a child needs to attach.
type state struct {
	Server     rotatetest.Postgres
	Role, Pass string
	Self       bool
}

// open makes a role on srv, rotated by an admin or by itself.
func open(srv *rotatetest.Postgres, self bool) rotatetest.Open {
	return func(tb testing.TB, s string) rotatetest.Fixture {
		tb.Helper()
		st := state{Role: fmt.Sprintf(`app "%d'`, roles.Add(1)), Pass: "first-value-of-the-role", Self: self}
		if s != "" {
			if err := json.Unmarshal([]byte(s), &st); err != nil {
				tb.Fatal(err)
			}
			srv = &st.Server
		} else {
			st.Server = *srv
			must(tb, srv.Exec(`CREATE ROLE `+quoteIdent(st.Role)+` LOGIN PASSWORD 'first-value-of-the-role'`))
		}
		b, err := json.Marshal(st)
		must(tb, err)
		spec := fmt.Sprintf("postgres,host=%s,port=%d,sslmode=verify-full,ca=%s", srv.Host, srv.Port, srv.CA)
		if !self {
			spec += ",admin=boss"
		}
		return rotatetest.Fixture{
			Name: "postgres", Provider: Provider{}, State: string(b), Value: st.Pass,
			Credential: guard.Credential{Name: "db", Kind: "postgres", Hosts: []string{srv.Host}, User: st.Role, Rotate: spec},
			Others:     []rotatetest.Other{{Credential: guard.Credential{Name: "boss", Kind: "postgres", Hosts: []string{srv.Host}, User: "boss"}, Value: "the-admin-value-1234"}},
			Login: func(v string) error {
				c, err := srv.Connect(st.Role, v, "postgres")
				if rotatetest.Refused(err) {
					return rotate.ErrRefused
				}
				if err == nil {
					c.Close(context.Background())
				}
				return err
			},
			Session: func(v string) (uint32, func() bool, error) {
				c, err := srv.Connect(st.Role, v, "postgres")
				if err != nil {
					return 0, nil, err
				}
				tb.Cleanup(func() { c.Close(context.Background()) })
				return c.PID(), func() bool {
					_, err := c.Exec(context.Background(), "SELECT 1").ReadAll()
					return err == nil
				}, nil
			},
			Lock: func() (func(), error) {
				if self {
					// The server takes no change of anything.
					must(tb, srv.Exec(`ALTER ROLE `+quoteIdent(st.Role)+` SET default_transaction_read_only = on`))
					return func() { must(tb, srv.Exec(`ALTER ROLE `+quoteIdent(st.Role)+` RESET ALL`)) }, nil
				}
				must(tb, srv.Exec(`ALTER ROLE boss NOCREATEROLE`))
				return func() { must(tb, srv.Exec(`ALTER ROLE boss CREATEROLE`)) }, nil
			},
			Logs: func() []byte {
				log, err := os.ReadFile(srv.Log)
				must(tb, err)
				// The fixture itself made the role in clear text.
				return []byte(strings.ReplaceAll(string(log), `LOGIN PASSWORD 'first-value-of-the-role'`, ""))
			},
		}
	}
}

func must(tb testing.TB, err error) {
	tb.Helper()
	if err != nil {
		tb.Fatal(err)
	}
}

// start runs a server for the test, except in a child, which attaches to its
// parent's.
func start(t testing.TB, settings ...string) *rotatetest.Postgres {
	t.Helper()
	if os.Getenv("GUARD_ROTATETEST_CHILD") != "" {
		return nil
	}
	srv := rotatetest.StartPostgres(t, settings...)
	must(t, srv.Exec(`CREATE ROLE boss LOGIN CREATEROLE PASSWORD 'the-admin-value-1234'`))
	must(t, srv.Exec(`GRANT pg_signal_backend TO boss`))
	return srv
}

func TestConformanceAdmin(t *testing.T) { rotatetest.Test(t, open(start(t), false)) }

func TestConformanceSelf(t *testing.T) { rotatetest.Test(t, open(start(t), true)) }

// A role whose credential is a URL: the URL stays one.
func TestConformanceURL(t *testing.T) {
	srv := start(t)
	plain := open(srv, false)
	rotatetest.Once(t, func(tb testing.TB, s string) rotatetest.Fixture {
		f := plain(tb, s)
		password := func(v string) string {
			_, pw, err := rotate.Password(f.Credential, guard.NewSecret([]byte(v)))
			must(tb, err)
			return string(pw.Reveal())
		}
		login := f.Login
		f.Login = func(v string) error {
			if !strings.HasPrefix(v, "postgres://") || !strings.HasSuffix(v, "@db.test/shop?x=1") {
				tb.Errorf("the value is no URL any more")
			}
			return login(password(v))
		}
		f.Value = "postgres://" + url.PathEscape(f.Credential.User) + ":" + f.Value + "@db.test/shop?x=1"
		return f
	})
}
