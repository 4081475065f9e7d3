package matcher

// begun is how many bytes of a needle, as one of the texts has them, make a
// beginning of one that a pause does not let go. Fewer are in most prompts.
const begun = 8

// Pause returns the offset up to which bytes may be released when nothing comes
// after them for a while, at least what Write returned as safe. What is behind it
// holds eight bytes or more of a known value's beginning: as they are, behind
// escapes, or decoded; not counting what is public of it, such as "sk-ant-api03-",
// as far as values say that: of one that is looked for without these bytes as well,
// under the same ID, they are. What is not told yet, such as an escape that is not
// ended or characters that may be base64 when more of them come, is no reason to
// hold anything back from somebody who waits for it.
func (s *Stream) Pause() int64 {
	set := s.m.use()
	if set == nil {
		return s.safe
	}
	defer set.mu.RUnlock()
	to := s.pos - int64(set.keeps(s.tail(), s.held))
	return max(s.layers.pause(set, to), s.safe)
}

// pause is safe for a pause.
func (l *layers) pause(set *set, to int64) int64 {
	if l.fold.state != foldIdle {
		to = l.fold.pause(set, to)
	}
	for _, v := range l.views {
		to = v.pause(set, to)
	}
	for _, r := range l.runs {
		to = r.pause(set, to)
	}
	if l.numbers != nil {
		to = l.numbers.pause(set, to)
	}
	if l.members != nil {
		to = l.members.pause(set, to)
	}
	return to
}

// pause is for what is held in a window: so much of a needle, as it is there.
func (w *window) pause(set *set, to int64) int64 {
	if n := set.keeps(w.b, w.held); n > 0 {
		to = min(to, w.raw(len(w.b)-n))
	}
	return to
}

func (v *view) pause(set *set, to int64) int64 {
	if !v.active {
		return to
	}
	to = v.window.pause(set, to)
	if v.fold.state != foldIdle {
		to = v.fold.pause(set, to)
	}
	if v.next != nil {
		to = v.next.pause(set, to)
	}
	return to
}

func (r *bitRun) pause(set *set, to int64) int64 {
	if r.state == foldIdle || r.asleep {
		return to
	}
	for _, l := range r.lanes {
		to = l.pause(set, to)
	}
	return to
}

func (n *numbers) pause(set *set, to int64) int64 {
	if !n.active {
		return to
	}
	if n.partial >= 0 && to-n.partial >= 2*begun { // so many digits of one number
		to = min(to, n.partial)
	}
	for _, l := range n.lanes {
		to = l.pause(set, to)
	}
	return to
}

func (l *lane) pause(set *set, to int64) int64 {
	to = l.window.pause(set, to)
	if l.depth == 0 {
		return to
	}
	if l.pack != nil {
		to = l.pack.pause(set, to)
	}
	if l.begun {
		return l.deep.pause(set, to)
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
func (ms *members) pause(set *set, to int64) int64 {
	for _, m := range ms.opened {
		if m.read <= maxHeld && m.out != nil && m.out.pause(set, to) < to {
			to = min(to, m.start)
		}
	}
	return to
}
