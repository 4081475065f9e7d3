package screen

import (
	"bytes"
	"unicode/utf8"
)

// plain is the short way for output that a program prints line after line, which
// is most of it. While the cursor is at the end of what is on the screen, text,
// line ends, tabs and colours draw nothing next to older text. So the model is
// not needed: it takes what matters of them when something else comes. What is
// printed in a column, a part in each line, is no value in the stream of bytes,
// and is looked for here.
type plain struct {
	on    bool
	quiet int    // lines since anything but plain output, by which the screen scrolled
	pend  []byte // what the model has not seen: the last of it

	col    int
	line   int
	field  *column // that goes on; nil: between two
	blanks int
	fields int  // in this line
	seen   bool // the stream's search sees over the end of the line before
	clean  bool // there is no sequence in the last word
	same   int  // lines like the one before
	last   []byte
	cols   []*column // by where they begin; nil: nothing did
	used   []*column // in this chunk
	text1  []byte    // reused
	marks  []int
	resets []int // where in pend the colours were set to none, once a chunk
	reset  int   // in this chunk; -1: nowhere
}

// column is the text that begins in one column, of lines below each other.
type column struct {
	buf   []byte
	parts []part
	old   int // bytes that were searched already
	line  int
	word  int  // where the last word of the field begins
	first bool // which is its first one
}

// part is the text of one line in a column.
type part struct {
	at     int  // in buf
	joined bool // it goes on where the line before it ended, and the stream's search does not see that
	on     bool // it goes on there
}

const (
	maxPend   = 64 << 10
	maxColumn = 512
	maxSame   = 16
)

// special are the bytes that are not just text.
var special = func() (t [256]bool) {
	for i := range t {
		t[i] = i <= ' ' || i >= 0x7f || i == '|'
	}
	return t
}()

func (p *plain) start() {
	*p = plain{on: true, pend: p.pend[:0], last: p.last[:0], resets: p.resets[:0], text1: p.text1, marks: p.marks}
	p.cols = make([]*column, maxColumn)
}

// scan takes the part of b that is plain and returns its length; cut says that
// what follows it may be plain when it is complete.
func (p *plain) scan(b []byte, width int) (n int, cut bool) {
	p.reset = -1
	i, from := 0, 0 // from: where the line begins
	for i < len(b) {
		c := b[i]
		if !special[c] {
			j := i + 1
			for j < len(b) && !special[b[j]] {
				j++
			}
			p.text(b[i:j], j-i)
			i = j
			continue
		}
		switch {
		case c == ' ':
			p.space()
			i++
		case c == '|':
			p.field, p.blanks = nil, 0
			p.col++
			i++
		case c == '\r':
			// A file with CR LF is shown with one more CR, which does nothing.
			j := i + 1
			for j < len(b) && b[j] == '\r' {
				j++
			}
			if j == len(b) {
				return i, true
			}
			if b[j] != '\n' {
				return i, false
			}
			i = j
		case c == '\n':
			if p.col == 1 || p.col > 1 && i > 0 {
				if k := p.repeat(b, from, i); k > i {
					i, from = k, k
					continue
				}
			}
			p.newline(i == 0 || b[i-1] != '\r')
			i++
			from = i
		case c == '\t' && p.col >= width-1: // terminals differ there
			return i, false
		case c == '\t':
			p.field, p.blanks = nil, 0
			p.col = p.col&^7 + 8
			i++
		case c == 7:
			i++
		case c == 0x1b:
			k, ok := plainSeq(b[i:])
			if k == 0 {
				return i, !ok
			}
			if b[i+k-1] == 'K' && p.col >= width-1 {
				return i, false
			}
			if k == 3 && b[i+2] == 'm' || k == 4 && b[i+2] == '0' && b[i+3] == 'm' {
				p.reset = i
			}
			p.clean = false
			i += k
		case c >= utf8.RuneSelf:
			if !utf8.FullRune(b[i:]) {
				return i, true
			}
			r, k := utf8.DecodeRune(b[i:])
			w := runeWidth(r)
			if r == utf8.RuneError && k == 1 || r < 0xa0 || w == 0 {
				return i, false
			}
			if border(r) {
				p.field, p.blanks = nil, 0
				p.col += w
			} else {
				p.text(b[i:i+k], w)
			}
			i += k
		default:
			return i, false
		}
	}
	return i, false
}

// plainSeq is the length of a sequence that draws nothing and moves nothing. 0 and
// ok: it is none; 0 and not ok: it is not complete.
func plainSeq(b []byte) (n int, ok bool) {
	if len(b) < 2 {
		return 0, false
	}
	if b[1] != '[' {
		return 0, true
	}
	for i := 2; i < len(b) && i < 64; i++ {
		switch c := b[i]; {
		case c >= '0' && c <= ';':
		case c == 'm':
			return i + 1, true
		case c == 'K' && (i == 2 || i == 3 && b[2] == '0'):
			return i + 1, true
		default:
			return 0, true
		}
	}
	return 0, len(b) >= 64
}

func (p *plain) space() {
	p.col++
	if p.blanks++; p.blanks > 1 {
		p.field = nil
	}
}

// word begins another word of the field. Of text with blanks the first word and the
// last one are what may go on in other lines.
func (p *plain) word(f *column) {
	if !f.first {
		f.buf = f.buf[:f.word]
	} else {
		f.buf = append(f.buf, apart)
		f.first = false
	}
	f.word = len(f.buf)
	p.clean = true
}

