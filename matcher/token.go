package matcher

import "unicode/utf8"

// verdict is what token says of bytes that begin with an introducer.
type verdict uint8

const (
	more    verdict = iota // not enough bytes to tell
	no                     // no escape: they stand for themselves
	decoded                // they stand for out
	removed                // they stand for nothing
	erase                  // they take the character before away
)

const (
	maxString = 2048       // bytes, of a terminal's control string
	maxCSI    = 64         // bytes
	can, sub  = 0x18, 0x1a // end a control sequence that is not complete (ECMA-48, and what terminals do)
)

// introducers are the bytes that escapes begin with.
const introducers = "%\\&\x1b\x08\r"

// special are these (1), and line breaks (2).
var special = [256]uint8{'%': 1, '\\': 1, '&': 1, 0x1b: 1, 0x08: 1, '\r': 3, '\n': 2}

func isIntroducer(c byte) bool { return special[c]&1 != 0 }

// opens says whether an escape may begin with c and next: false where these two
// are none at any level, whatever follows.
func opens(c, next byte) bool {
	switch c {
	case '%':
		return following[next]&1 != 0
	case '&':
		return following[next]&2 != 0
	case '\r':
		return next != '\n'
	}
	return special[c]&1 != 0
}

// needs and follows are opens, for introducers: a bit that both have.
var (
	needs   = [256]uint8{'%': 1, '&': 2, '\r': 4, '\\': 8, 0x1b: 8, 0x08: 8}
	follows = func() (t [256]uint8) {
		for c := range t {
			if t[c] = following[c] | 8; c != '\n' {
				t[c] |= 4
			}
		}
		return t
	}()
)

// following are the bytes that go on with "%" (1) and "&" (2), and introducers.
var following = [256]uint8{'0': 1, '1': 1, '2': 1, '3': 1, '4': 1, '5': 1, '6': 1, '7': 1, '8': 1, '9': 1,
	'a': 3, 'b': 1, 'c': 1, 'd': 1, 'e': 1, 'f': 1, 'A': 1, 'B': 1, 'C': 1, 'D': 1, 'E': 1, 'F': 1, 'u': 1,
	'#': 2, 'l': 2, 'g': 2, 'q': 2, '%': 3, '\\': 3, '&': 3, 0x1b: 3, 0x08: 3, '\r': 3}

// token reads the escape that b begins with. n is its length; out holds what it
// stands for. It may look at one byte after it.
func token(b []byte, out *[utf8.UTFMax]byte) (v verdict, n, size int, kind marks) {
	switch b[0] {
	case '%':
		return percentToken(b, out)
	case '\\':
		return backslashToken(b, out)
	case '&':
		return entityToken(b, out)
	case 0x08:
		return erase, 1, 0, markANSI
	case '\r':
		switch {
		case len(b) < 2:
			return more, 0, 0, 0
		case b[1] == '\n':
			return no, 0, 0, 0
		}
		return removed, 1, 0, markANSI
	}
	return controlToken(b)
}

// percentToken reads %XX (RFC 3986), and %uXXXX as JavaScript's escape has it.
func percentToken(b []byte, out *[utf8.UTFMax]byte) (verdict, int, int, marks) {
	if len(b) >= 3 {
		if hi, lo := hexDigit(b[1]), hexDigit(b[2]); hi|lo >= 0 {
			out[0] = byte(hi<<4 | lo)
			return decoded, 3, 1, markPercent
		}
	}
	if len(b) >= 2 && b[1] == 'u' {
		return hexToken(b, 2, 4, markPercent, true, out)
	}
	return hexToken(b, 1, 2, markPercent, false, out)
}

// hexToken reads count hex digits from b[from] on.
func hexToken(b []byte, from, count int, kind marks, character bool, out *[utf8.UTFMax]byte) (verdict, int, int, marks) {
	var x rune
	for i := from; i < from+count; i++ {
		if i >= len(b) {
			return more, 0, 0, 0
		}
		d := hexDigit(b[i])
		if d < 0 {
			return no, 0, 0, 0
		}
		x = x<<4 | rune(d)
	}
	if !character {
		out[0] = byte(x)
		return decoded, from + count, 1, kind
	}
	return decoded, from + count, utf8.EncodeRune(out[:], x), kind
}

// hexDigit is the value of a hex digit, or -1.
func hexDigit(c byte) int { return int(hexValue[c]) - 1 }

// hexValue is the value of a hex digit, plus 1.
var hexValue = [256]uint8{'0': 1, '1': 2, '2': 3, '3': 4, '4': 5, '5': 6, '6': 7, '7': 8, '8': 9, '9': 10,
	'a': 11, 'b': 12, 'c': 13, 'd': 14, 'e': 15, 'f': 16, 'A': 11, 'B': 12, 'C': 13, 'D': 14, 'E': 15, 'F': 16}

