package screen

import (
	"bytes"
	"unicode/utf8"

	"guard"
)

// kinds of strings, by the byte after ESC
const (
	osc = ']'
)

// inString takes bytes of a string, at least one, and returns how many.
func (s *Screen) inString(p []byte) int {
	if s.state == strEsc {
		if p[0] == '\\' {
			s.str = append(s.str, p[0])
			s.ended(2)
			return 1
		}
		// ESC ends it; what follows is a sequence of its own. A passthrough has its ESC
		// doubled, and goes on.
		if p[0] == 0x1b && s.str[1] == 'P' {
			s.str = append(s.str, p[0])
			s.state = str
			return 1
		}
		s.str = s.str[:len(s.str)-1]
		s.ended(0)
		s.begin()
		return 0
	}
	i := 0
	for i < len(p) {
		b := p[i]
		if b == 0x1b || b == 0x18 || b == 0x1a || b == 0x07 && s.str[1] == osc || b == 0x9c {
			break
		}
		i++
		if len(s.str)+i >= maxStr {
			break
		}
	}
	s.str = append(s.str, p[:i]...)
	if len(s.str) >= maxStr {
		s.pass()
	}
	if i == len(p) {
		return i
	}
	switch b := p[i]; {
	case b == 0x9c:
		s.str = append(s.str, b)
		n := 0
		if !s.inRune() {
			n = 1
		} else if s.str[len(s.str)-2] == 0xc2 {
			n = 2
		}
		if n > 0 { // as a sequence of 7 bits all terminals do the same with it
			s.str = append(s.str[:len(s.str)-n], "\x1b\\"...)
			s.ended(2)
		}
	case b == 0x1b:
		s.str = append(s.str, b)
		s.state = strEsc
	case b == 0x07:
		s.str = append(s.str, b)
		s.ended(1)
	case b == 0x18 || b == 0x1a:
		s.str = append(s.str, b)
		s.ended(1)
	default:
		return i
	}
	return i + 1
}

// inRune says that the last byte of the string belongs to a UTF-8 character.
func (s *Screen) inRune() bool {
	b := s.str[2:]
	for k := 1; k < utf8.UTFMax && k < len(b); k++ {
		switch c := b[len(b)-1-k]; {
		case c >= 0xc2 && c < 0xe0:
			return k == 1
		case c >= 0xe0 && c < 0xf0:
			return k <= 2
		case c >= 0xf0 && c < 0xf5:
			return k <= 3
		case c < 0x80 || c >= 0xc0:
			return false
		}
	}
	return false
}

// pass lets the first part of a long string out.
func (s *Screen) pass() {
	s.search(s.str[s.strOut:])
	if s.k.worst.Action.Stops() {
		return
	}
	if s.text() {
		s.str = s.str[:maxStr/2]
		s.str = append(s.str[:0:0], s.str...)
		return
	}
	n := len(s.str) - maxStr/2
	s.out = append(s.out, s.str[s.strOut:n]...)
	// What a string begins with says what it is.
	head := min(8, n)
	s.str = append(s.str[:head], s.str[n:]...)
	s.strOut = head
}

// text says that the string at hand is one whose text is drawn (OSC 66 of kitty).
func (s *Screen) text() bool { return bytes.HasPrefix(s.str, []byte("\x1b]66;")) }

// ended judges a string; its last n bytes end it.
func (s *Screen) ended(n int) {
	s.state = ground
	for _, m := range append(s.maybe, s.m) {
		m.seq += 2
	}
	body := s.str[:len(s.str)-n]
	if s.text() && s.strOut == 0 {
		// Its size is lost, and the model knows where it is.
		if _, t, ok := bytes.Cut(body[5:], []byte(";")); ok {
			t = bytes.Map(func(r rune) rune {
				if r < 0x20 || r >= 0x7f && r < 0xa0 {
					return -1
				}
				return r
			}, t)
			s.str = s.str[:0]
			s.print(t)
			return
		}
	}
	s.search(body[min(s.strOut, len(body)):])
	if !s.k.worst.Action.Stops() {
		s.out = append(s.out, s.str[s.strOut:]...)
	}
	s.str, s.strOut = s.str[:0], 0
}

// search looks for values in a string's body by itself, since the search in the
// stream takes a string out as a whole where it looks for what is escaped; and
// without its control characters, which a terminal leaves out of a title or of an
// encoded text. In what is passed through to another terminal it looks together
// with what was passed before. What it finds it masks in place.
func (s *Screen) search(body []byte) {
	through := s.str[1] != osc
	clip := bytes.HasPrefix(s.str, []byte("\x1b]52;")) || bytes.HasPrefix(s.str, []byte("\x1b]1337;"))
	text := append(s.k.buf[:0], s.through...)
	if !through {
		text = text[:0]
	}
	from := len(text)
	at := make([]int, 0, len(body))
	head := 0
	if s.strOut == 0 {
		head = min(2, len(body))
		if bytes.HasPrefix(body, []byte("\x1bPtmux;")) {
			head = len("\x1bPtmux;")
		} else if k := bytes.IndexByte(body, ';'); k > 0 && bytes.HasPrefix(body, []byte("\x1b_G")) {
			head = k + 1
		}
	}
	add := func(keep func(byte) bool) {
		csi := false
		for i, b := range body {
			switch {
			case i < head:
			case through && b == 0x1b:
				csi = false
			case through && b == '[' && i > 0 && body[i-1] == 0x1b:
				csi = true
			case csi:
				csi = b < 0x40
			case keep(b):
				text, at = append(text, b), append(at, i)
			}
		}
	}
	add(func(b byte) bool { return b >= 0x20 && b != 0x7f })
	if clip {
		text, at = append(text, apart), append(at, -1)
		add(func(b byte) bool {
			return b >= '0' && b <= '9' || b >= 'a' && b <= 'z' || b >= 'A' && b <= 'Z' || b == '+' || b == '/' || b == '-' || b == '_'
		})
	}
	for _, h := range s.k.find(text) {
		if h.End <= from || h.End > len(text) || h.Start >= h.End {
			continue
		}
		lo := max(h.Start, from)
		first, last := at[lo-from], at[h.End-1-from]
		if first < 0 || last < first {
			continue
		}
		d := s.k.judged(h)
		switch {
		case d.Action.Stops():
			return
		case d.Action == guard.Redact:
			for i := first; i <= last; i++ {
				body[i] = '*'
			}
			for i := lo; i < h.End; i++ {
				text[i] = '*'
			}
		}
	}
	if through {
		s.through = append(s.through[:0], text[max(0, len(text)-reach):]...)
	}
	s.k.buf = text[:0]
}
