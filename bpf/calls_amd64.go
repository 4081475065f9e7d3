//go:build linux

package bpf

import "golang.org/x/sys/unix"

// legacySearched are calls that arm64 has never had.
func legacySearched() map[uint32]call {
	return map[uint32]call{
		unix.SYS_SYMLINK: {"symlink", detectShapeSHAPE_TARGET},
		unix.SYS_OPEN:    {"open", detectShapeSHAPE_OPEN},
		unix.SYS_CREAT:   {"creat", detectShapeSHAPE_NAME0},
		unix.SYS_MKDIR:   {"mkdir", detectShapeSHAPE_NAME0},
		unix.SYS_MKNOD:   {"mknod", detectShapeSHAPE_NAME0},
		unix.SYS_LINK:    {"link", detectShapeSHAPE_NAME1},
		unix.SYS_RENAME:  {"rename", detectShapeSHAPE_NAME1},
	}
}
