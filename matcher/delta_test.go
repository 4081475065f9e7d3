package matcher

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"slices"
	"sync"
	"sync/atomic"
	"testing"

	"guard"
)

// What was added one by one is found as what was there from the start is, in
// streams that are cut anywhere.
func TestAddedIsFoundLikeTheRest(t *testing.T) {
	r := newRand(70)
	hits := 0
	for range 12 {
		var values []guard.Value
		for i := range 2 + r.IntN(4) {
			values = append(values, val(fmt.Sprint("v", i), randString(r, "abc", 3)+randString(r, alphabet, 6+r.IntN(60))))
		}
		whole, grown := mustNew(t, values...), mustNew(t, values[0])
		for _, v := range values[1:] {
			if err := grown.Add(v); err != nil {
				t.Fatal(err)
			}
		}
		if grown.set.delta == nil || grown.set.main.size+grown.set.delta.size != whole.set.main.size || len(grown.set.needles) != len(whole.set.needles) {
			t.Fatal("what was added is not in a small layer")
		}
		if err := grown.Check(); err != nil {
			t.Fatal(err)
		}
		for range 40 {
			b := escapeSoup(r, grown.set.needles[1:], r.IntN(400))
			want := whole.Scan(b)
			if got := grown.Scan(b); !slices.Equal(got, want) {
				t.Fatalf("%v, want %v", got, want)
			}
			if got := play(t, grown, cut(r, b)...); !agree(grown.set, b, got) {
				t.Fatalf("%v in %q", got, b)
			}
			hits += len(want)
		}
	}
	if hits < 300 {
		t.Fatalf("only %d hits: this test looked at the wrong thing", hits)
	}
}

// Every split point, with a value of each layer next to each other.
func TestSplitsAcrossLayers(t *testing.T) {
	r := newRand(71)
	a, b := "ghp_"+randString(r, alphabet, 20), "ghp_"+randString(r, alphabet, 24)
	m := mustNew(t, val("main", a))
	if err := m.Add(val("delta", b)); err != nil {
		t.Fatal(err)
	}
	for _, text := range []string{a + b, b + a, a[:9] + b + a, b[:9] + a + b[:9], wrap(b+a+b, 60, "\n") + "\n", "\\u0067" + a[1:] + "%67" + b[1:]} {
		everySplit(t, m, []byte(text))
	}
}

// A value that is added while streams run is in what each of them finds in its
// very next Write.
func TestAddedIsLiveInEveryStream(t *testing.T) {
	r := newRand(72)
	const streams, rounds = 8, 50
	m := mustNew(t, benchValues(20)...)
	var values []string
	var published atomic.Int64 // how many of values were added
	for range rounds {
		values = append(values, "live-"+randString(r, alphabet, 20))
	}
	var running sync.WaitGroup
	for i := range streams {
		running.Go(func() {
			r := newRand(uint64(200 + i))
			s := m.Stream()
			defer s.Close()
			for n := int64(0); n < rounds; {
				if published.Load() <= n {
					s.Write([]byte(randString(r, alphabet+" \n", 1+r.IntN(200))))
					continue
				}
				hits, _ := s.Write([]byte(" " + values[n] + " "))
				want := fmt.Sprint("live", n)
				if !slices.ContainsFunc(hits, func(h Hit) bool { return h.ID.Name == want }) {
					t.Errorf("stream %d does not find value %d", i, n)
					return
				}
				n++
			}
		})
	}
	for i, v := range values {
		if err := m.Add(val(fmt.Sprint("live", i), v)); err != nil {
			t.Fatal(err)
		}
		published.Store(int64(i + 1))
	}
	running.Wait()
}

// While a main layer is being compiled, and while an old set is searched, Add
// goes on; what was removed is overwritten when nobody searches it any more.
func TestAddWaitsForNobody(t *testing.T) {
	m := mustNew(t, val("old", "old-value-number-1"))
	found := func(text string) bool { return len(m.Scan([]byte(text))) == 1 }
	searched := m.use() // as a long search would
	m.build.Lock()      // as the compiler of a main layer would
	old := m.set.needles[1]
	var removed sync.WaitGroup
	gone := make(chan struct{})
	removed.Go(func() {
		if err := m.Remove(id("old")); err != nil {
			t.Error(err)
		}
		close(gone)
	})
	if err := m.Add(val("new", "new-value-number-2")); err != nil {
		t.Fatal(err)
	}
	if !found("new-value-number-2") {
		t.Fatal("what was added is not live")
	}
	m.build.Unlock()
	for found("old-value-number-1") {
		if err := m.Add(val("new", "new-value-number-2")); err != nil {
			t.Fatal(err)
		}
	}
	if !found("new-value-number-2") {
		t.Fatal("what was added meanwhile is lost")
	}
	select {
	case <-gone:
		t.Fatal("Remove returned while the value is in use")
	default:
	}
	if string(old) != "old-value-number-1" {
		t.Fatal("a value was overwritten under a search")
	}
	searched.mu.RUnlock()
	removed.Wait()
	if len(bytes.Trim(old, "\x00")) != 0 {
		t.Fatal("a removed value is still in memory")
	}
}

