//go:build linux && (amd64 || arm64)

package notify

import (
	"bytes"
	"errors"
	"fmt"
	"math"
	"os"
	"strconv"
	"unsafe"

	"golang.org/x/sys/unix"

	"guard"
)

const (
	// piece is how much of a write is judged and written at a time, bytes.
	piece = 1 << 20
	page  = 64 << 10 // the largest there is
	// maxCount is what the kernel cuts a write to (MAX_RW_COUNT).
	maxCount = math.MaxInt32 &^ 4095
	// maxParts is how many parts a writev may have (UIO_MAXIOV).
	maxParts = 1024
)

// job is one call.
type job struct {
	n       notification
	fd      int // the duplicate; -1: none
	channel guard.Channel
	key     fileKey
	flags   int  // of the open file
	socket  int  // its type, of a socket
	inside  bool // a socket that leads to a process of the session

	parts   []unix.RemoteIovec // the caller's bytes
	total   int                // of them
	read    int                // so far
	done    int                // written so far
	rest    []byte             // read, and not written yet
	pos     int64              // where to, with at
	at      bool               // pwrite and its like
	how     int                // RWF_ flags
	judged  uint64             // file.changes when rest was judged; 0: never
	counted int                // of read, as judged or left
}

func (j *job) close() {
	if j.fd >= 0 {
		unix.Close(j.fd)
		j.fd = -1
	}
}

// worker is one thread that does writes.
type worker struct {
	s      *Server
	room   []byte // Context, piece and Context bytes; the piece begins at a page's edge
	pages  []byte // what room is a part of
	pidfds map[uint32]int
	head   [maxParts]unix.RemoteIovec
}

func newWorker(s *Server) (*worker, error) {
	if err := become(s.o.UID, s.o.GID); err != nil {
		return nil, fmt.Errorf("do writes as the agent's user: %w", err)
	}
	// A page's edge, for files that are opened with O_DIRECT.
	pages, err := unix.Mmap(-1, 0, page+piece+page, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_PRIVATE|unix.MAP_ANONYMOUS)
	if err != nil {
		return nil, fmt.Errorf("make room for writes: %w", err)
	}
	return &worker{s: s, pages: pages, room: pages[page-Context:], pidfds: map[uint32]int{}}, nil
}

func (w *worker) close() {
	clear(w.pages)
	_ = unix.Munmap(w.pages)
	w.forget()
}

func (w *worker) forget() {
	for _, fd := range w.pidfds {
		unix.Close(fd)
	}
	clear(w.pidfds)
}

// become makes this thread another user, with no more rights than to look into
// processes. It stays so: the thread ends with its worker.
func become(uid, gid int) error {
	if os.Geteuid() != 0 || uid == 0 {
		return nil
	}
	if err := unix.Prctl(unix.PR_SET_KEEPCAPS, 1, 0, 0, 0); err != nil {
		return err
	}
	// The raw calls change one thread; Go's own change all.
	for _, c := range [][4]uintptr{
		{unix.SYS_SETGROUPS, 0, 0, 0},
		{unix.SYS_SETRESGID, uintptr(gid), uintptr(gid), uintptr(gid)},
		{unix.SYS_SETRESUID, uintptr(uid), uintptr(uid), uintptr(uid)},
	} {
		if _, _, errno := unix.RawSyscall(c[0], c[1], c[2], c[3]); errno != 0 {
			return errno
		}
	}
	head := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	var only [2]unix.CapUserData
	only[0].Effective, only[0].Permitted = 1<<unix.CAP_SYS_PTRACE, 1<<unix.CAP_SYS_PTRACE
	return unix.Capset(&head, &only[0])
}

// pidfdThread is PIDFD_THREAD of Linux 6.9: descriptors and signals of that very
// thread, where threads do not share them.
const pidfdThread = unix.O_EXCL

// pidfd opens, or has, the thread that calls.
func (w *worker) pidfd(tid uint32, again bool) (int, error) {
	if fd, ok := w.pidfds[tid]; ok {
		if !again {
			return fd, nil
		}
		unix.Close(fd)
		delete(w.pidfds, tid)
	}
	if len(w.pidfds) >= 64 {
		w.forget()
	}
	fd, err := unix.PidfdOpen(int(tid), pidfdThread)
	if errors.Is(err, unix.EINVAL) {
		fd, err = unix.PidfdOpen(int(tid), 0)
		if err != nil { // not the first thread of its process
			fd, err = unix.PidfdOpen(processOf(tid), 0)
		}
	}
	if err == nil {
		w.pidfds[tid] = fd
	}
	return fd, err
}

// processOf is the process of a thread, 0 if it is gone.
func processOf(tid uint32) int {
	b, err := os.ReadFile("/proc/" + strconv.Itoa(int(tid)) + "/status")
	if err != nil {
		return 0
	}
	n, _ := strconv.Atoi(field(b, "Tgid:"))
	return n
}

