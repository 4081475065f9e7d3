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

// What is read again in part is what is read anew.
func TestPatchIsRead(t *testing.T) {
	r := newRand(11)
	patched := 0
	for range 300 {
		cols, seq := 1+r.IntN(40), uint32(0)
		l := &line{}
		l.room(cols)
		for range 60 {
			l.read()
			for range 1 + r.IntN(3) {
				for c, n := r.IntN(cols), r.IntN(6); n >= 0 && c < cols; c, n = c+1, n-1 {
					seq += uint32(1 + r.IntN(8)/7)
					x := cell{r: []rune("abcdefgh  |")[r.IntN(11)], w: 1, seq: seq}
					switch r.IntN(40) {
					case 0:
						x.r = 'é'
					case 1, 2, 3:
						x = cell{}
					}
					l.c[c] = x
					l.touchAt(c, c+1)
				}
			}
			part := l.dl < l.dr && !l.reading.wide
			got, want := l.read(), l.clone().read()
			if string(got.text) != string(want.text) || !slices.Equal(got.is, want.is) || !slices.Equal(got.off, want.off) ||
				!slices.Equal(got.ends, want.ends) || !slices.Equal(got.fine, want.fine) || got.used != want.used {
				t.Fatalf("%+v, want %+v", *got, *want)
			}
			if part && !got.wide {
				patched++
			}
		}
	}
	if patched < 1000 {
		t.Errorf("read in part %d times", patched)
	}
}