// The small layer is merged when it has grown, without a word to streams, and
// without losing or repeating anything.
func TestSmallLayerIsMerged(t *testing.T) {
	m := mustNew(t)
	values := benchValues(300)
	merged := 0
	s := m.Stream()
	for i, v := range values {
		text := string(v.Secret.Reveal())
		s.Write([]byte("\n" + text[:5]))
		before := m.set.main
		if err := m.Add(v); err != nil {
			t.Fatal(err)
		}
		if m.set.main != before {
			merged++
		}
		if m.set.delta != nil && m.set.delta.size > deltaNeedles {
			t.Fatalf("the small layer has %d needles", m.set.delta.size)
		}
		if hits, _ := s.Write([]byte(text[5:] + "\n")); len(hits) != 1 || hits[0].ID != v.ID {
			t.Fatalf("value %d: %v", i, hits)
		}
	}
	if merged < 2 || len(m.set.entries) != len(values)+1 || len(m.leaving) > 1 {
		t.Fatalf("merged %d times, %d entries, %d sets are not freed", merged, len(m.set.entries), len(m.leaving))
	}
	if err := m.Check(); err != nil {
		t.Fatal(err)
	}
	for _, v := range values {
		if hits := m.Scan(v.Secret.Reveal()); len(hits) != 1 {
			t.Fatalf("%s: %v", v.ID.Name, hits)
		}
	}
}

// Anything at once: what nobody removes is found all the time, and in the end
// there is what there should be. Nothing that is looked for was overwritten.
func TestManyChangesAtOnce(t *testing.T) {
	m := mustNew(t, val("fixed", "fixed-value-number-1"))
	var changes sync.WaitGroup
	for i := range 4 {
		changes.Go(func() {
			r := newRand(uint64(300 + i))
			for n := range 30 {
				v := val(fmt.Sprint("v", i), fmt.Sprint("value-", i, "-", n, "-", randString(r, alphabet, 9)))
				v.Class = guard.Class(r.IntN(2))
				err := m.Add(v, val("fixed", "fixed-value-number-1"))
				if n%7 == 6 {
					err = errors.Join(err, m.Remove(v.ID, id("nobody")))
				}
				if n%10 == 5 {
					big := append(benchValues(100), val("fixed", "fixed-value-number-1"))
					if i == 0 {
						err = errors.Join(err, m.Set(big))
					} else {
						err = errors.Join(err, m.Add(big...))
					}
				}
				if err != nil {
					t.Error(err)
				}
				if hits := m.Scan([]byte("fixed-value-number-1")); len(hits) != 1 {
					t.Errorf("%d hits", len(hits))
				}
			}
		})
	}
	changes.Wait()
	if err := m.Check(); err != nil {
		t.Fatal(err)
	}
	for _, e := range m.set.entries {
		if len(bytes.Trim(e.needles[0].b, "\x00")) == 0 {
			t.Fatalf("%s is looked for and was overwritten", e.id.Name)
		}
	}
	if err := m.Close(); err != nil {
		t.Fatal(err)
	}
	if err := m.Close(); !errors.Is(err, os.ErrClosed) {
		t.Fatal(err)
	}
	if m.leaving != nil && len(m.leaving) > 0 {
		t.Fatalf("%d sets are not freed", len(m.leaving))
	}
}

// A set whose small layer is blind is not used.
func TestBlindSmallLayer(t *testing.T) {
	m := mustNew(t, val("a", "some-value-1"))
	if err := m.Add(val("b", "other-value-2"), val("c", "third-value-3")); err != nil {
		t.Fatal(err)
	}
	good := m.set.eng
	local := append([][]byte{m.set.needles[0]}, m.set.needles[1+m.set.main.size:]...)
	for what, needles := range map[string][][]byte{"the canary": append([][]byte{[]byte("nobody's canary")}, local[1:]...), "the last needle": local[:len(local)-1]} {
		m.set.eng = &pair{m.set.main.eng, newGoEngine(needles), m.set.main.size}
		if err := m.Check(); !errors.Is(err, errBlind) {
			t.Errorf("a small layer without %s passes: %v", what, err)
		}
	}
	m.set.eng = good
}
