//go:build unix

package pty

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"sync"

	"golang.org/x/sys/unix"
)

// live is what a running session has.
type live struct {
	gate   *gate
	pr, pw *os.File // poke: see Wake
}

// Run copies until the master ends and all that it gave is displayed, and
// returns nil; or until ctx is done, and returns its cause after displaying
// what was there; or until the user's terminal fails. Cancel ctx, and wait for
// Run, before closing Master. A Session runs once.
func (s *Session) Run(ctx context.Context) error {
	if s.Master == nil || s.Terminal == nil || s.Out == nil {
		return errors.New("run terminal session: needs a master, a terminal and a filter")
	}
	g, err := newGate(2)
	if err != nil {
		return err
	}
	defer g.free()
	pr, pw, err := wakePipe()
	if err != nil {
		return err
	}
	defer pr.Close()
	defer pw.Close()
	// An agent that has ended already takes no size, but what it wrote is still to
	// be shown.
	_ = s.resize()
	s.setLive(&live{gate: g, pr: pr, pw: pw})
	defer s.setLive(nil)

	return withFD(s.Master, func(master uintptr) error {
		return withFD(s.Terminal.in, func(in uintptr) error {
			return withFD(s.Terminal.out, func(out uintptr) error {
				return withFD(pr, func(poke uintptr) error {
					return s.copy(ctx, g, master, in, out, poke)
				})
			})
		})
	})
}

func (s *Session) setLive(l *live) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.live = l
}

func (s *Session) getLive() *live {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.live
}

func (s *Session) copy(ctx context.Context, g *gate, master, in, out, poke uintptr) error {
	flags, err := unix.FcntlInt(master, unix.F_GETFL, 0)
	if err == nil {
		_, err = unix.FcntlInt(master, unix.F_SETFL, flags|unix.O_NONBLOCK)
	}
	if err != nil {
		return fmt.Errorf("prepare the agent's terminal: %w", err)
	}
	defer unix.FcntlInt(master, unix.F_SETFL, flags)

	var wg sync.WaitGroup
	defer wg.Wait()
	defer g.close()
	keys := make(chan struct{})
	var broke *asidePanic
	wg.Go(func() {
		defer close(keys)
		defer g.leave()
		defer func() {
			if broke = caught(recover()); broke != nil {
				g.close()
			}
		}()
		input(g, int(in), int(master), s.typed())
	})
	sizes := make(chan os.Signal, 1) // one is enough: the size is read after it
	signal.Notify(sizes, unix.SIGWINCH)
	defer func() {
		signal.Stop(sizes)
		close(sizes)
	}()
	wg.Go(func() {
		_ = s.resize() // what changed before anybody listened
		for range sizes {
			// The agent's terminal may be gone, which ends the session by itself.
			_ = s.resize()
		}
	})
	cancelled := make(chan struct{})
	stop := context.AfterFunc(ctx, func() {
		defer close(cancelled)
		g.close()
	})
	defer func() {
		if !stop() {
			<-cancelled
		}
	}()

	defer g.leave()
	src := newPollSource(master, g)
	src.poke = int(poke)
	put, flush, end := s.display(src, int(out), g)
	defer end()
	c := copier{
		filter: s.Out, held: s.Held, hold: s.Hold, long: s.LongHold,
		write: put, flush: flush, decided: s.OnDecision, idle: func() error { return s.idle(flush) }, blocked: s.blocked,
		park: func() { g.pass() },
		tame: &tame{clipboard: s.NoClipboard}, again: &tame{clipboard: s.NoClipboard, mark: true},
	}
	err = c.run(src)
	g.close()
	if ferr := flush(); ferr != nil && (err == nil || err == errStopped) {
		err = ferr
	}
	<-keys // from here on nobody else reads the terminal
	broke.again()
	swallow(int(in), c.again.asked)
	if err == errStopped {
		err = context.Cause(ctx)
	}
	if s.noted() {
		err = errors.Join(err, s.Terminal.reset(), s.say())
	}
	return err
}

// display is how what src gives reaches the terminal: without waiting for it, or
// where that cannot be, by another goroutine.
func (s *Session) display(src *pollSource, out int, g *gate) (put func([]byte) error, flush func() error, end func()) {
	fd, err := reopen(out)
	if err != nil {
		w := newAside(s.Terminal.Write, g.close)
		return w.put, w.flush, w.end
	}
	src.out = &ahead{fd: fd, seen: s.Terminal.follow}
	return src.out.put, src.out.flush, func() { unix.Close(fd) }
}

func (s *Session) resize() error {
	rows, cols, err := s.Terminal.Size()
	if err != nil {
		return err
	}
	if s.Resize != nil {
		err = s.Resize(rows, cols)
	} else {
		err = withFD(s.Master, func(fd uintptr) error {
			return unix.IoctlSetWinsize(int(fd), unix.TIOCSWINSZ, &unix.Winsize{Row: rows, Col: cols})
		})
	}
	if err != nil {
		return fmt.Errorf("resize the agent's terminal: %w", err)
	}
	return nil
}

// Suspend gives the terminal back to the shell: it displays what the agent
// wrote until now, stops reading and writing the terminal, and restores it.
// main calls it when the agent was stopped (Ctrl-Z), then stops itself, and
// calls Resume when SIGCONT arrives, not when kill returns: that may be before
// the process stops. What is typed meanwhile is the shell's. Before Run it is
// Restore.
func (s *Session) Suspend() error {
	s.suspend.Lock()
	defer s.suspend.Unlock()
	if l := s.getLive(); l != nil {
		l.gate.park()
	}
	return s.Terminal.Restore()
}

// Resume takes the terminal again after Suspend: raw mode, the modes that the
// agent had switched on, and the size.
func (s *Session) Resume() error {
	s.suspend.Lock()
	defer s.suspend.Unlock()
	err := s.Terminal.Raw()
	l := s.getLive()
	if l == nil {
		return err
	}
	err = errors.Join(err, s.resize())
	l.gate.unpark()
	return err
}

// Wake has Note asked now, though the agent is silent. It may be called from
// any goroutine, also before and after Run.
func (s *Session) Wake() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.live == nil {
		return
	}
	_ = withFD(s.live.pw, func(fd uintptr) error {
		_, err := unix.Write(int(fd), []byte{0}) // a full pipe has woken it already
		return err
	})
}
