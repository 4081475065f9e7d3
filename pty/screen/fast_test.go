package screen

import (
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"
)

// pieces returns random output of a program that has the value in it, cut up and
// drawn in many ways, but nowhere in one go.
func pieces(r *rand.Rand, rows, cols, n int) string {
	var b strings.Builder
	num := func(m int) int { return r.IntN(m) + 1 }
	words := []string{"ab", "xyz", "fnord ", " ", "  ", "│", "|", "é", "漢", "row text"}
	for range n {
		w := num(12)
		row, col := num(rows), num(max(1, cols-len(value)))
		switch r.IntN(16) {
		case 0, 1:
			b.WriteString(noise(r, rows, cols, num(12), true))
		case 2, 3: // part of it
			i := r.IntN(2) * r.IntN(len(value))
			b.WriteString(value[i:min(len(value), i+w)])
		case 4: // in a row, by moves
			for i := 0; i < len(value); i += w {
				b.WriteString(at(row, col+i, value[i:min(len(value), i+w)]))
			}
		case 5: // backwards
			for i := (len(value) - 1) / w * w; i >= 0; i -= w {
				b.WriteString(at(row, col+i, value[i:min(len(value), i+w)]))
			}
		case 6: // down a column, beside other text
			for i := 0; i < len(value); i += w {
				b.WriteString(at(min(rows, row+i/w), col, words[r.IntN(8)]+" "+value[i:min(len(value), i+w)]))
			}
		case 7: // a column of plain lines
			for i := 0; i < len(value); i += w {
				fmt.Fprintf(&b, "%-10s %s\r\n", words[r.IntN(3)], value[i:min(len(value), i+w)])
				if r.IntN(20) == 0 {
					b.WriteString("more\r\r\n")
				}
			}
		case 8: // a long scroll
			b.WriteString(strings.Repeat("a line \x1b[1mof\x1b[m text\r\n", num(3*rows)))
		case 9: // a screen painted again, but for a number and a part of it
			for i := range rows {
				b.WriteString(at(i+1, 1, fmt.Sprintf("\x1b[3%dmrow %d %d\x1b[m│%s", r.IntN(8), i, r.IntN(3), value[:r.IntN(len(value))])))
			}
		case 10: // one part of it in each frame
			for i := 0; i < len(value); i += w {
				b.WriteString("\x1b[H" + strings.Repeat("name  4711 \x1b[K\r\n", min(row, rows-1)))
				b.WriteString(at(row, col+i, value[i:min(len(value), i+w)]))
			}
		case 11: // scrolled together
			fmt.Fprintf(&b, "\x1b[%d;%dr\x1b[%d;1H\n%s\n%s\x1b[r", min(row, rows-1), rows, rows, value[:w], value[w:])
		case 12: // on the other screen, and back
			b.WriteString("\x1b[?1049h" + at(row, 1, value[:w]) + "\x1b[?1049l" + at(row, 1+w, value[w:]))
		case 13: // wrapped, with a move in between
			b.WriteString(at(row, max(1, cols-w+1), value[:w]) + at(min(row+1, rows), 1, value[w:]))
		case 14: // over other text, and the same again
			b.WriteString(at(row, col, strings.Repeat("-", len(value))) + at(row, col+w, value[w:]) + at(row, col, value[:w]))
			b.WriteString(at(row, col, value[:w]))
		default:
			b.WriteString(words[r.IntN(len(words))])
		}
	}
	return strings.NewReplacer(value, "fnord", reversed(value), "fnord").Replace(b.String())
}

