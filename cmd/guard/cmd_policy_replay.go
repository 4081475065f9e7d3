package main

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"guard"
	"guard/audit"
	"guard/policy"
)

// recordedSession is what a session's records say of it.
type recordedSession struct {
	info  guard.Session
	flags runFlags
	exact bool // its flags are known
	now   *policy.Policy
	hash  string // of the program of the use that is decided
}

// changedUse is one kind of uses that would be decided otherwise.
type changedUse struct {
	allowed bool // it would be now, and was not
	name    string
	action  string
	host    string
	rule    string // by which it would be decided now
	was     string
	n       int
	last    uint64
	reason  string
}

// replayPolicy decides recorded uses again: by the policies as they are, or with one file
// more, or in the place of the one of its name. A session's own flags are those that the
// log has; sessions of before it had them are decided by this command's.
func (a *app) replayPolicy(o policyFlags, file string) error {
	since := 7 * 24 * time.Hour
	from := time.Now().Add(-since)
	var err error
	if o.since != "" {
		if from, err = parseSince(days(o.since)); err != nil {
			return err
		}
	}
	dir, err := workingFolder()
	if err != nil {
		return err
	}
	cname, _, err := a.world(o.context, o.profile)
	if err != nil {
		return err
	}
	v, err := a.openVault()
	if err != nil {
		return err
	}
	defer v.Close()
	if err := a.openContext(v, cname); err != nil {
		return err
	}
	creds, err := v.List(cname)
	if err != nil {
		return err
	}
	repoFile := findRepoFile(dir, a.userHome())
	standing, err := a.standingPolicies()
	if err != nil {
		return err
	}
	if file != "" {
		if _, err := os.Stat(file); err != nil {
			return err
		}
		switch {
		case strings.HasSuffix(file, ".cedar"):
			standing = slices.DeleteFunc(standing, func(n string) bool { return filepath.Base(n) == filepath.Base(file) })
			standing = append(standing, file)
		default:
			repoFile = file
		}
	}
	sessions := map[string]*recordedSession{}
	sessionOf := func(r audit.Record) *recordedSession {
		s := sessions[r.Session]
		if s == nil {
			s = &recordedSession{info: guard.Session{ID: r.Session, Context: r.Context, Profile: r.Profile, Task: r.Task, Started: r.Time}, flags: o.runFlags}
			sessions[r.Session] = s
		}
		return s
	}
	// A session may have begun before the uses that are looked at.
	if err := audit.Read(a.auditDir(), audit.Filter{Type: audit.TypeSessionStart, Context: cname}, func(r audit.Record) error {
		s := sessionOf(r)
		s.info.Dir = r.Path
		given := runFlags{egress: o.egress}
		if s.exact = r.Resource != "" && given.parseWords(r.Resource); s.exact {
			s.flags = given
		}
		return nil
	}); err != nil {
		return err
	}
	var changed []*changedUse
	decided, unknown, guessed := 0, 0, 0
	err = audit.Read(a.auditDir(), audit.Filter{Type: audit.TypeUse, Context: cname, Since: from}, func(r audit.Record) error {
		if r.Of != 0 || !policy.IsRule(r.Rule) {
			return nil // refused by something else than policy
		}
		i := slices.IndexFunc(creds, func(c guard.Credential) bool { return c.Name == r.Credential })
		if i < 0 {
			unknown++
			return nil
		}
		s := sessionOf(r)
		if s.now == nil {
			if err := s.compile(standing, creds, repoFile); err != nil {
				if !s.exact {
					return err
				}
				unknown++ // a credential of its flags is gone
				return nil
			}
		}
		if !s.exact {
			guessed++
		}
		decided++
		u := guard.Use{
			Session: s.info, Credential: creds[i], Channel: guard.Channel(r.Channel), Action: r.Scope, Resource: r.Resource,
			Host: r.Host, Port: r.Port, Method: r.Method, Path: r.Path, PID: r.PID, Exe: r.Exe, At: r.Time,
		}
		if u.Port == 0 && u.Host != "" {
			u.Port = portOfCredential(creds[i], u.Host)
		}
		s.hash = r.ExeSHA256
		d := s.now.Take(u)
		was := guard.Decision{}
		was.Action, _ = guard.ParseAction(r.Decision)
		if d.Allowed() == was.Allowed() {
			return nil
		}
		k := slices.IndexFunc(changed, func(c *changedUse) bool {
			return c.allowed == d.Allowed() && c.name == r.Credential && c.action == r.Scope && c.host == r.Host && c.rule == d.Rule && c.was == r.Rule
		})
		if k < 0 {
			k = len(changed)
			changed = append(changed, &changedUse{allowed: d.Allowed(), name: r.Credential, action: r.Scope, host: r.Host, rule: d.Rule, was: r.Rule})
		}
		changed[k].n++
		changed[k].last, changed[k].reason = r.Seq, d.Reason
		return nil
	})
	if err != nil {
		return err
	}
	if decided == 0 && unknown == 0 {
		a.say("the log has no uses of context %s since %s", cname, from.Format(time.RFC3339))
	}
	for _, c := range changed {
		word := "would now be refused"
		if c.allowed {
			word = "would now be allowed"
		}
		if o.json {
			if err := a.printJSON(map[string]any{"change": strings.TrimPrefix(word, "would now be "), "uses": c.n, "credential": c.name, "action": c.action, "host": c.host, "rule": c.rule, "was": c.was, "reason": c.reason, "last": c.last}); err != nil {
				return err
			}
			continue
		}
		fmt.Fprintf(a.stdout, "%s: %d of %s for %s at %s, by %s (was: %s; the last is record %d)\n  %s\n", word, c.n, c.name, c.action, c.host, c.rule, c.was, c.last, c.reason)
	}
	if !o.json {
		fmt.Fprintf(a.stdout, "%d uses decided again, %d kinds of them otherwise\n", decided, len(changed))
	}
	if unknown > 0 {
		a.say("%d uses were of credentials that there are not any more", unknown)
	}
	if guessed > 0 {
		a.say("%d uses were of sessions of which the log does not have the flags: they were decided by this command's", guessed)
	}
	if len(changed) > 0 {
		return exitError{code: exitRefused}
	}
	return nil
}

func (s *recordedSession) compile(standing []string, creds []guard.Credential, repoFile string) error {
	flags := s.flags
	var here []string
	for _, f := range flags.policyFiles { // a path of another folder, at another time
		if !filepath.IsAbs(f) {
			f = filepath.Join(s.info.Dir, f)
		}
		here = append(here, f)
	}
	flags.policyFiles = here
	if err := flags.load(standing); err != nil {
		return err
	}
	flags.budget = policy.NewBudget(nil)
	flags.hash = func(int, string) string { return s.hash }
	var err error
	s.now, err = newPolicy(flags, s.info, creds, repoFile)
	if err != nil && s.now == nil {
		return errors.Join(fmt.Errorf("session %s cannot be decided again", s.info.ID), err)
	}
	return err
}

// days lets a duration be in days.
func days(s string) string {
	if n, ok := strings.CutSuffix(s, "d"); ok {
		var d int
		if _, err := fmt.Sscanf(n, "%d", &d); err == nil && fmt.Sprint(d) == n && d < 100000 {
			return fmt.Sprintf("%dh", 24*d)
		}
	}
	return s
}

// portOfCredential is the port that host has among a credential's, for records of before
// the log had ports.
func portOfCredential(c guard.Credential, host string) int {
	for _, h := range c.Hosts {
		if name, port := splitHostPort(h, 0); port != 0 && strings.EqualFold(name, host) {
			return port
		}
	}
	return 443
}
