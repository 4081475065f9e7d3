package broker

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"strconv"
	"strings"
	"sync"
	"time"

	"guard"
)

// silence is how long a client may keep a connection on which it never said
// anything.
const silence = 10 * time.Minute

// Handler serves one connection until its end. host is the name that the
// client asked for, or an address in text form; "" and 0 for a client of the
// explicit proxy. The Server closes c afterwards.
type Handler func(ctx context.Context, c net.Conn, host string, port int)

// Server takes the sandbox's connections and hands each to the handler of its
// protocol: a registered host:port first, then HTTP and TLS, then opaque bytes
// where the egress policy lists the destination.
type Server struct {
	// Listeners are the sandbox's; their connections are Dester and, where
	// known, Processer. Serve closes them.
	Listeners []net.Listener
	// Name finds the name of a synthetic address (dns.Table.Name).
	Name func(netip.Addr) (string, bool)
	// Synthetic says which addresses are synthetic: such an address without a
	// name is refused. Optional.
	Synthetic func(netip.Addr) bool
	// Handlers are the credential-bound protocols, by "host:port", in canonical form,
	// or "*.suffix:port".
	Handlers map[string]Handler
	// HTTP serves TLS, HTTP and clients of the explicit proxy.
	HTTP Handler
	// Egress and Open serve opaque connections; nil refuses them.
	Egress *Egress
	Open   guard.OpenFilter
	// Watch looks on at an opaque connection: what it returns is used in the place
	// of up; optional.
	Watch func(up net.Conn, host string, port int) net.Conn
	// Quiet is how long a client of a listed opaque port may say nothing before
	// the server is given the first word; 300 ms where it is 0.
	Quiet time.Duration
}

// Serve runs until ctx ends and returns when every connection is done. It
// closes them.
func (s *Server) Serve(ctx context.Context) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	var (
		wg    sync.WaitGroup
		mu    sync.Mutex
		first error
		conns = map[net.Conn]struct{}{}
	)
	for _, l := range s.Listeners {
		wg.Go(func() {
			defer cancel()
			err := s.accept(ctx, l, func(c net.Conn) {
				mu.Lock()
				conns[c] = struct{}{}
				mu.Unlock()
				wg.Go(func() {
					defer func() {
						c.Close()
						mu.Lock()
						delete(conns, c)
						mu.Unlock()
					}()
					s.serve(ctx, c, l.Addr())
				})
			})
			mu.Lock()
			if first == nil {
				first = err
			}
			mu.Unlock()
		})
	}
	<-ctx.Done()
	for _, l := range s.Listeners {
		l.Close()
	}
	// A connection accepted in between is closed by the next round.
	done := make(chan struct{})
	go func() { wg.Wait(); close(done) }()
	for wait := 100 * time.Microsecond; ; wait = min(2*wait, 10*time.Millisecond) {
		mu.Lock()
		for c := range conns {
			c.Close()
		}
		mu.Unlock()
		select {
		case <-done:
			return first
		case <-time.After(wait):
		}
	}
}

func (s *Server) accept(ctx context.Context, l net.Listener, start func(net.Conn)) error {
	for wait := time.Duration(0); ; {
		c, err := l.Accept()
		if err == nil {
			wait = 0
			start(c)
			continue
		}
		if ctx.Err() != nil {
			return nil
		}
		if errors.Is(err, net.ErrClosed) {
			return fmt.Errorf("accept from the sandbox: %w", err)
		}
		wait = min(max(2*wait, 5*time.Millisecond), time.Second) // out of descriptors, or a connection that died in the queue
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(wait):
		}
	}
}

func (s *Server) serve(ctx context.Context, c net.Conn, listener net.Addr) {
	dst, ok := Dst(c)
	if !ok || !dst.IsValid() {
		return
	}
	if own, ok := listener.(*net.TCPAddr); ok && dst.Addr().IsLoopback() && int(dst.Port()) == own.Port {
		if s.HTTP != nil {
			s.HTTP(ctx, c, "", 0)
		}
		return
	}
	host := dst.Addr().String()
	if s.Name != nil {
		if n, ok := s.Name(dst.Addr()); ok {
			host = n
		} else if s.Synthetic != nil && s.Synthetic(dst.Addr()) {
			return // a name that nobody asked for
		}
	}
	s.Dispatch(ctx, c, host, int(dst.Port()))
}

