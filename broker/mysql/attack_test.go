package mysql

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"database/sql"
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"

	"guard"
	"guard/internal/testutil"
)

// raw is a client that says what no program would.
type raw struct {
	t *testing.T
	c net.Conn
}

// dialRaw logs in, with these capabilities and this proof.
func dialRaw(t *testing.T, port int, caps uint32, auth func(nonce []byte) []byte) (*raw, []byte) {
	t.Helper()
	c, err := net.Dial("tcp", net.JoinHostPort("127.0.0.1", strconv.Itoa(port)))
	must(t, err)
	t.Cleanup(func() { c.Close() })
	r := &raw{t, c}
	var u upstream
	hello, _, err := readPacket(c, nil, 1<<20)
	must(t, err)
	must(t, u.greeting(hello))
	var proof []byte
	if auth != nil {
		proof = auth(u.nonce)
	}
	caps |= capProtocol41 | capSecureConnection | capPluginAuth
	out := binary.LittleEndian.AppendUint32(nil, caps)
	out = append(out, 0, 0, 0, 1, 45)
	out = append(out, make([]byte, 23)...)
	out = append(out, "agent\x00"...)
	out = append(append(out, byte(len(proof))), proof...)
	out = append(out, "mysql_native_password\x00"...)
	p, _ := appendPacket(nil, out, 1)
	_, err = c.Write(p)
	must(t, err)
	return r, r.read()
}

func (r *raw) read() []byte {
	r.t.Helper()
	b, _, err := readPacket(r.c, nil, 1<<20)
	must(r.t, err)
	return b
}

func (r *raw) ask(kind byte, payload string) []byte {
	r.t.Helper()
	p, _ := appendPacket(nil, append([]byte{kind}, payload...), 0)
	_, err := r.c.Write(p)
	must(r.t, err)
	return r.read()
}

