package pty

import (
	"errors"
	"fmt"
	"io"
	"os"
	"time"

	"guard"
)

// Defaults of Hold and LongHold, and the length from which a held tail counts
// as long. A short tail is most often no secret's start at all, and a prompt
// or an echo must not wait for it; a long one is worth a second.
const (
	DefaultHold     = 5 * time.Millisecond
	DefaultLongHold = time.Second
	longTail        = 8 // bytes
)

const chunk = 128 << 10 // bytes, the most that one filter call gets

// StoppedError is returned by [Copy] when the filter's decision stopped the
// stream.
type StoppedError struct {
	Decision guard.Decision
}

func (e *StoppedError) Error() string { return "output stopped: " + e.Decision.Reason }

// errSilence is a source's answer when nothing came in the given time.
var errSilence = errors.New("silence")

// errStopped is a source's answer when its owner wants it to stop, and nothing
// more is there.
var errStopped = errors.New("stopped")

// errPoked is a source's answer to [Session.Wake].
var errPoked = errors.New("poked")

// errPark is a source's answer when its owner wants it to stop for a while, and
// nothing more is there.
var errPark = errors.New("park")

// source is where a copier reads. read waits for at most d, or for as long as
// it takes if d is negative, and returns bytes, io.EOF, errSilence or another
// error, but never both bytes and an error.
type source interface {
	read(p []byte, d time.Duration) (int, error)
	close()
}

// copier moves one stream through a filter. It is for one goroutine.
type copier struct {
	filter     guard.Filter
	hold, long time.Duration
	write      func([]byte) error
	flush      func() error // waits for what write left to another goroutine; may be nil
	decided    func(guard.Decision)
	held       func() int64 // what the filter holds back, where lengths do not say; or nil
	// For a terminal. The filter gets what is to be displayed, so that nothing is
	// removed from between the halves of a secret after it looked. What it puts in
	// the place of a secret could make a control of what is around it, which again
	// takes such controls out, and leaves a mark.
	tame, again *tame
	// idle is called when nothing is held back and the source is asked for more.
	idle func() error
	park func() // waits until the copying may go on
	// blocked is called once, when a decision stopped the stream; an error ends
	// the copying, else the rest of the source is read and dropped.
	blocked func(guard.Decision) error

	pending int64 // bytes that the filter holds back
	paused  bool  // the filter has been told of this silence
	stopped bool
}

func (c *copier) init() error {
	if c.filter == nil {
		return errors.New("no filter: nothing may pass unjudged")
	}
	if c.hold <= 0 {
		c.hold = DefaultHold
	}
	if c.long <= 0 {
		c.long = DefaultLongHold
	}
	return nil
}

func (c *copier) run(src source) error {
	if err := c.init(); err != nil {
		return err
	}
	buf := make([]byte, chunk)
	for {
		wait := time.Duration(-1)
		switch {
		case c.stopped:
		case c.waiting():
			wait = c.hold
		case c.pending > 0 && !c.paused:
			if wait = c.hold; c.pending >= longTail {
				wait = c.long
			}
		case c.pending == 0 && c.idle != nil:
			if err := c.idle(); err != nil {
				return err
			}
		}
		n, err := src.read(buf, wait)
		switch {
		case n > 0:
			c.paused = false
			err = c.pass(buf[:n], guard.More)
		case err == errSilence && c.waiting():
			err = c.letGo()
		case err == errSilence:
			c.paused = true
			err = c.pass(nil, guard.Pause)
		case err == errPoked:
			err = nil
		case err == errPark:
			err = nil
			if c.pending > 0 || c.waiting() {
				err = c.pass(nil, guard.Pause)
			}
			err = errors.Join(err, c.written())
			c.park()
		case err == io.EOF:
			return c.pass(nil, guard.End)
		case err == errStopped:
			if perr := c.pass(nil, guard.End); perr != nil {
				return perr
			}
		}
		if err != nil {
			return err
		}
	}
}

