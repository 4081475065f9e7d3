package matcher

import (
	"cmp"
	"slices"
	"testing"
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
