// Package mail serves an agent's connections to mail servers: submission (SMTP,
// RFC 6409) and IMAP (RFC 9051 and 3501). The agent logs in with a placeholder or
// not at all; guard logs in upstream.
//
// Submission, top to bottom (Handler.SMTP):
//
//	TLS from the start (465), or STARTTLS, towards the client and upstream
//	EHLO          -> the server's extensions, with logins and STARTTLS of guard's own
//	AUTH          -> the placeholder, or an error; never sent on
//	MAIL          -> kept until the first recipient that policy allows
//	RCPT          -> policy (mail:send, the address) -> use line -> login -> on
//	DATA          -> through the leak line's filter as it comes; what holds a secret
//	                 is answered with 554, and the server never sees the end of it
//
// IMAP (Handler.IMAP): LOGIN and AUTHENTICATE are answered; then each command is
// looked up, and goes on through the filter. Under a scope that only reads SELECT
// becomes EXAMINE, and what changes a mailbox is refused. A literal goes on only once
// the server asked for it, also where the client does not wait (LITERAL+): so bytes
// that the server does not take for a literal are never there for it to take for
// commands. Lines that servers may read in more than one way are refused.
//
// Encoded words of a message (RFC 2047) go through a filter of their own, decoded and
// joined as who reads them has them.
//
// Commands are lines that end in CR LF and nothing else (a lone CR or LF in one ends
// the connection), and what comes in clear text behind STARTTLS ends it too, on both
// sides. In a message a line of one dot counts as its end only between two CR LF, and
// is refused between anything else (SMTP smuggling). BDAT is not offered, since a
// value may be cut over chunks that are answered one by one.
//
// Upstream, TLS with a certificate that is good is needed, but on this machine.
// Logins are SCRAM-SHA-256, PLAIN, LOGIN or CRAM-MD5, whichever comes first of what
// the server offers, and OAUTHBEARER or XOAUTH2 where the client logs in with one of
// them or the server offers nothing else.
//
// What does not hold: a recipient's scope speaks of the envelope and not of the
// headers; a server that forwards forwards. In IMAP a value in pieces over several
// arguments is not seen in one piece, and what is fetched is not looked through for
// anything but the credential itself.
//
// Goroutines: IMAP starts one, which reads the server, and waits for it.
package mail

import (
	"bufio"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"strings"
	"time"

	"guard"
	"guard/broker"
	"guard/vault"
)

// Handler serves connections to mail servers. Credentials, Decide, Use, Dial and
// Open are needed; without one of them every connection is refused.
type Handler struct {
	broker.Login
}

const (
	timeout     = 30 * time.Second // of a step upstream, before the connection is the client's
	maxLine     = 16 << 10         // of a command
	maxBodyLine = 64 << 10
	silence     = 200 * time.Millisecond // after which a client waits for the server's first word
	brief       = 20 * time.Millisecond  // that on the ports of STARTTLS
	maxRecorded = 100                    // refusals of one connection; more are counted
)

var (
	errLine    = errors.New("a line is too long, or has a lone CR or LF")
	errStopped = errors.New("stopped")
	errInject  = errors.New("bytes in clear text behind STARTTLS")
)

// conn is one side, line by line.
type conn struct {
	net.Conn
	r *bufio.Reader
}

func newConn(c net.Conn) *conn { return &conn{c, bufio.NewReaderSize(c, maxLine)} }

// line reads one line without its CR LF.
func (c *conn) line() (string, error) {
	b, err := c.r.ReadSlice('\n')
	if err != nil {
		if errors.Is(err, bufio.ErrBufferFull) {
			err = errLine
		}
		return "", err
	}
	s, ok := strings.CutSuffix(string(b), "\r\n")
	if !ok || strings.ContainsAny(s, "\r\n\x00") {
		return "", errLine
	}
	return s, nil
}

func (c *conn) say(lines ...string) error {
	_, err := io.WriteString(c.Conn, strings.Join(lines, "\r\n")+"\r\n")
	return err
}

// link is what both protocols have of one connection.
type link struct {
	h        *Handler
	ctx      context.Context
	kind     string // of credentials: "smtp" or "imap"
	channel  guard.Channel
	c        *conn
	raw      net.Conn
	secure   bool // TLS towards the client
	direct   bool // from its first byte
	host     string
	port     int
	pid      int
	exe      string
	begin    time.Time
	refusals int

	up     *conn
	unhook func() bool
	cred   guard.Credential // logged in with, or chosen by AUTH
	chosen bool
	used   bool   // it was sent once
	oauth  bool   // the client logged in with a token
	user   string // as the client has it
	hide   rename
}

