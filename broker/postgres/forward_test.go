package postgres

import (
	"bytes"
	"context"
	"errors"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgproto3"

	"guard"
	"guard/rotate/rotatetest"
)

// search stops at planted. It keeps back a prefix of it, from 8 bytes on also at
// a pause, whatever of it went out before.
func search() guard.Filter {
	var seen []byte // the end of the stream, of which rel bytes went out
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

// sent is what reaches the server of messages, given in pieces of size bytes.
func sent(size int, msgs ...pgproto3.FrontendMessage) (string, guard.Decision, error) {
	var b []byte
	for _, m := range msgs {
		b, _ = m.Encode(b)
	}
	c := &chunks{}
	for ; len(b) > size; b = b[size:] {
		c.c = append(c.c, b[:size])
	}
	c.c = append(c.c, b)
	var out bytes.Buffer
	d, err := forward(&out, c, search, minter{allow: func() (guard.Decision, bool) { return minted("appdb"), false }}, nil)
	return out.String(), d, err
}

// COPY data is one value, however it is cut into messages and packets.
func TestCopyDataIsOneStream(t *testing.T) {
	cut := func(text string, n int) (ms []pgproto3.FrontendMessage) {
		ms = append(ms, &pgproto3.Query{String: "COPY t FROM STDIN"})
		for ; len(text) > n; text = text[n:] {
			ms = append(ms, &pgproto3.CopyData{Data: []byte(text[:n])})
		}
		return append(ms, &pgproto3.CopyData{Data: []byte(text)}, &pgproto3.CopyDone{}, &pgproto3.Query{String: "SELECT 1"})
	}
	payload := func(wire string) (data string) {
		for b := []byte(wire); len(b) >= 5; {
			n := min(len(b), 1+int(b[1])<<24+int(b[2])<<16+int(b[3])<<8+int(b[4]))
			if b[0] == 'd' {
				data += string(b[5:n])
			}
			b = b[n:]
		}
		return data
	}
	for _, n := range []int{1, 5, 12, 30} {
		for _, size := range []int{1, 3, 7, 1000} {
			got, d, err := sent(size, cut("row "+planted+"\n", n)...)
			if !errors.Is(err, errStopped) || d.Rule != "leak-rule-3" || len(payload(got)) > len("row ")+7 {
				t.Errorf("messages of %d, packets of %d: %v, arrived %q", n, size, err, payload(got))
			}
			harmless := cut("row "+planted[:20]+"\n", n)
			var want []byte
			for _, m := range harmless {
				want, _ = m.Encode(want)
			}
			if got, _, err := sent(size, harmless...); errors.Is(err, errStopped) || got != string(want) {
				t.Errorf("harmless ones of %d, packets of %d: %v, arrived %q", n, size, err, got)
			}
		}
	}
	// One value over the border of two kinds of message is none.
	if _, _, err := sent(9, &pgproto3.CopyData{Data: []byte(planted[:10])}, &pgproto3.CopyDone{}, &pgproto3.CopyData{Data: []byte(planted[11:])}); errors.Is(err, errStopped) {
		t.Error("stopped without a secret")
	}
}

func TestRoleStatements(t *testing.T) {
	for sql, refused := range map[string]bool{
		"ALTER ROLE CURRENT_USER PASSWORD 'x'":                                     true,
		"alter user \"a b\" with encrypted password 'x'":                           true,
		"ALTER/**/ROLE/* /* nested */ */x--\n PASSWORD 'x'":                        true,
		"SELECT 1; ALTER ROLE x VALID UNTIL 'infinity'":                            true,
		"BEGIN;\tALTER\fROLE\vx\rLOGIN":                                            true,
		"SELECT 'it''s'; CREATE USER evil":                                         true,
		"CREATE ROLE evil LOGIN SUPERUSER":                                         true,
		"create group g":                                                           true,
		"CREATE USER mapping":                                                      true,
		"CREATE USER mapping PASSWORD 'x'":                                         true,
		"ALTER USER mapping PASSWORD 'x'":                                          true,
		"ALTER GROUP g ADD USER evil":                                              true,
		"ALTER ROLE x RENAME TO y":                                                 true,
		"ALTER ROLE x IN SCHEMA d SET a TO b":                                      true,
		"ALTER ROLE U&\"\\0061\" PASSWORD 'x'":                                     true,
		"ALTER DEFAULT PRIVILEGES GRANT ALL ON TABLES TO PUBLIC":                   true,
		"SELECT $$ ' $$; ALTER ROLE x PASSWORD 'y'":                                true,
		"SELECT $a$ $b$ ' $a$; ALTER ROLE x PASSWORD 'y'":                          true,
		"SELECT E'\\''; ALTER ROLE x PASSWORD 'y'":                                 true,
		"SELECT E'a'\n'\\''; ALTER ROLE x PASSWORD 'y' --'":                        true,
		"SET standard_conforming_strings=off; SELECT '\\'';CREATE ROLE x":          true,
		"SELECT '\\'; CREATE ROLE x; SELECT '":                                     true,
		"SELECT 1-1; CREATE ROLE x":                                                true,
		"SELECT 1/2; CREATE ROLE x":                                                true,
		"SELECT foo$$; CREATE ROLE x --$$":                                         true,
		"UPDATE pg_catalog.pg_authid SET rolpassword = 'x'":                        true,
		"WITH w AS (UPDATE \"pg_authid\" SET rolsuper = true) SELECT 1":            true,
		"ALTER ROLE x SET search_path TO a":                                        false,
		"ALTER ROLE ALL IN DATABASE d RESET ALL":                                   false,
		"CREATE USER MAPPING FOR CURRENT_USER SERVER s":                            false,
		"CREATE USER MAPPING IF NOT EXISTS FOR x SERVER s":                         false,
		"ALTER USER MAPPING FOR x SERVER s OPTIONS (SET a 'b')":                    false,
		"SET ROLE x; RESET ROLE; SET SESSION AUTHORIZATION y":                      false,
		"SELECT 'ALTER ROLE x PASSWORD y', \"; CREATE ROLE x\" -- ; CREATE ROLE y": false,
		// A string, but not for a client whose encoding has backslashes in characters.
		"INSERT INTO t VALUES (E'a\\'; CREATE ROLE x')":                         true,
		"CREATE TABLE role (\"user\" text); ALTER TABLE role ADD password text": false,
		"SELECT rolname FROM pg_authid":                                         false,
		"DROP ROLE x; GRANT a TO b; CREATE INDEX ON role (a)":                   false,
		"SELECT $1::text, $2; SELECT 'create role'":                             false,
		"/* ; CREATE ROLE x */ SELECT 1":                                        false,
		"":                                                                      false,
		"DO $$ BEGIN CREATE ROLE evil; END $$":                                  true, "do language plpgsql 'begin create user evil; end'": true, "DO $x$ BEGIN EXECUTE 'ALTER ROLE x PASSWORD ''y'''; END $x$": true, "DO $$BEGIN EXECUTE format('create  role %I', 'x'); END$$ LANGUAGE plpgsql": true,
		"DO $$ BEGIN EXECUTE 'CREATE ' || 'ROLE x'; END $$": true, "DO $$ BEGIN CREATE /* x */ ROLE evil; END $$": true, "DO $$ BEGIN CREATE -- x\n ROLE evil; END $$": true, "DO $$ BEGIN CREATE /* a /* b */ c */ USER evil; END $$": true, "DO $$ BEGIN PERFORM '/*'; CREATE ROLE x; PERFORM '*/'; END $$": true,
		"DO $$ BEGIN EXECUTE $x$ALTER\tDEFAULT PRIVILEGES GRANT ALL ON TABLES TO PUBLIC$x$; END $$": true, "DO $$ BEGIN UPDATE pg_authid SET rolsuper = true; END $$": true, "DO E'BEGIN CREATE R\\x4fLE evil; END'": true, "DO U&'BEGIN CREATE R\\004fLE evil; END'": true, "DO 'BEGIN CREATE '\n'ROLE evil; END'": true,
		"SELECT 1; DO $$ BEGIN CREATE GROUP g; END $$": true, "DO $$BEGIN NULL; END$$; CREATE ROLE x": true, "DO $$ " + strings.Repeat(" ", maxText) + "$$": true,
		"CREATE FUNCTION f() RETURNS void LANGUAGE plpgsql AS $$ BEGIN CREATE ROLE evil; END $$": true, "CREATE OR REPLACE PROCEDURE p() LANGUAGE sql AS 'ALTER USER x PASSWORD ''y'''": true,
		"DO $$ BEGIN CREATE TABLE role (a int); ALTER TABLE x ADD \"user\" text; RAISE NOTICE 'current_user'; END $$": false, "DO $$ BEGIN NULL; END $$; SELECT 'create role x'": false, "DO 'BEGIN DROP ROLE x; END'": false,
		"CREATE TABLE t (a text DEFAULT 'create role x')": false, "CREATE FUNCTION f() RETURNS int LANGUAGE sql AS 'SELECT 1'": false, "DO $$ BEGIN SELECT rolname FROM pg_authid; END $$": false,
	} {
		for _, size := range []int{1, 1000} {
			for kind, m := range map[string]pgproto3.FrontendMessage{"query": &pgproto3.Query{String: sql}, "parse": &pgproto3.Parse{Name: "CREATE ROLE n", Query: sql, ParameterOIDs: []uint32{0x3b3b3b3b}}} {
				got, d, err := sent(size, m, &pgproto3.Sync{})
				if stopped := errors.Is(err, errStopped) && d.Rule == rolesRule; stopped != refused {
					t.Errorf("%s of %q: refused %v, %v %v", kind, sql, stopped, d, err)
				}
				if whole, _ := m.Encode(nil); refused && strings.Contains(got, string(whole)) {
					t.Errorf("%s of %q arrived whole", kind, sql)
				}
			}
		}
	}
}

// The real server was not asked, and the client is told what to do.
func TestRoleStatementsThroughRealServer(t *testing.T) {
	srv := rotatetest.StartPostgres(t)
	recorded := make(chan guard.Use, 4)
	w := newWorld(t, srv, func(h *Handler) {
		h.Refused = func(u guard.Use, d guard.Decision) {
			if d.Secret.Name != "appdb" || d.Rule != rolesRule {
				t.Errorf("%+v", d)
			}
			recorded <- u
		}
	})
	out, err := w.psql("SELECT 'before';\nSELECT 'still'; ALTER ROLE CURRENT_USER PASSWORD 'minted';\nSELECT 'after';\n")
	if err == nil || !strings.Contains(out, "before") || strings.Contains(out, "after") || !strings.Contains(out, "42501") || !strings.Contains(out, "guard rotate") {
		t.Errorf("%v: %s", err, out)
	}
	c, err := w.pgx(t, "postgres")
	must(t, err)
	_, err = c.Exec(context.Background(), "CREATE ROLE evil LOGIN PASSWORD 'x'")
	var pe *pgconn.PgError
	if !errors.As(err, &pe) || pe.Code != "42501" {
		t.Errorf("%v", err)
	}
	c2, err := w.pgx(t, "postgres") // the password is the one that it was
	must(t, err)
	if _, err := c2.Exec(context.Background(), "ALTER ROLE CURRENT_USER SET work_mem = '8MB'"); err != nil {
		t.Errorf("a setting: %v", err)
	}
	if n, err := srv.Query(`SELECT count(*) FROM pg_roles WHERE rolname = 'evil'`); err != nil || n[0] != "0" {
		t.Errorf("the role was made: %v, %v", n, err)
	}
	for range 2 {
		if u := <-recorded; u.Action != "token:mint" || u.Resource != "postgres" {
			t.Errorf("recorded %+v", u)
		}
	}
}
