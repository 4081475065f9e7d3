package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"

	"guard"
	"guard/policy"
	"guard/vault"
)

var policyCommand = command{
	name: "policy", args: "check [FILE...] | explain NAME ACTION | show [PRESET] | test DIR | test --recorded | diff FILE | approve [FILE] | spent", short: "check policies; say what would be decided and why, and what a change would have",
	example: "guard policy check\nguard policy explain github-pat repo:push --allow github-pat:read --host github.com\nguard policy diff mine.cedar --since 7d",
	exits:   "; test and diff: 0 everything as before, 1 something differs",
	run:     runPolicy,
}

// policyFlags are those of guard policy.
type policyFlags struct {
	runFlags
	host, resource, method, path, at, since string
	json, recorded, cedar, schema, yes      bool
	reset                                   string
}

func runPolicy(a *app, ctx context.Context, c *command, args []string) error {
	f := a.flags(c)
	var o policyFlags
	f.StringArrayVar(&o.allow, "allow", nil, "as of guard run (repeatable)")
	f.StringArrayVar(&o.deny, "deny", nil, "as of guard run (repeatable)")
	o.userPolicy.add(f)
	f.StringVar(&o.context, "context", "", "as of guard run")
	f.StringVar(&o.profile, "profile", "", "as of guard run")
	f.StringVar(&o.task, "task", "", "of explain: as of guard run")
	f.StringVar(&o.host, "host", "", "of explain: host of the use (default: the credential's first)")
	f.StringVar(&o.resource, "resource", "", "of explain: what the use acts on: a repository, a path, a database")
	f.StringVar(&o.method, "method", "", "of explain: HTTP method of the use")
	f.StringVar(&o.path, "path", "", "of explain: path of the request")
	f.StringVar(&o.at, "at", "", "of explain: when, in RFC 3339 (default: now)")
	f.StringVar(&o.since, "since", "", "of test --recorded and diff: uses since then, a duration such as 24h or 7d, or a date (default: 7d)")
	f.BoolVar(&o.recorded, "recorded", false, "of test: decide the uses of the log again, by the policies as they are now")
	f.BoolVar(&o.cedar, "cedar", false, "of show: in Cedar, also what flags, guard.toml and credentials come to")
	f.BoolVar(&o.schema, "schema", false, "of show: the schema, which says what policies can ask about")
	f.BoolVar(&o.yes, "yes", false, "of approve: do not ask")
	f.StringVar(&o.reset, "reset", "", "of spent: forget what was used of this grant, as it is written")
	f.BoolVar(&o.json, "json", false, "JSON: one object, or one a line")
	if err := parse(f, args); err != nil {
		return err
	}
	rest := f.Args()
	if len(rest) > 0 {
		rest = rest[1:]
	}
	o.egress = "web"
	want := map[string][2]int{"check": {0, 1000}, "explain": {2, 2}, "show": {0, 1}, "test": {0, 1}, "diff": {1, 1}, "approve": {0, 1}, "spent": {0, 0}}
	n, known := want[f.Arg(0)]
	switch {
	case !known:
		return usagef("policy %q: want check, explain, show, test, diff, approve or spent", f.Arg(0))
	case f.Arg(0) == "explain" && len(rest) != 2:
		return usagef("policy explain wants NAME and ACTION, such as: policy explain github-pat repo:push")
	case len(rest) < n[0] || len(rest) > n[1]:
		return usagef("policy %s: wrong number of arguments; guard policy --help has them", f.Arg(0))
	}
	switch f.Arg(0) {
	case "check":
		return a.checkPolicies(rest, o.json)
	case "explain":
		return a.explainPolicy(o, rest[0], rest[1])
	case "show":
		return a.showPolicy(o, rest)
	case "test":
		if o.recorded == (len(rest) == 1) {
			return usagef("policy test wants a folder of cases, or --recorded")
		}
		if o.recorded {
			return a.replayPolicy(o, "")
		}
		return a.testPolicy(rest[0], o.json)
	case "diff":
		return a.replayPolicy(o, rest[0])
	case "spent":
		return a.spentPolicy(o)
	}
	dir, err := workingFolder()
	if err != nil {
		return err
	}
	file := findRepoFile(dir, a.userHome())
	if len(rest) == 1 {
		file = rest[0]
	}
	if file == "" {
		return errors.New("there is no guard.toml here or above")
	}
	return a.approvePolicy(file, o.yes)
}

