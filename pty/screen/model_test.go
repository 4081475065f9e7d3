//go:build linux

package screen

import (
	"strings"
	"testing"
)

// The model shows what another one does, or tmux where that one is alone.
func TestModelIsLikeAnother(t *testing.T) {
	x := newTmux(t)
	asked := 0
	for seed := range uint64(150) {
		r := newRand(seed)
		rows, cols := 4+r.IntN(20), 8+r.IntN(90)
		text := "\x1b[H\x1b[2J" + noise(r, rows, cols, 60, false)
		e := newTerminal(t, rows, cols)
		s := New(rows, cols, none, redact)
		e.WriteString("\x1b[H\x1b[2J")
		f := s.Wrap(passAll)
		out, _ := f([]byte(text), 0)
		e.Write(out)
		got, want := s.current().text(), e.rows()
		if strings.Join(got, "\n") != strings.Join(want, "\n") && !s.among(want) {
			asked++
			if shown := x.show(rows, cols, string(out))[0]; s.among(shown[max(0, len(shown)-rows):]) {
				continue
			}
			t.Fatalf("seed %d: %dx%d %q\n got %q\nwant %q", seed, rows, cols, text, got, want)
		}
	}
	if asked > 50 {
		t.Errorf("%d of 150 differ", asked)
	}
}
