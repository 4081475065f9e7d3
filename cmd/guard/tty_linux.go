package main

import (
	"os"

	"golang.org/x/sys/unix"
)

// rawTerminal says that f is a terminal that turns no line feed into a new line,
// as during a session.
func rawTerminal(f *os.File) bool {
	t, err := unix.IoctlGetTermios(int(f.Fd()), unix.TCGETS)
	return err == nil && t.Oflag&unix.OPOST == 0
}
