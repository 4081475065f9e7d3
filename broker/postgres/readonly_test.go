package postgres

import (
	"context"
	"slices"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5/pgconn"

	"guard"
	"guard/rotate/rotatetest"
)

// reads are statements that a session with db:read may send.
var reads = []string{
	"", "-- nothing", ";;", "SELECT 1", "select * from t where a = 'it''s' and \"a\" = 'x'", "(SELECT 1) UNION (SELECT 2)", "((SELECT 1))", "VALUES (1), (2)", "TABLE t",
	"WITH c AS (SELECT 1) SELECT * FROM c", "WITH RECURSIVE c(n) AS (SELECT 1 UNION ALL SELECT n+1 FROM c WHERE n < 3) SELECT * FROM c", "WITH c AS MATERIALIZED (SELECT 1) SELECT * FROM c",
	"SHOW search_path", "SHOW ALL", "SHOW TRANSACTION ISOLATION LEVEL", "EXPLAIN SELECT 1", "EXPLAIN ANALYZE VERBOSE SELECT 1", "EXPLAIN (ANALYZE, COSTS off) SELECT 1", "EXPLAIN (SELECT 1)", "EXPLAIN EXECUTE p1",
	"SELECT count(*), max(a), string_agg(a, ',' ORDER BY a), array_agg(DISTINCT a) FILTER (WHERE a > 'x') FROM t", "SELECT pg_catalog.format_type(25, NULL), a::varchar(10), CAST(1 AS numeric(10,2)) FROM t",
	"SELECT a, row_number() OVER (PARTITION BY a ORDER BY a) FROM t", "SELECT * FROM generate_series(1, 3) AS g(i) JOIN LATERAL (SELECT i) AS l ON true", "SELECT * FROM unnest(ARRAY[1,2]) WITH ORDINALITY AS u(a, n)",
	"SELECT now(), clock_timestamp(), random(), gen_random_uuid()", "SELECT EXTRACT(epoch FROM now()), substring('abc' from 2), overlay('abc' placing 'x' from 1 for 2), trim(both from ' a ')",
	"SELECT '; DELETE FROM t'", "SELECT 1 -- ; DROP TABLE t", "SELECT 1 /* ; DROP /* nested */ TABLE t */", "SELECT $$; DELETE FROM t$$, $a$ ' $a$", "SELECT E'a\\'; DELETE FROM t --'", "SELECT E'\\\\'", "SELECT \"update\" FROM (SELECT 1 AS \"update\") AS x",
	"SELECT 'insert into t', 'U&x'", "SELECT 1e5, 1.5, .5, 5 % 3", "SELECT 1;", "SELECT 1; SELECT 2", "SELECT 2 - -1, 4 / 2", "SELECT '\\'", "SELECT (SELECT 'x'::text), pg_typeof(t) FROM t", "SELECT current_user, session_user, current_timestamp(3)",
	"BEGIN", "BEGIN ISOLATION LEVEL REPEATABLE READ, READ ONLY, DEFERRABLE", "START TRANSACTION READ ONLY", "COMMIT", "END", "ROLLBACK AND CHAIN", "COMMIT AND NO CHAIN", "SAVEPOINT s", "ROLLBACK TO SAVEPOINT s", "RELEASE s", "ABORT",
	"SET TRANSACTION ISOLATION LEVEL REPEATABLE READ, READ ONLY", "SET SESSION CHARACTERISTICS AS TRANSACTION READ ONLY", "SET DATESTYLE = ISO", "SET extra_float_digits TO 3", "SET statement_timeout = '5s'", "SET LOCAL search_path TO a, \"B\", pg_catalog",
	"SET TIME ZONE 'UTC'", "SET NAMES 'UTF8'", "SET client_encoding TO 'latin1'", "SET SESSION work_mem = '4MB'", "SET enable_seqscan = off", "SET standard_conforming_strings = on", "SET default_transaction_read_only = on", "SET transaction_read_only TO true", "SET SESSION AUTHORIZATION DEFAULT",
	"RESET ALL", "RESET search_path", "RESET default_transaction_read_only", "RESET ROLE", "DISCARD ALL", "DISCARD PLANS", "SELECT pg_catalog.set_config('search_path', '', false)", "SELECT set_config('default_transaction_read_only', 'on', false)",
	"PREPARE p1 AS SELECT 1", "PREPARE p2 (int, text) AS SELECT $1, $2", "EXECUTE p1", "EXECUTE p2 (1, upper('x'))", "DEALLOCATE p1", "DEALLOCATE ALL", "DECLARE c CURSOR FOR SELECT 1", "DECLARE c NO SCROLL CURSOR WITH HOLD FOR (SELECT 1)", "FETCH 7 FROM c", "FETCH FORWARD ALL IN c", "MOVE 1 IN c", "CLOSE c",
	"COPY t TO STDOUT", "COPY public.t (a) TO stdout", "COPY (SELECT 1) TO STDOUT WITH (FORMAT csv, HEADER)", "COPY t TO STDOUT WITH (FORMAT csv, FORCE_QUOTE (a))", "LOCK TABLE public.t IN ACCESS SHARE MODE", "LOCK t, u IN ACCESS SHARE MODE NOWAIT", "LISTEN ch", "UNLISTEN *",
	"SELECT substring('abc' FOR 2)", "SELECT a.b, (x).y, z[1], :a FROM t", "SELECT xmlelement(name a, 'x'), jsonb_build_object('a', 1) -> 'a'", "SELECT $1::int + $2", "SELECT * FROM t TABLESAMPLE system (10)", "SELECT * FROM (VALUES (1, 2)) s(a, b)", "SELECT * FROM t FETCH FIRST 3 ROWS WITH TIES", "SELECT x::public.geometry(Point, 4326) FROM t", "SELECT left('abc', 1), right('abc', 1)",
	"SELECT pg_stat_get_live_tuples(1), has_table_privilege('t', 'SELECT')", "SELECT u & 'x' FROM t", "SELECT OPERATOR(pg_catalog.-) 1", "SELECT $1$$; DELETE FROM t --$$",
}

