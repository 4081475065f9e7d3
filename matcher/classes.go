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
	classNoise                // control characters that show nothing
	classLead                 // lead bytes of characters that show nothing, and of some others
	classQuote                // " '
	classEqual                // =
	classDigit64              // base64, both alphabets
	classBlank                // blanks and control characters: what inLine denies
	classNumber               // hex digits, x, blanks, line breaks, quotes, and , : ;
	classHex                  // hex digits
	classLine                 // LF
	classHead                 // first bytes of headers of compressed data; in a classes, where the second ones follow
	classSecond               // second bytes of them, and two more
	classUpper32              // base32
	classLower32              // and in lower case
	classPlain                // printable ASCII, and the blank
	classTrail                // what follows classLead, and some others; in a classes, classLead is only where one does
	classCount
)

// tables say for the low and for the high four bits of a byte in which
// rectangles of the code table it is; a byte is in those that both have. There
// are five sets of 8. want says which of them make a class.
type tables struct {
	half [10][16]byte // low and high of set 0 to 4
	low4 [16]byte     // 0x0f, for classifyAVX2
	want [classCount][32]byte
	of   [256]uint16 // the classes of a byte, a bit for each
}

// classSet is the set of rectangles that a class is made of.
var classSet = [classCount]int{0, 0, 0, 2, 1, 1, 1, 2, 2, 2, 3, 3, 4, 4, 4, 4}

func newTables() *tables {
	t := &tables{}
	for i := range t.low4 {
		t.low4[i] = 0x0f
	}
	bit := [5]int{}
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
	add(classLead, 0, "ce", "2f")
	add(classQuote, 2, "2", "27")
	add(classEqual, 1, "3", "d")
	add(classDigit64, 1, "3", "0123456789")
	add(classDigit64, 1, "46", "123456789abcdef")
	add(classDigit64, 1, "57", "0123456789a")
	add(classDigit64, 1, "2", "bdf")
	add(classDigit64, 1, "5", "f")
	add(classBlank, 1, "01", "0123456789abcdef")
	add(classBlank, 1, "2", "0")
	add(classHex, 2, "3", "0123456789")
	add(classHex, 2, "46", "123456")
	add(classNumber, 2, "3", "ab")
	add(classNumber, 2, "2", "027c")
	add(classLine, 2, "0", "a")
	add(classNumber, 2, "0", "9d")
	add(classNumber, 2, "57", "8")
	add(classHead, 3, "1", "f")
	add(classHead, 3, "27", "8")
	add(classHead, 3, "5", "0")
	add(classSecond, 3, "48", "b")
	add(classSecond, 3, "b", "5")
	add(classSecond, 3, "0", "1")
	add(classSecond, 3, "5", "e")
	add(classSecond, 3, "9d", "ac")
	add(classUpper32, 4, "4", "123456789abcdef")
	add(classUpper32, 4, "5", "0123456789a")
	digits := byte(1) << bit[4] // of both
	add(classUpper32, 4, "3", "234567")
	add(classLower32, 4, "6", "123456789abcdef")
	add(classLower32, 4, "7", "0123456789a")
	add(classPlain, 4, "23456", "0123456789abcdef")
	add(classPlain, 4, "7", "0123456789abcde")
	add(classTrail, 4, "8ab", "018bd")
	for k := range t.want[classLower32] {
		t.want[classLower32][k] |= digits
	}
	for b := range t.of {
		for c, set := range classSet {
			if t.half[2*set][b&15]&t.half[2*set+1][b>>4]&t.want[c][0] != 0 {
				t.of[b] |= 1 << c
			}
		}
	}
	return t
}

// classTables does not change.
var classTables = newTables()

// classifyGo is classifyBlocks without the processor's help: the classes of 8 bytes side
// by side, and of each class the 8 bits with one multiplication.
func classifyGo(dst []uint64, stride, blocks int, p []byte, t *tables) {
	for n := range blocks {
		var w [classCount]uint64
		for i := 0; i < 64; i += 8 {
			x, y := uint64(0), uint64(0)
			for j, c := range p[64*n+i : 64*n+i+8] {
				of := t.of[c]
				x |= uint64(of&0xff) << (8 * j)
				y |= uint64(of>>8) << (8 * j)
			}
			for k := range 8 {
				w[k] |= x >> k & ones * 0x0102040810204080 >> 56 << i
				w[k+8] |= y >> k & ones * 0x0102040810204080 >> 56 << i
			}
		}
		for k, x := range w {
			dst[k*stride+n] = x
		}
	}
}

