package postgres

import (
	"context"
	"errors"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgproto3"

	"guard"
	"guard/rotate/rotatetest"
)

func TestPasswordsOfStatements(t *testing.T) {
	for sql, want := range map[string]string{
		"CREATE ROLE bob LOGIN PASSWORD 'hunter-of-values'":                         "bob=hunter-of-values",
		"ALTER USER \"B b\" WITH ENCRYPTED PASSWORD 'it''s' VALID UNTIL 'infinity'": "B b=it's",
		"/* PASSWORD 'no' */ ALTER ROLE bob PASSWORD E'a\\'b' -- PASSWORD 'no'":     "bob=a'b",
		"CREATE USER bob PASSWORD $x$dollar$x$; CREATE USER al PASSWORD 'two'":      "bob=dollar al=two",
		"ALTER ROLE bob PASSWORD 'SCRAM-SHA-256$4096:abc$def:ghi'":                  "",
		"ALTER ROLE bob PASSWORD 'md5" + strings.Repeat("0", 32) + "'":              "",
		"ALTER ROLE bob PASSWORD NULL":                                              "", "SELECT 'PASSWORD', 'x'": "", "ALTER ROLE bob PASSWORD 'open": "bob=", "": "",
		"DO $$ BEGIN CREATE ROLE bob PASSWORD 'in-code'; EXECUTE 'ALTER ROLE al PASSWORD ''deeper'''; END $$": "bob=in-code al=deeper",
		"name\x00CREATE ROLE bob PASSWORD 'x y'\x00\x00\x00":                                                  "bob=x y",
	} {
		var got []string
		for _, a := range passwords([]byte(sql)) {
			got = append(got, a.user+"="+a.password)
		}
		if strings.Join(got, " ") != want {
			t.Errorf("%q: %q, want %q", sql, got, want)
		}
	}
}

// A statement that is allowed is judged, then its password stored, then it is sent,
// however it is cut.
func TestAllowedRoleStatements(t *testing.T) {
	for _, size := range []int{1, 7, 1000} {
		for _, kept := range []bool{true, false} {
			stored := ""
			mint := minter{
				allow: func() (guard.Decision, bool) { return guard.Decision{}, true },
				store: func(text []byte) (guard.Decision, bool) { stored += string(text) + "|"; return minted("x"), kept },
			}
			run := func(sql string) (string, error) {
				stored = ""
				var b []byte
				for _, m := range []pgproto3.FrontendMessage{&pgproto3.Query{String: sql}, &pgproto3.Query{String: "SELECT 1"}} {
					b, _ = m.Encode(b)
				}
				c := &chunks{}
				for ; len(b) > size; b = b[size:] {
					c.c = append(c.c, b[:size])
				}
				c.c = append(c.c, b)
				var out strings.Builder
				_, err := forward(&out, c, search, mint, nil)
				return out.String(), err
			}
			out, err := run("CREATE ROLE bob PASSWORD 'x'")
			if stored != "CREATE ROLE bob PASSWORD 'x'\x00|" || strings.Contains(out, "SELECT 1") != kept || strings.Contains(out, "'x'\x00") != kept || errors.Is(err, errStopped) == kept {
				t.Errorf("packets of %d, kept %v: stored %q, sent %q, %v", size, kept, stored, out, err)
			}
			if out, err := run("CREATE ROLE bob PASSWORD '" + planted + "'"); !errors.Is(err, errStopped) || stored != "" {
				t.Errorf("packets of %d: a leak: stored %q, sent %q, %v", size, stored, out, err)
			}
		}
	}
}

func TestMintedPasswords(t *testing.T) {
	srv := rotatetest.StartPostgres(t)
	var stored []string
	var w *world
	w = newWorld(t, srv, func(h *Handler) {
		h.Decide = func(u guard.Use) guard.Decision {
			if u.Action != "token:mint" && u.Action != "db:query" {
				t.Errorf("asked for %s", u.Action)
			}
			return guard.Decision{Action: guard.Pass}
		}
		h.Minted = func(u guard.Use, role string, p guard.Secret) error {
			stored = append(stored, u.Action+" "+role+"="+string(p.Reveal()))
			return nil
		}
	})
	must(t, srv.Exec(`ALTER ROLE `+realUser+` CREATEROLE`))
	defer srv.Exec(`DROP ROLE IF EXISTS maker`)
	c, err := w.pgx(t, "postgres")
	must(t, err)
	_, err = c.Exec(context.Background(), "CREATE ROLE maker LOGIN PASSWORD 'password-of-maker'")
	must(t, err)
	if len(stored) != 1 || stored[0] != "token:mint maker=password-of-maker" {
		t.Errorf("stored %q", stored)
	}
	pg, err := srv.Connect("maker", "password-of-maker", "postgres")
	must(t, err)
	pg.Close(context.Background())
	w.h.Minted = func(guard.Use, string, guard.Secret) error { return errors.New("full") }
	var pe *pgconn.PgError
	if _, err = c.Exec(context.Background(), "ALTER ROLE maker PASSWORD 'another-password'"); !errors.As(err, &pe) || pe.Code != "42501" || !strings.Contains(pe.Message, "could not store") {
		t.Errorf("not stored, but sent: %v", err)
	}
	if _, err := srv.Connect("maker", "another-password", "postgres"); err == nil {
		t.Error("it was sent")
	}
}
