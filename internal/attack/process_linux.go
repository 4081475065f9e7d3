package attack

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"unsafe"

	"golang.org/x/sys/unix"
)

const (
	claimProc   = "An adversary who reads the memory, environment or files of guard in /proc, or ptraces or signals it"
	claimInit   = "An adversary who reads pid 1 of the session"
	claimStarve = "An adversary who stops or kills pid 1 of the session, or takes its memory, files, processor time or priority away by limits"
	claimCalls  = "An adversary who uses io_uring, bpf, perf, userfaultfd, the kernel's keyring, process_vm_writev, TIOCSTI or a foreign ABI"
	claimRoot   = "An adversary who becomes root, by a setuid program, a capability or a user namespace"
)

func processCases() []Case {
	c := func(name, claim string, try func(in *inside) got) Case {
		return Case{Name: name, Group: "processes", Claim: claim, try: try}
	}
	return []Case{
		c("proc-environ", claimProc, func(in *inside) got { return in.procFiles("environ", "task/*/environ") }),
		c("proc-mem", claimProc, (*inside).procMem),
		c("proc-fd", claimProc, func(in *inside) got { return in.procFiles("fd/*", "map_files/*") }),
		c("proc-links", claimProc, func(in *inside) got { return in.procLinks("cwd", "root", "exe", "ns/mnt", "ns/net", "ns/pid") }),
		c("proc-auxv", claimProc, func(in *inside) got {
			return in.procOpens("auxv", "stack", "syscall", "io", "personality", "pagemap", "clear_refs", "coredump_filter")
		}),
		c("ptrace", claimProc, func(in *inside) got {
			return in.each("trace", func(pid int) error {
				runtime.LockOSThread() // never unlocked: what it traces is let go when the thread ends
				if in.contained() && pid == 1 {
					return unix.PtraceAttach(pid)
				}
				return unix.PtraceSeize(pid)
			})
		}),
		c("process-vm-readv", claimProc, func(in *inside) got {
			return in.each("read memory of", func(pid int) error {
				var b [8]byte
				_, err := unix.ProcessVMReadv(pid, []unix.Iovec{{Base: &b[0], Len: 8}}, []unix.RemoteIovec{{Base: 1, Len: 8}}, 0)
				return unlessFault(err)
			})
		}),
		c("process-vm-writev", claimCalls, func(in *inside) got {
			return in.each("write memory of", func(pid int) error {
				var b [8]byte
				_, err := unix.ProcessVMWritev(pid, []unix.Iovec{{Base: &b[0], Len: 8}}, []unix.RemoteIovec{{Base: 1, Len: 8}}, 0)
				return unlessFault(err)
			})
		}),
		c("pidfd-getfd", claimProc, (*inside).pidfd),
		c("setns", claimInit, func(in *inside) got {
			return in.each("enter the namespaces of", func(pid int) error {
				fd, err := unix.PidfdOpen(pid, 0)
				if err != nil {
					return err
				}
				defer unix.Close(fd)
				runtime.LockOSThread() // the thread ends in whatever it entered
				if e := unix.Setns(fd, unix.CLONE_NEWUSER|unix.CLONE_NEWNS|unix.CLONE_NEWNET); e == nil {
					return nil
				}
				return unix.Setns(fd, unix.CLONE_NEWNET)
			})
		}),
		c("signal", claimProc, func(in *inside) got {
			return in.each("signal", func(pid int) error {
				if pid == 1 {
					return unix.ESRCH // see stop-init
				}
				return unix.Kill(pid, 0) // whether it could
			})
		}),
		c("limits", claimStarve, func(in *inside) got {
			return in.each("limit", func(pid int) error {
				var old unix.Rlimit
				if err := unix.Prlimit(pid, unix.RLIMIT_NOFILE, nil, &old); err != nil {
					return err
				}
				if pid == 1 {
					return unix.Prlimit(pid, unix.RLIMIT_NOFILE, &old, nil)
				}
				return nil
			})
		}),
		{Name: "stop-init", Group: "processes", Claim: claimStarve, try: func(in *inside) got {
			if !in.contained() {
				return skip("process 1 is the machine's in this tier")
			}
			for _, s := range []unix.Signal{unix.SIGTERM, unix.SIGHUP, unix.SIGQUIT, unix.SIGABRT, unix.SIGSEGV, unix.SIGSTOP, unix.SIGKILL} {
				_ = unix.Kill(1, s)
			}
			return held("seven signals later the session is still there")
		}},
		c("perf", claimCalls, func(in *inside) got {
			attr := unix.PerfEventAttr{Type: unix.PERF_TYPE_SOFTWARE, Config: unix.PERF_COUNT_SW_TASK_CLOCK, Size: uint32(unsafe.Sizeof(unix.PerfEventAttr{}))}
			fd, err := unix.PerfEventOpen(&attr, -1, 0, -1, 0)
			if err == nil {
				unix.Close(fd)
			}
			return refused("measure the processor", err)
		}),
		c("bpf", claimCalls, func(*inside) got { return refused("bpf", callFd(unix.SYS_BPF, 0, 0, 0)) }),
		c("userfaultfd", claimCalls, func(*inside) got { return refused("userfaultfd", callFd(unix.SYS_USERFAULTFD, 1)) }),
		c("io-uring", claimCalls, func(*inside) got {
			var params [120]byte
			return refused("io_uring_setup", callFd(unix.SYS_IO_URING_SETUP, 1, uintptr(unsafe.Pointer(&params[0]))))
		}),
		c("kernel-memory", claimRoot, func(*inside) got {
			return opens(os.O_RDONLY, "/proc/kcore", "/dev/mem", "/dev/kmem", "/proc/kmsg", "/dev/kmsg", "/proc/kallsyms.guard")
		}),
		c("core-pattern", claimRoot, func(*inside) got {
			return opens(os.O_WRONLY, "/proc/sys/kernel/core_pattern", "/proc/sys/kernel/modprobe", "/proc/sys/fs/suid_dumpable", "/proc/sysrq-trigger", "/sys/kernel/uevent_helper")
		}),
		c("setuid", claimRoot, (*inside).setuid),
		c("capabilities", claimRoot, func(*inside) got {
			b, _ := os.ReadFile("/proc/self/status")
			for line := range strings.Lines(string(b)) {
				if k, v, _ := strings.Cut(line, ":"); strings.HasPrefix(k, "CapEff") || strings.HasPrefix(k, "CapPrm") {
					if strings.Trim(strings.TrimSpace(v), "0") != "" {
						return broke("%s is %s", k, strings.TrimSpace(v))
					}
				}
			}
			return held("no capability is effective or permitted")
		}),
		c("system-files", claimRoot, func(*inside) got {
			b, _ := os.ReadFile("/etc/shadow")
			if len(b) > 0 {
				return broke("/etc/shadow can be read")
			}
			for _, d := range []string{"/usr/bin", "/usr/lib", "/etc", "/lib/systemd/system"} {
				if unix.Access(d, unix.W_OK) == nil {
					return broke("%s can be written", d)
				}
			}
			return held("neither /etc/shadow can be read nor the system's folders written")
		}),
	}
}

