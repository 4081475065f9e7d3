package policy

import (
	"fmt"
	"iter"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/cedar-policy/cedar-go"
	"github.com/cedar-policy/cedar-go/ast"
	"github.com/cedar-policy/cedar-go/types"
	xast "github.com/cedar-policy/cedar-go/x/exp/ast"

	"guard"
)

// Types of entities, as guard.cedarschema has them.
const (
	typeAction     = "Action"
	typeContext    = "Context"
	typeSession    = "Session"
	typeCredential = "Credential"
	typeHost       = "Host"
)

// Of several policies that refuse, the one with the lowest rank is told: first what
// nobody but the user can change, then what asks for more than was allowed.
const (
	rankDecoy = iota
	rankAction
	rankKind
	rankDeny
	rankRepoDeny
	rankUser
	rankDefault
	rankContext
	rankExpired
	rankHosts
	rankOwnScope
	rankScope
	rankRepoUse
)

var builtinRanks = map[string]int{"decoy": rankDecoy, "action": rankAction, "credential kind": rankKind, "credential context": rankContext, "credential expired": rankExpired}

// rule is one Cedar policy, where it comes from, and the words for it.
type rule struct {
	id     cedar.PolicyID
	name   string // as Decision.Rule has it
	source string // the flag, or file:line
	rank   int    // of what it refuses
	policy *cedar.Policy
	bare   *cedar.Policy // without what applies has looked at already
	grant  *grant        // of a permit that a flag or guard.toml made
	user   bool          // written in Cedar by the user
	reads  reading       // what its conditions look at
}

// grant is a Grant whose limits are worked out.
type grant struct {
	Grant
	line int // in guard.toml
}

// reading says which attributes a policy looks at.
type reading struct {
	context map[types.String]bool
	whole   bool // the context as a whole
	has     bool // whether the context has something
	exe     bool // principal.exe or principal.exe_sha256
	globs   []string
}

func (r rule) permits() bool { return r.policy.Effect() == cedar.Permit }

// rules is what Cedar is asked to decide by: of an engine, those that apply.
type rules []*rule

// All is of cedar.PolicyIterator.
func (rs rules) All() iter.Seq2[cedar.PolicyID, *cedar.Policy] {
	return func(yield func(cedar.PolicyID, *cedar.Policy) bool) {
		for _, r := range rs {
			if !yield(r.id, r.bare) {
				return
			}
		}
	}
}

func (rs rules) find(id cedar.PolicyID) *rule {
	for _, r := range rs {
		if r.id == id {
			return r
		}
	}
	return nil
}

func (rs rules) add(name, source string, rank int, p *cedar.Policy) (rules, *rule) {
	r := &rule{id: cedar.PolicyID(strconv.Itoa(len(rs))), name: name, source: source, rank: rank, policy: p, bare: bareOf(p), reads: readingOf(p)}
	return append(rs, r), r
}

// bareOf is p for those actions and types of entities that its head names: a set has no
// others, and most of what a policy costs is to look whether an action is in another.
func bareOf(p *cedar.Policy) *cedar.Policy {
	b := *(*xast.Policy)(p.AST())
	b.Action = xast.ScopeTypeAll{}
	if _, ok := b.Resource.(xast.ScopeTypeIs); ok {
		b.Resource = xast.ScopeTypeAll{}
	}
	return cedar.NewPolicyFromAST((*ast.Policy)(&b))
}

// made turns what flags and files say into a rule: text of theirs becomes a value of
// Cedar's, never a part of a policy's text.
func (rs rules) made(name, source string, rank int, p *ast.Policy) (rules, *rule) {
	return rs.add(name, source, rank, cedar.NewPolicyFromAST(p.Annotate("rule", types.String(name)).Annotate("source", types.String(source))))
}

func uid(typ types.EntityType, id string) types.EntityUID {
	return types.NewEntityUID(typ, types.String(id))
}

func contextOf(name types.String) ast.Node { return ast.Context().Access(name) }

