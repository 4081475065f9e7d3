//go:build linux

package screen

import (
	"fmt"
	"regexp"
	"strings"
	"testing"

	"guard"
)

type drawing struct {
	name   string
	narrow bool // also on a screen that is less wide than v
	odd    bool // the other model does not know what it uses
	draw   func(rows, cols int, v string) []string
}

// drawings are ways to put v on a screen of this size, in pieces that are written
// one after the other. None of them has v in one go.
var drawings = []drawing{
	{"two pieces, CUP", false, false, func(_, _ int, v string) []string {
		return []string{at(3, 5, v[:9]), at(7, 1, "else"), at(3, 14, v[9:])}
	}},
	{"second piece first", false, false, func(_, _ int, v string) []string {
		return []string{at(3, 14, v[9:]), at(3, 5, v[:9])}
	}},
	{"backwards, a character at a time", false, false, func(_, _ int, v string) (out []string) {
		for i := len(v) - 1; i >= 0; i-- {
			out = append(out, at(4, 2+i, v[i:i+1]))
		}
		return out
	}},
	{"backwards with CUB", false, false, func(_, _ int, v string) (out []string) {
		out = append(out, fmt.Sprintf("\x1b[5;%dH", len(v)+1))
		for i := len(v) - 1; i >= 0; i-- {
			out = append(out, v[i:i+1]+"\x1b[2D")
		}
		return out
	}},
	{"backwards with BS", false, false, func(_, _ int, v string) (out []string) {
		out = append(out, fmt.Sprintf("\x1b[5;%dH", len(v)+1))
		for i := len(v) - 1; i >= 0; i-- {
			out = append(out, v[i:i+1]+"\b\b")
		}
		return out
	}},
	{"shuffled, HPA and VPA", false, false, func(_, _ int, v string) (out []string) {
		for _, i := range newRand(3).Perm(len(v)) {
			out = append(out, fmt.Sprintf("\x1b[6d\x1b[%d`%c", i+1, v[i]))
		}
		return out
	}},
	{"every other character, then the rest", false, false, func(_, _ int, v string) (out []string) {
		var b strings.Builder
		for i := 0; i < len(v); i += 2 {
			fmt.Fprintf(&b, "%c\x1b[C", v[i])
		}
		out = append(out, at(2, 1, b.String()))
		b.Reset()
		for i := 1; i < len(v); i += 2 {
			fmt.Fprintf(&b, "\x1b[%dG%c", i+1, v[i])
		}
		return append(out, "\x1b[2;1H"+b.String())
	}},
	{"with CR", false, false, func(_, _ int, v string) []string {
		return []string{strings.Repeat(".", 9) + v[9:] + "\r" + v[:9]}
	}},
	{"tabs", false, false, func(_, _ int, v string) []string {
		return []string{"\x1b[3g\x1b[2;10H\x1bH\x1b[2;1H\t" + v[9:], "\r" + v[:9], "\x1b[3g"}
	}},
	{"a gap that ICH makes is filled", false, false, func(_, _ int, v string) []string {
		return []string{at(2, 1, v[:5]+v[10:]), "\x1b[2;6H\x1b[5@", v[5:10]}
	}},
	{"DCH takes out what is between", false, false, func(_, _ int, v string) []string {
		return []string{at(2, 1, v[:5]+"####"+v[5:]), "\x1b[2;6H\x1b[4P"}
	}},
	{"DCH one by one", false, false, func(_, _ int, v string) []string {
		return []string{at(2, 1, v[:5]+"####"+v[5:]), "\x1b[2;6H\x1b[P\x1b[P\x1b[P", "\x1b[P"}
	}},
	{"insert mode", false, true, func(_, _ int, v string) []string {
		return []string{at(2, 1, v[:5]+v[10:]), "\x1b[4h\x1b[2;6H", v[5:10], "\x1b[4l"}
	}},
	{"DL joins rows", true, false, func(rows, cols int, v string) []string {
		return []string{at(2, cols-8, v[:9]), at(3, 1, "between"), at(4, 1, v[9:]), "\x1b[3;1H\x1b[M"}
	}},
	{"IL moves a row down to the rest", true, false, func(_, cols int, v string) []string {
		return []string{at(2, cols-8, v[:9]), at(20, 1, "else"), at(4, 1, v[9:]), "\x1b[1;3r\x1b[1;1H\x1b[1L\x1b[r"}
	}},
	{"a scroll region joins rows", true, false, func(_, cols int, v string) []string {
		return []string{at(3, cols-8, v[:9]), at(20, 1, "else"), at(6, 1, v[9:]), "\x1b[4;8r\x1b[8;1H\n\n\x1b[r"}
	}},
	{"SU in a region", true, false, func(_, cols int, v string) []string {
		return []string{at(3, cols-8, v[:9]), at(20, 1, "else"), at(6, 1, v[9:]), "\x1b[4;8r\x1b[2S\x1b[r"}
	}},
	{"RI in a region", true, false, func(_, cols int, v string) []string {
		return []string{at(2, cols-8, v[:9]), at(20, 1, "else"), at(4, 1, v[9:]), "\x1b[1;3r\x1b[1;1H\x1bM\x1b[r"}
	}},
	{"REP", false, false, func(_, _ int, v string) []string {
		return []string{at(2, 3, "AAAAAAAA"), at(2, 1, "\x1b[2b")}
	}},
	{"in two columns", false, false, func(_, _ int, v string) []string {
		h := len(v) / 2
		return []string{at(2, 3, v[:h]) + at(2, 40, "other"), at(3, 3, v[h:]) + at(3, 40, "text")}
	}},
	{"down a pane beside another", false, false, func(_, _ int, v string) (out []string) {
		for i := 0; i*6 < len(v); i++ {
			out = append(out, at(2+i, 12, v[i*6:min(len(v), i*6+6)]), at(2+i, 1, "left text"), at(2+i, 19, "right text"))
		}
		return out
	}},
	{"down a pane between borders", true, false, func(_, _ int, v string) (out []string) {
		for i := 0; i*6 < len(v); i++ {
			out = append(out, at(2+i, 1, fmt.Sprintf("left│%-6s│right", v[i*6:min(len(v), i*6+6)])))
		}
		return out
	}},
	{"in a box, from its middle", false, false, func(_, _ int, v string) (out []string) {
		out = append(out, at(2, 1, "│key: "+v[:10]+"│"))
		for i := 0; 10+i*15 < len(v); i++ {
			out = append(out, at(3+i, 1, fmt.Sprintf("│%-15s│", v[10+i*15:min(len(v), 25+i*15)])))
		}
		return out
	}},
	{"down a column, a character a row", true, false, func(rows, _ int, v string) (out []string) {
		for i := range v {
			out = append(out, at(1+i, 7, v[i:i+1]))
		}
		return out
	}},
	{"lines of a program", true, false, func(_, _ int, v string) (out []string) {
		for i := 0; i < len(v); i += 8 {
			out = append(out, v[i:min(len(v), i+8)]+"\r\n")
		}
		return out
	}},
	{"columns of a program", false, false, func(_, _ int, v string) (out []string) {
		for i := 0; i < len(v); i += 8 {
			out = append(out, fmt.Sprintf("some text   %-8s  more\r\n", v[i:min(len(v), i+8)]))
		}
		return out
	}},
	{"saved cursors", false, false, func(_, _ int, v string) []string {
		return []string{"\x1b[2;10H\x1b7", at(2, 1, v[:9]), "\x1b8" + v[9:]}
	}},
	{"the alternate screen and back", false, false, func(_, _ int, v string) []string {
		return []string{at(2, 1, v[:9]), "\x1b[?1049h\x1b[H" + at(2, 1, "other things"), "\x1b[?1049l", at(2, 10, v[9:])}
	}},
	{"on the alternate screen", false, false, func(_, _ int, v string) []string {
		return []string{"\x1b[?1049h\x1b[H", at(2, 10, v[9:]), at(2, 1, v[:9])}
	}},
	{"over text, for a moment", false, false, func(_, _ int, v string) []string {
		return []string{at(2, 1, "123456789"+v[9:]), at(2, 1, v[:9]+strings.Repeat("#", len(v)-9))}
	}},
	{"after DECALN", false, false, func(_, _ int, v string) []string {
		return []string{"\x1b#8", at(2, 14, v[9:]), at(2, 5, v[:9]), "\x1b[2J"}
	}},
	{"combining characters between", true, true, func(_, _ int, v string) []string {
		var b strings.Builder
		for _, c := range v {
			b.WriteRune(c)
			b.WriteRune(0x200b)
		}
		return []string{b.String()}
	}},
	{"accents on it", false, true, func(_, _ int, v string) []string {
		return []string{at(2, 10, v[9:]), at(2, 1, strings.Join(strings.Split(v[:9], ""), "\u0301"))}
	}},
	{"erased to the edge of a pane", false, false, func(_, _ int, v string) []string {
		return []string{at(2, 3, v[:9]+"####"), at(3, 3, v[9:]), "\x1b[2;12H\x1b[K"}
	}},
	{"ECH", false, false, func(_, _ int, v string) []string {
		return []string{at(2, 3, v[:9]+"####"), at(3, 3, v[9:]), "\x1b[2;12H\x1b[4X"}
	}},
	{"origin mode and a region", false, false, func(_, _ int, v string) []string {
		return []string{"\x1b[5;12r\x1b[?6h", at(2, 10, v[9:]), at(2, 1, v[:9]), "\x1b[?6l\x1b[r"}
	}},
	{"wrapped at the edge, the end first", true, false, func(_, cols int, v string) []string {
		return []string{at(3, 1, v[9:]), at(2, cols-8, v[:9])}
	}},
	{"wrapped by itself over older text", true, false, func(_, cols int, v string) []string {
		return []string{at(3, 3, v[11:]), at(2, cols-8, v[:11])}
	}},
	{"with no wrapping", false, false, func(_, cols int, v string) []string {
		return []string{"\x1b[?7l", at(2, cols-8, v[:8]+"x"), at(3, 1, v[9:]), at(2, cols, "zyx"+v[8:9]), "\x1b[?7h"}
	}},
	{"in history and on the screen", true, false, func(rows, cols int, v string) []string {
		return []string{at(1, cols-8, v[:9]), at(rows, 1, "\n"), at(1, 1, v[9:])}
	}},
	{"controls inside sequences", false, true, func(_, _ int, v string) []string {
		return []string{at(2, 10, v[9:]), "\x1b[1;\n1H", "\x1b[\r2;1\bH" + v[:9]}
	}},
	{"C1 controls", false, true, func(_, _ int, v string) []string {
		return []string{"\u009b2;10H" + v[9:], "\u009b2;1H" + v[:9]}
	}},
	{"protected and erased", false, false, func(_, _ int, v string) []string {
		return []string{"\x1b[1\"q" + at(2, 10, v[9:]), "\x1b[0\"q\x1b[?2J", at(2, 1, v[:9])}
	}},
}

