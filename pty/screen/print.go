package screen

import (
	"strconv"
	"unicode/utf8"
)

// printer puts text on a model, a row at a time.
type printer struct {
	s       *Screen
	m       *model
	first   bool   // m is what the output is made for
	before  cursor // where the terminal is when the segment's bytes come
	shifted int    // the region moved up since, by so many rows
	region  rect
	seg     segment
	row     int
	raw     []byte // bytes of the segment
	ends    []int  // by column of the segment: where the bytes of its character end
	text    []byte // what came out, with masks
}

// printOn prints p on all models and lets it out.
func (s *Screen) printOn(p []byte) {
	s.settle()
	for _, m := range s.maybe {
		s.k.m, s.k.fixed = m, false
		pr := printer{s: s, m: m}
		pr.text = make([]byte, 0, len(p)+16)
		pr.print(p)
		p = pr.text
	}
	s.k.m, s.k.fixed = s.m, len(s.maybe) == 0
	pr := &s.pr
	pr.s, pr.m, pr.first = s, s.m, true
	pr.print(p)
	pr.s, pr.m = nil, nil
}

func (pr *printer) print(p []byte) {
	m := pr.m
	pr.raw = pr.raw[:0]
	pr.seg = segment{old: pr.seg.old[:0], mask: pr.seg.mask[:0]}
	pr.ends = pr.ends[:0]
	for i := 0; i < len(p); {
		if n := pr.ascii(p[i:]); n > 0 {
			i += n
			continue
		}
		r, n := rune(p[i]), 1
		if r >= utf8.RuneSelf {
			r, n = utf8.DecodeRune(p[i:])
		}
		w := 1
		if r >= 0x300 || r == 0xad {
			w = runeWidth(r)
		}
		b := p[i : i+n]
		i += n
		if w == 0 {
			m.seq += 2
			if len(m.last) < 64 {
				m.last = append(m.last, b...)
			}
			pr.raw = append(pr.raw, b...)
			if k := len(pr.ends); k > 0 {
				pr.ends[k-1] = len(pr.raw)
			}
			continue
		}
		pr.put(r, w, b)
		if pr.s.k.worst.Action.Stops() {
			return
		}
	}
	pr.flush()
}

// ascii prints what p begins with, if that is ASCII, up to the last column and over
// nothing that is wide, and returns how much.
func (pr *printer) ascii(p []byte) int {
	m := pr.m
	if m.cur.pend || m.insert || m.cur.sets[m.cur.gl] == '0' {
		return 0
	}
	col := m.cur.col
	most := min(len(p), m.limit()-1-col)
	c := m.lines()[m.cur.row].room(m.cols)
	n := 0
	for n < most && p[n] < utf8.RuneSelf && c[col+n].w < 2 && c[col+n].r != half {
		n++
	}
	if n <= 0 || c[col+n].r == half {
		return 0
	}
	if len(pr.ends) == 0 {
		pr.start(m.cur, 0, rect{})
	}
	ln := pr.seg.ln
	pr.seg.old = append(pr.seg.old, c[col:col+n]...)
	ln.touchAt(col, col+n)
	x := cell{w: 1, seq: m.seq, pen: m.pens.number(m.cur.pen)}
	if m.cur.pen.protected {
		x.f = protected
	}
	raw := len(pr.raw)
	for i, b := range p[:n] {
		x.seq++
		x.r = rune(b)
		c[col+i] = x
		pr.ends = append(pr.ends, raw+i+1)
		pr.seg.mask = append(pr.seg.mask, false)
	}
	m.seq = x.seq
	pr.raw = append(pr.raw, p[:n]...)
	pr.seg.to = col + n
	m.cur.col = col + n - 1
	m.mark(p[n-1:n], 1, ln)
	m.cur.col = col + n
	return n
}

// start begins a segment at the cursor.
func (pr *printer) start(before cursor, shifted int, region rect) {
	m := pr.m
	pr.before, pr.shifted, pr.region, pr.row = before, shifted, region, m.cur.row
	pr.seg.ln = m.lines()[m.cur.row]
	pr.seg.ln.room(m.cols)
	pr.seg.from = m.cur.col
}

