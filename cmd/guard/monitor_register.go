package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/signal"
	"sync"
	"syscall"
	"time"

	"golang.org/x/term"

	"guard/bpf"
	"guard/matcher"
)

// watched is a user's monitor at the monitor of the machine: it registers hashes of what is long and random in the vault,
// and is told of finds, which it believes when it has seen the bytes.
type watched struct {
	m    *monitor
	conn *net.UnixConn

	mu    sync.Mutex // guards what follows, and writing
	key   *bpf.HashKey
	epoch uint64
	next  uint32
	known map[uint32]owner // by handle
	tried int              // needles in the last list
	ready bool
}

const (
	// registerMin is the length in bytes of the shortest form of a value that is registered, registerKinds how many different
	// bytes it must have at least: whoever has the key can try out guesses.
	registerMin   = 20
	registerKinds = 10
	// keptHandles bounds how many handles of former lists are known.
	keptHandles = 1 << 16
)

func runRegistered(a *app, ctx context.Context, o monitorFlags) error {
	ctx, stop := signal.NotifyContext(ctx, os.Interrupt, syscall.SIGTERM)
	defer stop()
	m, err := a.openMonitor(o)
	if err != nil {
		return err
	}
	defer m.close()
	live := !o.json && term.IsTerminal(int(a.stdout.Fd())) && term.IsTerminal(int(a.stdin.Fd()))
	return m.run(ctx, live)
}

// connect goes to the monitor of the machine, which must be root's: whoever chose the key can try out guesses of what is hashed.
func (m *monitor) connect(path string) (*watched, error) {
	c, err := net.DialUnix("unix", nil, &net.UnixAddr{Name: path, Net: "unix"})
	if err != nil {
		return nil, fmt.Errorf("--register: no monitor listens at %s (sudo guard monitor --listen %s): %w", path, path, err)
	}
	if uid, _, err := peer(c); err != nil || uid != 0 {
		c.Close()
		return nil, fmt.Errorf("--register: who listens at %s is not root (user %d), and is told nothing: %w", path, uid, errors.Join(err, os.ErrPermission))
	}
	return &watched{m: m, conn: c, known: map[uint32]owner{}}, nil
}

// worthHashing says that nobody guesses b.
func worthHashing(b []byte) bool {
	var kinds [256]bool
	n := 0
	for _, c := range b {
		if !kinds[c] {
			kinds[c] = true
			n++
		}
	}
	return len(b) >= registerMin && n >= registerKinds
}

// register sends what there is now.
func (w *watched) register() error {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.key == nil {
		return nil // it has not said its key yet
	}
	var list []bpf.HashedNeedle
	if len(w.known) > keptHandles {
		clear(w.known)
	}
	for _, n := range w.m.matcher.Needles() {
		raw := n.Append(nil)
		if worthHashing(raw) && len(list) < maxRegistered {
			if h, err := w.key.Hash(bpf.Needle{ID: w.next, Bytes: n.Bytes}); err == nil {
				list = append(list, h)
				w.known[w.next] = owner{id: n.ID, class: n.Class, encoding: n.Encoding}
				w.next++
			}
		}
		clear(raw)
		n.Bytes.Wipe()
	}
	w.tried = len(list)
	_ = w.conn.SetWriteDeadline(time.Now().Add(registrantTimeout))
	if err := writeList(w.conn, w.epoch, list); err != nil {
		return fmt.Errorf("register: %w", err)
	}
	return nil
}

// read takes what the monitor says until the connection ends.
func (w *watched) read() error {
	dec := json.NewDecoder(w.conn)
	for {
		var s watchSays
		if err := dec.Decode(&s); err != nil {
			if errors.Is(err, net.ErrClosed) {
				return os.ErrClosed
			}
			if errors.Is(err, io.EOF) {
				err = errors.New("it is gone")
			}
			return fmt.Errorf("the monitor of the machine: %w", err)
		}
		w.m.counts.lost += int(s.Lost)
		switch {
		case s.Error != "":
			return fmt.Errorf("the monitor of the machine: %s", s.Error)
		case s.Key != nil:
			w.mu.Lock()
			w.key, w.epoch = s.Key, s.Epoch
			w.mu.Unlock()
			if err := w.register(); err != nil {
				return err
			}
		case s.Watching != nil:
			w.watching(*s.Watching)
		case s.Hit != nil:
			w.hit(*s.Hit)
		case s.Elsewhere != nil:
			w.elsewhere(*s.Elsewhere)
		}
	}
}

func (w *watched) watching(n int) {
	w.mu.Lock()
	first, tried := !w.ready, w.tried
	w.ready = true
	w.mu.Unlock()
	switch {
	case first:
		w.m.app.say("ready: watching %s; %d forms of values are registered", w.m.opts.words(), n)
	case n < tried:
		w.m.app.say("the monitor of the machine looks for %d of %d forms of values", n, tried)
	}
}

func (w *watched) hit(h watchHit) {
	w.mu.Lock()
	o, ok := w.known[h.Handle]
	w.mu.Unlock()
	if !ok || !w.m.holds(h.Event, o) {
		w.m.counts.unproven++
		return
	}
	h.Event.Window = nil
	f := seen{Event: h.Event, owner: o, first: h.First}
	w.m.describe(&f, false)
	w.m.found <- f
}

// elsewhere is a find in another user's process. The bytes are that user's, so root's word is taken for it.
func (w *watched) elsewhere(h watchElsewhere) {
	w.mu.Lock()
	o, ok := w.known[h.Handle]
	w.mu.Unlock()
	if !ok {
		w.m.counts.unproven++
		return
	}
	w.m.found <- seen{owner: o, elsewhere: true, Event: bpf.Event{
		At: h.At, Call: uint64(h.At.UnixNano()), User: h.UID, Exe: h.Exe, Channel: h.Channel, Refused: h.Refused, FD: -1,
	}}
}

// holds says that an event's window has the value in it: all of it, or of a long one as much as was searched for.
func (m *monitor) holds(e bpf.Event, o owner) bool {
	found := false
	for _, n := range m.matcher.Needles() {
		if !found && n.ID == o.id && n.Encoding == o.encoding && n.Bytes.Len() == e.Length {
			found = overlaps(e, n)
		}
		n.Bytes.Wipe()
	}
	return found
}

func overlaps(e bpf.Event, n matcher.Needle) bool {
	lo, hi := max(e.Offset, e.WindowAt), min(e.Offset+int64(e.Length), e.WindowAt+int64(len(e.Window)))
	if hi-lo < int64(min(e.Length, 128)) {
		return false
	}
	b := n.Append(nil)
	defer clear(b)
	return bytes.Equal(b[lo-e.Offset:hi-e.Offset], e.Window[lo-e.WindowAt:hi-e.WindowAt])
}

func (w *watched) close() error { return w.conn.Close() }
