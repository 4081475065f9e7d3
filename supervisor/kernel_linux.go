package supervisor

import (
	"bufio"
	"fmt"
	"net/netip"
	"os"
	"strconv"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"
)

// kernelDevice turns st_dev into the kernel's own number.
func kernelDevice(dev uint64) uint64 {
	return uint64(unix.Major(dev))<<20 | uint64(unix.Minor(dev))
}

// statKey is an open file's st_dev and st_ino.
func statKey(f *os.File) ([2]uint64, bool) {
	fi, err := f.Stat()
	if err != nil {
		return [2]uint64{}, false
	}
	st, ok := fi.Sys().(*syscall.Stat_t)
	if !ok {
		return [2]uint64{}, false
	}
	return [2]uint64{uint64(st.Dev), st.Ino}, true
}

// keyOf is what the kernel calls an open file.
func keyOf(f *os.File) (fileKey, bool) {
	k, ok := statKey(f)
	return fileKey{kernelDevice(k[0]), k[1]}, ok
}

// hostDevices are those of the file systems that guard's own mount namespace
// has. A session's own file systems (its /tmp, /run, /dev and /proc, the layer
// over $HOME) and memory files are none of them.
func hostDevices() map[uint64]bool {
	all := map[uint64]bool{}
	f, err := os.Open("/proc/self/mountinfo")
	if err != nil {
		return all
	}
	defer f.Close()
	lines := bufio.NewScanner(f)
	lines.Buffer(nil, 1<<20)
	for lines.Scan() {
		fields := strings.Fields(lines.Text())
		if len(fields) < 3 {
			continue
		}
		var major, minor uint64
		if _, err := fmt.Sscanf(fields[2], "%d:%d", &major, &minor); err == nil {
			all[major<<20|minor] = true
		}
	}
	return all
}

// inodeOf is the number of the file at path, 0 if there is none.
func inodeOf(path string) uint64 {
	var st unix.Stat_t
	if unix.Lstat(path, &st) != nil {
		return 0
	}
	return st.Ino
}

// describe adds what /proc says of the process, if it is still there.
func describe(f *Find) {
	if f.PID <= 0 {
		return
	}
	proc := "/proc/" + strconv.Itoa(f.PID)
	if exe, err := os.Readlink(proc + "/exe"); err == nil && !strings.HasPrefix(f.Exe, "/") {
		f.Exe = exe
	}
	if f.FD < 0 || strings.HasPrefix(f.Path, "/") {
		return
	}
	fd := proc + "/fd/" + strconv.Itoa(f.FD)
	var st unix.Stat_t
	if unix.Stat(fd, &st) != nil || st.Ino != f.Inode {
		return // it is another file by now
	}
	if path, err := os.Readlink(fd); err == nil && strings.HasPrefix(path, "/") {
		f.Path = path
	}
}

// isNull says that a find went to a device that keeps nothing. Only such are in
// a session's /dev.
func isNull(f Find) bool {
	for _, name := range []string{"/dev/null", "/dev/zero", "/dev/full", "/dev/random", "/dev/urandom"} {
		var st unix.Stat_t
		if unix.Stat(name, &st) == nil && st.Ino == f.Inode && kernelDevice(uint64(st.Dev)) == f.Device {
			return true
		}
	}
	return false
}

// terminalKeys are the session's terminal, by the name it has on the host, and
// /dev/tty, which is the same for whoever writes to it.
func terminalKeys(master *os.File) []fileKey {
	var keys []fileKey
	names := []string{"/dev/tty"}
	if c, err := master.SyscallConn(); err == nil {
		_ = c.Control(func(fd uintptr) {
			if n, err := unix.IoctlGetInt(int(fd), unix.TIOCGPTN); err == nil {
				names = append(names, "/dev/pts/"+strconv.Itoa(n))
			}
		})
	}
	for _, name := range names {
		var st unix.Stat_t
		if unix.Stat(name, &st) == nil {
			keys = append(keys, fileKey{kernelDevice(uint64(st.Dev)), st.Ino})
		}
	}
	return keys
}

// socketPeer looks up where a TCP socket of the network namespace of process pid
// is connected to.
func socketPeer(pid int, inode uint64) (netip.AddrPort, bool) {
	want := strconv.FormatUint(inode, 10)
	for _, name := range []string{"tcp", "tcp6"} {
		b, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/net/" + name)
		if err != nil {
			continue
		}
		for line := range strings.Lines(string(b)) {
			f := strings.Fields(line)
			if len(f) > 9 && f[9] == want {
				return ProcAddr(f[2])
			}
		}
	}
	return netip.AddrPort{}, false
}
