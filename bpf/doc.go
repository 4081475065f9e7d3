// Package bpf asks the Linux kernel what a session's processes are about to
// write. It is the only user of cilium/ebpf.
//
// # Detect
//
// OpenDetector attaches one program to every system call's entry (tp_btf/sys_enter).
// For the tasks in scope (a pid namespace and those below it, or a cgroup and
// those below it) it searches what write, pwrite64, writev, pwritev, pwritev2,
// sendto, sendmsg, sendmmsg and vmsplice are given, inside the kernel, and puts
// an event into a ring buffer for each needle that it finds. It never holds up
// or changes a call, and ships no bytes.
//
// It sees attempts: a call that fails afterwards was searched too. It reads
// before the kernel copies, so a second thread that changes the buffer in
// between is not seen (the agent would have to know that it holds a secret). It
// does not see io_uring, sendfile, splice, tee, copy_file_range, stores through
// a shared mapping, process_vm_writev, message queues, names, arguments, or
// calls of a foreign ABI (32-bit, x32): the sandbox takes those away. A page
// that is not in memory cannot be read from a tracepoint and is counted as
// unreadable. Stats says how many bytes and calls were seen, scanned,
// unreadable and too many; seen is always the sum of the other three.
//
// # Refuse
//
// With Options.Refuse the same search runs in lsm/file_permission instead, and a
// write that holds a needle fails with EPERM before a byte of it is out. The
// bytes are found by the registers that the call came in with
// (bpf_task_pt_regs). It covers write, pwrite64, writev, pwritev and pwritev2,
// to files, pipes and sockets. A terminal is left to the pty, which redacts.
// sendto, sendmsg and sendmmsg do not pass this hook. A first part of a value
// that was written before the rest came is out. A second thread that changes
// the buffer after the search gets its bytes past it; so does a page that is
// not in memory, unless Options.Strict. Both detectors may run at the same time.
//
// # The search
//
// A needle is one encoding of one value; the caller makes them. From the last 15
// bytes of a needle's segment (all of it, or 128 bytes of a longer one) the
// eight windows of 8 bytes are taken. Whatever the place of the needle in a
// buffer, one of the eight lies at a multiple of the stride, 8 bytes, so the
// program looks at one window per stride: a keyed hash of it picks a bit of a
// bitmap, and where the bit is set, a slot of a table and a keyed hash of the
// whole segment decide. That is the filter of Wu and Manber ("A fast algorithm
// for multi-pattern searching", 1994) with the multiply-shift hashing of
// Dietzfelbinger et al. (1997). A needle needs 15 bytes (MinNeedle): a shorter
// one is refused with ErrTooShort, since it would need a smaller stride, and a
// value that short is found by accident too often to stop a write for it.
//
// The last 128 bytes of each stream are kept, so that a needle split over calls,
// iovecs or pages is found, and found once. A stream is an inode: bytes that
// reach a pipe from two processes, or a file by two openings (`>>`), are one
// stream. Where a file's bytes end up is not looked at (seeks, pwrite's
// position): what is written one after the other counts as adjacent. Two
// processors that write to one stream in the same microsecond may lose its tail.
//
// # What is in the maps
//
// No needle and no window: keyed hashes, under a key that is new for each table.
// The key is in the same map, so this keeps values out of dumps and crash files;
// it does not keep root, who can read every process's memory, from trying out
// guesses. The tails and the per-processor scratch do hold the last bytes that
// were written (of every stream), which only root can read.
//
// # Goroutines
//
// The package starts none. Read blocks its caller.
//
// The C is licensed GPL-2.0 or MIT (the helpers that read kernel memory are for
// GPL-compatible programs only); its compiled form is committed, so that building
// needs no clang. `go generate` needs clang 14 or newer and libbpf's headers.
package bpf

//go:generate go run github.com/cilium/ebpf/cmd/bpf2go -tags "linux && (amd64 || arm64)" -target bpfel -type event -type counters -type table -type shape -type channel -type kind detect detect.bpf.c -- -O2 -g -Wall -Werror -Wno-missing-declarations -mcpu=v3
//go:generate go run github.com/cilium/ebpf/cmd/bpf2go -tags "linux && (amd64 || arm64)" -target bpfel -no-global-types block block.bpf.c -- -O2 -g -Wall -Werror -Wno-missing-declarations -mcpu=v3
//go:generate go run github.com/cilium/ebpf/cmd/bpf2go -tags "linux && (amd64 || arm64)" -target bpfel -no-global-types fallback fallback.bpf.c -- -O2 -g -Wall -Werror -Wno-missing-declarations -mcpu=v3
