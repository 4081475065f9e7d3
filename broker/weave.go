package broker

import (
	"errors"
	"io"
)

// Weave puts the filtered streams of a framed protocol back together. A filter
// sees the payload of frames as one stream, and may keep some of it back past
// the end of a frame; what follows on the wire then waits behind it. It is for
// one goroutine.
type Weave struct {
	Dst   io.Writer
	parts []part
	ready map[int][]byte // by stream: released, and not yet written
	buf   []byte
	kept  int // bytes of raw parts and of ready
}

type part struct {
	stream int // -1: raw
	raw    []byte
	n      uint64 // bytes of the stream that belong here
	edit   func([]byte)
}

// maxKept bounds what waits behind a stream that a filter holds.
const maxKept = 1 << 20

// ErrKept is what Flush returns when too much waits.
var ErrKept = errors.New("too many frames wait for the end of another")

// Raw puts b, which is copied, next on the wire.
func (w *Weave) Raw(b []byte) {
	w.kept += len(b)
	if k := len(w.parts); k > 0 && w.parts[k-1].stream < 0 {
		w.parts[k-1].raw = append(w.parts[k-1].raw, b...)
		return
	}
	w.parts = append(w.parts, part{stream: -1, raw: append([]byte(nil), b...)})
}

// Payload puts the next n bytes that will be released of a stream (0, 1, ...)
// next on the wire. edit, if not nil, is given them in order, in pieces, and may
// change them in place.
func (w *Weave) Payload(stream int, n uint64, edit func([]byte)) {
	if n == 0 {
		return
	}
	if k := len(w.parts); k > 0 && edit == nil && w.parts[k-1].edit == nil && w.parts[k-1].stream == stream {
		w.parts[k-1].n += n
		return
	}
	w.parts = append(w.parts, part{stream: stream, n: n, edit: edit})
}

// Release takes bytes that a stream's filter let go.
func (w *Weave) Release(stream int, b []byte) {
	if len(b) == 0 {
		return
	}
	if w.ready == nil {
		w.ready = map[int][]byte{}
	}
	w.ready[stream] = append(w.ready[stream], b...)
	w.kept += len(b)
}

// Flush writes, at once, what nothing is missing before.
func (w *Weave) Flush() error {
	out := w.buf[:0]
	done := 0
	for ; done < len(w.parts); done++ {
		p := &w.parts[done]
		if p.stream < 0 {
			out = append(out, p.raw...)
			continue
		}
		have := w.ready[p.stream]
		k := len(have)
		if uint64(k) > p.n {
			k = int(p.n)
		}
		if p.edit != nil {
			p.edit(have[:k])
		}
		out = append(out, have[:k]...)
		if k == 0 {
			break
		}
		if w.ready[p.stream] = have[k:]; k == len(have) {
			w.ready[p.stream] = have[:0]
		}
		if p.n -= uint64(k); p.n > 0 {
			break
		}
	}
	w.parts = w.parts[:copy(w.parts, w.parts[done:])]
	w.kept -= len(out)
	if w.buf = out; cap(out) > 256<<10 {
		w.buf = nil
	}
	if w.kept > maxKept || len(w.parts) > maxKept/64 {
		return ErrKept
	}
	if len(out) == 0 {
		return nil
	}
	_, err := w.Dst.Write(out)
	return err
}
