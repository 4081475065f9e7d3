package matcher

import (
	"encoding/binary"
	"math/bits"
)

// A run of characters that may be an encoding is decoded only around where a needle,
// or text to look into, may be: otherwise it is looked over, and its last characters
// are kept. What it takes for "may be" is necessary for a hit:
//
//   - 8 bytes in a row that are printable, or 15 that are ASCII, begin in what a
//     needle, or 24 bytes of text, begins with (set.odd says where that is not so),
//     which masks of characters tell for 64 of them at once;
//   - and there bitRun.promises says that 5 bytes are in a needle, or 16 are text.
const (
	dozeBlock = 64  // characters that are looked at together
	dozeAhead = 64  // so many more belong to what begins in a block,
	dozeBack  = 16  // and before it
	dozeFrom  = 192 // the last ones, of which none may promise anything when a run dozes off
	dozeKept  = 2*retain + 2*dozeFrom
	dozeFirst = 256 // characters that are decoded before it is asked whether to go on
	holdBytes = 26  // the last bytes of a lane that may begin something where nothing is promised
)

// asciiFrom is how many bytes in a row that are ASCII begin a needle, of needles
// that do not begin with printable ones.
const asciiFrom = 15

// isOdd says that a run with the needle b in it need not be seen by masks.
func isOdd(b []byte) bool {
	run, best := 0, 0
	for _, c := range b {
		if c >= 0x80 {
			return true
		}
		if run++; c < ' ' {
			run = 0
		}
		best = max(best, run)
	}
	return len(b) < asciiFrom && best < minNeedle
}

// dozes says whether r may leave characters out.
func (r *bitRun) dozes(set *set) bool { return !set.odd }

// push takes s.b[i:j], all of the alphabet.
func (r *bitRun) push(set *set, s *text, i, j int, hits []Hit) []Hit {
	r.line += j - i
	if !r.dozes(set) {
		if r.asleep {
			r.wake(0, r.virgin)
		}
		r.look.reset()
		r.decode(s, i, j)
		return hits
	}
	for i < j {
		if r.asleep {
			n := min(j-i, gulp)
			r.look.add(s, i, i+n, 0)
			if i += n; len(r.look.b)-r.seen >= gulp {
				r.glance(set)
			}
			continue
		}
		n := min(j-i, r.piece-r.awake)
		r.look.add(s, i, i+n, 0)
		r.decode(s, i, i+n)
		i += n
		if r.awake += n; r.awake < r.piece {
			continue
		}
		r.awake = 0
		if n := len(r.look.b); n < dozeFrom || r.promises(set, r.look.b[n-dozeFrom:], false) {
			r.piece = min(2*r.piece, gulp)
			r.forget()
			continue
		}
		calm := true
		for _, l := range r.lanes {
			hits = l.flush(set, hits)
			calm = calm && !l.begun && l.pack == nil
		}
		if r.forget(); calm {
			for _, l := range r.lanes {
				l.restart()
				l.fresh = false
			}
			r.asleep, r.seen = true, len(r.look.b)-dozeFrom/2
		}
	}
	return hits
}

// forget drops what is not needed of look any more.
func (r *bitRun) forget() {
	if len(r.look.b) > 2*dozeKept {
		r.seen -= r.look.drop(dozeKept)
	}
}

// glance looks at characters that nobody looked at yet, and wakes the run where they
// promise something.
func (r *bitRun) glance(set *set) {
	n := len(r.look.b)
	if r.virgin { // it has 15 characters at least, which all lanes have a header in
		if r.virgin = false; r.packed(r.look.b) {
			r.wake(0, true)
			return
		}
	}
	m := r.planesFrom(r.look.b[r.seen:])
	for k, size := 0, 0; k < len(m); k += size {
		if k, size = r.candidate(m, k); k == len(m) {
			break
		}
		at := r.seen + k*dozeBlock
		if from := max(0, at-dozeBack); r.promises(set, r.look.b[from:min(n, at+size*dozeBlock+dozeAhead)], false) {
			r.wake(from, false)
			return
		}
	}
	if last := n - dozeAhead; last > r.seen {
		r.seen += (last - r.seen) / dozeBlock * dozeBlock
	}
	r.forget()
}

