package matcher

import (
	"encoding/binary"
	"math/bits"
)

// fold is a text without the line breaks that wrap base64 (RFC 2045, 76
// columns; RFC 7468, 64) or that a terminal's edge made, and the blanks that
// indent the next line. It copies only from a line that ends in min characters
// without a blank on, to the end of the paragraph, and finds only what a
// removed break cuts: the rest is in the text itself. What it does depends on
// the bytes alone, not on how they are cut.
type fold struct {
	window
	min    int // characters
	state  foldState
	run    int   // characters without a blank that the line so far ends with
	indent int   // blanks after the break so far
	cut    marks // of the break so far
	left   int   // lean: so many characters from now on it is asked whether to go on
	seam   int   // a hit that crosses a break begins before b[seam]

	classes *classes // of the text that write is given; nil: not known
}

type foldState uint8

const (
	foldIdle foldState = iota // outside
	foldCR                    // after a CR that ended a long line
	foldLF                    // after the LF, and maybe blanks
	foldText                  // in a line that goes on from the one before
)

const (
	ones       = 0x0101010101010101
	foldRun    = 48 // columns: xxd -p has 60, PEM 64, OpenSSH 70, MIME 76; the first line may have less
	foldIndent = 16 // blanks
	sample     = 16 // bytes
)

// inLine says that c is neither a blank nor a control character.
func inLine(c byte) bool { return c > ' ' }

// lineEnd is the index of the first byte of p[i:] that is not in a line, or
// len(p).
func lineEnd(p []byte, i int) int {
	// The lowest bit that is set is exact (Warren, Hacker's Delight, 6-1), and
	// there is none only where no byte is less than '!'.
	for ; i+32 <= len(p); i += 32 {
		w := p[i : i+32]
		x0, x1 := binary.LittleEndian.Uint64(w), binary.LittleEndian.Uint64(w[8:])
		x2, x3 := binary.LittleEndian.Uint64(w[16:]), binary.LittleEndian.Uint64(w[24:])
		if ((x0-'!'*ones)&^x0|(x1-'!'*ones)&^x1|(x2-'!'*ones)&^x2|(x3-'!'*ones)&^x3)&(0x80*ones) != 0 {
			break
		}
	}
	for ; i+8 <= len(p); i += 8 {
		x := binary.LittleEndian.Uint64(p[i:])
		if t := (x - '!'*ones) &^ x & (0x80 * ones); t != 0 {
			return i + bits.TrailingZeros64(t)/8
		}
	}
	for i < len(p) && inLine(p[i]) {
		i++
	}
	return i
}

// write takes s.b[from:to], which follows prev if from is 0, and adds hits that
// end in it.
func (f *fold) write(set *set, prev, s *text, from, to int, hits []Hit) []Hit {
	p := s.b[:to]
	for i := from; i < len(p); {
		switch c := p[i]; f.state {
		case foldIdle:
			if f.classes != nil {
				i = f.leap(p, i)
			} else {
				i = f.seek(p, i)
			}
			if i < len(p) {
				if f.lean && i > gram && !set.gate.opens(p[i-gram:i]) {
					f.run = 0
					i++
					continue // nothing goes across
				}
				f.seed(set, prev, s, i)
				if f.lean && f.held == 0 {
					f.run = 0
					i++
					continue // nothing goes across
				}
				f.own, f.cut = markWrapped, markWrapped
				if f.lean {
					f.left = glance
				}
				i = f.lineBreak(s, i)
			}
		case foldCR:
			if c == '\n' {
				f.state = foldLF
				f.cut |= s.marks(i, i+1)
				i++
			} else {
				hits = f.end(set, hits)
			}
		case foldLF:
			switch {
			case (c == ' ' || c == '\t') && f.indent < foldIndent:
				f.indent++
				f.cut |= s.marks(i, i+1)
				i++
			case inLine(c):
				f.state, f.run, f.seam = foldText, 0, len(f.b)
			default:
				hits = f.end(set, hits)
			}
		case foldText:
			limit := len(p)
			if f.lean { // ask now and then whether a needle crosses a break
				limit = min(limit, i+f.left)
			}
			j := lineEnd(p[:limit], i)
			f.add(s, i, j, f.cut)
			f.cut = 0
			f.run += j - i
			if f.lean {
				f.left -= j - i
			}
			switch i = j; {
			case i < limit && f.run >= f.min && (p[i] == '\r' || p[i] == '\n'):
				f.cut = markWrapped
				i = f.lineBreak(s, i)
			case i < limit:
				hits = f.end(set, hits)
			case f.lean && f.left == 0:
				f.left = quiet
				hits = f.search(set, hits)
				if len(f.b)-f.held >= f.seam {
					f.clear()
					f.state = foldIdle
				} else {
					f.seam -= f.trim()
				}
			}
		}
	}
	if f.state == foldIdle {
		return hits
	}
	hits = f.search(set, hits)
	f.seam -= f.trim()
	return hits
}

