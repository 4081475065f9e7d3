//go:build unix

package testutil

import (
	"bytes"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"fmt"
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

// MariaDB is a MariaDB server on 127.0.0.1, with TLS and a log of its statements.
// Its root logs in over Socket without a password.
type MariaDB struct {
	Port   int
	Socket string
	Log    string // file: every statement that came
	CA     string // file, PEM
	client string
}

// MariaDBServer is one server for all tests of a binary, as PostgresServer is.
type MariaDBServer struct {
	mu   sync.Mutex
	s    *MariaDB
	dir  string
	cmd  *exec.Cmd
	log  *os.File
	fail error
}

// Get starts the server if it does not run yet.
func (m *MariaDBServer) Get(t testing.TB) *MariaDB {
	t.Helper()
	install := need(t, "mariadb-install-db", "mariadb-server")
	client := need(t, "mariadb", "mariadb-client")
	server := "mariadbd"
	if _, err := exec.LookPath(server); err != nil {
		server = "/usr/sbin/mariadbd"
	}
	server = need(t, server, "mariadb-server")
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.s == nil && m.fail == nil {
		ca := NewCA(t)
		m.s, m.fail = m.start(install, server, client, ca, ca.Server(t, "localhost", "db.test", "127.0.0.1"))
		if m.fail != nil {
			m.stop()
		}
	}
	if m.fail != nil {
		t.Fatalf("start MariaDB: %v", m.fail)
	}
	return m.s
}

func (m *MariaDBServer) start(install, server, client string, ca *CA, cert tls.Certificate) (_ *MariaDB, err error) {
	if m.dir, err = os.MkdirTemp("", "guard-my-"); err != nil { // short: a socket's path is
		return nil, err
	}
	if err := os.Chmod(m.dir, 0o755); err != nil {
		return nil, err
	}
	data := filepath.Join(m.dir, "data")
	s := &MariaDB{Socket: filepath.Join(m.dir, "s"), Log: filepath.Join(m.dir, "general"), CA: filepath.Join(m.dir, "ca.pem"), client: client}
	pair, key := filepath.Join(m.dir, "cert.pem"), filepath.Join(m.dir, "key.pem")
	der, err := x509.MarshalPKCS8PrivateKey(cert.PrivateKey)
	if err != nil {
		return nil, err
	}
	for file, b := range map[string]*pem.Block{
		s.CA: {Type: "CERTIFICATE", Bytes: ca.Cert.Raw}, pair: {Type: "CERTIFICATE", Bytes: cert.Certificate[0]}, key: {Type: "PRIVATE KEY", Bytes: der},
	} {
		if err := os.WriteFile(file, pem.EncodeToMemory(b), 0o600); err != nil {
			return nil, err
		}
	}
	attr := &syscall.SysProcAttr{}
	if os.Geteuid() == 0 {
		u, err := user.Lookup("mysql")
		if err != nil {
			return nil, err
		}
		uid, _ := strconv.Atoi(u.Uid)
		gid, _ := strconv.Atoi(u.Gid)
		for _, f := range []string{m.dir, s.CA, pair, key} {
			if err := os.Chown(f, uid, gid); err != nil {
				return nil, err
			}
		}
		attr.Credential = &syscall.Credential{Uid: uint32(uid), Gid: uint32(gid), Groups: []uint32{}}
	}
	cmd := exec.Command(install, "--no-defaults", "--auth-root-authentication-method=normal", "--datadir="+data, "--tmpdir="+m.dir, "--skip-test-db", "--innodb-log-file-size=8M")
	cmd.SysProcAttr, cmd.Dir = attr, m.dir
	if out, err := cmd.CombinedOutput(); err != nil {
		return nil, fmt.Errorf("mariadb-install-db: %w: %s", err, out)
	}
	if s.Port, err = freePort(); err != nil {
		return nil, err
	}
	if m.log, err = os.Create(filepath.Join(m.dir, "log")); err != nil {
		return nil, err
	}
	m.cmd = exec.Command(server, "--no-defaults", "--datadir="+data, "--tmpdir="+m.dir, "--port="+strconv.Itoa(s.Port), "--socket="+s.Socket, "--bind-address=127.0.0.1",
		"--pid-file="+filepath.Join(m.dir, "pid"), "--general-log=1", "--general-log-file="+s.Log, "--ssl-ca="+s.CA, "--ssl-cert="+pair, "--ssl-key="+key,
		"--innodb-flush-log-at-trx-commit=0", "--innodb-buffer-pool-size=16M", "--innodb-log-file-size=8M", "--skip-name-resolve", "--plugin-load-add=auth_ed25519", "--max-allowed-packet=64M",
		"--performance-schema=off", "--local-infile=1")
	m.cmd.SysProcAttr, m.cmd.Dir, m.cmd.Stdout, m.cmd.Stderr = attr, m.dir, m.log, m.log
	if err := m.cmd.Start(); err != nil {
		m.cmd = nil
		return nil, err
	}
	if !waitFor(func() bool { _, err := s.Query("select 1"); return err == nil }, patience) {
		log, _ := os.ReadFile(m.log.Name())
		return nil, fmt.Errorf("it does not answer: %s", log)
	}
	return s, nil
}

// Stop ends the server and removes its files. Without a server it does nothing.
func (m *MariaDBServer) Stop() {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.stop()
	m.s = nil
}

func (m *MariaDBServer) stop() {
	if m.cmd != nil {
		m.cmd.Process.Kill() // nothing is kept
		m.cmd.Wait()
		m.cmd = nil
	}
	if m.log != nil {
		m.log.Close()
		m.log = nil
	}
	if m.dir != "" {
		os.RemoveAll(m.dir)
		m.dir = ""
	}
}

// Exec runs SQL as root, and returns the rows, one a line, columns separated by
// tabs. It ends the test on an error.
func (s *MariaDB) Exec(t testing.TB, sql string) string {
	t.Helper()
	out, err := s.Query(sql)
	if err != nil {
		t.Fatalf("MariaDB: %v", err)
	}
	return out
}

// Query is Exec with an error.
func (s *MariaDB) Query(sql string) (string, error) {
	cmd := exec.Command(s.client, "--no-defaults", "-u", "root", "-S", s.Socket, "-N", "-B", "mysql")
	cmd.Env = []string{"PATH=" + os.Getenv("PATH")}
	cmd.Stdin = strings.NewReader(sql)
	var out, errs bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errs
	if err := cmd.Run(); err != nil {
		return "", fmt.Errorf("%w: %s", err, errs.String())
	}
	return strings.TrimSuffix(out.String(), "\n"), nil
}
