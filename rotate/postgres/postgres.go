// Package postgres rotates the password of one PostgreSQL role.
//
// # What it does at the server
//
// A role has one password, so setting the new one ends the old one for new
// logins at once. The statement carries a SCRAM-SHA-256 verifier (RFC 5803's
// content in PostgreSQL's form, see scram-common.c), never the password, since
// statements are logged:
//
//	mint       ALTER ROLE "r" [LOGIN] PASSWORD 'SCRAM-SHA-256$4096:...'
//	verify     a SCRAM login; 28P01 is a refusal, anything else is not known
//	revoke     pg_terminate_backend for every session of the role
//	           in an emergency before that: ALTER ROLE "r" NOLOGIN PASSWORD '...'
//
// NOLOGIN comes first in an emergency because a session of the role may give
// the role a password of its own while it is being ended; mint lifts it. It is
// never lifted where somebody else set it: then the role's password is not the
// new one, which is how the two are told apart.
//
// Sessions must be ended by force: a new password, NOLOGIN and VALID UNTIL all
// leave open ones alone.
//
// # Who does it
//
// With admin=NAME, another credential of the same context: its value is a
// password (its user then is the login) or a DSN. It needs CREATEROLE, from
// PostgreSQL 16 on also the ADMIN OPTION on the role, and pg_signal_backend or
// membership in the role. Without admin the role does it to itself, which needs
// no privilege; NOLOGIN is then not to be had, so an emergency sets the new
// password again after the last session has gone.
package postgres

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/jackc/pgx/v5/pgconn"

	"guard"
	"guard/rotate"
)

// Provider is a rotate.Provider, Chooser and Checker. Its zero value works.
type Provider struct {
	// Dial makes connections; nil: the network's.
	Dial pgconn.DialFunc
	// Timeout of one step, default 15 s.
	Timeout time.Duration
}

// About describes it.
func (Provider) About() rotate.About {
	return rotate.About{
		Name: "postgres",
		Options: []rotate.Option{
			{Key: "admin", About: "credential of the same context that may alter the role: a password with a user, or a DSN; without it the role changes its own password"},
			{Key: "host", About: "server; default: the credential's first host"},
			{Key: "port", About: "default 5432"},
			{Key: "db", About: "database to connect to; default postgres"},
			{Key: "user", About: "role whose password this is; default: the credential's user"},
			{Key: "sslmode", About: "disable, prefer, require, verify-ca or verify-full; default verify-full, and prefer for a loopback address"},
			{Key: "ca", About: "file with the root certificates to trust"},
			{Key: "superuser", About: "yes: rotate the role even if it is a superuser or replicates"},
		},
		Privileges: "with admin: CREATEROLE (from PostgreSQL 16 on also ADMIN OPTION on the role) and membership in pg_signal_backend or in the role; without: none",
		Sessions:   "pg_terminate_backend for every session of the role; a graceful rotation spares guard's own",
		Limits:     "a role has one password: new logins with the old one fail from the moment of mint on",
		Calls:      []string{"ALTER ROLE ... [NOLOGIN] PASSWORD 'SCRAM-SHA-256$...'", "SELECT pg_terminate_backend(pid)"},
	}
}

// Choose makes a new password, or the same URL with one.
func (p Provider) Choose(j rotate.Job) (guard.Secret, error) { return rotate.NewValue(j.Current, 32) }

// passwords replaces the values of a job by the passwords in them, where they are
// URLs. wipe must be called.
func passwords(j rotate.Job) (_ rotate.Job, wipe func(), err error) {
	_, current, err := rotate.Password(j.Credential, j.Current)
	if err != nil {
		return j, nil, err
	}
	_, candidate, err := rotate.Password(j.Credential, j.Candidate)
	if err != nil {
		current.Wipe()
		return j, nil, err
	}
	j.Current, j.Candidate = current, candidate
	return j, func() { current.Wipe(); candidate.Wipe() }, nil
}

