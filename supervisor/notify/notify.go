// Package notify does the writes of a session's processes in their place, after
// the bytes were judged. It needs no privilege that the parent of a sandbox does
// not have.
//
// The sandbox's system call filter answers write, pwrite64, writev, pwritev,
// pwritev2, sendto, sendmsg and sendmmsg with SECCOMP_RET_USER_NOTIF: the calling thread waits, and whoever
// holds the filter's listener is told. Server holds it. For each call it
//
//  1. duplicates the caller's descriptor (pidfd_getfd), so that the caller can
//     not put another file in its place,
//  2. reads the caller's bytes once (process_vm_readv), so that no other thread
//     can change what was judged,
//  3. asks the kernel whether the call is still waiting, so that the bytes and
//     the descriptor are its own and not those of a process that got its number,
//  4. has the bytes judged, together with what is before and after them in the
//     file, or was written to the pipe before,
//  5. writes them, through the duplicate: the same open file, with its offset,
//     its O_APPEND and its O_NONBLOCK,
//
// and returns the count or the error number, with SIGPIPE or SIGXFSZ where the
// kernel would send them. A refused write fails with EPERM before a byte of it is
// out. No write is ever given back to the kernel to be done (the flag CONTINUE),
// since the caller's memory and descriptors may change in between.
//
// sendto, sendmsg and sendmmsg (send is sendto) are: their bytes are read and judged, and the
// kernel then does the call. Guard cannot send in another's place unseen: credentials, descriptors that
// are passed, and where an address leads to, would be guard's. They fail for all but sockets, so that no file can be
// put in the socket's place meanwhile, but a second thread that changes the bytes is not
// caught. What is to be masked is refused.
//
// Judged are regular files, also those in memory (memfd), pipes, FIFOs, Unix sockets and those of
// the loopback or without a peer. Terminals, sockets that lead to the broker, devices and what has no name (eventfd) are written
// to without being looked at: others judge those, or nobody needs to.
//
// # Waiting
//
// A write to a full pipe or socket waits without a thread: it is parked until
// there is room, its caller is gone, or a signal came for it, which ends the call
// as the kernel would (a count, or EINTR and a restart). Other kinds, terminals
// above all, hold a thread each while they wait, of at most maxWorkers.
//
// # What is different for a program
//
// A write larger than a megabyte is done in pieces of that size: it may end with
// the count of those that were clean. Writes to one file or pipe wait for each
// other. What the kernel finds out about the writer and not about the open file
// is found out about guard: /proc/self/comm and /proc/self/attr cannot be written
// to, a Unix socket that asks for credentials gets guard's, TOSTOP stops nobody. A
// program of the session cannot have a listener of its own (EBUSY). A program file
// that its user may not read cannot be looked into by an ordinary user's guard:
// its writes fail.
//
// # What is not seen
//
// Stores to a shared mapping, and calls that move bytes inside the kernel: the
// sandbox takes sendfile, splice, tee, vmsplice, copy_file_range, io_uring and
// cloning of files away. Truncating a file while another thread appends to it can
// put two parts of a value together that were judged apart; that is looked at
// again after the write, and reported.
//
// If the process that serves dies, every write of the session fails with ENOSYS.
//
// Goroutines: Serve starts the workers, and returns when all of them have ended.
package notify

import (
	"errors"
	"sync"

	"guard"
)

// ErrNotSupported says that this kernel has no such notifications. It is
// errors.ErrUnsupported as well.
var ErrNotSupported = errors.Join(errors.New("writes cannot be handed over to be judged here"), errors.ErrUnsupported)

// Context is how many bytes before and after those of a write are judged with
// them, at most: twice the longest needle of package matcher.
const Context = 1024

// Write is one write, or a piece of a large one, as its judge gets it.
type Write struct {
	Channel guard.Channel // ChannelFile, ChannelPipe or ChannelSocket
	// Bytes are what is before, the write's own, and what is after them. The
	// judge may mask the own ones in place, at the same length.
	Bytes      []byte
	From, Till int // of the write's own bytes in Bytes
	// Done says that the bytes are out already: they came to be next to each other
	// by a race, and no verdict can keep them.
	Done bool
	// Fixed says that the bytes cannot be masked: the kernel sends those that the caller has.
	Fixed bool
	// Who finds out who writes to what, which takes a while: for records.
	Who func() guard.Origin
}

// Verdict is what a judge says. The zero value refuses.
type Verdict uint8

const (
	Refuse Verdict = iota // the call fails with EPERM
	Allow
	Hold // the call is not answered: its process is being ended
)

// Options of a Server.
type Options struct {
	// Judge decides on the bytes of one write. Called from
	// several goroutines, for one file or pipe from one at a time. With UID it is on a
	// thread that is that user: what needs this process's own rights has to be done
	// by another goroutine. Nil refuses all.
	Judge func(Write) Verdict
	// Leave are pipes whose bytes somebody else judges, by st_dev and st_ino.
	Leave map[[2]uint64]bool
	// UID and GID do the writing, where this process is root's: what the kernel
	// asks of a writer is asked of the agent's user, and not of root. 0: as they are.
	UID, GID int
}

// Counters of one channel. What a call named after a piece that was refused is in
// none: it was not read.
type Counters struct {
	Calls      uint64 // system calls
	Judged     uint64 // bytes that were judged
	Left       uint64 // bytes of terminals, devices, sockets that lead to the broker, and pipes of Options.Leave
	Unreadable uint64 // bytes that could not be read: the call failed
	Refused    uint64 // calls that failed with EPERM because of their bytes
	NoAccess   uint64 // calls that failed with EPERM because their process could not be looked into
	Blind      uint64 // writes to files whose neighbouring bytes could not be read
}

// counts are the Counters of all channels.
type counts struct {
	mu sync.Mutex
	by map[guard.Channel]*Counters
}

func (c *counts) add(ch guard.Channel, f func(*Counters)) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.by == nil {
		c.by = map[guard.Channel]*Counters{}
	}
	if c.by[ch] == nil {
		c.by[ch] = &Counters{}
	}
	f(c.by[ch])
}

// Stats are the counters by channel: file, pipe, socket, terminal, and "other"
// for devices and what has no name.
func (s *Server) Stats() map[guard.Channel]Counters {
	s.counts.mu.Lock()
	defer s.counts.mu.Unlock()
	out := map[guard.Channel]Counters{}
	for ch, c := range s.counts.by {
		out[ch] = *c
	}
	return out
}

// ChannelOther is for what is neither file, pipe, socket nor terminal.
const ChannelOther guard.Channel = "other"
