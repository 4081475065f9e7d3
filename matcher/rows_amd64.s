#include "textflag.h"

// Y0 are four blocks, Y1 those after each. STEP leaves the bits that are followed by
// another one N bits further on.
#define STEP(N) \
	VPSRLQ $N, Y0, Y2; \
	VPSLLQ $(64-N), Y1, Y3; \
	VPOR   Y3, Y2, Y2; \
	VPAND  Y2, Y0, Y0; \
	VPSRLQ $N, Y1, Y3; \
	VPAND  Y3, Y1, Y1

#define LAST(N) \
	VPSRLQ $N, Y0, Y2; \
	VPSLLQ $(64-N), Y1, Y3; \
	VPOR   Y3, Y2, Y2; \
	VPAND  Y2, Y0, Y0

// Elements that are no blocks do not count in what is returned.
#define END(LOOP, FULL) \
	VMOVDQU Y0, (DI); \
	CMPQ    CX, $4; \
	JGE     FULL; \
	VMOVQ   CX, X2; \
	VPBROADCASTQ X2, Y2; \
	VPCMPGTQ lanes<>(SB), Y2, Y2; \
	VPAND   Y2, Y0, Y0; \
FULL: \
	VPOR    Y0, Y4, Y4; \
	ADDQ    $32, SI; \
	ADDQ    $32, DI; \
	SUBQ    $4, CX; \
	JG      LOOP; \
	XORQ    AX, AX; \
	VPTEST  Y4, Y4; \
	SETNE   AX; \
	MOVQ    AX, ret+24(FP); \
	VZEROUPPER; \
	RET

DATA lanes<>+0(SB)/8, $0
DATA lanes<>+8(SB)/8, $1
DATA lanes<>+16(SB)/8, $2
DATA lanes<>+24(SB)/8, $3
GLOBL lanes<>(SB), RODATA, $32

// func rows15AVX2(dst, src *uint64, blocks int) uint64
TEXT ·rows15AVX2(SB), NOSPLIT, $0-32
	MOVQ  dst+0(FP), DI
	MOVQ  src+8(FP), SI
	MOVQ  blocks+16(FP), CX
	VPXOR Y4, Y4, Y4

loop15:
	VMOVDQU (SI), Y0
	VMOVDQU 8(SI), Y1
	STEP(1)
	STEP(2)
	STEP(4)
	LAST(7)
	END(loop15, full15)

// func rows32AVX2(dst, src *uint64, blocks int) uint64
TEXT ·rows32AVX2(SB), NOSPLIT, $0-32
	MOVQ  dst+0(FP), DI
	MOVQ  src+8(FP), SI
	MOVQ  blocks+16(FP), CX
	VPXOR Y4, Y4, Y4
	VPCMPEQQ Y5, Y5, Y5

loop32:
	VPXOR (SI), Y5, Y0
	VPXOR 8(SI), Y5, Y1
	STEP(1)
	STEP(2)
	STEP(4)
	STEP(8)
	LAST(16)
	END(loop32, full32)
