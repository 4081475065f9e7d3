package matcher

import "slices"

const (
	listFrom   = 18  // characters that 8 bytes have at least, written as numbers,
	listDigits = 14  // and digits
	maxToken   = 32  // digits
	maxColumn  = 160 // bytes of a line after its numbers, and blanks between two
)

// numbers decodes lists of numbers: bytes or words in hex, octal and decimal, as
// in source code and in the listings of xxd, od and hexdump, with offsets before
// and characters after them.
type numbers struct {
	depth  int
	as     string
	up     *allowance // see lane
	lanes  []*lane    // none: there was no number yet, see ready
	active bool
	pend   int // characters that may be of a list came last
	hold   int64
	digits []byte // of a number that may go on
	start  int64  // where it begins
	prefix bool   // 0x
	end    int64  // after what there is of it
	line   int    // numbers on this line
	colon  bool   // the line begins with an offset and ":"
	offset bool   // or with one and a blank
	seen   int    // digits
	blanks int    // since the last number
	skip   int    // if it is not 0, so much of the rest of the line was passed over
	first  number // the line's first, which may be an offset
	// partial is from where on what there is of a number is held back; -1: nothing.
	partial int64
}

// number is where digits are.
type number struct {
	digits     []byte
	start, end int64
	prefix     bool
}

const (
	laneDecimal = iota
	laneOctal
	laneHex
	laneHexWords // of 2, 4 or 8 bytes, the lowest one first
	laneOctalWords
)

func (n *numbers) init(depth int, as string) { n.depth, n.as, n.hold = depth, as, -1 }

// ready makes what it decodes with: most texts have no lists.
func (n *numbers) ready() {
	if n.lanes != nil {
		return
	}
	all := new([5]lane)
	n.lanes = make([]*lane, len(all))
	for i, name := range [...]string{"decimal", "octal", "hex", "hex", "octal"} {
		all[i].init(n.depth-1, under(n.as, name))
		all[i].up = n.up
		n.lanes[i] = &all[i]
	}
}

func isHex(c byte) bool { return hexValue[c] != 0 }

// inList says that c may be in a list of numbers, as classNumber does.
func inList(c byte) bool {
	switch c {
	case ' ', '\t', '\n', '\r', ',', ':', ';', '"', '\'', 'x', 'X':
		return true
	}
	return isHex(c)
}

func (n *numbers) write(set *set, prev, s *text, from, to int, m *classes, hits []Hit) []Hit {
	b, i := s.b, from
	for !n.active && n.pend > 0 {
		end := i
		for end < to && end < i+listFrom && inList(b[end]) {
			end++
		}
		if n.pend+end-i < listFrom {
			if n.pend += end - i; end == to {
				n.peek(set, prev, s, to)
				return hits
			}
			i, n.pend = end, 0
			break
		}
		before, at := prev, len(prev.b)
		if from > 0 {
			before, at = s, from
		}
		k := at - n.pend
		n.begin()
		for n.active && k < at {
			hits = n.take(set, before, k, hits)
			k++
		}
		n.pend = at - k // more than 0 if it was none: then maybe what follows is
	}
	n.hold = -1
	low := i // what is before it was looked at
	for i < to {
		if n.active {
			if len(n.digits) > maxToken+1 { // no number: to its end
				if end := m.end(classHex, i); end > i {
					n.end, i = s.end(end-1), end
					continue
				}
			}
			hits = n.take(set, s, i, hits)
			i++
			low = i
			continue
		}
		i = m.run(classNumber, i, listFrom)
		if i == to {
			break
		}
		// A list has as many digits as that at least.
		end := m.end(classNumber, i)
		if i = min(end, m.next(classHex, i)); end-i < listFrom {
			if end == to {
				break
			}
			i = end
		} else if end == to || m.count(classHex, i, end) >= listDigits {
			n.begin()
		} else {
			i = end
		}
	}
	if n.active {
		for _, l := range n.lanes {
			hits = l.flush(set, hits)
		}
		n.wait(set)
		return hits
	}
	k := to
	for k > low && to-k < listFrom && inList(b[k-1]) {
		k--
	}
	for k < to && !isHex(b[k]) {
		k++ // a list begins with a digit
	}
	if n.pend = to - k; n.pend > 0 {
		n.peek(set, prev, s, to)
	}
	return hits
}

func (n *numbers) begin() {
	n.ready()
	n.active, n.line, n.colon, n.offset, n.seen, n.blanks, n.skip = true, 0, false, false, 0, 0, 0
	n.digits, n.first.digits = n.digits[:0], n.first.digits[:0]
}

