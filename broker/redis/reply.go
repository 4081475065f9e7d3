package redis

import (
	"bytes"
	"errors"
	"os"
	"sync"
	"time"

	"guard"
)

type entryKind uint8

const (
	pass    entryKind = iota // n replies go to the client
	local                    // text does, when what is before it has
	swallow                  // a reply does not; an error in its place ends the connection
	replace                  // text does, in the place of a reply
	rewrite                  // a reply, with the user's name replaced
)

// entry is what is to be done with the next replies.
type entry struct {
	kind entryKind
	n    int
	text []byte
	last bool // the connection ends with it
}

// queue is what the client's side expects of the server's. An entry is there
// before the command is sent that it is for.
type queue struct {
	mu   sync.Mutex
	list []entry
	held int // bytes of text in it
}

// maxHeld is how many bytes of guard's own answers wait for a client that does not read.
const maxHeld = 32 << 20

func (q *queue) full() bool {
	q.mu.Lock()
	defer q.mu.Unlock()
	return q.held > maxHeld
}

func (q *queue) add(e entry) {
	q.mu.Lock()
	defer q.mu.Unlock()
	if k := len(q.list); e.kind == pass && k > 0 && q.list[k-1].kind == pass {
		q.list[k-1].n += e.n
		return
	}
	q.list = append(q.list, e)
	q.held += len(e.text)
}

// next takes the entry at the front: of kind local only, or whichever it is.
func (q *queue) next(only bool) (e entry, ok bool) {
	q.mu.Lock()
	defer q.mu.Unlock()
	if len(q.list) == 0 || only && q.list[0].kind != local {
		return entry{}, false
	}
	e = q.list[0]
	q.held -= len(e.text)
	if q.list = q.list[1:]; len(q.list) == 0 {
		q.list = nil
	}
	return e, true
}

// reader is the server's side of a connection.
type reader struct {
	l       *link
	hide    rename
	digests [2][]byte
	filter  guard.Filter // scrubs; nil: nothing to
	ids     []guard.SecretID
	version int
	held    int
	tail    []byte // a beginning of digests[0] at the end of what was read
	walk    walker
	cur     entry
	rest    []byte // a header that is not all there, or a reply that is rewritten
	whole   []byte // of a reply that is rewritten
	tooLong bool
}

var errEnd = errors.New("the end")

// scrub looks for the value of a version, too, from here on.
func (r *reader) scrub(version int) {
	if r.version = version; r.l.h.Scrub == nil {
		return
	}
	id := r.l.cred.ID()
	id.Version = version
	r.ids = append(r.ids, id)
	r.filter = r.l.h.Scrub(r.ids)
}

// run moves replies until the server ends, or the client's side is done.
func (r *reader) run() {
	defer r.l.up.Close()
	buf := make([]byte, smallBuffer)
	for {
		n, err := r.l.up.Read(buf)
		if n > 0 {
			if r.take(buf[:n]) != nil {
				return
			}
		}
		if err != nil && !errors.Is(err, os.ErrDeadlineExceeded) {
			_ = r.step(guard.End)
			_ = r.drain()
			return
		}
		if err != nil {
			// A kick. The deadline goes first, so that the next kick is not missed.
			_ = r.l.up.SetReadDeadline(time.Time{})
		}
		if err := r.drain(); err != nil {
			return
		}
		if n == len(buf) && n < bigBuffer {
			buf = make([]byte, bigBuffer)
		}
	}
}

// take looks through bytes of the server's and sends them on.
func (r *reader) take(p []byte) error {
	if r.filter == nil {
		return r.feed(r.swap(p))
	}
	if v := int(r.l.version.Load()); v != r.version {
		if err := r.step(guard.End); err != nil {
			return err
		}
		r.scrub(v)
	}
	if r.held == 0 && len(r.tail) == 0 && r.walk.between() && len(r.rest) == 0 && short(p) {
		return r.feed(p)
	}
	out, d := r.filter(p, guard.More)
	if d.Action.Stops() {
		return errEnd
	}
	r.held += len(p) - len(out)
	if err := r.feed(r.swap(out)); err != nil {
		return err
	}
	if r.held > 0 {
		return r.step(guard.Pause)
	}
	return nil
}

// minValue is how long what the scrubber finds is at least (matcher.Refuse).
const minValue = 8

// short says whether b is whole lines none of which could hold a value: numbers,
// "+OK", short strings.
func short(b []byte) bool {
	for len(b) > 0 {
		k := bytes.IndexByte(b[:min(len(b), minValue+1)], '\n')
		if k < 1 || b[k-1] != '\r' {
			return false
		}
		b = b[k+1:]
	}
	return true
}

// step lets go of what the filter and swap keep: what is less than matters at a
// pause, and everything at the end of a reply, which the client waits for.
func (r *reader) step(s guard.Step) error {
	if r.filter == nil || r.held == 0 {
		return nil
	}
	out, d := r.filter(nil, s)
	if d.Action.Stops() {
		return errEnd
	}
	r.held -= len(out)
	if err := r.feed(r.swap(out)); err != nil || r.held == 0 || s == guard.End {
		return err
	}
	// The end of a reply is no beginning of a value, whatever it looks like.
	if r.walk.skip > int64(r.held) || r.walk.need > 0 {
		return nil
	}
	out, d = r.filter(nil, guard.End)
	if d.Action.Stops() {
		return errEnd
	}
	r.held = 0
	r.filter = r.l.h.Scrub(r.ids)
	return r.feed(r.swap(out))
}