// checkPolicies judges files: guard.toml's, and Cedar's, of which it also says what can
// never match. Without any, the project's and the user's own.
func (a *app) checkPolicies(names []string, asJSON bool) error {
	if len(names) == 0 {
		dir, err := workingFolder()
		if err != nil {
			return err
		}
		standing, err := a.standingPolicies()
		if err != nil {
			return err
		}
		if p := findRepoFile(dir, a.userHome()); p != "" {
			names = append(names, p)
		}
		if names = append(names, standing...); len(names) == 0 {
			return errors.New("there is no guard.toml here or above, and no policies of yours in " + a.policiesDir())
		}
	}
	creds := a.everyCredential(names)
	bad := false
	for _, n := range names {
		var problems, warnings []policy.Problem
		if strings.HasSuffix(n, ".cedar") {
			file, err := policy.LoadPolicies(n)
			if err != nil {
				for _, e := range each(err) {
					var p policy.Problem
					if !errors.As(e, &p) {
						p = policy.Problem{File: n, What: e.Error()}
					}
					problems = append(problems, p)
				}
			} else {
				warnings = file.Warnings(creds)
			}
		} else {
			problems = policy.Check(n)
		}
		bad = bad || len(problems) > 0
		for _, list := range []struct {
			level string
			of    []policy.Problem
		}{{"error", problems}, {"warning", warnings}} {
			for _, p := range list.of {
				switch {
				case asJSON:
					if err := a.printJSON(map[string]any{"file": p.File, "line": p.Line, "level": list.level, "what": p.What}); err != nil {
						return err
					}
				case list.level == "warning":
					fmt.Fprintf(a.stdout, "%s (warning)\n", p)
				default:
					fmt.Fprintln(a.stdout, p)
				}
			}
		}
		if len(problems)+len(warnings) == 0 && !asJSON {
			fmt.Fprintf(a.stdout, "%s: ok\n", n)
		}
	}
	if bad {
		return exitError{code: exitRefused}
	}
	return nil
}

// each are the errors that were joined to one.
func each(err error) []error {
	if j, ok := err.(interface{ Unwrap() []error }); ok {
		return j.Unwrap()
	}
	return []error{err}
}

// everyCredential is what the vault holds, in all contexts that are open, for warnings;
// nil where no file needs it or the vault does not open without asking.
func (a *app) everyCredential(names []string) []guard.Credential {
	if !slices.ContainsFunc(names, func(n string) bool { return strings.HasSuffix(n, ".cedar") }) {
		return nil
	}
	us, err := a.unlockers(false)
	if err != nil || len(us) == 0 {
		return nil
	}
	v, err := vault.Open(a.home(), us...)
	if err != nil {
		return nil
	}
	defer v.Close()
	creds, err := v.List("")
	if err != nil || creds == nil {
		return nil
	}
	return creds
}

func (a *app) explainPolicy(o policyFlags, name, action string) error {
	dir, err := workingFolder()
	if err != nil {
		return err
	}
	v, err := a.openVault()
	if err != nil {
		return err
	}
	defer v.Close()
	cname, profile, err := a.world(o.context, o.profile)
	if err != nil {
		return err
	}
	if err := a.openContext(v, cname); err != nil {
		return err
	}
	cr, err := v.Find(cname, name)
	if err != nil {
		return err
	}
	creds, err := v.List(cname)
	if err != nil {
		return err
	}
	now := time.Now()
	if o.at != "" {
		if now, err = time.Parse(time.RFC3339, o.at); err != nil {
			return usagef("--at %q: want a time such as 2026-11-24T18:00:00Z", o.at)
		}
	}
	session := guard.Session{ID: "explain", Context: cname, Dir: dir, Profile: profile, Task: o.task, Started: now}
	if err := a.loadUserPolicy(&o.userPolicy); err != nil {
		return err
	}
	p, err := newPolicy(o.runFlags, session, creds, findRepoFile(dir, a.userHome()))
	if err != nil {
		return err
	}
	u := guard.Use{Session: session, Credential: cr, Action: action, Resource: o.resource, Host: o.host, Port: 443, Method: o.method, Path: o.path, At: now}
	if u.Host == "" && len(cr.Hosts) > 0 {
		u.Host, u.Port = splitHostPort(cr.Hosts[0], 443)
	} else {
		u.Host, u.Port = splitHostPort(u.Host, 443)
	}
	u.Channel = policy.ChannelOf(cr.Kind, action)
	d, ask := p.Decide(u)
	source := p.Source(u, d)
	if o.json {
		return a.printJSON(map[string]any{"credential": cr.Name, "context": cname, "action": u.Action, "host": u.Host, "decision": d.Action.String(), "rule": d.Rule, "source": source, "reason": d.Reason, "next_steps": d.NextSteps})
	}
	word := "refused"
	if d.Allowed() {
		word = "allowed"
	}
	fmt.Fprintf(a.stdout, "%s of %s at %s: %s\n  rule: %s\n", u.Action, cr.Name, u.Host, word, d.Rule)
	if source != "" {
		fmt.Fprintf(a.stdout, "  from: %s\n", source)
	}
	fmt.Fprintf(a.stdout, "  reason: %s\n", d.Reason)
	if ask != nil {
		fmt.Fprintf(a.stdout, "  would be allowed by: --allow %s\n", ask.Grant)
	}
	for _, s := range d.NextSteps {
		fmt.Fprintf(a.stdout, "  next: %s\n", s)
	}
	return nil
}