// put prints one character.
func (pr *printer) put(r rune, w int, b []byte) {
	m := pr.m
	set := m.cur.sets[m.cur.gl]
	if set == '0' && len(b) == 1 {
		r = graphic(r)
	}
	limit := m.limit()
	if w == 2 && limit < 2 {
		r, w = ' ', 1
	}
	wrap := m.cur.pend || w == 2 && m.cur.col+2 > limit && m.wrap
	if wrap || m.insert || !m.wrap && m.cur.col+w >= limit {
		pr.flush()
	}
	before, shifted := m.cur, 0
	var region rect
	if wrap {
		ln := m.lines()[m.cur.row]
		ln.wrapped = true
		bottom := m.cur.row == m.bot-1
		l, rr := m.sides()
		region = rect{m.top, l, m.bot, rr}
		if bottom {
			shifted = 1
			if pr.first && m.bot == m.rows {
				pr.s.seen++
			}
		}
		pr.s.k.fixes = pr.s.k.fixes[:0]
		m.index(pr.changer())
		pr.overwrite(before)
		m.lines()[min(m.cur.row, m.rows-1)].wrapped = false
		m.cr()
		limit = m.limit()
	}
	if m.cur.col+w > limit { // no wrapping: over the last column
		m.cur.col = max(limit-w, 0)
	}
	if m.insert {
		pr.s.k.fixes = pr.s.k.fixes[:0]
		if m.in() {
			m.doShift(pr.changer(), rect{m.cur.row, m.cur.col, m.cur.row + 1, limit}, 0, -w)
			m.seq -= 2
		}
		pr.overwrite(before)
	}
	if len(pr.ends) == 0 {
		pr.start(before, shifted, region)
	}
	pr.cells(r, w)
	m.mark(b, w, pr.seg.ln)
	pr.raw = append(pr.raw, b...)
	for range w {
		pr.ends = append(pr.ends, len(pr.raw))
	}
	m.cur.col += w
	if m.cur.col >= limit {
		m.cur.col = limit - 1
		m.cur.pend, m.cur.unsure = m.wrap, false
		pr.flush()
	}
}

// cells writes a character at the cursor.
func (pr *printer) cells(r rune, w int) {
	m, c := pr.m, pr.seg.ln.c
	col := m.cur.col
	if w == 1 && r < utf8.RuneSelf && c[col].r != half && c[col].w < 2 {
		pr.seg.ln.touchAt(col, col+1)
	} else {
		pr.seg.ln.touch()
	}
	pr.seg.old = append(pr.seg.old, c[col:col+w]...)
	blankHalf(c, col)
	blankHalf(c, col+w)
	m.seq++
	x := cell{r: r, w: uint8(w), seq: m.seq, pen: m.pens.number(m.cur.pen)}
	if m.cur.pen.protected {
		x.f = protected
	}
	c[col] = x
	if w == 2 {
		x.r, x.w = half, 0
		c[col+1] = x
	}
	for range w {
		pr.seg.mask = append(pr.seg.mask, false)
	}
	pr.seg.to = col + w
	if col+w == m.width(m.cur.row) {
		pr.seg.ln.wrapped = false
	}
}

func (pr *printer) changer() changer {
	if pr.first {
		return &pr.s.k
	}
	return nil
}

