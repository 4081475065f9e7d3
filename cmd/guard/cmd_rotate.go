package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	"guard"
	"guard/audit"
	"guard/rotate"
	"guard/vault"
)

var rotateCommand = command{
	name: "rotate", args: "NAME [--check] | --due | --all | --providers", short: "replace a credential, or what is due",
	example: "guard rotate db-password\nguard rotate db-password --check\nguard rotate --due\nguard rotate --providers",
	run:     runRotate,
}

var revokeCommand = command{
	name: "revoke", args: "NAME", short: "replace a credential at once: the old value first, then the new one",
	example: "guard revoke db-password", run: runRevoke,
}

// newRunner composes what replaces credentials; step is told of every step.
func (a *app) newRunner(v *vault.Vault, step func(rotate.Report, rotate.Step)) (*rotate.Runner, error) {
	j, err := rotate.OpenJournal(a.rotateDir())
	if err != nil {
		return nil, err
	}
	return &rotate.Runner{Vault: v, Providers: providers(), Default: defaultRotation, Journal: j, OnStep: step}, nil
}

// rotation is one invocation of rotate or revoke.
type rotation struct {
	app    *app
	vault  *vault.Vault
	log    *audit.Log
	runner *rotate.Runner
	json   bool
}

func (a *app) openRotation(asJSON bool) (*rotation, error) {
	v, err := a.openVault()
	if err != nil {
		return nil, err
	}
	r := &rotation{app: a, vault: v, json: asJSON}
	if r.log, err = a.openAudit(v, nil); err != nil {
		v.Close()
		return nil, err
	}
	if r.runner, err = a.newRunner(v, r.recordStep); err != nil {
		r.close()
		return nil, err
	}
	return r, nil
}

func (r *rotation) recordStep(rep rotate.Report, st rotate.Step) {
	rec := audit.Record{
		Type: audit.TypeRotation, Time: st.At, Credential: rep.Credential, Context: rep.Context, Version: rep.From,
		Step: st.Step, Result: st.Result, DurationMS: st.MS, Incident: rep.Incident, Reason: rep.Mode + ": " + rep.Reason,
	}
	r.app.switched(r.vault, &rec, rep, st)
	if _, err := r.log.Append(rec); err != nil {
		r.app.say("a rotation step could not be recorded: %v", err)
	}
}

// switched makes the record of a step that made a new value current one about that value.
func (a *app) switched(v *vault.Vault, rec *audit.Record, rep rotate.Report, st rotate.Step) {
	if st.Step == "switch" && st.Result == "ok" {
		rec.Version = rep.To
		rec.Fingerprint = a.fingerprintOf(v, guard.SecretID{Context: rep.Context, Name: rep.Credential, Version: rep.To})
	}
}

func (r *rotation) close() {
	r.log.Close()
	r.vault.Close()
}

// show prints one report.
func (r *rotation) show(rep rotate.Report) error {
	if r.json {
		return r.app.printJSON(rep)
	}
	dead := "old value tried and refused: dead"
	switch {
	case rep.State == "overlap":
		dead = "old value left valid until " + rep.Until.Local().Format(time.DateTime)
	case !rep.Dead:
		dead = "old value NOT proven dead"
	}
	fmt.Fprintf(r.app.stdout, "%s: %s, version %d -> %d, %s (%.0f ms)\n", rep.Credential, rep.State, rep.From, rep.To, dead, rep.MS)
	for _, s := range rep.Steps {
		fmt.Fprintf(r.app.stdout, "  %-14s %7.1f ms  %s\n", s.Step, s.MS, s.Result)
	}
	for _, n := range rep.Next {
		fmt.Fprintf(r.app.stdout, "  next: %s\n", n)
	}
	return nil
}

