package matcher

import (
	"encoding/base64"
	"fmt"
	"math/rand"
	"testing"

	"guard"
)

// Numbered lines, as terminals and pipes bring them: at some place or other they
// meet every value's first characters, and every cut.
func TestNumberedLines(t *testing.T) {
	for seed := range int64(12) {
		rnd := rand.New(rand.NewSource(seed))
		var values []guard.Value
		for i := range 20 {
			b := make([]byte, 30)
			rnd.Read(b)
			values = append(values, guard.Value{ID: guard.SecretID{Context: "c", Name: fmt.Sprint(i), Version: 1}, Secret: guard.NewSecret([]byte(base64.StdEncoding.EncodeToString(b)))})
		}
		m, err := New(values)
		if err != nil {
			t.Fatal(err)
		}
		s := m.Stream()
		var text []byte
		from := rnd.Intn(300000)
		for i := from; i < from+20000; i++ {
			text = fmt.Appendf(text, "%d\r\n", i)
		}
		written := int64(0)
		for len(text) > 0 {
			n := min(1+rnd.Intn(4095), len(text))
			hits, safe := s.Write(text[:n])
			written += int64(n)
			if len(hits) > 0 || safe < written-64 {
				t.Fatalf("seed %d: %d hits, %d bytes held", seed, len(hits), written-safe)
			}
			text = text[n:]
		}
		s.Close()
		m.Close()
	}
}