// What is not looked at again, because it did not change, would not have been masked
// either: the output is the same, byte for byte, where all is looked at.
func TestUnchangedIsAsIfLookedAt(t *testing.T) {
	masks := 0
	for seed := range uint64(40) {
		r := newRand(seed)
		rows, cols := 3+r.IntN(22), 34+r.IntN(167)
		in := pieces(r, rows, cols, 40)
		if seed%2 == 0 {
			in = "\x1b[H\x1b[2J" + in
		}
		fast, all := New(rows, cols, finder(value), redact), New(rows, cols, finder(value), redact)
		all.k.whole = true
		f, g := fast.Wrap(passAll), all.Wrap(passAll)
		for i, n := 0, 1+r.IntN(5000); i < len(in); i += n {
			p := []byte(in[i:min(i+n, len(in))])
			got, _ := f(p, 0)
			want, _ := g(p, 0)
			if string(got) != string(want) {
				t.Fatalf("seed %d, %dx%d: %q\n got %q\nwant %q", seed, rows, cols, p, got, want)
			}
			masks += strings.Count(string(got), "*")
		}
	}
	if masks < 1000 {
		t.Errorf("%d characters were masked", masks)
	}
}

// With the short way for plain output and without it, a terminal shows the same.
func TestPlainOutputIsAsIfModelled(t *testing.T) {
	masks := 0
	for seed := range uint64(40) {
		r := newRand(seed)
		rows, cols := 3+r.IntN(22), 34+r.IntN(167)
		in := "\x1b[H\x1b[2J"
		for range 6 { // so much plain text that it goes the short way
			end := []string{"\r\n", "\r\r\n", "\r\r\r\n"}[r.IntN(3)]
			in += strings.Repeat("some \x1b[1mtext\x1b[m of  a   line"+end, 3*rows) + pieces(r, rows, cols, 3)
		}
		fast, slow := New(rows, cols, finder(value), redact), New(rows, cols, finder(value), redact)
		f, g := fast.Wrap(passAll), slow.Wrap(passAll)
		a, b := newTerminal(t, rows, cols), newTerminal(t, rows, cols)
		for i, n := 0, 1+r.IntN(5000); i < len(in); i += n {
			p := []byte(in[i:min(i+n, len(in))])
			got, _ := f(p, 0)
			slow.plain.on, slow.plain.quiet = false, -1<<40
			want, _ := g(p, 0)
			a.Write(got)
			b.Write(want)
			if x, y := strings.Join(a.rows(), "\n"), strings.Join(b.rows(), "\n"); x != y {
				t.Fatalf("seed %d, %dx%d: %q\nshows\n%s\nwant\n%s", seed, rows, cols, p, x, y)
			}
			masks += strings.Count(string(got), "*")
		}
	}
	if masks < 1000 {
		t.Errorf("%d characters were masked", masks)
	}
}

// Right after much plain output, which the model did not see, every drawing is
// found as on a screen that was just cleared.
func TestDrawnAfterScrolling(t *testing.T) {
	const rows = 40
	for _, d := range drawings {
		for i, cols := range []int{20, 48, 80, 200} {
			v, parts := d.parts(rows, cols)
			if parts == nil {
				continue
			}
			scroll := strings.Repeat("a \x1b[32mline\x1b[m   of\ttext"+[]string{"\r\n", "\r\r\n"}[i%2], 2*rows+i)
			if i%2 == 0 {
				scroll += strings.Repeat("\r\n", rows) // nothing is below what is drawn
			}
			for _, n := range []int{0, 7} {
				e := newTerminal(t, rows, cols)
				s := New(rows, cols, finder(v), redact)
				play(t, s, []string{parts[0] + scroll, scroll}, 0, func(out []byte) { e.Write(out) })
				if !s.plain.on {
					t.Fatalf("%s, %d columns: the way to it was not the short one", d.name, cols)
				}
				all := play(t, s, parts[1:], n, func(out []byte) {
					e.Write(out)
					if r := e.rows(); drawn(r, v, cols) {
						t.Fatalf("%s, %d columns: %q shows\n%s", d.name, cols, parts[1:], strings.Join(r, "\n"))
					}
				})
				if strings.Contains(sequences.ReplaceAllString(all, ""), v) {
					t.Errorf("%s, %d columns: %q holds it", d.name, cols, all)
				}
			}
		}
	}
}
