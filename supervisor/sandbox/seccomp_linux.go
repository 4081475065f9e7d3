//go:build linux && (amd64 || arm64)

package sandbox

import (
	"fmt"
	"runtime"
	"unsafe"

	"golang.org/x/net/bpf"
	"golang.org/x/sys/unix"
)

// The filter is assembled here and not by a library: go-seccomp-bpf lets
// foreign ABIs take the default action, which would be "allow", and compares
// 64 bits of arguments of which the kernel reads 32, so that a request of
// 0x1_0000_5412 would pass for something else than TIOCSTI (CVE-2019-7303).

// filterOptions say how the filter differs from session to session.
type filterOptions struct {
	noZeroCopy bool // see Config.NoZeroCopy
	restricted bool // no network namespace: nothing but TCP, which Landlock judges
	reserved   bool // stage 1 has process ids up to reservedPids, and nobody else has
	notify     bool // writes are handed over: see Config.Notify
}

// denied are calls that are refused whatever their arguments.
var denied = map[uint32]unix.Errno{
	unix.SYS_IO_URING_SETUP: unix.ENOSYS, unix.SYS_IO_URING_ENTER: unix.ENOSYS, unix.SYS_IO_URING_REGISTER: unix.ENOSYS,

	unix.SYS_BPF: unix.EPERM, unix.SYS_PERF_EVENT_OPEN: unix.EPERM, unix.SYS_USERFAULTFD: unix.EPERM,
	unix.SYS_KEYCTL: unix.EPERM, unix.SYS_ADD_KEY: unix.EPERM, unix.SYS_REQUEST_KEY: unix.EPERM,
	unix.SYS_PROCESS_VM_WRITEV: unix.EPERM,
	unix.SYS_KEXEC_LOAD:        unix.EPERM, unix.SYS_KEXEC_FILE_LOAD: unix.EPERM,
	unix.SYS_INIT_MODULE: unix.EPERM, unix.SYS_FINIT_MODULE: unix.EPERM, unix.SYS_DELETE_MODULE: unix.EPERM,
	unix.SYS_OPEN_BY_HANDLE_AT: unix.EPERM,

	// Nested sandboxes (browsers, bwrap) use clone, unshare, mount, umount and
	// pivot_root, which cannot take a mask away; nobody needs the newer calls.
	unix.SYS_OPEN_TREE: unix.EPERM, unix.SYS_MOVE_MOUNT: unix.EPERM, unix.SYS_FSOPEN: unix.EPERM, unix.SYS_FSCONFIG: unix.EPERM,
	unix.SYS_FSMOUNT: unix.EPERM, unix.SYS_FSPICK: unix.EPERM, unix.SYS_MOUNT_SETATTR: unix.EPERM,
	sysOpenTreeAttr: unix.EPERM,

	unix.SYS_REBOOT: unix.EPERM, unix.SYS_SWAPON: unix.EPERM, unix.SYS_SWAPOFF: unix.EPERM, unix.SYS_ACCT: unix.EPERM,
	unix.SYS_QUOTACTL: unix.EPERM, unix.SYS_SYSLOG: unix.EPERM, unix.SYS_FANOTIFY_INIT: unix.EPERM,
	unix.SYS_LOOKUP_DCOOKIE: unix.EPERM,
}

// sysOpenTreeAttr is open_tree_attr(2) of Linux 6.15: the same on all systems.
const sysOpenTreeAttr = 467

// handedOver are the calls that Config.Notify is about.
var handedOver = []uint32{
	unix.SYS_WRITE, unix.SYS_PWRITE64, unix.SYS_WRITEV, unix.SYS_PWRITEV, unix.SYS_PWRITEV2,
	unix.SYS_SENDTO, unix.SYS_SENDMSG, unix.SYS_SENDMMSG, // restricted, after their flags were looked at: the kernel does these
}

var zeroCopy = []uint32{unix.SYS_SENDFILE, unix.SYS_SPLICE, unix.SYS_TEE, unix.SYS_VMSPLICE, unix.SYS_COPY_FILE_RANGE}

// Offsets in struct seccomp_data (linux/seccomp.h). Arguments are read by
// their lower 32 bits: all of those judged here are ints for the kernel.
const (
	offNr   = 0
	offArch = 4
	offArgs = 16
)

const (
	protoDCCP    = 33
	protoSCTP    = 132
	protoUDPLite = 136
	protoMPTCP   = 262
)

func retErrno(e unix.Errno) bpf.Instruction {
	return bpf.RetConstant{Val: unix.SECCOMP_RET_ERRNO | uint32(e)}
}

var (
	allow = bpf.RetConstant{Val: unix.SECCOMP_RET_ALLOW}
	kill  = bpf.RetConstant{Val: unix.SECCOMP_RET_KILL_PROCESS}
)

func arg(n uint32) bpf.Instruction { return bpf.LoadAbsolute{Off: offArgs + 8*n, Size: 4} }

