package matcher

import (
	"bytes"

	"guard"
)

// maxPublic is how many bytes a public beginning has at most: no format has more.
const maxPublic = 32

// appendPublic appends to known the beginnings of values that everybody may see, such
// as "sk-ant-api03-": whoever has a value looked for without its first bytes as well,
// under the same ID, says that of these.
func appendPublic(known [][]byte, entries []*entry) [][]byte {
	type key struct {
		id    guard.SecretID
		class guard.Class
	}
	by := map[key][]*entry{}
	for _, e := range entries {
		if len(e.needles) > 0 && e.needles[0].enc == encRaw {
			k := key{e.id, e.class}
			by[k] = append(by[k], e)
		}
	}
	for _, same := range by {
		for _, whole := range same {
			for _, rest := range same {
				w, r := whole.needles[0].b, rest.needles[0].b
				if n := len(w) - len(r); n > 0 && n <= maxPublic && bytes.HasSuffix(w, r) {
					known = with(known, w[:n])
				}
			}
		}
	}
	return known
}

// with is known and p.
func with(known [][]byte, p []byte) [][]byte {
	for _, k := range known {
		if bytes.Equal(k, p) {
			return known
		}
	}
	return append(known, bytes.Clone(p))
}

// open is how many of the first bytes of b everybody may see.
func (s *set) open(b []byte) int {
	n := 0
	for _, p := range s.public {
		switch {
		case len(p) > n && bytes.HasPrefix(b, p):
			n = len(p)
		case bytes.HasPrefix(p, b):
			return len(b)
		}
	}
	return n
}

// keeps is how many bytes at the end of b, of which held begin a needle, a pause does
// not let go: those that hold begun bytes or more of one that not everybody may see.
func (s *set) keeps(b []byte, held int) int {
	for held >= begun {
		if held-s.open(b[len(b)-held:]) >= begun {
			return held
		}
		held = s.begin.hold(b[len(b)-held+1:]) // a shorter end of it may be of another one
	}
	return 0
}
