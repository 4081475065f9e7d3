// Package mysql rotates the password of one MariaDB or MySQL account.
//
// # What it does at the server
//
// MariaDB takes several passwords for an account (10.4 and later), MySQL two
// (8.0.14): in a graceful rotation old and new one are valid until the old one is
// revoked. For MariaDB the statement carries mysql_native_password's hash, never the
// password; MySQL masks passwords in its logs itself.
//
//	                MariaDB                                          MySQL
//	mint            ALTER USER u IDENTIFIED VIA mysql_native_        ALTER USER u IDENTIFIED BY '...'
//	                password USING 'old' OR ... USING 'new'          RETAIN CURRENT PASSWORD
//	verify          a login; 1045 is a refusal, 4151 and 3118 are a locked account's
//	revoke          ... USING 'new', then KILL each session          DISCARD OLD PASSWORD, KILL
//	in an emergency ... USING 'new' ACCOUNT LOCK in one statement, KILL each session, again
//	                with the new password, since a session may have set one of its own in
//	                its last moment; mint unlocks
//
// A new password, a lock and DROP USER all leave open sessions alone: they are ended
// by force, and looked for again until none is left.
//
// # Who does it
//
// With admin=NAME, another credential of the same context; without, the account itself,
// which needs no privilege for its password, but cannot lock itself.
package mysql

import (
	"context"
	"crypto/sha1"
	"crypto/tls"
	"database/sql"
	"encoding/hex"
	"errors"
	"fmt"
	"net"
	"slices"
	"strings"
	"time"

	driver "github.com/go-sql-driver/mysql"

	"guard"
	"guard/rotate"
)

// Provider is a rotate.Provider, Chooser, Checker and Describer. Its zero value works.
type Provider struct {
	// Timeout of one step, default 15 s.
	Timeout time.Duration
}

// About describes it.
func (Provider) About() rotate.About {
	return rotate.About{
		Name: "mysql",
		Options: []rotate.Option{
			{Key: "admin", About: "credential of the same context that may alter the account; without it the account changes its own password"},
			{Key: "host", About: "server; default: the credential's first host"},
			{Key: "port", About: "default 3306"},
			{Key: "user", About: "account whose password this is, for all hosts that it may come from; default: the credential's user"},
			{Key: "tls", About: "yes or no; default yes, and no for a loopback address"},
			{Key: "ca", About: "file with the root certificates to trust"},
		},
		Privileges: "with admin: CREATE USER, CONNECTION ADMIN (MySQL: CONNECTION_ADMIN), PROCESS, and SELECT on mysql.user; without: none",
		Sessions:   "KILL for every session of the account; a graceful rotation spares guard's own",
		Limits:     "accounts that log in with mysql_native_password (MariaDB) or a password (MySQL); MySQL's statements follow its documentation and are not tried against a server in guard's own tests",
		Calls:      []string{"ALTER USER ... IDENTIFIED VIA mysql_native_password USING '*hash' [OR ...] [ACCOUNT LOCK | UNLOCK]", "ALTER USER ... RETAIN CURRENT PASSWORD, DISCARD OLD PASSWORD", "KILL CONNECTION id"},
	}
}

// Choose makes a new password, or the same URL with one.
func (Provider) Choose(j rotate.Job) (guard.Secret, error) { return rotate.NewValue(j.Current, 40) }

// errBarred: the password is right and the account is locked.
var errBarred = errors.New("the password is the account's, but the account is locked")

// server errors, by their numbers in MariaDB's and MySQL's lists.
const (
	errDenied        = 1045
	errNoPrivilege   = 1227
	errNoTable       = 1142
	errNoThread      = 1094
	errLockedMariaDB = 4151
	errLockedMySQL   = 3118
)

type target struct {
	host, port, user string
}

func (p Provider) target(j rotate.Job) (t target, err error) {
	t.host, t.port, t.user, err = j.Address("3306")
	if err == nil && t.user == "" {
		err = fmt.Errorf("whose password is %s? set --user, or user=... in its rotate option: %w", j.Credential.Name, rotate.ErrPermanent)
	}
	return t, err
}

