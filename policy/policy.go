// Package policy decides: pure functions from what happened to a
// guard.Decision. Nothing is allowed unless a rule allows it, a denial wins over
// every permission, and what a repository says (guard.toml) can only take away:
// it is asked beside the user's own rules, and both have to allow.
//
// What decides about uses, logins and connections is Cedar: flags and guard.toml
// are compiled to policies, those of credentials are added (hosts, scopes), and
// guard's own (builtin.cedar) and the user's (files of Cedar) are read. A policy
// that cannot be decided denies, whatever the others say: Cedar would pass it over.
// guard.cedarschema says what policies can ask about. What is done about leaks is
// graded, and decided by this package's own rules.
//
// A Policy says the same to the same question, budgets aside, may be used from many
// goroutines, and knows no clock, network or file: only LoadRepo, LoadPolicies and Check read one.
//
// Every refusal names its rule, says why in a sentence, and what to do about it
// in commands that can be pasted.
package policy

import (
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/cedar-policy/cedar-go/types"

	"guard"
)

// Options are the user's words about one session. The zero value allows nothing.
type Options struct {
	Session guard.Session // Context must be set
	Allow   []Grant       // --allow; none: no credential
	Deny    []string      // --deny; wins over Allow
	// OnLeak is --on-leak: what to do about every leak of a working credential.
	// Nil: redact on the terminal, in files, pipes and towards a model's API,
	// block on the network.
	OnLeak *guard.Action
	// Egress is --egress: "list" (the default), "ask" (nobody is asked by this
	// package: as list, with a hint), "web" or "any".
	Egress     string
	AllowHosts []string       // --allow-host: HOST[:PORT], *.SUFFIX[:PORT]
	HostPorts  []int          // --host-port: on the host's loopback
	Logins     []string       // --allow-login: hosts at which the agent may log in, as AllowHosts
	Repo       *Repo          // guard.toml; nil: none
	Models     []string       // hosts of model APIs, as AllowHosts
	Policies   []*File        // the user's, in Cedar: they permit and forbid
	Budget     *Budget        // what was used of grants so far; nil: nothing, and nobody else looks
	Zone       *time.Location // of the user, for times of day; nil: the machine's
	// Hash is the SHA-256, in hex, of the program that a process runs; asked only
	// where a policy looks at it. Nil: "".
	Hash func(pid int, exe string) string
}

// Policy decides for one session. The nil and the zero Policy refuse everything.
type Policy struct {
	session guard.Session
	creds   map[string]*credential // of the session's context
	deny    map[string]bool
	onLeak  *guard.Action
	egress  string
	hosts   []hostPattern
	logins  []hostPattern
	ports   []int
	models  []hostPattern
	repo    *Repo
	zone    *time.Location
	budget  *Budget
	hash    func(pid int, exe string) string

	options Options // that it was made of
	all     []guard.Credential

	engines       []*engine         // the user's, and each guard.toml's
	hostSets      map[string][]*set // of each engine, by action, for uses without a credential
	compiled      sync.Map          // *compiled, by credential
	entities      types.EntityMap
	sessionEntity types.Entity
	countsBytes   bool       // a policy looks at context.bytes
	counts        bool       // a policy looks at context.count, or a grant is for so many uses
	takes         sync.Mutex // counted uses are decided one by one
}

// credential is what the rules say about one credential.
type credential struct {
	guard.Credential
	hosts   []hostPattern // of Credential.Hosts, those that can be read
	grants  []Grant
	allowed bool // something permits it something
}

