package policy

import (
	"fmt"
	"path"
	"strings"
	"time"

	"guard"
)

func (p *Policy) sayBroken(q *request, v verdict) guard.Decision {
	return refuse(q.use.Credential.ID(), v.broken.name, fmt.Sprintf("the policy %s decides, and %s, so that nothing is allowed", v.broken.where(), v.why),
		"tell the user: guard policy check says what is wrong with it")
}

func (p *Policy) sayForbidden(q *request, r *rule, repo *Repo) guard.Decision {
	u := q.use
	id, name := u.Credential.ID(), u.Credential.Name
	switch r.rank {
	case rankDecoy:
		return decoy(id)
	case rankAction:
		if u.Action == "reveal" {
			return refuse(id, r.name, "a value is shown to the user only, on their own terminal", "tell the user: guard secret reveal "+name)
		}
		return refuse(id, r.name, "exec:run is for guard exec alone, which this guard does not have", "tell the user what is to be run")
	case rankKind:
		return refuse(id, r.name, "a private key signs for SSH and git in guard's agent, and is sent nowhere; other credentials sign nothing",
			"use ssh or git with the agent of the session (ssh-add -L)")
	case rankDeny:
		return refuse(id, r.name, fmt.Sprintf("%s is denied in this session by --deny %s, which wins over --allow", name, name), "ask the user to leave out --deny "+name)
	case rankRepoDeny:
		return refuse(id, r.name, fmt.Sprintf("the project's %s denies %s", repo.file, name), fmt.Sprintf("ask the user to change deny in %s", repo.file))
	case rankContext:
		return refuse(id, r.name, fmt.Sprintf("%s is in context %s, and this session is in %s", name, u.Credential.Context, p.session.Context),
			"guard run --context "+orContext(u.Credential.Context)+" ...")
	case rankExpired:
		return p.sayExpired(q)
	case rankHosts:
		return p.sayHosts(q)
	case rankOwnScope:
		return refuse(id, r.name, fmt.Sprintf("%s itself is only ever for %s; %s%s is outside", name, strings.Join(u.Credential.Scopes, ", "), u.Action, on(u.Resource)),
			"guard secret edit "+name+" --scope "+u.Action)
	}
	return refuse(id, r.name, fmt.Sprintf("the policy %s forbids %s%s", r.where(), u.Action, on(u.Resource)), "ask the user: it is their policy, guard policy show prints it")
}

func (p *Policy) sayExpired(q *request) guard.Decision {
	id := q.use.Credential.ID()
	reason := fmt.Sprintf("%s has an expiry, and the time of the use is not known", id.Name)
	if !q.timeless() {
		reason = fmt.Sprintf("%s expired on %s", id.Name, q.use.Credential.Expires.UTC().Format(time.RFC3339))
	}
	return refuse(id, "credential expired", reason, "guard rotate "+id.Name, "guard secret edit "+id.Name+" --expires DURATION")
}

func (p *Policy) sayHosts(q *request) guard.Decision {
	id := q.use.Credential.ID()
	if q.host == unreadable || q.host == "" {
		return refuse(id, "credential hosts", "the request's host or port is not one that guard can read in one way only (ASCII names, ports 1 to 65535)",
			"use the host as it is written in: guard secret show "+id.Name)
	}
	bound := "no host"
	if len(q.use.Credential.Hosts) > 0 {
		bound = strings.Join(q.use.Credential.Hosts, ", ")
	}
	return refuse(id, "credential hosts", fmt.Sprintf("%s may go to %s; %s is none of them", id.Name, bound, hostPort(q.host, q.port)),
		"guard secret edit "+id.Name+" --host "+hostPort(q.host, q.port))
}

func (p *Policy) sayUnlisted(q *request, s *set, repo *Repo) guard.Decision {
	id, line := q.use.Credential.ID(), repo.useLine
	for _, u := range repo.uses {
		if u.name == id.Name {
			line = u.line
		}
	}
	return refuse(id, repo.rule(line), fmt.Sprintf("the project's %s lists what it needs, and %s for %s%s is not there", repo.file, id.Name, q.use.Action, on(q.use.Resource)),
		fmt.Sprintf("ask the user to add [[use]] credential = %q, scope = %q to %s", id.Name, q.use.Action, repo.file))
}