// when returns ins if the accumulator equals v, and skips it otherwise.
func when(v uint32, ins ...bpf.Instruction) []bpf.Instruction {
	return append([]bpf.Instruction{bpf.JumpIf{Cond: bpf.JumpEqual, Val: v, SkipFalse: uint8(len(ins))}}, ins...)
}

// seccompFilter makes the filter for this processor.
func seccompFilter(o filterOptions) ([]unix.SockFilter, error) {
	var arch uint32
	switch runtime.GOARCH {
	case "amd64":
		arch = unix.AUDIT_ARCH_X86_64
	case "arm64":
		arch = unix.AUDIT_ARCH_AARCH64
	}
	p := []bpf.Instruction{
		bpf.LoadAbsolute{Off: offArch, Size: 4},
		bpf.JumpIf{Cond: bpf.JumpEqual, Val: arch, SkipTrue: 1},
		kill,
		bpf.LoadAbsolute{Off: offNr, Size: 4},
	}
	if runtime.GOARCH == "amd64" {
		// x32 calls have bit 30 set. -1 is what a tracer writes to skip a call.
		p = append(p, when(0xffffffff, allow)...)
		p = append(p, bpf.JumpIf{Cond: bpf.JumpGreaterOrEqual, Val: 0x40000000, SkipFalse: 1}, kill)
	}
	if o.notify { // first: these are the most frequent
		for _, nr := range handedOver {
			if o.restricted && (nr == unix.SYS_SENDTO || nr == unix.SYS_SENDMSG || nr == unix.SYS_SENDMMSG) {
				continue
			}
			p = append(p, when(nr, bpf.RetConstant{Val: unix.SECCOMP_RET_USER_NOTIF})...)
		}
	}
	ioctls := concatBPF(
		[]bpf.Instruction{arg(1)},
		when(unix.TIOCSTI, retErrno(unix.EPERM)),
		when(unix.TIOCLINUX, retErrno(unix.EPERM)),
	)
	if o.noZeroCopy {
		ioctls = concatBPF(ioctls, when(unix.FICLONE, retErrno(unix.EOPNOTSUPP)), when(unix.FICLONERANGE, retErrno(unix.EOPNOTSUPP)))
		// The answer of a kernel without it. Without the option MSG_ZEROCOPY copies.
		p = append(p, when(unix.SYS_SETSOCKOPT, concatBPF(
			[]bpf.Instruction{arg(1), bpf.JumpIf{Cond: bpf.JumpEqual, Val: unix.SOL_SOCKET, SkipFalse: 3}, arg(2)},
			when(unix.SO_ZEROCOPY, retErrno(unix.ENOPROTOOPT)),
			[]bpf.Instruction{allow},
		)...)...)
	}
	p = append(p, when(unix.SYS_IOCTL, concatBPF(ioctls, []bpf.Instruction{allow})...)...)
	p = append(p, when(unix.SYS_SOCKET, socketRules(o)...)...)
	p = append(p, when(unix.SYS_MOUNT, mountRules()...)...)
	if !o.restricted {
		for _, nr := range []uint32{unix.SYS_PRLIMIT64, unix.SYS_SCHED_SETATTR, unix.SYS_SCHED_SETSCHEDULER, unix.SYS_SCHED_SETPARAM, unix.SYS_SCHED_SETAFFINITY} {
			p = append(p, when(nr, processRules(o, 0)...)...)
		}
		for nr, user := range map[uint32]uint32{unix.SYS_SETPRIORITY: unix.PRIO_USER, unix.SYS_IOPRIO_SET: ioprioWhoUser} {
			p = append(p, when(nr, concatBPF([]bpf.Instruction{arg(0)}, when(user, retErrno(unix.EPERM)), processRules(o, 1))...)...)
		}
	}
	if o.restricted {
		// Fast open connects without the call that Landlock judges.
		sent := bpf.Instruction(allow)
		if o.notify {
			sent = bpf.RetConstant{Val: unix.SECCOMP_RET_USER_NOTIF}
		}
		for nr, flags := range map[uint32]uint32{unix.SYS_SENDTO: 3, unix.SYS_SENDMSG: 2, unix.SYS_SENDMMSG: 3} {
			p = append(p, when(nr, arg(flags),
				bpf.JumpIf{Cond: bpf.JumpBitsSet, Val: unix.MSG_FASTOPEN, SkipFalse: 1}, retErrno(unix.EOPNOTSUPP), sent)...)
		}
	}
	for nr, e := range denied {
		p = append(p, when(nr, retErrno(e))...)
	}
	if o.noZeroCopy {
		for _, nr := range zeroCopy {
			p = append(p, when(nr, retErrno(unix.EINVAL))...)
		}
	}
	p = append(p, allow)
	raw, err := bpf.Assemble(p)
	if err != nil {
		return nil, err
	}
	f := make([]unix.SockFilter, len(raw))
	for i, r := range raw {
		f[i] = unix.SockFilter{Code: r.Op, Jt: r.Jt, Jf: r.Jf, K: r.K}
	}
	return f, nil
}

