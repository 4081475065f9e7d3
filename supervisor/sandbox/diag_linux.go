package sandbox

import (
	"bytes"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"strconv"
	"strings"
	"sync"

	"golang.org/x/sys/unix"
)

// diagName is how stage 1 calls the socket that diag asks with.
const diagName = "diag"

// openDiag makes a socket that answers questions about the sockets of the network
// namespace that it is made in, whoever asks.
func openDiag() (int, error) {
	return unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, unix.NETLINK_SOCK_DIAG)
}

// diag asks the kernel about one connection of the session (sock_diag(7)).
type diag struct {
	mu     sync.Mutex
	tcp    *os.File // nil: /proc has to do
	nat    *os.File // nil: nothing is redirected
	seq    uint32
	proven bool // it told of a socket before
	buf    [4096]byte
}

// Sizes and values of linux/inet_diag.h and linux/sock_diag.h.
const (
	sockDiagByFamily = 20
	inetDiagReq      = 56 // struct inet_diag_req_v2
	inetDiagMsg      = 72 // struct inet_diag_msg
	diagID           = 8  // offset of struct inet_diag_sockid in the request
	msgID            = 4  // and in the answer
	msgInode         = 68
	tcpSynSent       = 2
	tcpListen        = 10
	loIndex          = 1 // of every network namespace
)

var errNoDiag = errors.New("the kernel does not tell about single sockets")

// inode is the inode of the TCP socket at local that is connected to remote: 0 if
// nobody holds it any more, or there is none. errNoDiag: ask in another way.
func (d *diag) inode(local, remote netip.AddrPort) (uint32, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.seq++
	var b [unix.NLMSG_HDRLEN + inetDiagReq]byte
	ne := binary.NativeEndian
	ne.PutUint32(b[0:], uint32(len(b)))
	ne.PutUint16(b[4:], sockDiagByFamily)
	ne.PutUint16(b[6:], unix.NLM_F_REQUEST)
	ne.PutUint32(b[8:], d.seq)
	req := b[unix.NLMSG_HDRLEN:]
	req[0], req[1] = unix.AF_INET6, unix.IPPROTO_TCP
	if local.Addr().Is4() { // also of a socket of the other family
		req[0] = unix.AF_INET
	}
	ne.PutUint32(req[4:], ^uint32(0)) // states
	id := req[diagID:]
	binary.BigEndian.PutUint16(id[0:], local.Port())
	binary.BigEndian.PutUint16(id[2:], remote.Port())
	copy(id[4:20], local.Addr().AsSlice())
	copy(id[20:36], remote.Addr().AsSlice())
	// A socket may be bound to the interface. One that is not matches, too.
	ne.PutUint32(id[36:], loIndex)
	ne.PutUint64(id[40:], ^uint64(0)) // no cookie

	n := d.exchange(d.tcp, b[:])
	if n == 0 {
		return 0, errNoDiag
	}
	inode, known, err := parseDiag(d.buf[:n], local, remote)
	d.proven = d.proven || known
	if err == nil && !d.proven {
		err = errNoDiag // a kernel that lacks it says that there is no such socket, too
	}
	return inode, err
}

// exchange sends a message whose sequence number is d.seq and puts the answer into d.buf:
// n is its length, 0 if none came.
func (d *diag) exchange(via *os.File, msg []byte) (n int) {
	if via == nil {
		return 0
	}
	raw, err := via.SyscallConn()
	if err != nil {
		return 0
	}
	err = raw.Control(func(fd uintptr) {
		err := unix.Sendto(int(fd), msg, 0, &unix.SockaddrNetlink{Family: unix.AF_NETLINK})
		// The kernel has answered by then. What is older is no answer to this.
		for err == nil || errors.Is(err, unix.EINTR) {
			n, _, err = unix.Recvfrom(int(fd), d.buf[:], unix.MSG_DONTWAIT)
			if err == nil && n >= unix.NLMSG_HDRLEN && binary.NativeEndian.Uint32(d.buf[8:]) == d.seq {
				return
			}
		}
		n = 0
	})
	if err != nil {
		return 0
	}
	return n
}

// parseDiag reads one answer; known says that the kernel told of some socket. It gives a
// listening one where there is no connected one, so that what it found is compared with
// what was asked for.
func parseDiag(b []byte, local, remote netip.AddrPort) (inode uint32, known bool, err error) {
	ne := binary.NativeEndian
	body := b[unix.NLMSG_HDRLEN:]
	switch typ := ne.Uint16(b[4:]); {
	case typ == unix.NLMSG_ERROR && len(body) >= 4:
		if errno := unix.Errno(-int32(ne.Uint32(body))); errno != unix.ENOENT {
			return 0, false, errNoDiag
		}
		return 0, false, nil
	case typ != sockDiagByFamily || len(body) < inetDiagMsg:
		return 0, false, errNoDiag
	}
	state, id := body[1], body[msgID:]
	addr := func(b []byte) netip.Addr {
		if body[0] == unix.AF_INET {
			return netip.AddrFrom4([4]byte(b[:4]))
		}
		return netip.AddrFrom16([16]byte(b[:16])).Unmap()
	}
	src := netip.AddrPortFrom(addr(id[4:]), binary.BigEndian.Uint16(id[0:]))
	dst := netip.AddrPortFrom(addr(id[20:]), binary.BigEndian.Uint16(id[2:]))
	if state == tcpListen || state == tcpSynSent || src != bare(local) || dst != bare(remote) {
		return 0, true, nil
	}
	return ne.Uint32(body[msgInode:]), true, nil
}

// bare is a without a zone, which there is one of.
func bare(a netip.AddrPort) netip.AddrPort {
	return netip.AddrPortFrom(a.Addr().WithZone(""), a.Port())
}

// socketInode looks the same up in /proc, in the network namespace of process pid.
func socketInode(pid int, local, remote netip.AddrPort) uint32 {
	files := []string{"tcp6"} // of a socket of that family with an IPv4 address, too
	if local.Addr().Is4() {
		files = []string{"tcp", "tcp6"}
	}
	for _, file := range files {
		b, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/net/" + file)
		if err != nil {
			continue
		}
		form := func(a netip.AddrPort) string {
			if file == "tcp6" {
				return procAddr(netip.AddrFrom16(a.Addr().As16()), a.Port())
			}
			return procAddr(a.Addr(), a.Port())
		}
		from, to := form(local), form(remote)
		for line := range bytes.Lines(b) {
			f := bytes.Fields(line)
			if len(f) > 9 && string(f[1]) == from && string(f[2]) == to && string(f[3]) != "02" {
				n, _ := strconv.ParseUint(string(f[9]), 10, 32)
				return uint32(n)
			}
		}
	}
	return 0
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

// take keeps a socket that stage 1 made.
func (d *diag) take(name string, f *os.File) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if name == natName {
		d.nat = f
	} else {
		d.tcp = f
	}
}

func (d *diag) close() error {
	d.mu.Lock()
	defer d.mu.Unlock()
	for _, f := range []**os.File{&d.tcp, &d.nat} {
		if *f != nil {
			(*f).Close()
			*f = nil
		}
	}
	return nil
}
