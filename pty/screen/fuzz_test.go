//go:build linux

package screen

import (
	"os"
	"strings"
	"testing"
)

// FuzzScreen: whatever comes, in whatever pieces, nothing panics, a value that is
// not in the stream in one piece is not in the model's rows, and what is clean
// has no mask.
func FuzzScreen(f *testing.F) {
	if d, err := os.ReadDir("testdata/fuzz/FuzzScreen"); err != nil || len(d) < len(drawings) {
		f.Fatalf("the corpus has %d entries: %v", len(d), err)
	}
	f.Fuzz(func(t *testing.T, in []byte, cols, n byte) {
		if len(in) > 4<<10 {
			return
		}
		const rows = 12
		s := New(rows, int(cols%100)+2, finder(value), redact)
		w := s.Wrap(passAll)
		if strings.Contains(string(in), value) || strings.Contains(string(in), reversed(value)) {
			return
		}
		step := int(n%32) + 1
		masked := false
		for i := 0; i < len(in); i += step {
			if i == len(in)/2/step*step {
				s.Resize(rows-int(n%5), int(cols%90)+3)
			}
			out, _ := w(in[i:min(i+step, len(in))], 0)
			masked = masked || strings.Count(string(out), "*") > strings.Count(string(in), "*")
			for _, r := range s.m.text() {
				if strings.Contains(r, value) {
					t.Fatalf("a row shows it: %q", r)
				}
			}
		}
		w(nil, 2)
		for _, c := range value[:4] {
			if masked && !strings.ContainsRune(string(in), c) {
				t.Fatalf("a mask, and %q is nowhere in %q", c, in)
			}
		}
	})
}
