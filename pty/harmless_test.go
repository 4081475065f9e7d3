package pty

import (
	"math/rand/v2"
	"strings"
	"testing"
)

// What is looked at as a whole is judged as what comes byte by byte.
func TestWholeSequencesAreJudgedAsPiecesAre(t *testing.T) {
	parts := []string{"\x1b[", "\x1b", "[", "31", ";", ":", "?", "m", "H", "J", "t", "21t", "20", "c", "n", "*y", "q", "u", "r", "h", "25l", "a", "\n", "\x05", "\x07", "\x18",
		"\xc2", "\x9b", "\u009b", "é", "漢", "\x1b]0;x\x07", "\x1b]52;c;?\x07", "\x1bP$q", "\x1b\\", "\x1b[0m", "\x1b[38;5;1m", "\x1b[2;3H", strings.Repeat("1", 30), "\x1b[?1049h", "\x1b[4h"}
	r := rand.New(rand.NewPCG(3, 4))
	for range 50_000 {
		var b strings.Builder
		for range 1 + r.IntN(10) {
			b.WriteString(parts[r.IntN(len(parts))])
		}
		in := b.String()
		if whole, bytes := through(in, len(in), false, false), through(in, 1, false, false); whole != bytes {
			t.Fatalf("%q became %q, in bytes %q", in, whole, bytes)
		}
		var whole, bytes modes
		whole.feed([]byte(in))
		for i := range len(in) {
			bytes.feed([]byte(in[i : i+1]))
		}
		wOff, wOn := whole.undo()
		bOff, bOn := bytes.undo()
		if string(wOff) != string(bOff) || string(wOn) != string(bOn) || whole.state != bytes.state || whole.calm() != bytes.calm() && !strings.Contains(in, "\xc2") {
			t.Fatalf("%q leaves %q, in bytes %q", in, wOff, bOff)
		}
	}
}