// attack is a statement that a session with db:read may not send, and what the server, with
// its transactions read-only and guard's rules out of the way, makes of it: "" where it refuses.
type attack struct{ sql, does string }

const (
	no    = ""          // refused by the server too
	undo  = "undo"      // takes the scope back
	acts  = "acts"      // does something that a read-only transaction may
	makes = "makes"     // a table x or a large object, at servers (15) that do not refuse this
	moot  = "no matter" // reads in fact, or is no SQL: refused since it cannot be told
)

var attacks = []attack{
	{"INSERT INTO t VALUES ('x')", no}, {"UPDATE t SET a = 'x'", no}, {"DELETE FROM t", no}, {"TRUNCATE t", no}, {"DROP TABLE t", no}, {"CREATE TABLE x (a int)", no}, {"ALTER TABLE t ADD b int", no}, {"MERGE INTO t USING t AS u ON false WHEN NOT MATCHED THEN INSERT VALUES ('x')", no},
	{"CREATE TABLE x AS SELECT 1", no}, {"CREATE TEMP TABLE x (a int)", no}, {"SELECT 1 INTO x", no}, {"SELECT * INTO TEMP x FROM t", no}, {"WITH c AS (SELECT 1) SELECT * INTO x FROM c", no}, {"CREATE INDEX ON t (a)", no}, {"COMMENT ON TABLE t IS 'x'", no}, {"GRANT SELECT ON t TO PUBLIC", no}, {"REFRESH MATERIALIZED VIEW m", no},
	{"SELECT 1; DELETE FROM t", no}, {"SELECT 1 ; ; /* */ DELETE FROM t", no}, {"WITH c AS (DELETE FROM t RETURNING a) SELECT * FROM c", no}, {"WITH c AS MATERIALIZED (INSERT INTO t VALUES ('x') RETURNING a) TABLE c", no}, {"WITH c AS (SELECT 1) DELETE FROM t", no}, {"(WITH c AS (UPDATE t SET a = 'y' RETURNING 1) SELECT * FROM c)", no},
	{"EXPLAIN ANALYZE DELETE FROM t", no}, {"EXPLAIN (ANALYZE) UPDATE t SET a = 'x'", no}, {"EXPLAIN (ANALYZE, VERBOSE false) INSERT INTO t VALUES ('x')", no}, {"EXPLAIN ANALYZE CREATE TABLE x AS SELECT 1", makes}, {"EXPLAIN (ANALYZE) SELECT 1 INTO x", makes}, {"EXPLAIN DELETE FROM t", moot}, {"PREPARE w AS DELETE FROM t; EXECUTE w", no}, {"PREPARE w (text) AS INSERT INTO t VALUES ($1); EXECUTE w('x')", no},
	{"DECLARE c CURSOR FOR SELECT * FROM t FOR UPDATE", no}, {"BEGIN; DECLARE c CURSOR FOR SELECT * FROM t; FETCH c; DELETE FROM t WHERE CURRENT OF c", no}, {"SELECT * FROM t FOR UPDATE", no}, {"SELECT * FROM t FOR NO KEY UPDATE", no}, {"SELECT * FROM t FOR SHARE", no}, {"SELECT * FROM t FOR KEY SHARE SKIP LOCKED", no},
	{"COPY t FROM STDIN", no}, {"COPY t FROM '/etc/passwd'", no}, {"COPY t FROM PROGRAM 'id'", no}, {"COPY t TO '/tmp/guard-x'", no}, {"COPY t TO PROGRAM 'id'", no}, {"COPY (SELECT 1) TO PROGRAM 'cat'", no}, {"COPY (DELETE FROM t RETURNING a) TO STDOUT", no}, {"COPY (SELECT nextval('s')) TO STDOUT", no}, {"COPY t (a) FROM STDIN", no}, {"COPY t TO STDOUT; DELETE FROM t", no},
	{"DO $$ BEGIN DELETE FROM t; END $$", no}, {"DO 'BEGIN PERFORM 1; END'", moot}, {"CALL p()", no}, {"CALL turn()", undo}, {"LOCK TABLE t", no}, {"LOCK TABLE t IN EXCLUSIVE MODE", no}, {"LOCK TABLE t IN ACCESS EXCLUSIVE MODE", no},
	{"SELECT nextval('s')", no}, {"SELECT setval('s', 9)", no}, {"SELECT \"nextval\"('s')", no}, {"SELECT pg_catalog.nextval('s')", no}, {"SELECT pg_catalog /* */ . \"setval\" ('s', 9)", no}, {"SELECT U&\"n\\0065xtval\"('s')", no}, {"SELECT U&\"d!0061ta\" UESCAPE '!' FROM t", no},
	{"SELECT lo_create(0)", makes}, {"SELECT lo_from_bytea(0, 'x')", makes}, {"SELECT lo_import('/etc/passwd')", no}, {"SELECT lo_export(1, '/tmp/x')", no}, {"SELECT lo_unlink(1)", no}, {"SELECT lo_put(1, 0, 'x')", no}, {"SELECT pg_read_file('/etc/passwd')", no}, {"SELECT pg_ls_dir('/')", no}, {"SELECT pg_stat_file('/etc/passwd')", no},
	{"SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE false", acts}, {"SELECT pg_cancel_backend(0)", acts}, {"NOTIFY ch, 'x'", acts}, {"SELECT pg_notify('ch', 'x')", acts}, {"SELECT pg_advisory_lock(1)", acts}, {"SELECT pg_try_advisory_xact_lock(1)", acts}, {"SELECT pg_sleep(0)", acts}, {"SELECT pg_reload_conf()", no}, {"SELECT pg_create_restore_point('x')", no}, {"SELECT pg_logical_emit_message(false, 'a', 'b')", acts},
	{"SELECT dblink('dbname=postgres', 'DELETE FROM t')", no}, {"SELECT dblink_exec('host=evil', 'x')", no}, {"SELECT * FROM dblink('', '') AS t(a int)", no}, {"SELECT wipe()", no}, {"SELECT public.wipe()", no}, {"SELECT public.\"wipe\"()", no}, {"SELECT postgres.public.wipe()", no}, {"SELECT DISTINCT ON (a) wipe() FROM t", no}, {"SELECT DISTINCT ON (a) nextval(a) FROM (SELECT 's' AS a) AS x", no}, {"SELECT DISTINCT ON ((a)) \"nextval\"(a) FROM (SELECT 's' AS a) AS x", no}, {"SELECT * FROM ROWS FROM (wipe()) AS x", no}, {"VALUES (wipe())", no}, {"TABLE t UNION SELECT wipe()::text", no},
	{"SELECT query_to_xml('SELECT wipe()', true, true, '')", no}, {"SELECT ts_stat('SELECT wipe()::text::tsvector')", no}, {"SELECT ts_rewrite('a'::tsquery, 'SELECT 1')", no}, {"SELECT table_to_xml('t', true, true, '')", moot}, {"SELECT txid_current()", acts},
	{"VACUUM", acts}, {"ANALYZE t", acts}, {"REINDEX TABLE t", no}, {"CLUSTER", acts}, {"CHECKPOINT", no}, {"LOAD 'x'", no}, {"SECURITY LABEL ON TABLE t IS 'x'", no}, {"IMPORT FOREIGN SCHEMA a FROM SERVER b INTO c", no}, {"REASSIGN OWNED BY a TO b", no}, {"PREPARE TRANSACTION 'x'", moot}, {"COMMIT PREPARED 'x'", no}, {"ROLLBACK PREPARED 'x'", no},

	{"SET default_transaction_read_only = off", undo}, {"set DEFAULT_TRANSACTION_READ_ONLY to 'off'", undo}, {"SET SESSION default_transaction_read_only = 0", undo}, {"SET \"default_transaction_read_only\" = off", undo}, {"SET /* */ default_transaction_read_only /**/ = false", undo}, {"SET default_transaction_read_only = no", undo}, {"SET default_transaction_read_only = E'\\x6fff'", undo}, {"SET default_transaction_read_only = $$off$$", undo},
	{"SET SESSION CHARACTERISTICS AS TRANSACTION READ WRITE", undo}, {"SET SESSION CHARACTERISTICS AS TRANSACTION ISOLATION LEVEL SERIALIZABLE, READ WRITE", undo}, {"BEGIN READ WRITE", undo}, {"BEGIN TRANSACTION READ WRITE", undo}, {"START TRANSACTION READ WRITE", undo}, {"BEGIN ISOLATION LEVEL SERIALIZABLE READ WRITE", undo}, {"BEGIN READ ONLY, READ WRITE", undo}, {"BEGIN; SET TRANSACTION READ WRITE", undo}, {"BEGIN; SET LOCAL transaction_read_only = off", undo}, {"BEGIN; SET transaction_read_only = 0", undo},
	{"BEGIN; RESET transaction_read_only", undo}, {"BEGIN; SET transaction_read_only TO DEFAULT", undo}, {"BEGIN; RESET \"TRANSACTION_READ_ONLY\"", undo}, {"SET LOCAL TRANSACTION READ WRITE", moot}, {"SAVEPOINT x; SET TRANSACTION READ WRITE", no},
	{"SELECT set_config('default_transaction_read_only', 'off', false)", undo}, {"SELECT pg_catalog.set_config('default_transaction_read_only', 'off', false)", undo}, {"SELECT \"set_config\"('DEFAULT_transaction_read_only', 'off', false)", undo}, {"SELECT set_config('default_' || 'transaction_read_only', 'off', false)", undo}, {"SELECT set_config('default_'\n'transaction_read_only', 'off', false)", undo}, {"SELECT set_config(E'default_transaction_read_onl\\x79', 'off', false)", undo},
	{"SELECT set_config(setting_name => 'default_transaction_read_only', new_value => 'off', is_local => false)", no}, {"SELECT set_config(is_local := false, new_value := 'off', setting_name := 'default_transaction_read_only')", no}, {"SELECT set_config(n, 'off', false) FROM (VALUES ('default_transaction_read_only')) AS v(n)", undo}, {"SELECT set_config($$default_transaction_read_only$$, 'off', false)", undo},
	{"SELECT set_config('default_transaction_read_only', lower('OFF'), false)", undo}, {"SELECT set_config('default_transaction_read_only', 'on' || repeat('x', 0), false)", moot}, {"SELECT set_config('transaction_read_only', 'off', true)", no}, {"WITH pg_settings(name, v) AS (SELECT 'default_transaction_read_only', 'off') SELECT set_config(name, v, false) FROM pg_settings", undo},
	{"SELECT set_config('session_authorization', 'postgres', false)", no}, {"SELECT set_config('role', 'other', false)", acts}, {"SET ROLE other", acts}, {"SET SESSION AUTHORIZATION other", no}, {"SET LOCAL ROLE other", acts}, {"SET SESSION SESSION AUTHORIZATION other", no}, {"SET session_authorization = other", no}, {"SET role TO other", acts},
	{"ALTER ROLE CURRENT_USER SET default_transaction_read_only = off", no}, {"ALTER DATABASE postgres SET default_transaction_read_only = off", no}, {"ALTER SYSTEM SET default_transaction_read_only = off", no}, {"ALTER ROLE CURRENT_USER PASSWORD 'x'", no}, {"CREATE ROLE evil", no}, {"UPDATE pg_settings SET setting = 'off' WHERE name = 'default_transaction_read_only'", no},
	{"SET standard_conforming_strings = off", moot}, {"SELECT set_config('standard_conforming_strings', 'off', false)", moot}, {"SET client_encoding = 'SJIS'", moot}, {"SET NAMES 'BIG5'", moot}, {"SET client_encoding TO gbk", moot}, {"SELECT set_config('client_encoding', 'GB18030', false)", moot}, {"SET session_replication_role = replica", no}, {"SET local_preload_libraries = 'x'", acts}, {"SET app.user = 'x'", moot},
	{"SELECT '\\'; DELETE FROM t --'", no}, {"SELECT E'\\\\'; DELETE FROM t --'", no}, {"SELECT E'a'\n'\\''; DELETE FROM t --'", no}, {"SELECT E'a' -- x\n 'b'; DELETE FROM t", no}, {"SELECT $$ ' $$; DELETE FROM t --'", no}, {"SELECT $a$ $b$ $a$; DELETE FROM t --$b$", no}, {"SELECT 1$$x$$; DELETE FROM t --$$", no}, {"SELECT a$$; DELETE FROM t --$$", no}, {"/* /* */ ' */ DELETE FROM t --'", no}, {"SELECT 1 --\r; DELETE FROM t", no}, {"SELECT 4*/* x */2; DELETE FROM t", no},
	{"SELECT 1 /* ; DELETE FROM t", moot}, {"SELECT 'x; DELETE FROM t", moot}, {"SELECT 1INTO x", no}, {"SELECT 1e1INTO x", no}, {"SELECT 0x1INTO x", moot}, {"SELECT 1.INTO x", no}, {"SELECT\"a\"INTO\"x\"FROM t", no}, {"SELECT'x'INTO x", no}, {"SELECT 1\fINTO\tx", no}, {"SELECT U&'\\0027; DELETE FROM t --'", moot}, {"SELECT 1;DELETE FROM t;SELECT 1", no}, {"COMMIT; DELETE FROM t", no}, {"ROLLBACK; BEGIN; DELETE FROM t; COMMIT", no},
	{"DROP ROLE x", no}, {"CREATE FUNCTION f() RETURNS int LANGUAGE sql AS 'SELECT 1'", no}, {"CREATE EXTENSION dblink", no}, {"CREATE SUBSCRIPTION s CONNECTION 'host=evil' PUBLICATION p", no}, {"CREATE VIEW v AS SELECT 1", no}, {"CREATE RULE r AS ON SELECT TO t DO INSTEAD SELECT 1", no}, {"ALTER DEFAULT PRIVILEGES GRANT SELECT ON TABLES TO PUBLIC", no}, {"RESET session_replication_role", moot}, {"BEGIN; SET TRANSACTION SNAPSHOT 'x'; DELETE FROM t", no}, {"EXPLAIN (ANALYZE) EXECUTE w; DELETE FROM t", no},
}