func runRotate(a *app, ctx context.Context, c *command, args []string) error {
	f := a.flags(c)
	due := f.Bool("due", false, "finish every rotation that was left open, and replace what its schedule wants replaced")
	check := f.Bool("check", false, "say what is missing for a rotation of NAME: privileges, a changed program; nothing is replaced")
	list := f.Bool("providers", false, "what --rotate of guard secret set takes: providers, their options, privileges and limits")
	all := f.Bool("all", false, "replace every credential of the context that has a provider")
	cname := f.String("context", "", "context (default: the current folder's)")
	profile := profileFlag(f)
	asJSON := f.Bool("json", false, "one JSON object a rotation")
	reason := f.String("reason", "by hand", "for the log")
	if err := parse(f, args); err != nil {
		return err
	}
	if *list {
		if f.NArg() > 0 || *due || *all || *check {
			return usagef("--providers stands alone")
		}
		return a.listProviders(*asJSON)
	}
	if *check && f.NArg() != 1 {
		return usagef("--check wants the credential's NAME")
	}
	if n := f.NArg(); n > 1 || (n == 1) == (*due || *all) || *due && *all {
		return usagef("rotate wants one of NAME, --due, --all")
	}
	r, err := a.openRotation(*asJSON)
	if err != nil {
		return err
	}
	defer r.close()
	if *due {
		reps, next, err := r.due(ctx, *cname)
		for _, rep := range reps {
			if serr := r.show(rep); serr != nil {
				return serr
			}
		}
		switch {
		case err != nil || *asJSON:
		case !next.IsZero():
			a.say("the next one falls due at %s", next.Local().Format(time.DateTime))
		case len(reps) == 0:
			a.say("nothing is open, nothing is due")
		}
		return err
	}
	where, _, err := a.world(*cname, *profile)
	if err != nil {
		return err
	}
	if err := a.openContext(r.vault, where); err != nil {
		return err
	}
	names := f.Args()
	if *check {
		if err := r.runner.Check(ctx, where, f.Arg(0)); err != nil {
			return err
		}
		a.say("nothing is missing that the provider could tell")
		return nil
	}
	if *all {
		cs, err := r.vault.List(where)
		if err != nil {
			return err
		}
		for _, cr := range cs {
			if cr.Rotate != "" {
				names = append(names, cr.Name)
			}
		}
		if len(names) == 0 {
			return fmt.Errorf("no credential of context %s says how to rotate it", where)
		}
	}
	var errs []error
	for _, name := range names {
		rep, err := r.runner.Rotate(ctx, where, name, rotate.Graceful, *reason)
		if rep.Intent != "" {
			errs = append(errs, r.show(rep), a.closeIncidents([]rotate.Report{rep}))
		}
		errs = append(errs, err)
	}
	return errors.Join(errs...)
}

func runRevoke(a *app, ctx context.Context, c *command, args []string) error {
	f := a.flags(c)
	cname := f.String("context", "", "context (default: the current folder's)")
	profile := profileFlag(f)
	asJSON := f.Bool("json", false, "one JSON object")
	reason := f.String("reason", "revoked by hand", "for the log")
	if err := parse(f, args); err != nil {
		return err
	}
	if f.NArg() != 1 {
		return usagef("revoke wants the credential's NAME")
	}
	r, err := a.openRotation(*asJSON)
	if err != nil {
		return err
	}
	defer r.close()
	where, _, err := a.world(*cname, *profile)
	if err != nil {
		return err
	}
	if err := a.openContext(r.vault, where); err != nil {
		return err
	}
	cr, err := r.vault.Find(where, f.Arg(0))
	if err != nil {
		return err
	}
	by := guard.Leak{Origin: guard.Origin{Channel: "user", Source: "revoke"}, Secret: cr.ID(), Class: guard.Live}
	rep, err := r.compromised(ctx, cr.ID(), by, rotate.Emergency, true, *reason)
	if rep.Intent != "" {
		err = errors.Join(err, r.show(rep))
	}
	return err
}

// closeIncidents writes into incidents what finished their rotations later.
func (a *app) closeIncidents(reps []rotate.Report) error {
	store, err := rotate.OpenIncidents(a.incidentDir())
	if err != nil {
		return err
	}
	for _, rep := range reps {
		if rep.Incident == "" { // by hand, or by a schedule: the version may have an incident all the same
			rep.Incident = rotate.IncidentID(guard.SecretID{Context: rep.Context, Name: rep.Credential, Version: rep.From})
		}
		i, err := store.Load(rep.Incident)
		if errors.Is(err, os.ErrNotExist) {
			continue
		}
		if err != nil {
			return err
		}
		i.Apply(rep, nil)
		if err := store.Save(i); err != nil {
			return err
		}
	}
	return nil
}

var incidentCommand = command{
	name: "incident", args: "ls | show ID | restore ID [FILE]", short: "what leaked, what was done, proof that it is dead",
	example: "guard incident ls\nguard incident show github-pat-3-1a2b3c4d", run: runIncident,
}

