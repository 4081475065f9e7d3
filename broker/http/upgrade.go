package http

import (
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
	websocket := strings.EqualFold(res.Header.Get("Upgrade"), "websocket")
	switch {
	case len(x.ids) > 0 && websocket:
		ids := x.ids
		u.r = scrubbedFrames(up, func() guard.Filter { return x.p.cfg.Scrub(ids) })
	case len(x.ids) > 0:
		u.r = &filtered{src: up, f: x.p.cfg.Scrub(x.ids), pauses: true, maskTail: true, stop: func(guard.Decision) error { return errScrub }}
	}
	if websocket {
		res.Header.Del("Sec-Websocket-Extensions")
		u.w = &frames{weave: broker.Weave{Dst: up}, data: x.frameFilter(), control: x.filter(), swap: x.frameSwap()}
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

// delayed writes through a filter and pauses it, once, when nothing came for a
// while.
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
	d.held += len(p) - len(out)
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
