package rotate

import (
	"context"
	"errors"
	"fmt"
	"time"

	"guard"
	"guard/vault"
)

// ErrPermanent marks a provider's failure that no waiting repairs: a missing
// privilege, a changed program.
var ErrPermanent = errors.New("someone must act")

// Runner replaces credentials. Vault, Providers and Journal are needed; the rest may be zero. Its methods may be called by many goroutines.
type Runner struct {
	Vault     *vault.Vault
	Providers Providers
	Journal   *Journal

	// Quarantine makes the broker refuse this version and earlier ones at once;
	// Release lifts that, for a newer version.
	Quarantine, Release func(guard.SecretID)
	// OnCandidate tells that a new value exists, before the issuer knows it, so
	// that the session's matcher looks for it too.
	OnCandidate func(guard.SecretID)
	// OnSwitch tells that new took old's place in the vault.
	OnSwitch func(old, new guard.SecretID)
	// OnStep tells of each step that was taken, for the audit log.
	OnStep func(Report, Step)
	// Spare lists the backend process ids of a credential's live connections.
	Spare func(context, name string) []uint32

	// Default is the spec of a credential that names none; nil, or "": it has none.
	Default func(guard.Credential) string

	// VerifyFor is how long to wait for the issuer to take a new value (default
	// 20 s), DeadFor for it to refuse the old one (default 60 s).
	VerifyFor, DeadFor time.Duration
}

// Rotate replaces the current version of a credential. If a rotation of it was
// left open, that one is finished instead. The error Is ErrRolledBack, ErrOpen
// or ErrAlive where the report's state says so.
func (r *Runner) Rotate(ctx context.Context, context, name string, m Mode, reason string) (Report, error) {
	return r.Replace(ctx, guard.SecretID{Context: context, Name: name}, m, reason, "")
}

// Replace is Rotate for one version, 0 being the current one. A version that
// was replaced before is tried, and revoked if it is still accepted. incident
// is remembered for Resume.
func (r *Runner) Replace(ctx context.Context, id guard.SecretID, m Mode, reason, incident string) (Report, error) {
	c, err := r.Vault.Find(id.Context, id.Name)
	if err != nil {
		return Report{}, fmt.Errorf("rotate %s: %w", id.Name, err)
	}
	id.Context = c.Context
	asked := id.Version
	if id.Version == 0 {
		id.Version = c.Version
	}
	if m == Emergency {
		if r.Quarantine != nil {
			r.Quarantine(id) // before anything that can wait
		}
		if err := r.Journal.Hold(id); err != nil {
			return Report{}, fmt.Errorf("rotate %s: %w", id.Name, err)
		}
	}
	if _, _, err := r.provider(c); err != nil {
		return Report{}, fmt.Errorf("rotate %s: %w", id.Name, err)
	}
	unlock, err := r.Journal.lock(ctx, id.Context, id.Name)
	if err != nil {
		return Report{}, err
	}
	defer unlock()
	if m == Emergency { // the rotation before may just have let go of it
		if err := r.Journal.Hold(id); err != nil {
			return Report{}, fmt.Errorf("rotate %s: %w", id.Name, err)
		}
	}

	rec, err := r.Journal.of(id.Context, id.Name)
	if err != nil {
		return Report{}, err
	}
	if rec != nil {
		escalate(rec, m)
		if rec.Incident == "" {
			rec.Incident = incident
		}
		if err := r.Journal.save(rec); err != nil {
			return Report{}, err
		}
		rep, err := r.run(ctx, rec)
		if err != nil || asked == 0 || asked <= rec.From.Version {
			return rep, err
		}
	}
	if c, err = r.Vault.Find(id.Context, id.Name); err != nil {
		return Report{}, fmt.Errorf("rotate %s: %w", id.Name, err)
	}
	rec = &record{
		Intent: newIntent(), From: id, Order: m, Emergency: m == Emergency, Reason: reason, Incident: incident,
		Step: StepIntent, Started: time.Now().UTC(),
	}
	switch {
	case asked == 0:
		rec.From = c.ID()
	case asked != c.Version:
		// An earlier version: there is a new one already, only its end is open.
		rec.To, rec.Switched, rec.Step = c.ID(), true, StepRevoke
		if rep, dead := r.alreadyDead(ctx, rec, c); dead {
			return rep, r.Journal.letGo(c.ID())
		}
	}
	if m == Emergency && rec.Step == StepIntent {
		rec.Step = StepQuarantine
	}
	if err := r.Journal.save(rec); err != nil {
		return rec.report("open"), err
	}
	return r.run(ctx, rec)
}

