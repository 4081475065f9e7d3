package sandbox

import (
	"bytes"
	"encoding/hex"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"strconv"
	"strings"
	"sync"
	"unsafe"

	"golang.org/x/sys/unix"
)

// Conn is a connection that the agent made.
type Conn struct {
	*net.TCPConn
	dst netip.AddrPort
	s   *session
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
	return &Conn{t, originalDst(t), l.s}, nil
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
// namespace, and its executable as the agent sees it. It walks /proc: 0 and ""
// if the process is gone, or let go of the connection.
func (c *Conn) Process() (pid int, exe string) {
	inode := socketInode(c.s.agent, addrPort(c.RemoteAddr()))
	if inode == "" {
		return 0, ""
	}
	want := "socket:[" + inode + "]"
	for _, pid := range descendants(c.s.pid) {
		dir := "/proc/" + strconv.Itoa(pid)
		names, err := os.ReadDir(dir + "/fd")
		if err != nil {
			continue
		}
		for _, n := range names {
			if to, err := os.Readlink(dir + "/fd/" + n.Name()); err == nil && to == want {
				exe, _ := os.Readlink(dir + "/exe")
				return pid, exe
			}
		}
	}
	return 0, ""
}

// socketInode looks up the TCP socket whose own address is local in the
// network namespace of process pid.
func socketInode(pid int, local netip.AddrPort) string {
	if pid == 0 || !local.IsValid() {
		return ""
	}
	forms := map[string]netip.Addr{"tcp6": netip.AddrFrom16(local.Addr().As16())}
	if local.Addr().Is4() {
		forms["tcp"] = local.Addr()
	}
	for file, addr := range forms {
		b, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/net/" + file)
		if err != nil {
			continue
		}
		want := procAddr(addr, local.Port())
		for line := range bytes.Lines(b) {
			f := bytes.Fields(line)
			if len(f) > 9 && string(f[1]) == want && string(f[9]) != "0" {
				return string(f[9])
			}
		}
	}
	return ""
}

// procAddr writes an address as /proc/net/tcp does: 32-bit words in the
// processor's order, which is little endian on all that guard runs on.
func procAddr(a netip.Addr, port uint16) string {
	b := a.AsSlice()
	for i := 0; i+4 <= len(b); i += 4 {
		b[i], b[i+1], b[i+2], b[i+3] = b[i+3], b[i+2], b[i+1], b[i]
	}
	return strings.ToUpper(hex.EncodeToString(b)) + fmt.Sprintf(":%04X", port)
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
