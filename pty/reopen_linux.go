package pty

import (
	"strconv"

	"golang.org/x/sys/unix"
)

// reopen opens once more the terminal that fd is, to write to it without waiting:
// modes of a descriptor are shared with whoever else has it, a shell for one, and
// those of another one are not. It fails where the terminal belongs to another user.
func reopen(fd int) (int, error) {
	return unix.Open("/proc/self/fd/"+strconv.Itoa(fd), unix.O_WRONLY|unix.O_NONBLOCK|unix.O_NOCTTY|unix.O_CLOEXEC, 0)
}
