package http

import (
	"bytes"
	"mime"
	nethttp "net/http"
	"strings"

	"guard"
)

// maxEvent is how long one event, or one JSON value, of a model's reply may be to
// be looked into; maxParts how many texts may be under way at once. Beyond, the
// reply is looked through as it is.
const (
	maxEvent = 32 << 20
	maxParts = 4096
)

// modelReply returns the filter of a reply of a model's API: open's, and where it
// is JSON or server-sent events, one that looks into its strings, and into what
// is put together of those of several events.
func modelReply(h nethttp.Header, open func() guard.Filter) guard.Filter {
	kind, _, err := mime.ParseMediaType(h.Get("Content-Type"))
	raw := tailMasked(open())
	var split splitter
	switch {
	case err != nil:
		return raw
	case kind == "text/event-stream":
		split, raw = new(eventSplit), mended(raw, new(eventMasks).step)
	case kind == "application/json", strings.HasSuffix(kind, "+json"), kind == "application/x-ndjson", kind == "application/jsonl", kind == "application/x-jsonl", kind == "application/json-seq":
		split, raw = new(jsonSplit), keepJSON(raw)
	default:
		return raw
	}
	return chained((&replyTexts{open: open, split: split, parts: map[string]*partText{}}).filter, raw)
}

// splitter finds the events of a reply.
type splitter interface {
	// next is the length of the first event in b, 0 if it is not complete; from is
	// where its JSON begins. It is called with ever more of an event.
	next(b []byte) (n, from int)
	// text is the event with what is not JSON made blank, as long as it was.
	text(event []byte, from int) []byte
}

// eventSplit splits server-sent events (WHATWG HTML, 9.2.6).
type eventSplit struct{ seen int }

func (s *eventSplit) next(b []byte) (int, int) {
	for i := max(s.seen-3, 0); i < len(b); i++ {
		n := 0
		switch rest := b[i:]; {
		case bytes.HasPrefix(rest, []byte("\n\n")), bytes.HasPrefix(rest, []byte("\r\r")), bytes.HasPrefix(rest, []byte("\n\r")):
			n = i + 2
			if n < len(b) && b[n-1] == '\r' && b[n] == '\n' {
				n++
			}
		default:
			continue
		}
		s.seen = 0
		return n, 0
	}
	s.seen = len(b)
	return 0, 0
}

func (s *eventSplit) text(event []byte, _ int) []byte {
	out := bytes.Clone(event)
	blank := func(b []byte) {
		for i := range b {
			b[i] = ' '
		}
	}
	for rest := out; len(rest) > 0; {
		n := bytes.IndexAny(rest, "\r\n") + 1
		if n == 0 {
			n = len(rest)
		}
		line := rest[:n]
		if bytes.HasPrefix(line, []byte("data:")) {
			blank(line[:5])
		} else {
			blank(line)
		}
		rest = rest[n:]
	}
	return out
}

// jsonSplit splits JSON values, those of an array at the top one by one: some
// replies are an array that is sent an element at a time.
type jsonSplit struct {
	pos, depth, start int
	array, in, esc    bool
}

func (s *jsonSplit) next(b []byte) (int, int) {
	for ; s.pos < len(b); s.pos++ {
		c := b[s.pos]
		switch {
		case s.esc:
			s.esc = false
		case s.in:
			s.esc, s.in = c == '\\', c != '"'
		case c == '"':
			s.in = true
		case c == '[' && s.depth == 0 && !s.array:
			s.array = true
		case c == '{', c == '[':
			if s.depth == 0 {
				s.start = s.pos
			}
			s.depth++
		case (c == '}' || c == ']') && s.depth > 0:
			if s.depth--; s.depth == 0 {
				n, from := s.pos+1, s.start
				*s = jsonSplit{array: s.array}
				return n, from
			}
		}
	}
	return 0, 0
}

func (s *jsonSplit) text(event []byte, from int) []byte {
	return append(bytes.Repeat([]byte(" "), from), event[from:]...)
}

// replyTexts is the Filter of a reply that is a sequence of events: each string in
// it is looked through as it reads, and as it goes on in later events. An event
// goes on at once, unless the end of one of its strings may be a value's beginning:
// then it waits for the events that say so, and those behind it wait too. Masks are
// as long as what they hide, in each event.
type replyTexts struct {
	open  func() guard.Filter
	split splitter
	buf   []byte // of an event that is not complete
	queue []*event
	parts map[string]*partText
	out   []byte
	raw   bool // given up
}

