//go:build linux && (amd64 || arm64)

package bpf

import (
	"errors"
	"fmt"
	"os"
	"runtime"
	"sync/atomic"
	"unsafe"

	"golang.org/x/sys/unix"
)

// ring is an io_uring: see include/uapi/linux/io_uring.h.
type ring struct {
	fd              int
	params          ringParams
	sq, cq, sqes    []byte
	sqTail, cqHead  *uint32
	sqArray, sqMask *uint32
	cqTail, cqMask  *uint32
}

type ringParams struct {
	sqEntries, cqEntries, flags, cpu, idle, features, wq uint32
	_                                                    [3]uint32
	sq                                                   struct {
		head, tail, mask, entries, flags, dropped, array, _ uint32
		_                                                   uint64
	}
	cq struct {
		head, tail, mask, entries, overflow, cqes, flags, _ uint32
		_                                                   uint64
	}
}

func newRing() (*ring, error) {
	r := &ring{}
	fd, _, e := unix.Syscall(unix.SYS_IO_URING_SETUP, 4, uintptr(unsafe.Pointer(&r.params)), 0)
	if e != 0 {
		return nil, e
	}
	r.fd = int(fd)
	p := &r.params
	var errs [3]error
	prot, flags := unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED|unix.MAP_POPULATE
	r.sq, errs[0] = unix.Mmap(r.fd, 0, int(p.sq.array+4*p.sqEntries), prot, flags)
	r.cq, errs[1] = unix.Mmap(r.fd, 0x8000000, int(p.cq.cqes+16*p.cqEntries), prot, flags)
	r.sqes, errs[2] = unix.Mmap(r.fd, 0x10000000, int(64*p.sqEntries), prot, flags)
	if err := errors.Join(errs[:]...); err != nil {
		return nil, err
	}
	at := func(b []byte, off uint32) *uint32 { return (*uint32)(unsafe.Pointer(&b[off])) }
	r.sqTail, r.sqMask, r.sqArray = at(r.sq, p.sq.tail), at(r.sq, p.sq.mask), at(r.sq, p.sq.array)
	r.cqHead, r.cqTail, r.cqMask = at(r.cq, p.cq.head), at(r.cq, p.cq.tail), at(r.cq, p.cq.mask)
	return r, nil
}

// do is one operation, from submission to its result.
func (r *ring) do(op uint8, fd int, b []byte, async bool) (int32, error) {
	tail := atomic.LoadUint32(r.sqTail)
	i := tail & *r.sqMask
	sqe := (*struct {
		op, flags uint8
		prio      uint16
		fd        int32
		off, addr uint64
		len, rw   uint32
		_         [4]uint64
	})(unsafe.Pointer(&r.sqes[64*i]))
	*sqe = struct {
		op, flags uint8
		prio      uint16
		fd        int32
		off, addr uint64
		len, rw   uint32
		_         [4]uint64
	}{op: op, fd: int32(fd), addr: uint64(uintptr(unsafe.Pointer(&b[0]))), len: uint32(len(b))}
	if async {
		sqe.flags = 1 << 4 // IOSQE_ASYNC: by a worker
	}
	*(*uint32)(unsafe.Add(unsafe.Pointer(r.sqArray), 4*i)) = i
	atomic.StoreUint32(r.sqTail, tail+1)
	if _, _, e := unix.Syscall6(unix.SYS_IO_URING_ENTER, uintptr(r.fd), 1, 1, 1, 0, 0); e != 0 {
		return 0, e
	}
	runtime.KeepAlive(b)
	head := atomic.LoadUint32(r.cqHead)
	if head == atomic.LoadUint32(r.cqTail) {
		return 0, errors.New("no completion")
	}
	cqe := unsafe.Pointer(&r.cq[r.params.cq.cqes+16*(head&*r.cqMask)])
	res := *(*int32)(unsafe.Add(cqe, 8))
	atomic.StoreUint32(r.cqHead, head+1)
	return res, nil
}

// opWrite and opSend are IORING_OP_WRITE and IORING_OP_SEND.
const opWrite, opSend = 23, 26

// rings uses a ring that was made before anybody watched: a write to a file
// cannot be judged and fails, a message can be.
func (r *ring) leaks(value []byte) error {
	clean := []byte("nothing of worth")
	for _, c := range []struct {
		op    uint8
		to    string
		b     []byte
		async bool
		want  unix.Errno
	}{
		{opWrite, "file", clean, false, unix.EINVAL}, {opWrite, "file", value, true, unix.EINVAL},
		{opSend, "socket", clean, false, 0}, {opSend, "socket", value, false, unix.EPERM}, {opSend, "tcp", value, true, unix.EPERM},
	} {
		s, err := openSink(c.to)
		if err != nil {
			return err
		}
		defer s.close()
		res, err := r.do(c.op, s.fd, c.b, c.async)
		if err != nil {
			return err
		}
		got, err := s.arrived()
		if err != nil {
			return err
		}
		if c.want != 0 && (res != -int32(c.want) || len(got) != 0) || c.want == 0 && string(got) != string(c.b) {
			return fmt.Errorf("operation %d to %s, by a worker %v: %d, want %v; %d bytes arrived", c.op, c.to, c.async, res, c.want, len(got))
		}
	}
	fmt.Fprintln(os.Stderr, "an io_uring from before: judged or refused")
	return nil
}
