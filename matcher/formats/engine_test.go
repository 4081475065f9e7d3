package formats

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"testing"
)

func places(t testing.TB, e engine, b []byte) []place {
	t.Helper()
	list, err := e.scan(b, nil)
	if err != nil {
		t.Fatal(err)
	}
	sortPlaces(list)
	return slices.Compact(list)
}

// compareEngines holds the engine that is built in against the one in Go, and
// that, for short texts, against a search without tables.
func compareEngines(t testing.TB, s *Set, goes *goEngine, b []byte) {
	t.Helper()
	got, want := places(t, s.engine, b), places(t, goes, b)
	if !slices.Equal(got, want) {
		t.Fatalf("in %q: %s finds %v, go %v", b, s.Engine(), got, want)
	}
	if len(b) > 2000 {
		return
	}
	slow := slowScan(s.anchors, b, nil)
	sortPlaces(slow)
	if !slices.Equal(want, slow) {
		t.Fatalf("in %q: go finds %v, without tables %v", b, want, slow)
	}
}

func TestEnginesAgree(t *testing.T) {
	s := newSet(t, Options{})
	goes := newGoEngine(s.anchors)
	r := rand.New(rand.NewPCG(3, 4))
	n := 0
	for i := range 60 {
		b := mixture(r, 6)
		switch i % 4 {
		case 1: // letters in the other case
			for j := range b {
				if r.IntN(6) == 0 && isAlnum(b[j]) {
					b[j] ^= 0x20
				}
			}
		case 2: // from an odd place, to an odd place
			b = b[r.IntN(len(b)/2) : len(b)/2+r.IntN(len(b)/2)]
		case 3: // bytes that are no text
			for range 20 {
				b[r.IntN(len(b))] = byte(r.Uint32())
			}
		}
		n += len(places(t, goes, b))
		compareEngines(t, s, goes, b)
	}
	for n := range 24 {
		compareEngines(t, s, goes, []byte("ghp_0123456789abcdefghijklmnopqrstuvwxyz"[:n]))
	}
	if n < 100 {
		t.Fatalf("only %d places: the text is too poor", n)
	}
}

func TestEnginesAgreeOnASourceTree(t *testing.T) {
	s := newSet(t, Options{})
	goes := newGoEngine(s.anchors)
	for _, b := range sources(t, 20<<20) {
		got, want := places(t, s.engine, b.text), places(t, goes, b.text)
		if !slices.Equal(got, want) {
			t.Fatalf("in %s %s finds %d places, go %d", b.path, s.Engine(), len(got), len(want))
		}
	}
}

func FuzzEngines(f *testing.F) {
	for _, id := range []string{"github-pat", "jwt", "private-key", "discord-bot-token", "azure-devops-pat", "aws-secret-access-key", "mailchimp-api-key", "telegram-bot-token"} {
		f.Add([]byte(Sample(id, 1)))
	}
	s, err := New(Options{})
	if err != nil {
		f.Fatal(err)
	}
	f.Cleanup(func() { s.Close() })
	goes := newGoEngine(s.anchors)
	f.Fuzz(func(t *testing.T, b []byte) { compareEngines(t, s, goes, b) })
}

// FuzzStream cuts fuzzed text after the lengths that cuts has, and wants what
// Scan finds.
func FuzzStream(f *testing.F) {
	for i, id := range []string{"github-pat", "jwt", "private-key", "bip39-mnemonic", "url-credentials", "kubernetes-secret", "aws-secret-access-key-near-id", "gitlab-pat-routable", "bitcoin-wif"} {
		f.Add([]byte("a "+Sample(id, uint64(i))+"\x1b[31m\nb"), []byte{1, 30, 7})
	}
	rules, err := LoadTOML(strings.NewReader(leaks), "leaks")
	if err != nil {
		f.Fatal(err)
	}
	s, err := New(Options{Rules: rules})
	if err != nil {
		f.Fatal(err)
	}
	f.Cleanup(func() { s.Close() })
	f.Fuzz(func(t *testing.T, b, steps []byte) {
		want := s.Scan(b, "")
		var cuts []int
		at := 0
		for _, n := range steps {
			at += 1 + int(n)
			if at < len(b) {
				cuts = append(cuts, at)
			}
		}
		if got := feed(t, s, b, cuts); !sameFindings(got, want) {
			t.Fatalf("%q in pieces %v:\n%s\nbut Scan:\n%s", b, cuts, list(got), list(want))
		}
		for _, f := range want {
			if f.Start < 0 || f.Start >= f.End || f.End > int64(len(b)) {
				t.Fatalf("finding %v of %d bytes", f, len(b))
			}
		}
	})
}

// deaf finds nothing, as a database that was compiled wrongly does.
type deaf struct{}

func (deaf) scan(_ []byte, out []place) ([]place, error) { return out, nil }
func (deaf) close()                                      {}

// half finds every other anchor.
type half struct{ engine }

func (h half) scan(b []byte, out []place) ([]place, error) {
	list, err := h.engine.scan(b, nil)
	for _, p := range list {
		if p.anchor%2 == 0 {
			out = append(out, p)
		}
	}
	return out, err
}

// broken fails.
type broken struct{}

func (broken) scan(_ []byte, out []place) ([]place, error) {
	return append(out, place{1 << 40, 1}), fmt.Errorf("out of scratch space")
}
func (broken) close() {}

func TestCanaryNoticesADeafEngine(t *testing.T) {
	s := newSet(t, Options{})
	whole := s.engine
	defer func() { s.engine = whole }()
	for name, e := range map[string]engine{"deaf": deaf{}, "half": half{whole}, "broken": broken{}} {
		s.engine = e
		if s.canary() == nil {
			t.Errorf("%s: nothing noticed", name)
		}
	}
	s.engine = whole
	if err := s.canary(); err != nil {
		t.Error(err)
	}
}

func TestAnEngineThatFailsIsReplaced(t *testing.T) {
	s := newSet(t, Options{})
	whole := s.engine
	defer func() { s.engine = whole }()
	s.engine = broken{}
	if list := s.Scan([]byte(Sample("github-pat", 1)), ""); !has(list, "github-pat") {
		t.Errorf("%v", list)
	}
}

func TestScansAtOnce(t *testing.T) {
	s := newSet(t, Options{})
	var wg sync.WaitGroup
	for i := range 8 {
		wg.Go(func() {
			r := rand.New(rand.NewPCG(uint64(i), 9))
			for range 10 {
				b := mixture(r, 5)
				a := s.Scan(b, "")
				if c := feed(t, s, bytes.Clone(b), []int{len(b) / 2}); !sameFindings(a, c) {
					t.Errorf("%v and %v", a, c)
				}
			}
		})
	}
	wg.Wait()
}

func TestNoBuiltInRuleIsSearchedForEverywhere(t *testing.T) {
	s := newSet(t, Options{})
	for _, r := range s.rules {
		if r.cell {
			t.Errorf("rule %s has no anchor that is rare enough", r.ID)
		}
		if r.asserts {
			t.Errorf("rule %s asks what comes next, so that a stream would wait for it", r.ID)
		}
	}
}

func TestClose(t *testing.T) {
	s, err := New(Options{})
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Close(); err != nil {
		t.Error(err)
	}
	if err := s.Close(); err == nil {
		t.Error("closed twice without an error")
	}
	st := &Stream{search: search{set: s}, view: view{set: s}}
	st.closed = true
	if st.Write([]byte("x")) != nil || st.Close() != nil {
		t.Error("a closed stream finds something")
	}
}