func (p *plain) text(b []byte, w int) {
	if p.field != nil && p.blanks > 0 {
		p.word(p.field)
	}
	if p.field == nil && p.col < maxColumn {
		f := p.cols[p.col]
		if f == nil {
			f = &column{line: -2}
			p.cols[p.col] = f
		}
		if len(f.buf) == f.old && len(f.parts) == 0 {
			p.used = append(p.used, f)
			f.parts = append(f.parts, part{})
		}
		on := f.line == p.line-1
		f.parts = append(f.parts, part{len(f.buf), on && !(p.seen && p.fields == 0 && p.col <= seenBlanks), on})
		p.fields++
		f.line = p.line
		f.word = len(f.buf)
		f.first = true
		p.field, p.clean = f, true
	}
	if p.field != nil {
		p.field.buf = append(p.field.buf, b...)
	}
	p.col += w
	p.blanks = 0
}

func (p *plain) newline(bare bool) {
	f := p.field
	p.seen = f != nil && p.fields == 1 && p.blanks == 0 && p.clean && len(f.buf)-f.word >= seenLine
	p.field = nil
	p.blanks, p.fields = 0, 0
	if !bare {
		p.col = 0
	}
	p.line++
}

// repeat passes over lines that are like the one from b[from] to its end at b[i],
// once there were many of them, and returns where it stopped.
func (p *plain) repeat(b []byte, from, i int) int {
	l := b[from : i+1]
	if len(l) > 64 {
		p.last, p.same = p.last[:0], 0
		return i
	}
	if from == 0 || !bytes.Equal(l, p.last) {
		p.last, p.same = append(p.last[:0], l...), 0
		return i
	}
	if p.same++; p.same < maxSame || i == 0 || b[i-1] != '\r' {
		return i
	}
	p.newline(false)
	k := i + 1
	for len(b)-k >= len(l) && string(b[k:k+len(l)]) == string(l) {
		k += len(l)
		p.line++
	}
	return k
}

// found says that a value is drawn in a column.
func (p *plain) found(find Find) bool {
	p.text1, p.marks = p.text1[:0], p.marks[:0]
	for _, f := range p.used {
		for i, x := range f.parts {
			end, next := len(f.buf), false
			if i+1 < len(f.parts) {
				end, next = f.parts[i+1].at, f.parts[i+1].joined
			}
			if x.joined {
				p.marks = append(p.marks, len(p.text1))
			}
			if !x.joined && !next {
				continue
			}
			if !x.on {
				p.text1 = append(p.text1, apart)
			}
			p.text1 = append(p.text1, f.buf[x.at:end]...)
			if !next {
				p.text1 = append(p.text1, apart)
			}
		}
		last := f.parts[len(f.parts)-1]
		f.parts = f.parts[:0]
		if n := len(f.buf) - tail; n > 0 {
			f.buf = f.buf[:copy(f.buf, f.buf[n:])]
			f.word, last.at = max(0, f.word-n), last.at-n
		}
		f.old = len(f.buf)
		if f == p.field { // it goes on in the next chunk
			f.parts = append(f.parts, part{})
			if last.joined && last.at > 0 {
				f.parts = append(f.parts, last)
			}
		}
	}
	hit := false
	if len(p.marks) > 0 {
		for _, h := range find(p.text1) {
			for _, j := range p.marks {
				hit = hit || j > h.Start && j < h.End
			}
		}
	}
	p.used = p.used[:0]
	if p.field != nil {
		p.used = append(p.used, p.field)
	}
	return hit
}

// The stream's search sees over the end of a line that has so many characters
// without a blank at its end, and so many blanks after it (matcher's package doc).
const (
	seenLine   = 48
	seenBlanks = 16
)

// tail is how much of a column is kept for the next chunk.
const tail = 320

// plainly takes the start of b if it is plain, and returns its length; cut as
// for scan.
func (s *Screen) plainly(b []byte) (n int, cut bool) {
	p := &s.plain
	if !p.on {
		if !s.calm() {
			return 0, false
		}
		p.start()
		p.col = s.m.cur.col
	}
	n, cut = p.scan(b, s.m.cols)
	hit := p.found(s.k.find)
	if hit {
		n, cut = 0, false
	}
	s.keep(b[:n])
	if s.unsure && s.seen < s.m.rows {
		s.seen += bytes.Count(b[:n], []byte{'\n'})
	}
	if hit || n < len(b) && !cut {
		s.sync()
		p.on, p.quiet = false, 0
	}
	return n, cut
}

// calm says that nothing but what comes now is of concern any more: what was
// drawn has scrolled away, and nothing is where text is printed next.
func (s *Screen) calm() bool {
	m := s.m
	if s.plain.quiet < m.rows || s.state != ground || len(s.maybe) > 0 || m.alt || m.insert || m.margins || !m.wrap || m.newline ||
		m.cur.origin || m.cur.sets != [4]byte{} || m.cur.gl != 0 || m.cur.pen.protected || m.top != 0 || m.bot != m.rows || m.cur.row != m.rows-1 || m.cur.pend {
		return false
	}
	ln := m.lines()[m.cur.row]
	if ln.short {
		return false
	}
	for c := m.cur.col; c < len(ln.c); c++ {
		if ln.c[c].r != 0 {
			return false
		}
	}
	return true
}
