package policy

import (
	"embed"
	"fmt"
	"path"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/cedar-policy/cedar-go"
	"github.com/cedar-policy/cedar-go/ast"
	"github.com/cedar-policy/cedar-go/types"

	"guard"
)

//go:embed builtin.cedar guard.cedarschema presets/*.cedar
var files embed.FS

// contextNames are the attributes of the context, as guard.cedarschema has them.
var contextNames = []types.String{"protocol", "host", "port", "method", "path", "resource", "matches", "statement", "time", "day", "hour", "minute", "count", "bytes", "spent", "address", "listed"}

// engine is the policies of one side: the user's with guard's own, or one guard.toml's.
type engine struct {
	rules rules
	repo  *Repo // nil: the user's
}

// set is what an engine's policies come to for one action and entity.
type set struct {
	rules   rules
	context []types.String
	globs   []string
	exe     bool
	reads   bool // a policy in Cedar looks at what is acted on, which then has to have one reading
	times   bool // some policy looks at the time
	counts  bool // some grant has a budget
}

func newSet(all ...rules) *set {
	s := &set{}
	names := map[types.String]bool{}
	for _, rs := range all {
		for _, r := range rs {
			s.rules = append(s.rules, r)
			for n := range r.reads.context {
				names[n] = true
			}
			if r.reads.whole {
				for _, n := range contextNames {
					names[n] = true
				}
			}
			for _, g := range r.reads.globs {
				if !slices.Contains(s.globs, g) {
					s.globs = append(s.globs, g)
				}
			}
			s.exe = s.exe || r.reads.exe
			s.reads = s.reads || r.user && (r.reads.whole || r.reads.context["resource"] || r.reads.context["path"] || r.reads.context["matches"])
			s.counts = s.counts || r.grant != nil && r.grant.Limits.Count > 0
			for _, n := range []types.String{"time", "day", "hour", "minute"} {
				s.times = s.times || r.name != "credential expired" && (r.reads.whole || r.reads.context[n])
			}
		}
	}
	for _, n := range contextNames {
		if names[n] {
			s.context = append(s.context, n)
		}
	}
	return s
}

// undecided leaves out what can say nothing in this session about action on an entity,
// whatever the request is: what is false, and no error, before there is a context.
func (p *Policy) undecided(rs rules, action string, on types.Entity) rules {
	var out rules
	w := &world{p: p, principal: p.sessionEntity, resource: on}
	for _, r := range rs {
		if !r.reads.whole && !r.reads.has && !r.reads.exe {
			ok, diag := cedar.Authorize(rules{r}, w, cedar.Request{Principal: p.sessionEntity.UID, Action: uid(typeAction, action), Resource: on.UID})
			if !bool(ok) && len(diag.Errors) == 0 && len(diag.Reasons) == 0 {
				continue
			}
		}
		out = append(out, r)
	}
	return out
}

// share has sets look at what any of them does, so that one request is for all.
func share(sets []*set) {
	all := newSet()
	for _, s := range sets {
		all.take(s)
	}
	for _, s := range sets {
		s.context, s.globs, s.exe = all.context, all.globs, all.exe
	}
}

// take makes s ask for what o asks for, too.
func (s *set) take(o *set) {
	for _, n := range contextNames {
		if slices.Contains(o.context, n) && !slices.Contains(s.context, n) {
			s.context = append(s.context, n)
		}
	}
	for _, g := range o.globs {
		if !slices.Contains(s.globs, g) {
			s.globs = append(s.globs, g)
		}
	}
	s.exe = s.exe || o.exe
}

// applicable are the rules of e that may say something about action on an entity.
func (e *engine) applicable(action string, on types.EntityUID) rules {
	var out rules
	for _, r := range e.rules {
		if r.applies(action, on) {
			out = append(out, r)
		}
	}
	return out
}

// compiled is what the rules say about one credential as it was at some time: it may be
// edited while a session runs.
type compiled struct {
	cred   guard.Credential
	own    rules
	entity types.Entity
	mu     sync.RWMutex
	sets   map[string][]*set // of the user's engine and then each guard.toml's, by action
}

func (c *compiled) is(o guard.Credential) bool {
	return c.cred.Name == o.Name && c.cred.Context == o.Context && c.cred.Kind == o.Kind && c.cred.Decoy == o.Decoy && c.cred.Expires.Equal(o.Expires) &&
		slices.Equal(c.cred.Hosts, o.Hosts) && slices.Equal(c.cred.Scopes, o.Scopes)
}

func compileCredential(c guard.Credential) *compiled {
	out := &compiled{cred: c, own: credentialRules(nil, c), entity: newCredentialEntity(c), sets: map[string][]*set{}}
	for i, r := range out.own {
		r.id = cedar.PolicyID("own" + strconv.Itoa(i))
	}
	return out
}

func (p *Policy) compiledOf(c guard.Credential) *compiled {
	if v, ok := p.compiled.Load(c.Name); ok {
		if out := v.(*compiled); out.is(c) {
			return out
		}
	}
	out := compileCredential(c)
	if p.creds[c.Name] != nil { // else names would add up without end
		p.compiled.Store(c.Name, out)
	}
	return out
}

