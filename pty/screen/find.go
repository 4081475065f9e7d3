package screen

import (
	"slices"
	"unicode/utf8"

	"guard"
)

// reach is how many cells before and after a change are looked at: no needle is
// longer (matcher: 512 bytes).
const reach = 600

// place is a cell of a view: row -1 stands between two texts.
type place struct{ row, col int32 }

// span is a stretch of the texts: from a byte of them on, columns of a row from
// one on, or, alone, one column; row -1 as for place.
type span struct {
	at       int
	row, col int32
	alone    bool
}

// checker looks for values in what the screen is about to be.
type checker struct {
	find  Find
	judge func(Hit) guard.Decision
	m     *model
	fixed bool // cells that were drawn before can be overwritten
	whole bool // a segment is looked at where it did not change, too: tests compare
	cross bool // only what goes on from the row above is looked at: the rest was

	rows []*line // the view: history, then the screen
	from []origin
	seg  *segment
	over struct { // cells [from, to) of row are not drawn over yet
		row, from, to int
		cells         []cell
	}

	buf     []byte
	spans   []span   // what buf is made of
	pos     []place  // of each byte of buf, once something was found
	bounds  [4][]int // reused
	moments []moment // of the texts, the first of them
	row     int      // of the segment, in the view
	fixes   []fix
	worst   guard.Decision
	view    []*line // reused
	orig    []origin
}

// origin says where the cells of a row of a view are now: in the columns [l, r)
// in line in, at col+dc; elsewhere in line out.
type origin struct {
	in, out  *line
	l, r, dc int
}

// fix is a cell that was drawn before and has to be overwritten.
type fix struct {
	row, col int
	pen      uint16
}

// segment is a stretch of printed characters in one row.
type segment struct {
	ln       *line
	from, to int    // columns
	old      []cell // what was there
	masked   bool   // some of it was
	mask     []bool // by column
}

func (k *checker) cell(row, col int) cell {
	if o := &k.over; row == o.row && col >= o.from && col < o.to {
		return o.cells[col-o.from]
	}
	return k.rows[row].at(col)
}

// add appends the text of columns [l, r) of a row.
func (k *checker) add(row, l, r int) {
	if l >= r {
		return
	}
	if k.over.row == row {
		k.addOver(row, l, r)
		return
	}
	k.spans = append(k.spans, span{len(k.buf), int32(row), int32(l), false})
	n := 0
	if ln := k.rows[row]; ln != nil && l < len(ln.c) {
		t := ln.read()
		n = min(r, len(ln.c))
		k.buf = append(k.buf, t.text[t.off[l]:t.off[n]]...)
	}
	for n = max(n, l); n < r; n++ {
		k.buf = append(k.buf, ' ')
	}
}

// apart stands between two texts: no form of a value has it, and no search takes
// it for nothing.
const apart = '\f'

// next ends a text that began at from; one that is too short to hold a value is
// taken back.
func (k *checker) next(from int) {
	if len(k.buf)-from < shortest {
		k.undo(from)
		return
	}
	k.spans = append(k.spans, span{len(k.buf), -1, -1, true})
	k.buf = append(k.buf, apart)
}

// shortest is the length of the shortest needle.
const shortest = 8

func (k *checker) width(row int) int {
	if l := k.rows[row]; l != nil && l.short {
		return max(1, k.m.cols/2)
	}
	return k.m.cols
}

// joined says that a row's text goes on in the row after it: it was wrapped, or
// is full.
func (k *checker) joined(row int) bool {
	if row < 0 || row+1 >= len(k.rows) {
		return false
	}
	l := k.rows[row]
	if l == nil {
		return false
	}
	if l.wrapped {
		return true
	}
	last := k.cell(row, k.width(row)-1)
	return !last.blank()
}

