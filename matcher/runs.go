package matcher

import (
	"encoding/binary"
	"slices"
)

// alphabetOf is an encoding in which each character holds a few bits.
type alphabetOf struct {
	name  string
	bits  int // of a character
	lanes int // places in a byte where a character may begin
	group int // characters that fill whole bytes
	class class
	value [256]int8 // of a character, or -1
	skip  encoding  // what the literals of the alphabet are made of
	roll  rolls
}

func newAlphabet(name string, bits, lanes, group int, c class, skip encoding, digits ...string) alphabetOf {
	a := alphabetOf{name: name, bits: bits, lanes: lanes, group: group, class: c, skip: skip}
	for i := range a.value {
		a.value[i] = -1
	}
	for _, d := range digits {
		for i := range d {
			a.value[d[i]] = int8(i)
		}
	}
	a.roll = newRolls(&a)
	return a
}

const (
	lowers = "abcdefghijklmnopqrstuvwxyz"
	uppers = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"
)

// None of these changes.
var (
	// RFC 4648, 4 and 5: a text may mix them.
	base64Alphabet = newAlphabet("base64", 6, 4, 4, classDigit64, encRaw, uppers+lowers+"0123456789+/", uppers+lowers+"0123456789-_")
	hexAlphabet    = newAlphabet("hex", 4, 2, 6, classHex, encodings, hexLower, hexUpper)
	base32Alphabet = newAlphabet("base32", 5, 8, 8, classUpper32, encodings, uppers+"234567")
	lower32        = newAlphabet("base32", 5, 8, 8, classLower32, encodings, lowers+"234567")
)

// least is how many characters a run needs to hold anything that is not found in
// it as a literal, where no needle has fewer than n bytes.
func (a *alphabetOf) least(n int) int {
	var least int
	switch a.bits {
	case 6:
		least = 4*n/3 - 1 // of what is backwards, for one
	case 5:
		least = 8*n/5 - 1
	default:
		least = 2 * n
	}
	return max(15, min(least, deepFrom*8/6))
}

// wrapFrom is how many characters of a run a line needs for the next one to go on
// with it.
const wrapFrom = 32

// bitRun decodes runs of characters of an alphabet, also over line breaks, at
// every place where a byte may begin.
type bitRun struct {
	a      *alphabetOf
	depth  int
	as     string
	lanes  []*lane // none: nothing was decoded yet, see ready
	bits   []int   // of acc that a lane has not taken; negative: so many do not count
	first  []int64 // where in the stream the character is that the first of these is in
	broken []bool  // the next byte of a lane is not right after the one before
	state  foldState
	pend   int // foldIdle: so many characters of the alphabet came last, too few to tell
	hold   int64
	acc    uint64 // the last bits
	line   int    // characters in this line
	after  int    // foldLF: blanks after the break
	lean   bool   // what it is made of was decoded
	next   int64  // where in the stream what was decoded ends
	asleep bool   // nothing is decoded; see doze.go
	virgin bool   // nothing of it was looked at: something compressed may begin there
	awake  int    // characters that were decoded since that was asked,
	piece  int    // and after how many it is asked
	look   text   // the last characters of the run, without line breaks
	seen   int    // look.b[:seen] was looked at
	planes []planes
	up     *allowance // see lane; with one nobody asks what is held back
}

func (r *bitRun) init(a *alphabetOf, depth int, as string) {
	r.a, r.depth, r.as, r.lean = a, depth, as, as != ""
}

// ready makes what it decodes with: in most texts nothing is decoded.
func (r *bitRun) ready() {
	if r.lanes != nil {
		return
	}
	n := r.a.lanes
	r.bits, r.first, r.broken, r.lanes = make([]int, n), make([]int64, n), make([]bool, n), make([]*lane, n)
	lanes, as := make([]lane, n), under(r.as, r.a.name)
	for k := range r.lanes {
		l := &lanes[k]
		l.init(r.depth-1, as)
		l.up = r.up
		if r.as == "" {
			l.skip = r.a.skip
		}
		r.lanes[k], r.bits[k] = l, -k*r.a.bits
	}
}

