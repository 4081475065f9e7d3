package matcher

import (
	"bytes"
	"fmt"
	"testing"
)

// BenchmarkOpen: a stream for what is small: a request's head, and for nothing at all.
func BenchmarkOpen(b *testing.B) {
	m := benchMatcher(b, goName, 20)
	head := []byte("GET /v1/items/1234?page=2 HTTP/1.1\r\nHost: api.example.com\r\nUser-Agent: curl/8.5.0\r\nAccept: */*\r\nX-Request-Id: 7f3c9a1e-55b2-4a60-9a53-2f1d6c0b8e11\r\nContent-Type: application/json\r\n\r\n")
	body := bytes.Repeat([]byte(`{"id": 17, "name": "item", "tags": ["a", "b"]}`), 3)
	for _, pieces := range [][][]byte{{}, {head}, {head, body}} {
		b.Run(fmt.Sprintf("writes=%d", len(pieces)), func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				s := m.Stream()
				for _, p := range pieces {
					s.Write(p)
				}
				s.Close()
			}
		})
		b.Run(fmt.Sprintf("reset/writes=%d", len(pieces)), func(b *testing.B) {
			b.ReportAllocs()
			s := m.Stream()
			for b.Loop() {
				for _, p := range pieces {
					s.Write(p)
				}
				s.Close()
				s.Reset()
			}
		})
	}
}

// BenchmarkLines: short lines, in the pieces that a terminal gives: what `yes` prints,
// numbers, and lines of a few words.
func BenchmarkLines(b *testing.B) {
	m := benchMatcher(b, goName, 20)
	var seq, words []byte
	for i := range 6000 {
		seq = fmt.Appendf(seq, "%d\r\n", 100000+i)
		words = fmt.Appendf(words, "ok  \tpackage/name%d\t0.%03ds\r\n", i%70, i%1000)
	}
	for _, c := range []struct {
		name string
		data []byte
	}{{"yes", bytes.Repeat([]byte("y\r\n"), 20000)}, {"seq", seq}, {"words", words}} {
		for _, chunk := range []int{40, 300, 4096} {
			b.Run(fmt.Sprintf("%s/chunk=%d", c.name, chunk), func(b *testing.B) { benchStream(b, m, c.data, chunk) })
		}
	}
}
