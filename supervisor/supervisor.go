// Package supervisor owns a session: the agent's process, its sandbox, and the
// leak line that everything it outputs goes through.
//
//	pty | files | broker bodies -> Chunk -> matcher -> Leak -> policy -> audit -> act
//
// The line is Line.Judge and the Filter that Line.Open makes, in line.go; read
// those two top to bottom. The sources are the terminal and pipes (package pty
// moves their bytes), files under the working folder (Files), and whoever main
// hands the line's OpenFilter to: the broker.
//
// What the kernel finds in writes (Kernel) comes in by watcher, in kernel.go; writes
// that are judged before they are done (Writes) by writer, in writes.go.
//
// Goroutines: Run starts the copiers, the file watcher, the two that take the
// kernel's finds, the workers of package notify, and what Config.Serve is, and
// returns when all of them have ended.
package supervisor

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"golang.org/x/term"

	"guard"
	"guard/pty"
	"guard/pty/screen"
	"guard/supervisor/sandbox"
)

// Config is one session.
type Config struct {
	Sandbox      sandbox.Config // Argv, Env, Dir, mounts; Run fills in the terminal's part
	In, Out, Err *os.File       // guard's own
	Line         *Line
	Input        guard.Filter // judges what the user types and pastes; see pty.Session.In
	Files        []*Files     // folders that the agent may write; none: files are not watched
	// Serve is run beside the agent with the sandbox's sockets, until ctx ends.
	// When it returns before that, the session has lost its network and is ended.
	Serve func(ctx context.Context, sb *sandbox.Sandbox) error
	// Started is called once, when the agent runs.
	Started func(sb *sandbox.Sandbox)
	// Kernel finds values in what the session's processes write, in the kernel.
	// Nil: nobody does. Run stops it; it is the caller's to close.
	Kernel Kernel
	// Writes has writes to files and pipes judged before they are done. Nil: the
	// agent does them by itself.
	Writes *Writes
	// Screen is called once, when the agent's terminal is on the user's: over takes the
	// user's screen (pty.Session.Over) for as long as the session runs. Nil: nobody does.
	Screen func(over Over)
	// Say reports what a person should know and no record says.
	Say func(string)
}

// Over is pty.Session.Over, with a model of the agent's screen that knows of it.
type Over func(ctx context.Context, draw func(rows, cols int) []string, key func(k byte) (done bool)) error

// Status is how the agent ended.
type Status struct {
	Code   int            // exit status, if Signal is 0
	Signal syscall.Signal // that ended it
	Leak   bool           // guard ended it because of a leak
	Tier   sandbox.Tier
}

// ExitCode is the exit status of `guard run`, as the command line fixes it.
func (s Status) ExitCode() int {
	switch {
	case s.Leak:
		return 120
	case s.Signal != 0:
		return 128 + int(s.Signal)
	}
	return s.Code
}

// startLimit bounds how long a sandbox takes to start; it takes milliseconds.
const startLimit = 30 * time.Second

