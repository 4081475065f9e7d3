//go:build !amd64

package matcher

func classifyBlocks(dst []uint64, stride, blocks int, p []byte, t *tables) {
	classifyGo(dst, stride, blocks, p, t)
}

func rows15(dst, src []uint64, blocks int) bool { return rows15Go(dst, src, blocks) }

func rows32(dst, src []uint64, blocks int) bool { return rows32Go(dst, src, blocks) }
