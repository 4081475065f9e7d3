//go:build linux

package sandbox

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// attacker runs the attack called name inside the sandbox, and prints what
// came of it: "held: ..." where the sandbox refused, "BROKEN: ..." otherwise.
func attacker(name string, args []string) int {
	f, ok := attacks[name]
	if !ok {
		fmt.Fprintln(os.Stderr, "no attack is called "+name)
		return 2
	}
	f(args)
	return 0
}

func report(err error, want ...error) {
	for _, w := range want {
		if errors.Is(err, w) {
			fmt.Println("held:", err)
			return
		}
	}
	fmt.Printf("BROKEN: got %v, want one of %v\n", err, want)
}

func call(nr uintptr, a ...uintptr) error {
	var p [6]uintptr
	copy(p[:], a)
	_, _, e := syscall.Syscall6(nr, p[0], p[1], p[2], p[3], p[4], p[5])
	if e != 0 {
		return e
	}
	return nil
}

func socket(family, kind, proto int) error {
	fd, err := unix.Socket(family, kind, proto)
	if err == nil {
		unix.Close(fd)
	}
	return err
}

var attacks = map[string]func(args []string){
	"live": attackLive, "live-inside": attackLiveInside, "limits": attackLimits, "proc": attackProc,
	"status": func([]string) {
		b, _ := os.ReadFile("/proc/self/status")
		os.Stdout.Write(b)
	},
	"syscalls": func([]string) {
		var buf [4096]byte
		p := uintptr(unsafe.Pointer(&buf[0]))
		report(call(unix.SYS_IO_URING_SETUP, 8, p), unix.ENOSYS)
		report(call(unix.SYS_IO_URING_ENTER, 0), unix.ENOSYS)
		report(call(unix.SYS_IO_URING_REGISTER, 0), unix.ENOSYS)
		report(call(unix.SYS_BPF, 0, p, 64), unix.EPERM)
		report(call(unix.SYS_PERF_EVENT_OPEN, p, 0, ^uintptr(0), ^uintptr(0), 0), unix.EPERM)
		report(call(unix.SYS_USERFAULTFD, 1), unix.EPERM)
		report(call(unix.SYS_KEYCTL, 0, ^uintptr(2), 1), unix.EPERM)
		report(call(unix.SYS_ADD_KEY, p, p, p, 1, ^uintptr(2)), unix.EPERM)
		report(call(unix.SYS_REQUEST_KEY, p, p, p, 0), unix.EPERM)
		report(call(unix.SYS_PROCESS_VM_WRITEV, uintptr(os.Getpid()), p, 0, p, 0, 0), unix.EPERM)
		report(call(unix.SYS_KEXEC_LOAD), unix.EPERM)
		report(call(unix.SYS_INIT_MODULE, p, 0, p), unix.EPERM)
		report(call(unix.SYS_OPEN_BY_HANDLE_AT, 0, p, 0), unix.EPERM)
		report(call(unix.SYS_FSOPEN, p, 0), unix.EPERM)
		report(call(unix.SYS_OPEN_TREE, 0, p, 0), unix.EPERM)
		report(call(unix.SYS_MOUNT_SETATTR, 0, p, 0, p, 32), unix.EPERM)
		c := byte('x')
		report(call(unix.SYS_IOCTL, 0, unix.TIOCSTI, uintptr(unsafe.Pointer(&c))), unix.EPERM)
		report(call(unix.SYS_IOCTL, 0, 1<<32|unix.TIOCSTI, uintptr(unsafe.Pointer(&c))), unix.EPERM)
		report(call(unix.SYS_IOCTL, 0, unix.TIOCLINUX, uintptr(unsafe.Pointer(&c))), unix.EPERM)
		report(call(unix.SYS_IOCTL, 0, 7<<32|unix.TIOCLINUX, uintptr(unsafe.Pointer(&c))), unix.EPERM)
	},
	"zerocopy": func([]string) {
		report(call(unix.SYS_SENDFILE, 1, 0, 0, 1), unix.EINVAL)
		report(call(unix.SYS_COPY_FILE_RANGE, 0, 0, 1, 0, 1, 0), unix.EINVAL)
		report(call(unix.SYS_SPLICE, 0, 0, 1, 0, 1, 0), unix.EINVAL)
	},
	"sockets": func([]string) {
		refused := []error{unix.EPERM, unix.EACCES, unix.EAFNOSUPPORT, unix.EPROTONOSUPPORT}
		for _, s := range [][3]int{
			{unix.AF_INET, unix.SOCK_STREAM, 262}, {unix.AF_INET6, unix.SOCK_STREAM, 262},
			{unix.AF_INET, unix.SOCK_STREAM, 132}, {unix.AF_INET, unix.SOCK_SEQPACKET, 0},
			{unix.AF_INET, unix.SOCK_SEQPACKET | unix.SOCK_CLOEXEC, 132}, {unix.AF_INET, unix.SOCK_DCCP, 33}, {unix.AF_INET, unix.SOCK_DGRAM, 136},
			{unix.AF_INET, unix.SOCK_RAW, unix.IPPROTO_RAW}, {unix.AF_INET, unix.SOCK_RAW, unix.IPPROTO_ICMP}, {unix.AF_INET6, unix.SOCK_RAW, unix.IPPROTO_ICMPV6},
			{unix.AF_VSOCK, unix.SOCK_STREAM, 0}, {unix.AF_VSOCK, unix.SOCK_DGRAM, 0}, {unix.AF_PACKET, unix.SOCK_RAW, 0x300}, {unix.AF_PACKET, unix.SOCK_DGRAM, 0x300},
			{unix.AF_ALG, unix.SOCK_SEQPACKET, 0}, {unix.AF_BLUETOOTH, unix.SOCK_RAW, 1}, {unix.AF_TIPC, unix.SOCK_STREAM, 0}, {unix.AF_XDP, unix.SOCK_RAW, 0},
			{unix.AF_CAN, unix.SOCK_RAW, 1}, {unix.AF_RDS, unix.SOCK_SEQPACKET, 0}, {unix.AF_SMC, unix.SOCK_STREAM, 0}, {unix.AF_QIPCRTR, unix.SOCK_DGRAM, 0},
		} {
			report(socket(s[0], s[1], s[2]), refused...)
		}
		// The kernel reads 32 bits of a family.
		report(call(unix.SYS_SOCKET, 1<<32|unix.AF_VSOCK, unix.SOCK_STREAM, 0), refused...)
		// ICMP datagrams answer from lo, if at all.
		if c, err := net.Dial("udp", "203.0.113.1:443"); err != nil {
			report(err, unix.ECONNREFUSED)
		} else {
			c.SetDeadline(time.Now().Add(20 * time.Second))
			c.Write([]byte("quic?"))
			_, err := c.Read(make([]byte, 1))
			report(err, unix.ECONNREFUSED)
		}
	},
	"sockets-restricted": func([]string) {
		for _, s := range [][3]int{
			{unix.AF_INET, unix.SOCK_STREAM, 262}, {unix.AF_INET, unix.SOCK_STREAM, 132}, {unix.AF_INET, unix.SOCK_DGRAM, 0}, {unix.AF_INET6, unix.SOCK_DGRAM | unix.SOCK_CLOEXEC, 17},
			{unix.AF_UNIX, unix.SOCK_STREAM, 0}, {unix.AF_UNIX, unix.SOCK_DGRAM, 0}, {unix.AF_VSOCK, unix.SOCK_STREAM, 0}, {unix.AF_INET, unix.SOCK_RAW, 1},
		} {
			report(socket(s[0], s[1], s[2]), unix.EPERM, unix.EACCES, unix.EAFNOSUPPORT, unix.EPROTONOSUPPORT)
		}
		fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM, 0)
		if err != nil {
			fmt.Println("BROKEN:", err)
			return
		}
		report(unix.Sendto(fd, []byte("x"), unix.MSG_FASTOPEN, &unix.SockaddrInet4{Port: 9, Addr: [4]byte{127, 0, 0, 1}}), unix.EOPNOTSUPP)
		if _, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM, 0); err != nil {
			fmt.Println("BROKEN: socketpair:", err)
		}
	},
	"abi":     func([]string) { attackABI() },
	"abi-x32": func([]string) { call(0x40000000 | 39) },
	// "read" prints what can be read of a file.
	"read": func(args []string) {
		for _, p := range args {
			b, err := os.ReadFile(p)
			fmt.Printf("%s: %q %v\n", p, b, err)
		}
	},
	// "hidden" tries to get at a hidden file's content, which is the second
	// argument, in every way.
	"hidden": func(args []string) { attackHidden(args[0], args[1]) },
	// "unmask" is the same from nested namespaces, where it is root.
	"unmask": func(args []string) {
		self, _ := os.Executable()
		cmd := exec.Command(self, append([]string{"@unmask-inside"}, args...)...)
		cmd.Stdout, cmd.Stderr = os.Stdout, os.Stderr
		cmd.SysProcAttr = &syscall.SysProcAttr{
			Cloneflags:  unix.CLONE_NEWUSER | unix.CLONE_NEWNS | unix.CLONE_NEWPID,
			UidMappings: []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Getuid(), Size: 1}},
			GidMappings: []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Getgid(), Size: 1}},
		}
		if err := cmd.Run(); err != nil {
			fmt.Println("BROKEN: no nested user namespace (browsers need one):", err)
		}
	},
	"unmask-inside": func(args []string) {
		refused := []error{unix.EPERM, unix.EINVAL, unix.EBUSY, unix.EACCES, unix.ENOENT, unix.ENOTDIR}
		hidden, secret := args[0], args[1]
		for _, p := range []string{hidden, filepath.Dir(hidden), "/tmp", "/run", "/dev", "/etc/resolv.conf", "/"} {
			report(unix.Unmount(p, unix.MNT_DETACH), refused...)
			report(unix.Mount("", p, "", unix.MS_REMOUNT|unix.MS_BIND, ""), append(refused, nil)...)
		}
		os.Mkdir("/tmp/b", 0o755)
		// A bind that leaves the masks behind is refused; a recursive one takes
		// them along.
		for _, dir := range []string{filepath.Dir(hidden), filepath.Dir(filepath.Dir(hidden)), "/"} {
			for _, flags := range []uintptr{unix.MS_BIND, unix.MS_BIND | unix.MS_REC} {
				if err := unix.Mount(dir, "/tmp/b", "", flags, ""); err != nil {
					fmt.Println("held: bind:", err)
					continue
				}
				rel, _ := filepath.Rel(dir, hidden)
				attackHidden(filepath.Join("/tmp/b", rel), secret)
				unix.Unmount("/tmp/b", unix.MNT_DETACH)
			}
		}
		// Nor does an overlay see below the masks.
		for _, d := range []string{"/tmp/u", "/tmp/w"} {
			os.Mkdir(d, 0o755)
		}
		for _, dir := range []string{filepath.Dir(hidden), filepath.Dir(filepath.Dir(hidden))} {
			if err := unix.Mount("overlay", "/tmp/b", "overlay", 0, "userxattr,lowerdir="+dir+",upperdir=/tmp/u,workdir=/tmp/w"); err != nil {
				fmt.Println("held: overlay:", err)
				continue
			}
			rel, _ := filepath.Rel(dir, hidden)
			attackHidden(filepath.Join("/tmp/b", rel), secret)
			unix.Unmount("/tmp/b", unix.MNT_DETACH)
		}
		attackHidden(hidden, secret)
		report(os.WriteFile("/usr/guard-was-here", nil, 0o644), unix.EROFS, unix.EACCES)
		report(os.WriteFile("/proc/sys/kernel/core_pattern", []byte("|/tmp/x"), 0o644), unix.EACCES, unix.EPERM, unix.EROFS)
	},
	"kernel": func([]string) {
		for _, p := range []string{
			"/proc/sys/kernel/core_pattern", "/proc/sys/kernel/modprobe", "/proc/sys/vm/overcommit_memory", "/proc/sysrq-trigger", "/proc/sys/net/ipv4/ip_forward",
			"/proc/sys/net/ipv4/ip_unprivileged_port_start", "/proc/sys/kernel/hostname", "/proc/sys/fs/binfmt_misc/register", "/sys/kernel/mm/ksm/run", "/sys/power/state",
		} {
			f, err := os.OpenFile(p, os.O_WRONLY, 0)
			if err == nil {
				f.Close()
			}
			report(err, unix.EACCES, unix.EPERM, unix.EROFS, unix.ENOENT)
		}
		b, err := os.ReadFile("/etc/shadow")
		if len(b) == 0 {
			err = errors.Join(err, unix.EACCES)
		}
		report(err, unix.EACCES)
		for _, p := range []string{"/usr/x", "/etc/x", "/bin/x", "/dev/x", "/sys/x", "/lib/x"} {
			report(os.WriteFile(p, nil, 0o644), unix.EROFS, unix.EACCES)
		}
		links := []string{"/proc/1/exe", "/proc/1/root", "/proc/1/cwd", "/proc/1/ns/mnt"}
		names, _ := os.ReadDir("/proc/1/fd") // numbers, at most
		for _, n := range names {
			links = append(links, "/proc/1/fd/"+n.Name())
		}
		for _, p := range links {
			_, err := os.Readlink(p)
			report(err, unix.EACCES, unix.EPERM, unix.ENOENT)
			_, err = os.Open(p)
			report(err, unix.EACCES, unix.EPERM, unix.ENOENT)
		}
		for _, p := range []string{"/proc/1/mem", "/proc/1/environ", "/proc/1/maps", "/proc/kcore", "/dev/mem", "/dev/kmsg", "/proc/kmsg"} {
			_, err := os.ReadFile(p)
			report(err, unix.EACCES, unix.EPERM, unix.ENOENT, unix.EIO)
		}
	},
	"processes": func(args []string) {
		pid, _ := strconv.Atoi(args[0]) // of the host
		if _, err := os.Stat("/proc/" + args[0]); err == nil && pid > 1000 {
			fmt.Println("BROKEN: the host's process is in /proc")
		}
		report(unix.Kill(pid, unix.SIGKILL), unix.ESRCH, unix.EPERM)
		for _, sig := range []unix.Signal{unix.SIGTERM, unix.SIGINT, unix.SIGHUP, unix.SIGSTOP, unix.SIGKILL, unix.SIGUSR1, unix.SIGQUIT, unix.SIGABRT, unix.SIGSEGV} {
			unix.Kill(1, sig) // refused by Landlock, or ignored
		}
		runtime.LockOSThread()
		report(unix.PtraceAttach(1), unix.EPERM, unix.EACCES)
		report(unix.PtraceAttach(pid), unix.ESRCH, unix.EPERM)
		fd, err := unix.PidfdOpen(1, 0)
		if err == nil {
			_, err = unix.PidfdGetfd(fd, 3, 0)
			report(err, unix.EPERM, unix.ENOSYS)
			report(unix.Setns(fd, unix.CLONE_NEWNS), unix.EPERM)
			report(unix.Setns(fd, unix.CLONE_NEWUSER), unix.EPERM, unix.EINVAL)
		}
		var b [8]byte
		local, remote := []unix.Iovec{{Base: &b[0], Len: 8}}, []unix.RemoteIovec{{Base: 0x400000, Len: 8}}
		_, err = unix.ProcessVMReadv(1, local, remote, 0)
		report(err, unix.EPERM)
		// gdb and strace work on the agent's own children.
		cmd := exec.Command("/bin/sleep", "100")
		if err := cmd.Start(); err != nil {
			fmt.Println("BROKEN:", err)
			return
		}
		if err := unix.PtraceAttach(cmd.Process.Pid); err != nil {
			fmt.Println("BROKEN: ptrace of a child:", err)
		}
		cmd.Process.Kill()
		cmd.Wait()
		time.Sleep(10 * time.Millisecond) // a signal to process 1 would end us here
		fmt.Println("held: still here")
	},
	"connect": func(args []string) {
		for _, a := range args {
			network, addr, _ := strings.Cut(a, ":")
			c, err := net.Dial(network, addr)
			if err == nil {
				c.Close()
			}
			report(err, unix.ECONNREFUSED, unix.ENOENT, unix.EACCES, unix.EPERM, unix.ENOTSOCK)
		}
	},
	"setuid": func([]string) {
		report(unix.Setuid(0), unix.EINVAL, unix.EPERM)
		report(unix.Setgid(0), unix.EINVAL, unix.EPERM)
		report(unix.Setgroups([]int{0}), unix.EPERM, unix.EINVAL)
		// A program with the setuid bit, of whoever runs guard.
		self, _ := os.Executable()
		b, _ := os.ReadFile(self)
		if err := os.WriteFile("suid", b, 0o755); err != nil {
			fmt.Println("BROKEN:", err)
		}
		os.Chmod("suid", 0o6755)
		out, err := exec.Command("./suid", "@uid").CombinedOutput()
		if want := fmt.Sprintf("%d %d\n", os.Getuid(), os.Getuid()); string(out) != want {
			fmt.Printf("BROKEN: %q, want %q, %v\n", out, want, err)
		}
		for _, p := range []string{"/usr/bin/mount", "/usr/bin/newgrp", "/usr/bin/chsh"} {
			exec.Command(p, "root").Run()
		}
		fmt.Println("held: uid", os.Getuid())
	},
	// "term" ends by SIGTERM with status 9.
	"term": func([]string) {
		c := make(chan os.Signal, 1)
		signal.Notify(c, syscall.SIGTERM)
		fmt.Println("up")
		<-c
		os.Exit(9)
	},
	"uid": func([]string) { fmt.Println(os.Getuid(), os.Geteuid()) },
	// "mounts" looks at the flags of every mount.
	"mounts": func(args []string) {
		b, _ := os.ReadFile("/proc/self/mountinfo")
		for line := range strings.Lines(string(b)) {
			f := strings.Fields(line)
			point, flags := f[4], strings.Split(f[5], ",")
			device := strings.HasPrefix(point, "/dev/") && point != "/dev/shm"
			may := slices.Contains(args, point) || device
			for _, d := range []string{"/proc", "/tmp", "/run", "/var/tmp"} {
				may = may || point == d
			}
			ok := slices.Contains(flags, "nosuid") && (device || point == "/dev" || slices.Contains(flags, "nodev")) &&
				(may || point == "/dev/shm" || slices.Contains(flags, "ro"))
			if ok {
				fmt.Println("held:", point, flags)
			} else {
				fmt.Println("BROKEN:", point, flags)
			}
		}
	},
	// "ask" sends one line over TCP, or one packet over UDP, and prints the answer.
	"ask": func(args []string) {
		for _, a := range args {
			network, addr, _ := strings.Cut(a, ":")
			c, err := net.Dial(network, addr)
			if err != nil {
				fmt.Println("BROKEN:", err)
				return
			}
			c.SetDeadline(time.Now().Add(20 * time.Second))
			fmt.Fprintf(c, "hello from %s\n", a)
			var b []byte
			if strings.HasPrefix(network, "udp") {
				b = make([]byte, 1500)
				n, e := c.Read(b)
				b, err = b[:n], e
			} else {
				b, err = io.ReadAll(c)
			}
			c.Close()
			fmt.Printf("%s: %s %v\n", a, strings.TrimSpace(string(b)), err)
		}
	},
	// "serve" listens where it is told, and echoes one connection.
	"serve": func(args []string) {
		l, err := net.Listen("tcp", args[0])
		if err != nil {
			fmt.Println("BROKEN:", err)
			return
		}
		fmt.Println("listening")
		c, err := l.Accept()
		if err == nil {
			io.Copy(c, c)
			c.Close()
		}
	},
	"fds": func([]string) {
		names, _ := os.ReadDir("/proc/self/fd")
		all := map[string]string{}
		for _, n := range names {
			to, err := os.Readlink("/proc/self/fd/" + n.Name())
			if err == nil && !strings.Contains(to, "eventpoll") && !strings.Contains(to, "eventfd") && !strings.HasPrefix(to, "/proc/") {
				all[n.Name()] = to
			}
		}
		json.NewEncoder(os.Stdout).Encode(all)
	},
}

