package main

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"guard"
	"guard/audit"
	"guard/vault"
	"guard/vault/hashivault"
)

// Of a session's credentials, those that it may use and whose values are in the team's
// store are fetched once, at its start, and those that are leases are taken, renewed
// while it lasts, and revoked at its end. Values are in locked memory alone.

// renewAfter is which part of a lease's time may pass before it is renewed.
const renewAfter = 0.5

// renewAgain is how soon a renewal that failed is tried again, at most.
const renewAgain = 15 * time.Second

// tenants are a session's tenancies, the last of them the one that leases are taken with.
type tenants struct {
	s       *session
	store   *store
	sources map[string]vault.Source // of what is leased
	cancel  context.CancelFunc
	done    chan struct{} // nil: nothing is renewed

	once sync.Once
	leak sync.Mutex
	mu   sync.Mutex
	all  []*tenancy
	live []*lent
}

// lent is a lease that the session holds.
type lent struct {
	id    guard.SecretID
	lease *hashivault.Lease
	in    *tenancy
	ttl   time.Duration // as it was at first
	until time.Time
	told  bool
	// tenants.mu guards these.
	spent bool   // a newer one has taken its place
	gone  string // it leaked: what was done about that
}

// openStore fetches and leases what the session may use.
func (s *session) openStore() error {
	left, err := s.app.openLeases()
	if err != nil {
		return err
	}
	sources, err := s.vault.Sources(s.info.Context)
	if err != nil {
		return err
	}
	for name := range sources {
		if !s.flags.allows(name) {
			delete(sources, name)
		}
	}
	if len(sources) == 0 && len(left) == 0 {
		return nil
	}
	ctx, cancel := context.WithTimeout(context.Background(), storeWait)
	defer cancel()
	st, err := s.app.openStore(ctx, s.vault)
	if err == nil && len(left) > 0 {
		if lerr := s.app.endLeft(ctx, s.vault, st, s.recordLeft); lerr != nil {
			s.app.say("leases that a guard left behind are not ended yet: %v", lerr)
		}
	}
	if len(sources) == 0 {
		if err != nil {
			s.app.say("leases that a guard left behind are not ended yet: %v", err)
			return nil
		}
		st.close()
		return nil
	}
	if err != nil {
		return err
	}
	if _, err := st.client.RenewSelf(ctx); errors.Is(err, hashivault.ErrDenied) { // anything else: it cannot be renewed
		if _, err := st.client.Whoami(ctx); errors.Is(err, hashivault.ErrDenied) {
			st.close()
			return fmt.Errorf("store: guard's own token is not good any more: guard vault store URL takes a new one: %w", err)
		}
	}
	t := &tenants{s: s, store: st, sources: map[string]vault.Source{}}
	s.tenants = t
	s.closers = append(s.closers, t.close) // where the session does not come to startStore
	for name, from := range sources {
		if from.Lease != "" {
			t.sources[name] = from
			continue
		}
		if err := st.hold(ctx, s.vault, s.info.Context, name, from); err != nil {
			return err
		}
		r := s.record("store.fetch")
		r.Credential, r.Host, r.Resource, r.Result = name, st.client.Host(), from.Path, "held"
		if err := s.noteStore(r); err != nil {
			return err
		}
	}
	if len(t.sources) > 0 {
		return t.begin(ctx)
	}
	return nil
}

// noteStore records what was done with the store: later, where the log is not open yet.
func (s *session) noteStore(r audit.Record) error {
	if s.conceal == nil {
		r.Time = time.Now()
		s.storeNotes = append(s.storeNotes, r)
		return nil
	}
	_, err := s.append(r)
	return err
}

// startStore records what openStore did, and renews leases from then on.
func (s *session) startStore() error {
	for _, r := range s.storeNotes {
		if _, err := s.append(r); err != nil {
			return err
		}
	}
	s.storeNotes = nil
	if s.tenants != nil {
		s.closers = append(s.closers, s.tenants.close) // while the log is open
	}
	if t := s.tenants; t != nil && len(t.sources) > 0 {
		var ctx context.Context
		ctx, t.cancel = context.WithCancel(context.Background())
		t.done = make(chan struct{})
		go t.run(ctx)
	}
	return nil
}