func (f *fold) lineBreak(s *text, i int) int {
	f.state, f.indent = foldLF, 0
	if s.b[i] == '\r' {
		f.state = foldCR
	}
	f.cut |= s.marks(i, i+1)
	return i + 1
}

// seek returns the index of the next line break after min characters that are
// not blank, or len(p). It looks at the last byte that a run from here would
// have, and backwards from there: so at few bytes of a text with blanks.
func (f *fold) seek(p []byte, i int) int {
	for i < len(p) {
		j := lineEnd(p, i)
		f.run += j - i
		if j == len(p) || f.run >= f.min && (p[j] == '\r' || p[j] == '\n') {
			return j
		}
		f.run = 0
		for i = j + 1; f.min >= 2*sample; {
			// A run has one of these samples in it as a whole, wherever it begins.
			// Where each has a blank there is none; and none waits for the one before.
			// Two words at once, since words of eight letters are many.
			for at := i + f.min - sample; at+sample <= len(p); at += f.min - sample {
				w := p[at : at+sample]
				x, y := binary.LittleEndian.Uint64(w), binary.LittleEndian.Uint64(w[8:])
				if ((x-'!'*ones)&^x|(y-'!'*ones)&^y)&(0x80*ones) == 0 {
					break
				}
				i = at
			}
			last := i + f.min - 1
			if last >= len(p) {
				k := len(p)
				for k > i && inLine(p[k-1]) {
					k--
				}
				f.run = max(0, len(p)-k)
				return len(p)
			}
			// Most of the time there is a blank or a control character among the
			// last 8 bytes: then a run begins after the first of them at the
			// earliest. (The lowest bit of t is exact; Warren, Hacker's Delight, 6-1.)
			x := binary.LittleEndian.Uint64(p[last-7:])
			if t := (x - '!'*ones) &^ x & (0x80 * ones); t != 0 {
				i = last - 7 + bits.TrailingZeros64(t)/8 + 1
				continue
			}
			k := last
			for k >= i && inLine(p[k]) {
				k--
			}
			if k < i {
				break
			}
			i = k + 1
		}
	}
	return i
}

// leap is seek where the classes of p[i:] are known, for a min of 32 or more.
func (f *fold) leap(p []byte, i int) int {
	m := f.classes
	var rows []uint64
	known, any := false, false
	for at := i; ; f.run = 0 {
		j := m.next(classBlank, at)
		f.run += j - at
		if j == len(p) || f.run >= f.min && (p[j] == '\r' || p[j] == '\n') {
			return j
		}
		at = j + 1
		// Where 32 that are no blanks begin.
		k := (at - m.from) >> 6
		if at == len(p) {
			f.run = 0
			return at
		}
		if !known {
			rows, any = m.solid()
			known = true
		}
		x := uint64(0)
		if any {
			x = rows[k] >> ((at - m.from) & 63) << ((at - m.from) & 63)
			for x == 0 {
				if k++; k == len(rows) {
					break
				}
				x = rows[k]
			}
		}
		if x == 0 {
			// The last ones may become so many.
			i = len(p)
			for i > at && inLine(p[i-1]) {
				i--
			}
			f.run = len(p) - i
			return len(p)
		}
		at = m.from + k<<6 + bits.TrailingZeros64(x)
	}
}

// without says that nothing that is held has what a hit must have besides a break.
func (f *fold) without() bool {
	return f.state == foldIdle || f.cut&f.and == 0 && (f.held == 0 || f.marks(len(f.b)-f.held, len(f.b))&f.and == 0)
}

// end leaves the paragraph.
func (f *fold) end(set *set, hits []Hit) []Hit {
	hits = f.last(set, hits)
	f.reset()
	return hits
}

func (f *fold) reset() {
	f.clear()
	f.state, f.run, f.indent, f.cut = foldIdle, 0, 0, 0
}

// safe lowers the offset up to which bytes may be released to what f needs.
func (f *fold) safe(to int64) int64 {
	if at, held := f.from(); held && f.state != foldIdle {
		return min(to, at)
	}
	return to
}

// adopt looks at what is retained with a new set.
func (f *fold) adopt(set *set, hits []Hit) []Hit {
	if f.state == foldIdle {
		return hits
	}
	return f.again(set, hits)
}

func (f *fold) wipe() {
	f.window.wipe()
	f.reset()
}
