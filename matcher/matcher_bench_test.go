package matcher

import (
	"bytes"
	"encoding/base64"
	"encoding/hex"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
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
	if kind == "plain" {
		return []byte(strings.ReplaceAll(b.String(), "\x1b[0m", "") + strings.Repeat(" ", size))[:size]
	}
	return []byte(b.String())[:size]
}

var (
	benchSizes  = []int{10, 200, 1000} // values, each in all its encodings
	benchChunks = []int{512, 4 << 10, 64 << 10}
	benchKinds  = []string{"plain", "text", "hex", "base64", "random"} // text has a colour code in every line or two
)

func benchValues(n int) []guard.Value {
	r := newRand(41)
	var values []guard.Value
	for i := range n {
		v := []string{"ghp_", "sk-", "", "glpat-", "AKIA"}[i%5] + randString(r, alphabet, []int{36, 48, 12, 20, 40}[i%5])
		values = append(values, val(fmt.Sprint("v", i), v))
	}
	return values
}

func benchMatcher(b *testing.B, engine string, n int) *Matcher {
	m, err := NewWith(engine, benchValues(n))
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { m.Close() })
	return m
}

func short(engine string) string {
	name, _, _ := strings.Cut(engine, " ")
	return name
}

// measure reports MB/s, and MB for each second that a processor was at it.
func measure(b *testing.B, size int, f func()) {
	b.SetBytes(int64(size))
	before := cpuSeconds()
	for b.Loop() {
		f()
	}
	if used := cpuSeconds() - before; used > 0 {
		b.ReportMetric(float64(size)*float64(b.N)/1e6/used, "MB/cpu-s")
	}
}

func benchStream(b *testing.B, m *Matcher, data []byte, chunk int) {
	b.ReportAllocs()
	s := m.Stream()
	measure(b, len(data), func() {
		for i := 0; i < len(data); i += chunk {
			if hits, _ := s.Write(data[i:min(i+chunk, len(data))]); len(hits) > 0 {
				b.Fatal("a hit in noise")
			}
		}
	})
}

// BenchmarkStream: Stream.Write, everything that it does.
func BenchmarkStream(b *testing.B) {
	for _, engine := range Engines() {
		for _, n := range benchSizes {
			m := benchMatcher(b, engine, n)
			for _, kind := range benchKinds {
				data := corpus(kind)
				for _, chunk := range benchChunks {
					b.Run(fmt.Sprintf("%s/values=%d/%s/chunk=%d", short(engine), n, kind, chunk), func(b *testing.B) { benchStream(b, m, data, chunk) })
				}
			}
		}
	}
}

// BenchmarkRaw: the engine by itself on the same needles, one call a chunk.
func BenchmarkRaw(b *testing.B) {
	for _, engine := range Engines() {
		for _, n := range benchSizes {
			m := benchMatcher(b, engine, n)
			for _, kind := range benchKinds {
				data := corpus(kind)
				for _, chunk := range benchChunks {
					b.Run(fmt.Sprintf("%s/values=%d/%s/chunk=%d", short(engine), n, kind, chunk), func(b *testing.B) {
						var ms []match
						measure(b, len(data), func() {
							for i := 0; i < len(data); i += chunk {
								var err error
								if ms, err = m.set.eng.scan(data[i:i+chunk], ms[:0]); err != nil {
									b.Fatal(err)
								}
							}
						})
					})
				}
			}
		}
	}
}

// BenchmarkGrep: grep -F -f, which looks for the same needles in a file of 64 MiB
// in the fastest way that it has: bytes, and only whether there is one.
func BenchmarkGrep(b *testing.B) {
	grep, err := exec.LookPath("grep")
	if err != nil {
		b.Skip(err)
	}
	for _, n := range benchSizes {
		m := benchMatcher(b, goName, n)
		var patterns bytes.Buffer
		for _, d := range m.set.needles[1:] {
			if !bytes.ContainsAny(d, "\x00\n") { // UTF-16: it cannot be in such a file
				patterns.Write(d)
				patterns.WriteByte('\n')
			}
		}
		list := filepath.Join(b.TempDir(), "patterns")
		if err := os.WriteFile(list, patterns.Bytes(), 0o600); err != nil {
			b.Fatal(err)
		}
		for _, kind := range []string{"plain", "text", "hex", "base64"} {
			data := bytes.Repeat(corpus(kind), 64)
			file := filepath.Join(b.TempDir(), kind)
			if err := os.WriteFile(file, data, 0o600); err != nil {
				b.Fatal(err)
			}
			b.Run(fmt.Sprintf("values=%d/%s", n, kind), func(b *testing.B) {
				measure(b, len(data), func() {
					cmd := exec.Command(grep, "-a", "-q", "-F", "-f", list, file)
					cmd.Env = []string{"LC_ALL=C"}
					if err := cmd.Run(); cmd.ProcessState == nil || cmd.ProcessState.ExitCode() != 1 {
						b.Fatal("a hit in noise: ", err)
					}
				})
			})
		}
	}
}

