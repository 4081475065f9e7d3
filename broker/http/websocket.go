package http

import (
	"bytes"
	"crypto/rand"
	"encoding/binary"
	"io"
	"sync"

	"guard"
	"guard/broker"
)

// frames inspects a client's WebSocket frames (RFC 6455, 5.2): masked on the
// wire, so a secret in one is not visible as it is. The payload of data frames
// is one stream, whatever frames and messages it is cut into; the filter is told
// of each frame's end, since the server may answer it, and what it keeps past
// that waits with what follows. The payload of control frames is another, of
// which nothing may be kept: a ping must not wait.
//
// The mask keys are guard's own: a client that chose them could send four bytes
// a frame in them. A server's frames have none; they are looked through in the same
// way, since one that answers frame by frame would be made to cut a value by a client
// that cuts its placeholder.
type frames struct {
	mu            sync.Mutex // Close may come from elsewhere
	weave         broker.Weave
	data, control guard.Filter
	swap          *frameSwap // nil: nothing is swapped
	server        bool       // the frames are a server's, and data scrubs them

	head  []byte // header so far
	body  bool   // in a payload
	ctl   []byte // payload so far, of a control frame
	isCtl bool
	last  bool // the frame ends its message
	op    byte
	key   [4]byte // the client's
	own   [4]byte // of the frame that goes on
	in    int     // position in the payload, for the mask
	left  uint64
	err   error
}

const (
	opClose    = 8
	maxControl = 125
)

func (w *frames) Write(p []byte) (int, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	n := len(p)
	for len(p) > 0 && w.err == nil {
		if !w.body {
			p = w.header(p)
			continue
		}
		k := int(min(uint64(len(p)), w.left))
		b := make([]byte, k)
		for i := range b {
			b[i] = p[i] ^ w.key[(w.in+i)&3]
		}
		w.in += k
		w.left -= uint64(k)
		p = p[k:]
		if w.isCtl {
			w.ctl = append(w.ctl, b...)
		} else {
			w.step(b, guard.More)
		}
		w.frameEnd()
	}
	if w.err == nil {
		w.err = w.weave.Flush()
	}
	if w.err != nil {
		return 0, w.err
	}
	return n, nil
}

// header takes bytes of a frame's header and sends it on once it is whole.
func (w *frames) header(p []byte) []byte {
	w.head = append(w.head, p[0])
	p = p[1:]
	if len(w.head) < 2 {
		return p
	}
	size := 2
	switch w.head[1] & 0x7f {
	case 126:
		size += 2
	case 127:
		size += 8
	}
	masked := w.head[1]&0x80 != 0
	ext := size
	if masked {
		size += 4
	}
	if len(w.head) < size {
		return p
	}
	switch ext {
	case 2:
		w.left = uint64(w.head[1] & 0x7f)
	case 4:
		w.left = uint64(binary.BigEndian.Uint16(w.head[2:]))
	case 10:
		w.left = binary.BigEndian.Uint64(w.head[2:])
	}
	w.op = w.head[0] & 0x0f
	w.last = w.head[0]&0x80 != 0
	w.isCtl = w.op&0x08 != 0
	// Extensions were not negotiated: what uses one is unreadable. A server
	// takes no unmasked frame, and no long control frame.
	if w.head[0]&0x70 != 0 || masked == w.server || w.left>>63 != 0 || w.isCtl && w.left > maxControl {
		w.err = broker.ErrStopped
		return p
	}
	if masked {
		copy(w.key[:], w.head[ext:])
		if _, w.err = rand.Read(w.own[:]); w.err != nil {
			return p
		}
		copy(w.head[ext:], w.own[:])
	}
	w.in, w.body = 0, true
	if !w.isCtl {
		w.weave.Raw(w.head)
		var edit func([]byte)
		if masked {
			edit = mask(w.own)
		}
		w.weave.Payload(0, w.left, edit)
		w.head = w.head[:0]
	}
	w.frameEnd()
	return p
}

// mask returns what applies key to a payload, given in pieces.
func mask(key [4]byte) func([]byte) {
	at := 0
	return func(b []byte) {
		for i := range b {
			b[i] ^= key[(at+i)&3]
		}
		at += len(b)
	}
}

func (w *frames) frameEnd() {
	if w.left > 0 || w.err != nil {
		return
	}
	w.body = false
	if !w.isCtl {
		w.step(nil, guard.Pause)
		return
	}
	b := w.ctl
	if len(b) > 0 {
		out, d := w.control(b, guard.Pause)
		if d.Action.Stops() || len(out) != len(b) {
			w.err = broker.ErrStopped
			return
		}
		b = append([]byte(nil), out...)
		mask(w.own)(b)
	}
	if w.op == opClose { // no data comes after it
		w.step(nil, guard.End)
	}
	w.weave.Raw(w.head)
	w.weave.Raw(b)
	w.head, w.ctl = w.head[:0], w.ctl[:0]
}

func (w *frames) step(b []byte, s guard.Step) {
	if w.err != nil {
		return
	}
	if w.server && s == guard.End {
		w.step(nil, guard.Pause)
	}
	out, d := w.data(b, s)
	if w.server && s == guard.End && len(out) > 0 {
		out = bytes.Repeat([]byte("*"), len(out)) // the beginning of a value, and no more of it comes
	}
	if d.Action.Stops() {
		w.err = broker.ErrStopped
		return
	}
	if w.swap != nil {
		if out, w.err = w.swap.step(out, s == guard.End || s == guard.Pause && w.last); w.err != nil {
			return
		}
	}
	w.weave.Release(0, out)
	if s == guard.End {
		w.data = ended
	}
}

// ended is the filter after its end.
func ended(p []byte, _ guard.Step) ([]byte, guard.Decision) {
	if len(p) == 0 {
		return nil, guard.Decision{Action: guard.Pass}
	}
	return nil, guard.Decision{Action: guard.Block, Rule: "protocol", Reason: "data after the end"}
}

// framesOf reads a server's frames, scrubbed.
type framesOf struct {
	src io.Reader
	w   *frames
	out bytes.Buffer
	in  [4096]byte
	err error
}

func scrubbedFrames(src io.Reader, open func() guard.Filter) *framesOf {
	r := &framesOf{src: src}
	r.w = &frames{weave: broker.Weave{Dst: &r.out}, data: open(), control: open(), server: true}
	return r
}

func (r *framesOf) Read(p []byte) (int, error) {
	for r.out.Len() == 0 {
		if r.err != nil {
			return 0, r.err
		}
		n, err := r.src.Read(r.in[:])
		_, werr := r.w.Write(r.in[:n])
		if err != nil && werr == nil {
			werr = r.w.Close()
		}
		if r.err = err; werr != nil {
			r.err = errScrub
		}
	}
	return r.out.Read(p)
}

// Close lets go what is held; it does not close the connection.
func (w *frames) Close() error {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.step(nil, guard.End)
	if w.err == nil {
		w.err = w.weave.Flush()
	}
	return w.err
}