func field(b []byte, name string) string {
	for line := range bytes.Lines(b) {
		if v, ok := bytes.CutPrefix(line, []byte(name)); ok {
			return string(bytes.TrimSpace(v))
		}
	}
	return ""
}

// signalled says that a signal waits for a thread which it does not block.
func signalled(tid int) bool {
	b, err := os.ReadFile("/proc/" + strconv.Itoa(tid) + "/status")
	if err != nil {
		return false
	}
	mask := func(name string) uint64 {
		n, _ := strconv.ParseUint(field(b, name), 16, 64)
		return n
	}
	return (mask("SigPnd:")|mask("ShdPnd:"))&^mask("SigBlk:") != 0
}

// signal sends the thread that calls what the kernel would have sent it.
func (w *worker) signal(j *job, sig unix.Signal) {
	_ = unix.Tgkill(processOf(j.n.pid), int(j.n.pid), sig) // it may be gone
}

// run does a call, or goes on with one.
func (w *worker) run(j *job) {
	if j.sends() {
		w.send(j)
		return
	}
	if j.fd < 0 {
		if errno := w.open(j); errno != 0 {
			w.s.answer(j, errno)
			return
		}
	} else { // it was parked
		j.rest = w.room[Context : Context+copy(w.room[Context:Context+piece], j.rest)]
	}
	for {
		if len(j.rest) == 0 && (j.read < j.total || j.total == 0) {
			if errno := w.fill(j); errno != 0 {
				w.s.answer(j, errno)
				return
			}
		}
		want := len(j.rest)
		n, errno := w.put(j)
		j.done += n
		j.rest = j.rest[n:]
		if n > 0 {
			j.judged = 0
		}
		switch {
		case errno == unix.EAGAIN && j.waits():
			w.s.park(j)
			return
		case errno == held:
			j.close()
			return
		case errno != 0:
			w.s.answer(j, errno)
			return
		case j.done == j.total, n < want && !j.waits(), n == 0:
			w.s.answer(j, 0)
			return
		}
	}
}

// waits says that the call is one that waits until everything is written.
func (j *job) waits() bool {
	return j.flags&unix.O_NONBLOCK == 0 && j.how&unix.RWF_NOWAIT == 0 && (j.channel == guard.ChannelPipe || j.channel == guard.ChannelSocket) ||
		j.channel == guard.ChannelTerminal && j.flags&unix.O_NONBLOCK == 0
}

// open duplicates the descriptor and looks at what the call says of its bytes.
func (w *worker) open(j *job) unix.Errno {
	j.channel = ChannelOther
	tid, a := j.n.pid, &j.n.args
	for again := range 2 {
		p, err := w.pidfd(tid, again > 0)
		if err == nil {
			j.fd, err = unix.PidfdGetfd(p, int(int32(a[0])), 0)
		}
		if err == nil {
			break
		}
		j.fd = -1
		if again == 0 && (errors.Is(err, unix.ESRCH) || errors.Is(err, unix.EBADF)) {
			continue // it may be an old thread of that number
		}
		if errors.Is(err, unix.EBADF) {
			return unix.EBADF
		}
		if errors.Is(err, unix.ESRCH) {
			return unix.EINTR // the caller is gone, and nobody reads the answer
		}
		w.s.counts.add(j.channel, func(c *Counters) { c.Calls++; c.NoAccess++ })
		return unix.EPERM
	}
	var st unix.Stat_t
	flags, err := unix.FcntlInt(uintptr(j.fd), unix.F_GETFL, 0)
	if err != nil || unix.Fstat(j.fd, &st) != nil || flags&unix.O_ACCMODE == unix.O_RDONLY || flags&unix.O_PATH != 0 {
		return unix.EBADF
	}
	j.flags = flags
	j.key = fileKey{uint64(st.Dev), st.Ino}
	switch st.Mode & unix.S_IFMT {
	case unix.S_IFREG:
		j.channel = guard.ChannelFile
	case unix.S_IFIFO:
		j.channel = guard.ChannelPipe
	case unix.S_IFSOCK:
		j.channel = guard.ChannelSocket
		j.socket, _ = unix.GetsockoptInt(j.fd, unix.SOL_SOCKET, unix.SO_TYPE)
		j.inside = inside(j.fd)
	case unix.S_IFCHR:
		if m := unix.Major(uint64(st.Rdev)); m == 4 || m == 5 || m >= 128 && m <= 143 { // ttys, /dev/tty and ptmx, ptys
			j.channel = guard.ChannelTerminal
		}
	}
	var errno unix.Errno
	if !j.sends() {
		errno = w.shape(j)
	}
	w.s.counts.add(j.channel, func(c *Counters) { c.Calls++ })
	return errno
}