// Run runs one session from start to end. An error means that the agent did not
// run, or that guard failed beside it; the agent is gone in any case.
func Run(ctx context.Context, c Config) (Status, error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()

	t, err := openStdio(&c)
	if err != nil {
		return Status{}, err
	}
	defer t.close()

	var killed atomic.Bool
	kill := make(chan struct{})
	c.Line.kill = sync.OnceFunc(func() { killed.Store(true); close(kill) })

	c.Line.judged = nil
	var watch *watcher
	var kernelLost chan error
	if c.Kernel != nil {
		watch = newWatcher(c.Kernel, c.Line, c.Say, c.Sandbox.HostPorts)
		for _, p := range t.pipes {
			if key, ok := keyOf(p.from); ok {
				watch.copied[key] = true
			}
		}
		c.Sandbox.Before, kernelLost = watch.attach, watch.failed
	}

	var write *writer
	var writesLost chan error
	if c.Writes != nil {
		write = newWriter(c.Writes, c.Line)
		for _, p := range t.pipes {
			if key, ok := statKey(p.from); ok {
				write.leave[key] = true // the copiers judge those
			}
		}
		c.Sandbox.Notify, c.Sandbox.NoZeroCopy, writesLost = write.take, true, write.failed
		defer write.finish()
	}

	// Signals that come while the session starts are the agent's too.
	signals := make(chan os.Signal, 8)
	signal.Notify(signals, forwarded...)
	defer signal.Stop(signals)

	// What the agent writes first is found only if the watch was there before it.
	var wg sync.WaitGroup
	filesErrs := make([]error, len(c.Files))
	var ready []chan struct{}
	for i, f := range c.Files {
		r := make(chan struct{})
		ready = append(ready, r)
		wg.Go(func() { filesErrs[i] = f.Run(ctx, r) })
	}
	for _, r := range ready {
		<-r
	}

	// In the weaker tiers the agent's uid can stop what sets it up.
	startCtx, started := context.WithTimeout(ctx, startLimit)
	sb, err := sandbox.Start(startCtx, c.Sandbox)
	started()
	if err != nil {
		cancel()
		wg.Wait()
		if watch != nil {
			err = errors.Join(err, watch.finish())
		}
		return Status{}, err
	}
	t.started()
	status := Status{Tier: sb.Tier}
	if watch != nil {
		watch.start(sb)
	}

	served := make(chan error, 1)
	if c.Serve != nil {
		wg.Go(func() { served <- c.Serve(ctx, sb) })
	}
	inputCtx, endInput := context.WithCancel(ctx)
	defer endInput()
	copied, err := t.copy(ctx, inputCtx, sb, c.Line, c.Input)
	if err != nil {
		err = errors.Join(err, sb.Close())
		cancel()
		wg.Wait()
		if watch != nil {
			err = errors.Join(err, watch.finish())
		}
		return status, err
	}
	if c.Started != nil {
		c.Started(sb)
	}
	if c.Screen != nil && t.session != nil {
		c.Screen(func(ctx context.Context, draw func(rows, cols int) []string, key func(k byte) bool) error {
			defer t.screen.Lost() // it does not know what stood there meanwhile
			return t.session.Over(ctx, draw, key)
		})
	}

	var failed error
	for running := true; running; {
		select {
		case e, ok := <-sb.Events():
			switch {
			case !ok:
				failed, running = errors.New("the sandbox ended without a word"), false
			case e.Kind == sandbox.Stopped:
				t.suspend()
				t.resume()
				if err := sb.Signal(sigCont); err != nil {
					failed, running = err, false
				}
			case e.Kind == sandbox.Exited:
				status.Code, status.Signal, running = e.Code, e.Signal, false
			case e.Kind == sandbox.Failed:
				failed, running = e.Err, false
			}
		case s := <-signals:
			// The agent is gone already if this fails; its exit event follows.
			_ = sb.Signal(s.(syscall.Signal))
		case <-kill:
			running = false
		case err := <-kernelLost:
			failed, running = fmt.Errorf("the search in the kernel ended: %w", err), false
		case err := <-writesLost:
			failed, running = fmt.Errorf("writes are not judged any more: %w", err), false
		case err := <-served:
			// Fail closed: without the broker the session has no way out, and an
			// agent that waits for one for ever helps nobody.
			failed, running = fmt.Errorf("the broker ended: %w", cmpErr(err)), false
		case <-ctx.Done():
			failed, running = ctx.Err(), false
		}
	}
	if sb.PTY != nil && failed == nil && !killed.Load() {
		pty.Drain(sb.PTY)
	}
	closeErr := sb.Close()
	endInput()
	copied.Wait()
	// Files that were written at the very end are scanned, and bodies on their way
	// are judged, before the session counts as ended.
	cancel()
	wg.Wait()
	var watchErr error
	if watch != nil {
		// The other sources have judged all that they ever will.
		watchErr = watch.finish()
	}
	status.Leak = killed.Load()
	if status.Leak {
		failed = nil
	}
	return status, errors.Join(append(filesErrs, failed, closeErr, t.err, watchErr)...)
}

