package redis

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net"
	"sync"
	"sync/atomic"
	"time"

	"guard"
	"guard/broker"
)

const (
	smallBuffer = 4 << 10 // of an idle connection, each way
	bigBuffer   = 64 << 10
)

// link is one connection: the client's side of it, and what both sides know.
type link struct {
	h      *Handler
	ctx    context.Context
	client net.Conn
	secure bool // the client speaks TLS
	host   string
	port   int
	pid    int
	exe    string
	begin  time.Time
	filter guard.Filter
	did    tally

	up       net.Conn // nil: not logged in yet
	unhook   func() bool
	cred     guard.Credential
	action   string    // what the use line allowed
	reads    bool      // it allowed no more than reading
	wide     bool      // on any database
	user     string    // as the client has it; "": it said none
	realUser string    // as the server has it
	hide     rename    // in the server's words
	digests  [2][]byte // SHA-256 of the password and of its placeholder, in hex
	table    *table
	queue    queue
	wg       sync.WaitGroup
	version  atomic.Int64 // of the credential, when a reply was asked for that may hold its value

	db    int
	multi bool
	dirty bool // guard refused a command in MULTI
	loose bool // replies are not counted

	req    request
	rest   []byte // of the client's: a command that is not all there
	held   int    // bytes in the filter
	kept   []byte // those
	stream stream
}

// stream is a command that is longer than what is looked at before it goes on.
type stream struct {
	args int   // that are missing, the one that has begun not among them
	left int64 // of that one, with its line break
	drop bool
}

func (s *stream) on() bool { return s.args > 0 || s.left > 0 }

// serve moves bytes until one side ends. first was read already, with err.
func (l *link) serve(first []byte, err error) {
	buf := first[:cap(first)]
	n := len(first)
	for {
		if n > 0 {
			if ferr := l.take(buf[:n]); ferr != nil {
				if !errors.Is(ferr, errStopped) || l.up == nil {
					return
				}
				l.wg.Wait() // the reader says what is left to say, and closes
				return
			}
		}
		if err != nil {
			if l.up != nil && errors.Is(err, io.EOF) {
				_ = broker.CloseWrite(l.up)
				l.wg.Wait()
			}
			return
		}
		if n == len(buf) && n < bigBuffer {
			buf = make([]byte, bigBuffer)
		}
		n, err = l.client.Read(buf)
	}
}

// close ends both sides, and records what was done.
func (l *link) close() {
	l.client.Close()
	if l.up == nil {
		return
	}
	l.unhook()
	l.up.Close()
	l.wg.Wait()
	if l.h.Ended != nil {
		l.h.Ended(l.use(l.cred, l.action), l.did.String(), time.Since(l.begin))
	}
}

// take judges bytes of the client's and sends on what may go. At the end of a
// command the filter is told of a pause, since the client may wait for the answer;
// if it keeps something then, a new stream begins: what follows is no part of the
// same argument.
func (l *link) take(p []byte) error {
	out, d := l.filter(p, guard.More)
	l.held += len(p) - len(out)
	if err := l.feed(out); err != nil {
		return err
	}
	if d.Action.Stops() {
		return l.stop(d)
	}
	if l.keep(p); l.held == 0 || !l.ends() {
		return nil
	}
	for step := guard.Pause; l.held > 0 && step <= guard.End; step++ {
		out, d := l.filter(nil, step)
		l.held -= len(out)
		l.keep(nil)
		if err := l.feed(out); err != nil {
			return err
		}
		if d.Action.Stops() {
			return l.stop(d)
		}
		if step == guard.End {
			l.held, l.kept = 0, l.kept[:0]
			if l.filter = l.h.Open(l.origin()); l.filter == nil {
				return errFrame
			}
		}
	}
	return nil
}

// keep has in l.kept what the filter holds.
func (l *link) keep(p []byte) {
	if len(p) >= l.held {
		l.kept = append(l.kept[:0], p[len(p)-l.held:]...)
		return
	}
	l.kept = append(l.kept, p...)
	l.kept = l.kept[:copy(l.kept, l.kept[len(l.kept)-l.held:])]
}