// each tries f with every process outside.
func (in *inside) each(what string, f func(pid int) error) got {
	var last error
	for _, pid := range in.foreign() {
		done := make(chan error, 1)
		go func() { done <- f(pid) }()
		if last = <-done; last == nil {
			return broke("%s %s", what, in.call(pid))
		}
	}
	return held("%s guard or another process: %v", what, last)
}

// call is what a process is to the user.
func (in *inside) call(pid int) string {
	switch pid {
	case in.Guard:
		return "guard"
	case in.Victim:
		return "a process of the user's"
	case 1:
		return "process 1"
	}
	return fmt.Sprintf("process %d", pid)
}

// unlessFault is nil for the error of whoever may, but asked for no memory.
func unlessFault(err error) error {
	if errors.Is(err, unix.EFAULT) {
		return nil
	}
	return err
}

func callFd(nr uintptr, a ...uintptr) error {
	var p [3]uintptr
	copy(p[:], a)
	fd, _, e := unix.Syscall(nr, p[0], p[1], p[2])
	if e != 0 {
		// Invalid arguments are judged after the right to call at all.
		if nr == unix.SYS_BPF && e == unix.EINVAL {
			return nil
		}
		return e
	}
	unix.Close(int(fd))
	return nil
}

func opens(flag int, paths ...string) got {
	var last error
	for _, p := range paths {
		f, err := os.OpenFile(p, flag, 0)
		if err == nil {
			f.Close()
			return broke("%s can be opened", p)
		}
		last = err
	}
	return held("none of %d can be opened: %v", len(paths), last)
}

