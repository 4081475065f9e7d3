package screen

import (
	"bytes"
	"strconv"
)

// What is not known: in which row the cursor is when the session starts, and
// after somebody else wrote to the terminal; and how a terminal lays lines out
// again when its size changes. As long as a program moves about relative to where
// it is, that does not matter: the model has the cursor in the last row. When it
// goes to a row by its number there is a model for each case, until they are all
// the same: in each of them a value must not be complete. What is about to be
// printed is masked then; what is on the screen is left, since it is not known
// where.

// lost says that the row of the cursor is not known.
func (s *Screen) lost() {
	s.unsure, s.seen = true, 0
	if s.m.alt {
		return
	}
	lower(s.m, s.m.rows-1-s.m.cur.row)
	for _, m := range s.maybe {
		lower(m, m.rows-1-m.cur.row)
	}
}

// lower moves all that is on the screen down by n rows, or up.
func lower(m *model, n int) {
	for ; n > 0; n-- {
		copy(m.all[1:], m.all[:len(m.all)-1])
		m.all[0] = &line{}
		m.cur.row++
	}
	for ; n < 0; n++ {
		copy(m.all, m.all[1:])
		m.all[len(m.all)-1] = &line{}
		m.cur.row--
	}
	m.cur.row = min(max(m.cur.row, 0), m.rows-1)
}

// clone copies all of m.
func (m *model) clone() *model {
	n := *m
	n.all, n.other.all = cloneLines(m.all), cloneLines(m.other.all)
	n.tabs = append([]uint64(nil), m.tabs...)
	n.last = append([]byte(nil), m.last...)
	n.lastLn = nil
	return &n
}

func cloneLines(l []*line) []*line {
	out := make([]*line, len(l))
	for i := range l {
		out[i] = l[i].clone()
	}
	return out
}

// doubt makes the models that the coming control needs.
func (s *Screen) doubt() {
	if !s.unsure || s.m.alt {
		return
	}
	s.unsure = false
	if (1+len(s.maybe))*(s.m.rows-min(s.seen, s.m.rows-1)) > s.most() {
		s.sweep()
		return
	}
	var more []*model
	for _, m := range append([]*model{s.m}, s.maybe...) {
		for d := 1; d < m.rows-min(s.seen, m.rows-1); d++ {
			n := m.clone()
			lower(n, -d)
			more = append(more, n)
		}
	}
	s.maybe = append(s.maybe, more...)
}

// most is how many models there may be.
func (s *Screen) most() int { return max(128, 2*s.m.rows) }

// sweep moves all that is on the screen into the terminal's history, where too
// many cases would have to be followed. There is one again after it.
func (s *Screen) sweep() {
	m := s.m
	s.messy, s.unsure, s.maybe, s.parked = false, false, nil, nil
	s.out = appendMove(append(s.out, "\x1b[?6l\x1b[r"...), m.rows-1, 0)
	if m.margins { // part of a row does not scroll
		s.out = append(s.out, "\x1b[2J"...)
	} else {
		s.out = append(s.out, bytes.Repeat([]byte{'\n'}, m.rows)...)
	}
	m.grid = newGrid(m.rows, history)
	if m.top > 0 || m.bot < m.rows {
		s.out = strconv.AppendInt(append(s.out, "\x1b["...), int64(m.top+1), 10)
		s.out = append(strconv.AppendInt(append(s.out, ';'), int64(m.bot), 10), 'r')
	}
	row, col := m.cur.row, m.cur.col
	if m.cur.pend = false; m.cur.origin {
		s.out = append(s.out, "\x1b[?6h"...)
		row -= m.top
		if m.margins {
			col -= m.left
		}
	}
	s.out = appendMove(s.out, row, col)
}

// certain forgets models that are like another one.
func (s *Screen) certain() {
	if len(s.maybe) == 0 {
		return
	}
	kept := s.maybe[:0]
	for i, m := range s.maybe {
		same := m.like(s.m)
		if !same && i > 0 {
			same = m.like(s.maybe[i-1])
		}
		if !same {
			kept = append(kept, m)
		}
	}
	clear(s.maybe[len(kept):])
	s.maybe = kept
}

