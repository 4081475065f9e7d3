package rotate

import (
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"slices"
	"time"

	"guard"
	"guard/vault"
)

// Need is a credential that is to be replaced without anybody asking.
type Need struct {
	ID     guard.SecretID // the current version
	At     time.Time      // when it fell due
	Reason string         // for the log
}

// Moment is something that happened to a session, which a schedule may name.
type Moment uint8

const (
	Passing Moment = iota // time went by
	Start                 // a session starts
	End                   // one ended
	Killed                // one was ended because of a leak, or died
)

// Due lists the credentials of a context that their schedule wants replaced now,
// the longest overdue first, and when the next one falls due (zero: none is
// known to). used says how often a version was used; nil: that is not known, and
// no schedule that counts uses is followed. Credentials whose rotation is under
// way are left out: Resume goes on with those. Credentials are due a tenth of their
// time earlier or later, always the same for a version, so that what was stored
// together is not replaced together.
func (r *Runner) Due(context string, m Moment, now time.Time, used func(guard.SecretID) int) (due []Need, next time.Time, err error) {
	cs, err := r.Vault.List(context)
	if err != nil {
		return nil, next, err
	}
	open, err := r.Journal.open()
	if err != nil {
		return nil, next, err
	}
	var errs []error
	for _, c := range cs {
		if c.Decoy || slices.ContainsFunc(open, func(o *record) bool { return o.From.Context == c.Context && o.From.Name == c.Name }) {
			continue
		}
		_, options, err := r.provider(c)
		if errors.Is(err, ErrNoProvider) {
			continue
		}
		if err != nil {
			errs = append(errs, fmt.Errorf("%s: %w", c.Name, err))
			continue
		}
		s, err := ParseSchedule(options)
		if err != nil {
			errs = append(errs, fmt.Errorf("%s: %w", c.Name, err))
			continue
		}
		made, err := r.made(c)
		if err != nil {
			errs = append(errs, err)
			continue
		}
		if n := need(c, s, m, made, now, used); !n.At.IsZero() {
			if !n.At.After(now) {
				due = append(due, n)
			} else if next.IsZero() || n.At.Before(next) {
				next = n.At
			}
		}
	}
	slices.SortStableFunc(due, func(a, b Need) int { return a.At.Compare(b.At) })
	return due, next, errors.Join(errs...)
}

// made is when the current version was stored.
func (r *Runner) made(c guard.Credential) (time.Time, error) {
	vs, err := r.Vault.Versions(c.Context, c.Name)
	if err != nil {
		return time.Time{}, err
	}
	i := slices.IndexFunc(vs, func(v vault.Version) bool { return v.Number == c.Version })
	if i < 0 {
		return time.Time{}, fmt.Errorf("%s has no current version", c.Name)
	}
	return vs[i].Created, nil
}

// need says when c falls due and why. A zero At: not by anything that is known.
func need(c guard.Credential, s Schedule, m Moment, made, now time.Time, used func(guard.SecretID) int) Need {
	n := Need{ID: c.ID()}
	take := func(at time.Time, format string, args ...any) {
		if n.At.IsZero() || at.Before(n.At) {
			n.At, n.Reason = at, fmt.Sprintf(format, args...)
		}
	}
	switch {
	case m == Start && s.Start:
		take(now, "a session starts")
	case m == End && s.End:
		take(now, "a session ended")
	case m == Killed && (s.Killed || s.End):
		take(now, "a session that had it was ended")
	}
	if s.Uses > 0 && used != nil {
		if u := used(c.ID()); u >= s.Uses {
			take(now, "used %d times", u)
		}
	}
	if s.Every > 0 {
		take(made.Add(scatter(c.ID(), s.Every)), "every %v", s.Every)
	}
	if !c.Expires.IsZero() && (s.Every > 0 || s.Before > 0 || s.Uses > 0 || s.Start || s.End || s.Killed || c.Rotate != "") {
		life := c.Expires.Sub(made)
		before := min(s.Before, life*9/10) // else a new value would be due at once
		if before == 0 {
			before = life / 10
		}
		// Never later than the wish: being early does no harm, expiry does.
		take(c.Expires.Add(-before-early(c.ID(), before)), "it expires at %s", c.Expires.UTC().Format(time.RFC3339))
	}
	return n
}

// share is a number from 0 to 1 that belongs to one version.
func share(id guard.SecretID) float64 {
	sum := sha256.Sum256([]byte(id.String()))
	return float64(binary.BigEndian.Uint32(sum[:4])) / (1 << 32)
}

// scatter moves d by up to a tenth of it, to either side.
func scatter(id guard.SecretID, d time.Duration) time.Duration {
	return d + time.Duration((share(id)-0.5)*0.2*float64(d))
}

// early is up to a tenth of d.
func early(id guard.SecretID, d time.Duration) time.Duration {
	return time.Duration(share(id) * 0.1 * float64(d))
}
