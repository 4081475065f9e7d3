package ssh

import (
	"context"
	"encoding/binary"
	"errors"
	"io"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	xssh "golang.org/x/crypto/ssh"

	"guard"
	"guard/broker"
)

// sessionChannel is one command, shell or subsystem (RFC 4254, section 6).
type sessionChannel struct {
	*gate
	ch xssh.Channel
}

// before is a request that comes before the command and is passed on with it.
type before struct {
	typ     string
	payload []byte
}

// serve waits for the command, and runs it at the server.
func (s *sessionChannel) serve(ctx context.Context, reqs <-chan *xssh.Request) {
	defer s.ch.Close()
	var early []before
	for r := range reqs {
		switch r.Type {
		case "env", "pty-req", "window-change":
			if len(early) < maxBefore {
				early = append(early, before{r.Type, r.Payload})
			}
			answer(r, len(early) < maxBefore)
		case "auth-agent-req@openssh.com":
			s.refuse(s.use(actConnect), refusal("ssh forwarded", "the agent was to be forwarded to another machine, which could then log in as you", "connect without -A (ForwardAgent no)"))
			answer(r, false)
		case "exec", "shell", "subsystem":
			s.run(ctx, r, reqs, early)
			return
		default: // x11-req and what nobody knows
			answer(r, false)
		}
	}
}

func answer(r *xssh.Request, ok bool) {
	if r.WantReply {
		_ = r.Reply(ok, nil)
	}
}

// run runs what r asks for.
func (s *sessionChannel) run(ctx context.Context, r *xssh.Request, reqs <-chan *xssh.Request, early []before) {
	command := ""
	if r.Type != "shell" {
		p := reader{b: r.Payload}
		command = string(p.string())
		if !p.end() {
			answer(r, false)
			return
		}
	}
	said := []string{s.user, command}
	for _, e := range early {
		said = append(said, string(e.payload))
	}
	if u := s.use(actConnect); !s.clean(u, said...) {
		answer(r, true)
		s.sorry(u, s.leak(u))
		return
	}
	pick := s.login
	var git gitCommand
	if r.Type == "exec" {
		var d *guard.Decision
		if git, d = parseGit(command); d != nil {
			u := s.use(actConnect)
			answer(r, true)
			s.refuse(u, *d)
			s.sorry(u, *d)
			return
		}
		if git.name != "" {
			pick = func(c guard.Credential) guard.Use { return s.gitUse(c, git) }
		}
	}
	up, u, d := s.dial(ctx, pick)
	if d != nil {
		answer(r, true)
		s.sorry(u, *d)
		return
	}
	defer up.Close()
	there, theirs, err := up.OpenChannel("session", nil)
	if err != nil {
		answer(r, false)
		return
	}
	for _, e := range early {
		if _, err := there.SendRequest(e.typ, false, e.payload); err != nil {
			answer(r, false)
			return
		}
	}
	ok, err := there.SendRequest(r.Type, true, r.Payload)
	answer(r, ok && err == nil)
	if !ok || err != nil {
		return
	}
	rel := &relay{here: s.ch, there: there, errors: true, filter: s.filter(s.origin(u))}
	if git.push() {
		rel.push = func() bool { return s.push(rel, u) }
	}
	stop := context.AfterFunc(ctx, rel.close)
	defer stop()
	defer rel.wg.Wait()
	defer rel.close()
	rel.wg.Go(func() { pass(there, reqs, false); rel.close() }) // the client has closed
	rel.status = make(chan struct{})
	rel.wg.Go(func() { defer close(rel.status); pass(s.ch, theirs, true) })
	if rel.run() {
		s.sorry(u, s.leak(u))
	}
}

// signals are the names of RFC 4254, section 6.10.
var signals = []string{"ABRT", "ALRM", "FPE", "HUP", "ILL", "INT", "KILL", "PIPE", "QUIT", "SEGV", "TERM", "USR1", "USR2", "INFO"}

// pass passes requests on. Of those from a server only what tells of the command's end
// is one that a client has to believe.
func pass(to xssh.Channel, reqs <-chan *xssh.Request, server bool) {
	for r := range reqs {
		known := false
		switch r.Type {
		case "exit-status", "exit-signal":
			known = server
		case "window-change", "break":
			known = !server
		case "signal": // a name, which must be one of a signal (RFC 4254, section 6.10)
			p := reader{b: r.Payload}
			known = !server && slices.Contains(signals, string(p.string())) && p.end()
		case "eow@openssh.com":
			known = true
		}
		ok := false
		if known {
			ok, _ = to.SendRequest(r.Type, r.WantReply, r.Payload)
		}
		answer(r, ok)
	}
}

