package main

import (
	"crypto/tls"
	"crypto/x509"

	"guard/broker"
	"guard/broker/redis"
)

// redisHandler speaks Redis for credentials of that kind.
func (s *session) redisHandler(line *broker.Line, egress *broker.Egress, roots *x509.CertPool) *redis.Handler {
	return &redis.Handler{
		Session: s.info, Credentials: s.credentials, Decide: line.Decide, Use: line.Use, Refused: line.Refuse,
		Dial: egress.Dial, Open: s.line.Open, Plain: egress.Loopback, Scrub: s.scrub, Minted: s.keepMinted, Ended: s.recordEnd,
		TLS: &tls.Config{RootCAs: roots}, GetCertificate: s.leafFor,
	}
}
