package screen

// cell is one place on the screen.
type cell struct {
	r   rune   // 0: blank
	seq uint32 // counts printed characters; it skips one wherever the bytes of two were not next to each other
	pen uint16
	w   uint8 // cells that r takes; 0 and r 0: blank; 0 and r half: the second cell of a wide one
	f   uint8
}

const (
	half rune = -1 // the second cell of a wide character

	passed    = 1 // a value of which this cell is a part was judged, and may be seen
	protected = 2 // DECSCA
)

func (c cell) blank() bool { return c.r == 0 || c.r == ' ' || c.r == 0xa0 || c.r == 0x3000 }

// line is one row. Lines move as a whole when the screen scrolls.
type line struct {
	c       []cell // nil: blank
	wrapped bool   // the text goes on in the next row
	short   bool   // of double width: half as many cells
	known   bool   // reading is of the cells as they are, but for those
	dl, dr  int    // in columns [dl, dr)
	reading reading
}

// at returns a cell; what is not there is blank.
func (l *line) at(col int) cell {
	if l == nil || col < 0 || col >= len(l.c) {
		return cell{}
	}
	return l.c[col]
}

// need returns at least cols cells, to be changed.
func (l *line) need(cols int) []cell {
	l.touch()
	return l.room(cols)
}

// room returns at least cols cells, of which those that change are to be told to
// touchAt.
func (l *line) room(cols int) []cell {
	if len(l.c) >= cols {
		return l.c
	}
	l.touch()
	if cap(l.c) >= cols {
		l.c = l.c[:cols]
	} else {
		l.c = append(make([]cell, 0, cols), l.c...)[:cols]
	}
	return l.c
}

func (l *line) reset() {
	clear(l.c)
	l.touch()
	l.wrapped, l.short = false, false
}

// empty makes l a new line.
func (l *line) empty() {
	l.reset()
	l.c = l.c[:0] // what is behind it is blank
}

func (l *line) clone() *line {
	return &line{c: append([]cell(nil), l.c...), wrapped: l.wrapped, short: l.short}
}

// history is how many rows above the screen are kept, since a value may begin
// there and end on it.
const history = 16

// grid is a screen: the main one or the alternate one.
type grid struct {
	all  []*line // of which the first are history
	hist int
}

func newGrid(rows, hist int) grid {
	g := grid{all: make([]*line, rows+hist), hist: hist}
	for i := range g.all {
		g.all[i] = &line{}
	}
	return g
}

// cursor is what DECSC saves.
type cursor struct {
	row, col int
	pend     bool // the next character wraps first
	unsure   bool // or, if this is set, to some terminals it does not
	pen      pen
	origin   bool
	sets     [4]byte // character sets G0 to G3, by their final byte; 0 is ASCII
	gl       int
}

// model is a terminal: what xterm does with a stream, as far as that decides
// which characters are where. It judges nothing by itself. (xterm ctlseqs; DEC
// STD 070; https://vt100.net/emu/dec_ansi_parser.)
type model struct {
	rows, cols            int
	grid                  // the one that is shown
	other                 grid
	alt                   bool
	cur                   cursor
	saved                 [2]cursor // of the main and of the alternate screen
	savedLast             cursor    // of either, which is all that tmux has
	top, bot              int       // scroll region, rows [top, bot)
	left, right           int       // and columns
	margins               bool      // DECLRMM
	wrap, insert, newline bool
	tabs                  []uint64
	seq                   uint32
	last                  []byte // the last character printed, with what combines with it
	lastW                 int
	lastLn                *line // where that is
	lastCol               int
	lastPen               uint16
	pens                  *pens
}

// maxSize bounds what a terminal may say of its size.
const maxSize = 1000

func newModel(rows, cols int, p *pens) *model {
	m := &model{pens: p}
	m.rows, m.cols = min(max(rows, 1), maxSize), min(max(cols, 1), maxSize)
	m.reset()
	return m
}

