//go:build linux && (amd64 || arm64)

package bpf

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"os"
	"runtime"
	"strings"
	"unsafe"

	"golang.org/x/sys/unix"
)

// plant is one call of Size bytes with a value at At. The child makes it twice:
// with a byte of the value changed, which must arrive whole, and as it is, which must
// fail with EPERM and leave nothing at the destination.
type plant struct {
	Call, To string
	Size, At int
	Cuts     []int // where the parts of an iovec end
	Split    int   // > 0: the first so many bytes go in a call before it, and are out
}

func (p plant) String() string {
	return fmt.Sprintf("%s of %d bytes to %s, value at %d, cuts %v, split %d", p.Call, p.Size, p.To, p.At, p.Cuts, p.Split)
}

// sink is where planted bytes go.
type sink struct {
	fd, other int // other: -1 for a file
	max       int // takes no more in one call
	close     func()
}

// arrived is what there is at the other end. A mark is sent after it and waited for:
// terminals and the loopback deliver a little later.
func (s sink) arrived() ([]byte, error) {
	if s.other < 0 {
		var st unix.Stat_t
		if err := unix.Fstat(s.fd, &st); err != nil {
			return nil, err
		}
		b := make([]byte, st.Size)
		_, err := unix.Pread(s.fd, b, 0)
		return b, err
	}
	const mark = "~"
	if _, err := unix.Write(s.fd, []byte(mark)); err != nil {
		return nil, err
	}
	var all []byte
	buf := make([]byte, 64<<10)
	for {
		n, err := unix.Read(s.other, buf)
		if err != nil || n == 0 {
			return nil, fmt.Errorf("read back: %d, %w", n, err)
		}
		all = append(all, buf[:n]...)
		if before, ok := bytes.CutSuffix(all, []byte(mark)); ok {
			return before, nil
		}
	}
}

func openSink(kind string) (s sink, err error) {
	var fds [2]int
	switch kind {
	case "file", "memfd", "overlay":
		fd := -1
		switch kind {
		case "file":
			fd, err = unix.Open(os.TempDir(), unix.O_TMPFILE|unix.O_RDWR, 0o600)
		case "memfd":
			fd, err = unix.MemfdCreate("sink", 0)
		case "overlay":
			fd, err = unix.Open(overlayDir+"/merged/out", unix.O_CREAT|unix.O_TRUNC|unix.O_RDWR, 0o600)
		}
		return sink{fd, -1, 1 << 30, func() { unix.Close(fd) }}, err
	case "pipe":
		err = unix.Pipe2(fds[:], 0)
		fds[0], fds[1] = fds[1], fds[0]
	case "socket":
		fds, err = unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM, 0)
	case "dgram":
		fds, err = unix.Socketpair(unix.AF_UNIX, unix.SOCK_DGRAM, 0)
	case "seqpacket":
		fds, err = unix.Socketpair(unix.AF_UNIX, unix.SOCK_SEQPACKET, 0)
	case "tcp", "tcp6":
		fds, err = inet(kind, unix.SOCK_STREAM)
	case "udp":
		fds, err = inet(kind, unix.SOCK_DGRAM)
	case "terminal":
		t, err := openTarget(kind)
		if err != nil {
			return sink{}, err
		}
		return sink{t.fd, t.other, 1000, t.close}, nil
	default:
		return sink{}, fmt.Errorf("no sink %q", kind)
	}
	return sink{fds[0], fds[1], 30_000, func() { unix.Close(fds[0]); unix.Close(fds[1]) }}, err
}

