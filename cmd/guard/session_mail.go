package main

import (
	"crypto/tls"
	"crypto/x509"

	"guard/broker"
	"guard/broker/mail"
)

// mailHandler speaks SMTP and IMAP for credentials of these kinds.
func (s *session) mailHandler(line *broker.Line, egress *broker.Egress, roots *x509.CertPool) *mail.Handler {
	return &mail.Handler{
		Session: s.info, Credentials: s.credentials, Decide: line.Decide, Use: line.Use, Refused: line.Refuse, Ended: s.recordEnd,
		Dial: egress.Dial, Open: s.line.Open, Plain: egress.Loopback, Scrub: s.scrub, TLS: &tls.Config{RootCAs: roots}, GetCertificate: s.leafFor,
	}
}
