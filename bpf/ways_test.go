//go:build linux && (amd64 || arm64)

package bpf

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// wayOut is one, and the error that it must end with.
type wayOut struct {
	name string
	want unix.Errno
	try  func() error
}

func errno(e unix.Errno) error {
	if e != 0 {
		return e
	}
	return nil
}

// ways are calls that move bytes which nobody can look at.
func ways() (steps []wayOut, done func(), err error) {
	file := func() int {
		fd, e := unix.Open(os.TempDir(), unix.O_TMPFILE|unix.O_RDWR, 0o600)
		err = errors.Join(err, e)
		return fd
	}
	src, dst := file(), file()
	unix.Write(src, []byte("some bytes"))
	pipe, e1 := openTarget("pipe")
	full, e2 := openTarget("pipe")
	tty, e3 := openTarget("terminal")
	tcp, e4 := inet("tcp", unix.SOCK_STREAM)
	if err = errors.Join(err, e1, e2, e3, e4); err != nil {
		return nil, nil, err
	}
	unix.Write(full.fd, []byte("in the pipe"))
	var ctx uintptr
	unix.Syscall(unix.SYS_IO_SETUP, 4, uintptr(unsafe.Pointer(&ctx)), 0)
	buf := []byte("by aio")
	iocb := &struct {
		data            uint64
		key, flags      uint32
		op              uint16
		prio            int16
		fd              uint32
		buf, len, off   uint64
		r2              uint64
		flags2, eventfd uint32
	}{op: 1, fd: uint32(dst), buf: uint64(uintptr(unsafe.Pointer(&buf[0]))), len: uint64(len(buf))}
	steps = []wayOut{
		{"sendfile", unix.EINVAL, func() error { _, err := unix.Sendfile(pipe.fd, src, new(int64), 5); return err }},
		{"sendfile to a socket", unix.EINVAL, func() error { _, err := unix.Sendfile(tcp[0], src, new(int64), 5); return err }},
		{"splice", unix.EINVAL, func() error { _, err := unix.Splice(full.other, nil, dst, nil, 5, 0); return err }},
		{"splice to a socket", unix.EINVAL, func() error { _, err := unix.Splice(full.other, nil, tcp[0], nil, 5, 0); return err }},
		{"copy_file_range", unix.EINVAL, func() error { _, err := unix.CopyFileRange(src, new(int64), dst, new(int64), 5, 0); return err }},
		{"io_uring_setup", unix.ENOSYS, func() error {
			var params [120]byte
			_, _, e := unix.Syscall(unix.SYS_IO_URING_SETUP, 4, uintptr(unsafe.Pointer(&params[0])), 0)
			return errno(e)
		}},
		{"io_submit", unix.EINVAL, func() error {
			p := iocb
			_, _, e := unix.Syscall(unix.SYS_IO_SUBMIT, ctx, 1, uintptr(unsafe.Pointer(&p)))
			runtime.KeepAlive(buf)
			return errno(e)
		}},
		{"TIOCSTI", unix.EPERM, func() error {
			c := byte('x')
			_, _, e := unix.Syscall(unix.SYS_IOCTL, uintptr(tty.fd), unix.TIOCSTI, uintptr(unsafe.Pointer(&c)))
			return errno(e)
		}},
		{"FICLONE", unix.EOPNOTSUPP, func() error { return unix.IoctlFileClone(dst, src) }},
		{"SO_ZEROCOPY", unix.EINVAL, func() error { return unix.SetsockoptInt(tcp[0], unix.SOL_SOCKET, unix.SO_ZEROCOPY, 1) }},
		{"MSG_ZEROCOPY", unix.EINVAL, func() error { return unix.Sendto(tcp[0], []byte("later"), unix.MSG_ZEROCOPY, nil) }},
		{"AF_PACKET", unix.EAFNOSUPPORT, func() error { _, err := unix.Socket(unix.AF_PACKET, unix.SOCK_RAW, 0); return err }},
		{"AF_XDP", unix.EAFNOSUPPORT, func() error { _, err := unix.Socket(unix.AF_XDP, unix.SOCK_RAW, 0); return err }},
	}
	return steps, func() {
		unix.Syscall(unix.SYS_IO_DESTROY, ctx, 0, 0)
		for _, fd := range []int{src, dst, tcp[0], tcp[1]} {
			unix.Close(fd)
		}
		pipe.close()
		full.close()
		tty.close()
	}, nil
}

// away tries all ways; each must fail as it should. With Want "open", those must not
// that are known to work on every kernel.
func (j job) away() error {
	steps, done, err := ways()
	if err != nil {
		return err
	}
	defer done()
	for _, s := range steps {
		err := s.try()
		if j.Want == "open" {
			if err != nil && slices.Contains([]string{"sendfile", "splice", "copy_file_range", "io_submit", "SO_ZEROCOPY"}, s.name) {
				return fmt.Errorf("%s does not work here: %w", s.name, err)
			}
		} else if err != s.want {
			return fmt.Errorf("%s: %v, want %v", s.name, err, s.want)
		}
	}
	return nil
}

