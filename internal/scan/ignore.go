package scan

import (
	"bytes"
	"strings"
)

// pattern is one line of an ignore file.
type pattern struct {
	text    string // without "!", the slash before and the one after it
	literal int    // how many bytes of text are before its first special character
	negated bool
	dirOnly bool
	base    bool // has no slash: stands for the last name of a path
}

const globSpecials = `*?[\`

// parseIgnore reads an ignore file as git does.
func parseIgnore(b []byte) (out []pattern) {
	b = bytes.TrimPrefix(b, []byte("\xef\xbb\xbf"))
	for len(b) > 0 {
		line, rest, ended := bytes.Cut(b, []byte("\n"))
		b = rest
		if ended {
			line = bytes.TrimSuffix(line, []byte("\r"))
		}
		if i := bytes.IndexByte(line, 0); i >= 0 {
			line = line[:i]
		}
		if len(line) == 0 || line[0] == '#' {
			continue
		}
		if p, ok := parsePattern(trimBlanks(string(line))); ok {
			out = append(out, p)
		}
	}
	return out
}

// trimBlanks drops the spaces at the end that no backslash keeps.
func trimBlanks(s string) string {
	end := -1
	for i := 0; i < len(s); i++ {
		switch s[i] {
		case ' ':
			if end < 0 {
				end = i
			}
			continue
		case '\\':
			if i++; i == len(s) {
				return s
			}
		}
		end = -1
	}
	if end < 0 {
		return s
	}
	return s[:end]
}

func parsePattern(s string) (p pattern, ok bool) {
	s, p.negated = strings.CutPrefix(s, "!")
	s, p.dirOnly = strings.CutSuffix(s, "/")
	p.base = !strings.Contains(s, "/")
	s = strings.TrimPrefix(s, "/")
	p.text, p.literal = s, len(s)
	if i := strings.IndexAny(s, globSpecials); i >= 0 {
		p.literal = i
	}
	return p, s != ""
}

// match says whether p stands for rel, a path below the folder of p's file.
func (p *pattern) match(rel string, dir, fold bool) bool {
	if p.dirOnly && !dir {
		return false
	}
	if p.base {
		rel = rel[strings.LastIndexByte(rel, '/')+1:]
		if p.literal == len(p.text) {
			return equal(rel, p.text, fold)
		}
		return wildMatch(p.text, rel, false, fold)
	}
	if len(rel) < p.literal || !equal(rel[:p.literal], p.text[:p.literal], fold) {
		return false
	}
	rest, rel := p.text[p.literal:], rel[p.literal:]
	if rest == "" {
		return rel == ""
	}
	return wildMatch(rest, rel, true, fold)
}

func equal(a, b string, fold bool) bool {
	if !fold {
		return a == b
	}
	if len(a) != len(b) {
		return false
	}
	w := wild{fold: true}
	for i := range len(a) {
		if w.lower(a[i]) != w.lower(b[i]) {
			return false
		}
	}
	return true
}

// rules are the ignore files that hold in a folder, the strongest one first.
type rules struct {
	patterns []pattern
	base     int // length of the folder's path and its slash, from the repository's top
	next     *rules
}

// ignored says whether rel, a path from the repository's top, is left out. Of the
// strongest file that has a pattern for it, the last such pattern counts.
func (r *rules) ignored(rel string, dir, fold bool) bool {
	for ; r != nil; r = r.next {
		for i := len(r.patterns) - 1; i >= 0; i-- {
			if p := &r.patterns[i]; p.match(rel[r.base:], dir, fold) {
				return !p.negated
			}
		}
	}
	return false
}
