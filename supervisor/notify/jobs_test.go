//go:build linux && (amd64 || arm64)

package notify

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"
)

// jobEnv names what a child does whose writes are handed over. Its values come by
// descriptor 0, and it says how it went by an exit status and on descriptor 1,
// which is a pipe or a file.
const jobEnv = "GUARD_NOTIFY_JOB"

func runJob(name string, args []string) int {
	switch name {
	case "channels":
		return channelsJob(readAll(0))
	case "flip":
		return flipJob(readAll(0), args[0])
	case "send":
		return sendJob(readAll(0))
	case "flip send":
		return flipSendJob(readAll(0))
	case "semantics":
		return semanticsJob(args[0])
	case "copy":
		return goCopyJob(args[0], args[1])
	case "write":
		n, _ := strconv.Atoi(args[1])
		return writeJob(args[0], n)
	}
	return 4
}

func readAll(fd int) []byte {
	var all []byte
	b := make([]byte, 1<<20)
	for {
		n, err := unix.Read(fd, b)
		if n <= 0 || err != nil {
			return all
		}
		all = append(all, b[:n]...)
	}
}

func say(format string, a ...any) {
	_, _ = unix.Write(1, fmt.Appendf(nil, format+"\n", a...))
}

func check(what string, err error) {
	if err != nil {
		say("%s: %v", what, err)
		os.Exit(5)
	}
}

// sink is something to write to, whose content can be had back.
type sink struct {
	fd  int
	got func() []byte
}

func newSink(kind string) sink {
	switch kind {
	case "file", "memory":
		var fd int
		var err error
		if kind == "file" {
			fd, err = unix.Open(".", unix.O_TMPFILE|unix.O_RDWR|unix.O_CLOEXEC, 0o600)
		} else {
			fd, err = unix.MemfdCreate("m", unix.MFD_CLOEXEC)
		}
		check("open", err)
		return sink{fd, func() []byte {
			var st unix.Stat_t
			check("stat", unix.Fstat(fd, &st))
			b := make([]byte, st.Size)
			if len(b) > 0 {
				_, err := unix.Pread(fd, b, 0)
				check("read back", err)
			}
			unix.Close(fd)
			return b
		}}
	case "pipe", "socket":
		var p [2]int
		var err error
		if kind == "pipe" {
			err = unix.Pipe2(p[:], unix.O_CLOEXEC)
		} else {
			p, err = unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
			p[0], p[1] = p[1], p[0]
		}
		check(kind, err)
		var all []byte
		done := make(chan struct{})
		go func() {
			all = readAll(p[0])
			close(done)
		}()
		return sink{p[1], func() []byte {
			unix.Close(p[1])
			<-done
			unix.Close(p[0])
			return all
		}}
	}
	panic(kind)
}

// cut splits b in n parts.
func cut(b []byte, n int) [][]byte {
	var parts [][]byte
	for i := range n {
		parts = append(parts, b[i*len(b)/n:(i+1)*len(b)/n])
	}
	return parts
}

// put writes b to fd by one of the calls, in one of them.
func put(call string, fd int, b []byte) (int, error) {
	switch call {
	case "write":
		return unix.Write(fd, b)
	case "pwrite64":
		return unix.Pwrite(fd, b, 0)
	case "writev":
		return unix.Writev(fd, cut(b, 7))
	case "pwritev":
		return unix.Pwritev(fd, cut(b, 3), 0)
	case "pwritev2":
		return unix.Pwritev2(fd, cut(b, 2), 0, 0)
	case "sendto":
		return sendto(fd, b)
	case "sendmsg":
		return unix.SendmsgBuffers(fd, cut(b, 3), nil, nil, 0)
	case "sendmmsg":
		return sendmmsg(fd, b)
	case "pwritev2 at the offset":
		return unix.Pwritev2(fd, cut(b, 2), -1, 0)
	}
	panic(call)
}

