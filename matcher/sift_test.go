package matcher

import (
	"bytes"
	"slices"
	"strings"
	"testing"
)

// Values that stretches of what shows nothing, or ends of lines, go through, in what has
// a lot of both: at every place of a value, at every place of a block, as a whole and in
// two pieces.
func TestSifted(t *testing.T) {
	r := newRand(52)
	value := "ghp_" + randString(r, alphabet, 16)
	m := mustNew(t, val("gh", value), val("other", "sk-"+randString(r, alphabet, 40)))
	nothing := []string{"\x00", "\x07\x7f", "\x01\x02\x03\x04\x05\x06", "\u200b", "\u00ad\x00", "\x00\u2060\x00", "\ufeff\ufeff", strings.Repeat("\x00", 70),
		"\n", "\r\n", "\n      ", "\n\t\t\t\t\t\t\t\t\t\t"}
	around := []func(n int) []byte{
		func(n int) []byte {
			b := make([]byte, n)
			for i := range b {
				b[i] = byte(r.Uint32())
			}
			return append(b, '!') // not something that the value goes on with
		},
		func(n int) []byte { return []byte(randString(r, alphabet+"    \n\n\x00", n) + " ") },
		func(n int) []byte { return bytes.Repeat([]byte("\x00\x00a\n"), n/4) },
		func(n int) []byte { return bytes.Repeat([]byte("xghp_\x00"), n/6) },
	}
	for _, make := range around {
		for k, cut := range nothing {
			for i := 1; i < len(value); i++ {
				before, after := make(64+r.IntN(200)), make(100)
				form := value[:i] + cut + value[i:]
				switch i % 4 {
				case 0: // a second time, at once
					form = value[:i/2] + cut + value[i/2:i] + cut + value[i:]
				case 1: // between all
					form = strings.Join(strings.Split(value, ""), cut)
				}
				text := slices.Concat(before, []byte(form), []byte{'!'}, after)
				last := int64(len(before) + len(form))
				all := func(hits []Hit) bool {
					return slices.ContainsFunc(hits, func(h Hit) bool { return h.ID.Name == "gh" && h.Start <= int64(len(before)) && h.End >= last })
				}
				if hits := m.Scan(text); !all(hits) {
					t.Fatalf("cut %d at %d: %v, want [%d..%d)", k, i, hits, len(before), last)
				}
				s := m.Stream()
				at := r.IntN(len(text))
				hits, _ := s.Write(text[:at])
				more, _ := s.Write(text[at:])
				if hits = append(append(hits, more...), s.Close()...); !all(hits) {
					t.Fatalf("cut %d at %d, written in two at %d: %v, want [%d..%d)", k, i, at, hits, len(before), last)
				}
			}
		}
	}
}

// Of line breaks at any place of any needle none is left out, also where more follow soon;
// in text, nearly all are.
func TestBreaksLeft(t *testing.T) {
	r := newRand(53)
	m := mustNew(t, append(benchValues(12), val("lines", "first line of two\nsecond line of two"), val("cr", "a\rb\rc\rd\re\rf12"), val("dots", "......!!++......,,"))...)
	var c classes
	for _, d := range m.set.needles[1:] {
		for i := 1; i < len(d); i++ {
			if !inLine(d[i-1]) || !inLine(d[i]) {
				continue
			}
			cut := []string{"\n", "\r\n", "\n\t", "\n  ", "\r\n        ", "\n                "}[r.IntN(6)]
			before, rest := "a line that ends"+"\n"[:r.IntN(2)], string(d[i:])
			if j := 1 + r.IntN(4); j < len(rest) && r.IntN(2) == 0 && inLine(rest[j-1]) && inLine(rest[j]) {
				rest = rest[:j] + cut + rest[j:]
			}
			text := []byte(before + string(d[:i]) + cut + rest + strings.Repeat("z ", 20))
			at := len(before) + i + strings.IndexByte(cut, '\n')
			c.of(text, 0, len(text))
			if got := c.sift(m.set.gate, text, classLine).after(&c, at); got != at {
				t.Fatalf("%q: the line break at %d is left out, the next one is %d", text, at, got)
			}
		}
	}
	b := corpus("plain")[:slice]
	c.of(b, 0, len(b))
	if n := len(c.sift(m.set.gate, b, classLine).places); n > bytes.Count(b, []byte{'\n'})/20 {
		t.Errorf("%d line breaks of text are left", n)
	}
}

// The processor's way leaves the same line breaks as the plain one.
func TestCrossed(t *testing.T) {
	r := newRand(55)
	m := mustNew(t, benchValues(12)...)
	g := m.set.gate.bridges()
	for range 300 {
		b := []byte(randString(r, alphabet[:r.IntN(50)+2]+"   \n\n\t\r", 40+r.IntN(1000)))
		for k := range 3 {
			d := m.set.needles[1+r.IntN(len(m.set.needles)-1)]
			i := r.IntN(len(d))
			copy(b[k*len(b)/4:], string(d[:i])+"\n"+string(d[i:]))
		}
		from := r.IntN(10)
		var places []uint16
		for i, c := range b {
			if c == '\n' && i >= max(from, breakBefore) && i+breakAfter < len(b) {
				places = append(places, uint16(i-from))
			}
		}
		want := crossedGo(b, from, places, make([]uint16, 0, len(places)), &g)
		if got := crossed(b, from, places, make([]uint16, 0, len(places)), &g); !slices.Equal(got, want) {
			t.Fatalf("%q: %v, want %v", b, got, want)
		}
	}
}