// names puts a value into names, attributes, link targets, arguments and
// environments. What is refused must not be there afterwards.
func (j job) names() error {
	dir, err := os.MkdirTemp("", "names")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	base := dir + "/base"
	if err := os.WriteFile(base, nil, 0o600); err != nil {
		return err
	}
	program := func(env []string, args ...string) error {
		cmd := exec.Command("/proc/self/exe", args...)
		cmd.Env = append(env, childEnv+"=nothing")
		return cmd.Run()
	}
	value := string(j.Calls[0][0])
	steps := []struct {
		name string
		try  func(name, v string) error
	}{
		{"argument", func(_, v string) error { return program(nil, "-x", "--token="+v) }},
		{"first argument", func(_, v string) error { return program(nil, v) }},
		{"environment", func(_, v string) error { return program([]string{"A=1", "TOKEN=" + v}, "x") }},
		{"long argument", func(_, v string) error { return program(nil, strings.Repeat("x", 8189)+v) }},
		{"among many", func(_, v string) error { return program(append(slices.Repeat([]string{"A=1"}, 3000), v+"=1")) }},
	}
	if j.Op == "names" {
		steps = []struct {
			name string
			try  func(name, v string) error
		}{
			{"open", func(n, _ string) error { return os.WriteFile(n, nil, 0o600) }},
			{"mkdir", func(n, _ string) error { return unix.Mkdir(n, 0o700) }},
			{"mknod", func(n, _ string) error { return unix.Mknod(n, unix.S_IFIFO|0o600, 0) }},
			{"link", func(n, _ string) error { return unix.Link(base, n) }},
			{"rename", func(n, _ string) error { return unix.Rename(base, n) }},
			{"symlink", func(n, _ string) error { return unix.Symlink("to", n) }},
			{"bind", func(n, _ string) error {
				fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_STREAM, 0)
				if err != nil {
					return err
				}
				defer unix.Close(fd)
				return unix.Bind(fd, &unix.SockaddrUnix{Name: n})
			}},
			{"link target", func(_, v string) error { return unix.Symlink("/there/"+v, dir+"/link") }},
			{"attribute", func(_, v string) error { return unix.Setxattr(base, "trusted.x", []byte("a "+v), 0) }},
			{"attribute's name", func(_, v string) error { return unix.Setxattr(base, "trusted."+v, []byte("a"), 0) }},
		}
	}
	for _, s := range steps {
		err := s.try(dir+"/a-"+value+"-b", value)
		if j.Want == "seen" {
			if s.name == "rename" {
				os.Rename(dir+"/a-"+value+"-b", base)
			}
			os.RemoveAll(dir + "/a-" + value + "-b")
			os.Remove(dir + "/link")
			if err != nil {
				return fmt.Errorf("%s: %w", s.name, err)
			}
			continue
		}
		if !errors.Is(err, unix.EPERM) {
			return fmt.Errorf("%s: not refused: %v", s.name, err)
		}
		es, err := os.ReadDir(dir)
		if err != nil || len(es) != 1 || es[0].Name() != "base" {
			return fmt.Errorf("%s: the folder holds %v, %w", s.name, es, err)
		}
		list := make([]byte, 1000)
		if n, err := unix.Listxattr(base, list); err != nil || bytes.Contains(list[:n], []byte("trusted")) {
			return fmt.Errorf("%s: attributes %q, %w", s.name, list[:max(n, 0)], err)
		}
		clean := "c" + value[1:len(value)-1] + "c"
		if err := s.try(dir+"/"+clean, clean); err != nil {
			return fmt.Errorf("%s: without the value: %w", s.name, err)
		}
		unix.Removexattr(base, "trusted.x")
		unix.Removexattr(base, "trusted."+clean)
		if s.name == "rename" {
			os.Rename(dir+"/"+clean, base)
		}
		os.RemoveAll(dir + "/" + clean)
		os.Remove(dir + "/link")
	}
	return nil
}

// absentBytes maps Path anew, so that no page of it is in this process's memory.
func absentBytes(path string) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	fi, err := f.Stat()
	if err != nil {
		return nil, err
	}
	return unix.Mmap(int(f.Fd()), 0, int(fi.Size()), unix.PROT_READ, unix.MAP_PRIVATE)
}

// absent sends a file's bytes out of a mapping of it that was never touched.
func (j job) absent() error {
	b, err := absentBytes(j.Path)
	if err != nil {
		return err
	}
	defer unix.Munmap(b)
	s, err := openSink(j.To)
	if err != nil {
		return err
	}
	defer s.close()
	_, err = unix.Write(s.fd, b)
	return err
}