// node says whether the context's host and port fit p.
func (p hostPattern) node() ast.Node {
	host := contextOf("host").Equal(ast.String(p.host))
	if p.wild {
		host = contextOf("host").Like(types.NewPattern(types.Wildcard{}, p.host))
	}
	if p.port != 0 {
		return host.And(contextOf("port").Equal(ast.Long(p.port)))
	}
	return host
}

func hostsNode(ps []hostPattern) ast.Node {
	var ns []ast.Node
	for _, p := range ps {
		ns = append(ns, p.node())
	}
	return anyOf(ns)
}

func anyOf(ns []ast.Node) ast.Node {
	if len(ns) == 0 {
		return ast.False()
	}
	n := ns[0]
	for _, m := range ns[1:] {
		n = n.Or(m)
	}
	return n
}

func (s Scope) node() ast.Node {
	n := ast.Action().In(ast.Value(uid(typeAction, s.Verb)))
	if s.Glob != "" {
		n = n.And(contextOf("matches").Contains(ast.String(s.Glob)))
	}
	return n
}

// permit is the policy of a grant, the session's or guard.toml's.
func (g Grant) permit(start time.Time, zone *time.Location) (*ast.Policy, error) {
	p := ast.Permit().ActionIn(uid(typeAction, g.Scope.Verb)).ResourceEq(uid(typeCredential, g.Name))
	if g.Scope.Glob != "" {
		p = p.When(contextOf("matches").Contains(ast.String(g.Scope.Glob)))
	}
	end, err := g.Limits.end(start, zone)
	if err != nil {
		return nil, err
	}
	if !end.IsZero() {
		p = p.When(contextOf("time").LessThan(ast.DatetimeExtensionCall(ast.String(end.UTC().Format("2006-01-02T15:04:05.000Z")))))
	}
	if from, to := g.Limits.From, g.Limits.To; from != to {
		after, before := contextOf("minute").GreaterThanOrEqual(ast.Long(from)), contextOf("minute").LessThan(ast.Long(to))
		if from < to {
			p = p.When(after.And(before))
		} else {
			p = p.When(after.Or(before)) // over midnight
		}
	}
	if g.Limits.Count > 0 || g.Limits.Bytes > 0 {
		p = p.Unless(contextOf("spent").Contains(ast.String(g.String())))
	}
	return p, nil
}

// credentialRules are the policies that come with a credential: where it may go,
// and what it is ever for.
func credentialRules(rs rules, c guard.Credential) rules {
	var hosts []hostPattern
	for _, s := range c.Hosts {
		if h, err := parseHost(s); err == nil {
			hosts = append(hosts, h)
		}
	}
	none := contextOf("host").Equal(ast.String(""))
	protocol := func(c guard.Channel) ast.Node { return contextOf("protocol").Equal(ast.String(string(c))) }
	// A command that the user listed goes to no one host: what it may reach at all is
	// what the credential may. What is signed goes to whoever looks at it; a login by
	// the certificate is a use of its own.
	command := ast.Action().Equal(ast.Value(uid(typeAction, "exec:run"))).And(protocol(guard.ChannelExec))
	signs := ast.Action().In(ast.Set(ast.Value(uid(typeAction, "ssh:sign")), ast.Value(uid(typeAction, "ssh:certify")))).And(protocol(guard.ChannelSSH)).And(none)
	rs, _ = rs.made("credential hosts", "guard secret show "+c.Name, rankHosts,
		ast.Forbid().ResourceEq(uid(typeCredential, c.Name)).Unless(hostsNode(hosts).Or(command).Or(signs)))
	if len(c.Scopes) > 0 {
		var own []ast.Node
		for _, s := range c.Scopes {
			if sc, err := ParseScope(s); err == nil {
				own = append(own, sc.node())
			}
		}
		rs, _ = rs.made("credential scope", "guard secret show "+c.Name, rankOwnScope,
			ast.Forbid().ResourceEq(uid(typeCredential, c.Name)).Unless(anyOf(own)))
	}
	return rs
}

