package matcher

import (
	"encoding/binary"
	"math/bits"
	"slices"
	"unsafe"
)

// sifted are the places, of some class in a classes, that a view has to look at: where
// the gate cannot tell that no needle goes on. All of them are asked about at once,
// since that is where the time of a search goes: most places are none of these.
type sifted struct {
	made   bool
	places []uint16 // from classes.from on
	floors []uint16 // of classEscape: where the last one before it ends that nothing goes over; 0: there is none
	next   int      // the one to look at first
}

// after is the first place in b[i:to], or to.
func (s *sifted) after(m *classes, i int) int {
	k := s.next
	if k > 0 && m.from+int(s.places[k-1]) >= i {
		k = 0 // who asks starts again
	}
	for ; k < len(s.places); k++ {
		if at := m.from + int(s.places[k]); at >= i {
			s.next = k
			return at
		}
	}
	s.next = k
	return m.to
}

// near says whether an escape may begin in the lookBack bytes before b[i].
func (m *classes) near(i int) bool {
	at := i - m.from - lookBack
	if at < 0 {
		return true
	}
	w := m.plane(classEscape)
	x := w[at>>6] >> (at & 63)
	if at&63 > 64-lookBack && at>>6+1 < len(w) {
		x |= w[at>>6+1] << (64 - at&63)
	}
	return x&(1<<lookBack-1) != 0
}

// siftBlocks are looked at together.
const siftBlocks = 32

// sift is what is left of classNoise, classLine or classEscape in b[from:to].
func (m *classes) sift(g *gate, b []byte, c class) *sifted {
	s := &m.sifted[0]
	switch c {
	case classLine:
		s = &m.sifted[1]
	case classEscape:
		s = &m.sifted[2]
	}
	if s.made {
		return s
	}
	s.made, s.next, s.places = true, 0, s.places[:0]
	if m.any[c] == 0 && (c != classNoise || m.any[classLead] == 0) {
		return s
	}
	if c == classEscape {
		s.floors = s.floors[:0]
		m.escapes(g, b, s)
		return s
	}
	if c == classNoise {
		s.places = m.noises(g, b, s.places)
		if m.any[classLead] != 0 {
			n := len(s.places)
			if s.places = m.leads(g, b, s.places); n > 0 && len(s.places) > n {
				slices.Sort(s.places)
			}
		}
		return s
	}
	w := m.plane(c)
	m.space(64*min(len(w), siftBlocks) + 8)
	for k := 0; k < len(w); k += siftBlocks {
		n := 0
		for j, x := range w[k:min(k+siftBlocks, len(w))] {
			n = flatten(m.room, n, x, uint16(64*(k+j)))
		}
		s.places = m.breaks(g, b, m.room[:n], s.places)
	}
	return s
}

// space has m.room have n places.
func (m *classes) space(n int) {
	if len(m.room) < n {
		m.room = make([]uint16, n)
	}
}

// flatten writes the places of the bits of x, plus base, to out[n:], which has room for
// 8 more than there are, and returns where they end.
func flatten(out []uint16, n int, x uint64, base uint16) int {
	end := n + bits.OnesCount64(x)
	for ; n < end; n += 4 {
		p := out[n : n+4]
		p[0] = base + uint16(bits.TrailingZeros64(x))
		x &= x - 1
		p[1] = base + uint16(bits.TrailingZeros64(x))
		x &= x - 1
		p[2] = base + uint16(bits.TrailingZeros64(x))
		x &= x - 1
		p[3] = base + uint16(bits.TrailingZeros64(x))
		x &= x - 1
	}
	return end
}

// breakBefore and breakAfter are how many bytes there must be around an LF that is told
// from others.
const (
	breakBefore = gram + 1
	breakAfter  = 23
)

// breaks appends those of at, where LFs are, that mayBreak has to look at: most are left
// out by what the bytes next to them make together.
func (m *classes) breaks(g *gate, b []byte, at, out []uint16) []uint16 {
	k := 0
	for ; k < len(at) && m.from+int(at[k]) < breakBefore; k++ {
		out = append(out, at[k])
	}
	end := len(at)
	for end > k && m.from+int(at[end-1])+breakAfter >= m.to {
		end--
	}
	n := len(out)
	br := g.bridges()
	out = slices.Grow(out, end-k)
	if len(at) > 8*siftBlocks { // in lines of a few characters most are not easy to tell
		for _, place := range at[k:end] {
			out = out[:n+1]
			out[n] = place
			n += int(g.overBreak(b, m.from+int(place), m.to) & 1)
		}
		return append(out[:n], at[end:]...)
	}
	for _, place := range crossed(b[:m.to], m.from, at[k:end], out, &br)[n:] {
		i := m.from + int(place)
		out = out[:n+1]
		out[n] = place // not before it is read
		n += int(g.overBreak(b, i, m.to) & 1)
	}
	return append(out[:n], at[end:]...)
}