// reset is RIS.
func (m *model) reset() {
	m.grid, m.other, m.alt = newGrid(m.rows, history), newGrid(m.rows, 0), false
	m.cur, m.saved = cursor{}, [2]cursor{}
	m.softReset()
	m.wrap, m.newline = true, false
	m.tabStops()
	m.last = m.last[:0]
	m.seq += 2
}

// softReset is DECSTR.
func (m *model) softReset() {
	m.top, m.bot, m.left, m.right, m.margins = 0, m.rows, 0, m.cols, false
	m.insert = false
	m.cur.origin, m.cur.pen, m.cur.sets, m.cur.gl = false, pen{}, [4]byte{}, 0
	m.saved[m.screen()], m.savedLast = cursor{}, cursor{}
}

func (m *model) tabStops() {
	m.tabs = make([]uint64, (maxSize+63)/64)
	for c := 8; c < maxSize; c += 8 {
		m.tabs[c/64] |= 1 << (c % 64)
	}
}

func (m *model) screen() int {
	if m.alt {
		return 1
	}
	return 0
}

// width is how many cells row r has.
func (m *model) width(r int) int {
	if m.lines()[r].short {
		return max(1, m.cols/2)
	}
	return m.cols
}

func (m *model) lines() []*line { return m.all[m.hist:] }

// limit is the column after the last one that printing at the cursor reaches.
func (m *model) limit() int {
	w := m.width(m.cur.row)
	if m.margins && m.cur.col < m.right {
		return min(w, m.right)
	}
	return w
}

// moveTo puts the cursor at a row and column, counted from 0 at the top left
// corner of the screen, or of the region in origin mode.
func (m *model) moveTo(row, col int) {
	m.rowTo(row)
	m.colTo(col)
}

func (m *model) rowTo(row int) {
	lo, hi := 0, m.rows
	if m.cur.origin {
		row += m.top
		lo, hi = m.top, m.bot
	}
	m.cur.row = min(max(row, lo), hi-1)
}

func (m *model) colTo(col int) {
	lo, hi := 0, m.width(m.cur.row)
	if m.cur.origin && m.margins {
		col += m.left
		lo, hi = m.left, min(m.right, hi)
	}
	m.cur.col, m.cur.pend = min(max(col, min(lo, hi-1)), hi-1), false
}

func (m *model) up(n int) {
	lo := 0
	if m.cur.row >= m.top {
		lo = m.top
	}
	m.cur.row, m.cur.pend = max(m.cur.row-n, lo), false
}

func (m *model) down(n int) {
	hi := m.rows
	if m.cur.row < m.bot {
		hi = m.bot
	}
	m.cur.row, m.cur.pend = min(m.cur.row+n, hi-1), false
}

func (m *model) forward(n int) {
	hi := m.width(m.cur.row)
	if m.margins && m.cur.col < m.right {
		hi = min(hi, m.right)
	}
	m.cur.col = max(m.cur.col, min(m.cur.col+n, hi-1))
}

func (m *model) back(n int) {
	lo := 0
	if m.margins && m.cur.col >= m.left {
		lo = m.left
	}
	if m.cur.pend {
		n--
	}
	m.cur.col, m.cur.pend = max(m.cur.col-n, lo), false
}

// cr returns the column that CR goes to.
func (m *model) cr() {
	if m.margins && m.cur.col >= m.left {
		m.cur.col = m.left
	} else {
		m.cur.col = 0
	}
	m.cur.pend = false
}

// tab moves n stops on, or -n back.
func (m *model) tab(n int) {
	c := m.cur.col
	hi := m.limit() - 1
	for ; n > 0 && c < hi; n-- {
		for c++; c < hi && m.tabs[c/64]>>(c%64)&1 == 0; c++ {
		}
	}
	lo := 0
	if m.cur.origin && m.margins {
		lo = m.left
	}
	for ; n < 0 && c > lo; n++ {
		for c--; c > lo && m.tabs[c/64]>>(c%64)&1 == 0; c-- {
		}
	}
	m.cur.pend = m.cur.pend && c == m.cur.col
	m.cur.col = c
}