// manager is a session that may alter the account.
type manager struct {
	*sql.Conn
	db    *sql.DB
	name  string // of the credential
	user  string // the account
	hosts []string
	self  bool
	maria bool
}

func (m *manager) close() {
	m.Conn.Close()
	m.db.Close()
}

// connect logs in. The error Is rotate.ErrRefused if and only if the server said that
// the password is wrong.
func connect(ctx context.Context, j rotate.Job, t target, user string, password guard.Secret) (*sql.DB, *sql.Conn, error) {
	if password.Len() == 0 {
		return nil, nil, errors.New("no value to log in with")
	}
	config, err := j.TLS(t.host)
	if err != nil {
		return nil, nil, err
	}
	c := driver.NewConfig()
	c.User, c.Passwd, c.Net, c.Addr, c.TLS = user, string(password.Reveal()), "tcp", net.JoinHostPort(t.host, t.port), config
	c.Timeout, c.Logger = 10*time.Second, &driver.NopLogger{}
	if config == nil {
		c.AllowFallbackToPlaintext = true
	}
	connector, err := driver.NewConnector(c)
	if err != nil {
		return nil, nil, fmt.Errorf("the server's address in the rotate option of %s cannot be used: %w", j.Credential.Name, rotate.ErrPermanent)
	}
	db := sql.OpenDB(connector)
	db.SetMaxOpenConns(1)
	conn, err := db.Conn(ctx)
	if err == nil {
		return db, conn, nil
	}
	db.Close()
	switch number(err) {
	case errDenied:
		return nil, nil, fmt.Errorf("error 1045: %w", rotate.ErrRefused)
	case errLockedMariaDB, errLockedMySQL:
		return nil, nil, errBarred
	}
	return nil, nil, scrub("log in", err)
}

// number is the server's number of an error, 0 for another one.
func number(err error) uint16 {
	var e *driver.MySQLError
	if errors.As(err, &e) {
		return e.Number
	}
	return 0
}

// scrub keeps of an error what cannot hold a value.
func scrub(doing string, err error) error {
	var op *net.OpError
	var cert *tls.CertificateVerificationError
	switch {
	case number(err) != 0:
		return &serverError{doing: doing, number: number(err)}
	case errors.Is(err, context.DeadlineExceeded):
		return fmt.Errorf("%s: the server did not answer in time: %w", doing, context.DeadlineExceeded)
	case errors.Is(err, context.Canceled):
		return fmt.Errorf("%s: %w", doing, context.Canceled)
	case errors.As(err, &cert):
		return fmt.Errorf("%s: the server's certificate is not trusted: add ca=FILE to the rotate option", doing)
	case errors.Is(err, driver.ErrNoTLS):
		return fmt.Errorf("%s: the server has no TLS: turn it on there, or add tls=no to the rotate option", doing)
	case errors.As(err, &op):
		return fmt.Errorf("%s: %w", doing, op)
	}
	return fmt.Errorf("%s: the connection failed", doing)
}

type serverError struct {
	doing  string
	number uint16
}

func (e *serverError) Error() string {
	return fmt.Sprintf("%s: the server answered error %d", e.doing, e.number)
}

// login tries value as the account's password.
func (p Provider) login(ctx context.Context, j rotate.Job, t target, value guard.Secret) error {
	_, pw, err := rotate.Password(j.Credential, value)
	if err != nil {
		return err
	}
	defer pw.Wipe()
	db, conn, err := connect(ctx, j, t, t.user, pw)
	if err != nil {
		return err
	}
	conn.Close()
	return db.Close()
}

