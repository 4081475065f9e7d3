package rotate

import (
	"context"
	"errors"
	"io/fs"
	"sync"
	"time"

	"guard"
)

// Responder turns leaks into incidents and rotations: one of each for one
// version of a credential, however often it is seen. A leak that guard stopped
// is answered gracefully, one that got out in emergency order, unless the
// credential's spec says otherwise; if one gets out while a graceful rotation is
// under way, that becomes an emergency. Leaks that were stopped replace a
// credential once in Hooks.Rest at most, so that an agent which leaks whatever it
// is given cannot keep an issuer busy.
type Responder struct {
	runner    *Runner
	incidents *Incidents
	hooks     Hooks
	ctx       context.Context

	mu   sync.Mutex
	wg   sync.WaitGroup
	seen map[guard.SecretID]*response
}

// Hooks is what main adds to a Responder. All of it may be zero.
type Hooks struct {
	// NoRotate records incidents, and quarantines what escaped, but replaces nothing.
	NoRotate bool
	// Rest is how long a credential that was replaced because of a leak is not
	// replaced again for one that was stopped; 0: Rest. Its incident is "waiting".
	Rest time.Duration
	// Fill adds what only main knows: uses, copies, files to restore.
	Fill func(*Incident)
	// Notify is called when an incident opens and when it is settled.
	Notify func(Incident)
	// Failed is told when an incident could not be written.
	Failed func(error)
}

type response struct {
	incident Incident
	mode     Mode
	replace  bool // false: recorded only
	working  bool
	again    bool // the mode rose while working
	cancel   context.CancelFunc
	dirty    bool
}

// NewResponder works until ctx ends; what it then leaves open is in the
// journal.
func NewResponder(ctx context.Context, runner *Runner, incidents *Incidents, hooks Hooks) *Responder {
	return &Responder{runner: runner, incidents: incidents, hooks: hooks, ctx: ctx, seen: map[guard.SecretID]*response{}}
}

