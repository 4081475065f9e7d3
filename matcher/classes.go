package matcher

import "math/bits"

// class is a set of bytes that something begins with, or is made of.
type class uint8

const (
	classEscape  class = iota // % \ & ESC BS CR
	classNoise                // control characters that show nothing, and lead bytes of characters that do not
	classQuote                // " '
	classEqual                // =
	classDigit64              // base64, both alphabets, and [ ]
	classMagic                // second bytes of headers of compressed data, and some others
	classNumber               // hex digits, x, blanks, line breaks, and , : ;
	classHex                  // hex digits
	classCount
)

// tables say for the low and for the high four bits of a byte in which
// rectangles of the code table it is; a byte is in those that both have. There
// are three sets of 8. want says which of them make a class.
type tables struct {
	half [6][16]byte // low and high of set 0, 1, 2
	low4 [16]byte    // 0x0f, for classifyAVX2
	want [classCount][32]byte
}

// classSet is the set of rectangles that a class is made of.
var classSet = [classCount]int{0, 0, 1, 1, 1, 1, 2, 2}

func newTables() *tables {
	t := &tables{}
	for i := range t.low4 {
		t.low4[i] = 0x0f
	}
	bit := [3]int{}
	add := func(c class, set int, high, low string) {
		b := byte(1) << bit[set]
		bit[set]++
		for _, h := range high {
			t.half[2*set+1][hexDigit(byte(h))] |= b
		}
		for _, l := range low {
			t.half[2*set][hexDigit(byte(l))] |= b
		}
		for k := range t.want[c] {
			t.want[c][k] |= b
		}
		if c == classHex {
			for k := range t.want[c] {
				t.want[classNumber][k] |= b
			}
		}
	}
	add(classEscape, 0, "2", "56")
	add(classEscape, 0, "5", "c")
	add(classEscape, 0, "1", "b")
	add(classEscape, 0, "0", "8d")
	add(classNoise, 0, "0", "01234567ef")
	add(classNoise, 0, "1", "0123456789acdef")
	add(classNoise, 0, "7", "f")
	add(classNoise, 0, "ce", "2f")
	add(classQuote, 1, "2", "27")
	add(classEqual, 1, "3", "d")
	add(classDigit64, 1, "3", "0123456789")
	add(classDigit64, 1, "46", "123456789abcdef")
	add(classDigit64, 1, "57", "0123456789a")
	add(classDigit64, 1, "25", "bdf")
	add(classMagic, 1, "5", "e")
	add(classMagic, 1, "9df", "acd")
	add(classHex, 2, "3", "0123456789")
	add(classHex, 2, "46", "123456")
	add(classNumber, 2, "3", "ab")
	add(classNumber, 2, "2", "0c")
	add(classNumber, 2, "0", "9ad")
	add(classNumber, 2, "57", "8")
	return t
}

// classTables does not change.
var classTables = newTables()

// classifyGo is classifyBlocks without the processor's help.
func classifyGo(dst [][classCount]uint64, p []byte, t *tables) {
	for n := range dst {
		d := &dst[n]
		*d = [classCount]uint64{}
		for i, c := range p[64*n : 64*n+64] {
			for set := range 3 {
				if x := t.half[2*set][c&15] & t.half[2*set+1][c>>4]; x != 0 {
					for k := range d {
						if classSet[k] == set && x&t.want[k][0] != 0 {
							d[k] |= 1 << i
						}
					}
				}
			}
		}
	}
}

// classes says where in b[from:to] bytes of each class are.
type classes struct {
	from, to int
	w        [][classCount]uint64 // a bit for each byte from b[from] on
}

// of looks at b[from:to].
func (m *classes) of(b []byte, from, to int) {
	n := to - from
	m.from, m.to = from, to
	blocks := (n + 63) / 64
	if cap(m.w) < blocks {
		m.w = make([][classCount]uint64, blocks)
	}
	m.w = m.w[:blocks]
	classifyBlocks(m.w[:n/64], b[from:to], classTables)
	if n%64 != 0 {
		var rest [64]byte // blanks are in no class that anything begins with
		for i := copy(rest[:], b[to-n%64:to]); i < len(rest); i++ {
			rest[i] = '|'
		}
		classifyBlocks(m.w[blocks-1:], rest[:], classTables)
		clear(rest[:])
	}
}

// next is the index of the first byte of class c in b[i:to], or to.
func (m *classes) next(c class, i int) int {
	at := i - m.from
	k := at >> 6
	if k >= len(m.w) {
		return m.to
	}
	x := m.w[k][c] >> (at & 63) << (at & 63)
	for x == 0 {
		if k++; k == len(m.w) {
			return m.to
		}
		x = m.w[k][c]
	}
	return m.from + k<<6 + bits.TrailingZeros64(x)
}

// end is the index of the first byte in b[i:to] that is not of class c, or to.
func (m *classes) end(c class, i int) int {
	at := i - m.from
	k := at >> 6
	if k >= len(m.w) {
		return m.to
	}
	x := ^m.w[k][c] >> (at & 63) << (at & 63)
	for x == 0 {
		if k++; k == len(m.w) {
			return m.to
		}
		x = ^m.w[k][c]
	}
	return min(m.to, m.from+k<<6+bits.TrailingZeros64(x))
}

// run is the index from which on at least n (15 or more) bytes in b[i:to] are of
// class c, or to. So many have 8 bits of w in them that lie in one byte.
func (m *classes) run(c class, i, n int) int {
	for k := (i - m.from) >> 6; k < len(m.w); k++ {
		y := ^m.w[k][c]
		// The lowest bit that is set is right (Warren, Hacker's Delight, 6-1).
		if (y-ones)&^y&(0x80*ones) == 0 {
			continue
		}
		at := max(i, m.from+k<<6)
		for end := min(m.to, m.from+(k+1)<<6); at < end; {
			at = m.next(c, at)
			if at >= end {
				break
			}
			from := at
			if from == m.from+k<<6 && k > 0 && from > i {
				from = m.begin(c, from, i)
			}
			if at = m.end(c, at); at-from >= n {
				return from
			}
		}
	}
	return m.to
}

// begin is where the bytes of class c that b[at] is the last of begin, not before
// b[i].
func (m *classes) begin(c class, at, i int) int {
	for at > i && m.w[(at-1-m.from)>>6][c]>>((at-1-m.from)&63)&1 != 0 {
		at--
	}
	return at
}

// count is how many bytes of b[i:j] are of class c.
func (m *classes) count(c class, i, j int) (n int) {
	for k := (i - m.from) >> 6; k < len(m.w) && m.from+k<<6 < j; k++ {
		x := m.w[k][c]
		if lo := i - m.from - k<<6; lo > 0 {
			x = x >> lo << lo
		}
		if hi := j - m.from - k<<6; hi < 64 {
			x &= 1<<hi - 1
		}
		n += bits.OnesCount64(x)
	}
	return n
}