// procFiles reads what patterns below /proc/PID name.
func (in *inside) procFiles(patterns ...string) got {
	var last error
	for _, pid := range in.foreign() {
		for _, pattern := range patterns {
			names, _ := filepath.Glob(fmt.Sprintf("/proc/%d/%s", pid, pattern))
			for _, n := range names {
				if fi, err := os.Stat(n); err == nil && !fi.Mode().IsRegular() {
					if pid == in.Victim && strings.Contains(n, "/fd/") {
						continue // a pipe or a device says nothing
					}
					continue
				}
				f, err := os.Open(n)
				if err != nil {
					last = err
					continue
				}
				b, err := io.ReadAll(io.LimitReader(f, 1<<20))
				f.Close()
				if name := in.known(b); name != "" {
					return broke("%s in %s of %s", name, pattern, in.call(pid))
				}
				if err != nil {
					last = err
				}
			}
		}
	}
	if last == nil {
		return held("no process but its own is in /proc")
	}
	return held("nothing of the processes outside: %v", last)
}

// procMem reads maps and memory.
func (in *inside) procMem() got {
	var last error
	for _, pid := range in.foreign() {
		maps, err := os.ReadFile(fmt.Sprintf("/proc/%d/maps", pid))
		if err == nil && len(maps) > 0 {
			return broke("the maps of %s", in.call(pid))
		}
		mem, merr := os.Open(fmt.Sprintf("/proc/%d/mem", pid))
		if merr == nil {
			mem.Close()
			return broke("the memory of %s can be opened", in.call(pid))
		}
		last = errors.Join(err, merr)
	}
	return held("no memory of guard's or of others: %v", last)
}

func (in *inside) procLinks(names ...string) got {
	var last error
	for _, pid := range in.foreign() {
		for _, n := range names {
			to, err := os.Readlink(fmt.Sprintf("/proc/%d/%s", pid, n))
			if err == nil {
				return broke("%s of %s leads to %s", n, in.call(pid), to)
			}
			last = err
		}
	}
	return held("none can be followed: %v", last)
}

func (in *inside) procOpens(names ...string) got {
	var last error
	for _, pid := range in.foreign() {
		for _, n := range names {
			b, err := os.ReadFile(fmt.Sprintf("/proc/%d/%s", pid, n))
			if err == nil && len(b) > 0 {
				return broke("%s of %s can be read", n, in.call(pid))
			}
			if err != nil {
				last = err
			}
		}
	}
	return held("none can be read: %v", last)
}

// pidfd takes descriptors of other processes.
func (in *inside) pidfd() got {
	return in.each("take a descriptor of", func(pid int) error {
		fd, err := unix.PidfdOpen(pid, 0)
		if err != nil {
			return err
		}
		defer unix.Close(fd)
		for n := range 8 {
			var f int
			if f, err = unix.PidfdGetfd(fd, n, 0); err == nil {
				unix.Close(f)
				return nil
			}
		}
		return err
	})
}

func (in *inside) setuid() got {
	if os.Geteuid() == 0 {
		return broke("the agent runs as root")
	}
	for what, f := range map[string]func() error{
		"setuid": func() error { return unix.Setuid(0) }, "setgid": func() error { return unix.Setgid(0) }, "setgroups": func() error { return unix.Setgroups([]int{0}) },
	} {
		if f() == nil {
			return broke("%s 0 worked", what)
		}
	}
	b, err := os.ReadFile("/proc/self/status")
	if err != nil || !strings.Contains(string(b), "NoNewPrivs:\t1") {
		return broke("setuid programs would gain rights")
	}
	return held("uid %d, and setuid programs gain nothing", os.Geteuid())
}