func (r *bitRun) valid(c byte) bool { return r.a.value[c] >= 0 }

// extent is the index of the first byte from b[i] on that is not of the alphabet.
func (r *bitRun) extent(b []byte, i, to int, m *classes) int {
	if to-i > 64 {
		return min(to, m.end(r.a.class, i))
	}
	for i < to && r.a.value[b[i]] >= 0 {
		i++
	}
	return i
}

func (r *bitRun) write(set *set, prev, s *text, from, to int, m *classes, hits []Hit) []Hit {
	b, least := s.b, r.a.least(set.short)
	i := from
	if r.state == foldIdle && r.pend > 0 {
		end := min(r.extent(b, from, to, m), from+least)
		if r.pend+end-from >= least {
			before := prev
			at := len(prev.b)
			if from > 0 {
				before, at = s, from
			}
			r.start(set)
			hits = r.push(set, before, at-r.pend, at, hits)
		} else if end == to {
			if r.pend += end - from; r.up == nil {
				r.peek(set, prev, s, to)
			}
			return hits
		} else {
			i = end
		}
		r.pend = 0
	}
	r.hold = -1
	for i < to {
		switch r.state {
		case foldIdle:
			if i = r.seek(set, s, i, to, least, m); i < to {
				r.start(set)
			}
		case foldText:
			end := r.extent(b, i, to, m)
			hits = r.push(set, s, i, end, hits)
			if i = end; i == to {
				break
			}
			if c := b[i]; r.line >= wrapFrom && (c == '\n' || c == '\r') {
				r.state, r.after = foldLF, 0
				if c == '\r' {
					r.state = foldCR
				}
				i++
			} else {
				hits = r.end(set, s.raw(i), hits)
			}
		case foldCR:
			if b[i] == '\n' {
				r.state = foldLF
				i++
			} else {
				hits = r.end(set, s.raw(i), hits)
			}
		case foldLF:
			switch c := b[i]; {
			case (c == ' ' || c == '\t') && r.after < foldIndent:
				r.after++
				i++
			case r.valid(c):
				r.state, r.line = foldText, 0
			default:
				hits = r.end(set, s.raw(i), hits)
			}
		}
	}
	if r.state != foldIdle && r.asleep {
		r.glance(set)
	}
	if r.state != foldIdle && !r.asleep {
		for _, l := range r.lanes {
			hits = l.flush(set, hits)
		}
		r.hold = r.partial(set)
	} else if r.state != foldIdle && r.up == nil {
		r.dozed(set)
	} else if r.pend > 0 && r.up == nil {
		r.peek(set, prev, s, to)
	}
	return hits
}

// seek returns where a run begins that has to be decoded, or to. What it passes
// over has nothing in it.
func (r *bitRun) seek(set *set, s *text, i, to, least int, m *classes) int {
	b := s.b
	for i < to {
		j := m.run(r.a.class, i, least)
		if j == to {
			break
		}
		stop := m.end(r.a.class, j)
		for j+least <= stop {
			// Look at the last character that a run would need first, and backwards.
			k := j + least - 1
			for k >= j && r.valid(b[k]) {
				k--
			}
			if k >= j {
				j = k + 1
				continue
			}
			end := r.extent(b, j, stop, m)
			wrapped := end-j >= wrapFrom && end < to && (b[end] == '\n' || b[end] == '\r')
			if end == to || wrapped || end-j > maxNeedle || r.mayPromise(set, b[j:end]) {
				return j
			}
			j = end
		}
		if i = stop; stop == to {
			i = j
			break
		}
	}
	// The last run may be too short so far.
	n := 0
	for n < least && to-n > i && r.valid(b[to-n-1]) {
		n++
	}
	if n > 0 && n < least {
		r.pend = n
	}
	return to
}

