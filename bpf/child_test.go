//go:build linux && (amd64 || arm64)

package bpf

import (
	"bytes"
	"encoding/gob"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"unsafe"

	"golang.org/x/sys/unix"
)

// A child in a pid namespace of its own makes the calls that the tests want
// watched. It is this test binary; it is told what to do over a pipe, so that
// nothing but those calls holds the bytes.

const childEnv = "GUARD_BPF_TEST_CHILD"

// cgroup1Env makes a virtual machine one that has cgroup v1 only.
const cgroup1Env = "GUARD_BPF_TEST_CGROUP1"

type job struct {
	Op    string     // a system call, or one of those of do
	To    string     // "file", "pipe", "socket", "dgram", "terminal", "null", or a path to append to
	Calls [][][]byte // one call each: its parts
	Same  bool       // all calls on one descriptor; else one descriptor each
	N     int        // of "clean": lines
	Want  string     // of "away" and "names": "" all must be refused; "open", "seen": must not; of "storm": Via

	Plants []plant // of "plant"
	Path   string  // a file that holds the value, or that may be mapped
}

func TestMain(m *testing.M) {
	if os.Getpid() == 1 && os.Getenv(childEnv) == "" {
		machine(m)
	}
	switch os.Getenv(childEnv) {
	case "":
	case "nothing":
		return
	case "leave":
		leave(os.Args[1])
		return
	case "serve":
		serve(os.Args[1])
		return
	case "probe":
		_, err := OpenDetector(Options{PIDNamespace: 1})
		fmt.Println(err)
		if errors.Is(err, ErrNotSupported) {
			fmt.Println("typed")
		}
		return
	default:
		child()
		return
	}
	os.Exit(m.Run())
}

// machine is for a virtual machine whose only program is this binary: it makes
// the folders that a test expects, runs the tests, says how they went and
// switches the machine off.
func machine(m *testing.M) {
	for _, fs := range [][3]string{{"proc", "/proc"}, {"sysfs", "/sys"}, {"devtmpfs", "/dev"}, {"tmpfs", "/tmp"}, {"devpts", "/dev/pts"},
		{"securityfs", "/sys/kernel/security"}, {"cgroup2", "/sys/fs/cgroup"}} {
		if fs[0] == "cgroup2" && os.Getenv(cgroup1Env) != "" {
			fs[0], fs[2] = "cgroup", "pids"
		}
		os.MkdirAll(fs[1], 0o755)
		if err := unix.Mount(fs[0], fs[1], fs[0], 0, fs[2]); err != nil && err != unix.EBUSY {
			fmt.Printf("mount %s: %v\n", fs[1], err)
		}
	}
	modules, _ := filepath.Glob("/modules/*")
	for _, m := range modules {
		if err := loadModule(m); err != nil {
			fmt.Printf("load %s: %v\n", m, err)
		}
	}
	if err := loopbackUp(); err != nil {
		fmt.Printf("loopback: %v\n", err)
	}
	fmt.Printf("\nmachine: exit %d\n", m.Run())
	unix.Sync()
	unix.Reboot(unix.LINUX_REBOOT_CMD_POWER_OFF)
}

func child() {
	in := gob.NewDecoder(os.Stdin)
	var early *ring
	for {
		var j job
		if err := in.Decode(&j); err != nil {
			return // the parent is done
		}
		reply := []byte{'+'}
		var err error
		switch j.Op {
		case "ring": // for later
			early, err = newRing()
		case "ring leaks":
			err = early.leaks(j.Calls[0][0])
		default:
			err = j.do()
		}
		if err != nil {
			reply = append([]byte{'-'}, err.Error()...)
		}
		reply = append(reply, '\n')
		os.Stdout.Write(reply)
	}
}

// target is where a job's bytes go, and how they are taken out again.
type target struct {
	fd    int
	other int // a terminal's master
	drain func(n int) error
	close func()
}

