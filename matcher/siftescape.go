package matcher

import (
	"bytes"
	"encoding/binary"
	"math/bits"
	"unsafe"
)

// sureBefore and sureAfter are how many bytes there must be on either side of an escape
// that is left out at once.
const (
	sureBefore = 16
	sureAfter  = 32
	sureTail   = 8 // bytes before it that are looked at
)

// escapes are the places in b[from:to] where an escape begins, or what looks like one,
// that the view of escapes has to look at. For each of those that it leaves out it has
// shown that no needle has it in it, in the way of breaks; and floors says after which of
// them a place lies. Nothing is left out that follows, within lookBack bytes, something
// that may turn into an escape when that one is gone.
func (m *classes) escapes(g *gate, b []byte, s *sifted) {
	floor := uint16(0)
	odd := -lookBack - 1 // the last place that is kept, or is no escape,
	seen := odd          // and of what is left out too
	first, last := m.from+sureBefore, m.to-sureAfter
	if g.early {
		last = 0
	}
	for k, x := range m.plane(classEscape) {
		for ; x != 0; x &= x - 1 {
			at := k<<6 + bits.TrailingZeros64(x)
			i := m.from + at
			if i+1 < m.to && needs[b[i]]&follows[b[i+1]] == 0 {
				continue // it is none at any level
			}
			n := 0
			if i >= first && i < last && at-odd > lookBack && (b[i] != '\b' || at-seen > lookBack) {
				n = g.without((*[sureTail + sureAfter]byte)(b[i-sureTail:]))
			}
			if seen = at; n > 0 {
				floor = uint16(at + n)
				continue
			}
			if odd = at; n == 0 {
				s.places = append(s.places, uint16(at))
				s.floors = append(s.floors, floor)
			}
		}
	}
}

// without returns how long the escape is that w has after sureTail bytes, if no needle has
// it in it; -1: it is no escape; 0: it is not easy to tell.
func (g *gate) without(w *[sureTail + sureAfter]byte) int {
	// n bytes, which stand for size (0 or 1) characters c.
	n, size, c := 1, uint(0), uint64(0)
	before := sureTail - gram
	switch v := binary.LittleEndian.Uint64(w[sureTail:]); w[sureTail] {
	case 0x1b:
		switch c := byte(v >> 8); {
		case c == '[':
			v = binary.LittleEndian.Uint64(w[sureTail+2:])
			end := bits.TrailingZeros64(nonZero(v&(0xe0*ones)^0x20*ones)) >> 3
			if n = end + 2; end == 8 {
				return 0
			}
			for _, c := range w[sureTail+2 : sureTail+n] {
				if special[c] != 0 {
					return 0
				}
			}
			if c := w[sureTail+n]; c-0x40 <= 0x3e || c == can || c == sub {
				n++
			}
		case c == ']' || c == 'P' || c == 'X' || c == '^' || c == '_' || c >= 0x20 && c < 0x30:
			return 0
		case c >= 0x30 && c <= 0x7e || c == can || c == sub:
			n = 2
		}
	case '\r':
	case '\b':
		// One that stands alone takes the byte before it away.
		if special[w[sureTail-1]] != 0 || bytes.IndexByte(w[sureTail+1:sureTail+1+erasedGap], '\b') >= 0 {
			return 0
		}
		before--
	case '\\':
		next := simple[byte(v>>8)]
		if next <= 1 {
			return -int(next)
		}
		n, size, c = 2, 1, uint64(next)
	case '%':
		hi, lo := hexDigit(byte(v>>8)), hexDigit(byte(v>>16))
		if hi|lo < 0 {
			if byte(v>>8) == 'u' {
				return 0
			}
			return -1
		}
		if n, size, c = 3, 1, uint64(hi<<4|lo); special[byte(c)] != 0 {
			return 0
		}
	case '&':
		if name, next := byte(v>>8), byte(v>>16); name == '#' && (hexValue[next] > 0 || next|0x20 == 'x') || name == 'a' && (next == 'm' || next == 'p') || (name == 'l' || name == 'g') && next == 't' || name == 'q' && next == 'u' {
			return 0
		}
		return -1
	default:
		return 0
	}
	y := uint64(binary.LittleEndian.Uint32(w[sureTail+n&31:]))
	if special[byte(y)]|special[byte(y>>8)]|special[byte(y>>16)] != 0 {
		return 0
	}
	// Where it is in a needle, there are 2 characters of that before it and 2 after it,
	// with its own one; or it is near one of the ends.
	z := uint64(binary.LittleEndian.Uint32(w[before:])) | c<<32&-uint64(size) | y<<(32+8*size)
	all, starts, ends := unsafe.Pointer(unsafe.SliceData(g.bitmap)), unsafe.Pointer(unsafe.SliceData(g.starts)), unsafe.Pointer(unsafe.SliceData(g.ends))
	mid := z >> 16 & 0xffffffff * golden
	may := bit(starts, z>>24&0xffffffff*golden>>(g.edge&63)) | bit(ends, z>>8&0xffffffff*golden>>(g.edge&63))
	if size != 0 { // it may be the first character as well
		may |= bit(starts, (c|y<<8)&0xffffffff*golden>>(g.edge&63))
	}
	if may&1 != 0 || bit(all, mid>>(g.shift&63))&1 != 0 && g.confirm(mid) {
		return 0
	}
	return n
}

// simple are the characters that a backslash before a byte stands for, where that is
// easy to tell; 1: it is no escape.
var simple = func() (t [256]byte) {
	for c := range t {
		var out [4]byte
		switch v, n, size, _ := backslashToken([]byte{'\\', byte(c), '!', '!', '!', '!', '!', '!', '!', '!', '!', '!'}, &out); {
		case c == 'x' || c == 'u' || c == 'U' || c >= '0' && c <= '7' || c == '\r' || c == '\n' || isIntroducer(byte(c)):
		case v == no:
			t[c] = 1
		case v == decoded && n == 2 && size == 1 && special[out[0]] == 0:
			t[c] = out[0]
		}
	}
	return t
}()
