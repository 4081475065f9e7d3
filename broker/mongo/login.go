package mongo

import (
	"errors"
	"fmt"
	"strings"

	"guard"
	"guard/broker"
	"guard/vault"
)

// chosenOrOnly sets the credential: the one that the client logged in with, or the
// only one. The words are an error's.
func (l *link) chosenOrOnly() (words string) {
	var found []guard.Credential
	var names []string
	for _, c := range l.h.Credentials() {
		if c.Kind == "mongodb" && broker.MatchHost(c.Hosts, l.host, l.port) {
			if l.chosen && c.Name == l.cred.Name {
				l.cred = c
				return ""
			}
			found, names = append(found, c), append(names, c.Name)
		}
	}
	switch {
	case l.chosen:
		return "guard has no credential " + l.cred.Name + " for this host any more"
	case len(found) == 1:
		l.cred = found[0]
		return ""
	case len(found) == 0:
		return fmt.Sprintf("guard has no MongoDB credential for %s:%d in this session; the user can add one: guard run --allow NAME, or guard secret set NAME --kind mongodb --host HOST", l.host, l.port)
	}
	return "several credentials are for this host: log in with the placeholder of one of " + strings.Join(names, ", ")
}

// sasl is guard as the server of a login.
func (l *link) sasl(c *command) ([]byte, error) {
	no := errors.New("guard: this is no placeholder of this session; log in with the placeholder (SCRAM-SHA-256), or not at all")
	payload, _ := get(c.body, "payload")
	reply := func(text string, done bool) []byte {
		return build(i32("conversationId", 1), boolean("done", done), bin("payload", []byte(text)), f64("ok", 1))
	}
	switch c.name {
	case "saslStart":
		mech, _ := get(c.body, "mechanism")
		if mech.text() != "SCRAM-SHA-256" {
			return nil, errors.New("guard takes SCRAM-SHA-256: authMechanism=SCRAM-SHA-256")
		}
		s, err := newLogin(string(payload.data()))
		if err != nil {
			return nil, no
		}
		l.logging, l.step, l.authDB = s, 1, c.db
		return reply(s.challenge, false), nil
	case "saslContinue":
		switch {
		case l.logging != nil && l.step == 1:
			s := l.logging
			l.logging = nil
			for _, cred := range l.h.Credentials() {
				for _, p := range placeholders(cred) {
					proof, ok := s.check(string(payload.data()), p)
					if !ok {
						continue
					}
					if cred.Kind != "mongodb" || !broker.MatchHost(cred.Hosts, l.host, l.port) {
						was := l.cred
						l.cred = cred
						l.refused("db:query", c.db, "saslContinue", guard.Decision{Action: guard.Block, Rule: "placeholder at a foreign host", Reason: "it is no MongoDB credential for this host"})
						l.cred = was
						return nil, errors.New("guard refused the use of credential " + cred.Name + ": it is no MongoDB credential for this host")
					}
					if l.in && cred.Name != l.cred.Name {
						return nil, errors.New("guard: this connection is logged in with " + l.cred.Name)
					}
					l.cred, l.chosen, l.user, l.step = cred, true, s.user, 2
					return reply(proof, false), nil
				}
			}
			return nil, no
		case l.step == 2:
			l.step = 0
			return reply("", true), nil
		}
	}
	return nil, no
}

// placeholders are what stands for a credential's password.
func placeholders(c guard.Credential) []string {
	if c.Placeholder == "" {
		return nil
	}
	out := []string{c.Placeholder}
	if written, decoded, ok := vault.Part(c.Placeholder); ok {
		out = append(out, written, decoded)
	}
	return out
}
