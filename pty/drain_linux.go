package pty

import (
	"os"
	"time"

	"golang.org/x/sys/unix"
)

// Drain waits until everything that was written to the terminal behind master
// has been read from master, by whoever copies it. It is called when the agent
// has ended and before its session leader does: the kernel then hangs the
// terminal up, and what is still on its way in it is thrown away. It gives up
// when nothing is read for a second, since a user's terminal may be stopped, and
// after three, since what the agent left behind may write for ever.
func Drain(master *os.File) {
	conn, err := master.SyscallConn()
	if err != nil {
		return
	}
	began := time.Now()
	last, since, empty := -1, began, 0
	for empty < 2 && time.Since(since) < time.Second && time.Since(began) < 3*time.Second {
		n := 0
		if conn.Control(func(fd uintptr) { n, err = unix.IoctlGetInt(int(fd), unix.TIOCINQ) }) != nil || err != nil {
			return
		}
		if n == 0 {
			empty++ // twice: bytes may be between the two halves
		} else {
			empty = 0
		}
		if n != last {
			last, since = n, time.Now()
		}
		time.Sleep(500 * time.Microsecond)
	}
}
