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
// is answered gracefully, one that got out in emergency order; if one gets out
// while a graceful rotation is under way, that becomes an emergency.
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
	// Mode overrides the order for a credential.
	Mode func(id guard.SecretID, escaped bool) Mode
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
	mode := Graceful
	if escaped {
		mode = Emergency
	}
	if r.hooks.Mode != nil {
		mode = r.hooks.Mode(id, escaped)
	}
	if mode == Emergency && l.Class == guard.Live && r.runner.Quarantine != nil {
		r.runner.Quarantine(id)
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	s, known := r.seen[id]
	if !known {
		s = &response{incident: newIncident(id, l.At), mode: mode}
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
		r.mu.Unlock()

		var rep Report
		var err error
		rotates := class == guard.Live && !r.hooks.NoRotate
		if rotates {
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
	case !rotates:
		i.State, i.Result = "closed", "recorded; nothing was rotated"
	case err == nil && rep.Dead:
		i.State, i.Result = "closed", "replaced, and the old value is dead"
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
