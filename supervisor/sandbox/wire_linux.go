package sandbox

import (
	"bytes"
	"encoding/binary"
	"encoding/gob"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"slices"
	"sync"
	"syscall"

	"golang.org/x/sys/unix"
)

// message is one message between the caller and stage 1: four bytes of length
// (little endian), then this as a gob, which keeps every byte of a string:
// names of files need not be UTF-8. Descriptors travel with the first byte. A
// long body is not sent but put into a memfd, the last of the descriptors;
// inMemfd in the length says so.
type message struct {
	Op string

	// start, caller to stage 1.
	Config *initConfig

	// signal, socket, mask, end: caller to stage 1.
	Signal int
	Mask   *maskRequest
	ID     int // of a request, and of its answer
	Family int // AF_INET or AF_INET6

	// started, failed, stopped, continued, exited, answer: stage 1 to caller.
	FDs    []string // what each descriptor is
	Notes  []string
	Code   int
	Step   string
	Errno  int
	Text   string
	Lacks  bool // the error is errLacking
	Checks []Check
}

// err is the error that a message tells of.
func (m message) err() error {
	err := errors.New(m.Text)
	if m.Errno != 0 {
		err = &stepError{m.Text, syscall.Errno(m.Errno)}
	}
	if m.Lacks {
		return lackError{err}
	}
	return err
}

const (
	maxMessage = 64 << 20 // bytes
	maxFDs     = 240      // the kernel takes 253 at a time
	maxInline  = 64 << 10 // bytes; what is longer would wait for the socket's buffer
	inMemfd    = 1 << 31
)

// wire is one end of the control socket.
type wire struct {
	c  *net.UnixConn
	mu sync.Mutex // of writing
}

func socketpair() (w *wire, peer *os.File, err error) {
	p, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
	if err != nil {
		return nil, nil, fmt.Errorf("socketpair: %w", err)
	}
	peer = os.NewFile(uintptr(p[1]), "control")
	if w, err = wireOf(p[0]); err != nil {
		peer.Close()
		return nil, nil, err
	}
	return w, peer, nil
}

// wireOf takes fd over.
func wireOf(fd int) (*wire, error) {
	f := os.NewFile(uintptr(fd), "control")
	defer f.Close()
	c, err := net.FileConn(f)
	if err != nil {
		return nil, err
	}
	u, ok := c.(*net.UnixConn)
	if !ok {
		c.Close()
		return nil, fmt.Errorf("descriptor %d is not a Unix socket", fd)
	}
	return &wire{c: u}, nil
}

func (w *wire) close() { w.c.Close() }

func (w *wire) send(m message, fds ...int) error {
	var body bytes.Buffer
	body.Write(make([]byte, 4))
	if err := gob.NewEncoder(&body).Encode(m); err != nil {
		return err
	}
	b := body.Bytes()
	size := uint32(len(b) - 4)
	if size > maxMessage || len(fds) > maxFDs {
		return fmt.Errorf("message %s is too long: %d bytes, %d descriptors", m.Op, size, len(fds))
	}
	if size > maxInline {
		mem, err := memfd("message", b[4:])
		if err != nil {
			return err
		}
		defer unix.Close(mem)
		fds = append(slices.Clip(fds), mem)
		b, size = b[:4], size|inMemfd
	}
	binary.LittleEndian.PutUint32(b, size)
	var oob []byte
	if len(fds) > 0 {
		oob = unix.UnixRights(fds...)
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	n, _, err := w.c.WriteMsgUnix(b, oob, nil)
	if err == nil && n < len(b) {
		_, err = w.c.Write(b[n:])
	}
	return err
}

// memfd makes a file in memory that holds b.
func memfd(name string, b []byte) (int, error) {
	fd, err := unix.MemfdCreate(name, unix.MFD_CLOEXEC)
	if err != nil {
		return -1, fmt.Errorf("memfd: %w", err)
	}
	for off := 0; off < len(b); {
		n, err := unix.Pwrite(fd, b[off:], int64(off))
		if err != nil {
			unix.Close(fd)
			return -1, fmt.Errorf("memfd: %w", err)
		}
		off += n
	}
	return fd, nil
}

// recv reads the next message. The descriptors are the caller's to close.
func (w *wire) recv() (m message, fds []int, err error) {
	var head [4]byte
	oob := make([]byte, unix.CmsgSpace(4*(maxFDs+1)))
	n, oobn, _, _, err := w.c.ReadMsgUnix(head[:], oob)
	if err != nil {
		return m, nil, err
	}
	if n == 0 {
		return m, nil, io.EOF
	}
	defer func() {
		if err != nil {
			closeAll(fds)
			fds = nil
		}
	}()
	cmsgs, err := unix.ParseSocketControlMessage(oob[:oobn])
	if err != nil {
		return m, nil, err
	}
	for i := range cmsgs {
		if got, err := unix.ParseUnixRights(&cmsgs[i]); err == nil {
			fds = append(fds, got...)
		}
	}
	if _, err = io.ReadFull(w.c, head[n:]); err != nil {
		return m, fds, err
	}
	size := binary.LittleEndian.Uint32(head[:])
	long := size&inMemfd != 0
	size &^= inMemfd
	if size > maxMessage || long && len(fds) == 0 {
		return m, fds, fmt.Errorf("message of %d bytes, %d descriptors: the limit is %d", size, len(fds), maxMessage)
	}
	body := make([]byte, size)
	if long {
		mem := os.NewFile(uintptr(fds[len(fds)-1]), "message")
		fds = fds[:len(fds)-1]
		_, err = mem.ReadAt(body, 0)
		mem.Close()
	} else {
		_, err = io.ReadFull(w.c, body)
	}
	if err == nil {
		err = gob.NewDecoder(bytes.NewReader(body)).Decode(&m)
	}
	return m, fds, err
}

func closeAll(fds []int) {
	for _, fd := range fds {
		unix.Close(fd)
	}
}
