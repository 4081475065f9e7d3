package main

import (
	"crypto/tls"
	"crypto/x509"
	"net"
	"strconv"

	"guard/broker"
	"guard/broker/mail"
	"guard/broker/mongo"
	"guard/broker/mysql"
	"guard/broker/postgres"
	"guard/broker/redis"
	"guard/broker/ssh"
)

// protocol is what speaks for the credentials of one kind, besides HTTP.
type protocol struct {
	kind  string // of credentials
	port  int    // what a host without one means
	serve broker.Handler
	// allowed: of credentials that the session may use only; others leave their hosts to
	// whatever the agent has itself.
	allowed bool
}

// protocols are those of this session, one line each.
func (s *session) protocols(login broker.Login, gateway *ssh.Gateway) []protocol {
	s.mu.Lock()
	s.pg = &postgres.Handler{Login: login}
	s.mu.Unlock()
	ps := protocolsOf(s.pg, login)
	if gateway != nil {
		ps = append(ps, protocol{ssh.KindKey, 22, gateway.Serve, true}, protocol{ssh.KindCA, 22, gateway.Serve, true})
	}
	return ps
}

// protocolsOf are those of databases and mail.
func protocolsOf(pg *postgres.Handler, login broker.Login) []protocol {
	mailer := &mail.Handler{Login: login}
	return []protocol{
		{"postgres", 5432, pg.Serve, false},
		{"mysql", 3306, (&mysql.Handler{Login: login}).Serve, false},
		{"redis", 6379, (&redis.Handler{Login: login}).Serve, false},
		{"smtp", 587, mailer.SMTP, false},
		{"imap", 993, mailer.IMAP, false},
		{"mongodb", 27017, (&mongo.Handler{Login: login}).Serve, false},
	}
}

// login is what the handlers of protocols are given that log in for the agent.
func (s *session) login(line *broker.Line, egress *broker.Egress, roots *x509.CertPool) broker.Login {
	return broker.Login{
		Session: s.info, Credentials: s.credentials, Decide: line.Decide, Use: line.Use, Refused: line.Refuse,
		Dial: egress.Dial, Open: s.open, Plain: egress.Loopback, Scrub: s.scrub, Minted: s.keepMinted, Ended: s.recordEnd,
		TLS: &tls.Config{RootCAs: roots}, GetCertificate: s.leafFor,
	}
}

// handlers are the protocols besides HTTP, by the hosts of their credentials.
func (s *session) handlers() map[string]broker.Handler { return s.handlersOf(s.speaks) }

func (s *session) handlersOf(speaks []protocol) map[string]broker.Handler {
	hs := map[string]broker.Handler{}
	for _, c := range s.credentials() {
		for _, p := range speaks {
			if c.Kind != p.kind || p.allowed && !s.flags.allows(c.Name) {
				continue
			}
			for _, h := range c.Hosts {
				host, port := splitHostPort(h, p.port)
				hs[net.JoinHostPort(broker.CanonicalHost(host), strconv.Itoa(port))] = s.endsWithLock(p.serve)
			}
		}
	}
	return hs
}
