package sandbox

import (
	"fmt"
	"os"
	"strconv"

	"golang.org/x/sys/unix"
)

// When root runs guard, the agent gets a uid of the host that nobody has: with
// root's, it could open whatever root owns, /proc/sys/kernel/core_pattern
// included. Folders of root are then shared through idmapped mounts, in which
// root's files are that uid's, and the other way round when it writes.

// agentUID is the host's uid, and gid, for the agent of this process. Each
// process has its own, so that sessions of root do not meet.
func agentUID() int { return 0x47000000 + os.Getpid() }

// idmapped copies the mount of path, mapped by the user namespace of process
// pid.
func idmapped(path string, userns int) (int, error) {
	fd, err := unix.OpenTree(unix.AT_FDCWD, path, unix.OPEN_TREE_CLONE|unix.OPEN_TREE_CLOEXEC|unix.AT_RECURSIVE)
	if err != nil {
		return -1, fmt.Errorf("copy the mount of %s: %w", path, err)
	}
	err = unix.MountSetattr(fd, "", unix.AT_EMPTY_PATH|unix.AT_RECURSIVE, &unix.MountAttr{
		Attr_set: unix.MOUNT_ATTR_IDMAP | attrPlain, Userns_fd: uint64(userns),
	})
	if err != nil {
		unix.Close(fd)
		return -1, fmt.Errorf("the file system of %s cannot show root's files as another user's (%w); run guard as an ordinary user, or from a folder on ext4, xfs, btrfs or tmpfs: %w",
			path, err, errNoIdmap)
	}
	return fd, nil
}

// trees makes the idmapped mounts that stage 1, process pid, needs. A folder
// that is not there is left to stage 1, which says so.
func trees(pid int, p *initConfig) (names []string, fds []int, err error) {
	ns, err := unix.Open("/proc/"+strconv.Itoa(pid)+"/ns/user", unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, nil, fmt.Errorf("open the user namespace: %w", err)
	}
	defer unix.Close(ns)
	add := func(name, path string) error {
		if _, err := os.Lstat(path); err != nil {
			return nil
		}
		fd, err := idmapped(path, ns)
		if err != nil {
			return err
		}
		names, fds = append(names, name), append(fds, fd)
		return nil
	}
	for _, w := range p.Writable {
		if err = add(w, w); err != nil {
			break
		}
	}
	if err == nil && p.Home != "" {
		err = add(srcLower, p.Home)
	}
	if err == nil && p.HomeUpper != "" {
		err = add(srcUpper, p.HomeUpper)
	}
	if err == nil && len(fds) > maxFDs {
		err = fmt.Errorf("%d shared paths: the limit is %d", len(fds), maxFDs)
	}
	if err != nil {
		closeAll(fds)
		return nil, nil, err
	}
	return names, fds, nil
}
