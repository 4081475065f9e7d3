package screen

import (
	"bytes"
	"unicode/utf8"
)

// keep remembers b for the model. It drops what has scrolled away by it.
func (s *Screen) keep(b []byte) {
	p := &s.plain
	if len(p.pend)+len(b) > maxPend && len(p.pend) > 0 {
		s.trim()
	}
	if p.reset >= 0 && p.reset < len(b) {
		p.resets = append(p.resets, len(p.pend)+p.reset)
	}
	p.pend = append(p.pend, b...)
	if len(p.pend) > 2*maxPend {
		s.trim()
	}
}

// trim drops all but the last screen of what is kept, or has the model take it.
func (s *Screen) trim() {
	p := &s.plain
	at := len(p.pend)
	for n := s.m.rows + history + 1; n > 0; n-- {
		k := bytes.LastIndexByte(p.pend[:at], '\n')
		if k < 0 {
			s.sync()
			return
		}
		at = k
	}
	for at > 0 && p.pend[at-1] != '\r' {
		k := bytes.LastIndexByte(p.pend[:at], '\n')
		if k < 0 {
			s.sync()
			return
		}
		at = k
	}
	gone := p.pend[:at+1]
	// What the colours are then: what was set since they were last set to none.
	from := 0
	kept := p.resets[:0]
	for _, r := range p.resets {
		if r < len(gone) {
			from = max(from, r)
		} else {
			kept = append(kept, r-len(gone))
		}
	}
	p.resets = kept
	for b := gone[from:]; ; {
		k := bytes.IndexByte(b, 0x1b)
		if k < 0 {
			break
		}
		b = b[k:]
		n, _ := plainSeq(b)
		if n == 0 {
			break
		}
		s.m.plainSeq(&s.q, b[:n])
		b = b[n:]
	}
	s.m.cur.row, s.m.cur.col, s.m.cur.pend = s.m.rows-1, 0, false
	s.m.seq += 2
	p.pend = p.pend[:copy(p.pend, p.pend[at+1:])]
}

// sync has the model take what is kept.
func (s *Screen) sync() {
	s.m.write(&s.q, s.plain.pend)
	s.plain.pend, s.plain.resets = s.plain.pend[:0], s.plain.resets[:0]
}

func (m *model) plainSeq(q *seq, b []byte) {
	if b[len(b)-1] != 'm' {
		return
	}
	q.start(true)
	for _, c := range b[2 : len(b)-1] {
		q.add(c)
	}
	q.end()
	m.cur.pen.sgr(q.params)
}

// write takes plain output. Nothing of it is judged.
func (m *model) write(q *seq, b []byte) {
	sgr := 0
	for i := 0; i < len(b); {
		switch c := b[i]; {
		case c == 0x1b:
			n, _ := plainSeq(b[i:])
			if n == 0 {
				n = 1
			}
			m.plainSeq(q, b[i:i+n])
			if sgr += n; sgr > maxBetween {
				m.seq += 2
			}
			if b[i+n-1] == 'K' {
				m.seq += 2
				m.hesitate()
			}
			i += n
		case c < 0x20:
			m.control(nil, c)
			i++
		default:
			r, n := utf8.DecodeRune(b[i:])
			w := runeWidth(r)
			m.putPlain(r, w, b[i:i+n])
			sgr = 0
			i += n
		}
	}
}

// putPlain prints a character on a screen that wraps and inserts nothing.
func (m *model) putPlain(r rune, w int, b []byte) {
	if w == 2 && m.cols < 2 {
		r, w = ' ', 1
	}
	if m.cur.pend || m.cur.col+w > m.cols {
		m.lines()[m.cur.row].wrapped = true
		m.index(nil)
		m.seq -= 2 * b2i(m.cur.row == m.bot-1)
		m.lines()[m.cur.row].wrapped = false
		m.cr()
	}
	ln := m.lines()[m.cur.row]
	c := ln.need(m.cols)
	m.seq++
	x := cell{r: r, w: uint8(w), seq: m.seq, pen: m.pens.number(m.cur.pen)}
	c[m.cur.col] = x
	if w == 2 {
		x.r, x.w = half, 0
		c[m.cur.col+1] = x
	}
	m.mark(b, w, ln)
	if m.cur.col += w; m.cur.col >= m.cols {
		m.cur.col, m.cur.pend, m.cur.unsure = m.cols-1, true, false
	}
}

// mark remembers the character just printed.
func (m *model) mark(b []byte, w int, ln *line) {
	m.last, m.lastW = append(m.last[:0], b...), w
	m.lastLn, m.lastCol, m.lastPen = ln, m.cur.col, m.pens.number(m.cur.pen)
}

func b2i(b bool) uint32 {
	if b {
		return 1
	}
	return 0
}
