package screen

import (
	"bytes"
	"fmt"
	"io"
	"math/rand/v2"
	"strings"
	"testing"

	"github.com/charmbracelet/x/vt"

	"guard"
)

// value is what must not be seen. It is made up: no issuer has such a prefix.
const value = "tkn_Q7w2Zx9Lm4Rt6Yb1Nc8Vd3Kf5Hg0"

// finder finds value, also backwards, as the matcher does.
func finder(v string) Find {
	back := []byte(v)
	for i, j := 0, len(back)-1; i < j; i, j = i+1, j-1 {
		back[i], back[j] = back[j], back[i]
	}
	return func(text []byte) (hits []Hit) {
		for _, n := range [][]byte{[]byte(v), back} {
			for at := 0; ; {
				k := bytes.Index(text[at:], n)
				if k < 0 {
					break
				}
				hits = append(hits, Hit{ID: guard.SecretID{Name: "tok"}, Start: at + k, End: at + k + len(n)})
				at += k + 1
			}
		}
		return hits
	}
}

func none([]byte) []Hit { return nil }

func redact(Hit) guard.Decision { return guard.Decision{Action: guard.Redact} }

func passAll(p []byte, _ guard.Step) ([]byte, guard.Decision) {
	return p, guard.Decision{Action: guard.Pass}
}

// terminal is a terminal model that is not ours.
type terminal struct{ *vt.Emulator }

func newTerminal(t testing.TB, rows, cols int) *terminal {
	e := vt.NewEmulator(cols, rows)
	done := make(chan struct{})
	go func() { defer close(done); io.Copy(io.Discard, e) }()
	t.Cleanup(func() { e.Close(); <-done })
	return &terminal{e}
}

func (e *terminal) rows() []string {
	var out []string
	for y := range e.Height() {
		var b strings.Builder
		for x := 0; x < e.Width(); {
			c := e.CellAt(x, y)
			if c == nil || c.Content == "" {
				b.WriteByte(' ')
				x++
				continue
			}
			b.WriteString(c.Content)
			x += max(1, c.Width)
		}
		out = append(out, strings.TrimRight(b.String(), " "))
	}
	return out
}

// text is all rows of a model.
func (m *model) text() (out []string) {
	for _, l := range m.lines() {
		var b strings.Builder
		for _, c := range l.c {
			switch c.r {
			case half:
			case 0:
				b.WriteByte(' ')
			default:
				b.WriteRune(c.r)
			}
		}
		out = append(out, strings.TrimRight(b.String(), " "))
	}
	return out
}

// current has the model take what the fast path kept for it.
func (s *Screen) current() *model {
	s.sync()
	s.plain.on, s.plain.quiet = false, 0
	return s.m
}

// among says that one of the models that may be right shows these rows.
func (s *Screen) among(rows []string) bool {
	for _, m := range append(s.maybe, s.m) {
		if strings.Join(m.text(), "\n") == strings.Join(rows, "\n") {
			return true
		}
	}
	return false
}

// drawn says whether rows show v: in a row, over rows that follow each other, or
// below itself in a column.
func drawn(rows []string, v string, cols int) bool {
	flat := strings.Join(rows, "\n")
	for _, c := range v {
		if !strings.ContainsRune(flat, c) {
			return false
		}
	}
	back := reversed(v)
	for _, v := range []string{v, back} {
		if strings.Contains(flat, v) {
			return true
		}
		for w := 1; w <= cols; w++ { // each rectangle of this width
			for x := 0; x+w <= cols && w < len(v); x++ {
				var b strings.Builder
				for _, r := range rows {
					c := []rune(r)
					if len(c) <= x || strings.TrimSpace(string(c[x:min(len(c), x+w)])) == "" {
						b.WriteByte(' ')
					}
					for i := x; i < x+w; i++ {
						if i < len(c) && c[i] != ' ' {
							b.WriteRune(c[i])
						}
					}
				}
				if strings.Contains(b.String(), v) {
					return true
				}
			}
		}
		var b strings.Builder
		for _, r := range rows {
			if r = strings.TrimSpace(r); r == "" {
				r = " "
			}
			b.WriteString(r)
		}
		if strings.Contains(b.String(), v) {
			return true
		}
	}
	return false
}

func reversed(v string) string {
	b := []byte(v)
	for i, j := 0, len(b)-1; i < j; i, j = i+1, j-1 {
		b[i], b[j] = b[j], b[i]
	}
	return string(b)
}

func newRand(seed uint64) *rand.Rand { return rand.New(rand.NewPCG(seed, 7)) }

// noise returns random output for a terminal, with or without saved cursors and wide characters.
func noise(r *rand.Rand, rows, cols, n int, all bool) string {
	var b strings.Builder
	words := []string{"ab", "xyz", "0123456789", " ", "  ", "漢", "é", "-", strings.Repeat("w", cols), "fnord "}
	if !all {
		words[5] = "q"
	}
	for range n {
		num := func(m int) int { return r.IntN(m) + 1 }
		switch k := r.IntN(32); {
		case k < 8 || !all && (k == 24 || k == 25 || k == 29):
			b.WriteString(words[r.IntN(len(words))])
		case k == 8:
			fmt.Fprintf(&b, "\x1b[%d;%dH", num(rows), num(cols))
		case k == 9:
			fmt.Fprintf(&b, "\x1b[%d%c", num(5), "ABCD"[r.IntN(4)])
		case k == 10:
			b.WriteString("\r\n")
		case k == 11:
			b.WriteString("\n")
		case k == 12:
			b.WriteString("\r")
		case k == 13:
			fmt.Fprintf(&b, "\x1b[%dG", num(cols))
		case k == 14:
			fmt.Fprintf(&b, "\x1b[%dd", num(rows))
		case k == 15:
			fmt.Fprintf(&b, "\x1b[%d%c", num(4), "@P"[r.IntN(2)])
		case k == 16:
			fmt.Fprintf(&b, "\x1b[%d%c", num(3), "LM"[r.IntN(2)])
		case k == 17:
			fmt.Fprintf(&b, "\x1b[%dX", num(6))
		case k == 18:
			fmt.Fprintf(&b, "\x1b[%dK", r.IntN(3))
		case k == 19:
			fmt.Fprintf(&b, "\x1b[%dJ", r.IntN(3))
		case k == 20:
			t := r.IntN(rows - 1)
			fmt.Fprintf(&b, "\x1b[%d;%dr", t+1, t+2+r.IntN(rows-t-1))
		case k == 21:
			fmt.Fprintf(&b, "\x1b[%d%c", num(3), "ST"[r.IntN(2)])
		case k == 22:
			b.WriteString("\x1bM")
		case k == 23:
			fmt.Fprintf(&b, "\x1b[%d;3%dm", r.IntN(8), r.IntN(8))
		case k == 24:
			b.WriteString("\x1b7")
		case k == 25:
			b.WriteString("\x1b8")
		case k == 26:
			b.WriteString("\t")
		case k == 27:
			b.WriteString("\b")
		case k == 28:
			b.WriteString("\x1bD")
		case k == 29:
			b.WriteString([]string{"\x1b[?1049h", "\x1b[?1049l", "\x1b[r"}[r.IntN(3)])
		}
	}
	// What a backspace over half a wide character does is not agreed upon.
	return strings.NewReplacer("漢\b", "漢", "漢\x1b[1D", "漢").Replace(b.String())
}
