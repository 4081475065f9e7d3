package formats

import (
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"testing"
)

type source struct {
	path string
	text []byte
}

// sources reads up to limit bytes of Go's own source, which holds no live
// credential.
func sources(t testing.TB, limit int) (list []source) {
	t.Helper()
	root := filepath.Join(runtime.GOROOT(), "src")
	if _, err := os.Stat(root); err != nil {
		t.Skipf("Go's source is not here: %v", err)
	}
	err := filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if limit <= 0 {
			return fs.SkipAll
		}
		if !d.Type().IsRegular() {
			return nil
		}
		b, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		limit -= len(b)
		list = append(list, source{path, b})
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return list
}

// TestFewFalseFindings: under one in 100 MB of source.
func TestFewFalseFindings(t *testing.T) {
	s := newSet(t, Options{})
	var size int64
	var found []string
	for _, f := range sources(t, 1<<30) {
		size += int64(len(f.text))
		for _, x := range s.Scan(f.text, f.path) {
			found = append(found, f.path+": "+x.Rule+" ("+x.Why+")")
		}
	}
	t.Logf("%d findings in %d MB", len(found), size/1e6)
	if size < 50e6 {
		t.Fatalf("only %d MB of source", size/1e6)
	}
	if float64(len(found))*100e6 >= float64(max(size, 100e6)) {
		for _, f := range found {
			t.Error(f)
		}
	}
}
