package matcher

import (
	"encoding/base64"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"guard"
)

// kinds are ways to write one ASCII character, and what a hit is called then.
var kinds = []struct {
	name, format string
	encoding     string
}{
	{"percent", "%%%02x", "percent"}, {"PERCENT", "%%%02X", "percent"}, {"percent twice", "%%25%02x", "percent"}, {"percent u", "%%u%04x", "percent"},
	{"u", `\u%04x`, "json"}, {"U", `\u%04X`, "json"}, {"x", `\x%02x`, "escaped"}, {"X", `\x%02X`, "escaped"}, {"braces", `\u{%x}`, "escaped"}, {"U8", `\U%08x`, "escaped"},
	{"octal", `\%03o`, "escaped"}, {"octal 0", `\0%03o`, "escaped"}, {"u in json", `\\u%04x`, "json"},
	{"decimal", "&#%d;", "html"}, {"hex", "&#x%x;", "html"}, {"HEX", "&#X%04X;", "html"}, {"twice html", "&amp;#%d;", "html"},
	{"colour", "\x1b[1;31m%c\x1b[0m", "ansi"}, {"link", "\x1b]8;;http://x/%%41\x1b\\%c", "ansi"}, {"title", "\x1b]0;t\a%c", "ansi"}, {"charset", "\x1b(B%c", "ansi"},
	{"cr", "\r%c", "ansi"}, {"backspace", "x\b%c", "ansi"}, {"rubout", "x\b \b%c", "ansi"},
	{"shell", "\\\n%c", "escaped"}, {"shell crlf", "\\\r\n%c", "escaped"},
	{"percent of u", `%%5cu%04x`, "json+percent"}, {"colour in json", `\u001b[31m%c`, "ansi+json"},
}

// guarded releases text as a consumer does and fails if a byte of a hit gets
// out before the hit is known.
func guarded(t testing.TB, m *Matcher, pieces ...[]byte) {
	t.Helper()
	s := m.Stream()
	var hits []Hit
	var safe int64
	for _, p := range pieces {
		h, next := s.Write(p)
		for _, h := range h {
			if h.Start < safe {
				t.Fatalf("hit %v, but [..%d) is out", h, safe)
			}
		}
		hits, safe = append(hits, h...), next
	}
	for _, h := range s.Close() {
		if h.Start < safe {
			t.Fatalf("hit %v, but [..%d) is out", h, safe)
		}
	}
}

// Every kind of escape at every place of a value, alone.
func TestOneEscape(t *testing.T) {
	v := "ghp_ZYXWVutsrq" + randString(newRand(50), alphabet, 12)
	m := mustNew(t, val("gh", v))
	for _, k := range kinds {
		for i := range len(v) {
			form := v[:i] + fmt.Sprintf(k.format, v[i]) + v[i+1:]
			text := "a=1&t=" + form + ", b"
			hits := m.Scan([]byte(text))
			edge := i == 0 && (k.encoding == "ansi" || strings.HasPrefix(k.name, "shell")) || k.name == "colour in json" && i == 0
			if len(hits) != 1 || !edge && (hits[0].Encoding != k.encoding || hits[0].Start != 6 && i > 0) || hits[0].End != int64(6+len(form)) && i < len(v)-1 {
				t.Fatalf("%s at %d: %v in %q", k.name, i, hits, text)
			}
			if i > 0 && i < len(v)-1 && strings.ContainsAny(string(Mask(nil, []byte(text), hits, 0)[6:6+len(form)]), v[:i]) && !strings.ContainsAny("gh", v[:i]) {
				t.Fatalf("%s at %d is not masked", k.name, i)
			}
			switch {
			case strings.Contains(k.format, "\b"):
				// A wrong character is out before it is erased.
				for j := range text {
					s := m.Stream()
					h, _ := s.Write([]byte(text[:j]))
					h2, _ := s.Write([]byte(text[j:]))
					if got := merge(append(h, h2...)); !slices.Equal(got, hits) {
						t.Fatalf("%s at %d cut at %d: %v", k.name, i, j, got)
					}
				}
			case i%5 == 0 || i == len(v)-1:
				everySplit(t, m, []byte(text))
			}
		}
	}
}

// mixed writes each byte of v in one of the ways, or as it is.
func mixed(r *rand.Rand, v string, often int) string {
	var b strings.Builder
	for _, c := range []byte(v) {
		if k := kinds[r.IntN(len(kinds))]; r.IntN(often) == 0 && c < 0x80 && !strings.Contains(k.name, "backspace") && !strings.Contains(k.name, "rubout") {
			fmt.Fprintf(&b, k.format, c)
		} else {
			b.WriteByte(c)
		}
	}
	return b.String()
}

