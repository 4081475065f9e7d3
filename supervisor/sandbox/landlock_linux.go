package sandbox

import (
	"fmt"
	"os"
	"slices"
	"strings"
	"unsafe"

	"golang.org/x/sys/unix"
)

// Landlock is called directly and not through go-landlock: a Go library has to
// restrict every thread (and pulls in libpsx for it), while here one thread
// becomes the agent, and its BestEffort would hide what is missing.

// landlockRules are what the restricted tier allows.
type landlockRules struct {
	Writable []string
	Hidden   []string // unreadable, with everything below
	Port     int      // the only TCP port to connect to; 0: none
}

// landlockABI is the kernel's version of Landlock; 0: none.
func landlockABI() int {
	v, _, errno := unix.Syscall(unix.SYS_LANDLOCK_CREATE_RULESET, 0, 0, unix.LANDLOCK_CREATE_RULESET_VERSION)
	if errno != 0 {
		return 0
	}
	return int(v)
}

const (
	llRead = unix.LANDLOCK_ACCESS_FS_EXECUTE | unix.LANDLOCK_ACCESS_FS_READ_FILE | unix.LANDLOCK_ACCESS_FS_READ_DIR
	// llFile are the rights that a file can have.
	llFile  = unix.LANDLOCK_ACCESS_FS_EXECUTE | unix.LANDLOCK_ACCESS_FS_READ_FILE | unix.LANDLOCK_ACCESS_FS_WRITE_FILE | unix.LANDLOCK_ACCESS_FS_TRUNCATE
	llAll   = unix.LANDLOCK_ACCESS_FS_TRUNCATE<<1 - 1 // ABI 3; ioctl on devices stays free
	llNet   = unix.LANDLOCK_ACCESS_NET_CONNECT_TCP    // ABI 4; listening is harmless
	llScope = unix.LANDLOCK_SCOPE_SIGNAL | unix.LANDLOCK_SCOPE_ABSTRACT_UNIX_SOCKET
)

// landlock restricts this thread. Without rules only what a namespace does not
// do anyhow: signals and abstract sockets stay among the agent's own processes,
// where the kernel knows how (ABI 6), and nested sandboxes may still mount.
func landlock(r *landlockRules) error {
	abi := landlockABI()
	var attr unix.LandlockRulesetAttr
	if abi >= 6 {
		attr.Scoped = llScope
	}
	if r != nil {
		if abi < 4 {
			return lacking(unsupported("Landlock ABI 4 (Linux 6.7) is needed for TCP rules, this kernel has %d", abi))
		}
		attr.Handled_access_fs, attr.Handled_access_net = llAll, llNet
	} else if abi < 6 {
		return nil
	}
	fd, _, errno := unix.Syscall(unix.SYS_LANDLOCK_CREATE_RULESET, uintptr(unsafe.Pointer(&attr)), unsafe.Sizeof(attr), 0)
	if errno != 0 {
		return lacking(fmt.Errorf("make a ruleset: %w", errno))
	}
	defer unix.Close(int(fd))
	if r != nil {
		if err := r.add(int(fd)); err != nil {
			return err
		}
	}
	if _, _, errno := unix.Syscall(unix.SYS_LANDLOCK_RESTRICT_SELF, fd, 0, 0); errno != 0 {
		return lacking(fmt.Errorf("restrict: %w", errno))
	}
	return nil
}

func (r *landlockRules) add(fd int) error {
	if err := r.allow(fd, "/"); err != nil {
		return err
	}
	if r.Port == 0 {
		return nil
	}
	port := netPortAttr{Allowed_access: llNet, Port: uint64(r.Port)}
	_, _, errno := unix.Syscall6(unix.SYS_LANDLOCK_ADD_RULE, uintptr(fd), ruleNetPort, uintptr(unsafe.Pointer(&port)), 0, 0, 0)
	if errno != 0 {
		return fmt.Errorf("allow port %d: %w", r.Port, errno)
	}
	return nil
}

// allow lets the agent at path and what is below it, without what is hidden.
// Rules only ever add, and reach down: a folder with something hidden in it
// gets no rule, or one that lists names only, and its children get theirs.
func (r *landlockRules) allow(fd int, path string) error {
	if slices.Contains(r.Hidden, path) {
		return nil
	}
	writable := slices.ContainsFunc(r.Writable, func(w string) bool { return within(path, w) })
	access := uint64(llRead)
	if writable {
		access = llAll
	}
	below := func(p string) bool { return p != path && within(p, path) }
	if !slices.ContainsFunc(r.Hidden, below) && (writable || !slices.ContainsFunc(r.Writable, below)) {
		return addPath(fd, path, access)
	}
	access &= unix.LANDLOCK_ACCESS_FS_READ_DIR | unix.LANDLOCK_ACCESS_FS_MAKE_DIR | unix.LANDLOCK_ACCESS_FS_REMOVE_DIR
	if err := addPath(fd, path, access&unix.LANDLOCK_ACCESS_FS_READ_DIR); err != nil {
		return err
	}
	names, err := os.ReadDir(path)
	if err != nil {
		return nil // what cannot be listed gets nothing
	}
	for _, n := range names {
		if n.Type()&os.ModeSymlink != 0 {
			continue // judged by where it leads
		}
		if err := r.allow(fd, strings.TrimSuffix(path, "/")+"/"+n.Name()); err != nil {
			return err
		}
	}
	return nil
}

func addPath(fd int, path string, access uint64) error {
	p, err := unix.Open(path, unix.O_PATH|unix.O_CLOEXEC|unix.O_NOFOLLOW, 0)
	if err != nil {
		return nil // gone, or not for this user
	}
	defer unix.Close(p)
	var st unix.Stat_t
	if err := unix.Fstat(p, &st); err != nil {
		return err
	}
	if st.Mode&unix.S_IFMT != unix.S_IFDIR {
		access &= llFile
	}
	if access == 0 {
		return nil
	}
	rule := unix.LandlockPathBeneathAttr{Allowed_access: access, Parent_fd: int32(p)}
	_, _, errno := unix.Syscall6(unix.SYS_LANDLOCK_ADD_RULE, uintptr(fd), unix.LANDLOCK_RULE_PATH_BENEATH, uintptr(unsafe.Pointer(&rule)), 0, 0, 0)
	if errno != 0 {
		return fmt.Errorf("allow %s: %w", path, errno)
	}
	return nil
}

// within says whether path is dir or below it.
func within(path, dir string) bool {
	return path == dir || strings.HasPrefix(path, strings.TrimSuffix(dir, "/")+"/")
}

// netPortAttr is struct landlock_net_port_attr of linux/landlock.h.
type netPortAttr struct{ Allowed_access, Port uint64 }

const ruleNetPort = 2 // LANDLOCK_RULE_NET_PORT
