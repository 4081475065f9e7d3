package matcher

import (
	"unsafe"

	"golang.org/x/sys/cpu"
)

// crossedBMI2 does what crossedGo does, in a third of the instructions.
//
//go:noescape
func crossedBMI2(p *byte, places *uint16, n int, out *uint16, t *bridges) int

// crossed appends those of places to out that crossedGo does.
func crossed(b []byte, from int, places, out []uint16, g *bridges) []uint16 {
	if !cpu.X86.HasBMI2 || !cpu.X86.HasBMI1 || len(places) == 0 {
		return crossedGo(b, from, places, out, g)
	}
	// Each has breakBefore bytes before it and breakAfter after it: that the first and the
	// last one have them is enough.
	_, _ = b[from+int(places[0])-breakBefore], b[from+int(places[len(places)-1])+breakAfter]
	n := len(out)
	p := (*byte)(unsafe.Add(unsafe.Pointer(unsafe.SliceData(b)), from))
	return out[:n+crossedBMI2(p, &places[0], len(places), &out[:n+len(places)][n], g)]
}
