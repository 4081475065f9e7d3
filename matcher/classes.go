package matcher

import (
	"cmp"
	"math/bits"
	"slices"
)

// class is a set of bytes that something begins with, or is made of.
type class uint8

const (
	classEscape  class = iota // % \ & ESC BS CR
	classNoise                // control characters that show nothing, and lead bytes of characters that do not
	classQuote                // " '
	classEqual                // =
	classDigit64              // base64, both alphabets, and [ ]
	classMagic                // second bytes of headers of compressed data, and some others
	classNumber               // hex digits, x, blanks, line breaks, quotes, and , : ;
	classHex                  // hex digits
	classLine                 // LF
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
var classSet = [classCount]int{0, 0, 1, 1, 1, 1, 2, 2, 2}

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
		if c == classHex || c == classLine {
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
	add(classNumber, 2, "2", "027c")
	add(classLine, 2, "0", "a")
	add(classNumber, 2, "0", "9d")
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
	from, to             int
	w                    [][classCount]uint64 // a bit for each byte from b[from] on
	any                  [classCount]uint64   // all elements of w, ored
	found                [classCount]found
	whole                bool     // runs are listed:
	runs                 [][2]int // where in b those of classDigit64 begin and end
	next64               int      // the one to look at first
	planes               []planes // of the run from planesFrom to planesTo, and one that shows nothing
	planesFrom, planesTo int
}

// shortRun is how many bytes a run has that is looked for at all.
const shortRun = 15

// of looks at b[from:to].
func (m *classes) of(b []byte, from, to int) {
	n := to - from
	m.from, m.to, m.found, m.whole, m.planesTo = from, to, [classCount]found{}, false, -1
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
	m.any = [classCount]uint64{}
	var full, digits, lists uint64
	for k := range m.w {
		w := &m.w[k]
		for c := range m.any {
			m.any[c] |= w[c]
		}
		full |= whole(w[classDigit64])
		lists |= whole(w[classNumber])
		digits |= whole(w[classHex])
	}
	if full == 0 {
		m.found[classDigit64] = found{from, 1, to}
	}
	if lists == 0 {
		m.found[classNumber] = found{from, 1, to}
	}
	if digits == 0 {
		m.found[classHex] = found{from, 1, to}
	}
}

// whole is not 0 if a byte of x has all bits set.
func whole(x uint64) uint64 { return (^x - ones) & x & (0x80 * ones) }

// next is the index of the first byte of class c in b[i:to], or to.
func (m *classes) next(c class, i int) int {
	at := i - m.from
	k := at >> 6
	if k >= len(m.w) || m.any[c] == 0 {
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
// class c, or to.
func (m *classes) run(c class, i, n int) int {
	if c == classDigit64 {
		return m.listed(i, n)
	}
	if f := &m.found[c]; f.n > 0 && f.n <= n && f.from <= i && i < f.at {
		i = f.at // asked before
	}
	at := m.search(c, i, n)
	m.found[c] = found{i, n, at}
	return at
}

// listed is run for the class that several ask about: all its runs are listed once.
func (m *classes) listed(i, n int) int {
	if !m.whole {
		m.whole = true
		m.list()
		m.next64 = 0
	}
	k := m.next64
	if k > 0 && m.runs[k-1][1] > i { // who asks starts again
		k, _ = slices.BinarySearchFunc(m.runs, i, func(r [2]int, i int) int { return cmp.Compare(r[1], i+1) })
	}
	for ; k < len(m.runs); k++ {
		if r := m.runs[k]; r[1]-max(r[0], i) >= n {
			m.next64 = k
			return max(r[0], i)
		}
	}
	m.next64 = k
	return m.to
}

// list finds all runs of shortRun bytes or more of classDigit64: where so many bits
// are set in a row in a block and the one after it.
func (m *classes) list() {
	m.runs = m.runs[:0]
	if m.found[classDigit64].at == m.to {
		return // there is none
	}
	done := m.from
	for k := range m.w {
		x, next := m.w[k][classDigit64], uint64(0)
		if whole(x) == 0 && x>>57 == 0 { // no 8 in a row, wherever; and none that may go on
			continue
		}
		if k+1 < len(m.w) {
			next = m.w[k+1][classDigit64]
		}
		y, z := x&(x>>1|next<<63), next&(next>>1)
		y &= y>>2 | z<<62
		z &= z >> 2
		y &= y>>4 | z<<60
		z &= z >> 4
		y &= y>>7 | z<<57
		for base := m.from + k<<6; y != 0; {
			from := base + bits.TrailingZeros64(y)
			if from < done {
				if done-base >= 64 {
					break
				}
				y = y >> (done - base) << (done - base)
				continue
			}
			done = m.end(classDigit64, from)
			m.runs = append(m.runs, [2]int{from, done})
		}
	}
}

// found says that no run of n bytes begins in [from, at).
type found struct{ from, n, at int }

func (m *classes) search(c class, i, n int) int {
	for k := (i - m.from) >> 6; k < len(m.w); k++ {
		// So many bytes have 8 bits of x in them that lie in one byte, or in two that
		// lie next to each other. (The lowest bit that is set is right, others may be
		// too many; Warren, Hacker's Delight, 6-1.)
		x := m.w[k][c]
		t := whole(x)
		if t == 0 {
			continue
		}
		var next uint64
		if k+1 < len(m.w) {
			next = m.w[k+1][c]
		}
		var before uint64
		if k > 0 {
			before = m.w[k-1][c]
		}
		// Where 8 bytes in a row begin, in this and in the next block; then 15.
		y := x & (x>>1 | next<<63)
		z := next & (next >> 1)
		y &= y>>2 | z<<62
		z &= z >> 2
		y &= y>>4 | z<<60
		z &= z >> 4
		y &= y>>7 | z<<57
		// A run may have begun in the block before, with too few bytes there to be seen.
		if y == 0 && x&(before>>63) == 0 {
			continue
		}
		base := m.from + k<<6
		for t != 0 {
			at := bits.TrailingZeros64(t) &^ 7
			t &= t - 1
			if base+at+8 <= i || byte(x>>at) != 0xff {
				continue
			}
			at = max(base+at, i)
			from, end := m.begin(c, at, i), m.end(c, at)
			if end-from >= n {
				return from
			}
			if end >= base+64 {
				break
			}
			t = t >> (end - base) << (end - base)
		}
	}
	return m.to
}

// begin is where the bytes of class c before b[at], which is one, begin, not
// before b[i].
func (m *classes) begin(c class, at, i int) int {
	for at > i {
		k := at - m.from
		low := k & 63
		if low == 0 {
			if m.w[k>>6-1][c]>>63 == 0 {
				break
			}
			at--
			continue
		}
		n := bits.LeadingZeros64(^(m.w[k>>6][c] << (64 - low)))
		at -= min(n, low)
		if n < low {
			break
		}
	}
	return max(at, i)
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
