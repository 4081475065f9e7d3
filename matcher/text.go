package matcher

import (
	"bytes"
	"slices"
	"sort"
)

// marks are what happened to a stretch of text on its way from the stream: the
// escapes that were decoded in it, or removed before it.
type marks uint32

const (
	markANSI   marks = 1 << iota
	markHidden       // what shows nothing
	markHTML
	markJSON
	markEscaped // a backslash that JSON does not have
	markJoined  // pieces of a string in source code
	markQuoted  // quoted-printable
	markPercent
	markCount = iota
	// Twice decoded: the same ones, shifted.
	markWrapped marks = 1 << (2 * markCount)
	markDecoded marks = 2 << (2 * markCount) // by what Hit.Encoding begins with

	level1 marks = 1<<markCount - 1
	level2 marks = level1 << markCount
)

// seg says where b[at], and what follows up to the next seg, was in the stream:
// at raw and the bytes after it, or, if width is not 0, all of it is what
// the width bytes at raw stand for; or, if bits is not 0, each byte at raw and
// after it, but for sub bits of the first, holds so many bits of it; with a width
// too, it is not known before the last of these. The first skip of these bytes are
// before b[at].
type seg struct {
	at    int
	width int32
	skip  int32
	kind  marks // of the bytes
	cut   marks // of what was removed before the first of them
	bits  uint8
	sub   uint8
	raw   int64
}

// first is where in the stream the byte n bytes after at begins, and after is
// where it ends.
func (s *seg) first(n int) int64 {
	switch {
	case s.bits != 0:
		return s.raw + (8*(int64(n)+int64(s.skip))+int64(s.sub))/int64(s.bits)
	case s.width != 0:
		return s.raw
	}
	return s.raw + int64(n)
}

func (s *seg) after(n int) int64 {
	switch {
	case s.width != 0:
		return s.raw + int64(s.width)
	case s.bits != 0:
		return s.raw + (8*(int64(n)+int64(s.skip))+int64(s.sub)+7)/int64(s.bits) + 1
	}
	return s.raw + int64(n) + 1
}

// forward moves s by n bytes.
func (s *seg) forward(n int) {
	switch {
	case s.bits != 0:
		s.skip += int32(n)
	case s.width == 0:
		s.raw += int64(n)
	}
}

// text is bytes that know where they were in the stream. In segs the first is
// at 0.
type text struct {
	b    []byte
	segs []seg
	hint int // what was found last, since most questions go from one byte to the next
}

// plain is text that is b itself, at stream offset raw.
func plain(segs *[1]seg, b []byte, raw int64) text {
	segs[0] = seg{raw: raw}
	return text{b: b, segs: segs[:]}
}

// find is the index of the seg that b[at] is in.
func (t *text) find(at int) int {
	if len(t.segs) == 1 {
		return 0
	}
	return t.locate(at)
}

func (t *text) locate(at int) int {
	lo, hi := 0, len(t.segs)
	k := min(t.hint, hi-1)
	for n := 0; n < 3 && k < hi && t.segs[k].at <= at; n++ {
		if k+1 == hi || at < t.segs[k+1].at {
			t.hint = k
			return k
		}
		k++
	}
	for n := 0; n < 3 && k > 0 && t.segs[k].at > at; n++ {
		if k--; t.segs[k].at <= at {
			t.hint = k
			return k
		}
	}
	if hi > 8 && t.segs[hi-8].at <= at { // most questions are about the end
		lo = hi - 8
	}
	for lo+1 < hi {
		if m := int(uint(lo+hi) >> 1); t.segs[m].at <= at {
			lo = m
		} else {
			hi = m
		}
	}
	t.hint = lo
	return lo
}

// raw is the stream offset of b[at], or of what it stands for.
func (t *text) raw(at int) int64 {
	s := &t.segs[t.find(at)]
	return s.first(at - s.at)
}

