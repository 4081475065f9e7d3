package redis

import (
	"bytes"
	"context"
	"crypto/sha256"
	"crypto/tls"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"net"
	"strconv"
	"strings"
	"time"

	"guard"
	"guard/broker"
	"guard/vault"
)

// serverError is an error reply of the server's: its first word.
type serverError string

func (e serverError) Error() string { return "the server answered " + string(e) }

// login gets the credential through the use line and logs in upstream. If the
// server says that the password is wrong, a rotation may be between the issuer's
// change and the vault's: it asks for the credential again, twice. A refusal is
// an error reply.
func (l *link) login(choose func() (guard.Credential, []byte)) []byte {
	for try := 1; ; try++ {
		cred, refused := choose()
		if refused != nil {
			return refused
		}
		l.cred = cred
		action := "db:query"
		if u := l.use(cred, action); !l.h.Decide(u).Allowed() {
			u.Action = "db:read"
			if l.h.Decide(u).Allowed() {
				action, l.reads = "db:read", true
			}
		}
		u := l.use(cred, action)
		u.Resource = ""
		l.wide = l.h.Decide(u).Allowed()
		var up net.Conn
		var upErr error
		d, err := l.h.Use(l.use(cred, action), func(v guard.Secret) (string, error) {
			up, upErr = l.connect(cred, v)
			return outcome(upErr), upErr
		})
		switch {
		case err == nil && up != nil:
			l.up, l.action = up, action
			l.hide = rename{from: l.realUser, to: l.user}
			if l.user == "" {
				l.hide.to = cred.Name
			}
			return nil
		case upErr == nil:
			if up != nil { // the result could not be recorded
				up.Close()
			}
			return denied(d)
		case isWrong(upErr) && try < 3 && broker.Wait(l.ctx, 150*time.Millisecond):
			l.reads = false
			continue
		}
		return failure(upErr, cred, l.host, l.port)
	}
}

func isWrong(err error) bool {
	var e serverError
	return errors.As(err, &e) && (e == "WRONGPASS" || e == "NOAUTH")
}

func outcome(err error) string {
	var e serverError
	switch {
	case err == nil:
		return "connected"
	case errors.As(err, &e):
		return "failed, " + string(e)
	}
	return "failed"
}

// account is what a value says: the login, the password, and whether it is a URL
// for TLS. Its password is the caller's to wipe.
func account(cred guard.Credential, v guard.Secret) (user string, password []byte, secure bool, err error) {
	user = cred.User
	whole := v.Reveal()
	secure = bytes.HasPrefix(whole, []byte("rediss://"))
	if !secure && !bytes.HasPrefix(whole, []byte("redis://")) {
		return user, bytes.Clone(whole), false, nil
	}
	parts := vault.Parts(v)
	if len(parts) == 0 {
		return "", nil, false, errNoPassword
	}
	password = bytes.Clone(parts[len(parts)-1].Reveal()) // decoded, where that differs
	for _, p := range parts {
		p.Wipe()
	}
	return user, password, secure, nil
}

var (
	errNoPassword = errors.New("the stored URL has no password")
	errPlain      = errors.New("not TLS")
)

// connect dials and logs in.
func (l *link) connect(cred guard.Credential, v guard.Secret) (_ net.Conn, err error) {
	user, password, secure, err := account(cred, v)
	if err != nil {
		return nil, err
	}
	defer clear(password)
	ctx, cancel := context.WithTimeout(l.ctx, l.h.patience())
	defer cancel()
	c, err := l.h.Dial(ctx, l.host, l.port)
	if err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			c.Close()
		}
	}()
	_ = c.SetDeadline(time.Now().Add(l.h.patience()))
	unhook := context.AfterFunc(ctx, func() { c.SetDeadline(time.Now()) })
	defer unhook()
	if secure || l.secure || !l.h.plain(l.host, l.port) {
		t := &tls.Config{}
		if l.h.TLS != nil {
			t = l.h.TLS.Clone()
		}
		t.ServerName, t.MinVersion = l.host, max(t.MinVersion, tls.VersionTLS12)
		s := tls.Client(c, t)
		if err := s.HandshakeContext(ctx); err != nil {
			var record tls.RecordHeaderError
			if errors.As(err, &record) || errors.Is(err, io.EOF) || ctx.Err() != nil { // one that speaks no TLS may wait for more
				return nil, errPlain
			}
			return nil, err
		}
		c = s
	}
	l.realUser = user
	sum := sha256.Sum256(password)
	l.digests[0] = hex.AppendEncode(nil, sum[:])
	placeholder := cred.Placeholder
	if written, _, ok := vault.Part(placeholder); ok {
		placeholder = written
	}
	sum = sha256.Sum256([]byte(placeholder))
	l.digests[1] = hex.AppendEncode(nil, sum[:])

	r := &lineReader{c: c}
	send := authenticate(user, password)
	_, err = c.Write(send)
	clear(send)
	if err != nil {
		return nil, err
	}
	reply, err := r.value()
	if err != nil {
		return nil, err
	}
	// A server that asks for no password, or not of this user, says so.
	if word, rest, _ := strings.Cut(string(reply.text), " "); reply.kind == '-' && !strings.Contains(rest, "without any password configured") && !strings.Contains(rest, "no password is set") {
		if word == "ERR" && strings.Contains(rest, "invalid password") { // before version 6
			word = "WRONGPASS"
		}
		return nil, serverError(code(word))
	}
	if err := l.learn(c, r); err != nil {
		return nil, err
	}
	if len(r.buf) > 0 {
		return nil, errors.New("the server said more than a login")
	}
	_ = c.SetDeadline(time.Time{})
	return c, nil
}