// backslashToken reads the escapes of JSON (RFC 8259), of C, JavaScript,
// Python and printf, and of shells.
func backslashToken(b []byte, out *[utf8.UTFMax]byte) (verdict, int, int, marks) {
	if len(b) < 2 {
		return more, 0, 0, 0
	}
	one := func(c byte, kind marks) (verdict, int, int, marks) {
		out[0] = c
		return decoded, 2, 1, kind
	}
	switch c := b[1]; c {
	case 'n':
		return one('\n', markJSON)
	case 'r':
		return one('\r', markJSON)
	case 't':
		return one('\t', markJSON)
	case 'b':
		return one('\b', markJSON)
	case 'f':
		return one('\f', markJSON)
	case '"', '\\', '/':
		return one(c, markJSON)
	case 'a':
		return one('\a', markEscaped)
	case 'v':
		return one('\v', markEscaped)
	case 'e', 'E':
		return one(0x1b, markEscaped)
	case 'x':
		return hexToken(b, 2, 2, markEscaped, false, out)
	case 'U':
		return hexToken(b, 2, 8, markEscaped, true, out)
	case 'u':
		if len(b) >= 3 && b[2] == '{' {
			return bracedToken(b, 3, 6, 16, '}', markEscaped, out)
		}
		return hexToken(b, 2, 4, markJSON, true, out)
	case '\n':
		return removed, 2, 0, markEscaped
	case '\r':
		switch {
		case len(b) < 3:
			return more, 0, 0, 0
		case b[2] == '\n':
			return removed, 3, 0, markEscaped
		}
		return no, 0, 0, 0
	default:
		if '0' <= c && c <= '7' {
			return octalToken(b, out)
		}
		if c > ' ' && c < 0x7f && !isAlnum(c) || c == ' ' {
			return one(c, markEscaped)
		}
	}
	return no, 0, 0, 0
}

// octalToken reads \N, \NN, \NNN as C has them, and \0NNN as printf %b and echo
// -e do. \0NNN is read as C does where that gives a character one can see.
func octalToken(b []byte, out *[utf8.UTFMax]byte) (verdict, int, int, marks) {
	x, n := 0, 1
	for ; n < 4; n++ {
		if n >= len(b) {
			return more, 0, 0, 0
		}
		if b[n] < '0' || b[n] > '7' {
			break
		}
		x = x<<3 | int(b[n]-'0')
	}
	if n == 4 && b[1] == '0' && x < ' ' {
		if len(b) < 5 {
			return more, 0, 0, 0
		}
		if '0' <= b[4] && b[4] <= '7' {
			x, n = x<<3|int(b[4]-'0'), 5
		}
	}
	out[0] = byte(x)
	return decoded, n, 1, markEscaped
}

// bracedToken reads a number of up to digits digits that end closes.
func bracedToken(b []byte, from, digits, base int, end byte, kind marks, out *[utf8.UTFMax]byte) (verdict, int, int, marks) {
	x := 0
	for i := from; i <= from+digits; i++ {
		if i >= len(b) {
			return more, 0, 0, 0
		}
		if b[i] == end && i > from {
			return decoded, i + 1, utf8.EncodeRune(out[:], rune(x)), kind
		}
		d := hexDigit(b[i])
		if d < 0 || d >= base {
			break
		}
		x = x*base + d
	}
	return no, 0, 0, 0
}

// entityToken reads character references (HTML, XML).
func entityToken(b []byte, out *[utf8.UTFMax]byte) (verdict, int, int, marks) {
	switch {
	case len(b) >= 3 && b[1] == '#' && b[2]|0x20 == 'x':
		return bracedToken(b, 3, 6, 16, ';', markHTML, out)
	case len(b) >= 2 && b[1] == '#':
		if len(b) < 3 {
			return more, 0, 0, 0
		}
		return bracedToken(b, 2, 7, 10, ';', markHTML, out)
	}
	for i, name := range [...]string{"&amp;", "&lt;", "&gt;", "&quot;", "&apos;"} {
		n := min(len(b), len(name))
		switch {
		case string(b[:n]) != name[:n]:
		case n < len(name):
			return more, 0, 0, 0
		default:
			out[0] = `&<>"'`[i]
			return decoded, n, 1, markHTML
		}
	}
	return no, 0, 0, 0
}

// controlToken reads the control sequences and strings of terminals (ECMA-48).
// One that is malformed ends before the byte that does not fit, as terminals
// see it.
func controlToken(b []byte) (verdict, int, int, marks) {
	if len(b) < 2 {
		return more, 0, 0, 0
	}
	switch b[1] {
	case '[':
		for i := 2; i < len(b); i++ {
			switch c := b[i]; {
			case c >= 0x40 && c <= 0x7e:
				return removed, i + 1, 0, markANSI
			case c == can || c == sub:
				return removed, i + 1, 0, markANSI
			case c < 0x20 || c > 0x7e || i >= maxCSI:
				return removed, i, 0, markANSI
			}
		}
		return more, 0, 0, 0
	case ']', 'P', 'X', '^', '_':
		for i := 2; i < len(b); i++ {
			switch c := b[i]; {
			case c == 0x07 || c == can || c == sub:
				return removed, i + 1, 0, markANSI
			case c == '\\' && b[i-1] == 0x1b:
				return removed, i + 1, 0, markANSI
			case i >= maxString:
				return removed, i, 0, markANSI // no terminal takes that much either
			}
		}
		return more, 0, 0, 0
	}
	for i := 1; i < len(b); i++ {
		switch c := b[i]; {
		case c >= 0x30 && c <= 0x7e || c == can || c == sub:
			return removed, i + 1, 0, markANSI
		case c < 0x20 || c > 0x7e || i >= maxCSI:
			return removed, i, 0, markANSI
		}
	}
	return more, 0, 0, 0
}

// appendUnescaped appends what the escapes in v stand for, without one that
// v ends within: what that stands for depends on what follows.
func appendUnescaped(dst, v []byte) []byte {
	var out [utf8.UTFMax]byte
	from := len(dst)
	for i := 0; i < len(v); {
		if isIntroducer(v[i]) {
			verdict, n, size, _ := token(v[i:], &out)
			if verdict == erase && len(dst) > from {
				dst = dst[:len(dst)-1]
			}
			if verdict == more {
				break
			}
			if verdict > no {
				dst = append(dst, out[:size]...)
				i += n
				continue
			}
		}
		dst = append(dst, v[i])
		i++
	}
	return dst
}