// leases says whether a credential is one that was leased.
func (t *tenants) leases(name string) bool {
	if t == nil {
		return false
	}
	_, ok := t.sources[name]
	return ok
}

// begin opens a tenancy and takes every lease with it.
func (t *tenants) begin(ctx context.Context) error {
	in, err := t.s.app.newTenancy(ctx, t.s.vault, t.store, t.s.info.ID)
	if err != nil {
		return fmt.Errorf("store: %w", err)
	}
	t.mu.Lock()
	t.all = append(t.all, in)
	t.mu.Unlock()
	if !in.tenant.Own {
		t.s.app.say("the store grants the session no token of its own: leases are ended one by one, which needs update on sys/leases/revoke, and one that a crash leaves behind before it was written down ends by itself")
	}
	for name, from := range t.sources {
		if err := t.take(ctx, in, name, from); err != nil {
			return err
		}
	}
	return nil
}

// take takes one lease, holds its value, and has it take the place of the one before.
func (t *tenants) take(ctx context.Context, in *tenancy, name string, from vault.Source) error {
	s := t.s
	l, err := in.take(ctx, s.info.ID, s.info.Context, name, from)
	if err != nil {
		return err
	}
	defer l.Value.Wipe()
	until := time.Now().Add(l.TTL)
	held := vault.Held{User: l.User}
	if !l.Renewable {
		held.Expires = until.UTC().Truncate(time.Second)
	}
	id, err := s.vault.Hold(s.info.Context, name, l.Value, held)
	if err != nil {
		return err
	}
	in.number(s.info.ID, l, id.Version)
	t.mu.Lock()
	for _, o := range t.live {
		if o.id.Name == name {
			o.spent = true
		}
	}
	t.live = append(t.live, &lent{id: id, lease: l, in: in, ttl: l.TTL, until: until})
	t.mu.Unlock()
	r := s.record("lease.take")
	r.Credential, r.Version, r.Host, r.Resource, r.Result = name, id.Version, t.store.client.Host(), from.Lease, "until "+until.UTC().Format(time.RFC3339)
	return s.noteStore(r)
}

// number adds a version's number to what is written down of a lease.
func (t *tenancy) number(session string, l *hashivault.Lease, version int) {
	t.mu.Lock()
	defer t.mu.Unlock()
	for i := range t.notes {
		if t.notes[i].Lease == l.ID && t.notes[i].Serial == l.Serial {
			t.notes[i].Version = version
		}
	}
	_ = t.write(session) // the lease itself is written down: this is for the version's state alone
}

// extend writes down that a lease lasts longer.
func (t *tenancy) extend(session string, l *hashivault.Lease, until time.Time) {
	t.mu.Lock()
	defer t.mu.Unlock()
	for i := range t.notes {
		if t.notes[i].Lease == l.ID && t.notes[i].Serial == l.Serial {
			t.notes[i].Until = until.UTC()
		}
	}
	_ = t.write(session)
}

