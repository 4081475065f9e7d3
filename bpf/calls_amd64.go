//go:build linux

package bpf

import "golang.org/x/sys/unix"

// Calls that arm64 has never had.

func legacySearched() map[uint32]call {
	return map[uint32]call{unix.SYS_SYMLINK: {"symlink", detectShapeSHAPE_TARGET}}
}

func legacyNamed() map[uint32]string {
	return map[uint32]string{
		unix.SYS_OPEN: "open", unix.SYS_CREAT: "creat", unix.SYS_MKDIR: "mkdir", unix.SYS_MKNOD: "mknod",
		unix.SYS_LINK: "link", unix.SYS_RENAME: "rename", unix.SYS_RENAMEAT: "renameat",
	}
}
