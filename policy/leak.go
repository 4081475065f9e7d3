package policy

import (
	"fmt"
	"slices"

	"guard"
)

// Leak decides what happens to a value on its way out.
//
// A placeholder or decoy is worth nothing, and so no leak on the terminal, in
// files and pipes, towards a model's API, and at the host that its credential
// belongs to; anywhere else on the network it is refused. A decoy is refused at its
// own host, too: going there is its use. A working or retired
// credential is redacted on the terminal, in files (which means: the file is
// replaced by a redacted copy), in pipes and towards a model's API, and blocked on
// the network; --on-leak says otherwise, and guard.toml may be stricter than both.
// A channel that is not known is blocked.
func (p *Policy) Leak(l guard.Leak) guard.Decision {
	if p == nil || p.creds == nil {
		return guard.Decision{Action: guard.Kill, Rule: "session", Reason: "there is no policy", Secret: l.Secret}
	}
	where, known := places[l.Channel]
	model := where == network && (l.Model || p.Model(l.Host, l.Port))
	name := l.Secret.Name
	if l.Class == guard.Decoy && known && where == network && !model {
		return decoy(l.Secret)
	}
	if l.Class == guard.Placeholder || l.Class == guard.Decoy {
		if known && (where != network || model || name != "" && slices.Contains(l.Home, name)) {
			return guard.Decision{Action: guard.Pass, Rule: "placeholder", Secret: l.Secret,
				Reason: fmt.Sprintf("this is the %s of %s, worth nothing outside the session", l.Class, name)}
		}
		return refuse(l.Secret, "placeholder at a foreign host",
			fmt.Sprintf("the %s of %s was on its way to %s, which is not a host of %s", l.Class, name, destination(l), name),
			"send it only to the hosts that guard secret show "+orName(name)+" lists", "guard secret edit "+orName(name)+" --host HOST")
	}
	d := guard.Decision{Secret: l.Secret}
	switch {
	case !known:
		d.Action, d.Rule = guard.Block, "unknown channel"
	case where == network && !model:
		d.Action, d.Rule = guard.Block, "default for the network"
	case model:
		d.Action, d.Rule = guard.Redact, "default for model APIs"
	default:
		d.Action, d.Rule = guard.Redact, "default for "+string(l.Channel)
	}
	if p.onLeak != nil && known {
		d.Action, d.Rule = *p.onLeak, "flag --on-leak"
	}
	for _, r := range p.repo.all() {
		if r.onLeak != nil && *r.onLeak < d.Action {
			d.Action, d.Rule = *r.onLeak, r.rule(r.onLeakLine)
		}
	}
	d.Reason = fmt.Sprintf("the value of %s (%s) was on its way to %s", orName(name), class(l.Class), destination(l))
	d.NextSteps = []string{"use the placeholder of " + orName(name) + " where its value is needed: guard puts the value in on the way to its own hosts"}
	if d.Action.Stops() {
		d.NextSteps = append(d.NextSteps, "do not encode, split or rename it, nor retry another way: this is policy, not network")
	}
	return d
}

type place uint8

const (
	local place = iota
	network
)

// places are the channels that there are.
var places = map[guard.Channel]place{
	guard.ChannelTerminal: local, guard.ChannelFile: local, guard.ChannelPipe: local, guard.ChannelExec: local,
	guard.ChannelSocket: network, guard.ChannelHTTP: network, guard.ChannelGit: network, guard.ChannelSSH: network, guard.ChannelPostgres: network,
	guard.ChannelMySQL: network, guard.ChannelRedis: network, guard.ChannelMongo: network, guard.ChannelSMTP: network, guard.ChannelIMAP: network, guard.ChannelAWS: network,
}

// class treats what is not known as working.
func class(c guard.Class) string {
	if c == guard.Retired {
		return "replaced, dead"
	}
	return "working"
}

func destination(l guard.Leak) string {
	if h, ok := canonical(l.Host); ok {
		return hostPort(h, l.Port)
	}
	if _, ok := places[l.Channel]; ok {
		return "the " + string(l.Channel)
	}
	return "an unknown place"
}

// Model says whether host:port is one of the model APIs of Options.Models.
func (p *Policy) Model(host string, port int) bool {
	if p == nil || len(p.models) == 0 {
		return false
	}
	h, ok := canonical(host)
	return ok && anyMatches(p.models, h, port)
}

// Rotates says whether a leak, decided as d, is a reason to replace the
// credential, and whether the value escaped: it went out, or a part of it had
// gone before. Otherwise guard contained it. Only a working credential is replaced.
func Rotates(l guard.Leak, d guard.Decision) (rotate, escaped bool) {
	switch l.Class {
	case guard.Placeholder, guard.Decoy:
		return false, false
	}
	return l.Class != guard.Retired, l.Partial || d.Action > guard.Redact
}