// Check logs in as the one who would rotate, and looks at the role.
func (p Provider) Check(ctx context.Context, j rotate.Job) error {
	ctx, cancel := p.limit(ctx)
	defer cancel()
	j, wipe, err := passwords(j)
	if err != nil {
		return err
	}
	defer wipe()
	t, err := target(j)
	if err != nil {
		return err
	}
	c, err := p.manage(ctx, j, t)
	if err != nil {
		return err
	}
	defer c.close()
	return c.inspect(ctx)
}

// Mint gives the role the new password. If the new one logs in, it did before.
func (p Provider) Mint(ctx context.Context, j rotate.Job) (guard.Secret, error) {
	return guard.Secret{}, rotate.NotMade(p.mint(ctx, j))
}

func (p Provider) mint(ctx context.Context, j rotate.Job) error {
	ctx, cancel := p.limit(ctx)
	defer cancel()
	j, wipe, err := passwords(j)
	if err != nil {
		return err
	}
	defer wipe()
	t, err := target(j)
	if err != nil {
		return err
	}
	if p.login(ctx, t, j.Candidate) == nil {
		return nil
	}
	c, err := p.manage(ctx, j, t)
	if err != nil {
		return err
	}
	defer c.close()
	if err := c.inspect(ctx); err != nil {
		return err
	}
	login := ""
	if j.Emergency && !c.self {
		if !c.canLogin {
			if err := p.ownLock(ctx, j, t); err != nil {
				return err
			}
		}
		login = "LOGIN "
	}
	err = c.setPassword(ctx, login, j.Candidate)
	if err != nil && c.pg.IsClosed() {
		// No answer. Whether the password was set cannot be asked before the
		// statement has ended at the server.
		if werr := p.outlive(ctx, j, t); werr != nil {
			return werr
		}
	}
	return err
}

// outlive waits until no earlier connection of this intent is left.
func (p Provider) outlive(ctx context.Context, j rotate.Job, t server) error {
	c, err := p.manage(ctx, j, t)
	if err != nil {
		return err
	}
	defer c.close()
	for {
		rows, err := c.query(ctx, `SELECT pid FROM pg_catalog.pg_stat_activity WHERE application_name = $1 AND pid <> pg_backend_pid()`, t.app)
		if err != nil || len(rows) == 0 {
			return err
		}
		if err := pause(ctx, 20*time.Millisecond); err != nil {
			return fmt.Errorf("a statement of this rotation has not ended at the server yet: %w", err)
		}
	}
}

func pause(ctx context.Context, d time.Duration) error {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-t.C:
		return nil
	}
}

// Verify logs in as the role.
func (p Provider) Verify(ctx context.Context, j rotate.Job, value guard.Secret) error {
	ctx, cancel := p.limit(ctx)
	defer cancel()
	t, err := target(j)
	if err != nil {
		return err
	}
	_, pw, err := rotate.Password(j.Credential, value)
	if err != nil {
		return err
	}
	defer pw.Wipe()
	return p.login(ctx, t, pw)
}

// Revoke ends the role's sessions and, in an emergency, first bars the role.
func (p Provider) Revoke(ctx context.Context, j rotate.Job) error {
	ctx, cancel := p.limit(ctx)
	defer cancel()
	j, wipe, err := passwords(j)
	if err != nil {
		return err
	}
	defer wipe()
	t, err := target(j)
	if err != nil {
		return err
	}
	c, err := p.manage(ctx, j, t)
	if err != nil {
		return err
	}
	defer c.close()
	if err := c.inspect(ctx); err != nil {
		return err
	}
	if !j.Emergency {
		var spare []uint32
		if j.Spare != nil {
			spare = j.Spare()
		}
		j.Mark(rotate.PartRevoked) // at mint: a role has one password
		if err := c.terminate(ctx, spare); err != nil {
			return err
		}
		j.Mark(rotate.PartSessions)
		return nil
	}
	bar, lift := "", ""
	if !c.self {
		if !c.canLogin {
			if err := p.ownLock(ctx, j, t); err != nil {
				return err
			}
		}
		bar, lift = "NOLOGIN ", "NOLOGIN "
		if j.Live {
			lift = "LOGIN "
		}
	}
	if err := c.setPassword(ctx, bar, j.Candidate); err != nil {
		return err
	}
	j.Mark(rotate.PartRevoked)
	if err := c.terminate(ctx, nil); err != nil {
		return err
	}
	// A session may have set a password of its own in its last moment.
	if err := c.setPassword(ctx, lift, j.Candidate); err != nil {
		return err
	}
	if bar == "" {
		if err := c.terminate(ctx, nil); err != nil {
			return err
		}
	}
	j.Mark(rotate.PartSessions)
	return nil
}

