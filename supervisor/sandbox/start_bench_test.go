//go:build linux

package sandbox

import "testing"

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
