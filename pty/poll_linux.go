package pty

import (
	"time"

	"golang.org/x/sys/unix"
)

// wait returns when something of fds is ready, when d has passed (never, if
// negative), or when a signal came.
func wait(fds []interest, d time.Duration) error {
	var p [4]unix.PollFd
	for i, f := range fds {
		p[i].Fd = int32(f.fd)
		if f.read {
			p[i].Events |= unix.POLLIN
		}
		if f.write {
			p[i].Events |= unix.POLLOUT
		}
	}
	var ts *unix.Timespec
	if d >= 0 {
		t := unix.NsecToTimespec(int64(d))
		ts = &t
	}
	_, err := unix.Ppoll(p[:len(fds)], ts, nil)
	if err != nil && err != unix.EINTR {
		return err
	}
	for i := range fds {
		ev := p[i].Revents
		if err != nil {
			ev = 0
		}
		fds[i].ready = ev&(unix.POLLIN|unix.POLLOUT) != 0
		fds[i].ended = ev&(unix.POLLHUP|unix.POLLERR|unix.POLLNVAL) != 0
	}
	return nil
}

// readNow reads what is there. Of a pipe or a socket, another reader may have
// taken it since it was seen: then it is EAGAIN, and no wait. (Of a file it
// could be EAGAIN for as long as the disk needs, so that one is just read.)
func readNow(fd int, p []byte) (int, error) {
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		return 0, err
	}
	if kind := st.Mode & unix.S_IFMT; kind == unix.S_IFIFO || kind == unix.S_IFSOCK {
		n, err := unix.Preadv2(fd, [][]byte{p}, -1, unix.RWF_NOWAIT)
		if err != unix.EOPNOTSUPP && err != unix.ENOSYS && err != unix.EINVAL {
			return n, err
		}
	}
	return unix.Read(fd, p)
}