// wake decodes what is kept from at on, and all that comes. fresh says that a run
// begins there.
func (r *bitRun) wake(at int, fresh bool) {
	r.ready()
	r.restart()
	r.virgin = false
	for _, l := range r.lanes {
		l.fresh = fresh
	}
	for k := r.look.find(at); at < len(r.look.b); k++ {
		end := len(r.look.b)
		if !r.lean && k+1 < len(r.look.segs) {
			end = r.look.segs[k+1].at
		}
		r.decode(&r.look, at, end)
		at = end
	}
	r.seen = len(r.look.b)
}

// dozed lowers hold to what the last characters may begin, where the run is asleep.
func (r *bitRun) dozed(set *set) {
	n := len(r.look.b)
	r.hold = r.waits(set, &r.look, max(0, n-(holdBytes+2)*8/r.a.bits-r.a.lanes), n, false)
}

// waits is from where on s.b[from:to], fewer characters than would be decoded, has to
// be held back; -1: nowhere. first says that a run begins there.
func (r *bitRun) waits(set *set, s *text, from, to int, first bool) int64 {
	const far = int64(^uint64(0) >> 1)
	hold := far
	var room, lane [holdBytes + 24 + 16]byte
	b := s.b[from:to]
	p := r.pack(room[:0], b)
	depth := r.depth - 1
	for k := range r.a.lanes {
		off := k * r.a.bits
		size := (len(b) - k) * r.a.bits / 8
		if size < 0 {
			break
		}
		at, shift := off/8, uint(off%8)
		least := size // from which byte on
		for j, done := 0, false; j < size && !done; j += 6 {
			w := binary.BigEndian.Uint64(p[at+j:]) << shift // 7 bytes, and more
			for i := j; i < min(j+6, size); i, w = i+1, w<<8 {
				if !set.first[w>>56] {
				} else if i+1 == size {
					least = i
				} else if set.gate.begins(byte(w>>56), byte(w>>48)) {
					least, done = size-set.begin.hold(laneOf(lane[:size], p[at:], shift)), true
					break
				}
			}
		}
		if depth > 0 {
			if first && size > 0 && firstMagic[byte(binary.BigEndian.Uint16(p[at:])<<shift>>8)] && isMagic(laneOf(lane[:size], p[at:], shift)) != no {
				least = 0
			}
			t := size
			for t > 0 && isText(byte(binary.BigEndian.Uint16(p[at+t-1:])<<shift>>8)) {
				t--
			}
			least = min(least, t)
		}
		if least == size {
			// The bits of a byte that is not complete.
			n := (len(b)-k)*r.a.bits - 8*size
			if n <= 0 {
				continue
			}
			c := byte(binary.BigEndian.Uint16(p[at+size:])<<shift>>8) >> (8 - n) << (8 - n)
			may := depth > 0 && (c < 0x80 || first && size == 0 && mayBeMagic(c, n))
			for i := int(c); !may && i < int(c)+1<<(8-n); i++ {
				may = set.first[i]
			}
			if !may {
				continue
			}
		}
		hold = min(hold, s.raw(from+k+8*least/r.a.bits))
	}
	if hold == far {
		return -1
	}
	return hold
}

// laneOf fills l with the bytes of p from bit shift on.
func laneOf(l, p []byte, shift uint) []byte {
	for j := range l {
		l[j] = byte(binary.BigEndian.Uint16(p[j:]) << shift >> 8)
	}
	return l
}