// rect is part of the screen: rows [t, b), columns [l, r).
type rect struct{ t, l, b, r int }

func (m *model) full(x rect) bool { return x.l == 0 && x.r == m.cols }

// shift replaces each cell (r, c) of x by what was at (r+dr, c+dc) in it, or by
// nothing. Only one of dr and dc is not 0. Where the whole screen moves up, its
// first row becomes history.
func (m *model) shift(x rect, dr, dc int) {
	if x.t >= x.b || x.l >= x.r {
		return
	}
	rows := m.lines()
	n := x.b - x.t
	switch {
	case dc != 0:
		for i := x.t; i < x.b; i++ {
			c := rows[i].need(m.cols)
			blankHalf(c, x.l)
			blankHalf(c, x.r)
			k := min(max(dc, -dc), x.r-x.l)
			if dc > 0 {
				blankHalf(c, x.l+k)
				copy(c[x.l:x.r], c[x.l+k:x.r])
				clear(c[x.r-k : x.r])
			} else {
				blankHalf(c, x.r-k)
				copy(c[x.l+k:x.r], c[x.l:x.r])
				clear(c[x.l : x.l+k])
			}
			rows[i].wrapped = false
		}
	case !m.full(x):
		move := func(to, from int) {
			c := rows[to].need(m.cols)
			blankHalf(c, x.l)
			blankHalf(c, x.r)
			if from < x.t || from >= x.b {
				clear(c[x.l:x.r])
				return
			}
			f := rows[from].need(m.cols)
			blankHalf(f, x.l)
			blankHalf(f, x.r)
			copy(c[x.l:x.r], f[x.l:x.r])
		}
		if dr > 0 {
			for i := x.t; i < x.b; i++ {
				move(i, i+dr)
			}
		} else {
			for i := x.b - 1; i >= x.t; i-- {
				move(i, i+dr)
			}
		}
	case dr > 0:
		k := min(dr, n)
		if x.t == 0 && m.hist > 0 && !m.alt {
			for range k {
				gone := m.all[0]
				copy(m.all[:m.hist+x.b], m.all[1:m.hist+x.b])
				m.all[m.hist+x.b-1] = gone
				m.empty(gone)
			}
			return
		}
		rotate(rows[x.t:x.b], k)
		for i := x.b - k; i < x.b; i++ {
			m.empty(rows[i])
		}
	case dr < 0:
		k := min(-dr, n)
		rotate(rows[x.t:x.b], n-k)
		for i := x.t; i < x.t+k; i++ {
			m.empty(rows[i])
		}
	}
}

// empty has a line that left the screen come back as a new one.
func (m *model) empty(l *line) {
	if m.lastLn == l {
		m.lastLn = nil
	}
	l.empty()
}

// rotate moves the first k lines to the end.
func rotate(l []*line, k int) {
	if k == 0 || k == len(l) {
		return
	}
	t := append([]*line(nil), l[:k]...)
	copy(l, l[k:])
	copy(l[len(l)-k:], t)
}

// blankHalf blanks a wide character that the edge before column c cuts.
func blankHalf(c []cell, at int) {
	if at > 0 && at < len(c) && c[at].r == half {
		c[at-1].r, c[at-1].w = 0, 0
		c[at].r, c[at].w = 0, 0
	}
}

// erase blanks columns [l, r) of a row; keep leaves protected cells.
func (m *model) erase(row, l, r int, keep bool) {
	ln := m.lines()[row]
	if len(ln.c) == 0 || l >= r {
		return
	}
	ln.touch()
	c := ln.c
	r = min(r, len(c))
	if l < r {
		blankHalf(c, l)
		blankHalf(c, r)
	}
	for i := l; i < r; i++ {
		if !keep || c[i].f&protected == 0 {
			c[i] = cell{}
		}
	}
	if r == len(c) {
		ln.wrapped = false
	}
}
