package policy

import (
	"fmt"
	"slices"
	"strings"

	"github.com/cedar-policy/cedar-go/ast"

	"guard"
)

// egressWidth orders the modes, the narrowest first.
var egressWidth = map[string]int{"list": 1, "ask": 2, "web": 3, "any": 4}

// kindPorts are the ports of credentials whose host names none, for protocols
// that are not HTTP.
var kindPorts = []struct {
	kind string // prefix of guard.Credential.Kind
	port int
}{{"postgres", 5432}, {"mysql", 3306}, {"mariadb", 3306}, {"redis", 6379}, {"mongodb", 27017}, {"smtp", 587}, {"imap", 993}, {"ssh", 22}}

// Egress decides whether a connection may be made to host:port: Pass or Block.
// proto is "http" or "https" where the broker sees that it is one (and can
// inspect it), "tcp" for bytes that it cannot read. host is a name or an address,
// not resolved; the address that a name leads to is the broker's to judge.
//
//	listed      (--allow-host, --host-port on the loopback, hosts of allowed
//	            credentials): every proto
//	web         http and https to every public host
//	any         everything public
//
// Private and loopback destinations are reached only by --allow-host, --host-port
// or the exact HOST:PORT of an allowed credential; names of a private network also by
// its *.SUFFIX there, such as *.internal. What such a name leads to is judged as well:
// no loopback, no link-local address.
func (p *Policy) Egress(host string, port int, proto string) guard.Decision {
	id := guard.SecretID{}
	h, ok := canonical(host)
	switch {
	case p == nil || p.creds == nil:
		return refuse(id, "session", "there is no policy")
	case !ok || port < 1 || port > 65535:
		return refuse(id, "egress", "the destination is not a host and port that can be read in one way only (ASCII names, ports 1 to 65535)", "use the host's own name or its plain address")
	case proto != "http" && proto != "https" && proto != "tcp":
		return refuse(id, "egress", "the protocol is not one that guard knows", "use HTTP or HTTPS")
	}
	u := guard.Use{Session: p.session, Action: "connect", Host: h, Port: port}
	d, told := p.atHost(u, proto)
	if told || d.Allowed() {
		return d
	}
	return p.sayClosed(h, port, proto)
}

// atHost decides about what is done at a host without a credential: connections and
// logins. told is false where nothing but the lack of a permission refuses it: the
// caller has the words for that.
func (p *Policy) atHost(u guard.Use, proto string) (d guard.Decision, told bool) {
	id := guard.SecretID{}
	h, _ := canonical(u.Host)
	q := newRequest(u, newHostEntity(h))
	q.protocol = proto
	sets := p.hostSets[u.Action]
	a := p.asked(q, sets[0])
	for i, s := range sets {
		v := p.ask(q, s, a)
		repo := p.engines[i].repo
		at := hostPort(h, u.Port)
		switch {
		case v.broken != nil:
			return p.sayBroken(q, v), true
		case len(v.forbids) > 0 && repo != nil && v.forbids[0].name == repo.rule(repo.hostsLine) && repo.hasHosts:
			return refuse(id, v.forbids[0].name, fmt.Sprintf("the project's %s lists the hosts that it needs, and %s is not there", repo.file, at),
				fmt.Sprintf("ask the user to add %q to hosts in %s", h, repo.file)), true
		case len(v.forbids) > 0 && repo != nil:
			return refuse(id, v.forbids[0].name, fmt.Sprintf("the project's %s says egress %s, and %s is not listed", repo.file, repo.mode, at),
				"guard run --allow-host "+at+" ..."), true
		case len(v.forbids) > 0:
			return refuse(id, v.forbids[0].name, fmt.Sprintf("the policy %s forbids %s at %s", v.forbids[0].where(), u.Action, at), "ask the user: it is their policy, guard policy show prints it"), true
		case !v.allowed:
			return refuse(id, "default-deny", at+" is not allowed"), false
		case i > 0:
		default:
			by := v.permits[0]
			d = guard.Decision{Action: guard.Pass, Rule: by.name, Reason: fmt.Sprintf("%s allows %s", by.where(), at)}
			switch by.name {
			case ruleListed:
				d.Rule, d.Reason = p.listed(h, u.Port, proto), at+" is listed"
			case "flag --allow-login":
				d.Reason = "--allow-login names " + at
			case "flag --egress " + p.egress:
				d.Reason = fmt.Sprintf("%s is public, and --egress %s allows %s there", at, p.egress, proto)
			}
		}
	}
	return d, false
}

// ruleListed is how the policy is called that lets connections to listed hosts go.
const ruleListed = "listed"

