package bpf

import (
	"errors"
	"fmt"
	"math"
	"net/netip"
	"strings"
	"time"

	"guard"
)

const (
	// FastNeedle is the length in bytes of the shortest needle that is found at
	// every offset at full speed: a window and a stride, less one.
	FastNeedle = 15
	// MinNeedle is the length in bytes of the shortest needle that is searched for:
	// a window. One needle of 11 to 14 bytes makes the whole search take
	// twice as long, one of 9 or 10 four times, one of 8 eight times.
	MinNeedle = 8
	// MaxNeedles is how many needles one table holds.
	MaxNeedles = 1<<15 - 1
)

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

// Options of a Detector. One scope at least must be given; with several, a task
// in any of them is watched.
type Options struct {
	// PIDNamespace is the inode number of /proc/PID/ns/pid: tasks in that
	// namespace and in those below it. Nothing leaves this scope.
	PIDNamespace uint64
	// Cgroup is the number of a cgroup of the v2 hierarchy (its folder's
	// inode number): tasks in it and below it, and what was once seen there,
	// with its descendants, wherever it moves.
	Cgroup uint64
	// Processes by PID, in the host's pid namespace, and what they start from now on.
	Processes []int
	// All is every process of the machine but this one.
	All bool
	// Needles to start with. SetNeedles changes them later.
	Needles []Needle
	// Refuse fails with EPERM what holds a needle, before a byte of it is out:
	// writes to anything but a terminal, messages to sockets, arguments
	// and environments, names of files, extended attributes and targets of
	// links. It takes away what cannot be judged: see the package's
	// documentation. It needs BPF LSM, or as second best fmod_ret (see Via).
	Refuse bool
	// Terminals makes Refuse refuse on terminals too, which are otherwise left
	// to the pty, which redacts: a program that may not write to its terminal falls over.
	Terminals bool
	// Strict makes Refuse fail also what could not be searched
	// whole: unreadable pages, oversize, foreign ABIs. Programs that write from a file
	// mapping (git) then meet EPERM now and then.
	Strict bool
	// Lenient makes Refuse take nothing away: what nobody can look at passes and is
	// counted as Unjudged. For whole machines, whose servers rely on sendfile and io_uring.
	Lenient bool
	// Rescans puts events into the ring that say what to search again, of Kind
	// Mapped, Unmapped (these two by LSM only) and Unsearched. Only with Refuse.
	Rescans bool
	// Windows has every find bring the bytes around it: Event.Window.
	Windows bool
	// MaxBytes of one call that are searched; what is beyond is counted as
	// oversize. 0: 1 MiB. A write is searched with preemption off, at 1 to 3
	// bytes per nanosecond.
	MaxBytes int
	// RingBytes is the size of the ring of events: a power of two and a
	// multiple of the page. 0: 256 KiB, about 1100 events.
	RingBytes int
	// Streams whose tail is kept; the least recently used goes first.
	// 0: 8192.
	Streams int

	// Types is the path of a file in which the few types of the kernel that the programs look into are kept from one Prepare to the
	// next, for this kernel and this version of guard. It must lie where nobody but this user writes. "": none is kept.
	Types string

	via     string // for tests: not the best there is
	bounded bool   // for tests: as on a kernel without bpf_loop
}

func (o Options) check() error {
	if o.PIDNamespace == 0 && o.Cgroup == 0 && len(o.Processes) == 0 && !o.All {
		return errors.New("bpf: a detector needs a pid namespace, a cgroup or processes to watch")
	}
	if o.PIDNamespace > math.MaxUint32 {
		return fmt.Errorf("bpf: %d is not the inode number of a pid namespace", o.PIDNamespace)
	}
	for _, pid := range o.Processes {
		if pid <= 0 || pid > math.MaxInt32 {
			return fmt.Errorf("bpf: %d is not a PID", pid)
		}
	}
	if o.MaxBytes < 0 || o.RingBytes < 0 || o.Streams < 0 {
		return errors.New("bpf: an option is negative")
	}
	if o.Lenient && o.Strict {
		return errors.New("bpf: Lenient and Strict exclude each other")
	}
	if o.Rescans && !o.Refuse {
		return errors.New("bpf: Rescans needs Refuse")
	}
	return nil
}

// Kind of an event.
type Kind uint8

