//go:build unix

package pty

import (
	"context"
	"fmt"
	"os"

	"golang.org/x/sys/unix"
)

// Relay copies src to dst, unread and unchanged, until src ends (nil), ctx is
// done (its cause), or dst does not take more (an error that wraps
// [unix.EPIPE] when dst's reader is gone). It gives an agent its standard input
// through a pipe of its own, where the caller's descriptor would also let the
// agent write, seek, and change the mode of what is behind it.
//
// It reads src only when there is something to read and dst has room, so that
// it is never left in a read: what comes after the end is for the next reader
// of src. What it has read by then (64 KiB at most) and what is in the pipe is
// lost to that reader. It closes neither; the caller closes dst, which is the
// end of the agent's input. dst is in non-blocking mode meanwhile, src's mode is
// not touched, since others may have it open. A folder is refused with an error
// that wraps [unix.EISDIR].
func Relay(ctx context.Context, dst, src *os.File) error {
	if err := relayable(src); err != nil {
		return err
	}
	if err := context.Cause(ctx); err != nil {
		return err
	}
	g, err := newGate(1)
	if err != nil {
		return err
	}
	defer g.free()
	done := make(chan struct{})
	stop := context.AfterFunc(ctx, func() {
		defer close(done)
		g.close()
	})
	defer func() {
		if !stop() {
			<-done
		}
	}()
	err = withFD(src, func(in uintptr) error {
		return withFD(dst, func(out uintptr) error { return relay(g, int(out), int(in)) })
	})
	switch {
	case err == errStopped:
		return context.Cause(ctx)
	case err != nil:
		return fmt.Errorf("relay %s: %w", src.Name(), err)
	}
	return nil
}

func relayable(src *os.File) error {
	if src == nil {
		return fmt.Errorf("relay input: %w", os.ErrInvalid)
	}
	info, err := src.Stat()
	if err != nil {
		return fmt.Errorf("relay input: %w", err)
	}
	if info.IsDir() {
		return fmt.Errorf("relay %s: it is a folder, which no program can read as its input: %w", src.Name(), unix.EISDIR)
	}
	return nil
}

func relay(g *gate, out, in int) error {
	flags, err := unix.FcntlInt(uintptr(out), unix.F_GETFL, 0)
	if err == nil && flags&unix.O_NONBLOCK == 0 {
		_, err = unix.FcntlInt(uintptr(out), unix.F_SETFL, flags|unix.O_NONBLOCK)
		defer unix.FcntlInt(uintptr(out), unix.F_SETFL, flags)
	}
	if err != nil {
		return err
	}
	buf := make([]byte, 64<<10)
	var rest []byte
	room := false // out was seen to have room
	for {
		if g.load() != running {
			return errStopped
		}
		fds := [3]interest{{fd: g.fd(), read: true}, {fd: out, write: len(rest) > 0 || !room}, {fd: in, read: true}}
		n := 3
		if len(rest) > 0 || !room {
			n = 2
		}
		if err := wait(fds[:n], -1); err != nil {
			return err
		}
		switch {
		case fds[0].ready:
		case fds[1].ended:
			return unix.EPIPE
		case fds[1].ready && len(rest) == 0:
			room = true
		case fds[1].ready:
			k, err := unix.Write(out, rest)
			rest = rest[max(0, k):]
			if err != nil && err != unix.EAGAIN && err != unix.EINTR {
				return err
			}
		case fds[2].ready || fds[2].ended:
			k, err := readNow(in, buf)
			switch {
			case err == unix.EAGAIN || err == unix.EINTR: // somebody else took it
			case err != nil:
				return err
			case k == 0:
				return nil
			default:
				rest, room = buf[:k], false
			}
		}
	}
}
