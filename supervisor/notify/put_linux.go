//go:build linux && (amd64 || arm64)

package notify

import (
	"errors"
	"strconv"
	"sync"

	"golang.org/x/sys/unix"

	"guard"
)

type fileKey struct{ device, inode uint64 }

// file is what is remembered of a file or pipe. Its lock is held while bytes are
// judged and written.
type file struct {
	mu      sync.Mutex
	tail    []byte // the last bytes that were written
	end     int64  // where they end, of a regular file
	changes uint64 // counts writes
	users   int    // under files.mu
}

// files are the files that were written to, the latest maxFiles of them.
type files struct {
	mu  sync.Mutex
	m   map[fileKey]*file
	old []fileKey // in the order in which they came
}

const maxFiles = 1024

func (fs *files) take(k fileKey) *file {
	fs.mu.Lock()
	f := fs.m[k]
	if f == nil {
		f = &file{changes: 1}
		fs.m[k] = f
		fs.old = append(fs.old, k)
		for i := 0; len(fs.m) > maxFiles && i < len(fs.old); {
			o := fs.m[fs.old[i]]
			if o != nil && o.users > 0 || fs.old[i] == k {
				i++
				continue
			}
			if o != nil {
				clear(o.tail)
				delete(fs.m, fs.old[i])
			}
			fs.old = append(fs.old[:i], fs.old[i+1:]...)
		}
	}
	f.users++
	fs.mu.Unlock()
	f.mu.Lock()
	return f
}

func (fs *files) give(f *file) {
	f.mu.Unlock()
	fs.mu.Lock()
	f.users--
	fs.mu.Unlock()
}

func (fs *files) wipe() {
	fs.mu.Lock()
	defer fs.mu.Unlock()
	for _, f := range fs.m {
		clear(f.tail)
	}
	clear(fs.m)
}

// wrote remembers the last bytes of before, which is not f.tail, and of what was
// written after it.
func (f *file) wrote(before, b []byte, end int64) {
	f.tail = append(f.tail[:0], before...)
	f.pushed(b)
	f.end = end
}

// pushed remembers b after what is remembered.
func (f *file) pushed(b []byte) {
	if f.tail == nil {
		f.tail = make([]byte, 0, Context)
	}
	b = b[max(0, len(b)-Context):]
	if over := len(f.tail) + len(b) - Context; over > 0 {
		f.tail = f.tail[:copy(f.tail, f.tail[over:])]
	}
	f.tail = append(f.tail, b...)
	f.changes++
}

// put judges and writes what it can of j.rest, which lies in w.room.
func (w *worker) put(j *job) (int, unix.Errno) {
	switch j.channel {
	case guard.ChannelFile:
		return w.putFile(j)
	case guard.ChannelPipe:
		if !j.at && len(j.rest) > 0 {
			return w.putPipe(j)
		}
	case guard.ChannelSocket:
		if !j.at && j.how == 0 {
			return w.putSocket(j)
		}
	}
	w.left(j)
	return w.plain(j, j.rest)
}

// left counts bytes that nobody looks at here, once.
func (w *worker) left(j *job) {
	n := uint64(j.read - j.counted)
	j.counted = j.read
	if n > 0 {
		w.s.counts.add(j.channel, func(c *Counters) { c.Left += n })
	}
}

// plain makes the call that the caller made, with b for its bytes.
func (w *worker) plain(j *job, b []byte) (n int, errno unix.Errno) {
	var err error
	switch {
	case j.how != 0:
		pos := j.pos
		if !j.at {
			pos = -1
		}
		n, err = unix.Pwritev2(j.fd, [][]byte{b}, pos, j.how)
	case j.at:
		n, err = unix.Pwrite(j.fd, b, j.pos)
		j.pos += int64(max(n, 0))
	default:
		n, err = unix.Write(j.fd, b)
	}
	return w.result(j, n, err)
}

func (w *worker) result(j *job, n int, err error) (int, unix.Errno) {
	if err == nil {
		return n, 0
	}
	errno, ok := errors.AsType[unix.Errno](err)
	if !ok {
		errno = unix.EIO
	}
	switch errno {
	case unix.EPIPE:
		w.signal(j, unix.SIGPIPE)
	case unix.EINTR: // a signal of guard's own
		if j.channel == guard.ChannelTerminal || j.channel == ChannelOther {
			return 0, restart
		}
		return 0, unix.EAGAIN
	}
	return 0, errno
}

