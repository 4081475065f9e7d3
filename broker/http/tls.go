package http

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"os"
	"strings"

	"guard/broker"
)

// Roots returns the roots that upstream certificates are verified against: the
// system's and those of files (PEM).
func Roots(files ...string) (*x509.CertPool, error) {
	pool, err := x509.SystemCertPool()
	if err != nil {
		return nil, fmt.Errorf("read the system's root certificates: %w", err)
	}
	for _, f := range files {
		b, err := os.ReadFile(f)
		if err != nil {
			return nil, fmt.Errorf("read root certificates: %w", err)
		}
		if !pool.AppendCertsFromPEM(b) {
			return nil, fmt.Errorf("%s holds no PEM certificate", f)
		}
	}
	return pool, nil
}

// serverTLS ends a client's TLS for host and for no other name: a client that
// names another in SNI than the one it asked the DNS for is refused, which is
// domain fronting.
func (p *Proxy) serverTLS(host string) *tls.Config {
	return &tls.Config{
		MinVersion: tls.VersionTLS12,
		NextProtos: []string{"h2", "http/1.1"},
		GetCertificate: func(hello *tls.ClientHelloInfo) (*tls.Certificate, error) {
			if hello.ServerName != "" && broker.CanonicalHost(hello.ServerName) != host {
				return nil, errFronting
			}
			return p.cfg.CA.Leaf(host)
		},
		// A ticket made for one name must not resume under another.
		SessionTicketsDisabled: true,
	}
}

var errFronting = errors.New("the TLS server name is not the host that was asked for")

func isCertError(err error) bool {
	var (
		verify  *tls.CertificateVerificationError
		unknown x509.UnknownAuthorityError
		host    x509.HostnameError
		invalid x509.CertificateInvalidError
		record  tls.RecordHeaderError
	)
	return errors.As(err, &verify) || errors.As(err, &unknown) || errors.As(err, &host) || errors.As(err, &invalid) ||
		errors.As(err, &record) || strings.Contains(err.Error(), "tls: ")
}

func certReason(err error, at string) string {
	var (
		unknown x509.UnknownAuthorityError
		host    x509.HostnameError
		invalid x509.CertificateInvalidError
	)
	switch {
	case errors.Is(err, errPin):
		return "the certificate of " + at + " has none of the keys that the user pinned"
	case errors.As(err, &unknown):
		return "the certificate of " + at + " is signed by an authority that is not trusted"
	case errors.As(err, &host):
		return "the certificate of " + at + " is for another name"
	case errors.As(err, &invalid) && invalid.Reason == x509.Expired:
		return "the certificate of " + at + " has expired or is not valid yet"
	case errors.As(err, &invalid):
		return "the certificate of " + at + " is not valid"
	}
	return "no TLS connection to " + at + " could be made"
}
