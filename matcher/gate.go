package matcher

import (
	"bytes"
	"encoding/binary"
	"math/bits"
	"slices"
	"unicode/utf8"
)

// gate says cheaply of most escapes that no needle has them in it. Where the
// first escape in a needle is at index i, either i >= 4, and the 4 bytes before
// it are in the stream as they are; or i < 4, and what is decoded from the
// escape on goes on with 5 bytes of the needle, none of which is shorter than 8.
// So it knows the strings of 4 bytes in all needles, as a bitmap of their hashes:
// no answer "nowhere" is wrong.
type gate struct {
	bitmap   []uint64
	second   []uint64 // another one, which is asked where bitmap says yes
	shift    uint
	starts   []uint64        // as bitmap, of the first 4 bytes
	ends     []uint64        // and of the last 4
	edge     uint            // shift for these
	high     bool            // a needle has bytes that are not ASCII,
	controls bool            // and control characters, of those that classNoise does not have
	early    bool            // a needle has a line break that i < 4 could meet
	pairs    [1 << 10]uint64 // bitmap of 2 bytes at index 0 to 3 of a needle
	all      [1 << 10]uint64 // and at any
	heads    [256]bool       // bytes that needles begin with
}

const gram = 4 // bytes

func newGate(needles [][]byte) *gate {
	n := 0
	for _, b := range needles {
		n += len(b) - gram + 1
	}
	logBits := min(max(bits.Len(uint(8*n)), 12), 23)
	g := &gate{bitmap: make([]uint64, 1<<(logBits-6)), second: make([]uint64, 1<<(logBits-6)), shift: uint(64 - logBits)}
	logBits = min(max(bits.Len(uint(32*len(needles))), 12), 21)
	g.starts, g.ends, g.edge = make([]uint64, 1<<(logBits-6)), make([]uint64, 1<<(logBits-6)), uint(64-logBits)
	g.add(needles)
	return g
}

// with is a gate that lets needles through as well.
func (g *gate) with(needles [][]byte) *gate {
	n := *g
	n.bitmap, n.second, n.starts, n.ends = slices.Clone(g.bitmap), slices.Clone(g.second), slices.Clone(g.starts), slices.Clone(g.ends)
	n.add(needles)
	return &n
}

func (g *gate) add(needles [][]byte) {
	for _, b := range needles {
		g.heads[b[0]] = true
		for i := range gram {
			x := uint16(b[i]) | uint16(b[i+1])<<8
			g.pairs[x>>6] |= 1 << (x & 63)
		}
		for i := 0; i+1 < len(b); i++ {
			x := uint16(b[i]) | uint16(b[i+1])<<8
			g.all[x>>6] |= 1 << (x & 63)
		}
		for i := 0; i+gram <= len(b); i++ {
			h := uint64(binary.LittleEndian.Uint32(b[i:])) * golden
			k, l := h>>g.shift, h<<other>>g.shift
			g.bitmap[k>>6] |= 1 << (k & 63)
			g.second[l>>6] |= 1 << (l & 63)
		}
		first := uint64(binary.LittleEndian.Uint32(b)) * golden >> g.edge
		g.starts[first>>6] |= 1 << (first & 63)
		last := uint64(binary.LittleEndian.Uint32(b[len(b)-gram:])) * golden >> g.edge
		g.ends[last>>6] |= 1 << (last & 63)
		for _, c := range b {
			g.high = g.high || c >= 0x80
			g.controls = g.controls || c < ' ' && !hiddenLang.intro[c]
		}
		g.early = g.early || bytes.ContainsAny(b[:min(len(b), 2*gram+1)], "\r\n")
	}
}

func (g *gate) has(x uint32) bool {
	h := uint64(x) * golden
	i := h >> g.shift
	return g.bitmap[i>>6]>>(i&63)&1 != 0 && g.confirm(h)
}

// confirm asks the second bitmap about a hash.
func (g *gate) confirm(h uint64) bool {
	i := h << other >> g.shift
	return g.second[i>>6]>>(i&63)&1 != 0
}

// bit is has, in the lowest bit, without a branch.
func (g *gate) bit(x uint32) uint64 {
	h := uint64(x) * golden >> g.shift
	return g.bitmap[h>>6] >> (h & 63)
}

func (g *gate) wipe() {
	clear(g.bitmap)
	clear(g.second)
	clear(g.starts)
	clear(g.ends)
	clear(g.pairs[:])
	clear(g.all[:])
	clear(g.heads[:])
}

// begins says whether a needle has x and y at index 0 to 3.
func (g *gate) begins(x, y byte) bool {
	k := uint16(x) | uint16(y)<<8
	return g.pairs[k>>6]>>(k&63)&1 != 0
}

// pair says whether a needle has x and y next to each other: what the first level
// of the processor's cache can answer.
func (g *gate) pair(x, y byte) bool {
	k := uint16(x) | uint16(y)<<8
	return g.all[k>>6]>>(k&63)&1 != 0
}

