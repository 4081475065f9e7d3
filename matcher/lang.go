package matcher

import (
	"strings"
	"unicode/utf8"
)

// lang is what a view takes for an escape.
type lang struct {
	kind   langKind
	class  class     // has all bytes of intro, but for those of classLead and CR
	intro  [256]bool // what escapes begin with
	stands [256]bool // and those of them that may stand for something
}

type langKind uint8

const (
	langEscape langKind = iota
	langHidden
	langJoined
	langQuoted
	langBroken
)

func newLang(kind langKind, c class, intro, stands string) lang {
	l := lang{kind: kind, class: c}
	for _, c := range []byte(intro) {
		l.intro[c] = true
		l.stands[c] = strings.IndexByte(stands, c) >= 0
	}
	return l
}

// None of these changes.
var (
	escapeLang = newLang(langEscape, classEscape, introducers, "%\\&\x08")
	hiddenLang = newLang(langHidden, classNoise, "\x00\x01\x02\x03\x04\x05\x06\x07\x0e\x0f\x10\x11\x12\x13\x14\x15\x16\x17\x18\x19\x1a\x1c\x1d\x1e\x1f\x7f\xc2\xe2\xef", "")
	joinedLang = newLang(langJoined, classQuote, `"'`, "")
	quotedLang = newLang(langQuoted, classEqual, "=", "=")
	brokenLang = newLang(langBroken, classLine, "\r\n", "")
)

// token reads the escape that b begins with. It is a switch, not a function in
// lang, so that out need not be on the heap.
func (l *lang) token(b []byte, out *[utf8.UTFMax]byte) (v verdict, n, size int, kind marks) {
	switch l.kind {
	case langHidden:
		return hiddenToken(b)
	case langJoined:
		return joinedToken(b)
	case langQuoted:
		return quotedToken(b, out)
	case langBroken:
		return brokenToken(b)
	}
	return token(b, out)
}

// opens says whether an escape may begin with c and next.
func (l *lang) opens(c, next byte) bool {
	switch l.kind {
	case langHidden:
		return hides(c, next)
	case langJoined:
		return seams[next]
	case langQuoted:
		return hexValue[next] != 0 || next == '\r' || next == '\n'
	case langBroken:
		return c == '\n' || next == '\n'
	}
	return opens(c, next)
}

// plain says that 5 bytes have neither an escape nor a line break in them.
func (l *lang) plain(b []byte) bool {
	_ = b[gram]
	return !(l.intro[b[0]] || l.intro[b[1]] || l.intro[b[2]] || l.intro[b[3]] || l.intro[b[4]]) &&
		(special[b[0]]|special[b[1]]|special[b[2]]|special[b[3]]|special[b[4]])&2 == 0
}

// hides says whether c and next may begin what hiddenToken removes.
func hides(c, next byte) bool {
	switch c {
	case 0xc2:
		return next == 0xad
	case 0xe2:
		return next == 0x80 || next == 0x81
	case 0xef:
		return next == 0xbb || next == 0xb8
	}
	return true
}

// hiddenToken reads what shows nothing on a screen: control characters that move
// nothing, the soft hyphen, joiners, marks of direction, variation selectors and
// the byte order mark (Unicode, Cf and Default_Ignorable_Code_Point; without
// those that stand for themselves in a script).
func hiddenToken(b []byte) (verdict, int, int, marks) {
	size := 1
	switch b[0] {
	case 0xc2:
		size = 2
	case 0xe2, 0xef:
		size = 3
	default:
		return removed, 1, 0, markHidden
	}
	if len(b) < size {
		if len(b) > 1 && !hides(b[0], b[1]) {
			return no, 0, 0, 0
		}
		return more, 0, 0, 0
	}
	if !hides(b[0], b[1]) {
		return no, 0, 0, 0
	}
	if size == 3 {
		switch c := b[2]; {
		case b[0] == 0xe2 && b[1] == 0x80 && (c >= 0x8b && c <= 0x8f || c >= 0xaa && c <= 0xae):
		case b[0] == 0xe2 && b[1] == 0x81 && c >= 0xa0 && c <= 0xaf:
		case b[0] == 0xef && b[1] == 0xbb && c == 0xbf:
		case b[0] == 0xef && b[1] == 0xb8 && c <= 0x8f:
		default:
			return no, 0, 0, 0
		}
	}
	return removed, size, 0, markHidden
}

// seams are the bytes that may follow a quote at a place where two pieces of a
// string meet.
var seams = func() (t [256]bool) {
	for c := range t {
		t[c] = isAlnum(byte(c)) || c >= 0x80 || strings.IndexByte("_-/=@~$!#%^*? \t\r\n\\+&.|\"'", byte(c)) >= 0
	}
	return t
}()

const maxSeam = 64 // bytes between two pieces of a string

// joinedToken reads what stands between two pieces of one string in source code:
// a quote inside a word of a shell, and the end of one literal, an operator that
// joins, and the beginning of the next.
func joinedToken(b []byte) (verdict, int, int, marks) {
	operator := byte(0)
	signs := 0
	for i := 1; i < len(b); i++ {
		switch c := b[i]; {
		case i > maxSeam:
			return no, 0, 0, 0
		case c == '"' || c == '\'':
			return removed, i + 1, 0, markJoined
		case c == ' ' || c == '\t' || c == '\n' || c == '\r' || c == '\\':
		case (c == '+' || c == '&') && signs == 0, (c == '.' || c == '|') && (signs == 0 || signs == 1 && operator == c):
			operator, signs = c, signs+1
		case i == 1 && seams[c]:
			return removed, 1, 0, markJoined // in the middle of a word
		default:
			return no, 0, 0, 0
		}
	}
	return more, 0, 0, 0
}

// brokenToken reads a line break in the middle of what has none, and the blanks
// that indent the next line.
func brokenToken(b []byte) (verdict, int, int, marks) {
	i := 1
	if b[0] == '\r' {
		if len(b) < 2 {
			return more, 0, 0, 0
		}
		if b[1] != '\n' {
			return no, 0, 0, 0
		}
		i = 2
	}
	for indent := 0; i < len(b); i++ {
		switch c := b[i]; {
		case inLine(c):
			return removed, i, 0, markWrapped
		case c != ' ' && c != '\t', indent == foldIndent:
			return no, 0, 0, 0
		}
		indent++
	}
	return more, 0, 0, 0
}

// quotedToken reads quoted-printable (RFC 2045, 6.7).
func quotedToken(b []byte, out *[utf8.UTFMax]byte) (verdict, int, int, marks) {
	switch {
	case len(b) < 2:
		return more, 0, 0, 0
	case b[1] == '\n':
		return removed, 2, 0, markQuoted
	case b[1] == '\r':
		if len(b) < 3 {
			return more, 0, 0, 0
		}
		if b[2] == '\n' {
			return removed, 3, 0, markQuoted
		}
		return no, 0, 0, 0
	}
	return hexToken(b, 1, 2, markQuoted, false, out)
}
