package matcher

import (
	"bytes"
	"encoding/base64"
	"encoding/hex"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"testing"

	"guard"
)

func occurrences(b, d []byte) (at []int) {
	for i := 0; ; i++ {
		j := bytes.Index(b[i:], d)
		if j < 0 {
			return at
		}
		i += j
		at = append(at, i)
	}
}

// play writes b in pieces and checks what Write promises: hits end in the
// piece, safe never goes back, is exact, and no later hit touches a byte before
// it. It returns all hits, merged.
func play(t testing.TB, m *Matcher, pieces ...[]byte) []Hit {
	t.Helper()
	s := m.Stream()
	var all []Hit
	var pos, safe int64
	var b []byte
	for i, p := range pieces {
		b = append(b, p...)
		hits, next := s.Write(p)
		for _, h := range hits {
			if h.End <= safe && h.End < pos || h.End > pos+int64(len(p)) {
				t.Fatalf("piece %d [%d,%d): hit [%d,%d) does not end in it, or in what is held", i, pos, pos+int64(len(p)), h.Start, h.End)
			}
			if h.Start < safe && bytes.IndexByte(b, '\b') < 0 { // a backspace may take away what is out
				t.Fatalf("piece %d: hit [%d,%d) %s begins before safe %d: %q", i, h.Start, h.End, h.Encoding, safe, pieces[:i+1])
			}
			if slices.Contains(all, h) {
				t.Fatalf("hit [%d,%d) reported twice", h.Start, h.End)
			}
		}
		pos += int64(len(p))
		if next < safe || next > pos {
			t.Fatalf("piece %d: safe %d after %d, at %d", i, next, safe, pos)
		}
		if want := pos - int64(naiveHold(m.set, b)); next > want {
			t.Fatalf("piece %d: safe is %d, want %d", i, next, want)
		}
		safe = next
		all = append(all, hits...)
	}
	for _, h := range s.Close() {
		if h.Start < safe || slices.Contains(all, h) {
			t.Fatalf("Close reports %v, safe %d: %q", h, safe, pieces)
		}
		all = append(all, h)
	}
	return merge(all)
}

// naiveHold is the longest end of b that is a proper beginning of a needle.
func naiveHold(set *set, b []byte) int {
	best := 0
	for _, d := range set.needles[1:] {
		for n := min(len(d)-1, len(b)); n > best; n-- {
			if bytes.HasSuffix(b, d[:n]) {
				best = n
			}
		}
	}
	return best
}

// everySplit cuts b in two at every point, and in single bytes.
func everySplit(t testing.TB, m *Matcher, b []byte) {
	t.Helper()
	want := m.Scan(b)
	if !agree(m.set, b, want) {
		t.Fatalf("Scan: %v, want %v", want, naive(m.set, b))
	}
	for i := 0; i <= len(b); i++ {
		if got := play(t, m, b[:i], b[i:]); !slices.Equal(got, want) {
			t.Fatalf("cut at %d of %d: %v, want %v", i, len(b), got, want)
		}
	}
	var bytewise [][]byte
	for i := range b {
		bytewise = append(bytewise, b[i:i+1])
	}
	if got := play(t, m, bytewise...); !slices.Equal(got, want) {
		t.Fatalf("byte by byte: %v, want %v", got, want)
	}
}

func TestEverySplitPoint(t *testing.T) {
	r := newRand(10)
	for name, v := range samples(r) {
		m := mustNew(t, val(name, v))
		e := m.set.entries[1]
		last := encoding(255)
		for _, n := range e.needles {
			if n.enc == last && r.IntN(4) > 0 {
				continue // one of each kind for sure, and some of the others
			}
			last = n.enc
			text := append([]byte(v[:3]+"> "), n.b...)
			text = append(append(text, v[:5]...), "\r\n"...)
			if hits := m.Scan(text); len(hits) == 0 {
				t.Fatalf("%s %s: not found", name, encodingNames[n.enc])
			}
			everySplit(t, m, text)
		}
	}
}

func wrap(s string, columns int, brk string) string {
	var b strings.Builder
	for len(s) > columns {
		b.WriteString(s[:columns] + brk)
		s = s[columns:]
	}
	return b.String() + s
}