// sayDefault says why nothing permits q: no policy is about it, or one was until its
// limits were reached.
func (p *Policy) sayDefault(q *request, s *set) guard.Decision {
	u := q.use
	id, name := u.Credential.ID(), u.Credential.Name
	only := "tell the user what it is needed for: only they can allow it, from outside the session"
	more := "guard run --allow " + name + ":" + u.Action + " ..."
	if !p.allowed(name) {
		return refuse(id, "default-deny", fmt.Sprintf("no --allow names %s, and what is not allowed is denied", name), more, only)
	}
	for _, r := range s.rules {
		if r.grant == nil || !r.grant.Scope.Covers(u.Action, u.Resource) {
			continue
		}
		if d, ended := p.sayEnded(q, r.grant.Grant); ended {
			return d
		}
	}
	gs := "less"
	if c := p.creds[name]; c != nil && len(c.grants) > 0 {
		gs = scopes(c.grants)
	}
	return refuse(id, "scope", fmt.Sprintf("%s is allowed for %s in this session; %s%s is outside", name, gs, u.Action, on(u.Resource)), more, only)
}

// sayEnded says what limit of a grant that covers q was reached.
func (p *Policy) sayEnded(q *request, g Grant) (guard.Decision, bool) {
	id := q.use.Credential.ID()
	end, _ := g.Limits.end(p.session.Started, p.zone)
	used := p.budget.of(g.String())
	at := q.use.At.In(p.zone)
	minute := at.Hour()*60 + at.Minute()
	inside := g.Limits.From == g.Limits.To || g.Limits.From < g.Limits.To && minute >= g.Limits.From && minute < g.Limits.To ||
		g.Limits.From > g.Limits.To && (minute >= g.Limits.From || minute < g.Limits.To)
	again := "tell the user what it is needed for: they can allow it again, from outside the session"
	switch {
	case !end.IsZero() && !q.use.At.Before(end):
		return refuse(id, "grant expired", fmt.Sprintf("--allow %s ended at %s", g, end.In(p.zone).Format(time.RFC3339)), again), true
	case !inside:
		return refuse(id, "time window", fmt.Sprintf("--allow %s holds from %02d:%02d to %02d:%02d, and it is %s", g, g.Limits.From/60, g.Limits.From%60, g.Limits.To/60, g.Limits.To%60, at.Format("15:04")),
			"wait until then", again), true
	case g.Limits.Count > 0 && used.Count >= g.Limits.Count:
		return refuse(id, "budget", fmt.Sprintf("--allow %s is used up: %d uses", g, used.Count), again), true
	case g.Limits.Bytes > 0 && used.Bytes >= g.Limits.Bytes:
		return refuse(id, "budget", fmt.Sprintf("--allow %s is used up: %d bytes were sent", g, used.Bytes), again), true
	}
	return guard.Decision{}, false
}

// Ask is what there is to ask the user about a refusal: what would be allowed, to whom
// and for what. It is made of what guard saw, never of what an agent says it wants.
type Ask struct {
	Kind       string // "use", "renew" (a grant ended or is used up), "login" or "connect"
	Grant      Grant  // what would allow it, the narrowest; zero for login and connect
	Credential guard.Credential
	Use        guard.Use // the request: session, program, host, method, path
	Host       string    // canonical; "" where there is none
	Port       int
	Why        string // the refusal's reason
	Rule       string // and rule
}

func (p *Policy) asking(q *request, d guard.Decision) *Ask {
	a := &Ask{Kind: "use", Credential: q.use.Credential, Use: q.use, Host: q.host, Port: q.port, Why: d.Reason, Rule: d.Rule}
	a.Grant = Grant{Name: q.use.Credential.Name, Scope: Scope{Verb: q.use.Action}}
	if !isVerb(q.use.Action) {
		a.Grant.Scope.Verb = "use"
	}
	if g := globLiteral(q.text); q.text != "" && g != "" {
		a.Grant.Scope.Glob = g
	}
	switch d.Rule {
	case "grant expired", "budget", "time window":
		a.Kind = "renew"
	}
	return a
}

func isVerb(action string) bool { _, ok := covers[action]; return ok }

// globLiteral is the glob that matches text alone; "" if there is none.
func globLiteral(text string) string {
	var b strings.Builder
	for i := 0; i < len(text); i++ {
		if strings.IndexByte(`*?[\`, text[i]) >= 0 {
			b.WriteByte('\\')
		}
		b.WriteByte(text[i])
	}
	g := b.String()
	for part := range strings.SplitSeq(g, "/") {
		if _, err := path.Match(part, ""); err != nil {
			return ""
		}
	}
	if strings.Contains(g, "**") || strings.Contains(g, `\*\*`) {
		return ""
	}
	return g
}