func openTarget(kind string) (target, error) {
	readBack := func(fd int) func(int) error {
		return func(n int) error {
			buf := make([]byte, n)
			for n > 0 {
				got, err := unix.Read(fd, buf)
				if err != nil {
					return err
				}
				n -= got
			}
			return nil
		}
	}
	pair := func(fds [2]int) target {
		return target{fds[1], fds[0], readBack(fds[0]), func() { unix.Close(fds[0]); unix.Close(fds[1]) }}
	}
	if strings.HasPrefix(kind, "/") {
		fd, err := unix.Open(kind, unix.O_CREAT|unix.O_APPEND|unix.O_WRONLY, 0o600)
		return target{fd, -1, nil, func() { unix.Close(fd) }}, err
	}
	switch kind {
	case "file":
		fd, err := unix.Open(os.TempDir(), unix.O_TMPFILE|unix.O_RDWR, 0o600)
		return target{fd, -1, nil, func() { unix.Close(fd) }}, err
	case "null":
		fd, err := unix.Open("/dev/null", unix.O_WRONLY, 0)
		return target{fd, -1, nil, func() { unix.Close(fd) }}, err
	case "pipe":
		var fds [2]int
		err := unix.Pipe2(fds[:], 0)
		return pair(fds), err
	case "socket", "dgram":
		t := unix.SOCK_STREAM
		if kind == "dgram" {
			t = unix.SOCK_DGRAM
		}
		fds, err := unix.Socketpair(unix.AF_UNIX, t, 0)
		return pair(fds), err
	case "terminal":
		master, err := unix.Open("/dev/ptmx", unix.O_RDWR|unix.O_NOCTTY, 0)
		if err != nil {
			return target{}, err
		}
		if err := unix.IoctlSetPointerInt(master, unix.TIOCSPTLCK, 0); err != nil {
			return target{}, err
		}
		n, err := unix.IoctlGetInt(master, unix.TIOCGPTN)
		if err != nil {
			return target{}, err
		}
		slave, err := unix.Open("/dev/pts/"+strconv.Itoa(n), unix.O_RDWR|unix.O_NOCTTY, 0)
		if err != nil {
			return target{}, err
		}
		if tio, err := unix.IoctlGetTermios(slave, unix.TCGETS); err == nil {
			tio.Oflag &^= unix.OPOST
			unix.IoctlSetTermios(slave, unix.TCSETS, tio)
		}
		return target{slave, master, readBack(master), func() { unix.Close(slave); unix.Close(master) }}, nil
	}
	return target{}, fmt.Errorf("no target %q", kind)
}

func (j job) do() error {
	switch j.Op {
	case "bench":
		return j.bench()
	case "clean":
		return j.clean()
	case "plant":
		return j.plants()
	case "flip":
		return j.flips()
	case "copies":
		return copies()
	case "away":
		return j.away()
	case "args", "names":
		return j.names()
	case "storm":
		return j.storm()
	case "daemon":
		return j.daemon()
	case "absent":
		return j.absent()
	case "mapping":
		return j.mapping()
	}
	var t target
	for i, call := range j.Calls {
		if i == 0 || !j.Same {
			if i > 0 {
				t.close()
			}
			var err error
			if t, err = openTarget(j.To); err != nil {
				return err
			}
		}
		if err := j.call(t, call); err != nil {
			t.close()
			return fmt.Errorf("%s to %s: %w", j.Op, j.To, err)
		}
	}
	if t.close != nil {
		t.close()
	}
	return nil
}

// clean writes lines of a real build's log to /dev/null.
func (j job) clean() error {
	t, err := openTarget("null")
	if err != nil {
		return err
	}
	defer t.close()
	log := j.Calls[0][0]
	rest := log
	for range j.N {
		line, after, ok := bytes.Cut(rest, []byte{'\n'})
		if rest = after; !ok {
			rest = log
		}
		if _, err := unix.Write(t.fd, line); err != nil {
			return err
		}
	}
	return nil
}

// bench writes one buffer to /dev/null, over and over.
func (j job) bench() error {
	t, err := openTarget("null")
	if err != nil {
		return err
	}
	defer t.close()
	for range j.N {
		if _, err := unix.Write(t.fd, j.Calls[0][0]); err != nil {
			return err
		}
	}
	return nil
}

func iovecs(parts [][]byte) []unix.Iovec {
	v := make([]unix.Iovec, len(parts))
	for i, p := range parts {
		if len(p) > 0 {
			v[i].Base = &p[0]
		}
		v[i].SetLen(len(p))
	}
	return v
}

