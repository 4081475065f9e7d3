package matcher

import (
	"bytes"
	"compress/flate"
	"compress/gzip"
	"compress/zlib"
	"io"
	"math/rand"
	"testing"

	"github.com/klauspost/compress/zstd"
)

// Whatever a compressor makes is plausible, at every length that is there.
func TestPlausible(t *testing.T) {
	rnd := rand.New(rand.NewSource(1))
	for range 300 {
		b := make([]byte, 1+rnd.Intn(3000))
		letters := 1 + rnd.Intn(255)
		for i := range b {
			b[i] = byte(rnd.Intn(letters))
		}
		for level := flate.HuffmanOnly; level <= 9; level++ {
			var z, g bytes.Buffer
			zw, err := zlib.NewWriterLevel(&z, level)
			if err != nil {
				t.Fatal(err)
			}
			zw.Write(b)
			zw.Close()
			gw, err := gzip.NewWriterLevel(&g, level)
			if err != nil {
				t.Fatal(err)
			}
			gw.Write(b)
			gw.Close()
			for _, p := range [][]byte{z.Bytes(), g.Bytes()} {
				for n := 3; n <= min(len(p), 30); n++ {
					if isMagic(p[:n]) == decoded && !plausible(p[:n]) {
						t.Fatalf("level %d, %d bytes: % x is not plausible", level, n, p[:n])
					}
				}
			}
		}
		e, err := zstd.NewWriter(nil)
		if err != nil {
			t.Fatal(err)
		}
		if p := e.EncodeAll(b, nil); !plausible(p) {
			t.Fatalf("zstd: % x", p[:8])
		}
	}
	for _, bad := range []string{"x\x9cx\x9cx\x9cx\x9c", "\x1f\x8b\x08\x00\x00\x00\x00\x00\x00\x03\x1f\x8b", "\x1f\x8b\x08\xff\x00", "\x28\xb5\x2f\xfd\x28"} {
		if plausible([]byte(bad)) {
			t.Errorf("%q is plausible", bad)
		}
	}
}

// BenchmarkBeginnings is text made of beginnings of what takes long to look into.
func BenchmarkBeginnings(b *testing.B) {
	m, err := New(benchValues(20))
	if err != nil {
		b.Fatal(err)
	}
	defer m.Close()
	for name, p := range map[string]string{
		"escape": "\x1b[", "zlib": "x\x9c", "zlib-fixed": "x\x9cK", "gzip": "\x1f\x8b\x08\x00\x00\x00\x00\x00\x00\x03",
		"zstd": "\x28\xb5\x2f\xfd", "backslash": "\\", "bracket": "[", "list": "49,", "base64": "QUFB", "osc": "\x1b]0;a",
		"breaks": `\na`, "breaks-twice": `\\n`, "zip": "PK\x03\x04", "zstd-block": "\x28\xb5\x2f\xfd0", "gzip-quote": "\x1f\x8b\x08\x00\x00\x00\x00\x00\x00\x03\"", "bomb": "x\x9cK\t",
	} {
		text := bytes.Repeat([]byte(p), (1<<20)/len(p))
		b.Run(name, func(b *testing.B) {
			measure(b, len(text), func() {
				s := m.Stream()
				for i := 0; i < len(text); i += 64 << 10 {
					s.Write(text[i:min(i+64<<10, len(text))])
				}
				s.Close()
			})
		})
	}
}

// What comes out of whatever a compressor made is not left out, and what is left out
// has nothing in it.
func TestNothingIsLeftOut(t *testing.T) {
	r := newRand(144)
	var sp spares
	defer sp.drop()
	v := "tok-" + randString(r, alphabet, 20)
	for range 200 {
		text := randString(r, alphabet[:1+r.IntN(60)], r.IntN(400)) + v + randString(r, alphabet, r.IntN(100))
		var z bytes.Buffer
		w, err := zlib.NewWriterLevel(&z, r.IntN(12)-2)
		if err != nil {
			t.Fatal(err)
		}
		w.Write([]byte(text))
		w.Close()
		e, err := zstd.NewWriter(nil, zstd.WithEncoderLevel(zstd.EncoderLevel(1+r.IntN(4))))
		if err != nil {
			t.Fatal(err)
		}
		for _, p := range []string{z.String(), gzipped(t, text), zipped(t, text), string(e.EncodeAll([]byte(text), nil))} {
			for n := magicBytes; n <= len(p); n++ {
				if isMagic([]byte(p[:n])) == decoded && sp.nothing([]byte(p[:n])) {
					t.Fatalf("%d bytes of % x are left out", n, p)
				}
			}
			if isMagic([]byte(p)) != decoded {
				continue // "x^" and what is text
			}
			// What is broken at its end is searched up to there.
			m := mustNew(t, val("v", v))
			for _, end := range []string{"", "\xff\xff\xff\xff\xff"} {
				if hits := m.Scan([]byte("> " + p + end + " <")); len(hits) == 0 {
					t.Fatalf("% x: not found", p)
				}
			}
		}
	}
	for _, bad := range []string{"\x28\xb5\x2f\xfd\x01\x07\x01\x00\x00\x00\x00\x00", "\x28\xb5\x2f\xfd\x00\xff\x01\x00\x00\x00", "\x28\xb5\x2f\xfd\x20\x08\x06\x00\x00\x00", "PK\x03\x04\x14\x00\x00\x00\x00\x00"} {
		if !sp.nothing([]byte(bad)) {
			t.Errorf("% x is opened", bad)
		}
	}
}

// A look at a block of fixed codes says of no stream that nothing comes out of it that a
// decompressor gets something out of.
func TestEndsIsRight(t *testing.T) {
	r := newRand(152)
	said, open := 0, 0
	for range 300_000 {
		b := make([]byte, 8+r.IntN(40))
		for i := range b {
			if b[i] = byte(r.Uint32()); r.IntN(3) == 0 {
				b[i] = 0
			}
		}
		b[0] = b[0]&^6 | 2
		var out [minNeedle]byte
		n, _ := io.ReadFull(flate.NewReader(bytes.NewReader(append(b, make([]byte, 64)...))), out[:])
		switch {
		case !ends(b):
			open++
		case n == minNeedle:
			t.Fatalf("% x", b)
		default:
			said++
		}
	}
	if said < 1000 || open < 1000 {
		t.Errorf("it said %d times yes, and %d times no", said, open)
	}
}
