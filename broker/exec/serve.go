package exec

import (
	"archive/tar"
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"

	"guard"
	"guard/broker"
)

// Job is a command that is to be started. Its process ends with the context.
type Job struct {
	Path    string   // the program, absolute
	Args    []string // after the program's name
	Env     []string // KEY=VALUE: those of the rule and of the credentials, nothing else
	Files   []File   // shown to the command, and to nobody else
	Dir     string   // its working folder, which is its own
	Hosts   []string // the only ones that it may reach
	Stdin   *os.File
	Stdout  *os.File
	Stderr  *os.File
	Signals <-chan syscall.Signal // to be sent to it
}

// File is a file that holds a credential.
type File struct {
	Path    string // absolute
	Content []byte
}

// FileDir is where a command finds the files that hold credentials.
const FileDir = "/run/guard-exec"

// Server runs commands for a session's agent. All fields but Refused are needed:
// without one of them everything is refused.
type Server struct {
	Session     guard.Session
	Rules       func() ([]Rule, error) // the user's
	Credentials func() []guard.Credential
	Use         func(u guard.Use, send func(guard.Secret) (string, error)) (guard.Decision, error) // the use line
	Refused     func(u guard.Use, d guard.Decision)
	Open        guard.OpenFilter
	Hash        func(path string) (string, error) // of a program that the agent cannot change
	// Start runs a job to its end and returns its exit status, or why it could not
	// be started.
	Start func(ctx context.Context, j Job) (code int, err error)
	// Dir is a folder in which each command gets its own working folder, which is
	// removed with it.
	Dir string
}

// Timeout is how long a command may run whose rule says nothing.
const Timeout = 10 * time.Minute

// patience is how long a request and its inputs may take to arrive: who says nothing
// does not keep others from being served.
const patience = time.Minute

// MaxAtOnce is how many commands of a session run at once.
const MaxAtOnce = 8

// call is one connection.
type call struct {
	s    *Server
	conn net.Conn
	out  *frameWriter
	in   *bufio.Reader
	pid  int
	exe  string
	q    Request
	rule Rule
	uses []guard.Use
}

// Handler serves connections, at most MaxAtOnce at a time; those above are refused.
func (s *Server) Handler() broker.Handler {
	slots := make(chan struct{}, MaxAtOnce)
	return func(ctx context.Context, c net.Conn, host string, port int) {
		select {
		case slots <- struct{}{}:
			defer func() { <-slots }()
			s.serve(ctx, c)
		default:
			k := &call{s: s, conn: c, out: &frameWriter{w: c}}
			defer k.drain()
			k.refuse(guard.Decision{Rule: "guard exec", Reason: fmt.Sprintf("%d commands run already in this session", MaxAtOnce), NextSteps: []string{"wait for one of them to end"}})
		}
	}
}

func (s *Server) serve(ctx context.Context, c net.Conn) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	k := &call{s: s, conn: c, out: &frameWriter{w: c}, in: bufio.NewReaderSize(c, maxFrame)}
	defer k.drain()
	k.pid, k.exe = broker.Process(c)
	_ = c.SetReadDeadline(time.Now().Add(patience))
	if d := k.admit(); d.Action != guard.Pass {
		k.refuse(d)
		return
	}
	dir, err := os.MkdirTemp(s.Dir, "exec-")
	if err != nil {
		k.fail("a working folder could not be made")
		return
	}
	defer os.RemoveAll(dir)
	if err := k.inputs(dir); err != nil {
		k.refuse(guard.Decision{Rule: k.rule.Name, Reason: err.Error(), NextSteps: []string{"send the files that the rule names, and no others"}})
		return
	}
	_ = c.SetReadDeadline(time.Time{})
	k.run(ctx, cancel, dir)
}

// drain takes what a client sends that was answered already: closing before that
// would take the answer away from it.
func (k *call) drain() {
	broker.CloseWrite(k.conn)
	_ = k.conn.SetReadDeadline(time.Now().Add(10 * time.Second))
	_, _ = io.Copy(io.Discard, k.conn)
}

