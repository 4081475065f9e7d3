package matcher

import (
	"bytes"
	"encoding/base64"
	"encoding/hex"
	"fmt"
	"slices"
	"strings"
	"testing"

	"guard"
)

// The processor's way and the plain one see the same bits, in every alphabet.
func TestPlanes(t *testing.T) {
	r := newRand(140)
	for _, a := range []*alphabetOf{&base64Alphabet, &hexAlphabet, &base32Alphabet, &lower32} {
		var chars []byte
		for c, v := range a.value {
			if v >= 0 {
				chars = append(chars, byte(c))
			}
		}
		for n := range 6 {
			b := []byte(randString(r, string(chars), n*dozeBlock))
			got, want := make([]planes, n), make([]planes, n)
			planesOf(got, b, a)
			planesGo(want, b, a)
			if !slices.Equal(got, want) {
				t.Fatalf("%s: %x, want %x", a.name, got, want)
			}
		}
		for i, c := range chars {
			var p [1]planes
			planesOf(p[:], bytes.Repeat([]byte{c}, dozeBlock), a)
			for k, x := range p[0] {
				if want := -(uint64(a.value[c]) >> k & 1); x != want {
					t.Fatalf("%s: plane %d of %q (%d): %x", a.name, k, c, i, x)
				}
			}
		}
	}
}

// In no run whatever is left out that may be a needle or text: masks and gate say yes
// wherever one lies in what is not.
func TestNothingIsDozedOver(t *testing.T) {
	r := newRand(141)
	v := "tok-" + randString(r, alphabet, 22)
	m := mustNew(t, val("v", v), val("short", "pw"+randString(r, alphabet, 6)))
	short := string(m.set.entries[2].needles[0].b)
	encoders := map[string]func([]byte) string{
		"base64": func(b []byte) string { return base64.StdEncoding.EncodeToString(b) },
		"hex":    hex.EncodeToString,
		"HEX":    func(b []byte) string { return strings.ToUpper(hex.EncodeToString(b)) },
		"base32": func(b []byte) string { return string(appendBase32(nil, b, 0, digits32)) },
		"lower":  func(b []byte) string { return string(appendBase32(nil, b, 0, lowers32)) },
	}
	inner := map[string]string{
		"percent": "%74" + v[1:], "reversed": reversed(v), "utf-16": string(utf16Bytes(v, false)), "hex": hex.EncodeToString([]byte(v)),
		"base64": base64.StdEncoding.EncodeToString([]byte("x" + v)), "short": reversed(short), "list": fmt.Sprintf("% x", v), "u": fmt.Sprintf(`\u%04x`, v[0]) + v[1:],
	}
	noise := corpus("random")
	for name, encode := range encoders {
		for what, form := range inner {
			for n := range 12 {
				before := 300 + r.IntN(900)
				at := r.IntN(len(noise) - 6000)
				b := append(append(append(bytes.Clone(noise[at:at+before]), 0xff), form+"\xff"...), noise[at+before:at+before+r.IntN(600)]...)
				text := encode(b)
				if name == "base64" && n%3 == 0 {
					text = wrap(text, 64+n, []string{"\n", "\r\n", "\n  "}[n%3])
				}
				text = "> " + text + " .\n"
				hits := m.Scan([]byte(text))
				if len(hits) == 0 {
					t.Fatalf("%s of %s, %d bytes before it: not found", name, what, before)
				}
				pieces := cut(r, []byte(text))
				if got := play(t, m, pieces...); !slices.Equal(got, hits) {
					t.Fatalf("%s of %s: %v, want %v", name, what, got, hits)
				}
			}
		}
	}
}

// A value that is added while a run is looked over is found in what is kept of it.
func TestAddedWhileARunIsAsleep(t *testing.T) {
	r := newRand(142)
	v := "glpat-" + randString(r, alphabet, 20)
	noise := corpus("random")
	for i := range 44 {
		at := r.IntN(len(noise) - 3000)
		b := append(append(bytes.Clone(noise[at:at+1200]), reversed(v)...), noise[at+1200:at+1300]...)
		text := base64.StdEncoding.EncodeToString(b)
		m := mustNew(t, val("other", "some-other-value"))
		s := m.Stream()
		n := 1590 + i
		s.Write([]byte(text[:n]))
		if err := m.Add(val("late", v)); err != nil {
			t.Fatal(err)
		}
		hits, _ := s.Write([]byte(text[n:] + "\n"))
		if hits = append(hits, s.Close()...); len(hits) != 1 || hits[0].Encoding != "base64+reversed" {
			t.Fatalf("cut at %d: %v", n, hits)
		}
	}
}

// Values of which masks say nothing are looked for without them.
func TestOddValues(t *testing.T) {
	r := newRand(143)
	noise := corpus("random")
	for _, v := range []string{"ab\tcd\tef\tgh1", "пароль-№7-é", "\xff\xfe\x01abc\x02\x03x\x80zz", "k1\nk2\nk3\nk4"} {
		if guardErr := Refuse(guard.NewSecret([]byte(v))); guardErr != nil {
			continue
		}
		m := mustNew(t, val("v", v))
		for range 20 {
			at := r.IntN(len(noise) - 3000)
			b := append(append(bytes.Clone(noise[at:at+900]), reversed(v)...), noise[at+900:at+1200]...)
			for _, text := range []string{base64.StdEncoding.EncodeToString(b), hex.EncodeToString(b)} {
				hits := m.Scan([]byte(text))
				if len(hits) == 0 {
					t.Fatalf("%q is not found", v)
				}
				if got := play(t, m, cut(r, []byte(text))...); !slices.Equal(got, hits) {
					t.Fatalf("%q: %v, want %v", v, got, hits)
				}
			}
		}
	}
}
