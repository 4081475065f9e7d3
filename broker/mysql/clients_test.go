package mysql

import (
	"guard/internal/testutil"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"testing"
)

func TestMoreClients(t *testing.T) {
	srv, on := real(t, "")
	t.Run("PyMySQL", func(t *testing.T) {
		python := testutil.NeedPython(t, "pymysql", "python3-pymysql")
		w := newWorld(t, on)
		cmd := exec.Command(python, "-c", `
import pymysql, sys
c = pymysql.connect(host="127.0.0.1", port=int(sys.argv[1]), user="agent", password="placeholder-of-appdb", database="app")
k = c.cursor()
k.execute("SELECT name FROM t WHERE id = %s", (2,))
print(k.fetchone()[0])
k.executemany("INSERT INTO t VALUES (%s, %s)", [(i, "x" * 100) for i in range(100, 2100)])
c.rollback()
k.execute("SELECT COUNT(*) FROM t")
print(k.fetchone()[0])
s = c.cursor(pymysql.cursors.SSCursor)
s.execute("SELECT seq FROM seq_1_to_50000")
print(sum(r[0] for r in s))
try:
    k.execute("SELECT nosuch")
except pymysql.err.OperationalError as e:
    print(e.args[0])
try:
    k.execute("CREATE USER evil IDENTIFIED BY 'pw'")
except pymysql.err.OperationalError as e:
    print(e.args[0], "token:mint" in e.args[1])
c.ping(reconnect=False)
c.close()
`, strconv.Itoa(w.port))
		cmd.Env = []string{"PATH=" + os.Getenv("PATH")}
		out, err := cmd.CombinedOutput()
		if err != nil || string(out) != "two\n2\n1250025000\n1054\n1227 True\n" {
			t.Errorf("%v: %s", err, out)
		}
	})
	for _, allow := range []string{"db:query", "db:read"} {
		t.Run("mariadb-dump with "+allow, func(t *testing.T) {
			w := newWorld(t, on)
			w.change(func() { w.allow = []string{allow} })
			cmd := exec.Command("mariadb-dump", "--no-defaults", "-h", "127.0.0.1", "-P", strconv.Itoa(w.port), "-u", "agent", "--single-transaction", "--routines", "app")
			cmd.Env = []string{"PATH=" + os.Getenv("PATH"), "MYSQL_PWD=placeholder-of-appdb"}
			out, err := cmd.CombinedOutput()
			if err != nil || !strings.Contains(string(out), "(1,'one'),\n(2,'two')") || !strings.Contains(string(out), "Dump completed") {
				t.Errorf("%v: %s", err, out)
			}
			if allow == "db:read" {
				return
			}
			// And back, into another database.
			srv.Exec(t, "CREATE OR REPLACE DATABASE app2")
			defer srv.Exec(t, "DROP DATABASE app2")
			if out, err := w.client(string(out), "app2"); err == nil {
				t.Errorf("two databases: %s", out)
			}
			in := exec.Command("mariadb", "--no-defaults", "-h", "127.0.0.1", "-P", strconv.Itoa(w.port), "-u", "agent", "app2")
			in.Stdin = strings.NewReader(string(out))
			if out, err := in.CombinedOutput(); err != nil {
				t.Errorf("%v: %s", err, out)
			}
			if got := srv.Exec(t, "SELECT GROUP_CONCAT(name ORDER BY id) FROM app2.t"); got != "one,two" {
				t.Errorf("read back %q", got)
			}
		})
	}
}
