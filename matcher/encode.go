package matcher

import (
	"encoding/base64"
	"strings"
	"unicode/utf16"
	"unicode/utf8"
)

// encoding names a form in Hit.Encoding. A lower one wins where two forms of
// one credential have the same bytes.
type encoding uint8

const (
	encRaw encoding = iota
	encBase64
	encBase64URL
	encHex
	encPercent
	encJSON
	encUTF16
	encReversed
	encDoubled
	encSpaced
	encBase32
	encASCII85
	encBase85
	encodings // how many there are
)

var encodingNames = [...]string{"raw", "base64", "base64url", "hex", "percent", "json", "utf-16", "reversed", "doubled", "spaced", "base32", "ascii85", "base85"}

// name spells e in a text to which m was done: "percent" for a raw value that
// is partly percent-encoded, "json+base64-wrapped" for base64 whose lines end in
// "\n" in a JSON string.
func (e encoding) name(m marks) string {
	name := ""
	once := m&level1 | m&level2>>markCount
	if once&markEscaped != 0 {
		once &^= markJSON
	}
	for i, s := range [markCount]string{"ansi", "hidden", "html", "json", "escaped", "joined", "quoted-printable", "percent"} {
		if once>>i&1 != 0 {
			name += "+" + s
		}
	}
	if own := encodingNames[e]; name == "" || e != encRaw && !strings.HasSuffix(name, own) {
		name += "+" + own
	}
	if m&markWrapped != 0 {
		name += "-wrapped"
	}
	return name[1:]
}

const (
	hexLower = "0123456789abcdef"
	hexUpper = "0123456789ABCDEF"
)

func appendHex(dst, v []byte, digits string) []byte {
	for _, c := range v {
		dst = append(dst, digits[c>>4], digits[c&15])
	}
	return dst
}

// appendHexList writes v as tools list bytes: before stands before each, between
// between two.
func appendHexList(dst, v []byte, digits, before, between string) []byte {
	for i, c := range v {
		if i > 0 {
			dst = append(dst, between...)
		}
		dst = append(append(dst, before...), digits[c>>4], digits[c&15])
	}
	return dst
}

// appendBase64 appends the characters that hold bits of v only, when v follows
// `before` bytes (0, 1 or 2) of something else in one base64 text. The first
// 8*before bits are not v's, so ceil(8*before/6) characters are dropped: 0, 2,
// 3. What comes after v shares v's last character unless the bits end there,
// so only whole characters are kept.
func appendBase64(dst, v []byte, before int, enc *base64.Encoding) []byte {
	src := make([]byte, before+len(v))
	copy(src[before:], v)
	n := len(dst)
	dst = enc.WithPadding(base64.NoPadding).AppendEncode(dst, src)
	clear(src)
	head, whole := (8*before+5)/6, 8*len(src)/6
	m := copy(dst[n:], dst[n+head:n+whole])
	return dst[:n+m]
}

// appendEscaped appends v with each byte that is from written as to.
func appendEscaped(dst, v []byte, from byte, to string) []byte {
	for _, c := range v {
		if c == from {
			dst = append(dst, to...)
		} else {
			dst = append(dst, c)
		}
	}
	return dst
}

// appendPercent percent-encodes every byte but ASCII letters, digits and those
// in keep. A space is "+" if keep has one.
func appendPercent(dst, v []byte, keep, digits string) []byte {
	for _, c := range v {
		kept := isAlnum(c)
		for i := 0; i < len(keep) && !kept; i++ {
			kept = keep[i] == c
		}
		switch {
		case kept && c == ' ':
			dst = append(dst, '+')
		case kept:
			dst = append(dst, c)
		default:
			dst = append(dst, '%', digits[c>>4], digits[c&15])
		}
	}
	return dst
}

// appendPercentAll percent-encodes every byte.
func appendPercentAll(dst, v []byte, digits string) []byte {
	for _, c := range v {
		dst = append(dst, '%', digits[c>>4], digits[c&15])
	}
	return dst
}

func isAlnum(c byte) bool {
	return '0' <= c && c <= '9' || 'a' <= c && c <= 'z' || 'A' <= c && c <= 'Z'
}

// jsonStyle is one of the ways in which libraries write a JSON string.
type jsonStyle struct {
	slash  bool // "/" as "\/" (PHP)
	html   bool // "<", ">", "&" as \u003c, \u003e, \u0026 (Go)
	ascii  bool // non-ASCII as \uXXXX (Python)
	digits string
}

