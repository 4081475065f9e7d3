//go:build linux && (amd64 || arm64)

package bpf

import "golang.org/x/sys/unix"

// unlimited raises what this process may lock in memory, until the function that it returns is called: before 5.11 the
// kernel counts maps and programs against that, and 64 KiB is what most processes may. Where it may not be
// raised, what follows says so by failing.
func unlimited() (restore func()) {
	was, all := unix.Rlimit{}, unix.Rlimit{Cur: unix.RLIM_INFINITY, Max: unix.RLIM_INFINITY}
	if err := unix.Prlimit(0, unix.RLIMIT_MEMLOCK, &all, &was); err != nil {
		return func() {}
	}
	return func() { _ = unix.Prlimit(0, unix.RLIMIT_MEMLOCK, &was, nil) }
}
