package supervisor

import (
	"unicode/utf8"

	"guard/pty/screen"
)

// maskShown masks what a terminal displays of p, a value with all that was between
// its characters, in place: each character becomes asterisks of its width. Control
// characters and control sequences in p stay, so that the screen keeps its shape;
// they are no part of the value. Strings (titles, links) do not: they may be. Where
// a character has more bytes than columns, NUL fills up, which package screen takes
// out. "[name]" stands first, if there is room for it, nothing was filled up and name is
// not "".
func maskShown(p []byte, name string) {
	var stars []int
	filled := false
	for i := 0; i < len(p); {
		if n := controlSequence(p[i:]); n > 0 {
			i += n
			continue
		}
		if p[i] < 0x20 && p[i] != 0x1b || p[i] == 0x7f {
			i++
			continue
		}
		r, n := utf8.DecodeRune(p[i:])
		w := screen.Width(r)
		for k := range n {
			p[i+k] = 0
			filled = filled || k >= w
			if k < w {
				p[i+k] = '*'
				stars = append(stars, i+k)
			}
		}
		i += n
	}
	if name == "" || filled || len(name)+2 > len(stars) {
		return
	}
	p[stars[0]], p[stars[len(name)+1]] = '[', ']'
	for k, c := range []byte(name) {
		if !('0' <= c && c <= '9' || 'a' <= c|0x20 && c|0x20 <= 'z' || c == '-' || c == '.' || c == '/') {
			c = '_'
		}
		p[stars[k+1]] = c
	}
}

// controlSequence is the length of the well-formed control sequence that p begins
// with (ECMA-48 5.4), or 0.
func controlSequence(p []byte) int {
	if len(p) < 3 || p[0] != 0x1b || p[1] != '[' {
		return 0
	}
	for i, c := range p[2:min(len(p), 66)] {
		switch {
		case c >= 0x40 && c < 0x7f:
			return i + 3
		case c < 0x20 || c >= 0x40:
			return 0
		}
	}
	return 0
}