func appendJSON(dst, v []byte, st jsonStyle) []byte {
	for i := 0; i < len(v); {
		c := v[i]
		if c >= utf8.RuneSelf && st.ascii {
			r, n := utf8.DecodeRune(v[i:])
			dst = appendUnicode(dst, r, st.digits)
			i += n
			continue
		}
		i++
		switch {
		case c == '"' || c == '\\' || c == '/' && st.slash:
			dst = append(dst, '\\', c)
		case c == '\n':
			dst = append(dst, '\\', 'n')
		case c == '\r':
			dst = append(dst, '\\', 'r')
		case c == '\t':
			dst = append(dst, '\\', 't')
		case c == '\b':
			dst = append(dst, '\\', 'b')
		case c == '\f':
			dst = append(dst, '\\', 'f')
		case c < 0x20 || st.html && (c == '<' || c == '>' || c == '&'):
			dst = appendUnicode(dst, rune(c), st.digits)
		default:
			dst = append(dst, c)
		}
	}
	return dst
}

// appendUnicode writes r as \uXXXX, or as two of them outside the BMP.
func appendUnicode(dst []byte, r rune, digits string) []byte {
	if r >= 0x10000 {
		hi, lo := utf16.EncodeRune(r)
		return appendUnicode(appendUnicode(dst, hi, digits), lo, digits)
	}
	return append(dst, '\\', 'u', digits[r>>12&15], digits[r>>8&15], digits[r>>4&15], digits[r&15])
}

// appendUnicodeAll writes every character of v as \uXXXX. A byte that is not
// UTF-8 is written as the character of that number.
func appendUnicodeAll(dst, v []byte, digits string) []byte {
	for i := 0; i < len(v); {
		r, n := utf8.DecodeRune(v[i:])
		if r == utf8.RuneError && n == 1 {
			r = rune(v[i])
		}
		dst = appendUnicode(dst, r, digits)
		i += n
	}
	return dst
}

// appendUTF16 writes v in little-endian UTF-16, without the last byte if that
// is 0: so what is found in Latin-1 text is big endian just as well.
func appendUTF16(dst, v []byte) []byte {
	for i := 0; i < len(v); {
		r, n := utf8.DecodeRune(v[i:])
		if r == utf8.RuneError && n == 1 {
			r = rune(v[i])
		}
		i += n
		if r >= 0x10000 {
			hi, lo := utf16.EncodeRune(r)
			dst = append(dst, byte(hi), byte(hi>>8))
			r = lo
		}
		dst = append(dst, byte(r), byte(r>>8))
	}
	if n := len(dst); n > 0 && dst[n-1] == 0 {
		dst = dst[:n-1]
	}
	return dst
}

func appendReversed(dst, v []byte) []byte {
	for i := len(v) - 1; i >= 0; i-- {
		dst = append(dst, v[i])
	}
	return dst
}

// appendUTF16BE writes v in big-endian UTF-16.
func appendUTF16BE(dst, v []byte) []byte {
	n := len(dst)
	dst = appendUTF16(dst, v)
	if len(dst[n:])%2 != 0 {
		dst = append(dst, 0)
	}
	for i := n; i+1 < len(dst); i += 2 {
		dst[i], dst[i+1] = dst[i+1], dst[i]
	}
	return dst
}

// appendSpaced writes v with something between two bytes.
func appendSpaced(dst, v []byte, between string) []byte {
	for i, c := range v {
		if i > 0 {
			dst = append(dst, between...)
		}
		dst = append(dst, c)
	}
	return dst
}

// appendBase32 is appendBase64 for base32 (RFC 4648, 6), where v follows 0 to 4
// bytes.
func appendBase32(dst, v []byte, before int, digits string) []byte {
	acc, n := uint32(0), 0
	skip := (8*before + 4) / 5 // characters
	for i := range before + len(v) {
		var c byte
		if i >= before {
			c = v[i-before]
		}
		acc, n = acc<<8|uint32(c), n+8
		for n >= 5 {
			n -= 5
			if skip > 0 {
				skip--
				continue
			}
			dst = append(dst, digits[acc>>n&31])
		}
	}
	return dst
}

const (
	digits32 = "ABCDEFGHIJKLMNOPQRSTUVWXYZ234567"
	lowers32 = "abcdefghijklmnopqrstuvwxyz234567"
	// Adobe's and Python's a85, and that of git and Python's b85.
	digits85 = "!\"#$%&'()*+,-./0123456789:;<=>?@ABCDEFGHIJKLMNOPQRSTUVWXYZ[\\]^_`abcdefghijklmnopqrstu"
	gits85   = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz!#$%&()*+-;<=>?@^_`{|}~"
)

// appendBase85 writes the groups of 4 bytes of v that hold nothing else, where
// the first one begins after skip bytes.
func appendBase85(dst, v []byte, skip int, digits string) []byte {
	for v = v[min(skip, len(v)):]; len(v) >= 4; v = v[4:] {
		x := uint32(v[0])<<24 | uint32(v[1])<<16 | uint32(v[2])<<8 | uint32(v[3])
		var g [5]byte
		for i := range g {
			g[4-i] = digits[x%85]
			x /= 85
		}
		dst = append(dst, g[:]...)
	}
	return dst
}