func TestRefusals(t *testing.T) {
	srv, on := real(t, "")
	ctx := context.Background()

	t.Run("policy says no", func(t *testing.T) {
		w := newWorld(t, on)
		w.change(func() { w.allow = nil })
		out, err := w.client("SELECT 1")
		for _, want := range []string{"1227", "appdb", "not today", "rule-seven", "ask the user"} {
			if err == nil || !strings.Contains(out, want) {
				t.Errorf("%q is not in: %s", want, out)
			}
		}
		w.change(func() { w.creds[0].Hosts = []string{"127.0.0.1:1"} })
		if out, _ := w.client("SELECT 1"); !strings.Contains(out, "no MySQL credential") {
			t.Errorf("no credential: %s", out)
		}
		w.h.Open = nil
		if out, _ := w.client("SELECT 1"); !strings.Contains(out, "not set up") {
			t.Errorf("no leak line: %s", out)
		}
	})

	t.Run("a secret in a statement, a parameter, a name", func(t *testing.T) {
		w := newWorld(t, on)
		out, err := w.client("SELECT 'before'; SELECT '"+planted+"'; SELECT 'after';", "--force")
		if err != nil || !strings.Contains(out, "before") || !strings.Contains(out, "after") || !strings.Contains(out, "leak-rule-3") {
			t.Errorf("%v: %s", err, out)
		}
		db := w.open(t, "")
		var s string
		if err := db.QueryRow("SELECT ?", planted).Scan(&s); errCode(err) != codeDenied {
			t.Errorf("parameter: %v", err)
		}
		if err := db.QueryRow("SELECT ?", planted[:20]).Scan(&s); err != nil || s != planted[:20] {
			t.Errorf("the beginning of one: %q, %v", s, err)
		}
		if _, err := db.Exec("USE " + planted); errCode(err) != codeDenied {
			t.Errorf("database: %v", err)
		}
		c, _ := dialRaw(t, w.port, 0, nil)
		if got := c.ask(comInitDB, planted); got[0] != 0xff {
			t.Errorf("COM_INIT_DB: %q", got)
		}
		// A parameter in pieces is one value.
		stmt := c.ask(comStmtPrepare, "SELECT ?")
		id := string(stmt[1:5])
		for range 4 { // definitions
			c.read()
		}
		long := func(p string) {
			b, _ := appendPacket(nil, []byte(string(rune(comStmtLongData))+id+"\x00\x00"+p), 0)
			_, err := c.c.Write(b)
			must(t, err)
		}
		for i := 0; i < len(planted); i += 5 {
			long(planted[i:min(len(planted), i+5)])
		}
		if got, _, err := readPacket(c.c, nil, 1000); err != nil || got[0] != 0xff || !strings.Contains(string(got), "leak-rule-3") {
			t.Errorf("long data: %q, %v", got, err)
		}
		if log, _ := os.ReadFile(srv.Log); strings.Contains(string(log), planted) {
			t.Error("the secret reached the server")
		}
	})

	t.Run("harmless long data arrives whole", func(t *testing.T) {
		w := newWorld(t, on)
		c, _ := dialRaw(t, w.port, 0, nil)
		stmt := c.ask(comStmtPrepare, "INSERT INTO app.t VALUES (77, ?)")
		for range 2 {
			c.read()
		}
		for _, p := range []string{planted[:15], "", planted[:9]} {
			b, _ := appendPacket(nil, append(append([]byte{comStmtLongData}, stmt[1:5]...), "\x00\x00"+p...), 0)
			_, err := c.c.Write(b)
			must(t, err)
		}
		exec := append(append([]byte(nil), stmt[1:5]...), 0, 1, 0, 0, 0, 0, 1, 0xfd, 0)
		if got := c.ask(comStmtExecute, string(exec)); got[0] != 0 {
			t.Errorf("%q", got)
		}
		if got := srv.Exec(t, "SELECT name FROM app.t WHERE id = 77; DELETE FROM app.t WHERE id = 77"); got != planted[:15]+planted[:9] {
			t.Errorf("arrived %q", got)
		}
	})

	t.Run("commands", func(t *testing.T) {
		w := newWorld(t, on)
		c, _ := dialRaw(t, w.port, 0, nil)
		for _, kind := range []byte{comChangeUser, 0x05, 0x06, 0x07, 0x08, 0x0b, 0x0d, 0x12, 0x13, 0x14, 0x15, 0x1d, 0x1e, 0x20, 0xfa, 0xfe, 0xff, 0} {
			got := c.ask(kind, realUser+"\x00\x00\x00")
			if got[0] != 0xff || !strings.Contains(string(got), "guard") {
				t.Errorf("command %#x: %q", kind, got)
			}
		}
		if got := c.ask(comPing, ""); got[0] != 0 {
			t.Errorf("it goes on: %q", got)
		}
		if got := w.seen(&w.refused); len(got) != 18 || got[0] != "appdb db:query command" {
			t.Errorf("recorded %q", got)
		}
	})

	t.Run("what is not offered cannot be had", func(t *testing.T) {
		w := newWorld(t, on)
		const compress, localFiles, deprecateEOF, attrs = 1 << 5, 1 << 7, 1 << 24, 1 << 27
		c, ok := dialRaw(t, w.port, compress|localFiles|deprecateEOF|attrs|capMultiStatements, nil)
		if ok[0] != 0 {
			t.Fatalf("%q", ok)
		}
		if got := c.ask(comQuery, "SELECT 1"); len(got) != 1 || got[0] != 1 {
			t.Errorf("%q", got)
		}
		for range 4 {
			c.read()
		}
		got := c.ask(comQuery, "LOAD DATA LOCAL INFILE '/etc/passwd' INTO TABLE app.t")
		if got[0] != 0xff {
			t.Errorf("LOCAL INFILE: %q", got)
		}
	})

	t.Run("placeholders", func(t *testing.T) {
		w := newWorld(t, on)
		for name, want := range map[string]string{"placeholder-of-elsewhere": "elsewhere db:query placeholder", "placeholder-of-bait": "bait db:query decoy"} {
			w.change(func() { w.refused = nil })
			for _, scramble := range []func(nonce, p []byte) []byte{scrambleNative, scrambleSHA2, func(_, p []byte) []byte { return append(p, 0) }} {
				_, got := dialRaw(t, w.port, 0, func(nonce []byte) []byte { return scramble(nonce, []byte(name)) })
				if got[0] != 0xff || !slices.Contains(w.seen(&w.refused), want) {
					t.Errorf("%s: %q, recorded %q", name, got, w.seen(&w.refused))
				}
			}
		}
		// It chooses among the credentials of one server.
		w.change(func() {
			w.creds = append(w.creds, guard.Credential{Name: "second", Context: "c", Version: 1, Kind: "mysql", Hosts: []string{"127.0.0.1"}, User: realUser, Placeholder: "placeholder-of-second"})
		})
		_, got := dialRaw(t, w.port, 0, func(nonce []byte) []byte { return scrambleNative(nonce, []byte("placeholder-of-second")) })
		w.mu.Lock()
		used := w.uses[len(w.uses)-1].Credential.Name
		w.mu.Unlock()
		if got[0] != 0 || used != "second" {
			t.Errorf("%q, used %s", got, used)
		}
		if _, got := dialRaw(t, w.port, 0, nil); got[0] != 0xff || !strings.Contains(string(got), "several credentials") {
			t.Errorf("%q", got)
		}
	})

	t.Run("errors do not name the real user, answers not the value", func(t *testing.T) {
		w := newWorld(t, on)
		out, _ := w.client("SELECT 'is " + password + " in it', REVERSE('" + reverse(password) + "')")
		if strings.Contains(out, password) || !strings.Contains(out, "xxxx") {
			t.Errorf("%s", out)
		}
		db := w.open(t, "")
		if _, err := db.Exec("SIGNAL SQLSTATE '45000' SET MESSAGE_TEXT = 'Access denied for user ''" + realUser + "''@''h'' and " + realUser + "_x'"); err == nil || !strings.Contains(err.Error(), "'agent'@'h' and "+realUser+"_x") {
			t.Errorf("%v", err)
		}
		nowhere, err := sql.Open("mysql", fmt.Sprintf("agent@tcp(127.0.0.1:%d)/nosuchdb", w.port))
		must(t, err)
		defer nowhere.Close()
		if err := nowhere.Ping(); errCode(err) != 1049 || strings.Contains(err.Error(), realUser) {
			t.Errorf("%v", err)
		}
		w.change(func() { w.values[1] = "a-wrong-value" })
		if out, err := w.client("SELECT 1"); err == nil || strings.Contains(out, realUser) || strings.Contains(out, "a-wrong-value") || !strings.Contains(out, "appdb") {
			t.Errorf("%v: %s", err, out)
		}
	})

	t.Run("kill", func(t *testing.T) {
		w := newWorld(t, on)
		cmd := exec.Command("mariadb", "--no-defaults", "-h", "127.0.0.1", "-P", strconv.Itoa(w.port), "-u", "agent", "-e", "SELECT SLEEP(1000)", "app")
		var out strings.Builder
		cmd.Stdout, cmd.Stderr = &out, &out
		must(t, cmd.Start())
		for srv.Exec(t, "SELECT COUNT(*) FROM information_schema.processlist WHERE info LIKE 'SELECT SLEEP(1000)%'") != "1" {
		}
		must(t, cmd.Process.Signal(os.Interrupt)) // Ctrl-C: another connection says KILL QUERY
		_ = cmd.Wait()
		for srv.Exec(t, "SELECT COUNT(*) FROM information_schema.processlist WHERE info LIKE 'SELECT SLEEP(1000)%'") != "0" {
		}
		// Somebody else's connection of the same login.
		other, err := sql.Open("mysql", fmt.Sprintf("%s:%s@tcp(127.0.0.1:%d)/app", realUser, password, srv.Port))
		must(t, err)
		defer other.Close()
		conn, err := other.Conn(ctx)
		must(t, err)
		var id int
		must(t, conn.QueryRowContext(ctx, "SELECT CONNECTION_ID()").Scan(&id))
		w.change(func() { w.allow = []string{"db:read"} })
		db := w.open(t, "")
		for _, q := range []string{"KILL %d", "KILL QUERY %d", "/*!KILL %d*/", "KILL CONNECTION %d+0", "SELECT 1; KILL %d", "KILL USER " + realUser + " /*%d*/"} {
			if _, err := db.Exec(fmt.Sprintf(q, id)); errCode(err) != codeDenied && errCode(err) != 1064 {
				t.Errorf("%s: %v", q, err)
			}
		}
		c, _ := dialRaw(t, w.port, 0, nil)
		if got := c.ask(comProcessKill, string(binary.LittleEndian.AppendUint32(nil, uint32(id)))); got[0] != 0xff {
			t.Errorf("COM_PROCESS_KILL: %q", got)
		}
		must(t, conn.PingContext(ctx))
		mine, err := db.Conn(ctx)
		must(t, err)
		var own int
		must(t, mine.QueryRowContext(ctx, "SELECT CONNECTION_ID()").Scan(&own))
		if _, err := db.Exec(fmt.Sprintf("KILL %d", own)); err != nil {
			t.Errorf("one's own: %v", err)
		}
	})
}

