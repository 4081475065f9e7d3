#include "textflag.h"

DATA visible<>+0(SB)/8, $0x2121212121212121
DATA visible<>+8(SB)/8, $0x2121212121212121
GLOBL visible<>(SB), RODATA, $16

// A bit of a bitmap at BASE, for the 4 bytes at bit FROM of AX.
#define LOOK(FROM, SHIFT, BASE) \
	MOVQ  AX, R14; \
	SHRQ  $FROM, R14; \
	MOVL  R14, R14; \
	IMULQ R13, R14; \
	SHRXQ SHIFT, R14, R14; \
	MOVQ  R14, CX; \
	SHRQ  $6, CX; \
	MOVQ  (BASE)(CX*8), CX; \
	SHRXQ R14, CX, CX; \
	ORL   CX, BX

// func crossedBMI2(p *byte, places *uint16, n int, out *uint16, t *bridges) int
TEXT ·crossedBMI2(SB), NOSPLIT, $0-48
	MOVQ p+0(FP), SI
	MOVQ places+8(FP), DI
	MOVQ out+24(FP), DX
	MOVQ t+32(FP), AX
	MOVQ 0(AX), R8
	MOVQ 8(AX), R9
	MOVQ 16(AX), R10
	MOVQ 24(AX), R11
	MOVQ 32(AX), R12
	MOVQ $0x9E3779B97F4A7C15, R13
	MOVOU visible<>(SB), X2
	MOVQ n+16(FP), CX
	LEAQ (DI)(CX*2), CX
	MOVQ CX, places+8(FP) // where they end
	CMPQ DI, CX
	JGE  done

loop:
	MOVWLZX (DI), AX
	MOVW    AX, (DX)
	ADDQ    SI, AX
	// The first byte that is neither blank nor a control character, of 16.
	MOVOU    1(AX), X0
	MOVO     X0, X1
	PMAXUB   X2, X1
	PCMPEQB  X0, X1
	PMOVMSKB X1, BX
	ORL      $0x10000, BX
	BSFL     BX, BX
	MOVL     1(AX)(BX*1), BX
	// What is before the LF, or CR LF.
	CMPB -1(AX), $0x0d
	JEQ  crlf
	MOVL -4(AX), AX

joined:
	MOVQ BX, R14
	SHLQ $32, R14
	ORQ  R14, AX
	// There are more blanks, or the second or third is a control character.
	LEAL  -0x00202021(BX), R14
	ANDNL R14, BX, R14
	XORL  BX, BX
	TESTL $0x00808080, R14
	SETNE BL
	LOOK(16, R11, R8)
	LOOK(24, R12, R9)
	LOOK(8, R12, R10)
	ANDL $1, BX
	LEAQ (DX)(BX*2), DX
	ADDQ $2, DI
	CMPQ DI, places+8(FP)
	JLT  loop

done:
	SUBQ out+24(FP), DX
	SHRQ $1, DX
	MOVQ DX, ret+40(FP)
	RET

crlf:
	MOVL -5(AX), AX
	JMP  joined
