//go:build unix

package pty

import (
	"io"
	"os"
	"strings"
	"testing"

	"guard"
	"guard/internal/testutil"
)

const inWord = "sesame-open-now"

// given is what the agent gets of pieces, which come without a pause.
func given(t *testing.T, pieces ...string) (now []string, all string) {
	t.Helper()
	k := &typed{filter: (&wordFilter{word: inWord, action: guard.Redact}).filter}
	for _, p := range pieces {
		out := string(k.feed([]byte(p)))
		now, all = append(now, out), all+out
	}
	all += string(k.silence())
	if k.wait() != 0 {
		t.Errorf("%q: something is held back after a silence", pieces)
	}
	return now, all
}

func TestPasteIsWhole(t *testing.T) {
	mask := strings.Repeat("*", len(inWord))
	for _, c := range []struct{ before, after string }{{"", ""}, {"export TOKEN=", "\r"}, {"a longer paste ", " and what is behind it"}} {
		in, want := c.before+inWord+c.after, c.before+mask+c.after
		if _, got := given(t, in); got != want {
			t.Errorf("%q became %q", in, got)
		}
		for cut := keyBytes; cut < len(in); cut++ {
			if _, got := given(t, in[:cut], in[cut:]); got != want {
				t.Errorf("%q cut at %d became %q", in, cut, got)
			}
		}
		marked, wantMarked := pasteStart+in+pasteEnd, pasteStart+want+pasteEnd
		for cut := 1; cut < len(marked); cut++ {
			if _, got := given(t, marked[:cut], marked[cut:]); got != wantMarked {
				t.Errorf("%q cut at %d became %q", marked, cut, got)
			}
		}
		// Inside the markers it may come in any pieces.
		if _, got := given(t, bytewise(marked)...); got != wantMarked {
			t.Errorf("%q in bytes became %q", marked, got)
		}
	}
}

// Every key goes out before the next one comes, but what completes a value.
func TestTypingWaitsForNothing(t *testing.T) {
	keys := append([]string{"é", "漢", "\x1b[A", "\x1bOP", "\x1b[1;5C", "\x1b", "\x03", "\r", "se", "ses"}, bytewise("the sesame-open-no sesame-open-nope")...)
	now, _ := given(t, keys...)
	for i, out := range now {
		if out != keys[i] {
			t.Errorf("key %q became %q", keys[i], out)
		}
	}
	now, _ = given(t, bytewise("x"+inWord+"x")...)
	if got, want := strings.Join(now, ""), "x"+inWord[:len(inWord)-1]+"*x"; got != want {
		t.Errorf("typed, it became %q, want %q", got, want)
	}
}

// What a terminal answers by itself passes at once and as it is.
func TestAnswersPass(t *testing.T) {
	answers := []string{"\x1b[?62;4c", "\x1b[12;40R", "\x1b]11;rgb:1e1e/1e1e/1e1e\x1b\\", "\x1bP>|term(1) sesame\x1b\\", "\x1b[<35;120;40M", "\x1b[I", "\x1b]52;c;c2VzYW1l\x07"}
	now, _ := given(t, answers...)
	for i, out := range now {
		if out != answers[i] {
			t.Errorf("%q became %q", answers[i], out)
		}
	}
}

func TestTypedStops(t *testing.T) {
	k := &typed{filter: (&wordFilter{word: inWord, action: guard.Block}).filter}
	if got := string(k.feed([]byte("before " + inWord + " after"))); got != "before " {
		t.Errorf("got %q", got)
	}
	if got := string(k.feed([]byte("x"))) + string(k.silence()); got != "" || k.wait() != 0 {
		t.Errorf("after the stop %q went out", got)
	}
}

// reads collects what the agent reads.
func reads(t *testing.T, s *os.File) *screen {
	t.Helper()
	got := newScreen()
	done := make(chan struct{})
	go func() { defer close(done); io.Copy(got, s) }()
	t.Cleanup(func() { s.Close(); <-done })
	return got
}

func TestInput(t *testing.T) {
	testutil.Leftovers(t)
	u := newUser(t)
	m, s := rawPair(t)
	w := &wordFilter{word: inWord, action: guard.Redact}
	session := &Session{Master: m, Terminal: u.term, Out: passAll, In: func(p []byte, step guard.Step) ([]byte, guard.Decision) {
		out, d := w.filter(p, step)
		d.Reason = strings.Replace(d.Reason, "the word came", "kept back", 1)
		return out, d
	}}
	ended, cancel := start(t, session)
	say(t, s, "prompt> ")
	u.screen.waitFor(t, "prompt> ")
	got := reads(t, s)
	mask := strings.Repeat("*", len(inWord))

	u.typed(t, "key="+inWord+"\r") // arrives together
	got.waitFor(t, "key="+mask+"\r")
	u.screen.waitFor(t, "prompt> \r\nguard: kept back\r\n")

	// A paste that ends in a value's beginning is whole after a silence.
	u.typed(t, "paste "+inWord[:9])
	got.waitFor(t, "paste "+inWord[:9])

	want := got.String()
	for _, key := range bytewise(" " + inWord[:len(inWord)-1]) {
		u.typed(t, key)
		want += key
		got.waitFor(t, want) // before the next one
	}
	u.typed(t, inWord[len(inWord)-1:])
	got.waitFor(t, want+"*")
	u.screen.wait(t, "a second note", func(s string) bool { return strings.Count(s, "guard: kept back\r\n") == 2 })
	if strings.Contains(got.String(), inWord) {
		t.Error("the agent read it")
	}
	cancel()
	_ = ended()
	m.Close()
}

// A big paste with a value every few bytes arrives whole but for the values,
// though the agent is slow.
func TestBigPasteIsJudged(t *testing.T) {
	testutil.Leftovers(t)
	u := newUser(t)
	m, s := rawPair(t)
	ended, cancel := start(t, &Session{Master: m, Terminal: u.term, Out: passAll, In: (&wordFilter{word: inWord, action: guard.Redact}).filter})
	var in, want strings.Builder
	in.WriteString(pasteStart)
	want.WriteString(pasteStart)
	for i := range 5000 {
		fill := strings.Repeat("s", i%17)
		in.WriteString(fill + inWord)
		want.WriteString(fill + strings.Repeat("*", len(inWord)))
	}
	in.WriteString(pasteEnd)
	want.WriteString(pasteEnd)
	wrote := make(chan struct{})
	go func() { defer close(wrote); u.master.WriteString(in.String()) }()
	agentIsFull(t, m)
	got := reads(t, s)
	got.waitFor(t, pasteEnd)
	if got.String() != want.String() {
		t.Error("it arrived otherwise")
	}
	<-wrote
	cancel()
	_ = ended()
	m.Close()
}

// A filter of the input that panics takes Run's caller down, not the program.
func TestInputPanicIsTheCallers(t *testing.T) {
	testutil.Leftovers(t)
	u := newUser(t)
	m, s := rawPair(t)
	session := &Session{Master: m, Terminal: u.term, Out: passAll, In: func([]byte, guard.Step) ([]byte, guard.Decision) { panic("input broken") }}
	ran := make(chan any)
	go func() {
		defer func() { ran <- recover() }()
		_ = session.Run(t.Context())
	}()
	say(t, s, "ready")
	u.screen.waitFor(t, "ready")
	u.typed(t, "x")
	if v, _ := (<-ran).(string); !strings.HasPrefix(v, "input broken") {
		t.Errorf("recovered %q", v)
	}
	noGoroutines(t)
	if err := u.term.Restore(); err != nil {
		t.Error(err)
	}
}