// BenchmarkMemchr: what looking at each byte costs at least: for one byte, and for
// each of those that an escape begins with.
func BenchmarkMemchr(b *testing.B) {
	data := corpus("plain")
	for _, chunk := range benchChunks {
		b.Run(fmt.Sprintf("IndexByte/chunk=%d", chunk), func(b *testing.B) {
			measure(b, len(data), func() {
				for i := 0; i < len(data); i += chunk {
					if bytes.IndexByte(data[i:i+chunk], 0x1b) >= 0 {
						b.Fatal("found")
					}
				}
			})
		})
		b.Run(fmt.Sprintf("IndexByte-6/chunk=%d", chunk), func(b *testing.B) {
			measure(b, len(data), func() {
				for i := 0; i < len(data); i += chunk {
					for _, c := range []byte(introducers) {
						if bytes.IndexByte(data[i:i+chunk], c) >= 0 {
							b.Fatal("found")
						}
					}
				}
			})
		})
		b.Run(fmt.Sprintf("IndexAny/chunk=%d", chunk), func(b *testing.B) {
			measure(b, len(data), func() {
				for i := 0; i < len(data); i += chunk {
					if bytes.IndexAny(data[i:i+chunk], introducers) >= 0 {
						b.Fatal("found")
					}
				}
			})
		})
	}
}

// BenchmarkSmall: one Write of a few bytes, as a key and its echo make, and what
// it costs when something was added and is in a layer of its own.
func BenchmarkSmall(b *testing.B) {
	for _, n := range []int{20, 1000} {
		m := benchMatcher(b, goName, n)
		for _, added := range []bool{false, true} {
			if added {
				if err := m.Add(val("added", "added-value-number-1")); err != nil {
					b.Fatal(err)
				}
			}
			for _, kind := range []string{"plain", "text"} {
				data := corpus(kind)
				for _, chunk := range []int{1, 8, 64} {
					b.Run(fmt.Sprintf("values=%d/added=%v/%s/chunk=%d", n, added, kind, chunk), func(b *testing.B) {
						s := m.Stream()
						b.SetBytes(int64(chunk))
						i := 0
						for b.Loop() {
							s.Write(data[i : i+chunk])
							if i += chunk; i+chunk > len(data) {
								i = 0
							}
						}
					})
				}
			}
		}
	}
}

// BenchmarkNew: from values to a checked set in use, and the memory of that.
func BenchmarkNew(b *testing.B) {
	for _, engine := range Engines() {
		for _, n := range []int{20, 200, 1000, 10_000} {
			if engine != goName && n > 1000 {
				continue // a quarter of a minute
			}
			b.Run(fmt.Sprintf("%s/values=%d", short(engine), n), func(b *testing.B) {
				values := benchValues(n)
				var before, after runtime.MemStats
				runtime.GC()
				runtime.ReadMemStats(&before)
				m := benchMatcher(b, engine, n)
				runtime.GC()
				runtime.ReadMemStats(&after)
				for b.Loop() {
					m, err := NewWith(engine, values)
					if err != nil {
						b.Fatal(err)
					}
					m.Close()
				}
				b.ReportMetric(float64(len(m.set.needles)), "needles")
				b.ReportMetric(float64(after.HeapAlloc-before.HeapAlloc)/(1<<20), "MiB-Go")
			})
		}
	}
}

// BenchmarkAdd: from a value to the next Write that looks for it, which is part of
// each: its time is the one that counts, whatever else there is, and with as many
// others added before as there may be at most.
func BenchmarkAdd(b *testing.B) {
	for _, n := range []int{20, 1000, 10_000} {
		for _, others := range []int{0, 40} {
			b.Run(fmt.Sprintf("values=%d/added=%d", n, others), func(b *testing.B) {
				m := benchMatcher(b, goName, n)
				more := benchValues(n + others + 1)[n:]
				if err := m.Add(more[:others]...); err != nil {
					b.Fatal(err)
				}
				base := m.set
				last := more[others]
				text := last.Secret.Reveal()
				for b.Loop() {
					if err := m.Add(last); err != nil {
						b.Fatal(err)
					}
					if hits, _ := m.Stream().Write(text); len(hits) != 1 {
						b.Fatal("not live")
					}
					b.StopTimer()
					m.set.mu.Lock() // back to where it was; nobody else looks
					next := m.set
					m.edit.Lock()
					m.leaving, m.set, m.gen = nil, &set{gen: base.gen, entries: base.entries, needles: base.needles, encs: base.encs, owner: base.owner, longest: base.longest, bytes: base.bytes, main: base.main, delta: base.delta, eng: base.eng, begin: base.begin, gate: base.gate}, next.gen
					m.cur.Store(m.set)
					m.edit.Unlock()
					b.StartTimer()
				}
			})
		}
	}
}

// BenchmarkHold: what a chunk pays for safe.
func BenchmarkHold(b *testing.B) {
	m := benchMatcher(b, goName, 200)
	data := corpus("text")
	i := 0
	for b.Loop() {
		i = (i + 997) % (len(data) - retain)
		m.set.begin.hold(data[i : i+retain])
	}
}
