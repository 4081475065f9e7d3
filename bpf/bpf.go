package bpf

import (
	"errors"
	"fmt"
	"strings"
	"time"

	"guard"
)

// MinNeedle is the length in bytes of the shortest needle that is found at every
// offset: a window and a stride, less one.
const MinNeedle = 15

// MaxNeedles is how many needles one table holds.
const MaxNeedles = 1<<14 - 1

var (
	// ErrNotSupported: this kernel, or this process's privileges, do not
	// offer what was asked for. The error is a *NotSupportedError.
	ErrNotSupported = errors.New("not offered by this kernel")
	// ErrTooShort: a needle is shorter than MinNeedle.
	ErrTooShort = errors.New("needle is too short to be searched for in the kernel")
	// ErrTooMany: more needles than MaxNeedles, or more than about 60 that
	// end in the same bytes.
	ErrTooMany = errors.New("too many needles")
)

// Needle is what is searched for: one encoding of one value.
type Needle struct {
	ID    uint32 // the caller's; several needles may share one
	Bytes guard.Secret
}

// Options of a Detector. One scope at least must be given; with both, a task in
// either is watched.
type Options struct {
	// PIDNamespace is the inode number of /proc/PID/ns/pid: tasks in that
	// namespace and in those below it.
	PIDNamespace uint64
	// Cgroup is the number of a cgroup of the v2 hierarchy (its folder's
	// inode number): tasks in it and below it.
	Cgroup uint64
	// Needles to start with. SetNeedles changes them later.
	Needles []Needle
	// Refuse fails a write that holds a needle with EPERM, before a byte of
	// it is out. It needs BPF LSM, and covers write, pwrite64, writev,
	// pwritev and pwritev2 to anything but a terminal; not sendto, sendmsg and
	// sendmmsg, which a detector without Refuse sees.
	Refuse bool
	// Strict makes Refuse fail also a write that could not be searched
	// whole: unreadable pages, oversize. Programs that write from a file
	// mapping (git) then meet EPERM now and then.
	Strict bool
	// MaxBytes of one call that are searched; what is beyond is counted as
	// oversize. 0: 1 MiB. A call is searched with preemption off, at 1 to 3
	// bytes per nanosecond.
	MaxBytes int
	// RingBytes is the size of the ring of events: a power of two and a
	// multiple of the page. 0: 256 KiB, about 2500 events.
	RingBytes int
	// Streams whose tail is kept; the least recently used goes first.
	// 0: 8192.
	Streams int
}

// Event is a needle in bytes on their way out. It never holds the bytes.
type Event struct {
	Needle     uint32 // Needle.ID
	Generation uint64 // of the needles: 1 for Options.Needles, then what SetNeedles returned
	Offset     int64  // of its first byte in this call's bytes; negative if it began in an earlier call
	Length     int    // of the needle, bytes
	PID        int    // process (the kernel's tgid), in the host's pid namespace
	TID        int    // thread
	Comm       string // the thread's name, up to 15 bytes; the process chooses it
	FD         int
	Syscall    string // "write", "sendmsg", ...
	Channel    guard.Channel
	Refused    bool   // the call failed with EPERM because of it
	Device     uint64 // st_dev of what FD is, as the kernel numbers it (major<<20 | minor)
	Inode      uint64
	Cgroup     uint64
	At         time.Time
}

// ChannelOther is for descriptors that are neither file, pipe, socket nor
// terminal (eventfd, pidfd, closed ones).
const ChannelOther guard.Channel = "other"

// Counters of one channel. Seen is Scanned + Unreadable + Oversize.
type Counters struct {
	Calls      uint64 // system calls
	Seen       uint64 // bytes that the calls named
	Scanned    uint64 // bytes searched
	Unreadable uint64 // bytes that could not be read: a bad address or a page not in memory
	Oversize   uint64 // bytes beyond Options.MaxBytes

	UnreadableCalls uint64 // calls with a message header or an iovec that could not be read: those bytes are in no counter
	OversizeCalls   uint64 // calls of more than 8192 parts: the rest's bytes are in no counter

	Hits      uint64 // needles found
	Dropped   uint64 // of those, not in the ring because it was full
	TailsLost uint64 // streams whose tail could not be kept
}

func (c *Counters) add(o Counters) {
	c.Calls += o.Calls
	c.Seen += o.Seen
	c.Scanned += o.Scanned
	c.Unreadable += o.Unreadable
	c.Oversize += o.Oversize
	c.UnreadableCalls += o.UnreadableCalls
	c.OversizeCalls += o.OversizeCalls
	c.Hits += o.Hits
	c.Dropped += o.Dropped
	c.TailsLost += o.TailsLost
}

// Stats is what a Detector did since it was opened.
type Stats struct {
	Channels map[guard.Channel]Counters // those with a call
	Total    Counters
	// Missed calls: the kernel skipped the program because it was already
	// running on that processor. They are in no other counter.
	Missed uint64
}

// Names of features, as Report and guard doctor spell them.
const (
	BTF          = "btf"
	Tracepoint   = "tracepoint"
	RingBuffer   = "ring buffer"
	Loop         = "bpf_loop"
	Uprobe       = "uprobe"
	CgroupProg   = "cgroup program"
	Fentry       = "fentry"
	LSM          = "bpf lsm"
	FmodRet      = "fmod_ret"
	Capabilities = "capabilities"
)

func featureNames() []string {
	return []string{Capabilities, BTF, Tracepoint, RingBuffer, Loop, Uprobe, CgroupProg, Fentry, FmodRet, LSM}
}

// Feature is one thing that guard's programs may need.
type Feature struct {
	Name   string
	OK     bool
	Reason string // if not OK: what is missing, since which kernel it exists, what to do
}

// Report is what this kernel offers to this process, found out by trying.
type Report struct {
	Kernel   string // release, as uname has it
	Features []Feature
}

// Has says whether every named feature is there.
func (r Report) Has(names ...string) bool { return r.Need(names...) == nil }

// Need returns nil if every named feature is there, and else a
// *NotSupportedError with those that are not.
func (r Report) Need(names ...string) error {
	e := &NotSupportedError{Kernel: r.Kernel}
	for _, name := range names {
		found := Feature{Name: name, Reason: "not probed"}
		for _, f := range r.Features {
			if f.Name == name {
				found = f
			}
		}
		if !found.OK {
			e.Missing = append(e.Missing, found)
		}
	}
	if len(e.Missing) == 0 {
		return nil
	}
	return e
}

// needs names what a Detector needs.
func (o Options) needs() []string {
	if o.Refuse {
		return []string{Capabilities, BTF, RingBuffer, Loop, LSM}
	}
	return []string{Capabilities, BTF, RingBuffer, Loop, Tracepoint}
}

// NotSupportedError says what is missing. It is ErrNotSupported and
// errors.ErrUnsupported.
type NotSupportedError struct {
	Kernel  string
	Missing []Feature
}

func (e *NotSupportedError) Error() string {
	var b strings.Builder
	fmt.Fprintf(&b, "kernel %s:", e.Kernel)
	for i, f := range e.Missing {
		if i > 0 {
			b.WriteByte(';')
		}
		fmt.Fprintf(&b, " no %s (%s)", f.Name, f.Reason)
	}
	return b.String()
}

// Is makes errors.Is hold for ErrNotSupported and errors.ErrUnsupported.
func (e *NotSupportedError) Is(target error) bool {
	return target == ErrNotSupported || target == errors.ErrUnsupported
}
