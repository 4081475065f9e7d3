//go:build linux && (amd64 || arm64)

package bpf

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math"
	"os"
	"sync"
	"time"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/link"
	"github.com/cilium/ebpf/ringbuf"
	"golang.org/x/sys/unix"

	"guard"
)

// watched are the calls whose bytes are searched, and how they name them.
func watched() map[uint32]struct {
	name  string
	shape detectShape
} {
	return map[uint32]struct {
		name  string
		shape detectShape
	}{
		unix.SYS_WRITE:    {"write", detectShapeSHAPE_BUF},
		unix.SYS_PWRITE64: {"pwrite64", detectShapeSHAPE_BUF},
		unix.SYS_SENDTO:   {"sendto", detectShapeSHAPE_BUF},
		unix.SYS_WRITEV:   {"writev", detectShapeSHAPE_IOV},
		unix.SYS_PWRITEV:  {"pwritev", detectShapeSHAPE_IOV},
		unix.SYS_PWRITEV2: {"pwritev2", detectShapeSHAPE_IOV},
		unix.SYS_VMSPLICE: {"vmsplice", detectShapeSHAPE_IOV},
		unix.SYS_SENDMSG:  {"sendmsg", detectShapeSHAPE_MSG},
		unix.SYS_SENDMMSG: {"sendmmsg", detectShapeSHAPE_MMSG},
	}
}

func channelName(c uint32) guard.Channel {
	switch detectChannel(c) {
	case detectChannelCHANNEL_FILE:
		return guard.ChannelFile
	case detectChannelCHANNEL_PIPE:
		return guard.ChannelPipe
	case detectChannelCHANNEL_SOCKET:
		return guard.ChannelSocket
	case detectChannelCHANNEL_TERMINAL:
		return guard.ChannelTerminal
	}
	return ChannelOther
}

// Detector finds needles in what a session's processes write. Its methods may
// be called from any goroutine.
type Detector struct {
	objs   io.Closer // everything that was loaded
	tables *ebpf.Map
	stats  *ebpf.Map
	prog   *ebpf.Program
	inner  *ebpf.MapSpec // of one table
	link   link.Link
	ring   *ringbuf.Reader

	read  sync.Mutex // held by Read; guards rec
	rec   ringbuf.Record
	names map[uint32]string

	mu         sync.Mutex // guards what follows
	generation uint64
	stopped    bool
	closed     bool
}

// OpenDetector starts watching, or with o.Refuse refusing. When it returns,
// every call that a task in scope begins is searched. It fails with ErrNotSupported where the kernel or
// the process's privileges do not allow it (see Probe), ErrTooShort or
// ErrTooMany for needles that cannot be searched for.
func OpenDetector(o Options) (*Detector, error) {
	if o.PIDNamespace == 0 && o.Cgroup == 0 {
		return nil, errors.New("bpf: a detector needs a pid namespace or a cgroup to watch")
	}
	if o.PIDNamespace > math.MaxUint32 {
		return nil, fmt.Errorf("bpf: %d is not the inode number of a pid namespace", o.PIDNamespace)
	}
	if o.MaxBytes < 0 || o.RingBytes < 0 || o.Streams < 0 {
		return nil, errors.New("bpf: an option is negative")
	}
	first, err := newTable(o.Needles, 1)
	if err != nil {
		return nil, fmt.Errorf("bpf: %w", err)
	}
	d, err := load(o, first)
	if err == nil {
		return d, nil
	}
	// The loader's own words say which step failed; what a person needs is
	// what is missing.
	if missing := Probe().Need(o.needs()...); missing != nil {
		return nil, missing
	}
	return nil, fmt.Errorf("bpf: start the detector: %w", err)
}

func load(o Options, first *detectTable) (_ *Detector, err error) {
	open := loadDetect
	if o.Refuse {
		open = loadBlock
	}
	spec, err := open()
	if err != nil {
		return nil, err
	}
	var shapes [512]uint8
	d := &Detector{generation: 1, names: map[uint32]string{}}
	for nr, w := range watched() {
		shapes[nr] = uint8(w.shape)
		d.names[nr] = w.name
	}
	maxBytes := uint64(o.MaxBytes)
	if maxBytes == 0 {
		maxBytes = 1 << 20
	}
	vars := map[string]any{
		"shapes": shapes, "scope_pidns": uint32(o.PIDNamespace), "scope_cgroup": o.Cgroup, "max_bytes": maxBytes,
	}
	if o.Refuse && o.Strict {
		vars["strict"] = uint32(1)
	}
	for name, v := range vars {
		if err := spec.Variables[name].Set(v); err != nil {
			return nil, err
		}
	}
	if o.RingBytes != 0 {
		spec.Maps["events"].MaxEntries = uint32(o.RingBytes)
	}
	if o.Streams != 0 {
		spec.Maps["tails"].MaxEntries = uint32(o.Streams)
	}
	d.inner = spec.Maps["tables"].InnerMap
	var events *ebpf.Map
	if o.Refuse {
		var objs blockObjects
		if err := spec.LoadAndAssign(&objs, nil); err != nil {
			return nil, err
		}
		d.objs, events, d.stats, d.tables, d.prog = &objs, objs.Events, objs.Stats, objs.Tables, objs.FilePermission
	} else {
		var objs detectObjects
		if err := spec.LoadAndAssign(&objs, nil); err != nil {
			return nil, err
		}
		d.objs, events, d.stats, d.tables, d.prog = &objs, objs.Events, objs.Stats, objs.Tables, objs.SysEnter
	}
	defer func() {
		if err != nil {
			d.objs.Close()
		}
	}()
	if err := d.install(first); err != nil {
		return nil, err
	}
	if d.ring, err = ringbuf.NewReader(events); err != nil {
		return nil, err
	}
	if o.Refuse {
		d.link, err = link.AttachLSM(link.LSMOptions{Program: d.prog})
	} else {
		d.link, err = link.AttachTracing(link.TracingOptions{Program: d.prog})
	}
	if err != nil {
		d.ring.Close()
		return nil, err
	}
	return d, nil
}

