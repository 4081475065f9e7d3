//go:build linux && (amd64 || arm64)

package notify

import (
	"unsafe"

	"golang.org/x/sys/unix"

	"guard"
)

// userHeader is struct msghdr of 64 bits, with what struct mmsghdr has after it.
type userHeader struct {
	name, namelen, iov, iovlen, control, controllen, flags uint64
	sent                                                   uint64 // mmsghdr only
}

const headerBytes = int(unsafe.Offsetof(userHeader{}.sent))

// sends says that a call is one that is looked at and then given back to the kernel: what a message carries besides
// its bytes (descriptors, who sends it, an address) would be guard's if guard sent it. The kernel refuses these calls for all
// but sockets, so that no file can come to be in the socket's place; another thread can change the bytes.
func (j *job) sends() bool {
	switch j.n.nr {
	case unix.SYS_SENDTO, unix.SYS_SENDMSG, unix.SYS_SENDMMSG:
		return true
	}
	return false
}

// inside says that a socket leads to a process of the session: a Unix socket, or one of the loopback or without a peer. Others lead
// to the broker, which judges what it carries and says why it refuses.
func inside(fd int) bool {
	own, err := unix.Getsockname(fd)
	if err != nil {
		return false
	}
	switch own.(type) {
	case *unix.SockaddrUnix:
		return true
	case *unix.SockaddrInet4, *unix.SockaddrInet6:
	default:
		return false
	}
	peer, err := unix.Getpeername(fd)
	if err != nil {
		return true
	}
	switch p := peer.(type) {
	case *unix.SockaddrInet4:
		return p.Addr[0] == 127
	case *unix.SockaddrInet6:
		mapped := [12]byte{10: 0xff, 11: 0xff}
		return p.Addr == [16]byte{15: 1} || [12]byte(p.Addr[:12]) == mapped && p.Addr[12] == 127
	}
	return false
}

// send judges the bytes of send, sendto, sendmsg or sendmmsg, message by message.
func (w *worker) send(j *job) {
	errno := w.open(j)
	switch {
	case errno == 0 && j.channel != guard.ChannelSocket:
		errno = unix.ENOTSOCK
	case errno == 0 && !j.inside:
		w.s.goOn(j) // the broker counts what it judges
		return
	case errno == 0:
		errno = w.sendAll(j)
	}
	switch errno {
	case 0:
		w.s.goOn(j)
	case held:
		j.close()
	default:
		w.s.answer(j, errno)
	}
}

func (w *worker) sendAll(j *job) unix.Errno {
	f := w.s.files.take(j.key)
	defer w.s.files.give(f)
	a := &j.n.args
	if j.n.nr == unix.SYS_SENDTO {
		if int64(a[2]) < 0 {
			return unix.EINVAL
		}
		j.total = int(min(a[2], maxCount))
		j.parts = []unix.RemoteIovec{{Base: uintptr(a[1]), Len: j.total}}
		return w.message(j, f)
	}
	many := uint64(1)
	if j.n.nr == unix.SYS_SENDMMSG {
		many = min(a[2]&0xffffffff, maxParts)
	}
	for i := range many {
		var h userHeader
		b := unsafe.Slice((*byte)(unsafe.Pointer(&h)), headerBytes)
		n, errno := w.peek(j, b, []unix.RemoteIovec{{Base: uintptr(a[1]) + uintptr(i)*unsafe.Sizeof(h), Len: len(b)}})
		switch {
		case errno != 0:
			return errno
		case n < len(b):
			return unix.EFAULT
		case h.iovlen > maxParts:
			return unix.EMSGSIZE
		}
		j.parts, j.total, j.read, j.counted = nil, 0, 0, 0
		if errno := w.vector(j, h.iov, h.iovlen); errno != 0 {
			return errno
		}
		if errno := w.message(j, f); errno != 0 {
			return errno
		}
	}
	return 0
}

// message judges one, in pieces. A stream's last bytes are kept, as a pipe's are.
func (w *worker) message(j *job, f *file) unix.Errno {
	for j.read < j.total {
		before := copy(w.room[Context-len(f.tail):Context], f.tail)
		if errno := w.fill(j); errno != 0 {
			return errno
		}
		if errno := w.judge(j, before, 0, false); errno != 0 {
			return errno
		}
		if j.socket == unix.SOCK_STREAM {
			f.pushed(j.rest)
		}
	}
	return 0
}

// goOn has the kernel do the call.
func (s *Server) goOn(j *job) {
	r := response{id: j.n.id, flags: unix.SECCOMP_USER_NOTIF_FLAG_CONTINUE}
	_, _, _ = unix.Syscall(unix.SYS_IOCTL, uintptr(s.listener), unix.SECCOMP_IOCTL_NOTIF_SEND, uintptr(unsafe.Pointer(&r)))
	j.close()
}
