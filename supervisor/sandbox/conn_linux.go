package sandbox

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"sync"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// Conn is a connection that the agent made.
type Conn struct {
	*net.TCPConn
	dst netip.AddrPort
	s   *session
	at  time.Time // when it was accepted

	once sync.Once // of the rest
	pid  int
	exe  string
}

// Dst is where the agent wanted to connect to.
func (c *Conn) Dst() netip.AddrPort { return c.dst }

// listener makes *Conn of what it accepts.
type listener struct {
	net.Listener
	s *session
}

func (l *listener) Accept() (net.Conn, error) {
	c, err := l.Listener.Accept()
	if err != nil {
		return nil, err
	}
	t, ok := c.(*net.TCPConn)
	if !ok {
		c.Close()
		return nil, fmt.Errorf("accepted a %T", c)
	}
	return &Conn{TCPConn: t, dst: originalDst(t), s: l.s, at: time.Now()}, nil
}

// originalDst is the destination before it was redirected, or the local
// address if it was not.
func originalDst(c *net.TCPConn) netip.AddrPort {
	local := addrPort(c.LocalAddr())
	raw, err := c.SyscallConn()
	if err != nil {
		return local
	}
	dst := local
	raw.Control(func(fd uintptr) {
		var a unix.RawSockaddrInet6 // holds the IPv4 form, too
		size := uint32(unsafe.Sizeof(a))
		level := uintptr(unix.SOL_IPV6)
		if local.Addr().Is4() {
			level = unix.SOL_IP
		}
		_, _, errno := unix.Syscall6(unix.SYS_GETSOCKOPT, fd, level, unix.SO_ORIGINAL_DST, uintptr(unsafe.Pointer(&a)), uintptr(unsafe.Pointer(&size)), 0)
		if errno != 0 {
			return
		}
		p := (*[2]byte)(unsafe.Pointer(&a.Port))
		port := uint16(p[0])<<8 | uint16(p[1])
		if a.Family == unix.AF_INET {
			v4 := (*unix.RawSockaddrInet4)(unsafe.Pointer(&a))
			dst = netip.AddrPortFrom(netip.AddrFrom4(v4.Addr), port)
		} else {
			dst = netip.AddrPortFrom(netip.AddrFrom16(a.Addr).Unmap(), port)
		}
	})
	return dst
}

func addrPort(a net.Addr) netip.AddrPort {
	t, ok := a.(*net.TCPAddr)
	if !ok {
		return netip.AddrPort{}
	}
	p := t.AddrPort()
	return netip.AddrPortFrom(p.Addr().Unmap(), p.Port())
}

// Process finds the process that holds the other end of c, in the caller's pid
// namespace, and its executable as the agent sees it: 0 and "" if the process is gone,
// or let go of the connection. Of several that hold it, it is the one that the others
// descend from; of those that passed it on to each other, any that holds it. It is
// looked up when it is asked for, once.
func (c *Conn) Process() (pid int, exe string) {
	c.once.Do(func() {
		server, client := addrPort(c.LocalAddr()), addrPort(c.RemoteAddr())
		local, remote, ok := c.s.owners.diag.original(server, client)
		if !ok || remote != c.dst {
			local, remote = client, c.dst
		}
		if local.IsValid() && remote.IsValid() {
			c.pid, c.exe = c.s.owners.find(c.s, local, remote, c.at)
		}
	})
	return c.pid, c.exe
}

// merged is several listeners as one.
type merged struct {
	all   []net.Listener
	conns chan net.Conn
	done  chan struct{}
	once  sync.Once
	wg    sync.WaitGroup
}

func merge(all []net.Listener) *merged {
	m := &merged{all: all, conns: make(chan net.Conn), done: make(chan struct{})}
	for _, l := range all {
		m.wg.Go(func() {
			for {
				c, err := l.Accept()
				if errors.Is(err, net.ErrClosed) {
					return
				}
				if err != nil {
					continue
				}
				select {
				case m.conns <- c:
				case <-m.done:
					c.Close()
					return
				}
			}
		})
	}
	return m
}

func (m *merged) Accept() (net.Conn, error) {
	select {
	case c := <-m.conns:
		return c, nil
	case <-m.done:
		return nil, net.ErrClosed
	}
}

// Close closes all of them and waits for their goroutines.
func (m *merged) Close() error {
	m.once.Do(func() {
		close(m.done)
		for _, l := range m.all {
			l.Close()
		}
	})
	m.wg.Wait()
	return nil
}

func (m *merged) Addr() net.Addr { return m.all[0].Addr() }
