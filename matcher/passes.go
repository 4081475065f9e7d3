package matcher

import (
	"encoding/binary"
	"slices"
	"unicode/utf8"
)

// passes says that no needle has the escape s.b[i:j] in it, which stands for out,
// in the way of gate.
func (v *view) passes(set *set, prev, s *text, i, j, to int, out []byte) bool {
	g := set.gate
	if b := s.b; len(out) == 0 && i >= gram && j+gram < to && v.lang.plain(b[j:j+gram+1]) {
		// Most of the time nothing else is near.
		tail := b[i-gram : i]
		if (!g.has(binary.LittleEndian.Uint32(tail)) || !g.joins(tail, b[j])) &&
			(!g.has(binary.LittleEndian.Uint32(b[j:])) || !g.has(binary.LittleEndian.Uint32(b[j+1:]))) {
			return true
		}
	}
	var room [lookBack]byte
	tail := room[:0]
	if i < lookBack {
		tail = append(append(tail, prev.b[max(0, len(prev.b)-(lookBack-i)):]...), s.b[:i]...)
	} else {
		tail = s.b[i-lookBack : i]
	}
	if v.next != nil && slices.ContainsFunc(tail, isIntroducer) {
		if pending(tail) {
			return false
		}
		var again [lookBack]byte
		tail = appendUnescaped(again[:0], tail)
	}
	var x [2*lookBack + utf8.UTFMax]byte
	n := copy(x[:], out)
	want := gram + 1
	first, broken := byte(0), false // line breaks are not in x, nor blanks after them
	if n > 0 {
		first = x[0]
	}
	for steps := 0; n < want; steps++ {
		if j >= to || steps > quiet {
			return false
		}
		size, l := 1, 1
		var c [utf8.UTFMax]byte
		c[0] = s.b[j]
		if v.lang.intro[c[0]] {
			switch verdict, w, k, _ := v.lang.token(s.b[j:to], &c); verdict {
			case more:
				return false
			case no:
				c[0] = s.b[j]
			default:
				size, l = k, w
			}
		}
		j += l
		if size == 0 {
			continue
		}
		if first == 0 {
			first = c[0]
		}
		if v.next != nil && isIntroducer(c[0]) {
			want = 2 * lookBack // it is decoded again
		} else if c[0] == '\n' || c[0] == '\r' {
			if broken = true; g.early {
				return false
			}
			continue
		}
		if broken && (c[0] == ' ' || c[0] == '\t') {
			continue
		}
		n += copy(x[n:], c[:size])
	}
	if want > gram+1 {
		var again [2*lookBack + utf8.UTFMax]byte
		if n = copy(x[:], appendUnescaped(again[:0], x[:n])); n <= gram {
			return false
		}
		first = x[0]
	}
	k := len(tail)
	if (k < gram || !g.has(binary.LittleEndian.Uint32(tail[k-gram:])) || !g.joins(tail, x[0]) && !g.joins(tail, first)) &&
		(!g.has(binary.LittleEndian.Uint32(x[:])) || !g.has(binary.LittleEndian.Uint32(x[1:]))) {
		return true
	}
	return want == gram+1 && !broken && !v.goesOn(set, prev, s, i, x[:gram+1], len(out))
}

// goesOn says whether a needle goes on from s.b[:i] to x, the bytes after what is
// removed there, or, own of them, decoded: exactly.
func (v *view) goesOn(set *set, prev, s *text, i int, x []byte, own int) bool {
	b := append(v.b[:0], prev.b[len(prev.b)-min(len(prev.b), max(0, retain-i)):]...)
	b = append(b, s.b[max(0, i-retain):i]...)
	at := len(b)
	b = append(b, x...)
	v.b = b[:0]
	if set.begin.hold(b) > len(x)-own {
		return true
	}
	for _, m := range set.find(b, nil) {
		if m.end > at && m.end-len(set.needles[m.needle]) < at+own {
			return true
		}
	}
	return false
}

// idle says that no needle has begun before s.b[i].
func (v *view) idle(set *set, prev, s *text, i int) bool {
	if i >= lookBack || len(prev.b) == 0 {
		n := min(i, retain)
		if set.begin.hold(s.b[i-n:i]) > 0 {
			return false
		}
		if n == i && n < retain && len(prev.b) > 0 {
			return false
		}
		return true
	}
	return false
}