// end is the stream offset after b[at].
func (t *text) end(at int) int64 {
	s := &t.segs[t.find(at)]
	return s.after(at - s.at)
}

// marks are those of b[i:j].
func (t *text) marks(i, j int) (m marks) {
	for k := t.find(i); k < len(t.segs) && t.segs[k].at < j; k++ {
		m |= t.segs[k].kind
		if t.segs[k].at > i {
			m |= t.segs[k].cut
		}
	}
	return m
}

// span is where b[i:j] begins and ends in the stream, its marks, and the mark of what was
// removed before it.
func (t *text) span(i, j int) (raw, end int64, kind, cut marks) {
	k := t.find(i)
	g := &t.segs[k]
	if raw, kind = g.first(i-g.at), g.kind; g.at == i {
		cut = g.cut
	}
	for k+1 < len(t.segs) && t.segs[k+1].at < j {
		k++
		g = &t.segs[k]
		kind |= g.kind | g.cut
	}
	t.hint = k
	return raw, g.after(j - 1 - g.at), kind, cut
}

// add appends s.b[i:j], before which something of marks cut was removed.
func (t *text) add(s *text, i, j int, cut marks) {
	if i >= j {
		return
	}
	k := s.find(i)
	for ; k < len(s.segs) && s.segs[k].at < j; k++ {
		if s.segs[k].width != 0 && s.segs[k].at > i {
			// It stands by itself, as most that come after one do.
			n := len(t.segs)
			end := k + 1
			for end < len(s.segs) && s.segs[end].at < j && s.segs[end].width != 0 {
				end++
			}
			t.segs = append(t.segs, s.segs[k:end]...)
			for m := range t.segs[n:] {
				t.segs[n+m].at += len(t.b) - i
			}
			t.segs[n].cut |= cut
			cut, k = 0, end-1
			continue
		}
		g := s.segs[k]
		from := max(i, g.at)
		if g.at < i {
			g.cut = 0
			g.forward(i - g.at)
		}
		g.cut |= cut
		cut = 0
		g.at = len(t.b) + from - i
		if n := len(t.segs); n > 0 && g.width == 0 && g.cut == 0 {
			l := &t.segs[n-1]
			if l.width == 0 && l.kind == g.kind && l.bits == g.bits && (g.bits == 0 && g.kind == 0 && l.raw+int64(g.at-l.at) == g.raw ||
				g.bits != 0 && l.raw == g.raw && l.sub == g.sub && int(l.skip)+g.at-l.at == int(g.skip)) {
				continue // it goes on
			}
		}
		t.segs = append(t.segs, g)
	}
	t.b = append(t.b, s.b[i:j]...)
}

// drop forgets all but the last n bytes and returns how many it forgot.
func (t *text) drop(n int) int {
	cut := len(t.b) - n
	if cut <= 0 {
		return 0
	}
	k := t.find(cut)
	first := t.segs[k]
	first.forward(cut - first.at)
	if first.at < cut {
		first.cut = 0
	}
	t.b = t.b[:copy(t.b, t.b[cut:])]
	t.segs = slices.Delete(t.segs, 0, k)
	first.at = cut
	t.segs[0] = first
	for i := range t.segs {
		t.segs[i].at -= cut
	}
	return cut
}

// chop forgets the last byte.
func (t *text) chop() {
	t.b = t.b[:len(t.b)-1]
	if k := len(t.segs) - 1; t.segs[k].at == len(t.b) {
		t.segs = t.segs[:k]
	}
}

func (t *text) reset() { t.b, t.segs = t.b[:0], t.segs[:0] }

// window is text that is searched once, as it grows.
type window struct {
	text
	own     marks  // report only what has one of these,
	and     marks  // and, unless it is 0, one of these
	flat    bool   // no needle with a line break of its own is in it
	lean    bool   // it is made of a text that was made here:
	back    int    // take that many bytes before it at least
	floor   int64  // no hit that is still to be found begins before that offset in the stream
	scanned int    // b[:scanned] was searched
	held    int    // how many of these, at the end, begin a needle
	as      string // what Hit.Encoding begins with
}