// shape reads where the bytes are.
func (w *worker) shape(j *job) unix.Errno {
	a := &j.n.args
	vector := true
	switch j.n.nr {
	case unix.SYS_WRITE:
		vector = false
	case unix.SYS_PWRITE64:
		vector, j.at, j.pos = false, true, int64(a[3])
	case unix.SYS_PWRITEV:
		j.at, j.pos = true, int64(a[3])
	case unix.SYS_PWRITEV2:
		j.pos, j.how = int64(a[3]), int(int32(a[5]))
		j.at = j.pos != -1
	}
	if j.at && j.pos < 0 {
		return unix.EINVAL
	}
	if !vector {
		if int64(a[2]) < 0 {
			return unix.EINVAL
		}
		j.total = int(min(a[2], maxCount))
		j.parts = []unix.RemoteIovec{{Base: uintptr(a[1]), Len: j.total}}
		return 0
	}
	return w.vector(j, a[1], a[2])
}

// vector reads where the parts of a writev or of a message are.
func (w *worker) vector(j *job, at, count uint64) unix.Errno {
	if count > maxParts {
		return unix.EINVAL
	}
	if count == 0 {
		return 0
	}
	parts := w.head[:count]
	b := unsafe.Slice((*byte)(unsafe.Pointer(&parts[0])), len(parts)*16)
	n, errno := w.peek(j, b, []unix.RemoteIovec{{Base: uintptr(at), Len: len(b)}})
	if errno != 0 {
		return errno
	}
	if n < len(b) || !w.s.valid(j) {
		return unix.EFAULT
	}
	for i, p := range parts {
		if p.Len < 0 {
			return unix.EINVAL
		}
		parts[i].Len = min(p.Len, maxCount-j.total)
		j.total += parts[i].Len
	}
	j.parts = append([]unix.RemoteIovec(nil), parts...)
	return 0
}

// peek reads the caller's memory into b.
func (w *worker) peek(j *job, b []byte, from []unix.RemoteIovec) (int, unix.Errno) {
	n, err := unix.ProcessVMReadv(int(j.n.pid), []unix.Iovec{{Base: &b[0], Len: uint64(len(b))}}, from, 0)
	switch {
	case err == nil:
		return n, 0
	case errors.Is(err, unix.EPERM):
		w.s.counts.add(j.channel, func(c *Counters) { c.NoAccess++ })
		return 0, unix.EPERM
	}
	return 0, unix.EFAULT // also if the thread is gone: nobody reads the answer
}

// fill reads the next piece.
func (w *worker) fill(j *job) unix.Errno {
	want := min(j.total-j.read, piece)
	j.rest = w.room[Context : Context+want]
	if want == 0 {
		return 0
	}
	var from []unix.RemoteIovec
	skip, left := j.read, want
	for _, p := range j.parts {
		if skip >= p.Len {
			skip -= p.Len
			continue
		}
		l := min(p.Len-skip, left)
		from = append(from, unix.RemoteIovec{Base: p.Base + uintptr(skip), Len: l})
		skip = 0
		if left -= l; left == 0 {
			break
		}
	}
	n, errno := w.peek(j, j.rest, from)
	if errno == 0 && !w.s.valid(j) {
		errno = unix.EINTR // nobody is there to read it
	}
	if errno != 0 {
		w.s.counts.add(j.channel, func(c *Counters) { c.Unreadable += uint64(j.total - j.read) })
		j.rest = nil
		return errno
	}
	if n < want { // as the kernel does: what comes before the page that is not there
		lost := uint64(j.total - j.read - n)
		w.s.counts.add(j.channel, func(c *Counters) { c.Unreadable += lost })
		j.total = j.read + n
	}
	j.read += n
	j.rest = j.rest[:n]
	return 0
}

// who says for a record who writes to what.
func (j *job) who() guard.Origin {
	o := guard.Origin{Channel: j.channel, Source: "seccomp", PID: processOf(j.n.pid)}
	switch j.n.nr {
	case unix.SYS_WRITE:
		o.Method = "write"
	case unix.SYS_PWRITE64:
		o.Method = "pwrite64"
	case unix.SYS_WRITEV:
		o.Method = "writev"
	case unix.SYS_PWRITEV:
		o.Method = "pwritev"
	case unix.SYS_PWRITEV2:
		o.Method = "pwritev2"
	case unix.SYS_SENDTO:
		o.Method = "sendto"
	case unix.SYS_SENDMSG:
		o.Method = "sendmsg"
	case unix.SYS_SENDMMSG:
		o.Method = "sendmmsg"
	}
	if exe, err := os.Readlink("/proc/" + strconv.Itoa(int(j.n.pid)) + "/exe"); err == nil {
		o.Exe = exe
	}
	if path, err := os.Readlink("/proc/self/fd/" + strconv.Itoa(j.fd)); err == nil && path != "" && path[0] == '/' {
		o.Path = path
	}
	return o
}