// ends says whether what is there, with what the filter holds, ends with a
// command: then the client waits.
func (l *link) ends() bool {
	b := append(bytes.Clone(l.rest), l.kept...)
	s := l.stream
	i, err := s.over(b, 0)
	if err != nil || s.on() {
		return false
	}
	var r request
	for i < len(b) {
		if b[i] != '*' {
			_, next, err := inlineLine(b, i)
			if err != nil || next < 0 {
				return false
			}
			i = next
			continue
		}
		if err := r.parse(b[i:]); err != nil || r.size == 0 {
			return false
		}
		i += r.size
	}
	return true
}

func (l *link) stop(d guard.Decision) error {
	l.did.refused++
	return l.last(stopped(d))
}

// last answers with b in its place, and ends the connection.
func (l *link) last(b []byte) error {
	if l.up == nil {
		_, _ = l.client.Write(b)
		return errStopped
	}
	l.queue.add(entry{kind: local, text: b, last: true})
	l.kick()
	return errStopped
}

// answer answers a command with b in its place.
func (l *link) answer(b []byte) error {
	if l.up == nil {
		_, err := l.client.Write(b)
		return err
	}
	if l.queue.full() {
		return errFrame
	}
	l.queue.add(entry{kind: local, text: b, last: l.loose})
	l.kick()
	if l.loose {
		return errStopped
	}
	return nil
}

// kick has the reader look at the queue.
func (l *link) kick() { _ = l.up.SetReadDeadline(time.Unix(1, 0)) }

func (l *link) protocol(what string) error {
	return l.last([]byte("-ERR Protocol error: " + what + "\r\n"))
}

// feed takes bytes that the filter let go.
func (l *link) feed(b []byte) error {
	if len(b) == 0 {
		return nil
	}
	if len(l.rest) > 0 {
		l.rest = append(l.rest, b...)
		b = l.rest
	}
	start, i, replies := 0, 0, 0
	send := func() error { // b[start:i] goes on
		p := b[start:i]
		start = i
		if replies > 0 {
			l.queue.add(entry{kind: pass, n: replies})
		}
		replies = 0
		if len(p) == 0 {
			return nil
		}
		_, err := l.up.Write(p)
		return err
	}
	for i < len(b) {
		if l.stream.on() {
			next, err := l.stream.over(b, i)
			if err != nil {
				_ = send()
				return l.protocol("invalid bulk length")
			}
			if next == i {
				break
			}
			if l.stream.drop {
				if err := send(); err != nil {
					return err
				}
				start = next
			} else if !l.stream.on() && !l.loose {
				replies++ // only now: one that is cut short is not answered
			}
			i = next
			continue
		}
		var args [][]byte
		size, whole, canonical := 0, true, true
		if b[i] == '*' {
			if err := l.req.parse(b[i:]); err != nil {
				if err := send(); err != nil {
					return err
				}
				return l.protocol("invalid multibulk length or bulk length")
			}
			args, size = l.req.args, l.req.size
			if size == 0 {
				if len(b)-i < looked && (l.req.left < looked || len(args) == 0) {
					break // the rest comes with the next read
				}
				if len(args) == 0 {
					if err := send(); err != nil {
						return err
					}
					return l.protocol("too big a name of a command")
				}
				size, whole = l.req.over, false
			}
		} else {
			text, next, err := inlineLine(b, i)
			if err == nil && next < 0 {
				break
			}
			if err == nil {
				args, err = inline(text)
			}
			if err != nil {
				if err := send(); err != nil {
					return err
				}
				return l.protocol("too big or unbalanced inline request")
			}
			size, canonical = next-i, false
		}
		if len(args) == 0 && whole { // nothing, to which nothing is answered
			if err := send(); err != nil {
				return err
			}
			i += size
			start = i
			continue
		}
		v := l.judge(args, whole)
		if v.login && l.up == nil {
			if no := l.enter(l.pick); no != nil {
				v = verdict{text: no}
			} else {
				v = l.judge(args, whole) // what may go is known now
			}
		}
		if v.text == nil && v.instead == nil && canonical && v.as == pass {
			if !l.loose && whole {
				replies++
			}
			i += size
		} else {
			if err := send(); err != nil {
				return err
			}
			i += size
			start = i
			if err := l.do(v, args); err != nil {
				return err
			}
		}
		if !whole {
			l.stream = stream{args: l.req.argc - len(l.req.args), left: l.req.left, drop: v.text != nil || v.instead != nil}
			if l.req.left > 0 {
				l.stream.args--
			}
		}
	}
	if err := send(); err != nil {
		return err
	}
	l.rest = append(l.rest[:0], b[i:]...)
	if len(l.rest) == 0 && cap(l.rest) > bigBuffer {
		l.rest = nil
	}
	return nil
}