func TestReadOnlyStatements(t *testing.T) {
	for _, sql := range reads {
		if why := writes([]byte(sql)); why != "" {
			t.Errorf("%q is refused: %s", sql, why)
		}
	}
	for _, a := range attacks {
		if writes([]byte(a.sql)) == "" {
			t.Errorf("%q may be sent", a.sql)
		}
	}
	if writes([]byte("SELECT 1\x00; DELETE FROM t")) == "" {
		t.Error("a NUL")
	}
	t.Logf("%d that read, %d attacks", len(reads), len(attacks))
}

// Were the rules not there, the server would refuse what writes. What it does not is
// why there are rules.
func TestAttacksWithoutRules(t *testing.T) {
	srv := rotatetest.StartPostgres(t)
	w := newWorld(t, srv)
	prepareTables(t, srv)
	ctx := context.Background()
	up := func() *pgconn.PgConn {
		t.Helper()
		w.change(func() { w.allow = []string{"db:read"} })
		cred := w.creds[0]
		var c *pgconn.HijackedConn
		s := &start{params: map[string]string{"user": "agent", "database": "postgres"}}
		_, err := w.h.Use(guard.Use{Credential: cred, Action: "db:read"}, func(v guard.Secret) (string, error) {
			var err error
			c, err = w.h.connect(ctx, cred, v, s, "127.0.0.1", srv.Port, true)
			return "", err
		})
		must(t, err)
		pg, err := pgconn.Construct(c)
		must(t, err)
		return pg
	}
	state := func() string {
		t.Helper()
		out, err := srv.Query(`SELECT concat_ws(' ', (SELECT string_agg(a, ',') FROM t), (SELECT last_value || ' ' || is_called FROM s), (SELECT count(*) FROM pg_class), (SELECT count(*) FROM pg_proc), (SELECT count(*) FROM pg_roles), (SELECT count(*) FROM pg_db_role_setting), (SELECT count(*) FROM pg_largeobject_metadata), (SELECT string_agg(relacl::text, '') FROM pg_class WHERE relname = 't'))`)
		must(t, err)
		return out[0]
	}
	before := state()
	pg := up()
	for i, a := range attacks {
		_, err := pg.Exec(ctx, a.sql).ReadAll()
		// Undone, the next statement writes: in the transaction that is open, or in one of its own.
		_, werr := pg.Exec(ctx, "INSERT INTO t VALUES ('written')").ReadAll()
		wrote := werr == nil
		_, rerr := pg.Exec(ctx, "ROLLBACK").ReadAll()
		if _, derr := pg.Exec(ctx, "DISCARD ALL").ReadAll(); rerr != nil || derr != nil {
			_ = pg.Close(ctx)
			pg = up()
		}
		switch {
		case a.does == no && err == nil:
			t.Errorf("%q: the server did it", a.sql)
		case a.does == acts && err != nil:
			t.Errorf("%q: the server refuses it (%v): then it needs no rule", a.sql, err)
		case wrote != (a.does == undo):
			t.Errorf("%q: a write afterwards: %v", a.sql, werr)
		}
		if wrote {
			must(t, srv.Exec("DELETE FROM t WHERE a = 'written'"))
		}
		if a.does == makes {
			must(t, srv.Exec("DROP TABLE IF EXISTS x; SELECT lo_unlink(oid) FROM pg_largeobject_metadata"))
		}
		if err != nil && !wrote && i < len(attacks)-1 {
			continue
		}
		if now := state(); now != before {
			t.Errorf("%q changed %s to %s", a.sql, before, now)
			before = now
		}
	}
	_ = pg.Close(ctx)
}