// bridges is what a gate tells of two pieces of text that meet: the first one's last 2
// bytes and the second one's first 2; or its last one, with which a needle begins, and
// the next 3; or its last 3 and the next one, with which a needle ends. A needle has 4
// bytes at least that are one of these.
type bridges struct {
	all, starts, ends unsafe.Pointer
	middle, edge      uint // shifts
}

func (g *gate) bridges() bridges {
	return bridges{unsafe.Pointer(unsafe.SliceData(g.bitmap)), unsafe.Pointer(unsafe.SliceData(g.starts)), unsafe.Pointer(unsafe.SliceData(g.ends)), g.shift, g.edge}
}

// crossedGo appends those of places to out, from b[from] on, whose LF a needle may go on
// over, or that are not easy to tell.
func crossedGo(b []byte, from int, places, out []uint16, g *bridges) []uint16 {
	n := len(out)
	out = out[:n+len(places)]
	middle, edge := g.middle&63, g.edge&63
	for _, place := range places {
		out[n] = place
		i := from + int(place)
		w := b[i-breakBefore : i+breakAfter+1]
		// The first byte that is neither blank nor a control character.
		next := breakBefore + 1
		for end := next + 16; next < end && w[next] <= ' '; {
			next++
		}
		y := binary.LittleEndian.Uint32(w[next:])
		// What is before the LF, or CR LF.
		v := binary.LittleEndian.Uint64(w)
		shift := uint(8)
		if byte(v>>32) == '\r' {
			shift = 0
		}
		more := (uint64(y) - 0x00202021) &^ uint64(y) & 0x00808080 // there are more blanks, or the second or third is a control character
		tail := uint32(v >> shift)
		// A hash has 64-shift bits, so no index is outside a bitmap, which has that many.
		mid := uint64(tail>>16|y<<16) * golden >> middle
		first := uint64(tail>>24|y<<8) * golden >> edge
		last := uint64(tail>>8|y<<24) * golden >> edge
		n += int((bit(g.all, mid) | bit(g.starts, first) | bit(g.ends, last) | more>>7 | more>>15 | more>>23) & 1)
	}
	return out[:n]
}

// overBreak says, with 1, whether a needle may go on over the LF b[i], which has 5 bytes before it
// and 23 after it before b[to].
func (g *gate) overBreak(b []byte, i, to int) uint64 {
	w := b[i-gram-1 : i+24]
	v := binary.LittleEndian.Uint64(w[gram+2:])
	z := nonZero(v^blanks8) & nonZero(v^tabs8)
	next := i + 1 + bits.TrailingZeros64(z)>>3
	if z == 0 {
		for next+8 < to && (b[next] == ' ' || b[next] == '\t') {
			next++
		}
		if next+8 >= to {
			return 1
		}
	}
	v = binary.LittleEndian.Uint64(w)
	shift := uint(8)
	if byte(v>>32) == '\r' {
		shift = 0
	}
	tail, y := uint32(v>>shift), binary.LittleEndian.Uint32(b[next:])
	k := uint16(tail>>24) | uint16(y)<<8
	over := g.bit(tail>>8|y<<24) & g.bit(tail)
	on := g.bit(tail>>24|y<<8) & g.bit(y)
	start := g.pairs[k>>6] >> (k & 63)
	more := uint64((y-' '*ones>>32)&^y&(high8>>32)) >> 7 // one of them is a control character
	more |= more >> 16
	more |= more >> 8
	in := (uint64(y&0xff) - ' ') >> 63 // 1: no needle goes on with it
	if over |= start & on; (over|^(start&more)|in)&1 == 0 {
		return g.continues(b[next:to])
	}
	return over &^ in & 1
}

