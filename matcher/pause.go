package matcher

// begun is how many bytes of a needle, as one of the texts has them, make a
// beginning of one that a pause does not let go. Fewer are in most prompts.
const begun = 8

// Pause returns the offset up to which bytes may be released when nothing comes
// after them for a while, at least what Write returned as safe. What is behind it
// holds eight bytes or more of a known value's beginning: as they are, behind
// escapes, or decoded. What is not told yet, such as an escape that is not
// ended or characters that may be base64 when more of them come, is no reason to
// hold anything back from somebody who waits for it.
func (s *Stream) Pause() int64 {
	to := s.pos
	if s.held >= begun {
		to -= int64(s.held)
	}
	return max(s.layers.pause(to), s.safe)
}

// pause is safe for a pause.
func (l *layers) pause(to int64) int64 {
	if l.fold.state != foldIdle {
		to = l.fold.pause(to)
	}
	for _, v := range l.views {
		to = v.pause(to)
	}
	for _, r := range l.runs {
		to = r.pause(to)
	}
	if l.numbers != nil {
		to = l.numbers.pause(to)
	}
	if l.members != nil {
		to = l.members.pause(to)
	}
	return to
}

// pause is for what is held in a window: so much of a needle, as it is there.
func (w *window) pause(to int64) int64 {
	if w.held >= begun {
		to = min(to, w.raw(len(w.b)-w.held))
	}
	return to
}

func (v *view) pause(to int64) int64 {
	if !v.active {
		return to
	}
	to = v.window.pause(to)
	if v.fold.state != foldIdle {
		to = v.fold.pause(to)
	}
	if v.next != nil {
		to = v.next.pause(to)
	}
	return to
}

func (r *bitRun) pause(to int64) int64 {
	if r.state == foldIdle || r.asleep {
		return to
	}
	for _, l := range r.lanes {
		to = l.pause(to)
	}
	return to
}

func (n *numbers) pause(to int64) int64 {
	if !n.active {
		return to
	}
	if n.partial >= 0 && to-n.partial >= 2*begun { // so many digits of one number
		to = min(to, n.partial)
	}
	for _, l := range n.lanes {
		to = l.pause(to)
	}
	return to
}

func (l *lane) pause(to int64) int64 {
	to = l.window.pause(to)
	if l.depth == 0 {
		return to
	}
	if l.pack != nil {
		to = l.pack.pause(to)
	}
	if l.begun {
		return l.deep.pause(to)
	}
	// Text that is not looked at yet: begun bytes take 11 characters of base64 that
	// stand together.
	n := 0
	for n < l.ascii && n < len(l.b) && encodes(l.b[len(l.b)-1-n]) {
		n++
	}
	if n >= (begun*8+5)/6 {
		to = min(to, l.raw(len(l.b)-l.ascii))
	}
	return to
}

// encodes says that c is in one of the alphabets of base64 and hex.
func encodes(c byte) bool {
	switch {
	case c >= 'a' && c <= 'z', c >= 'A' && c <= 'Z', c >= '0' && c <= '9', c == '+', c == '/', c == '-', c == '_', c == '=', c == '%', c == '\\':
		return true
	}
	return false
}

// pause is for what comes out of compressed members: the part of one that is not
// decompressed before its block ends goes, as somebody may wait for an answer to it. The
// hit is reported when the rest comes.
func (ms *members) pause(to int64) int64 {
	for _, m := range ms.opened {
		if m.read <= maxHeld && m.out != nil && m.out.pause(to) < to {
			to = min(to, m.start)
		}
	}
	return to
}
