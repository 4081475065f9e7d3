//go:build linux

package screen

import (
	"fmt"
	"strings"
	"testing"

	"guard"
)

// Where the cursor is at first is not known: whichever row it is in, a value that
// is drawn by the numbers of rows is not seen.
func TestUnknownFirstRow(t *testing.T) {
	const rows, cols = 12, 60
	for first := range rows {
		for target := range rows {
			e := newTerminal(t, rows, cols)
			fmt.Fprintf(e, "\x1b[%d;1H", first+1)
			var all strings.Builder
			f := New(rows, cols, finder(value), redact).Wrap(passAll)
			for _, p := range []string{"one\r\n", "   " + value[9:] + "\r\n", "two\r\n", "\x1b[s", at(target+1, 4, ""), "\x1b[9@", value[:9]} {
				out, _ := f([]byte(p), 0)
				all.Write(out)
				e.Write(out)
				if r := e.rows(); drawn(r, value, cols) {
					t.Fatalf("first row %d, row %d: %q\n%s", first, target, all.String(), strings.Join(r, "\n"))
				}
			}
		}
	}
}

// A screen that was cleared is known again: what was drawn before is overwritten.
func TestKnownAfterClear(t *testing.T) {
	s := New(24, 80, finder(value), redact)
	f := s.Wrap(passAll)
	f([]byte("prompt$ x\r\n\x1b[5;5H\x1b[H\x1b[2J"), 0)
	if len(s.maybe) > 0 {
		t.Errorf("%d models are left", len(s.maybe))
	}
	f([]byte(at(3, 10, value[9:])), 0)
	if out, _ := f([]byte(at(3, 1, value[:9])), 0); strings.Count(string(out), "*") != len(value) {
		t.Errorf("%q does not overwrite all of it", out)
	}
}

// A new size, with lines laid out again or not.
func TestResize(t *testing.T) {
	for _, to := range []int{40, 50, 100} {
		for _, flow := range []bool{false, true} {
			const rows, cols = 12, 60
			s := New(rows, cols, finder(value), redact)
			f := s.Wrap(passAll)
			e := newTerminal(t, rows, cols)
			write := func(p string) {
				out, _ := f([]byte(p), 0)
				e.Write(out)
			}
			write("\x1b[H\x1b[2J" + at(2, 1, strings.Repeat(".", 70)+value[:9]) + at(5, 30, value[9:]))
			s.Resize(rows, to)
			if flow {
				// The text that was wrapped, laid out again, and the cursor after it.
				row := 70 / to
				e2 := newTerminal(t, rows, to)
				e2.WriteString(at(2, 1, strings.Repeat(".", 70)+value[:9]))
				e = e2
				write(at(2+row, 70%to+10, value[9:]))
			} else {
				e.Resize(to, rows)
				write(at(3, 20, value[9:]))
			}
			if r := e.rows(); drawn(r, value, to) {
				t.Errorf("%d columns, flow %v: \n%s", to, flow, strings.Join(r, "\n"))
			}
		}
	}
}

// A value that may be seen is asked about once, and passes byte for byte.
func TestPassedOnce(t *testing.T) {
	asked := 0
	s := New(24, 80, finder(value), func(Hit) guard.Decision { asked++; return guard.Decision{Action: guard.Warn} })
	f := s.Wrap(passAll)
	in := "\x1b[H\x1b[2J" + at(3, 10, value[9:]) + at(3, 1, value[:9]) + at(4, 1, "more") + at(3, 50, "and more") + "\x1b[1;1H\x1b[L\x1b[M"
	out, d := f([]byte(in), 0)
	if string(out) != in || d.Action != guard.Warn || asked != 1 {
		t.Errorf("%q came out as %q, %v, asked %d times", in, out, d.Action, asked)
	}
}

// Where a decision stops the stream, nothing of what completes the value goes
// out, and nothing after it.
func TestStops(t *testing.T) {
	for _, a := range []guard.Action{guard.Kill, guard.Block} {
		s := New(24, 80, finder(value), func(Hit) guard.Decision { return guard.Decision{Action: a, Reason: "because"} })
		f := s.Wrap(passAll)
		f([]byte("\x1b[H\x1b[2J"+at(3, 10, value[9:])), 0)
		out, d := f([]byte("\x1b[3;1H"+value[:9]+"more"), 0)
		if d.Action != a || strings.Contains(string(out), value[:4]) {
			t.Errorf("%v: %q, %v", a, out, d)
		}
		if out, d := f([]byte("after"), 0); len(out) > 0 || d.Action != a {
			t.Errorf("%v: %q, %v after it", a, out, d)
		}
	}
}

// What the stream had in one piece is the stream's: it is not judged twice.
func TestOnePieceIsTheStreams(t *testing.T) {
	s := New(24, 80, finder(value), func(Hit) guard.Decision { t.Error("asked"); return guard.Decision{} })
	f := s.Wrap(passAll)
	for _, p := range []string{"\x1b[H\x1b[2J" + at(3, 60, value), at(9, 1, value[:5]), value[5:] + "\r\n", "\x1b[10;20H\x1b[31m" + value + "\x1b[m"} {
		f([]byte(p), 0)
	}
}