// apart says that no needle has the escape b[i:j] in it, which stands for out.
// It is the short way: it looks at little and says no where there is more to see.
// No other escape may be open before b[i]. No needle begins before b[floor], if
// that is not 0.
func (g *gate) apart(b []byte, floor, i, j int, out []byte) bool {
	if (floor == 0 || i-floor >= gram) && (i < gram || g.has(binary.LittleEndian.Uint32(b[i-gram:]))) || g.early {
		return false
	}
	var x byte
	switch {
	case len(out) == 0:
	case len(out) == 1 && out[0] != '\n':
		if x = out[0]; special[x] != 0 {
			return false
		}
		if j >= len(b) {
			return false
		}
		if special[b[j]] == 0 {
			return !g.begins(x, b[j])
		}
		// Two escapes, and more often than not of one character each.
		y, _, ok := g.first(b, j, false)
		return ok && !g.begins(x, y)
	case len(out) != 1:
		return false
	}
	x, j, ok := g.first(b, j, len(out) == 1)
	if !ok {
		return false
	}
	y, _, ok := g.first(b, j, false)
	return ok && !g.begins(x, y)
}

// first decodes the first character of b[j:] that is no line break, nor a blank
// after one, and says where it ends. broken says that there was one before.
func (g *gate) first(b []byte, j int, broken bool) (c byte, end int, ok bool) {
	for range foldIndent {
		if j+1 >= len(b) {
			return 0, 0, false
		}
		var out [utf8.UTFMax]byte
		out[0] = b[j]
		n, size := 1, 1
		if special[b[j]] == 0 && !broken {
			return b[j], j + 1, true
		}
		if isIntroducer(b[j]) && opens(b[j], b[j+1]) {
			var v verdict
			if v, n, size, _ = token(b[j:], &out); v != decoded && v != removed || size > 1 {
				return 0, 0, false
			}
		} else if b[j] == '\r' {
			n, out[0] = 2, '\n'
		} else if isIntroducer(b[j]) {
			return b[j], j + 1, true
		}
		j += n
		switch c := out[0]; {
		case size == 0:
		case c == '\n':
			broken = true
		case broken && (c == ' ' || c == '\t'):
		case isIntroducer(c):
			return 0, 0, false
		default:
			return c, j, true
		}
	}
	return 0, 0, false
}

// crosses says whether a needle may go on from tail, the text before an escape
// that stands for out, over it to rest, what follows in the stream. Of tail it
// needs lookBack bytes, if there are.
func (g *gate) crosses(tail, out, rest []byte) bool {
	yes, _ := g.look(tail, out, rest)
	return yes
}

// look is crosses. far is how much of rest it looked at in vain.
func (g *gate) look(tail, out, rest []byte) (yes bool, far int) {
	before := false
	if n := len(tail); n >= gram {
		before = g.has(binary.LittleEndian.Uint32(tail[n-gram:]))
	}
	if len(rest) >= gram+1 && len(out) <= 1 && special[rest[0]]|special[rest[1]]|special[rest[2]]|special[rest[3]]|special[rest[4]] == 0 {
		x, first := binary.LittleEndian.Uint32(rest), rest[0]
		y := x>>8 | uint32(rest[4])<<24
		if len(out) == 1 {
			first = out[0]
			x, y = x<<8|uint32(first), x
		}
		if special[first] == 0 {
			return before && g.joins(tail, first) || g.has(x) && g.has(y), 0
		}
	}
	if len(out) <= 1 && !g.early {
		if v, far := g.skims(tail, out, rest, before); v != more {
			return v != no, far
		}
	}
	return g.decodes(tail, out, rest, before)
}

// maxSkim and maxLook bound how many bytes and escapes are looked at for one
// escape: what is made of escapes that come to nothing would be looked through
// once for each of them.
const (
	maxSkim = 64
	maxLook = 160
)

// skims is crosses for what decodes to nothing that has to be decoded again: it
// says more where there is something else.
func (g *gate) skims(tail, out, rest []byte, before bool) (verdict, int) {
	var x uint64 // what comes out, without line breaks and blanks after them
	n, i, broken := uint(0), 0, false
	var c [utf8.UTFMax]byte
	first, size := byte(0), len(out)
	if size > 0 {
		c[0] = out[0]
	}
	for begun, steps := false, 0; ; steps++ {
		if steps == maxSkim {
			return decoded, i // escapes that come to nothing, one after the other
		}
		if size > 0 {
			if !begun {
				begun, first = true, c[0]
			}
			switch d := c[0]; {
			case d == '\n':
				broken = true
			case broken && (d == ' ' || d == '\t'):
			case isIntroducer(d) && (d != '\r' || i >= len(rest) || rest[i] != '\n'):
				return more, 0
			case d != '\r':
				broken = false
				x |= uint64(d) << (8 * n)
				n++
			}
		}
		if n == gram && !before && !g.has(uint32(x)) {
			return no, 0
		}
		if n > gram {
			break
		}
		if i >= len(rest) {
			return more, 0
		}
		if !isIntroducer(rest[i]) {
			c[0], size = rest[i], 1
			i++
			continue
		}
		v, l, s, _ := token(rest[i:], &c)
		switch {
		case v == no:
			c[0], size, l = rest[i], 1, 1
		case v == more || v == erase || s > 1:
			return more, 0
		default:
			size = s
		}
		i += l
	}
	if before && (g.joins(tail, byte(x)) || g.joins(tail, first)) || g.has(uint32(x)) && g.has(uint32(x>>8)) {
		return decoded, 0
	}
	return no, 0
}