// judge asks about w.room[Context-len(before) : ...], where rest is in place.
func (w *worker) judge(j *job, before, after int, done bool) (errno unix.Errno) {
	n := len(j.rest)
	v := Write{
		Channel: j.channel, Bytes: w.room[Context-before : Context+n+after], From: before, Till: before + n, Done: done, Fixed: j.sends(), Who: j.who,
	}
	if fresh := uint64(j.read - j.counted); fresh > 0 { // else it is looked at again
		j.counted = j.read
		w.s.counts.add(j.channel, func(c *Counters) { c.Judged += fresh })
	}
	verdict := Refuse
	if w.s.o.Judge != nil {
		verdict = w.s.o.Judge(v)
	}
	if verdict == Allow || done {
		return 0
	}
	w.s.counts.add(j.channel, func(c *Counters) { c.Refused++ })
	if verdict == Hold {
		return held
	}
	return unix.EPERM
}

// settle moves rest to where judge wants it: right behind the first Context bytes.
func (w *worker) settle(j *job) {
	if len(j.rest) > 0 && &j.rest[0] != &w.room[Context] {
		j.rest = w.room[Context : Context+copy(w.room[Context:], j.rest)]
	}
}

func (w *worker) putFile(j *job) (int, unix.Errno) {
	f := w.s.files.take(j.key)
	defer w.s.files.give(f)
	var st unix.Stat_t
	if unix.Fstat(j.fd, &st) != nil {
		return 0, unix.EIO
	}
	atEnd := j.flags&unix.O_APPEND != 0 && j.how&rwfNoAppend == 0 || j.how&unix.RWF_APPEND != 0
	seeks := true
	pos := j.pos
	if atEnd {
		pos = st.Size
	} else if !j.at {
		var err error
		if pos, err = unix.Seek(j.fd, 0, unix.SEEK_CUR); err != nil {
			pos, seeks = 0, false
		}
	}
	if len(j.rest) == 0 {
		return w.plain(j, nil)
	}
	w.settle(j)
	if n, errno := w.limit(j, pos); errno != 0 {
		return 0, errno
	} else if n < len(j.rest) {
		j.total -= len(j.rest) - n + j.total - j.read
		j.rest = j.rest[:n]
	}
	before, after := w.around(j, f, pos, st.Size, seeks)
	if errno := w.judge(j, before, after, false); errno != 0 {
		return 0, errno
	}
	var wrote int
	var errno unix.Errno
	switch {
	case j.how != 0 || j.at && !atEnd || atEnd || !seeks:
		wrote, errno = w.plain(j, j.rest)
	default:
		// At the place that was judged, and not where a thread may have moved the
		// offset to meanwhile.
		k, err := unix.Pwrite(j.fd, j.rest, pos)
		if errors.Is(err, unix.ESPIPE) {
			wrote, errno = w.plain(j, j.rest)
			break
		}
		if wrote, errno = w.result(j, k, err); wrote > 0 {
			_, _ = unix.Seek(j.fd, pos+int64(wrote), unix.SEEK_SET)
		}
	}
	if errno == unix.EAGAIN {
		errno = unix.EINTR
	}
	if wrote > 0 {
		end := pos + int64(wrote)
		if atEnd {
			if now, err := unix.Seek(j.fd, 0, unix.SEEK_CUR); err == nil && !j.at && now != end && now >= int64(wrote) {
				// Another place came to be the end meanwhile.
				end = now
				if b, a, ok := w.read(j, end-int64(wrote), end, len(j.rest)); ok && wrote == len(j.rest) {
					_ = w.judge(j, b, a, true)
					before = b
				}
			}
		}
		f.wrote(w.room[Context-before:Context], j.rest[:wrote], end)
	}
	return wrote, errno
}

const rwfNoAppend = 0x20 // RWF_NOAPPEND of Linux 6.9

// limit is RLIMIT_FSIZE, which is the caller's: how many of rest's bytes may be
// written at pos.
func (w *worker) limit(j *job, pos int64) (int, unix.Errno) {
	var l unix.Rlimit
	if unix.Prlimit(int(j.n.pid), unix.RLIMIT_FSIZE, nil, &l) != nil || l.Cur == unix.RLIM_INFINITY {
		return len(j.rest), 0
	}
	if uint64(pos) >= l.Cur {
		if j.done == 0 {
			w.signal(j, unix.SIGXFSZ)
		}
		return 0, unix.EFBIG
	}
	return int(min(uint64(len(j.rest)), l.Cur-uint64(pos))), 0
}

