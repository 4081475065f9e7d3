package vm

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"
)

// Machine is for a program that Run started as a machine's first: it makes what
// programs expect of a system, runs run, says how it went as Exit reads it, and
// switches the machine off. The file tree is moved out of the initramfs first:
// nobody can change the root (pivot_root(2)) that has it as theirs.
func Machine(run func() int) {
	if err := system(); err != nil {
		fmt.Printf("machine: %v\n", err)
	}
	fmt.Printf("\nmachine: exit %d\n", run())
	unix.Sync()
	_ = unix.Reboot(unix.LINUX_REBOOT_CMD_POWER_OFF)
}

func system() error {
	errs := []error{mount("tmpfs", "/tmp", "mode=755")}
	errs = append(errs, filepath.WalkDir("/", func(path string, d fs.DirEntry, err error) error {
		switch {
		case err != nil:
			return err
		case path == "/tmp" || path == "/dev":
			return fs.SkipDir
		case path == "/":
			return nil
		case d.IsDir():
			return os.Mkdir("/tmp"+path, 0o755)
		case d.Type().IsRegular():
			b, err := os.ReadFile(path)
			if err != nil {
				return err
			}
			defer os.Remove(path) // the memory is needed
			return os.WriteFile("/tmp"+path, b, 0o755)
		}
		return nil
	}))
	errs = append(errs, unix.Chdir("/tmp"), unix.Mount("/tmp", "/", "", unix.MS_MOVE, ""), unix.Chroot("."), unix.Chdir("/"),
		os.Symlink("usr/bin", "/bin"))
	for _, m := range [][3]string{
		{"proc", "/proc"}, {"sysfs", "/sys"}, {"devtmpfs", "/dev"}, {"tmpfs", "/tmp", "mode=1777"}, {"tmpfs", "/run", "mode=755"},
		{"tmpfs", "/dev/shm", "mode=1777"}, {"devpts", "/dev/pts", "ptmxmode=666,mode=620"},
		{"securityfs", "/sys/kernel/security"}, {"cgroup2", "/sys/fs/cgroup"},
	} {
		errs = append(errs, os.MkdirAll(m[1], 0o755), mount(m[0], m[1], m[2]))
	}
	for name, to := range map[string]string{"fd": "/proc/self/fd", "stdin": "/proc/self/fd/0", "stdout": "/proc/self/fd/1", "stderr": "/proc/self/fd/2"} {
		if err := os.Symlink(to, "/dev/"+name); err != nil && !errors.Is(err, fs.ErrExist) {
			errs = append(errs, err)
		}
	}
	modules, _ := filepath.Glob("/modules/*")
	for _, m := range modules {
		errs = append(errs, load(m))
	}
	return errors.Join(append(errs, loopback())...)
}

func mount(kind, at, options string) error {
	if err := unix.Mount(kind, at, kind, 0, options); err != nil && err != unix.EBUSY {
		return fmt.Errorf("mount %s: %w", at, err)
	}
	return nil
}

func load(module string) error {
	f, err := os.Open(module)
	if err != nil {
		return err
	}
	defer f.Close()
	if err := unix.FinitModule(int(f.Fd()), "", 0); err != nil {
		return fmt.Errorf("load %s: %w", module, err)
	}
	return nil
}

func loopback() error {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM, 0)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	ifr, err := unix.NewIfreq("lo")
	if err != nil {
		return err
	}
	ifr.SetUint16(unix.IFF_UP | unix.IFF_RUNNING)
	return unix.IoctlIfreq(fd, unix.SIOCSIFFLAGS, ifr)
}