// storm has several threads in the search at once, on one processor: what holds
// the value must be refused each time, what does not must arrive.
func (j job) storm() error {
	value := j.Calls[0][0]
	var wg sync.WaitGroup
	errs := make(chan error, 8)
	var missed atomic.Int64
	for i, to := range []string{"file", "socket", "pipe", "tcp", "file", "socket"} {
		wg.Go(func() {
			runtime.LockOSThread()
			var cpus unix.CPUSet
			cpus.Set(0)
			if err := unix.SchedSetaffinity(0, &cpus); err != nil {
				errs <- err
				return
			}
			noise := bytes.Repeat([]byte{byte('a' + i)}, 16<<10)
			for n := range j.N {
				p := plant{Call: "writev", To: to, Size: 9000 + n%5000, At: n % 8000, Cuts: []int{n % 9000}}
				if i >= 4 { // the search waits for pages
					err := job{Op: "absent", To: to, Path: j.Path}.absent()
					if to == "socket" && j.Want == LSM && !errors.Is(err, unix.EPERM) || err != nil && !errors.Is(err, unix.EPERM) {
						errs <- fmt.Errorf("from absent pages to %s: %v", to, err)
						return
					}
					continue
				}
				err := p.try(noise, value)
				if errors.Is(err, errNotRefused) && j.Want == FmodRet {
					missed.Add(1)
					err = nil
				}
				if err != nil {
					errs <- fmt.Errorf("%v: %w", p, err)
					return
				}
			}
		})
	}
	wg.Wait()
	close(errs)
	if err := <-errs; err != nil {
		return err
	}
	if n := missed.Load(); n > 0 {
		return fmt.Errorf("missed: %d", n)
	}
	return nil
}

// daemon hands a value, masked, to a process that left its parent, its session
// and its process group, which writes it.
func (j job) daemon() error {
	dir, err := os.MkdirTemp("", "daemon")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	cmd := exec.Command("/proc/self/exe", dir+"/socket")
	cmd.Env = append(os.Environ(), childEnv+"=leave")
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	if err := cmd.Run(); err != nil {
		return err
	}
	var c net.Conn
	for start := time.Now(); ; time.Sleep(time.Millisecond) {
		if c, err = net.Dial("unix", dir+"/socket"); err == nil {
			break
		}
		if time.Since(start) > time.Minute {
			return err
		}
	}
	defer c.Close()
	masked := bytes.Clone(j.Calls[0][0])
	for i := range masked {
		masked[i] ^= 0x55
	}
	if _, err := c.Write(masked); err != nil {
		return err
	}
	c.(*net.UnixConn).CloseWrite()
	_, err = io.ReadAll(c)
	return err
}

// serve is the process that daemon talks to; leave starts it and is gone.
func leave(socket string) {
	cmd := exec.Command("/proc/self/exe", socket)
	cmd.Env = append(os.Environ(), childEnv+"=serve")
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	if err := cmd.Start(); err != nil {
		panic(err)
	}
}

func serve(socket string) {
	l, err := net.Listen("unix", socket)
	if err != nil {
		panic(err)
	}
	c, err := l.Accept()
	if err != nil {
		panic(err)
	}
	b, _ := io.ReadAll(c)
	for i := range b {
		b[i] ^= 0x55
	}
	os.WriteFile("/dev/null", b, 0)
	c.Close()
	l.Close()
}

// mapping stores a value through a shared mapping of a file, and ends it: To says
// how.
func (j job) mapping() error {
	f, err := os.OpenFile(j.Path, os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return err
	}
	defer f.Close()
	if err := f.Truncate(8192); err != nil {
		return err
	}
	m, err := unix.Mmap(int(f.Fd()), 0, 8192, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
	if err != nil {
		return err
	}
	copy(m[4090:], j.Calls[0][0])
	switch j.To {
	case "msync":
		return unix.Msync(m, unix.MS_SYNC) // and it stays
	case "munmap":
		return unix.Munmap(m)
	}
	return nil
}

const overlayName = "guard-test-overlay"

var overlayDir = filepath.Join(os.TempDir(), overlayName)

// mountOverlay needs root of the first namespace.
func mountOverlay() error {
	for _, d := range []string{"lower", "upper", "work", "merged"} {
		if err := os.MkdirAll(overlayDir+"/"+d, 0o755); err != nil {
			return err
		}
	}
	return unix.Mount("overlay", overlayDir+"/merged", "overlay", 0,
		fmt.Sprintf("lowerdir=%[1]s/lower,upperdir=%[1]s/upper,workdir=%[1]s/work", overlayDir))
}