// opens is false where no needle begins in the 4 bytes of tail, or before them, and goes
// on after them.
func (g *gate) opens(tail []byte) bool {
	x := binary.LittleEndian.Uint32(tail)
	return g.heads[x>>24] || g.begins(byte(x>>16), byte(x>>24)) || g.begins(byte(x>>8), byte(x>>16)) || g.has(x)
}

// joins says whether a needle may have the last 3 bytes of tail and then c.
func (g *gate) joins(tail []byte, c byte) bool {
	return g.has(binary.LittleEndian.Uint32(tail[len(tail)-gram:])>>8 | uint32(c)<<24)
}

// decodes is crosses where there is more to decode. It says yes where it cannot
// tell.
func (g *gate) decodes(tail, out, rest []byte, before bool) (yes bool, far int) {
	var room [96]byte
	var c [utf8.UTFMax]byte
	chars := append(room[:0], out...)
	i := 0
	steps := 0
	for _, want := range [...]int{8, 24, 80} {
		for len(chars) < want {
			if steps++; i >= len(rest) || steps == maxLook {
				return true, i
			}
			if !isIntroducer(rest[i]) {
				chars = append(chars, rest[i])
				i++
				continue
			}
			switch v, n, size, _ := token(rest[i:], &c); v {
			case more, erase:
				return true, 0
			case no:
				chars = append(chars, rest[i])
				i++
			default:
				chars = append(chars, c[:size]...)
				i += n
			}
		}
		switch v := g.judge(tail, chars, before); v {
		case more:
		default:
			return v != no, 0
		}
	}
	return true, i
}

// judge says no if no needle goes on with chars, at any level.
func (g *gate) judge(tail, chars []byte, before bool) verdict {
	v, plain := g.goesOn(tail, chars, before)
	if v != no || plain {
		return v
	}
	// What comes out when it is decoded again.
	var room [96]byte
	var c [utf8.UTFMax]byte
	again := room[:0]
	for i := 0; i < len(chars); {
		if isIntroducer(chars[i]) {
			v, n, size, _ := token(chars[i:], &c)
			if v == erase {
				return decoded
			}
			if v == more {
				break
			}
			if v > no {
				again = append(again, c[:size]...)
				i += n
				continue
			}
		}
		again = append(again, chars[i])
		i++
	}
	v, _ = g.goesOn(tail, again, before)
	return v
}

// goesOn says whether a needle goes on with chars, with its line breaks or
// without them: no, decoded for yes, or more. plain says that there is nothing to
// decode in what it looked at.
func (g *gate) goesOn(tail, chars []byte, before bool) (v verdict, plain bool) {
	var f [gram + 1]byte // without line breaks, and blanks after them
	n, breaks := 0, 0
	plain = true
	for k := 0; n < len(f); k++ {
		if k == len(chars) {
			return more, plain
		}
		c := chars[k]
		if c == '\r' && k+1 == len(chars) {
			return more, plain
		}
		switch {
		case c == '\n':
			breaks++
		case c == '\r' && chars[k+1] == '\n':
		case (c == ' ' || c == '\t') && breaks > 0 && k > 0 && (chars[k-1] == '\n' || chars[k-1] == ' ' || chars[k-1] == '\t'):
		default:
			plain = plain && !isIntroducer(c)
			f[n] = c
			n++
		}
	}
	if before && (g.joins(tail, f[0]) || g.joins(tail, chars[0])) {
		return decoded, plain
	}
	if g.has(binary.LittleEndian.Uint32(f[:])) && g.has(binary.LittleEndian.Uint32(f[1:])) {
		return decoded, plain
	}
	if breaks > 0 && g.early && (breaks > 1 || g.has(binary.LittleEndian.Uint32(chars)) && g.has(binary.LittleEndian.Uint32(chars[1:]))) {
		return decoded, plain
	}
	return no, plain
}

const erasedGap = 12 // bytes without a backspace after which none belongs to the ones before

// erased follows a run of backspaces from b[i] on, and what is typed between
// them and erased again. It returns where that ends and how many bytes before
// b[i] it takes away. ok is false where it is anything else, or not complete.
func erased(b []byte, i int) (end, depth int, ok bool) {
	last := i
	for last-i <= 8*erasedGap {
		n := bytes.IndexByte(b[last+1:min(len(b), last+1+erasedGap)], 0x08)
		if n < 0 {
			break
		}
		last += n + 1
	}
	if end := last + erasedGap; end >= len(b) || end-i > 8*erasedGap {
		return 0, 0, false
	}
	typed := 0
	for _, c := range b[i : last+1] {
		switch {
		case c != 0x08 && isIntroducer(c):
			return 0, 0, false
		case c != 0x08:
			typed++
		case typed > 0:
			typed--
		default:
			depth++
		}
	}
	return last + 1, depth, typed == 0
}