func reverse(s string) string {
	b := []byte(s)
	slices.Reverse(b)
	return string(b)
}

// The server says no too, whatever a statement is.
func TestReadOnlySession(t *testing.T) {
	srv, on := real(t, "")
	w := newWorld(t, on)
	w.change(func() { w.allow = []string{"db:read"} })
	for _, u := range []string{"DELETE FROM t", "SELECT 1; DELETE FROM t", "SET SESSION TRANSACTION READ WRITE", "/*!50000 DELETE FROM t */"} {
		if out, err := w.client(u); err == nil || !strings.Contains(out, "1227") || !strings.Contains(out, "db:read") {
			t.Errorf("%s: %v %s", u, err, out)
		}
	}
	srv.Exec(t, "DELIMITER //\nCREATE OR REPLACE FUNCTION app.md5sum() RETURNS int BEGIN DELETE FROM app.t; RETURN 1; END//\n")
	c, _ := dialRaw(t, w.port, capMultiStatements, nil)
	variable := func() string {
		t.Helper()
		if got := c.ask(comQuery, "SELECT @@tx_read_only"); got[0] != 1 {
			t.Fatalf("%q", got)
		}
		c.read()
		c.read()
		row := c.read()
		c.read()
		return string(row[1:])
	}
	if got := variable(); got != "1" {
		t.Errorf("tx_read_only %q", got)
	}
	if got := c.ask(comResetConnection, ""); got[0] != 0 {
		t.Errorf("reset: %q", got)
	}
	if got := variable(); got != "1" {
		t.Errorf("after a reset tx_read_only %q", got)
	}
	if got := c.ask(comStmtPrepare, "DELETE FROM app.t"); got[0] != 0xff {
		t.Errorf("prepared: %q", got)
	}
	if n := srv.Exec(t, "SELECT COUNT(*) FROM app.t"); n != "2" {
		t.Errorf("%s rows are left", n)
	}
	for _, u := range w.seen2() {
		if u.Action != "db:read" {
			t.Errorf("recorded as %s", u.Action)
		}
	}
	// What may make accounts may not undo that it only reads.
	w.change(func() { w.allow = append(w.allow, "token:mint") })
	for _, q := range []string{"SET SESSION TRANSACTION READ WRITE; CREATE USER evil", "CREATE USER evil; SET tx_read_only=0", "CREATE USER evil"} {
		if got := c.ask(comQuery, q); got[0] != 0xff || !strings.Contains(string(got), "db:read") {
			t.Errorf("%s: %q", q, got)
		}
	}
	if got := variable(); got != "1" {
		t.Errorf("tx_read_only %q", got)
	}
	// Were the rules not there, the server would say it.
	s := &conn{h: w.h, host: "127.0.0.1", port: 3306, client: &client{caps: capBoth, collation: 45, user: "agent"}}
	up, err := w.h.reach(context.Background(), s.host, s.port)
	must(t, err)
	s.up = up
	defer func() { s.up.close() }()
	if refusal := s.login(context.Background()); refusal != nil {
		t.Fatal(refusal.message)
	}
	if refusal := s.begin(); refusal != nil {
		t.Fatal(refusal.message)
	}
	for _, q := range []string{"DELETE FROM app.t", "CREATE TABLE app.x (a int)", "DROP TABLE app.t", "DO app.md5sum()", "SELECT app.md5sum()", "INSERT INTO mysql.user VALUES (1)", "CREATE USER evil"} {
		p, _ := appendPacket(nil, append([]byte{comQuery}, q...), 0)
		_, err := s.up.c.Write(p)
		must(t, err)
		got, _, err := readPacket(s.up.r, nil, 1<<20)
		must(t, err)
		for len(got) == 1 && got[0] == 1 { // a result: up to its error
			for got[0] != 0xff && !(got[0] == 0xfe && len(got) < 9) {
				got, _, err = readPacket(s.up.r, nil, 1<<20)
				must(t, err)
			}
			if got[0] == 0xfe {
				got, _, err = readPacket(s.up.r, nil, 1<<20)
				must(t, err)
			}
		}
		if got[0] != 0xff {
			t.Errorf("%s: the server did it", q)
		}
	}
	// A grant for one database.
	w.change(func() { w.dbs = []string{"app"} })
	if out, err := w.client("SELECT 1"); err != nil {
		t.Errorf("%v: %s", err, out)
	}
	for _, q := range []string{"USE mysql", "USE `mysql`", "/*!USE mysql*/"} {
		if out, err := w.client("SELECT 1;\n" + q + ";\nSELECT DATABASE()"); err == nil || strings.Contains(out, "\nmysql") {
			t.Errorf("%s: %v %s", q, err, out)
		}
	}
}

