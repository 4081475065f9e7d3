// Package ssh rotates OpenSSH user keys, and the keys of authorities that sign users'
// certificates, on the hosts that accept them.
//
// # What it does on a host
//
// Everything is done by a login of guard's own and /bin/sh there, in the account's own
// files (sshd(8), AUTHORIZED_KEYS FILE FORMAT):
//
//	choose     a new Ed25519 key pair, with the old one's comment
//	mint       the old key's line in authorized_keys again, with the new key in it: what the
//	           line restricts (from=, command=, ...) it goes on restricting
//	verify     a login with the key, and nothing run; SSH_MSG_USERAUTH_FAILURE is a refusal
//	revoke     with krl=PATH: ssh-keygen -k -u, which adds the old key to the list of revoked ones
//	           (sshd_config(5), RevokedKeys); then the old key's line goes, and the new one
//	           takes its place if it has none; then the sessions end
//
// A file is changed in a copy that takes the old one's place. An administrator's login
// does that as the account itself, not as root: whoever had the key may have made
// authorized_keys a link to anything.
//
// # Sessions
//
// sshd asks for the key at login and never again. The account's sshd processes and all
// that they started are killed, except guard's own connection; what left its session
// before (a daemon) is not found. In an emergency that means every session of the
// account, with whichever key; otherwise those that sshd says another key opened are
// left alone (ExposeAuthInfo yes; without it none is known to be another's).
//
// An intruder's daemon can put the old key back into authorized_keys, which the proof of
// death then finds. A list of revoked keys that root owns is out of its reach: use krl=.
//
// # Authorities
//
// Provider ssh-ca replaces the key that TrustedUserCAKeys names. To revoke it refuses
// every certificate that it ever signed, whatever their serials; to try it, a
// certificate for two minutes is made with it.
//
// # Several hosts
//
// All hosts of the credential are changed at once, side by side. A key is dead when
// every host refused it, and works when every one took it.
package ssh

import (
	"context"
	"errors"
	"fmt"
	"net"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"time"

	xssh "golang.org/x/crypto/ssh"

	"guard"
	"guard/rotate"
)

// Key is the provider of users' keys: a rotate.Provider, Chooser, Checker and
// Describer. Its zero value works.
type Key struct {
	Timeout time.Duration // of one step, default 20 s
}

// CA is the provider of authorities' keys: the same.
type CA struct {
	Timeout time.Duration // of one step, default 20 s
}

var login = []rotate.Option{
	{Key: "admin", About: "ssh-key credential of the same context that logs in to change the account; without it the key itself does"},
	{Key: "host", About: "hosts, joined by +; default: the credential's"},
	{Key: "port", About: "default 22"},
	{Key: "user", About: "account; default: the credential's user"},
	{Key: "known_hosts", About: "file with the hosts' keys; default ~/.ssh/known_hosts and /etc/ssh/ssh_known_hosts"},
	{Key: "krl", About: "file of the host's RevokedKeys, to add the old key to; the login must be able to write it, so it is root's"},
	{Key: "sessions", About: "key: end those of this key alone, also in an emergency (needs ExposeAuthInfo yes); user: end all of the account's, always"},
}

// About describes it.
func (Key) About() rotate.About {
	return rotate.About{
		Name: "ssh",
		Options: append([]rotate.Option{
			{Key: "file", About: "authorized keys on the host; default .ssh/authorized_keys and .ssh/authorized_keys2 of the account. An absolute path is changed as the user who logs in"},
			{Key: "only", About: "yes: no other key belongs there; in an emergency every other line is removed"},
		}, login...),
		Privileges: "a login with a shell: as the account, or with admin= as root; with krl= as root; ps, awk and su on the host",
		Sessions:   "every process of the account's sshd sessions is killed; a graceful rotation leaves those of another key where sshd tells (ExposeAuthInfo)",
		Limits:     "both keys are valid until the old one is revoked; a key that only runs a forced command cannot replace itself; daemons that left their session live on",
		Calls:      []string{"authorized_keys: a line is added, a line is removed", "ssh-keygen -k -u -f KRL", "kill -KILL of the account's sshd processes"},
	}
}

// About describes it.
func (CA) About() rotate.About {
	return rotate.About{
		Name: "ssh-ca",
		Options: append([]rotate.Option{
			{Key: "trusted", About: "file of the host's TrustedUserCAKeys", Must: true},
			{Key: "principal", About: "of the certificate that tries the authority; default: the user"},
		}, login...),
		Privileges: "a login that may write the trusted file, and the list of revoked keys: root; ps and awk on the host",
		Sessions:   "every process of the account's sshd sessions is killed; a graceful rotation leaves those of another authority where sshd tells (ExposeAuthInfo). Other accounts that the authority signed for keep theirs",
		Limits:     "both authorities are trusted until the old one is revoked; its certificates die with it, all at once",
		Calls:      []string{"the TrustedUserCAKeys file: a line is added, a line is removed", "ssh-keygen -k -u -f KRL", "kill -KILL of the account's sshd processes"},
	}
}

