//go:build linux && (amd64 || arm64)

package bpf

import (
	"golang.org/x/sys/unix"

	"guard"
)

// call is how a system call names its bytes, and what it is called.
type call struct {
	name  string
	shape detectShape
}

// searched are the calls whose bytes are searched from the tracepoint. From the
// other hooks those with a shape of buffers and iovecs are, and the rest is
// known by name only.
func searched() map[uint32]call {
	return map[uint32]call{
		unix.SYS_WRITE:        {"write", detectShapeSHAPE_BUF},
		unix.SYS_PWRITE64:     {"pwrite64", detectShapeSHAPE_BUF},
		unix.SYS_SENDTO:       {"sendto", detectShapeSHAPE_BUF},
		unix.SYS_WRITEV:       {"writev", detectShapeSHAPE_IOV},
		unix.SYS_PWRITEV:      {"pwritev", detectShapeSHAPE_IOV},
		unix.SYS_PWRITEV2:     {"pwritev2", detectShapeSHAPE_IOV},
		unix.SYS_VMSPLICE:     {"vmsplice", detectShapeSHAPE_IOV},
		unix.SYS_SENDMSG:      {"sendmsg", detectShapeSHAPE_MSG},
		unix.SYS_SENDMMSG:     {"sendmmsg", detectShapeSHAPE_MMSG},
		unix.SYS_EXECVE:       {"execve", detectShapeSHAPE_EXEC},
		unix.SYS_EXECVEAT:     {"execveat", detectShapeSHAPE_EXECAT},
		unix.SYS_SETXATTR:     {"setxattr", detectShapeSHAPE_XATTR},
		unix.SYS_LSETXATTR:    {"lsetxattr", detectShapeSHAPE_XATTR},
		unix.SYS_FSETXATTR:    {"fsetxattr", detectShapeSHAPE_XATTR},
		unix.SYS_SYMLINKAT:    {"symlinkat", detectShapeSHAPE_TARGET},
		unix.SYS_OPENAT:       {"openat", detectShapeSHAPE_OPENAT},
		unix.SYS_MKDIRAT:      {"mkdirat", detectShapeSHAPE_NAME1},
		unix.SYS_MKNODAT:      {"mknodat", detectShapeSHAPE_NAME1},
		unix.SYS_LINKAT:       {"linkat", detectShapeSHAPE_NAME3},
		unix.SYS_RENAMEAT:     {"renameat", detectShapeSHAPE_NAME3},
		unix.SYS_RENAMEAT2:    {"renameat2", detectShapeSHAPE_NAME3},
		unix.SYS_MSGSND:       {"msgsnd", detectShapeSHAPE_QUEUE},
		unix.SYS_MQ_TIMEDSEND: {"mq_timedsend", detectShapeSHAPE_QUEUE},
		unix.SYS_MUNMAP:       {"munmap", detectShapeSHAPE_UNMAP},
		unix.SYS_MSYNC:        {"msync", detectShapeSHAPE_UNMAP},
	}
}

// away are the calls that move bytes which no hook can look at: Refuse takes
// them away.
func away() map[uint32]call {
	return map[uint32]call{
		unix.SYS_SENDFILE:        {"sendfile", detectShapeSHAPE_AWAY},
		unix.SYS_SPLICE:          {"splice", detectShapeSHAPE_AWAY},
		unix.SYS_TEE:             {"tee", detectShapeSHAPE_AWAY},
		unix.SYS_COPY_FILE_RANGE: {"copy_file_range", detectShapeSHAPE_AWAY},
		unix.SYS_IO_URING_ENTER:  {"io_uring_enter", detectShapeSHAPE_RING},
		unix.SYS_IO_SUBMIT:       {"io_submit", detectShapeSHAPE_RING},
	}
}

// calls are the shapes for the programs and the names for events.
func calls(refuse bool) (shapes [512]uint8, names map[uint32]string) {
	// These come to the hooks about names only.
	names = map[uint32]string{unix.SYS_OPENAT2: "openat2", unix.SYS_BIND: "bind"}
	all := searched()
	for nr, c := range legacySearched() {
		all[nr] = c
	}
	for nr, c := range all {
		shapes[nr] = uint8(c.shape)
		names[nr] = c.name
	}
	for nr, c := range away() {
		names[nr] = c.name
		if refuse {
			shapes[nr] = uint8(c.shape)
		}
	}
	return shapes, names
}

func channelName(c uint32) guard.Channel {
	if c == channelTLS {
		return ChannelTLS
	}
	switch detectChannel(c) {
	case detectChannelCHANNEL_FILE:
		return guard.ChannelFile
	case detectChannelCHANNEL_PIPE:
		return guard.ChannelPipe
	case detectChannelCHANNEL_SOCKET:
		return guard.ChannelSocket
	case detectChannelCHANNEL_TERMINAL:
		return guard.ChannelTerminal
	case detectChannelCHANNEL_EXEC:
		return guard.ChannelExec
	case detectChannelCHANNEL_NAME:
		return ChannelName
	case detectChannelCHANNEL_XATTR:
		return ChannelXattr
	case detectChannelCHANNEL_LINK:
		return ChannelLink
	case detectChannelCHANNEL_QUEUE:
		return ChannelQueue
	case detectChannelCHANNEL_MAPPING:
		return ChannelMapping
	case detectChannelCHANNEL_BACKING:
		return ChannelBacking
	}
	return ChannelOther
}