// ownLock says whether it was this rotation that barred the role: NOLOGIN and
// the new password are set by one statement.
func (p Provider) ownLock(ctx context.Context, j rotate.Job, t server) error {
	err := p.login(ctx, t, j.Candidate)
	if err == nil || errors.Is(err, errBarred) {
		return nil
	}
	if errors.Is(err, rotate.ErrRefused) {
		return fmt.Errorf("role of %s is NOLOGIN, and not by guard: decide whether it may log in (ALTER ROLE ... LOGIN), then rotate again: %w", j.Credential.Name, rotate.ErrPermanent)
	}
	return err
}

func (p Provider) limit(ctx context.Context) (context.Context, context.CancelFunc) {
	if p.Timeout > 0 {
		return context.WithTimeout(ctx, p.Timeout)
	}
	return context.WithTimeout(ctx, 15*time.Second)
}

// manager is a connection that may alter the role.
type manager struct {
	pg       *pgconn.PgConn
	role     string
	admin    string // credential's name, for errors
	user     string // whom it logged in as
	self     bool
	super    bool // the role may be one
	canLogin bool
	name     string // of the credential that is rotated
	version  int    // of the server, 15
}

func (p Provider) manage(ctx context.Context, j rotate.Job, t server) (*manager, error) {
	m := &manager{role: t.user, name: j.Credential.Name, super: j.Options["superuser"] == "yes"}
	name := j.Options["admin"]
	if name == "" || name == j.Credential.Name {
		m.self, m.user = true, t.user
		// Which of the two works depends on how far an earlier attempt came.
		pg, err := p.connect(ctx, t, j.Current)
		if errors.Is(err, rotate.ErrRefused) && j.Candidate.Len() > 0 {
			pg, err = p.connect(ctx, t, j.Candidate)
		}
		if err != nil {
			return nil, fmt.Errorf("log in as the role of %s to change its password: %w", m.name, err)
		}
		m.pg = pg
		return m, nil
	}
	value, c, err := j.Admin(name)
	if err != nil {
		return nil, fmt.Errorf("admin credential %s: %w", name, err)
	}
	defer value.Wipe()
	at, password, err := adminServer(t, c, value)
	if err != nil {
		return nil, err
	}
	defer password.Wipe()
	if at.user == t.user {
		return nil, fmt.Errorf("admin credential %s logs in as the role that is to be rotated: leave admin= out, or name another: %w", name, rotate.ErrPermanent)
	}
	m.admin, m.user = name, at.user
	if m.pg, err = p.connect(ctx, at, password); err != nil {
		return nil, fmt.Errorf("log in with admin credential %s: %w", name, err)
	}
	return m, nil
}

func (m *manager) close() {
	ctx, cancel := context.WithTimeout(context.Background(), time.Second)
	defer cancel()
	_ = m.pg.Close(ctx) // it is closed either way; the statements were answered
}

