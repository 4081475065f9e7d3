package matcher

import (
	"bytes"
	"encoding/binary"
	"unicode/utf8"
)

const (
	glance  = 4        // bytes without an escape after which a view asks for the first time whether it is needed,
	quiet   = 64       // and between later times
	gulp    = 4 << 10  // bytes that a view takes before it searches
	maxSpan = 16 << 10 // bytes of the stream that a view may hold back

	patience = 16 // escapes until a view asks again whether nothing goes on where it is
	nearby   = 24 // bytes in which the next escape is looked for byte by byte first
	lookBack = 12 // bytes: the longest escape that stands for a character has less
)

// view is a stream with its escapes decoded: those of URLs, of string literals,
// of HTML and of terminals, in one pass. It copies only from an escape on, and
// until no needle that begins before the last escape can be complete any more;
// and finds only what has an escape in it. The rest is in the stream itself.
// What it does depends on the bytes alone, not on how they are cut.
type view struct {
	window
	lang    *lang
	classes *classes // of the text that write is given; nil: not known
	active  bool
	depth   int   // 2: what it decoded is decoded again
	shift   int   // of marks: 0, or markCount for the view of a view
	quiet   int   // bytes until the next question
	last    int   // a hit with an escape begins at b[last] or before it
	cut     marks // of what was removed at the end of b
	pend    text  // the beginning of an escape
	fold    *fold // of what it decoded, without line breaks; nil: it was never active, see hang
	next    *view // of what it decoded, decoded again; as well
	below   int64 // next.floor, where there is no next
	fed     int   // b[:fed] is with these two
	blind   int64 // see crosses
	busy    int   // escapes until it is asked again whether nothing goes on there
}

// newView makes a view of a stream, and, with depth 2, the one of that one, in
// which the escapes of strings are decoded.
func newView(l *lang, depth, level int, as string) *view {
	v := &view{}
	v.init(l, depth, level*markCount, as)
	return v
}

func (v *view) init(l *lang, depth, shift int, as string) {
	v.lang, v.depth, v.shift = l, depth, shift
	v.own, v.lean, v.back, v.as = level1<<shift, shift > 0, lookBack, as
	if l == &brokenLang {
		v.own, v.flat = markWrapped, true
	}
}

// hang makes what hangs on the view: most of them are never active.
func (v *view) hang() {
	if v.fold != nil {
		return
	}
	v.fold = &fold{}
	v.fold.init(v)
	if v.depth > 1 {
		v.next = newView(&escapeLang, v.depth-1, v.shift/markCount+1, v.as)
		v.next.floor = v.below
	}
}

// init makes f the fold of v.
func (f *fold) init(v *view) {
	f.and, f.lean, f.as = v.own, true, v.as
	if v.lang == &brokenLang {
		f.min = 1 << 30 // this view has no line breaks but those that end a value
	}
}

// sink has nothing begin before at in what was decoded again.
func (v *view) sink(at int64) {
	if v.below = at; v.next != nil {
		v.next.floor = at
	}
}

// places remembers where the next of each introducer is.
type places [len(introducers)]int

// next is the place of the first introducer in b[i:to] that opens, or to. from is where b
// was first asked.
func (p *places) next(g *gate, b []byte, i, to int, l *lang, m *classes) int {
	if m != nil && i < to {
		switch l.kind {
		case langJoined:
			return nextQuote(g, b, i, to, m)
		case langHidden:
			return m.sift(g, b, classNoise).after(m, i)
		case langEscape:
			if !m.crowded {
				return m.sift(g, b, classEscape).after(m, i)
			}
		}
		return m.nextOf(b, i, to, l)
	}
	if l != &escapeLang {
		for ; i < to; i++ {
			if l.intro[b[i]] && (i+1 >= to || l.opens(b[i], b[i+1])) {
				return i
			}
		}
		return to
	}
	for near := min(to, i+nearby); i < near; i++ {
		if c := b[i]; special[c]&1 != 0 && (i+1 >= to || opens(c, b[i+1])) {
			return i
		}
	}
	best := to
	for k := range p {
		if p[k] < i {
			c, at := introducers[k], i
			for {
				n := bytes.IndexByte(b[at:to], c)
				if n < 0 {
					at = to
					break
				}
				if at += n; at+1 >= to || opens(c, b[at+1]) {
					break
				}
				at++ // it only looks like one
			}
			p[k] = at
		}
		best = min(best, p[k])
	}
	return best
}

