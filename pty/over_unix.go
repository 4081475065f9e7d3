//go:build unix

package pty

import (
	"context"
	"errors"
	"fmt"
	"time"

	"golang.org/x/sys/unix"
)

// overTick is how often Over looks whether it is to end, and whether the size changed.
const overTick = 50 * time.Millisecond

// Over takes the screen over for guard's own: the copying stops, what the agent writes waits in
// its terminal, the modes that it had switched on are off, and draw's lines stand on the
// alternate screen. key gets what is pressed, and says whether that was all; the lines
// are drawn again after each. At the end the screen is as it was: the main screen by the terminal
// itself, another one drawn anew by its program, which is told of a change of size and back.
//
// A key is one byte that came alone. What was typed before the lines were there is thrown away, and so
// is whatever comes in more than one byte at once, or in an escape sequence: a paste, a terminal's
// answer, the mouse, an arrow. Nothing that the agent writes comes here.
//
// It returns nil when key said so, the cause when ctx ends, and [ErrGone] when no session
// runs, or its terminal has gone. One at a time: others, and Suspend, wait.
func (s *Session) Over(ctx context.Context, draw func(rows, cols int) []string, key func(k byte) (done bool)) (err error) {
	s.suspend.Lock()
	defer s.suspend.Unlock()
	l := s.getLive()
	if l == nil || l.gate.load() != running {
		return ErrGone
	}
	l.gate.park()
	defer l.gate.unpark()
	if l.gate.load() != parking {
		return ErrGone
	}
	t := s.Terminal
	t.mu.Lock()
	alt := t.modes.alt() == 1
	off, on := t.modes.undo()
	t.mu.Unlock()
	if alt { // stays on its screen, which is cleared: leaving it would show what was before the program
		off = withoutAlt(off)
		on = withoutAlt(on)
	}
	begin, end := string(off)+"\x1b7\x1b[?1049h", "\x1b[?1049l\x1b8"
	if alt {
		begin, end = string(off)+"\x1b7", "\x1b[H\x1b[2J\x1b8"
	}
	if err := t.writeAll([]byte(begin + "\x1b[?2004h\x1b[?25l")); err != nil {
		return err
	}
	defer func() {
		show := "\x1b[?25h"
		err = errors.Join(err, t.writeAll([]byte("\x1b[0m\x1b[?2004l"+show+end+string(on))))
		if alt {
			s.nudge()
		}
	}()
	return withFD(t.in, func(in uintptr) error {
		return withFD(s.Master, func(master uintptr) error { return s.overLoop(ctx, int(in), int(master), draw, key) })
	})
}

// ErrGone is Over's error when there is no session on the terminal.
var ErrGone = errors.New("no session has the terminal")

func (s *Session) overLoop(ctx context.Context, in, master int, draw func(rows, cols int) []string, key func(byte) bool) error {
	var rows, cols uint16
	paint := func() error {
		r, c, err := s.Terminal.Size()
		if err != nil {
			return err
		}
		rows, cols = r, c
		text := "\x1b[0m\x1b[H\x1b[2J"
		for i, line := range draw(int(r), int(c)) {
			if i >= int(r) {
				break
			}
			if len(line) > int(c) {
				line = line[:c]
			}
			text += fmt.Sprintf("\x1b[%d;1H%s", i+1, line)
		}
		return s.Terminal.writeAll([]byte(text))
	}
	if err := paint(); err != nil {
		return err
	}
	_ = flushInput(in)
	var buf [4096]byte
	var f keyFilter
	for {
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		default:
		}
		fds := [2]interest{{fd: in, read: true}, {fd: master}}
		if err := wait(fds[:], overTick); err != nil {
			return err
		}
		if fds[1].ended {
			return ErrGone
		}
		if fds[0].ready || fds[0].ended {
			n, err := unix.Read(in, buf[:])
			if n <= 0 {
				if err == unix.EAGAIN || err == unix.EINTR {
					continue
				}
				return ErrGone
			}
			if k, ok := f.feed(buf[:n], time.Now()); ok {
				if key(k) {
					return nil
				}
				if err := paint(); err != nil {
					return err
				}
			}
			continue
		}
		if r, c, err := s.Terminal.Size(); err == nil && (r != rows || c != cols) {
			if err := paint(); err != nil {
				return err
			}
		}
	}
}

// nudge has the agent's program draw its screen anew.
func (s *Session) nudge() {
	rows, cols, err := s.Terminal.Size()
	if err != nil || rows < 2 {
		return
	}
	set := func(r uint16) {
		if s.Resize != nil {
			_ = s.Resize(r, cols) // the agent's terminal may be gone
			return
		}
		_ = withFD(s.Master, func(fd uintptr) error {
			return unix.IoctlSetWinsize(int(fd), unix.TIOCSWINSZ, &unix.Winsize{Row: r, Col: cols})
		})
	}
	set(rows - 1)
	// A program that is told twice at once may see one size only.
	_ = wait(nil, overTick)
	set(rows)
}