// code keeps an error's first word only if it is one: the rest may quote.
func code(word string) string {
	for _, c := range word {
		if c < 'A' || c > 'Z' {
			return "an error"
		}
	}
	return word
}

func authenticate(user string, password []byte) []byte {
	if user == "" {
		return command([]byte("AUTH"), password)
	}
	return command([]byte("AUTH"), []byte(user), password)
}

// learn asks a server, once in a session, what its commands do.
func (l *link) learn(c net.Conn, r *lineReader) error {
	at := net.JoinHostPort(l.host, strconv.Itoa(l.port))
	l.h.mu.Lock()
	l.table = l.h.tables[at]
	l.h.mu.Unlock()
	if l.table != nil {
		return nil
	}
	if _, err := io.WriteString(c, "*1\r\n$7\r\nCOMMAND\r\n"); err != nil {
		return err
	}
	v, err := r.value()
	if err != nil {
		return err
	}
	l.table = parseTable(v) // of an error: nothing besides what guard knows
	if v.kind != '*' {
		return nil
	}
	l.h.mu.Lock()
	defer l.h.mu.Unlock()
	if l.h.tables == nil {
		l.h.tables = map[string]*table{}
	}
	l.h.tables[at] = l.table
	return nil
}

// lineReader reads replies whole, before the connection is the client's.
type lineReader struct {
	c   net.Conn
	buf []byte
}

// maxReply is far above the reply to COMMAND, which is some 200 KB.
const maxReply = 8 << 20

func (r *lineReader) value() (value, error) {
	var w walker
	p := make([]byte, 32<<10)
	for i := 0; ; {
		for i < len(r.buf) {
			next, whole, err := w.step(r.buf, i)
			if err != nil {
				return value{}, err
			}
			if next < 0 {
				break
			}
			i = next
			if whole {
				v, _, err := parseValue(r.buf[:i], 0, 0)
				r.buf = r.buf[i:]
				return v, err
			}
		}
		if len(r.buf) > maxReply {
			return value{}, errTooLong
		}
		n, err := r.c.Read(p)
		r.buf = append(r.buf, p[:n]...)
		if err != nil && n == 0 {
			return value{}, err
		}
	}
}

func (h *Handler) patience() time.Duration {
	if h.wait > 0 {
		return h.wait
	}
	return handshakeTimeout
}

func (h *Handler) plain(host string, port int) bool {
	if h.Plain != nil {
		return h.Plain(host, port)
	}
	ip := net.ParseIP(host)
	return host == "localhost" || ip != nil && ip.IsLoopback()
}

// failure is what the upstream said, or that it could not be reached, without
// the real user's name.
func failure(err error, cred guard.Credential, host string, port int) []byte {
	at := net.JoinHostPort(host, strconv.Itoa(port))
	var e serverError
	var cert *tls.CertificateVerificationError
	switch {
	case errors.As(err, &e):
		return refusal(fmt.Sprintf("the server at %s refused guard's credential %s (%s)", at, cred.Name, string(e)), "the user can look at it: guard secret show "+cred.Name+"; it may have been rotated outside guard")
	case errors.Is(err, errNoPassword):
		return refusal("the URL that guard holds as "+cred.Name+" has no password, or one that is too short to be kept secret", "the user can store it again: guard secret set "+cred.Name)
	case errors.Is(err, errPlain):
		return refusal("the server at "+at+" does not speak TLS", "guard talks without TLS to this machine's own servers only, and where neither the client nor the URL asks for it")
	case errors.As(err, &cert):
		return refusal("guard cannot tell that the server at "+at+" is the right one: its certificate is not trusted", "the user can give its root: guard run --ca FILE")
	}
	return refusal("guard could not reach the server at "+at, "is it running, and does policy allow the host? guard policy explain tells")
}
