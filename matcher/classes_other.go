//go:build !amd64

package matcher

func classifyBlocks(dst [][classCount]uint64, p []byte, t *tables) { classifyGo(dst, p, t) }
