// Package redis rotates the password of one user of Redis 6 or later, or Valkey.
//
// # What it does at the server
//
// A user has any number of passwords, so old and new one are valid until the old one
// is revoked. Commands carry the SHA-256 of a password, never the password: MONITOR
// and the slow log show what came.
//
//	mint       ACL SETUSER u #<sha256 of the new>
//	verify     AUTH u <value>, PING; WRONGPASS is a refusal
//	revoke     ACL SETUSER u !<sha256 of the old>, then CLIENT KILL ID of u's connections
//	           in an emergency: ACL SETUSER u resetpass, which takes away every password,
//	           also one that an intruder added, and nopass, and CLIENT KILL USER u, in
//	           one transaction: nothing of the user's comes between the two
//	persist    ACL SAVE, or CONFIG REWRITE where there is no ACL file
//
// A password that was taken away leaves open connections alone: they are ended by
// force, and looked for again until none is left.
//
// # Who does it
//
// With admin=NAME, another credential of the same context, whose user may run ACL and
// CLIENT; without, the user itself, which needs that too.
package redis

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

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
		Name: "redis",
		Options: []rotate.Option{
			{Key: "admin", About: "credential of the same context whose user may run ACL and CLIENT; without it the user does it itself"},
			{Key: "host", About: "server; default: the credential's first host"},
			{Key: "port", About: "default 6379"},
			{Key: "user", About: "user whose password this is; default: the credential's user, else default"},
			{Key: "tls", About: "yes or no; default yes, and no for a loopback address"},
			{Key: "ca", About: "file with the root certificates to trust"},
			{Key: "volatile", About: "yes: rotate although the server keeps users nowhere, so that a restart brings the old password back"},
		},
		Privileges: "+acl +client +config|rewrite (with an ACL file: without config)",
		Sessions:   "CLIENT KILL ID for every connection of the user; a graceful rotation spares guard's own",
		Limits:     "both passwords are valid until the old one is revoked; one server: replicas and cluster nodes keep users of their own",
		Calls:      []string{"ACL SETUSER u #sha256 | !sha256 | resetpass", "CLIENT LIST, CLIENT KILL ID", "ACL SAVE or CONFIG REWRITE"},
	}
}

// Choose makes a new password.
func (Provider) Choose(j rotate.Job) (guard.Secret, error) { return rotate.NewValue(j.Current, 40) }

// target is where to log in, and whose password it is.
type target struct {
	host, port, user string
}

func (p Provider) target(j rotate.Job) (t target, err error) {
	if t.host, t.port, t.user, err = j.Address("6379"); t.user == "" {
		t.user = "default"
	}
	return t, err
}

// login tries value as t.user's password.
func (p Provider) login(ctx context.Context, j rotate.Job, t target, value guard.Secret) error {
	_, pw, err := rotate.Password(j.Credential, value)
	if err != nil {
		return err
	}
	defer pw.Wipe()
	c, err := p.connect(ctx, j, t, t.user, pw)
	if err != nil {
		return err
	}
	defer c.close()
	// Who may not PING is logged in all the same.
	if _, err := c.do("PING"); err != nil && !says(err, "NOPERM") {
		return fmt.Errorf("log in: %w", err)
	}
	return nil
}

// connect logs in. The error Is rotate.ErrRefused if and only if the server said that
// the password is wrong, or that the user is off.
func (p Provider) connect(ctx context.Context, j rotate.Job, t target, user string, password guard.Secret) (*conn, error) {
	if password.Len() == 0 {
		return nil, errors.New("no value to log in with")
	}
	config, err := j.TLS(t.host)
	if err != nil {
		return nil, err
	}
	c, err := dial(ctx, t.host, t.port, config)
	if err != nil {
		return nil, err
	}
	_, err = c.do("AUTH", user, string(password.Reveal()))
	if err == nil {
		return c, nil
	}
	c.close()
	if says(err, "WRONGPASS") {
		return nil, fmt.Errorf("WRONGPASS: %w", rotate.ErrRefused)
	}
	return nil, fmt.Errorf("log in: %w", err)
}