// egressRules are the user's side: what is listed, and what --egress says.
func (p *Policy) egressRules(rs rules) rules {
	connect := uid(typeAction, "connect")
	public := ast.Not(ast.Resource().Access("private"))
	rs, _ = rs.made(ruleListed, "--allow-host, --host-port, hosts of allowed credentials", rankDefault, ast.Permit().ActionEq(connect).ResourceIs(typeHost).When(contextOf("listed")))
	switch p.egress {
	case "web":
		rs, _ = rs.made("flag --egress web", "--egress web", rankDefault,
			ast.Permit().ActionEq(connect).ResourceIs(typeHost).When(public.And(contextOf("protocol").NotEqual(ast.String("tcp")))))
	case "any":
		rs, _ = rs.made("flag --egress any", "--egress any", rankDefault, ast.Permit().ActionEq(connect).ResourceIs(typeHost).When(public))
	}
	return rs
}

// egressRules are what a guard.toml takes away.
func (r *Repo) egressRules(rs rules) rules {
	connect := uid(typeAction, "connect")
	if r.hasHosts {
		at := r.rule(r.hostsLine)
		rs, _ = rs.made(at, at, rankRepoDeny, ast.Forbid().ActionEq(connect).ResourceIs(typeHost).Unless(hostsNode(r.hosts)))
		return rs
	}
	at := r.rule(r.modeLine)
	switch r.mode {
	case "list", "ask":
		rs, _ = rs.made(at, at, rankRepoDeny, ast.Forbid().ActionEq(connect).ResourceIs(typeHost).Unless(contextOf("listed")))
	case "web":
		rs, _ = rs.made(at, at, rankRepoDeny, ast.Forbid().ActionEq(connect).ResourceIs(typeHost).Unless(contextOf("listed").Or(contextOf("protocol").NotEqual(ast.String("tcp")))))
	}
	return rs
}

// sayClosed says why nothing permits a connection.
func (p *Policy) sayClosed(h string, port int, proto string) guard.Decision {
	id := guard.SecretID{}
	at := hostPort(h, port)
	if why := private(h); why != "" {
		next := []string{"guard run --allow-host " + at + " ..."}
		if loopback(h) {
			next = append(next, fmt.Sprintf("guard run --host-port %d ...", port))
		}
		return refuse(id, "egress private", fmt.Sprintf("%s is %s, which a session reaches only where the user lists it", at, why), next...)
	}
	if p.egress == "web" {
		return refuse(id, "flag --egress web", fmt.Sprintf("guard cannot read what goes to %s, and such connections go only to listed hosts and hosts of allowed credentials", at),
			"use HTTP or HTTPS", "guard run --allow-host "+at+" ...")
	}
	return refuse(id, "flag --egress "+p.egress, fmt.Sprintf("%s is neither listed nor a host of an allowed credential", at), "guard run --allow-host "+at+" ...")
}

// Listed says whether the user named host:port: --allow-host, --host-port on the
// loopback, or an allowed credential's exact HOST:PORT or private *.SUFFIX. Only there may a name
// lead to a private address, or to this machine.
func (p *Policy) Listed(host string, port int) bool {
	h, ok := canonical(host)
	if !ok || p == nil || p.creds == nil || port < 1 || port > 65535 {
		return false
	}
	return p.userListed(h, port) != "" || p.credentialHost(h, port, "tcp", true) != ""
}

func (p *Policy) userListed(h string, port int) string {
	if anyMatches(p.hosts, h, port) {
		return "flag --allow-host"
	}
	if loopback(h) && slices.Contains(p.ports, port) {
		return "flag --host-port"
	}
	return ""
}

// listed returns the rule by which h:port is listed, or "".
func (p *Policy) listed(h string, port int, proto string) string {
	if r := p.userListed(h, port); r != "" {
		return r
	}
	return p.credentialHost(h, port, proto, private(h) != "")
}

// credentialHost returns the rule by which h:port is a host of an allowed
// credential, or "". exact wants the port as the credential has it, and the host too
// where that is not a private network's suffix.
func (p *Policy) credentialHost(h string, port int, proto string, exact bool) string {
	rule := ""
	for name, c := range p.creds {
		if !c.allowed || p.deny[name] {
			continue
		}
		for _, hp := range c.hosts {
			if !hp.matches(h, port) || exact && (hp.wild && !privateSuffix(hp.host) || hp.port == 0 && kindPort(c.Kind) != port) {
				continue
			}
			if hp.port == 0 && proto == "tcp" && kindPort(c.Kind) != port {
				continue
			}
			if r := "host of " + name; rule == "" || r < rule { // maps have no order, rules do
				rule = r
			}
		}
	}
	return rule
}

func kindPort(kind string) int {
	for _, k := range kindPorts {
		if strings.HasPrefix(kind, k.kind) {
			return k.port
		}
	}
	return 0
}