func (w *world) seen2() []guard.Use {
	w.mu.Lock()
	defer w.mu.Unlock()
	return slices.Clone(w.uses)
}

func TestMintedPasswords(t *testing.T) {
	srv, on := real(t, "")
	w := newWorld(t, on)
	db := w.open(t, "")
	_, err := db.Exec("CREATE USER evil IDENTIFIED BY 'password-of-evil'")
	if errCode(err) != codeDenied || !strings.Contains(err.Error(), "appdb:token:mint") {
		t.Errorf("%v", err)
	}
	if got := w.seen(&w.refused); len(got) != 1 || got[0] != "appdb token:mint passwords" {
		t.Errorf("recorded %q", got)
	}
	if n := srv.Exec(t, "SELECT COUNT(*) FROM mysql.global_priv WHERE User = 'evil'"); n != "0" {
		t.Fatal("the account was made")
	}
	w.change(func() { w.allow = append(w.allow, "token:mint") })
	_, err = db.Exec("CREATE USER evil IDENTIFIED BY 'password-of-evil'")
	must(t, err)
	defer srv.Exec(t, "DROP USER evil")
	if got := w.seen(&w.minted); len(got) != 1 || got[0] != "evil=password-of-evil" {
		t.Errorf("stored %q", got)
	}
	if n := srv.Exec(t, "SELECT COUNT(*) FROM mysql.global_priv WHERE User = 'evil'"); n != "1" {
		t.Error("the account was not made")
	}
	w.h.Minted = func(guard.Use, string, guard.Secret) error { return errors.New("full") }
	if _, err := db.Exec("ALTER USER evil IDENTIFIED BY 'another-password'"); errCode(err) != codeDenied {
		t.Errorf("not stored, but sent: %v", err)
	}
}

