package sandbox

import (
	"fmt"
	"strconv"

	"golang.org/x/sys/unix"
)

// devices are the host's that the agent gets.
var devices = map[string]bool{"null": true, "zero": true, "full": true, "random": true, "urandom": true, "tty": true}

func (t *tree) devices(src map[string]int) error {
	dev, err := newFS("tmpfs", unix.MOUNT_ATTR_NOSUID|unix.MOUNT_ATTR_NOEXEC, "mode=0755")
	if err != nil {
		return err
	}
	if err := t.attach(dev, "/dev"); err != nil {
		return err
	}
	at, err := t.find("/dev", unix.O_DIRECTORY)
	if err != nil {
		return err
	}
	defer unix.Close(at)
	for name := range devices {
		fd, ok := src["/dev/"+name]
		if !ok {
			continue
		}
		if err := makeFile(at, name); err != nil {
			return err
		}
		if err := t.attach(fd, "/dev/"+name); err != nil {
			return err
		}
	}
	for name, to := range map[string]string{
		"fd": "/proc/self/fd", "stdin": "/proc/self/fd/0", "stdout": "/proc/self/fd/1", "stderr": "/proc/self/fd/2", "ptmx": "pts/ptmx",
	} {
		if err := unix.Symlinkat(to, at, name); err != nil {
			return fmt.Errorf("make /dev/%s: %w", name, err)
		}
	}
	for name, f := range map[string][]string{"pts": {"devpts", "newinstance", "ptmxmode=0666", "mode=0620"}, "shm": {"tmpfs", "mode=1777"}} {
		if err := unix.Mkdirat(at, name, 0o755); err != nil {
			return fmt.Errorf("make /dev/%s: %w", name, err)
		}
		attr := unix.MOUNT_ATTR_NOSUID | unix.MOUNT_ATTR_NOEXEC
		if name == "shm" {
			attr = attrPlain
		}
		if err := t.fresh("/dev/"+name, f[0], attr, f[1:]...); err != nil {
			return err
		}
	}
	if err := unix.MountSetattr(at, "", unix.AT_EMPTY_PATH, &unix.MountAttr{Attr_set: unix.MOUNT_ATTR_RDONLY}); err != nil {
		return fmt.Errorf("make /dev read-only: %w", err)
	}
	if t.c.TTY {
		pts, err := t.find("/dev/pts", unix.O_DIRECTORY)
		if err != nil {
			return err
		}
		defer unix.Close(pts)
		t.tty, err = openTTY(pts, "ptmx", t.c.Rows, t.c.Cols)
		return err
	}
	return nil
}

// keptInRun are folders of /run without which programs do not start on
// systems that keep them there (NixOS).
var keptInRun = []string{"/run/current-system", "/run/booted-system", "/run/opengl-driver"}

func (t *tree) runFolder(src map[string]int) error {
	for _, p := range keptInRun {
		fd, ok := src[p]
		if !ok {
			continue
		}
		at, err := t.ensure(p, fd)
		if err == nil {
			err = attachAt(fd, at, p)
			unix.Close(at)
		}
		if err != nil {
			return err
		}
	}
	run, err := t.find("/run", unix.O_DIRECTORY)
	if err != nil {
		return nil
	}
	defer unix.Close(run)
	if err := unix.Mkdirat(run, "user", 0o755); err != nil {
		return fmt.Errorf("make /run/user: %w", err)
	}
	if err := unix.Mkdirat(run, "user/"+strconv.Itoa(t.c.UID), 0o700); err != nil {
		return fmt.Errorf("make /run/user/%d: %w", t.c.UID, err)
	}
	return nil
}
