package matcher

import (
	"bytes"
	"slices"
	"testing"

	"guard"
)

// At no place of a needle that holds no escape does the gate say that an escape there is in none;
// and of noise it nearly always says so, or it would be of no use.
func TestGate(t *testing.T) {
	r := newRand(60)
	var values []guard.Value
	for name, v := range samples(r) {
		values = append(values, val(name, v))
	}
	m := mustNew(t, values...)
	g := m.set.gate
	noise := []byte("0123456789 .,-/ 0123456789 .,-/ ")
	for _, d := range m.set.needles[1:] {
		if bytes.ContainsAny(d, introducers) {
			continue // what follows would be decoded
		}
		for i := range d {
			for n := range 2 { // decoded, or removed
				if n == 0 && i == 0 {
					continue // it is before the needle
				}
				tail, out, rest := slices.Concat(noise, d[:i]), d[i:i+n], slices.Concat(d[i+n:], noise)
				if !g.crosses(tail, out, rest) {
					t.Fatalf("%q: nothing goes over %d bytes at %d", d, n, i)
				}
				if g.apart(slices.Concat(tail, []byte("%41"), rest), 0, len(tail), len(tail)+3, out) {
					t.Fatalf("%q: apart from %d bytes at %d", d, n, i)
				}
			}
		}
	}
	m = mustNew(t, benchValues(20)...)
	crossed := 0
	for range 1000 {
		if m.set.gate.crosses([]byte(randString(r, alphabet, 12)), []byte("/"), []byte(randString(r, alphabet, 12))) {
			crossed++
		}
	}
	if crossed > 50 {
		t.Errorf("of 1000 escapes in noise %d may be in a needle", crossed)
	}
}
