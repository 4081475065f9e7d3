package postgres

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgproto3"

	"guard"
	"guard/internal/testutil"
	"guard/rotate/rotatetest"
)

// readWorld is a session with db:read, and tables.
func readWorld(t *testing.T) (*world, *rotatetest.Postgres) {
	srv := rotatetest.StartPostgres(t)
	w := newWorld(t, srv, func(h *Handler) {})
	w.change(func() { w.allow = []string{"db:read"} })
	w.h.Decide = w.decide
	w.h.Refused = func(u guard.Use, d guard.Decision) {
		w.mu.Lock()
		defer w.mu.Unlock()
		w.refused = append(w.refused, fmt.Sprint(u.Credential.Name, " ", u.Action, " ", d.Rule, " ", d.Secret.Name))
	}
	w.h.Ended = func(u guard.Use, did string, _ time.Duration) {
		w.mu.Lock()
		defer w.mu.Unlock()
		w.ended = append(w.ended, u.Action+": "+did)
	}
	prepareTables(t, srv)
	return w, srv
}

func (w *world) conn(t *testing.T, more string) (*pgconn.PgConn, error) {
	t.Helper()
	cfg, err := pgconn.ParseConfig(fmt.Sprintf("host=127.0.0.1 port=%d user=agent dbname=postgres sslmode=disable %s", w.port, more))
	must(t, err)
	c, err := pgconn.ConnectConfig(context.Background(), cfg)
	if err == nil {
		t.Cleanup(func() { c.Close(context.Background()) })
	}
	return c, err
}

func denies(err error) bool {
	var pe *pgconn.PgError
	return errors.As(err, &pe) && pe.Code == "42501" && strings.Contains(pe.Message, "guard refused") && pe.Hint != ""
}

