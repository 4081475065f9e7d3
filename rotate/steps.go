package rotate

import (
	"context"
	"crypto/subtle"
	"errors"
	"fmt"
	"time"

	"guard"
	"guard/vault"
)

// run is one rotation being worked on, under the credential's lock.
type run struct {
	r   *Runner
	c   guard.Credential
	p   Provider
	rec *record

	options  map[string]string
	schedule Schedule
}

// run takes steps from the recorded one on, until the rotation is done, rolled
// back, or cannot go on. This is the whole order, top to bottom.
func (r *Runner) run(ctx context.Context, rec *record) (Report, error) {
	c, err := r.Vault.Find(rec.From.Context, rec.From.Name)
	if err != nil {
		return rec.report("open"), fmt.Errorf("rotate %s: %w: %w", rec.From.Name, ErrOpen, err)
	}
	p, options, err := r.provider(c)
	if err != nil {
		return rec.report("open"), fmt.Errorf("rotate %s: %w: %w", rec.From.Name, ErrOpen, err)
	}
	x := &run{r: r, c: c, p: p, options: options, rec: rec}
	if x.schedule, err = ParseSchedule(options); err != nil {
		return rec.report("open"), fmt.Errorf("rotate %s: %w: %w", rec.From.Name, ErrOpen, err)
	}
	if !rec.Switched && rec.NewID == "" {
		rec.ID = idOf(options, rec.From, c.Version)
	}
	if rec.To.Version != 0 && !rec.Switched && r.OnCandidate != nil {
		r.OnCandidate(rec.To)
	}
	for {
		if err := ctx.Err(); err != nil {
			return x.stop(ErrOpen, err)
		}
		switch rec.Step {
		case StepQuarantine:
			_ = x.take(StepQuarantine, func() error {
				if r.Quarantine != nil {
					r.Quarantine(rec.From)
				}
				return nil
			})
			rec.Step = StepIntent
		case StepIntent:
			if err := x.take(StepIntent, x.intent); err != nil {
				return x.stop(ErrOpen, err)
			}
			if rec.Step = StepMint; rec.Order == Emergency {
				rec.Step = StepRevoke
			}
		case StepMint:
			if x.stored() {
				rec.Step = StepVerify
				break
			}
			if err := x.take(StepMint, func() error { return x.mint(ctx) }); err != nil {
				if stop := x.settle(ctx, err); stop != nil {
					return x.stop(stop, err)
				}
			}
			rec.Step = StepVerify
		case StepVerify:
			if rec.Hand {
				rec.To = x.c.ID() // a person may have stored another one since
			}
			if err := x.take(StepVerify, func() error { return x.verify(ctx) }); err != nil {
				if stop := x.settle(ctx, err); stop != nil {
					if errors.Is(err, ErrRefused) && !rec.Hand {
						rec.Step = StepMint // made real, then unmade: make it real again
					}
					return x.stop(stop, err)
				}
			}
			rec.Step = StepSwitch
		case StepSwitch:
			if err := x.take(StepSwitch, x.switchOver); err != nil {
				return x.stop(ErrOpen, err)
			}
			rec.Switched, rec.Step = true, StepRevoke
			if rec.Dead {
				rec.Step = StepDone
			} else if x.schedule.Overlap > 0 && rec.Incident == "" {
				// Whoever else has the old value, outside of guard, gets the time to
				// take the new one. A value that leaked is given none.
				rec.Until = time.Now().Add(x.schedule.Overlap).UTC()
			}
		case StepRevoke:
			if rec.Switched && !rec.Emergency && time.Now().Before(rec.Until) {
				if err := r.Journal.save(rec); err != nil {
					return x.stop(ErrOpen, err)
				}
				return rec.report("overlap"), nil
			}
			// That the old value is refused says nothing about its sessions, so a
			// revocation that failed cannot end in "dead".
			revoked := x.take(StepRevoke, func() error { return x.revoke(ctx) })
			limit := or(r.DeadFor, 60*time.Second)
			if !rec.Switched {
				limit /= 6 // a working value is waiting to be made; what is alive then is tried again after it
			}
			if revoked != nil {
				limit = 0
			}
			refused := x.take(StepDead, func() error { return x.dead(ctx, limit) })
			rec.Dead = revoked == nil && refused == nil
			switch err := errors.Join(revoked, refused); {
			case !rec.Switched:
				rec.Step = StepMint
			case rec.Dead:
				rec.Step = StepDone
			default:
				return x.stop(ErrAlive, err)
			}
		case StepDone:
			if err := x.take(StepDone, func() error { return r.Vault.Bury(rec.From) }); err != nil {
				return x.stop(ErrOpen, err)
			}
			return x.close("done", nil)
		case StepRollback:
			if err := x.take(StepRollback, x.rollback); err != nil {
				return x.stop(ErrOpen, err)
			}
			return x.close("rolled back", ErrRolledBack)
		default:
			return x.stop(ErrOpen, fmt.Errorf("the journal names the unknown step %q: it is from a newer guard", rec.Step))
		}
		if err := r.Journal.save(rec); err != nil {
			return x.stop(ErrOpen, err)
		}
	}
}