// write takes s.b[from:to], which follows prev if from is 0, and adds hits that
// end in it.
func (v *view) write(set *set, prev, s *text, from, to int, hits []Hit) []Hit {
	i := from
	if old := len(v.pend.b); old > 0 {
		// One escape needs no more than that to be told.
		took := min(to-from, maxString+8)
		v.pend.add(s, from, from+took, 0)
		joined := v.pend
		v.pend = text{}
		before := text{b: prev.b[:max(0, len(prev.b)-old)], segs: prev.segs}
		if from > 0 {
			before = text{b: s.b[:max(0, from-old)], segs: s.segs}
		}
		var end int
		c := v.classes
		v.classes = nil
		end, hits = v.run(set, &before, &joined, 0, len(joined.b), old, hits)
		v.classes = c
		if len(v.pend.b) == 0 {
			v.pend = text{b: joined.b[:0], segs: joined.segs[:0]}
		}
		i = from + end - old
	}
	if i < to {
		_, hits = v.run(set, prev, s, i, to, to, hits)
	}
	if v.active {
		hits = v.flush(set, hits)
		if end := s.end(to - 1); end-v.safe(end) > maxSpan {
			v.stop() // blown up: no needle is that long, whatever it is written in
		}
	}
	return hits
}

// run works through s.b[from:to] until stop or later, and returns where it is.
func (v *view) run(set *set, prev, s *text, from, to, stop int, hits []Hit) (int, []Hit) {
	var at places
	for k := range at {
		at[k] = -1
	}
	b := s.b
	floor := 0     // if it is not 0, v.floor is before b[floor]
	looked := from // there is no escape in the lookBack bytes before i that may yet come out, if this is before them
	var out [utf8.UTFMax]byte
	i := from
	for i < to {
		if i >= stop {
			break
		}
		if !v.active {
			if v.lang == &brokenLang {
				i = nextBreak(set.gate, b, i, to, v.classes)
			} else {
				i = at.next(set.gate, b, i, to, v.lang, v.classes)
			}
			if i == to {
				break
			}
			if m := v.classes; m != nil && v.lang == &escapeLang && !m.crowded {
				if s := &m.sifted[2]; s.floors[s.next] > 0 {
					floor = max(floor, m.from+int(s.floors[s.next]))
				}
				if m.near(i) {
					looked = i - 1 // it may not have been looked at
				}
			}
			verdict, n, size, _ := v.lang.token(b[i:to], &out)
			if verdict == no {
				looked = i
				i++
				continue
			}
			if v.lang != &escapeLang {
				if verdict != more && v.passes(set, prev, s, i, i+n, to, out[:size]) {
					i += n
					continue
				}
				if verdict == more && v.lang == &brokenLang && v.idle(set, prev, s, i) {
					i = to // no needle goes on after it, whatever comes
					break
				}
			} else if verdict == removed {
				n, _ = nothings(b[:to], i+n, 0)
				n -= i
			}
			if v.lang != &escapeLang {
			} else if (verdict == decoded || verdict == removed) && i-looked > lookBack && set.gate.apart(b[:to], floor, i, i+n, out[:size]) {
				i += n
				floor = i
				continue
			}
			if floor > 0 {
				v.floor, floor = max(v.floor, s.end(floor-1)), 0
			}
			if verdict > no && v.lang == &escapeLang {
				if end, closed := v.closed(set, prev, s, i, i+n, to, looked, verdict, out[:size]); closed {
					if v.floor = s.end(i + n - 1); verdict == erase {
						v.floor = s.end(end - 1)
					}
					i = end                // what makes an escape with this one may begin a needle all the same,
					v.sink(s.end(end - 1)) // but not when it is decoded again
					continue
				}
			}
			v.hang()
			v.quiet = glance
			v.seed(set, prev, s, i)
			v.active, v.last, v.cut, v.fed, v.busy = true, -1, 0, len(v.b)-open(v.b), 0
		}
		if !v.lang.intro[b[i]] {
			j, limit := i+1, min(to, i+v.quiet)
			for j < limit && !v.lang.intro[b[j]] {
				j++
			}
			v.add(s, i, j, v.cut)
			v.cut = 0
			v.quiet -= j - i
			i = j
			if v.quiet == 0 {
				hits = v.question(set, b[i:to], hits)
			}
			continue
		}
		verdict, n, size, kind := v.lang.token(b[i:to], &out)
		if v.lang == &joinedLang && verdict == removed {
			// A quote of the value's own stays.
			v.b = append(v.b, b[i])
			if set.begin.hold(v.b) > 1 {
				verdict = no
			}
			v.b = v.b[:len(v.b)-1]
		}
		if v.lang == &escapeLang && verdict == removed {
			n, kind = nothings(b[:to], i+n, kind)
			n -= i
		}
		if v.busy > 0 {
			v.busy--
		} else if v.lang == &escapeLang && (verdict == removed || verdict == decoded) && !pending(v.b[max(0, len(v.b)-lookBack):]) {
			if extra, ok := settled(out[:size], b[i+n:to]); ok && !v.crosses(set.gate, s, v.b, out[:size], i+n, to) {
				if hits = v.flush(set, hits); v.calm() {
					v.stop() // nothing goes on here
					v.floor = s.end(i + n - 1)
					i += n + extra
					v.sink(s.end(i - 1))
					looked = i
					continue
				}
				v.busy = patience
			} else if v.blind > 0 {
				v.busy = 4 * patience
			}
		}
		var raw, end int64
		var had, cut marks
		if verdict > no {
			raw, end, had, cut = s.span(i, i+n)
		}
		switch verdict {
		case more:
			v.pend.reset()
			v.pend.add(s, i, to, 0)
			return to, hits
		case no:
			v.add(s, i, i+1, v.cut)
			v.cut = 0
			i++
			if v.quiet--; v.quiet <= 0 {
				hits = v.question(set, b[i:to], hits)
			}
			continue
		case decoded:
			v.segs = append(v.segs, seg{at: len(v.b), raw: raw, width: int32(end - raw), kind: kind<<v.shift | had, cut: v.cut | cut})
			v.last, v.cut = len(v.b), 0
			v.b = append(v.b, out[:size]...)
		case erase:
			if hits = v.flush(set, hits); len(v.b) > 0 {
				v.chop()
				v.scanned, v.fed = len(v.b), len(v.b)
				v.held = set.begin.hold(v.b)
			}
			v.fold.reset()
			if v.next != nil {
				v.next.stop()
			}
			fallthrough
		case removed:
			v.last = len(v.b) - 1
			v.cut |= kind<<v.shift | had
		}
		if v.quiet > glance && v.lang != &brokenLang {
			v.quiet = quiet
		}
		v.floor = end
		i += n
		if len(v.b)-v.scanned >= gulp {
			hits = v.flush(set, hits)
		}
	}
	if floor > 0 {
		v.floor = max(v.floor, s.end(floor-1))
	}
	return i, hits
}

