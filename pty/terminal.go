package pty

import (
	"errors"
	"fmt"
	"os"
	"sync"

	"golang.org/x/term"
)

// ErrNotTerminal is returned by [OpenTerminal] for a file that is none.
var ErrNotTerminal = errors.New("not a terminal")

// Terminal is the user's terminal: guard's standard input and output. Its
// methods may be called from any goroutine.
type Terminal struct {
	in, out *os.File

	mu    sync.Mutex // not held while writing: a stalled terminal must not stop Restore
	saved *term.State
	// modes follows what was written, so that Restore can undo what the agent
	// left switched on, and Raw can do it again after a suspension.
	modes modes
	again []byte
}

// OpenTerminal checks that in and out are terminals. It changes neither. The
// error wraps [ErrNotTerminal] and names the file that is none.
func OpenTerminal(in, out *os.File) (*Terminal, error) {
	for _, f := range []*os.File{in, out} {
		is := false
		if err := withFD(f, func(fd uintptr) error { is = term.IsTerminal(int(fd)); return nil }); err != nil {
			return nil, fmt.Errorf("open terminal: %w", err)
		}
		if !is {
			return nil, fmt.Errorf("open terminal: %s: %w", f.Name(), ErrNotTerminal)
		}
	}
	return &Terminal{in: in, out: out}, nil
}

// Raw makes the terminal pass on every byte as it is typed and display every
// byte as it is written. After a Restore it also switches on again what
// Restore had switched off. Input that is waiting to be read stays. Calling it
// in raw mode does nothing.
func (t *Terminal) Raw() error {
	t.mu.Lock()
	if t.saved != nil {
		t.mu.Unlock()
		return nil
	}
	err := withFD(t.in, func(fd uintptr) (err error) {
		t.saved, err = term.MakeRaw(int(fd))
		return err
	})
	again := t.again
	t.again = nil
	t.mu.Unlock()
	if err != nil {
		return fmt.Errorf("set terminal to raw mode: %w", err)
	}
	return t.Write(again)
}

// Restore ends an unfinished escape sequence, resets the modes that were seen
// switched on in what was written (alternate screen, hidden cursor, bracketed
// paste, mouse, keypad, and the like) and puts the terminal's settings back as
// they were before Raw. Input that is waiting to be read stays. Calling it
// again does nothing.
func (t *Terminal) Restore() error {
	werr := t.reset()
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.saved != nil {
		if err := withFD(t.in, func(fd uintptr) error { return term.Restore(int(fd), t.saved) }); err != nil {
			return fmt.Errorf("restore terminal: %w", err)
		}
		t.saved = nil
	}
	return werr
}

// reset undoes what the agent left on, and remembers it for Raw.
func (t *Terminal) reset() error {
	t.mu.Lock()
	off, on := t.modes.undo()
	t.modes = modes{}
	if len(on) > 0 {
		t.again = on
	}
	t.mu.Unlock()
	return t.writeAll(off)
}

// Size returns the terminal's size in character cells.
func (t *Terminal) Size() (rows, cols uint16, err error) {
	err = withFD(t.out, func(fd uintptr) error {
		w, h, err := term.GetSize(int(fd))
		rows, cols = uint16(h), uint16(w)
		return err
	})
	if err != nil {
		return 0, 0, fmt.Errorf("read terminal size: %w", err)
	}
	return rows, cols, nil
}

// Write displays p, all of it or an error, and follows the modes that it
// switches.
func (t *Terminal) Write(p []byte) error {
	if len(p) == 0 {
		return nil
	}
	t.follow(p)
	return t.writeAll(p)
}

// follow follows the modes that p switches.
func (t *Terminal) follow(p []byte) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.modes.feed(p)
}

func (t *Terminal) writeAll(p []byte) error {
	if len(p) == 0 {
		return nil
	}
	if err := writeFile(t.out, p); err != nil {
		return fmt.Errorf("write to terminal: %w", err)
	}
	return nil
}

// calm says whether text of guard's own could be written now without landing
// inside an escape sequence, a character or a full-screen program, and whether
// the cursor is at the start of a line.
func (t *Terminal) calm() (ok, fresh bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.modes.calm(), t.modes.fresh
}

// withFD lends f's descriptor to fn; it stays open and valid meanwhile.
func withFD(f *os.File, fn func(fd uintptr) error) error {
	if f == nil {
		return os.ErrInvalid
	}
	c, err := f.SyscallConn()
	if err != nil {
		return err
	}
	var ferr error
	if err := c.Control(func(fd uintptr) { ferr = fn(fd) }); err != nil {
		return err
	}
	return ferr
}
