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
	VBROADCASTI128 128(DX), Y8
	VBROADCASTI128 144(DX), Y9
	VBROADCASTI128 160(DX), Y15 // 0x0f
	VPXOR Y14, Y14, Y14

// The low and the high four bits of 32 bytes.
#define NIBBLES(AT) \
	VMOVDQU AT(SI), Y10; \
	VPSRLW  $4, Y10, Y11; \
	VPAND   Y15, Y10, Y10; \
	VPAND   Y15, Y11, Y11

// The rectangles of a set that they are in.
#define SET(LOW, HIGH) \
	VPSHUFB Y10, LOW, Y12; \
	VPSHUFB Y11, HIGH, Y13; \
	VPAND   Y12, Y13, Y12

#define MASK(AT, HALF) \
	VPAND     176+32*AT(DX), Y12, Y13; \
	VPCMPEQB  Y14, Y13, Y13; \
	VPMOVMSKB Y13, AX; \
	NOTL      AX; \
	MOVL      AX, 4*HALF+8*AT(DI)

#define MASKS(HALF) \
	SET(Y0, Y1); \
	MASK(0, HALF); \
	MASK(1, HALF); \
	MASK(2, HALF); \
	SET(Y2, Y3); \
	MASK(3, HALF); \
	MASK(4, HALF); \
	MASK(5, HALF); \
	MASK(6, HALF); \
	SET(Y4, Y5); \
	MASK(7, HALF); \
	MASK(8, HALF); \
	MASK(9, HALF); \
	SET(Y6, Y7); \
	MASK(10, HALF); \
	MASK(11, HALF); \
	SET(Y8, Y9); \
	MASK(12, HALF); \
	MASK(13, HALF)

loop:
	NIBBLES(0)
	MASKS(0)
	NIBBLES(32)
	MASKS(1)
	ADDQ $64, SI
	ADDQ $112, DI // 8 bytes for each class
	DECQ CX
	JNZ  loop
	VZEROUPPER

done:
	RET
