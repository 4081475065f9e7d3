package main

import (
	"context"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/signal"
	"strconv"
	"sync"
	"syscall"
	"time"

	"golang.org/x/term"
)

// What a task's two sides say to each other: frames of a kind, a length (32 bits, big
// endian) and so many bytes. The first is the request, from inside.
const (
	taskRequestFrame = iota
	taskStdin
	taskStdout
	taskStderr
	taskEOF    // the input ends
	taskSignal // one byte: 1, 2 or 15
	taskExit   // JSON of taskEnd; the last
)

const (
	maxTaskFrame = 32 << 10
	maxTaskAsk   = 256 << 10 // a request: arguments and environment
	taskPort     = 2         // of controlHost
	taskPatience = time.Minute
)

// taskRequest asks for a task. It can name nothing that the session does not have: what
// is allowed is what both allow.
type taskRequest struct {
	Name  string   `json:"name"`
	Allow []string `json:"allow,omitempty"`
	Deny  []string `json:"deny,omitempty"`
	Argv  []string `json:"argv"`
	Dir   string   `json:"dir"`
}

// taskEnd is what came of it.
type taskEnd struct {
	Code  int      `json:"code"`
	Error string   `json:"error,omitempty"`
	Next  []string `json:"next_steps,omitempty"`
}

// taskConn writes frames, from any goroutine.
type taskConn struct {
	mu sync.Mutex
	w  io.Writer
}

func (t *taskConn) frame(kind byte, p []byte) error {
	t.mu.Lock()
	defer t.mu.Unlock()
	b := append(binary.BigEndian.AppendUint32([]byte{kind}, uint32(len(p))), p...)
	_, err := t.w.Write(b)
	return err
}

func (t *taskConn) json(kind byte, v any) error {
	b, err := json.Marshal(v)
	if err != nil {
		return err
	}
	return t.frame(kind, b)
}

// taskStream is one of the outputs.
type taskStream struct {
	*taskConn
	kind byte
}

func (t taskStream) Write(p []byte) (n int, err error) {
	for len(p) > 0 {
		k := min(len(p), maxTaskFrame)
		if err := t.frame(t.kind, p[:k]); err != nil {
			return n, err
		}
		n, p = n+k, p[k:]
	}
	return n, nil
}

func readTaskFrame(r io.Reader, limit int) (kind byte, p []byte, err error) {
	var head [5]byte
	if _, err := io.ReadFull(r, head[:]); err != nil {
		return 0, nil, err
	}
	n := binary.BigEndian.Uint32(head[1:])
	if n > uint32(limit) {
		return 0, nil, errors.New("a frame is too long")
	}
	p = make([]byte, n)
	_, err = io.ReadFull(r, p)
	return head[0], p, err
}

var taskCommand = command{
	name: "task", args: "NAME [--allow NAME[:SCOPE]]... [--deny NAME]... -- CMD [ARG...]", short: "from inside a session: run a command with less than the session may",
	example: "guard task fix-1234 --allow github-pat:repo:push/acme/web,count=3 -- ./agent-step    (inside a session)",
	exits:   "; the command's own,\n  128+N when signal N ended it",
	run:     runTask,
}

func runTask(a *app, ctx context.Context, c *command, args []string) error {
	f := a.flags(c)
	q := taskRequest{}
	f.StringArrayVar(&q.Allow, "allow", nil, "credential that the task may use, as of guard run: what the session may not, it may not either (repeatable; without it, none)")
	f.StringArrayVar(&q.Deny, "deny", nil, "credential that it may not use, whatever else says (repeatable)")
	if err := parse(f, args); err != nil {
		return err
	}
	dash := f.ArgsLenAtDash()
	if dash != 1 || f.NArg() < 2 {
		return usagef("task wants a name and a command: guard task NAME [--allow ...] -- CMD [ARG...]")
	}
	q.Name, q.Argv = f.Arg(0), f.Args()[1:]
	if a.getenv("GUARD_SESSION") == "" {
		return errors.New("this is not inside a session: guard run --task NAME starts one; guard task is for a daemon in it that does many")
	}
	var err error
	if q.Dir, err = os.Getwd(); err != nil {
		return err
	}
	d := net.Dialer{Timeout: 30 * time.Second}
	conn, err := d.DialContext(ctx, "tcp", net.JoinHostPort(controlHost, strconv.Itoa(taskPort)))
	if err != nil {
		return fmt.Errorf("the session's guard cannot be reached, which it can in the contained boundary only, and not from within a task: %w", err)
	}
	defer conn.Close()
	end, err := a.callTask(conn, q)
	switch {
	case err != nil:
		return fmt.Errorf("the session's guard ended the task: %w", err)
	case end.Error != "":
		err := errors.New(end.Error)
		for _, n := range end.Next {
			err = fmt.Errorf("%w\nguard: next: %s", err, n)
		}
		return exitError{max(end.Code, exitRefused), err}
	case end.Code != 0:
		return exitError{code: end.Code}
	}
	return nil
}

// callTask is the inner side: it hands input, output and signals over until the task ends.
func (a *app) callTask(conn net.Conn, q taskRequest) (end taskEnd, err error) {
	w := &taskConn{w: conn}
	if err := w.json(taskRequestFrame, q); err != nil {
		return end, err
	}
	signals := make(chan os.Signal, 8)
	signal.Notify(signals, os.Interrupt, syscall.SIGTERM, syscall.SIGHUP)
	defer signal.Stop(signals)
	done := make(chan struct{})
	var wg sync.WaitGroup
	defer wg.Wait()
	defer close(done)
	wg.Go(func() {
		for {
			select {
			case <-done:
				return
			case s := <-signals:
				if n, ok := s.(syscall.Signal); ok {
					_ = w.frame(taskSignal, []byte{byte(n)})
				}
			}
		}
	})
	// The input is read for as long as there is a process to read it; this one ends with
	// the task, and a read that nothing ends with it.
	go func() {
		buf := make([]byte, maxTaskFrame)
		for !term.IsTerminal(int(a.stdin.Fd())) {
			n, err := a.stdin.Read(buf)
			if n > 0 && w.frame(taskStdin, buf[:n]) != nil {
				return
			}
			if err != nil {
				break
			}
		}
		_ = w.frame(taskEOF, nil)
	}()
	for {
		kind, p, err := readTaskFrame(conn, maxTaskAsk)
		if err != nil {
			return end, err
		}
		switch kind {
		case taskStdout:
			_, err = a.stdout.Write(p)
		case taskStderr:
			_, err = a.stderr.Write(p)
		case taskExit:
			return end, json.Unmarshal(p, &end)
		default:
			err = errors.New("a frame of an unknown kind")
		}
		if err != nil {
			return end, err
		}
	}
}
