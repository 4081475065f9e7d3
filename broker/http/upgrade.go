package http

import (
	"encoding/binary"
	"errors"
	"io"
	nethttp "net/http"
	"strings"
	"sync"
	"time"

	"guard"
	"guard/broker"
)

// upgraded inspects what goes over a connection that left HTTP (101): the
// payload of WebSocket frames, or the bytes as they are.
func (x *exchange) upgraded(res *nethttp.Response) error {
	up, ok := res.Body.(io.ReadWriteCloser)
	if !ok {
		return errors.New("an upgraded connection that cannot be written to")
	}
	u := &upgraded{up: up, r: up}
	if len(x.ids) > 0 {
		u.r = &filtered{src: up, f: x.p.cfg.Scrub(x.ids), pauses: true, stop: func(guard.Decision) error { return errScrub }}
	}
	if strings.EqualFold(res.Header.Get("Upgrade"), "websocket") {
		res.Header.Del("Sec-Websocket-Extensions")
		u.w = &frames{dst: up, data: x.filter(), control: x.filter}
	} else {
		u.w = &delayed{dst: up, f: x.filter()}
	}
	res.Body = u
	return nil
}

type upgraded struct {
	up io.ReadWriteCloser
	r  io.Reader
	w  io.WriteCloser
}

func (u *upgraded) Read(p []byte) (int, error)  { return u.r.Read(p) }
func (u *upgraded) Write(p []byte) (int, error) { return u.w.Write(p) }
func (u *upgraded) Close() error {
	u.w.Close()
	return u.up.Close()
}

// CloseWrite lets a half-close through (TCP under "Upgrade: tcp").
func (u *upgraded) CloseWrite() error {
	u.w.Close()
	if h, ok := u.up.(interface{ CloseWrite() error }); ok {
		return h.CloseWrite()
	}
	return nil
}

// delayed writes through a filter and pauses it when nothing came for a while.
type delayed struct {
	mu    sync.Mutex
	dst   io.Writer
	f     guard.Filter
	held  int
	timer *time.Timer
	err   error
}

func (d *delayed) Write(p []byte) (int, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.step(p, guard.More)
	if d.err != nil {
		return 0, d.err
	}
	if d.held > 0 {
		if d.timer == nil {
			d.timer = time.AfterFunc(broker.Idle, d.pause)
		} else {
			d.timer.Reset(broker.Idle)
		}
	}
	return len(p), nil
}

func (d *delayed) step(p []byte, s guard.Step) {
	if d.err != nil {
		return
	}
	out, dec := d.f(p, s)
	if d.held += len(p) - len(out); s != guard.More {
		d.held = 0
	}
	if len(out) > 0 {
		_, d.err = d.dst.Write(out)
	}
	if dec.Action.Stops() {
		d.err = broker.ErrStopped
	}
}

func (d *delayed) pause() {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.held > 0 {
		d.step(nil, guard.Pause)
	}
}

// Close releases what is held; it does not close dst.
func (d *delayed) Close() error {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.timer != nil {
		d.timer.Stop()
	}
	d.step(nil, guard.End)
	if d.err == nil {
		d.err = io.ErrClosedPipe
	}
	return nil
}

// frames inspects a client's WebSocket frames (RFC 6455, 5.2): masked on the
// wire, so a secret in one is not visible as it is. Data frames are one stream,
// released at the end of each frame; each control frame is a stream of its own.
type frames struct {
	dst     io.Writer
	data    guard.Filter
	control func() guard.Filter

	head    []byte // header so far
	f       guard.Filter
	key     [4]byte
	in, out int // positions in the payload, for the mask
	left    uint64
	err     error
}

func (w *frames) Write(p []byte) (int, error) {
	n := len(p)
	for len(p) > 0 && w.err == nil {
		if w.f == nil {
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
		w.step(b, guard.More)
		w.frameEnd()
	}
	if w.err != nil {
		return 0, w.err
	}
	return n, nil
}

// header takes bytes of a frame's header and writes it once it is whole.
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
	if w.head[0]&0x70 != 0 { // extensions were not negotiated: unreadable
		w.err = broker.ErrStopped
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
	w.key = [4]byte{}
	if masked {
		copy(w.key[:], w.head[ext:])
	}
	w.in, w.out = 0, 0
	w.f = w.data
	if w.head[0]&0x08 != 0 {
		w.f = w.control()
	}
	_, w.err = w.dst.Write(w.head)
	w.head = w.head[:0]
	w.frameEnd()
	return p
}

func (w *frames) frameEnd() {
	if w.left == 0 && w.err == nil {
		w.step(nil, guard.Pause)
		w.f = nil
	}
}

func (w *frames) step(b []byte, s guard.Step) {
	out, d := w.f(b, s)
	if d.Action.Stops() {
		w.err = broker.ErrStopped
		return
	}
	if len(out) == 0 {
		return
	}
	m := make([]byte, len(out))
	for i := range m {
		m[i] = out[i] ^ w.key[(w.out+i)&3]
	}
	w.out += len(m)
	_, w.err = w.dst.Write(m)
}

func (w *frames) Close() error { return nil }
