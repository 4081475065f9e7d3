package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"guard"
	"guard/vault"
	"guard/vault/hashivault"
)

// leaseEnd bounds how long a session's end waits for the store.
const leaseEnd = 20 * time.Second

// tenancy is one token of a session at the store, and what was leased with it. It is in
// GUARD_HOME/leases/ID, sealed, from before the first lease is asked for until all of it
// has ended; ID.lock is held by the guard whose it is, so that one whose lock is free was left
// behind by a crash.
type tenancy struct {
	app     *app
	vault   *vault.Vault
	id      string
	release func()
	tenant  *hashivault.Tenant

	mu    sync.Mutex
	notes []leaseNote
}

// leaseNote is a lease as it is written down.
type leaseNote struct {
	Credential string `json:"credential"`
	Context    string `json:"context"`
	Version    int    `json:"version,omitempty"`
	Lease      string `json:"lease,omitempty"`
	Serial     string `json:"serial,omitempty"`
	Path       string `json:"path"`
	// Until is when it ends by itself, if nobody renews it.
	Until time.Time `json:"until"`
}

// tenancyNote is what a tenancy's file seals.
type tenancyNote struct {
	Session string      `json:"session,omitempty"`
	Host    string      `json:"host"`
	Token   []byte      `json:"token"`
	Own     bool        `json:"own"`
	Leases  []leaseNote `json:"leases,omitempty"`
}

func (a *app) leaseDir() string { return filepath.Join(a.home(), "leases") }

const leaseLock = ".lock"

// newTenancy gets a token of the session's own, and writes it down.
func (a *app) newTenancy(ctx context.Context, v *vault.Vault, st *store, session string) (_ *tenancy, err error) {
	t := &tenancy{app: a, vault: v, id: newSessionID(time.Now())}
	if err := os.MkdirAll(a.leaseDir(), 0o700); err != nil {
		return nil, err
	}
	if t.release, err = vault.TryLock(t.lockPath()); err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			t.forget()
		}
	}()
	if t.tenant, err = st.client.Tenant(ctx); err != nil {
		return nil, err
	}
	if err := t.write(session); err != nil {
		return nil, errors.Join(err, t.tenant.End(ctx))
	}
	return t, nil
}

func (t *tenancy) path() string     { return filepath.Join(t.app.leaseDir(), t.id) }
func (t *tenancy) lockPath() string { return t.path() + leaseLock }

// write makes the file say what there is. Caller holds mu, or is alone.
func (t *tenancy) write(session string) error {
	n := tenancyNote{Session: session, Host: t.tenant.Client.Host(), Own: t.tenant.Own, Leases: t.notes}
	n.Token = slices.Clone(t.tenant.Token.Reveal())
	b, err := json.Marshal(n)
	clear(n.Token)
	if err != nil {
		return err
	}
	defer clear(b)
	box, err := t.vault.Seal("lease", b)
	if err != nil {
		return err
	}
	return writeFile(t.path(), box)
}

// forget removes the file and its lock.
func (t *tenancy) forget() {
	os.Remove(t.path())
	os.Remove(t.lockPath())
	t.release()
}