// channelsJob writes by every call to every kind of sink, at sizes where pages and
// pieces end, without the value and with it at every edge.
func channelsJob(value []byte) int {
	calls := map[string][]string{
		"file": {"write", "pwrite64", "writev", "pwritev", "pwritev2", "pwritev2 at the offset"}, "memory": {"write", "writev", "pwrite64"},
		"pipe": {"write", "writev", "pwritev2 at the offset"}, "socket": {"write", "writev", "sendto", "sendmsg", "sendmmsg"},
	}
	bad, tried := 0, 0
	for kind, cs := range calls {
		for _, call := range cs {
			for _, size := range []int{0, 1, 4095, 4096, 4097, 8191, 8192, 8193, 65535, 65536, 1 << 20, 1<<20 + 1, 3<<20 + 5} {
				b := bytes.Repeat([]byte("clean bytes, "), size/13+1)[:size]
				s := newSink(kind)
				n, err := put(call, s.fd, b)
				if got := s.got(); err != nil || n != size || !bytes.Equal(got, b) {
					say("%s to %s, %d bytes: %d, %v; %d arrived", call, kind, size, n, err, len(got))
					bad++
				}
				tried++
				for _, at := range []int{0, 1, 4096 - len(value)/2, 8192 - 1, size / 2, size/7 - 3, size - len(value), 1<<20 - 5} {
					if at < 0 || at+len(value) > size || size > 1<<20 && at != 1<<20-5 {
						continue
					}
					dirty := bytes.Clone(b)
					copy(dirty[at:], value)
					s := newSink(kind)
					n, err := put(call, s.fd, dirty)
					got := s.got()
					tried++
					// Of a write of more than a piece the first may be out.
					// A send is looked at from its beginning to its end first.
					sends := strings.HasPrefix(call, "send")
					whole := (size <= 1<<20 || sends) && (n > 0 || !errors.Is(err, unix.EPERM) || len(got) > 0)
					if whole || bytes.Contains(got, value) || size > 1<<20 && !sends && (n != 1<<20 || err != nil) {
						say("%s to %s, value at %d of %d: %d, %v; %d arrived, the value among them: %v", call, kind, at, size, n, err, len(got), bytes.Contains(got, value))
						bad++
					}
				}
			}
			if strings.HasPrefix(call, "pw") && call != "pwritev2 at the offset" {
				continue
			}
			for _, at := range []int{1, len(value) / 2, len(value) - 1} { // between two calls
				s := newSink(kind)
				_, err1 := put(call, s.fd, value[:at])
				n, err2 := put(call, s.fd, value[at:])
				if got := s.got(); err1 != nil || n > 0 || !errors.Is(err2, unix.EPERM) || !bytes.Equal(got, value[:at]) {
					say("%s to %s, cut at %d: %v, %d, %v; %d arrived", call, kind, at, err1, n, err2, len(got))
					bad++
				}
				tried++
			}
		}
	}
	// Where the halves lie matters, not when they were written.
	s := newSink("file")
	h := len(value) / 2
	_, _ = unix.Pwrite(s.fd, value[h:], int64(h)+100)
	if _, err := unix.Pwrite(s.fd, value[:h], 100); !errors.Is(err, unix.EPERM) {
		say("halves from the end: %v", err)
		bad++
	}
	if _, err := unix.Pwrite(s.fd, value[:h], 4000); err != nil {
		say("a half alone: %v", err)
		bad++
	}
	say("%d tried, %d wrong", tried, bad)
	return min(bad, 1)
}

// flipJob writes a buffer while another thread changes it between the value and
// clean bytes, and counts what of the value arrived.
func flipJob(value []byte, times string) int {
	n, _ := strconv.Atoi(times)
	clean := bytes.Repeat([]byte("x"), len(value))
	buf := bytes.Clone(clean)
	var stop atomic.Bool
	var wg sync.WaitGroup
	for range 2 {
		wg.Go(func() {
			for !stop.Load() {
				copy(buf, value)
				copy(buf, clean)
			}
		})
	}
	refused, escaped, passed := 0, 0, 0
	got := make([]byte, len(value))
	for range n {
		s := newSink("file")
		_, err := unix.Write(s.fd, buf)
		switch {
		case errors.Is(err, unix.EPERM):
			refused++
		case err != nil:
			say("%v", err)
			return 1
		default:
			passed++
			_, err := unix.Pread(s.fd, got, 0)
			check("read back", err)
			if bytes.Equal(got, value) {
				escaped++
			}
		}
		unix.Close(s.fd)
	}
	stop.Store(true)
	wg.Wait()
	say("refused %d, passed %d, escaped %d", refused, passed, escaped)
	return 0
}