// take measures one step and notes its result.
func (x *run) take(step string, act func() error) error {
	at := time.Now()
	err := act()
	x.note(step, at, err)
	return err
}

func (x *run) note(step string, at time.Time, err error) {
	s := Step{Step: step, At: at.UTC(), MS: float64(time.Since(at).Microseconds()) / 1000, Result: "ok"}
	if err != nil {
		s.Result = err.Error()
	}
	x.rec.Steps = append(x.rec.Steps, s)
	if x.r.OnStep != nil {
		x.r.OnStep(x.rec.report("open"), s)
	}
}

// stored says whether a person stored the new value meanwhile, and takes it over.
func (x *run) stored() bool {
	if !x.rec.Asked || x.c.Version <= x.rec.From.Version {
		return false
	}
	x.rec.Hand, x.rec.Next = true, nil
	return true
}

// stop leaves the rotation open, or takes the way back that settle found.
func (x *run) stop(why, cause error) (Report, error) {
	var hand *ByHand
	switch {
	case errors.As(cause, &hand) && x.rec.Switched:
		x.rec.Next = append([]string{"see that the old value is gone, at " + hand.Page}, hand.Steps...)
	case hand != nil:
		x.rec.Asked = true
		x.rec.Next = append([]string{"make a new value at " + hand.Page}, hand.Steps...)
		x.rec.Next = append(x.rec.Next, "store it with `guard secret set "+x.rec.From.Name+"`: guard then tries both and goes on")
		if err := x.r.Journal.save(x.rec); err != nil {
			return x.rec.report("open"), fmt.Errorf("rotate %s: %w: %w", x.rec.From.Name, ErrOpen, err)
		}
		return x.rec.report("by hand"), fmt.Errorf("rotate %s: %w", x.rec.From.Name, cause)
	}
	if errors.Is(why, ErrRolledBack) {
		x.rec.Step = StepRollback
		if err := x.r.Journal.save(x.rec); err != nil {
			return x.rec.report("open"), fmt.Errorf("rotate %s: %w: %w", x.rec.From.Name, ErrOpen, err)
		}
		if err := x.take(StepRollback, x.rollback); err != nil {
			return x.stop(ErrOpen, err)
		}
		return x.close("rolled back", fmt.Errorf("%w: %w", why, cause))
	}
	if err := x.r.Journal.save(x.rec); err != nil {
		cause = errors.Join(cause, err)
	}
	return x.rec.report("open"), fmt.Errorf("rotate %s: %w: %w", x.rec.From.Name, why, cause)
}

func (x *run) close(state string, why error) (Report, error) {
	if err := x.r.Journal.remove(x.rec); err != nil {
		return x.rec.report("open"), fmt.Errorf("rotate %s: %w", x.rec.From.Name, err)
	}
	if why != nil {
		why = fmt.Errorf("rotate %s: %w", x.rec.From.Name, why)
	}
	return x.rec.report(state), why
}

