package sandbox

import (
	"fmt"

	"golang.org/x/sys/unix"
)

// tty is a terminal that stage 1 opened for the agent.
type tty struct{ master, slave int }

func openTTY(dir int, name string, rows, cols uint16) (*tty, error) {
	m, err := unix.Openat(dir, name, unix.O_RDWR|unix.O_NOCTTY|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("open a terminal: %w", err)
	}
	if err := unix.IoctlSetPointerInt(m, unix.TIOCSPTLCK, 0); err != nil {
		unix.Close(m)
		return nil, fmt.Errorf("unlock the terminal: %w", err)
	}
	s, _, errno := unix.Syscall(unix.SYS_IOCTL, uintptr(m), unix.TIOCGPTPEER, unix.O_RDWR|unix.O_NOCTTY|unix.O_CLOEXEC)
	if errno != 0 {
		unix.Close(m)
		return nil, fmt.Errorf("open the terminal's other side: %w", errno)
	}
	if rows == 0 || cols == 0 {
		rows, cols = 24, 80
	}
	if err := unix.IoctlSetWinsize(m, unix.TIOCSWINSZ, &unix.Winsize{Row: rows, Col: cols}); err != nil {
		unix.Close(m)
		unix.Close(int(s))
		return nil, fmt.Errorf("size the terminal: %w", err)
	}
	return &tty{master: m, slave: int(s)}, nil
}