// over goes over what is there of such a command at b[i:].
func (s *stream) over(b []byte, i int) (int, error) {
	for i < len(b) && s.on() {
		if s.left > 0 {
			n := min(s.left, int64(len(b)-i))
			s.left -= n
			i += int(n)
			continue
		}
		if b[i] != '$' {
			return 0, errFrame
		}
		n, next, err := head(b, i)
		if err != nil {
			return 0, err
		}
		if next < 0 {
			return i, nil
		}
		if n < 0 || n > maxBulk {
			return 0, errFrame
		}
		s.args--
		s.left = n + 2
		i = next
	}
	return i, nil
}

// inlineLine ends at a line feed, as Redis has it.
func inlineLine(b []byte, i int) (text []byte, next int, err error) {
	for k := i; k < len(b); k++ {
		if b[k] == '\n' {
			text = b[i:k]
			if n := len(text); n > 0 && text[n-1] == '\r' {
				text = text[:n-1]
			}
			return text, k + 1, nil
		}
	}
	if len(b)-i > maxLine {
		return nil, 0, errFrame
	}
	return nil, -1, nil
}

// enter logs in, and starts the reader.
func (l *link) enter(choose func() (guard.Credential, []byte)) []byte {
	if no := l.login(choose); no != nil {
		l.did.refused++
		return no
	}
	up := l.up
	l.unhook = context.AfterFunc(l.ctx, func() { up.Close() })
	r := &reader{l: l, hide: l.hide, digests: l.digests}
	r.scrub(l.cred.Version)
	l.version.Store(int64(l.cred.Version))
	l.wg.Go(func() {
		defer l.client.Close()
		r.run()
	})
	return nil
}

// current is the version of the credential that is current: a rotation may have
// made another since the login.
func (l *link) current() int {
	for _, c := range l.h.Credentials() {
		if c.Name == l.cred.Name {
			return c.Version
		}
	}
	return l.cred.Version
}

// do carries out a verdict that is not "as it is".
func (l *link) do(v verdict, args [][]byte) error {
	switch {
	case v.text != nil:
		if v.end {
			return l.last(v.text)
		}
		return l.answer(v.text)
	case v.reset:
		return l.reset()
	}
	p := v.instead
	if p == nil {
		p = command(args...)
	}
	if !l.loose {
		l.queue.add(entry{kind: v.as, n: 1, text: v.replace})
	}
	_, err := l.up.Write(p)
	return err
}

// reset passes RESET on, which logs the connection out, and logs in again.
func (l *link) reset() error {
	l.multi, l.dirty, l.db = false, false, 0
	if l.loose {
		return l.last([]byte("+RESET\r\n")) // what is on its way could not be told from the answer
	}
	d, err := l.h.Use(l.use(l.cred, l.action), func(v guard.Secret) (string, error) {
		user, password, _, err := account(l.cred, v)
		if err != nil {
			return "failed", err
		}
		defer clear(password)
		l.queue.add(entry{kind: pass, n: 1})
		l.queue.add(entry{kind: swallow, n: 1})
		send := append([]byte("*1\r\n$5\r\nRESET\r\n"), authenticate(user, password)...)
		defer clear(send)
		if _, err := l.up.Write(send); err != nil {
			return "failed", err
		}
		return "sent", nil
	})
	switch {
	case errors.Is(err, broker.ErrRefused):
		return l.last(denied(d))
	case err != nil:
		return err
	}
	return nil
}
