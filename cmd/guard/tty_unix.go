//go:build unix

package main

import (
	"os"
	"os/signal"
	"syscall"
)

const ttyPath = "/dev/tty"

// catchBrokenPipe makes writing to a pipe that nobody reads an error.
func catchBrokenPipe() { signal.Notify(make(chan os.Signal, 1), syscall.SIGPIPE) }