// take leases, writes the lease down, and only then gives it out.
func (t *tenancy) take(ctx context.Context, session, cname, name string, from vault.Source) (*hashivault.Lease, error) {
	l, err := t.tenant.Lease(ctx, from.Lease, from.Params)
	if err != nil {
		return nil, fmt.Errorf("%s: store: %w", name, err)
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	t.notes = append(t.notes, leaseNote{Credential: name, Context: cname, Lease: l.ID, Serial: l.Serial, Path: l.Path(), Until: time.Now().Add(l.TTL).UTC()})
	if err := t.write(session); err != nil {
		l.Value.Wipe()
		return nil, errors.Join(err, t.tenant.Revoke(ctx, l))
	}
	return l, nil
}

// ended is what became of one lease.
type ended struct {
	leaseNote
	err error
}

// end revokes everything, and forgets what it revoked: of what could not be, the file
// stays for the next guard.
func (t *tenancy) end(ctx context.Context) (out []ended) {
	t.mu.Lock()
	defer t.mu.Unlock()
	all := true
	denied := false
	for _, n := range t.notes {
		err := t.tenant.Revoke(ctx, hashivault.Restore(n.Lease, n.Serial, n.Path))
		if err != nil && time.Now().After(n.Until.Add(time.Minute)) {
			err = nil // it is over by now
		}
		if err != nil && t.tenant.Own && n.Lease != "" && errors.Is(err, hashivault.ErrDenied) {
			denied = true // its token's end will do it
			err = nil
		}
		all = all && err == nil
		out = append(out, ended{n, err})
	}
	if err := t.tenant.End(ctx); err != nil {
		all = false
		for i := range out {
			if denied && out[i].err == nil {
				out[i].err = err
			}
		}
	}
	if all {
		t.forget()
		return out
	}
	t.release()
	return out
}

// openLeases are the tenancies that are written down, of sessions that run and of ones that
// crashed.
func (a *app) openLeases() (ids []string, err error) {
	es, err := os.ReadDir(a.leaseDir())
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	for _, e := range es {
		if !strings.HasSuffix(e.Name(), leaseLock) && !strings.HasPrefix(e.Name(), ".") {
			ids = append(ids, e.Name())
		}
	}
	return ids, err
}

// endLeft ends what guards left behind that are gone. done is told of each lease.
func (a *app) endLeft(ctx context.Context, v *vault.Vault, st *store, done func(session string, e ended)) error {
	ids, err := a.openLeases()
	if err != nil {
		return err
	}
	var errs []error
	for _, id := range ids {
		if err := a.endOne(ctx, v, st, id, done); err != nil {
			errs = append(errs, fmt.Errorf("leases of %s: %w", id, err))
		}
	}
	return errors.Join(errs...)
}

func (a *app) endOne(ctx context.Context, v *vault.Vault, st *store, id string, done func(string, ended)) error {
	t := &tenancy{app: a, vault: v, id: id}
	var err error
	if t.release, err = vault.TryLock(t.lockPath()); errors.Is(err, vault.ErrBusy) {
		return nil // its guard lives
	} else if err != nil {
		return err
	}
	box, err := os.ReadFile(t.path())
	if errors.Is(err, fs.ErrNotExist) {
		os.Remove(t.lockPath())
		t.release()
		return nil // another guard was faster
	}
	var n tenancyNote
	if err == nil {
		var b []byte
		if b, err = v.Unseal("lease", box); err == nil {
			err = json.Unmarshal(b, &n)
			clear(b)
		}
	}
	if err == nil && n.Host != st.client.Host() {
		err = fmt.Errorf("they are of %s, and the store is %s", n.Host, st.client.Host())
	}
	if err != nil {
		t.release()
		return err
	}
	t.tenant, t.notes = st.client.Resume(guard.NewSecret(n.Token), n.Own), n.Leases
	var errs []error
	for _, e := range t.end(ctx) {
		if e.err == nil && e.Version > 0 {
			// Its value, which nobody has any more, is dead.
			_ = v.Drop(guard.SecretID{Context: e.Context, Name: e.Credential, Version: e.Version}, true)
		}
		done(n.Session, e)
		errs = append(errs, e.err)
	}
	return errors.Join(errs...)
}

// tryLease takes a lease and gives it back.
func (a *app) tryLease(ctx context.Context, v *vault.Vault, st *store, from vault.Source) (*hashivault.Lease, error) {
	t, err := a.newTenancy(ctx, v, st, "")
	if err != nil {
		return nil, fmt.Errorf("store: %w", err)
	}
	l, err := t.take(ctx, "", "", "a lease to try", from)
	for _, e := range t.end(ctx) {
		if e.err != nil {
			a.say("the lease that was tried could not be given back, and ends by itself: %v", e.err)
		}
	}
	if err != nil {
		return nil, err
	}
	return l, nil
}