func (j job) call(t target, parts [][]byte) error {
	n := 0
	for _, p := range parts {
		n += len(p)
	}
	var one []byte
	if len(parts) == 1 {
		one = parts[0]
	}
	var got int
	var err error
	iov := iovecs(parts)
	raw := func(nr uintptr, a ...uintptr) {
		var six [6]uintptr
		copy(six[:], a)
		r, _, e := unix.Syscall6(nr, six[0], six[1], six[2], six[3], six[4], six[5])
		if got = int(r); e != 0 {
			err = e
		}
	}
	switch j.Op {
	case "write":
		got, err = unix.Write(t.fd, one)
	case "pwrite64":
		got, err = unix.Pwrite(t.fd, one, 5)
	case "sendto":
		got, err = n, unix.Sendto(t.fd, one, 0, nil)
	case "writev":
		raw(unix.SYS_WRITEV, uintptr(t.fd), uintptr(unsafe.Pointer(&iov[0])), uintptr(len(iov)))
	case "pwritev":
		raw(unix.SYS_PWRITEV, uintptr(t.fd), uintptr(unsafe.Pointer(&iov[0])), uintptr(len(iov)), 3)
	case "pwritev2":
		raw(unix.SYS_PWRITEV2, uintptr(t.fd), uintptr(unsafe.Pointer(&iov[0])), uintptr(len(iov)), 3)
	case "vmsplice":
		raw(unix.SYS_VMSPLICE, uintptr(t.fd), uintptr(unsafe.Pointer(&iov[0])), uintptr(len(iov)))
	case "sendmsg":
		got, err = unix.SendmsgBuffers(t.fd, parts, nil, nil, 0)
	case "sendmmsg": // every part a message of its own
		msgs := make([]struct {
			hdr unix.Msghdr
			len uint32
			_   uint32
		}, len(iov))
		for i := range msgs {
			msgs[i].hdr.Iov = &iov[i]
			msgs[i].hdr.SetIovlen(1)
		}
		raw(unix.SYS_SENDMMSG, uintptr(t.fd), uintptr(unsafe.Pointer(&msgs[0])), uintptr(len(msgs)))
		got = n
		runtime.KeepAlive(msgs)
	case "hole":
		return hole(t.fd, one)
	case "badiov":
		raw(unix.SYS_WRITEV, uintptr(t.fd), 1, 3)
		return nil
	case "closed": // nobody's descriptor
		unix.Write(1<<20, one)
		return nil
	case "exec", "nested": // a program of its own writes it; nested: in a namespace below
		c := exec.Command("/bin/sh", "-c", `cat > /dev/null; printf %s "$0" > /dev/null`, string(one))
		if j.Op == "nested" {
			c.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWPID}
		}
		return c.Run()
	default:
		return fmt.Errorf("no operation %q", j.Op)
	}
	runtime.KeepAlive(parts)
	if err == nil && got != n {
		err = fmt.Errorf("wrote %d of %d bytes", got, n)
	}
	if err != nil || t.drain == nil {
		return err
	}
	return t.drain(n)
}

// hole writes three pages of which the middle one is not there. b goes to the
// end of the third.
func hole(fd int, b []byte) error {
	m, err := unix.Mmap(-1, 0, 3*4096, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_ANON|unix.MAP_PRIVATE)
	if err != nil {
		return err
	}
	defer unix.Munmap(m)
	copy(m[3*4096-len(b):], b)
	m[0] = 1
	if err := unix.Mprotect(m[4096:8192], unix.PROT_NONE); err != nil {
		return err
	}
	unix.Syscall(unix.SYS_WRITE, uintptr(fd), uintptr(unsafe.Pointer(&m[0])), uintptr(len(m)))
	return nil
}

// loopbackUp switches the loopback interface on.
func loopbackUp() error {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM, 0)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	ifr, err := unix.NewIfreq("lo")
	if err != nil {
		return err
	}
	ifr.SetUint16(unix.IFF_UP | unix.IFF_RUNNING)
	return unix.IoctlIfreq(fd, unix.SIOCSIFFLAGS, ifr)
}

func loadModule(path string) error {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	defer f.Close()
	return unix.FinitModule(int(f.Fd()), "", 0)
}