func (p *Policy) setsOf(c *compiled, action string) []*set {
	c.mu.RLock()
	sets := c.sets[action]
	c.mu.RUnlock()
	if sets != nil {
		return sets
	}
	for i, e := range p.engines {
		own := c.own
		if i > 0 {
			own = nil
		}
		sets = append(sets, newSet(p.undecided(own, action, c.entity), p.undecided(e.applicable(action, c.entity.UID), action, c.entity)))
	}
	share(sets)
	c.mu.Lock()
	defer c.mu.Unlock()
	c.sets[action] = sets
	return sets
}

// compile makes the engines of o: the first is the user's.
func (p *Policy) compile(o Options) error {
	own := &engine{}
	builtin, err := files.ReadFile("builtin.cedar")
	if err != nil {
		return err
	}
	list, err := cedar.NewPolicyListFromBytes("builtin.cedar", builtin)
	if err != nil {
		return fmt.Errorf("policy: guard's own policies: %w", err)
	}
	for _, b := range list {
		name := string(b.Annotations()["id"])
		own.rules, _ = own.rules.add(name, "", builtinRanks[name], b)
	}
	for _, name := range o.Deny {
		own.rules, _ = own.rules.made("flag --deny", "--deny "+name, rankDeny, ast.Forbid().ResourceEq(uid(typeCredential, name)))
	}
	for _, g := range o.Allow {
		a, err := g.permit(o.Session.Started, p.zone)
		if err != nil {
			return fmt.Errorf("--allow %s: %w", g, err)
		}
		var r *rule
		own.rules, r = own.rules.made("flag --allow", "--allow "+g.String(), rankScope, a)
		r.grant = &grant{Grant: g}
	}
	for _, f := range o.Policies {
		for _, x := range f.rules {
			r := *x
			r.id = cedar.PolicyID(strconv.Itoa(len(own.rules)))
			own.rules = append(own.rules, &r)
		}
	}
	for _, h := range p.logins {
		own.rules, _ = own.rules.made("flag --allow-login", "--allow-login", rankScope,
			ast.Permit().ActionInSet(uid(typeAction, "token:login"), uid(typeAction, "token:mint")).ResourceIs(typeHost).When(h.node()))
	}
	own.rules = p.egressRules(own.rules)
	p.engines = []*engine{own}
	for _, r := range o.Repo.all() {
		e, err := r.engine()
		if err != nil {
			return err
		}
		e.rules = r.egressRules(e.rules)
		p.engines = append(p.engines, e)
	}
	p.hostSets = map[string][]*set{}
	for _, a := range []string{"connect", "token:login", "token:mint"} {
		for _, e := range p.engines {
			p.hostSets[a] = append(p.hostSets[a], newSet(e.applicable(a, uid(typeHost, ""))))
		}
		share(p.hostSets[a])
	}
	for name, c := range p.creds {
		c.allowed = p.permitted(name)
	}
	for _, r := range own.rules {
		p.countsBytes = p.countsBytes || r.user && (r.reads.whole || r.reads.context["bytes"])
		p.counts = p.counts || r.user && (r.reads.whole || r.reads.context["count"]) || r.grant != nil && r.grant.Limits.Count > 0
	}
	return nil
}

// engine is guard.toml in Cedar. It is asked by itself: what it permits, it does not
// take away, and what it does not permit nobody may do, whoever else does.
func (r *Repo) engine() (*engine, error) {
	e := &engine{repo: r}
	names := make([]string, 0, len(r.deny))
	for n := range r.deny {
		names = append(names, n)
	}
	slices.Sort(names)
	for _, n := range names {
		at := r.rule(r.deny[n])
		e.rules, _ = e.rules.made(at, at, rankRepoDeny, ast.Forbid().ResourceEq(uid(typeCredential, n)))
	}
	if !r.hasUses {
		e.rules, _ = e.rules.made(r.rule(1), r.rule(1), rankRepoUse, ast.Permit())
		return e, nil
	}
	e.rules, _ = e.rules.made(r.rule(r.useLine), r.rule(r.useLine), rankRepoUse, ast.Permit().ResourceIs(typeHost))
	for _, u := range r.uses {
		g := Grant{Name: u.name, Scope: u.scope}
		a, err := g.permit(time.Time{}, time.UTC)
		if err != nil {
			return nil, err
		}
		var x *rule
		e.rules, x = e.rules.made(r.rule(u.line), r.rule(u.line), rankRepoUse, a)
		x.grant = &grant{Grant: g, line: u.line}
	}
	return e, nil
}

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

// permitted says whether anything permits name something in this session.
func (p *Policy) permitted(name string) bool {
	if c := p.creds[name]; c != nil && len(c.grants) > 0 {
		return true
	}
	for _, r := range p.engines[0].rules {
		if !r.user || !r.permits() {
			continue
		}
		for a := range actions {
			if r.applies(a, uid(typeCredential, name)) {
				return true
			}
		}
	}
	return false
}

func (p *Policy) allowed(name string) bool { c := p.creds[name]; return c != nil && c.allowed }

// Allowed says that the agent is told of a credential: something permits it, and nothing
// denies it whatever it is for. What it may be used for is Use's to say.
func (p *Policy) Allowed(name string) bool {
	return p != nil && p.creds != nil && p.creds[name] != nil && !p.deny[name] && p.allowed(name)
}

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
