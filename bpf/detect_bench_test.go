//go:build linux && (amd64 || arm64)

package bpf

import (
	"fmt"
	"testing"

	"golang.org/x/sys/unix"
)

// What a write to /dev/null costs a watched process. "off": nobody watches. One
// secret is ten needles, as its encodings are.
func BenchmarkWrite(b *testing.B) {
	for _, size := range []int{1, 64, 1 << 10, 4 << 10, 64 << 10} {
		buf := random(size)
		for _, secrets := range []int{-1, 0, 10, 200, 1000} {
			name := fmt.Sprintf("%dB/%dsecrets", size, secrets)
			if secrets < 0 {
				name = fmt.Sprintf("%dB/off", size)
			}
			b.Run(name, func(b *testing.B) {
				w := &watch{t: b}
				if secrets < 0 {
					w.cmd, w.jobs, w.reply, _ = start(b)
				} else {
					var needles []Needle
					for i := range secrets * 10 {
						needles = append(needles, needle(uint32(i), random(40)))
					}
					w = newWatch(b, needles, Options{})
				}
				b.SetBytes(int64(size))
				b.ResetTimer()
				w.order(job{Op: "bench", N: b.N, Calls: [][][]byte{{buf}}})
			})
		}
	}
}

// What a call that does not write costs the rest of the machine.
func BenchmarkOtherCalls(b *testing.B) {
	for _, on := range []bool{false, true} {
		b.Run(fmt.Sprintf("watching=%v", on), func(b *testing.B) {
			if on {
				newWatch(b, nil, Options{})
			}
			for b.Loop() {
				unix.Getppid()
			}
		})
	}
}

func BenchmarkNewTable(b *testing.B) {
	var needles []Needle
	for i := range 2000 {
		needles = append(needles, needle(uint32(i), random(40)))
	}
	w := newWatch(b, needles, Options{})
	for b.Loop() {
		if _, err := w.d.SetNeedles(needles); err != nil {
			b.Fatal(err)
		}
	}
}