// take reads s.b[i].
func (n *numbers) take(set *set, s *text, i int, hits []Hit) []Hit {
	c := s.b[i]
	if n.skip > 0 {
		if n.skip++; c == '\n' {
			n.skip, n.line, n.colon, n.offset, n.blanks = 0, 0, false, false, 0
		} else if n.skip > maxColumn {
			return n.stop(set, s.raw(i), hits)
		}
		return hits
	}
	if isHex(c) {
		if n.seen++; n.line > 1 && n.colon && n.blanks > 1 && n.seen >= listDigits {
			n.skip = 1 // the characters of the line
			return hits
		}
		if len(n.digits) == 0 {
			n.start, n.prefix = s.raw(i), false
		}
		if n.end = s.end(i); len(n.digits) <= maxToken+1 { // more than a number can have
			n.digits = append(n.digits, c)
		}
		return hits
	}
	if (c == 'x' || c == 'X') && len(n.digits) == 1 && n.digits[0] == '0' && !n.prefix {
		n.digits, n.prefix, n.end = n.digits[:0], true, s.end(i)
		// The number goes on: what has no digit after the prefix is none.
		n.digits = append(n.digits, 'x')
		return hits
	}
	if len(n.digits) > 0 {
		n.blanks = 0
		t := number{n.digits, n.start, n.end, n.prefix}
		if n.prefix {
			t.digits = t.digits[1:]
		}
		switch {
		case n.line == 0 && c == ':' && len(t.digits) >= 4:
			n.colon = true
		case n.line == 0 && len(t.digits) >= 6 && !n.prefix && c != ',' && c != ';':
			n.first.digits = append(n.first.digits[:0], t.digits...)
			n.first.start, n.first.end = t.start, t.end
		default:
			if f := n.first; len(f.digits) > 0 && len(f.digits) == len(t.digits) {
				hits = n.number(set, f, hits)
			} else {
				n.offset = n.offset || len(f.digits) > 0
			}
			n.first.digits = n.first.digits[:0]
			hits = n.number(set, t, hits)
		}
		n.line++
		n.digits = n.digits[:0]
	}
	switch c {
	case ' ', '\t':
		if n.blanks++; n.blanks > maxColumn {
			return n.stop(set, s.raw(i), hits)
		}
	case '\n':
		if len(n.first.digits) > 0 { // it stands alone
			hits = n.number(set, n.first, hits)
			n.first.digits = n.first.digits[:0]
		}
		n.line, n.colon, n.offset = 0, false, false
		n.blanks++
	case '\r', ',', ';', ':', '"', '\'':
		n.blanks++
	default:
		if !n.colon && !n.offset || n.seen < listDigits {
			return n.stop(set, s.raw(i), hits)
		}
		n.skip = 1 // the characters of the line
	}
	if n.blanks > maxColumn {
		return n.stop(set, s.raw(i), hits)
	}
	return hits
}

// number adds t to the lanes in which it is one.
func (n *numbers) number(set *set, t number, hits []Hit) []Hit {
	for i, l := range n.lanes {
		var out [maxToken / 2]byte
		size := readNumber(i, t, &out)
		if size == 0 {
			if len(l.b) > 0 {
				hits = l.flush(set, hits)
				hits = l.close(set, t.start, hits)
				l.restart()
			}
			continue
		}
		g := seg{at: len(l.b), raw: t.start, width: int32(t.end - t.start), kind: markDecoded}
		if prefix := t.end - t.start - int64(len(t.digits)); i == laneHex && size > 1 && (prefix == 0 || prefix == 2 && t.prefix) {
			g.raw, g.width, g.bits = t.start+prefix, g.width-int32(prefix), 4
		}
		l.segs = append(l.segs, g)
		l.b = append(l.b, out[:size]...)
		if size >= minNeedle {
			// What lies in one number is found in a run of hex digits.
			k := len(hits)
			hits = l.flush(set, hits)
			hits = append(hits[:k], slices.DeleteFunc(hits[k:], func(h Hit) bool { return i == laneHex && h.Start >= t.start && h.End <= t.end })...)
		} else if len(l.b)-l.scanned >= gulp {
			hits = l.flush(set, hits)
		}
	}
	return hits
}

// readNumber is how many bytes t stands for in a lane; 0: none.
func readNumber(lane int, t number, out *[maxToken / 2]byte) int {
	d := t.digits
	value := func(base, top int) int {
		x := 0
		for _, c := range d {
			v := hexDigit(c)
			if v < 0 || v >= base || x > top {
				return -1
			}
			x = x*base + v
		}
		if x > top {
			return -1
		}
		return x
	}
	switch lane {
	case laneDecimal:
		if x := value(10, 255); x >= 0 && len(d) >= 1 && len(d) <= 3 && !t.prefix {
			out[0] = byte(x)
			return 1
		}
	case laneOctal:
		if x := value(8, 255); x >= 0 && (len(d) == 3 || len(d) > 1 && len(d) <= 4 && d[0] == '0') && !t.prefix {
			out[0] = byte(x)
			return 1
		}
	case laneHex:
		if len(d) == 1 && t.prefix {
			out[0] = byte(hexDigit(d[0]))
			return 1
		}
		if len(d)%2 == 0 && len(d) > 0 && len(d) <= maxToken {
			for k := 0; k < len(d); k += 2 {
				out[k/2] = byte(hexDigit(d[k])<<4 | hexDigit(d[k+1]))
			}
			return len(d) / 2
		}
	case laneHexWords:
		if len(d) == 4 || len(d) == 8 || len(d) == 16 {
			for k := 0; k < len(d); k += 2 {
				out[len(d)/2-1-k/2] = byte(hexDigit(d[k])<<4 | hexDigit(d[k+1]))
			}
			return len(d) / 2
		}
	case laneOctalWords:
		if x := value(8, 0xffff); x >= 0 && len(d) == 6 && !t.prefix {
			out[0], out[1] = byte(x), byte(x>>8)
			return 2
		}
	}
	return 0
}

