//go:build linux && (amd64 || arm64)

package notify

import (
	"context"
	"errors"
	"fmt"
	"os"
	"runtime"
	"sync"
	"sync/atomic"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// From linux/seccomp.h.
type notification struct {
	id    uint64
	pid   uint32 // thread
	flags uint32
	nr    int32
	arch  uint32
	ip    uint64
	args  [6]uint64
}

type response struct {
	id    uint64
	val   int64
	err   int32
	flags uint32
}

// The same on all systems; x/sys has them for some.
const (
	ioctlIDValid  = 0x40082102
	ioctlSetFlags = 0x40082104
)

// Supported says why this kernel cannot hand over writes; nil if it can.
func Supported() error {
	// A filter that is no address: EFAULT comes after the flags were looked at.
	_, _, errno := unix.Syscall(unix.SYS_SECCOMP, unix.SECCOMP_SET_MODE_FILTER, unix.SECCOMP_FILTER_FLAG_NEW_LISTENER|unix.SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV, 0)
	if errno != unix.EFAULT {
		return fmt.Errorf("%w: seccomp notifications with calls that wait for their answer need Linux 5.19: %w", ErrNotSupported, errno)
	}
	if _, err := unix.PidfdGetfd(-1, 0, 0); !errors.Is(err, unix.EBADF) {
		return fmt.Errorf("%w: pidfd_getfd, of Linux 5.6: %w", ErrNotSupported, err)
	}
	return nil
}

const (
	minWorkers = 4
	maxWorkers = 256
	// pollEvery is how often parked writes are asked whether their caller still waits.
	pollEvery = 50 * time.Millisecond
)

// What epoll tells of, besides parked writes, which come after them.
const (
	tagListener = iota
	tagWake
	lastTag
)

// Server does the writes of one session.
type Server struct {
	o        Options
	listener int
	ep       int // epoll of the listener, wake and what parked writes wait for
	wake     int // eventfd: something changed
	over     atomic.Bool
	files    files
	counts   counts

	turn    sync.Mutex // whose turn it is to wait for the next call
	swept   time.Time  // under turn
	workers sync.WaitGroup
	total   atomic.Int64 // workers
	idle    atomic.Int64 // of these, not with a call

	parking sync.Mutex
	parked  map[uint64]*job
	next    uint64
}

// New takes the listener over.
func New(listener *os.File, o Options) (_ *Server, err error) {
	defer listener.Close()
	s := &Server{o: o, listener: -1, ep: -1, wake: -1, parked: map[uint64]*job{}, next: lastTag, files: files{m: map[fileKey]*file{}}}
	defer func() {
		if err != nil {
			s.release()
		}
	}()
	c, err := listener.SyscallConn()
	if err != nil {
		return nil, fmt.Errorf("take over the listener: %w", err)
	}
	cerr := c.Control(func(fd uintptr) { s.listener, err = unix.FcntlInt(fd, unix.F_DUPFD_CLOEXEC, 0) })
	if err = errors.Join(cerr, err); err != nil {
		return nil, fmt.Errorf("take over the listener: %w", err)
	}
	if s.wake, err = unix.Eventfd(0, unix.EFD_CLOEXEC|unix.EFD_NONBLOCK); err != nil {
		return nil, fmt.Errorf("eventfd: %w", err)
	}
	if s.ep, err = unix.EpollCreate1(unix.EPOLL_CLOEXEC); err != nil {
		return nil, fmt.Errorf("epoll: %w", err)
	}
	for tag, fd := range map[uint64]int{tagListener: s.listener, tagWake: s.wake} {
		if err := epollAdd(s.ep, fd, unix.EPOLLIN, tag); err != nil {
			return nil, fmt.Errorf("epoll: %w", err)
		}
	}
	// Since 6.6; without it, it is a little slower.
	_, _, _ = unix.Syscall(unix.SYS_IOCTL, uintptr(s.listener), ioctlSetFlags, unix.SECCOMP_USER_NOTIF_FD_SYNC_WAKE_UP)
	return s, nil
}

func epollAdd(ep, fd int, events uint32, tag uint64) error {
	e := unix.EpollEvent{Events: events, Fd: int32(tag), Pad: int32(tag >> 32)}
	return unix.EpollCtl(ep, unix.EPOLL_CTL_ADD, fd, &e)
}

// Serve does writes until no process has the filter any more, or ctx ends; then
// every later write of the session fails with ENOSYS. It is called once.
func (s *Server) Serve(ctx context.Context) error {
	stopped := make(chan struct{})
	stop := context.AfterFunc(ctx, func() {
		defer close(stopped)
		s.end()
	})
	failed := make(chan error, 1)
	for range minWorkers {
		s.spawn(failed)
	}
	s.workers.Wait()
	if !stop() {
		<-stopped
	}
	s.parking.Lock()
	for _, j := range s.parked {
		j.close()
	}
	clear(s.parked)
	s.parking.Unlock()
	s.release()
	s.files.wipe()
	select {
	case err := <-failed:
		return err
	default:
		return nil
	}
}

func (s *Server) release() {
	for _, fd := range []int{s.ep, s.wake, s.listener} {
		if fd >= 0 {
			unix.Close(fd)
		}
	}
}

func (s *Server) end() {
	s.over.Store(true)
	s.nudge()
}

// nudge has the worker whose turn it is look again.
func (s *Server) nudge() {
	one := [8]byte{1}
	_, _ = unix.Write(s.wake, one[:]) // it counts, and is never full
}

// spawn starts a worker. It keeps its thread, whose identity it may change, and
// which ends with it.
func (s *Server) spawn(failed chan<- error) {
	s.total.Add(1)
	s.workers.Go(func() {
		onThread(func() {
			defer s.total.Add(-1)
			w, err := newWorker(s)
			if err == nil {
				defer w.close()
				err = s.work(w, failed)
			}
			if err != nil {
				select {
				case failed <- err:
				default:
				}
				s.end() // writes fail from here on
			}
		})
	})
}

// onThread runs f on a thread that ends with it. The process's first one does not
// end, and would stay what f made of it: so it is kept busy while f runs on another.
func onThread(f func()) {
	runtime.LockOSThread()
	if unix.Gettid() != unix.Getpid() {
		f()
		return
	}
	defer runtime.UnlockOSThread()
	done := make(chan struct{})
	go func() {
		defer close(done)
		onThread(f)
	}()
	<-done
}

// work serves call after call.
func (s *Server) work(w *worker, failed chan<- error) error {
	for {
		s.idle.Add(1)
		j, err := s.wait(w)
		if s.idle.Add(-1) == 0 && j != nil && s.total.Load() < maxWorkers {
			s.spawn(failed) // so that somebody waits for the next one, however long this one takes
		}
		if err != nil || j == nil {
			return err
		}
		w.run(j)
	}
}

// wait returns the next call, or a parked one that can go on; nil at the end.
func (s *Server) wait(w *worker) (*job, error) {
	s.turn.Lock()
	defer s.turn.Unlock()
	var ev [1]unix.EpollEvent
	for !s.over.Load() {
		timeout := -1
		s.parking.Lock()
		if len(s.parked) > 0 {
			timeout = int(pollEvery / time.Millisecond)
		}
		s.parking.Unlock()
		if timeout >= 0 && time.Since(s.swept) > pollEvery {
			s.sweep(w)
			s.swept = time.Now()
		}
		n, err := unix.EpollWait(s.ep, ev[:], timeout)
		if errors.Is(err, unix.EINTR) || err == nil && n == 0 {
			continue
		}
		if err != nil {
			return nil, fmt.Errorf("wait for a write: %w", err)
		}
		switch tag := uint64(uint32(ev[0].Fd)) | uint64(uint32(ev[0].Pad))<<32; tag {
		case tagWake:
			var n [8]byte
			_, _ = unix.Read(s.wake, n[:])
		case tagListener:
			if ev[0].Events&unix.EPOLLIN == 0 { // no process is left
				s.over.Store(true)
				continue
			}
			j := &job{}
			_, _, errno := unix.Syscall(unix.SYS_IOCTL, uintptr(s.listener), unix.SECCOMP_IOCTL_NOTIF_RECV, uintptr(unsafe.Pointer(&j.n)))
			switch errno {
			case 0:
				j.fd = -1
				return j, nil
			case unix.ENOENT, unix.EINTR: // the caller is gone, or was interrupted before
			default:
				return nil, fmt.Errorf("receive a write: %w", errno)
			}
		default:
			s.parking.Lock()
			j := s.parked[tag]
			delete(s.parked, tag)
			s.parking.Unlock()
			if j != nil {
				_ = unix.EpollCtl(s.ep, unix.EPOLL_CTL_DEL, j.fd, nil)
				return j, nil
			}
		}
	}
	return nil, nil
}

// park keeps a write that has to wait for room.
func (s *Server) park(j *job) {
	s.parking.Lock()
	s.next++
	tag := s.next
	s.parked[tag] = j
	s.parking.Unlock()
	j.rest = append([]byte(nil), j.rest...) // the worker's buffer is the next call's
	if err := epollAdd(s.ep, j.fd, unix.EPOLLOUT|unix.EPOLLONESHOT, tag); err != nil {
		s.parking.Lock()
		delete(s.parked, tag)
		s.parking.Unlock()
		s.answer(j, unix.EIO)
		return
	}
	s.nudge() // the first one parked needs looking after from now on
}

// sweep lets go of parked writes whose callers are gone, and ends those for whose
// callers a signal came.
func (s *Server) sweep(w *worker) {
	s.parking.Lock()
	all := make(map[uint64]*job, len(s.parked))
	for tag, j := range s.parked {
		all[tag] = j
	}
	s.parking.Unlock()
	for tag, j := range all {
		gone := !s.valid(j)
		if !gone && !signalled(int(j.n.pid)) {
			continue
		}
		s.parking.Lock()
		_, mine := s.parked[tag]
		delete(s.parked, tag)
		s.parking.Unlock()
		if !mine {
			continue
		}
		_ = unix.EpollCtl(s.ep, unix.EPOLL_CTL_DEL, j.fd, nil)
		if gone {
			j.close()
		} else {
			s.answer(j, restart)
		}
	}
}

// restart is ERESTARTSYS: the kernel starts the call again, or makes EINTR of it.
const restart = unix.Errno(512)

// held stands for no answer at all, which Hold asks for.
const held = unix.Errno(4094)

// valid says that j's caller still waits for this call.
func (s *Server) valid(j *job) bool {
	_, _, errno := unix.Syscall(unix.SYS_IOCTL, uintptr(s.listener), ioctlIDValid, uintptr(unsafe.Pointer(&j.n.id)))
	return errno == 0
}

// answer ends a call: with what was written, or with errno if nothing was.
func (s *Server) answer(j *job, errno unix.Errno) {
	r := response{id: j.n.id, val: int64(j.done)}
	if j.done == 0 && errno != 0 {
		r.val, r.err = 0, -int32(errno)
	}
	// ENOENT: the caller is gone. Nothing else can be done about any error.
	_, _, _ = unix.Syscall(unix.SYS_IOCTL, uintptr(s.listener), unix.SECCOMP_IOCTL_NOTIF_SEND, uintptr(unsafe.Pointer(&r)))
	j.close()
}

func (s *Server) count(j *job, f func(*Counters)) { s.counts.add(j.channel, f) }
