package postgres

import (
	"slices"

	"guard"
)

// roles finds statements that make or change a role or its password: what they
// leave behind would outlive the session. It reads SQL as the server's scanner
// does (scan.l of PostgreSQL: comments that nest, dollar quotes, E strings), and
// takes no more than the first words of each statement. The strings of DO, and of
// CREATE FUNCTION and PROCEDURE, are code that is looked into (bodyMints).
//
// Whether a backslash escapes in a string depends on a setting and on the
// client's encoding; so it reads all ways at once, and one that finds something
// is enough.
type roles [3]scanner

func newRoles() *roles {
	return &roles{{escapes: never}, {escapes: inE}, {escapes: always}}
}

func (r *roles) feed(p []byte) {
	for i := range r {
		r[i].feed(p)
	}
}

// end is the end of the query; it says whether there was such a statement.
func (r *roles) end() bool {
	found := false
	for i := range r {
		r[i].flush()
		r[i].statement(true)
		found = found || r[i].found
	}
	return found
}

func (r *roles) found() bool {
	return slices.ContainsFunc(r[:], func(s scanner) bool { return s.found })
}

const (
	never = iota
	inE
	always
)

type lexState uint8

const (
	sqlText lexState = iota
	sqlWord
	sqlString
	sqlQuoted
	sqlLine   // comment to the end of the line
	sqlBlock  // comment, depth deep
	sqlTag    // the start of a dollar quote, maybe
	sqlDollar // in a dollar quote
)

const (
	maxWords = 8
	maxWord  = 63 // NAMEDATALEN-1
)

type scanner struct {
	escapes int
	state   lexState
	prev    byte // in text and comments: the byte before, if it may start something
	depth   int
	escape  bool // this string has escapes
	more    bool // the last token was a string with escapes, which may go on
	skip    bool // the next byte of a string is escaped
	word    []byte
	tag     []byte // of the dollar quote, with both $
	match   int    // of tag, seen
	words   []string
	body    []byte // of DO or of a function: what stands in its strings
	any     bool   // of pg_authid or pg_auth_members
	write   bool
	found   bool
}

func (s *scanner) feed(p []byte) {
	for _, b := range p {
		s.step(b)
	}
}

func (s *scanner) step(b byte) {
	switch s.state {
	case sqlWord:
		if isWord(b) {
			s.keep(b)
			return
		}
		e := len(s.word) == 1 && s.word[0] == 'e' && b == '\''
		s.token(string(s.word))
		s.state = sqlText
		if e {
			s.more = true
		}
		s.text(b)
	case sqlString:
		if s.collect(b); s.escape && b == '\\' && s.escapes == inE && s.code() {
			s.found = true // code in which letters are written as numbers
		}
		switch {
		case s.skip:
			s.skip = false
		case b == '\\' && s.escape:
			s.skip = true
		case b == '\'':
			s.state, s.more = sqlText, s.escape && s.escapes == inE
		}
	case sqlQuoted:
		if b == '"' {
			s.token("\"" + string(s.word))
			s.state = sqlText
			return
		}
		s.keep(b)
	case sqlLine:
		if b == '\n' || b == '\r' {
			s.state = sqlText
		}
	case sqlBlock:
		switch {
		case s.prev == '*' && b == '/':
			if s.depth--; s.depth == 0 {
				s.state = sqlText
			}
			s.prev = 0
		case s.prev == '/' && b == '*':
			s.depth++
			s.prev = 0
		default:
			s.prev = b
		}
	case sqlTag:
		switch {
		case b == '$':
			s.tag = append(s.tag, b)
			s.state, s.match = sqlDollar, 0
		case isWord(b) && len(s.tag) <= maxWord && (len(s.tag) > 1 || b < '0' || b > '9'):
			s.tag = append(s.tag, b)
		default: // $1, or $ alone
			s.state = sqlText
			s.token("$")
			s.text(b)
		}
	case sqlDollar:
		s.collect(b)
		switch {
		case b == s.tag[s.match]:
			if s.match++; s.match == len(s.tag) {
				s.state = sqlText
				s.token("'")
			}
		case b == '$':
			s.match = 1
		default:
			s.match = 0
		}
	default:
		s.text(b)
	}
}

