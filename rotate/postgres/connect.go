package postgres

import (
	"context"
	"crypto/hmac"
	"crypto/pbkdf2"
	"crypto/rand"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"encoding/base64"
	"errors"
	"fmt"
	"net"
	"strconv"
	"strings"

	"github.com/jackc/pgx/v5/pgconn"

	"guard"
	"guard/rotate"
)

// server is where to log in, and as whom.
type server struct {
	host, port, db, user, sslmode, ca string
	app                               string // application_name, names the rotation
}

func target(j rotate.Job) (server, error) {
	o := j.Options
	t := server{host: o["host"], port: o["port"], db: o["db"], user: o["user"], sslmode: o["sslmode"], ca: o["ca"], app: "guard " + j.Intent}
	if t.host == "" && len(j.Credential.Hosts) > 0 {
		t.host = j.Credential.Hosts[0]
		if h, p, err := net.SplitHostPort(t.host); err == nil {
			t.host = h
			if t.port == "" {
				t.port = p
			}
		}
	}
	if t.host == "" || strings.Contains(t.host, "*") {
		return t, fmt.Errorf("where is the server of %s? add host=... to its rotate option: %w", j.Credential.Name, rotate.ErrPermanent)
	}
	if t.port == "" {
		t.port = "5432"
	}
	if _, err := strconv.ParseUint(t.port, 10, 16); err != nil {
		return t, fmt.Errorf("the port of %s's rotate option is not a number: %w", j.Credential.Name, rotate.ErrPermanent)
	}
	if t.user == "" {
		t.user = j.Credential.User
	}
	if t.user == "" {
		return t, fmt.Errorf("whose password is %s? set --user, or user=... in its rotate option: %w", j.Credential.Name, rotate.ErrPermanent)
	}
	if t.db == "" {
		t.db = "postgres"
	}
	if t.sslmode == "" {
		if t.sslmode = "verify-full"; loopback(t.host) {
			t.sslmode = "prefer"
		}
	}
	return t, nil
}

func loopback(host string) bool {
	ip := net.ParseIP(host)
	return host == "localhost" || strings.HasPrefix(host, "/") || ip != nil && ip.IsLoopback()
}

// adminServer says where the admin logs in: at the role's server, whatever host
// a DSN names, since it is that server's role.
func adminServer(t server, c guard.Credential, value guard.Secret) (server, guard.Secret, error) {
	at := t
	at.user = c.User
	text := string(value.Reveal())
	if !strings.HasPrefix(text, "postgres://") && !strings.HasPrefix(text, "postgresql://") && !strings.Contains(text, "password=") {
		if at.user == "" {
			return at, guard.Secret{}, fmt.Errorf("admin credential %s has no user: set --user, or store a DSN: %w", c.Name, rotate.ErrPermanent)
		}
		return at, value.Clone(), nil
	}
	cfg, err := pgconn.ParseConfig(text)
	if err != nil {
		// The parser's error quotes the DSN.
		return at, guard.Secret{}, fmt.Errorf("admin credential %s looks like a DSN but cannot be read as one: %w", c.Name, rotate.ErrPermanent)
	}
	at.user = cfg.User
	if cfg.Database != "" {
		at.db = cfg.Database
	}
	return at, guard.NewSecret([]byte(cfg.Password)), nil
}

// errBarred: the password is right and the role is NOLOGIN.
var errBarred = errors.New("the password is the role's, but the role may not log in")

// login tries value as the role's password.
func (p Provider) login(ctx context.Context, t server, value guard.Secret) error {
	if value.Len() == 0 {
		return errors.New("no value to log in with")
	}
	pg, err := p.connect(ctx, t, value)
	if err != nil {
		return err
	}
	(&manager{pg: pg}).close()
	return nil
}

// connect logs in. The error Is rotate.ErrRefused if and only if the server
// said that the password is wrong. Nothing of the environment (PGHOST, a
// password file, a service file) has a say.
func (p Provider) connect(ctx context.Context, t server, password guard.Secret) (*pgconn.PgConn, error) {
	cfg, err := config(t)
	if err != nil {
		return nil, err
	}
	if p.Dial != nil {
		cfg.DialFunc = p.Dial
	}
	cfg.Password = string(password.Reveal())
	pg, err := pgconn.ConnectConfig(ctx, cfg)
	cfg.Password = ""
	if err == nil {
		return pg, nil
	}
	var pe *pgconn.PgError
	if errors.As(err, &pe) {
		switch {
		case pe.Code == "28P01":
			return nil, fmt.Errorf("SQLSTATE 28P01: %w", rotate.ErrRefused)
		case pe.Code == "28000" && pe.Routine == "InitializeSessionUserId":
			return nil, errBarred
		}
	}
	return nil, scrub("log in", err)
}