// sorry tells the client what was refused, on its standard error, with exit status 1.
func (s *sessionChannel) sorry(u guard.Use, d guard.Decision) {
	_, _ = s.ch.Stderr().Write(explain(u, d))
	_ = s.ch.CloseWrite()
	_, _ = s.ch.SendRequest("exit-status", false, binary.BigEndian.AppendUint32(nil, 1))
}

// relay moves bytes between the client's channel and the server's. What the client
// sends goes through filter, or is a push.
type relay struct {
	here, there xssh.Channel
	errors      bool // there is a standard error
	filter      guard.Filter
	push        func() (told bool) // serves the client's direction; told: it was refused, and the client knows
	status      chan struct{}      // closed after the server's last request; nil: there is none

	wg     sync.WaitGroup // of what ends when the channels are closed
	once   sync.Once
	back   sync.WaitGroup // of what comes from the server
	over   atomic.Bool    // the server is done
	halted atomic.Bool    // since guard ended it
}

// close ends both channels.
func (r *relay) close() {
	r.once.Do(func() { r.here.Close(); r.there.Close() })
}

// halt ends the server's channel, and waits until nothing of it is on its way.
func (r *relay) halt() {
	r.halted.Store(true)
	r.there.Close()
	r.back.Wait()
}

// run returns when both directions are done. What the client sent was stopped: it has to be
// told, its channel is open. The caller calls close and waits for wg.
func (r *relay) run() (stopped bool) {
	from := io.Reader(r.there)
	if r.push != nil {
		from = noThin(r.there)
	}
	r.back.Go(func() { _, _ = io.Copy(r.here, from) })
	if r.errors {
		r.back.Go(func() { _, _ = io.Copy(r.here.Stderr(), r.there.Stderr()) })
	}
	sent := make(chan error, 1)
	r.wg.Go(func() { sent <- r.send() })
	ended := make(chan struct{})
	r.wg.Go(func() {
		r.back.Wait()
		if r.status != nil {
			<-r.status
		}
		r.over.Store(true)
		close(ended)
	})
	select {
	case <-ended:
		if !r.halted.Load() {
			r.close() // what the client has not sent yet, nobody would read
		}
		<-sent
	case err := <-sent:
		if stopped = errors.Is(err, broker.ErrStopped); stopped {
			r.halt()
		}
		<-ended
	}
	return stopped
}

func (r *relay) send() error {
	if r.push != nil {
		r.push()
		return nil
	}
	err := r.copy(r.there, r.here, r.filter)
	if err == nil {
		_ = r.there.CloseWrite()
	}
	return err
}

// copy copies src to dst through f until src ends, and pauses f when nothing comes
// for a moment, as broker.Send does for what has a read deadline.
func (r *relay) copy(dst io.Writer, src io.Reader, f guard.Filter) error {
	type chunk struct {
		b   []byte
		err error
	}
	chunks, free := make(chan chunk), make(chan []byte, 2)
	free <- make([]byte, 64<<10)
	free <- make([]byte, 64<<10)
	gone := make(chan struct{})
	defer close(free)
	defer close(gone)
	r.wg.Go(func() { // ends with src
		for b := range free {
			n, err := src.Read(b)
			select {
			case chunks <- chunk{b[:n], err}:
			case <-gone:
				return
			}
			if err != nil {
				return
			}
		}
	})
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
			return broker.ErrStopped
		}
		return nil
	}
	idle := time.NewTimer(time.Hour)
	defer idle.Stop()
	for {
		if held > 0 && !paused {
			idle.Reset(broker.Idle)
		} else {
			idle.Stop()
		}
		select {
		case c := <-chunks:
			paused = false
			if len(c.b) > 0 {
				if err := put(c.b, guard.More); err != nil {
					return err
				}
			}
			switch {
			case c.err == nil:
				free <- c.b[:cap(c.b)]
			case errors.Is(c.err, io.EOF):
				return put(nil, guard.End)
			default:
				return c.err
			}
		case <-idle.C:
			paused = true
			if err := put(nil, guard.Pause); err != nil {
				return err
			}
		}
	}
}
