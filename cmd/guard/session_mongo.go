package main

import (
	"crypto/tls"
	"crypto/x509"

	"guard/broker"
	"guard/broker/mongo"
)

// mongoHandler speaks MongoDB's protocol for credentials of that kind.
func (s *session) mongoHandler(line *broker.Line, egress *broker.Egress, roots *x509.CertPool) *mongo.Handler {
	return &mongo.Handler{
		Session: s.info, Credentials: s.credentials, Decide: line.Decide, Use: line.Use, Refused: line.Refuse, Ended: s.recordEnd,
		Dial: egress.Dial, Open: s.line.Open, Plain: egress.Loopback, Scrub: s.scrub, Minted: s.keepMinted,
		TLS: &tls.Config{RootCAs: roots}, GetCertificate: s.leafFor,
	}
}