// Base64 broken at 64 and 76 columns, at every offset of the value in the line.
func TestWrappedBase64(t *testing.T) {
	r := newRand(11)
	v := "ghp_" + randString(r, alphabet, 36)
	m := mustNew(t, val("gh", v))
	crossed := 0
	for _, columns := range []int{60, 64, 76} {
		for _, brk := range []string{"\n", "\r\n", "\n    "} {
			for before := range 80 {
				plain := randString(r, alphabet, before) + v + randString(r, alphabet, 30)
				text := wrap(base64.StdEncoding.EncodeToString([]byte(plain)), columns, brk) + "\n"
				hits := m.Scan([]byte(text))
				if len(hits) != 1 || !strings.HasPrefix(hits[0].Encoding, "base64") {
					t.Fatalf("%d columns, %d bytes before: %v", columns, before, hits)
				}
				if strings.HasSuffix(hits[0].Encoding, "-wrapped") {
					crossed++
				}
				if before%16 == 5 {
					everySplit(t, m, []byte(text))
				}
			}
		}
	}
	if crossed < 300 {
		t.Errorf("only %d hits across a line break: this test looked at the wrong thing", crossed)
	}
	// xxd -p, and a key that fills many lines.
	long := randString(r, alphabet, 700)
	m = mustNew(t, val("gh", v), val("long", long))
	for text, n := range map[string]int{
		wrap(hex.EncodeToString([]byte("xx"+v+"yy")), 60, "\n") + "\n":                          1,
		wrap(base64.StdEncoding.EncodeToString([]byte("xx"+long+"y")), 76, "\n") + "\n\ntext\n": 2,
	} {
		if hits := m.Scan([]byte(text)); len(hits) != n {
			t.Errorf("%d hits, want %d", len(hits), n)
		}
		everySplit(t, m, []byte(text))
	}
	// What looks like it and is not: an empty line, a control character, too deep.
	b64 := base64.StdEncoding.EncodeToString([]byte(v))
	for _, text := range []string{strings.Repeat("x", 60) + b64[:20] + "\n\n" + b64[20:], strings.Repeat("x", 60) + b64[:20] + "\v\n" + b64[20:],
		strings.Repeat("x", 60) + b64[:20] + "\n" + strings.Repeat(" ", 17) + b64[20:]} {
		if hits := m.Scan([]byte(text)); len(hits) != 0 {
			t.Errorf("%q: %v", text, hits)
		}
		everySplit(t, m, []byte(text))
	}
}

// A value of many needles, written in chunks around the sizes where the code
// takes another way.
func TestLongValuesAndChunks(t *testing.T) {
	r := newRand(12)
	long, key := randString(r, alphabet+"._-", 3000), pemKey(r, "PRIVATE KEY", 20)
	m := mustNew(t, val("long", long), val("pem", key), val("short", "ab"+randString(r, alphabet, 6)))
	text := []byte(strings.Repeat("noise and noise\n", 20) + long + "\n" + key + strings.Repeat("more noise\n", 700) + hex.EncodeToString([]byte(long)) + base64.StdEncoding.EncodeToString([]byte(key)) + "\n")
	want := naive(m.set, text)
	if len(want) < 20 {
		t.Fatalf("only %d hits", len(want))
	}
	got := m.Scan(text)
	if !agree(m.set, text, got) {
		t.Fatal("Scan differs")
	}
	want = got
	for _, n := range []int{64, 510, 511, 512, 513, 1024, 1500, 4095, 4096, 4097, 4096 + 511, 5000} {
		if got := play(t, m, slices.Collect(slices.Chunk(text, n))...); !slices.Equal(got, want) {
			t.Errorf("chunks of %d: %d hits, want %d", n, len(got), len(want))
		}
	}
}

