package main

import "golang.org/x/sys/unix"

// firstPIDNamespace says that processes have the numbers here that the kernel
// counts by.
func firstPIDNamespace() bool {
	var st unix.Stat_t
	const first = 0xEFFFFFFC // PROC_PID_INIT_INO
	return unix.Stat("/proc/self/ns/pid", &st) == nil && st.Ino == first
}
