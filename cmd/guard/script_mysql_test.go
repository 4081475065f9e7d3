//go:build linux

package main

import (
	"fmt"
	"os/exec"
	"strconv"
	"strings"

	"github.com/rogpeppe/go-internal/testscript"

	"guard/internal/testutil"
)

// mysql USER VAR: a MariaDB server of the script's own, with a login whose password is
// $VAR from now on, that may do everything. $MYSQL_PORT is its port.
func cmdMySQL(ts *testscript.TestScript, neg bool, args []string) {
	need(ts, args, 2, "mysql USER VAR")
	if socket := ts.Getenv("MYSQL_SOCKET"); socket != "" {
		sql := fmt.Sprintf("ALTER USER %s IDENTIFIED BY '%s'", args[0], ts.Getenv(args[1]))
		ts.Check(exec.Command("mariadb", "--no-defaults", "-u", "root", "-S", socket, "-e", sql).Run())
		return
	}
	srv := &testutil.MariaDBServer{}
	s := stateOf(ts)
	s.t.Cleanup(srv.Stop)
	db := srv.Get(s.t.T)
	db.Exec(s.t.T, fmt.Sprintf("CREATE DATABASE app; CREATE TABLE app.t (id int primary key, name text); INSERT INTO app.t VALUES (1, 'one');"+
		"CREATE USER %s IDENTIFIED BY '%s'; GRANT ALL ON *.* TO %[1]s WITH GRANT OPTION", args[0], ts.Getenv(args[1])))
	ts.Setenv("MYSQL_PORT", strconv.Itoa(db.Port))
	ts.Setenv("MYSQL_SOCKET", db.Socket)
}

// [!] mysqlsays SQL WANT: root is answered WANT.
func cmdMySQLSays(ts *testscript.TestScript, neg bool, args []string) {
	need(ts, args, 2, "[!] mysqlsays SQL WANT")
	out, err := exec.Command("mariadb", "--no-defaults", "-u", "root", "-S", ts.Getenv("MYSQL_SOCKET"), "-N", "-B", "-e", args[0]).Output()
	ts.Check(err)
	if got := strings.TrimSpace(string(out)); (got == args[1]) == neg {
		ts.Fatalf("%s: %s", args[0], got)
	}
}