func cmpErr(err error) error {
	if err == nil {
		return io.EOF
	}
	return err
}

// stdio is guard's side of the agent's terminal and pipes.
type stdio struct {
	terminal *pty.Terminal
	in       *os.File    // guard's stdin, when it is the terminal
	show     *os.File    // where the pty's output goes
	pipes    []*redirect // outputs that are not the terminal
	input    *redirect   // standard input that is not the terminal
	theirs   []*os.File  // the agent's ends, closed once it runs
	session  *pty.Session
	screen   *screen.Screen

	mu  sync.Mutex
	err error // what a copier met
}

type redirect struct {
	from *os.File
	to   *os.File
}

// openStdio decides what the agent gets for each of its three descriptors. A
// descriptor that is a terminal becomes the session's own pty; an output that is
// not goes through a pipe and the leak line. Guard's own terminal is never
// handed down: whoever holds it can write around the redaction.
func openStdio(c *Config) (*stdio, error) {
	t := &stdio{}
	ttyIn, ttyOut, ttyErr := isTerminal(c.In), isTerminal(c.Out), isTerminal(c.Err)
	c.Sandbox.TTY = ttyIn || ttyOut || ttyErr
	if ttyIn {
		t.in = c.In
	} else if c.In != nil {
		// Never the caller's own descriptor: through a folder everything beside it
		// could be reached, through a socket or file its other end written to.
		if fi, err := c.In.Stat(); err != nil {
			return nil, fmt.Errorf("look at standard input: %w", err)
		} else if fi.IsDir() {
			return nil, errors.New("standard input is a folder")
		}
		r, w, err := os.Pipe()
		if err != nil {
			return nil, fmt.Errorf("make a pipe for standard input: %w", err)
		}
		c.Sandbox.Stdin = r
		t.theirs = append(t.theirs, r)
		t.input = &redirect{from: c.In, to: w}
	}
	for _, o := range []struct {
		ours  *os.File
		tty   bool
		slot  **os.File
		title string
	}{{c.Out, ttyOut, &c.Sandbox.Stdout, "stdout"}, {c.Err, ttyErr, &c.Sandbox.Stderr, "stderr"}} {
		if o.tty {
			if t.show == nil {
				t.show = o.ours
			}
			continue
		}
		if o.slot == &c.Sandbox.Stderr && sameFile(c.Out, c.Err) && c.Sandbox.Stdout != nil {
			// One file is one stream: a value in pieces on both would be whole in it.
			*o.slot = c.Sandbox.Stdout
			continue
		}
		r, w, err := os.Pipe()
		if err != nil {
			t.close()
			return nil, fmt.Errorf("make a pipe for %s: %w", o.title, err)
		}
		*o.slot = w
		t.theirs = append(t.theirs, w)
		t.pipes = append(t.pipes, &redirect{from: r, to: o.ours})
	}
	if c.Sandbox.TTY {
		in, out := c.In, t.show
		if in == nil || !ttyIn {
			in = out
		}
		if out == nil {
			out = in
		}
		term, err := pty.OpenTerminal(in, out)
		if err != nil {
			t.close()
			return nil, err
		}
		t.terminal = term
		if rows, cols, err := term.Size(); err == nil {
			c.Sandbox.Rows, c.Sandbox.Cols = rows, cols
		}
	}
	return t, nil
}

func (t *stdio) started() {
	for _, f := range t.theirs {
		f.Close()
	}
	t.theirs = nil
}

