package mysql

import "bytes"

// rename replaces the real login by the client's in what the server says.
type rename struct{ from, to string }

func (r rename) text(s string) string { return string(r.words([]byte(s))) }

// words replaces whole words only: a login may be called "a".
func (r rename) words(b []byte) []byte {
	if r.from == "" || r.from == r.to {
		return b
	}
	var out []byte
	for from := 0; ; {
		i := bytes.Index(b[from:], []byte(r.from))
		if i < 0 {
			return append(out, b[from:]...)
		}
		i += from
		end := i + len(r.from)
		out = append(out, b[from:i]...)
		if (i == 0 || !isName(b[i-1])) && (end == len(b) || !isName(b[end])) {
			out = append(out, r.to...)
		} else {
			out = append(out, b[i:end]...)
		}
		from = end
	}
}
