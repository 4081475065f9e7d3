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

// nextBreak is the place of the first line break in b[i:to] that a needle may have
// in it, or to. It is passes for most of them, and cheaper.
func nextBreak(g *gate, b []byte, i, to int, m *classes) int {
	at := i
	for at < to {
		if m != nil {
			if at = m.sift(g, b, classLine).after(m, at); at == to {
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

// goesOver says whether a needle may go on from b[:i] to b[j:], with nothing before it
// removed. Either the 4 bytes before are in it, and the last 3 of them with the one
// after; or the bytes next to it are at index 0 to 3, and what follows goes on, of which
// it says yes where there is more to remove in it. It needs 4 bytes before and after.
func (g *gate) goesOver(b []byte, i, j int, l *lang) bool {
	tail, y := binary.LittleEndian.Uint32(b[i-gram:]), binary.LittleEndian.Uint32(b[j:])
	k := uint16(tail>>24) | uint16(y)<<8
	over, start := g.bit(tail>>8|y<<24), g.pairs[k>>6]>>(k&63)
	if (over|start)&1 == 0 {
		return false
	}
	if over&1 != 0 && g.has(tail) {
		return true
	}
	if start&1 == 0 {
		return false
	}
	for _, c := range b[j : j+gram] {
		if l.intro[c] || special[c]&2 != 0 {
			return true
		}
	}
	return g.has(tail>>24|y<<8) && g.has(y)
}

// nextQuote is the place of the first quote in b[i:to] where two pieces of a needle may
// meet, or to.
func nextQuote(g *gate, b []byte, i, to int, m *classes) int {
	k := (i - m.from) >> 6
	if m.any[classQuote] == 0 {
		return to
	}
	w := m.plane(classQuote)
	x := w[k] >> ((i - m.from) & 63) << ((i - m.from) & 63)
	for {
		for x == 0 {
			if k++; k >= len(w) {
				return to
			}
			x = w[k]
		}
		at := m.from + k<<6 + bits.TrailingZeros64(x)
		x &= x - 1
		if at >= to {
			return to
		}
		if at+1 >= to {
			return at
		}
		next := b[at+1]
		if !seams[next] {
			continue
		}
		if isAlnum(next) && at > 0 && (b[at-1] <= ' ' || b[at-1] != '"' && b[at-1] != '\'' && !g.pair(b[at-1], next)) {
			continue // a string begins, or one that nothing goes on in
		}
		if at < gram || at+16 > to {
			return at
		}
		if isAlnum(next) {
			if !g.goesOver(b, at, at+1, &joinedLang) {
				continue
			}
			return at
		}
		tail := binary.LittleEndian.Uint32(b[at-gram:])
		if g.heads[tail>>24] || g.begins(byte(tail>>16), byte(tail>>24)) || g.has(tail) {
			return at
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
