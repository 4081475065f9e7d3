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
