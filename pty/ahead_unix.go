//go:build unix

package pty

import (
	"fmt"

	"golang.org/x/sys/unix"
)

// aheadMost is how many bytes wait for a terminal at most, besides those that the
// kernel keeps for it. Whoever presses Ctrl-C waits for them.
const aheadMost = 32 << 10

// ahead writes to a terminal without ever waiting for it while there is something
// to read: what the terminal does not take at once is kept, and written when there
// is room. Its descriptor is in non-blocking mode, and its own. It is for one
// goroutine. Against a goroutine that writes, it saves waking that for each piece.
type ahead struct {
	fd    int
	seen  func([]byte) // told of everything before it is written
	buf   []byte
	wrote int // bytes of buf
}

func (a *ahead) waiting() bool { return a.wrote < len(a.buf) }

// put writes p, or as much as the terminal takes, and keeps the rest. It waits
// while there is too much of that.
func (a *ahead) put(p []byte) error {
	a.seen(p)
	if err := a.push(); err != nil {
		return err
	}
	if !a.waiting() {
		n, err := a.write(p)
		if err != nil {
			return err
		}
		p = p[n:]
	}
	for {
		n := min(len(p), aheadMost-(len(a.buf)-a.wrote))
		if len(a.buf)+n > cap(a.buf) && a.wrote > 0 {
			a.buf, a.wrote = a.buf[:copy(a.buf, a.buf[a.wrote:])], 0
		}
		a.buf = append(a.buf, p[:n]...)
		if p = p[n:]; len(p) == 0 {
			return nil
		}
		if err := a.wait(); err != nil {
			return err
		}
	}
}

// push writes what is kept, as far as the terminal takes it.
func (a *ahead) push() error {
	if !a.waiting() {
		return nil
	}
	n, err := a.write(a.buf[a.wrote:])
	if a.wrote += n; !a.waiting() {
		a.buf, a.wrote = a.buf[:0], 0
	}
	return err
}

// flush writes all that is kept.
func (a *ahead) flush() error {
	for a.waiting() {
		if err := a.wait(); err != nil {
			return err
		}
	}
	return nil
}

// wait writes some of what is kept, when there is room.
func (a *ahead) wait() error {
	if err := wait([]interest{{fd: a.fd, write: true}}, noLimit); err != nil {
		return fmt.Errorf("write to terminal: %w", err)
	}
	return a.push()
}

func (a *ahead) write(p []byte) (n int, err error) {
	for n < len(p) {
		k, err := unix.Write(a.fd, p[n:])
		n += max(k, 0)
		switch {
		case err == unix.EAGAIN || err == nil && k == 0:
			return n, nil
		case err != nil && err != unix.EINTR:
			return n, fmt.Errorf("write to terminal: %w", err)
		}
	}
	return n, nil
}