// continues says, with 1, whether the first 5 bytes of b without its line breaks are in a
// needle, or that it cannot tell.
func (g *gate) continues(b []byte) uint64 {
	var room [gram + 1]byte
	x, ok := unbroken(room[:0], b, gram+1)
	if !ok || g.early {
		return 1
	}
	return g.bit(binary.LittleEndian.Uint32(x)) & g.bit(binary.LittleEndian.Uint32(x[1:]))
}

// unbroken appends n bytes that b begins with to x, without the line breaks and blanks
// that brokenToken removes. ok is false where there is anything else to see to.
func unbroken(x, b []byte, n int) (_ []byte, ok bool) {
	for i := 0; n > 0; {
		if i >= len(b) {
			return x, false
		}
		c := b[i]
		if c != '\n' && c != '\r' {
			x = append(x, c)
			i, n = i+1, n-1
			continue
		}
		v, l, _, _ := brokenToken(b[i:])
		if v != removed {
			return x, false
		}
		i += l
	}
	return x, true
}

// noises appends the places where stretches of what shows nothing begin, if a needle may
// go on over them: after a byte that may be in one, and before another one.
func (m *classes) noises(g *gate, b []byte, out []uint16) []uint16 {
	if m.any[classNoise] == 0 {
		return out
	}
	noise, plain := m.plane(classNoise), m.plane(classPlain)
	lead, line, escape, blank := m.plane(classLead), m.plane(classLine), m.plane(classEscape), m.plane(classBlank)
	last, before := uint64(0), uint64(0) // the bit before the block is set
	carry := uint64(0)                   // a stretch goes on in it
	for k, x := range noise {
		may := plain[k]
		if g.controls {
			may |= blank[k]
		}
		if g.high {
			may = ^uint64(0)
		}
		starts := x &^ (x<<1 | last) & (may<<1 | before)
		if k == 0 { // what is before these is not known
			starts |= x &^ (x << 1) & (1<<gram - 1)
		}
		last, before = x>>63, may>>63
		sum, over := bits.Add64(x, starts, carry)
		ends := sum &^ x // the bytes after stretches
		carry = over
		if ends == 0 {
			continue
		}
		ends &= may | lead[k] | line[k] | escape[k] | ^uint64(0)<<max(0, m.to-m.from-16-64*k)
		for ; ends != 0; ends &= ends - 1 {
			end := 64*k + bits.TrailingZeros64(ends)
			place := m.stretch(end)
			i, j := m.from+place, m.from+end
			if i >= gram && j+16 <= m.to {
				pair := uint16(b[i-1]) | uint16(b[j])<<8
				if g.all[pair>>6]>>(pair&63)&1 == 0 && after[b[j]] == 0 {
					continue
				}
				switch next := b[j]; {
				case after[next] == 3, after[next] == 1 && hides(next, b[j+1]), g.goesOver(b, i, j, &hiddenLang):
				default:
					continue
				}
			}
			out = append(out, uint16(place))
		}
	}
	if carry != 0 {
		out = append(out, uint16(m.stretch(64*len(noise))))
	}
	return out
}

// stretch is where the stretch of what shows nothing begins that ends before end.
func (m *classes) stretch(end int) int {
	noise := m.plane(classNoise)
	for {
		k := (end - 1) >> 6
		x := noise[k] << (63 - (end-1)&63)
		n := bits.LeadingZeros64(^x)
		if end -= n; n == 0 || end&63 != 0 || end == 0 {
			return end
		}
	}
}

// leads appends the places of the lead bytes of what shows nothing, or of what may be
// that, if a needle may go on over it.
func (m *classes) leads(g *gate, b []byte, out []uint16) []uint16 {
	for k, x := range m.plane(classLead) {
		for ; x != 0; x &= x - 1 {
			at := k<<6 + bits.TrailingZeros64(x)
			i := m.from + at
			if i < gram || i+16 > m.to {
				out = append(out, uint16(at))
				continue
			}
			c := b[i]
			if c == 0xcf || !hides(c, b[i+1]) {
				continue
			}
			j := i + 3
			if c == 0xc2 {
				j = i + 2
			}
			if hiddenLang.intro[b[j]] || g.goesOver(b, i, j, &hiddenLang) {
				out = append(out, uint16(at))
			}
		}
	}
	return out
}

// after are the bytes after what shows nothing with which more of it may begin (1), and
// line breaks (3).
var after = [256]uint8{0xc2: 1, 0xe2: 1, 0xef: 1, '\r': 3, '\n': 3}