// manage logs in as the one who changes the account, and looks at the account.
func (p Provider) manage(ctx context.Context, j rotate.Job, t target) (_ *manager, err error) {
	m := &manager{name: j.Credential.Name, user: t.user}
	name := j.Options["admin"]
	if m.self = name == "" || name == j.Credential.Name; m.self {
		// Which of the two works depends on how far an earlier attempt came.
		for _, v := range []guard.Secret{j.Current, j.Candidate} {
			if v.Len() == 0 {
				continue
			}
			_, pw, perr := rotate.Password(j.Credential, v)
			if perr != nil {
				return nil, perr
			}
			m.db, m.Conn, err = connect(ctx, j, t, t.user, pw)
			pw.Wipe()
			if !errors.Is(err, rotate.ErrRefused) {
				break
			}
		}
		if err != nil {
			return nil, fmt.Errorf("log in as the account of %s to change its password: %w", m.name, err)
		}
	} else {
		value, c, err := j.Admin(name)
		if err != nil {
			return nil, fmt.Errorf("admin credential %s: %w", name, err)
		}
		defer value.Wipe()
		user, pw, err := rotate.Password(c, value)
		if err != nil {
			return nil, err
		}
		defer pw.Wipe()
		if user == "" || user == t.user {
			return nil, fmt.Errorf("admin credential %s has no user, or logs in as the account that is to be rotated: set its --user, leave admin= out, or name another: %w", name, rotate.ErrPermanent)
		}
		if m.db, m.Conn, err = connect(ctx, j, t, user, pw); err != nil {
			return nil, fmt.Errorf("log in with admin credential %s: %w", name, err)
		}
	}
	if err := m.inspect(ctx); err != nil {
		m.close()
		return nil, err
	}
	return m, nil
}

// inspect finds out what server it is, and from which hosts the account may come.
func (m *manager) inspect(ctx context.Context) error {
	var version, me string
	if err := m.QueryRowContext(ctx, "SELECT VERSION(), CURRENT_USER()").Scan(&version, &me); err != nil {
		return scrub("ask the server who it is", err)
	}
	m.maria = strings.Contains(strings.ToLower(version), "mariadb")
	if m.self {
		m.hosts = []string{me[strings.LastIndexByte(me, '@')+1:]}
		return nil
	}
	rows, err := m.QueryContext(ctx, "SELECT Host, plugin FROM mysql.user WHERE User = ?", m.user)
	if err != nil {
		return m.may("read mysql.user", err)
	}
	defer rows.Close()
	for rows.Next() {
		var host, plugin string
		if err := rows.Scan(&host, &plugin); err != nil {
			return scrub("ask about the account", err)
		}
		if m.maria && plugin != "" && plugin != "mysql_native_password" {
			return fmt.Errorf("the account of %s logs in with %s: guard sets passwords of mysql_native_password on MariaDB: %w", m.name, word(plugin), rotate.ErrPermanent)
		}
		m.hosts = append(m.hosts, host)
	}
	if err := rows.Err(); err != nil {
		return scrub("ask about the account", err)
	}
	if len(m.hosts) == 0 {
		return fmt.Errorf("the account of %s does not exist on the server: set its user with `guard secret edit`: %w", m.name, rotate.ErrPermanent)
	}
	return nil
}

func word(s string) string {
	return strings.Map(func(r rune) rune {
		if r == '_' || r >= '0' && r <= '9' || r >= 'a' && r <= 'z' {
			return r
		}
		return '?'
	}, s)
}

// may explains a missing privilege.
func (m *manager) may(doing string, err error) error {
	switch number(err) {
	case errNoPrivilege, errNoTable, 1044, 1143, 1095, 1370:
		if m.self {
			return fmt.Errorf("the account of %s may not %s: name an admin credential with admin=...: %w", m.name, doing, rotate.ErrPermanent)
		}
		return fmt.Errorf("the admin credential of %s may not %s: grant it CREATE USER, CONNECTION ADMIN, PROCESS, and SELECT on mysql.user: %w", m.name, doing, rotate.ErrPermanent)
	}
	return scrub(doing, err)
}