// like says that m and n show the same and do the same.
func (m *model) like(n *model) bool {
	x, y := m.cur, n.cur
	x.unsure, y.unsure = x.unsure && x.pend, y.unsure && y.pend
	if x != y || m.saved != n.saved || m.savedLast != n.savedLast || m.alt != n.alt || m.rows != n.rows || m.cols != n.cols || m.top != n.top || m.bot != n.bot || m.left != n.left || m.right != n.right {
		return false
	}
	a, b := m.lines(), n.lines()
	for i := range a {
		if a[i].wrapped != b[i].wrapped || a[i].short != b[i].short {
			return false
		}
		for c := range max(len(a[i].c), len(b[i].c)) {
			if a[i].at(c).r != b[i].at(c).r {
				return false
			}
		}
	}
	return true
}

// follow gives m the modes of n.
func (m *model) follow(n *model) {
	m.cur.pen, m.wrap, m.insert, m.newline = n.cur.pen, n.wrap, n.insert, n.newline
	m.cur.sets, m.cur.gl = n.cur.sets, n.cur.gl
}

// resize gives every model another size.
func (s *Screen) resize(rows, cols int) {
	if rows == s.m.rows && cols == s.m.cols {
		return
	}
	all := append([]*model{s.m}, s.maybe...)
	var more []*model
	for _, m := range append(all, s.parked...) {
		main := &m.grid
		if m.alt {
			main = &m.other
		}
		if cols != m.cols && main.flows(cols) {
			n := m.clone()
			n.resize(rows, cols, true)
			more = append(more, n)
		}
		m.resize(rows, cols, false)
	}
	if len(s.maybe)+len(s.parked)+len(more) > maxMaybe/2 {
		s.messy, more = true, nil
	}
	if s.m.alt {
		s.parked = append(s.parked, more...)
	} else {
		s.maybe = append(s.maybe, more...)
	}
	s.lost()
}

// flows says that a line is wrapped, or will be.
func (g *grid) flows(cols int) bool {
	for _, l := range g.all {
		if l.wrapped {
			return true
		}
		for c := cols; c < len(l.c); c++ {
			if !l.c[c].blank() {
				return true
			}
		}
	}
	return false
}

// resize gives m another size. Where lines flow, those of the main screen are
// laid out again; else they are cut.
func (m *model) resize(rows, cols int, flow bool) {
	if m.alt {
		m.grid = m.grid.fit(rows, cols, m.rows)
		m.other = m.other.flow(rows, cols, flow)
	} else {
		used := m.cur.row + 1
		for i := used; i < m.rows; i++ {
			if len(m.lines()[i].c) > 0 {
				used = i + 1
			}
		}
		m.cur.row += rows - used // what is on it ends in the last row
		below := m.all[m.hist+used:]
		m.all = m.all[:len(m.all)-len(below)]
		m.grid = m.grid.flow(rows, cols, flow)
		m.other = m.other.fit(rows, cols, m.rows)
	}
	m.rows, m.cols = rows, cols
	m.top, m.bot, m.left, m.right, m.margins = 0, rows, 0, cols, false
	m.cur.row, m.cur.col, m.cur.pend = min(max(m.cur.row, 0), rows-1), min(m.cur.col, cols-1), false
	m.seq += 2
}

// fit cuts lines, and adds rows at the end.
func (g grid) fit(rows, cols, _ int) grid {
	n := newGrid(rows, g.hist)
	for i := range n.all {
		if i < len(g.all) {
			n.all[i] = g.all[i]
			n.all[i].cut(cols)
		}
	}
	return n
}

func (l *line) cut(cols int) {
	l.touch()
	if len(l.c) > cols {
		blankHalf(l.c, cols)
		l.c = l.c[:cols:cols]
		l.wrapped = false
	} else if len(l.c) > 0 {
		l.need(cols)
	}
}

// flow lays the lines out in rows of cols cells, the last one in the last row.
func (g grid) flow(rows, cols int, again bool) grid {
	var out []*line
	for i := 0; i < len(g.all); i++ {
		if !again {
			g.all[i].cut(cols)
			out = append(out, g.all[i])
			continue
		}
		var whole []cell
		for ; i < len(g.all); i++ {
			whole = append(whole, g.all[i].c...)
			if !g.all[i].wrapped {
				break
			}
		}
		for len(whole) > 0 && whole[len(whole)-1].r == 0 {
			whole = whole[:len(whole)-1]
		}
		for len(whole) > cols {
			k := cols
			if whole[k].r == half && k > 1 {
				k--
			}
			l := &line{c: make([]cell, cols), wrapped: true}
			copy(l.c, whole[:k])
			out, whole = append(out, l), whole[k:]
		}
		l := &line{}
		if len(whole) > 0 {
			l.c = make([]cell, cols)
			copy(l.c, whole)
		}
		out = append(out, l)
	}
	n := newGrid(rows, g.hist)
	for i, j := len(out)-1, len(n.all)-1; i >= 0 && j >= 0; i, j = i-1, j-1 {
		n.all[j] = out[i]
	}
	return n
}