// copy starts the copiers; the returned group is done when every byte that the
// agent wrote was judged.
func (t *stdio) copy(ctx, inputCtx context.Context, sb *sandbox.Sandbox, line *Line, input guard.Filter) (*sync.WaitGroup, error) {
	var wg sync.WaitGroup
	hold := 5 * time.Millisecond // and no longer for a long tail: the filter itself keeps what a pause may not let go
	if sb.PTY != nil && t.in == nil {
		// Input comes from elsewhere: the terminal stays as it is, and its signals
		// come to guard, which passes them on.
		f := t.openScreen(line, sb)
		wg.Go(func() {
			_ = pty.Copy(t.show, sb.PTY, f, hold, hold)
		})
	} else if sb.PTY != nil {
		if err := t.terminal.Raw(); err != nil {
			return nil, err
		}
		out := t.openScreen(line, sb)
		t.session = &pty.Session{
			Master: sb.PTY, Terminal: t.terminal, Hold: hold, LongHold: hold,
			Out: out, Held: t.screen.Held,
			Resize: func(rows, cols uint16) error {
				t.screen.Resize(int(rows), int(cols))
				return sb.Resize(rows, cols)
			},
			In: input,
		}
		wg.Go(func() {
			// The master answers EIO once the last process of the session is gone.
			// What could not be shown is no reason to lose the agent's exit status.
			_ = t.session.Run(ctx)
			_ = t.terminal.Restore()
		})
	}
	for _, p := range t.pipes {
		wg.Go(func() {
			err := pty.Copy(p.to, p.from, line.Open(guard.Origin{Channel: guard.ChannelPipe, Source: "pty", PID: sb.Pid()}), hold, hold)
			// The agent gets the broken pipe that it would have had by itself.
			p.from.Close()
			var stopped *pty.StoppedError
			if err != nil && !errors.As(err, &stopped) && !errors.Is(err, syscall.EPIPE) {
				t.fail(fmt.Errorf("write the agent's output: %w", err))
			}
		})
	}
	if t.input != nil {
		wg.Go(func() {
			// The agent may end without having read it all.
			if err := pty.Relay(inputCtx, t.input.to, t.input.from); err != nil && inputCtx.Err() == nil && !errors.Is(err, syscall.EPIPE) {
				t.fail(fmt.Errorf("read standard input: %w", err))
			}
			t.input.to.Close()
		})
	}
	return &wg, nil
}

// openScreen opens the stream of what the terminal displays.
func (t *stdio) openScreen(line *Line, sb *sandbox.Sandbox) guard.Filter {
	rows, cols, err := t.terminal.Size()
	if err != nil {
		rows, cols = 24, 80
	}
	f, s := line.OpenScreen(guard.Origin{Channel: guard.ChannelTerminal, Source: "pty", PID: sb.Pid()}, int(rows), int(cols))
	t.screen = s
	return f
}

// fail keeps the first error of a copier.
func (t *stdio) fail(err error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.err == nil {
		t.err = err
	}
}

// suspend is Ctrl-Z: give the terminal back to the shell and stop, until the
// shell says go on.
func (t *stdio) suspend() {
	if t.session != nil {
		_ = t.session.Suspend() // the terminal may be gone: then there is nothing to give back
	}
	stopSelf()
}

func (t *stdio) resume() {
	if t.session != nil {
		t.screen.Lost() // the shell wrote to the terminal meanwhile
		_ = t.session.Resume()
	}
}

func sameFile(a, b *os.File) bool {
	if a == nil || b == nil {
		return false
	}
	x, err1 := a.Stat()
	y, err2 := b.Stat()
	return err1 == nil && err2 == nil && os.SameFile(x, y)
}

func isTerminal(f *os.File) bool { return f != nil && term.IsTerminal(int(f.Fd())) }

func (t *stdio) close() {
	for _, f := range t.theirs {
		f.Close()
	}
	if t.input != nil {
		t.input.to.Close()
	}
	if t.terminal != nil {
		_ = t.terminal.Restore()
	}
}
