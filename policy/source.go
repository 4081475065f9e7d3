package policy

import (
	"strings"

	"guard"
)

// IsRule says whether a decision of that rule is this package's: of a use, and not of the
// broker's own checks.
func IsRule(rule string) bool {
	switch rule {
	case "action", "budget", "credential context", "credential expired", "credential hosts", "credential kind", "credential scope", RuleDecoy, "default-deny",
		"flag --allow", "flag --deny", "grant expired", "policy", "scope", "time window":
		return true
	}
	file, line, ok := strings.Cut(rule, ":")
	if !ok || line == "" || strings.Trim(line, "0123456789") != "" {
		return false
	}
	return strings.HasSuffix(file, ".toml") || strings.HasSuffix(file, ".cedar")
}

// Source says where the rule of a decision about u comes from: the flag as it was given,
// or file:line with what the policy is called; "" where it is none of those.
func (p *Policy) Source(u guard.Use, d guard.Decision) string {
	if p == nil || p.creds == nil || u.Credential.Name == "" || !actions[u.Action] {
		return ""
	}
	var any string
	for _, s := range p.setsOf(p.compiledOf(u.Credential), u.Action) {
		for _, r := range s.rules {
			if r.name != d.Rule {
				continue
			}
			if r.name == "flag --allow" && !strings.Contains(d.Reason, r.source+" covers") {
				continue
			}
			if r.source == r.name || any == "" {
				any = r.where()
			}
			if r.name == "flag --allow" || r.name == "flag --deny" {
				return r.source
			}
		}
	}
	return any
}

// ChannelOf is the channel by which a credential of a kind is used, for questions about
// uses that nobody makes.
func ChannelOf(kind, action string) guard.Channel {
	if action == "exec:run" {
		return guard.ChannelExec
	}
	for _, k := range []struct {
		prefix string
		guard.Channel
	}{{"postgres", guard.ChannelPostgres}, {"mysql", guard.ChannelMySQL}, {"redis", guard.ChannelRedis}, {"mongodb", guard.ChannelMongo}, {"smtp", guard.ChannelSMTP}, {"imap", guard.ChannelIMAP}, {"ssh-", guard.ChannelSSH}, {"aws", guard.ChannelAWS}} {
		if strings.HasPrefix(kind, k.prefix) {
			return k.Channel
		}
	}
	if strings.HasPrefix(action, "repo:") {
		return guard.ChannelGit
	}
	return guard.ChannelHTTP
}