// swap replaces the password's SHA-256, as ACL LIST has it, by that of its
// placeholder. They are equally long, and nothing is kept back: a part of it at
// the end of p is found when the rest comes, and its second part replaced.
func (r *reader) swap(p []byte) []byte {
	d := r.digests[0]
	if len(d) == 0 || len(p) == 0 {
		return p
	}
	if k := len(r.tail); k > 0 {
		// What began before goes on here, or does not.
		n := min(len(d)-k, len(p))
		if bytes.Equal(p[:n], d[k:k+n]) {
			copy(p[:n], r.digests[1][k:])
		}
	}
	for i := 0; ; {
		k := bytes.Index(p[i:], d)
		if k < 0 {
			break
		}
		copy(p[i+k:], r.digests[1])
		i += k + len(d)
	}
	// The end of p may be a beginning.
	joined := p
	if k := len(r.tail); k > 0 && len(p) < len(d) {
		joined = append(bytes.Clone(r.tail), p...)
	}
	r.tail = r.tail[:0]
	for k := min(len(d)-1, len(joined)); k >= 1; k-- {
		if joined[len(joined)-k] == d[0] && bytes.HasPrefix(d, joined[len(joined)-k:]) {
			r.tail = append(r.tail, d[:k]...)
			break
		}
	}
	return p
}

// drain sends what is to be answered without the server.
func (r *reader) drain() error {
	if !r.walk.between() || len(r.rest) > 0 || r.cur.n > 0 {
		return nil
	}
	for {
		e, ok := r.l.queue.next(true)
		if !ok {
			return nil
		}
		if _, err := r.l.client.Write(e.text); err != nil {
			return err
		}
		if e.last {
			return errEnd
		}
	}
}

// feed takes bytes that were looked through.
func (r *reader) feed(b []byte) error {
	if len(b) == 0 {
		return nil
	}
	if len(r.rest) > 0 {
		r.rest = append(r.rest, b...)
		b = r.rest
	}
	start, i := 0, 0
	send := func(to int) error {
		p := b[start:to]
		start = to
		if len(p) == 0 {
			return nil
		}
		switch r.cur.kind {
		case rewrite:
			return r.keep(p)
		case swallow, replace:
			return nil
		}
		_, err := r.l.client.Write(p)
		return err
	}
	for i < len(b) {
		if r.walk.between() {
			if b[i] != '>' && b[i] != '|' && r.cur.n == 0 {
				if err := r.expect(func() error { return send(i) }); err != nil {
					return err
				}
			}
			if b[i] == '>' && r.cur.kind != pass {
				// A push comes between replies, and goes on as it is.
				if err := send(i); err != nil {
					return err
				}
			}
		}
		t := b[i]
		top := r.walk.between()
		next, whole, err := r.walk.step(b, i)
		if err != nil {
			return err
		}
		if next < 0 {
			break
		}
		if t == '-' && (r.walk.skip == 0 || whole) {
			if top {
				r.l.did.errors++
				if r.cur.kind == swallow {
					return errEnd // the login after RESET
				}
			}
			if r.cur.kind == pass && !r.hide.idle() {
				if l := b[i:next]; bytes.Contains(l, []byte(r.hide.from)) {
					if err := send(i); err != nil {
						return err
					}
					start = next
					if _, err := r.l.client.Write(r.hide.words(l)); err != nil {
						return err
					}
				}
			}
		}
		i = next
		if whole && !r.walk.push && r.cur.n > 0 {
			if r.cur.n--; r.cur.n == 0 && r.cur.kind != pass {
				if err := send(i); err != nil {
					return err
				}
				if err := r.finish(); err != nil {
					return err
				}
			}
		}
	}
	if err := send(i); err != nil {
		return err
	}
	r.rest = append(r.rest[:0], b[i:]...)
	return nil
}

// expect takes the next entry, after what is to be answered before it.
func (r *reader) expect(send func() error) error {
	for {
		e, ok := r.l.queue.next(false)
		if !ok { // a server that speaks without being asked: it goes on as it is
			return nil
		}
		if e.kind == pass {
			r.cur = e
			return nil
		}
		if err := send(); err != nil {
			return err
		}
		if e.kind != local {
			r.cur = e
			return nil
		}
		if _, err := r.l.client.Write(e.text); err != nil {
			return err
		}
		if e.last {
			return errEnd
		}
	}
}

func (r *reader) keep(p []byte) error {
	if len(r.whole)+len(p) > maxReply {
		r.tooLong, r.whole = true, nil
		return nil
	}
	if !r.tooLong {
		r.whole = append(r.whole, p...)
	}
	return nil
}

// finish ends an entry that was no pass.
func (r *reader) finish() error {
	e := r.cur
	r.cur = entry{}
	out := e.text
	if e.kind == rewrite {
		v, n, err := parseValue(r.whole, 0, 0)
		switch {
		case r.tooLong:
			out = refusal("guard rewrites the reply of this command, and it is too long", "")
		case err != nil || n != len(r.whole):
			return errFrame
		default:
			out = v.appendTo(nil, r.hide)
		}
		r.whole, r.tooLong = nil, false
	}
	if len(out) == 0 {
		return nil
	}
	_, err := r.l.client.Write(out)
	return err
}