func config(t server) (*pgconn.Config, error) {
	q := func(s string) string { return "'" + strings.NewReplacer(`\`, `\\`, `'`, `\'`).Replace(s) + "'" }
	dsn := "host=" + q(t.host) + " port=" + q(t.port) + " user=" + q(t.user) + " dbname=" + q(t.db) + " sslmode=" + q(t.sslmode) +
		" password='x' passfile='/dev/null' sslcert='' sslkey='' connect_timeout=10 require_auth='scram-sha-256,md5' channel_binding=prefer target_session_attrs=any"
	if t.ca != "" {
		dsn += " sslrootcert=" + q(t.ca)
	}
	cfg, err := pgconn.ParseConfig(dsn)
	if err != nil {
		return nil, fmt.Errorf("the server's address, sslmode or ca in the rotate option cannot be used (is the ca file there, and is PGSERVICE unset?): %w", rotate.ErrPermanent)
	}
	// A statement that waits for a lock must not outlive the step.
	cfg.RuntimeParams = map[string]string{"application_name": t.app, "statement_timeout": "10000"}
	return cfg, nil
}

// scrub keeps of a server's or a library's error what cannot hold a value: the
// SQLSTATE, and the address and reason of a network error.
func scrub(doing string, err error) error {
	var pe *pgconn.PgError
	var op *net.OpError
	var unknown x509.UnknownAuthorityError
	var host x509.HostnameError
	var cert *tls.CertificateVerificationError
	switch {
	case errors.As(err, &pe):
		return &serverError{doing: doing, pg: pe}
	case errors.Is(err, context.DeadlineExceeded), pgconn.Timeout(err):
		return fmt.Errorf("%s: the server did not answer in time: %w", doing, context.DeadlineExceeded)
	case errors.Is(err, context.Canceled):
		return fmt.Errorf("%s: %w", doing, context.Canceled)
	case errors.As(err, &unknown), errors.As(err, &host), errors.As(err, &cert):
		return fmt.Errorf("%s: the server's certificate is not trusted: add ca=FILE to the rotate option, or set sslmode", doing)
	case errors.As(err, &op):
		return fmt.Errorf("%s: %w", doing, op)
	case strings.Contains(err.Error(), "require_auth"):
		return fmt.Errorf("%s: the server does not ask for a password by SCRAM or MD5, so no password can be proven dead: change its pg_hba.conf to scram-sha-256: %w", doing, rotate.ErrPermanent)
	case strings.Contains(err.Error(), "refused TLS"):
		return fmt.Errorf("%s: the server has no TLS: turn it on there, or set sslmode in the rotate option", doing)
	}
	return fmt.Errorf("%s: the connection failed", doing)
}

// serverError shows a server's error by its code; Unwrap is for the code that
// branches on it, in this package.
type serverError struct {
	doing string
	pg    *pgconn.PgError
}

func (e *serverError) Error() string {
	return fmt.Sprintf("%s: the server answered SQLSTATE %s", e.doing, e.pg.Code)
}

func (e *serverError) As(to any) bool {
	if p, ok := to.(**pgconn.PgError); ok {
		*p = e.pg
		return true
	}
	return false
}

const iterations = 4096 // PostgreSQL's own

// verifier is what PostgreSQL stores for a password: it can check a login, and
// does not let one log in.
func verifier(password guard.Secret) (string, error) {
	for _, c := range password.Reveal() {
		if c < 0x20 || c > 0x7e {
			// SASLprep (RFC 4013) leaves printable ASCII as it is.
			return "", fmt.Errorf("the new password is not printable ASCII: %w", rotate.ErrPermanent)
		}
	}
	salt := make([]byte, 16)
	rand.Read(salt)
	return scram(string(password.Reveal()), salt, iterations)
}

func scram(password string, salt []byte, iterations int) (string, error) {
	salted, err := pbkdf2.Key(sha256.New, password, salt, iterations, sha256.Size)
	if err != nil {
		return "", fmt.Errorf("derive the SCRAM verifier: %w", err)
	}
	defer clear(salted)
	mac := func(msg string) []byte {
		m := hmac.New(sha256.New, salted)
		m.Write([]byte(msg))
		return m.Sum(nil)
	}
	client := mac("Client Key")
	defer clear(client)
	stored := sha256.Sum256(client)
	e := base64.StdEncoding
	return fmt.Sprintf("SCRAM-SHA-256$%d:%s$%s:%s", iterations, e.EncodeToString(salt), e.EncodeToString(stored[:]), e.EncodeToString(mac("Server Key"))), nil
}