// classes says where in b[from:to] bytes of each class are.
type classes struct {
	from, to int
	blocks   int
	stride   int
	w        []uint64           // stride for each class: a bit for each byte from b[from] on, and a block of none
	any      [classCount]uint64 // all elements of a class, ored, of those for which somebody asks
	crowded  bool               // with what begins escapes
	listed   bool
	lists    [5]runList // of classDigit64, classNumber, classHex, classUpper32 and classLower32
	sifted   [3]sifted  // what is left of classNoise, classLine and classEscape
	room     []uint16   // places of some bytes
}

// runList are runs of shortRun bytes or more of a class.
type runList struct {
	runs [][2]int // where in b they begin and end
	next int      // the one to look at first
	done int      // where the last one ends
}

// crowd is how many bytes there are to an escape at least where they are told one by one,
// without a view.
const crowd = 36

// shortRun is how many bytes a run has that is looked for at all.
const shortRun = 15

// plane has a bit for each byte, set where it is of class c.
func (m *classes) plane(c class) []uint64 {
	at := int(c) * m.stride
	return m.w[at : at+m.blocks]
}

// of looks at b[from:to].
func (m *classes) of(b []byte, from, to int) {
	n := to - from
	m.from, m.to = from, to
	m.listed = false
	for i := range m.sifted {
		m.sifted[i].made = false
	}
	m.blocks = (n + 63) / 64
	m.w = m.w[:cap(m.w)]
	if m.stride = len(m.w) / (int(classCount) + rowLists); m.stride < m.blocks+rowPad {
		m.stride = min(max(m.blocks, 2*m.stride), max(m.blocks, slice/64)) + rowPad
		m.w = make([]uint64, m.stride*(int(classCount)+rowLists))
	}
	classifyBlocks(m.w, m.stride, n/64, b[from:to], classTables)
	if n%64 != 0 {
		var rest [64]byte // bars are in no class
		for i := copy(rest[:], b[to-n%64:to]); i < len(rest); i++ {
			rest[i] = '|'
		}
		classifyBlocks(m.w[m.blocks-1:], m.stride, 1, rest[:], classTables)
		clear(rest[:])
	}
	for _, c := range [...]class{classBlank, classDigit64, classNumber, classHex, classUpper32, classLower32} {
		m.w[int(c)*m.stride+m.blocks] = 0 // what follows is in none of these
	}
	m.w[int(classBlank)*m.stride+m.blocks] = ^uint64(0)
	for c := range m.any {
		m.any[c] = ^uint64(0)
	}
	m.refine()
}

