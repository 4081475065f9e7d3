package mongo

import (
	"bufio"
	"bytes"
	"context"
	"crypto/tls"
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"strings"
	"time"

	"guard"
	"guard/broker"
	"guard/vault"
)

// connect reaches the server, and starts reading it.
func (l *link) connect() error {
	ctx, cancel := context.WithTimeout(l.ctx, timeout)
	defer cancel()
	c, err := l.h.Dial(ctx, l.host, l.port)
	if err != nil {
		return err
	}
	if l.secure || !l.plain() {
		t := &tls.Config{}
		if l.h.TLS != nil {
			t = l.h.TLS.Clone()
		}
		t.ServerName, t.MinVersion = l.host, max(t.MinVersion, tls.VersionTLS12)
		s := tls.Client(c, t)
		if err := s.HandshakeContext(ctx); err != nil {
			c.Close()
			return err
		}
		c = s
	}
	l.up = c
	l.unhook = context.AfterFunc(l.ctx, func() { c.Close() })
	l.wg.Go(func() {
		defer l.client.Close()
		_ = l.back()
		c.Close()
		l.mu.Lock()
		defer l.mu.Unlock()
		for _, p := range l.wait {
			if p.ch != nil {
				close(p.ch)
			}
		}
		l.wait = nil
	})
	return nil
}

func (l *link) plain() bool {
	if l.h.Plain != nil {
		return l.h.Plain(l.host, l.port)
	}
	ip := net.ParseIP(l.host)
	return l.host == "localhost" || ip != nil && ip.IsLoopback()
}

func (l *link) failed(err error) string {
	at := fmt.Sprintf("%s:%d", l.host, l.port)
	var cert *tls.CertificateVerificationError
	switch {
	case errors.Is(err, errLogin):
		return "the server at " + at + " refused guard's credential " + l.cred.Name + "; the user can look at it: guard secret show " + l.cred.Name
	case errors.As(err, &cert):
		return "guard cannot tell that the server at " + at + " is the right one: its certificate is not trusted; the user can give its root: guard run --ca FILE"
	}
	return "guard could not reach the server at " + at + "; is it running, does it speak TLS, and does policy allow the host? guard policy explain tells"
}

// ask is a command of guard's own, and its reply.
func (l *link) ask(es ...elem) ([]elem, error) {
	p := &pending{ch: make(chan message, 1)}
	l.mu.Lock()
	if l.wait == nil {
		l.mu.Unlock()
		return nil, errGone
	}
	l.next++
	id := l.next
	l.wait[id] = p
	l.mu.Unlock()
	m := frame(id, 0, opMsg, make([]byte, 5), build(es...))
	err := l.send(m)
	clear(m)
	if err != nil {
		return nil, err
	}
	t := time.NewTimer(timeout)
	defer t.Stop()
	select {
	case m, ok := <-p.ch:
		if !ok || m.op() != opMsg || len(m) < 26 || m[20] != 0 {
			return nil, errGone
		}
		es, _, err := document(m[21:])
		return es, err
	case <-t.C:
	case <-l.ctx.Done():
	}
	return nil, errGone
}

// login logs in upstream through the use line. If the server says no, a rotation may
// be between the issuer's change and the vault's: it asks for the value again, twice.
// What it returns is an error's document.
func (l *link) login(action, db string) []byte {
	for try := 1; ; try++ {
		var upErr error
		sent := false
		d, err := l.h.Use(l.use(action, db), func(v guard.Secret) (string, error) {
			sent = true
			if upErr = l.authenticate(v); upErr != nil {
				return "failed", upErr
			}
			return "connected", nil
		})
		switch {
		case err == nil:
			l.in = true
			v := &view{id: l.cred.ID(), hide: rename{from: l.real, to: l.user}}
			if v.hide.to == "" {
				v.hide.to = l.cred.Name
			}
			l.seen.Store(v)
			return nil
		case !sent || upErr == nil:
			l.refusals++
			return denied(d)
		case errors.Is(upErr, errLogin) && try < 3 && broker.Wait(l.ctx, 150*time.Millisecond):
			l.chosenOrOnly()
			continue
		}
		return failure(18, "AuthenticationFailed", l.failed(upErr))
	}
}

// account is what a value says.
func (l *link) account(v guard.Secret) (user, password, db string) {
	user, db = l.cred.User, l.authDB
	if user == "" {
		user = l.user
	}
	if db == "" {
		db = "admin"
	}
	whole := v.Reveal()
	parts := vault.Parts(v)
	if len(parts) == 0 {
		return user, string(whole), db
	}
	password = string(parts[len(parts)-1].Reveal())
	for _, p := range parts {
		p.Wipe()
	}
	// mongodb://user:password@host/DB?authSource=DB
	if _, rest, ok := bytes.Cut(whole[bytes.LastIndexByte(whole, '@')+1:], []byte("/")); ok {
		path, query, _ := strings.Cut(string(rest), "?")
		if path != "" {
			db = path
		}
		for q := range strings.SplitSeq(query, "&") {
			if source, ok := strings.CutPrefix(q, "authSource="); ok {
				db = source
			}
		}
	}
	return user, password, db
}

