#include "textflag.h"

// func planesAVX2(dst *planes, p *byte, blocks int, roll *rolls)
//
// A character's value is the character and what its high four bits add; three
// characters have something of their own to add.
TEXT ·planesAVX2(SB), NOSPLIT, $0-32
	MOVQ dst+0(FP), DI
	MOVQ p+8(FP), SI
	MOVQ blocks+16(FP), CX
	MOVQ roll+24(FP), DX
	TESTQ CX, CX
	JZ   done
	VBROADCASTI128 0(DX), Y0 // by the high four bits
	VBROADCASTI128 16(DX), Y1 // 0x0f
	VBROADCASTI128 32(DX), Y2 // '-'
	VBROADCASTI128 48(DX), Y3 // what it adds
	VBROADCASTI128 64(DX), Y4 // '/'
	VBROADCASTI128 80(DX), Y5
	VBROADCASTI128 96(DX), Y6 // '_'
	VBROADCASTI128 112(DX), Y7

#define VALUE(AT, V) \
	VMOVDQU AT(SI), V; \
	VPSRLW  $4, V, Y10; \
	VPAND   Y1, Y10, Y10; \
	VPSHUFB Y10, Y0, Y10; \
	VPCMPEQB V, Y2, Y11; \
	VPAND   Y3, Y11, Y11; \
	VPADDB  Y11, Y10, Y10; \
	VPCMPEQB V, Y4, Y11; \
	VPAND   Y5, Y11, Y11; \
	VPADDB  Y11, Y10, Y10; \
	VPCMPEQB V, Y6, Y11; \
	VPAND   Y7, Y11, Y11; \
	VPADDB  Y11, Y10, Y10; \
	VPADDB  V, Y10, V; \
	VPADDB  V, V, V; \
	VPADDB  V, V, V

#define PLANE(AT) \
	VPMOVMSKB Y8, AX; \
	VPMOVMSKB Y9, BX; \
	MOVL AX, AT(DI); \
	MOVL BX, 4+AT(DI)

#define NEXT \
	VPADDB Y8, Y8, Y8; \
	VPADDB Y9, Y9, Y9

loop:
	VALUE(0, Y8)
	VALUE(32, Y9)
	PLANE(40)
	NEXT
	PLANE(32)
	NEXT
	PLANE(24)
	NEXT
	PLANE(16)
	NEXT
	PLANE(8)
	NEXT
	PLANE(0)
	ADDQ $64, SI
	ADDQ $48, DI
	DECQ CX
	JNZ  loop
	VZEROUPPER

done:
	RET
