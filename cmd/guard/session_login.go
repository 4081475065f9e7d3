package main

import (
	"crypto/sha256"
	"crypto/tls"
	"encoding/hex"
	"errors"
	"net"
	"strconv"
	"strings"
	"time"

	"guard"
	"guard/matcher"
	"guard/vault"
)

// recordEnd writes what a connection to a database did.
func (s *session) recordEnd(u guard.Use, did string, took time.Duration) {
	r := s.useRecord(u, guard.Decision{Action: guard.Pass})
	r.Type, r.Result, r.DurationMS = "connection.end", did, float64(took.Microseconds())/1000
	if _, err := s.append(r); err != nil {
		s.app.say("the end of a connection could not be recorded: %v", err)
	}
}

// leafFor is the certificate of a database, as clients in the session see it.
func (s *session) leafFor(hello *tls.ClientHelloInfo) (*tls.Certificate, error) {
	if hello.ServerName == "" {
		return s.ca.Leaf("localhost") // an address, or an old client: it cannot verify a name then
	}
	return s.ca.Leaf(hello.ServerName)
}

// keepMinted stores a password that a statement of the agent's sets, before it is
// sent: the agent made it up and knows it, but it is looked for from now on, and can
// be replaced. Record first. A password that cannot be told from other text is
// recorded and not kept.
func (s *session) keepMinted(u guard.Use, user string, password guard.Secret) error {
	defer password.Wipe()
	c := guard.Credential{Context: s.info.Context, Kind: u.Credential.Kind, Hosts: u.Credential.Hosts, Name: mintedName(u, user), User: user}
	weak := matcher.Refuse(password) != nil
	r := s.record("credential.issued")
	r.Credential, r.Channel, r.Host, r.Path, r.Scope, r.PID, r.Exe = c.Name, string(u.Channel), u.Host, u.Path, u.Action, u.PID, u.Exe
	r.Decision, r.Rule, r.Reason = guard.Pass.String(), "token:mint", "a statement sets this password, and the agent knows it"
	if weak {
		r.Result = "not stored: it cannot be told from other text"
	}
	if _, err := s.append(r); err != nil || weak {
		return err
	}
	from := vault.Issued{Login: c.Name, Endpoint: u.Credential.Kind + "://" + net.JoinHostPort(u.Host, strconv.Itoa(u.Port)), Parents: []string{u.Credential.Name}, At: time.Now().UTC()}
	c, err := s.vault.SetIssued(c, password, from)
	if errors.Is(err, vault.ErrExists) {
		return nil // the user keeps one of that name: the record says the rest
	}
	if err != nil {
		return err
	}
	s.logins.mu.Lock()
	told := s.logins.told[c.Name]
	s.logins.told[c.Name], s.logins.here[c.Name] = true, true
	s.logins.mu.Unlock()
	s.refresh()
	if !told {
		s.app.say("a statement at %s sets the password of %s: stored as %s", visible(u.Host), visible(user), c.Name)
	}
	return s.allowIssued()
}

// mintedName names an account at a host.
func mintedName(u guard.Use, user string) string {
	clean := func(r rune) rune {
		if r >= 'a' && r <= 'z' || r >= '0' && r <= '9' || r == '.' || r == '-' {
			return r
		}
		return '-'
	}
	host := strings.Map(clean, strings.ToLower(u.Host))
	if len(host) > 24 {
		host = strings.TrimLeft(host[len(host)-24:], ".-")
	}
	sum := sha256.Sum256([]byte(user))
	name := strings.Trim(strings.Map(clean, strings.ToLower(user)), ".-")
	if len(name) > 16 {
		name = name[:16]
	}
	return "minted-" + host + "-" + name + "-" + hex.EncodeToString(sum[:3])
}