// install puts t in the place of the table that is in use. The kernel waits
// for programs that still search with the old one, then frees it.
func (d *Detector) install(t *detectTable) error {
	m, err := ebpf.NewMap(d.inner)
	if err != nil {
		return fmt.Errorf("make a search table: %w", err)
	}
	defer m.Close()
	if err := m.Put(uint32(0), t); err != nil {
		return fmt.Errorf("fill a search table: %w", err)
	}
	if err := d.tables.Put(uint32(0), m); err != nil {
		return fmt.Errorf("swap the search table: %w", err)
	}
	return nil
}

// SetNeedles replaces all needles, while everything runs: each call is searched
// with all of the old ones or all of the new ones, and every call that begins
// after SetNeedles returned with the new ones. It returns their generation,
// which events carry. On an error the old ones stay. After Close or Stop it
// returns os.ErrClosed.
func (d *Detector) SetNeedles(needles []Needle) (generation uint64, err error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.stopped {
		return 0, os.ErrClosed
	}
	t, err := newTable(needles, d.generation+1)
	if err != nil {
		return 0, fmt.Errorf("bpf: %w", err)
	}
	if err := d.install(t); err != nil {
		return 0, fmt.Errorf("bpf: %w", err)
	}
	d.generation++
	return d.generation, nil
}

// Read waits for the next event. After Close it returns os.ErrClosed; after
// Stop, once every event has been read.
func (d *Detector) Read() (Event, error) {
	d.read.Lock()
	defer d.read.Unlock()
	if err := d.ring.ReadInto(&d.rec); err != nil {
		if errors.Is(err, ringbuf.ErrFlushed) {
			// Stop was called: whoever reads on is told the same again.
			d.ring.Flush()
			return Event{}, os.ErrClosed
		}
		if errors.Is(err, os.ErrClosed) {
			return Event{}, os.ErrClosed
		}
		return Event{}, fmt.Errorf("bpf: read an event: %w", err)
	}
	return d.decode(d.rec.RawSample)
}

func (d *Detector) decode(raw []byte) (Event, error) {
	var e detectEvent
	if n, err := binary.Decode(raw, binary.LittleEndian, &e); err != nil || n != len(raw) {
		return Event{}, fmt.Errorf("bpf: an event of %d bytes does not fit the program that was built in", len(raw))
	}
	comm, _, _ := bytes.Cut(e.Comm[:], []byte{0})
	return Event{
		Needle: e.Needle, Generation: e.Generation, Offset: e.Offset, Length: int(e.Length),
		PID: int(e.Tgid), TID: int(e.Pid), Comm: string(comm), FD: int(e.Fd),
		Syscall: d.names[e.Syscall], Channel: channelName(e.Channel),
		Refused: e.Refused != 0, Device: uint64(e.Device), Inode: e.Inode, Cgroup: e.Cgroup, At: wall(e.Time),
	}, nil
}

// wall turns the kernel's monotonic clock into a time of day.
func wall(mono uint64) time.Time {
	var now unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_MONOTONIC, &now); err != nil {
		return time.Now()
	}
	return time.Now().Add(time.Duration(int64(mono) - now.Nano()))
}

// Stats returns the counters as they are now. They stay readable after Stop;
// after Close they are os.ErrClosed.
func (d *Detector) Stats() (Stats, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	s := Stats{Channels: map[guard.Channel]Counters{}}
	if d.closed {
		return s, os.ErrClosed
	}
	var perCPU []detectCounters
	for c := range d.stats.MaxEntries() {
		if err := d.stats.Lookup(c, &perCPU); err != nil {
			return s, fmt.Errorf("bpf: read counters: %w", err)
		}
		var sum Counters
		for _, n := range perCPU {
			sum.add(Counters{
				Calls: n.Calls, Seen: n.Seen, Scanned: n.Scanned, Unreadable: n.Unreadable, Oversize: n.Oversize,
				UnreadableCalls: n.UnreadableCalls, OversizeCalls: n.OversizeCalls,
				Hits: n.Hits, Dropped: n.Dropped, TailsLost: n.TailsLost,
			})
		}
		if sum.Calls != 0 {
			s.Channels[channelName(c)] = sum
			s.Total.add(sum)
		}
	}
	ps, err := d.prog.Stats()
	if err != nil {
		return s, fmt.Errorf("bpf: read the program's counters: %w", err)
	}
	s.Missed = ps.RecursionMisses
	return s, nil
}

// Stop ends the watching. Read returns the events that are left, then
// os.ErrClosed. Close must still be called.
func (d *Detector) Stop() error {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.stop()
}

func (d *Detector) stop() error {
	if d.stopped {
		return nil
	}
	d.stopped = true
	return errors.Join(d.link.Close(), d.ring.Flush())
}

// Close ends the watching, wakes a Read and frees what the kernel holds. Events
// not yet read are lost: Stop and read them first. Closing twice is no error.
func (d *Detector) Close() error {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.closed {
		return nil
	}
	err := d.stop()
	d.closed = true
	return errors.Join(err, d.ring.Close(), d.objs.Close())
}
