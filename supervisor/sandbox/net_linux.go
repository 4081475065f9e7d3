package sandbox

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net"

	"github.com/google/nftables"
	"github.com/google/nftables/expr"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// sockets are what stage 1 made in the session's network namespace.
type sockets struct {
	names []string // "tcp", "dnsudp", "dnstcp", "host:PORT"
	fds   []int
	port  int // of "tcp"
	notes []string
}

func (s *sockets) add(name string, fd int) {
	s.names = append(s.names, name)
	s.fds = append(s.fds, fd)
}

// wantedPorts are listened on one by one where there is no nftables. Any other
// port is refused at once, which beats a time-out. Those that agents like to
// listen on themselves (3000, 8080) are left to them.
var wantedPorts = []int{22, 80, 443, 465, 587, 993, 1433, 3306, 5432, 5671, 6379, 6443, 8443, 9418, 9443, 27017}

// network makes every address local, and catches every TCP connection and
// every DNS query. There is no interface but lo: nothing else goes anywhere,
// and is refused at once since nobody listens.
func network(hostPorts []int) (*sockets, error) {
	lo, err := netlink.LinkByName("lo")
	if err != nil {
		return nil, fmt.Errorf("find lo: %w", err)
	}
	if err := netlink.LinkSetUp(lo); err != nil {
		return nil, fmt.Errorf("bring lo up: %w", err)
	}
	_, all4, _ := net.ParseCIDR("0.0.0.0/0")
	_, all6, _ := net.ParseCIDR("::/0")
	// The source makes answers come from where clients asked.
	r := netlink.Route{LinkIndex: lo.Attrs().Index, Dst: all4, Src: net.IPv4(127, 0, 0, 1), Table: unix.RT_TABLE_LOCAL, Type: unix.RTN_LOCAL, Scope: netlink.SCOPE_HOST}
	if err := netlink.RouteAdd(&r); err != nil {
		return nil, fmt.Errorf("make IPv4 addresses local: %w", err)
	}
	v6 := true
	r.Dst, r.Src, r.Scope = all6, net.IPv6loopback, netlink.SCOPE_UNIVERSE
	if err := netlink.RouteAdd(&r); err != nil {
		v6 = false
	}
	s := &sockets{}
	tcp, err := listen(v6, unix.SOCK_STREAM, ProxyPort)
	if err != nil {
		return nil, err
	}
	s.add("tcp", tcp)
	if s.port, err = portOf(tcp); err != nil {
		return nil, err
	}
	for name, kind := range map[string]int{"dnsudp": unix.SOCK_DGRAM, "dnstcp": unix.SOCK_STREAM} {
		fd, err := listen(v6, kind, 53)
		if err != nil {
			return nil, err
		}
		s.add(name, fd)
	}
	for _, p := range hostPorts {
		fd, err := listenAt(&unix.SockaddrInet4{Port: p, Addr: [4]byte{127, 0, 0, 1}}, unix.AF_INET, unix.SOCK_STREAM)
		if err != nil {
			return nil, fmt.Errorf("listen on port %d inside: %w", p, err)
		}
		s.add(fmt.Sprintf("host:%d", p), fd)
	}
	// Without these, it takes longer to find who connects, and some are not found.
	if fd, err := openDiag(); err == nil {
		s.add(diagName, fd)
	}
	if fd, err := openNAT(); err == nil {
		s.add(natName, fd)
	}
	if err := redirect(s.port); err != nil {
		s.notes = append(s.notes, fmt.Sprintf("no nftables in the namespace (%v): TCP is caught on common ports only, others are refused", err))
		for _, p := range wantedPorts {
			fd, err := listen(v6, unix.SOCK_STREAM, p)
			if errors.Is(err, unix.EADDRINUSE) {
				continue
			} else if err != nil {
				return nil, err
			}
			s.add("tcp", fd)
		}
	}
	return s, nil
}

// listen opens a socket on port of every address.
func listen(v6 bool, kind, port int) (int, error) {
	var fd int
	var err error
	if v6 {
		fd, err = listenAt(&unix.SockaddrInet6{Port: port}, unix.AF_INET6, kind)
	} else {
		fd, err = listenAt(&unix.SockaddrInet4{Port: port}, unix.AF_INET, kind)
	}
	if err != nil {
		return -1, fmt.Errorf("listen on port %d inside: %w", port, err)
	}
	return fd, nil
}