// pack appends the bytes that b stands for, the last one filled up with zeros, and 8
// more.
func (r *bitRun) pack(p, b []byte) []byte {
	value := &r.a.value
	switch r.a.bits {
	case 6:
		for ; len(b) >= 4; b = b[4:] {
			x := uint32(value[b[0]])<<18 | uint32(value[b[1]])<<12 | uint32(value[b[2]])<<6 | uint32(value[b[3]])
			p = append(p, byte(x>>16), byte(x>>8), byte(x))
		}
	case 4:
		for ; len(b) >= 2; b = b[2:] {
			p = append(p, byte(value[b[0]])<<4|byte(value[b[1]]))
		}
	}
	acc, n := uint64(0), 0
	for _, c := range b {
		acc, n = acc<<r.a.bits|uint64(value[c]), n+r.a.bits
		if n >= 8 {
			n -= 8
			p = append(p, byte(acc>>n))
		}
	}
	return append(p, byte(acc<<(8-n)), 0, 0, 0, 0, 0, 0, 0, 0)
}

// mayPromise is promises for a run of up to maxNeedle characters, from its first one.
func (r *bitRun) mayPromise(set *set, b []byte) bool {
	if !set.odd {
		if r.a.bits == 5 && len(b) <= shortBase32 {
			if !r.shows(b) {
				return false
			}
		} else if !r.packed(b) {
			m := r.planesFrom(b)
			if k, _ := r.candidate(m, 0); k == len(m) {
				return false
			}
		}
	}
	return r.promises(set, b, true)
}

// shortBase32 is how many characters of base32 shows looks at: what chance makes of
// other text has no more.
const shortBase32 = 24

// shows says whether in what b, base32, stands for there are 8 bytes in a row that are
// printable, or 15 that are ASCII, or something compressed begins in one of the lanes.
func (r *bitRun) shows(b []byte) bool {
	// What is not there shows nothing.
	hi, lo := uint64(0), uint64(0)
	for _, c := range b {
		hi, lo = hi<<5|lo>>59, lo<<5|uint64(r.a.value[c])
	}
	if n := uint(128 - 5*len(b)); n >= 64 {
		hi, lo = (lo+1)<<(n-64)-1, ^uint64(0)
	} else {
		hi, lo = hi<<n|lo>>(64-n), (lo+1)<<n-1
	}
	if r.depth > 1 {
		for k := range uint(8) {
			x := hi<<(5*k) | lo>>(64-5*k)
			if !firstMagic[x>>56] {
				continue
			}
			var head [magicBytes]byte
			binary.BigEndian.PutUint32(head[:], uint32(x>>32))
			if isMagic(head[:]) == decoded {
				return true
			}
		}
	}
	// Where a byte begins that is ASCII, and one that is printable.
	a, c := ^hi, ^lo
	p, q := a&((hi<<1|lo>>63)|(hi<<2|lo>>62)), c&(lo<<1|1|lo<<2|3)
	for _, n := range [...]uint{8, 16, 32} {
		a, c = a&(a<<n|c>>(64-n)), c&(c<<n)
		p, q = p&(p<<n|q>>(64-n)), q&(q<<n)
	}
	return p|q|a&(a<<56|c>>8)|c&(c<<56) != 0
}

// packed says whether something compressed begins in one of the lanes of b.
func (r *bitRun) packed(b []byte) bool {
	if r.depth == 1 {
		return false
	}
	var room [32]byte
	b = b[:min(len(b), r.a.lanes+8)]
	p := r.pack(room[:0], b)
	for k := range r.a.lanes {
		off := k * r.a.bits
		if (len(b)*r.a.bits-off)/8 < magicBytes {
			break
		}
		if x := uint32(binary.BigEndian.Uint64(p[off/8:]) << (off % 8) >> 32); firstMagic[x>>24] {
			var head [magicBytes]byte
			binary.BigEndian.PutUint32(head[:], x)
			if isMagic(head[:]) == decoded {
				return true
			}
		}
	}
	return false
}

// firstMagic are the bytes that isMagic knows.
var firstMagic = [256]bool{0x1f: true, 0x28: true, 'P': true, 'x': true}