// loadUserPolicy reads presets, files of --policy and those that always hold.
func (a *app) loadUserPolicy(o *userPolicy) error {
	standing, err := a.standingPolicies()
	if err != nil {
		return err
	}
	return o.load(standing)
}

// showPolicy prints a preset, the schema, or what holds here.
func (a *app) showPolicy(o policyFlags, rest []string) error {
	switch {
	case o.schema:
		_, err := io.WriteString(a.stdout, policy.Schema())
		return err
	case len(rest) == 1:
		f, err := policy.Preset(rest[0])
		if err != nil {
			return err
		}
		_, err = io.WriteString(a.stdout, f.Text)
		return err
	}
	if err := a.loadUserPolicy(&o.userPolicy); err != nil {
		return err
	}
	if !o.cedar {
		for _, f := range o.files {
			fmt.Fprintf(a.stdout, "// ---- %s\n%s\n", f.Name, f.Text)
		}
		fmt.Fprintf(a.stdout, "// presets: %s\n", strings.Join(policy.Presets(), ", "))
		return nil
	}
	dir, err := workingFolder()
	if err != nil {
		return err
	}
	v, err := a.openVault()
	if err != nil {
		return err
	}
	defer v.Close()
	cname, profile, err := a.world(o.context, o.profile)
	if err != nil {
		return err
	}
	if err := a.openContext(v, cname); err != nil {
		return err
	}
	creds, err := v.List(cname)
	if err != nil {
		return err
	}
	p, err := newPolicy(o.runFlags, guard.Session{ID: "show", Context: cname, Dir: dir, Profile: profile, Started: time.Now()}, creds, findRepoFile(dir, a.userHome()))
	if err != nil {
		return err
	}
	_, err = io.WriteString(a.stdout, p.Cedar())
	return err
}

// testPolicy runs a folder of cases.
func (a *app) testPolicy(dir string, asJSON bool) error {
	results, err := policy.RunCases(dir)
	if err != nil {
		return usageError{err}
	}
	failed := 0
	for _, r := range results {
		if !r.OK {
			failed++
		}
		switch {
		case asJSON:
			if err := a.printJSON(map[string]any{"case": r.Name, "file": r.File, "ok": r.OK, "want": r.Want, "decision": r.Got.Action.String(), "rule": r.Got.Rule, "reason": r.Got.Reason}); err != nil {
				return err
			}
		case !r.OK:
			fmt.Fprintf(a.stdout, "%s: %s: want %s, got %s by %s: %s\n", r.File, r.Name, r.Want, r.Got.Action, r.Got.Rule, r.Got.Reason)
		}
	}
	if !asJSON {
		fmt.Fprintf(a.stdout, "%d cases, %d differ\n", len(results), failed)
	}
	if failed > 0 {
		return exitError{code: exitRefused}
	}
	return nil
}

// spentPolicy lists what daemons used of grants that are for so much.
func (a *app) spentPolicy(o policyFlags) error {
	if err := a.outside("guard policy spent"); err != nil {
		return err
	}
	v, err := a.openVault()
	if err != nil {
		return err
	}
	defer v.Close()
	kept := keptBudgets{}
	if err := readSealed(v, a.budgetPath(), "budgets", &kept); err != nil && o.reset == "" {
		return err
	}
	if o.reset != "" {
		for _, c := range kept {
			delete(c, o.reset)
		}
		return writeSealed(v, a.budgetPath(), "budgets", kept)
	}
	for _, c := range sortedNames(kept) {
		for _, g := range sortedNames(kept[c]) {
			s := kept[c][g]
			if o.json {
				if err := a.printJSON(map[string]any{"context": c, "grant": g, "count": s.Count, "bytes": s.Bytes}); err != nil {
					return err
				}
				continue
			}
			fmt.Fprintf(a.stdout, "%s  %s: %d uses, %d bytes\n", c, g, s.Count, s.Bytes)
		}
	}
	return nil
}