// New checks o against the credentials that there are. Errors name what is
// unknown or badly written, and what there is instead.
func New(o Options, creds []guard.Credential) (*Policy, error) {
	if o.Session.Context == "" {
		return nil, fmt.Errorf("policy: the session has no context")
	}
	p := &Policy{zone: o.Zone, budget: o.Budget, hash: o.Hash, session: o.Session, creds: map[string]*credential{}, deny: map[string]bool{}, egress: o.Egress, ports: slices.Clone(o.HostPorts), repo: o.Repo}
	if p.zone == nil {
		p.zone = time.Local
	}
	if p.budget == nil {
		p.budget = NewBudget(nil)
	}
	elsewhere := map[string][]string{}
	for _, c := range creds {
		if c.Context == o.Session.Context {
			known := &credential{Credential: c}
			for _, s := range c.Hosts {
				if h, err := parseHost(s); err == nil {
					known.hosts = append(known.hosts, h)
				}
			}
			p.creds[c.Name] = known
		} else {
			elsewhere[c.Name] = append(elsewhere[c.Name], c.Context)
		}
	}
	unknown := func(flag, name string) error {
		if in := elsewhere[name]; len(in) > 0 {
			return fmt.Errorf("%s %s: that credential is in context %s, and this session is in %s (guard run --context says which)", flag, name, strings.Join(in, ", "), o.Session.Context)
		}
		return fmt.Errorf("%s %s: there is no such credential in context %s; there is: %s", flag, name, o.Session.Context, p.names())
	}
	for _, g := range o.Allow {
		c := p.creds[g.Name]
		if c == nil {
			return nil, unknown("--allow", g.Name)
		}
		if s, err := ParseScope(g.Scope.String()); err != nil || s != g.Scope {
			return nil, fmt.Errorf("--allow %s: bad scope: %w", g.Name, errScope)
		}
		c.grants = append(c.grants, g)
	}
	for _, name := range o.Deny {
		if p.creds[name] == nil {
			return nil, unknown("--deny", name)
		}
		p.deny[name] = true
	}
	if o.OnLeak != nil {
		if *o.OnLeak >= guard.Pass {
			return nil, fmt.Errorf("--on-leak: want kill, block, redact or warn")
		}
		a := *o.OnLeak
		p.onLeak = &a
	}
	if p.egress == "" {
		p.egress = "list"
	}
	if _, ok := egressWidth[p.egress]; !ok {
		return nil, fmt.Errorf("--egress: want list, ask, web or any")
	}
	var err error
	if p.hosts, err = parseHosts("--allow-host", o.AllowHosts); err != nil {
		return nil, err
	}
	if p.logins, err = parseHosts("--allow-login", o.Logins); err != nil {
		return nil, err
	}
	if p.models, err = parseHosts("model host", o.Models); err != nil {
		return nil, err
	}
	for _, n := range p.ports {
		if n < 1 || n > 65535 {
			return nil, fmt.Errorf("--host-port %d is not a port", n)
		}
	}
	for _, r := range p.repo.all() {
		if r.context != "" && r.context != o.Session.Context && !strings.HasPrefix(strings.TrimSuffix(o.Session.Context, "@daemon")+"/", r.context+"/") {
			return nil, fmt.Errorf("%s says another context than %s, which is this session's; only you say which folder belongs to which: guard context add, or guard run --context", r.rule(r.contextLine), o.Session.Context)
		}
	}
	p.entities, p.sessionEntity = actionEntities(), newSessionEntity(o.Session)
	contextEntities(p.entities, o.Session.Context)
	p.options, p.all = o, slices.Clone(creds)
	p.options.Allow, p.options.Budget, p.options.Zone = slices.Clone(o.Allow), p.budget, p.zone
	if err := p.compile(o); err != nil {
		return nil, err
	}
	return p, nil
}

// With is p with further grants, of which what was used counts on. What denies in p
// denies there, too: a grant is never more than --allow would have been.
func (p *Policy) With(more ...Grant) (*Policy, error) {
	if p == nil || p.creds == nil {
		return nil, fmt.Errorf("policy: there is none to add to")
	}
	o := p.options
	o.Allow = append(slices.Clone(o.Allow), more...)
	return New(o, p.all)
}

func parseHosts(flag string, ss []string) (out []hostPattern, err error) {
	for _, s := range ss {
		h, err := parseHost(s)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", flag, err)
		}
		out = append(out, h)
	}
	return out, nil
}

func (p *Policy) names() string {
	var ns []string
	for n := range p.creds {
		ns = append(ns, n)
	}
	if len(ns) == 0 {
		return "none (guard secret set NAME makes one)"
	}
	slices.Sort(ns)
	return strings.Join(ns, ", ")
}

const noRetry = "do not retry another way (--noproxy, another port or client): this is policy, not network"

func refuse(id guard.SecretID, rule, reason string, next ...string) guard.Decision {
	return guard.Decision{Action: guard.Block, Rule: rule, Reason: reason, Secret: id, NextSteps: append(next, noRetry)}
}

// RuleDecoy is the rule by which every use of a decoy is refused.
const RuleDecoy = "decoy"

func decoy(id guard.SecretID) guard.Decision {
	return refuse(id, RuleDecoy, id.Name+" is not to be used: the user has been told", "go on without it")
}

// Login decides whether the agent may have a credential issued at a host with
// nothing of the vault's: by a login of its own (token:login), or by a request that
// makes one (token:mint). --allow-login says yes.
func (p *Policy) Login(u guard.Use) guard.Decision {
	id := guard.SecretID{}
	if p == nil || p.creds == nil || u.Session.ID != p.session.ID || u.Session.Context != p.session.Context {
		return refuse(id, "session", "the request does not come from the session that this policy is for", "tell the user: this is a fault in guard")
	}
	h, ok := canonical(u.Host)
	if ok && u.Port >= 1 && u.Port <= 65535 && (u.Action == "token:login" || u.Action == "token:mint") {
		if d, asked := p.atHost(u, string(u.Channel)); asked || d.Allowed() {
			return d
		}
	}
	at := "this host"
	if ok {
		at = hostPort(h, u.Port)
	}
	what := "a login at " + at + " gives out tokens"
	if u.Action != "token:login" {
		what = "this request makes a credential at " + at
	}
	return refuse(id, u.Action, what+", and what is not allowed is denied; allowed, they go into guard's vault and you get placeholders that work the same",
		"ask the user to start the session with: guard run --allow-login "+strings.TrimSuffix(at, ":443")+" ...",
		"or to store the credential: guard secret set NAME --host "+strings.TrimSuffix(at, ":443"))
}