// inspect refuses roles that one does not expect to rotate.
func (m *manager) inspect(ctx context.Context) error {
	rows, err := m.query(ctx, `SELECT rolsuper OR rolreplication, rolcanlogin, current_setting('server_version_num')::int / 10000 FROM pg_catalog.pg_roles WHERE rolname = $1`, m.role)
	if err != nil {
		return err
	}
	if len(rows) != 1 {
		return fmt.Errorf("the role of %s does not exist on the server: set its user with `guard secret edit`: %w", m.name, rotate.ErrPermanent)
	}
	if string(rows[0][0]) == "t" && !m.super {
		return fmt.Errorf("the role of %s is a superuser or replicates: rotating it ends sessions that the whole server may depend on; add superuser=yes to its rotate option if that is wanted: %w", m.name, rotate.ErrPermanent)
	}
	m.canLogin = string(rows[0][1]) == "t"
	_, _ = fmt.Sscan(string(rows[0][2]), &m.version)
	return nil
}

func (m *manager) setPassword(ctx context.Context, login string, password guard.Secret) error {
	v, err := verifier(password)
	if err != nil {
		return err
	}
	// ALTER ROLE takes no parameters. The verifier's alphabet has no quote.
	sql := `ALTER ROLE ` + quoteIdent(m.role) + ` ` + login + `PASSWORD '` + v + `'`
	for try := 1; ; try++ {
		_, err := m.pg.Exec(ctx, sql).ReadAll()
		if err == nil {
			return nil
		}
		var pe *pgconn.PgError
		if errors.As(err, &pe) && pe.Code == "XX000" && try < 10 && pause(ctx, time.Duration(try)*5*time.Millisecond) == nil {
			continue // "tuple concurrently updated": somebody else alters the role, too
		}
		if errors.As(err, &pe) && pe.Code == "42501" && !m.self {
			return fmt.Errorf("admin credential %s may not alter the role of %s: run as a superuser %s: %w", m.admin, m.name, m.grantAlter(), rotate.ErrPermanent)
		}
		return scrub("set the new password", err)
	}
}

// grantAlter is the statement that is missing. Role names are not secret.
func (m *manager) grantAlter() string {
	s := `ALTER ROLE ` + quoteIdent(m.user) + ` CREATEROLE`
	if m.version >= 16 {
		s += `; GRANT ` + quoteIdent(m.role) + ` TO ` + quoteIdent(m.user) + ` WITH ADMIN OPTION`
	}
	return s
}

// terminate ends every session of the role but its own and those in spare, and
// returns when they are gone.
func (m *manager) terminate(ctx context.Context, spare []uint32) error {
	d := 2 * time.Millisecond
	for {
		rows, err := m.query(ctx, `SELECT pid FROM pg_catalog.pg_stat_activity WHERE usename = $1 AND pid <> pg_backend_pid()`, m.role)
		if err != nil {
			return err
		}
		left := 0
		for _, row := range rows {
			var pid uint32
			if _, err := fmt.Sscan(string(row[0]), &pid); err != nil {
				return errors.New("list the role's sessions: the server's answer is not a process id")
			}
			if slices.Contains(spare, pid) {
				continue
			}
			left++
			if _, err := m.query(ctx, `SELECT pg_terminate_backend($1::int)`, string(row[0])); err != nil {
				var pe *pgconn.PgError
				if errors.As(err, &pe) && pe.Code == "42501" {
					return fmt.Errorf("admin credential %s may not end the sessions of %s: run as a superuser GRANT pg_signal_backend TO %s: %w", m.admin, m.name, quoteIdent(m.user), rotate.ErrPermanent)
				}
				return err
			}
		}
		if left == 0 {
			return nil
		}
		if err := pause(ctx, d); err != nil {
			return fmt.Errorf("%d sessions of the role have not ended yet: %w", left, err)
		}
		d = min(d*2, 250*time.Millisecond)
	}
}

func (m *manager) query(ctx context.Context, sql string, args ...string) ([][][]byte, error) {
	values := make([][]byte, len(args))
	for i, a := range args {
		values[i] = []byte(a)
	}
	res := m.pg.ExecParams(ctx, sql, values, nil, nil, nil).Read()
	if res.Err != nil {
		return nil, scrub("ask the server about the role", res.Err)
	}
	return res.Rows, nil
}

func quoteIdent(s string) string { return `"` + strings.ReplaceAll(s, `"`, `""`) + `"` }
