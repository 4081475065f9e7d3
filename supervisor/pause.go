package supervisor

import "guard"

// mayGo says whether a pause lets go of what is held: if fewer than holdBack bytes
// of a value's beginning are, together with those of it that an earlier pause let
// go. On the terminal, sequences do not count: what a program draws ends with the
// place and the look of its cursor, which would wait for the next key otherwise.
func (s *stream) mayGo(safe int64) bool {
	n := int(s.released + int64(len(s.held)) - safe)
	if s.origin.Channel == guard.ChannelTerminal {
		n = displayed(s.held[max(0, safe-s.released):])
		if safe < s.released {
			n += s.gone
		}
	}
	if n >= holdBack {
		return false
	}
	s.goneFrom, s.goneTo, s.gone = safe, s.released+int64(len(s.held)), n
	return true
}

// partial says whether so much of a value that begins at start was let go that it
// counts as gone out.
func (s *stream) partial(start int64) bool {
	if s.origin.Channel == guard.ChannelTerminal && start >= s.goneFrom && s.released <= s.goneTo {
		return false
	}
	return s.released-start >= holdBack
}

// displayed is how many bytes of p are neither control characters nor part of
// whole control sequences or escape sequences. Strings, such as titles, count.
func displayed(p []byte) (n int) {
	for i := 0; i < len(p); {
		if k := max(controlSequence(p[i:]), escapeSequence(p[i:])); k > 0 {
			i += k
			continue
		}
		if p[i] >= 0x20 && p[i] != 0x7f || p[i] == 0x1b {
			n++
		}
		i++
	}
	return n
}

// escapeSequence is the length of the escape sequence of two or three bytes that p
// begins with (ECMA-48, ISO 2022), or 0.
func escapeSequence(p []byte) int {
	if len(p) < 2 || p[0] != 0x1b {
		return 0
	}
	switch c := p[1]; {
	case c >= 0x20 && c < 0x30:
		if len(p) > 2 && p[2] >= 0x30 && p[2] < 0x7f {
			return 3
		}
	case c == '[', c == ']', c == 'P', c == 'X', c == '^', c == '_': // more follows
	case c >= 0x30 && c < 0x7f:
		return 2
	}
	return 0
}