func (x *run) intent() error {
	if err := x.clearStrays(); err != nil {
		return err
	}
	chooser, ok := x.p.(Chooser)
	if !ok || x.rec.To.Version != 0 {
		return nil
	}
	return x.with(StepIntent, func(j Job) error {
		v, err := chooser.Choose(j)
		if err != nil {
			return err
		}
		defer v.Wipe()
		return x.seal(j, v)
	})
}

// seal makes v the candidate.
func (x *run) seal(j Job, v guard.Secret) error {
	if same(v, j.Current) {
		return fmt.Errorf("the issuer answered with the old value again: %w", ErrPermanent)
	}
	id, err := x.r.Vault.Propose(x.c.Context, x.c.Name, v)
	if err != nil {
		return err
	}
	old := x.rec.To
	x.rec.To = id
	if x.r.OnCandidate != nil {
		x.r.OnCandidate(id)
	}
	if err := x.r.Journal.save(x.rec); err != nil {
		return err
	}
	if old.Version != 0 && old != id {
		return x.r.Vault.Discard(old)
	}
	return nil
}

func same(a, b guard.Secret) bool {
	return subtle.ConstantTimeCompare(a.Reveal(), b.Reveal()) == 1
}

// clearStrays discards what was sealed for this credential and then not
// recorded, because of a crash between the two.
func (x *run) clearStrays() error {
	all, err := x.r.Vault.Versions(x.c.Context, x.c.Name)
	if err != nil {
		return err
	}
	for _, v := range all {
		id := x.rec.From
		if id.Version = v.Number; v.State != vault.Pending || id == x.rec.To {
			continue
		}
		if err := x.r.Vault.Discard(id); err != nil {
			return err
		}
	}
	return nil
}

func (x *run) mint(ctx context.Context) error {
	err := poll(ctx, or(x.r.VerifyFor, 20*time.Second), func() error {
		return x.with(StepMint, func(j Job) error {
			v, err := x.p.Mint(ctx, j)
			if err != nil {
				return err
			}
			defer v.Wipe()
			if v.Len() > 0 && !same(v, j.Candidate) {
				return x.seal(j, v)
			}
			if x.rec.To.Version == 0 {
				return fmt.Errorf("the provider returned no value: %w", ErrPermanent)
			}
			return nil
		})
	})
	if err != nil {
		return err
	}
	return x.clearStrays()
}

func (x *run) verify(ctx context.Context) error {
	return poll(ctx, or(x.r.VerifyFor, 20*time.Second), func() error {
		return x.with(StepVerify, func(j Job) error { return x.p.Verify(ctx, j, j.Candidate) })
	})
}

// lasts gives a new value the life that the old one had, where the issuer did not
// say how long it lives: what the user wanted to expire goes on doing so.
func (x *run) lasts() error {
	if !x.rec.Expires.IsZero() || x.rec.Hand || x.c.Expires.IsZero() {
		return nil
	}
	old := x.c
	old.Version = x.rec.From.Version
	made, err := x.r.made(old)
	if err != nil {
		return err
	}
	x.rec.Expires = time.Now().Add(x.c.Expires.Sub(made)).UTC().Truncate(time.Second)
	return nil
}

func (x *run) switchOver() error {
	if err := x.r.Vault.Promote(x.rec.To); err != nil {
		return err
	}
	if err := x.lasts(); err != nil {
		return err
	}
	if rec := x.rec; !rec.Expires.IsZero() || rec.NewID != "" || rec.NewUser != "" {
		_, err := x.r.Vault.Edit(rec.From.Context, rec.From.Name, func(c *guard.Credential) error {
			if !rec.Expires.IsZero() {
				c.Expires = rec.Expires
			}
			if rec.NewUser != "" {
				c.User = rec.NewUser
			}
			if rec.NewID != "" && c.Rotate != "" {
				name, options, err := x.r.Providers.Parse(c.Rotate)
				if err != nil {
					return err
				}
				options["id"] = fmt.Sprint(rec.NewID, "#", rec.To.Version)
				c.Rotate = x.r.Providers.Format(name, options)
			}
			return nil
		})
		if err != nil {
			return err
		}
	}
	if x.r.OnSwitch != nil {
		x.r.OnSwitch(x.rec.From, x.rec.To)
	}
	if x.rec.Emergency {
		if x.r.Release != nil {
			x.r.Release(x.rec.To)
		}
		return x.r.Journal.letGo(x.rec.To)
	}
	return nil
}