func TestRotation(t *testing.T) {
	srv, on := real(t, "")
	w := newWorld(t, on)
	db := w.open(t, "")
	must(t, db.Ping())
	srv.Exec(t, "ALTER USER "+realUser+" IDENTIFIED BY 'value-two-of-the-login'")
	must(t, db.Ping()) // the open connection
	// The vault has the new value when the second try asks for it.
	var dials atomic.Int32
	dial := w.dial
	w.dial = func(ctx context.Context) (net.Conn, error) {
		if dials.Add(1) == 2 {
			w.change(func() { w.values[2] = "value-two-of-the-login"; w.creds[0].Version = 2 })
		}
		return dial(ctx)
	}
	if out, err := w.client("SELECT 'second'"); err != nil || out != "second\n" || dials.Load() != 2 {
		t.Errorf("%v: %s, %d tries", err, out, dials.Load())
	}
	// Ctrl-C still finds the connection, which has another number now.
	dials.Store(0)
	w.change(func() { w.creds[0].Version = 1 })
	cmd := exec.Command("mariadb", "--no-defaults", "-h", "127.0.0.1", "-P", strconv.Itoa(w.port), "-u", "agent", "-e", "SELECT SLEEP(999)", "app")
	must(t, cmd.Start())
	for srv.Exec(t, "SELECT COUNT(*) FROM information_schema.processlist WHERE info LIKE 'SELECT SLEEP(999)%'") != "1" {
	}
	must(t, cmd.Process.Signal(os.Interrupt))
	_ = cmd.Wait()
	for srv.Exec(t, "SELECT COUNT(*) FROM information_schema.processlist WHERE info LIKE 'SELECT SLEEP(999)%'") != "0" {
	}
}

