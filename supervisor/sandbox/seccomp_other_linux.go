//go:build linux && !amd64 && !arm64

package sandbox

import (
	"runtime"

	"golang.org/x/sys/unix"
)

type filterOptions struct{ noZeroCopy, restricted, reserved, notify bool }

func seccompFilter(filterOptions) ([]unix.SockFilter, error) {
	return nil, unsupported("no system call filter for %s", runtime.GOARCH)
}

func loadFilter([]unix.SockFilter, bool) (int, error) {
	return -1, unsupported("no system call filter for %s", runtime.GOARCH)
}