func at(row, col int, s string) string { return fmt.Sprintf("\x1b[%d;%dH%s", row, col, s) }

var sequences = regexp.MustCompile("\x1b\\[[0-9;?\"' ]*[@-~]|\x1b[()#].|\x1b[0-~]|[\r\n\b\t]")

// play sends parts through a screen in pieces of n bytes (0: a part at a time), and
// returns all that came out. It calls shown after each piece.
func play(t *testing.T, s *Screen, parts []string, n int, shown func(out []byte)) string {
	t.Helper()
	f := s.Wrap(passAll)
	var all strings.Builder
	for _, p := range parts {
		for len(p) > 0 {
			k := len(p)
			if n > 0 {
				k = min(n, k)
			}
			out, d := f([]byte(p[:k]), guard.More)
			if d.Action.Stops() {
				t.Fatal(d)
			}
			all.Write(out)
			shown(out)
			p = p[k:]
		}
	}
	return all.String()
}

// parts returns what draws v, and v, for a screen of this size; nil if it is too
// narrow.
func (d drawing) parts(rows, cols int) (v string, parts []string) {
	v = value
	if d.name == "REP" {
		v = "AAAAAAAAAA"
	}
	if cols < 48 && !d.narrow {
		return v, nil
	}
	return v, append([]string{"\x1b[H\x1b[2J"}, d.draw(rows, cols, v)...)
}

