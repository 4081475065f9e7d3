package matcher

import (
	"bytes"
	"slices"
	"strings"
	"testing"
)

func TestMask(t *testing.T) {
	hit := func(name string, start, end int64) Hit { return Hit{ID: id(name), Start: start, End: end} }
	for _, c := range []struct {
		in, want string
		hits     []Hit
	}{
		{"token ghp_0123456789abcdef end", "token [github-pat]******** end", []Hit{hit("github-pat", 6, 26)}},
		{"x 0123456789 y", "x ********** y", []Hit{hit("name-that-is-long", 2, 12)}},
		{"x 01234567 y", "x [exact6] y", []Hit{hit("exact6", 2, 10)}},
		{"abcdefghijklmnop", "[a]*********mnop", []Hit{hit("a", 0, 8), hit("b", 4, 12)}},
		{"abcdefghijklmnop", "[a]*********mnop", []Hit{hit("a", 0, 12), hit("b", 2, 6)}},
		{"abcdefghijklmnop", "[a]*****[b]*****", []Hit{hit("a", 0, 8), hit("b", 8, 16)}},
		{"ab\ncdefgh\r\nijkl", "[k\ny]****\r\n****", []Hit{hit("key", 0, 15)}},
		{"0123456789", "[_x1b__]**", []Hit{hit("\nx1b\"]", 0, 10)}},
		{"пароль-x", strings.Repeat("*", 14), []Hit{hit("sixteen-or-more-x", 0, 14)}},
		{"0123456789", "**********", []Hit{{Encoding: "unknown", End: 10}}},
		{"clean", "clean", nil},
	} {
		got := string(Mask([]byte("<"), []byte(c.in), c.hits, 0))
		if got != "<"+c.want {
			t.Errorf("%q: %q, want %q", c.in, got, c.want)
		}
		for i := 0; i <= len(c.in); i++ { // in two pieces, in place
			a, b := []byte(c.in[:i]), []byte(c.in[i:])
			if got := string(Mask(a[:0], a, c.hits, 0)) + string(Mask(nil, b, c.hits, int64(i))); got != c.want {
				t.Errorf("%q cut at %d: %q, want %q", c.in, i, got, c.want)
			}
		}
	}
}

// A consumer that releases bytes before safe, masked with all hits so far,
// never lets one out: for every cut.
func TestMaskedStreamLetsNothingOut(t *testing.T) {
	v := "ghp_" + randString(newRand(20), alphabet, 36)
	m := mustNew(t, val("github-pat", v), val("outer", "https://x:"+v+"@h"))
	text := []byte("a " + v + v + " https://x:" + v + "@h ghp_ https://x:" + v[:20] + "\n")
	want := Mask(nil, text, m.Scan(text), 0)
	if bytes.Contains(want, []byte(v[4:12])) && !bytes.HasSuffix(want, []byte(v[:20]+"\n")) || len(want) != len(text) {
		t.Fatalf("%s", want)
	}
	for i := 0; i <= len(text); i++ {
		s := m.Stream()
		var hits []Hit
		var out []byte
		for _, p := range [][]byte{text[:i], text[i:]} {
			h, safe := s.Write(p)
			hits = append(hits, h...)
			slices.SortFunc(hits, compare)
			out = append(out, Mask(nil, text[len(out):safe], hits, int64(len(out)))...)
		}
		hits = append(hits, s.Close()...) // what may have gone on in the next line
		out = append(out, Mask(nil, text[len(out):], hits, int64(len(out)))...)
		if len(out) != len(text) || bytes.Count(out, []byte(v[4:20])) != 1 {
			t.Fatalf("cut at %d: %s", i, out)
		}
	}
}
