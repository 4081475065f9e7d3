//go:build unix

package pty

import (
	"fmt"
	"io"
	"os"
	"time"

	"golang.org/x/sys/unix"
)

const canPoll = true

// interest is what to wait for on a descriptor, and what came.
type interest struct {
	fd           int
	read, write  bool
	ready, ended bool // ended: the other side is gone, or the descriptor broken
}

// noLimit is a wait for as long as it takes.
const noLimit time.Duration = -1

// writeFile writes all of p. f may be in non-blocking mode behind its back (a
// terminal's mode is shared with whoever else has it open, and Node leaves it
// on): then it waits.
func writeFile(f *os.File, p []byte) error {
	return withFD(f, func(fd uintptr) error {
		for len(p) > 0 {
			n, err := unix.Write(int(fd), p)
			if n > 0 {
				p = p[n:]
			}
			switch {
			case err == unix.EAGAIN:
				if err := wait([]interest{{fd: int(fd), write: true}}, -1); err != nil {
					return err
				}
			case err != nil && err != unix.EINTR:
				return err
			}
		}
		return nil
	})
}

// pollSource reads a descriptor when there is something to read. With a gate it
// stops when that closes, after what is there.
type pollSource struct {
	fd       int
	nonblock bool
	gate     *gate
	poke     int    // with a gate: descriptor, readable when the owner wants errPoked
	drained  int    // bytes read since the gate was last seen open
	out      *ahead // where what is read goes, and is to be helped along meanwhile; may be nil
}

// grace is how long a source that shall stop waits for bytes: what an agent
// wrote before it was stopped is brought to the master by a kernel thread.
const grace = 5 * time.Millisecond

// lastWords bounds what is still read after the gate closed, since the other
// side may never stop.
const lastWords = 1 << 20

// enough is when a read no longer asks for more. Measured with an agent that
// writes all the time: 8 KiB is as fast as a bare copy, 64 KiB gives a quarter
// away, since the terminal has nothing to do meanwhile.
const enough = 8 << 10

func newPollSource(fd uintptr, g *gate) *pollSource {
	flags, err := unix.FcntlInt(fd, unix.F_GETFL, 0)
	return &pollSource{fd: int(fd), nonblock: err == nil && flags&unix.O_NONBLOCK != 0, gate: g}
}

func (s *pollSource) close() {}

func (s *pollSource) read(p []byte, d time.Duration) (int, error) {
	var deadline time.Time
	if d >= 0 {
		deadline = time.Now().Add(d)
	}
	got, ready := 0, s.nonblock
	for {
		state := running
		if s.gate != nil {
			state = s.gate.load()
		}
		if state == running {
			s.drained = 0
		} else if s.drained >= lastWords {
			return 0, state.answer()
		}
		if ready {
			n, err := unix.Read(s.fd, p[got:])
			switch {
			case n > 0:
				got += n
				s.drained += n
				// A terminal gives at most 4 KiB at a time.
				if s.nonblock && got < enough {
					continue
				}
				return got, nil
			case err == unix.EINTR:
				continue
			case got > 0: // an end or an error comes again
				return got, nil
			case err == unix.EAGAIN:
			case err == nil || err == unix.EIO: // EIO: nobody has the agent's terminal open
				return 0, io.EOF
			default:
				return 0, fmt.Errorf("read output: %w", err)
			}
		}
		left := time.Duration(-1)
		if d >= 0 {
			left = max(0, time.Until(deadline))
		}
		fds := [4]interest{{fd: s.fd, read: true}}
		k := 1
		if state != running {
			left = grace
		} else if s.gate != nil {
			fds[1] = interest{fd: s.gate.fd(), read: true}
			fds[2] = interest{fd: s.poke, read: true}
			k = 3
		}
		if s.out != nil && s.out.waiting() {
			fds[k] = interest{fd: s.out.fd, write: true}
			k++
		}
		if err := wait(fds[:k], left); err != nil {
			return 0, fmt.Errorf("wait for output: %w", err)
		}
		if s.out != nil {
			if err := s.out.push(); err != nil {
				return 0, err
			}
		}
		ready = fds[0].ready || fds[0].ended
		switch {
		case ready:
		case state != running:
			return 0, state.answer()
		case fds[2].ready:
			drain(s.poke)
			return 0, errPoked
		case d >= 0 && time.Until(deadline) <= 0:
			return 0, errSilence
		}
	}
}

// drain empties a pipe in non-blocking mode.
func drain(fd int) {
	var b [16]byte
	for {
		if n, err := unix.Read(fd, b[:]); n <= 0 && err != unix.EINTR {
			return
		}
	}
}