// Whatever way a value is drawn in, no terminal ever shows it, and no log of the
// bytes holds it; and all that is not of the value is where it was.
func TestDrawnInPieces(t *testing.T) {
	const rows = 40
	for _, d := range drawings {
		t.Run(d.name, func(t *testing.T) {
			for i, cols := range []int{20, 33, 48, 80, 120} {
				v, parts := d.parts(rows, cols)
				if parts == nil {
					continue
				}
				for _, n := range []int{0, 1 + 6*(i%2)} {
					e, plain := newTerminal(t, rows, cols), newTerminal(t, rows, cols)
					all := play(t, New(rows, cols, finder(v), redact), parts, n, func(out []byte) {
						e.Write(out)
						if r := e.rows(); drawn(r, v, cols) {
							t.Fatalf("%d columns: %q shows\n%s", cols, parts, strings.Join(r, "\n"))
						}
					})
					if flat := sequences.ReplaceAllString(all, ""); strings.Contains(flat, v) || strings.Contains(all, v) {
						t.Errorf("%d columns: %q holds it", cols, all)
					}
					if !strings.Contains(all, "*") {
						t.Errorf("%d columns: nothing was masked in %q", cols, all)
					}
					if !d.odd {
						plain.WriteString(strings.Join(parts, ""))
						alike(t, e, plain, v)
					}
				}
			}
		})
	}
}