// native is what MariaDB stores for a password: it can check a login, and does not
// let one log in (mysql_native_password: SHA1 twice).
func native(password guard.Secret) string {
	a := sha1.Sum(password.Reveal())
	b := sha1.Sum(a[:])
	return "*" + strings.ToUpper(hex.EncodeToString(b[:]))
}

// quote writes an SQL string. The server's sql_mode may make a backslash an ordinary
// character, so that it is written as what it is in both: not at all.
func quote(s string) (string, error) {
	if strings.ContainsAny(s, "\\\x00") {
		return "", fmt.Errorf("a name or password with a backslash cannot be written as SQL: %w", rotate.ErrPermanent)
	}
	return "'" + strings.ReplaceAll(s, "'", "''") + "'", nil
}

// alter gives the account the passwords, the first one to be kept beside the second
// if both are there. lock is "", " ACCOUNT LOCK" or " ACCOUNT UNLOCK".
func (m *manager) alter(ctx context.Context, j rotate.Job, lock string, values ...guard.Secret) error {
	var how []string
	for _, v := range values {
		_, pw, err := rotate.Password(j.Credential, v)
		if err != nil {
			return err
		}
		if m.maria {
			how = append(how, "mysql_native_password USING '"+native(pw)+"'")
		} else {
			q, err := quote(string(pw.Reveal()))
			if err != nil {
				return err
			}
			how = []string{q} // the server has the old one
		}
		pw.Wipe()
	}
	for _, host := range m.hosts {
		u, err := quote(m.user)
		if err != nil {
			return err
		}
		h, err := quote(host)
		if err != nil {
			return err
		}
		stmt := "ALTER USER " + u + "@" + h
		switch {
		case m.maria:
			stmt += " IDENTIFIED VIA " + strings.Join(how, " OR ") + lock
		case len(values) == 2:
			stmt += " IDENTIFIED BY " + how[0] + " RETAIN CURRENT PASSWORD"
		default:
			stmt += " IDENTIFIED BY " + how[0] + lock
		}
		if m.self && m.maria && lock == "" && len(values) == 1 {
			_, pw, err := rotate.Password(j.Credential, values[0])
			if err != nil {
				return err
			}
			stmt = "SET PASSWORD = '" + native(pw) + "'"
			pw.Wipe()
		}
		if _, err := m.ExecContext(ctx, stmt); err != nil {
			return m.may("change the password", err)
		}
	}
	return nil
}

// Check logs in as the one who would rotate, and looks at the account.
func (p Provider) Check(ctx context.Context, j rotate.Job) error {
	ctx, cancel := p.limit(ctx)
	defer cancel()
	t, err := p.target(j)
	if err != nil {
		return err
	}
	m, err := p.manage(ctx, j, t)
	if err != nil {
		return err
	}
	defer m.close()
	_, err = m.sessions(ctx, nil)
	return err
}

// Mint gives the account the new password. If the new one logs in, it did before.
func (p Provider) Mint(ctx context.Context, j rotate.Job) (guard.Secret, error) {
	return guard.Secret{}, rotate.NotMade(p.mint(ctx, j))
}

func (p Provider) mint(ctx context.Context, j rotate.Job) error {
	ctx, cancel := p.limit(ctx)
	defer cancel()
	t, err := p.target(j)
	if err != nil {
		return err
	}
	fresh := p.login(ctx, j, t, j.Candidate)
	if fresh == nil {
		return nil
	}
	m, err := p.manage(ctx, j, t)
	if err != nil {
		return err
	}
	defer m.close()
	switch {
	case !j.Emergency && m.self && m.maria:
		// An account may set its password, and not have two.
		return m.alter(ctx, j, "", j.Candidate)
	case !j.Emergency:
		return m.alter(ctx, j, "", j.Current, j.Candidate)
	case m.self:
		return m.alter(ctx, j, "", j.Candidate)
	}
	if !errors.Is(fresh, errBarred) {
		// A lock that is not this rotation's stays: its statement set the new password.
		if errors.Is(p.login(ctx, j, t, j.Current), errBarred) {
			return fmt.Errorf("the account of %s is locked, and not by guard: decide whether it may log in (ALTER USER ... ACCOUNT UNLOCK), then rotate again: %w", m.name, rotate.ErrPermanent)
		}
	}
	return m.alter(ctx, j, " ACCOUNT UNLOCK", j.Candidate)
}

