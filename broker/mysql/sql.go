package mysql

import (
	"bytes"
	"slices"
	"strings"
)

// SQL is read as the server's scanner does (sql_lex.cc of MySQL and MariaDB). What
// it makes of a text depends on settings and versions: whether a backslash escapes
// in a string (NO_BACKSLASH_ESCAPES; in "..." also ANSI_QUOTES), and whether the
// code in /*! */ runs. So a text is read in all the ways of strings and, where it has
// such code, as each version would, and every reading has to be harmless.

// kinds of token
const (
	word   = 'w' // unquoted, in small letters
	quoted = 'q' // `...`
	text   = 's' // '...'
	double = 'd' // "...": a string, or a name under ANSI_QUOTES
	number = 'n' // digits
	mark   = 'p' // any other character
)

type token struct {
	kind byte
	text string // of a string: what it says
	code int    // number of the /*! */ that it is in; 0: none
}

func (t token) is(words ...string) bool {
	if t.kind != word {
		return false
	}
	for _, w := range words {
		if t.text == w {
			return true
		}
	}
	return false
}

func (t token) sign(c string) bool { return t.kind == mark && t.text == c }

// ways are the readings of backslashes: whether they escape in '...' and in "...".
var ways = [...]struct{ single, double bool }{{true, true}, {false, false}, {true, false}}

// statements reads sql in one way of strings, with all code in comments. clear says
// that comments and strings end where they end, whatever version of a server reads it.
func statements(sql []byte, single, dbl bool) (out [][]token, clear bool) {
	l := read(sql, single, dbl)
	return split(l.now, nil), l.clear
}

func read(sql []byte, single, dbl bool) *lexer {
	l := &lexer{b: sql, single: single, double: dbl, clear: true}
	l.run()
	return l
}

// split makes statements of the tokens whose code is there.
func split(tokens []token, there func(code int) bool) (out [][]token) {
	var now []token
	for _, t := range tokens {
		switch {
		case t.code > 0 && there != nil && !there(t.code):
		case t.sign(";"):
			if len(now) > 0 {
				out, now = append(out, now), nil
			}
		default:
			now = append(now, t)
		}
	}
	if len(now) > 0 {
		out = append(out, now)
	}
	return out
}

// maxReadings bounds the readings of one text.
const maxReadings = 200

// readings are what servers of all versions make of the text: with all code in
// comments, with none, and for each version that it names with that of older ones,
// as MySQL and as MariaDB decide it. ok: there were not too many.
func (l *lexer) readings() (out [][][]token, ok bool) {
	out = append(out, split(l.now, nil))
	if l.codes == 0 {
		return out, true
	}
	var limits []int
	six := false
	for _, c := range l.versions {
		limits = append(limits, c.version, c.version/10)
		six = six || c.version >= 100000
	}
	slices.Sort(limits)
	limits = slices.Compact(limits)
	if len(limits)*4 > maxReadings {
		return nil, false
	}
	out = append(out, split(l.now, func(int) bool { return false }))
	for _, limit := range limits {
		for _, maria := range []bool{false, true} {
			for _, five := range []bool{false, true} {
				if five && !six {
					continue // then all have five digits
				}
				out = append(out, split(l.now, func(code int) bool {
					c := l.versions[code-1]
					v := c.version
					if five && v >= 100000 {
						v /= 10 // the sixth digit is code
					}
					return v <= limit && (maria || !c.maria) && !(maria && !c.maria && v >= 50700 && v <= 99999)
				}))
			}
		}
	}
	return out, true
}

type lexer struct {
	b              []byte
	i              int
	single, double bool
	code, codes    int
	versions       []struct {
		version int
		maria   bool
	}
	now   []token
	clear bool
	cut   bool // a statement ends in code
}

func (l *lexer) add(kind byte, s string) { l.now = append(l.now, token{kind, s, l.code}) }

func (l *lexer) at(i int) byte {
	if i < len(l.b) {
		return l.b[i]
	}
	return 0
}