func (r *bitRun) start(set *set) {
	r.restart()
	r.look.reset()
	r.state, r.line, r.piece, r.seen = foldText, 0, dozeFirst, 0
	r.asleep, r.virgin = r.dozes(set), true
}

// restart begins to decode with the next character.
func (r *bitRun) restart() {
	r.acc, r.awake, r.asleep, r.next = 0, 0, false, -1
	for k := range r.bits {
		r.bits[k], r.broken[k] = -k*r.a.bits, false
	}
}

// decode decodes s.b[i:j], all of the alphabet.
func (r *bitRun) decode(s *text, i, j int) {
	if i >= j {
		return
	}
	r.ready()
	if r.next >= 0 && s.raw(i) != r.next { // after a line break
		for k := range r.broken {
			r.broken[k] = true
		}
	}
	r.next = s.end(j - 1)
	b, group := s.b, r.a.group
	for ; i < j && (r.lean || !r.smooth()); i++ {
		r.one(s, i)
	}
	if i+group > j {
		for ; i < j; i++ {
			r.one(s, i)
		}
		return
	}
	for i+group <= j {
		i += r.bulk(b[i:j])
	}
	for k := range r.lanes {
		if n := r.bits[k]; n > 0 {
			r.first[k] = s.raw(i - 1 - (n-1)/r.a.bits)
		}
	}
	for ; i < j; i++ {
		r.one(s, i)
	}
}

// bulk decodes groups of characters that b begins with, and returns how many
// characters.
func (r *bitRun) bulk(b []byte) int {
	var words [256]uint64 // each group, and all before it that still counts
	value, group, acc := &r.a.value, r.a.group, r.acc
	n := min(len(b)/group, len(words))
	b = b[:n*group]
	switch r.a.bits {
	case 6:
		for k := range n {
			c := b[4*k : 4*k+4]
			acc = acc<<24 | uint64(value[c[0]])<<18 | uint64(value[c[1]])<<12 | uint64(value[c[2]])<<6 | uint64(value[c[3]])
			words[k] = acc
		}
	case 5:
		for k := range n {
			for _, c := range b[8*k : 8*k+8] {
				acc = acc<<5 | uint64(value[c])
			}
			words[k] = acc
		}
	default:
		for k := range n {
			c := b[6*k : 6*k+6]
			acc = acc<<24 | uint64(value[c[0]])<<20 | uint64(value[c[1]])<<16 | uint64(value[c[2]])<<12 | uint64(value[c[3]])<<8 | uint64(value[c[4]])<<4 | uint64(value[c[5]])
			words[k] = acc
		}
	}
	r.acc = acc
	size := r.a.bits * group / 8
	for k, l := range r.lanes {
		at, shift := len(l.b), uint(r.bits[k])
		l.b = slices.Grow(l.b, n*size+8)
		out := l.b[at : at+n*size+8]
		if size == 3 {
			for i, w := range words[:n] {
				binary.BigEndian.PutUint32(out[3*i:], uint32(w>>shift<<8))
			}
		} else {
			for i, w := range words[:n] {
				binary.BigEndian.PutUint64(out[5*i:], w>>shift<<24)
			}
		}
		l.b = l.b[:at+n*size]
	}
	clear(words[:n])
	return n * group
}

// smooth says that the segs of all lanes go on by themselves.
func (r *bitRun) smooth() bool {
	for k, l := range r.lanes {
		if n := len(l.segs); r.broken[k] || r.bits[k] < 0 || n == 0 || l.segs[n-1].bits == 0 {
			return false
		}
	}
	return true
}

