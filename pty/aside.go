package pty

import (
	"errors"
	"fmt"
	"runtime/debug"
	"sync"
)

const (
	// asideWorth is from how many bytes on another goroutine writes. Waking it
	// takes longer than a terminal needs for less.
	asideWorth = 2 << 10
	// asideMost bounds each of its two buffers. Whoever presses Ctrl-C waits for
	// what is in them.
	asideMost = 32 << 10
)

// aside writes on a goroutine of its own, so that its owner reads and judges what
// comes next meanwhile. Bytes are written in the order in which they were put,
// and those that wait are written together. Its methods are for one goroutine,
// its owner; write is never called twice at a time.
type aside struct {
	write  func([]byte) error
	failed func() // called once, on the other goroutine, when write failed

	done    sync.WaitGroup
	mu      sync.Mutex
	cond    sync.Cond
	next    []byte // to be written
	spare   []byte // the other buffer
	writing bool
	ended   bool
	err     error
	broke   *asidePanic
}

// asidePanic is what a goroutine beside the owner's panicked with.
type asidePanic struct {
	value any
	stack []byte
}

// caught returns v, from recover, for again; nil for nil.
func caught(v any) *asidePanic {
	if v == nil {
		return nil
	}
	return &asidePanic{v, debug.Stack()}
}

// again panics with p on the goroutine of its caller, who has a terminal to
// restore. It does nothing if p is nil.
func (p *asidePanic) again() {
	if p != nil {
		panic(fmt.Sprintf("%v\n\n%s", p.value, p.stack))
	}
}

// newAside starts the goroutine; the owner must call end.
func newAside(write func([]byte) error, failed func()) *aside {
	a := &aside{write: write, failed: failed}
	a.cond.L = &a.mu
	a.done.Go(a.run)
	return a
}

func (a *aside) run() {
	var buf []byte
	a.mu.Lock()
	defer a.mu.Unlock()
	for {
		for len(a.next) == 0 && !a.ended {
			a.cond.Wait()
		}
		if len(a.next) == 0 || a.err != nil {
			return
		}
		buf, a.next, a.spare = a.next, a.spare[:0], nil
		a.writing = true
		a.mu.Unlock()
		err, broke := a.try(buf)
		if err != nil {
			a.failed()
		}
		a.mu.Lock()
		a.spare, a.writing, a.err, a.broke = buf, false, err, broke
		a.cond.Broadcast()
	}
}

// try writes p. What panics here panics on the owner's goroutine instead, which
// has a terminal to restore.
func (a *aside) try(p []byte) (err error, broke *asidePanic) {
	defer func() {
		if broke = caught(recover()); broke != nil {
			err = errors.New("write output: panic")
		}
	}()
	return a.write(p), nil
}

// put writes p now, if that is soon done and nothing waits, or takes a copy of
// it for the other goroutine. It waits while that has too much. An error may be
// about bytes that were put before.
func (a *aside) put(p []byte) error {
	a.mu.Lock()
	if len(p) < asideWorth && len(a.next) == 0 && !a.writing && a.err == nil {
		a.mu.Unlock()
		return a.write(p)
	}
	defer a.mu.Unlock()
	for len(p) > 0 {
		for len(a.next) >= asideMost && a.err == nil {
			a.cond.Wait()
		}
		if a.err != nil {
			return a.fail()
		}
		n := min(len(p), asideMost-len(a.next))
		a.next = append(a.next, p[:n]...)
		p = p[n:]
		a.cond.Broadcast()
	}
	return nil
}

// flush returns when all that was put is written.
func (a *aside) flush() error {
	a.mu.Lock()
	defer a.mu.Unlock()
	for (len(a.next) > 0 || a.writing) && a.err == nil {
		a.cond.Wait()
	}
	return a.fail()
}

func (a *aside) fail() error {
	a.broke.again()
	return a.err
}

// end writes what was put, and waits for the goroutine.
func (a *aside) end() {
	a.mu.Lock()
	a.ended = true
	a.cond.Broadcast()
	a.mu.Unlock()
	a.done.Wait()
}