// manage logs in as the one who changes the user.
func (p Provider) manage(ctx context.Context, j rotate.Job, t target) (c *conn, self bool, err error) {
	name := j.Options["admin"]
	if name == "" || name == j.Credential.Name {
		for _, v := range []guard.Secret{j.Current, j.Candidate} {
			if v.Len() == 0 {
				continue
			}
			_, pw, perr := rotate.Password(j.Credential, v)
			if perr != nil {
				return nil, true, perr
			}
			c, err = p.connect(ctx, j, t, t.user, pw)
			pw.Wipe()
			if !errors.Is(err, rotate.ErrRefused) {
				break
			}
		}
		if err != nil {
			err = fmt.Errorf("log in as the user of %s to change its password: %w", j.Credential.Name, err)
		}
		return c, true, err
	}
	value, cr, err := j.Admin(name)
	if err != nil {
		return nil, false, fmt.Errorf("admin credential %s: %w", name, err)
	}
	defer value.Wipe()
	user, pw, err := rotate.Password(cr, value)
	if err != nil {
		return nil, false, err
	}
	defer pw.Wipe()
	if user == "" {
		user = "default"
	}
	if user == t.user {
		return nil, false, fmt.Errorf("admin credential %s logs in as the user that is to be rotated: leave admin= out, or name another: %w", name, rotate.ErrPermanent)
	}
	if c, err = p.connect(ctx, j, t, user, pw); err != nil {
		return nil, false, fmt.Errorf("log in with admin credential %s: %w", name, err)
	}
	return c, false, nil
}

// Check logs in as the one who would rotate, and asks whether it may.
func (p Provider) Check(ctx context.Context, j rotate.Job) error {
	ctx, cancel := p.limit(ctx)
	defer cancel()
	t, err := p.target(j)
	if err != nil {
		return err
	}
	c, _, err := p.manage(ctx, j, t)
	if err != nil {
		return err
	}
	defer c.close()
	if err := inspect(c, j, t); err != nil {
		return err
	}
	return p.persist(c, j)
}

// inspect sees that the user is there and may be asked about.
func inspect(c *conn, j rotate.Job, t target) error {
	r, err := c.do("ACL", "GETUSER", t.user)
	if err != nil {
		return may(err, j, "ACL GETUSER")
	}
	if r.null {
		return fmt.Errorf("the user of %s does not exist on the server: set it with `guard secret edit`: %w", j.Credential.Name, rotate.ErrPermanent)
	}
	return nil
}

// may explains a missing privilege.
func may(err error, j rotate.Job, what string) error {
	if says(err, "NOPERM") {
		return fmt.Errorf("whoever rotates %s may not run %s: grant it +acl +client +config|rewrite: %w", j.Credential.Name, what, rotate.ErrPermanent)
	}
	return fmt.Errorf("%s: %w", what, err)
}

// persist makes what was changed outlive a restart of the server.
func (p Provider) persist(c *conn, j rotate.Job) error {
	_, err := c.do("ACL", "SAVE")
	if err == nil {
		return nil
	}
	if says(err, "NOPERM") {
		return may(err, j, "ACL SAVE")
	}
	if _, err = c.do("CONFIG", "REWRITE"); err == nil || j.Options["volatile"] == "yes" {
		return nil
	}
	return fmt.Errorf("the server has neither an ACL file nor a configuration file that it may write, so a restart brings the old password of %s back: set aclfile there, or add volatile=yes to the rotate option: %w", j.Credential.Name, rotate.ErrPermanent)
}

// Mint adds the new password.
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
	c, _, err := p.manage(ctx, j, t)
	if err != nil {
		return err
	}
	defer c.close()
	if err := inspect(c, j, t); err != nil {
		return err
	}
	if !j.Emergency { // in an emergency the old one's end comes first
		if err := p.persist(c, j); err != nil {
			return err
		}
	}
	sum, err := hash(j, j.Candidate)
	if err != nil {
		return err
	}
	if _, err := c.do("ACL", "SETUSER", t.user, "#"+sum); err != nil {
		return may(err, j, "ACL SETUSER")
	}
	return p.persist(c, j)
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