// admit reads the request and finds the rule for it.
func (k *call) admit() guard.Decision {
	no := func(rule, reason string, next ...string) guard.Decision {
		return guard.Decision{Action: guard.Block, Rule: rule, Reason: reason, NextSteps: next}
	}
	s := k.s
	if s.Rules == nil || s.Credentials == nil || s.Use == nil || s.Open == nil || s.Hash == nil || s.Start == nil || s.Dir == "" {
		return no("guard exec", "guard exec is not set up in this session")
	}
	buf := make([]byte, maxFrame)
	kind, p, err := readFrame(k.in, buf)
	if err != nil || kind != frameRequest || json.Unmarshal(p, &k.q) != nil || len(k.q.Argv) == 0 || len(k.q.Argv) > maxArgs || len(k.q.Outputs) > maxOutputs {
		return no("guard exec", "the request is not one that this version of guard understands", "use guard exec of the same version")
	}
	rules, err := s.Rules()
	if err != nil {
		return no("guard exec", "the list of commands could not be read", "tell the user: guard exec ls")
	}
	i := slices.IndexFunc(rules, func(r Rule) bool { return r.Check() == nil && r.Match(k.q) })
	if i < 0 {
		return no("no command of that kind", "no command that the user allowed has this program, these credentials and these arguments",
			"ask the user to allow it, outside of the session: guard exec allow NAME --with CREDENTIAL -- PROGRAM ARGUMENTS",
			"guard exec ls, outside of the session, shows what is allowed")
	}
	k.rule = rules[i]
	creds := s.Credentials()
	for _, n := range k.rule.Names() {
		j := slices.IndexFunc(creds, func(c guard.Credential) bool { return c.Name == n })
		if j < 0 || creds[j].Decoy {
			return no(k.rule.Name, "there is no credential "+n+" in this context", "tell the user")
		}
		k.uses = append(k.uses, guard.Use{
			Session: s.Session, Credential: creds[j], Channel: guard.ChannelExec, Action: "exec:run", Resource: k.rule.Name,
			Path: k.rule.Path, PID: k.pid, Exe: k.exe, At: time.Now(),
		})
	}
	if err := k.rule.verify(s.Hash); err != nil {
		return no(k.rule.Name, err.Error(), "tell the user: look at the program, then guard exec allow "+k.rule.Name+" again")
	}
	return guard.Decision{Action: guard.Pass}
}

// refuse tells the client and the log that nothing is run.
func (k *call) refuse(d guard.Decision) {
	u := guard.Use{Session: k.s.Session, Channel: guard.ChannelExec, Action: "exec:run", PID: k.pid, Exe: k.exe, At: time.Now()}
	if len(k.uses) > 0 {
		u = k.uses[0]
	} else if k.s.Credentials != nil {
		for _, c := range k.s.Credentials() {
			if slices.Contains(k.q.With, c.Name) {
				u.Credential = c
				break
			}
		}
	}
	d.Action = guard.Block
	d.Secret = u.Credential.ID()
	if k.s.Refused != nil {
		k.s.Refused(u, d)
	}
	k.tell(u.Credential.Name, d)
}

// tell sends a refusal that is recorded already.
func (k *call) tell(credential string, d guard.Decision) {
	program := ""
	if len(k.q.Argv) > 0 {
		program = k.q.Argv[0]
	}
	_ = k.out.json(frameRefusal, Refusal{ // a client that is gone needs no answer
		Error: "guard_denied", Refusal: broker.Refusal{Layer: "exec", Credential: credential, Method: "exec", Path: program,
			Rule: d.Rule, Reason: d.Reason, NextSteps: d.NextSteps, RequestID: broker.RequestID(d)},
	})
}

func (k *call) fail(reason string) {
	k.refuse(guard.Decision{Rule: "guard exec", Reason: reason, NextSteps: []string{"tell the user; guard doctor says what is missing"}})
}

// inputs writes what the client sends into dir, as plain files.
func (k *call) inputs(dir string) error {
	root, err := os.OpenRoot(dir)
	if err != nil {
		return errors.New("the working folder could not be opened")
	}
	defer root.Close()
	frames := &frameReader{r: k.in, kind: frameInput, end: frameInputs, buf: make([]byte, maxFrame)}
	err = unpack(root, frames, k.rule.Inputs, 0o600)
	if err == nil {
		err = frames.drain()
	}
	return err
}