// one decodes s.b[i].
func (r *bitRun) one(s *text, i int) {
	r.acc = r.acc<<r.a.bits | uint64(r.a.value[s.b[i]])
	raw, end := s.raw(i), s.end(i)
	for k, l := range r.lanes {
		had := r.bits[k]
		if had <= 0 {
			r.first[k] = raw
		}
		if r.bits[k] += r.a.bits; r.bits[k] < 8 {
			continue
		}
		r.bits[k] -= 8
		first, before := r.first[k], (had+r.a.bits-1)/r.a.bits // characters of the byte before this one
		switch n := len(l.segs); {
		case r.lean || first+int64(before) != raw:
			l.segs = append(l.segs, seg{at: len(l.b), raw: first, width: int32(end - first), kind: markDecoded})
			r.broken[k] = false
		case n == 0 || r.broken[k] || l.segs[n-1].bits == 0:
			l.segs = append(l.segs, seg{at: len(l.b), raw: first, bits: uint8(r.a.bits), sub: uint8((r.a.bits - had%r.a.bits) % r.a.bits), kind: markDecoded})
			r.broken[k] = false
		}
		l.b = append(l.b, byte(r.acc>>r.bits[k]))
		if r.bits[k] > 0 {
			r.first[k] = raw
		}
	}
}

// end is for a run that has ended, before offset end of the stream.
func (r *bitRun) end(set *set, end int64, hits []Hit) []Hit {
	if r.asleep {
		r.glance(set)
	}
	for _, l := range r.lanes {
		hits = l.flush(set, hits)
		hits = l.close(set, end, hits)
	}
	r.reset()
	return hits
}

func (r *bitRun) finish(set *set, end int64, hits []Hit) []Hit {
	if r.state == foldIdle {
		return hits
	}
	return r.end(set, end, hits)
}

func (r *bitRun) reset() {
	r.state, r.pend, r.hold, r.asleep = foldIdle, 0, -1, false
	for _, l := range r.lanes {
		l.restart()
	}
}

// peek looks at what is too short so far, to know what to hold back.
func (r *bitRun) peek(set *set, prev, s *text, to int) {
	r.look.reset()
	n := r.pend - to // so many began before s
	if n > 0 {
		r.look.add(prev, len(prev.b)-n, len(prev.b), 0)
	}
	r.look.add(s, max(0, to-r.pend), to, 0)
	r.hold = r.waits(set, &r.look, 0, len(r.look.b), true)
}

// partial is where the first byte begins that a needle may begin with, or a lane
// something compressed, and of which only some bits are there; -1: nowhere.
func (r *bitRun) partial(set *set) int64 {
	at := int64(-1)
	for k, l := range r.lanes {
		n := r.bits[k]
		if n <= 0 || at >= 0 && at <= r.first[k] {
			continue
		}
		c := int(r.acc&(1<<n-1)) << (8 - n)
		may := l.depth > 0 && (c < 0x80 || len(l.b) == 0 && mayBeMagic(byte(c), n)) // text, for one
		for i := c; !may && i < c+1<<(8-n); i++ {
			may = set.first[i]
		}
		if may {
			at = r.first[k]
		}
	}
	return at
}

// safe lowers to to what r needs.
func (r *bitRun) safe(to int64) int64 {
	if r.state == foldIdle {
		if r.pend > 0 && r.hold >= 0 {
			to = min(to, r.hold)
		}
		return to
	}
	if r.hold >= 0 {
		to = min(to, r.hold)
	}
	if r.asleep {
		return to
	}
	for _, l := range r.lanes {
		to = l.safe(to)
	}
	return to
}

func (r *bitRun) adopt(set *set, hits []Hit) []Hit {
	if r.state == foldIdle {
		return hits
	}
	if r.asleep {
		r.wake(0, r.virgin)
	}
	for _, l := range r.lanes {
		hits = l.adopt(set, hits)
	}
	return hits
}

func (r *bitRun) wipe() {
	r.reset()
	r.acc = 0
	clear(r.look.b[:cap(r.look.b)])
	r.look.reset()
	clear(r.planes[:cap(r.planes)])
	for _, l := range r.lanes {
		l.erase()
	}
}
