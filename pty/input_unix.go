//go:build unix

package pty

import (
	"time"

	"golang.org/x/sys/unix"
)

// input copies keystrokes, through t if it is not nil, until either terminal
// ends or the gate closes. It reads the user's terminal only while the agent's
// is open.
func input(g *gate, in, master int, t *typed) {
	var buf [4096]byte
	var rest []byte
	var let time.Time // when what t holds back is let go
	// send writes what it can, and says whether the agent's terminal is open.
	send := func() bool {
		if len(rest) == 0 {
			return true
		}
		k, err := unix.Write(master, rest)
		rest = rest[max(0, k):]
		return err == nil || err == unix.EAGAIN || err == unix.EINTR
	}
	for g.pass() {
		fds := [3]interest{{fd: g.fd(), read: true}, {fd: master, write: len(rest) > 0}, {fd: in, read: true}}
		n, limit := 3, noLimit
		if len(rest) > 0 {
			n = 2
		} else if !let.IsZero() {
			limit = max(0, time.Until(let))
		}
		if err := wait(fds[:n], limit); err != nil || fds[1].ended {
			return
		}
		open := true
		switch {
		case fds[0].ready:
		case fds[1].ready:
			open = send()
		case fds[2].ready || fds[2].ended:
			k, err := unix.Read(in, buf[:])
			if k == 0 && err == nil || err != nil && err != unix.EAGAIN && err != unix.EINTR {
				return
			}
			if k <= 0 {
				continue
			}
			if rest = buf[:k]; t != nil {
				rest, let = t.feed(rest), time.Time{}
				if d := t.wait(); d > 0 {
					let = time.Now().Add(d)
				}
			}
			open = send() // most often there is room: no need to ask first
		case limit >= 0 && time.Until(let) <= 0: // and not a signal
			rest, let = t.silence(), time.Time{}
			open = send()
		}
		if !open {
			return
		}
	}
}