// Choose makes a new key pair.
func (Key) Choose(j rotate.Job) (guard.Secret, error) { return choose(j) }

// Choose makes a new key pair.
func (CA) Choose(j rotate.Job) (guard.Secret, error) { return choose(j) }

// Check logs in as who would do it, and looks for the old key's line.
func (p Key) Check(ctx context.Context, j rotate.Job) error {
	return limit(ctx, p.Timeout, j, false, (*work).check)
}

// Check logs in as who would do it, and looks for the old authority's line.
func (p CA) Check(ctx context.Context, j rotate.Job) error {
	return limit(ctx, p.Timeout, j, true, (*work).check)
}

// Mint adds the new key.
func (p Key) Mint(ctx context.Context, j rotate.Job) (guard.Secret, error) {
	return guard.Secret{}, rotate.NotMade(limit(ctx, p.Timeout, j, false, (*work).mint))
}

// Mint adds the new authority.
func (p CA) Mint(ctx context.Context, j rotate.Job) (guard.Secret, error) {
	return guard.Secret{}, rotate.NotMade(limit(ctx, p.Timeout, j, true, (*work).mint))
}

// Verify logs in.
func (p Key) Verify(ctx context.Context, j rotate.Job, value guard.Secret) error {
	return limit(ctx, p.Timeout, j, false, func(w *work, ctx context.Context) error { return w.verify(ctx, value) })
}

// Verify logs in with a certificate that the authority signs.
func (p CA) Verify(ctx context.Context, j rotate.Job, value guard.Secret) error {
	return limit(ctx, p.Timeout, j, true, func(w *work, ctx context.Context) error { return w.verify(ctx, value) })
}

// Revoke takes the old key away and ends its sessions.
func (p Key) Revoke(ctx context.Context, j rotate.Job) error {
	return limit(ctx, p.Timeout, j, false, (*work).revoke)
}

// Revoke takes the old authority away and ends its sessions.
func (p CA) Revoke(ctx context.Context, j rotate.Job) error {
	return limit(ctx, p.Timeout, j, true, (*work).revoke)
}

// work is one step.
type work struct {
	j     rotate.Job
	ca    bool
	user  string
	hosts []host
}

type host struct{ name, port string }

func (h host) String() string { return net.JoinHostPort(h.name, h.port) }

func limit(ctx context.Context, d time.Duration, j rotate.Job, ca bool, f func(*work, context.Context) error) error {
	if d <= 0 {
		d = 20 * time.Second
	}
	ctx, cancel := context.WithTimeout(ctx, d)
	defer cancel()
	w, err := newWork(j, ca)
	if err != nil {
		return err
	}
	return f(w, ctx)
}

// account is what goes into a shell's text: no quoting is needed for it.
var account = regexp.MustCompile(`^[A-Za-z0-9_][A-Za-z0-9_.-]*$`)

// path is the same.
var path = regexp.MustCompile(`^[A-Za-z0-9_./@+-]+$`)

func newWork(j rotate.Job, ca bool) (*work, error) {
	w := &work{j: j, ca: ca, user: j.Options["user"]}
	if w.user == "" {
		w.user = j.Credential.User
	}
	if !account.MatchString(w.user) {
		return nil, fmt.Errorf("which account does %s log in to? add user=... to its rotate option: %w", j.Credential.Name, rotate.ErrPermanent)
	}
	for _, key := range []string{"file", "krl", "trusted"} {
		if v := j.Options[key]; v != "" && (!path.MatchString(v) || key != "file" && v[0] != '/') {
			return nil, fmt.Errorf("option %s of %s's rotate option wants a path of letters, digits and ./@+_-, and krl and trusted a full one: %w", key, j.Credential.Name, rotate.ErrPermanent)
		}
	}
	switch j.Options["sessions"] {
	case "", "key", "user":
	default:
		return nil, fmt.Errorf("option sessions of %s's rotate option wants key or user: %w", j.Credential.Name, rotate.ErrPermanent)
	}
	names := j.Credential.Hosts
	if o := j.Options["host"]; o != "" {
		names = strings.Split(o, "+")
	}
	for _, n := range names {
		h := host{n, j.Options["port"]}
		if name, port, err := net.SplitHostPort(n); err == nil {
			if h.name = name; h.port == "" {
				h.port = port
			}
		}
		if h.port == "" {
			h.port = "22"
		}
		if _, err := strconv.ParseUint(h.port, 10, 16); err != nil || h.name == "" || strings.Contains(h.name, "*") {
			return nil, fmt.Errorf("which hosts take %s? name each in host=... of its rotate option, joined by +: %w", j.Credential.Name, rotate.ErrPermanent)
		}
		w.hosts = append(w.hosts, h)
	}
	if len(w.hosts) == 0 {
		return nil, fmt.Errorf("which hosts take %s? add host=... to its rotate option: %w", j.Credential.Name, rotate.ErrPermanent)
	}
	return w, nil
}

