package matcher

import (
	"encoding/base64"
	"encoding/hex"
	"fmt"
	"strings"
	"testing"

	"guard"
)

// corpus is 1 MiB of what terminals and files hold.
func corpus(kind string) []byte {
	r := newRand(40)
	const size = 1 << 20
	raw := make([]byte, size)
	for i := range raw {
		raw[i] = byte(r.Uint32())
	}
	switch kind {
	case "random":
		return raw
	case "hex":
		return []byte(hex.EncodeToString(raw))[:size]
	case "base64":
		return []byte(wrap(base64.StdEncoding.EncodeToString(raw), 76, "\n"))[:size]
	}
	words := strings.Fields(`func return if err nil package import string the of to and in error
		https://example.com/path?query=1 GET POST 200 "key": "value", {} () // comment 2026-01-02T15:04:05Z
		npm install warning: deprecated @scope/package@1.2.3 0x7ffd4 node_modules index.js --flag -v`)
	var b strings.Builder
	for b.Len() < size {
		b.WriteString(words[r.IntN(len(words))])
		b.WriteString([]string{" ", " ", " ", "\n", "\n\t", "\x1b[0m "}[r.IntN(6)])
	}
	return []byte(b.String())[:size]
}

func benchValues(n int) []guard.Value {
	r := newRand(41)
	var values []guard.Value
	for i := range n {
		v := []string{"ghp_", "sk-", "", "glpat-", "AKIA"}[i%5] + randString(r, alphabet, []int{36, 48, 12, 20, 40}[i%5])
		values = append(values, val(fmt.Sprint("v", i), v))
	}
	return values
}

func benchStream(b *testing.B, m *Matcher, data []byte, chunk int) {
	b.SetBytes(int64(len(data)))
	b.ReportAllocs()
	s := m.Stream()
	for b.Loop() {
		for i := 0; i < len(data); i += chunk {
			if hits, _ := s.Write(data[i:min(i+chunk, len(data))]); len(hits) > 0 {
				b.Fatal("a hit in noise")
			}
		}
	}
}

// BenchmarkStream: MB/s of Stream.Write, for the built-in engine and for Go.
func BenchmarkStream(b *testing.B) {
	data := corpus("text")
	for _, n := range []int{10, 200} {
		m := mustNew(b, benchValues(n)...)
		engines := map[string]engine{engineVersion(): m.set.eng, "go": m.set.eng}
		if engineVersion() != "go" {
			engines["go"] = newGoEngine(m.set.needles)
		}
		built := m.set.eng
		for name, eng := range engines {
			m.set.eng = eng
			for _, chunk := range []int{512, 4 << 10, 64 << 10} {
				b.Run(fmt.Sprintf("%s/values=%d/chunk=%d", strings.ReplaceAll(name, " ", "-"), n, chunk), func(b *testing.B) { benchStream(b, m, data, chunk) })
			}
		}
		m.set.eng = built
	}
}

// BenchmarkHostile: 200 values, chunks of 4 KiB, data that looks like secrets.
func BenchmarkHostile(b *testing.B) {
	m := mustNew(b, benchValues(200)...)
	for _, kind := range []string{"random", "hex", "base64"} {
		b.Run(kind, func(b *testing.B) { benchStream(b, m, corpus(kind), 4<<10) })
	}
}

// BenchmarkRaw: the engine by itself on the same needles, one call a chunk.
func BenchmarkRaw(b *testing.B) {
	data := corpus("text")
	for _, n := range []int{10, 200} {
		m := mustNew(b, benchValues(n)...)
		for _, chunk := range []int{512, 4 << 10, 64 << 10} {
			b.Run(fmt.Sprintf("%s/values=%d/chunk=%d", strings.ReplaceAll(engineVersion(), " ", "-"), n, chunk), func(b *testing.B) {
				b.SetBytes(int64(len(data)))
				for b.Loop() {
					for i := 0; i < len(data); i += chunk {
						if _, err := m.set.eng.scan(data[i:i+chunk], nil); err != nil {
							b.Fatal(err)
						}
					}
				}
			})
		}
	}
}

// BenchmarkSet: from values to a checked set in use.
func BenchmarkSet(b *testing.B) {
	for _, n := range []int{20, 200} {
		b.Run(fmt.Sprint("values=", n), func(b *testing.B) {
			m := mustNew(b)
			values := benchValues(n)
			for b.Loop() {
				if err := m.Set(values); err != nil {
					b.Fatal(err)
				}
			}
			b.ReportMetric(float64(len(m.set.needles)), "needles")
		})
	}
}

// BenchmarkHold: what a chunk pays for safe.
func BenchmarkHold(b *testing.B) {
	m := mustNew(b, benchValues(200)...)
	data := corpus("text")
	i := 0
	for b.Loop() {
		i = (i + 997) % (len(data) - retain)
		m.set.begin.hold(data[i : i+retain])
	}
}