// Colours, modes, the cursor and a wrap that is due are as they were after a mask,
// and the slot of DECSC as well.
func TestMaskLeavesStateAlone(t *testing.T) {
	const rows, cols = 24, 80
	for _, c := range []struct{ name, before, draw, after string }{
		{"colours", "\x1b[1;4:3;38;5;200;48;2;1;2;3m", at(3, 1, value[:9]), "x"},
		{"a wrap that is due", "", at(3, 80-8, value[:9]), "xyz"},
		{"DECSC", "\x1b[9;9H\x1b7", at(3, 1, value[:9]), "\x1b8x"},
		{"origin", "\x1b[2;9r\x1b[?6h", at(2, 1, value[:9]), "x\x1b[Hy"},
		{"no wrap", "\x1b[?7l", at(3, 1, value[:9]), "\x1b[3;79Hxyz"},
	} {
		t.Run(c.name, func(t *testing.T) {
			e, plain := newTerminal(t, rows, cols), newTerminal(t, rows, cols)
			rest := at(3, 10, value[9:])
			if strings.HasPrefix(c.draw, "\x1b[3;72") {
				rest = at(4, 1, value[9:])
			}
			parts := []string{"\x1b[H\x1b[2J" + rest, c.before, c.draw, c.after}
			all := play(t, New(rows, cols, finder(value), redact), parts, 0, func(out []byte) { e.Write(out) })
			plain.WriteString(strings.Join(parts, ""))
			if !strings.Contains(all, "*") {
				t.Fatalf("%q has no mask", all)
			}
			alike(t, e, plain, value)
			for y := range rows {
				for x := range cols {
					if a, b := e.CellAt(x, y), plain.CellAt(x, y); a != nil && b != nil && !a.Style.Equal(&b.Style) {
						t.Fatalf("cell %d,%d has another style in %q", y, x, all)
					}
				}
			}
			for _, m := range []string{"\x1b7", "\x1b8"} {
				if strings.Count(all, m) != strings.Count(strings.Join(parts, ""), m) {
					t.Errorf("%q has a %q of its own", all, m)
				}
			}
		})
	}
}

// Strings: what terminals leave out of them does not hide a value.
func TestStrings(t *testing.T) {
	for name, in := range map[string]string{
		"title":           "\x1b]2;" + value[:9] + "\x01" + value[9:] + "\x07",
		"title, ST":       "\x1b]0;" + value[:9] + "\x7f" + value[9:] + "\x1b\\",
		"link":            "\x1b]8;;https://example.com/" + value[:9] + "\x02" + value[9:] + "\x1b\\",
		"clipboard":       "\x1b]52;c;" + value[:9] + "\n" + value[9:] + "\x07",
		"passed on twice": "\x1bPtmux;" + value[:9] + "\x1b\\\x1bPtmux;" + value[9:] + "\x1b\\",
		"kitty's text":    "\x1b]66;;" + value[:9] + "\x07\x1b]66;w=1;" + value[9:] + "\x07",
		"long":            "\x1b]2;" + strings.Repeat("x", 9000) + value[:9] + "\x01" + value[9:] + "\x07",
		"C1":              "\u009d2;" + value[:9] + "\x01" + value[9:] + "\u009c",
	} {
		for _, n := range []int{1, 5, 1 << 20} {
			f := New(24, 80, finder(value), redact).Wrap(passAll)
			var all strings.Builder
			for i := 0; i < len(in); i += n {
				out, _ := f([]byte(in[i:min(i+n, len(in))]), 0)
				all.Write(out)
			}
			out, _ := f(nil, guard.End)
			all.Write(out)
			flat := strings.NewReplacer("\x01", "", "\x02", "", "\x7f", "", "\n", "", "\x1b\\", "", "\x1bPtmux;", "").Replace(all.String())
			if strings.Contains(flat, value) || !strings.Contains(flat, "*") {
				t.Errorf("%s in pieces of %d: %q", name, n, all.String())
			}
		}
	}
}

// A string, a sequence or a size of any length takes no more memory than it may.
func TestBounded(t *testing.T) {
	s := New(1<<30, 1<<30, finder(value), redact)
	f := s.Wrap(passAll)
	s.Resize(-1, 0)
	s.Resize(24, 80)
	big := []byte(strings.Repeat("1;", 1<<19))
	for _, start := range []string{"\x1b]52;c;", "\x1bPq", "\x1b_G", "\x1b[", "\x1b(((((", "", "\x1b]66;;"} {
		f([]byte(start), 0)
		f(big, 0)
		if n := cap(s.str) + cap(s.q.raw) + cap(s.held) + cap(s.through) + 16*cap(s.q.params); n > 64<<10 {
			t.Errorf("%d bytes are kept after %q", n, start)
		}
		f([]byte("\x1b\\\r\n"), 0)
	}
	for range 300 {
		f([]byte(strings.Repeat("w", 80)+"\n\x1b[L\x1b7\x1b[?1049h\x1b8\x1b[?1049l\b\x1b[5;9r\x1b[?47h\x1b[?47l"), 0)
	}
	if len(s.maybe) > 2*maxMaybe+24 {
		t.Errorf("%d models", len(s.maybe))
	}
	f([]byte("\x1b[2147483647b\x1b[99999999999999999999;9999999C"), 0)
}

