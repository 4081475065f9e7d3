package policy

import (
	"fmt"
	"math"
	"path"
	"slices"
	"strings"

	"github.com/cedar-policy/cedar-go"
	"github.com/cedar-policy/cedar-go/ast"
	"github.com/cedar-policy/cedar-go/types"
	xast "github.com/cedar-policy/cedar-go/x/exp/ast"

	"guard"
)

// Warnings are policies of f that can never match, as far as that can be seen: names
// that no credential has, hosts that none may go to, conditions that contradict each
// other, values in a form that guard never asks with. creds are those of every context.
func (f *File) Warnings(creds []guard.Credential) []Problem {
	var out []Problem
	for _, r := range f.rules {
		n := never{creds: creds, values: map[string]types.Value{}, low: map[string]int64{}, high: map[string]int64{}, likes: map[string][]types.Pattern{}}
		n.head(r)
		for _, c := range (*xast.Policy)(r.policy.AST()).Conditions {
			if c.Condition == xast.ConditionWhen {
				n.all(c.Body)
			} else if v, ok := c.Body.(xast.NodeValue); ok && v.Value == types.True {
				n.say("unless { true } never holds")
			}
		}
		n.end(r)
		for _, g := range r.reads.globs {
			if s, err := ParseScope("read/" + g); err != nil || s.Glob != g {
				n.say(fmt.Sprintf("matches.contains(%s): not a glob that guard knows (no slash at its ends, * ? [a-z] within a part, ** for any number of parts)", quoteText(g)))
			}
		}
		line := r.policy.Position().Line
		for _, w := range n.said {
			out = append(out, Problem{f.Name, line, "never matches: " + w})
		}
		if by := f.shadows(r); by != nil {
			out = append(out, Problem{f.Name, line, fmt.Sprintf("never matches: line %d forbids all of it", by.policy.Position().Line)})
		}
	}
	return out
}

// shadows is a forbid without conditions that covers all that a permit says.
func (f *File) shadows(r *rule) *rule {
	if !r.permits() {
		return nil
	}
	p := (*xast.Policy)(r.policy.AST())
	for _, o := range f.rules {
		q := (*xast.Policy)(o.policy.AST())
		if o.permits() || len(q.Conditions) > 0 {
			continue
		}
		_, anyone := q.Principal.(xast.ScopeTypeAll)
		if anyone && resourceWithin(p.Resource, q.Resource) && actionsWithin(p.Action, o) {
			return o
		}
	}
	return nil
}

func resourceWithin(in, out xast.IsResourceScopeNode) bool {
	switch o := out.(type) {
	case xast.ScopeTypeAll:
		return true
	case xast.ScopeTypeIs:
		switch i := in.(type) {
		case xast.ScopeTypeIs:
			return i.Type == o.Type
		case xast.ScopeTypeEq:
			return i.Entity.Type == o.Type
		}
	case xast.ScopeTypeEq:
		i, ok := in.(xast.ScopeTypeEq)
		return ok && i == o
	}
	return false
}

func actionsWithin(in xast.IsActionScopeNode, o *rule) bool {
	for a := range allActions() {
		in := &rule{policy: withAction(in)}
		if in.applies(a, types.EntityUID{Type: typeCredential}) && !o.applies(a, types.EntityUID{Type: typeCredential}) {
			return false
		}
	}
	return true
}

func withAction(in xast.IsActionScopeNode) *cedar.Policy {
	p := xast.Permit()
	p.Action = in
	return cedar.NewPolicyFromAST((*ast.Policy)(p))
}

// never collects what the conditions of one policy ask for at the same time.
type never struct {
	creds     []guard.Credential
	said      []string
	values    map[string]types.Value
	low, high map[string]int64 // inclusive
	likes     map[string][]types.Pattern
	name      string // of the credential in the head
}

func (n *never) say(s string) {
	if !slices.Contains(n.said, s) {
		n.said = append(n.said, s)
	}
}