// refine takes bytes out of classes that can be told by those next to them: of classHead,
// classLead and classEqual where nothing follows that makes something with them, of
// classQuote where no two pieces of a string meet. What is around the first and the last
// byte is not known.
func (m *classes) refine() {
	n := m.blocks
	if n == 0 {
		return
	}
	head, second, lead, trail := m.plane(classHead), m.plane(classSecond), m.plane(classLead), m.plane(classTrail)
	equal, hex, line, escape := m.plane(classEqual), m.plane(classHex), m.plane(classLine), m.plane(classEscape)
	quote, upper, lower, blank, number := m.plane(classQuote), m.plane(classUpper32), m.plane(classLower32), m.plane(classBlank), m.plane(classNumber)
	noise := m.plane(classNoise)
	var anyHead, anyLead, anyEqual, anyQuote, anyNoise, anyEscape, anyLine uint64
	escapes := 0
	// What follows the last byte of a block, and the blank before its first one.
	at := n - 1
	end := uint64(1) << ((m.to - m.from - 1) & 63)
	nextSecond, nextTrail, nextEqual, nextSign, nextLetter := uint64(0), end, uint64(0), uint64(0), uint64(0)
	nextHex, digits := ^uint64(0), ^uint64(1)<<((m.to-m.from-1)&63) // what comes after the last byte may be digits
	for k := at; k >= 0; k-- {
		x, y := second[k], trail[k]
		head[k] &= x>>1 | nextSecond
		lead[k] &= y>>1 | nextTrail
		nextSecond, nextTrail = x<<63, y<<63
		u, h, b, q := upper[k]|lower[k], hex[k], blank[k], quote[k]
		x, y = line[k]|escape[k], h|digits
		equal[k] &= x>>1 | nextEqual | (y>>1|nextHex<<63)&(y>>2|nextHex<<62)
		nextEqual, nextHex, digits = x<<63, y, 0
		// A string begins after a blank, or one ends before a comma, a colon or a semicolon.
		before := b << 1
		if k > 0 {
			before |= blank[k-1] >> 63
		}
		x = number[k] &^ (h | b | q | u)
		quote[k] = q &^ (x>>1 | nextSign) &^ ((u>>1 | nextLetter) & before)
		nextSign, nextLetter = x<<63, u<<63
		anyHead |= head[k]
		anyLead |= lead[k]
		anyEqual |= equal[k]
		anyQuote |= quote[k]
		anyNoise |= noise[k]
		anyEscape |= escape[k]
		escapes += bits.OnesCount64(escape[k])
		anyLine |= line[k]
	}
	m.any[classHead], m.any[classLead], m.any[classEqual], m.any[classQuote] = anyHead, anyLead, anyEqual, anyQuote
	m.any[classNoise], m.any[classEscape], m.any[classLine] = anyNoise, anyEscape, anyLine
	m.crowded = escapes*crowd > m.to-m.from
}

// next is the index of the first byte of class c in b[i:to], or to.
func (m *classes) next(c class, i int) int {
	at := i - m.from
	k := at >> 6
	if k >= m.blocks || m.any[c] == 0 {
		return m.to
	}
	w := m.plane(c)
	x := w[k] >> (at & 63) << (at & 63)
	for x == 0 {
		if k++; k == len(w) {
			return m.to
		}
		x = w[k]
	}
	return m.from + k<<6 + bits.TrailingZeros64(x)
}

// nextOf is the index of the first byte in b[i:to] that an escape of l may begin with,
// or to.
func (m *classes) nextOf(b []byte, i, to int, l *lang) int {
	k := (i - m.from) >> 6
	if m.any[l.class] == 0 || k >= m.blocks {
		return to
	}
	w := m.plane(l.class)
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
		if at+1 >= to {
			return min(at, to)
		}
		if l.kind == langEscape && needs[b[at]]&follows[b[at+1]] != 0 || l.kind != langEscape && l.opens(b[at], b[at+1]) {
			return at
		}
	}
}

// end is the index of the first byte in b[i:to] that is not of class c, or to.
func (m *classes) end(c class, i int) int {
	at := i - m.from
	k := at >> 6
	if k >= m.blocks {
		return m.to
	}
	w := m.plane(c)
	x := ^w[k] >> (at & 63) << (at & 63)
	for x == 0 {
		if k++; k == len(w) {
			return m.to
		}
		x = ^w[k]
	}
	return min(m.to, m.from+k<<6+bits.TrailingZeros64(x))
}

// run is the index from which on at least n (15 or more) bytes in b[i:to] are of class c,
// one of those that have a list, or to.
func (m *classes) run(c class, i, n int) int {
	if !m.listed {
		m.list()
	}
	l := &m.lists[0]
	switch c {
	case classNumber:
		l = &m.lists[1]
	case classHex:
		l = &m.lists[2]
	case classUpper32:
		l = &m.lists[3]
	case classLower32:
		l = &m.lists[4]
	}
	k := l.next
	if k > 0 && l.runs[k-1][1] > i { // who asks starts again
		k, _ = slices.BinarySearchFunc(l.runs, i, func(r [2]int, i int) int { return cmp.Compare(r[1], i+1) })
	}
	for ; k < len(l.runs); k++ {
		if r := l.runs[k]; r[1]-max(r[0], i) >= n {
			l.next = k
			return max(r[0], i)
		}
	}
	l.next = k
	return m.to
}

