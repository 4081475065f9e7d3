package matcher

import "golang.org/x/sys/cpu"

// classifyAVX2 does what classifyGo does with blocks of 64 bytes, 32 bytes in
// some 40 instructions. dst has stride elements for each class.
//
//go:noescape
func classifyAVX2(dst *uint64, stride int, p *byte, blocks int, t *tables)

// classifyAVX512 is classifyAVX2 with 64 bytes at a time, for processors that have
// AVX-512BW.
//
//go:noescape
func classifyAVX512(dst *uint64, stride int, p *byte, blocks int, t *tables)

func classifyBlocks(dst []uint64, stride, blocks int, p []byte, t *tables) {
	if blocks == 0 {
		return
	}
	_, _ = p[64*blocks-1], dst[(int(classCount)-1)*stride+blocks-1]
	switch {
	case cpu.X86.HasAVX512BW:
		classifyAVX512(&dst[0], stride, &p[0], blocks, t)
	case cpu.X86.HasAVX2:
		classifyAVX2(&dst[0], stride, &p[0], blocks, t)
	default:
		classifyGo(dst, stride, blocks, p, t)
	}
}

// rows15AVX2 does what rows15Go does, and rows32AVX2 what rows32Go does, four blocks at a
// time: src has 5 elements more than blocks that are read, and dst 3 that are written.
//
//go:noescape
func rows15AVX2(dst, src *uint64, blocks int) uint64

//go:noescape
func rows32AVX2(dst, src *uint64, blocks int) uint64

func rows15(dst, src []uint64, blocks int) bool {
	if !cpu.X86.HasAVX2 || blocks == 0 {
		return rows15Go(dst, src, blocks)
	}
	_, _ = src[blocks+rowPad-1], dst[blocks+rowPad-1]
	return rows15AVX2(&dst[0], &src[0], blocks) != 0
}

func rows32(dst, src []uint64, blocks int) bool {
	if !cpu.X86.HasAVX2 || blocks == 0 {
		return rows32Go(dst, src, blocks)
	}
	_, _ = src[blocks+rowPad-1], dst[blocks+rowPad-1]
	return rows32AVX2(&dst[0], &src[0], blocks) != 0
}
