package broker

import (
	"context"
	"errors"
	"io"
	"net"
	"os"
	"sync"
	"time"

	"guard"
)

// Idle is how long a stream may pause before its filter is told (guard.Pause)
// and lets go of a tail that is too short to matter: long enough for a writer that is in the middle of
// something, short enough for an interactive protocol.
const Idle = 5 * time.Millisecond

// ErrStopped is what sending returns when the leak line stopped the stream.
var ErrStopped = errors.New("stopped: the bytes hold a secret")

// Pipe moves bytes between client and upstream until both directions have
// ended, the filter stops, or ctx ends. Bytes from client go through f; a
// secret in them closes both connections. It returns ErrStopped then.
func Pipe(ctx context.Context, client, upstream net.Conn, f guard.Filter) error {
	var (
		wg  sync.WaitGroup
		err error
	)
	unhook := context.AfterFunc(ctx, func() { client.Close(); upstream.Close() })
	defer unhook()
	wg.Go(func() {
		err = Send(upstream, client, f)
		if err != nil {
			client.Close()
			upstream.Close()
			return
		}
		CloseWrite(upstream)
	})
	wg.Go(func() {
		_, cerr := io.Copy(client, upstream)
		if cerr != nil {
			client.Close()
			upstream.Close()
			return
		}
		CloseWrite(client)
	})
	wg.Wait()
	return err
}

// Reader is what Send reads: a connection, or a pipe.
type Reader interface {
	io.Reader
	SetReadDeadline(time.Time) error
}

// Send copies src to dst through f until src ends. It pauses the filter once
// when src is idle, using src's read deadline; what f keeps then goes with what
// comes next.
func Send(dst io.Writer, src Reader, f guard.Filter) error {
	if f == nil {
		return ErrStopped
	}
	buf := make([]byte, 32<<10)
	held, paused := 0, false
	put := func(p []byte, s guard.Step) error {
		out, d := f(p, s)
		held += len(p) - len(out)
		if len(out) > 0 {
			if _, err := dst.Write(out); err != nil {
				return err
			}
		}
		if d.Action.Stops() {
			return ErrStopped
		}
		return nil
	}
	for {
		limit := held > 0 && !paused
		if limit {
			src.SetReadDeadline(time.Now().Add(Idle))
		}
		n, err := src.Read(buf)
		if limit {
			src.SetReadDeadline(time.Time{})
		}
		if n > 0 {
			paused = false
			if e := put(buf[:n], guard.More); e != nil {
				return e
			}
		}
		switch {
		case err == nil:
		case errors.Is(err, os.ErrDeadlineExceeded) && limit:
			paused = true
			if e := put(nil, guard.Pause); e != nil {
				return e
			}
		case errors.Is(err, io.EOF):
			return put(nil, guard.End)
		default:
			return err
		}
	}
}