func (x *run) revoke(ctx context.Context) error {
	return poll(ctx, or(x.r.DeadFor, 60*time.Second), func() error {
		return x.with(StepRevoke, func(j Job) error { return x.p.Revoke(ctx, j) })
	})
}

func (x *run) dead(ctx context.Context, limit time.Duration) error {
	at := time.Now()
	err := poll(ctx, limit, func() error {
		return x.with(StepDead, func(j Job) error { return proof(x.p.Verify(ctx, j, j.Current)) })
	})
	if err != nil {
		return fmt.Errorf("after %.1f s: %w", time.Since(at).Seconds(), err)
	}
	return nil
}

var errAccepted = errors.New("still alive: the issuer accepts the old value")

// proof turns the answer to trying an old value around: only a refusal is good.
func proof(err error) error {
	switch {
	case errors.Is(err, ErrRefused):
		return nil
	case err == nil:
		return errAccepted
	default:
		return fmt.Errorf("not known whether it is dead: %w", err)
	}
}

// settle decides after mint or verify failed, perhaps only because the answer
// was lost. nil: the new value works after all. ErrRolledBack: it is refused
// and the old one works. ErrOpen: neither could be shown.
func (x *run) settle(ctx context.Context, cause error) error {
	var hand *ByHand
	if errors.As(cause, &hand) {
		return ErrOpen
	}
	var candidate, current error = errors.New("there is none"), nil
	err := x.with(StepVerify, func(j Job) error {
		if j.Candidate.Len() > 0 {
			candidate = x.p.Verify(ctx, j, j.Candidate)
		}
		if candidate != nil {
			current = x.p.Verify(ctx, j, j.Current)
		}
		return nil
	})
	switch {
	case err != nil:
		return ErrOpen
	case candidate == nil:
		return nil
	case x.rec.Emergency || current != nil || x.rec.Hand:
		return ErrOpen
	case x.rec.To.Version != 0 && !errors.Is(candidate, ErrRefused):
		return ErrOpen
	case x.rec.Step == StepVerify, final(cause), x.attempts(StepMint) >= 3:
		// After three failures of mint that say nothing, the issuer may have made
		// a value that nobody has seen; it carries this intent's id.
		return ErrRolledBack
	}
	return ErrOpen
}

func (x *run) attempts(step string) int {
	n := 0
	for _, s := range x.rec.Steps {
		if s.Step == step {
			n++
		}
	}
	return n
}

// rollback buries the new value and does not discard it: it was refused when it
// was tried, and if some late act at the issuer makes it real after all, it is
// still here.
func (x *run) rollback() error {
	if x.rec.To.Version == 0 {
		return nil
	}
	return x.r.Vault.Bury(x.rec.To)
}

// final says whether taking the step again at once is no use.
func final(err error) bool {
	var none *notMade
	var later *RetryAfter
	return errors.Is(err, ErrPermanent) || errors.As(err, &none) && !errors.As(err, &later)
}

// poll calls f until it answers nil, or a final failure, or time is up. It
// calls it once at least, and waits longer each time or as long as it is told.
func poll(ctx context.Context, limit time.Duration, f func() error) error {
	end := time.Now().Add(limit)
	pause := 20 * time.Millisecond
	for {
		err := f()
		if err == nil || final(err) {
			return err
		}
		d := pause
		var later *RetryAfter
		if errors.As(err, &later) {
			d = max(d, later.After)
		}
		if time.Now().Add(d).After(end) || wait(ctx, d) != nil {
			return err
		}
		pause = min(pause*8/5, 2*time.Second)
	}
}

func wait(ctx context.Context, d time.Duration) error {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-t.C:
		return nil
	}
}

func or(d, otherwise time.Duration) time.Duration {
	if d > 0 {
		return d
	}
	return otherwise
}