// promises says that in what b, all of the alphabet, stands for there may be something
// to find: two strings of 4 bytes in a row, as in every 8 bytes of a needle, text that
// is to be decoded again, or, at the first byte of a run, something compressed.
func (r *bitRun) promises(set *set, b []byte, first bool) bool {
	var room [maxNeedle*6/8 + 16]byte
	p := r.pack(room[:0], b)
	g, deep := set.gate, r.depth > 1
	for k := range r.a.lanes {
		off := k * r.a.bits
		at, shift := off/8, uint(off%8)
		n := at + (len(b)*r.a.bits-off)/8
		if first && deep && n-at >= magicBytes {
			var head [magicBytes]byte
			binary.BigEndian.PutUint32(head[:], uint32(binary.BigEndian.Uint64(p[at:])<<shift>>32))
			if isMagic(head[:]) == decoded {
				return true
			}
		}
		text := 0
		for j := at; j+gram < n; j += gram {
			w := binary.BigEndian.Uint64(p[j:]) << shift
			if w&0x8080808080000000 != 0 {
				if text = 0; !set.high {
					continue
				}
			} else if text++; text >= 4 && deep {
				for i := range 4 * gram {
					if !isText(byte(binary.BigEndian.Uint16(p[j-3*gram+i:]) << shift >> 8)) {
						text = 0
						break
					}
				}
				if text > 0 {
					return true
				}
			}
			x := bits.ReverseBytes64(w)
			if g.has(uint32(x)) && g.has(uint32(x>>8)) {
				return true
			}
		}
	}
	return false
}

// planes are the bits that 64 characters stand for: the lowest one of each in the
// first, and so on.
type planes [6]uint64

// rolls are for planesAVX2: what a character's high four bits add to it to make its
// value; 0x0f; and three characters, and what each adds besides.
type rolls [8][16]byte

func newRolls(a *alphabetOf) (r rolls) {
	for c, v := range a.value {
		if v >= 0 && (a.bits != 6 || isAlnum(byte(c)) || c == '+') {
			r[0][c>>4] = byte(v) - byte(c)
		}
	}
	for i := range r[1] {
		r[1][i] = 0x0f
		for k, c := range []byte("-/_") {
			r[2+2*k][i] = c
			if a.bits == 6 {
				r[3+2*k][i] = byte(a.value[c]) - c - r[0][c>>4]
			}
		}
	}
	return r
}

// planesGo is planesOf without the processor's help.
func planesGo(dst []planes, b []byte, a *alphabetOf) {
	for k := range dst {
		var x planes
		for i, c := range b[dozeBlock*k : min(len(b), dozeBlock*k+dozeBlock)] {
			v := uint64(a.value[c])
			for j := range x {
				x[j] |= v >> j & 1 << i
			}
		}
		dst[k] = x
	}
}

// planesFrom are the planes of the characters of b, and a block of what shows nothing.
func (r *bitRun) planesFrom(b []byte) []planes {
	blocks := (len(b) + dozeBlock - 1) / dozeBlock
	if cap(r.planes) < blocks+1 {
		r.planes = make([]planes, 2*blocks+1)
	}
	m := r.planes[:blocks+1]
	full := len(b) / dozeBlock
	planesOf(m[:full], b, r.a)
	if full < blocks {
		// What is not there shows nothing: all its bits are set.
		var last [dozeBlock]byte
		n := copy(last[:], b[full*dozeBlock:])
		planesOf(m[full:blocks], last[:], r.a)
		for i := range m[full] {
			m[full][i] |= ^uint64(0) << n
		}
	}
	for i := range m[blocks] {
		m[blocks][i] = ^uint64(0)
	}
	return m[:blocks]
}

// candidate returns which block of m, from k on, is the next one in which what is
// promised may begin, and how many there are together; len(m): none. There is one
// more behind m.
func (r *bitRun) candidate(m []planes, k int) (int, int) {
	const most = 4 // blocks
	last := len(m)
	m = m[:last+1]
	for ; k < last; k++ {
		if !r.begins(&m[k], &m[k+1]) {
			continue
		}
		n := 1
		for n < most && k+n < last && r.begins(&m[k+n], &m[k+n+1]) {
			n++
		}
		return k, n
	}
	return last, 0
}