func runIncident(a *app, ctx context.Context, c *command, args []string) error {
	f := a.flags(c)
	asJSON := f.Bool("json", false, "one JSON object an incident")
	if err := parse(f, args); err != nil {
		return err
	}
	store, err := rotate.OpenIncidents(a.incidentDir())
	if err != nil {
		return err
	}
	switch f.Arg(0) {
	case "ls":
		is, err := store.List()
		if err != nil {
			return err
		}
		rows := [][]string{{"ID", "CREDENTIAL", "FIRST", "LEAKS", "REACH", "STATE", "OLD VALUE"}}
		for _, i := range is {
			if *asJSON {
				if err := a.printJSON(i); err != nil {
					return err
				}
				continue
			}
			reach, dead := "contained", "not proven dead"
			if i.Escaped {
				reach = "escaped"
			}
			if i.Dead {
				dead = "dead"
			}
			rows = append(rows, []string{i.ID, i.Credential, i.First.Local().Format("2006-01-02 15:04:05"), fmt.Sprint(i.Leaks), reach, i.State, dead})
		}
		if *asJSON {
			return nil
		}
		if len(rows) == 1 {
			a.say("no incident")
			return nil
		}
		return a.table(rows)
	case "show":
		if f.NArg() != 2 {
			return usagef("incident show wants an ID (guard incident ls)")
		}
		i, err := store.Load(f.Arg(1))
		if err != nil {
			return noIncident(f.Arg(1), err)
		}
		if *asJSON {
			return a.printJSON(i)
		}
		fmt.Fprint(a.stdout, i.Markdown())
		for _, r := range i.Restore {
			fmt.Fprintf(a.stdout, "\n%s as it was before guard redacted it:\n\n    guard incident restore %s %s\n", r.File, i.ID, r.Original)
		}
		return nil
	case "restore":
		if f.NArg() < 2 || f.NArg() > 3 {
			return usagef("incident restore wants an ID, and the original's name where there are several (guard incident show ID)")
		}
		i, err := store.Load(f.Arg(1))
		if err != nil {
			return noIncident(f.Arg(1), err)
		}
		return a.restore(i, f.Arg(2))
	}
	return usagef("incident %q: want ls, show or restore", f.Arg(0))
}

func noIncident(id string, err error) error {
	if errors.Is(err, os.ErrNotExist) {
		return fmt.Errorf("there is no incident %q (guard incident ls)", id)
	}
	return fmt.Errorf("incident %s: %w", id, err)
}

// restore brings an original back, beside the file it was, so that nothing that
// was written since is lost.
func (a *app) restore(i rotate.Incident, name string) error {
	var names []string
	for _, r := range i.Restore {
		if name == "" || r.Original == name || r.File == name {
			names = append(names, r.Original)
		}
	}
	if len(i.Restore) == 0 {
		return fmt.Errorf("incident %s redacted no file", i.ID)
	}
	if len(names) == 0 {
		return fmt.Errorf("incident %s redacted no such file (guard incident show %s)", i.ID, i.ID)
	}
	if len(names) > 1 && name == "" {
		return usagef("incident %s replaced %d files: name one (guard incident show %s)", i.ID, len(names), i.ID)
	}
	v, err := a.openVault()
	if err != nil {
		return err
	}
	defer v.Close()
	o, err := a.readOriginal(v, names[len(names)-1])
	if err != nil {
		return err
	}
	if o.Content == nil {
		// A large file: what was masked is put back into it as it is now.
		if o.Content, err = os.ReadFile(o.Path); err != nil {
			return err
		}
		for _, sp := range o.Spans {
			if sp.Offset+int64(len(sp.Bytes)) > int64(len(o.Content)) {
				return fmt.Errorf("%s is shorter than it was: the masked bytes have no place in it", o.Path)
			}
			copy(o.Content[sp.Offset:], sp.Bytes)
		}
	}
	defer clear(o.Content)
	out := o.Path + ".guard-original"
	w, err := os.OpenFile(out, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o600)
	if err != nil {
		return fmt.Errorf("restore beside %s: %w", o.Path, err)
	}
	_, err = w.Write(o.Content)
	if err = errors.Join(err, w.Close()); err != nil {
		return err
	}
	fmt.Fprintf(a.stdout, "%s as it was at %s is in %s\n", o.Path, o.At.Local().Format(time.DateTime), out)
	return a.note(v, audit.Record{Type: "incident.restore", Context: i.Context, Credential: i.Credential, Incident: i.ID, Path: o.Path})
}

func (a *app) readOriginal(v *vault.Vault, name string) (o original, err error) {
	if strings.ContainsAny(name, "/\\") {
		return o, errors.New("not the name of an original")
	}
	box, err := os.ReadFile(filepath.Join(a.originalDir(), name))
	if err != nil {
		return o, fmt.Errorf("read the kept original: %w", err)
	}
	b, err := v.Unseal("original", box)
	if err != nil {
		return o, fmt.Errorf("open the kept original: %w", err)
	}
	defer clear(b)
	return o, json.Unmarshal(b, &o)
}