// prepareTables makes what the attacks are about.
func prepareTables(t *testing.T, srv *rotatetest.Postgres) {
	t.Helper()
	must(t, srv.Exec(`CREATE TABLE t (a text); INSERT INTO t VALUES ('one'), ('two'); CREATE SEQUENCE s; CREATE MATERIALIZED VIEW m AS SELECT 1; CREATE ROLE other; GRANT other TO `+realUser+`;
		GRANT ALL ON t, s, m TO `+realUser+`; GRANT CREATE ON SCHEMA public TO `+realUser+`; GRANT INSERT ON t TO other;
		CREATE FUNCTION wipe() RETURNS int LANGUAGE plpgsql AS 'BEGIN DELETE FROM t; RETURN 1; END';
		CREATE PROCEDURE p() LANGUAGE sql AS 'DELETE FROM t';
		CREATE PROCEDURE turn() LANGUAGE plpgsql AS $$BEGIN PERFORM set_config('default_transaction_read_only', 'off', false); END$$`))
}

// Every function on the lists that the server has is one that says that it changes nothing,
// or is on the list of those that were looked at.
func TestKnownFunctions(t *testing.T) {
	srv := rotatetest.StartPostgres(t)
	found, err := srv.Query(`SELECT DISTINCT proname FROM pg_proc WHERE pronamespace = 'pg_catalog'::regnamespace AND provolatile = 'v'`)
	must(t, err)
	if len(found) < 100 {
		t.Fatalf("%d volatile functions", len(found))
	}
	looked := strings.Fields(volatile)
	for _, f := range found {
		if known(f) && !slices.Contains(looked, f) && !strings.HasPrefix(f, "pg_stat_get_") {
			t.Errorf("%s is volatile, and nobody looked at it", f)
		}
		if slices.Contains(syntax(), f) && f != "system" {
			t.Errorf("%s passes as syntax", f)
		}
	}
}

// What is long is read in one go.
func TestReadingTakesTimeInProportion(t *testing.T) {
	for _, part := range []string{")a(", "(", "set_config(name", "/*", "a.", "'x' ", "$a$", "E'' ", ";", "SELECT f("} {
		_ = writes([]byte("SELECT 1 " + strings.Repeat(part, 300_000)))
	}
	if writes([]byte(strings.Repeat(";", maxTokens+2))) == "" {
		t.Error("more than is read")
	}
}

func FuzzReadOnly(f *testing.F) {
	for _, sql := range reads {
		f.Add(sql)
	}
	for _, a := range attacks {
		f.Add(a.sql)
	}
	f.Fuzz(func(t *testing.T, sql string) {
		if writes([]byte(sql)) == "" {
			// However it goes on, what comes after a semicolon counts.
			if writes([]byte(sql+"\n;DELETE FROM t")) == "" {
				t.Errorf("%q hides what follows", sql)
			}
		}
	})
}