// wait looks at what there is of a number that may go on, or is not placed yet:
// of a long one, at the bytes so far, the first one first.
func (n *numbers) wait(set *set) {
	n.partial = -1
	l := n.lanes[laneHex]
	have := len(l.b)
	if f := n.first; len(f.digits) > 0 {
		n.unplaced(set, l, have, f.digits, f.start, f.end)
	}
	if d := n.digits; len(d) > 0 && len(d) <= 4 {
		n.hold1(n.start)
	} else if len(d) > 0 {
		if d[0] == 'x' {
			d = d[1:]
		}
		n.unplaced(set, l, have, d, n.start, n.end)
	}
	clear(l.b[have:])
	l.b = l.b[:have]
}

// hold1 holds back from at on.
func (n *numbers) hold1(at int64) {
	if n.partial < 0 || at < n.partial {
		n.partial = at
	}
}

// unplaced adds digits that end at offset end of the stream to l.b, which has have
// bytes that are placed, and holds back what may be of a value.
func (n *numbers) unplaced(set *set, l *lane, have int, d []byte, start, end int64) {
	if len(d) > maxToken {
		l.b = l.b[:have] // it is no number
		return
	}
	for k := 0; k+1 < len(d); k += 2 {
		l.b = append(l.b, byte(hexDigit(d[k])<<4|hexDigit(d[k+1])))
	}
	held, fresh, odd := set.begin.hold(l.b), len(d)/2, int64(len(d)%2)
	for _, m := range set.find(l.b, nil) {
		if m.end > have { // it is told when the number ends
			held = max(held, len(l.b)-m.end+len(set.needles[m.needle]))
		}
	}
	switch {
	case held > len(l.b)-have:
		n.hold1(l.raw(have - (held - (len(l.b) - have))))
	case held > fresh: // it begins in the number before, which is not placed either
		n.hold1(n.first.start)
	case held+int(odd) > 0:
		n.hold1(max(start, end-odd-2*int64(held)))
	}
}

// stop is for a list that has ended, before offset end of the stream.
func (n *numbers) stop(set *set, end int64, hits []Hit) []Hit {
	for _, l := range n.lanes {
		hits = l.flush(set, hits)
		hits = l.close(set, end, hits)
	}
	n.reset()
	return hits
}

func (n *numbers) finish(set *set, end int64, hits []Hit) []Hit {
	if !n.active {
		return hits
	}
	var segs [1]seg
	nl := plain(&segs, []byte{'\n'}, end) // ends the last number
	hits = n.take(set, &nl, 0, hits)
	if !n.active {
		return hits
	}
	return n.stop(set, end, hits)
}

func (n *numbers) reset() {
	n.active, n.pend, n.hold = false, 0, -1
	n.digits, n.first.digits, n.skip = n.digits[:0], n.first.digits[:0], 0
	for _, l := range n.lanes {
		l.restart()
	}
}

// peek reads what is too short so far, to know what to hold back.
func (n *numbers) peek(set *set, prev, s *text, to int) {
	pend := n.pend
	n.hold = -1
	n.begin()
	k := pend - to
	take := func(s *text, i int) {
		if n.take(set, s, i, nil); !n.active {
			n.begin() // the rest may be one
		}
	}
	for i := len(prev.b) - k; k > 0 && i < len(prev.b); i++ {
		take(prev, i)
	}
	for i := to - pend + max(k, 0); i < to; i++ {
		take(s, i)
	}
	hold := int64(-1)
	if n.active {
		for _, l := range n.lanes {
			l.held = set.begin.hold(l.b)
		}
		n.wait(set)
		const far = int64(^uint64(0) >> 1)
		if at := n.safe(far); at != far {
			hold = at
		}
	}
	n.reset()
	n.pend, n.hold = pend, hold
}

// safe lowers to to what n needs.
func (n *numbers) safe(to int64) int64 {
	if !n.active {
		if n.pend > 0 && n.hold >= 0 {
			to = min(to, n.hold)
		}
		return to
	}
	if n.partial >= 0 {
		to = min(to, n.partial)
	}
	for _, l := range n.lanes {
		to = l.safe(to)
	}
	return to
}

func (n *numbers) adopt(set *set, hits []Hit) []Hit {
	if !n.active {
		return hits
	}
	for _, l := range n.lanes {
		hits = l.adopt(set, hits)
	}
	return hits
}

func (n *numbers) wipe() {
	n.reset()
	clear(n.digits[:cap(n.digits)])
	clear(n.first.digits[:cap(n.first.digits)])
	for _, l := range n.lanes {
		l.erase()
	}
}