func (l *lexer) run() {
	for l.i < len(l.b) {
		c := l.b[l.i]
		switch {
		case c == ' ' || c >= '\t' && c <= '\r':
			l.i++
		case c == '#', c == '-' && l.at(l.i+1) == '-' && (l.i+2 >= len(l.b) || l.at(l.i+2) <= ' ' || l.at(l.i+2) == 0x7f):
			l.clear = l.clear && l.code == 0
			for l.i < len(l.b) && l.b[l.i] != '\n' {
				if l.b[l.i] == 0 {
					l.clear = false
				}
				l.i++
			}
		case c == '-' && l.at(l.i+1) == '-' && l.at(l.i+2) >= 0x80:
			// A comment, where the server's charset has a space or a control character
			// of that number, as latin1 has 0xa0; code, where it has not.
			l.clear = false
			l.i += 2
		case c == '/' && l.at(l.i+1) == '*':
			l.comment()
		case c == '*' && l.at(l.i+1) == '/' && l.code > 0:
			l.code = 0
			l.i += 2
		case c == '\'':
			l.str(text, l.single)
		case c == '"':
			l.str(double, l.double)
		case c == '`':
			l.str(quoted, false)
		case c == ';':
			l.cut = l.cut || l.code > 0
			l.add(mark, ";")
			l.i++
		case c == 0:
			l.clear = false
			l.i++
		case isName(c):
			l.name()
		default:
			l.add(mark, string(c))
			l.i++
		}
	}
	if l.code > 0 {
		l.clear = false
	}
}

func (l *lexer) comment() {
	from := l.i + 2
	if l.code > 0 {
		l.clear = false // comments in comments: versions differ
	}
	if j := from; l.at(j) == '!' || l.at(j) == 'M' && l.at(j+1) == '!' {
		maria := l.b[j] == 'M'
		if maria {
			j++
		}
		j++
		// A version has five or six digits; what follows is code.
		n, version := 0, 0
		for ; n < 6 && l.at(j+n) >= '0' && l.at(j+n) <= '9'; n++ {
			version = version*10 + int(l.b[j+n]-'0')
		}
		if n < 5 {
			version = 0 // it is none: code for all
		}
		l.versions = append(l.versions, struct {
			version int
			maria   bool
		}{version, maria})
		l.i = j + n
		l.codes++
		l.code = l.codes
		return
	}
	end := bytes.Index(l.b[from:], []byte("*/"))
	if end < 0 {
		l.i, l.clear = len(l.b), false
		return
	}
	l.i = from + end + 2
}

func (l *lexer) str(kind byte, escapes bool) {
	q := l.b[l.i]
	var s []byte
	for l.i++; l.i < len(l.b); l.i++ {
		c := l.b[l.i]
		switch {
		case c == '\\' && escapes && l.i+1 < len(l.b):
			l.i++
			s = append(s, unescape(l.b[l.i])...)
			continue
		case c == q && l.at(l.i+1) == q && l.i+1 < len(l.b):
			l.i++
		case c == q:
			l.i++
			l.add(kind, string(s))
			return
		case c == '*' && l.at(l.i+1) == '/' && l.code > 0:
			l.clear = false // a version that skips the comment ends it here
		}
		s = append(s, c)
	}
	l.add(kind, string(s)) // it does not end: a syntax error
}

func unescape(c byte) []byte {
	switch c {
	case '0':
		return []byte{0}
	case 'b':
		return []byte{8}
	case 'n':
		return []byte{'\n'}
	case 'r':
		return []byte{'\r'}
	case 't':
		return []byte{'\t'}
	case 'Z':
		return []byte{26}
	case '%', '_':
		return []byte{'\\', c}
	}
	return []byte{c}
}

func isName(c byte) bool {
	return c == '_' || c == '$' || c >= 0x80 || c >= '0' && c <= '9' || c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z'
}

// name takes a run of characters of names and numbers. Where it begins with a
// digit, or has bytes that are a space in some charset (0xa0 in latin1), it may be
// several words: 1.0into, and each of its parts counts then.
func (l *lexer) name() {
	from := l.i
	parts := l.b[from] >= '0' && l.b[from] <= '9'
	for l.i < len(l.b) && isName(l.b[l.i]) {
		parts = parts || l.b[l.i] >= 0x80
		l.i++
	}
	run := strings.ToLower(string(l.b[from:l.i]))
	if !parts {
		l.add(word, run)
		return
	}
	any := false
	for _, w := range strings.FieldsFunc(run, func(r rune) bool { return r != '_' && r != '$' && (r < 'a' || r > 'z') && (r < '0' || r > '9') }) {
		w = strings.TrimLeft(w, "0123456789")
		for w != "" {
			l.add(word, w)
			any = true
			i := strings.IndexAny(w, "0123456789") // 1e1into
			if i < 0 {
				break
			}
			w = strings.TrimLeft(w[i:], "0123456789")
		}
	}
	if !any {
		l.add(number, run)
	}
}
