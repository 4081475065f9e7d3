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
	VBROADCASTI128 96(DX), Y6 // 0x0f
	VPXOR Y7, Y7, Y7

loop:
	VMOVDQU 0(SI), Y8
	VPSRLW  $4, Y8, Y9
	VPAND   Y6, Y8, Y8
	VPAND   Y6, Y9, Y9
	VPSHUFB Y8, Y0, Y10
	VPSHUFB Y9, Y1, Y11
	VPAND   Y10, Y11, Y12
	VPSHUFB Y8, Y2, Y10
	VPSHUFB Y9, Y3, Y11
	VPAND   Y10, Y11, Y13
	VPSHUFB Y8, Y4, Y10
	VPSHUFB Y9, Y5, Y11
	VPAND   Y10, Y11, Y14

#define MASK(CLASS, AT) \
	VPAND     112+32*AT(DX), CLASS, Y8; \
	VPCMPEQB  Y7, Y8, Y8; \
	VPMOVMSKB Y8, AX; \
	NOTL      AX; \
	MOVL      AX, 8*AT(DI)

	MASK(Y12, 0)
	MASK(Y12, 1)
	MASK(Y13, 2)
	MASK(Y13, 3)
	MASK(Y13, 4)
	MASK(Y13, 5)
	MASK(Y14, 6)
	MASK(Y14, 7)
	MASK(Y14, 8)

	VMOVDQU 32(SI), Y8
	VPSRLW  $4, Y8, Y9
	VPAND   Y6, Y8, Y8
	VPAND   Y6, Y9, Y9
	VPSHUFB Y8, Y0, Y10
	VPSHUFB Y9, Y1, Y11
	VPAND   Y10, Y11, Y12
	VPSHUFB Y8, Y2, Y10
	VPSHUFB Y9, Y3, Y11
	VPAND   Y10, Y11, Y13
	VPSHUFB Y8, Y4, Y10
	VPSHUFB Y9, Y5, Y11
	VPAND   Y10, Y11, Y14

#define HIGH(CLASS, AT) \
	VPAND     112+32*AT(DX), CLASS, Y8; \
	VPCMPEQB  Y7, Y8, Y8; \
	VPMOVMSKB Y8, AX; \
	NOTL      AX; \
	MOVL      AX, 4+8*AT(DI)

	HIGH(Y12, 0)
	HIGH(Y12, 1)
	HIGH(Y13, 2)
	HIGH(Y13, 3)
	HIGH(Y13, 4)
	HIGH(Y13, 5)
	HIGH(Y14, 6)
	HIGH(Y14, 7)
	HIGH(Y14, 8)

	ADDQ $64, SI
	ADDQ $72, DI // 8 bytes for each class
	DECQ CX
	JNZ  loop
	VZEROUPPER

done:
	RET
