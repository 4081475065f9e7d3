package screen

import "unicode/utf8"

// reading is what the checker wants to know of a line, worked out once after each
// change of it.
type reading struct {
	text []byte   // its characters in UTF-8, blanks for blank cells
	off  []uint16 // by column, and after the last: where in text it begins
	ends []uint16 // by column: the column after it before which its text ends at an edge
	fine []uint16 // the same, at an edge or a cut
	is   []uint8  // by column: flags
	used int      // columns, without what is blank or a control at the end
	wide bool     // not each cell is one byte of text
}

const (
	isEdge   = 1 << iota // a blank or a border
	isBorder             // drawn between panes
	isCut                // not printed in one go with the cell before
	isHalf               // the second cell of a wide character
)

// kind is the flags of a cell, but for isCut.
func (c cell) kind() uint8 {
	switch {
	case c.r == half:
		return isHalf
	case c.blank():
		return isEdge
	case border(c.r):
		return isEdge | isBorder
	}
	return 0
}

// read returns the reading of l. It is valid until l changes; whoever changes
// cells calls touch.
func (l *line) read() *reading {
	if l.known && l.dl >= l.dr {
		return &l.reading
	}
	return l.readAgain()
}

func (l *line) readAgain() *reading {
	if l.known && l.patch() {
		return &l.reading
	}
	t, n := &l.reading, len(l.c)
	if cap(t.off) <= n {
		u := make([]uint16, 3*n+1)
		t.off, t.ends, t.fine = u[:0:n+1], u[n+1:n+1:2*n+1], u[2*n+1:2*n+1]
		b := make([]byte, 3*n)
		t.is, t.text = b[:0:n], b[n:n:3*n]
	}
	t.off, t.ends, t.fine, t.is, t.text = t.off[:n+1], t.ends[:n], t.fine[:n], t.is[:n], t.text[:0]
	t.used = 0
	var last uint32
	for i := range l.c {
		c := &l.c[i]
		t.off[i] = uint16(len(t.text))
		var is uint8
		switch {
		case c.r > ' ' && c.r < utf8.RuneSelf:
			t.text = append(t.text, byte(c.r))
			if t.used = i + 1; c.r == '|' {
				is = isEdge | isBorder
			}
		case c.r == 0:
			t.text = append(t.text, ' ')
			is = isEdge
		case c.r == half:
			t.used = i + 1
			is = isHalf
		default:
			t.text = utf8.AppendRune(t.text, c.r)
			if is = c.kind(); c.r > ' ' {
				t.used = i + 1
			}
		}
		if (i == 0 || c.seq != last+1) && is != isHalf {
			is |= isCut
		}
		last = c.seq
		t.is[i] = is
	}
	t.off[n] = uint16(len(t.text))
	edge, cut := uint16(n), uint16(n)
	for i := n - 1; i >= 0; i-- {
		t.ends[i], t.fine[i] = edge, cut
		switch is := t.is[i]; {
		case is&isEdge != 0:
			edge, cut = uint16(i), uint16(i)
		case is&isCut != 0:
			cut = uint16(i)
		}
	}
	t.wide = len(t.text) != n
	for i := 0; i < n && !t.wide; i++ {
		t.wide = l.c[i].r >= utf8.RuneSelf || l.c[i].r == half
	}
	l.known, l.dl, l.dr = true, 0, 0
	return t
}