// begins says whether 8 bytes that are printable, or 15 that are ASCII, may begin in
// a block, which o follows.
func (r *bitRun) begins(m, o *planes) bool {
	if r.a.bits == 4 {
		x, y := ^m[3]&(m[2]|m[1]), ^o[3]&(o[2]|o[1])
		x, y = x&(x>>2|y<<62), y&(y>>2)
		x, y = x&(x>>4|y<<60), y&(y>>4)
		x &= x>>8 | y<<56
		z, u := ^m[3], ^o[3]
		z, u = z&(z>>2|u<<62), u&(u>>2)
		z, u = z&(z>>4|u<<60), u&(u>>4)
		z, u = z&(z>>8|u<<56), u&(u>>8)
		z &= z>>14 | u<<50
		return x|z != 0
	}
	if r.a.bits == 5 {
		// Of 8 bytes four begin at the first bit of a character, the fourth of the next
		// one, the second, and the last; and a fifth comes before or after them.
		p0, p1, p2 := ^m[4]&(m[3]|m[2]), ^m[3]&(m[2]|m[1]), ^m[2]&(m[1]|m[0])
		n0, n1, n2 := ^o[4]&(o[3]|o[2]), ^o[3]&(o[2]|o[1]), ^o[2]&(o[1]|o[0])
		p3, p4 := ^m[1]&(m[0]|m[4]>>1|o[4]<<63), ^m[0]&((m[4]|m[3])>>1|(o[4]|o[3])<<63)
		n3, n4 := ^o[1]&(o[0]|o[4]>>1|1<<63), ^o[0]&((o[4]|o[3])>>1|1<<63)
		g := p0 & (p3>>1 | n3<<63) & (p1>>3 | n1<<61) & (p4>>4 | n4<<60) & (p2>>6 | n2<<58 | p2<<2 | 3)
		ng := n0 & (n3 >> 1) & (n1 >> 3) & (n4 >> 4) & 0xff
		// Five are twice in 15.
		a := ^m[4] &^ (m[1]>>1 | o[1]<<63) &^ (m[3]>>3 | o[3]<<61) &^ (m[0]>>4 | o[0]<<60) &^ (m[2]>>6 | o[2]<<58)
		na := ^o[4] &^ (o[1] >> 1) &^ (o[3] >> 3) &^ (o[0] >> 4) &^ (o[2] >> 6)
		return g|ng|a&(a>>8|na<<56)|na&(na>>8)&0xff != 0
	}
	// Bytes begin at the first, third or fifth bit of a character: f, s, t.
	f, s, t := ^m[5]&(m[4]|m[3]), ^m[3]&(m[2]|m[1]), ^m[1]&(m[0]|m[5]>>1|o[5]<<63)
	nf, ns, nt := ^o[5]&(o[4]|o[3]), ^o[3]&(o[2]|o[1]), ^o[1]&(o[0]|o[5]>>1|1<<63)
	// Three in a row, and the next three.
	g, ng := f&(s>>1|ns<<63)&(t>>2|nt<<62), nf&(ns>>1)&(nt>>2)
	h, nh := g&(g>>4|ng<<60), ng&(ng>>4)
	if h|nh&7 != 0 {
		after := f>>8 | nf<<56
		if h&after&(s>>9|ns<<55)|s&(t>>1|nt<<63)&(h>>3|nh<<61)|t&(h>>2|nh<<62)&(f>>10|nf<<54) != 0 {
			return true
		}
	}
	// Four times three are in 15.
	a, na := ^m[5]&^(m[3]>>1|o[3]<<63)&^(m[1]>>2|o[1]<<62), ^o[5]&^(o[3]>>1)&^(o[1]>>2)
	a, na = a&(a>>4|na<<60), na&(na>>4)
	a, na = a&(a>>8|na<<56), na&(na>>8)
	return a|na&7 != 0
}
