package http

import (
	"bytes"

	"guard"
)

// jsonMasks keeps a stream of JSON texts one while a filter masks it: it takes what
// went in and what came out, byte by byte, and gives what may go on. Where a mask
// covers a part of an escape, all of the escape is masked; quotes and what is
// between strings stay. What does not begin like JSON, or goes on like none, is
// left as it was masked; of a mask there, up to five letters of true, false and null
// may have been taken back. Whoever has all of a text uses mend.
type jsonMasks struct {
	state   byte // 0: nothing seen yet; 'o' outside of strings, 's' inside of one, 'r' raw
	run     int  // letters outside of strings, in a row
	was, is []byte
	out     []byte
}

// step takes more of was, as it came out, and returns what may go on: valid until
// the next call.
func (m *jsonMasks) step(was, is []byte, end bool) []byte {
	m.was, m.is = append(m.was, was...), append(m.is, is...)
	m.out = m.out[:0]
	i := 0
	for i < len(m.was) {
		n := m.next(m.was[i:], m.is[i:], end)
		if n == 0 {
			break
		}
		i += n
	}
	m.was, m.is = append(m.was[:0], m.was[i:]...), append(m.is[:0], m.is[i:]...)
	return m.out
}

// next takes the first character, and returns its length: 0 if there is more of it
// to come.
func (m *jsonMasks) next(was, is []byte, end bool) int {
	c := was[0]
	space := c == ' ' || c == '\t' || c == '\r' || c == '\n'
	if m.state == 0 && !space {
		m.state = 'r'
		if c == '{' || c == '[' {
			m.state = 'o'
		}
	}
	switch m.state {
	case 's':
		n := 1
		switch {
		case c == '"':
			m.state = 'o'
			m.out = append(m.out, c)
			return 1
		case c == '\\':
			if n = escapeLen(was); n == 0 && !end {
				return 0
			} else if n <= 0 {
				m.state, n = 'r', 1
			}
		case c >= 0x80:
			if n = runeLen(was); n == 0 && !end {
				return 0
			}
			n = max(n, 1)
		}
		at := len(m.out)
		m.out = append(m.out, is[:n]...)
		if m.state == 's' {
			mendUnit(was[:n], m.out[at:], false)
		}
		return n
	case 'o':
		switch {
		case c == '"':
			m.state = 's'
		case space, bytes.IndexByte([]byte("{}[]:,"), c) >= 0:
		case c >= '0' && c <= '9' && is[0] != c:
			c = '1'
		case c >= '0' && c <= '9', bytes.IndexByte([]byte("+-.E"), c) >= 0:
		case bytes.IndexByte([]byte("aeflnrstu"), c) >= 0 && m.run < len("false"): // true, false, null, or an exponent
			m.run++
			m.out = append(m.out, c)
			return 1
		default:
			m.state, c = 'r', is[0]
		}
		m.run = 0
		m.out = append(m.out, c)
		return 1
	}
	m.out = append(m.out, is[0])
	return 1
}

// runeLen is the length of the UTF-8 sequence that b begins with, by its first
// byte: 0 if b ends inside it, 1 if it is none.
func runeLen(b []byte) int {
	n := 1
	switch c := b[0]; {
	case c >= 0xf0:
		n = 4
	case c >= 0xe0:
		n = 3
	case c >= 0xc0:
		n = 2
	}
	for i := 1; i < n; i++ {
		if i == len(b) {
			return 0
		}
		if b[i]&0xc0 != 0x80 {
			return 1
		}
	}
	return n
}

// keepJSON is f with its masks mended by a jsonMasks.
func keepJSON(f guard.Filter) guard.Filter {
	return mended(f, new(jsonMasks).step)
}

// mended is f with step looking after what comes out.
func mended(f guard.Filter, step func(was, is []byte, end bool) []byte) guard.Filter {
	var held []byte
	return func(p []byte, s guard.Step) ([]byte, guard.Decision) {
		held = append(held, p...)
		is, d := f(p, s)
		n := min(len(is), len(held))
		out := step(held[:n], is[:n], s == guard.End)
		held = append(held[:0], held[n:]...)
		return out, d
	}
}

// tailMasked is f, and at the end what it keeps when it is told of a pause is masked:
// the beginning of a value, long enough to tell something of it.
func tailMasked(f guard.Filter) guard.Filter {
	held := 0
	var buf []byte
	return func(p []byte, s guard.Step) ([]byte, guard.Decision) {
		if s != guard.End {
			out, d := f(p, s)
			held += len(p) - len(out)
			return out, d
		}
		out, d := f(p, guard.Pause)
		buf = append(buf[:0], out...)
		if d.Action.Stops() {
			return buf, d
		}
		held += len(p) - len(out)
		out, last := f(nil, guard.End)
		safe := len(buf) + max(0, len(out)-held)
		buf = append(buf, out...)
		for i := safe; i < len(buf); i++ {
			buf[i] = '*'
		}
		if last.Action < d.Action {
			d = last
		}
		return buf, d
	}
}

// chained gives g what f lets go.
func chained(f, g guard.Filter) guard.Filter {
	return func(p []byte, s guard.Step) ([]byte, guard.Decision) {
		out, d := f(p, s)
		if d.Action.Stops() {
			return nil, d
		}
		return g(out, s)
	}
}