// seed takes what came before s.b[i], which follows prev: the last retain bytes,
// or, of a text that was made here, those that begin a needle and a few more.
// Nothing before floor in the stream is taken.
func (w *window) seed(set *set, prev, s *text, i int) {
	w.clear()
	from := max(0, i-retain)
	if g := &s.segs[0]; i > 0 && w.floor > 0 && len(s.segs) == 1 && g.width == 0 && g.bits == 0 {
		from = max(from, int(min(int64(i), w.floor-g.raw)))
	} else if i > 0 && w.floor > 0 && s.raw(from) < w.floor {
		from += sort.Search(i-from, func(n int) bool { return s.raw(from+n) >= w.floor })
	}
	if w.lean {
		w.held = set.begin.hold(s.b[from:i])
		w.add(s, max(from, i-max(w.held, w.back)), i, 0)
		w.scanned = len(w.b)
		return
	}
	if n := min(retain-i, len(prev.b)); n > 0 && from == 0 {
		at := len(prev.b) - n
		if lack := w.floor - prev.raw(at); lack > 0 {
			at += int(min(lack, int64(n)))
		}
		w.add(prev, at, len(prev.b), 0)
	}
	w.add(s, from, i, 0)
	w.scanned = len(w.b)
	w.held = set.begin.hold(w.b)
}

// search adds the hits that end after what was searched before.
func (w *window) search(set *set, hits []Hit) []Hit {
	if w.scanned == len(w.b) {
		return hits
	}
	hits = w.last(set, hits)
	w.held = set.begin.hold(w.b)
	return hits
}

// last is search where nothing can follow.
func (w *window) last(set *set, hits []Hit) []Hit {
	from := w.scanned - w.held
	if len(w.b)-from >= minNeedle {
		for _, m := range set.find(w.b[from:], nil) {
			if end := from + m.end; end > w.scanned {
				hits = w.hit(set, m.needle, end, hits)
			}
		}
	}
	w.scanned = len(w.b)
	return hits
}

func (w *window) hit(set *set, needle, end int, hits []Hit) []Hit {
	start := end - len(set.needles[needle])
	m := w.marks(start, end)
	if w.flat && bytes.IndexByte(set.needles[needle], '\n') >= 0 {
		return hits // a line break that is the value's own
	}
	if m&w.own == 0 || w.and != 0 && m&w.and == 0 {
		return hits
	}
	if h, ok := set.hit(needle, w.raw(start), w.end(end-1), m); ok {
		h.Encoding = under(w.as, h.Encoding)
		hits = append(hits, h)
	}
	return hits
}

// under is the name of what is encoded as name in what was decoded from as.
func under(as, name string) string {
	switch {
	case as == "":
		return name
	case name == "raw":
		return as
	}
	return as + "+" + name
}

// again searches all of it for a set that is new.
func (w *window) again(set *set, hits []Hit) []Hit {
	for _, m := range set.find(w.b, nil) {
		hits = w.hit(set, m.needle, m.end, hits)
	}
	w.scanned, w.held = len(w.b), set.begin.hold(w.b)
	return hits
}

// trim keeps what may still become part of a match, and as much again, so that little
// is moved, and returns how many bytes it dropped.
func (w *window) trim() int {
	if len(w.b) <= 2*retain {
		return 0
	}
	n := w.drop(retain)
	w.scanned -= n
	return n
}

// from is where in the stream the held bytes begin, if there are any.
func (w *window) from() (offset int64, held bool) {
	if w.held == 0 {
		return 0, false
	}
	return w.raw(len(w.b) - w.held), true
}

func (w *window) clear() {
	w.reset()
	w.scanned, w.held = 0, 0
}

func (w *window) wipe() {
	clear(w.b[:cap(w.b)])
	w.clear()
}