// text takes a byte outside of strings, words and comments.
func (s *scanner) text(b byte) {
	prev := s.prev
	s.prev = 0
	switch {
	case prev == '-' && b == '-':
		s.state = sqlLine
		return
	case prev == '/' && b == '*':
		s.state, s.depth = sqlBlock, 1
		return
	case prev != 0:
		s.token(string(prev))
	}
	switch {
	case b == ' ' || b >= '\t' && b <= '\r':
	case b == '-' || b == '/':
		s.prev = b
	case b == '\'':
		s.state = sqlString
		s.escape = s.escapes == always || s.escapes == inE && s.more
		if s.skip = false; !s.escape {
			s.token("'")
		}
	case b == '"':
		s.state, s.word = sqlQuoted, s.word[:0]
	case b == '$':
		s.state, s.tag = sqlTag, append(s.tag[:0], '$')
	case b == ';':
		s.statement(true)
		s.more = false
	case b == '&' && s.code() && s.words[len(s.words)-1] == "u":
		s.found = true // U&'...', the same
	case b >= '0' && b <= '9':
		s.token("0")
	case isWord(b):
		s.state, s.word = sqlWord, s.word[:0]
		s.keep(b)
	default:
		s.token(string(b))
	}
}

func isWord(b byte) bool {
	return b == '_' || b == '$' || b >= 0x80 || b >= '0' && b <= '9' || b >= 'a' && b <= 'z' || b >= 'A' && b <= 'Z'
}

func (s *scanner) keep(b byte) {
	if b >= 'A' && b <= 'Z' {
		b |= 0x20
	}
	if len(s.word) <= maxWord {
		s.word = append(s.word, b)
	}
}

func (s *scanner) flush() {
	if s.state == sqlWord {
		s.token(string(s.word))
		s.state = sqlText
	}
}

func (s *scanner) token(w string) {
	s.more = false
	switch w {
	case "pg_authid", "\"pg_authid", "pg_auth_members", "\"pg_auth_members":
		s.any = true
	case "insert", "update", "delete", "merge", "copy":
		s.write = true
	}
	if len(s.words) < maxWords {
		s.words = append(s.words, w)
		s.statement(false)
	}
	s.found = s.found || s.any && s.write
}

// statement judges the words of a statement so far; whole: it has ended.
func (s *scanner) statement(whole bool) {
	w := s.words
	at := func(i int) string {
		if i < len(w) {
			return w[i]
		}
		return ""
	}
	set := func(i int) bool { return at(i) == "set" || at(i) == "reset" }
	role := at(1) == "role" || at(1) == "user"
	mapping := at(1) == "user" && at(2) == "mapping" // a foreign server's login, or a role of that name
	switch at(0) {
	case "create":
		switch {
		case at(1) == "role" || at(1) == "group":
			s.found = true
		case mapping:
			s.found = s.found || at(3) != "for" && at(3) != "if" && (whole || len(w) > 3)
		case role:
			s.found = s.found || len(w) > 2
		}
	case "alter":
		switch {
		case at(1) == "group" || at(1) == "default":
			s.found = true
		case mapping && (at(3) == "for" || len(w) == 3 && !whole):
		case role && len(w) > 3 && at(3) != "in":
			s.found = s.found || !set(3)
		case role && len(w) > 6:
			s.found = s.found || at(4) != "database" || !set(6)
		}
	}
	if whole {
		if len(s.body) > 0 {
			s.found = s.found || len(s.body) > maxText || bodyMints(s.body)
			s.body = nil
		}
		s.words, s.any, s.write = s.words[:0], false, false
	}
}

// code says whether the strings of this statement are code.
func (s *scanner) code() bool {
	if len(s.words) == 0 {
		return false
	}
	switch s.words[0] {
	case "do":
		return true
	case "create":
		i := 1
		if len(s.words) > 3 && s.words[1] == "or" {
			i = 3
		}
		return len(s.words) > i && (s.words[i] == "function" || s.words[i] == "procedure")
	}
	return false
}

// collect keeps a byte of a string that is code. More than maxText of it is not read.
func (s *scanner) collect(b byte) {
	if len(s.body) <= maxText && s.code() {
		s.body = append(s.body, b)
	}
}

const rolesRule = "roles"

// minted is the refusal of such a statement.
func minted(credential string) guard.Decision {
	return guard.Decision{
		Action: guard.Block, Rule: rolesRule,
		Reason: "guard refuses statements that make or change a role or a password: they would outlive the session",
		NextSteps: []string{
			"ask the user to do it outside the session (guard rotate replaces a password), or to allow it: guard run --allow " + credential + " --allow " + credential + ":token:mint",
		},
	}
}