// alike checks that a shows what b does but for asterisks in the place of v's
// characters, with the same cursor.
func alike(t *testing.T, a, b *terminal, v string) {
	t.Helper()
	got, want := a.rows(), b.rows()
	for y := range got {
		g, w := []rune(got[y]), []rune(want[y])
		if len(g) != len(w) {
			t.Errorf("row %d is %q, was %q", y, got[y], want[y])
			continue
		}
		for x := range g {
			if g[x] != w[x] && (g[x] != '*' || !strings.ContainsRune(v, w[x])) {
				t.Errorf("row %d is %q, was %q", y, got[y], want[y])
				break
			}
		}
	}
	if p, q := a.CursorPosition(), b.CursorPosition(); p != q {
		t.Errorf("the cursor is at %v, was at %v", p, q)
	}
}

// tmux as well, and its history.
func TestDrawnInTmux(t *testing.T) {
	x := newTmux(t)
	const rows = 36
	for i, d := range drawings {
		cols := []int{48, 64, 80, 100, 120}[i%5]
		v, parts := d.parts(rows, cols)
		var pieces []string
		play(t, New(rows, cols, finder(v), redact), parts, 0, func(out []byte) { pieces = append(pieces, string(out)) })
		if n := len(pieces); n > 4 {
			pieces = []string{strings.Join(pieces[:n/2], ""), strings.Join(pieces[n/2:n-1], ""), pieces[n-1]}
		}
		for _, r := range x.show(rows, cols, pieces...) {
			if drawn(r, v, cols) {
				t.Errorf("%s: %q shows\n%s", d.name, pieces, strings.Join(r, "\n"))
			}
		}
	}
}
