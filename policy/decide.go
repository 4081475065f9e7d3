package policy

import (
	"fmt"
	"slices"

	"github.com/cedar-policy/cedar-go"

	"guard"
)

// verdict is what one engine's policies say.
type verdict struct {
	allowed bool
	permits rules // that matched
	forbids rules
	broken  *rule  // could not be decided
	why     string // then
}

// asked is what Cedar is told: one request for the sets of all engines, which look at the
// same attributes.
type asked struct {
	world world
	cedar cedar.Request
}

func (p *Policy) asked(q *request, s *set) *asked {
	a := &asked{world: world{p: p, principal: p.principal(q.use, s.exe), resource: q.resource}}
	a.cedar = q.cedar(p, a.world.principal, s)
	return a
}

func (p *Policy) ask(q *request, s *set, a *asked) verdict {
	ok, diag := cedar.Authorize(s.rules, &a.world, a.cedar)
	v := verdict{allowed: bool(ok)}
	for _, e := range diag.Errors {
		// A forbid that cannot be decided would be passed over by Cedar.
		if r := s.rules.find(e.PolicyID); r != nil && (v.broken == nil || r.rank < v.broken.rank) {
			v.broken = r
		}
	}
	if len(diag.Errors) > 0 {
		v.allowed = false
		if v.broken == nil {
			v.broken = &rule{name: "policy"}
		}
		v.why = "its conditions cannot be decided for this request"
	}
	for _, reason := range diag.Reasons {
		r := s.rules.find(reason.PolicyID)
		switch {
		case r == nil:
			v.allowed, v.broken, v.why = false, &rule{name: "policy"}, "an unknown policy decided"
		case r.permits():
			v.permits = append(v.permits, r)
		default:
			v.forbids = append(v.forbids, r)
		}
	}
	for _, r := range s.rules {
		if !r.user {
			continue
		}
		reads := r.reads.whole || r.reads.context["resource"] || r.reads.context["path"] || r.reads.context["matches"]
		switch {
		case !q.plain && reads:
			v.allowed, v.broken, v.why = false, r, "it looks at what is acted on, which servers may read in two ways (escapes, dot segments, double slashes)"
		case q.timeless() && (r.reads.whole || r.reads.context["time"] || r.reads.context["day"] || r.reads.context["hour"] || r.reads.context["minute"]):
			v.allowed, v.broken, v.why = false, r, "it looks at the time, and the time of the use is not known"
		}
	}
	return v
}

// Use decides whether u may go on: Pass or Block. It is Decide's first answer, without
// counting the use.
func (p *Policy) Use(u guard.Use) guard.Decision {
	d, _ := p.decide(u, false)
	return d
}

// Take is Use for a use that follows at once: it is counted, where a grant is for so
// many, and refused where none of those is left.
func (p *Policy) Take(u guard.Use) guard.Decision {
	d, _ := p.decide(u, true)
	return d
}

// Decide is Use, and for a refusal that the user could lift what there is to ask them;
// nil where nothing is: what denies was said on purpose.
func (p *Policy) Decide(u guard.Use) (guard.Decision, *Ask) { return p.decide(u, false) }