// closed says that no needle has the escape s.b[i:j] in it, and where to go on.
// Before s.b[looked] there may be what is no escape, but begins one when it is
// decoded again.
func (v *view) closed(set *set, prev, s *text, i, j, to, looked int, verdict verdict, out []byte) (int, bool) {
	// Nothing goes over the escape before this one.
	since := s.raw(i) - v.floor
	if since < 0 {
		return i, false // it is a part of that one
	}
	if verdict == erase {
		end, depth, ok := erased(s.b[:to], i)
		if !ok || i < depth+lookBack || since < int64(depth) {
			return i, false
		}
		have := int(min(lookBack, since-int64(depth)))
		tail := s.b[i-depth-have : i-depth]
		return end, !pending(s.b[i-min(i, depth+have):i]) && !v.crosses(set.gate, s, tail, nil, end, to)
	}
	have := int(min(lookBack, since))
	var room [2 * lookBack]byte
	var tail []byte
	if have <= i {
		tail = s.b[i-have : i]
	} else {
		n := min(len(prev.b), have-i)
		tail = append(append(room[:0], prev.b[len(prev.b)-n:]...), s.b[:i]...)
	}
	if i-looked <= lookBack && pending(tail) {
		return i, false
	}
	extra, ok := settled(out, s.b[j:to])
	return j + extra, ok && !v.crosses(set.gate, s, tail, out, j, to)
}

// crosses asks the gate whether a needle may go on from tail and out to s.b[j:to]. Where
// that was looked through before up to far ahead, and nothing told, it says yes at once
// for most of it: else what tells nothing would be gone through once for each escape in
// it.
func (v *view) crosses(g *gate, s *text, tail, out []byte, j, to int) bool {
	if v.blind > 0 && j < to && s.raw(j) < v.blind {
		return true
	}
	yes, far := g.look(tail, out, s.b[j:to])
	if v.blind = 0; yes && far > 2*lookBack {
		hint := s.hint
		v.blind = s.raw(j + far - far/8)
		s.hint = hint // the next question is about s.b[j] again
	}
	return yes
}

// settled says how many bytes of rest make an escape with out, which the escape
// before rest stands for. ok is false if that depends on more than these bytes.
func settled(out, rest []byte) (n int, ok bool) {
	if len(out) != 1 || out[0] == '\r' || !isIntroducer(out[0]) {
		return 0, true
	}
	var room [lookBack]byte
	var c [utf8.UTFMax]byte
	b := append(append(room[:0], out[0]), rest[:min(len(rest), lookBack-1)]...)
	v, n, _, _ := token(b, &c)
	switch v {
	case no:
		n = len(b)
	case decoded, removed:
	default:
		return 0, false
	}
	for _, c := range b[1:n] {
		if isIntroducer(c) {
			return 0, false
		}
	}
	if v == no {
		return 0, true
	}
	return n - 1, true
}

// nothings goes on from b[i] over what stands for nothing. A needle that has one of
// these in it has the others too, and one look is enough. kind gets what they are.
func nothings(b []byte, i int, kind marks) (int, marks) {
	var out [utf8.UTFMax]byte
	for i < len(b) && isIntroducer(b[i]) {
		v, n, _, k := token(b[i:], &out)
		if v != removed {
			break
		}
		i += n
		kind |= k
	}
	return i, kind
}

// pending says that an escape begins in b that b ends within.
func pending(b []byte) bool {
	var out [utf8.UTFMax]byte
	for i := len(b) - 1; i >= 0; i-- { // the last one is the first to be short of bytes
		if isIntroducer(b[i]) {
			if v, _, _, _ := token(b[i:], &out); v == more {
				return true
			}
		}
	}
	return false
}

// open is how many bytes at the end of b may be the beginning of an escape that
// comes out when what follows is decoded.
func open(b []byte) int {
	for n := 1; n <= min(lookBack, len(b)); n++ {
		if isIntroducer(b[len(b)-n]) {
			return n
		}
	}
	return 0
}