const (
	Leak     Kind = iota // a needle
	Mapped               // a file was mapped so that stores reach it: search it now and then
	Unmapped             // the last reference to that opened file is gone, its bytes are there: search it
	// Unsearched: some bytes of a call passed that were not in memory or too many:
	// search the file, distrust the pipe or socket.
	Unsearched
)

// Event is a needle in bytes on their way out. It never holds the bytes. (A
// file that was there before may have a needle in its name.) Of another Kind
// than Leak, with Options.Rescans only, it has no needle.
type Event struct {
	Kind       Kind
	Needle     uint32 // Needle.ID
	Generation uint64 // of the needles: 1 for Options.Needles, then what SetNeedles returned
	Offset     int64  // of its first byte in this call's bytes; negative if it began in an earlier call
	Length     int    // of the needle, bytes
	PID        int    // process (the kernel's tgid), in the host's pid namespace
	TID        int    // thread
	Comm       string // the thread's name, up to 15 bytes; the process chooses it
	Exe        string // path of the executable; "" if the process is gone
	ExeDevice  uint64 // as Device
	ExeInode   uint64
	FD         int    // -1: none
	Syscall    string // "write", "sendmsg", ...
	Channel    guard.Channel
	Refused    bool           // the call failed with EPERM because of it
	Device     uint64         // st_dev of what FD is, as the kernel numbers it (major<<20 | minor)
	Inode      uint64         // of what FD is, of the program, or of the folder that a name is in
	Name       string         // last part of the file's path, up to 63 bytes
	Path       string         // of the file, as its process sees it; "" if FD has been closed since
	Peer       netip.AddrPort // a socket's other end, for IP
	PeerPID    int            // a Unix socket's other end
	Cgroup     uint64
	Call       uint64 // the finds of one call of a thread have it in common; a later call's are greater
	At         time.Time
	// User is the uid of a process that has no other user's rights (none by set-user-ID, capabilities, groups); -1: it has.
	User int
	// Window is what was searched around the needle, with Options.Windows: of this call at most 4 KiB, and of what came before
	// in the stream what the needle began in. WindowAt is where in the call's bytes it begins.
	Window   []byte
	WindowAt int64
}

// The channels that are not among guard's shared words.
const (
	ChannelOther   guard.Channel = "other"   // neither file, pipe, socket nor terminal: eventfd, pidfd, closed ones
	ChannelName    guard.Channel = "name"    // a file's name
	ChannelXattr   guard.Channel = "xattr"   // an extended attribute's name and value
	ChannelLink    guard.Channel = "link"    // a symbolic link's target
	ChannelQueue   guard.Channel = "queue"   // System V and POSIX message queues
	ChannelMapping guard.Channel = "mapping" // a file, by stores to a shared mapping of it
	// ChannelBacking is the file system below an overlay, which is told to write what
	// was written to the overlay: the same bytes again.
	ChannelBacking guard.Channel = "backing"
)

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

	Refused   uint64 // calls that failed with EPERM: a needle or Options.Strict
	TakenAway uint64 // calls that failed because nobody can look at what they move; not in Calls
	// Unjudged calls passed without a look; not in Calls: those that bring no bytes
	// (fallocate), what the kernel itself sends, and, unless Options.Strict, foreign ABIs.
	Unjudged uint64
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
	c.Refused += o.Refused
	c.TakenAway += o.TakenAway
	c.Unjudged += o.Unjudged
}

// Minus is what was counted since o was.
func (c Counters) Minus(o Counters) Counters {
	return Counters{
		Calls: c.Calls - o.Calls, Seen: c.Seen - o.Seen, Scanned: c.Scanned - o.Scanned, Unreadable: c.Unreadable - o.Unreadable, Oversize: c.Oversize - o.Oversize,
		UnreadableCalls: c.UnreadableCalls - o.UnreadableCalls, OversizeCalls: c.OversizeCalls - o.OversizeCalls,
		Hits: c.Hits - o.Hits, Dropped: c.Dropped - o.Dropped, TailsLost: c.TailsLost - o.TailsLost,
		Refused: c.Refused - o.Refused, TakenAway: c.TakenAway - o.TakenAway, Unjudged: c.Unjudged - o.Unjudged,
	}
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

// needs names what a detector by way of via needs.
func needs(via string) []string {
	names := []string{Capabilities, BTF, RingBuffer, via}
	if via != Tracepoint { // which has a second program, of bounded loops
		names = append(names, Loop)
	}
	return names
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
