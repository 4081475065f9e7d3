package screen

// changer is told what is going to change, before it does.
type changer interface {
	shifts(m *model, x rect, dr, dc int)
	erases(m *model, x rect, keep bool)
}

func (m *model) doShift(ch changer, x rect, dr, dc int) {
	if x.t >= x.b || x.l >= x.r {
		return
	}
	if ch != nil {
		ch.shifts(m, x, dr, dc)
	}
	m.shift(x, dr, dc)
	m.seq += 2
}

func (m *model) doErase(ch changer, x rect, keep bool) {
	x.b, x.r = min(x.b, m.rows), min(x.r, m.cols)
	if x.t >= x.b || x.l >= x.r {
		return
	}
	if ch != nil {
		ch.erases(m, x, keep)
	}
	for r := x.t; r < x.b; r++ {
		m.erase(r, x.l, x.r, keep)
	}
	m.seq += 2
}

func (m *model) region() rect { return rect{m.top, m.left, m.bot, m.right} }

// inside says that the cursor is in the region.
func (m *model) inside() bool {
	return m.cur.row >= m.top && m.cur.row < m.bot && (!m.margins || m.cur.col >= m.left && m.cur.col < m.right)
}

func (m *model) sides() (l, r int) {
	if m.margins {
		return m.left, m.right
	}
	return 0, m.cols
}

// index moves the cursor down, or the region up if the cursor is at its end.
func (m *model) index(ch changer) {
	switch l, r := m.sides(); {
	case m.cur.row != m.bot-1:
		m.cur.row = min(m.cur.row+1, m.rows-1)
	case !m.margins || m.cur.col >= l && m.cur.col < r:
		m.doShift(ch, rect{m.top, l, m.bot, r}, 1, 0)
	}
}

func (m *model) reverseIndex(ch changer) {
	switch l, r := m.sides(); {
	case m.cur.row != m.top:
		m.cur.row = max(m.cur.row-1, 0)
	case !m.margins || m.cur.col >= l && m.cur.col < r:
		m.doShift(ch, rect{m.top, l, m.bot, r}, -1, 0)
	}
}

// control does a C0 control.
func (m *model) control(ch changer, b byte) {
	m.seq += 2
	switch b {
	case '\b':
		m.back(1)
	case '\t':
		m.tab(1)
	case '\n', '\v', '\f':
		m.index(ch)
		if m.newline {
			m.cr()
		}
	case '\r':
		m.cr()
	case 0x0e:
		m.cur.gl = 1
	case 0x0f:
		m.cur.gl = 0
	}
}

// escape does ESC, intermediates and a final byte. drop: it must not reach a
// terminal, since the model cannot follow what that would do.
func (m *model) escape(ch changer, q *seq, final byte) (drop bool) {
	m.seq += 2
	if q.n == 1 {
		switch i := q.inter[0]; {
		case i >= '(' && i <= '/':
			g := map[byte]int{'(': 0, ')': 1, '*': 2, '+': 3, '-': 1, '.': 2, '/': 3}[i]
			if i == ',' {
				break
			}
			m.cur.sets[g] = final
			if final == 'B' {
				m.cur.sets[g] = 0
			}
		case i == '#':
			m.lineAttr(ch, final)
		}
		return false
	}
	if q.n > 1 {
		return false
	}
	switch final {
	case '7':
		m.save()
	case '8':
		m.restore()
	case 'D':
		m.index(ch)
	case 'E':
		m.index(ch)
		m.cr()
	case 'M':
		m.reverseIndex(ch)
	case 'H':
		m.tabs[m.cur.col/64] |= 1 << (m.cur.col % 64)
	case 'c':
		m.reset()
	case 'n':
		m.cur.gl = 2
	case 'o':
		m.cur.gl = 3
	case '6', '9', 'V', 'W', 'N', 'O', 'F', 'l', 'm':
		return true // DECBI, DECFI, guarded areas, single shifts, memory lock: nobody uses them
	}
	return false
}

func (m *model) save() { m.saved[m.screen()], m.savedLast = m.cur, m.cur }

func (m *model) restore() { m.restoreTo(m.saved[m.screen()]) }

func (m *model) restoreTo(c cursor) {
	m.cur = c
	m.cur.pend = false
	m.cur.row, m.cur.col = min(m.cur.row, m.rows-1), min(m.cur.col, m.cols-1)
	if m.cur.origin {
		m.cur.row = min(max(m.cur.row, m.top), m.bot-1)
	}
}

