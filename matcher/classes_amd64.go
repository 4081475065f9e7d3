package matcher

import "golang.org/x/sys/cpu"

// classifyAVX2 does what classifyGo does with blocks of 64 bytes, 32 bytes in
// some 40 instructions. dst has room for one element a block.
//
//go:noescape
func classifyAVX2(dst *[classCount]uint64, p *byte, blocks int, t *tables)

func classifyBlocks(dst [][classCount]uint64, p []byte, t *tables) {
	if !cpu.X86.HasAVX2 || len(dst) == 0 {
		classifyGo(dst, p, t)
		return
	}
	_ = p[64*len(dst)-1]
	classifyAVX2(&dst[0], &p[0], len(dst), t)
}
