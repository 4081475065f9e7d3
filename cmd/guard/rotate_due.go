package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"time"

	"guard"
	"guard/audit"
	"guard/rotate"
	"guard/vault"
)

// usedSince counts how often each version was used, from the log.
func (a *app) usedOf(context string) (func(guard.SecretID) int, error) {
	n := map[guard.SecretID]int{}
	err := audit.Read(a.auditDir(), audit.Filter{Type: audit.TypeUse, Context: context}, func(r audit.Record) error {
		if r.Decision == guard.Pass.String() || r.Decision == guard.Warn.String() {
			n[guard.SecretID{Context: r.Context, Name: r.Credential, Version: r.Version}]++
		}
		return nil
	})
	if errors.Is(err, os.ErrNotExist) {
		err = nil
	}
	return func(id guard.SecretID) int { return n[id] }, err
}

// waiting are the incidents whose rotation was put off, because the credential had been
// replaced a moment before, or never begun, since the vault was locked or guard died.
func (a *app) waiting() ([]rotate.Incident, error) {
	store, err := rotate.OpenIncidents(a.incidentDir())
	if err != nil {
		return nil, err
	}
	all, err := store.List()
	var out []rotate.Incident
	for _, i := range all {
		if i.State == "waiting" || i.State == "open" && i.Report == nil && !i.Dead && i.Class == guard.Live.String() {
			out = append(out, i)
		}
	}
	return out, err
}

// due finishes what was left open, then replaces what its schedule wants replaced
// and what leaks left waiting. only "" is every context. It says when the next
// credential falls due, if one will.
func (r *rotation) due(ctx context.Context, only string) (reps []rotate.Report, next time.Time, err error) {
	reps, err = r.runner.Resume(ctx)
	errs := []error{err, r.app.closeIncidents(reps)}
	waits, err := r.app.waiting()
	errs = append(errs, err)
	var late []time.Time
	for _, i := range waits {
		if ctx.Err() != nil || only != "" && i.Context != only {
			continue
		}
		if at := i.Last.Add(rotate.Rest); i.State == "waiting" && time.Now().Before(at) {
			late = append(late, at)
			continue
		}
		mode, reason := rotate.Graceful, "a leak that was stopped"
		if i.Escaped {
			mode, reason = rotate.Emergency, "a leak that got out"
		}
		rep, err := r.runner.Replace(ctx, guard.SecretID{Context: i.Context, Name: i.Credential, Version: i.Version}, mode, reason, i.ID)
		reps = append(reps, rep)
		errs = append(errs, err, r.app.closeIncidents([]rotate.Report{rep}))
	}
	used, err := r.app.usedOf(only)
	if err != nil {
		errs, used = append(errs, err), nil
	}
	needs, next, err := r.runner.Due(only, rotate.Passing, time.Now(), used)
	errs = append(errs, err)
	for _, at := range late {
		if next.IsZero() || at.Before(next) {
			next = at
		}
	}
	for _, n := range needs {
		if ctx.Err() != nil {
			break
		}
		rep, err := r.runner.Replace(ctx, guard.SecretID{Context: n.ID.Context, Name: n.ID.Name}, rotate.Graceful, n.Reason, "")
		if rep.Intent != "" {
			reps = append(reps, rep)
		}
		errs = append(errs, err)
	}
	return reps, next, errors.Join(errs...)
}

// goOn finishes a rotation that waited for a person to store the new value.
func (a *app) goOn(ctx context.Context, v *vault.Vault, context, name string) error {
	j, err := rotate.OpenJournal(a.rotateDir())
	if err != nil {
		return err
	}
	if open, err := j.UnderWay(context, name); err != nil || !open {
		return err
	}
	r := &rotation{app: a, vault: v}
	if r.log, err = a.openAudit(v, nil); err != nil {
		return err
	}
	defer r.log.Close()
	if r.runner, err = a.newRunner(v, r.recordStep); err != nil {
		return err
	}
	a.say("a rotation of %s was waiting for this value: going on with it", name)
	rep, err := r.runner.Rotate(ctx, context, name, rotate.Graceful, "a new value was stored")
	if rep.Intent != "" {
		err = errors.Join(err, a.closeIncidents([]rotate.Report{rep}), r.show(rep))
	}
	return err
}

// listProviders prints what --rotate takes.
func (a *app) listProviders(asJSON bool) error {
	list := providers().List()
	if asJSON {
		for _, p := range list {
			if err := a.printJSON(p); err != nil {
				return err
			}
		}
		return nil
	}
	for _, p := range list {
		fmt.Fprintf(a.stdout, "%s\n", p.Name)
		for _, o := range p.Options {
			must := ""
			if o.Must {
				must = " (needed)"
			}
			fmt.Fprintf(a.stdout, "  %-12s %s%s\n", o.Key+"=", o.About, must)
		}
		fmt.Fprintf(a.stdout, "  needs:       %s\n  sessions:    %s\n  limits:      %s\n", p.Privileges, p.Sessions, p.Limits)
		for _, c := range p.Calls {
			fmt.Fprintf(a.stdout, "  does:        %s\n", c)
		}
		fmt.Fprintln(a.stdout)
	}
	fmt.Fprintln(a.stdout, "every provider")
	for _, o := range rotate.Common() {
		fmt.Fprintf(a.stdout, "  %-12s %s\n", o.Key+"=", o.About)
	}
	return nil
}