// soup is text that is likely to hold needles, beginnings of needles, wrapped
// base64 and things that look like it.
func soup(r *rand.Rand, needles [][]byte, n int) []byte {
	var b []byte
	for len(b) < n {
		d := needles[r.IntN(len(needles))]
		switch r.IntN(8) {
		case 0, 1:
			b = append(b, d...)
		case 2, 3:
			b = append(b, d[:r.IntN(len(d))]...)
		case 4:
			b = append(b, d[r.IntN(len(d)):]...)
		case 5:
			b = append(b, wrap(randString(r, alphabet, r.IntN(150))+string(d), 60+r.IntN(17), []string{"\n", "\r\n", "\n  "}[r.IntN(3)])...)
		case 6:
			b = append(b, randString(r, "ab \n\r", r.IntN(12))...)
		case 7:
			b = append(b, randString(r, alphabet+"+/ \n", r.IntN(80))...)
		}
	}
	return b
}

func cut(r *rand.Rand, b []byte) (pieces [][]byte) {
	top := []int{2, 8, 70, 600, 3000}[r.IntN(5)]
	for len(b) > 0 {
		n := min(len(b), r.IntN(top)+1)
		pieces, b = append(pieces, b[:n]), b[n:]
	}
	return pieces
}

// Random streams against the naive search.
func TestRandomStreams(t *testing.T) {
	r := newRand(13)
	n := 4000
	if testing.Short() {
		n = 1000
	}
	hits := 0
	for i := 0; i < n; {
		values := []guard.Value{val("ab", "ab"+randString(r, "ab", 7)+"c"), val("long", randString(r, alphabet, 8+r.IntN(60)))}
		if r.IntN(3) == 0 {
			values = append(values, val("more", randString(r, "abc", 9)+"d"), val("lines", randString(r, alphabet, 17)+"\n"+randString(r, alphabet, 70)))
		}
		m := mustNew(t, values...)
		for range 100 {
			b := soup(r, m.set.needles[1:], r.IntN(300))
			want := naive(m.set, b)
			got := m.Scan(b)
			if !agree(m.set, b, got) {
				t.Fatalf("stream %d: %v, want %v in %q", i, got, want, b)
			}
			if cut := play(t, m, cut(r, b)...); !slices.Equal(cut, got) {
				t.Fatalf("stream %d: %v, want %v in %q", i, cut, got, b)
			}
			hits += len(want)
			i++
		}
	}
	if hits < n/2 {
		t.Fatalf("only %d hits: this test looked at the wrong thing", hits)
	}
}

// A value that becomes known when its first half is written already.
func TestAddedInTheMiddle(t *testing.T) {
	r := newRand(14)
	v := "glpat-" + randString(r, alphabet, 20)
	for i := 0; i <= len(v); i++ {
		m := mustNew(t, val("other", "some-other-value"))
		s := m.Stream()
		s.Write([]byte("$ " + v[:i]))
		if err := m.Add(val("late", v)); err != nil {
			t.Fatal(err)
		}
		hits, safe := s.Write([]byte(v[i:] + "!"))
		if i == len(v) {
			continue // all of it was out before it was known, or not
		}
		if len(hits) != 1 || hits[0].Start != 2 || hits[0].End != int64(2+len(v)) || safe != int64(3+len(v)) {
			t.Fatalf("cut at %d: %v, safe %d", i, hits, safe)
		}
	}
	// It lies in bytes that are held back for another one: found before they go.
	for _, end := range []func(*Stream) []Hit{func(s *Stream) []Hit { h, _ := s.Write([]byte("zz")); return h }, (*Stream).Close} {
		m := mustNew(t, val("long", "prefix-"+v+"-and-more"))
		s := m.Stream()
		if _, safe := s.Write([]byte("prefix-" + v + "-a")); safe != 0 {
			t.Fatal(safe)
		}
		if err := m.Set([]guard.Value{val("late", v)}); err != nil {
			t.Fatal(err)
		}
		if hits := end(s); len(hits) != 1 || hits[0].Start != 7 {
			t.Fatalf("%v", hits)
		}
	}
	// And one that was reported is not reported again by an unrelated change.
	m := mustNew(t, val("short", v), val("long", v+"-and-more"))
	s := m.Stream()
	if hits, _ := s.Write([]byte(v)); len(hits) != 1 {
		t.Fatal(hits)
	}
	if err := m.Add(val("x", "unrelated-value")); err != nil {
		t.Fatal(err)
	}
	if hits, _ := s.Write([]byte("-and")); len(hits) != 0 {
		t.Fatal(hits)
	}
	if hits, _ := s.Write([]byte("-more")); len(hits) != 1 || hits[0].Start != 0 {
		t.Fatal(hits)
	}
	// Wrapped base64, with the line break between.
	b64 := base64.StdEncoding.EncodeToString([]byte(strings.Repeat("x", 45) + v + "yyy"))
	m = mustNew(t)
	s = m.Stream()
	s.Write([]byte(b64[:76] + "\n"))
	if err := m.Add(val("late", v)); err != nil {
		t.Fatal(err)
	}
	if hits, _ := s.Write([]byte(b64[76:])); len(hits) != 1 || hits[0].Encoding != "base64-wrapped" {
		t.Fatal(hits)
	}
}

