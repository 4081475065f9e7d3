package formats

import (
	"os"
	"strings"
	"testing"
)

// cache is where the databases of one run of the tests are, so that each is
// compiled once.
var cache string

func TestMain(m *testing.M) {
	dir, err := os.MkdirTemp("", "formats")
	if err != nil {
		panic(err)
	}
	cache = dir
	code := m.Run()
	os.RemoveAll(dir)
	os.Exit(code)
}

func newSet(t testing.TB, o Options) *Set {
	t.Helper()
	if o.CacheDir == "" {
		o.CacheDir = cache
	}
	s, err := New(o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	return s
}

func has(list []Finding, id string) bool {
	for _, f := range list {
		if f.Rule == id {
			return true
		}
	}
	return false
}

// TestEveryRuleFindsItsSamples is the recall that is claimed: of each rule 40
// samples, drawn at random, in a line of text.
func TestEveryRuleFindsItsSamples(t *testing.T) {
	rules, err := builtin()
	if err != nil {
		t.Fatal(err)
	}
	if len(rules) < 300 {
		t.Fatalf("only %d rules", len(rules))
	}
	s := newSet(t, Options{})
	found, all := 0, 0
	for _, r := range rules {
		if r.Provider == "" || r.Kind == "" || len(r.Positive) == 0 {
			t.Errorf("rule %s lacks a provider, a kind or a positive", r.ID)
			continue
		}
		n, total := 0, 0
		missed := ""
		for i, p := range r.Positive {
			for seed := range uint64(max(40/len(r.Positive), 8)) {
				text, err := expand(p, seed+uint64(i)*1000)
				if err != nil {
					t.Fatalf("rule %s: %v", r.ID, err)
				}
				total++
				if has(s.Scan([]byte("a line\n"+text+"\nanother one\n"), ""), r.ID) {
					n++
				} else {
					missed = text
				}
			}
		}
		found, all = found+n, all+total
		if n*100 < total*85 {
			t.Errorf("rule %s finds %d of %d samples; not, for one, %q; but %v", r.ID, n, total, missed, s.Scan([]byte("a line\n"+missed+"\nanother one\n"), ""))
		}
	}
	t.Logf("%d of %d samples found: %.2f %%", found, all, 100*float64(found)/float64(all))
	if found*1000 < all*990 {
		t.Errorf("%d of %d samples found", found, all)
	}
}

func TestNoRuleFindsItsNegatives(t *testing.T) {
	rules, err := builtin()
	if err != nil {
		t.Fatal(err)
	}
	s := newSet(t, Options{})
	n := 0
	for _, r := range rules {
		for i, p := range r.Negative {
			n++
			text, err := expand(p, seedOf(r.ID)+uint64(i))
			if err != nil {
				t.Fatalf("rule %s: %v", r.ID, err)
			}
			if list := s.Scan([]byte("a line\n"+text+"\nanother one\n"), ""); has(list, r.ID) {
				t.Errorf("rule %s finds %q: %v", r.ID, text, list)
			}
		}
	}
	if n < len(rules) {
		t.Errorf("only %d negatives for %d rules", n, len(rules))
	}
}

func TestSampleIsTheSameForTheSameSeed(t *testing.T) {
	a, b := Sample("github-pat", 1), Sample("github-pat", 1)
	if a != b || !strings.HasPrefix(a, "ghp_") || len(a) != 40 || a == Sample("github-pat", 2) || Sample("no-such-rule", 1) != "" {
		t.Fatalf("samples %q and %q", a, b)
	}
}
