package matcher

import (
	"bytes"
	"math/rand/v2"
	"strings"
	"testing"
)

// What is held back of text that holds no value, at any place where it may be
// cut: a few bytes, and seldom as many as a prompt that stays unseen.
func TestLittleIsHeldOfHonestText(t *testing.T) {
	m := mustNew(t, benchValues(50)...)
	r := newRand(95)
	for _, c := range []struct {
		kind   string
		mean   float64 // bytes
		seldom float64 // how often 8 or more are
		most   int64
	}{{"plain", 3, 0.01, 24}, {"text", 3, 0.01, 24}, {"hex", 8, 0.15, 48}, {"base64", 8, 0.1, 48}} {
		data := corpus(c.kind)
		total, long, most := int64(0), 0, int64(0)
		const n = 3000
		for range n {
			at := r.IntN(len(data) - 4096)
			s := m.Stream()
			_, safe := s.Write(data[at : at+1+r.IntN(4095)])
			held := s.pos - safe
			total += held
			most = max(most, held)
			if held >= 8 {
				long++
			}
			s.Close()
		}
		mean, seldom := float64(total)/n, float64(long)/n
		t.Logf("%s: %.1f bytes are held, 8 or more in %.1f%%, %d at most", c.kind, mean, 100*seldom, most)
		if mean > c.mean || seldom > c.seldom || most > c.most {
			t.Errorf("%s: %.1f bytes are held, 8 or more in %.1f%%, %d at most", c.kind, mean, 100*seldom, most)
		}
	}
}

// Prompts, and lines as they come, are seen at once or when a pause lets fewer
// than 8 bytes go.
func TestPromptsAreSeen(t *testing.T) {
	m := mustNew(t, benchValues(200)...)
	for _, text := range []string{"$ ", "user@host:~/work$ ", "Password: ", "Continue? [Y/n] ", ">>> ", "(venv) root@box:/usr/share/doc# ", "progress 45%", "10/200", "name = \"", "Ready.\n", "loading...\r", "x", "password for guest: "} {
		s := m.Stream()
		if _, safe := s.Write([]byte("some words before it\r\n" + text)); s.pos-safe >= 8 {
			t.Errorf("%q: %d bytes are held", text, s.pos-safe)
		}
	}
}

// However a value is drawn out, no more than maxWait bytes wait for it.
func TestHoldIsBounded(t *testing.T) {
	v := "ghp_" + randString(rand.New(rand.NewPCG(1, 2)), alphabet, 36)
	m := mustNew(t, val("v", v))
	for what, text := range map[string]string{
		"blanks":  strings.ReplaceAll(each(v[:39], "%d", ","), ",", ","+strings.Repeat(" ", 150)),
		"gzip":    gzipped(t, strings.Repeat("x", 100))[:20] + string(corpus("random")[:200_000]),
		"nul":     v[:20] + strings.Repeat("\x00", 200_000),
		"zip":     zipped(t, string(corpus("random")[:200_000])),
		"spaces":  "67 68 70 5f" + strings.Repeat(" ", 200_000),
		"newline": v[:20] + strings.Repeat("\n", 200_000),
	} {
		s := m.Stream()
		for _, p := range bytes.SplitAfter([]byte(text), []byte("x")) {
			if _, safe := s.Write(p); s.pos-safe > maxWait {
				t.Fatalf("%s: %d bytes are held", what, s.pos-safe)
			}
		}
		if hits, _ := s.Write([]byte(" " + v + " ")); len(hits) == 0 {
			t.Errorf("%s: not found after it", what)
		}
		s.Close()
	}
}