// start takes a connection up to its first command.
func (h *Handler) start(ctx context.Context, c net.Conn, host string, port int, kind string, channel guard.Channel, direct int) *link {
	l := &link{h: h, ctx: ctx, kind: kind, channel: channel, raw: c, host: broker.CanonicalHost(host), port: port, begin: time.Now()}
	l.pid, l.exe = broker.Process(c)
	p := broker.Peekable(c)
	wait := silence
	switch port {
	case direct:
		wait = timeout
	case 25, 143, 587: // TLS begins later there, if it does
		wait = brief
	}
	if b, err := p.Peek(1, wait); err == nil && b[0] == 0x16 && h.GetCertificate != nil {
		if c = l.encrypt(p); c == nil {
			return nil
		}
		l.c, l.secure, l.direct = newConn(c), true, true
		return l
	}
	l.c = newConn(p)
	return l
}

func (l *link) encrypt(c net.Conn) net.Conn {
	t := tls.Server(c, &tls.Config{GetCertificate: l.h.GetCertificate, MinVersion: tls.VersionTLS12})
	_ = c.SetDeadline(time.Now().Add(timeout))
	if err := t.HandshakeContext(l.ctx); err != nil {
		return nil
	}
	_ = c.SetDeadline(time.Time{})
	return t
}

func (h *Handler) ready() bool {
	return h.Credentials != nil && h.Decide != nil && h.Use != nil && h.Dial != nil && h.Open != nil
}

// startTLS is the client's, after it was told to go ahead. Nothing may have come
// behind the command.
func (l *link) startTLS() error {
	if l.c.r.Buffered() > 0 {
		return errInject
	}
	c := l.encrypt(l.c.Conn)
	if c == nil {
		return errStopped
	}
	l.c, l.secure = newConn(c), true
	return nil
}

func (l *link) origin() guard.Origin {
	var home []string
	for _, c := range l.h.Credentials() {
		if broker.MatchHost(c.Hosts, l.host, l.port) {
			home = append(home, c.Name)
		}
	}
	return guard.Origin{Channel: l.channel, Source: "broker", PID: l.pid, Exe: l.exe, Host: l.host, Port: l.port, Home: home}
}

// clean judges one line of the client's.
func (l *link) clean(line string) (guard.Decision, bool) {
	f := l.h.Open(l.origin())
	if f == nil {
		return guard.Decision{Rule: "no filter"}, false
	}
	in := line + "\r\n"
	out, d := f([]byte(in), guard.End)
	return d, !d.Action.Stops() && string(out) == in
}

func (l *link) use(c guard.Credential, action, resource string) guard.Use {
	return guard.Use{
		Session: l.h.Session, Credential: c, Channel: l.channel, Action: action, Resource: resource,
		Host: l.host, Port: l.port, PID: l.pid, Exe: l.exe, At: time.Now(),
	}
}

// refused records a refusal. command is a name of guard's own, never the client's text.
func (l *link) refused(c guard.Credential, action, resource, command string, d guard.Decision) {
	if l.refusals++; l.h.Refused == nil || l.refusals > maxRecorded {
		return
	}
	u := l.use(c, action, resource)
	u.Method = command
	d.Secret = c.ID()
	l.h.Refused(u, d)
}

func stands(c guard.Credential, password string) bool {
	if password == "" || c.Placeholder == "" {
		return false
	}
	written, decoded, ok := vault.Part(c.Placeholder)
	return password == c.Placeholder || ok && (password == written || password == decoded)
}

// identify finds the credential whose placeholder a client logs in with; the words
// are an error's.
func (l *link) identify(user, password string) (words string) {
	for _, c := range l.h.Credentials() {
		if !stands(c, password) {
			continue
		}
		if c.Kind != l.kind || !broker.MatchHost(c.Hosts, l.host, l.port) {
			d := guard.Decision{Action: guard.Block, Rule: "placeholder at a foreign host", Reason: fmt.Sprintf("%s is no %s credential for %s:%d", c.Name, l.kind, l.host, l.port)}
			l.refused(c, l.action(), "", "AUTH", d)
			return "guard refused the use of credential " + c.Name + ": " + d.Reason
		}
		l.cred, l.chosen, l.user = c, true, user
		return ""
	}
	return "guard: this is no placeholder of this session; log in with the placeholder, or not at all"
}

func (l *link) action() string {
	if l.kind == "smtp" {
		return "mail:send"
	}
	return "mail:read"
}

// pick is the credential: the one that the client chose, or the only one.
func (l *link) pick() (words string) {
	if l.chosen {
		name := l.cred.Name
		for _, c := range l.h.Credentials() {
			if c.Name == name {
				l.cred = c // its current version
				return ""
			}
		}
		return "guard has no credential " + name + " any more"
	}
	var found []guard.Credential
	var names []string
	for _, c := range l.h.Credentials() {
		if c.Kind == l.kind && broker.MatchHost(c.Hosts, l.host, l.port) {
			found, names = append(found, c), append(names, c.Name)
		}
	}
	switch len(found) {
	case 1:
		l.cred = found[0]
		return ""
	case 0:
		return fmt.Sprintf("guard has no %s credential for %s:%d in this session; the user can add one: guard run --allow NAME, or guard secret set NAME --kind %s --host HOST:PORT", l.kind, l.host, l.port, l.kind)
	}
	return "several credentials are for this host: log in with the placeholder of one of " + strings.Join(names, ", ")
}