// Dispatch serves a connection whose destination is known; the explicit proxy
// calls it for its tunnels. It returns when the connection is done.
func (s *Server) Dispatch(ctx context.Context, c net.Conn, host string, port int) {
	host = CanonicalHost(host)
	if h := s.handler(host, strconv.Itoa(port)); h != nil {
		h(ctx, c, host, port)
		return
	}
	quiet := s.Quiet
	if quiet == 0 {
		quiet = 300 * time.Millisecond
	}
	p := Peekable(c)
	head, err := p.Peek(8, quiet)
	if errors.Is(err, os.ErrDeadlineExceeded) {
		if s.opaqueAllowed(host, port) {
			s.opaque(ctx, p, host, port) // the server speaks first
			return
		}
		head, err = p.Peek(8, silence)
	}
	if err == nil && s.opaqueAllowed(host, port) {
		// Whatever may be spoken here: only what is HTTP or TLS for sure is taken for it.
		if s.HTTP != nil && p.speaks(quiet) {
			s.HTTP(ctx, p, host, port)
			return
		}
		s.opaque(ctx, p, host, port)
		return
	}
	switch {
	case err != nil:
	case isTLS(head) || isHTTP(head) || port == 80 && isRequest(head):
		if s.HTTP != nil {
			s.HTTP(ctx, p, host, port)
		}
	default:
		s.opaque(ctx, p, host, port)
	}
}

// handler finds what speaks for host: its own, or that of the longest suffix.
func (s *Server) handler(host, port string) Handler {
	h := s.Handlers[net.JoinHostPort(host, port)]
	for rest := host; h == nil; {
		i := strings.IndexByte(rest, '.')
		if i < 0 {
			return nil
		}
		rest = rest[i+1:]
		h = s.Handlers["*."+rest+":"+port]
	}
	return h
}

func (s *Server) opaqueAllowed(host string, port int) bool {
	return s.Egress != nil && s.Egress.Decide != nil && s.Egress.Decide(host, port, "tcp").Allowed()
}

func (s *Server) opaque(ctx context.Context, c net.Conn, host string, port int) {
	if s.Open == nil || s.Egress == nil {
		return
	}
	up, err := s.Egress.Dial(ctx, host, port)
	if err != nil {
		return
	}
	defer func() { up.Close() }()
	pid, exe := Process(c)
	f := s.Open(guard.Origin{Channel: guard.ChannelSocket, Source: "broker", PID: pid, Exe: exe, Host: host, Port: port})
	if s.Watch != nil {
		up = s.Watch(up, host, port)
	}
	Pipe(ctx, c, up, f)
}

// isTLS says whether b starts a TLS handshake record (RFC 8446, 5.1).
func isTLS(b []byte) bool { return len(b) >= 1 && b[0] == 0x16 && (len(b) < 2 || b[1] == 3) }

// isRequest says whether b may start an HTTP/1 request with a method that
// nobody knows, which is then refused in words.
func isRequest(b []byte) bool {
	if i := bytes.IndexByte(b, ' '); i >= 0 {
		b = b[:i]
	}
	for _, c := range b {
		if c <= ' ' || c >= 0x7f || bytes.IndexByte([]byte("()<>@,;:\\\"/[]?={}"), c) >= 0 {
			return false
		}
	}
	return len(b) > 0
}

// isHTTP says whether b may start an HTTP/1 request or the HTTP/2 preface: a
// method in capitals, up to a space.
func isHTTP(b []byte) bool {
	if i := bytes.IndexByte(b, ' '); i >= 0 {
		b = b[:i]
	}
	for _, m := range []string{"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "CONNECT", "TRACE", "TRACK", "PRI", "PROPFIND", "REPORT", "MKCOL", "COPY", "MOVE", "LOCK", "UNLOCK", "SEARCH", "PROPPATCH"} {
		if len(b) > 0 && (bytes.HasPrefix([]byte(m), b) || len(b) == 8 && bytes.HasPrefix(b, []byte(m[:min(8, len(m))]))) {
			return true
		}
	}
	return false
}
