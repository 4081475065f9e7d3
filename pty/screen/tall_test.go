package screen

import (
	"fmt"
	"strings"
	"testing"

	"guard"
)

// A value in a column below much other text that begins in the same column, and above
// more of it.
func TestColumnBelowMuchText(t *testing.T) {
	for _, c := range []struct{ above, below, wide, cut int }{
		{0, 0, 60, 9}, {8, 0, 60, 9}, {20, 0, 60, 9}, {20, 20, 60, 9}, {45, 0, 14, 9}, {40, 5, 2, 9}, {20, 3, 77, 9},
		{20, 0, 60, 5}, {3, 25, 60, 25}, {25, 3, 30, 31},
	} {
		for _, upwards := range []bool{false, true} {
			t.Run(fmt.Sprint(c, upwards), func(t *testing.T) {
				const cols = 80
				s := New(60, cols, finder(value), redact)
				e := newTerminal(t, 60, cols)
				f := s.Wrap(passAll)
				step := func(p string) {
					out, _ := f([]byte(p), guard.More)
					e.Write(out)
				}
				step("\x1b[2J\x1b[H")
				row := 2
				fill := func(n int) {
					for i := range n {
						step(at(row, 3, strings.Repeat(string(rune('a'+i%26)), c.wide)))
						row++
					}
				}
				fill(c.above)
				r := row
				row += 2
				fill(c.below)
				pieces := []string{at(r, 3, value[:c.cut]), at(r+1, 3, value[c.cut:])}
				if upwards {
					pieces[0], pieces[1] = pieces[1], pieces[0]
				}
				step(pieces[0])
				step(pieces[1])
				rows := e.rows()
				if got := strings.TrimSpace(rows[r-1]) + strings.TrimSpace(rows[r]); strings.Contains(got, value) {
					t.Errorf("drawn: %q", got)
				}
			})
		}
	}
}

// Three pieces below each other, the middle one right before text that was drawn at
// another time, in every order.
func TestColumnWithACutInTheMiddle(t *testing.T) {
	pieces := []string{at(3, 5, value[:9]), at(4, 5, value[9:18]), at(5, 5, value[18:]), at(4, 5+9, "xxxx")}
	for n := range 24 {
		left, order := []int{0, 1, 2, 3}, []int{}
		for i, k := 4, n; i > 0; i-- {
			order = append(order, left[k%i])
			left = append(left[:k%i], left[k%i+1:]...)
			k /= i
		}
		s := New(10, 40, finder(value), redact)
		e := newTerminal(t, 10, 40)
		f := s.Wrap(passAll)
		for _, p := range append([]string{"\x1b[2J\x1b[H"}, pieces[order[0]], pieces[order[1]], pieces[order[2]], pieces[order[3]]) {
			out, _ := f([]byte(p), guard.More)
			e.Write(out)
		}
		rows := e.rows()
		if got := strings.TrimSpace(rows[2]) + strings.TrimSuffix(strings.TrimSpace(rows[3]), "xxxx") + strings.TrimSpace(rows[4]); got == value {
			t.Errorf("order %v: drawn", order)
		}
	}
}
