package scan

import "strings"

// The pattern language is git's (gitignore(5), and wildmatch.c for what that page
// leaves open): "*" and "?" stop at a slash, "**" between slashes does not, classes
// know ranges and [:names:].

type verdict uint8

const (
	differs  verdict = iota
	matches          //
	hopeless         // no later start of the last star helps either
	pastPath         // nor within this part of the path: only a "**" before it may go on
)

// wild matches one pattern against one path. steps bounds what a hostile pattern
// may cost; when it is used up nothing matches, so that a file is looked into.
type wild struct {
	path  bool // slashes are special
	fold  bool // letters match whatever their case
	steps int
}

const wildSteps = 1 << 13

func wildMatch(pattern, text string, path, fold bool) bool {
	w := wild{path: path, fold: fold, steps: wildSteps}
	return w.match(pattern, text) == matches
}

func (w *wild) match(p, t string) verdict {
	start := p
	for len(p) > 0 {
		if w.steps--; w.steps < 0 {
			return hopeless
		}
		c := p[0]
		if len(t) == 0 && c != '*' {
			return hopeless
		}
		switch c {
		case '*':
			return w.star(p, t, len(p) == len(start) || start[len(start)-len(p)-1] == '/')
		case '?':
			if w.path && t[0] == '/' {
				return differs
			}
			p, t = p[1:], t[1:]
			continue
		case '[':
			in, rest, ok := w.class(p[1:], t[0])
			if !ok {
				return hopeless
			}
			if !in || w.path && t[0] == '/' {
				return differs
			}
			p, t = rest, t[1:]
			continue
		case '\\':
			if len(p) == 1 {
				return differs
			}
			p = p[1:]
		}
		if w.lower(p[0]) != w.lower(t[0]) {
			return differs
		}
		p, t = p[1:], t[1:]
	}
	if len(t) > 0 {
		return differs
	}
	return matches
}

// star goes on at a "*" or "**"; after says that a "**" would begin a part of the
// path here.
func (w *wild) star(p, t string, after bool) verdict {
	rest := strings.TrimLeft(p, "*")
	deep := !w.path
	if len(p)-len(rest) > 1 && w.path && after &&
		(rest == "" || rest[0] == '/' || strings.HasPrefix(rest, `\/`)) {
		if rest != "" && rest[0] == '/' && w.match(rest[1:], t) == matches {
			return matches // "**/" stands for nothing
		}
		deep = true
	}
	if rest == "" {
		if !deep && strings.Contains(t, "/") {
			return pastPath
		}
		return matches
	}
	if !deep && rest[0] == '/' {
		i := strings.IndexByte(t, '/')
		if i < 0 {
			return hopeless
		}
		return w.match(rest[1:], t[i+1:])
	}
	for ; len(t) > 0; t = t[1:] {
		switch v := w.match(rest, t); {
		case v == differs:
			if !deep && t[0] == '/' {
				return pastPath
			}
		case !deep || v != pastPath:
			return v
		}
		if w.steps < 0 {
			return hopeless
		}
	}
	return hopeless
}

func (w *wild) lower(c byte) byte {
	if w.fold && c >= 'A' && c <= 'Z' {
		return c + 'a' - 'A'
	}
	return c
}

// class reads a class, of which p is what follows "[", and says whether c is in
// it. ok is false where it has no end.
func (w *wild) class(p string, c byte) (in bool, rest string, ok bool) {
	c = w.lower(c)
	negated := p != "" && (p[0] == '!' || p[0] == '^')
	if negated {
		p = p[1:]
	}
	var low byte // beginning of what a "-" would make a range
	for first := true; ; first = false {
		if p == "" {
			return false, "", false
		}
		switch {
		case p[0] == ']' && !first:
			return in != negated, p[1:], true
		case p[0] == '-' && low != 0 && len(p) > 1 && p[1] != ']':
			high := p[1]
			p = p[2:]
			if high == '\\' {
				if p == "" {
					return false, "", false
				}
				high, p = p[0], p[1:]
			}
			upper := c
			if w.fold && c >= 'a' && c <= 'z' {
				upper = c - 'a' + 'A'
			}
			in = in || low <= c && c <= high || low <= upper && upper <= high
			low = 0
			continue
		case strings.HasPrefix(p, "[:"):
			name, after, closed := strings.Cut(p[2:], "]")
			if !closed {
				return false, "", false
			}
			if name, named := strings.CutSuffix(name, ":"); named {
				yes, known := named1(name, c, w.fold)
				if !known {
					return false, "", false
				}
				in, low, p = in || yes, 0, after
				continue
			}
		case p[0] == '\\':
			if p = p[1:]; p == "" {
				return false, "", false
			}
		}
		in = in || p[0] == c
		low, p = p[0], p[1:]
	}
}

// named1 says whether c is in one of the classes of POSIX, in ASCII.
func named1(name string, c byte, fold bool) (in, known bool) {
	lower, upper, digit := c >= 'a' && c <= 'z', c >= 'A' && c <= 'Z', c >= '0' && c <= '9'
	graph := c > ' ' && c < 0x7f
	switch name {
	case "alnum":
		return lower || upper || digit, true
	case "alpha":
		return lower || upper, true
	case "blank":
		return c == ' ' || c == '\t', true
	case "cntrl":
		return c < ' ' || c == 0x7f, true
	case "digit":
		return digit, true
	case "graph":
		return graph, true
	case "lower":
		return lower, true
	case "print":
		return graph || c == ' ', true
	case "punct":
		return graph && !lower && !upper && !digit, true
	case "space":
		return c == ' ' || c >= '\t' && c <= '\r', true
	case "upper":
		return upper || fold && lower, true
	case "xdigit":
		return digit || c >= 'a' && c <= 'f' || c >= 'A' && c <= 'F', true
	}
	return false, false
}