// ownScopes says whether a credential's own scopes cover an action; a
// credential without any is for whatever its hosts offer, and a scope that
// cannot be read covers nothing.
func ownScopes(own []string, action, resource string, anyResource bool) bool {
	if len(own) == 0 {
		return true
	}
	return slices.ContainsFunc(own, func(s string) bool {
		sc, err := ParseScope(s)
		return err == nil && (sc.Covers(action, resource) || anyResource && sc.verbCovers(action))
	})
}

func scopes(gs []Grant) string {
	var ss []string
	for _, g := range gs {
		ss = append(ss, g.Scope.String())
	}
	return strings.Join(ss, ", ")
}

func on(resource string) string {
	if resource == "" {
		return ""
	}
	if len(resource) > 200 {
		resource = resource[:200] + "..."
	}
	return fmt.Sprintf(" on %q", resource)
}

func orName(s string) string {
	if s == "" {
		return "NAME"
	}
	return s
}

func orContext(s string) string {
	if s == "" {
		return "PROJECT/ENV"
	}
	return s
}

// Explain says in words what the policy says about a credential and an action,
// on any resource, and which rule decides.
func (p *Policy) Explain(name, action string) string {
	id := guard.SecretID{Name: name}
	say := func(d guard.Decision) string {
		return fmt.Sprintf("%s %s: refused by %s: %s\n  next: %s\n", orName(name), action, d.Rule, d.Reason, strings.Join(d.NextSteps, "\n        "))
	}
	if p == nil || p.creds == nil {
		return say(refuse(id, "session", "there is no policy"))
	}
	if !actions[action] {
		return say(refuse(id, "action", "guard does not know this action", "known are "+verbs))
	}
	c := p.creds[name]
	if c == nil {
		return say(refuse(id, "default-deny", "there is no such credential in context "+p.session.Context+"; there is: "+p.names()))
	}
	u := guard.Use{Session: p.session, Credential: c.Credential, Action: action}
	var covering []string
	for _, g := range c.grants {
		if g.Scope.verbCovers(action) {
			covering = append(covering, "--allow "+g.String())
		}
	}
	if p.deny[name] || len(covering) == 0 {
		return say(p.explainRefusal(u))
	}
	if d, denied := p.repoDenies(c.ID()); denied {
		return say(d)
	}
	if !ownScopes(c.Scopes, action, "", true) {
		return say(refuse(c.ID(), "credential scope", name+" itself is only ever for "+strings.Join(c.Scopes, ", "), "guard secret edit "+name+" --scope "+action))
	}
	if d, ok := p.repoUse(c.ID(), action, "", true); !ok {
		return say(d)
	}
	var b strings.Builder
	fmt.Fprintf(&b, "%s %s: allowed by %s\n", name, action, strings.Join(covering, " and "))
	if len(c.Hosts) == 0 {
		b.WriteString("  hosts: none, so that it can be used nowhere (guard secret edit " + name + " --host HOST)\n")
	} else {
		fmt.Fprintf(&b, "  hosts: %s\n", strings.Join(c.Hosts, ", "))
	}
	if len(c.Scopes) > 0 {
		fmt.Fprintf(&b, "  its own scopes: %s\n", strings.Join(c.Scopes, ", "))
	}
	for _, r := range p.repo.all() {
		for _, use := range r.uses {
			if use.name == name && use.scope.verbCovers(action) {
				fmt.Fprintf(&b, "  narrowed by %s: %s\n", r.rule(use.line), use.scope)
			}
		}
	}
	if !c.Expires.IsZero() {
		fmt.Fprintf(&b, "  until: %s\n", c.Expires.UTC().Format(time.RFC3339))
	}
	return b.String()
}

// explainRefusal is Use's refusal of what no grant's verb covers, or --deny names.
func (p *Policy) explainRefusal(u guard.Use) guard.Decision {
	u.Credential.Expires = time.Time{}
	u.Credential.Scopes = nil
	u.Credential.Hosts = []string{"explain.example"}
	u.Host, u.Port = "explain.example", 443
	if u.Action == "exec:run" {
		u.Channel, u.Host, u.Port = guard.ChannelExec, "", 0
	}
	return p.Use(u)
}
