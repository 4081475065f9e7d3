package supervisor

import (
	"strings"
	"testing"

	"guard"
)

var drawn = []string{"\x1b[12;40H", "\x1b[?25h\x1b[0m\x1b[1;5H", "\x1b(B\x1b[m\x1b7\x1b8\x1b=", "\r\n\x1b[K\x1b[2;1H\x1b[?2026l"}

// What is drawn is whole after a pause, though it ends in a character that may be
// a value's first, and sequences after it.
func TestPauseLetsSequencesGo(t *testing.T) {
	for _, tail := range drawn {
		for n := 1; n < holdBack; n++ {
			l, _ := newLine(t, guard.Redact)
			f := l.Open(guard.Origin{Channel: guard.ChannelTerminal})
			in := "All " + canary[:n] + tail
			out, _ := f([]byte(in), guard.More)
			got := string(out)
			out, _ = f(nil, guard.Pause)
			if got += string(out); got != in {
				t.Errorf("%q: displayed %q", in, got)
			}
			// And what moves the cursor after it.
			out, _ = f([]byte(tail), guard.More)
			got = string(out)
			out, _ = f(nil, guard.Pause)
			if got += string(out); got != tail {
				t.Errorf("%q, then %q: displayed %q", in, tail, got)
			}
		}
	}
}

// Sequences between its characters and pauses after each do not get a value out.
func TestPausesBetweenSequences(t *testing.T) {
	for _, between := range drawn[:3] {
		l, e := newLine(t, guard.Redact)
		f := l.Open(guard.Origin{Channel: guard.ChannelTerminal})
		var got strings.Builder
		for i := range len(canary) {
			for _, step := range []guard.Step{guard.More, guard.Pause} {
				in := ""
				if step == guard.More {
					in = canary[i:i+1] + between
				}
				out, _ := f([]byte(in), step)
				got.Write(out)
			}
		}
		out, _ := f(nil, guard.End)
		got.Write(out)
		shown := strings.ReplaceAll(got.String(), between, "")
		if n := len(shown) - len(strings.TrimLeft(shown, canary[:holdBack])); n >= holdBack || !strings.Contains(shown, "****") {
			t.Errorf("%q between: displayed %q", between, shown)
		}
		if len(e.leaks) == 0 || e.leaks[0].Partial {
			t.Errorf("%q between: leaks %v", between, e.leaks)
		}
	}
}

// In a pipe every byte counts.
func TestPauseInAPipe(t *testing.T) {
	l, _ := newLine(t, guard.Redact)
	f := l.Open(guard.Origin{Channel: guard.ChannelPipe})
	in := canary[:2] + drawn[1]
	a, _ := f([]byte(in), guard.More)
	n := len(a)
	b, _ := f(nil, guard.Pause)
	if n+len(b) == len(in) {
		t.Errorf("let go of %q", in)
	}
}

// A long word appears key by key, though each of its characters may begin a value,
// and is forgotten by the time the next one comes.
func TestTypedWordsAppear(t *testing.T) {
	for _, word := range []string{strings.Repeat("g", 100), strings.Repeat("ghp", 40), strings.Repeat("ghp_Zq8", 20), "internationalization_of_" + strings.Repeat("thing", 30)} {
		l, _ := newLine(t, guard.Redact)
		f := l.Open(guard.Origin{Channel: guard.ChannelTerminal})
		for i := range len(word) {
			out, _ := f([]byte(word[i:i+1]+"\x1b[0m"), guard.More)
			got := string(out)
			out, _ = f(nil, guard.Pause)
			if got += string(out); got != word[i:i+1]+"\x1b[0m" {
				t.Fatalf("%.20q: key %d displayed %q", word, i, got)
			}
		}
	}
}