// unpack writes the files of an archive below root. Only plain files whose names
// patterns match are let in.
func unpack(root *os.Root, r io.Reader, patterns []string, mode os.FileMode) error {
	t := tar.NewReader(r)
	var total int64
	for n := 0; ; n++ {
		h, err := t.Next()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return errors.New("the files that were sent are not an archive")
		}
		if h.Typeflag != tar.TypeReg || !allowed(patterns, h.Name) || !plainName(h.Name) {
			return fmt.Errorf("the file %q is not among those that the rule names", h.Name)
		}
		if total += h.Size; n >= maxFiles || h.Size < 0 || total > maxInputs {
			return fmt.Errorf("more than %d files or %d MiB", maxFiles, maxInputs>>20)
		}
		if i := strings.LastIndexByte(h.Name, '/'); i > 0 {
			if err := root.MkdirAll(h.Name[:i], 0o700); err != nil {
				return fmt.Errorf("the folder of %q could not be made", h.Name)
			}
		}
		f, err := root.OpenFile(h.Name, os.O_WRONLY|os.O_CREATE|os.O_EXCL, mode)
		if err != nil {
			return fmt.Errorf("the file %q could not be made: is it there twice?", h.Name)
		}
		_, err = io.Copy(f, t)
		if err = errors.Join(err, f.Close()); err != nil {
			return fmt.Errorf("the file %q could not be written", h.Name)
		}
	}
}

// frameReader reads the bytes of frames of one kind, until that which ends them.
type frameReader struct {
	r         io.Reader
	kind, end byte
	buf, p    []byte
	done      bool
}

func (f *frameReader) Read(p []byte) (int, error) {
	for len(f.p) == 0 {
		if f.done {
			return 0, io.EOF
		}
		kind, b, err := readFrame(f.r, f.buf)
		switch {
		case err != nil:
			return 0, io.ErrUnexpectedEOF
		case kind == f.end:
			f.done = true
		case kind == f.kind:
			f.p = b
		default:
			return 0, errFrame
		}
	}
	n := copy(p, f.p)
	f.p = f.p[n:]
	return n, nil
}

// drain reads up to the end: an archive may be followed by zeros.
func (f *frameReader) drain() error {
	_, err := io.Copy(io.Discard, f)
	return err
}

// run takes the values and runs the command with them.
func (k *call) run(ctx context.Context, cancel context.CancelFunc, dir string) {
	timeout := k.rule.Timeout
	if timeout == 0 {
		timeout = Timeout
	}
	ctx, stop := context.WithTimeout(ctx, timeout)
	defer stop()

	job := Job{Path: k.rule.Path, Args: k.q.Argv[1:], Env: slices.Clone(k.rule.Set), Dir: dir, Hosts: slices.Clone(k.rule.Hosts)}
	for _, u := range k.uses {
		job.Hosts = append(job.Hosts, u.Credential.Hosts...)
	}
	var ended Exit
	d, err := k.with(&job, 0, func() (string, error) {
		var err error
		ended, err = k.start(ctx, cancel, job)
		if err != nil {
			return "failed", err
		}
		return fmt.Sprintf("exit status %d", ended.Code), nil
	})
	switch {
	case errors.Is(err, broker.ErrRefused):
		var inner *innerError
		if errors.As(err, &inner) {
			d = inner.d
		}
		k.tell(d.Secret.Name, d) // the use line has recorded it
		return
	case errors.Is(err, broker.ErrStopped):
		k.refuse(guard.Decision{Rule: "leak", Reason: "the command's output holds a secret", NextSteps: []string{"the command was ended: tell the user"}})
		return
	case err != nil:
		k.fail(err.Error())
		return
	}
	if errors.Is(ctx.Err(), context.DeadlineExceeded) {
		ended.Reason = "it ran longer than " + timeout.String()
	}
	if err := k.outputs(dir); err != nil {
		ended.Reason = err.Error()
		if ended.Code == 0 {
			ended.Code = 1
		}
	}
	os.RemoveAll(dir)                // a command that has ended leaves nothing
	_ = k.out.json(frameExit, ended) // a client that is gone needs no answer
}

// with takes the values one inside the other, so that each is there for as long
// as the command runs and no longer.
func (k *call) with(job *Job, i int, run func() (string, error)) (guard.Decision, error) {
	var outcome string
	return k.s.Use(k.uses[i], func(v guard.Secret) (string, error) {
		plain := v.Reveal()
		if slices.Contains(plain, 0) {
			return "failed", fmt.Errorf("%s holds a zero byte, which neither a variable nor a line can", k.uses[i].Credential.Name)
		}
		for _, p := range k.rule.With {
			switch {
			case p.Credential != k.uses[i].Credential.Name:
			case p.File:
				name := FileDir + "/" + p.Env
				content := slices.Clone(plain)
				defer clear(content)
				job.Files = append(job.Files, File{Path: name, Content: content})
				job.Env = append(job.Env, p.Env+"="+name)
			default:
				job.Env = append(job.Env, p.Env+"="+string(plain))
			}
		}
		if i+1 < len(k.uses) {
			d, err := k.with(job, i+1, run)
			if errors.Is(err, broker.ErrRefused) {
				return "not run: " + d.Secret.Name + " was refused", &innerError{d, err}
			}
			outcome = "exit"
			return outcome, err
		}
		var err error
		outcome, err = run()
		return outcome, err
	})
}

