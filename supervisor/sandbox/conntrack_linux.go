package sandbox

import (
	"encoding/binary"
	"net/netip"

	"golang.org/x/sys/unix"
)

// natName is how stage 1 calls the socket of openNAT.
const natName = "nat"

// openNAT makes a socket that answers questions about connections that were redirected
// in the network namespace that it is made in. They take rights over it, which stage 1
// has, and guard as the owner of its user namespace.
func openNAT() (int, error) {
	return unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, unix.NETLINK_NETFILTER)
}

// Values of linux/netfilter/nfnetlink_conntrack.h.
const (
	ctSubsystem  = 1 << 8
	ctNew        = ctSubsystem | 0
	ctGet        = ctSubsystem | 1
	ctTupleOrig  = 1
	ctTupleReply = 2
	ctTupleIP    = 1
	ctTupleProto = 2
	ctProtoNum   = 1
	ctProtoSrc   = 2
	ctProtoDst   = 3
	nfgenmsgSize = 4
)

// original is what the client's own socket has for the connection that arrived as one
// from client at server. A redirected connection's port may be another one: two sockets
// may share a port as long as they go to different places, which here they do not. ok is
// false where the kernel does not say.
func (d *diag) original(server, client netip.AddrPort) (local, remote netip.AddrPort, ok bool) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.seq++
	b := make([]byte, unix.NLMSG_HDRLEN+nfgenmsgSize, 128)
	family, ipSrc := byte(unix.AF_INET), uint16(1)
	if !server.Addr().Is4() {
		family, ipSrc = unix.AF_INET6, 3
	}
	b[unix.NLMSG_HDRLEN] = family
	port := func(p uint16) []byte { return binary.BigEndian.AppendUint16(nil, p) }
	b = attr(b, ctTupleReply|unix.NLA_F_NESTED, attr(attr(nil,
		ctTupleIP|unix.NLA_F_NESTED, attr(attr(nil, ipSrc, server.Addr().AsSlice()), ipSrc+1, client.Addr().AsSlice())),
		ctTupleProto|unix.NLA_F_NESTED, attr(attr(attr(nil, ctProtoNum, []byte{unix.IPPROTO_TCP}), ctProtoSrc, port(server.Port())), ctProtoDst, port(client.Port()))))
	ne := binary.NativeEndian
	ne.PutUint32(b[0:], uint32(len(b)))
	ne.PutUint16(b[4:], ctGet)
	ne.PutUint16(b[6:], unix.NLM_F_REQUEST)
	ne.PutUint32(b[8:], d.seq)
	n := d.exchange(d.nat, b)
	if n < unix.NLMSG_HDRLEN+nfgenmsgSize || ne.Uint16(d.buf[4:]) != ctNew {
		return local, remote, false
	}
	tuple := find(d.buf[unix.NLMSG_HDRLEN+nfgenmsgSize:n], ctTupleOrig)
	ip, proto := find(tuple, ctTupleIP), find(tuple, ctTupleProto)
	end := func(ipKind, portKind uint16) netip.AddrPort {
		a, _ := netip.AddrFromSlice(find(ip, ipKind))
		if p := find(proto, portKind); len(p) == 2 {
			return netip.AddrPortFrom(a.Unmap(), binary.BigEndian.Uint16(p))
		}
		return netip.AddrPort{}
	}
	local, remote = end(ipSrc, ctProtoSrc), end(ipSrc+1, ctProtoDst)
	return local, remote, local.IsValid() && remote.IsValid()
}

// attr adds an attribute of a netlink message.
func attr(b []byte, kind uint16, value []byte) []byte {
	b = binary.NativeEndian.AppendUint16(b, uint16(unix.NLA_HDRLEN+len(value)))
	b = binary.NativeEndian.AppendUint16(b, kind)
	b = append(b, value...)
	for len(b)%unix.NLA_ALIGNTO != 0 {
		b = append(b, 0)
	}
	return b
}

// find is the value of the first attribute of kind.
func find(b []byte, kind uint16) []byte {
	for len(b) >= unix.NLA_HDRLEN {
		size := int(binary.NativeEndian.Uint16(b))
		if size < unix.NLA_HDRLEN || size > len(b) {
			return nil
		}
		if binary.NativeEndian.Uint16(b[2:])&^(unix.NLA_F_NESTED|unix.NLA_F_NET_BYTEORDER) == kind {
			return b[unix.NLA_HDRLEN:size]
		}
		b = b[min(len(b), (size+unix.NLA_ALIGNTO-1)&^(unix.NLA_ALIGNTO-1)):]
	}
	return nil
}
