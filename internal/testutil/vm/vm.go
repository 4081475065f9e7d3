// Package vm boots a real Linux kernel in qemu with one static program as its
// only user space, so that what the host's kernel forbids (BPF LSM, trampolines)
// and what other kernels do is tested too. No image and no network: the program
// is process 1 of an initramfs.
//
// A kernel comes out of a distribution's package, unpacked and not installed
// (`apt-get download linux-image-6.1.0-56-cloud-amd64; dpkg-deb -x`). qemu
// translates: a boot takes some 3 s, and code runs 10 to 30 times slower. KVM is
// not used even where it is there: nested in a cloud machine it hung or aborted.
package vm

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"maps"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
)

// Options of a machine.
type Options struct {
	Kernel  string   // path of a vmlinuz
	Init    string   // path of a static program; it must end by printing what Exit finds, and power off
	Args    []string // of the program, without white space
	Modules []string // paths of kernel modules, which are put into /modules for the program to load
	// Files of this machine to be there too, by their path inside. What a dynamic
	// program needs comes by Programs.
	Files   map[string]string
	Cmdline string // more for the kernel, for instance "lsm=lockdown,bpf"
	Memory  int    // MiB; 0: 1024
	CPUs    int    // 0: 2
}

var (
	// ErrNoMachine: qemu is missing.
	ErrNoMachine = errors.New("qemu-system-x86_64 is not installed (package qemu-system-x86)")
	// ErrNoKernel: there is no kernel to boot.
	ErrNoKernel = errors.New("no kernel to boot: internal/setup/kernels.sh downloads them, which needs Debian, qemu and a network")
)

// Kernels are what Run can boot: those that GUARD_TEST_KERNELS names (a list of
// vmlinuz files, as in PATH), else what internal/setup/kernels.sh has unpacked
// below root, the repository's folder. Without any, or without qemu, it is
// ErrNoKernel or ErrNoMachine.
func Kernels(root string) ([]string, error) {
	kernels := filepath.SplitList(os.Getenv("GUARD_TEST_KERNELS"))
	if len(kernels) == 0 {
		kernels, _ = filepath.Glob(filepath.Join(root, ".cache/kernels/*/boot/vmlinuz-*"))
	}
	if len(kernels) == 0 {
		return nil, ErrNoKernel
	}
	if _, err := exec.LookPath("qemu-system-x86_64"); err != nil {
		return nil, ErrNoMachine
	}
	return kernels, nil
}

// Run boots the machine and returns what it printed on its console until it
// switched itself off or ctx ended. It needs no privileges.
func Run(ctx context.Context, o Options) (string, error) {
	qemu, err := exec.LookPath("qemu-system-x86_64")
	if err != nil {
		return "", ErrNoMachine
	}
	dir, err := os.MkdirTemp("", "guard-vm-*")
	if err != nil {
		return "", err
	}
	defer os.RemoveAll(dir)
	init, err := os.ReadFile(o.Init)
	if err != nil {
		return "", err
	}
	initrd := filepath.Join(dir, "initrd")
	modules := map[string][]byte{}
	for _, m := range o.Modules {
		if modules["modules/"+filepath.Base(m)], err = os.ReadFile(m); err != nil {
			return "", err
		}
	}
	for inside, here := range o.Files {
		if modules[inside], err = os.ReadFile(here); err != nil {
			return "", err
		}
	}
	if err := os.WriteFile(initrd, archive(init, modules), 0o600); err != nil {
		return "", err
	}
	if o.Memory == 0 {
		o.Memory = 1024
	}
	if o.CPUs == 0 {
		o.CPUs = 2
	}
	// no_timer_check: on a busy machine the emulated timer comes too late for the kernel, which then panics.
	cmd := exec.CommandContext(ctx, qemu, "-machine", "accel=tcg", "-cpu", "max",
		"-smp", strconv.Itoa(o.CPUs), "-m", strconv.Itoa(o.Memory),
		"-nodefaults", "-display", "none", "-serial", "stdio", "-no-reboot",
		"-kernel", o.Kernel, "-initrd", initrd,
		"-append", "console=ttyS0 quiet panic=-1 no_timer_check "+o.Cmdline+" -- "+strings.Join(o.Args, " "))
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &out
	err = cmd.Run()
	console := strings.ReplaceAll(out.String(), "\r", "")
	if ctx.Err() != nil {
		err = fmt.Errorf("the machine did not switch itself off: %w", ctx.Err())
	}
	return console, err
}

var exit = regexp.MustCompile(`(?m)^machine: exit (\d+)$`)

// Exit finds the program's exit code in what a machine printed: the line
// "machine: exit 0".
func Exit(console string) (int, error) {
	m := exit.FindStringSubmatch(console)
	if m == nil {
		return 0, errors.New("the program did not come to its end")
	}
	return strconv.Atoi(m[1])
}

// Programs adds programs of this machine, found by PATH, to files (see
// Options.Files), each with the libraries that ldd names. Without one of them it is exec.ErrNotFound.
func Programs(files map[string]string, names ...string) error {
	for _, name := range names {
		at, err := exec.LookPath(name)
		if err != nil {
			return err
		}
		if at, err = filepath.EvalSymlinks(at); err != nil {
			return err
		}
		files["/usr/bin/"+name] = at
		libraries, err := exec.Command("ldd", at).Output()
		if err != nil {
			continue // a static program, or a script
		}
		for f := range strings.FieldsSeq(string(libraries)) {
			if strings.HasPrefix(f, "/") {
				files[f] = f
			}
		}
	}
	return nil
}

// archive is a cpio file in the "newc" format that the kernel unpacks
// (Documentation/driver-api/early-userspace/buffer-format.rst): folders to mount
// on, a console, modules, and /init.
func archive(init []byte, files map[string][]byte) []byte {
	var b bytes.Buffer
	ino := 0
	add := func(name string, mode, major, minor uint32, data []byte) {
		ino++
		fmt.Fprintf(&b, "070701%08x%08x%08x%08x%08x%08x%08x%08x%08x%08x%08x%08x%08x",
			ino, mode, 0, 0, 1, 0, len(data), 0, 0, major, minor, len(name)+1, 0)
		b.WriteString(name)
		b.WriteByte(0)
		for b.Len()%4 != 0 {
			b.WriteByte(0)
		}
		b.Write(data)
		for b.Len()%4 != 0 {
			b.WriteByte(0)
		}
	}
	made := map[string]bool{".": true}
	var folder func(name string)
	folder = func(name string) {
		if !made[name] {
			folder(path.Dir(name))
			made[name] = true
			add(name, 0o040755, 0, 0, nil)
		}
	}
	for _, d := range []string{"dev", "proc", "sys", "tmp", "modules"} {
		folder(d)
	}
	add("dev/console", 0o020600, 5, 1, nil)
	for _, name := range slices.Sorted(maps.Keys(files)) {
		inside := strings.TrimPrefix(name, "/")
		folder(path.Dir(inside))
		add(inside, 0o100755, 0, 0, files[name])
	}
	add("init", 0o100755, 0, 0, init)
	add("TRAILER!!!", 0, 0, 0, nil)
	return b.Bytes()
}