// socketRules judge socket(family, type, protocol). A network namespace does
// not hold vsock and others, and Landlock's TCP rules do not see MPTCP, SCTP
// or UDP.
func socketRules(o filterOptions) []bpf.Instruction {
	unixSocket, datagram := []bpf.Instruction{allow}, allow
	if o.restricted {
		// Pathname sockets (the session bus, ssh-agent) cannot be told apart
		// here, and Landlock judges them from ABI 9 on only.
		unixSocket[0] = retErrno(unix.EPERM)
		datagram = retErrno(unix.EACCES).(bpf.RetConstant)
	}
	inet := concatBPF(
		[]bpf.Instruction{arg(2)},
		when(protoMPTCP, retErrno(unix.EPROTONOSUPPORT)),
		when(protoSCTP, retErrno(unix.EPROTONOSUPPORT)),
		when(protoDCCP, retErrno(unix.EPROTONOSUPPORT)),
		when(protoUDPLite, retErrno(unix.EPROTONOSUPPORT)),
		[]bpf.Instruction{arg(1), bpf.ALUOpConstant{Op: bpf.ALUOpAnd, Val: 0xf}},
		when(unix.SOCK_STREAM, allow),
		when(unix.SOCK_DGRAM, datagram),
		[]bpf.Instruction{retErrno(unix.EPERM)},
	)
	return concatBPF(
		[]bpf.Instruction{arg(0)},
		when(unix.AF_UNIX, unixSocket...),
		when(unix.AF_NETLINK, allow),
		[]bpf.Instruction{
			bpf.JumpIf{Cond: bpf.JumpEqual, Val: unix.AF_INET, SkipTrue: 2},
			bpf.JumpIf{Cond: bpf.JumpEqual, Val: unix.AF_INET6, SkipTrue: 1},
			retErrno(unix.EAFNOSUPPORT),
		},
		inet,
	)
}

const ioprioWhoUser = 3 // IOPRIO_WHO_USER of linux/ioprio.h

// processRules judge calls that change limits and priorities of the process
// whose id is argument n. Stage 1 has the agent's uid in the kernel's eyes, so
// it would let them through. 0 is the caller itself. Where stage 1's ids are not
// known, no others can be named; in a pid namespace of the agent's own, low ones
// cannot.
func processRules(o filterOptions, n uint32) []bpf.Instruction {
	rules := concatBPF([]bpf.Instruction{arg(n)}, when(0, allow))
	if o.reserved {
		rules = append(rules, bpf.JumpIf{Cond: bpf.JumpGreaterThan, Val: reservedPids, SkipFalse: 1}, allow)
	}
	return append(rules, retErrno(unix.EPERM))
}

// mountRules judge mount(source, target, type, flags). Making all mounts
// private or unbindable, as unshare(1) and bwrap(1) do, seems to work and does
// nothing: they stay slaves of stage 1's, get what it masks later, and nothing
// travels the other way. One mount can be made private, which container
// runtimes need; who does that to the working folder misses later masks.
func mountRules() []bpf.Instruction {
	return concatBPF(
		// Old programs send a magic number, which has these bits set.
		[]bpf.Instruction{arg(3), bpf.ALUOpConstant{Op: bpf.ALUOpAnd, Val: unix.MS_MGC_MSK}},
		when(unix.MS_MGC_VAL, allow),
		[]bpf.Instruction{
			arg(3),
			// With one of these it is another operation.
			bpf.JumpIf{Cond: bpf.JumpBitsSet, Val: unix.MS_REMOUNT | unix.MS_BIND, SkipTrue: 3},
			bpf.JumpIf{Cond: bpf.JumpBitsNotSet, Val: unix.MS_REC, SkipTrue: 2},
			bpf.JumpIf{Cond: bpf.JumpBitsSet, Val: unix.MS_PRIVATE | unix.MS_UNBINDABLE, SkipFalse: 1},
			retErrno(0),
			allow,
		},
	)
}

func concatBPF(parts ...[]bpf.Instruction) []bpf.Instruction {
	var all []bpf.Instruction
	for _, p := range parts {
		all = append(all, p...)
	}
	return all
}

// loadFilter applies f to this thread. no_new_privs must be set. With notify it
// returns the descriptor by which calls are handed over.
func loadFilter(f []unix.SockFilter, notify bool) (listener int, err error) {
	prog := unix.SockFprog{Len: uint16(len(f)), Filter: &f[0]}
	flags := uintptr(0)
	if notify {
		// Once a call was received, only death takes its thread away from it: else a
		// signal could have it done twice.
		flags = unix.SECCOMP_FILTER_FLAG_NEW_LISTENER | unix.SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV
	}
	fd, _, errno := unix.Syscall(unix.SYS_SECCOMP, unix.SECCOMP_SET_MODE_FILTER, flags, uintptr(unsafe.Pointer(&prog)))
	if errno != 0 {
		return -1, fmt.Errorf("seccomp: %w", errno)
	}
	if !notify {
		return -1, nil
	}
	return int(fd), nil
}