// innerError is a refusal of a credential that was asked for second.
type innerError struct {
	d guard.Decision
	error
}

func (e *innerError) Unwrap() error { return e.error }

// start runs job, and moves bytes between it and the client.
func (k *call) start(ctx context.Context, cancel context.CancelFunc, job Job) (Exit, error) {
	var ours, theirs [3]*os.File
	defer func() {
		for _, f := range slices.Concat(ours[:], theirs[:]) {
			if f != nil {
				f.Close()
			}
		}
	}()
	for i := range 3 {
		r, w, err := os.Pipe()
		if err != nil {
			return Exit{}, errors.New("no pipe could be made for the command")
		}
		ours[i], theirs[i] = r, w
		if i == 0 {
			ours[i], theirs[i] = w, r
		}
	}
	job.Stdin, job.Stdout, job.Stderr = theirs[0], theirs[1], theirs[2]
	signals := make(chan syscall.Signal, 8)
	job.Signals = signals

	var out, fed sync.WaitGroup
	var leaks [2]error
	for i, kind := range []byte{frameStdout, frameStderr} {
		f := k.s.Open(guard.Origin{Channel: guard.ChannelExec, Source: "broker", PID: k.pid, Exe: k.rule.Path, Path: k.rule.Name})
		out.Go(func() {
			if leaks[i] = broker.Send(k.out.as(kind), ours[i+1], f); leaks[i] != nil {
				cancel()                              // nobody gets what it writes
				_, _ = io.Copy(io.Discard, ours[i+1]) // it is ended; what it wrote meanwhile goes nowhere
			}
		})
	}
	feed := make(chan []byte)
	feeding, cancelFeed := context.WithCancel(ctx)
	defer cancelFeed()
	fed.Go(func() {
		for p := range feed {
			if len(p) == 0 { // the client's input ends here
				break
			}
			if _, err := ours[0].Write(p); err != nil {
				break
			}
		}
		ours[0].Close()
		for range feed { // the command reads no more
		}
	})
	fed.Go(func() {
		defer close(feed)
		k.listen(feeding, cancel, feed, signals)
	})

	code, err := k.s.Start(ctx, job)
	for _, f := range theirs {
		f.Close()
	}
	out.Wait()
	// Whoever waits for the client, or for the command to read, waits no longer.
	_ = k.conn.SetReadDeadline(time.Now())
	ours[0].SetWriteDeadline(time.Now())
	cancelFeed()
	fed.Wait()
	for _, l := range leaks {
		if errors.Is(l, broker.ErrStopped) {
			return Exit{}, l
		}
	}
	if err != nil {
		return Exit{}, fmt.Errorf("%s could not be run: %w", k.rule.Path, err)
	}
	return Exit{Code: code}, nil
}

// listen takes what the client sends while the command runs. A client that goes
// away takes the command with it.
func (k *call) listen(ctx context.Context, cancel context.CancelFunc, feed chan<- []byte, signals chan<- syscall.Signal) {
	buf := make([]byte, maxFrame)
	open := true
	for {
		kind, p, err := readFrame(k.in, buf)
		if err != nil {
			if !errors.Is(err, os.ErrDeadlineExceeded) {
				cancel()
			}
			return
		}
		switch {
		case kind == frameStdin && open && len(p) > 0:
			select {
			case feed <- slices.Clone(p):
			case <-ctx.Done():
				return
			}
		case kind == frameEOF && open:
			open = false
			select {
			case feed <- nil:
			case <-ctx.Done():
				return
			}
		case kind == frameSignal && len(p) == 1 && (p[0] == 1 || p[0] == 2 || p[0] == 15):
			select {
			case signals <- syscall.Signal(p[0]):
			default: // eight wait already
			}
		default:
			cancel()
			return
		}
	}
}