// flush judges what was printed in this row and lets it out.
func (pr *printer) flush() {
	if len(pr.ends) == 0 {
		pr.emit(pr.raw)
		pr.raw = pr.raw[:0]
		return
	}
	k := &pr.s.k
	k.fixes = k.fixes[:0]
	k.printed(pr.row, &pr.seg)
	if k.worst.Action.Stops() {
		return
	}
	if pr.first && len(k.fixes) > 0 {
		pr.s.overwrite(pr.before, func(row int) int {
			if pr.shifted > 0 && row >= pr.region.t && row < pr.region.b {
				return row + pr.shifted
			}
			return row
		})
	}
	if !pr.seg.masked {
		pr.emit(pr.raw)
	} else {
		at := 0
		// What combines with the character before the segment stays with it.
		for i := 0; i < len(pr.ends); {
			n := 1
			for i+n < len(pr.ends) && pr.ends[i+n] == pr.ends[i] {
				n++
			}
			if pr.seg.mask[i] {
				for range n {
					pr.emit([]byte{'*'})
				}
			} else {
				pr.emit(pr.raw[at:pr.ends[i]])
			}
			at = pr.ends[i]
			i += n
		}
	}
	pr.raw, pr.ends = pr.raw[:0], pr.ends[:0]
	pr.seg = segment{old: pr.seg.old[:0], mask: pr.seg.mask[:0]}
}

func (pr *printer) emit(b []byte) {
	if pr.first {
		pr.s.out = append(pr.s.out, b...)
	} else {
		pr.text = append(pr.text, b...)
	}
}

func (pr *printer) overwrite(before cursor) {
	if pr.first {
		pr.s.overwrite(before, nil)
	}
}

// overwrite lets out what puts asterisks over the cells in k.fixes and leaves the
// terminal as it was: with its cursor at cur, the next character wrapping if it
// did, and colours and modes the same. at says where a row is for the terminal,
// which may be a step behind the model. DECSC is not used: its one slot is the
// program's.
func (s *Screen) overwrite(cur cursor, at func(row int) int) {
	k := &s.k
	if len(k.fixes) == 0 {
		return
	}
	m := s.m
	if cur.origin {
		s.out = append(s.out, "\x1b[?6l"...)
	}
	if m.insert {
		s.out = append(s.out, "\x1b[4l"...)
	}
	at0 := cur.row
	move := func(row, col int) {
		if !s.unsure {
			s.out = appendMove(s.out, row, col)
			return
		}
		// By how far, since it is not known where.
		switch {
		case row < at0:
			s.out = append(strconv.AppendInt(append(s.out, "\x1b["...), int64(at0-row), 10), 'A')
		case row > at0:
			s.out = append(strconv.AppendInt(append(s.out, "\x1b["...), int64(row-at0), 10), 'B')
		}
		s.out = append(strconv.AppendInt(append(s.out, "\x1b["...), int64(col+1), 10), 'G')
		at0 = row
	}
	pen := m.pens.number(cur.pen)
	now := pen
	r, c := -1, -1
	for _, f := range k.fixes {
		row := f.row
		if at != nil {
			row = at(row)
		}
		if row >= m.rows {
			continue
		}
		if row != r || f.col != c || m.margins || f.col == m.cols-1 {
			move(row, f.col)
		}
		if f.pen != now {
			s.out = m.pens.pen(f.pen).appendTo(s.out)
			now = f.pen
		}
		s.out = append(s.out, '*')
		r, c = row, f.col+1
	}
	k.fixes = k.fixes[:0]
	again := func() {
		row, col := cur.row, cur.col
		if cur.origin {
			row -= m.top
			if m.margins {
				col -= m.left
			}
		}
		move(row, col)
	}
	if m.insert && !cur.pend {
		s.out = append(s.out, "\x1b[4h"...)
	}
	if cur.origin {
		s.out = append(s.out, "\x1b[?6h"...)
	}
	if cur.pend {
		// The character in the last column once more.
		if m.lastW == 2 {
			cur.col--
		}
		again()
		if now != m.lastPen {
			now = m.lastPen
			s.out = m.pens.pen(now).appendTo(s.out)
		}
		s.out = append(s.out, m.last...)
		if m.insert {
			s.out = append(s.out, "\x1b[4h"...)
		}
	} else {
		again()
	}
	if now != pen {
		s.out = cur.pen.appendTo(s.out)
	}
}

func appendMove(b []byte, row, col int) []byte {
	b = strconv.AppendInt(append(b, "\x1b["...), int64(row+1), 10)
	b = strconv.AppendInt(append(b, ';'), int64(col+1), 10)
	return append(b, 'H')
}