// What the filter before holds back is known, also when a mask made the output
// longer.
func TestHeld(t *testing.T) {
	var kept []byte
	s := New(24, 80, finder(value), redact)
	f := s.Wrap(func(p []byte, _ guard.Step) ([]byte, guard.Decision) {
		p = append(kept, p...)
		n := max(0, len(p)-3)
		kept = append([]byte(nil), p[n:]...)
		return p[:n], guard.Decision{Action: guard.Pass}
	})
	f([]byte("\x1b[H\x1b[2J"+at(3, 10, value[9:])+"\x1b[3;1H"+value[:9]+"abc"), 0)
	if s.Held() != 3 {
		t.Errorf("%d bytes are held, want 3", s.Held())
	}
}

// What a program prints line after line is looked at without the model.
func TestPlainOutput(t *testing.T) {
	const rows, cols = 24, 80
	for _, name := range []string{"lines of a program", "columns of a program"} {
		for _, d := range drawings {
			if d.name != name {
				continue
			}
			for _, before := range []string{"", "$ run\r\n", strings.Repeat("some \x1b[1mtext\x1b[m\t of lines   in it\r\n", 1500), strings.Repeat("y\r\n", 200)} {
				in := before + strings.Join(d.draw(rows, cols, value), "")
				for _, n := range []int{1, 3, 10, 64, 4096, len(in)} {
					if n < 64 && len(before) > 1000 {
						continue
					}
					e := newTerminal(t, rows, cols)
					s := New(rows, cols, finder(value), redact)
					plain := s.plain.on
					all := play(t, s, []string{in}, n, func(out []byte) {
						e.Write(out)
						if r := e.rows(); drawn(r, value, cols) {
							t.Fatalf("%s after %d bytes in pieces of %d:\n%s", name, len(before), n, strings.Join(r, "\n"))
						}
					})
					if !plain || !strings.Contains(all, "*") {
						t.Errorf("%s after %d bytes in pieces of %d: no mask", name, len(before), n)
					}
				}
			}
		}
	}
}

// The model is right after any amount of plain output that it did not see.
func TestPlainOutputIsCaughtUp(t *testing.T) {
	for seed := range uint64(20) {
		r := newRand(seed)
		rows, cols := 4+r.IntN(20), 8+r.IntN(90)
		var b strings.Builder
		for range r.IntN(4000) {
			switch r.IntN(9) {
			case 0:
				fmt.Fprintf(&b, "\x1b[3%dm", r.IntN(8))
			case 1:
				b.WriteString("\x1b[0m")
			case 2:
				b.WriteString("\t")
			case 3:
				b.WriteString("\n")
			case 4:
				b.WriteString(strings.Repeat("word ", r.IntN(30)))
			case 5:
				b.WriteString("漢字")
			default:
				fmt.Fprintf(&b, "line %d\r\n", r.IntN(1000))
			}
		}
		if seed%5 == 0 { // more than is kept, with colours that were set long ago
			fmt.Fprintf(&b, "\x1b[0m\x1b[4%dmx\r\n", 1+r.IntN(7))
			b.WriteString(strings.Repeat("a line of text\r\n", 12000))
		}
		fast, slow := New(rows, cols, none, redact), New(rows, cols, none, redact)
		slow.plain.on = false
		slow.plain.quiet = -1 << 40
		f, g := fast.Wrap(passAll), slow.Wrap(passAll)
		in := []byte(b.String())
		for i, n := 0, 1+r.IntN(5000); i < len(in); i += n {
			f(in[i:min(i+n, len(in))], 0)
			g(in[i:min(i+n, len(in))], 0)
		}
		m, w := fast.current(), slow.m
		a, c := m.cur, w.cur
		a.unsure, c.unsure = false, false
		if got, want := strings.Join(m.text(), "\n"), strings.Join(w.text(), "\n"); got != want || a != c {
			t.Fatalf("seed %d, %dx%d: %+v\n%s\nwant %+v\n%s", seed, rows, cols, a, got, c, want)
		}
	}
}

// Rows that are joined are one text, also where a value has blanks in it.
func TestJoinedRows(t *testing.T) {
	const v = "orchid lamp 7 gravel tin"
	const rows, cols = 12, 40
	parts := []string{"\x1b[H\x1b[2J", at(3, 1, v[15:]), at(9, 1, "else"), at(2, cols-14, v[:15])}
	e := newTerminal(t, rows, cols)
	all := play(t, New(rows, cols, finder(v), redact), parts, 0, func(out []byte) { e.Write(out) })
	if r := strings.Join(e.rows(), ""); strings.Contains(r, v) || !strings.Contains(all, "*") {
		t.Errorf("%q shows %q", all, r)
	}
}