// each calls f for every host, side by side, and waits for all.
func (w *work) each(f func(i int, h host) error) error {
	errs := make([]error, len(w.hosts))
	var wg sync.WaitGroup
	for i, h := range w.hosts {
		wg.Go(func() {
			if err := f(i, h); err != nil {
				errs[i] = fmt.Errorf("%s: %w", h.name, err)
			}
		})
	}
	wg.Wait()
	return errors.Join(errs...)
}

func (w *work) check(ctx context.Context) error {
	return w.each(func(_ int, h host) error {
		c, err := w.manage(ctx, h)
		if err != nil {
			return err
		}
		defer c.Close()
		return w.edit(c, "check")
	})
}

func (w *work) mint(ctx context.Context) error {
	return w.each(func(_ int, h host) error {
		c, err := w.manage(ctx, h)
		if err != nil {
			return err
		}
		defer c.Close()
		return w.edit(c, "add")
	})
}

// verify tries value on every host. Where they differ, an old value is alive, and of a
// new one it is not known.
func (w *work) verify(ctx context.Context, value guard.Secret) error {
	k, err := parse(value)
	if err != nil {
		return err
	}
	taken, refused := make([]bool, len(w.hosts)), make([]bool, len(w.hosts))
	err = w.each(func(i int, h host) error {
		c, err := w.connect(ctx, h, w.user, k, w.ca)
		if err == nil {
			taken[i] = true
			return c.Close()
		}
		if errors.Is(err, rotate.ErrRefused) {
			refused[i] = true
			return nil
		}
		return err
	})
	n, no := count(taken), count(refused)
	switch {
	case n == len(w.hosts) || n > 0 && w.j.Step == rotate.StepDead:
		return nil
	case no == len(w.hosts):
		return fmt.Errorf("no host takes it: %w", rotate.ErrRefused)
	case err != nil:
		return err
	}
	return fmt.Errorf("%d of %d hosts take it", n, len(w.hosts))
}

func count(bs []bool) (n int) {
	for _, b := range bs {
		if b {
			n++
		}
	}
	return n
}

func (w *work) revoke(ctx context.Context) error {
	conns := make([]*client, len(w.hosts))
	defer func() {
		for _, c := range conns {
			if c != nil {
				c.Close()
			}
		}
	}()
	// One host that is down must not keep the others' sessions alive.
	err := w.each(func(i int, h host) error {
		c, err := w.manage(ctx, h)
		if err != nil {
			return err
		}
		if err := w.block(c); err != nil {
			c.Close()
			return err
		}
		conns[i] = c
		return nil
	})
	if err == nil {
		w.j.Mark(rotate.PartRevoked)
	}
	err = errors.Join(err, w.each(func(i int, h host) error {
		if conns[i] == nil {
			return nil
		}
		return w.end(conns[i])
	}))
	if err == nil {
		w.j.Mark(rotate.PartSessions)
	}
	return err
}

// manage logs in as who changes the account.
func (w *work) manage(ctx context.Context, h host) (*client, error) {
	j := w.j
	name := j.Options["admin"]
	if name != "" && name != j.Credential.Name {
		value, cr, err := j.Admin(name)
		if err != nil {
			return nil, fmt.Errorf("admin credential %s: %w", name, err)
		}
		defer value.Wipe()
		k, err := parse(value)
		if err == nil && !account.MatchString(cr.User) {
			err = fmt.Errorf("it names no user: %w", rotate.ErrPermanent)
		}
		if err != nil {
			return nil, fmt.Errorf("admin credential %s: %w", name, err)
		}
		c, err := w.connect(ctx, h, cr.User, k, false)
		if err != nil {
			return nil, fmt.Errorf("log in with admin credential %s: %w", name, err)
		}
		return c, nil
	}
	var c *client
	err := errors.New("there is no key")
	// The new one first: the old one's sessions are about to end.
	for _, v := range []guard.Secret{j.Candidate, j.Current} {
		if v.Len() == 0 {
			continue
		}
		var k xssh.Signer
		if k, err = parse(v); err != nil {
			return nil, err
		}
		if c, err = w.connect(ctx, h, w.user, k, w.ca); !errors.Is(err, rotate.ErrRefused) {
			break
		}
	}
	if err != nil {
		return nil, fmt.Errorf("log in as %s to change its keys: %w", w.user, err)
	}
	return c, nil
}
