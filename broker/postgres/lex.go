package postgres

import (
	"bytes"
	"regexp"
	"strings"
)

// A session that may only read has its SQL taken apart as a whole, as the server's
// scanner does (scan.l of PostgreSQL) where standard_conforming_strings is on and the
// client's encoding has no backslash or quote in the middle of a character: scope.go
// sees to both. What servers of different versions read in different ways is not
// read at all.

// kinds of token
const (
	word   = 'w' // unquoted, in small letters
	quoted = 'q' // "..."
	text   = 's' // '...' and $$...$$: what it says
	escape = 'e' // E'...': not what it says
	number = 'n' // also $1
	mark   = 'p' // any other character
)

type token struct {
	kind byte
	text string
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

func (t token) name() bool { return t.kind == word || t.kind == quoted }

func (t token) str() bool { return t.kind == text || t.kind == escape }

func at(s []token, i int) token {
	if i >= 0 && i < len(s) {
		return s[i]
	}
	return token{}
}

// numbers are those of all versions; more directly behind one is not read.
var numbers = regexp.MustCompile(`^(?:0[xXoObB][0-9a-fA-F_]+|[0-9][0-9_]*(?:\.[0-9_]*)?(?:[eE][+-]?[0-9]+)?)`)

// maxTokens bounds the memory that one statement takes, and the time.
const maxTokens = 1 << 20

type lexer struct {
	b   []byte
	i   int
	out []token
	why string // it cannot be read
}

const unclear = "guard cannot tell what it does: "

// statements takes sql apart; why it cannot be, in words, or "".
func statements(sql []byte) (out [][]token, why string) {
	l := &lexer{b: sql}
	for l.i < len(l.b) && l.why == "" {
		if l.step(); len(l.out) > maxTokens {
			l.why = "it has more than a million words"
		}
	}
	if l.why != "" {
		return nil, unclear + l.why
	}
	var now []token
	for i, t := range l.out {
		if t.kind == escape && at(l.out, i+1).str() {
			return nil, unclear + "a string goes on after E'...'"
		}
		if !t.sign(";") {
			now = append(now, t)
			continue
		}
		if len(now) > 0 {
			out, now = append(out, now), nil
		}
	}
	if len(now) > 0 {
		out = append(out, now)
	}
	return out, ""
}

func (l *lexer) at(i int) byte {
	if i < len(l.b) {
		return l.b[i]
	}
	return 0
}

func (l *lexer) add(kind byte, s string) { l.out = append(l.out, token{kind, s}) }

// starts says whether a name may begin with c.
func starts(c byte) bool { return isWord(c) && c != '$' && (c < '0' || c > '9') }

func (l *lexer) step() {
	switch c := l.b[l.i]; {
	case c == ' ' || c >= '\t' && c <= '\r':
		l.i++
	case c == '-' && l.at(l.i+1) == '-':
		for l.i < len(l.b) && l.b[l.i] != '\n' && l.b[l.i] != '\r' {
			l.i++
		}
	case c == '/' && l.at(l.i+1) == '*':
		l.comment()
	case c == '\'':
		l.str(text)
	case c == '"':
		l.str(quoted)
	case c == '$':
		l.dollar()
	case c >= '0' && c <= '9':
		n := len(numbers.Find(l.b[l.i:]))
		l.add(number, string(l.b[l.i:l.i+n]))
		if l.i += n; starts(l.at(l.i)) {
			l.why = "a number and a name without a space between them"
		}
	case starts(c):
		from := l.i
		for l.i < len(l.b) && isWord(l.b[l.i]) {
			l.i++
		}
		w := strings.ToLower(string(l.b[from:l.i]))
		switch next := l.at(l.i); {
		case w == "e" && next == '\'':
			l.str(escape)
			return
		case w == "u" && next == '&' && (l.at(l.i+1) == '\'' || l.at(l.i+1) == '"'):
			l.why = "U& names and strings are not read"
		}
		l.add(word, w)
	case c == 0:
		l.why = "it holds a NUL"
	default:
		l.add(mark, string(rune(c)))
		l.i++
	}
}

func (l *lexer) comment() {
	for depth := 0; l.i < len(l.b); {
		switch {
		case l.b[l.i] == '/' && l.at(l.i+1) == '*':
			depth++
			l.i += 2
		case l.b[l.i] == '*' && l.at(l.i+1) == '/':
			l.i += 2
			if depth--; depth == 0 {
				return
			}
		default:
			l.i++
		}
	}
	l.why = "a comment does not end"
}

func (l *lexer) str(kind byte) {
	q := l.b[l.i]
	var s []byte
	for l.i++; l.i < len(l.b); l.i++ {
		c := l.b[l.i]
		switch {
		case c == '\\' && kind == escape && l.i+1 < len(l.b):
			l.i++
			c = l.b[l.i]
		case c == q && l.at(l.i+1) == q:
			l.i++
		case c == q:
			l.i++
			l.add(kind, string(s))
			return
		}
		s = append(s, c)
	}
	l.why = "a string or a name does not end"
}

func (l *lexer) dollar() {
	n := l.i + 1
	if c := l.at(n); c >= '0' && c <= '9' {
		for c := l.at(n); c >= '0' && c <= '9'; c = l.at(n) {
			n++
		}
		l.add(number, string(l.b[l.i:n]))
		if l.i = n; starts(l.at(n)) {
			l.why = "a number and a name without a space between them"
		}
		return
	}
	for c := l.at(n); isWord(c) && c != '$'; c = l.at(n) {
		n++
	}
	if l.at(n) != '$' {
		l.add(mark, "$")
		l.i++
		return
	}
	tag := l.b[l.i : n+1]
	end := bytes.Index(l.b[n+1:], tag)
	if end < 0 {
		l.why = "a string does not end"
		return
	}
	l.add(text, string(l.b[n+1:n+1+end]))
	l.i = n + 1 + end + len(tag)
}
