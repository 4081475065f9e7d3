//go:build unix

package formats

import (
	"bytes"
	"encoding/base64"
	"encoding/hex"
	"fmt"
	"math/rand/v2"
	"strings"
	"syscall"
	"testing"
	"time"
)

// cpu is how much processor time this process has had. Other programs do not
// change it, as they do the time on the clock.
func cpu() time.Duration {
	var u syscall.Rusage
	if syscall.Getrusage(syscall.RUSAGE_SELF, &u) != nil {
		return 0
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// texts are what is measured: source, and what is hard on a scanner.
func texts(b *testing.B) map[string][][]byte {
	r := rand.New(rand.NewPCG(5, 6))
	random := make([]byte, 4<<20)
	for i := range random {
		random[i] = byte(r.Uint32())
	}
	var src [][]byte
	for _, s := range sources(b, 64<<20) {
		src = append(src, s.text)
	}
	var log, json bytes.Buffer
	for i := range 40000 {
		fmt.Fprintf(&log, "\x1b[2m%02d:%02d:%02d\x1b[0m \x1b[32mINFO\x1b[0m request %x took \x1b[1m%dms\x1b[0m from https://host-%d.internal:8443/api\n", i%24, i%60, i%60, r.Uint64(), r.IntN(900), r.IntN(99))
		fmt.Fprintf(&json, `{"id":%d,"token_type":"bearer","hash":"%x","key":"value-%d","url":"https://a.b/c?d=%d"},`, i, r.Uint64(), r.IntN(999), i)
	}
	one := func(t []byte) [][]byte { return [][]byte{t} }
	return map[string][][]byte{
		"source": src,
		"hex":    one([]byte(hex.EncodeToString(random[:2<<20]))),
		"base64": one([]byte(base64.StdEncoding.EncodeToString(random[:3<<20]))),
		"random": one(random),
		"ansi":   one(log.Bytes()),
		"json":   one(json.Bytes()),
		// Built to be slow.
		"anchors":   one([]byte(strings.Repeat("ghp_ sk-ant- eyJ xoxb- AKIA -----BEGIN RSA PRIVATE KEY-----\n", 1<<15))),
		"beginning": one([]byte(strings.Repeat("-----BEGIN PRIVATE KEY----- aaaa ", 1<<15))),
		"keywords":  one([]byte(strings.Repeat("aws_secret_access_key client_secret authorization: bearer heroku=", 1<<15))),
		"longest":   one([]byte(strings.Repeat("pypi-AgEIcHlwaS5vcmc"+strings.Repeat("a", 600)+" ", 1<<12))),
		"words":     one([]byte(strings.Repeat("abandon ability able about above absent absorb abstract absurd abuse access accident ", 1<<14))),
		"jwts":      one([]byte(strings.Repeat("eyJhbGciOiJIUzI1NiJ9.eyJhbGciOiJIUzI1NiJ9.", 1<<15))),
	}
}

func BenchmarkScan(b *testing.B) {
	s := newSet(b, Options{})
	for name, list := range texts(b) {
		b.Run(name, func(b *testing.B) {
			n := 0
			for _, t := range list {
				n += len(t)
			}
			b.SetBytes(int64(n))
			b.ReportAllocs()
			from := cpu()
			for b.Loop() {
				for _, t := range list {
					s.Scan(t, "")
				}
			}
			b.ReportMetric(float64(n)*float64(b.N)/1e6/(cpu()-from).Seconds(), "MB/cpu-s")
		})
	}
}

func BenchmarkStream(b *testing.B) {
	s := newSet(b, Options{})
	for name, list := range texts(b) {
		for _, size := range []int{64, 4096, 65536} {
			b.Run(fmt.Sprintf("%s/%d", name, size), func(b *testing.B) {
				text := bytes.Join(list, nil)
				text = text[:min(len(text), 4<<20)]
				b.SetBytes(int64(len(text)))
				for b.Loop() {
					st := s.Stream()
					for i := 0; i < len(text); i += size {
						st.Write(text[i:min(len(text), i+size)])
					}
					st.Close()
				}
			})
		}
	}
}

func BenchmarkNew(b *testing.B) {
	for b.Loop() {
		s, err := New(Options{})
		if err != nil {
			b.Fatal(err)
		}
		s.Close()
	}
}
