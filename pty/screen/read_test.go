package screen

import (
	"slices"
	"testing"
	"unicode/utf8"
)

// edge and cut are what a reading knows of a cell, asked of the cells.
func edge(l *line, col int) bool {
	c := l.at(col)
	return c.r != half && (c.blank() || border(c.r))
}

func cut(l *line, col int) bool {
	return col <= 0 || l.at(col).r != half && l.at(col).seq != l.at(col-1).seq+1
}

// What is worked out once for a line is what its cells say, after any change.
func TestReading(t *testing.T) {
	for seed := range uint64(300) {
		r := newRand(seed)
		rows, cols := 4+r.IntN(8), 2+r.IntN(60)
		s := New(rows, cols, finder("ab"), redact)
		f := s.Wrap(passAll)
		for range 20 {
			f([]byte(noise(r, rows, cols, 8, true)), 0)
			for _, l := range s.current().all {
				read := l.read()
				var text []byte
				used := 0
				for c, x := range l.c {
					if int(read.off[c]) != len(text) {
						t.Fatalf("seed %d: column %d begins at %d, not %d", seed, c, read.off[c], len(text))
					}
					switch x.r {
					case half:
					case 0:
						text = append(text, ' ')
					default:
						text = utf8.AppendRune(text, x.r)
					}
					if x.r > ' ' || x.r == half {
						used = c + 1
					}
					end, fine := c+1, c+1
					for end < len(l.c) && !edge(l, end) {
						end++
					}
					for fine < len(l.c) && !edge(l, fine) && !cut(l, fine) {
						fine++
					}
					if int(read.ends[c]) != end || int(read.fine[c]) != fine {
						t.Fatalf("seed %d: column %d ends at %d and %d, not %d and %d", seed, c, read.ends[c], read.fine[c], end, fine)
					}
					begins := !edge(l, c) && x.r != half && (c == 0 || edge(l, c-1) || cut(l, c))
					if read.edge(c) != edge(l, c) || read.begins(c) != begins {
						t.Fatalf("seed %d: column %d", seed, c)
					}
					if ends := c > 0 && !edge(l, c-1) && (edge(l, c) || cut(l, c)); read.endsBefore(c) != ends {
						t.Fatalf("seed %d: before column %d", seed, c)
					}
				}
				if !slices.Equal(read.text, text) || read.used != used {
					t.Fatalf("seed %d: %q, %d used; want %q, %d", seed, read.text, read.used, text, used)
				}
			}
		}
	}
}