// lineAttr does ESC # final: DECALN and the sizes of lines.
func (m *model) lineAttr(ch changer, final byte) {
	ln := m.lines()[m.cur.row]
	switch final {
	case '3', '4', '6':
		if m.cols > 1 {
			m.doErase(ch, rect{m.cur.row, m.cols / 2, m.cur.row + 1, m.cols}, false)
		}
		ln.short = true
		m.cur.col = min(m.cur.col, m.width(m.cur.row)-1)
	case '5':
		ln.short = false
	case '8':
		m.top, m.bot, m.left, m.right = 0, m.rows, 0, m.cols
		m.cur.origin = false
		m.moveTo(0, 0)
		for _, l := range m.lines() {
			c := l.need(m.cols)
			for i := range c {
				m.seq++
				c[i] = cell{r: 'E', w: 1, seq: m.seq}
			}
			l.wrapped, l.short = false, false
		}
		m.seq += 2
	}
}

// control sequence: drop as for escape.
func (m *model) sequence(ch changer, q *seq, final byte) (drop bool) {
	if final != 'm' || q.private != 0 || q.n > 0 {
		m.seq += 2
	}
	if q.bad {
		return true // a terminal may take it for something else
	}
	n := q.arg(0, 1)
	row, col := m.cur.row, m.cur.col
	switch {
	case q.private == '?' && q.n == 0:
		return m.private(ch, q, final)
	case q.private != 0:
		return false
	case q.n == 1 && q.inter[0] == ' ':
		switch final {
		case '@':
			return m.sideways(ch, n)
		case 'A':
			return m.sideways(ch, -n)
		}
		return false
	case q.n == 1 && q.inter[0] == '!' && final == 'p':
		m.softReset()
		return false
	case q.n == 1 && q.inter[0] == '"' && final == 'q':
		m.cur.pen.protected = q.arg(0, 0) == 1
		return false
	case q.n == 1 && q.inter[0] == '\'':
		if final == '}' || final == '~' {
			if m.inside() {
				if final == '}' {
					n = -n
				}
				_, r := m.sides()
				m.doShift(ch, rect{m.top, col, m.bot, r}, 0, n)
			}
		}
		return false
	case q.n == 1 && q.inter[0] == '$':
		switch final {
		case 'v', 'x', 'z', '{', '}', '~': // rectangles, and the status line
			return true
		}
		return false
	case q.n > 0:
		return false
	}
	switch final {
	case '@': // ICH
		if m.in() && !m.cur.pend {
			m.doShift(ch, rect{row, col, row + 1, m.limit()}, 0, -n)
		}
	case 'A', 'k':
		m.up(n)
	case 'B', 'e':
		m.down(n)
	case 'C', 'a':
		m.forward(n)
	case 'D', 'j':
		m.back(n)
	case 'E':
		m.down(n)
		m.cr()
	case 'F':
		m.up(n)
		m.cr()
	case 'G', '`':
		m.colTo(n - 1)
	case 'H', 'f':
		m.moveTo(n-1, q.arg(1, 1)-1)
	case 'I':
		m.tab(min(n, maxSize))
	case 'J':
		m.eraseDisplay(ch, q.arg(0, 0), false)
	case 'K':
		m.eraseLine(ch, q.arg(0, 0), false)
	case 'L': // IL
		if !m.inside() {
			return true // nothing, to most terminals
		}
		l, r := m.sides()
		m.doShift(ch, rect{row, l, m.bot, r}, -n, 0)
	case 'M': // DL
		if !m.inside() {
			return true // nothing, to most terminals
		}
		l, r := m.sides()
		m.doShift(ch, rect{row, l, m.bot, r}, n, 0)
	case 'P': // DCH
		if m.in() && !m.cur.pend {
			m.doShift(ch, rect{row, col, row + 1, m.limit()}, 0, n)
		}
	case 'S':
		l, r := m.sides()
		m.doShift(ch, rect{m.top, l, m.bot, r}, n, 0)
	case 'T':
		if len(q.params) <= 1 {
			l, r := m.sides()
			m.doShift(ch, rect{m.top, l, m.bot, r}, -n, 0)
		}
	case '^':
		l, r := m.sides()
		m.doShift(ch, rect{m.top, l, m.bot, r}, -n, 0)
	case 'X':
		if !m.cur.pend {
			m.doErase(ch, rect{row, col, row + 1, min(col+n, m.width(row))}, false)
		}
	case 'Z':
		m.tab(-min(n, maxSize))
	case 'd':
		m.rowTo(n - 1)
	case 'g':
		switch q.arg(0, 0) {
		case 0:
			m.tabs[col/64] &^= 1 << (col % 64)
		case 3:
			clear(m.tabs)
		}
	case 'h', 'l':
		for _, p := range q.params {
			switch p.n {
			case 4:
				m.insert = final == 'h'
			case 20:
				m.newline = final == 'h'
			}
		}
	case 'm':
		m.cur.pen.sgr(q.params)
	case 'r':
		t, b := n-1, min(q.arg(1, m.rows), m.rows)
		if t < b-1 {
			m.top, m.bot = t, b
			m.moveTo(0, 0)
		}
	case 's':
		if m.margins {
			l, r := n-1, min(q.arg(1, m.cols), m.cols)
			if l < r-1 {
				m.left, m.right = l, r
				m.moveTo(0, 0)
			}
		} else {
			m.save()
		}
	case 'u':
		m.restore()
	}
	return false
}