// around puts what the file has before and after rest next to it in w.room.
func (w *worker) around(j *job, f *file, pos, size int64, seeks bool) (before, after int) {
	n := len(j.rest)
	known := len(f.tail) > 0 && f.end == pos || !seeks
	if known {
		before = copy(w.room[Context-len(f.tail):Context], f.tail)
	}
	if known && pos+int64(n) >= size || pos == 0 && size == 0 || !seeks {
		return before, 0
	}
	b, a, ok := w.read(j, pos, size, n)
	if !ok {
		w.s.counts.add(j.channel, func(c *Counters) { c.Blind++ })
		if !known { // the last that was written is better than nothing
			before = copy(w.room[Context-len(f.tail):Context], f.tail)
		}
		return before, 0
	}
	if known {
		b = before
	}
	return b, a
}

// read reads what the file has around n bytes at pos, into w.room around rest.
func (w *worker) read(j *job, pos, size int64, n int) (before, after int, ok bool) {
	fd := j.fd
	if j.flags&unix.O_ACCMODE != unix.O_RDWR || j.flags&unix.O_DIRECT != 0 {
		var err error
		fd, err = unix.Open("/proc/self/fd/"+strconv.Itoa(j.fd), unix.O_RDONLY|unix.O_CLOEXEC|unix.O_NOCTTY|unix.O_NONBLOCK, 0)
		if err != nil {
			return 0, 0, false
		}
		defer unix.Close(fd)
	}
	if before = int(min(pos, Context)); before > 0 {
		k, err := unix.Pread(fd, w.room[Context-before:Context], pos-int64(before))
		if err != nil {
			return 0, 0, false
		}
		clear(w.room[Context-before+k : Context]) // a hole behind the end, which the write makes
	}
	if end := pos + int64(n); end < size {
		k, err := unix.Pread(fd, w.room[Context+n:Context+n+Context], end)
		if err != nil {
			return 0, 0, false
		}
		after = k
	}
	return before, after, true
}

// putPipe writes to a pipe or FIFO without waiting.
func (w *worker) putPipe(j *job) (int, unix.Errno) {
	if w.s.o.Leave[[2]uint64{j.key.device, j.key.inode}] {
		w.left(j)
		return w.nowait(j, j.rest)
	}
	f := w.s.files.take(j.key)
	defer w.s.files.give(f)
	before := 0
	if j.judged != f.changes {
		w.settle(j)
		before = copy(w.room[Context-len(f.tail):Context], f.tail)
		if errno := w.judge(j, before, 0, false); errno != 0 {
			return 0, errno
		}
		j.judged = f.changes
	}
	n, errno := w.nowait(j, j.rest)
	if n > 0 {
		f.pushed(j.rest[:n])
	}
	return n, errno
}

// nowait writes as much as there is room for, EAGAIN if there is none.
func (w *worker) nowait(j *job, b []byte) (int, unix.Errno) {
	if j.flags&unix.O_NONBLOCK != 0 {
		return w.plain(j, b)
	}
	n, err := unix.Pwritev2(j.fd, [][]byte{b}, -1, j.how|unix.RWF_NOWAIT)
	if !errors.Is(err, unix.EOPNOTSUPP) {
		return w.result(j, n, err)
	}
	// Before Linux 6.4: where there is room for anything, there is for a page.
	p := []unix.PollFd{{Fd: int32(j.fd), Events: unix.POLLOUT}}
	if k, err := unix.Poll(p, 0); err != nil || k == 0 {
		return 0, unix.EAGAIN
	}
	return w.plain(j, b[:min(len(b), 4096)])
}

// putSocket writes to a socket without waiting; what leads to the broker is left to that.
func (w *worker) putSocket(j *job) (int, unix.Errno) {
	flags := unix.MSG_DONTWAIT | unix.MSG_NOSIGNAL
	switch j.socket {
	case unix.SOCK_STREAM:
	case unix.SOCK_SEQPACKET:
		flags |= unix.MSG_EOR
		fallthrough
	default:
		if j.total > piece { // one message, one call
			return 0, unix.EMSGSIZE
		}
	}
	if !j.inside || len(j.rest) == 0 {
		w.left(j)
		n, err := unix.SendmsgN(j.fd, j.rest, nil, nil, flags)
		return w.result(j, n, err)
	}
	f := w.s.files.take(j.key)
	defer w.s.files.give(f)
	if j.judged != f.changes {
		w.settle(j)
		before := copy(w.room[Context-len(f.tail):Context], f.tail)
		if errno := w.judge(j, before, 0, false); errno != 0 {
			return 0, errno
		}
		j.judged = f.changes
	}
	n, err := unix.SendmsgN(j.fd, j.rest, nil, nil, flags)
	if err == nil && n > 0 {
		if j.socket == unix.SOCK_STREAM {
			f.pushed(j.rest[:n])
		} else {
			f.changes++
		}
	}
	return w.result(j, n, err)
}
