package rotatetest

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/hex"
	"encoding/pem"
	"errors"
	"fmt"
	"math/big"
	"net"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"strconv"
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgconn"
)

// Postgres is a real server on loopback, with TLS, SCRAM passwords for everyone
// and every statement in its log. Its superuser is "postgres".
type Postgres struct {
	Host     string
	Port     int
	Password string // of the superuser
	CA       string // file with the server's certificate
	Log      string // file
}

// StartPostgres starts one for as long as tb. It skips where no PostgreSQL is
// installed.
func StartPostgres(tb testing.TB, settings ...string) *Postgres {
	tb.Helper()
	bins, _ := filepath.Glob("/usr/lib/postgresql/*/bin")
	if len(bins) == 0 {
		if _, err := exec.LookPath("initdb"); err != nil {
			tb.Skip("no PostgreSQL server is installed here (Debian: postgresql)")
		}
		bins = []string{""}
	}
	bin := bins[len(bins)-1]
	dir, err := os.MkdirTemp("", "guard-pg")
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() { os.RemoveAll(dir) })
	p := &Postgres{Host: "127.0.0.1", Password: random(), CA: filepath.Join(dir, "ca.pem"), Log: filepath.Join(dir, "log")}
	if err := os.WriteFile(filepath.Join(dir, "pw"), []byte(p.Password), 0o600); err != nil {
		tb.Fatal(err)
	}
	if err := certificate(p.CA, filepath.Join(dir, "key.pem")); err != nil {
		tb.Fatal(err)
	}
	logFile, err := os.Create(p.Log)
	if err != nil {
		tb.Fatal(err)
	}
	defer logFile.Close()
	uid, gid := -1, -1
	if os.Geteuid() == 0 { // PostgreSQL refuses to run as root
		u, err := user.Lookup("postgres")
		if err != nil {
			tb.Fatal(err)
		}
		uid, _ = strconv.Atoi(u.Uid)
		gid, _ = strconv.Atoi(u.Gid)
		for _, f := range []string{dir, p.CA, p.Log, filepath.Join(dir, "key.pem"), filepath.Join(dir, "pw")} {
			if err := os.Chown(f, uid, gid); err != nil {
				tb.Fatal(err)
			}
		}
	}
	data := filepath.Join(dir, "data")
	initdb := exec.Command(filepath.Join(bin, "initdb"), "-D", data, "-U", "postgres", "-A", "scram-sha-256", "--pwfile="+filepath.Join(dir, "pw"), "-N", "--no-locale", "-E", "UTF8")
	become(initdb, uid, gid)
	initdb.Dir = "/"
	if out, err := initdb.CombinedOutput(); err != nil {
		tb.Fatalf("initdb: %v\n%s", err, out)
	}
	// In the file, not on the command line: a test may change it.
	conf, err := os.OpenFile(filepath.Join(data, "postgresql.conf"), os.O_APPEND|os.O_WRONLY, 0)
	if err == nil {
		_, err = conf.WriteString("ssl = on\n")
		conf.Close()
	}
	if err != nil {
		tb.Fatal(err)
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		tb.Fatal(err)
	}
	p.Port = l.Addr().(*net.TCPAddr).Port
	l.Close()
	args := []string{
		"-D", data, "-p", strconv.Itoa(p.Port), "-k", dir, "-c", "listen_addresses=127.0.0.1", "-c", "fsync=off", "-c", "log_statement=all",
		"-c", "ssl_cert_file=" + p.CA, "-c", "ssl_key_file=" + filepath.Join(dir, "key.pem"), "-c", "shared_buffers=16MB",
	}
	for _, s := range settings {
		args = append(args, "-c", s)
	}
	srv := exec.Command(filepath.Join(bin, "postgres"), args...)
	become(srv, uid, gid)
	srv.Dir, srv.Stdout, srv.Stderr = "/", logFile, logFile
	if err := srv.Start(); err != nil {
		tb.Fatal(err)
	}
	ended := make(chan error, 1)
	go func() { ended <- srv.Wait() }()
	tb.Cleanup(func() {
		_ = srv.Process.Signal(os.Interrupt) // "fast": sessions are ended
		<-ended
	})
	for {
		err := p.Exec("SELECT 1")
		if err == nil {
			return p
		}
		select {
		case <-ended:
			out, _ := os.ReadFile(p.Log)
			ended <- nil
			tb.Fatalf("postgres ended: %s", out)
		case <-time.After(20 * time.Millisecond):
		}
	}
}

// Connect logs in.
func (p *Postgres) Connect(user, password, db string) (*pgconn.PgConn, error) {
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	cfg, err := pgconn.ParseConfig(fmt.Sprintf("host=%s port=%d sslmode=disable user=x password=x dbname=x", p.Host, p.Port))
	if err != nil {
		return nil, err
	}
	cfg.User, cfg.Password, cfg.Database = user, password, db
	return pgconn.ConnectConfig(ctx, cfg)
}

// Exec runs statements as the superuser.
func (p *Postgres) Exec(sql string) error {
	_, err := p.Query(sql)
	return err
}

// Query runs one statement as the superuser and returns its first column.
func (p *Postgres) Query(sql string) ([]string, error) {
	c, err := p.Connect("postgres", p.Password, "postgres")
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	defer c.Close(ctx)
	res, err := c.Exec(ctx, sql).ReadAll()
	if err != nil {
		return nil, err
	}
	var out []string
	for _, row := range res[len(res)-1].Rows {
		out = append(out, string(row[0]))
	}
	return out, nil
}

// Refused says whether err is the server's word that a password is wrong.
func Refused(err error) bool {
	var pe *pgconn.PgError
	return errors.As(err, &pe) && pe.Code == "28P01"
}

func random() string {
	var b [12]byte
	rand.Read(b[:])
	return "Pg" + hex.EncodeToString(b[:])
}

func certificate(cert, key string) error {
	k, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return err
	}
	t := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "guard test server"}, NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(24 * time.Hour),
		DNSNames: []string{"localhost", "db.test"}, IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}, IsCA: true, BasicConstraintsValid: true,
		KeyUsage: x509.KeyUsageDigitalSignature | x509.KeyUsageCertSign, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
	}
	der, err := x509.CreateCertificate(rand.Reader, t, t, &k.PublicKey, k)
	if err != nil {
		return err
	}
	kb, err := x509.MarshalPKCS8PrivateKey(k)
	if err != nil {
		return err
	}
	if err := os.WriteFile(cert, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}), 0o644); err != nil {
		return err
	}
	return os.WriteFile(key, pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: kb}), 0o600)
}