// text adds the row as it reads from left to right, with the rows that it is
// joined to, as far as a value in columns [l, r) of it may reach.
func (k *checker) text(row, l, r int) {
	first, from := row, max(0, l-reach)
	for n := l; first > 0 && n < reach && k.joined(first-1); n += k.m.cols {
		first, from = first-1, 0
	}
	start := len(k.buf)
	for i, n := first, -reach; i < len(k.rows); i++ {
		to := k.width(i)
		on := k.joined(i)
		if i == row {
			to = min(to, r+reach)
		}
		if on && k.rows[i].wrapped && to > 0 && k.cell(i, to-1).r == 0 {
			to-- // a wide character did not fit
		}
		if !on && i != k.over.row {
			used := 0
			if k.rows[i] != nil {
				used = k.rows[i].read().used
			}
			if to > used {
				to = max(used, from)
			}
		}
		for ; !on && to > from && k.cell(i, to-1).r <= ' ' && k.cell(i, to-1).r != half; to-- {
		}
		k.add(i, from, to)
		from = 0
		if i >= row {
			n += to
			if n > 0 || !on {
				break
			}
		}
	}
	k.next(start)
}

// between adds what the row reads as while the segment is drawn over older text,
// of which the first that is different is in column l.
func (k *checker) between(row, l int) {
	s := k.seg
	for c := max(s.from, l); c+1 < s.to; c++ {
		o, n := s.old[c+1-s.from], s.ln.at(c+1)
		if n.r == half || o.blank() || o.r == n.r {
			continue
		}
		have := 0
		for i := c; i >= 0 && have < shortest && !s.ln.at(i).blank(); i-- {
			have++
		}
		for i := c + 1; i < s.to && have < shortest && !s.old[i-s.from].blank(); i++ {
			have++
		}
		for i := s.to; have > 0 && have < shortest && i < len(s.ln.c) && !s.ln.c[i].blank(); i++ {
			have++
		}
		if have < shortest {
			continue
		}
		k.drawing(row, c+1)
		k.text(row, c, c+1)
		k.moments = append(k.moments, moment{len(k.buf), c + 1})
		k.over.row = -1
	}
}

// drawing shows the row as it is before the cells from column c on are drawn.
func (k *checker) drawing(row, c int) {
	s := k.seg
	k.over.row, k.over.from, k.over.to, k.over.cells = row, c, s.to, s.old[c-s.from:]
}

// moment says that the text that ends at end is of the time when the segment was
// drawn up to column from.
type moment struct{ end, from int }

// hits looks for values in the texts so far, and masks what it finds.
func (k *checker) hits() (found bool) {
	if len(k.buf) < shortest {
		k.clear()
		return false
	}
	hits := k.find(k.buf)
	if len(hits) > 0 {
		k.places()
	}
	for _, h := range hits {
		if h.Start < 0 || h.End > len(k.pos) || h.Start >= h.End {
			continue
		}
		for _, m := range k.moments {
			if h.Start < m.end {
				k.drawing(int(k.pos[h.Start].row), m.from)
				k.over.row = k.row
				break
			}
		}
		found = k.hit(h) || found
		k.over.row = -1
	}
	k.clear()
	return found
}

// hit judges one, unless the stream of bytes had it in one piece, or it was
// judged before. It says whether the screen is another one now.
func (k *checker) hit(h Hit) bool {
	cells := k.pos[h.Start:h.End]
	inOne, before := true, true
	var last cell
	for i, p := range cells {
		if p.row < 0 || i > 0 && p == cells[i-1] {
			continue
		}
		c := k.cell(int(p.row), int(p.col))
		if i > 0 || h.Start == 0 || k.pos[h.Start-1] != p {
			if k.stale(c, k.buf[h.Start+i]) {
				return false // masked since
			}
		}
		before = before && c.f&passed != 0
		inOne = inOne && (i == 0 || last.seq+1 == c.seq)
		last = c
	}
	if inOne || before {
		return false
	}
	d := k.judged(h)
	for i, p := range cells {
		if p.row < 0 || i > 0 && p == cells[i-1] || int(p.row) == k.over.row && int(p.col) >= k.over.from && int(p.col) < k.over.to {
			continue
		}
		ln, col := k.now(int(p.row), int(p.col))
		if ln == nil || col < 0 || col >= len(ln.c) {
			continue
		}
		if d.Action == guard.Redact {
			k.mask(ln, col)
			if v := k.rows[p.row]; v != ln && ln.c[col].r == '*' {
				v.c[p.col].r = '*'
				v.touch()
			}
		} else {
			ln.c[col].f |= passed
			k.rows[p.row].c[p.col].f |= passed
		}
	}
	return d.Action == guard.Redact
}

