//go:build unix

package testutil

import (
	"bytes"
	"context"
	"fmt"
	"net"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
)

// Server is a PostgreSQL server on 127.0.0.1 that wants SCRAM-SHA-256 from
// everybody.
type Server struct {
	Addr      string // "127.0.0.1:PORT"
	Superuser string // DSN of the superuser, with its password
	psql      string
	password  string
}

// PostgresServer is one server for all tests of a binary, which starts with the
// first Get and ends with Stop. Declare it in a test file and stop it in
// TestMain:
//
//	var postgres testutil.PostgresServer
//	func TestMain(m *testing.M) { code := m.Run(); postgres.Stop(); os.Exit(code) }
type PostgresServer struct {
	mu   sync.Mutex
	s    *Server
	dir  string
	cmd  *exec.Cmd
	log  *os.File
	fail error
}

// Postgres starts a server for this test alone (about 2 s); it ends with the
// test.
func Postgres(t testing.TB) *Server {
	t.Helper()
	p := &PostgresServer{}
	t.Cleanup(p.Stop)
	return p.Get(t)
}

// Get starts the server if it does not run yet.
func (p *PostgresServer) Get(t testing.TB) *Server {
	t.Helper()
	initdb := "initdb"
	if found, _ := filepath.Glob("/usr/lib/postgresql/*/bin/initdb"); len(found) > 0 {
		initdb = found[len(found)-1]
	}
	bin := filepath.Dir(need(t, initdb, "postgresql"))
	psql := need(t, "psql", "postgresql-client")
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.s == nil && p.fail == nil {
		p.s, p.fail = p.start(bin, psql)
		if p.fail != nil {
			p.stop()
		}
	}
	if p.fail != nil {
		t.Fatalf("start PostgreSQL: %v", p.fail)
	}
	return p.s
}

func (p *PostgresServer) start(bin, psql string) (_ *Server, err error) {
	if p.dir, err = os.MkdirTemp("", "guard-pg-"); err != nil {
		return nil, err
	}
	attr := &syscall.SysProcAttr{}
	if os.Geteuid() == 0 { // it refuses to run as root
		u, err := user.Lookup("postgres")
		if err != nil {
			return nil, err
		}
		uid, _ := strconv.Atoi(u.Uid)
		gid, _ := strconv.Atoi(u.Gid)
		if err := os.Chown(p.dir, uid, gid); err != nil {
			return nil, err
		}
		attr.Credential = &syscall.Credential{Uid: uint32(uid), Gid: uint32(gid), Groups: []uint32{}}
	}
	s := &Server{password: Random(24), psql: psql}
	pwfile := filepath.Join(p.dir, "pw")
	if err := os.WriteFile(pwfile, []byte(s.password), 0o644); err != nil { // the folder is closed to others
		return nil, err
	}
	data := filepath.Join(p.dir, "data")
	cmd := exec.Command(filepath.Join(bin, "initdb"), "-D", data, "-U", "postgres", "-A", "scram-sha-256", "--pwfile", pwfile, "-N", "-E", "UTF8", "--locale=C")
	cmd.SysProcAttr, cmd.Dir = attr, p.dir
	if out, err := cmd.CombinedOutput(); err != nil {
		return nil, fmt.Errorf("initdb: %w: %s", err, out)
	}
	port, err := freePort()
	if err != nil {
		return nil, err
	}
	s.Addr = net.JoinHostPort("127.0.0.1", strconv.Itoa(port))
	s.Superuser = s.DSN("postgres", s.password)
	if p.log, err = os.Create(filepath.Join(p.dir, "log")); err != nil {
		return nil, err
	}
	p.cmd = exec.Command(filepath.Join(bin, "postgres"), "-D", data, "-p", strconv.Itoa(port), "-k", p.dir,
		"-c", "listen_addresses=127.0.0.1", "-c", "fsync=off", "-c", "password_encryption=scram-sha-256")
	p.cmd.SysProcAttr, p.cmd.Dir, p.cmd.Stderr, p.cmd.Stdout = attr, p.dir, p.log, p.log
	if err := p.cmd.Start(); err != nil {
		p.cmd = nil
		return nil, err
	}
	if !waitFor(func() bool { _, err := s.query("select 1"); return err == nil }, patience) {
		log, _ := os.ReadFile(p.log.Name())
		return nil, fmt.Errorf("it does not answer: %s", log)
	}
	return s, nil
}

// Stop ends the server and removes its files. Without a server it does nothing.
func (p *PostgresServer) Stop() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.stop()
	p.s = nil
}

func (p *PostgresServer) stop() {
	if p.cmd != nil {
		p.cmd.Process.Signal(syscall.SIGQUIT) // at once: nothing is kept
		p.cmd.Wait()
		p.cmd = nil
	}
	if p.log != nil {
		p.log.Close()
		p.log = nil
	}
	if p.dir != "" {
		os.RemoveAll(p.dir)
		p.dir = ""
	}
}

// DSN is the address for a user.
func (s *Server) DSN(user, password string) string {
	return fmt.Sprintf("postgres://%s:%s@%s/postgres?sslmode=disable", user, password, s.Addr)
}

// Exec runs SQL as the superuser and returns the rows, one a line, columns
// separated by "|". It ends the test on an error.
func (s *Server) Exec(t testing.TB, sql string) string {
	t.Helper()
	out, err := s.query(sql)
	if err != nil {
		t.Fatalf("PostgreSQL: %v", err)
	}
	return out
}

func (s *Server) query(sql string) (string, error) {
	host, port, _ := net.SplitHostPort(s.Addr)
	cmd := exec.CommandContext(context.Background(), s.psql, "-XAtq", "-v", "ON_ERROR_STOP=1", "-h", host, "-p", port, "-U", "postgres", "-d", "postgres", "-f", "-")
	cmd.Env = []string{"PGPASSWORD=" + s.password, "PGCONNECT_TIMEOUT=5", "PGSSLMODE=disable", "PATH=" + os.Getenv("PATH")}
	cmd.Stdin = strings.NewReader(sql)
	var out, errs bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errs
	if err := cmd.Run(); err != nil {
		return "", fmt.Errorf("%w: %s", err, errs.String())
	}
	return strings.TrimSuffix(out.String(), "\n"), nil
}