// attackHidden looks for secret at path and around it.
func attackHidden(path, secret string) {
	look := func(how, p string) {
		b, err := os.ReadFile(p)
		if strings.Contains(string(b), secret) {
			fmt.Printf("BROKEN: %s: %s\n", how, b)
		} else {
			fmt.Printf("held: %s: %v\n", how, err)
		}
	}
	dir := filepath.Dir(path)
	look("path", path)
	look("dots", dir+"/../"+filepath.Base(dir)+"/./"+filepath.Base(path))
	link := filepath.Join(os.TempDir(), "link")
	os.Remove(link)
	os.Symlink(path, link)
	look("symlink", link)
	hard := filepath.Join(dir, "hard")
	if err := os.Link(path, hard); err == nil {
		look("hard link", hard)
	}
	look("proc root", "/proc/self/root"+path)
	look("proc cwd", "/proc/self/cwd/"+filepath.Base(path))
	moved := path + "-moved"
	if err := os.Rename(path, moved); err == nil {
		look("rename", moved)
		look("renamed away", path)
	}
	if err := os.Rename(dir, dir+"-moved"); err == nil {
		look("rename of the parent", filepath.Join(dir+"-moved", filepath.Base(path)))
		os.Rename(dir+"-moved", dir)
	}
	if err := os.Remove(path); err == nil {
		look("remove", path)
	}
	if h, _, err := unix.NameToHandleAt(unix.AT_FDCWD, path, 0); err == nil {
		if fd, err := unix.Open(dir, unix.O_RDONLY, 0); err == nil {
			if f, err := unix.OpenByHandleAt(fd, h, unix.O_RDONLY); err == nil {
				look("handle", "/proc/self/fd/"+strconv.Itoa(f))
			}
			unix.Close(fd)
		}
	}
	filepath.WalkDir(dir, func(p string, d os.DirEntry, err error) error {
		if err == nil && d.Type().IsRegular() {
			if b, _ := os.ReadFile(p); strings.Contains(string(b), secret) {
				fmt.Println("BROKEN: walk:", p)
			}
		}
		return nil
	})
}
