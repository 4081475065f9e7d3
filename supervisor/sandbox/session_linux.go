package sandbox

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// session is the caller's side of a running stage 1.
type session struct {
	tier   Tier
	wire   *wire
	proc   *os.Process
	pid    int // of stage 1, in the caller's pid namespace
	agent  int // of the agent, likewise
	words  *os.File
	lock   *os.File // of HomeUpper
	owners owners   // of the agent's connections

	closers []func() error
	events  chan Event
	readers sync.WaitGroup // the goroutines that run starts

	mu    sync.Mutex
	next  int
	asked map[int]chan answer
	gone  bool // no answer will come any more

	closing sync.Once
	waited  sync.Once
}

// answer is what stage 1 says to a request: a descriptor, if it asked for one.
type answer struct {
	fd  int // or -1
	err error
}

// adopt turns the descriptors that stage 1 sent into sockets. It closes all of
// them if it fails.
func (sb *Sandbox) adopt(names []string, fds []int) error {
	if len(names) != len(fds) {
		closeAll(fds)
		return fmt.Errorf("%d descriptors came for %d names", len(fds), len(names))
	}
	var tcp []net.Listener
	sb.s.closers = append(sb.s.closers, sb.s.owners.diag.close)
	for i, name := range names {
		// Before NewFile, which looks at it. The terminal is waited for by package pty: in
		// Go's own poller as well, each write to it would wake a thread for nothing.
		err := unix.SetNonblock(fds[i], name != "pty")
		f := os.NewFile(uintptr(fds[i]), name)
		if name == "pty" && err == nil {
			sb.PTY = f
			sb.s.closers = append(sb.s.closers, f.Close)
			continue
		}
		if (name == diagName || name == natName) && err == nil {
			sb.s.owners.diag.take(name, f)
			continue
		}
		var l net.Listener
		switch {
		case err != nil:
		case name == "dnsudp":
			if sb.DNSUDP, err = net.FilePacketConn(f); err == nil {
				sb.s.closers = append(sb.s.closers, sb.DNSUDP.Close)
			}
		default:
			if l, err = net.FileListener(f); err == nil {
				sb.s.closers = append(sb.s.closers, l.Close)
			}
		}
		f.Close()
		if err != nil {
			closeAll(fds[i+1:])
			return fmt.Errorf("%s: %w", name, err)
		}
		port, isHost := strings.CutPrefix(name, "host:")
		switch {
		case isHost:
			if sb.HostPort == nil {
				sb.HostPort = map[int]net.Listener{}
			}
			n, _ := strconv.Atoi(port)
			sb.HostPort[n] = &listener{l, sb.s}
		case strings.HasPrefix(name, unixPrefix):
			if sb.Unix == nil {
				sb.Unix = map[string]net.Listener{}
			}
			sb.Unix[strings.TrimPrefix(name, unixPrefix)] = &unixListener{l, sb.s}
		case name == "dnstcp":
			sb.DNSTCP = &listener{l, sb.s}
		case name == "tcp":
			tcp = append(tcp, &listener{l, sb.s})
		}
	}
	if len(tcp) == 1 {
		sb.TCP = tcp[0]
	} else if len(tcp) > 1 {
		m := merge(tcp)
		sb.TCP = m
		sb.s.closers = append(sb.s.closers, m.Close)
	}
	return nil
}

// findAgent looks up the agent's process id: stage 1 has one child.
func (s *session) findAgent() (int, error) {
	if pids := children(s.pid); len(pids) > 0 {
		return pids[0], nil
	}
	return 0, nil // it ended already
}

// run starts the goroutine that reads from stage 1.
func (s *session) run() {
	// An agent can stop and continue without end, and nobody may be reading:
	// see post.
	s.events = make(chan Event, 16)
	s.asked = map[int]chan answer{}
	s.readers.Go(s.read)
}

func (s *session) read() {
	last := Event{Kind: Failed}
	for {
		m, fds, err := s.wire.recv()
		if err != nil {
			last.Err = s.death(errors.New("the sandbox ended without the agent's exit status"))
			break
		}
		switch m.Op {
		case "stopped":
			s.post(Event{Kind: Stopped, Signal: syscall.Signal(m.Signal)})
		case "continued":
			s.post(Event{Kind: Continued})
		case "exited":
			last = Event{Kind: Exited, Code: m.Code, Signal: syscall.Signal(m.Signal)}
		case "answer":
			a := answer{fd: -1}
			if m.Text != "" {
				a.err = m.err()
			} else if len(fds) == 1 {
				a.fd, fds = fds[0], nil
			}
			s.mu.Lock()
			ch := s.asked[m.ID]
			delete(s.asked, m.ID)
			s.mu.Unlock()
			if ch != nil {
				ch <- a
			} else if a.fd >= 0 {
				unix.Close(a.fd)
			}
		}
		closeAll(fds)
		if last.Kind == Exited {
			break
		}
	}
	s.mu.Lock()
	s.gone = true
	for id, ch := range s.asked {
		delete(s.asked, id)
		ch <- answer{-1, net.ErrClosed}
	}
	s.mu.Unlock()
	// Everything in the session is gone before anybody hears of its end.
	s.wait()
	s.post(last)
	close(s.events)
}

// post sends e, dropping the oldest event if nobody reads.
func (s *session) post(e Event) {
	for {
		select {
		case s.events <- e:
			return
		default:
		}
		select {
		case <-s.events:
		default:
		}
	}
}

// wait waits until stage 1 is gone, which in a pid namespace is the last
// process to go.
func (s *session) wait() {
	s.waited.Do(func() { s.proc.Wait() })
}

