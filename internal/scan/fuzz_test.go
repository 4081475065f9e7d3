package scan

import (
	"os"
	"path/filepath"
	"testing"
)

// FuzzIndex: whatever an index holds, reading it ends, and without a panic.
func FuzzIndex(f *testing.F) {
	r := newRepository(f)
	for _, name := range []string{"a", "dir/b", "dir/sub/c"} {
		r.write(f, name, name)
	}
	r.git(f, "add", "-A")
	for _, version := range []string{"2", "3", "4"} {
		r.git(f, "update-index", "--index-version", version)
		b, err := os.ReadFile(filepath.Join(r.dir, ".git/index"))
		if err != nil {
			f.Fatal(err)
		}
		f.Add(b)
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		for _, width := range []int{20, 32} {
			_, _ = parseIndex(b, width, func(path string, id []byte) {
				if len(id) != width {
					t.Error(len(id))
				}
			})
		}
	})
}

// FuzzIgnore: no pattern takes forever, and a path without special characters
// matches itself.
func FuzzIgnore(f *testing.F) {
	f.Add([]byte("*a*a*a*a*a*a*a*b\n**/**/**/**/x\n[[:alpha:]-\\\n!/a/\n"), "a/aaaaaaaaaaaaaaaaaaaaaaaaaaaa/a")
	f.Fuzz(func(t *testing.T, file []byte, path string) {
		for _, p := range parseIgnore(file) {
			for _, fold := range []bool{false, true} {
				_ = p.match(path, true, fold)
			}
			if p.literal == len(p.text) && !p.match(p.text, true, false) {
				t.Errorf("%q does not match itself", p.text)
			}
		}
	})
}