// inet is a connected pair on the loopback.
func inet(kind string, typ int) ([2]int, error) {
	family := unix.AF_INET
	var addr unix.Sockaddr = &unix.SockaddrInet4{Addr: [4]byte{127, 0, 0, 1}}
	if strings.HasSuffix(kind, "6") {
		family, addr = unix.AF_INET6, &unix.SockaddrInet6{Addr: [16]byte(net.IPv6loopback)}
	}
	l, err := unix.Socket(family, typ, 0)
	if err != nil {
		return [2]int{}, err
	}
	c, err := unix.Socket(family, typ, 0)
	if err != nil {
		return [2]int{}, err
	}
	if err := unix.Bind(l, addr); err != nil {
		return [2]int{}, err
	}
	if typ == unix.SOCK_STREAM {
		if err := unix.Listen(l, 1); err != nil {
			return [2]int{}, err
		}
	}
	at, err := unix.Getsockname(l)
	if err != nil {
		return [2]int{}, err
	}
	if err := unix.Connect(c, at); err != nil {
		return [2]int{}, fmt.Errorf("connect: %w", err)
	}
	if typ == unix.SOCK_DGRAM {
		return [2]int{c, l}, nil
	}
	a, _, err := unix.Accept(l)
	unix.Close(l)
	return [2]int{c, a}, err
}

// send makes the call with parts.
func send(call string, fd int, parts [][]byte) (int, error) {
	switch call {
	case "write":
		return unix.Write(fd, parts[0])
	case "pwrite64":
		return unix.Pwrite(fd, parts[0], 0)
	}
	iov := iovecs(parts)
	base := unsafe.Pointer(unsafe.SliceData(iov))
	hdr := unix.Msghdr{Iov: unsafe.SliceData(iov)}
	hdr.SetIovlen(len(iov))
	msg := struct {
		hdr unix.Msghdr
		len uint32
		_   uint32
	}{hdr: hdr}
	var n uintptr
	var e unix.Errno
	switch call {
	case "writev":
		n, _, e = unix.Syscall(unix.SYS_WRITEV, uintptr(fd), uintptr(base), uintptr(len(iov)))
	case "pwritev":
		n, _, e = unix.Syscall6(unix.SYS_PWRITEV, uintptr(fd), uintptr(base), uintptr(len(iov)), 0, 0, 0)
	case "pwritev2":
		n, _, e = unix.Syscall6(unix.SYS_PWRITEV2, uintptr(fd), uintptr(base), uintptr(len(iov)), 0, 0, 0)
	case "sendto":
		n, _, e = unix.Syscall6(unix.SYS_SENDTO, uintptr(fd), uintptr(unsafe.Pointer(unsafe.SliceData(parts[0]))), uintptr(len(parts[0])), 0, 0, 0)
	case "sendmsg":
		n, _, e = unix.Syscall(unix.SYS_SENDMSG, uintptr(fd), uintptr(unsafe.Pointer(&msg.hdr)), 0)
	case "sendmmsg":
		if n, _, e = unix.Syscall6(unix.SYS_SENDMMSG, uintptr(fd), uintptr(unsafe.Pointer(&msg)), 1, 0, 0, 0); e == 0 {
			n = uintptr(msg.len)
		}
	default:
		return 0, fmt.Errorf("no call %q", call)
	}
	runtime.KeepAlive(parts)
	if e != 0 {
		return 0, e
	}
	return int(n), nil
}

func (j job) plants() error {
	noise := make([]byte, 1<<20+4096)
	r := rand.NewChaCha8([32]byte{})
	r.Read(noise)
	for i := range noise {
		noise[i] = 'a' + noise[i]&15
	}
	for _, p := range j.Plants {
		if err := p.try(noise, j.Calls[0][0]); err != nil {
			return fmt.Errorf("%v: %w", p, err)
		}
	}
	return nil
}

func (p plant) try(noise, value []byte) error {
	b := noise[:p.Size]
	saved := bytes.Clone(b[p.At : p.At+len(value)])
	defer copy(b[p.At:], saved)
	for _, clean := range []bool{true, false} {
		copy(b[p.At:], value)
		if clean {
			b[p.At+len(value)/2] ^= 1
		}
		s, err := openSink(p.To)
		if err != nil {
			return err
		}
		err = p.once(s, b, clean)
		s.close()
		if err != nil {
			return err
		}
	}
	return nil
}