// run renews until ctx ends.
func (t *tenants) run(ctx context.Context) {
	defer close(t.done)
	t.mu.Lock()
	cur := t.all[len(t.all)-1]
	t.mu.Unlock()
	first := cur.tenant.TTL // of the token
	token, ends := dueIn(first), time.Now().Add(first)
	leases := map[*lent]time.Time{}
	for {
		t.mu.Lock()
		live := append([]*lent(nil), t.live...)
		if last := t.all[len(t.all)-1]; last != cur { // another one took its place
			cur, first = last, last.tenant.TTL
			token, ends = dueIn(first), time.Now().Add(first)
		}
		t.mu.Unlock()
		next := token
		for _, l := range live {
			at, ok := leases[l]
			if !ok {
				at = dueIn(l.ttl)
				leases[l] = at
			}
			if next.IsZero() || !at.IsZero() && at.Before(next) {
				next = at
			}
		}
		if next.IsZero() {
			next = time.Now().Add(time.Hour)
		}
		timer := time.NewTimer(max(time.Until(next), 10*time.Millisecond))
		select {
		case <-ctx.Done():
			timer.Stop()
			return
		case <-timer.C:
		}
		now := time.Now()
		if !token.IsZero() && !now.Before(token) {
			ttl, err := cur.tenant.RenewSelf(ctx)
			if ctx.Err() != nil {
				return
			}
			if err == nil {
				ends = time.Now().Add(ttl)
			}
			left := time.Until(ends)
			switch {
			case err == nil && ttl >= first*3/4:
				token = dueIn(ttl)
			case err != nil && !errors.Is(err, hashivault.ErrDenied) && left > first/4:
				t.s.app.say("the session's token at the store could not be renewed, and is tried again: %v", err)
				token = now.Add(min(renewAgain, left/4))
			default: // it comes to the end of its time, and all that was leased with it
				if err := t.again(ctx); err != nil && ctx.Err() == nil {
					t.s.app.say("the session's leases come to their end and could not be taken anew: %v", err)
					token = now.Add(min(renewAgain, max(left/4, time.Second)))
				}
			}
		}
		for _, l := range live {
			if at := leases[l]; !at.IsZero() && !now.Before(at) {
				leases[l] = t.renew(ctx, l, now)
			}
			if leases[l].IsZero() {
				delete(leases, l)
			}
		}
	}
}

// dueIn is when something that lasts for ttl is to be renewed; zero: never.
func dueIn(ttl time.Duration) time.Time {
	if ttl <= 0 {
		return time.Time{}
	}
	return time.Now().Add(time.Duration(float64(ttl) * renewAfter))
}

// renew renews one lease, or has a new one take its place; it says when to come back.
func (t *tenants) renew(ctx context.Context, l *lent, now time.Time) time.Time {
	s := t.s
	t.mu.Lock()
	spent := l.spent
	t.mu.Unlock()
	if spent {
		if now.Before(l.until) {
			return l.until
		}
		t.over(l)
		return time.Time{}
	}
	var ttl time.Duration
	err := vault.ErrNotFound
	if l.lease.Renewable && l.lease.ID != "" {
		ttl, err = l.in.tenant.Renew(ctx, l.lease.ID)
	}
	if ctx.Err() != nil {
		return now.Add(time.Hour)
	}
	if err == nil {
		l.until = time.Now().Add(ttl)
		l.in.extend(s.info.ID, l.lease, l.until)
		if ttl >= l.ttl*3/4 {
			return dueIn(ttl)
		}
	}
	if err != nil && !errors.Is(err, vault.ErrNotFound) && !errors.Is(err, hashivault.ErrDenied) {
		if !l.told {
			s.app.say("the lease of %s could not be renewed, and is tried again until it ends at %s: %v", l.id.Name, l.until.Local().Format(time.TimeOnly), err)
			l.told = true
		}
		return now.Add(min(renewAgain, max(time.Until(l.until)/4, time.Second)))
	}
	// Its longest time is near: another one takes its place. It stays good, for what is
	// logged in with it, until it ends.
	if err := t.take(ctx, l.in, l.id.Name, t.sources[l.id.Name]); err != nil {
		if ctx.Err() == nil {
			s.app.say("the lease of %s comes to its end, and no new one could be taken: %v", l.id.Name, err)
		}
		return now.Add(renewAgain)
	}
	s.refresh()
	s.app.say("%s got a new value: its lease came to the end of its time", l.id.Name)
	return l.until
}

