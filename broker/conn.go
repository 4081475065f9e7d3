package broker

import (
	"bufio"
	"bytes"
	"errors"
	"io"
	"net"
	"net/netip"
	"time"
)

// Dester is a connection that knows where its client wanted to go.
type Dester interface{ Dst() netip.AddrPort }

// Processer is a connection that knows which process opened it; pid is in the
// host's pid namespace, 0 where unknown.
type Processer interface{ Process() (pid int, exe string) }

// unwrap calls f on c and on what c wraps (NetConn, as tls.Conn names it)
// until f says true.
func unwrap(c net.Conn, f func(net.Conn) bool) bool {
	for c != nil {
		if f(c) {
			return true
		}
		w, ok := c.(interface{ NetConn() net.Conn })
		if !ok {
			return false
		}
		c = w.NetConn()
	}
	return false
}

// Dst returns the original destination of c.
func Dst(c net.Conn) (dst netip.AddrPort, ok bool) {
	ok = unwrap(c, func(c net.Conn) bool {
		d, is := c.(Dester)
		if is {
			dst = d.Dst()
			dst = netip.AddrPortFrom(dst.Addr().Unmap(), dst.Port())
		}
		return is
	})
	return dst, ok
}

// Process returns the process that opened c: 0 and "" where nobody knows.
func Process(c net.Conn) (pid int, exe string) {
	unwrap(c, func(c net.Conn) bool {
		p, is := c.(Processer)
		if is {
			pid, exe = p.Process()
		}
		return is
	})
	return pid, exe
}

// PeekConn is a connection whose next bytes can be looked at.
type PeekConn struct {
	net.Conn
	r    *bufio.Reader // nil: nothing was looked at that was not read
	keep bool          // r has more in it than Conn
}

// Peekable wraps c, once.
func Peekable(c net.Conn) *PeekConn {
	if p, ok := c.(*PeekConn); ok {
		return p
	}
	return &PeekConn{Conn: c}
}

// Preload wraps c and puts buffered, which was read from c already, in front.
func Preload(c net.Conn, buffered []byte) *PeekConn {
	b := append([]byte(nil), buffered...)
	return &PeekConn{Conn: c, r: bufio.NewReaderSize(io.MultiReader(&onceReader{b}, c), 4096), keep: true}
}

type onceReader struct{ b []byte }

func (o *onceReader) Read(p []byte) (int, error) {
	if len(o.b) == 0 {
		return 0, io.EOF
	}
	n := copy(p, o.b)
	o.b = o.b[n:]
	return n, nil
}

// Read gives what was looked at first. Then the buffer goes: most connections are
// looked at once, and idle for long.
func (p *PeekConn) Read(b []byte) (int, error) {
	if p.r != nil && !p.keep && p.r.Buffered() == 0 {
		p.r = nil
	}
	if p.r == nil {
		return p.Conn.Read(b)
	}
	return p.r.Read(b)
}

// NetConn returns the wrapped connection.
func (p *PeekConn) NetConn() net.Conn { return p.Conn }

// Peek returns up to n of the next bytes without taking them. It waits for the
// first byte for at most wait (0: as long as it takes) and returns
// os.ErrDeadlineExceeded then; the connection stays usable.
func (p *PeekConn) Peek(n int, wait time.Duration) ([]byte, error) {
	if wait > 0 {
		p.SetReadDeadline(time.Now().Add(wait))
		defer p.SetReadDeadline(time.Time{})
	}
	if p.r == nil {
		p.r = bufio.NewReaderSize(p.Conn, 4096)
	}
	b, err := p.r.Peek(1)
	if err != nil {
		return nil, err
	}
	if m := p.r.Buffered(); m < n {
		n = m
	}
	b, err = p.r.Peek(n)
	if err != nil && !errors.Is(err, bufio.ErrBufferFull) {
		return nil, err
	}
	return b, nil
}

// speaks says whether what comes first is a whole line of an HTTP request, or the
// head of a TLS client's hello. It waits for more of what may be one of these for at
// most wait each time, and takes nothing.
func (p *PeekConn) speaks(wait time.Duration) bool {
	for {
		b, _ := p.r.Peek(p.r.Buffered())
		is, more := opening(b)
		if is || !more || len(b) >= 4096 {
			return is
		}
		p.SetReadDeadline(time.Now().Add(wait))
		_, err := p.r.Peek(len(b) + 1)
		p.SetReadDeadline(time.Time{})
		if err != nil {
			return false
		}
	}
}

// opening says whether b begins with the line of an HTTP request (RFC 9112, 3), the
// preface of HTTP/2, or a TLS record with a client's hello (RFC 8446, 4 and 5.1); more
// says that it may, when more comes.
func opening(b []byte) (is, more bool) {
	if len(b) == 0 {
		return false, true
	}
	if b[0] == 0x16 {
		for i, ok := range []func(byte) bool{func(c byte) bool { return c == 3 }, func(c byte) bool { return c <= 4 }, func(byte) bool { return true }, func(byte) bool { return true }, func(c byte) bool { return c == 1 }} {
			if i+1 >= len(b) {
				return false, true
			}
			if !ok(b[i+1]) {
				return false, false
			}
		}
		return true, false
	}
	line, _, whole := bytes.Cut(b, []byte("\n"))
	method, rest, spaced := bytes.Cut(line, []byte(" "))
	for _, c := range method {
		if c < 'A' || c > 'Z' {
			return false, false
		}
	}
	if len(method) == 0 || len(method) > 32 {
		return false, false
	}
	if !whole {
		return false, true
	}
	version := bytes.TrimSuffix(rest[bytes.LastIndexByte(rest, ' ')+1:], []byte("\r"))
	return spaced && (string(version) == "HTTP/1.1" || string(version) == "HTTP/1.0" || string(version) == "HTTP/2.0"), false
}

// CloseWrite ends the sending direction, where the connection can.
func (p *PeekConn) CloseWrite() error { return CloseWrite(p.Conn) }

// CloseWrite ends the sending direction of c, and does nothing where c cannot.
func CloseWrite(c net.Conn) error {
	if h, ok := c.(interface{ CloseWrite() error }); ok {
		return h.CloseWrite()
	}
	return nil
}
