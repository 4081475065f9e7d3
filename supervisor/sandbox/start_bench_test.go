//go:build linux

package sandbox

import (
	"bytes"
	"path/filepath"
	"testing"
)

func BenchmarkStartAndExit(b *testing.B) {
	w := newWorld(b)
	for b.Loop() {
		s := w.start(b, "/bin/true")
		last(b, s)
		s.Close()
	}
}

func BenchmarkStart(b *testing.B) {
	w := newWorld(b)
	for b.Loop() {
		s := w.start(b, "/bin/sleep", "100")
		b.StopTimer()
		s.Close()
		b.StartTimer()
	}
}

// BenchmarkStartWithFiles has what a session gets of certificates: three
// copies of a bundle.
func BenchmarkStartWithFiles(b *testing.B) {
	w := newWorld(b)
	bundle := bytes.Repeat([]byte("0123456789abcdef"), 220<<10/16)
	for _, name := range []string{"a", "b", "c"} {
		w.c.Files = append(w.c.Files, File{Path: filepath.Join(w.home, name), Content: bundle})
	}
	for b.Loop() {
		s := w.start(b, "/bin/sleep", "100")
		b.StopTimer()
		s.Close()
		b.StartTimer()
	}
}
