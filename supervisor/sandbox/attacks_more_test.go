//go:build linux

package sandbox

import (
	"bufio"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

// attackLive shows files, at every line that it reads the one that is named
// there: as itself, and in a namespace that it made before.
func attackLive([]string) {
	self, _ := os.Executable()
	cmd := exec.Command(self, "@live-inside")
	cmd.SysProcAttr = &syscall.SysProcAttr{
		Cloneflags:  unix.CLONE_NEWUSER | unix.CLONE_NEWNS,
		UidMappings: []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Getuid(), Size: 1}},
		GidMappings: []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Getgid(), Size: 1}},
	}
	in, _ := cmd.StdinPipe()
	out, _ := cmd.StdoutPipe()
	cmd.Stderr = os.Stderr
	if err := cmd.Start(); err != nil {
		fmt.Println("BROKEN:", err)
		return
	}
	inside := bufio.NewScanner(out)
	inside.Scan() // it is ready
	fmt.Println(inside.Text())
	for s := bufio.NewScanner(os.Stdin); s.Scan(); {
		b, err := os.ReadFile(s.Text())
		fmt.Fprintln(in, s.Text())
		inside.Scan()
		fmt.Printf("%q %v | %s\n", b, err, inside.Text())
	}
	in.Close()
	cmd.Wait()
}

func attackLiveInside([]string) {
	// As unshare(1) and bwrap(1) do it; and with all that is left.
	err := errors.Join(unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""), unix.Mount("", "/", "", unix.MS_REC|unix.MS_UNBINDABLE, ""),
		unix.Mount("", "/", "", 7<<32|unix.MS_SILENT|unix.MS_REC|unix.MS_PRIVATE, ""), unix.Mount("", "/", "", unix.MS_REC|unix.MS_SLAVE, ""))
	fmt.Println("ready", err)
	for s := bufio.NewScanner(os.Stdin); s.Scan(); {
		var errs []string
		for range 3 {
			for _, flags := range []int{0, unix.MNT_DETACH, unix.UMOUNT_NOFOLLOW} {
				errs = append(errs, fmt.Sprint(unix.Unmount(s.Text(), flags)))
			}
		}
		dir := filepath.Dir(s.Text())
		os.Mkdir("/tmp/live", 0o755)
		for _, flags := range []uintptr{unix.MS_BIND | unix.MS_REC, unix.MS_MOVE} {
			if unix.Mount(dir, "/tmp/live", "", flags, "") == nil {
				b, err := os.ReadFile("/tmp/live/" + filepath.Base(s.Text()))
				errs = append(errs, fmt.Sprintf("bind %q %v", b, err))
				unix.Unmount("/tmp/live", unix.MNT_DETACH)
			}
		}
		unix.Mount(s.Text(), "/tmp/live", "", unix.MS_MOVE, "")
		b, err := os.ReadFile(s.Text())
		fmt.Printf("%q %v %s\n", b, err, strings.Join(errs, ", "))
	}
}

// attackLimits tries to starve process 1 and its threads.
func attackLimits([]string) {
	if os.Getpid() <= reservedPids {
		fmt.Println("BROKEN: process id", os.Getpid())
	}
	zero := make([]byte, 64)
	zero[0] = 48 // size of struct sched_attr
	p := uintptr(unsafe.Pointer(&zero[0]))
	rlim := uintptr(unsafe.Pointer(&unix.Rlimit{}))
	for _, pid := range []uintptr{1, 2, 3, 5, 7, reservedPids, 1<<32 | 1} {
		for _, what := range []uintptr{unix.RLIMIT_CPU, unix.RLIMIT_AS, unix.RLIMIT_NOFILE} {
			report(call(unix.SYS_PRLIMIT64, pid, what, rlim, 0), unix.EPERM)
		}
		report(call(unix.SYS_SCHED_SETATTR, pid, p, 0), unix.EPERM)
		report(call(unix.SYS_SCHED_SETSCHEDULER, pid, 5, p+8), unix.EPERM)
		report(call(unix.SYS_SCHED_SETPARAM, pid, p+8), unix.EPERM)
		report(call(unix.SYS_SCHED_SETAFFINITY, pid, 8, p), unix.EPERM)
		for which := range uintptr(3) {
			report(call(unix.SYS_SETPRIORITY, which, pid, 19), unix.EPERM)
			report(call(unix.SYS_IOPRIO_SET, which+1, pid, 3<<13), unix.EPERM)
		}
	}
	report(call(unix.SYS_SETPRIORITY, unix.PRIO_USER, 0, 19), unix.EPERM)
	report(call(unix.SYS_IOPRIO_SET, ioprioWhoUser, 0, 3<<13), unix.EPERM)
	for pid := 1; pid <= reservedPids; pid++ {
		for _, p := range []string{"oom_score_adj", "oom_adj", "coredump_filter", "timerslack_ns", "status", "comm", "autogroup"} {
			f, err := os.OpenFile(fmt.Sprintf("/proc/%d/%s", pid, p), os.O_RDWR, 0)
			if err == nil {
				f.Close()
			}
			if !errors.Is(err, unix.ENOENT) {
				report(err, unix.ENOENT)
			}
		}
	}
	report(os.WriteFile("/proc/sys/kernel/ns_last_pid", []byte("1"), 0), unix.EPERM, unix.EACCES)
	// Its own processes are its own.
	cmd := exec.Command("/bin/sleep", "100")
	if err := cmd.Start(); err != nil {
		fmt.Println("BROKEN:", err)
		return
	}
	pid := cmd.Process.Pid
	err := errors.Join(unix.Prlimit(pid, unix.RLIMIT_CORE, &unix.Rlimit{}, nil), unix.Setpriority(unix.PRIO_PROCESS, pid, 5), unix.Setpriority(unix.PRIO_PROCESS, 0, 1),
		unix.Prlimit(0, unix.RLIMIT_CORE, &unix.Rlimit{}, nil), os.WriteFile(fmt.Sprintf("/proc/%d/oom_score_adj", pid), []byte("500"), 0))
	if err != nil {
		fmt.Println("BROKEN:", err)
	}
	cmd.Process.Kill()
	cmd.Wait()
	// Nested sandboxes have a /proc of their own.
	self, _ := os.Executable()
	cmd = exec.Command(self, "@proc")
	cmd.Stdout, cmd.Stderr = os.Stdout, os.Stderr
	cmd.SysProcAttr = &syscall.SysProcAttr{
		Cloneflags:  unix.CLONE_NEWUSER | unix.CLONE_NEWNS | unix.CLONE_NEWPID,
		UidMappings: []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Getuid(), Size: 1}},
		GidMappings: []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Getgid(), Size: 1}},
	}
	if err := cmd.Run(); err != nil {
		fmt.Println("BROKEN:", err)
	}
}

func attackProc([]string) {
	if err := unix.Mount("proc", "/proc", "proc", 0, ""); err != nil {
		fmt.Println("BROKEN: /proc in a nested sandbox:", err)
	}
	b, err := os.ReadFile("/proc/1/comm")
	fmt.Printf("held: process 1 is %q %v\n", b, err)
}
