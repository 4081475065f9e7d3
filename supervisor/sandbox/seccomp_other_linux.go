//go:build linux && !amd64 && !arm64

package sandbox

import (
	"runtime"

	"golang.org/x/sys/unix"
)

type filterOptions struct{ noZeroCopy, restricted, reserved bool }

func seccompFilter(filterOptions) ([]unix.SockFilter, error) {
	return nil, unsupported("no system call filter for %s", runtime.GOARCH)
}

func loadFilter([]unix.SockFilter) error {
	return unsupported("no system call filter for %s", runtime.GOARCH)
}