func TestMixedEscapes(t *testing.T) {
	r := newRand(51)
	values := map[string]string{"token": "glpat-" + randString(r, alphabet, 20), "password": "Tr0ub4dor-and_3.x", "eight": randString(r, alphabet, 8)}
	for name, v := range values {
		m := mustNew(t, val(name, v))
		for range 200 {
			form := mixed(r, v, 1+r.IntN(6))
			text := []byte("Q: " + form + " .")
			hits := m.Scan(text)
			if len(hits) != 1 {
				t.Fatalf("%q: %v", text, hits)
			}
			if !agree(m.set, text, hits) {
				t.Fatalf("%q: %v, want %v", text, hits, naive(m.set, text))
			}
			for range 6 {
				pieces := cut(r, text)
				if got := play(t, m, pieces...); !slices.Equal(got, hits) {
					t.Fatalf("%q: %v, want %v", pieces, got, hits)
				}
				guarded(t, m, pieces...)
			}
		}
	}
}

// Random text of needles, escapes and what looks like them, against the naive
// decoder.
func TestRandomEscapes(t *testing.T) {
	r := newRand(52)
	n := 2000
	if testing.Short() {
		n = 600
	}
	found := 0
	for i := 0; i < n; {
		values := []guard.Value{val("ab", "ab"+randString(r, "ab", 7)+"c"), val("long", randString(r, alphabet, 8+r.IntN(60)))}
		m := mustNew(t, values...)
		for range 100 {
			b := escapeSoup(r, m.set.needles[1:], r.IntN(400))
			want := naive(m.set, b)
			if got := m.Scan(b); !agree(m.set, b, got) {
				t.Fatalf("stream %d: Scan %v, want %v in %q", i, got, want, b)
			}
			pieces := cut(r, b)
			if got := play(t, m, pieces...); !agree(m.set, b, got) {
				t.Fatalf("stream %d: %v, want %v in %q", i, got, want, pieces)
			}
			found += len(want)
			i++
		}
	}
	if found < n {
		t.Fatalf("only %d hits: this test looked at the wrong thing", found)
	}
}

func escapeSoup(r *rand.Rand, needles [][]byte, n int) []byte {
	var b []byte
	for len(b) < n {
		d := string(needles[r.IntN(len(needles))])
		switch r.IntN(6) {
		case 0, 1:
			b = append(b, mixed(r, d, 1+r.IntN(20))...)
		case 2:
			b = append(b, mixed(r, d[:r.IntN(len(d))], 1+r.IntN(20))...)
		case 3:
			b = append(b, wrap(randString(r, alphabet, r.IntN(50))+d, 4+r.IntN(70), []string{`\n`, `\r\n`, "\n", `\\n`, "%0a", "\r\n", "&#10;"}[r.IntN(7)])...)
		case 4:
			b = append(b, randString(r, "%\\&#;4x6u0{}\x1b[]m\r\n a\"", r.IntN(14))...)
		case 5:
			b = append(b, randString(r, alphabet+"ab \n", r.IntN(100))...)
		}
	}
	return b
}

// Base64 in a JSON string, its line breaks escaped, at any column; and a first
// line that a key shortens.
func TestBase64WrappedInStrings(t *testing.T) {
	r := newRand(53)
	v := "ghp_" + randString(r, alphabet, 36)
	m := mustNew(t, val("gh", v))
	b64 := base64.StdEncoding.EncodeToString([]byte("user:" + v + "\nand more of it"))
	for _, brk := range []string{`\n`, `\r\n`, `\\n`, `\u000a`, `\x0a`, "%0A", "%0D%0A", "&#10;"} {
		for columns := 4; columns <= 80; columns++ {
			text := []byte(`{"k": "` + wrap(b64, columns, brk) + `"}`)
			hits := m.Scan(text)
			if len(hits) != 1 || !strings.Contains(hits[0].Encoding, "base64") {
				t.Fatalf("%q at %d: %v", brk, columns, hits)
			}
			if columns%19 == 0 {
				everySplit(t, m, text)
			}
		}
	}
	for _, text := range []string{"key: " + b64[:50] + "\n     " + b64[50:], "data: " + b64[:48] + "\r\n" + b64[48:],
		"$ export TOKEN=" + strings.Repeat("-", 49) + v[:20] + "\r\n" + v[20:] + "\r\n"} {
		if hits := m.Scan([]byte(text)); len(hits) != 1 || !strings.HasSuffix(hits[0].Encoding, "-wrapped") {
			t.Fatalf("%q: %v", text, hits)
		}
		everySplit(t, m, []byte(text))
	}
	// A value that base64 does not have, broken by a terminal's edge.
	jwt := randString(r, alphabet, 20) + "." + randString(r, alphabet, 40) + "." + randString(r, alphabet, 30) + "=!@"
	m = mustNew(t, val("jwt", jwt))
	for i := foldRun; i < len(jwt); i++ {
		if hits := m.Scan([]byte(jwt[:i] + "\r\n" + jwt[i:])); len(hits) != 1 || hits[0].Encoding != "raw-wrapped" {
			t.Fatalf("cut at %d: %v", i, hits)
		}
	}
}

