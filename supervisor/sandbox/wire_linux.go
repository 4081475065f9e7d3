package sandbox

import (
	"encoding/binary"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"os"
	"sync"

	"golang.org/x/sys/unix"
)

// message is one message between the caller and stage 1: four bytes of length
// (little endian), then this in JSON. Descriptors travel with the first byte.
type message struct {
	Op string `json:"op"`

	// start, caller to stage 1.
	Config *initConfig `json:"config,omitempty"`

	// signal, winsize, continue, socket, end: caller to stage 1.
	Signal     int    `json:"signal,omitempty"`
	Rows, Cols uint16 `json:",omitempty"`
	ID         int    `json:"id,omitempty"`     // of a socket request, and of its answer
	Family     int    `json:"family,omitempty"` // AF_INET or AF_INET6

	// started, failed, stopped, continued, exited, socket: stage 1 to caller.
	FDs    []string `json:"fds,omitempty"` // what each descriptor is
	Notes  []string `json:"notes,omitempty"`
	Code   int      `json:"code,omitempty"`
	Step   string   `json:"step,omitempty"`
	Errno  int      `json:"errno,omitempty"`
	Text   string   `json:"text,omitempty"`
	Checks []Check  `json:"checks,omitempty"`
}

const (
	maxMessage = 64 << 20 // bytes
	maxFDs     = 240      // the kernel takes 253 at a time
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
	body, err := json.Marshal(m)
	if err != nil {
		return err
	}
	if len(body) > maxMessage || len(fds) > maxFDs {
		return fmt.Errorf("message %s is too long: %d bytes, %d descriptors", m.Op, len(body), len(fds))
	}
	b := binary.LittleEndian.AppendUint32(make([]byte, 0, len(body)+4), uint32(len(body)))
	b = append(b, body...)
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

// recv reads the next message. The descriptors are the caller's to close.
func (w *wire) recv() (m message, fds []int, err error) {
	var head [4]byte
	oob := make([]byte, unix.CmsgSpace(4*maxFDs))
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
	if size > maxMessage {
		return m, fds, fmt.Errorf("message of %d bytes: the limit is %d", size, maxMessage)
	}
	body := make([]byte, size)
	if _, err = io.ReadFull(w.c, body); err != nil {
		return m, fds, err
	}
	err = json.Unmarshal(body, &m)
	return m, fds, err
}

func closeAll(fds []int) {
	for _, fd := range fds {
		unix.Close(fd)
	}
}
