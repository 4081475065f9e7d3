// Package bpf asks the Linux kernel what processes are about to write. It is the
// only user of cilium/ebpf.
//
// # Detect
//
// OpenDetector attaches one program to every system call's entry (tp_btf/sys_enter).
// For the tasks in scope it searches, inside the kernel, what write, pwrite64,
// writev, pwritev, pwritev2, sendto, sendmsg, sendmmsg, vmsplice, msgsnd and mq_timedsend are
// given, the arguments and environment of execve and execveat, the paths of what is made
// or renamed, the values of extended attributes, the targets of symbolic links, and
// what munmap and msync end or sync of a file that is mapped shared. It puts an event into a ring buffer for each
// needle that it finds. It never holds up or changes a call, and ships no bytes.
//
// It sees attempts: a call that fails afterwards was searched too. It reads
// before the kernel copies, so a second thread that changes the buffer in
// between is not seen (the agent would have to know that it holds a secret). It
// does not see io_uring, io_submit, sendfile, splice, tee, copy_file_range, stores
// to a shared mapping that ends with its process, process_vm_writev, the paths of openat2, bind and
// symbolic links, or calls of a foreign ABI (32-bit, x32): the sandbox takes those away
// that it can. A page that is not in memory cannot be read from a tracepoint and is
// counted as unreadable. Stats says how many bytes and calls were seen, scanned,
// unreadable and too many; seen is always the sum of the other three.
//
// # Refuse
//
// With Options.Refuse the same search is made by BPF LSM, and what holds a needle
// fails with EPERM before a byte of it is out:
//
//	lsm/file_permission       write, pwrite64, writev, pwritev, pwritev2 to files, pipes,
//	                          memfds and devices; to terminals with Options.Terminals
//	lsm.s/socket_sendmsg      write, writev, sendto, sendmsg, sendmmsg to sockets of every family
//	lsm.s/bprm_creds_for_exec arguments and environment
//	lsm/inode_*               names of files, folders, devices, links and Unix sockets;
//	                          targets of symbolic links; extended attributes
//
// file_permission has no buffer among its arguments: the bytes are found by the
// registers that the call came in with (bpf_task_pt_regs), and a page that is not in
// memory is unreadable there. The hooks marked .s may wait for it. What the kernel
// has copied already (names, attributes, iovecs of a message) cannot be changed under the
// search; buffers and arguments can, by a second thread: 0 to 6 of 2000 writes got a value
// out in the test that tries. A first part of a value that was written before the rest came is out.
//
// What moves bytes that no hook can look at is taken away, unless Options.Lenient: sendfile,
// splice and copy_file_range fail with EINVAL (programs then read and write), and so do writes by
// io_submit and by an io_uring from before (its messages are judged); new rings with ENOSYS,
// FICLONE and FICLONERANGE with EOPNOTSUPP, TIOCSTI and TIOCLINUX with EPERM, SO_ZEROCOPY and MSG_ZEROCOPY with EINVAL, AF_PACKET
// and AF_XDP sockets with EAFNOSUPPORT. tee and vmsplice pass no hook (what they leave in a pipe
// gets out by read alone): leave them to seccomp, as message queues, process_vm_writev and foreign ABIs.
//
// A file that is mapped shared is stored to without a call. With Options.Rescans
// user space is told of such mappings and of their end, whatever ended them, and of calls
// that passed without having been searched whole, so that it can search the
// file itself. Options.Strict refuses the latter instead.
//
// Where bpf is not in lsm= the same hooks are had by way of fmod_ret (Detector.Via says so).
// The kernel skips such a program while another task is inside of it on the same
// processor (up to 210 values of 800 got past in a test that makes tasks meet there, with preempt=full);
// Stats.Missed counts that. None of them may wait for pages, and there are no events about mappings.
//
// Partial writes: a hook does not know how much of a call the kernel will take. Where a socket
// takes a part and the program sends the rest again, a value that
// lies across the end of the first call may be missed; it is found if it lies whole in either.
//
// # Scope
//
// A pid namespace (nothing leaves it), a cgroup of the v2 hierarchy (who was seen in
// it once stays in scope), processes and their descendants, or all. Only cgroups need
// cgroup v2; it may be mounted beside v1. What a task hands to a process
// out of scope, by a socket or a pipe, is searched on the way there.
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
// Dietzfelbinger et al. (1997). That takes a needle of 15 bytes (FastNeedle). While there
// is a shorter one, the search is made at a stride of 4, 2 or 1, and takes two, four or eight
// times as long; one of less than 8 bytes (MinNeedle) is refused with ErrTooShort.
//
// The last 128 bytes of each stream are kept, so that a needle split over calls,
// iovecs or pages is found, and found once. A stream is an inode: bytes that
// reach a pipe from two processes, or a file by two openings (`>>`), are one
// stream. Where a file's bytes end up is not looked at (seeks, pwrite's
// position): what is written one after the other counts as adjacent. Two
// processors that write to one stream in the same microsecond may lose its tail.
//
// Needles are replaced as a whole: a table is built aside and swapped by one store.
//
// # What is in the maps
//
// No needle and no window: keyed hashes, under a key that is new for each table.
// The key is in the same map, so this keeps values out of dumps and crash files;
// it does not keep root, who can read every process's memory, from trying out
// guesses. The tails and the scratch memory (per processor, or per task that writes) do hold
// the last bytes that were written (of every stream), which only root can read.
//
// # Monitor
//
// A Monitor is a Detector of the whole machine, a cgroup or processes that guard did not start. It
// also tells who is guard or descends from it, since what those write is another's to judge,
// and searches what programs hand to their TLS library: uprobes at SSL_write and SSL_write_ex
// (what they took, at their return), gnutls_record_send and Go's crypto/tls.(*Conn).Write, in
// libraries whose name has ssl or tls in it and in executables, wherever their mount namespace has them, if
// they have symbols for it. What is compressed or encoded before (headers of HTTP/2) is not
// plaintext there. Libraries in the usual folders have their probe from the start; of a program or library that
// nobody used before, what is sent in the first milliseconds may go unseen. Whoever sends the
// hello of a TLS client on a socket without a probe that was there before is counted in
// TLSReport.Uncovered; QUIC is not noticed. A probed file must be replaced and not
// written over: the kernel puts probes by offset.
//
// # Needles of others
//
// SetHashed takes needles that somebody else hashed (HashKey.Hash), so that they can be looked for without being known here.
// They get what room those that are known leave. With Options.Windows a find brings the bytes around it, and always
// the uid of a process that has no other user's rights: whoever hashed a needle may be told of finds in such processes, and of
// no others, or it would be a way to ask what others write.
//
// # Pieces
//
// What the kernel cannot search for, such as credentials of which only the form is known, takes the
// bytes themselves: OpenPieces hands on what the tasks in scope write, in pieces of at most a
// page. It copies everything, so it is for chosen cgroups and processes. Read and Stats say exactly what
// did not come through.
//
// # Kernels
//
// The tests run on Debian's 5.10 (tracepoints), 6.1 and 6.12 (LSM, fmod_ret and tracepoints) and on whatever kernel the
// machine has. Where there is no bpf_loop, which is there since 5.17, another program makes the same search
// with bounded loops, in functions that the verifier looks at one by one (bounded.bpf.c): it finds the same on the same
// channels, in half as many needles (Room). Refuse, Pieces and a Monitor's TLS need bpf_loop, and say so. Which one is had
// is found out by asking for the helper, not by the version.
//
// # Goroutines
//
// None outlives a call of this package. Read and Follow block their callers.
//
// The C is licensed GPL-2.0 or MIT (the helpers that read kernel memory are for
// GPL-compatible programs only); its compiled form is committed, so that building
// needs no clang. `go generate` needs clang 14 or newer and libbpf's headers.
package bpf

