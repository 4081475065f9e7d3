package broker

import (
	"bytes"
	"context"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/hex"
	"errors"
	"net"
	"strconv"
	"time"

	"guard"
)

// Login is what a protocol's handler is given that logs in at a server in the
// agent's place: to a database, or to a mail server. Credentials, Decide, Use, Dial and
// Open are needed; without one of them every connection is refused.
type Login struct {
	Session guard.Session
	// Credentials lists the credentials that the session may use; it is asked
	// anew for each login, so that a new version is found.
	Credentials func() []guard.Credential
	// Decide is policy's answer to a use, without a record: Line.Decide.
	Decide func(u guard.Use) guard.Decision
	// Use is the use line: Line.Use.
	Use func(u guard.Use, send func(guard.Secret) (string, error)) (guard.Decision, error)
	// Refused records a command that was refused: Line.Refuse; optional.
	Refused func(u guard.Use, d guard.Decision)
	// Ended records what a connection did, in words without data; optional.
	Ended func(u guard.Use, did string, took time.Duration)
	// Minted takes a password that the agent sets for a user, before it is sent; an
	// error refuses the command. user is "" where the command does not say. Nil: it
	// is not kept.
	Minted func(u guard.Use, user string, password guard.Secret) error
	// Scrub starts a stream in which values become their placeholders; its masks
	// are as long as what they replace. Nil: replies are not looked through.
	Scrub func(ids []guard.SecretID) guard.Filter
	// Dial reaches a host that policy allows: Egress.Dial.
	Dial func(ctx context.Context, host string, port int) (net.Conn, error)
	// Open starts a stream on the leak line.
	Open guard.OpenFilter
	// GetCertificate gives the certificate that clients see; nil: no TLS towards
	// the client.
	GetCertificate func(*tls.ClientHelloInfo) (*tls.Certificate, error)
	// TLS is how to check the upstream's certificate (RootCAs); nil: the system's
	// roots.
	TLS *tls.Config
	// Plain says which servers may be talked to without TLS; nil: loopback only.
	Plain func(host string, port int) bool
}

// UpstreamTLS is how to talk to host. It leaves the judgement about the certificate
// to Trusted: a server of this machine may have any.
func (l *Login) UpstreamTLS(host string) *tls.Config {
	t := &tls.Config{}
	if l.TLS != nil {
		t = l.TLS.Clone()
	}
	t.ServerName, t.InsecureSkipVerify, t.MinVersion = host, true, max(t.MinVersion, tls.VersionTLS12)
	return t
}

// Trusted says whether the certificate of s is one for host that a root vouches for.
func (l *Login) Trusted(s tls.ConnectionState, host string) error {
	if len(s.PeerCertificates) == 0 {
		return errors.New("no certificate")
	}
	opts := x509.VerifyOptions{DNSName: host, Intermediates: x509.NewCertPool()}
	if l.TLS != nil {
		opts.Roots = l.TLS.RootCAs
	}
	for _, c := range s.PeerCertificates[1:] {
		opts.Intermediates.AddCert(c)
	}
	_, err := s.PeerCertificates[0].Verify(opts)
	return err
}

// RequestID names a refusal, for whoever asks about it: the number of its record, or,
// where the handler does not know that, a random one.
func RequestID(d guard.Decision) string {
	if d.Record != 0 {
		return strconv.FormatUint(d.Record, 10)
	}
	var id [8]byte
	_, _ = rand.Read(id[:]) // never fails (crypto/rand)
	return hex.EncodeToString(id[:])
}

// Wait waits for d, and says whether ctx is still there.
func Wait(ctx context.Context, d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
		return false
	case <-t.C:
		return true
	}
}

// ReplaceWord returns b with to for each from that stands as a word of its own: a
// user may be called "a". part says which characters go on a word.
func ReplaceWord(b []byte, from, to string, part func(c byte) bool) []byte {
	if from == "" || from == to || !bytes.Contains(b, []byte(from)) {
		return b
	}
	var out []byte
	for at := 0; ; {
		i := bytes.Index(b[at:], []byte(from))
		if i < 0 {
			return append(out, b[at:]...)
		}
		i += at
		end := i + len(from)
		out = append(out, b[at:i]...)
		if (i == 0 || !part(b[i-1])) && (end == len(b) || !part(b[end])) {
			out = append(out, to...)
		} else {
			out = append(out, b[i:end]...)
		}
		at = end
	}
}