// Revoke takes the old password away and ends the user's connections.
func (p Provider) Revoke(ctx context.Context, j rotate.Job) error {
	ctx, cancel := p.limit(ctx)
	defer cancel()
	t, err := p.target(j)
	if err != nil {
		return err
	}
	c, self, err := p.manage(ctx, j, t)
	if err != nil {
		return err
	}
	defer c.close()
	if err := inspect(c, j, t); err != nil {
		return err
	}
	before, err := hash(j, j.Current)
	if err != nil {
		return err
	}
	after, err := hash(j, j.Candidate)
	if err != nil {
		return err
	}
	args := []string{"ACL", "SETUSER", t.user}
	switch {
	case !j.Emergency:
		args = append(args, "!"+before)
	case j.Live || self:
		// Who does it itself has no other way in for the next step.
		args = append(args, "resetpass", "#"+after)
	default:
		args = append(args, "resetpass")
	}
	var spare []uint32
	if j.Emergency {
		err = c.atOnce(args, []string{"CLIENT", "KILL", "USER", t.user, "SKIPME", "yes"})
	} else {
		if _, err = c.do(args...); gone(err) {
			err = nil
		}
		if j.Spare != nil {
			spare = j.Spare()
		}
	}
	if err != nil {
		return may(err, j, "ACL SETUSER")
	}
	j.Mark(rotate.PartRevoked)
	if err := c.endSessions(ctx, t.user, spare); err != nil {
		return may(err, j, "CLIENT KILL")
	}
	j.Mark(rotate.PartSessions)
	return p.persist(c, j)
}

// atOnce runs commands as one transaction.
func (c *conn) atOnce(commands ...[]string) error {
	for _, args := range append(append([][]string{{"MULTI"}}, commands...), []string{"EXEC"}) {
		if _, err := c.do(args...); err != nil {
			return err
		}
	}
	return nil
}

// endSessions ends every connection of user but its own and those in spare, and
// returns when they are gone.
func (c *conn) endSessions(ctx context.Context, user string, spare []uint32) error {
	own, err := c.do("CLIENT", "ID")
	if err != nil {
		return err
	}
	for {
		list, err := c.do("CLIENT", "LIST")
		if err != nil {
			return err
		}
		left := 0
		for line := range strings.SplitSeq(string(list.text), "\n") {
			id, name := "", ""
			for field := range strings.FieldsSeq(line) {
				if v, ok := strings.CutPrefix(field, "id="); ok {
					id = v
				}
				if v, ok := strings.CutPrefix(field, "user="); ok {
					name = v
				}
			}
			n, err := strconv.ParseUint(id, 10, 64)
			if err != nil || name != user || id == string(own.text) || n <= 1<<32-1 && slices.Contains(spare, uint32(n)) {
				continue
			}
			left++
			if _, err := c.do("CLIENT", "KILL", "ID", id); err != nil {
				return err
			}
		}
		if left == 0 {
			return nil
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("%d connections have not ended yet: %w", left, ctx.Err())
		case <-time.After(2 * time.Millisecond):
		}
	}
}

// gone is the answer to taking away a password that the user does not have.
func gone(err error) bool {
	var s *serverError
	return errors.As(err, &s) && s.code == "ERR" && strings.Contains(s.text, "does not exist")
}

// hash is how ACL names the password of a value.
func hash(j rotate.Job, value guard.Secret) (string, error) {
	_, pw, err := rotate.Password(j.Credential, value)
	if err != nil {
		return "", err
	}
	defer pw.Wipe()
	sum := sha256.Sum256(pw.Reveal())
	return hex.EncodeToString(sum[:]), nil
}

func (p Provider) limit(ctx context.Context) (context.Context, context.CancelFunc) {
	if p.Timeout > 0 {
		return context.WithTimeout(ctx, p.Timeout)
	}
	return context.WithTimeout(ctx, 15*time.Second)
}