// A value that holds what looks like an escape, escaped by something else.
func TestValuesThatLookEscaped(t *testing.T) {
	for _, v := range []string{`pass%41word-7`, `p\"w\x41d&lt;9-zz`, `a\nb-%2Fcdefgh`, `R&amp;B-and-100%`, `back\slash\`} {
		m := mustNew(t, val("v", v))
		for i := 1; i < len(v); i++ {
			if strings.ContainsAny(v[max(0, i-5):i], introducers) {
				continue // not in the middle of it
			}
			text := []byte(" " + v[:i] + "\x1b[1m" + v[i:] + " ")
			if hits := m.Scan(text); len(hits) == 0 {
				t.Errorf("%q: not found", text)
			}
		}
	}
}

func TestNoFalsePositivesInEscapes(t *testing.T) {
	r := newRand(54)
	var values []guard.Value
	for name, v := range samples(r) {
		values = append(values, val(name, v))
	}
	for i := range 50 {
		values = append(values, val(fmt.Sprint("p", i), randString(r, alphabet, 8+i%5)))
	}
	m := mustNew(t, values...)
	for _, kind := range []string{"json", "json-u", "form", "html", "ansi", "code", "crlf"} {
		data := escapes(kind)
		for i := 0; i < len(data); i += 64 << 10 {
			if hits := m.Scan(data[i : i+64<<10]); len(hits) != 0 {
				t.Fatalf("%s: %v", kind, hits)
			}
		}
	}
	js, _ := json.Marshal(mixed(r, randString(r, alphabet+`\%&;{}()"'`, 100_000), 3))
	if hits := m.Scan(js); len(hits) != 0 {
		t.Fatal(hits)
	}
}

// What is blown up without end is let go.
func TestViewsAreBounded(t *testing.T) {
	v := "ghp_" + randString(newRand(55), alphabet, 36)
	m := mustNew(t, val("gh", v))
	for what, unit := range map[string]string{"colours": "\x1b[0m", "title": "\x1b]0;xxxxxxxx", "lines": "\\\n", "cr": "\r", "erased": "x\b"} {
		s := m.Stream()
		_, safe := s.Write([]byte("$ " + v[:20]))
		for range 20_000 {
			_, safe = s.Write([]byte(unit))
		}
		if pos := int64(22 + 20_000*len(unit)); pos-safe > maxSpan+64 {
			t.Errorf("%s: %d bytes are held", what, pos-safe)
		}
		if n := cap(s.layers.views[0].b) + 32*cap(s.layers.views[0].segs) + cap(s.layers.views[0].pend.b); n > 64<<10 {
			t.Errorf("%s: %d bytes of memory", what, n)
		}
		if hits, _ := s.Write([]byte(" " + v + " ")); len(hits) != 1 {
			t.Errorf("%s: %v", what, hits)
		}
	}
}

func TestValueAddedInTheMiddleOfAnEscapedOne(t *testing.T) {
	v := "glpat-" + randString(newRand(56), alphabet, 20)
	for i := 1; i < len(v); i++ {
		m := mustNew(t, val("other", "some-other-value"))
		s := m.Stream()
		form := v[:5] + fmt.Sprintf("%%%02x", v[5]) + v[6:]
		s.Write([]byte("$ " + form[:i]))
		if err := m.Add(val("late", v)); err != nil {
			t.Fatal(err)
		}
		if hits, _ := s.Write([]byte(form[i:] + "!")); len(hits) != 1 || hits[0].Start != 2 || hits[0].Encoding != "percent" {
			t.Fatalf("cut at %d: %v", i, hits)
		}
	}
}

func FuzzEscapes(f *testing.F) {
	f.Add("abcdefgh", []byte(`a\u0062c%64efgh`), uint64(1))
	f.Add("babab-ab", []byte("ba\x1b[0mb\\141b&#45;ab\\"), uint64(2))
	f.Fuzz(func(t *testing.T, v string, text []byte, seed uint64) {
		if len(v) > 200 || len(text) > 1000 || strings.ContainsAny(v, introducers) || strings.ContainsRune(string(text), '\b') || Refuse(guard.NewSecret([]byte(v))) != nil {
			t.Skip()
		}
		m := mustNew(t, val("v", v))
		r := newRand(seed)
		text = append(text, escapeSoup(r, m.set.needles[1:], 100)...)
		if got, want := play(t, m, cut(r, text)...), naive(m.set, text); !agree(m.set, text, got) {
			t.Fatalf("%v, want %v in %q", got, want, text)
		}
	})
}