func (p *Policy) decide(u guard.Use, taking bool) (guard.Decision, *Ask) {
	id := u.Credential.ID()
	name := u.Credential.Name
	if p == nil || p.creds == nil || u.Session.ID != p.session.ID || u.Session.Context != p.session.Context {
		return refuse(id, "session", "the request does not come from the session that this policy is for", "tell the user: this is a fault in guard"), nil
	}
	if u.Credential.Decoy {
		return decoy(id), nil
	}
	if name == "" || !actions[u.Action] {
		return refuse(id, "action", "guard does not know this action, and denies what it does not know", "guard policy explain "+orName(name)+" ACTION"), nil
	}
	c := p.compiledOf(u.Credential)
	sets := p.setsOf(c, u.Action)
	q := newRequest(u, c.entity)
	q.taking = taking
	if taking && sets[0].counts {
		p.takes.Lock()
		defer p.takes.Unlock()
	}
	var told guard.Decision
	rank, refused := rankRepoUse+1, false
	say := func(r int, d func() guard.Decision) {
		if refused = true; r < rank {
			rank, told = r, d()
		}
	}
	var mine verdict
	a := p.asked(q, sets[0])
	for i, s := range sets {
		v := p.ask(q, s, a)
		if i == 0 {
			mine = v
		}
		timeless := q.timeless() && (s.times || !u.Credential.Expires.IsZero())
		if v.allowed && !timeless {
			continue
		}
		if v.allowed {
			say(rankExpired, func() guard.Decision { return p.sayExpired(q) })
			continue
		}
		if v.broken != nil {
			say(v.broken.rank, func() guard.Decision { return p.sayBroken(q, v) })
		}
		for _, r := range v.forbids {
			say(r.rank, func() guard.Decision { return p.sayForbidden(q, r, p.engines[i].repo) })
		}
		if len(v.permits) == 0 {
			if i > 0 {
				say(rankRepoUse, func() guard.Decision { return p.sayUnlisted(q, s, p.engines[i].repo) })
				continue
			}
			r := rankDefault
			if p.allowed(name) {
				r = rankScope
			}
			say(r, func() guard.Decision { return p.sayDefault(q, s) })
		}
	}
	if refused {
		var ask *Ask
		if rank == rankDefault || rank == rankScope {
			ask = p.asking(q, told)
		}
		return told, ask
	}
	return p.pass(q, mine), nil
}

// pass says by which policy q goes on, and counts it.
func (p *Policy) pass(q *request, v verdict) guard.Decision {
	by := v.permits[0]
	for _, r := range v.permits {
		if r.grant == nil || r.grant.Limits.Count == 0 {
			by = r // one that is not used up by it
			break
		}
	}
	if q.taking {
		p.budget.take(q.use.Credential.Name, 0)
		if by.grant != nil && by.grant.Limits.Count > 0 && !p.budget.take(by.grant.Grant.String(), by.grant.Limits.Count) {
			return refuse(q.use.Credential.ID(), "budget", by.source+" is used up", "ask the user for more")
		}
	}
	d := guard.Decision{Action: guard.Pass, Rule: by.name, Secret: q.use.Credential.ID()}
	if by.grant != nil {
		d.Reason = fmt.Sprintf("--allow %s covers %s%s", by.grant.Grant, q.use.Action, on(q.use.Resource))
	} else {
		d.Reason = fmt.Sprintf("%s permits %s%s", by.where(), q.use.Action, on(q.use.Resource))
	}
	return d
}

// Sent counts n bytes on their way to host:port, and says how many are left of what the
// credentials that belong there may send; -1: any number. ok is false where they are more
// than were left: they must not go out.
func (p *Policy) Sent(host string, port int, n int64) (left int64, ok bool) {
	left, ok = -1, true
	h, canon := canonical(host)
	if p == nil || !canon {
		return left, ok
	}
	for _, c := range p.creds {
		if !anyMatches(c.hosts, h, port) {
			continue
		}
		p.budget.addBytes(c.Name, n)
		for _, g := range c.grants {
			if g.Limits.Bytes == 0 {
				continue
			}
			p.budget.addBytes(g.String(), n)
			rest := g.Limits.Bytes - p.budget.of(g.String()).Bytes
			if ok = ok && rest >= 0; left < 0 || rest < left {
				left = max(rest, 0)
			}
		}
	}
	return left, ok
}

// Metered says whether Sent has anything to count at host:port: a grant with a budget of
// bytes belongs there, or a policy looks at what was sent.
func (p *Policy) Metered(host string, port int) bool {
	h, ok := canonical(host)
	if p == nil || !ok {
		return false
	}
	for _, c := range p.creds {
		if c.allowed && anyMatches(c.hosts, h, port) && (p.countsBytes || slices.ContainsFunc(c.grants, func(g Grant) bool { return g.Limits.Bytes > 0 })) {
			return true
		}
	}
	return false
}

// Counts says whether it matters how many uses were made: of a grant, or to a policy.
func (p *Policy) Counts() bool { return p != nil && p.counts }