// patch reads columns [dl, dr) again, if all of the line is ASCII.
func (l *line) patch() bool {
	t, n := &l.reading, len(l.c)
	if t.wide || len(t.is) != n || l.dr > n {
		return false
	}
	for i := l.dl; i < l.dr; i++ {
		if r := l.c[i].r; r >= utf8.RuneSelf || r == half {
			return false
		}
	}
	var last uint32
	if l.dl > 0 {
		last = l.c[l.dl-1].seq
	}
	for i := l.dl; i < l.dr; i++ {
		c, is := &l.c[i], uint8(0)
		switch c.r {
		case 0:
			t.text[i] = ' '
			is = isEdge
		case ' ':
			t.text[i] = ' '
			is = isEdge
		case '|':
			t.text[i] = '|'
			is = isEdge | isBorder
		default:
			t.text[i] = byte(c.r)
		}
		if i == 0 || c.seq != last+1 {
			is |= isCut
		}
		last = c.seq
		t.is[i] = is
	}
	if l.dr < n { // which may be next to another one now
		t.is[l.dr] &^= isCut
		if l.c[l.dr].seq != last+1 {
			t.is[l.dr] |= isCut
		}
	}
	edge, cut := uint16(n), uint16(n)
	from := min(l.dr, n-1)
	if l.dr < n {
		edge, cut = t.ends[l.dr], t.fine[l.dr]
	}
	for i := from; i >= 0; i-- {
		t.ends[i], t.fine[i] = edge, cut
		switch is := t.is[i]; {
		case is&isEdge != 0:
			edge, cut = uint16(i), uint16(i)
		case is&isCut != 0:
			cut = uint16(i)
		}
		if i < l.dl && t.is[i]&isEdge != 0 {
			break
		}
	}
	t.used = max(t.used, l.dr)
	for t.used > 0 && l.c[t.used-1].r <= ' ' {
		t.used--
	}
	l.known, l.dl, l.dr = true, 0, 0
	return true
}

// touch says that cells of l change.
func (l *line) touch() { l.known = false }

// touchAt says that those in columns [from, to) do, and no others.
func (l *line) touchAt(from, to int) {
	if l.dl >= l.dr {
		l.dl, l.dr = from, to
		return
	}
	l.dl, l.dr = min(l.dl, from), max(l.dr, to)
}

// edge says that column col is one; what is not there is blank.
func (t *reading) edge(col int) bool { return col >= len(t.is) || t.is[col]&isEdge != 0 }

func (t *reading) begins(col int) bool {
	if col >= len(t.is) || t.is[col]&(isEdge|isHalf) != 0 {
		return false
	}
	return col == 0 || t.is[col-1]&isEdge != 0 || t.is[col]&isCut != 0
}

// endsBefore says that text ends before column col.
func (t *reading) endsBefore(col int) bool {
	if col <= 0 || col > len(t.is) || t.is[col-1]&isEdge != 0 {
		return false
	}
	return col == len(t.is) || t.is[col]&(isEdge|isCut) != 0
}

// addOver does the same for the row that is being drawn.
func (k *checker) addOver(row, l, r int) {
	for c := l; c < r; c++ {
		x := k.cell(row, c)
		n := len(k.buf)
		switch {
		case x.r == half:
			continue
		case x.r == 0:
			k.buf = append(k.buf, ' ')
		case x.r < utf8.RuneSelf:
			k.buf = append(k.buf, byte(x.r))
		default:
			k.buf = utf8.AppendRune(k.buf, x.r)
		}
		k.spans = append(k.spans, span{n, int32(row), int32(c), true})
	}
}

// places works out pos from spans, before anything is masked.
func (k *checker) places() {
	k.pos = k.pos[:0]
	for i, s := range k.spans {
		to := len(k.buf)
		if i+1 < len(k.spans) {
			to = k.spans[i+1].at
		}
		col := s.col
		for n := s.at; n < to; col++ {
			end := to
			if !s.alone {
				end = n + k.size(int(s.row), int(col))
			}
			for ; n < end; n++ {
				k.pos = append(k.pos, place{s.row, col})
			}
		}
	}
}

// size is how many bytes of text a cell is.
func (k *checker) size(row, col int) int {
	switch r := k.rows[row].at(col).r; {
	case r == half:
		return 0
	case r == 0:
		return 1
	default:
		return len(utf8.AppendRune(nil, r))
	}
}

// undo takes back what was added from a byte of the texts on.
func (k *checker) undo(from int) {
	k.buf = k.buf[:from]
	n := len(k.spans)
	for n > 0 && k.spans[n-1].at >= from {
		n--
	}
	k.spans = k.spans[:n]
}

// clear forgets the texts.
func (k *checker) clear() {
	k.buf, k.spans, k.moments = k.buf[:0], k.spans[:0], k.moments[:0]
}