//go:generate go run github.com/cilium/ebpf/cmd/bpf2go -tags "linux && (amd64 || arm64)" -target bpfel -type event -type hit -type counters -type table -type shape -type channel -type kind detect detect.bpf.c -- -O2 -g -Wall -Werror -Wno-missing-declarations -mcpu=v3
//go:generate go run github.com/cilium/ebpf/cmd/bpf2go -tags "linux && (amd64 || arm64)" -target bpfel -no-global-types bounded bounded.bpf.c -- -O2 -g -Wall -Werror -Wno-missing-declarations -mcpu=v3
//go:generate go run github.com/cilium/ebpf/cmd/bpf2go -tags "linux && (amd64 || arm64)" -target bpfel -no-global-types block block.bpf.c -- -O2 -g -Wall -Werror -Wno-missing-declarations -mcpu=v3
//go:generate go run github.com/cilium/ebpf/cmd/bpf2go -tags "linux && (amd64 || arm64)" -target bpfel -no-global-types fallback fallback.bpf.c -- -O2 -g -Wall -Werror -Wno-missing-declarations -mcpu=v3
//go:generate go run github.com/cilium/ebpf/cmd/bpf2go -tags "linux && (amd64 || arm64)" -target bpfel -type news -type news_kind -type fileid tls tls.bpf.c -- -O2 -g -Wall -Werror -Wno-missing-declarations -mcpu=v3
//go:generate go run github.com/cilium/ebpf/cmd/bpf2go -tags "linux && (amd64 || arm64)" -target bpfel -type piece -type small_piece ship ship.bpf.c -- -O2 -g -Wall -Werror -Wno-missing-declarations -Wno-unused-function -mcpu=v3
