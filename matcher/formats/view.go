package formats

import "bytes"

const esc = 0x1b

// view is a stream without the escapes of terminals (ECMA-48). It is looked at
// from 512 bytes before an escape to 2 KiB after one, and what is found is reported if an
// escape is inside of it: everything else is found in the stream as it is.
type view struct {
	set    *Set
	path   string
	s      *search // nil: no escape is near
	breaks []brk
	quiet  int // bytes since the last escape
	state  escapeState
	length int // of the escape so far
}

// brk says which offset of the stream an offset of the view is; so for those
// that follow, up to the next.
type brk struct{ view, stream int64 }

type escapeState uint8

const (
	text escapeState = iota
	introduced
	control // after ESC [
	str     // after ESC ], P, X, ^ or _
	strEnd  // an ESC in it
)

const (
	viewBefore = 512
	viewAfter  = 2048
	maxControl = 64
	maxStr     = 2048
)

// write takes p, at offset pos, and what came before it.
func (v *view) write(p []byte, pos int64, prev []byte) (found []Finding) {
	for i := 0; i < len(p); {
		if v.s == nil {
			j := bytes.IndexByte(p[i:], esc)
			if j < 0 {
				return found
			}
			i += j
			v.open(p[:i], prev, pos)
		}
		if v.state != text {
			v.escape(p[i])
			i++
			if v.state == text {
				v.breaks = append(v.breaks, brk{v.s.base + int64(len(v.s.b)), pos + int64(i)})
				v.quiet = 0
			}
			continue
		}
		n := min(len(p)-i, viewAfter-v.quiet)
		if j := bytes.IndexByte(p[i:i+n], esc); j >= 0 {
			v.s.b = append(v.s.b, p[i:i+j]...)
			i += j + 1
			v.state, v.length = introduced, 1
			continue
		}
		v.s.b = append(v.s.b, p[i:i+n]...)
		v.quiet += n
		i += n
		if v.quiet >= viewAfter {
			found = append(found, v.close()...)
		}
	}
	if v.s != nil {
		found = append(found, v.translate(v.s.run())...)
		v.s.trim()
	}
	return found
}

// open begins a part of the view, with what is before the escape that p ends
// at.
func (v *view) open(p, prev []byte, pos int64) {
	v.s = &search{set: v.set, path: v.path}
	end := pos + int64(len(p))
	if n := viewBefore - len(p); n > 0 {
		v.s.b = append(v.s.b, prev[max(0, len(prev)-n):]...)
	}
	v.s.b = append(v.s.b, p[max(0, len(p)-viewBefore):]...)
	v.breaks = append(v.breaks[:0], brk{0, end - int64(len(v.s.b))})
	v.quiet = 0
}

// close ends the part of the view that is open.
func (v *view) close() []Finding {
	if v.s == nil {
		return nil
	}
	v.s.last = true
	found := v.translate(v.s.run())
	clear(v.s.b[:cap(v.s.b)])
	v.s, v.state = nil, text
	return found
}

// escape takes the next byte of an escape.
func (v *view) escape(c byte) {
	v.length++
	switch v.state {
	case introduced:
		switch {
		case c == '[':
			v.state = control
		case c == ']' || c == 'P' || c == 'X' || c == '^' || c == '_':
			v.state = str
		case c >= 0x20 && c <= 0x2f && v.length < maxControl: // intermediate
		default:
			v.state = text
		}
	case control:
		if c >= 0x40 && c <= 0x7e || c < 0x20 || v.length >= maxControl {
			v.state = text
		}
	case str, strEnd:
		switch {
		case c == 0x07 || v.state == strEnd && c == '\\' || v.length >= maxStr:
			v.state = text
		case c == esc:
			v.state = strEnd
		default:
			v.state = str
		}
	}
}

// translate keeps the findings with an escape inside, with offsets of the
// stream.
func (v *view) translate(list []Finding) []Finding {
	var found []Finding
	for _, f := range list {
		inside := false
		from, to := int64(0), int64(0)
		for _, b := range v.breaks {
			inside = inside || f.Start < b.view && b.view < f.End
			if b.view <= f.Start {
				from = b.stream + f.Start - b.view
			}
			if b.view < f.End {
				to = b.stream + f.End - b.view
			}
		}
		if !inside {
			continue
		}
		f.Start, f.End = from, to
		if f.Encoding == "raw" {
			f.Encoding = "ansi"
		} else {
			f.Encoding = "ansi+" + f.Encoding
		}
		found = append(found, f)
	}
	return found
}