// flush searches what is new, here and in what hangs on it.
func (v *view) flush(set *set, hits []Hit) []Hit {
	hits = v.search(set, hits)
	if n := len(v.b); v.fed < n {
		none := text{}
		hits = v.fold.write(set, &none, &v.text, v.fed, n, hits)
		if v.next != nil {
			hits = v.next.write(set, &none, &v.text, v.fed, n, hits)
		}
	}
	n := v.trim()
	v.fed = len(v.b)
	v.last -= n
	return hits
}

// question stops the view if no hit with an escape in it can come any more. rest is what
// follows.
func (v *view) question(set *set, rest []byte, hits []Hit) []Hit {
	v.quiet = quiet
	if fresh := v.b[v.scanned:]; v.fed == v.scanned && v.held+len(fresh) < minNeedle && v.calm() {
		// Too little for a hit to be complete, and nothing for the other two.
		if len(v.b)-set.begin.hold(v.b) > v.last && !bytes.ContainsAny(fresh, introducers) && (v.held == 0 || bytes.IndexByte(fresh, '\n') < 0) {
			v.stop()
		}
		return hits
	}
	hits = v.flush(set, hits)
	if (v.next == nil || !v.next.active) && v.fold.without() && (len(v.b)-v.held > v.last || v.lang == &brokenLang && v.over(set, rest)) {
		v.stop()
	}
	return hits
}

