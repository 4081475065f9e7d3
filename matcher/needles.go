package matcher

import (
	"bytes"
	"slices"

	"guard"
)

// Needle is one literal that a matcher looks for, for a search elsewhere.
type Needle struct {
	ID       guard.SecretID
	Class    guard.Class
	Encoding string       // as in Hit
	Bytes    guard.Secret // a copy, the caller's to wipe
}

// Needles returns the literals of every value that is worth something (working
// or retired), the raw ones of all values first, then by encoding, so that who
// cannot take all of them takes the first. What a view finds, with its escapes
// decoded, is no literal and not among them. After Close there are none.
func (m *Matcher) Needles() []Needle {
	set := m.use()
	if set == nil {
		return nil
	}
	defer set.mu.RUnlock()
	type found struct {
		e *entry
		n needle
	}
	var all []found
	for _, e := range set.entries[1:] { // without the canary
		if e.class >= guard.Placeholder {
			continue
		}
		for _, n := range e.needles {
			all = append(all, found{e, n})
		}
	}
	slices.SortStableFunc(all, func(a, b found) int { return int(a.n.enc) - int(b.n.enc) })
	out := make([]Needle, len(all))
	for i, f := range all {
		out[i] = Needle{ID: f.e.id, Class: f.e.class, Encoding: encodingNames[f.n.enc], Bytes: guard.NewSecret(bytes.Clone(f.n.b))}
	}
	return out
}

// Append appends n's bytes to b, for whoever has to hand them on. b is the
// caller's to overwrite.
func (n Needle) Append(b []byte) []byte { return append(b, n.Bytes.Reveal()...) }
