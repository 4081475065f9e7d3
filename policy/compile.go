package policy

import (
	"embed"
	"fmt"
	"slices"
	"strconv"
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
