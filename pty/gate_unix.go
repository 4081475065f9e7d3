//go:build unix

package pty

import (
	"fmt"
	"os"
	"sync"
	"sync/atomic"
)

type gateState int32

const (
	running gateState = iota
	parking
	closed
)

// answer is what a source returns in this state, other than running.
func (s gateState) answer() error {
	if s == parking {
		return errPark
	}
	return errStopped
}

// gate stops loops that wait for descriptors, for a while or for good. While it
// is not running, fd is readable, so that no loop is left waiting.
type gate struct {
	state atomic.Int32
	r, w  *os.File
	rfd   int

	mu     sync.Mutex
	cond   sync.Cond
	loops  int // that have not ended
	parked int
}

func newGate(loops int) (*gate, error) {
	r, w, err := wakePipe()
	if err != nil {
		return nil, err
	}
	g := &gate{r: r, w: w, loops: loops}
	_ = withFD(r, func(fd uintptr) error { g.rfd = int(fd); return nil }) // Fd would make it block
	g.cond.L = &g.mu
	return g, nil
}

// wakePipe returns a pipe, both ends in non-blocking mode.
func wakePipe() (r, w *os.File, err error) {
	r, w, err = os.Pipe()
	if err != nil {
		return nil, nil, fmt.Errorf("make wake-up pipe: %w", err)
	}
	return r, w, nil
}

func (g *gate) fd() int         { return g.rfd }
func (g *gate) load() gateState { return gateState(g.state.Load()) }

// pass waits while the gate is parking, and says whether it is not closed.
func (g *gate) pass() bool {
	if g.load() == running {
		return true
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	g.parked++
	g.cond.Broadcast()
	for g.load() == parking {
		g.cond.Wait()
	}
	g.parked--
	return g.load() != closed
}

// leave tells that a loop has ended.
func (g *gate) leave() {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.loops--
	g.cond.Broadcast()
}

// park returns when every loop waits in pass or has ended.
func (g *gate) park() {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.load() == running {
		g.state.Store(int32(parking))
		g.w.Write([]byte{0})
	}
	for g.load() == parking && g.parked < g.loops {
		g.cond.Wait()
	}
}

func (g *gate) unpark() {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.load() != parking {
		return
	}
	drain(g.rfd)
	g.state.Store(int32(running))
	g.cond.Broadcast()
}

func (g *gate) close() {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.load() == running {
		g.w.Write([]byte{0})
	}
	g.state.Store(int32(closed))
	g.cond.Broadcast()
}

// free must be called after every loop has ended.
func (g *gate) free() {
	g.r.Close()
	g.w.Close()
}
