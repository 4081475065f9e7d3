package matcher

import (
	"cmp"
	"errors"
	"slices"
	"strings"
	"testing"

	"guard"
)

func sorted(ms []match) []match {
	slices.SortFunc(ms, func(a, b match) int { return cmp.Or(cmp.Compare(a.end, b.end), cmp.Compare(a.needle, b.needle)) })
	return ms
}

// The engine that is built in, the one in Go and the slow one see the same.
// With the tag, the first one is Hyperscan.
func sameMatches(t testing.TB, needles [][]byte, b []byte) {
	t.Helper()
	built, err := newEngine(needles)
	if err != nil {
		t.Fatal(err)
	}
	defer built.close()
	plain := newGoEngine(needles)
	defer plain.close()
	compareEngines(t, needles, built, plain, b)
}

func compareEngines(t testing.TB, needles [][]byte, built, plain engine, b []byte) {
	t.Helper()
	x, err := built.scan(b, nil)
	if err != nil {
		t.Fatal(err)
	}
	y, _ := plain.scan(b, nil)
	z := slowScan(needles, b, nil)
	if x, y, z = sorted(x), sorted(y), sorted(z); !slices.Equal(x, z) || !slices.Equal(y, z) {
		t.Fatalf("%s %d, go %d, slow %d matches", engineVersion(), len(x), len(y), len(z))
	}
}

func TestEnginesAgree(t *testing.T) {
	r := newRand(30)
	found := 0
	for range 60 {
		var needles [][]byte
		for _, v := range samples(r) {
			e, err := expand(val("x", v))
			if err != nil {
				t.Fatal(err)
			}
			for _, n := range e.needles {
				if r.IntN(3) == 0 {
					needles = append(needles, n.b)
				}
			}
		}
		for range 30 {
			needles = append(needles, []byte(randString(r, "ab", 8+r.IntN(9))))
		}
		built, err := newEngine(needles)
		if err != nil {
			t.Fatal(err)
		}
		plain := newGoEngine(needles)
		for range 20 {
			b := append(soup(r, needles, r.IntN(2000)), randString(r, "ab", r.IntN(100))...)
			compareEngines(t, needles, built, plain, b)
			found += len(slowScan(needles, b, nil))
		}
		built.close()
		plain.close()
	}
	if found < 10_000 {
		t.Fatalf("only %d matches: this test looked at the wrong thing", found)
	}
}

// Needles of which thousands share each window, as in text that spells every
// byte as \u0041: none is lost, and a search does not compare all of them.
func TestNeedlesThatLookAlike(t *testing.T) {
	r := newRand(31)
	var needles [][]byte
	for range 2000 {
		v := randString(r, alphabet, 8+r.IntN(30))
		needles = append(needles, appendUnicodeAll(nil, []byte(v), hexLower), appendHexList(nil, []byte(v), hexLower, "0x", ","), appendPercentAll(nil, []byte("same-"+v), hexUpper))
	}
	g := newGoEngine(needles)
	for i, d := range needles {
		ms, _ := g.scan(slices.Concat([]byte("x"), d, []byte("x")), nil)
		if !slices.Contains(ms, match{i, 1 + len(d)}) {
			t.Fatalf("needle %d is not found", i)
		}
	}
	for _, s := range g.samplers {
		long := 0
		for _, at := range s.table.places {
			n := 0
			for j := at.next; j != 0; j = s.table.places[j-1].next {
				if s.table.places[j-1].tag == at.tag {
					n++
				}
			}
			long = max(long, n)
		}
		if long > 20 {
			t.Errorf("%d needles are compared at one place", long)
		}
	}
}

// Samplers for every shortest needle that there may be, and texts of every
// length around the sizes at which a search takes another way.
func TestEveryStride(t *testing.T) {
	r := newRand(32)
	for least := minNeedle; least <= 48; least++ {
		needles := [][]byte{[]byte(randString(r, "ab", least)), []byte(randString(r, alphabet, least)), []byte(randString(r, "ab", least+r.IntN(40)))}
		g := newGoEngine(needles)
		for n := range 300 {
			b := []byte(randString(r, "ab", n))
			for _, d := range needles {
				if at := r.IntN(n + 1); at+len(d) <= n {
					copy(b[at:], d)
				}
			}
			b = slices.Clip(b)
			got, _ := g.scan(b, nil)
			if want := sorted(slowScan(needles, b, nil)); !slices.Equal(sorted(got), want) {
				t.Fatalf("shortest %d, text %d: %v, want %v", least, n, got, want)
			}
		}
	}
}

