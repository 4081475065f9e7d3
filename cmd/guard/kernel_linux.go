package main

import (
	"fmt"

	"golang.org/x/sys/unix"
)

// kernelLacks says why this process may not have the kernel search writes, "" if
// it may. What the kernel itself lacks shows when it is tried.
func kernelLacks() string {
	head := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	var d [2]unix.CapUserData
	if err := unix.Capget(&head, &d[0]); err != nil {
		return fmt.Sprintf("the capabilities of this process are not known: %v", err)
	}
	has := func(c int) bool { return d[c/32].Effective>>(c%32)&1 != 0 }
	if has(unix.CAP_SYS_ADMIN) || has(unix.CAP_BPF) && has(unix.CAP_PERFMON) {
		return ""
	}
	return "searching writes in the kernel needs root, or CAP_BPF and CAP_PERFMON"
}

// pidNamespace is the inode number of a process's pid namespace.
func pidNamespace(pid int) (uint64, error) {
	var st unix.Stat_t
	if err := unix.Stat(fmt.Sprintf("/proc/%d/ns/pid", pid), &st); err != nil {
		return 0, fmt.Errorf("find the session's pid namespace: %w", err)
	}
	return st.Ino, nil
}

func ownPIDNamespace() uint64 {
	var st unix.Stat_t
	if unix.Stat("/proc/self/ns/pid", &st) != nil {
		return 0
	}
	return st.Ino
}