func TestLogins(t *testing.T) {
	for name, how := range map[string]string{"ed25519": "IDENTIFIED VIA ed25519 USING PASSWORD('" + password + "')", "native": ""} {
		t.Run(name, func(t *testing.T) {
			_, on := real(t, how)
			w := newWorld(t, on)
			if out, err := w.client("SELECT 1"); err != nil || out != "1\n" {
				t.Errorf("%v: %s", err, out)
			}
			w.change(func() { w.values[1] = "wrong" })
			if out, err := w.client("SELECT 1"); err == nil || !strings.Contains(out, "1045") {
				t.Errorf("a wrong value: %v: %s", err, out)
			}
		})
	}
	t.Run("a value that is a URL", func(t *testing.T) {
		_, on := real(t, "")
		w := newWorld(t, on)
		w.change(func() {
			w.values[1] = "mysql://" + realUser + ":" + strings.ReplaceAll(password, "-", "%2D") + "@db.test:3306/app"
		})
		if out, err := w.client("SELECT 1"); err != nil || out != "1\n" {
			t.Errorf("%v: %s", err, out)
		}
	})
}

func TestTLS(t *testing.T) {
	srv, on := real(t, "")
	w := newWorld(t, on)
	cipher := func() string {
		out, err := w.client("SHOW SESSION STATUS LIKE 'Ssl_version'")
		if err != nil {
			t.Fatalf("%v: %s", err, out)
		}
		return strings.TrimSpace(strings.TrimPrefix(out, "Ssl_version"))
	}
	w.h.Plain = func(string, int) bool { return false }
	if got := cipher(); !strings.HasPrefix(got, "TLS") {
		t.Errorf("upstream: %q", got)
	}
	known := w.h.TLS
	w.h.TLS = &tls.Config{RootCAs: x509.NewCertPool()}
	if out, err := w.client("SELECT 1"); err == nil || !strings.Contains(out, "--ca") {
		t.Errorf("a certificate that nobody vouches for: %v: %s", err, out)
	}
	// One of another name.
	w.h.TLS = known
	other := w.listen(t, "wrong.test")
	w.change(func() { w.creds[0].Hosts = append(w.creds[0].Hosts, "wrong.test") })
	cmd := exec.Command("mariadb", "--no-defaults", "-h", "127.0.0.1", "-P", strconv.Itoa(other), "-u", "agent", "-e", "SELECT 1")
	if out, err := cmd.CombinedOutput(); err == nil || !strings.Contains(string(out), "--ca") {
		t.Errorf("another name: %v: %s", err, out)
	}
	w.h.Plain = nil // this machine's own
	w.h.TLS = &tls.Config{RootCAs: x509.NewCertPool()}
	if got := cipher(); !strings.HasPrefix(got, "TLS") {
		t.Errorf("upstream: %q", got)
	}
	// Towards the client.
	ca := testutil.NewCA(t)
	cert := ca.Server(t, "localhost")
	w.h.GetCertificate = func(*tls.ClientHelloInfo) (*tls.Certificate, error) { return &cert, nil }
	for _, args := range [][]string{{"--ssl"}, {"--ssl-ca=" + ca.File, "--ssl-verify-server-cert", "-h", "localhost", "--protocol=tcp"}, {"--skip-ssl"}} {
		out, err := w.client("\\s", args...)
		if err != nil || (args[0] != "--skip-ssl") != strings.Contains(out, "Cipher in use is") {
			t.Errorf("%v: %v: %s", args, err, out)
		}
	}
	// Bytes in clear text after the request for TLS must not count as encrypted.
	c, err := net.Dial("tcp", net.JoinHostPort("127.0.0.1", strconv.Itoa(w.port)))
	must(t, err)
	defer c.Close()
	_, _, err = readPacket(c, nil, 1000)
	must(t, err)
	ask := binary.LittleEndian.AppendUint32(nil, capProtocol41|capSSL|capSecureConnection)
	ask = append(ask, make([]byte, 28)...)
	p, _ := appendPacket(nil, ask, 1)
	login, _ := appendPacket(nil, append(ask, "agent\x00\x00"...), 2)
	_, err = c.Write(append(p, login...))
	must(t, err)
	if got, _, err := readPacket(c, nil, 1000); err == nil && len(got) > 0 && got[0] == 0 {
		t.Error("logged in in clear text")
	}
	_ = srv
}
