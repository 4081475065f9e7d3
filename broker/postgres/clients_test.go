package postgres

import (
	"bytes"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"testing"

	"guard/internal/testutil"
	"guard/rotate/rotatetest"
)

func TestMoreClients(t *testing.T) {
	srv := rotatetest.StartPostgres(t)
	w := newWorld(t, srv)
	must(t, srv.Exec(`GRANT CREATE ON SCHEMA public TO `+realUser))
	port := strconv.Itoa(w.port)
	env := []string{"PATH=" + os.Getenv("PATH"), "PGPASSWORD=guard-placeholder", "PGSSLMODE=disable"}
	t.Run("psycopg2", func(t *testing.T) {
		cmd := exec.Command(testutil.NeedPython(t, "psycopg2", "python3-psycopg2"), "-c", `
import io, sys, psycopg2, psycopg2.extensions, select
c = psycopg2.connect(host="127.0.0.1", port=sys.argv[1], user="agent", dbname="postgres")
c.autocommit = True
k = c.cursor()
k.execute("SELECT %s || 'x'", ("a'b",))
print(k.fetchone()[0])
k.execute("CREATE TABLE p (id int, name text)")
k.copy_expert("COPY p FROM STDIN", io.StringIO("".join("%d\tname %d\n" % (i, i) for i in range(30000))))
out = io.StringIO()
k.copy_expert("COPY p TO STDOUT", out)
print(len(out.getvalue().splitlines()))
s = c.cursor()
s.execute("BEGIN; DECLARE cur CURSOR FOR SELECT id FROM p; FETCH 7 FROM cur")
print(len(s.fetchall()))
s.execute("COMMIT; LISTEN ch; NOTIFY ch, 'hello'")
while not c.notifies:
    select.select([c], [], [], 10)
    c.poll()
print(c.notifies[0].payload)
try:
    k.execute("SELECT nosuch")
except psycopg2.Error as e:
    print(e.pgcode)
try:
    k.execute("CREATE ROLE evil PASSWORD 'x'")
except psycopg2.Error as e:
    # It tells of the closed connection alone, whatever the server said before that.
    print("refused")
`, port)
		cmd.Env = env
		out, err := cmd.CombinedOutput()
		if err != nil || string(out) != "a'bx\n30000\n7\nhello\n42703\nrefused\n" {
			t.Errorf("%v: %s", err, out)
		}
	})
	t.Run("pg_dump and back", func(t *testing.T) {
		must(t, srv.Exec(`CREATE TABLE d (id int, name text); INSERT INTO d VALUES (1, 'one'), (2, E'two\nlines'); GRANT SELECT ON d TO `+realUser))
		defer srv.Exec(`DROP OWNED BY ` + realUser + ` CASCADE; DROP TABLE d`)
		cmd := exec.Command("pg_dump", "-h", "127.0.0.1", "-p", port, "-U", "agent", "-w", "-t", "d", "-O", "-x", "postgres")
		cmd.Env = env
		var out, errs bytes.Buffer
		cmd.Stdout, cmd.Stderr = &out, &errs
		if err := cmd.Run(); err != nil || !strings.Contains(out.String(), "1\tone\n2\ttwo\\nlines") {
			t.Fatalf("%v: %s%s", err, errs.String(), out.String())
		}
		must(t, srv.Exec(`DROP TABLE d`))
		if out, err := w.psql(out.String()); err != nil {
			t.Fatalf("%v: %s", err, out)
		}
		if got, err := w.psql("", "-c", "SELECT count(*), min(name) FROM d"); err != nil || got != "2|one\n" {
			t.Errorf("%v: %s", err, got)
		}
		must(t, srv.Exec(`CREATE TABLE IF NOT EXISTS d (id int)`))
	})
}