// stale says that c does not begin with b any more.
func (k *checker) stale(c cell, b byte) bool {
	switch {
	case c.r == 0:
		return b != ' '
	case c.r < utf8.RuneSelf:
		return byte(c.r) != b
	}
	var buf [utf8.UTFMax]byte
	utf8.EncodeRune(buf[:], c.r)
	return buf[0] != b
}

// now is where a cell of the view is at present.
func (k *checker) now(row, col int) (*line, int) {
	if k.from == nil || k.from[row].out == nil {
		return k.rows[row], col
	}
	o := k.from[row]
	if col >= o.l && col < o.r {
		return o.in, col + o.dc
	}
	return o.out, col
}

// mask replaces a character, in the segment or on the screen.
func (k *checker) mask(ln *line, col int) {
	c := &ln.c[col]
	if c.blank() || c.r == '*' {
		return
	}
	n := 1
	if col+1 < len(ln.c) && ln.c[col+1].r == half {
		n = 2
	}
	inSeg := k.seg != nil && ln == k.seg.ln && col >= k.seg.from && col < k.seg.to
	row := slices.Index(k.m.lines(), ln)
	if !inSeg && (!k.fixed || row < 0) { // history stays as it is
		return
	}
	if ln == k.m.lastLn && col == k.m.lastCol {
		k.m.last, k.m.lastW = append(k.m.last[:0], '*'), 1
		k.m.lastCol += n - 1
	}
	ln.touch()
	for i := col; i < col+n; i++ {
		x := &ln.c[i]
		if inSeg {
			k.seg.masked = true
			k.seg.mask[i-k.seg.from] = true
		} else {
			k.fixes = append(k.fixes, fix{row, i, x.pen})
		}
		x.r, x.w = '*', 1
		k.m.seq += 2
		x.seq = k.m.seq
	}
}

// again is how often a place is looked at until nothing is found in it.
const again = 16

// look checks columns [l, r) of a row of the view.
func (k *checker) look(row, l, r int) {
	for range again {
		k.clear()
		if k.seg != nil && r-l > 1 {
			k.between(row, l)
		}
		if !k.cross || k.joined(row-1) {
			k.text(row, l, r)
		}
		k.blocks(row, l, r)
		if !k.hits() || k.worst.Action.Stops() {
			return
		}
	}
}

// printed checks a segment that is in the model already.
func (k *checker) printed(row int, s *segment) {
	k.rows, k.from, k.seg = k.m.all, nil, s
	k.over.row = -1
	k.row = row + k.m.hist
	from, to := s.changed()
	if from >= to { // a program drew what was there
		k.seg = nil
		return
	}
	if !k.fixed || k.whole { // what was found may be there still
		from, to = s.from, s.to
	}
	k.look(row+k.m.hist, from, to)
	k.seg = nil
}

// changed returns the columns from the first to the last that read differently
// since s was printed: which have another character or, where any has that, come
// apart from the cell before them where they did not, or the other way round.
func (s *segment) changed() (from, to int) {
	c, n := s.ln.c, len(s.old)
	first, last := n, -1
	for i := range s.old {
		if c[s.from+i].r != s.old[i].r {
			first, last = min(first, i), i
		}
	}
	if last < 0 {
		return 0, 0
	}
	if s.old[0].r == half || s.to < len(c) && s.old[n-1].w == 2 { // cells beside it changed too
		return s.from, s.to
	}
	apart := func(x cell, seq uint32) bool { return x.r != half && x.seq != seq+1 }
	for i := range n {
		old, now := uint32(0), uint32(0)
		switch {
		case i > 0:
			old, now = s.old[i-1].seq, c[s.from+i-1].seq
		case s.from > 0:
			old = c[s.from-1].seq
			now = old
		}
		if apart(s.old[i], old) != apart(c[s.from+i], now) {
			first, last = min(first, i), max(last, i)
		}
	}
	if s.to < len(c) && apart(c[s.to], s.old[n-1].seq) != apart(c[s.to], c[s.to-1].seq) {
		last = n - 1
	}
	return s.from + first, s.from + last + 1
}

// judged asks what is to be done about h, and remembers the strictest answer.
func (k *checker) judged(h Hit) guard.Decision {
	d := k.judge(h)
	if d.Action < k.worst.Action {
		k.worst = d
	}
	return d
}
