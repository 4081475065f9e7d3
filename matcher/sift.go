package matcher

import (
	"encoding/binary"
	"math/bits"
	"slices"
)

// sifted are the places, of some class in a classes, that a view has to look at: where
// the gate cannot tell that no needle goes on. All of them are asked about at once,
// since that is where the time of a search goes: most places are none of these.
type sifted struct {
	made   bool
	places []uint16 // from classes.from on
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

// siftBlocks are looked at together.
const siftBlocks = 8

// sift is what is left of classNoise or classLine in b[from:to].
func (m *classes) sift(g *gate, b []byte, c class) *sifted {
	s := &m.sifted[0]
	if c == classLine {
		s = &m.sifted[1]
	}
	if s.made {
		return s
	}
	s.made, s.next, s.places = true, 0, s.places[:0]
	if m.any[c] == 0 && (c != classNoise || m.any[classLead] == 0) {
		return s
	}
	if n := 64*min(len(m.w), siftBlocks) + 8; len(m.room) < n {
		m.room = make([]uint16, n)
	}
	last := uint64(0) // the bit before the block
	for k := 0; k < len(m.w); k += siftBlocks {
		n := 0
		for j := k; j < min(k+siftBlocks, len(m.w)); j++ {
			x := m.w[j][c]
			if c == classNoise {
				x, last = x&^(x<<1|last), x>>63
				x |= m.w[j][classLead]
			}
			n = flatten(m.room, n, x, uint16(64*j))
		}
		if c == classNoise {
			s.places = m.noises(g, b, m.room[:n], s.places)
		} else {
			s.places = m.breaks(g, b, m.room[:n], s.places)
		}
	}
	return s
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

// breaks appends those of at, where LFs are, that mayBreak has to look at. It asks what
// goesOver does, without a branch that depends on the answers.
func (m *classes) breaks(g *gate, b []byte, at, out []uint16) []uint16 {
	n := len(out)
	out = slices.Grow(out, len(at))
	out = out[:n+len(at)]
	for _, place := range at {
		i := m.from + int(place)
		out[n] = place
		if i <= gram || i+24 > m.to {
			n++
			continue
		}
		// The first byte after the blanks.
		w := b[i-gram-1 : i+24]
		v := binary.LittleEndian.Uint64(w[gram+2:])
		z := nonZero(v^blanks8) & nonZero(v^tabs8)
		next := i + 1 + bits.TrailingZeros64(z)>>3
		if z == 0 {
			for next+8 < m.to && (b[next] == ' ' || b[next] == '\t') {
				next++
			}
			if next+8 >= m.to {
				n++
				continue
			}
		}
		// What is before the LF, or CR LF, and after it.
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
			over = g.continues(b[next:m.to])
		} else {
			over &^= in
		}
		n += int(over & 1)
	}
	return out[:n]
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

// noises appends those of at, where what shows nothing begins, or what may be that, that
// a needle may have in it.
func (m *classes) noises(g *gate, b []byte, at, out []uint16) []uint16 {
	for _, place := range at {
		i := m.from + int(place)
		if i < gram || i+16 > m.to {
			out = append(out, place)
			continue
		}
		j := i + 1
		if c := b[i]; c >= 0x80 {
			if !hides(c, b[j]) || c == 0xcf {
				continue
			}
			if j = i + 3; c == 0xc2 {
				j = i + 2
			}
			if hiddenLang.intro[b[j]] {
				out = append(out, place)
				continue
			}
		}
		for hiddenLang.intro[b[j]] && b[j] < 0x80 {
			if j++; j+8 > m.to {
				break
			}
		}
		if after[b[j]] == 0 && !g.pair(b[i-1], b[j]) {
			continue
		}
		if after[b[j]]&1 != 0 && hides(b[j], b[j+1]) || after[b[j]]&2 != 0 || j+8 > m.to || g.goesOver(b, i, j, &hiddenLang) {
			out = append(out, place)
		}
	}
	return out
}

// after are the bytes after what shows nothing with which more of it may begin (1), and
// line breaks (2).
var after = [256]uint8{0xc2: 1, 0xe2: 1, 0xef: 1, '\r': 2, '\n': 2}
