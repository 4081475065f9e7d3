//go:build linux

package screen

import (
	"fmt"
	"regexp"
	"strings"
	"testing"
)

// drawings are ways to put v on a screen of this size, in pieces that are written
// one after the other. None of them has v in one go.
var drawings = []struct {
	name   string
	narrow bool // also on a screen that is less wide than v
	draw   func(rows, cols int, v string) []string
}{
	{"two pieces, CUP", false, func(_, _ int, v string) []string {
		return []string{at(3, 5, v[:9]), at(7, 1, "else"), at(3, 14, v[9:])}
	}},
	{"second piece first", false, func(_, _ int, v string) []string {
		return []string{at(3, 14, v[9:]), at(3, 5, v[:9])}
	}},
	{"backwards, a character at a time", false, func(_, _ int, v string) (out []string) {
		for i := len(v) - 1; i >= 0; i-- {
			out = append(out, at(4, 2+i, v[i:i+1]))
		}
		return out
	}},
	{"backwards with CUB", false, func(_, _ int, v string) (out []string) {
		out = append(out, fmt.Sprintf("\x1b[5;%dH", len(v)+1))
		for i := len(v) - 1; i >= 0; i-- {
			out = append(out, v[i:i+1]+"\x1b[2D")
		}
		return out
	}},
	{"backwards with BS", false, func(_, _ int, v string) (out []string) {
		out = append(out, fmt.Sprintf("\x1b[5;%dH", len(v)+1))
		for i := len(v) - 1; i >= 0; i-- {
			out = append(out, v[i:i+1]+"\b\b")
		}
		return out
	}},
	{"shuffled, HPA and VPA", false, func(_, _ int, v string) (out []string) {
		for _, i := range newRand(3).Perm(len(v)) {
			out = append(out, fmt.Sprintf("\x1b[6d\x1b[%d`%c", i+1, v[i]))
		}
		return out
	}},
	{"every other character, then the rest", false, func(_, _ int, v string) (out []string) {
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
	{"with CR", false, func(_, _ int, v string) []string {
		return []string{strings.Repeat(".", 9) + v[9:] + "\r" + v[:9]}
	}},
	{"tabs", false, func(_, _ int, v string) []string {
		return []string{"\x1b[3g\x1b[2;10H\x1bH\x1b[2;1H\t" + v[9:], "\r" + v[:9], "\x1b[3g"}
	}},
	{"a gap that ICH makes is filled", false, func(_, _ int, v string) []string {
		return []string{at(2, 1, v[:5]+v[10:]), "\x1b[2;6H\x1b[5@", v[5:10]}
	}},
	{"DCH takes out what is between", false, func(_, _ int, v string) []string {
		return []string{at(2, 1, v[:5]+"####"+v[5:]), "\x1b[2;6H\x1b[4P"}
	}},
	{"DCH one by one", false, func(_, _ int, v string) []string {
		return []string{at(2, 1, v[:5]+"####"+v[5:]), "\x1b[2;6H\x1b[P\x1b[P\x1b[P", "\x1b[P"}
	}},
	{"insert mode", false, func(_, _ int, v string) []string {
		return []string{at(2, 1, v[:5]+v[10:]), "\x1b[4h\x1b[2;6H", v[5:10], "\x1b[4l"}
	}},
	{"DL joins rows", true, func(rows, cols int, v string) []string {
		return []string{at(2, cols-8, v[:9]), at(3, 1, "between"), at(4, 1, v[9:]), "\x1b[3;1H\x1b[M"}
	}},
	{"IL moves a row down to the rest", true, func(_, cols int, v string) []string {
		return []string{at(2, cols-8, v[:9]), at(20, 1, "else"), at(4, 1, v[9:]), "\x1b[1;3r\x1b[1;1H\x1b[1L\x1b[r"}
	}},
	{"a scroll region joins rows", true, func(_, cols int, v string) []string {
		return []string{at(3, cols-8, v[:9]), at(20, 1, "else"), at(6, 1, v[9:]), "\x1b[4;8r\x1b[8;1H\n\n\x1b[r"}
	}},
	{"SU in a region", true, func(_, cols int, v string) []string {
		return []string{at(3, cols-8, v[:9]), at(20, 1, "else"), at(6, 1, v[9:]), "\x1b[4;8r\x1b[2S\x1b[r"}
	}},
	{"RI in a region", true, func(_, cols int, v string) []string {
		return []string{at(2, cols-8, v[:9]), at(20, 1, "else"), at(4, 1, v[9:]), "\x1b[1;3r\x1b[1;1H\x1bM\x1b[r"}
	}},
	{"REP", false, func(_, _ int, v string) []string {
		return []string{at(2, 3, "AAAAAAAA"), at(2, 1, "\x1b[2b")}
	}},
	{"in two columns", false, func(_, _ int, v string) []string {
		h := len(v) / 2
		return []string{at(2, 3, v[:h]) + at(2, 40, "other"), at(3, 3, v[h:]) + at(3, 40, "text")}
	}},
	{"down a pane beside another", false, func(_, _ int, v string) (out []string) {
		for i := 0; i*6 < len(v); i++ {
			out = append(out, at(2+i, 12, v[i*6:min(len(v), i*6+6)]), at(2+i, 1, "left text"), at(2+i, 19, "right text"))
		}
		return out
	}},
	{"down a pane between borders", true, func(_, _ int, v string) (out []string) {
		for i := 0; i*6 < len(v); i++ {
			out = append(out, at(2+i, 1, fmt.Sprintf("left│%-6s│right", v[i*6:min(len(v), i*6+6)])))
		}
		return out
	}},
	{"in a box, from its middle", false, func(_, _ int, v string) (out []string) {
		out = append(out, at(2, 1, "│key: "+v[:10]+"│"))
		for i := 0; 10+i*15 < len(v); i++ {
			out = append(out, at(3+i, 1, fmt.Sprintf("│%-15s│", v[10+i*15:min(len(v), 25+i*15)])))
		}
		return out
	}},
	{"down a column, a character a row", true, func(rows, _ int, v string) (out []string) {
		for i := range v {
			out = append(out, at(1+i, 7, v[i:i+1]))
		}
		return out
	}},
	{"lines of a program", true, func(_, _ int, v string) (out []string) {
		for i := 0; i < len(v); i += 8 {
			out = append(out, v[i:min(len(v), i+8)]+"\r\n")
		}
		return out
	}},
	{"columns of a program", false, func(_, _ int, v string) (out []string) {
		for i := 0; i < len(v); i += 8 {
			out = append(out, fmt.Sprintf("some text   %-8s  more\r\n", v[i:min(len(v), i+8)]))
		}
		return out
	}},
	{"saved cursors", false, func(_, _ int, v string) []string {
		return []string{"\x1b[2;10H\x1b7", at(2, 1, v[:9]), "\x1b8" + v[9:]}
	}},
	{"the alternate screen and back", false, func(_, _ int, v string) []string {
		return []string{at(2, 1, v[:9]), "\x1b[?1049h\x1b[H" + at(2, 1, "other things"), "\x1b[?1049l", at(2, 10, v[9:])}
	}},
	{"on the alternate screen", false, func(_, _ int, v string) []string {
		return []string{"\x1b[?1049h\x1b[H", at(2, 10, v[9:]), at(2, 1, v[:9])}
	}},
	{"over text, for a moment", false, func(_, _ int, v string) []string {
		return []string{at(2, 1, "123456789"+v[9:]), at(2, 1, v[:9]+strings.Repeat("#", len(v)-9))}
	}},
	{"after DECALN", false, func(_, _ int, v string) []string {
		return []string{"\x1b#8", at(2, 14, v[9:]), at(2, 5, v[:9]), "\x1b[2J"}
	}},
	{"combining characters between", true, func(_, _ int, v string) []string {
		var b strings.Builder
		for _, c := range v {
			b.WriteRune(c)
			b.WriteRune(0x200b)
		}
		return []string{b.String()}
	}},
	{"accents on it", false, func(_, _ int, v string) []string {
		return []string{at(2, 10, v[9:]), at(2, 1, strings.Join(strings.Split(v[:9], ""), "\u0301"))}
	}},
	{"erased to the edge of a pane", false, func(_, _ int, v string) []string {
		return []string{at(2, 3, v[:9]+"####"), at(3, 3, v[9:]), "\x1b[2;12H\x1b[K"}
	}},
	{"ECH", false, func(_, _ int, v string) []string {
		return []string{at(2, 3, v[:9]+"####"), at(3, 3, v[9:]), "\x1b[2;12H\x1b[4X"}
	}},
	{"origin mode and a region", false, func(_, _ int, v string) []string {
		return []string{"\x1b[5;12r\x1b[?6h", at(2, 10, v[9:]), at(2, 1, v[:9]), "\x1b[?6l\x1b[r"}
	}},
	{"wrapped at the edge, the end first", true, func(_, cols int, v string) []string {
		return []string{at(3, 1, v[9:]), at(2, cols-8, v[:9])}
	}},
	{"wrapped by itself over older text", true, func(_, cols int, v string) []string {
		return []string{at(3, 3, v[11:]), at(2, cols-8, v[:11])}
	}},
	{"with no wrapping", false, func(_, cols int, v string) []string {
		return []string{"\x1b[?7l", at(2, cols-8, v[:8]+"x"), at(3, 1, v[9:]), at(2, cols, "zyx"+v[8:9]), "\x1b[?7h"}
	}},
	{"in history and on the screen", true, func(rows, cols int, v string) []string {
		return []string{at(1, cols-8, v[:9]), at(rows, 1, "\n"), at(1, 1, v[9:])}
	}},
	{"controls inside sequences", false, func(_, _ int, v string) []string {
		return []string{at(2, 10, v[9:]), "\x1b[1;\n1H", "\x1b[\r2;1\bH" + v[:9]}
	}},
	{"C1 controls", false, func(_, _ int, v string) []string {
		return []string{"\u009b2;10H" + v[9:], "\u009b2;1H" + v[:9]}
	}},
	{"protected and erased", false, func(_, _ int, v string) []string {
		return []string{"\x1b[1\"q" + at(2, 10, v[9:]), "\x1b[0\"q\x1b[?2J", at(2, 1, v[:9])}
	}},
}

func at(row, col int, s string) string { return fmt.Sprintf("\x1b[%d;%dH%s", row, col, s) }

var sequences = regexp.MustCompile("\x1b\\[[0-9;?\"' ]*[@-~]|\x1b[()#].|\x1b[0-~]|[\r\n\b\t]")

// Whatever way a value is drawn in, no terminal ever shows it, and no log of the
// bytes holds it.
func TestDrawnInPieces(t *testing.T) {
	for _, d := range drawings {
		t.Run(d.name, func(t *testing.T) {
			for _, cols := range []int{20, 33, 40, 64, 80, 120} {
				v, rows := value, 40
				if d.name == "REP" {
					v = "AAAAAAAAAA"
				}
				parts := append([]string{"\x1b[H\x1b[2J"}, d.draw(rows, cols, v)...)
				if cols < 48 && !d.narrow {
					continue
				}
				find := finder(v)
				s := New(rows, cols, find, redact)
				e := newTerminal(t, rows, cols)
				f := s.Wrap(passAll)
				var all strings.Builder
				for i, p := range parts {
					out, dec := f([]byte(p), 0)
					if dec.Action > 4 {
						t.Fatal(dec)
					}
					all.Write(out)
					e.Write(out)
					if r := e.rows(); drawn(r, v, cols) {
						t.Fatalf("%d columns: after part %d of %q: %q\n%s", cols, i, parts, all.String(), strings.Join(r, "\n"))
					}
				}
				if plain := sequences.ReplaceAllString(all.String(), ""); strings.Contains(plain, v) || strings.Contains(all.String(), v) {
					t.Errorf("%d columns: %q holds it", cols, all.String())
				}
				if !strings.Contains(all.String(), "*") {
					t.Errorf("%d columns: nothing was masked in %q", cols, all.String())
				}
			}
		})
	}
}