type event struct {
	b     []byte
	waits int // strings of it that are not clear
}

// partText is a text that events bring in pieces.
type partText struct {
	scope  string
	f      guard.Filter
	pieces []piece // not clear yet, the oldest first
}

type piece struct {
	ev       *event
	from, to int
	key      string
	text     []byte // as it came
	done     int    // of it, in out
	out      []byte
}

func (r *replyTexts) filter(p []byte, step guard.Step) ([]byte, guard.Decision) {
	r.out = r.out[:0]
	pass := guard.Decision{Action: guard.Pass}
	if r.raw {
		r.out = append(r.out, p...)
		return r.out, pass
	}
	r.buf = append(r.buf, p...)
	for {
		n, from := r.split.next(r.buf)
		if n == 0 {
			break
		}
		if d := r.event(r.buf[:n], from); d.Action.Stops() {
			return nil, d
		}
		r.buf = r.buf[:copy(r.buf, r.buf[n:])]
	}
	if step == guard.End || len(r.buf) > maxEvent {
		if len(r.buf) > 0 {
			if d := r.event(r.buf, 0); d.Action.Stops() {
				return nil, d
			}
			r.buf = r.buf[:0]
		}
		r.raw = true
		if d := r.end(""); d.Action.Stops() {
			return nil, d
		}
	} else if step == guard.Pause {
		for _, t := range r.parts {
			if d := t.step(nil, guard.Pause); d.Action.Stops() {
				return nil, d
			}
		}
	}
	for len(r.queue) > 0 && r.queue[0].waits == 0 {
		r.out = append(r.out, r.queue[0].b...)
		r.queue = r.queue[1:]
	}
	return r.out, pass
}

// event takes one in.
func (r *replyTexts) event(b []byte, from int) guard.Decision {
	e := &event{b: bytes.Clone(b)}
	r.queue = append(r.queue, e)
	doc, ok := parseJSON(r.split.text(e.b, from))
	if !ok { // "[DONE]", or nothing that could be looked into
		return r.end("")
	}
	for _, s := range doc.texts {
		if s.name || s.from == s.to {
			continue
		}
		scope := doc.scopeKey(s.scope)
		key := s.path + "\n" + scope
		t := r.parts[key]
		if t == nil {
			if len(r.parts) >= maxParts {
				if d := r.end(""); d.Action.Stops() {
					return d
				}
			}
			t = &partText{scope: scope, f: keepJSON(tailMasked(r.open()))}
			r.parts[key] = t
		}
		text := decodeJSON(e.b[s.from:s.to])
		e.waits++
		t.pieces = append(t.pieces, piece{ev: e, from: s.from, to: s.to, key: s.key, text: text})
		if d := t.step(text, guard.More); d.Action.Stops() {
			return d
		}
	}
	for i := range doc.scopes {
		if doc.scopes[i].last {
			if d := r.end(doc.scopeKey(int32(i))); d.Action.Stops() {
				return d
			}
		}
	}
	return guard.Decision{Action: guard.Pass}
}

// end ends the texts of scope and of what is inside it.
func (r *replyTexts) end(scope string) guard.Decision {
	for key, t := range r.parts {
		if !strings.HasPrefix(t.scope, scope) {
			continue
		}
		delete(r.parts, key)
		if d := t.step(nil, guard.End); d.Action.Stops() {
			return d
		}
	}
	return guard.Decision{Action: guard.Pass}
}

// step gives the filter more and the pieces what is clear of them.
func (t *partText) step(p []byte, s guard.Step) guard.Decision {
	out, d := t.f(p, s)
	if d.Action.Stops() {
		return d
	}
	n := 0
	for n < len(t.pieces) {
		c := &t.pieces[n]
		k := min(len(c.text)-c.done, len(out))
		if k > 0 && c.out == nil && !bytes.Equal(out[:k], c.text[c.done:c.done+k]) {
			c.out = bytes.Clone(c.text)
		}
		if c.out != nil {
			copy(c.out[c.done:], out[:k])
		}
		c.done += k
		out = out[k:]
		if c.done < len(c.text) {
			break
		}
		if c.out != nil {
			patch(c.key, c.ev.b[c.from:c.to], c.text, c.out)
		}
		c.ev.waits--
		n++
	}
	t.pieces = t.pieces[n:]
	return d
}
