package postgres

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"maps"
	"net"
	"strings"
	"time"

	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgproto3"

	"guard"
	"guard/broker"
	"guard/vault"
)

// login gets a credential through the use line and logs in upstream. If the
// server says that the password is wrong, a rotation may be between the
// issuer's change and the vault's: it asks for the credential again, twice.
func (h *Handler) login(ctx context.Context, raw net.Conn, s *start, host string, port int) (_ *pgconn.HijackedConn, _ guard.Credential, action string, _ *pgproto3.ErrorResponse) {
	for try := 1; ; try++ {
		cred, refusal := h.pick(host, port, s.params["user"], s.params["database"])
		if refusal != nil {
			return nil, cred, "", refusal
		}
		pid, exe := broker.Process(raw)
		use := guard.Use{
			Session: h.Session, Credential: cred, Channel: guard.ChannelPostgres, Action: "db:query", Resource: s.params["database"],
			Host: host, Port: port, Path: "/" + s.params["database"], PID: pid, Exe: exe, At: time.Now(),
		}
		if h.Decide != nil {
			if a := h.may(use); a != "" {
				use.Action = a
			}
		}
		var up *pgconn.HijackedConn
		var upErr error
		d, err := h.Use(use, func(value guard.Secret) (string, error) {
			up, upErr = h.connect(ctx, cred, value, s, host, port, use.Action == "db:read")
			return outcome(upErr), upErr
		})
		switch {
		case err == nil && up != nil:
			return up, cred, use.Action, nil
		case upErr == nil:
			if up != nil { // the result could not be recorded
				up.Conn.Close()
			}
			return nil, cred, "", denied(d)
		case code(upErr) == "28P01" && try < 3 && broker.Wait(ctx, 150*time.Millisecond):
			continue
		}
		return nil, cred, "", failure(upErr, cred, s.params["user"], host, port)
	}
}

// refusedLogin is guard's own answer to a login, before anything was sent.
type refusedLogin struct{ answer *pgproto3.ErrorResponse }

func (refusedLogin) Error() string { return "refused" }

func code(err error) string {
	var pe *pgconn.PgError
	if errors.As(err, &pe) {
		return pe.Code
	}
	return ""
}

func outcome(err error) string {
	switch {
	case err == nil:
		return "connected"
	case code(err) != "":
		return "failed, SQLSTATE " + code(err)
	}
	return "failed"
}

// connect logs in. Nothing of the environment has a say: every setting that
// pgconn might take from there is given.
func (h *Handler) connect(ctx context.Context, cred guard.Credential, value guard.Secret, s *start, host string, port int, readOnly bool) (*pgconn.HijackedConn, error) {
	cfg, err := pgconn.ParseConfig("host=x port=5432 user=x password=x dbname=x sslmode=disable passfile=/dev/null connect_timeout=20 target_session_attrs=any channel_binding=prefer require_auth=''")
	if err != nil {
		return nil, errors.New("set up the connection: is PGSERVICE set?")
	}
	cfg.Host, cfg.Port = host, uint16(port)
	cfg.User = cred.User
	if cfg.User == "" {
		cfg.User = s.params["user"]
	}
	cfg.Database = s.params["database"]
	cfg.RuntimeParams = maps.Clone(s.params)
	maps.DeleteFunc(cfg.RuntimeParams, func(k, _ string) bool {
		return k == "user" || k == "database" || k == "replication" || strings.HasPrefix(k, "_pq_.")
	})
	if readOnly {
		if e := narrow(cfg.RuntimeParams); e != nil {
			return nil, refusedLogin{e}
		}
	}
	// Where a write takes long, pgconn reads in the background, and goes on with that
	// until something comes: what it reads is given out by its reader alone.
	var reader io.Reader
	cfg.BuildFrontend = func(r io.Reader, w io.Writer) *pgproto3.Frontend {
		reader = r
		return pgproto3.NewFrontend(r, w)
	}
	cfg.LookupFunc = func(_ context.Context, host string) ([]string, error) { return []string{host}, nil }
	cfg.DialFunc = func(ctx context.Context, _, _ string) (net.Conn, error) { return h.Dial(ctx, host, port) }
	plain := h.plain(host, port)
	cfg.TLSConfig = h.upstream(host)
	if plain {
		second := &pgconn.FallbackConfig{Host: host, Port: uint16(port)}
		if !s.secure { // as the client wants it: TLS costs a query on this machine half its time
			cfg.TLSConfig, second.TLSConfig = nil, cfg.TLSConfig
		}
		cfg.Fallbacks = []*pgconn.FallbackConfig{second}
	}
	cfg.AfterNetConnect = func(_ context.Context, cfg *pgconn.Config, c net.Conn) (net.Conn, error) {
		cfg.RequireAuth, cfg.ChannelBinding = "scram-sha-256,md5,none", "prefer"
		t, ok := c.(*tls.Conn)
		if !ok {
			return c, nil
		}
		if err := t.HandshakeContext(ctx); err != nil {
			return c, err
		}
		switch trusted := h.Trusted(t.ConnectionState(), host) == nil; {
		case trusted:
			cfg.RequireAuth = "" // also a password in clear text: the server is who it says
		case !plain:
			cfg.ChannelBinding = "require"
		}
		return c, nil
	}
	cfg.Password = string(value.Reveal())
	for _, part := range vault.Parts(value) { // of a URL; the last one is as it is meant
		cfg.Password = string(part.Reveal())
		part.Wipe()
	}
	pg, err := pgconn.ConnectConfig(ctx, cfg)
	cfg.Password = ""
	if err != nil {
		return nil, err
	}
	if readOnly {
		if err := confirm(ctx, pg); err != nil {
			_ = pg.Close(ctx)
			return nil, err
		}
	}
	up, err := pg.Hijack()
	if err != nil {
		return nil, err
	}
	if up.Frontend.ReadBufferLen() != 0 {
		up.Conn.Close()
		return nil, errors.New("the server said more than a login")
	}
	up.Conn = &upstream{up.Conn, reader}
	return up, nil
}

