//go:build unix && !linux

package pty

import "golang.org/x/sys/unix"

// flushInput throws away what was typed and not read.
func flushInput(fd int) error { return unix.IoctlSetPointerInt(fd, unix.TIOCFLUSH, 1) } // FREAD
