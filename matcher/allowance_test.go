package matcher

import (
	"bytes"
	"encoding/base64"
	"slices"
	"strings"
	"testing"
)

// made is how many bytes came out of what is compressed in a stream.
func made(s *Stream) (n int64) {
	for i := range s.layers.members.slots {
		n += s.layers.members.slots[i].made
	}
	return n
}

// However many bombs there are in a stream, one after the other, two at a time or in each
// other, no more comes out than the stream is good for.
func TestBombsShareAnAllowance(t *testing.T) {
	v := "tok-" + randString(newRand(153), alphabet, 30)
	m := mustNew(t, val("v", v))
	zeros := strings.Repeat("\x00", 2<<20)
	bomb := gzipped(t, zeros)
	for what, data := range map[string]string{
		"one after the other": strings.Repeat(bomb, 40),
		"two at a time":       strings.Repeat("x\x9cK\t", 100_000),
		"in each other":       strings.Repeat(gzipped(t, strings.Repeat(bomb, 40)), 10),
		"and zlib":            strings.Repeat(bomb+zlibbed(t, zeros), 10),
	} {
		s := m.Stream()
		for p := range slices.Chunk([]byte(data), 1000) {
			s.Write(p)
			// Each of two slots, and what its last read may be over.
			if most := 2 * (freeBytes + maxRatio*s.pos + 4*outSize); made(s) > most {
				t.Fatalf("%s: %d bytes came out of %d", what, made(s), s.pos)
			}
		}
		if made(s) < freeBytes {
			t.Errorf("%s: %d bytes came out", what, made(s))
		}
		// What is not compressed, or comes when the stream is good for it again, is found.
		if hits, _ := s.Write([]byte("\n" + v + "\n")); len(hits) == 0 {
			t.Errorf("%s: not found after it", what)
		}
		for range 200 {
			s.Write(bytes.Repeat([]byte("some words of text \n"), 2000))
		}
		if hits, _ := s.Write([]byte(gzipped(t, "key: "+v) + "\n\n")); len(hits) == 0 {
			t.Errorf("%s: not found later", what)
		}
		s.Close()
		if s.Reset(); made(s) != 0 {
			t.Errorf("%s: Reset keeps what came out", what)
		}
	}
}

// Text that compresses as text does is looked through to its end, and what is found does
// not depend on how the stream is cut, also where less is looked at than there is.
func TestAllowanceIsEnoughForText(t *testing.T) {
	r := newRand(154)
	v := "tok-" + randString(r, alphabet, 30)
	m := mustNew(t, val("v", v))
	words := strings.Fields(string(corpus("plain")[:100_000]))
	var b strings.Builder
	for b.Len() < 6<<20 {
		b.WriteString(words[r.IntN(len(words))] + " " + randString(r, alphabet[:16], r.IntN(3)) + "\n")
	}
	text := b.String() + v + "\n"
	z := gzipped(t, text)
	t.Logf("%.1f bytes for one", float64(len(text))/float64(len(z)))
	for what, data := range map[string]string{"gzip": z, "base64": base64.StdEncoding.EncodeToString([]byte(z))} {
		if hits := m.Scan([]byte(data)); len(hits) == 0 {
			t.Errorf("%s: not found", what)
		}
	}
	for _, n := range []int{freeBytes - 9, freeBytes, freeBytes + 8000, freeBytes + 60_000, 2 * freeBytes} {
		data := []byte(gzipped(t, strings.Repeat("\x00", n)+v+" ") + "\n" + gzipped(t, v+" ") + " \n")
		want := m.Scan(data)
		for range 3 {
			if got := play(t, m, cut(r, data)...); !slices.Equal(got, want) {
				t.Fatalf("%d: %v, want %v", n, got, want)
			}
		}
	}
}