func (l *link) authenticate(v guard.Secret) error {
	user, password, db := l.account(v)
	if l.real = user; user == "" {
		return errLogin
	}
	c := newClient(user, password)
	defer func() { c.password = "" }()
	ok := func(es []elem) (payload string, id elem, done bool, err error) {
		n, _ := get(es, "ok")
		if f, is := n.number(); !is || f != 1 {
			return "", id, false, errLogin
		}
		p, _ := get(es, "payload")
		d, _ := get(es, "done")
		f, _ := d.number()
		id, _ = get(es, "conversationId")
		return string(p.data()), id, f == 1, nil
	}
	es, err := l.ask(i32("saslStart", 1), str("mechanism", "SCRAM-SHA-256"), bin("payload", []byte(c.first())), sub(0x03, "options", boolean("skipEmptyExchange", true)), str("$db", db))
	if err != nil {
		return err
	}
	payload, id, done, err := ok(es)
	if err != nil || done {
		return errLogin
	}
	final, err := c.final(payload)
	if err != nil {
		return err
	}
	if es, err = l.ask(i32("saslContinue", 1), id, bin("payload", []byte(final)), str("$db", db)); err != nil {
		return err
	}
	if payload, id, done, err = ok(es); err != nil || !c.proven(payload) {
		return errLogin
	}
	if !done { // before 4.4
		if es, err = l.ask(i32("saslContinue", 1), id, bin("payload", nil), str("$db", db)); err != nil {
			return err
		}
		if _, _, done, err = ok(es); err != nil || !done {
			return errLogin
		}
	}
	return nil
}

// back sends the server's messages to the client.
func (l *link) back() error {
	r := bufio.NewReaderSize(l.up, 64<<10)
	for {
		m, err := readMessage(r)
		if err != nil {
			return err
		}
		l.mu.Lock()
		p := l.wait[m.to()]
		delete(l.wait, m.to())
		l.mu.Unlock()
		if p != nil && p.ch != nil {
			p.ch <- m
			continue
		}
		if m, err = l.reply(m, p); err != nil {
			return err
		}
		if err := l.tell(m); err != nil {
			return err
		}
	}
}

// reply is a server's message as the client gets it.
func (l *link) reply(m message, p *pending) (message, error) {
	at := 0 // of the document
	seen := l.seen.Load()
	switch {
	case m.op() == opReply && len(m) > 36:
		at = 36
	case m.op() == opMsg && len(m) > 21 && m[20] == 0:
		at = 21
	default:
		if m.op() != opMsg || p != nil {
			return nil, errWire
		}
	}
	if at > 0 && len(m) <= maxRewrite {
		es, n, err := document(m[at:])
		if err != nil {
			return nil, errWire
		}
		ok, has := get(es, "ok")
		f, _ := ok.number()
		bad := has && f != 1
		if bad {
			l.errors.Add(1)
		}
		doc := []byte(m[at : at+n])
		out := doc
		if p != nil && p.hello != nil && !bad {
			es = without(es, "compression", "speculativeAuthenticate", "saslSupportedMechs")
			if _, asked := get(p.hello, "saslSupportedMechs"); asked {
				es = append(es, sub(0x04, "saslSupportedMechs", str("0", "SCRAM-SHA-256")))
			}
			out = build(es...)
		}
		hide := rename{}
		if seen != nil {
			hide = seen.hide
		}
		if (bad || p != nil && p.names) && hide.from != "" && hide.from != hide.to && bytes.Contains(out, []byte(hide.from)) {
			if out, err = hide.doc(out, 0); err != nil {
				return nil, err
			}
		}
		if !bytes.Equal(out, doc) {
			head := bytes.Clone(m[16:at])
			rest := m[at+n:]
			if m.op() == opMsg { // without a checksum, which would be wrong
				flags := binary.LittleEndian.Uint32(head)
				if flags&flagChecksum != 0 && len(rest) >= 4 {
					rest = rest[:len(rest)-4]
				}
				binary.LittleEndian.PutUint32(head, flags&^uint32(flagChecksum))
			}
			m = frame(m.id(), m.to(), m.op(), head, out, rest)
		}
	}
	if l.h.Scrub == nil || seen == nil {
		return m, nil
	}
	s, d := l.h.Scrub([]guard.SecretID{seen.id})(m[16:], guard.End)
	if d.Action.Stops() || len(s) != len(m)-16 {
		return nil, errGone
	}
	if bytes.Equal(s, m[16:]) {
		return m, nil
	}
	out := append(bytes.Clone(m[:16]), s...)
	if m.op() == opMsg && len(out) >= 24 { // likewise
		if flags := binary.LittleEndian.Uint32(out[16:]); flags&flagChecksum != 0 {
			out = out[:len(out)-4]
			binary.LittleEndian.PutUint32(out, uint32(len(out)))
			binary.LittleEndian.PutUint32(out[16:], flags&^uint32(flagChecksum))
		}
	}
	return out, nil
}
