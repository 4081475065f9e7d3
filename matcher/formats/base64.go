package formats

import (
	"encoding/base64"
)

// encodedAnchors are the anchors of a in base64, one for each place of its
// first byte in a group of three: the characters that are wholly the anchor's, and the
// known bits of the one after. Only the bytes that a begins with and that are known
// count, and there must be four characters.
func encodedAnchors(a anchor) []anchor {
	var lit []byte
	for i := range a.sets {
		if a.sets[i].size() != 1 {
			break
		}
		a.sets[i].each(func(c byte) { lit = append(lit, c) })
	}
	var out []anchor
	for off := range 3 {
		bits := make([]int8, 8*off, 8*(off+len(lit))) // -1: not known
		for i := range bits {
			bits[i] = -1
		}
		for _, c := range lit {
			for i := 7; i >= 0; i-- {
				bits = append(bits, int8(c>>i&1))
			}
		}
		e := anchor{rule: a.rule, align: off + 1}
		for i := firstChar[off] * 6; i < len(bits) && len(e.sets) < maxAnchor; i += 6 {
			var s byteSet
			for c, v := range base64Value {
				if v < 0 {
					continue
				}
				ok := true
				for j := range 6 {
					if i+j < len(bits) && int8(v>>(5-j)&1) != bits[i+j] {
						ok = false
					}
				}
				if ok {
					s.add(byte(c))
				}
			}
			e.sets = append(e.sets, s)
		}
		if n := len(lit)*8/6 - 1; n >= 2 && len(e.sets) >= gram && (len(bits)-firstChar[off]*6)/6 >= gram {
			if e.win = e.window(); e.win >= 0 {
				out = append(out, e)
			}
		}
	}
	return out
}

// firstChar is the first character of a group that is wholly of what begins
// with its byte 0, 1 or 2.
var firstChar = [3]int{0, 2, 3}

// tryBase64 decodes what is around c and asks whether a match is in it.
func (s *search) tryBase64(r *rule, c cand) (Finding, status) {
	off := c.align - 1
	start := int(c.at-s.base) - firstChar[off]
	if start < 0 {
		return Finding{}, no
	}
	for i := start; i < start+firstChar[off]; i++ {
		if base64Value[s.b[i]] < 0 {
			return Finding{}, no
		}
	}
	// The group before has the byte to the left.
	skip := off
	if start >= 4 && base64Value[s.b[start-1]] >= 0 && base64Value[s.b[start-2]] >= 0 && base64Value[s.b[start-3]] >= 0 && base64Value[s.b[start-4]] >= 0 {
		start -= 4
		skip += 3
	}
	// First a little: what is no credential mostly shows there.
	if r.max > 2*peek {
		if in := s.decode(start, peek); len(in.raw) > skip {
			if _, st := r.find(in.raw[skip:], in.last); st == no {
				return Finding{}, no
			}
		}
	}
	in := s.decode(start, skip+r.max+1)
	if skip >= len(in.raw) {
		if in.last {
			return Finding{}, no
		}
		return Finding{}, more
	}
	f, st := s.tryAt(r, in.raw, skip, in.last, 0, "base64")
	if st == yes {
		from, to := int(f.Start)*4/3, (int(f.End)*4+2)/3
		f.Start, f.End = s.base+in.at(from), s.base+in.at(min(to, in.chars)-1)+1
	}
	return f, st
}

const peek = 96 // bytes

// decoded is what is in a run of base64, wrapped or not.
type decoded struct {
	raw   []byte
	last  bool // nothing can come after raw
	chars int  // how many characters of base64 it was
	start int
	where []int32 // of each character, once there was a line break
}

// at is where a character is in what was decoded.
func (d *decoded) at(i int) int64 {
	if d.where != nil {
		return int64(d.where[i])
	}
	return int64(d.start + i)
}

// decode decodes size bytes, or a few more, from s.b[start] on.
func (s *search) decode(start, size int) decoded {
	want := size*4/3 + 8
	d := decoded{start: start}
	chars := make([]byte, 0, min(want, len(s.b)-start))
	ended := false
	for i := start; i < len(s.b) && len(chars) < want; {
		c := s.b[i]
		if base64Value[c] < 0 {
			n := lineBreak(s.b[i:])
			if n == 0 || d.where == nil && s.lineLength(start, i) < wrapped {
				ended = true
				break
			}
			if d.where == nil {
				d.where = make([]int32, 0, cap(chars))
				for j := range chars {
					d.where = append(d.where, int32(start+j))
				}
			}
			i += n
			continue
		}
		switch c {
		case '-':
			c = '+'
		case '_':
			c = '/'
		}
		chars = append(chars, c)
		if d.where != nil {
			d.where = append(d.where, int32(i))
		}
		i++
	}
	// What was cut off because it is enough may go on.
	d.last = (ended || s.last) && len(chars) < want
	n := len(chars)
	if n%4 == 1 || !d.last {
		n -= n % 4 // the last group is not whole
	}
	d.chars = n
	d.raw = make([]byte, base64.RawStdEncoding.DecodedLen(n))
	k, err := base64.RawStdEncoding.Decode(d.raw, chars[:n])
	if err != nil {
		k = 0
	}
	d.raw = d.raw[:k]
	return d
}

// wrapped is how long a line of base64 is at least that goes on in the next.
const wrapped = 48

// lineLength is how long the line of base64 is that b[start:end] ends.
func (s *search) lineLength(start, end int) int {
	for start > 0 && end-start < wrapped && base64Value[s.b[start-1]] >= 0 {
		start--
	}
	return end - start
}

// lineBreak is how long a line break at b[0] is, also one that is written out,
// with the indentation after it; 0: there is none.
func lineBreak(b []byte) int {
	i := 0
	switch {
	case len(b) > 1 && b[0] == '\\' && b[1] == 'n':
		i = 2
	case len(b) > 3 && string(b[:4]) == `\r\n`:
		i = 4
	case len(b) > 1 && b[0] == '\r' && b[1] == '\n':
		i = 2
	case b[0] == '\n':
		i = 1
	default:
		return 0
	}
	for i < len(b) && i < 20 && (b[i] == ' ' || b[i] == '\t') {
		i++
	}
	return i
}
