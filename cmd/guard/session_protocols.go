package main

import (
	"crypto/x509"
	"net"
	"strconv"

	"guard/broker"
	"guard/broker/mysql"
)

// protocol is what speaks for the credentials of one kind, besides HTTP.
type protocol struct {
	kind  string // of credentials
	port  int    // what a host without one means
	serve broker.Handler
}

// protocols are those of this session, one line each. What they need of the
// session is in a file of their own: session_KIND.go, or session_line.go.
func (s *session) protocols(line *broker.Line, egress *broker.Egress, roots *x509.CertPool) []protocol {
	s.mu.Lock()
	s.pg = s.postgresHandler(line, egress, roots)
	s.mu.Unlock()
	login := s.login(line, egress, roots)
	return []protocol{
		{"postgres", 5432, s.pg.Serve},
		{"mysql", 3306, (&mysql.Handler{Login: login}).Serve},
		{"redis", 6379, s.redisHandler(line, egress, roots).Serve},
		{"smtp", 587, s.mailHandler(line, egress, roots).SMTP},
		{"imap", 993, s.mailHandler(line, egress, roots).IMAP},
		{"mongodb", 27017, s.mongoHandler(line, egress, roots).Serve},
	}
}

// handlers are the protocols besides HTTP, by the hosts of their credentials.
func (s *session) handlers() map[string]broker.Handler {
	hs := map[string]broker.Handler{}
	for _, c := range s.credentials() {
		for _, p := range s.speaks {
			if c.Kind != p.kind {
				continue
			}
			for _, h := range c.Hosts {
				host, port := splitHostPort(h, p.port)
				hs[net.JoinHostPort(broker.CanonicalHost(host), strconv.Itoa(port))] = p.serve
			}
		}
	}
	return hs
}