var errNotRefused = errors.New("not refused")

func (p plant) once(s sink, b []byte, clean bool) error {
	if clean && p.Size > s.max {
		return nil
	}
	rest, out := b, 0
	if p.Split > 0 {
		n, err := send("write", s.fd, [][]byte{b[:p.Split]})
		if err != nil || n != p.Split {
			return fmt.Errorf("the first part: %d, %w", n, err)
		}
		rest, out = b[p.Split:], p.Split
	}
	var parts [][]byte
	at := 0
	for _, cut := range p.Cuts {
		parts = append(parts, rest[at:cut])
		at = cut
	}
	parts = append(parts, rest[at:])
	n, err := send(p.Call, s.fd, parts)
	if clean {
		if err != nil || n != len(rest) {
			return fmt.Errorf("without the value: %d, %w", n, err)
		}
		out = len(b)
	} else if !errors.Is(err, unix.EPERM) {
		return fmt.Errorf("%w: %d, %v", errNotRefused, n, err)
	}
	if got, err := s.arrived(); err != nil || !bytes.Equal(got, b[:out]) {
		return fmt.Errorf("%d bytes of %d at the destination, %w", len(got), out, err)
	}
	return nil
}

// flips writes a buffer while another thread puts a value in and takes it out,
// N times, and counts how often the value got out.
func (j job) flips() error {
	value := j.Calls[0][0]
	buf := make([]byte, 4096)
	stop, done := make(chan bool), make(chan bool)
	go func() {
		defer close(done)
		runtime.LockOSThread()
		for {
			select {
			case <-stop:
				return
			default:
				copy(buf[2000:], value)
				clear(buf[2000 : 2000+len(value)])
			}
		}
	}()
	refused, escaped := 0, 0
	for range j.N {
		s, err := openSink(j.To)
		if err != nil {
			return err
		}
		if _, err := unix.Write(s.fd, buf); errors.Is(err, unix.EPERM) {
			refused++
		} else if got, err := s.arrived(); err != nil {
			return err
		} else if bytes.Contains(got, value) {
			escaped++
		}
		s.close()
	}
	close(stop)
	<-done
	fmt.Fprintf(os.Stderr, "%d writes while another thread changes the buffer: %d refused, %d escaped\n", j.N, refused, escaped)
	return nil
}

// copies are what programs do for whom the zero-copy calls are taken away.
func copies() error {
	want := random(300_000)
	src, err := os.CreateTemp("", "copy")
	if err != nil {
		return err
	}
	defer os.Remove(src.Name())
	defer src.Close()
	if _, err := src.Write(want); err != nil {
		return err
	}
	dst, err := os.CreateTemp("", "copy")
	if err != nil {
		return err
	}
	defer os.Remove(dst.Name())
	defer dst.Close()
	src.Seek(0, io.SeekStart)
	if _, err := io.Copy(dst, src); err != nil { // copy_file_range
		return fmt.Errorf("file to file: %w", err)
	}
	if got, err := os.ReadFile(dst.Name()); err != nil || !bytes.Equal(got, want) {
		return fmt.Errorf("file to file: %d bytes, %w", len(got), err)
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	defer l.Close()
	sent := make(chan error, 1)
	go func() {
		c, err := net.Dial("tcp", l.Addr().String())
		if err == nil {
			src.Seek(0, io.SeekStart)
			_, err = io.Copy(c, src) // sendfile
			c.Close()
		}
		sent <- err
	}()
	c, err := l.Accept()
	if err != nil {
		return err
	}
	defer c.Close()
	got, err := io.ReadAll(c)
	if err := errors.Join(err, <-sent); err != nil || !bytes.Equal(got, want) {
		return fmt.Errorf("file to socket: %d bytes, %w", len(got), err)
	}
	return nil
}