// Verify logs in.
func (p Provider) Verify(ctx context.Context, j rotate.Job, value guard.Secret) error {
	ctx, cancel := p.limit(ctx)
	defer cancel()
	t, err := p.target(j)
	if err != nil {
		return err
	}
	return p.login(ctx, j, t, value)
}

// Revoke takes the old password away and ends the account's sessions.
func (p Provider) Revoke(ctx context.Context, j rotate.Job) error {
	ctx, cancel := p.limit(ctx)
	defer cancel()
	t, err := p.target(j)
	if err != nil {
		return err
	}
	m, err := p.manage(ctx, j, t)
	if err != nil {
		return err
	}
	defer m.close()
	var spare []uint32
	lock := ""
	switch {
	case !j.Emergency:
		if j.Spare != nil {
			spare = j.Spare()
		}
	case m.self:
	case errors.Is(p.login(ctx, j, t, j.Current), errBarred):
		return fmt.Errorf("the account of %s is locked, and not by guard: its password is still the old one; decide whether it may log in, then rotate again: %w", m.name, rotate.ErrPermanent)
	default:
		lock = " ACCOUNT LOCK"
	}
	if err := m.alter(ctx, j, lock, j.Candidate); err != nil {
		return err
	}
	j.Mark(rotate.PartRevoked)
	if err := m.end(ctx, spare); err != nil {
		return err
	}
	if j.Emergency {
		// A session may have set a password of its own in its last moment.
		if lock != "" && j.Live {
			lock = " ACCOUNT UNLOCK"
		}
		if err := m.alter(ctx, j, lock, j.Candidate); err != nil {
			return err
		}
		if m.self {
			if err := m.end(ctx, nil); err != nil {
				return err
			}
		}
	}
	j.Mark(rotate.PartSessions)
	return nil
}

// sessions lists the account's but its own and those in spare.
func (m *manager) sessions(ctx context.Context, spare []uint32) ([]int64, error) {
	rows, err := m.QueryContext(ctx, "SELECT ID FROM information_schema.PROCESSLIST WHERE USER = ? AND ID <> CONNECTION_ID()", m.user)
	if err != nil {
		return nil, m.may("list the account's sessions", err)
	}
	defer rows.Close()
	var out []int64
	for rows.Next() {
		var id int64
		if err := rows.Scan(&id); err != nil {
			return nil, scrub("list the account's sessions", err)
		}
		if id > 1<<32-1 || !slices.Contains(spare, uint32(id)) {
			out = append(out, id)
		}
	}
	if err := rows.Err(); err != nil {
		return nil, scrub("list the account's sessions", err)
	}
	return out, nil
}

// end ends the account's sessions and returns when they are gone.
func (m *manager) end(ctx context.Context, spare []uint32) error {
	for {
		ids, err := m.sessions(ctx, spare)
		if err != nil || len(ids) == 0 {
			return err
		}
		for _, id := range ids {
			hard := ""
			if m.maria {
				hard = "HARD " // also one that is in the middle of a repair
			}
			if _, err := m.ExecContext(ctx, fmt.Sprintf("KILL %sCONNECTION %d", hard, id)); err != nil && number(err) != errNoThread {
				return m.may("end the account's sessions", err)
			}
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("%d sessions of the account have not ended yet: %w", len(ids), ctx.Err())
		case <-time.After(2 * time.Millisecond):
		}
	}
}

func (p Provider) limit(ctx context.Context) (context.Context, context.CancelFunc) {
	if p.Timeout > 0 {
		return context.WithTimeout(ctx, p.Timeout)
	}
	return context.WithTimeout(ctx, 15*time.Second)
}