// upstream is a connection that is read through pgconn's reader.
type upstream struct {
	net.Conn
	r io.Reader
}

func (u *upstream) Read(p []byte) (int, error) { return u.r.Read(p) }

func (h *Handler) plain(host string, port int) bool {
	if h.Plain != nil {
		return h.Plain(host, port)
	}
	ip := net.ParseIP(host)
	return host == "localhost" || ip != nil && ip.IsLoopback()
}

// upstream leaves the judgement about the certificate to connect, which makes
// it depend on the kind of login.
func (h *Handler) upstream(host string) *tls.Config {
	t := &tls.Config{}
	if h.TLS != nil {
		t = h.TLS.Clone()
	}
	t.ServerName, t.InsecureSkipVerify, t.MinVersion = host, true, max(t.MinVersion, tls.VersionTLS12)
	return t
}

func refuse(code, message, hint string) *pgproto3.ErrorResponse {
	return &pgproto3.ErrorResponse{Severity: "FATAL", SeverityUnlocalized: "FATAL", Code: code, Message: message, Hint: hint}
}

// denied is the use line's refusal.
func denied(d guard.Decision) *pgproto3.ErrorResponse {
	e := refuse("42501", "guard refused the use of credential "+d.Secret.Name+": "+d.Reason, strings.Join(d.NextSteps, "; "))
	e.Detail = fmt.Sprintf("layer: broker, rule: %s, request: %s", d.Rule, broker.RequestID(d))
	return e
}

// stopped is the refusal of what a client sent.
func stopped(d guard.Decision) *pgproto3.ErrorResponse {
	if d.Rule == rolesRule || d.Rule == readRule {
		e := refuse("42501", d.Reason, strings.Join(d.NextSteps, "; "))
		e.Detail = "layer: broker, rule: " + d.Rule
		return e
	}
	e := refuse("42501", "guard stopped this statement: it holds a secret", strings.Join(append([]string{d.Reason}, d.NextSteps...), "; "))
	if d.Secret.Name != "" {
		e.Message += " (" + d.Secret.Name + ")"
	}
	e.Hint = strings.TrimPrefix(e.Hint, "; ")
	if e.Hint == "" {
		e.Hint = "send the statement without the value"
	}
	e.Detail = fmt.Sprintf("layer: leak, rule: %s, request: %s", d.Rule, broker.RequestID(d))
	return e
}

// failure is what the upstream said, or that it could not be reached, without
// the real user's name.
func failure(err error, cred guard.Credential, user, host string, port int) *pgproto3.ErrorResponse {
	var pe *pgconn.PgError
	at := fmt.Sprintf("%s:%d", host, port)
	var before refusedLogin
	switch {
	case errors.As(err, &before):
		return before.answer
	case errors.Is(err, errNotReadOnly):
		return refuse("42501", "guard refused the login: the server at "+at+" did not make the session read-only", "db:read needs a server that takes default_transaction_read_only at the login, standard_conforming_strings on, and a client_encoding such as UTF8")
	case errors.As(err, &pe) && strings.HasPrefix(pe.Code, "28"):
		// Not 28P01: psql would ask the agent for a password.
		e := refuse("28000", "the server at "+at+" refused guard's credential "+cred.Name, "the user can look at it: guard secret show "+cred.Name+"; it may have been rotated outside guard")
		e.Detail = "the server answered SQLSTATE " + pe.Code
		return e
	case errors.As(err, &pe):
		hide := rename{from: cred.User, to: user}
		return &pgproto3.ErrorResponse{
			Severity: pe.Severity, SeverityUnlocalized: pe.SeverityUnlocalized, Code: pe.Code,
			Message: hide.text(pe.Message), Detail: hide.text(pe.Detail), Hint: hide.text(pe.Hint),
		}
	case strings.Contains(err.Error(), "channel binding"):
		return refuse("08001", "guard cannot tell that the server at "+at+" is the right one", "its certificate is not trusted and its login is not bound to it: give the certificate's root with --ca FILE")
	case strings.Contains(err.Error(), "refused TLS"):
		return refuse("08001", "the server at "+at+" has no TLS", "guard talks without TLS to this machine's own servers only")
	case errors.Is(err, context.DeadlineExceeded), pgconn.Timeout(err):
		return refuse("08001", "the server at "+at+" did not answer in time", "")
	}
	return refuse("08001", "guard could not reach the server at "+at, "is it running, and does policy allow the host? guard policy explain tells")
}