func (n *never) head(r *rule) {
	p := (*xast.Policy)(r.policy.AST())
	if s, ok := p.Resource.(xast.ScopeTypeEq); ok && s.Entity.Type == typeCredential {
		n.name = string(s.Entity.ID)
		n.known(n.name)
	}
	switch s := p.Resource.(type) {
	case xast.ScopeTypeIn:
		n.inContext(s.Entity)
	case xast.ScopeTypeIsIn:
		n.inContext(s.Entity)
	}
	switch s := p.Principal.(type) {
	case xast.ScopeTypeIn:
		n.inContext(s.Entity)
	case xast.ScopeTypeIsIn:
		n.inContext(s.Entity)
	}
}

func (n *never) known(name string) {
	if n.creds != nil && !slices.ContainsFunc(n.creds, func(c guard.Credential) bool { return c.Name == name }) {
		n.say("there is no credential " + quoteText(name))
	}
}

func (n *never) inContext(e types.EntityUID) {
	if e.Type == typeContext {
		n.context(string(e.ID))
	}
}

func (n *never) context(name string) {
	if n.creds != nil && !slices.ContainsFunc(n.creds, func(c guard.Credential) bool {
		return c.Context == name || strings.HasPrefix(c.Context, name+"/")
	}) {
		n.say("no credential is in context " + quoteText(name))
	}
}

// all takes what has to hold together.
func (n *never) all(b xast.IsNode) {
	switch b := b.(type) {
	case xast.NodeTypeAnd:
		n.all(b.Left)
		n.all(b.Right)
	case xast.NodeValue:
		if b.Value == types.False {
			n.say("one condition is false")
		}
	case xast.NodeTypeEquals:
		if a, v, ok := attributeAndValue(b.BinaryNode); ok {
			if old, seen := n.values[a]; seen && !old.Equal(v) {
				n.say(a + " would have to be two values at the same time")
			}
			n.values[a] = v
		}
	case xast.NodeTypeLike:
		if a, ok := attributeOf(b.Arg); ok {
			n.likes[a] = append(n.likes[a], b.Value)
		}
	case xast.NodeTypeLessThan:
		n.bound(b.BinaryNode, false, 1)
	case xast.NodeTypeLessThanOrEqual:
		n.bound(b.BinaryNode, false, 0)
	case xast.NodeTypeGreaterThan:
		n.bound(b.BinaryNode, true, 1)
	case xast.NodeTypeGreaterThanOrEqual:
		n.bound(b.BinaryNode, true, 0)
	}
}

// bound takes attribute < value and so on; off is 1 where the value itself is outside.
func (n *never) bound(b xast.BinaryNode, above bool, off int64) {
	a, v, ok := attributeAndValue(b)
	if !ok {
		return
	}
	if _, left := attributeOf(b.Left); !left {
		above = !above
	}
	num, ok := number(v)
	if !ok {
		return
	}
	if above {
		if low, seen := n.low[a]; !seen || num+off > low {
			n.low[a] = num + off
		}
	} else if high, seen := n.high[a]; !seen || num-off < high {
		n.high[a] = num - off
	}
}

func number(v types.Value) (int64, bool) {
	switch v := v.(type) {
	case types.Long:
		if v == math.MaxInt64 || v == math.MinInt64 {
			return 0, false
		}
		return int64(v), true
	case types.Datetime:
		return v.Milliseconds(), true
	}
	return 0, false
}

// natural are bounds that guard keeps to.
var natural = map[string][2]int64{"context.port": {0, 65535}, "context.hour": {0, 23}, "context.minute": {0, 1439}, "context.count": {0, math.MaxInt64}, "context.bytes": {0, math.MaxInt64}}

func (n *never) end(r *rule) {
	for a, v := range n.values {
		if s, ok := v.(types.String); ok {
			for _, l := range n.likes[a] {
				if !l.Match(s) {
					n.say(a + " would have to be one value and like another")
				}
			}
			n.text(a, string(s), r)
		}
		if num, ok := number(v); ok {
			n.within(a, num, num)
		}
	}
	names := map[string]bool{}
	for a := range n.low {
		names[a] = true
	}
	for a := range n.high {
		names[a] = true
	}
	for a := range names {
		low, high := int64(math.MinInt64), int64(math.MaxInt64)
		if v, ok := n.low[a]; ok {
			low = v
		}
		if v, ok := n.high[a]; ok {
			high = v
		}
		n.within(a, low, high)
		if num, ok := number(n.values[a]); ok && (num < low || num > high) {
			n.say(a + " is compared with values that exclude each other")
		}
	}
	slices.Sort(n.said)
}

