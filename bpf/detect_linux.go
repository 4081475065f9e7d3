//go:build linux && (amd64 || arm64)

package bpf

import (
	"errors"
	"fmt"
	"os"
	"sync"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/link"
	"github.com/cilium/ebpf/ringbuf"

	"guard"
)

// Detector finds needles in what a session's processes write. Its methods may
// be called from any goroutine.
type Detector struct {
	coll   *ebpf.Collection // everything that was loaded
	tables *ebpf.Map
	stats  *ebpf.Map
	progs  []*ebpf.Program
	inner  *ebpf.MapSpec // of one table
	table  *ebpf.Map     // the first one, in its place and empty, until there is something to look for
	links  []link.Link
	ring   *ringbuf.Reader
	via    string
	old    bool // the kernel has no bpf_loop, or is taken for one that has none
	room   int  // needles in a table

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
	if err := o.check(); err != nil {
		return nil, err
	}
	via := o.best()
	o.bounded = o.bounded || via == Tracepoint && noLoop()
	first, err := newTable(o.room(), o.Needles, 1)
	if err != nil {
		return nil, fmt.Errorf("bpf: %w", err)
	}
	d, err := load(o, via)
	if err == nil {
		err = d.watch(o, first, len(o.Needles))
	}
	if err != nil {
		return nil, cannot(via, err)
	}
	return d, nil
}

// best is by what the kernel is asked here.
func (o Options) best() string {
	switch {
	case o.via != "":
		return o.via
	case !o.Refuse:
		return Tracepoint
	case tryLSM() != nil && tryFmodRet() == nil:
		return FmodRet
	}
	return LSM
}

// cannot says why a detector was not started. The loader's own words say which step failed;
// what a person needs is what is missing.
func cannot(via string, err error) error {
	if missing := Probe().Need(needs(via)...); missing != nil {
		return missing
	}
	return fmt.Errorf("bpf: start the detector: %w", err)
}

// Prepared is a Detector whose programs the kernel has taken and does not run yet. That is the
// longer part of OpenDetector, and can go on while a session is being set up.
type Prepared struct{ d *Detector }

// Prepare loads the programs for one pid namespace that does not exist yet. Of o it takes all but
// the scope and the needles. Errors are those of OpenDetector.
func Prepare(o Options) (*Prepared, error) {
	o.PIDNamespace, o.Cgroup, o.Processes, o.All, o.Needles = 1, 0, nil, false, nil
	if err := o.check(); err != nil {
		return nil, err
	}
	o.PIDNamespace = 0
	via := o.best()
	o.bounded = o.bounded || via == Tracepoint && noLoop()
	d, err := load(o, via)
	if err != nil {
		return nil, cannot(via, err)
	}
	return &Prepared{d}, nil
}

// Watch makes it a Detector for the tasks of a pid namespace (see Options.PIDNamespace) and those
// below. p is used up, whether it succeeds or not.
func (p *Prepared) Watch(namespace uint64, needles []Needle) (*Detector, error) {
	d := p.d
	if d == nil {
		return nil, os.ErrClosed
	}
	p.d = nil
	o := Options{PIDNamespace: namespace}
	err := o.check()
	var first *detectTable
	if err == nil {
		if first, err = newTable(d.room, needles, 1); err != nil {
			err = fmt.Errorf("bpf: %w", err)
		}
	}
	if err == nil {
		err = d.coll.Variables["scope_pidns"].Set(uint32(namespace))
	}
	if err != nil {
		return nil, errors.Join(err, d.Close())
	}
	if err := d.watch(o, first, len(needles)); err != nil {
		return nil, cannot(d.via, err)
	}
	return d, nil
}

// Close gives back what was not used.
func (p *Prepared) Close() error {
	d := p.d
	if d == nil {
		return nil
	}
	p.d = nil
	return d.Close()
}

// Via is by what the kernel asks the search: Tracepoint, LSM or FmodRet. With the last one
// a call may get past the search while another is in it on the same processor: say
// so to the user. Stats.Missed counts those.
func (d *Detector) Via() string { return d.via }

// install puts t in the place of the table that is in use. The kernel waits
// for programs that still search with the old one, then frees it.
func (d *Detector) install(t *detectTable, needles int) error {
	if d.old {
		defer unlimited()()
	}
	m, err := ebpf.NewMap(d.inner)
	if err != nil {
		return fmt.Errorf("make a search table: %w", err)
	}
	defer m.Close()
	if err := write(m, t, needles); err != nil {
		return err
	}
	if err := d.tables.Put(uint32(0), m); err != nil {
		return fmt.Errorf("swap the search table: %w", err)
	}
	return nil
}

// write fills a new table.
func write(m *ebpf.Map, t *detectTable, needles int) error {
	memory, err := m.Memory()
	if err != nil {
		return fmt.Errorf("map a search table: %w", err)
	}
	for at, part := range t.used(needles) {
		if _, err := memory.WriteAt(part, at); err != nil {
			return fmt.Errorf("fill a search table: %w", err)
		}
	}
	return nil
}

// SetNeedles replaces all needles, while everything runs: each call is searched
// with the old ones or the new ones (a long one that goes on meanwhile, piece by piece: what is among both is found), and every call that begins
// after SetNeedles returned with the new ones. It returns their generation,
// which events carry. On an error the old ones stay. After Close or Stop it
// returns os.ErrClosed.
func (d *Detector) SetNeedles(needles []Needle) (generation uint64, err error) {
	generation, _, err = d.set(len(needles), func(generation uint64) (*detectTable, []int, error) {
		t, err := newTable(d.room, needles, generation)
		return t, nil, err
	})
	return generation, err
}

// SetHashed is SetNeedles with needles of others', which they hashed under key. left are the places in hashed of those for
// which there is no room. ErrTooMany may be the key's fault.
func (d *Detector) SetHashed(key HashKey, needles []Needle, hashed []HashedNeedle) (generation uint64, left []int, err error) {
	for _, h := range hashed {
		if err := h.Check(); err != nil {
			return 0, nil, fmt.Errorf("bpf: %w", err)
		}
	}
	return d.set(len(needles)+len(hashed), func(generation uint64) (*detectTable, []int, error) {
		return newTableOf(d.room, key, needles, hashed, generation)
	})
}

func (d *Detector) set(n int, make func(generation uint64) (*detectTable, []int, error)) (uint64, []int, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.stopped {
		return 0, nil, os.ErrClosed
	}
	t, left, err := make(d.generation + 1)
	if err == nil {
		err = d.install(t, min(n, d.room))
	}
	if err != nil {
		return 0, nil, fmt.Errorf("bpf: %w", err)
	}
	d.generation++
	return d.generation, left, nil
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
				Refused: n.Refused, TakenAway: n.Away, Unjudged: n.Unjudged,
			})
		}
		if sum != (Counters{}) {
			s.Channels[channelName(c)] = sum
			s.Total.add(sum)
		}
	}
	for _, p := range d.progs {
		ps, err := p.Stats()
		if err != nil {
			return s, fmt.Errorf("bpf: read a program's counters: %w", err)
		}
		s.Missed += ps.RecursionMisses
	}
	return s, nil
}

// Stop ends the watching at once; the kernel takes the programs away a little later, or, before
// 6.12 and with Refuse, in about two seconds that Stop waits for. Read returns the events that are left, then
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
	return errors.Join(d.detach(), d.ring.Flush())
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
	err = errors.Join(err, d.ring.Close())
	if d.table != nil {
		err = errors.Join(err, d.table.Close())
	}
	d.coll.Close()
	return err
}