// list finds all runs of shortRun bytes or more: where so many bits are set in a row in a
// block and the one after it. Base32 is of classDigit64 as well, and hex digits are of
// classDigit64 and classNumber.
func (m *classes) list() {
	m.listed = true
	for i := range m.lists {
		l := &m.lists[i]
		l.next, l.runs, l.done = 0, l.runs[:0], m.from
	}
	if digits, any := m.rows(0, classDigit64); any {
		for k, x := range digits {
			if x != 0 {
				m.add(0, classDigit64, k, x)
			}
		}
		for i, c := range [...]class{classUpper32, classLower32} {
			rows, any := m.rows(3+i, c)
			for k, x := range rows {
				if any && x != 0 {
					m.add(3+i, c, k, x)
				}
			}
		}
		if numbers, any := m.rows(1, classNumber); any {
			for k, x := range numbers {
				if x != 0 {
					m.add(1, classNumber, k, x)
				}
			}
			hex, any := m.rows(2, classHex)
			for k, x := range hex {
				if any && x != 0 {
					m.add(2, classHex, k, x)
				}
			}
		}
	} else if numbers, any := m.rows(1, classNumber); any {
		for k, x := range numbers {
			if x != 0 {
				m.add(1, classNumber, k, x)
			}
		}
	}
}

const (
	rowLists = 6 // as lists, and stretches of no blanks
	rowPad   = 8 // elements of a plane that may be looked at, or written, after its blocks
)

// rows has a bit set where shortRun bytes of class c begin, and says whether there is one.
func (m *classes) rows(list int, c class) ([]uint64, bool) {
	at := (int(classCount) + list) * m.stride
	dst := m.w[at : at+m.stride]
	return dst[:m.blocks], rows15(dst, m.w[int(c)*m.stride:][:m.stride], m.blocks)
}

// solid has a bit set where 32 bytes that are no blanks begin.
func (m *classes) solid() ([]uint64, bool) {
	at := (int(classCount) + rowLists - 1) * m.stride
	dst := m.w[at : at+m.stride]
	return dst[:m.blocks], rows32(dst, m.w[int(classBlank)*m.stride:][:m.stride], m.blocks)
}

// rows15Go is rows15 without the processor's help.
func rows15Go(dst, src []uint64, blocks int) bool {
	any := uint64(0)
	for k := range blocks {
		x := inRow(src[k], src[k+1])
		dst[k] = x
		any |= x
	}
	return any != 0
}

// rows32Go is rows32 without it. The bits of src are those of what is not wanted.
func rows32Go(dst, src []uint64, blocks int) bool {
	any := uint64(0)
	for k := range blocks {
		x, next := ^src[k], ^src[k+1]
		y, z := x&(x>>1|next<<63), next&(next>>1)
		y, z = y&(y>>2|z<<62), z&(z>>2)
		y, z = y&(y>>4|z<<60), z&(z>>4)
		y, z = y&(y>>8|z<<56), z&(z>>8)
		y &= y>>16 | z<<48
		dst[k] = y
		any |= y
	}
	return any != 0
}

// inRow has those bits of x set with which shortRun that are set in a row begin, in x
// and the block after it.
func inRow(x, next uint64) uint64 {
	x, next = x&(x>>1|next<<63), next&(next>>1)
	x, next = x&(x>>2|next<<62), next&(next>>2)
	x, next = x&(x>>4|next<<60), next&(next>>4)
	return x & (x>>7 | next<<57)
}

// add lists runs that begin in block k, some where the bits of x are.
func (m *classes) add(list int, c class, k int, x uint64) {
	l := &m.lists[list]
	for base := m.from + k<<6; x != 0; {
		from := base + bits.TrailingZeros64(x)
		if from < l.done {
			if l.done-base >= 64 {
				break
			}
			x = x >> (l.done - base) << (l.done - base)
			continue
		}
		l.done = m.end(c, from)
		l.runs = append(l.runs, [2]int{from, l.done})
	}
}

// count is how many bytes of b[i:j] are of class c.
func (m *classes) count(c class, i, j int) (n int) {
	w := m.plane(c)
	for k := (i - m.from) >> 6; k < len(w) && m.from+k<<6 < j; k++ {
		x := w[k]
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
