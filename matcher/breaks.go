package matcher

import (
	"bytes"
	"encoding/binary"
	"math/bits"
)

const (
	blanks8 = ' ' * ones
	tabs8   = '\t' * ones
	high8   = 0x80 * ones
)

// nonZero has the highest bit of each byte of x set that is not 0.
func nonZero(x uint64) uint64 { return ((x&^high8 + (high8 - ones)) | x) & high8 }

// hasZero is not 0 if a byte of x is 0.
func hasZero(x uint64) uint64 { return (x - ones) &^ x & high8 }

// nextBreak is the place of the first line break in b[i:to] that a needle may have
// in it, or to. It is passes for most of them, and cheaper.
func nextBreak(g *gate, b []byte, i, to int, m *classes) int {
	at := i
	for at < to {
		if m != nil {
			if at = fastBreak(g, b, at, to, m); at == to {
				break
			}
		} else if n := bytes.IndexByte(b[at:to], '\n'); n >= 0 {
			at += n
		} else {
			break
		}
		from, next, may := mayBreak(g, b, i, at, to)
		if may {
			return from
		}
		at = next
	}
	if b[to-1] == '\r' {
		return to - 1
	}
	return to
}

// fastBreak is the index of the first LF in b[i:to] that mayBreak has to look at, or
// to.
func fastBreak(g *gate, b []byte, i, to int, m *classes) int {
	k := (i - m.from) >> 6
	if m.any[classLine] == 0 {
		return to
	}
	x := m.w[k][classLine] >> ((i - m.from) & 63) << ((i - m.from) & 63)
	for {
		for x == 0 {
			if k++; k >= len(m.w) {
				return to
			}
			x = m.w[k][classLine]
		}
		at := m.from + k<<6 + bits.TrailingZeros64(x)
		x &= x - 1
		if at >= to {
			return to
		}
		if at <= gram || at+24 > to {
			return at
		}
		// The first byte after the blanks.
		y := binary.LittleEndian.Uint64(b[at+1:])
		z := nonZero(y^blanks8) & nonZero(y^tabs8)
		next := at + 1 + bits.TrailingZeros64(z)>>3
		if z == 0 {
			for next+8 < to && (b[next] == ' ' || b[next] == '\t') {
				next++
			}
			if next+8 >= to {
				return at
			}
		}
		from := at
		if b[at-1] == '\r' {
			from--
		}
		y = binary.LittleEndian.Uint64(b[next:])
		tail := binary.LittleEndian.Uint32(b[from-gram:])
		// Where a needle has its first break, either the 4 bytes before it are in it,
		// and the last 3 of them with the one after it; or the 4 bytes after it, and the
		// first 3 of them with the one before it.
		x0, x1 := tail>>8|uint32(y)<<24, tail>>24|uint32(y)<<8
		breaks := hasZero(y<<32^'\n'*ones) | hasZero(y<<32^'\r'*ones)
		if (g.bit(x0)|g.bit(x1))&1|breaks == 0 {
			continue
		}
		if inLine(b[next]) && (breaks != 0 || g.has(x0) && g.has(tail) || g.has(x1) && g.has(uint32(y))) {
			return at // else it is an empty line, or no needle goes on
		}
	}
}

// mayBreak says whether a needle may go on over the LF b[from], where the break begins,
// not before b[i], and what comes after it and its indentation.
func mayBreak(g *gate, b []byte, i, from, to int) (int, int, bool) {
	next := from + 1
	for next < to && (b[next] == ' ' || b[next] == '\t') {
		next++
	}
	if from > i && b[from-1] == '\r' {
		from--
	}
	if from > 0 && next < to && special[b[next]]&2 == 0 && !g.pair(b[from-1], b[next]) {
		return from, next, false
	}
	// The next 5 bytes; what has a line break in them is left to passes.
	if from < gram || next+gram >= to || (special[b[next]]|special[b[next+1]]|special[b[next+2]]|special[b[next+3]]|special[b[next+4]])&2 != 0 {
		return from, next, true
	}
	if tail := b[from-gram : from]; g.has(binary.LittleEndian.Uint32(tail)) && g.joins(tail, b[next]) {
		return from, next, true
	}
	if g.has(binary.LittleEndian.Uint32(b[next:])) && g.has(binary.LittleEndian.Uint32(b[next+1:])) {
		return from, next, true
	}
	return from, next, false
}
