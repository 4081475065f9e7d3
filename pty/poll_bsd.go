//go:build unix && !linux

package pty

import (
	"time"

	"golang.org/x/sys/unix"
)

// wait is select, since poll on macOS does not know terminals. There is no
// hang-up in it: an ended descriptor is ready, and the read says so.
func wait(fds []interest, d time.Duration) error {
	var r, w unix.FdSet
	top := 0
	for _, f := range fds {
		if f.fd < 0 || f.fd >= unix.FD_SETSIZE {
			return unix.EBADF
		}
		if f.read {
			r.Set(f.fd)
		}
		if f.write {
			w.Set(f.fd)
		}
		top = max(top, f.fd+1)
	}
	var tv *unix.Timeval
	if d >= 0 {
		t := unix.NsecToTimeval(int64(d + time.Microsecond - 1))
		tv = &t
	}
	_, err := unix.Select(top, &r, &w, nil, tv)
	if err == unix.EINTR {
		r.Zero()
		w.Zero()
	} else if err != nil {
		return err
	}
	for i, f := range fds {
		fds[i].ready = f.read && r.IsSet(f.fd) || f.write && w.IsSet(f.fd)
	}
	return nil
}

// readNow reads what was seen to be there.
func readNow(fd int, p []byte) (int, error) { return unix.Read(fd, p) }