// maxMaybe is how many models there are at most beside those that doubt makes.
const maxMaybe = 32

// vary adds to each model one that is like it but for what f does. It says false
// where there are too many of them.
func (s *Screen) vary(f func(*model)) bool {
	n := 1 + len(s.maybe)
	if n > maxMaybe {
		return false
	}
	for _, m := range append([]*model{s.m}, s.maybe...)[:n] {
		c := m.clone()
		f(c)
		s.maybe = append(s.maybe, c)
	}
	return true
}

// branch sees to what terminals do not agree about: whether a control that comes
// after a character in the last column finds the cursor on that column (xterm), or
// behind it (tmux, VTE).
func (s *Screen) branch(final byte) {
	if !s.m.cur.pend {
		return
	}
	switch {
	case s.q.csi && bytes.IndexByte([]byte("KJPX@"), final) >= 0:
		// What becomes of the last character does not matter much; whether the next one
		// wraps does, if it comes.
		for _, m := range append(s.maybe, s.m) {
			m.hesitate()
		}
		return
	case s.q.csi && bytes.IndexByte([]byte("CDILMSTZ^ad"), final) >= 0:
	case !s.q.csi && (final == '\b' || final >= '\t' && final <= '\f' || final == 'D' || final == 'M' || final == '7'):
	default:
		return
	}
	if !s.vary(func(m *model) { m.cur.pend = false }) {
		s.onColumn()
	}
}

// hesitate says that it is not known whether the next character wraps, and whether
// the one in the last column is still there.
func (m *model) hesitate() {
	if !m.cur.pend {
		return
	}
	m.cur.unsure = true
	if ln := m.lines()[m.cur.row]; m.cur.col < len(ln.c) {
		m.seq += 2
		ln.c[m.cur.col].seq = m.seq
		ln.touch()
	}
}

// settle is for the character that comes next.
func (s *Screen) settle() {
	if s.m.cur.pend && s.m.cur.unsure {
		s.m.cur.unsure = false
		if !s.vary(func(m *model) { m.cur.pend = false }) {
			s.onColumn()
		}
	}
}

// onColumn makes terminals agree that the cursor is on the last column.
func (s *Screen) onColumn() {
	s.out = append(strconv.AppendInt(append(s.out, "\x1b["...), int64(s.m.cur.col+1), 10), 'G')
	for _, m := range append(s.maybe, s.m) {
		m.cur.pend = false
	}
}

// branched does the same for what is known after the control only: where IL and DL
// leave the cursor, what DECRC does about a cursor that was behind the last column,
// and whether both screens have one region.
func (s *Screen) branched(final byte, before cursor, alt bool, region rect) {
	ok := true
	switch {
	case s.q.csi && (final == 'L' || final == 'M') && s.q.private == 0 && (s.m.cur.col != 0 || s.m.cur.pend):
		ok = s.vary(func(m *model) {
			if m.inside() {
				m.cur.col, _ = m.sides()
				m.cur.pend = false
			}
		})
	case !s.q.csi && final == '8' && s.q.n == 0 || s.q.csi && final == 'u' && s.q.private == 0:
		own, last := s.m.saved[s.m.screen()], s.m.savedLast
		if own.pend {
			ok = s.vary(func(m *model) { m.cur.pend = m.saved[m.screen()].pend })
		}
		if own != last {
			ok = s.vary(func(m *model) { m.restoreTo(m.savedLast) }) && ok
		}
	case final == '\b' && before.col == 0 && !before.pend && before.row > 0:
		// tmux goes back to the end of a line that was wrapped.
		ok = s.vary(func(m *model) {
			if m.cur.col == 0 && m.cur.row > 0 {
				m.cur.row, m.cur.col = m.cur.row-1, m.cols-1
			}
		})
	case s.m.alt != alt && region != rect{}:
		ok = s.vary(func(m *model) { m.top, m.left, m.bot, m.right = 0, 0, m.rows, m.cols })
		if !ok {
			s.out = append(s.out, "\x1b[r"...)
		}
	}
	if !ok {
		row := s.m.cur.row
		if s.m.cur.origin {
			row -= s.m.top
		}
		s.out = appendMove(s.out, row, s.m.cur.col)
		for _, m := range s.maybe {
			m.cur.row, m.cur.col, m.cur.pend = s.m.cur.row, s.m.cur.col, false
		}
	}
}