// readingOf looks a policy's conditions through.
func readingOf(p *cedar.Policy) reading {
	r := reading{context: map[types.String]bool{}}
	variables, told := map[types.String]int{}, map[types.String]int{}
	attribute := func(arg xast.IsNode, name types.String) {
		v, ok := arg.(xast.NodeTypeVariable)
		if !ok {
			return
		}
		told[v.Name]++
		switch {
		case v.Name == "context":
			r.context[name] = true
		case v.Name == "principal" && strings.HasPrefix(string(name), "exe"):
			r.exe = true
		}
	}
	literal := func(n xast.IsNode) {
		if v, ok := n.(xast.NodeValue); ok {
			if s, ok := v.Value.(types.String); ok {
				r.globs = append(r.globs, string(s))
			}
		}
	}
	for _, c := range (*xast.Policy)(p.AST()).Conditions {
		xast.Inspect(xast.NewNode(c.Body), func(n xast.IsNode) bool {
			switch n := n.(type) {
			case xast.NodeTypeVariable:
				variables[n.Name]++
			case xast.NodeTypeAccess:
				attribute(n.Arg, n.Value)
			case xast.NodeTypeHas:
				attribute(n.Arg, n.Value)
				if v, ok := n.Arg.(xast.NodeTypeVariable); ok && v.Name == "context" {
					r.has = true
				}
			case xast.NodeTypeContains:
				if isMatches(n.Left) {
					literal(n.Right)
				}
			case xast.NodeTypeContainsAll:
				globsOf(n.BinaryNode, literal)
			case xast.NodeTypeContainsAny:
				globsOf(n.BinaryNode, literal)
			}
			return true
		})
	}
	r.whole = variables["context"] > told["context"]
	return r
}

func isMatches(n xast.IsNode) bool {
	a, ok := n.(xast.NodeTypeAccess)
	if !ok || a.Value != "matches" {
		return false
	}
	v, ok := a.Arg.(xast.NodeTypeVariable)
	return ok && v.Name == "context"
}

func globsOf(n xast.BinaryNode, literal func(xast.IsNode)) {
	if !isMatches(n.Left) {
		return
	}
	switch s := n.Right.(type) {
	case xast.NodeTypeSet:
		for _, e := range s.Elements {
			literal(e)
		}
	case xast.NodeValue:
		if set, ok := s.Value.(types.Set); ok {
			for v := range set.All() {
				literal(xast.NodeValue{Value: v})
			}
		}
	}
}

// applies says whether a rule can say anything about an action and an entity, by what
// stands in its head. An entity without a name is any of its type.
func (r *rule) applies(action string, on types.EntityUID) bool {
	p := (*xast.Policy)(r.policy.AST())
	switch s := p.Resource.(type) {
	case xast.ScopeTypeEq:
		if s.Entity.Type != on.Type || on.ID != "" && s.Entity != on {
			return false
		}
	case xast.ScopeTypeIs:
		if s.Type != on.Type {
			return false
		}
	case xast.ScopeTypeIsIn:
		if s.Type != on.Type {
			return false
		}
	}
	switch s := p.Action.(type) {
	case xast.ScopeTypeEq:
		return s.Entity == uid(typeAction, action)
	case xast.ScopeTypeIn:
		return actionIn(action, s.Entity)
	case xast.ScopeTypeInSet:
		return slices.ContainsFunc(s.Entities, func(e types.EntityUID) bool { return actionIn(action, e) })
	}
	return true
}

func actionIn(action string, group types.EntityUID) bool {
	return group.Type == typeAction && (string(group.ID) == action || Scope{Verb: string(group.ID)}.verbCovers(action))
}

// where names a rule and the place that it comes from, for a person.
func (r *rule) where() string {
	if r.source == "" || r.source == r.name {
		return r.name
	}
	return fmt.Sprintf("%s (%s)", r.name, r.source)
}