// waiting says whether the start of an escape sequence is kept.
func (c *copier) waiting() bool {
	return c.tame != nil && (c.tame.waiting() || c.again.waiting())
}

// letGo displays the starts of escape sequences, as far as the filter lets them.
func (c *copier) letGo() error {
	if p := c.tame.release(); len(p) > 0 {
		if err := c.judge(p, guard.More); err != nil || c.stopped {
			return err
		}
	}
	return c.show(c.again.release())
}

// pass takes what the source gave.
func (c *copier) pass(p []byte, step guard.Step) error {
	if c.stopped {
		return nil
	}
	if c.tame != nil {
		p = c.tame.feed(p)
		if len(p) > 0 && step != guard.More {
			if err := c.judge(p, guard.More); err != nil || c.stopped {
				return err
			}
		}
		if step != guard.More {
			p = c.tame.release()
		} else if len(p) == 0 {
			return nil
		}
	}
	if err := c.judge(p, step); err != nil || c.stopped || c.tame == nil || step == guard.More {
		return err
	}
	return c.show(c.again.release())
}

// judge has the filter judge p, and displays what it lets out.
func (c *copier) judge(p []byte, step guard.Step) error {
	out, d := c.filter(p, step)
	if c.pending = max(0, c.pending+int64(len(p)-len(out))); c.held != nil {
		c.pending = c.held()
	}
	c.stopped = d.Action.Stops()
	// The word goes out before the bytes: a terminal that does not take them
	// must not keep an agent alive.
	if d.Action != guard.Pass && c.decided != nil {
		c.decided(d)
	}
	if c.tame != nil {
		out = c.again.feed(out)
	}
	if err := c.show(out); err != nil {
		return err
	}
	if c.stopped && c.blocked != nil {
		if err := c.written(); err != nil {
			return err
		}
		return c.blocked(d)
	}
	return nil
}

func (c *copier) written() error {
	if c.flush == nil {
		return nil
	}
	return c.flush()
}

func (c *copier) show(p []byte) error {
	if len(p) == 0 {
		return nil
	}
	return c.write(p)
}

// Copy copies src to dst through f until src ends, for output that goes to no
// terminal. f is told of a pause after hold of silence when it holds a tail
// back, or after longHold if that has 8 bytes or more; 0 stands for the defaults.
// What f keeps even then goes with what comes next, or at the end.
//
// When f's decision stops the stream, nothing further is written. On Kill, Copy
// returns a [*StoppedError] at once, so that the caller can end the agent; on
// Block it reads and drops the rest, so that the agent does not hang on a full
// pipe, and returns the [*StoppedError] when src ends. An error of dst ends it
// at once, so that the caller closes src and the agent gets the SIGPIPE that it
// would have got without guard.
//
// A src that is a file (a pipe, a socket) is polled. Any other is read by a
// goroutine for which Copy waits: there, "at once" is when the Read that is
// under way returns.
func Copy(dst io.Writer, src io.Reader, f guard.Filter, hold, longHold time.Duration) error {
	var stop *StoppedError
	c := copier{
		filter: f, hold: hold, long: longHold,
		write: func(p []byte) error {
			if n, err := dst.Write(p); err != nil {
				return fmt.Errorf("write output: %w", err)
			} else if n < len(p) {
				return fmt.Errorf("write output: %w", io.ErrShortWrite)
			}
			return nil
		},
		blocked: func(d guard.Decision) error {
			stop = &StoppedError{Decision: d}
			if d.Action == guard.Kill {
				return stop
			}
			return nil
		},
	}
	if file, ok := src.(*os.File); ok && canPoll {
		return copyDone(withFD(file, func(fd uintptr) error { return c.run(newPollSource(fd, nil)) }), stop)
	}
	s := newReaderSource(src)
	defer s.close()
	return copyDone(c.run(s), stop)
}

func copyDone(err error, stop *StoppedError) error {
	if err == nil && stop != nil {
		return stop
	}
	return err
}