func (n *never) within(a string, low, high int64) {
	if b, ok := natural[a]; ok {
		low, high = max(low, b[0]), min(high, b[1])
	}
	if low > high {
		n.say(a + " is compared with values that exclude each other")
	}
}

// text judges what a string attribute would have to be.
func (n *never) text(a, s string, r *rule) {
	switch a {
	case "context.host", "resource.name":
		if a == "resource.name" && !n.hostRule(r) {
			n.known(s)
			return
		}
		if h, ok := canonical(s); !ok || h != s {
			n.say(a + " is always in lower case, ASCII (xn-- for other letters), without port or trailing dot")
			return
		}
		if a == "context.host" && !n.hostRule(r) {
			n.reachable(s)
		}
	case "resource.kind":
		if n.creds != nil && !slices.ContainsFunc(n.creds, func(c guard.Credential) bool { return c.Kind == s }) {
			n.say("no credential is of kind " + quoteText(s))
		}
	case "resource.context", "principal.context":
		n.context(s)
	case "context.path":
		if p, ok := normalPath(s); !ok || p != s {
			n.say(a + " is decoded and has no dot segments, double slashes or query")
		}
	case "context.resource":
		if strings.Trim(s, "/") != s || path.Clean("/"+s) != "/"+s || strings.ContainsAny(s, "%\\;?#") {
			n.say(a + " has no slash at its ends, no dot segments and no escapes")
		}
	case "context.method":
		if strings.ToUpper(s) != s {
			n.say(a + " is in capitals")
		}
	case "context.day":
		if !slices.Contains(weekdays[:], s) {
			n.say(a + " is one of " + strings.Join(weekdays[:], ", "))
		}
	case "context.statement":
		if !slices.Contains([]string{"", "read", "write", "unknown", "account"}, s) {
			n.say(a + " is one of read, write, unknown, account")
		}
	case "principal.profile":
		if s != "interactive" && s != "daemon" {
			n.say(a + " is interactive or daemon")
		}
	}
}

// hostRule says whether a policy may be about connections and logins, which go anywhere.
func (n *never) hostRule(r *rule) bool {
	for _, a := range []string{"connect", "token:login", "token:mint"} {
		if r.applies(a, uid(typeHost, "")) {
			return true
		}
	}
	return false
}

// reachable says so if no credential that the policy is about may go to host.
func (n *never) reachable(host string) {
	if n.creds == nil {
		return
	}
	for _, c := range n.creds {
		if n.name != "" && c.Name != n.name {
			continue
		}
		for _, h := range c.Hosts {
			if p, err := parseHost(h); err == nil && (p.matches(host, p.port) || p.port == 0 && p.matches(host, 443)) {
				return
			}
		}
	}
	n.say("no credential may go to " + quoteText(host))
}

func attributeAndValue(b xast.BinaryNode) (string, types.Value, bool) {
	for _, s := range [][2]xast.IsNode{{b.Left, b.Right}, {b.Right, b.Left}} {
		if a, ok := attributeOf(s[0]); ok {
			v, ok := constant(s[1])
			return a, v, ok
		}
	}
	return "", nil, false
}

func constant(n xast.IsNode) (types.Value, bool) {
	switch n := n.(type) {
	case xast.NodeValue:
		return n.Value, true
	case xast.NodeTypeExtensionCall:
		if n.Name == "datetime" && len(n.Args) == 1 {
			if v, ok := n.Args[0].(xast.NodeValue); ok {
				if s, ok := v.Value.(types.String); ok {
					if d, err := types.ParseDatetime(string(s)); err == nil {
						return d, true
					}
				}
			}
		}
	}
	return nil, false
}

func attributeOf(n xast.IsNode) (string, bool) {
	a, ok := n.(xast.NodeTypeAccess)
	if !ok {
		return "", false
	}
	v, ok := a.Arg.(xast.NodeTypeVariable)
	return string(v.Name) + "." + string(a.Value), ok
}

func quoteText(s string) string { return fmt.Sprintf("%q", plainWords(s)) }

func allActions() map[string]bool {
	out := map[string]bool{"connect": true}
	for a := range actions {
		out[a] = true
	}
	return out
}