func TestRemovedInTheMiddle(t *testing.T) {
	m := mustNew(t, val("a", "value-number-one"), val("b", "value-number-two"))
	s := m.Stream()
	if _, safe := s.Write([]byte("value-number-o")); safe != 0 {
		t.Fatal(safe)
	}
	if err := m.Remove(id("a")); err != nil {
		t.Fatal(err)
	}
	// "o" begins the other one reversed.
	if hits, safe := s.Write(nil); len(hits) != 0 || safe != 13 {
		t.Fatalf("%v %d", hits, safe)
	}
	if hits, safe := s.Write([]byte("n#")); len(hits) != 0 || safe != 16 {
		t.Fatalf("%v %d", hits, safe)
	}
}

// Many streams while the values change: each finds the one that never does.
func TestSetWithManyStreams(t *testing.T) {
	r := newRand(15)
	fixed := val("fixed", "fixed-"+randString(r, alphabet, 20))
	v := string(fixed.Secret.Reveal())
	m := mustNew(t, fixed)
	var readers sync.WaitGroup
	for i := range 8 {
		readers.Go(func() {
			r := newRand(uint64(100 + i))
			for range 10 {
				s := m.Stream()
				text := []byte(randString(r, alphabet+"\n ", 1000) + v + strings.Repeat(" x\n", 900) + hex.EncodeToString([]byte(v)))
				n := 0
				for _, p := range cut(r, text) {
					hits, _ := s.Write(p)
					for _, h := range hits {
						if h.ID == fixed.ID {
							n++
						}
					}
				}
				s.Close()
				if n != 2 {
					t.Errorf("%d hits, want 2", n)
				}
				m.Scan(text)
			}
		})
	}
	stop := make(chan struct{})
	var writer sync.WaitGroup
	writer.Go(func() {
		for i := 0; ; i++ {
			select {
			case <-stop:
				return
			default:
			}
			if err := m.Set([]guard.Value{fixed, val(fmt.Sprint(i), randString(r, alphabet, 10+i%30))}); err != nil {
				t.Error(err)
			}
			if err := m.Add(val("more", randString(r, alphabet, 10))); err != nil {
				t.Error(err)
			}
		}
	})
	readers.Wait()
	close(stop)
	writer.Wait()
}

func FuzzStream(f *testing.F) {
	f.Add("abcdefgh", "defghijk", []byte("xabcdefghijk"), uint64(1))
	f.Add("ababcabab", "babababa", []byte("ababababcabababcabab"), uint64(2))
	f.Fuzz(func(t *testing.T, v1, v2 string, text []byte, seed uint64) {
		var values []guard.Value
		for i, v := range []string{v1, v2} {
			if len(v) < 200 && Refuse(guard.NewSecret([]byte(v))) == nil {
				values = append(values, val(fmt.Sprint(i), v))
			}
		}
		if len(text) > 2000 {
			t.Skip()
		}
		m := mustNew(t, values...)
		r := newRand(seed)
		if len(values) > 0 {
			text = append(text, soup(r, m.set.needles[1:], 50)...)
		}
		if got, want := play(t, m, cut(r, text)...), naive(m.set, text); !agree(m.set, text, got) {
			t.Fatalf("%v, want %v", got, want)
		}
	})
}