func listenAt(a unix.Sockaddr, family, kind int) (fd int, err error) {
	fd, err = unix.Socket(family, kind|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
	if err != nil {
		return -1, err
	}
	if family == unix.AF_INET6 {
		err = unix.SetsockoptInt(fd, unix.IPPROTO_IPV6, unix.IPV6_V6ONLY, 0)
	}
	if err == nil {
		err = unix.Bind(fd, a)
	}
	if err == nil && kind == unix.SOCK_STREAM {
		err = unix.Listen(fd, 1024)
	}
	if err != nil {
		unix.Close(fd)
		return -1, err
	}
	return fd, nil
}

func portOf(fd int) (int, error) {
	a, err := unix.Getsockname(fd)
	if err != nil {
		return 0, err
	}
	switch a := a.(type) {
	case *unix.SockaddrInet4:
		return a.Port, nil
	case *unix.SockaddrInet6:
		return a.Port, nil
	}
	return 0, fmt.Errorf("socket with an address of type %T", a)
}

// redirect sends DNS to port 53 here, and TCP that does not go to loopback to
// port.
func redirect(port int) error {
	c, err := nftables.New()
	if err != nil {
		return err
	}
	table := c.AddTable(&nftables.Table{Family: nftables.TableFamilyINet, Name: "guard"})
	chain := c.AddChain(&nftables.Chain{Name: "out", Table: table, Type: nftables.ChainTypeNAT,
		Hooknum: nftables.ChainHookOutput, Priority: nftables.ChainPriorityNATDest})
	proto := func(p byte) []expr.Any {
		return []expr.Any{
			&expr.Meta{Key: expr.MetaKeyL4PROTO, Register: 1},
			&expr.Cmp{Op: expr.CmpOpEq, Register: 1, Data: []byte{p}},
		}
	}
	dns := []expr.Any{
		&expr.Payload{DestRegister: 1, Base: expr.PayloadBaseTransportHeader, Offset: 2, Len: 2},
		&expr.Cmp{Op: expr.CmpOpEq, Register: 1, Data: binary.BigEndian.AppendUint16(nil, 53)},
	}
	to := func(port int) []expr.Any {
		return []expr.Any{
			&expr.Immediate{Register: 1, Data: binary.BigEndian.AppendUint16(nil, uint16(port))},
			&expr.Redir{RegisterProtoMin: 1},
		}
	}
	loopback := func(nfproto byte, offset uint32, mask, want []byte) []expr.Any {
		return []expr.Any{
			&expr.Meta{Key: expr.MetaKeyNFPROTO, Register: 1},
			&expr.Cmp{Op: expr.CmpOpEq, Register: 1, Data: []byte{nfproto}},
			&expr.Payload{DestRegister: 1, Base: expr.PayloadBaseNetworkHeader, Offset: offset, Len: uint32(len(want))},
			&expr.Bitwise{SourceRegister: 1, DestRegister: 1, Len: uint32(len(want)), Mask: mask, Xor: make([]byte, len(want))},
			&expr.Cmp{Op: expr.CmpOpEq, Register: 1, Data: want},
			&expr.Verdict{Kind: expr.VerdictReturn},
		}
	}
	ones := make([]byte, 16)
	for i := range ones {
		ones[i] = 0xff
	}
	for _, rule := range [][]expr.Any{
		concat(proto(unix.IPPROTO_UDP), dns, to(53)),
		concat(proto(unix.IPPROTO_TCP), dns, to(53)),
		loopback(unix.NFPROTO_IPV4, 16, []byte{255, 0, 0, 0}, []byte{127, 0, 0, 0}),
		loopback(unix.NFPROTO_IPV6, 24, ones, net.IPv6loopback),
		concat(proto(unix.IPPROTO_TCP), to(port)),
	} {
		c.AddRule(&nftables.Rule{Table: table, Chain: chain, Exprs: rule})
	}
	return c.Flush()
}

func concat(parts ...[]expr.Any) []expr.Any {
	var all []expr.Any
	for _, p := range parts {
		all = append(all, p...)
	}
	return all
}
