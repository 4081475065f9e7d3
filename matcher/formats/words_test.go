package formats

import (
	"bytes"
	"math/rand/v2"
	"strings"
	"testing"
)

// The places that are looked at are a stride apart: a run of words, and one of letters
// and digits, has one of them wherever it is.
func TestFindersAtEveryOffset(t *testing.T) {
	r := rand.New(rand.NewPCG(5, 6))
	l := mnemonicWords()
	short := []string{}
	for _, w := range l.words {
		if len(w) == 3 {
			short = append(short, w)
		}
	}
	for n := range 400 {
		words := make([]string, 12)
		for i := range words {
			if words[i] = l.words[r.IntN(len(l.words))]; n%2 == 0 || r.IntN(2) == 0 {
				words[i] = short[r.IntN(len(short))]
			}
		}
		if n%5 == 0 { // the first place is in it
			words[0] = "abstract"
		}
		run := strings.Join(words, []string{" ", "\n", ", "}[n%3])
		text := []byte(strings.Repeat("#", n%wordStride) + run + "." + strings.Repeat("#", 70))
		found := false
		l.runs(text, int64(r.IntN(1000)*wordStride), 0, len(text), func(at int) { found = found || at == bytes.IndexByte(text, run[0]) })
		if !found {
			t.Fatalf("not found at %d: %q", n%wordStride, run)
		}
	}
	for n := range runStride * (runMax - runMin + 1) {
		run := "K" + strings.Repeat("x", runMin-1+n/runStride)
		text := []byte(strings.Repeat("#", n%runStride) + run + strings.Repeat("#", 70))
		found := false
		runs(text, 0, 0, len(text), func(at int) { found = found || at == n%runStride })
		if !found {
			t.Fatalf("a run of %d not found at %d", len(run), n%runStride)
		}
	}
	for _, w := range l.words {
		if !l.has([]byte(w)) || l.has([]byte(w[:len(w)-1]+"~")) || l.has([]byte(strings.ToUpper(w))) {
			t.Fatal(w)
		}
	}
}
