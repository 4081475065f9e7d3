package formats

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
)

// feed writes b in pieces that end at cuts, and checks what Write promises.
func feed(t testing.TB, s *Set, b []byte, cuts []int) []Finding {
	t.Helper()
	st := s.Stream()
	var all []Finding
	from := 0
	for _, to := range append(cuts, len(b)) {
		if to <= from {
			continue
		}
		for _, f := range st.Write(b[from:to]) {
			if f.End > int64(to) {
				t.Fatalf("finding %v ends behind %d", f, to)
			}
			all = append(all, f)
		}
		from = to
		if safe := st.Safe(); safe > int64(to) {
			t.Fatalf("safe is %d at %d", safe, to)
		}
	}
	all = append(all, st.Close()...)
	slices.SortFunc(all, compareFindings)
	return all
}

func sameFindings(a, b []Finding) bool {
	if len(a) != len(b) {
		return false
	}
	for i := range a {
		if a[i] != b[i] {
			return false
		}
	}
	return true
}

// mixture is text with credentials of many rules in it, next to each other,
// coloured, and in base64.
func mixture(r *rand.Rand, n int) []byte {
	rules, _ := builtin()
	var b bytes.Buffer
	for range n {
		rule := rules[r.IntN(len(rules))]
		list := slices.Concat(rule.Positive, rule.Negative)
		text, _ := expand(list[r.IntN(len(list))], r.Uint64())
		switch r.IntN(8) {
		case 0:
			i := r.IntN(len(text))
			text = text[:i] + "\x1b[3" + fmt.Sprint(r.IntN(8)) + "m" + text[i:] + "\x1b[0m"
		case 1:
			text = "\x1b[1m" + text + "\x1b[0m"
		case 2:
			text = encode(r.IntN(3), text)
		case 3:
			text = strings.Repeat("word ", r.IntN(4)) + text
		}
		b.WriteString(text)
		b.WriteString([]string{"\n", " ", "", ", ", "\r\n", "\n\n"}[r.IntN(6)])
	}
	return b.Bytes()
}

func TestHowAStreamIsCutDoesNotMatter(t *testing.T) {
	s := newSet(t, Options{})
	r := rand.New(rand.NewPCG(1, 2))
	found := 0
	for range 40 {
		b := mixture(r, 30)
		want := s.Scan(b, "")
		found += len(want)
		var bytewise []int
		for i := range b {
			bytewise = append(bytewise, i)
		}
		var some []int
		for i := 0; i < len(b); i += 1 + r.IntN(200) {
			some = append(some, i)
		}
		for _, cuts := range [][]int{nil, some, bytewise} {
			if got := feed(t, s, b, cuts); !sameFindings(got, want) {
				t.Fatalf("%d pieces of %q:\n%s\nbut Scan:\n%s", len(cuts)+1, b, list(got), list(want))
			}
		}
	}
	if found < 400 {
		t.Fatalf("only %d findings: the text is too poor", found)
	}
}

func list(f []Finding) string {
	var b strings.Builder
	for _, f := range f {
		fmt.Fprintf(&b, "  %s %s %s [%d,%d)\n", f.Rule, f.Confidence, f.Encoding, f.Start, f.End)
	}
	return b.String()
}

// TestEverySplitPoint cuts around one credential of every rule at every place.
func TestEverySplitPoint(t *testing.T) {
	s := newSet(t, Options{})
	rules, _ := builtin()
	for i, r := range rules {
		text, err := expand(r.Positive[0], uint64(i))
		if err != nil {
			t.Fatal(err)
		}
		b := []byte("x = " + text + "\n$ ")
		want := s.Scan(b, "")
		step := 1 + len(b)/100
		for cut := 1; cut < len(b); cut += step {
			if got := feed(t, s, b, []int{cut}); !sameFindings(got, want) {
				t.Fatalf("rule %s cut at %d of %q:\n%s\nbut Scan:\n%s", r.ID, cut, b, list(got), list(want))
			}
		}
	}
}

// TestAFindingComesWithTheByteAfterIt is about latency: a terminal shows a
// prompt after a token and then nothing.
func TestAFindingComesWithTheByteAfterIt(t *testing.T) {
	s := newSet(t, Options{})
	for _, id := range []string{"github-pat", "gitlab-pat", "anthropic-api-key", "aws-access-token", "stripe-access-token", "slack-bot-token", "jwt", "openai-api-key"} {
		st := s.Stream()
		token := Sample(id, 3)
		if got := st.Write([]byte("$ echo\n" + token)); has(got, id) && id != "github-pat" {
			t.Errorf("%s: found before its end was known", id)
		}
		if safe := st.Safe(); safe != int64(len("$ echo\n")) {
			t.Errorf("%s: safe is %d while the token may go on", id, safe)
		}
		got := st.Write([]byte("\n"))
		if !has(got, id) {
			t.Errorf("%s: not found with the byte after it; after Close: %v", id, st.Close())
		}
		if safe := st.Safe(); safe < int64(len("$ echo\n"+token)) {
			t.Errorf("%s: safe is %d after the token", id, safe)
		}
	}
}

func TestSafeHoldsBeginningsOfPrefixes(t *testing.T) {
	s := newSet(t, Options{})
	for text, held := range map[string]int{
		"plain text ":      0,
		"plain text ghp":   3,
		"a sk-ant-":        7,
		"xghp":             0, // no token begins within a word
		"-----BEGIN RS":    13,
		"done.\n":          0,
		"ghp_ is a prefix": 0,
	} {
		st := s.Stream()
		st.Write([]byte(text))
		if got := int64(len(text)) - st.Safe(); got < int64(held) || held == 0 && got > 2 {
			t.Errorf("of %q %d bytes are held, want %d", text, got, held)
		}
	}
}

func TestAStreamRetainsLittle(t *testing.T) {
	s := newSet(t, Options{})
	st := s.Stream()
	line := []byte(strings.Repeat("nothing to see here, -- ghp_ sk-ant- eyJ\n", 25))
	for range 4000 {
		st.Write(line)
	}
	if n := cap(st.search.b); n > 64<<10 {
		t.Errorf("after %d bytes a stream holds %d", 4000*len(line), n)
	}
	if n := len(st.search.strong) + len(st.search.weak) + len(st.search.other) + len(st.search.spans); n > 1000 {
		t.Errorf("%d candidates are pending", n)
	}
}