// in says that the cursor is between the margins.
func (m *model) in() bool { return !m.margins || m.cur.col >= m.left && m.cur.col < m.right }

func (m *model) sideways(ch changer, n int) bool {
	if m.inside() {
		m.doShift(ch, m.region(), 0, n)
	}
	return false
}

func (m *model) eraseDisplay(ch changer, how int, keep bool) {
	row, col := m.cur.row, m.cur.col
	switch how {
	case 0:
		if !m.cur.pend {
			m.doErase(ch, rect{row, col, row + 1, m.cols}, keep)
		}
		m.doErase(ch, rect{row + 1, 0, m.rows, m.cols}, keep)
	case 1:
		m.doErase(ch, rect{0, 0, row, m.cols}, keep)
		m.doErase(ch, rect{row, 0, row + 1, col + 1}, keep)
	case 2:
		m.doErase(ch, rect{0, 0, m.rows, m.cols}, keep)
	case 3: // what was scrolled off
		for i := range m.hist {
			m.all[i] = &line{}
		}
	}
}

func (m *model) eraseLine(ch changer, how int, keep bool) {
	row, col := m.cur.row, m.cur.col
	switch how {
	case 0:
		if !m.cur.pend {
			m.doErase(ch, rect{row, col, row + 1, m.cols}, keep)
		}
	case 1:
		m.doErase(ch, rect{row, 0, row + 1, col + 1}, keep)
	case 2:
		m.doErase(ch, rect{row, 0, row + 1, m.cols}, keep)
	}
}

// private does CSI ? ... final.
func (m *model) private(ch changer, q *seq, final byte) (drop bool) {
	switch final {
	case 'J':
		m.eraseDisplay(ch, q.arg(0, 0), true)
		return false
	case 'K':
		m.eraseLine(ch, q.arg(0, 0), true)
		return false
	case 'h', 'l':
	default:
		// Saving and restoring modes (s, r) changes them out of the model's sight.
		return final == 's' || final == 'r'
	}
	set := final == 'h'
	for _, p := range q.params {
		switch p.n {
		case 2, 38, 40, 45: // VT52, Tektronix, 132 columns, reverse wrap-around
			return true
		case 1049: // some terminals only move the cursor then, others do nothing
			if set == m.alt {
				return true
			}
		}
	}
	for _, p := range q.params {
		switch p.n {
		case 6:
			m.cur.origin = set
			m.moveTo(0, 0)
		case 7:
			m.wrap = set
			m.cur.pend = m.cur.pend && set
		case 69:
			m.margins = set
			m.left, m.right = 0, m.cols
		case 47, 1047:
			m.switchTo(set, p.n == 1047, false)
		case 1048:
			if set {
				m.save()
			} else {
				m.restore()
			}
		case 1049:
			m.switchTo(set, true, true)
		}
	}
	return false
}

// switchTo shows the alternate or the main screen.
func (m *model) switchTo(alt, wipe, save bool) {
	if alt == m.alt {
		return
	}
	if alt && save {
		m.saved[0] = m.cur
	}
	m.grid, m.other = m.other, m.grid
	m.alt = alt
	switch {
	case alt && wipe && save:
		m.grid = newGrid(m.rows, 0)
	case !alt && wipe && !save:
		m.other = newGrid(m.rows, 0)
	case !alt && save:
		m.restore()
	}
	m.cur.row, m.cur.col = min(m.cur.row, m.rows-1), min(m.cur.col, m.cols-1)
}
