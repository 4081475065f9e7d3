package matcher

import (
	"slices"
	"testing"

	"golang.org/x/sys/cpu"
)

// What each kind of processor does is what Go does.
func TestClassesOfProcessors(t *testing.T) {
	r := newRand(54)
	for range 500 {
		blocks := r.IntN(9)
		p := make([]byte, 64*blocks+1)
		for i := range p {
			p[i] = byte(r.Uint32())
		}
		stride := blocks + r.IntN(5)
		if blocks == 0 {
			continue
		}
		size := stride*int(classCount) + 1
		want := make([]uint64, size)
		classifyGo(want, stride, blocks, p, classTables)
		for name, f := range map[string]func(*uint64, int, *byte, int, *tables){"AVX2": classifyAVX2, "AVX-512": classifyAVX512} {
			if name == "AVX2" && !cpu.X86.HasAVX2 || name != "AVX2" && !cpu.X86.HasAVX512BW {
				continue
			}
			got := make([]uint64, size)
			if f(&got[0], stride, &p[0], blocks, classTables); !slices.Equal(got, want) {
				t.Fatalf("%s, %d blocks: %x, want %x", name, blocks, got, want)
			}
		}
	}
}
