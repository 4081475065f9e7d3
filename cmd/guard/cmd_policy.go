package main

import (
	"context"
	"errors"
	"fmt"
	"time"

	"guard"
	"guard/policy"
)

var policyCommand = command{
	name: "policy", args: "check [FILE] | explain NAME ACTION", short: "check guard.toml; say what would be decided and why",
	example: "guard policy check\nguard policy explain github-pat repo:push --allow github-pat:read --host github.com",
	run:     runPolicy,
}

func runPolicy(a *app, ctx context.Context, c *command, args []string) error {
	f := a.flags(c)
	var o runFlags
	f.StringArrayVar(&o.allow, "allow", nil, "as of guard run (repeatable)")
	f.StringArrayVar(&o.deny, "deny", nil, "as of guard run (repeatable)")
	f.StringVar(&o.context, "context", "", "as of guard run")
	host := f.String("host", "", "host of the use (default: the credential's first)")
	resource := f.String("resource", "", "what the use acts on: a repository, a path, a database")
	asJSON := f.Bool("json", false, "one JSON object")
	if err := parse(f, args); err != nil {
		return err
	}
	dir, err := workingFolder()
	if err != nil {
		return err
	}
	repoFile := findRepoFile(dir, a.userHome())
	switch f.Arg(0) {
	case "check":
		if f.NArg() > 1 {
			repoFile = f.Arg(1)
		}
		if repoFile == "" {
			return errors.New("there is no guard.toml here or above")
		}
		problems := policy.Check(repoFile)
		for _, p := range problems {
			fmt.Fprintln(a.stdout, p)
		}
		if len(problems) > 0 {
			return exitError{code: exitRefused}
		}
		fmt.Fprintf(a.stdout, "%s: ok\n", repoFile)
		return nil
	case "explain":
		if f.NArg() != 3 {
			return usagef("policy explain wants NAME and ACTION, such as: policy explain github-pat repo:push")
		}
	default:
		return usagef("policy %q: want check or explain", f.Arg(0))
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
	cr, err := v.Find(cname, f.Arg(1))
	if err != nil {
		return err
	}
	creds, err := v.List(cname)
	if err != nil {
		return err
	}
	session := guard.Session{ID: "explain", Context: cname, Dir: dir, Profile: profile}
	o.egress = "web"
	p, err := newPolicy(o, session, creds, repoFile)
	if err != nil {
		return err
	}
	u := guard.Use{Session: session, Credential: cr, Action: f.Arg(2), Resource: *resource, Host: *host, Port: 443, At: time.Now()}
	if u.Host == "" && len(cr.Hosts) > 0 {
		u.Host, u.Port = splitHostPort(cr.Hosts[0], 443)
	}
	d := p.Use(u)
	if *asJSON {
		return a.printJSON(map[string]any{"credential": cr.Name, "context": cname, "action": u.Action, "host": u.Host, "decision": d.Action.String(), "rule": d.Rule, "reason": d.Reason, "next_steps": d.NextSteps})
	}
	word := "refused"
	if d.Allowed() {
		word = "allowed"
	}
	fmt.Fprintf(a.stdout, "%s of %s at %s: %s\n  rule: %s\n  reason: %s\n", u.Action, cr.Name, u.Host, word, d.Rule, d.Reason)
	for _, s := range d.NextSteps {
		fmt.Fprintf(a.stdout, "  next: %s\n", s)
	}
	return nil
}