// Resume goes on with every rotation that was left open and that no other guard
// is working on. The errors are joined; a report is there for each.
func (r *Runner) Resume(ctx context.Context) ([]Report, error) {
	open, err := r.Journal.open()
	if err != nil {
		return nil, err
	}
	var reports []Report
	var errs []error
	for _, o := range open {
		rep, err := r.resume(ctx, o)
		if errors.Is(err, errBusy) {
			continue
		}
		if rep.Intent != "" {
			reports = append(reports, rep)
		}
		if err != nil {
			errs = append(errs, err)
		}
	}
	return reports, errors.Join(errs...)
}

var errBusy = errors.New("another guard is at it")

func (r *Runner) resume(ctx context.Context, o *record) (Report, error) {
	once, cancel := context.WithTimeout(ctx, 3*lockPoll)
	defer cancel()
	unlock, err := r.Journal.lock(once, o.From.Context, o.From.Name)
	if err != nil {
		if once.Err() != nil && ctx.Err() == nil {
			return Report{}, errBusy
		}
		return Report{}, err
	}
	defer unlock()
	rec, err := r.Journal.of(o.From.Context, o.From.Name)
	if err != nil || rec == nil {
		return Report{}, err
	}
	if rec.Order == Emergency && !rec.Switched && r.Quarantine != nil {
		r.Quarantine(rec.From)
	}
	return r.run(ctx, rec)
}

// escalate turns an open graceful rotation into an emergency. Before the new
// value may be real at the issuer the order changes; afterwards going on is the
// fastest way to the old value's end, and no session is spared.
func escalate(rec *record, m Mode) {
	if m != Emergency || rec.Emergency {
		return
	}
	rec.Emergency = true
	if rec.Step == StepIntent {
		rec.Order, rec.Step = Emergency, StepQuarantine
	}
}

func (r *Runner) provider(c guard.Credential) (Provider, map[string]string, error) {
	spec := c.Rotate
	if spec == "" && r.Default != nil {
		spec = r.Default(c)
	}
	if spec == "" {
		return nil, nil, ErrNoProvider
	}
	name, options, err := r.Providers.Parse(spec)
	if err != nil {
		return nil, nil, err
	}
	return r.Providers[name], options, nil
}

// order is what a leak of a credential sets off, as its spec says or by default.
func (r *Runner) order(id guard.SecretID, escaped bool) (m Mode, rotates bool) {
	word := ""
	if c, err := r.Vault.Find(id.Context, id.Name); err == nil {
		if _, options, err := r.provider(c); err == nil {
			if s, err := ParseSchedule(options); err == nil {
				if word = s.Contained; escaped {
					word = s.Escaped
				}
			}
		}
	}
	switch {
	case word == "record":
		return Graceful, false
	case word == "emergency" || word == "" && escaped:
		return Emergency, true
	}
	return Graceful, true
}

// Check asks the credential's provider what is missing for a rotation. nil:
// nothing, or the provider cannot tell.
func (r *Runner) Check(ctx context.Context, context, name string) error {
	c, err := r.Vault.Find(context, name)
	if err != nil {
		return err
	}
	p, options, err := r.provider(c)
	if err != nil {
		return err
	}
	checker, ok := p.(Checker)
	if !ok {
		return nil
	}
	x := &run{r: r, c: c, p: p, options: options, rec: &record{Intent: newIntent(), From: c.ID(), ID: idOf(options, c.ID(), c.Version)}}
	return x.with(StepVerify, func(j Job) error { return checker.Check(ctx, j) })
}

func (r *Runner) alreadyDead(ctx context.Context, rec *record, c guard.Credential) (Report, bool) {
	p, options, err := r.provider(c)
	if err != nil {
		return Report{}, false
	}
	x := &run{r: r, c: c, p: p, options: options, rec: rec}
	err = x.take(StepDead, func() error {
		return x.with(StepDead, func(j Job) error { return proof(p.Verify(ctx, j, j.Current)) })
	})
	if err == nil {
		err = r.Vault.Bury(rec.From)
	}
	rec.Dead = err == nil
	return rec.report("replaced"), rec.Dead
}

func (r *record) report(state string) Report {
	rep := Report{
		Intent: r.Intent, Context: r.From.Context, Credential: r.From.Name, Mode: Graceful.String(), Reason: r.Reason, Incident: r.Incident,
		From: r.From.Version, To: r.To.Version, Started: r.Started, Steps: append([]Step(nil), r.Steps...), Dead: r.Dead, State: state,
		Until: r.Until, Next: r.Next,
	}
	if r.Emergency {
		rep.Mode = Emergency.String()
	}
	for _, s := range r.Steps {
		rep.MS += s.MS
	}
	return rep
}