// over says that no needle begins at b[last] or before it and goes on with rest, in a
// view of line breaks. Lines of one character may be the beginning of one for ever.
func (v *view) over(set *set, rest []byte) bool {
	const most = 4 * gram
	if v.held > most {
		return false
	}
	var room [most + gram]byte
	from := len(v.b) - v.held
	x, ok := unbroken(append(room[:0], v.b[from:]...), rest, gram-1)
	if !ok {
		return false
	}
	for i := 0; from+i <= v.last; i++ {
		if set.gate.has(binary.LittleEndian.Uint32(x[i:])) {
			return false
		}
	}
	return true
}

// calm says that nothing hangs on the view.
func (v *view) calm() bool {
	return v.fold.state == foldIdle && (v.next == nil || !v.next.active)
}

// stop leaves the window.
func (v *view) stop() {
	v.clear()
	v.active, v.cut, v.fed = false, 0, 0
	v.pend.reset()
	if v.fold != nil {
		v.fold.reset()
	}
	if v.next != nil {
		v.next.stop()
	}
}

// safe lowers the offset up to which bytes may be released to what v needs.
func (v *view) safe(to int64) int64 {
	if !v.active {
		return to
	}
	if at, held := v.from(); held {
		to = min(to, at)
	}
	// A sequence that is removed is in a hit only if something before it is.
	if p := &v.pend; len(p.b) > 0 && v.lang.stands[p.b[0]] {
		to = min(to, p.raw(0))
	}
	to = v.fold.safe(to)
	if v.next != nil {
		to = v.next.safe(to)
	}
	return to
}

// adopt looks at what is retained with a new set: at tail, the end of the
// stream, where the view was not active.
func (v *view) adopt(set *set, tail *text, hits []Hit) []Hit {
	if !v.active {
		if len(tail.b) > 0 {
			none := text{}
			v.floor = 0
			hits = v.write(set, &none, tail, 0, len(tail.b), hits)
		}
		return hits
	}
	hits = v.again(set, hits)
	hits = v.fold.adopt(set, hits)
	if v.next != nil {
		hits = v.next.adopt(set, &v.text, hits)
	}
	return hits
}

// finish is for the end of the stream, where what looked like the beginning of
// an escape is none.
func (v *view) finish(set *set, end int64, hits []Hit) []Hit {
	if !v.active {
		return hits
	}
	var segs [1]seg
	none, nul := text{}, plain(&segs, []byte{0}, end)
	return v.write(set, &none, &nul, 0, 1, hits)
}

func (v *view) wipe() {
	v.window.wipe()
	clear(v.pend.b[:cap(v.pend.b)])
	v.stop()
	if v.fold != nil {
		v.fold.wipe()
	}
	if v.next != nil {
		v.next.wipe()
	}
}
