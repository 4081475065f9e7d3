//go:build linux && (amd64 || arm64)

package bpf

import (
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"slices"
	"time"
	"unsafe"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/ringbuf"
)

// Pieces hands on what the tasks in scope write. Its methods may be called from any
// goroutine; Read from one.
type Pieces struct{ d *Detector }

// OpenPieces starts handing on. Of o it takes the scope, MaxBytes and, for the ring of
// pieces (0: 16 MiB), RingBytes. Errors are those of OpenDetector.
func OpenPieces(o Options) (*Pieces, error) {
	if err := o.check(); err != nil {
		return nil, err
	}
	p, err := openPieces(o)
	if err != nil {
		if missing := Probe().Need(append(needs(Tracepoint), Loop)...); missing != nil {
			return nil, missing
		}
		return nil, fmt.Errorf("bpf: start handing on: %w", err)
	}
	return p, nil
}

func openPieces(o Options) (_ *Pieces, err error) {
	spec, err := loadShip()
	if err != nil {
		return nil, err
	}
	d := &Detector{via: Tracepoint}
	ring := uint32(o.RingBytes)
	o.RingBytes, o.Refuse, o.Rescans = 0, false, false
	if err := o.configure(spec, d); err != nil {
		return nil, err
	}
	if ring != 0 {
		spec.Maps["pieces"].MaxEntries = ring
	}
	if err := spec.Variables["guard_tgid"].Set(uint32(os.Getpid())); err != nil {
		return nil, err
	}
	// The search's own maps are not needed.
	for _, name := range []string{"events", "tables", "tails"} {
		delete(spec.Maps, name)
	}
	for name := range spec.Programs {
		if membership(name) && o.Cgroup == 0 && len(o.Processes) == 0 {
			delete(spec.Programs, name)
		}
	}
	if d.coll, err = ebpf.NewCollection(spec); err != nil {
		return nil, err
	}
	d.stats = d.coll.Maps["stats"]
	defer func() {
		if err != nil {
			err = errors.Join(err, d.detach())
			d.coll.Close()
		}
	}()
	for _, pid := range o.Processes {
		if err := d.coll.Maps["members"].Put(uint32(pid), uint32(1)); err != nil {
			return nil, fmt.Errorf("watch process %d: %w", pid, err)
		}
	}
	if d.ring, err = ringbuf.NewReader(d.coll.Maps["pieces"]); err != nil {
		return nil, err
	}
	if err := d.attach(); err != nil {
		return nil, errors.Join(err, d.ring.Close())
	}
	return &Pieces{d}, nil
}

// headerBytes are those of a piece before its bytes.
const headerBytes = int(unsafe.Offsetof(shipPiece{}.Bytes))

// SetDeadline has a Read that finds nothing until t return os.ErrDeadlineExceeded.
func (p *Pieces) SetDeadline(t time.Time) { p.d.ring.SetDeadline(t) }

// Read waits for the next piece. After Stop it returns the rest, then os.ErrClosed.
func (p *Pieces) Read() (Piece, error) {
	d := p.d
	d.read.Lock()
	defer d.read.Unlock()
	if err := d.ring.ReadInto(&d.rec); err != nil {
		if errors.Is(err, ringbuf.ErrFlushed) {
			d.ring.Flush()
			return Piece{}, os.ErrClosed
		}
		for _, known := range []error{os.ErrClosed, os.ErrDeadlineExceeded} {
			if errors.Is(err, known) {
				return Piece{}, known
			}
		}
		return Piece{}, fmt.Errorf("bpf: read a piece: %w", err)
	}
	raw := d.rec.RawSample
	var e detectEvent
	about := binary.Size(e)
	if len(raw) < headerBytes {
		return Piece{}, fmt.Errorf("bpf: a piece of %d bytes", len(raw))
	}
	n := binary.LittleEndian.Uint32(raw[about:])
	if _, err := binary.Decode(raw[:about], binary.LittleEndian, &e); err != nil || int(n) > len(raw)-headerBytes {
		return Piece{}, fmt.Errorf("bpf: a piece of %d bytes says that it has %d", len(raw), n)
	}
	s := StreamID{uint64(e.Device), e.Inode, 0}
	if e.Inode == 0 {
		s.Other = uint64(e.Tgid)<<32 | uint64(uint32(e.Fd))
	}
	return Piece{int(e.Tgid), s, e.Offset, raw[headerBytes : headerBytes+int(n)], raw[:about]}, nil
}

// Describe says who wrote a piece where, of a copy of Piece.About. The Event has no needle.
func (p *Pieces) Describe(about []byte) (Event, error) { return p.d.decode(slices.Clone(about)) }

// Stats returns the counters: Scanned bytes were handed on, but for those of Dropped pieces.
func (p *Pieces) Stats() (Stats, error) { return p.d.Stats() }

// Stop ends it. Read returns the pieces that are left, then os.ErrClosed.
func (p *Pieces) Stop() error { return p.d.Stop() }

// Close frees what the kernel holds. Pieces not yet read are lost.
func (p *Pieces) Close() error { return p.d.Close() }
