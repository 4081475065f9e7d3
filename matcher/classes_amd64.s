#include "textflag.h"

// func classifyAVX2(dst *[classCount]uint64, p *byte, blocks int, t *tables)
//
// Each byte is looked up by its low and by its high four bits; the bits that
// both have say which rectangles of the code table it is in.
TEXT ·classifyAVX2(SB), NOSPLIT, $0-32
	MOVQ dst+0(FP), DI
	MOVQ p+8(FP), SI
	MOVQ blocks+16(FP), CX
	MOVQ t+24(FP), DX
	TESTQ CX, CX
	JZ   done
	VBROADCASTI128 0(DX), Y0
	VBROADCASTI128 16(DX), Y1
	VBROADCASTI128 32(DX), Y2
	VBROADCASTI128 48(DX), Y3
	VBROADCASTI128 64(DX), Y4
	VBROADCASTI128 80(DX), Y5
	VBROADCASTI128 96(DX), Y6
	VBROADCASTI128 112(DX), Y7
	VBROADCASTI128 128(DX), Y15 // 0x0f

// Y8 to Y11: the rectangles of the four sets.
#define LOOKUP(AT) \
	VMOVDQU AT(SI), Y12; \
	VPSRLW  $4, Y12, Y13; \
	VPAND   Y15, Y12, Y12; \
	VPAND   Y15, Y13, Y13; \
	VPSHUFB Y12, Y0, Y8; \
	VPSHUFB Y13, Y1, Y14; \
	VPAND   Y14, Y8, Y8; \
	VPSHUFB Y12, Y2, Y9; \
	VPSHUFB Y13, Y3, Y14; \
	VPAND   Y14, Y9, Y9; \
	VPSHUFB Y12, Y4, Y10; \
	VPSHUFB Y13, Y5, Y14; \
	VPAND   Y14, Y10, Y10; \
	VPSHUFB Y12, Y6, Y11; \
	VPSHUFB Y13, Y7, Y14; \
	VPAND   Y14, Y11, Y11; \
	VPXOR   Y14, Y14, Y14

#define MASK(SET, AT, HALF) \
	VPAND     144+32*AT(DX), SET, Y12; \
	VPCMPEQB  Y14, Y12, Y12; \
	VPMOVMSKB Y12, AX; \
	NOTL      AX; \
	MOVL      AX, 4*HALF+8*AT(DI)

#define MASKS(HALF) \
	MASK(Y8, 0, HALF); \
	MASK(Y8, 1, HALF); \
	MASK(Y8, 2, HALF); \
	MASK(Y9, 3, HALF); \
	MASK(Y9, 4, HALF); \
	MASK(Y9, 5, HALF); \
	MASK(Y9, 6, HALF); \
	MASK(Y10, 7, HALF); \
	MASK(Y10, 8, HALF); \
	MASK(Y10, 9, HALF); \
	MASK(Y11, 10, HALF); \
	MASK(Y11, 11, HALF)

loop:
	LOOKUP(0)
	MASKS(0)
	LOOKUP(32)
	MASKS(1)
	ADDQ $64, SI
	ADDQ $96, DI // 8 bytes for each class
	DECQ CX
	JNZ  loop
	VZEROUPPER

done:
	RET