// dial reaches the server, with TLS from the start where the client has it so.
func (l *link) dial() (*conn, error) {
	ctx, cancel := context.WithTimeout(l.ctx, timeout)
	defer cancel()
	c, err := l.h.Dial(ctx, l.host, l.port)
	if err != nil {
		return nil, err
	}
	_ = c.SetDeadline(time.Now().Add(timeout))
	if l.direct {
		s := tls.Client(c, l.upstreamTLS())
		if err := s.HandshakeContext(ctx); err != nil {
			c.Close()
			return nil, err
		}
		c = s
	}
	return newConn(c), nil
}

// upgrade is STARTTLS upstream, after the server said yes.
func (l *link) upgrade(up *conn) (*conn, error) {
	if up.r.Buffered() > 0 {
		return nil, errInject
	}
	s := tls.Client(up.Conn, l.upstreamTLS())
	if err := s.HandshakeContext(l.ctx); err != nil {
		return nil, err
	}
	return newConn(s), nil
}

func (l *link) upstreamTLS() *tls.Config {
	t := &tls.Config{}
	if l.h.TLS != nil {
		t = l.h.TLS.Clone()
	}
	t.ServerName, t.MinVersion = l.host, max(t.MinVersion, tls.VersionTLS12)
	return t
}

func (l *link) plain() bool {
	if l.h.Plain != nil {
		return l.h.Plain(l.host, l.port)
	}
	ip := net.ParseIP(l.host)
	return l.host == "localhost" || ip != nil && ip.IsLoopback()
}

// attach makes up the connection's upstream.
func (l *link) attach(up *conn) {
	l.up = up
	l.unhook = context.AfterFunc(l.ctx, func() { up.Close() })
}

func (l *link) detach() {
	if l.up != nil {
		l.unhook()
		l.up.Close()
		l.up = nil
	}
}

// scrubbed is a line of the server's without value and real user.
func (l *link) scrubbed(s string) string {
	if l.used && l.h.Scrub != nil {
		out, d := l.h.Scrub([]guard.SecretID{l.cred.ID()})([]byte(s), guard.End)
		if d.Action.Stops() {
			return "(not shown: it could not be looked through)"
		}
		s = string(out)
	}
	return l.hide.words(s)
}

// oneLine keeps guard's own words to one line of a reply.
func oneLine(parts ...string) string {
	return strings.Map(func(r rune) rune {
		if r < ' ' || r == 0x7f || r > 0x7e {
			return ' '
		}
		return r
	}, strings.Join(parts, "; "))
}

func denied(d guard.Decision) string {
	return oneLine(append([]string{"guard refused the use of credential " + d.Secret.Name + ": " + d.Reason}, append(d.NextSteps, fmt.Sprintf("layer: broker, rule: %s, request: %s", d.Rule, broker.RequestID(d)))...)...)
}

func stopped(d guard.Decision) string {
	m := "guard stopped this: it holds a secret"
	if d.Secret.Name != "" {
		m += " (" + d.Secret.Name + ")"
	}
	return oneLine(append([]string{m, d.Reason}, append(d.NextSteps, fmt.Sprintf("layer: leak, rule: %s, request: %s", d.Rule, broker.RequestID(d)))...)...)
}

// failed says why the server could not be logged in to, without its words.
func (l *link) failed(err error) string {
	at := fmt.Sprintf("%s:%d", l.host, l.port)
	var cert *tls.CertificateVerificationError
	switch {
	case errors.Is(err, errLogin):
		return "the server at " + at + " refused guard's credential " + l.cred.Name + "; the user can look at it: guard secret show " + l.cred.Name
	case errors.Is(err, errMechanism):
		return "the server at " + at + " offers no login that guard has"
	case errors.Is(err, errPlain):
		return "the server at " + at + " offers no TLS; guard talks without TLS to this machine's own servers only"
	case errors.Is(err, errInject):
		return "the server at " + at + " said something in clear text behind STARTTLS"
	case errors.As(err, &cert):
		return "guard cannot tell that the server at " + at + " is the right one: its certificate is not trusted; the user can give its root: guard run --ca FILE"
	}
	return "guard could not reach the server at " + at + "; is it running, and does policy allow the host? guard policy explain tells"
}

func outcome(err error) string {
	switch {
	case err == nil:
		return "connected"
	case errors.Is(err, errLogin):
		return "failed, login refused"
	}
	return "failed"
}

// rename replaces the real login by the client's in what the server says.
type rename struct{ from, to string }

func (r rename) words(s string) string {
	if r.from == "" || r.from == r.to {
		return s
	}
	return strings.ReplaceAll(s, r.from, r.to)
}
