package supervisor

import (
	"guard"
)

// forget drops what of the gone bytes comes before safe: no hit begins there any
// more.
func (s *stream) forget(safe int64) {
	if from := s.released - int64(len(s.gone)); from < safe {
		s.gone = s.gone[:copy(s.gone, s.gone[min(safe-from, int64(len(s.gone))):])]
	}
}

// partial says whether so much of a value that begins at start was let go that it
// counts as gone out.
func (s *stream) partial(start int64) bool {
	n := s.released - start
	if s.origin.Channel == guard.ChannelTerminal && n > 0 && n <= int64(len(s.gone)) {
		n = int64(displayed(s.gone[int64(len(s.gone))-n:]))
	}
	return n >= holdBack
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