// over forgets a lease that ended by itself.
func (t *tenants) over(l *lent) {
	if err := t.s.vault.Drop(l.id, true); err == nil {
		t.s.refresh()
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	for i, o := range t.live {
		if o == l {
			t.live = append(t.live[:i:i], t.live[i+1:]...)
			return
		}
	}
}

// leaked ends a lease whose value leaked, has a new one take its place, and says so in a
// sentence; "": it is no lease. A second time it says the same.
func (t *tenants) leaked(id guard.SecretID) string {
	if t == nil {
		return ""
	}
	t.leak.Lock() // one at a time
	defer t.leak.Unlock()
	t.mu.Lock()
	i := slices.IndexFunc(t.live, func(l *lent) bool { return l.id == id })
	if i < 0 {
		t.mu.Unlock()
		return ""
	}
	l := t.live[i]
	gone, spent := l.gone, l.spent
	t.mu.Unlock()
	if gone != "" {
		return gone
	}
	ctx, cancel := context.WithTimeout(context.Background(), storeWait)
	defer cancel()
	var err error
	if !spent {
		err = t.take(ctx, l.in, id.Name, t.sources[id.Name])
	}
	t.s.refresh() // logins are with the new one from here on
	rerr := l.in.tenant.Revoke(ctx, l.lease)
	if errors.Is(rerr, hashivault.ErrDenied) && l.in.tenant.Own {
		// It may end its token, and all of its leases with that.
		if err = t.again(ctx); err == nil {
			rerr = l.in.tenant.End(ctx)
		}
	}
	r := t.s.record("lease.revoke")
	r.Credential, r.Version, r.Resource, r.Result, r.Reason = id.Name, id.Version, l.lease.Path(), "revoked", "a leak"
	said := "its lease was revoked, and the session goes on with a new one: nothing is left to do"
	if err != nil {
		said = "its lease was revoked, and no new one could be taken: " + err.Error()
	}
	if rerr != nil {
		r.Result, said = "failed", "its lease could not be revoked: "+rerr.Error()
	}
	if aerr := t.s.noteStore(r); aerr != nil {
		t.s.app.say("the end of a lease could not be recorded: %v", aerr)
	}
	t.s.app.say("%s leaked: %s", id.Name, said)
	if rerr != nil {
		return "revoke it at the store: " + said
	}
	t.mu.Lock()
	l.gone, l.spent = said, true
	t.mu.Unlock()
	return said
}

// again leases everything anew with a new token.
func (t *tenants) again(ctx context.Context) error {
	if err := t.store.client.Login(ctx); err != nil {
		return err
	}
	if err := t.begin(ctx); err != nil {
		return err
	}
	t.s.refresh()
	return nil
}

// close ends what was leased, once.
func (t *tenants) close() { t.once.Do(t.end) }

func (t *tenants) end() {
	if t.done != nil {
		t.cancel()
		<-t.done
	}
	ctx, cancel := context.WithTimeout(context.Background(), leaseEnd)
	defer cancel()
	for _, in := range t.all {
		for _, e := range in.end(ctx) {
			t.s.recordEnded(t.s.info.ID, e)
			if e.err != nil {
				t.s.app.say("the lease of %s could not be ended, which the next guard run tries again: %v", e.Credential, e.err)
			}
		}
	}
	for _, l := range t.live {
		_ = t.s.vault.Drop(l.id, true) // also in a vault that is locked: the value is wiped
	}
	t.store.close()
	if len(t.all) > 0 && t.done != nil {
		if err := t.s.app.keepHead(t.s.vault, t.s.log); err != nil && !t.s.vault.Locked() {
			t.s.app.say("how far the log is could not be kept: %v", err)
		}
	}
}

func (s *session) recordEnded(session string, e ended) {
	r := s.record("lease.revoke")
	r.Session, r.Credential, r.Context, r.Version, r.Resource, r.Result = session, e.Credential, e.Context, e.Version, e.Path, "revoked"
	if e.err != nil {
		r.Result, r.Reason = "failed", e.err.Error()
	}
	if err := s.noteStore(r); err != nil {
		s.app.say("the end of a lease could not be recorded: %v", err)
	}
}

// recordLeft is for leases of guards that are gone.
func (s *session) recordLeft(session string, e ended) {
	s.recordEnded(session, e)
	if e.err == nil && e.Credential != "" {
		s.app.say("ended a lease of %s that session %s left behind", e.Credential, session)
	}
}
