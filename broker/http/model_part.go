package http

import "bytes"

// partMasks is a jsonMasks for each part of a multipart body (RFC 2046): a file
// that is JSON, or JSON lines, stays it.
type partMasks struct {
	boundary []byte // with its two hyphens
	part     *jsonMasks
	line     []byte // what came of this line, as far as it matters
	headers  bool   // the next empty line ends a part's headers
	buf      []byte
}

func (m *partMasks) step(was, is []byte, end bool) []byte {
	m.buf = m.buf[:0]
	for len(was) > 0 {
		n := bytes.IndexByte(was, '\n') + 1
		whole := n > 0
		if !whole {
			n = len(was)
		}
		m.give(was[:n], is[:n])
		if room := len(m.boundary) + 2 - len(m.line); room > 0 {
			m.line = append(m.line, was[:min(n, room)]...)
		}
		if whole {
			m.ended()
		}
		was, is = was[n:], is[n:]
	}
	if end && m.part != nil {
		m.buf = append(m.buf, m.part.step(nil, nil, true)...)
	}
	return m.buf
}

func (m *partMasks) give(was, is []byte) {
	if m.part == nil {
		m.buf = append(m.buf, is...)
		return
	}
	m.buf = append(m.buf, m.part.step(was, is, false)...)
}

// ended looks at the line that has just come to its end.
func (m *partMasks) ended() {
	switch {
	case bytes.HasPrefix(m.line, m.boundary):
		if m.part != nil {
			m.buf = append(m.buf, m.part.step(nil, nil, true)...)
		}
		m.part, m.headers = nil, true
	case m.headers && len(bytes.TrimRight(m.line, "\r\n")) == 0:
		m.part, m.headers = new(jsonMasks), false
	}
	m.line = m.line[:0]
}

// eventMasks is a jsonMasks for the data of each server-sent event.
type eventMasks struct {
	line []byte // what came of this line, as far as it matters
	data *jsonMasks
	buf  []byte
}

func (m *eventMasks) step(was, is []byte, end bool) []byte {
	const field = "data:"
	m.buf = m.buf[:0]
	for len(was) > 0 {
		if m.data == nil && len(m.line) < len(field) && was[0] != '\n' && was[0] != '\r' {
			m.line = append(m.line, was[0])
			m.buf = append(m.buf, is[0])
			was, is = was[1:], is[1:]
			if string(m.line) == field {
				m.data = new(jsonMasks)
			}
			continue
		}
		n := bytes.IndexAny(was, "\r\n") + 1
		ends := n > 0
		if !ends {
			n = len(was)
		}
		if m.data == nil {
			m.buf = append(m.buf, is[:n]...)
		} else {
			m.buf = append(m.buf, m.data.step(was[:n], is[:n], false)...)
		}
		was, is = was[n:], is[n:]
		if ends {
			m.finish()
		}
	}
	if end {
		m.finish()
	}
	return m.buf
}

// finish ends a line.
func (m *eventMasks) finish() {
	if m.data != nil {
		m.buf = append(m.buf, m.data.step(nil, nil, true)...)
	}
	m.line, m.data = m.line[:0], nil
}
