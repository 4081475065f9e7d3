package supervisor

import (
	"encoding/base64"
	"fmt"
	"math/rand/v2"
	"slices"
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

// released sends in and a pause, and returns what went out.
func released(t *testing.T, c guard.Channel, in []byte) []byte {
	l, _ := newLine(t, guard.Redact)
	f := l.Open(guard.Origin{Channel: c})
	out, _ := f(in, guard.More)
	got := slices.Clone(out)
	out, _ = f(nil, guard.Pause)
	return append(got, out...)
}

// Whoever waits for an answer gets all that was said, whatever it ends in, unless
// that is eight bytes or more of a value.
func TestPauseHoldsOnlyBeginnings(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	random := func(n int) []byte {
		b := make([]byte, n)
		for i := range b {
			b[i] = byte(r.Uint32())
		}
		return b
	}
	var messages [][]byte
	for range 500 {
		b := random(1 + r.IntN(1500))
		messages = append(messages, b, append(b[:len(b)*3/4], make([]byte, r.IntN(20))...))
		messages = append(messages, fmt.Appendf(nil, "%x", b), fmt.Appendf(nil, "%x\n", b), fmt.Appendf(nil, "%d", b), fmt.Appendf(nil, "%x\n", b[:1+len(b)/40]),
			[]byte(base64.StdEncoding.EncodeToString(b)), []byte(base64.StdEncoding.EncodeToString(b)+"\n"), []byte(base64.RawURLEncoding.EncodeToString(b[:len(b)/20+1])+"\r\n"))
	}
	for i := range 300 {
		messages = append(messages, fmt.Appendf(nil, "%d %d %d\n", i%256, i*31%256, i*7%256), fmt.Appendf(nil, "%08x  %02x %02x %02x %02x\n", i*16, i%256, i%7, i%5, i%3))
	}
	for _, s := range []string{"x\x9c", "\x1f\x8b\x08", "\x28\xb5\x2f\xfd", "PK\x03\x04", "P", "\x1b", "\x1b]0;", "\x1bP", "%", "%4", "\\", "\\x4", "\\u00", "&#", "=", "\"", "'a' + ", "[1, 2, 3", "0x", "foo \\\n", "a\x00\x00", "\xe2\x80"} {
		for _, m := range [][]byte{[]byte(s), []byte("text " + s), append(random(100), s...)} {
			if got := released(t, guard.ChannelPipe, m); len(got) != len(m) {
				t.Errorf("%d of %d bytes were let go: ...%q", len(got), len(m), s)
			}
		}
	}
	for _, c := range []guard.Channel{guard.ChannelPipe, guard.ChannelSocket, guard.ChannelTerminal} {
		l, _ := newLine(t, guard.Redact)
		f := l.Open(guard.Origin{Channel: c})
		for i, m := range messages {
			out, d := f(m, guard.More)
			n := len(out)
			out, _ = f(nil, guard.Pause)
			if n += len(out); n != len(m) || d.Action != guard.Pass {
				t.Fatalf("%s: message %d: %d of %d bytes were let go, %v: ...%q", c, i, n, len(m), d.Action, m[max(0, len(m)-60):])
			}
			if got := released(t, c, m); i%20 == 0 && len(got) != len(m) {
				t.Fatalf("%s: message %d alone: %d of %d bytes were let go: ...%q", c, i, len(got), len(m), m[max(0, len(m)-60):])
			}
		}
	}
	for n := range holdBack {
		for _, tail := range append(drawn, "") {
			if in := "x" + canary[:n] + tail; string(released(t, guard.ChannelPipe, []byte(in))) != in {
				t.Errorf("%q was held back", in)
			}
		}
	}
	for n := holdBack; n < len(canary); n++ {
		for _, tail := range append(drawn, "") {
			if out := released(t, guard.ChannelPipe, []byte("x"+canary[:n]+tail)); string(out) != "x" {
				t.Errorf("let go of %q", out)
			}
		}
	}
}

// A writer that pauses after every few bytes gets no more than that out of a value
// that is encoded, once or twice.
func TestSlowWriterOfEncodings(t *testing.T) {
	b64 := base64.StdEncoding.EncodeToString([]byte("a long text before it, then " + canary + " and after"))
	list := strings.Trim(strings.ReplaceAll(fmt.Sprint([]byte("then "+canary+" and after")), " ", ", "), "[]")
	lists := strings.Trim(strings.ReplaceAll(fmt.Sprint([]byte(b64)), " ", ", "), "[]")
	for name, form := range map[string]string{
		"base64": b64, "hex": fmt.Sprintf("%x", "then "+canary+" and after"), "decimal": list, "base64 in decimal": lists,
		"base64 of base64": base64.StdEncoding.EncodeToString([]byte(b64)), "hex of base64": fmt.Sprintf("%x", b64),
	} {
		for _, n := range []int{1, 2, 3, 7, 20} {
			l, e := newLine(t, guard.Redact)
			var pieces [][]byte
			for rest := []byte(form); len(rest) > 0; rest = rest[min(n, len(rest)):] {
				pieces = append(pieces, rest[:min(n, len(rest))])
			}
			out, _ := send(l.Open(guard.Origin{Channel: guard.ChannelPipe}), true, pieces...)
			if len(e.leaks) == 0 {
				t.Fatalf("%s, %d at a time: not found", name, n)
			}
			// The longest stretch that is as it was, after where the value begins.
			at := int(e.leaks[0].Offset)
			same := 0
			for at+same < len(form) && out[at+same] == form[at+same] {
				same++
			}
			// In characters of the form: those of fewer than 12 bytes.
			if limit := e.leaks[0].Length * 12 / len(canary); same > limit {
				t.Errorf("%s, %d at a time: %d of %d characters went out, %d would do", name, n, same, e.leaks[0].Length, limit)
			}
		}
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