// Leak takes one leak. It returns at once: what escaped is quarantined then,
// the rest goes on by itself. Only live credentials are replaced; of others the
// incident is recorded. It must not be called after Wait.
func (r *Responder) Leak(id guard.SecretID, escaped bool, l guard.Leak) {
	if l.At.IsZero() {
		l.At = time.Now()
	}
	if l.Class == guard.Placeholder {
		return
	}
	if escaped && l.Class == guard.Live && r.runner.Quarantine != nil {
		if mode, _ := r.runner.order(id, true); mode == Emergency {
			r.runner.Quarantine(id)
		}
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	s, known := r.seen[id]
	var mode Mode
	var replace bool
	switch {
	case known && (!escaped || s.mode == Emergency):
		mode, replace = s.mode, s.replace
	default:
		mode, replace = r.runner.order(id, escaped)
	}
	if !known {
		s = &response{incident: newIncident(id, l.At), mode: mode, replace: replace}
		if old, err := r.incidents.Load(s.incident.ID); err == nil {
			s.incident = old
		} else if !errors.Is(err, fs.ErrNotExist) && r.hooks.Failed != nil {
			r.hooks.Failed(err)
		}
		r.seen[id] = s
	}
	s.incident.add(l, escaped)
	s.dirty = true
	rises := mode == Emergency && s.mode == Graceful
	if rises {
		s.mode = Emergency
	}
	rises = rises || replace && !s.replace
	s.replace = s.replace || replace
	switch {
	case s.working && rises:
		s.again = true
		if s.cancel != nil {
			s.cancel()
		}
	case s.working || s.incident.Dead || known && !rises:
	default:
		s.working = true
		r.wg.Add(1)
		go r.work(id, s, l.Class)
	}
}

// Wait waits until every rotation that was started has ended, and writes what
// was counted since.
func (r *Responder) Wait() {
	r.wg.Wait()
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, s := range r.seen {
		if !s.dirty && r.hooks.Fill == nil {
			continue
		}
		if r.hooks.Fill != nil { // what it adds may have come after the last leak
			r.hooks.Fill(&s.incident)
		}
		r.save(s)
	}
}

func (r *Responder) work(id guard.SecretID, s *response, class guard.Class) {
	defer r.wg.Done()
	r.mu.Lock()
	r.save(s)
	opened := s.incident.clone()
	r.mu.Unlock()
	if r.hooks.Notify != nil {
		r.hooks.Notify(opened)
	}
	for {
		ctx, cancel := context.WithCancel(r.ctx)
		r.mu.Lock()
		s.cancel, s.again = cancel, false
		mode := s.mode
		rotates := class == guard.Live && !r.hooks.NoRotate && s.replace
		r.mu.Unlock()

		var rep Report
		var err error
		if mode == Emergency && class == guard.Live && !r.hooks.NoRotate { // also where nobody knows how to replace it
			err = r.runner.Journal.Hold(id)
		}
		if rotates && mode == Graceful {
			err = r.resting(id, opened.ID)
		}
		if rotates && err == nil {
			reason := "a leak that was stopped"
			if mode == Emergency {
				reason = "a leak that got out"
			}
			rep, err = r.runner.Replace(ctx, id, mode, reason, opened.ID)
		}
		cancel()

		r.mu.Lock()
		s.cancel = nil
		if s.again && !rep.Dead {
			r.mu.Unlock()
			continue
		}
		s.working = false
		settle(&s.incident, rep, err, rotates)
		incident := s.incident.clone()
		r.mu.Unlock()

		if r.hooks.Fill != nil {
			r.hooks.Fill(&incident)
		}
		r.mu.Lock()
		// Leaks went on being counted meanwhile; what Fill adds is taken over.
		s.incident.Uses, s.incident.Copies, s.incident.Restore, s.incident.Next = incident.Uses, incident.Copies, incident.Restore, incident.Next
		r.save(s)
		incident = s.incident.clone()
		r.mu.Unlock()
		if r.hooks.Notify != nil {
			r.hooks.Notify(incident)
		}
		return
	}
}

// Rest is how long a credential that was replaced because of a leak is left alone
// by leaks that were stopped.
const Rest = 10 * time.Minute

// errResting is a leak that was stopped, of a credential that was replaced for
// another one a moment ago.
var errResting = errors.New("it was replaced because of a leak a moment ago: `guard rotate --due` replaces it again later")

// resting says whether another version of id was replaced because of a leak, and
// not long ago.
func (r *Responder) resting(id guard.SecretID, incident string) error {
	rest := r.hooks.Rest
	if c, err := r.runner.Vault.Find(id.Context, id.Name); err == nil {
		if _, options, err := r.runner.provider(c); err == nil {
			if s, err := ParseSchedule(options); err == nil && s.Rest > 0 {
				rest = s.Rest
			}
		}
	}
	if rest == 0 {
		rest = Rest
	}
	all, err := r.incidents.List()
	if err != nil {
		return err
	}
	for _, i := range all {
		if i.Context == id.Context && i.Credential == id.Name && i.ID != incident && i.Report != nil && time.Since(i.Report.Started) < rest {
			return errResting
		}
	}
	return nil
}

// Apply takes over how a rotation ended, also one that Resume finished later
// (Report.Incident names the incident).
func (i *Incident) Apply(rep Report, err error) { settle(i, rep, err, true) }

func settle(i *Incident, rep Report, err error, rotates bool) {
	if rep.Intent != "" {
		i.Report, i.Steps, i.Dead = &rep, rep.Steps, rep.Dead
		i.Report.Steps = nil // once is enough
	}
	i.MS = float64(time.Since(i.First).Microseconds()) / 1000
	switch {
	case !rotates && err == nil:
		i.State, i.Result = "closed", "recorded; nothing was rotated"
	case err == nil && rep.Dead:
		i.State, i.Result = "closed", "replaced, and the old value is dead"
	case rep.State == "overlap":
		i.State, i.Result = "open", "replaced; the old value is left valid until "+rep.Until.Format(time.RFC3339)
	case errors.Is(err, errResting):
		i.State, i.Result = "waiting", err.Error()
	case rep.State == "by hand":
		i.State, i.Result, i.Next = "by hand", ErrByHand.Error(), rep.Next
	case errors.Is(err, ErrNoProvider):
		i.State, i.Result = "by hand", "guard does not know how to rotate it"
		i.Next = append(i.Next, "revoke the old value at its issuer, make a new one, then `guard secret set "+i.Credential+"`")
	case err != nil:
		i.State, i.Result = "open", err.Error()
	default:
		i.State, i.Result = "open", "the old value is not proven dead"
	}
}

// save writes an incident; the caller holds mu.
func (r *Responder) save(s *response) {
	if err := r.incidents.Save(s.incident); err != nil {
		if r.hooks.Failed != nil {
			r.hooks.Failed(err)
		}
		return
	}
	s.dirty = false
}