// A matcher gives the same answers with each engine, whether a value was there
// from the start or added.
func TestEveryEngineOnStreams(t *testing.T) {
	for _, name := range Engines() {
		t.Run(name, func(t *testing.T) {
			r := newRand(33)
			hits := 0
			for range 30 {
				values := []guard.Value{val("a", "ab"+randString(r, "ab", 7)+"c"), val("b", randString(r, alphabet, 8+r.IntN(60))), val("c", "ghp_"+randString(r, alphabet, 36))}
				m, err := NewWith(name, values[:2])
				if err != nil {
					t.Fatal(err)
				}
				if m.Engine() != name {
					t.Fatalf("%s is at work", m.Engine())
				}
				if err := m.Add(values[2]); err != nil {
					t.Fatal(err)
				}
				for i := range 40 {
					if i == 20 { // from here on all of them are in one layer
						if err := m.Remove(id("a")); err != nil || m.set.delta != nil {
							t.Fatal(err, m.set.delta)
						}
					}
					b := escapeSoup(r, m.set.needles[1:], r.IntN(300))
					if got := play(t, m, cut(r, b)...); !agree(m.set, b, got) {
						t.Fatalf("%v in %q", got, b)
					}
					hits += len(m.Scan(b))
				}
				m.Close()
			}
			if hits < 500 {
				t.Fatalf("only %d hits: this test looked at the wrong thing", hits)
			}
		})
	}
	if _, err := NewWith("none", nil); err == nil || !strings.Contains(err.Error(), `"go"`) {
		t.Fatal(err)
	}
}

// More than fits is refused, with words, and what was there stays.
func TestTooMany(t *testing.T) {
	m := mustNew(t, val("a", "some-value-1"))
	m.set.bytes = maxBytes
	err := m.Add(val("b", "other-value-2"))
	if !errors.Is(err, ErrTooMany) || !strings.Contains(err.Error(), "use fewer values") {
		t.Fatal(err)
	}
	if hits := m.Scan([]byte("some-value-1 other-value-2")); len(hits) != 1 || len(m.set.entries) != 2 {
		t.Fatal(hits)
	}
	s := &set{entries: make([]*entry, 10), bytes: maxBytes + 1}
	if err := s.fits(); !errors.Is(err, ErrTooMany) {
		t.Fatal(err)
	}
}

// FuzzEngines: every engine, and the search without one, see the same in b, where
// needles are made of n1 and n2 so that they overlap.
func FuzzEngines(f *testing.F) {
	f.Add([]byte("ababababab"), []byte("\x00\n.*[a-z]{2}\\x41"), []byte("abababababababab\x00\n.*[a-z]{2}\\x41"))
	f.Fuzz(func(t *testing.T, n1, n2, b []byte) {
		var needles [][]byte
		for _, n := range [][]byte{n1, n2} {
			if len(n) >= minNeedle && len(n) <= maxNeedle {
				needles = append(needles, n, append(slices.Clone(n[1:]), n...)[:min(2*len(n)-1, maxNeedle)])
			}
		}
		if len(needles) > 0 {
			b = append(b, n1...)
			sameMatches(t, needles, append(slices.Clip(b), n2...))
		}
	})
}

// FuzzMatchers: the same values give the same hits with every engine, in one layer
// and in two, however the text is cut, and those are what the naive search finds.
func FuzzMatchers(f *testing.F) {
	f.Add("tok_0123456789abcdef", "k_0123456789", []byte("tok_0123456789abcdef k\\u005f0123456789"), uint64(1))
	f.Add("first line of it\nsecond line of it", "line of it", []byte("first line of it\\nsecond line of it"), uint64(2))
	f.Fuzz(func(t *testing.T, v1, v2 string, text []byte, seed uint64) {
		var values []guard.Value
		for i, v := range []string{v1, v2} {
			if len(v) < 200 && Refuse(guard.NewSecret([]byte(v))) == nil {
				values = append(values, val(string(rune('a'+i)), v))
			}
		}
		if len(text) > 300 || len(values) == 0 {
			t.Skip()
		}
		// What values that hold escapes, and backspaces, make of a cut is no rule that
		// the naive search knows: there the engines are compared with each other only.
		strict := !strings.ContainsAny(v1+v2, introducers) && !strings.ContainsRune(string(text), '\b')
		r := newRand(seed)
		var pieces [][]byte
		var want []Hit
		for i, name := range Engines() {
			for k, first := range []int{len(values), len(values) - 1} {
				m, err := NewWith(name, values[:first])
				if err != nil {
					t.Fatal(err)
				}
				defer m.Close()
				if err := m.Add(values[first:]...); err != nil {
					t.Fatal(err)
				}
				if i+k == 0 {
					text = append(slices.Clip(text), escapeSoup(r, m.set.needles[1:], 60)...)
					pieces = cut(r, text)
				}
				got := m.Scan(text)
				if i+k == 0 && strict && !agree(m.set, text, got) {
					t.Fatalf("%s: %v", name, got)
				}
				s := m.Stream()
				for _, p := range pieces {
					hits, _ := s.Write(p)
					got = append(got, hits...)
				}
				got = append(got, s.Close()...)
				if i+k > 0 && !slices.Equal(got, want) {
					t.Fatalf("%s, %d of %d values from the start: %v, and before %v", name, first, len(values), got, want)
				}
				want = got
				if strict {
					if streamed := play(t, m, pieces...); i+k == 0 && !agree(m.set, text, streamed) {
						t.Fatalf("%s, in pieces: %v", name, streamed)
					}
				}
			}
		}
	})
}