// Every attack is refused at its place, by both protocols, and the connection goes on.
func TestReadOnlySession(t *testing.T) {
	w, srv := readWorld(t)
	ctx := context.Background()
	c, err := w.conn(t, "")
	must(t, err)
	log, err := os.ReadFile(srv.Log)
	must(t, err)
	for _, a := range attacks {
		if _, err := c.Exec(ctx, a.sql).ReadAll(); !denies(err) {
			t.Errorf("%q: %v", a.sql, err)
		}
		if r := c.ExecParams(ctx, a.sql, nil, nil, nil, nil).Read(); !denies(r.Err) {
			t.Errorf("%q, prepared: %v", a.sql, r.Err)
		}
		if c.TxStatus() != 'I' {
			t.Fatalf("%q leaves a transaction", a.sql)
		}
		out, err := c.Exec(ctx, "SELECT 'on it goes'").ReadAll()
		if err != nil || len(out) != 1 || string(out[0].Rows[0][0]) != "on it goes" {
			t.Fatalf("after %q: %v", a.sql, err)
		}
	}
	for _, sql := range reads {
		if _, err := c.Exec(ctx, sql).ReadAll(); denies(err) {
			t.Errorf("%q: %v", sql, err)
		}
		_, err := c.Exec(ctx, "ROLLBACK").ReadAll()
		must(t, err)
	}
	for _, q := range []string{"RESET ALL", "DISCARD ALL", "RESET default_transaction_read_only", "SET SESSION AUTHORIZATION DEFAULT"} {
		_, err := c.Exec(ctx, q).ReadAll()
		must(t, err)
		out, err := c.Exec(ctx, "SHOW transaction_read_only").ReadAll()
		must(t, err)
		if string(out[0].Rows[0][0]) != "on" {
			t.Errorf("after %s it is off", q)
		}
	}
	c.Close(ctx)
	for done := false; !done; {
		w.change(func() { done = len(w.ended) > 0 })
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	if n := len(attacks) * 2; len(w.refused) != n || w.refused[0] != "appdb db:read read-only appdb" || !strings.Contains(w.ended[0], fmt.Sprint(n, " refused by guard")) || !strings.HasPrefix(w.ended[0], "db:read: ") {
		t.Errorf("%d records, the first %q; %q", len(w.refused), w.refused[0], w.ended)
	}
	for _, u := range w.uses {
		if u.Action != "db:read" {
			t.Errorf("recorded as %s", u.Action)
		}
	}
	if now, err := os.ReadFile(srv.Log); err != nil || bytes.Contains(now[len(log):], []byte(": DELETE FROM t")) || bytes.Contains(now[len(log):], []byte("nextval('s')")) {
		t.Error("the server was asked")
	}
	if n, err := srv.Query("SELECT count(*) FROM t"); err != nil || n[0] != "2" {
		t.Errorf("%v, %v", n, err)
	}
}

// A refusal in the middle of a pipeline, and of a transaction, has its place.
func TestReadOnlyPipelines(t *testing.T) {
	w, _ := readWorld(t)
	ctx := context.Background()
	c, err := w.conn(t, "")
	must(t, err)
	p := c.StartPipeline(ctx)
	p.SendQueryParams("SELECT 'one'", nil, nil, nil, nil)
	p.SendQueryParams("DELETE FROM t", nil, nil, nil, nil)
	p.SendQueryParams("INSERT INTO t VALUES ('skipped')", nil, nil, nil, nil)
	p.SendQueryParams("SELECT 'skipped'", nil, nil, nil, nil)
	must(t, p.Sync())
	p.SendPrepare("named", "SELECT 'two'", nil)
	p.SendPrepare("bad", "SELECT nextval('s')", nil)
	must(t, p.Sync())
	p.SendQueryPrepared("named", nil, nil, nil)
	must(t, p.Sync())
	p.SendQueryPrepared("bad", nil, nil, nil)
	must(t, p.Sync())
	var got []string
	for {
		r, err := p.GetResults()
		if r == nil && err == nil {
			break
		}
		switch r := r.(type) {
		case *pgconn.ResultReader:
			rows := r.Read()
			if rows.Err != nil {
				err = rows.Err
			} else {
				got = append(got, string(rows.Rows[0][0]))
			}
		case *pgconn.StatementDescription:
			got = append(got, "prepared")
		case *pgconn.PipelineSync:
			got = append(got, "sync")
		}
		var pe *pgconn.PgError
		if errors.As(err, &pe) {
			got = append(got, pe.Code)
		} else if err != nil {
			t.Fatal(err)
		}
	}
	must(t, p.Close())
	if want := "one 42501 sync prepared 42501 sync two sync 26000 sync"; strings.Join(got, " ") != want {
		t.Errorf("%s\nwant %s", strings.Join(got, " "), want)
	}
	// In a transaction, which then has failed, as with any error.
	_, err = c.Exec(ctx, "BEGIN; SELECT 1").ReadAll()
	must(t, err)
	if _, err := c.Exec(ctx, "DELETE FROM t").ReadAll(); !denies(err) || c.TxStatus() != 'E' {
		t.Errorf("%v, %c", err, c.TxStatus())
	}
	if _, err := c.Exec(ctx, "UPDATE t SET a = 'x'").ReadAll(); !denies(err) {
		t.Errorf("in a transaction that failed: %v", err)
	}
	_, err = c.Exec(ctx, "COMMIT").ReadAll()
	must(t, err)

	// Messages that no client library sends.
	raw, err := net.Dial("tcp", net.JoinHostPort("127.0.0.1", strconv.Itoa(w.port)))
	must(t, err)
	defer raw.Close()
	f := pgproto3.NewFrontend(raw, raw)
	f.Send(&pgproto3.StartupMessage{ProtocolVersion: 196608, Parameters: map[string]string{"user": "agent", "database": "postgres"}})
	must(t, f.Flush())
	until := func(end byte) (kinds string) {
		t.Helper()
		for {
			m, err := f.Receive()
			if err != nil {
				return kinds + " " + err.Error()
			}
			switch m := m.(type) {
			case *pgproto3.ReadyForQuery:
				kinds += "Z"
				if end == 'Z' {
					return kinds
				}
			case *pgproto3.ErrorResponse:
				kinds += m.Code
				if end == 'E' {
					return kinds
				}
			case *pgproto3.DataRow:
				kinds += "D"
			}
		}
	}
	until('Z')
	f.Send(&pgproto3.FunctionCall{Function: 1574, Arguments: [][]byte{{0, 0, 0, 1}}}) // nextval
	must(t, f.Flush())
	if got := until('Z'); got != "42501Z" {
		t.Errorf("FunctionCall: %s", got)
	}
	// Bytes behind the end of a query: the server would not take them.
	for _, m := range []string{"Q\x00\x00\x00\x12SELECT 1\x00DROP", "Q\x00\x00\x00\x0cSELECT 1", "Q\x00\x00\x00\x04"} {
		_, err = raw.Write(append([]byte(m), make([]byte, max(0, int(m[4])+1-len(m)))...))
		must(t, err)
		if got := until('Z'); got != "42501Z" && !(strings.HasPrefix(m[5:], "SELECT 1\x00") == false && got == "42501Z") {
			t.Errorf("%q: %s", m, got)
		}
	}
	f.Send(&pgproto3.Query{String: "SELECT 1"})
	must(t, f.Flush())
	if got := until('Z'); got != "DZ" {
		t.Errorf("it goes on: %s", got)
	}
	_, err = raw.Write([]byte{'Q', 2, 0, 0, 0})
	must(t, err)
	if got := until('E'); got != "42501" {
		t.Errorf("32 MiB: %s", got)
	}
}

// A scope cannot be undone at the login.
func TestReadOnlyLogin(t *testing.T) {
	w, srv := readWorld(t)
	for more, ok := range map[string]bool{
		"": true, "application_name=x extra_float_digits=2 timezone=UTC client_encoding=UTF8": true, "options='-c search_path=public -c statement_timeout=5s --work-mem=8MB'": true, "options='-cdefault_transaction_read_only=on'": true, "default_transaction_read_only=on": true,
		"options='-c default_transaction_read_only=off'": false, "options='-cdefault_transaction_read_only=off'": false, "options='--default-transaction-read-only=off'": false, "options='-c DEFAULT_TRANSACTION_READ_ONLY=0'": false, `options='-c default_transaction_read\\_only=off'`: false,
		"options='-c transaction_read_only=off'": false, "options='-c role=other'": false, "options='-c session_authorization=other'": false, "options='-c session_preload_libraries=x'": false, "options='-O'": false, "options='-P -c x'": false, "options='-c'": false, "options='-c search_path=a -c app.user=x'": false,
		"default_transaction_read_only=off": false, "Default_Transaction_Read_Only=off": false, "transaction_read_only=false": false, "role=other": false, "session_authorization=other": false, "client_encoding=SJIS": false, "standard_conforming_strings=off": false, "session_replication_role=replica": false, "app.user=x": false,
	} {
		c, err := w.conn(t, more)
		if ok != (err == nil) || !ok && (!denies(err) || !strings.Contains(err.Error(), "db:read")) {
			t.Errorf("%s: %v", more, err)
			continue
		}
		if err == nil {
			out, err := c.Exec(context.Background(), "SHOW transaction_read_only").ReadAll()
			must(t, err)
			if string(out[0].Rows[0][0]) != "on" {
				t.Errorf("%s: off", more)
			}
		}
	}
	// What the role's owner set is no way around.
	must(t, srv.Exec(`ALTER ROLE `+realUser+` SET default_transaction_read_only = off; ALTER ROLE `+realUser+` SET transaction_read_only = off`))
	if _, err := w.conn(t, ""); err != nil {
		t.Errorf("the role has it off: %v", err)
	}
	for _, set := range []string{"standard_conforming_strings = off", "client_encoding = 'SJIS'"} {
		must(t, srv.Exec(`ALTER ROLE `+realUser+` RESET ALL; ALTER ROLE `+realUser+` SET `+set))
		if _, err := w.conn(t, ""); !denies(err) {
			t.Errorf("%s: %v", set, err)
		}
	}
	must(t, srv.Exec(`ALTER ROLE `+realUser+` RESET ALL`))
	// db:write is for everything, db:query too; neither is for nothing.
	for _, allow := range [][]string{{"db:write", "db:query", "db:read"}, {"db:query", "db:read"}} {
		w.change(func() { w.allow = allow })
		c, err := w.conn(t, "options='-c default_transaction_read_only=off'")
		must(t, err)
		if _, err := c.Exec(context.Background(), "INSERT INTO t VALUES ('x'); DELETE FROM t WHERE a = 'x'").ReadAll(); err != nil {
			t.Errorf("%v: %v", allow, err)
		}
	}
	w.change(func() { w.allow = []string{"s3:get"} })
	if _, err := w.conn(t, ""); !denies(err) {
		t.Errorf("neither: %v", err)
	}
}

// Were a setting changed all the same, the session would end.
func TestReadOnlyIsWatched(t *testing.T) {
	for setting, ends := range map[string]bool{"default_transaction_read_only=off": true, "standard_conforming_strings=off": true, "client_encoding=SJIS": true, "client_encoding=UTF8": false, "default_transaction_read_only=on": false, "TimeZone=UTC": false} {
		name, value, _ := strings.Cut(setting, "=")
		var stream []byte
		for _, m := range []pgproto3.BackendMessage{&pgproto3.DataRow{Values: [][]byte{[]byte("x")}}, &pgproto3.ParameterStatus{Name: name, Value: value}, &pgproto3.ReadyForQuery{TxStatus: 'I'}} {
			stream, _ = m.Encode(stream)
		}
		for cut := range len(stream) {
			var out bytes.Buffer
			_, err := back(&out, &chunks{[][]byte{stream[:cut], stream[cut:]}}, rename{}, &tally{}, newScope("appdb", nil))
			if errors.Is(err, errNotReadOnly) != ends || ends == bytes.HasSuffix(out.Bytes(), []byte("Z\x00\x00\x00\x05I")) {
				t.Errorf("%s cut at %d: %v %q", setting, cut, err, out.Bytes())
			}
		}
	}
	w, _ := readWorld(t)
	c, err := w.conn(t, "")
	must(t, err)
	// A cast of the user's own is one way that the rules do not see.
	must(t, w.srv.Exec(`CREATE FUNCTION turned(t) RETURNS int LANGUAGE plpgsql AS $$BEGIN PERFORM set_config('default_transaction_read_only', 'off', false); RETURN 1; END$$; CREATE CAST (t AS int) WITH FUNCTION turned(t)`))
	if out, err := c.Exec(context.Background(), "SELECT t::int FROM t").ReadAll(); err == nil {
		_, err = c.Exec(context.Background(), "INSERT INTO t VALUES ('x')").ReadAll()
		t.Errorf("%v, then %v", out, err)
	}
	if n, err := w.srv.Query("SELECT count(*) FROM t"); err != nil || n[0] != "2" {
		t.Errorf("%v, %v", n, err)
	}
}

// A statement is refused however it is cut, and nothing of it is sent.
func TestReadOnlyAtEverySplit(t *testing.T) {
	for _, size := range []int{1, 2, 5, 7, 1000} {
		only := newScope("appdb", nil)
		var in []byte
		for _, m := range []pgproto3.FrontendMessage{&pgproto3.Query{String: "SELECT 'first'"}, &pgproto3.Query{String: "DELETE FROM t"}, &pgproto3.Parse{Name: "n", Query: "DROP TABLE t", ParameterOIDs: []uint32{25}}, &pgproto3.Sync{}, &pgproto3.Query{String: "SELECT 'last'"}} {
			in, _ = m.Encode(in)
		}
		c := &chunks{}
		for b := in; len(b) > 0; b = b[min(size, len(b)):] {
			c.c = append(c.c, b[:min(size, len(b))])
		}
		var out bytes.Buffer
		_, _ = forward(&out, c, search, minter{}, only)
		var want []byte
		for _, m := range []pgproto3.FrontendMessage{&pgproto3.Query{String: "SELECT 'first'"}, &pgproto3.Query{String: only.word + "1"}, &pgproto3.Parse{Name: "n", Query: only.word + "2"}, &pgproto3.Sync{}, &pgproto3.Query{String: "SELECT 'last'"}} {
			want, _ = m.Encode(want)
		}
		if !bytes.Equal(out.Bytes(), want) {
			t.Errorf("packets of %d: %q", size, out.Bytes())
		}
	}
	// A secret is found in a statement that is allowed.
	var in []byte
	in, _ = (&pgproto3.Query{String: "SELECT '" + planted + "'"}).Encode(in)
	var out bytes.Buffer
	if d, err := forward(&out, bytes.NewReader(in), search, minter{}, newScope("appdb", nil)); !errors.Is(err, errStopped) || d.Rule != "leak-rule-3" {
		t.Errorf("%v %v, sent %q", d, err, out.String())
	}
	// Refusals that never get their place are not kept without end.
	only := newScope("appdb", nil)
	for range 10 * maxSaid {
		only.message('Q', []byte("DELETE FROM t\x00"))
	}
	if len(only.said) > maxSaid {
		t.Errorf("%d are kept", len(only.said))
	}
	msg, _ := (&pgproto3.ErrorResponse{Code: "42601", Message: fmt.Sprint("syntax error at ", only.word, 10*maxSaid)}).Encode(nil)
	if got := only.replace(msg); !bytes.Contains(got, []byte("42501")) || bytes.Contains(got, []byte(only.word)) || len(only.said) != 0 {
		t.Errorf("%q, %d are kept", got, len(only.said))
	}
}

func TestReadOnlyClients(t *testing.T) {
	w, srv := readWorld(t)
	ctx := context.Background()
	must(t, srv.Exec(`CREATE TABLE parent (id int PRIMARY KEY, name text DEFAULT 'x', CHECK (id > 0)); CREATE TABLE child (id int REFERENCES parent, at timestamptz DEFAULT now()); CREATE INDEX ON child (at);
		CREATE VIEW v AS SELECT p.name, c.at FROM parent p JOIN child c USING (id); INSERT INTO parent VALUES (1, 'one'), (2, 'two'); INSERT INTO child VALUES (1); CREATE TYPE mood AS ENUM ('a', 'b');
		CREATE FUNCTION trig() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NEW; END'; CREATE TRIGGER tr BEFORE INSERT ON child FOR EACH ROW EXECUTE FUNCTION trig(); ALTER TABLE parent ENABLE ROW LEVEL SECURITY; CREATE POLICY pol ON parent USING (true);
		CREATE TABLE parts (id int) PARTITION BY RANGE (id); CREATE TABLE part1 PARTITION OF parts FOR VALUES FROM (1) TO (10); CREATE STATISTICS st ON id, name FROM parent;
		REVOKE ALL ON SCHEMA public FROM PUBLIC; GRANT USAGE ON SCHEMA public TO `+realUser+`; GRANT SELECT ON ALL TABLES IN SCHEMA public TO `+realUser+`; GRANT SELECT ON ALL SEQUENCES IN SCHEMA public TO `+realUser))
	t.Run("psql", func(t *testing.T) {
		for _, cmd := range []string{"\\d", "\\d parent", "\\d+ child", "\\d+ v", "\\d s", "\\d parts", "\\d+ part1", "\\dt+", "\\df+", "\\dT+ mood", "\\l+", "\\dp", "\\du", "\\dn+", "\\dx", "\\di+", "\\dv+", "\\dm", "\\sf trig", "\\sv v", "\\ddp", "\\db", "\\dc", "\\dO", "\\dew", "\\det", "\\dF", "\\dL", "\\dy", "\\dRp", "\\dX", "\\do +", "\\da", "\\dC", "\\drds", "\\dconfig work*", "\\dAc", "\\z", "\\conninfo", "\\encoding UTF8"} {
			if out, err := w.psql("", "-c", cmd); err != nil || strings.Contains(out, "guard") {
				t.Errorf("%s: %v: %s", cmd, err, out)
			}
		}
		file := filepath.Join(t.TempDir(), "rows")
		if out, err := w.psql("\\copy parent TO '" + file + "'\nSELECT * FROM parent \\gdesc\nSELECT 1 AS a \\gset\n\\echo :a\nBEGIN;\nSELECT * FROM v;\nCOMMIT;\n"); err != nil {
			t.Errorf("%v: %s", err, out)
		}
		if got, err := os.ReadFile(file); err != nil || string(got) != "1\tone\n2\ttwo\n" {
			t.Errorf("\\copy: %q %v", got, err)
		}
		out, err := w.psql("\\set ON_ERROR_STOP off\n\\copy parent FROM '" + file + "'\nDELETE FROM t;\nSELECT 'goes on';\n")
		if err != nil || strings.Count(out, "42501") != 2 || !strings.Contains(out, "guard run --allow appdb:db:query") || !strings.Contains(out, "goes on") {
			t.Errorf("%v: %s", err, out)
		}
		cmd := exec.Command("psql", "-X", "-w", "-h", "127.0.0.1", "-p", strconv.Itoa(w.port), "-U", "agent", "-d", "postgres", "-c", "SELECT 1")
		cmd.Env = []string{"PATH=" + os.Getenv("PATH"), "PGOPTIONS=-c default_transaction_read_only=off"}
		if out, err := cmd.CombinedOutput(); err == nil || !strings.Contains(string(out), "PGOPTIONS") {
			t.Errorf("PGOPTIONS: %v: %s", err, out)
		}
	})
	t.Run("pg_dump", func(t *testing.T) {
		for _, args := range [][]string{nil, {"-s"}, {"-a", "--inserts"}, {"-Fd", "-j2", "-f", filepath.Join(t.TempDir(), "dump")}} {
			cmd := exec.Command("pg_dump", append(args, "--no-sync", "-h", "127.0.0.1", "-p", strconv.Itoa(w.port), "-U", "agent", "-w", "--enable-row-security", "postgres")...)
			cmd.Env = []string{"PATH=" + os.Getenv("PATH"), "PGSSLMODE=disable"}
			var out, errs bytes.Buffer
			cmd.Stdout, cmd.Stderr = &out, &errs
			if err := cmd.Run(); err != nil {
				t.Errorf("%v: %v: %s", args, err, errs.String())
			}
			if args == nil && (!strings.Contains(out.String(), "1\tone\n2\ttwo\n") || !strings.Contains(out.String(), "CREATE TABLE public.parent")) {
				t.Errorf("%s", out.String())
			}
		}
	})
	t.Run("pgx", func(t *testing.T) {
		c, err := w.pgx(t, "postgres")
		must(t, err)
		var name string
		must(t, c.QueryRow(ctx, "SELECT name FROM parent WHERE id = $1", 2).Scan(&name))
		if _, err := c.Exec(ctx, "INSERT INTO t VALUES ($1)", "x"); !denies(err) {
			t.Errorf("%v", err)
		}
		tx, err := c.BeginTx(ctx, pgx.TxOptions{AccessMode: pgx.ReadOnly, IsoLevel: pgx.RepeatableRead})
		must(t, err)
		must(t, tx.QueryRow(ctx, "SELECT name FROM parent WHERE id = 1").Scan(&name))
		must(t, tx.Commit(ctx))
		if _, err := c.BeginTx(ctx, pgx.TxOptions{AccessMode: pgx.ReadWrite}); !denies(err) {
			t.Errorf("a transaction that writes: %v", err)
		}
		b := &pgx.Batch{}
		b.Queue("SELECT 'in a batch'")
		b.Queue("DELETE FROM t WHERE a = $1", "one")
		res := c.SendBatch(ctx, b)
		first := res.QueryRow().Scan(&name)
		_, second := res.Exec()
		// pgx prepares all of a batch first.
		if !denies(first) && (first != nil || !denies(second)) {
			t.Errorf("%v, %v", first, second)
		}
		_ = res.Close()
		if _, err := c.CopyFrom(ctx, pgx.Identifier{"t"}, []string{"a"}, pgx.CopyFromRows([][]any{{"x"}})); !denies(err) {
			t.Errorf("COPY: %v", err)
		}
		must(t, c.QueryRow(ctx, "SELECT 'still here'").Scan(&name))
	})
	t.Run("psycopg2", func(t *testing.T) {
		cmd := exec.Command(testutil.NeedPython(t, "psycopg2", "python3-psycopg2"), "-c", `
import io, sys, psycopg2
c = psycopg2.connect(host="127.0.0.1", port=sys.argv[1], user="agent", dbname="postgres", sslmode="disable")
k = c.cursor()
k.execute("SELECT name FROM parent WHERE id = %s", (1,))
print(k.fetchone()[0])
out = io.StringIO()
k.copy_expert("COPY parent TO STDOUT", out)
print(len(out.getvalue().splitlines()))
n = c.cursor("named")
n.execute("SELECT * FROM generate_series(1, 5000)")
print(len(n.fetchall()))
c.commit()
try:
    k.execute("INSERT INTO t VALUES ('x')")
except psycopg2.Error as e:
    print(e.pgcode, e.diag.severity)
c.rollback()
try:
    c.set_session(readonly=False)
    k.execute("SELECT 1")
except psycopg2.Error as e:
    print(e.pgcode)
`, strconv.Itoa(w.port))
		cmd.Env = []string{"PATH=" + os.Getenv("PATH")}
		if out, err := cmd.CombinedOutput(); err != nil || string(out) != "one\n2\n5000\n42501 ERROR\n42501\n" {
			t.Errorf("%v: %s", err, out)
		}
	})
}

// A connection that the server ends has the server's word for it.
func TestServerEndsConnection(t *testing.T) {
	srv := rotatetest.StartPostgres(t)
	w := newWorld(t, srv)
	for _, busy := range []bool{false, true} {
		c, err := w.conn(t, "")
		must(t, err)
		end := fmt.Sprintf("SELECT pg_terminate_backend(%d, 10000)", w.h.Backends()[0])
		if !busy {
			must(t, srv.Exec(end))
		} else {
			go func() {
				for {
					if n, err := srv.Query(`SELECT count(*) FROM pg_stat_activity WHERE query LIKE '%pg_sleep(1000)'`); err != nil || n[0] == "1" {
						break
					}
				}
				_ = srv.Exec(end)
			}()
		}
		_, err = c.Exec(context.Background(), "SELECT pg_sleep(1000)").ReadAll()
		var pe *pgconn.PgError
		if !errors.As(err, &pe) || pe.Code != "57P01" {
			t.Errorf("busy %v: %v", busy, err)
		}
		for len(w.h.Backends()) > 0 {
		}
	}
}

// slow takes its time to write.
type slow struct{ net.Conn }

func (s slow) Write(p []byte) (int, error) {
	n, err := s.Conn.Write(p)
	<-time.After(30 * time.Millisecond) // the answer is there before
	return n, err
}

// Nothing that the server says is lost where writes take long, as on a busy machine.
func TestSlowLogin(t *testing.T) {
	srv := rotatetest.StartPostgres(t)
	w := newWorld(t, srv)
	dial := w.h.Dial
	w.h.Dial = func(ctx context.Context, host string, port int) (net.Conn, error) {
		c, err := dial(ctx, host, port)
		return slow{c}, err
	}
	for range 3 {
		ctx, stop := context.WithTimeout(context.Background(), 20*time.Second)
		c, err := w.conn(t, "")
		must(t, err)
		if out, err := c.Exec(ctx, "SELECT 'answered'").ReadAll(); err != nil || string(out[0].Rows[0][0]) != "answered" {
			t.Errorf("%v", err)
		}
		stop()
	}
}
