package matcher

import "golang.org/x/sys/cpu"

// planesAVX2 does what planesGo does with whole blocks of 64 characters. roll is
// alphabetOf.roll.
//
//go:noescape
func planesAVX2(dst *planes, p *byte, blocks int, roll *rolls)

// planesOf are the planes of the characters of b, a block for each element of dst.
func planesOf(dst []planes, b []byte, a *alphabetOf) {
	if !cpu.X86.HasAVX2 || len(dst) == 0 {
		planesGo(dst, b, a)
		return
	}
	_ = b[dozeBlock*len(dst)-1]
	planesAVX2(&dst[0], &b[0], len(dst), &a.roll)
}