// semanticsJob tries what a write does besides moving bytes.
func semanticsJob(dir string) int {
	bad := 0
	expect := func(what string, ok bool, a ...any) {
		if !ok {
			say("%s: %v", what, fmt.Sprint(a...))
			bad++
		}
	}
	open := func(name string, flags int) int {
		fd, err := unix.Open(dir+"/"+name, flags|unix.O_CREAT|unix.O_CLOEXEC, 0o600)
		check("open "+name, err)
		return fd
	}
	size := func(fd int) int64 {
		var st unix.Stat_t
		check("stat", unix.Fstat(fd, &st))
		return st.Size
	}

	// The offset is the open file's.
	fd := open("offset", unix.O_RDWR)
	dup, _ := unix.Dup(fd)
	unix.Write(fd, []byte("abc"))
	unix.Write(dup, []byte("def"))
	pos, _ := unix.Seek(fd, 0, unix.SEEK_CUR)
	expect("shared offset", pos == 6 && size(fd) == 6, pos, size(fd))
	unix.Pwrite(fd, []byte("X"), 1)
	pos, _ = unix.Seek(fd, 0, unix.SEEK_CUR)
	expect("pwrite leaves the offset", pos == 6, pos)
	unix.Seek(fd, 100, unix.SEEK_SET)
	unix.Write(fd, []byte("far"))
	expect("a hole", size(fd) == 103, size(fd))

	// O_APPEND.
	a1, a2 := open("append", unix.O_WRONLY|unix.O_APPEND), open("append", unix.O_WRONLY|unix.O_APPEND)
	unix.Write(a1, []byte("one "))
	unix.Write(a2, []byte("two "))
	unix.Pwrite(a1, []byte("three"), 0) // appends too, as Linux does
	b, _ := os.ReadFile(dir + "/append")
	expect("append", string(b) == "one two three", string(b))

	// Errors.
	ro := open("offset", unix.O_RDONLY)
	_, err := unix.Write(ro, []byte("x"))
	expect("a file opened for reading", err == unix.EBADF, err)
	_, err = unix.Write(9999, []byte("x"))
	expect("no such descriptor", err == unix.EBADF, err)
	_, _, errno := unix.Syscall(unix.SYS_WRITE, uintptr(fd), 0x10, 5)
	expect("a bad address", errno == unix.EFAULT, errno)
	n, _, errno := unix.Syscall(unix.SYS_WRITE, uintptr(fd), 0x10, 0)
	expect("no bytes at a bad address", errno == 0 && n == 0, n, errno)
	_, _, errno = unix.Syscall(unix.SYS_WRITEV, uintptr(fd), 0x10, 5)
	expect("parts at a bad address", errno == unix.EFAULT, errno)
	_, _, errno = unix.Syscall(unix.SYS_WRITEV, uintptr(fd), 0x10, 1025)
	expect("too many parts", errno == unix.EINVAL, errno)
	_, err = unix.Pwrite(fd, []byte("x"), -1)
	expect("a negative offset", err == unix.EINVAL, err)
	full, err := unix.Open("/dev/full", unix.O_WRONLY, 0)
	check("open /dev/full", err)
	_, err = unix.Write(full, []byte("x"))
	expect("a full device", err == unix.ENOSPC, err)
	page, err := unix.Mmap(-1, 0, 3*4096, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_PRIVATE|unix.MAP_ANON)
	check("mmap", err)
	check("munmap", unix.Mprotect(page[4096:8192], unix.PROT_NONE))
	m := newSink("memory")
	k, err := unix.Write(m.fd, page[4000:8000])
	expect("up to a page that is not there", err == nil && k == 96, k, err)
	_ = m.got()

	// Pipes.
	var p [2]int
	check("pipe", unix.Pipe2(p[:], unix.O_NONBLOCK))
	total := 0
	for {
		n, err := unix.Write(p[1], make([]byte, 4096))
		if err != nil {
			expect("a full pipe", err == unix.EAGAIN, err)
			break
		}
		total += n
	}
	expect("a pipe's size", total == 65536, total)
	_, err = unix.Pwrite(p[1], []byte("x"), 0)
	expect("an offset in a pipe", err == unix.ESPIPE, err)
	unix.Close(p[0])
	pipes := make(chan os.Signal, 1)
	signal.Notify(pipes, unix.SIGPIPE)
	_, err = unix.Write(p[1], []byte("x"))
	expect("a pipe without a reader", err == unix.EPIPE, err)
	select {
	case <-pipes:
	case <-time.After(10 * time.Second):
		expect("SIGPIPE", false)
	}
	sp, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM, 0)
	check("socketpair", err)
	unix.Close(sp[1])
	_, err = unix.Write(sp[0], []byte("x"))
	expect("a socket without a peer", err == unix.EPIPE, err)
	select {
	case <-pipes:
	case <-time.After(10 * time.Second):
		expect("SIGPIPE of a socket", false)
	}
	dg, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_SEQPACKET, 0)
	check("socketpair", err)
	unix.Write(dg[0], []byte("first"))
	unix.Writev(dg[0], [][]byte{[]byte("sec"), []byte("ond")})
	in := make([]byte, 100)
	k, _ = unix.Read(dg[1], in)
	k2, _ := unix.Read(dg[1], in[50:])
	expect("messages stay apart", string(in[:k]) == "first" && string(in[50:50+k2]) == "second", string(in[:k]))

	// eventfd takes eight bytes, at once.
	ev, err := unix.Eventfd(0, 0)
	check("eventfd", err)
	_, err = unix.Write(ev, []byte{3, 0, 0, 0, 0, 0, 0, 0})
	k, err2 := unix.Read(ev, in[:8])
	expect("eventfd", err == nil && err2 == nil && k == 8 && in[0] == 3, err, err2, in[0])

	// RLIMIT_FSIZE.
	xfsz := make(chan os.Signal, 1)
	signal.Notify(xfsz, unix.SIGXFSZ)
	check("setrlimit", unix.Setrlimit(unix.RLIMIT_FSIZE, &unix.Rlimit{Cur: 10, Max: unix.RLIM_INFINITY}))
	l := open("limit", unix.O_WRONLY)
	k, err = unix.Write(l, []byte("0123456789abc"))
	expect("up to the limit", k == 10 && err == nil, k, err)
	_, err = unix.Write(l, []byte("x"))
	expect("past the limit", err == unix.EFBIG, err)
	select {
	case <-xfsz:
	case <-time.After(10 * time.Second):
		expect("SIGXFSZ", false)
	}
	check("setrlimit", unix.Setrlimit(unix.RLIMIT_FSIZE, &unix.Rlimit{Cur: unix.RLIM_INFINITY, Max: unix.RLIM_INFINITY}))

	// A thread with descriptors of its own writes to its own.
	mine := open("mine", unix.O_WRONLY)
	done := make(chan error)
	go func() {
		runtime.LockOSThread() // never unlocked: the thread ends with this
		if err := unix.Unshare(unix.CLONE_FILES); err != nil {
			done <- err
			return
		}
		other := open("other", unix.O_WRONLY)
		_ = unix.Dup3(other, mine, 0)
		_, err := unix.Write(mine, []byte("thread"))
		done <- err
	}()
	check("a thread's own descriptors", <-done)
	b, _ = os.ReadFile(dir + "/other")
	b2, _ := os.ReadFile(dir + "/mine")
	var u unix.Utsname
	_ = unix.Uname(&u)
	var major, minor int
	fmt.Sscanf(unix.ByteSliceToString(u.Release[:]), "%d.%d", &major, &minor)
	if major > 6 || major == 6 && minor >= 9 {
		expect("a thread's own descriptors", string(b) == "thread" && len(b2) == 0, string(b), string(b2))
	}

	// Blocked writers keep nobody from writing, and a signal ends the wait.
	var many [64][2]int
	for i := range many {
		check("pipe", unix.Pipe2(many[i][:], unix.O_CLOEXEC))
	}
	var wg sync.WaitGroup
	for i := range many {
		wg.Go(func() {
			n, err := unix.Write(many[i][1], make([]byte, 100_000))
			expect("a blocked write", n == 100_000 && err == nil, n, err)
		})
	}
	k, err = unix.Write(l, []byte("meanwhile"))
	expect("beside blocked ones", k == 9 && err == nil, k, err)
	for i := range many {
		left := 100_000
		b := make([]byte, 70_000)
		for left > 0 {
			n, err := unix.Read(many[i][0], b)
			check("drain", err)
			left -= n
		}
	}
	wg.Wait()

	say("%d wrong", bad)
	return min(bad, 1)
}

// writeJob writes n times size bytes to memory, and says how long it took.
func writeJob(sizes string, n int) int {
	size, _ := strconv.Atoi(sizes)
	b := bytes.Repeat([]byte("0123456789abcdef"), size/16+1)[:size]
	fd, err := unix.MemfdCreate("m", 0)
	check("memfd", err)
	for range 10 {
		_, _ = unix.Pwrite(fd, b, 0)
	}
	at := time.Now()
	for range n {
		if _, err := unix.Pwrite(fd, b, 0); err != nil {
			check("pwrite", err)
		}
	}
	say("%d", time.Since(at).Nanoseconds()/int64(n))
	return 0
}
