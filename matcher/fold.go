package matcher

import (
	"encoding/binary"
	"math/bits"
)

// fold is a stream without the line breaks that wrap base64 (RFC 2045, 76
// columns; RFC 7468, 64) and the blanks that indent it. It copies only from a
// line that ends in foldRun base64 characters on, to the end of the paragraph,
// and finds only what a removed break cuts: the rest is in the stream itself.
// Its zero value is ready. What it does depends on the bytes alone, not on how
// they are cut.
type fold struct {
	state   foldState
	run     int // base64 characters that the line so far ends with
	indent  int // blanks after the break so far
	view    []byte
	segs    []seg // where view's bytes were in the stream
	scanned int   // view[:scanned] was searched
	held    int   // how many of these, at the end, begin a needle
}

// seg says that view[at], and what follows up to the next seg, was at raw.
type seg struct {
	at  int
	raw int64
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
	foldRun    = 60 // columns: xxd -p has 60, PEM 64, OpenSSH 70, MIME 76
	foldIndent = 16 // blanks
)

// base64Class has a bit for each character of base64 and base64url. Without a
// branch: on base64 no branch of that kind would be predicted.
var base64Class = [4]uint64{
	1<<'+' | 1<<'-' | 1<<'/' | 0x3ff<<'0',
	0x3ffffff<<('A'-64) | 1<<('_'-64) | 0x3ffffff<<('a'-64),
}

func isBase64(c byte) bool { return base64Class[c>>6]>>(c&63)&1 != 0 }

// write takes p, which follows prev and begins at stream offset base, and adds
// hits that end in it.
func (f *fold) write(set *set, prev, p []byte, base int64, hits []Hit) []Hit {
	for i := 0; i < len(p); {
		switch c := p[i]; f.state {
		case foldIdle:
			if i = f.seek(p, i); i < len(p) {
				f.seed(set, prev, p[:i], base+int64(i))
				i = f.lineBreak(p, i)
			}
		case foldCR:
			if c == '\n' {
				f.state = foldLF
				i++
			} else {
				hits = f.end(set, hits)
			}
		case foldLF:
			switch {
			case (c == ' ' || c == '\t') && f.indent < foldIndent:
				f.indent++
				i++
			case isBase64(c):
				f.state, f.run = foldText, 0
				f.segs = append(f.segs, seg{len(f.view), base + int64(i)})
			default:
				hits = f.end(set, hits)
			}
		case foldText:
			j := i
			for j < len(p) && isBase64(p[j]) {
				j++
			}
			f.view = append(f.view, p[i:j]...)
			f.run += j - i
			i = j
			if i < len(p) {
				if f.run >= foldRun && (p[i] == '\r' || p[i] == '\n') {
					i = f.lineBreak(p, i)
				} else {
					hits = f.end(set, hits)
				}
			}
		}
	}
	if f.state == foldIdle {
		return hits
	}
	hits = f.search(set, hits)
	f.trim()
	f.held = set.begin.hold(f.view)
	return hits
}

func (f *fold) lineBreak(p []byte, i int) int {
	f.state, f.indent = foldLF, 0
	if p[i] == '\r' {
		f.state = foldCR
	}
	return i + 1
}

// seek returns the index of the next line break after foldRun base64
// characters, or len(p). It looks at the last byte that a run from here would
// have, and backwards from there: so at few bytes of a text with blanks.
func (f *fold) seek(p []byte, i int) int {
	for i < len(p) {
		j := i
		for j < len(p) && isBase64(p[j]) {
			j++
		}
		f.run += j - i
		if j == len(p) || f.run >= foldRun && (p[j] == '\r' || p[j] == '\n') {
			return j
		}
		f.run = 0
		for i = j + 1; ; {
			last := i + foldRun - 1
			if last >= len(p) {
				k := len(p)
				for k > i && isBase64(p[k-1]) {
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
			for k >= i && isBase64(p[k]) {
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

// seed copies the run that ends where p ends, at stream offset end.
func (f *fold) seed(set *set, prev, p []byte, end int64) {
	n := min(f.run, retain)
	if n > len(p) {
		f.view = append(f.view, prev[len(prev)-(n-len(p)):]...)
	}
	f.view = append(f.view, p[max(0, len(p)-n):]...)
	f.segs = append(f.segs, seg{0, end - int64(n)})
	f.scanned = len(f.view)
	f.held = set.begin.hold(f.view)
}

// search adds the hits that a removed line break cuts and that end after
// scanned.
func (f *fold) search(set *set, hits []Hit) []Hit {
	if f.scanned == len(f.view) {
		return hits
	}
	from := f.scanned - f.held
	for _, m := range set.find(f.view[from:], nil) {
		if end := from + m.end; end > f.scanned {
			hits = f.hit(set, m.needle, end, hits)
		}
	}
	f.scanned = len(f.view)
	return hits
}

func (f *fold) hit(set *set, needle, end int, hits []Hit) []Hit {
	n := len(set.needles[needle])
	start, stop := f.raw(end-n), f.raw(end-1)+1
	if h, ok := set.hit(needle, start, stop); ok && stop-start != int64(n) {
		hits = append(hits, h)
	}
	return hits
}

// raw is the stream offset of view[at].
func (f *fold) raw(at int) int64 {
	i := len(f.segs) - 1
	for f.segs[i].at > at {
		i--
	}
	return f.segs[i].raw + int64(at-f.segs[i].at)
}

// end leaves the paragraph.
func (f *fold) end(set *set, hits []Hit) []Hit {
	hits = f.search(set, hits)
	f.reset()
	return hits
}

func (f *fold) reset() {
	f.state, f.run, f.indent, f.scanned, f.held = foldIdle, 0, 0, 0, 0
	f.view, f.segs = f.view[:0], f.segs[:0]
}

// trim keeps what may still become part of a match.
func (f *fold) trim() {
	cut := len(f.view) - retain
	if cut <= 0 {
		return
	}
	first := seg{0, f.raw(cut)}
	f.view = f.view[:copy(f.view, f.view[cut:])]
	i := 0 // segs[:i] begin in what was cut
	for i < len(f.segs) && f.segs[i].at <= cut {
		i++
	}
	f.segs = f.segs[:1+copy(f.segs[1:], f.segs[i:])] // i > 0: the first one is at 0
	f.segs[0] = first
	for j := range f.segs[1:] {
		f.segs[j+1].at -= cut
	}
	f.scanned -= cut
}

// from is where in the stream the held bytes begin, if there are any.
func (f *fold) from() (offset int64, held bool) {
	if f.state == foldIdle || f.held == 0 {
		return 0, false
	}
	return f.raw(len(f.view) - f.held), true
}

// adopt looks at what is retained with a new set.
func (f *fold) adopt(set *set, hits []Hit) []Hit {
	if f.state == foldIdle {
		return hits
	}
	f.held = set.begin.hold(f.view)
	for _, m := range set.find(f.view, nil) {
		hits = f.hit(set, m.needle, m.end, hits)
	}
	return hits
}

func (f *fold) wipe() {
	clear(f.view[:cap(f.view)])
	f.reset()
}