// Events tells what happens to the agent. The channel is closed after Exited
// or Failed; by then no process of the session is left. If nobody reads, only
// the latest 16 are kept.
func (s *Sandbox) Events() <-chan Event { return s.s.events }

// Pid is the agent's process id in the caller's pid namespace; 0 if it ended
// before that could be found out.
func (s *Sandbox) Pid() int { return s.s.agent }

// Signal sends sig to the process group in the terminal's foreground, or to
// the agent's. SIGCONT puts the agent in the foreground and continues it.
func (s *Sandbox) Signal(sig syscall.Signal) error {
	if err := s.s.wire.send(message{Op: "signal", Signal: int(sig)}); err != nil {
		return fmt.Errorf("signal the agent: %w", os.ErrProcessDone)
	}
	return nil
}

// Resize sets the terminal's size; its foreground process group gets SIGWINCH.
func (s *Sandbox) Resize(rows, cols uint16) error {
	if s.PTY == nil {
		return nil
	}
	c, err := s.PTY.SyscallConn()
	if err != nil {
		return err
	}
	if e := c.Control(func(fd uintptr) {
		err = unix.IoctlSetWinsize(int(fd), unix.TIOCSWINSZ, &unix.Winsize{Row: rows, Col: cols})
	}); e != nil {
		return e
	}
	return err
}

// Dial connects to a port that the agent listens on: on 127.0.0.1, else on ::1.
func (s *Sandbox) Dial(ctx context.Context, port int) (net.Conn, error) {
	if s.s.tier != Contained {
		var d net.Dialer
		return d.DialContext(ctx, "tcp", net.JoinHostPort("localhost", strconv.Itoa(port)))
	}
	c, err := s.s.dial(ctx, unix.AF_INET, &unix.SockaddrInet4{Port: port, Addr: [4]byte{127, 0, 0, 1}})
	if errors.Is(err, unix.ECONNREFUSED) {
		if c6, err6 := s.s.dial(ctx, unix.AF_INET6, &unix.SockaddrInet6{Port: port, Addr: [16]byte{15: 1}}); err6 == nil {
			return c6, nil
		}
	}
	if err != nil {
		return nil, fmt.Errorf("connect to port %d of the agent: %w", port, err)
	}
	return c, nil
}

// ask sends a request and waits for its answer; done, if not nil, ends that.
func (s *session) ask(done <-chan struct{}, m message) (fd int, err error) {
	ch := make(chan answer, 1)
	s.mu.Lock()
	if s.gone {
		s.mu.Unlock()
		return -1, net.ErrClosed
	}
	s.next++
	m.ID = s.next
	s.asked[m.ID] = ch
	s.mu.Unlock()
	if err := s.wire.send(m); err != nil {
		s.mu.Lock()
		delete(s.asked, m.ID)
		s.mu.Unlock()
		return -1, err
	}
	select {
	case a := <-ch:
		return a.fd, a.err
	case <-done:
	}
	s.mu.Lock()
	_, waiting := s.asked[m.ID]
	delete(s.asked, m.ID)
	s.mu.Unlock()
	if !waiting { // the answer is on its way
		if a := <-ch; a.fd >= 0 {
			unix.Close(a.fd)
		}
	}
	return -1, context.Canceled
}

func (s *session) dial(ctx context.Context, family int, to unix.Sockaddr) (net.Conn, error) {
	fd, err := s.ask(ctx.Done(), message{Op: "socket", Family: family})
	if ctx.Err() != nil && fd < 0 {
		return nil, ctx.Err()
	}
	if err == nil && fd < 0 {
		err = errors.New("no socket came")
	}
	if err != nil {
		return nil, err
	}
	f := os.NewFile(uintptr(fd), "dial")
	defer f.Close()
	// Loopback answers at once, unless the listener's queue is full.
	for {
		err := unix.Connect(fd, to)
		if err == nil || errors.Is(err, unix.EISCONN) {
			break
		}
		if !errors.Is(err, unix.EINPROGRESS) && !errors.Is(err, unix.EALREADY) && !errors.Is(err, unix.EINTR) {
			return nil, err
		}
		select {
		case <-ctx.Done():
			return nil, ctx.Err()
		case <-time.After(time.Millisecond):
		}
	}
	return net.FileConn(f)
}

// Close kills everything in the session, waits until it is gone, and closes
// all sockets. Calling it again does nothing.
func (s *Sandbox) Close() error {
	s.s.closing.Do(func() {
		stop := s.s.end()
		s.s.readers.Wait()
		stop()
		s.s.release()
	})
	return nil
}

// end makes stage 1 go. The caller calls stop when it went.
func (s *session) end() (stop func() bool) {
	if s.tier == Contained {
		s.proc.Kill()
		return func() bool { return true }
	}
	// Without a pid namespace stage 1 kills what descends from it. An agent of
	// the same uid may have stopped it: then it is done from here, where what
	// left the tree before is not found any more.
	s.wire.send(message{Op: "end"})
	return time.AfterFunc(grace, func() {
		for _, pid := range descendants(s.pid) {
			unix.Kill(pid, unix.SIGKILL)
		}
		s.proc.Kill()
	}).Stop
}

// grace is how long stage 1 may take to end a session without namespaces.
const grace = 3 * time.Second

// release gives back what is left of a session whose goroutines are done or
// never ran.
func (s *session) release() {
	if s.wire != nil {
		s.wire.close()
	}
	if s.proc != nil {
		if s.tier == Contained {
			s.proc.Kill()
		}
		s.wait()
	}
	for _, c := range s.closers {
		c()
	}
	for _, f := range []*os.File{s.words, s.lock} {
		if f != nil {
			f.Close()
		}
	}
}
