//go:build linux && (amd64 || arm64)

package bpf

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"
	"github.com/cilium/ebpf/btf"
	"github.com/cilium/ebpf/features"
	"github.com/cilium/ebpf/link"
	"golang.org/x/sys/unix"
)

// Probe finds out what this kernel offers to this process by trying: it loads
// and attaches programs that do nothing, and takes them away again. It costs a
// few milliseconds and leaves nothing behind.
func Probe() Report {
	r := Report{Kernel: "unknown"}
	var uts unix.Utsname
	if unix.Uname(&uts) == nil {
		r.Kernel = unix.ByteSliceToString(uts.Release[:])
	}
	for _, try := range []struct {
		name  string
		try   func() error
		since string
	}{
		{Capabilities, tryCapabilities, ""},
		{BTF, tryBTF, "CONFIG_DEBUG_INFO_BTF, since 5.2, on in most distributions' kernels since 5.10"},
		{Tracepoint, tryTracepoint, "tp_btf programs, since 5.5"},
		{RingBuffer, func() error { return features.HaveMapType(ebpf.RingBuf) }, "BPF_MAP_TYPE_RINGBUF, since 5.8"},
		{Loop, func() error { return features.HaveProgramHelper(ebpf.RawTracepoint, asm.FnLoop) }, "the helper bpf_loop, since 5.17"},
		{Uprobe, tryUprobe, "CONFIG_UPROBE_EVENTS, since 4.17"},
		{CgroupProg, tryCgroup, "programs on cgroups, since 4.10, and a mounted cgroup2"},
		{Fentry, tryFentry, "BPF trampolines, since 5.5 (arm64: 6.0)"},
		{FmodRet, tryFmodRet, "fmod_ret programs, since 5.7 (arm64: 6.0)"},
		{LSM, tryLSM, "CONFIG_BPF_LSM, since 5.7 (arm64: 6.0), and bpf in lsm="},
	} {
		f := Feature{Name: try.name, OK: true}
		if err := try.try(); err != nil {
			f.OK = false
			f.Reason = reason(err, try.since)
		}
		r.Features = append(r.Features, f)
	}
	return r
}

// reason says what an error of the kernel's means, in one line.
func reason(err error, since string) string {
	// A verifier's error goes on for pages.
	msg, _, _ := strings.Cut(err.Error(), "\n")
	var ve *ebpf.VerifierError
	if errors.As(err, &ve) && ve.Cause != nil {
		msg = ve.Cause.Error()
	}
	switch {
	case since == "":
		return msg
	case (errors.Is(err, unix.EPERM) || errors.Is(err, unix.EACCES)) && ve == nil:
		if tryCapabilities() == nil {
			return "the kernel refuses it to a process with every capability that it needs (lockdown, or a locked-down machine); needs " + since
		}
		return "not permitted without CAP_BPF and CAP_PERFMON; needs " + since
	}
	return msg + "; needs " + since
}

func tryCapabilities() error {
	status, err := os.ReadFile("/proc/thread-self/status")
	if err != nil {
		return err
	}
	_, rest, ok := bytes.Cut(status, []byte("\nCapEff:"))
	line, _, _ := bytes.Cut(rest, []byte("\n"))
	eff, err := strconv.ParseUint(string(bytes.TrimSpace(line)), 16, 64)
	if !ok || err != nil {
		return errors.New("no CapEff in /proc/thread-self/status")
	}
	// CAP_SYS_ADMIN stands for the other two, which exist since 5.8.
	if eff>>unix.CAP_SYS_ADMIN&1 == 1 {
		return nil
	}
	var missing []string
	for c, name := range map[int]string{unix.CAP_BPF: "CAP_BPF", unix.CAP_PERFMON: "CAP_PERFMON"} {
		if eff>>c&1 == 0 {
			missing = append(missing, name)
		}
	}
	if len(missing) == 0 {
		return nil
	}
	slices.Sort(missing)
	return fmt.Errorf("this process lacks %s: run as root or give the binary file capabilities", strings.Join(missing, " and "))
}

func tryBTF() error {
	_, err := btf.LoadKernelSpec()
	return err
}

// harmless is a program that does nothing.
func harmless(t ebpf.ProgramType, a ebpf.AttachType, to string, ret int32) (*ebpf.Program, error) {
	return ebpf.NewProgram(&ebpf.ProgramSpec{
		Type: t, AttachType: a, AttachTo: to, License: "Dual MIT/GPL",
		Instructions: asm.Instructions{asm.Mov.Imm(asm.R0, ret), asm.Return()},
	})
}

// attachAndTakeAway ends with nothing attached, whatever happened.
func attachAndTakeAway(attach func() (link.Link, error)) error {
	l, err := attach()
	if err != nil {
		return fmt.Errorf("attach: %w", err)
	}
	return l.Close()
}

func tryTracing(a ebpf.AttachType, to string) error {
	p, err := harmless(ebpf.Tracing, a, to, 0)
	if err != nil {
		return err
	}
	defer p.Close()
	return attachAndTakeAway(func() (link.Link, error) {
		return link.AttachTracing(link.TracingOptions{Program: p})
	})
}

func tryTracepoint() error { return tryTracing(ebpf.AttachTraceRawTp, "sys_enter") }
func tryFentry() error     { return tryTracing(ebpf.AttachTraceFEntry, "security_file_permission") }
func tryFmodRet() error    { return tryTracing(ebpf.AttachModifyReturn, "security_file_permission") }

func tryLSM() error {
	// securityfs is not mounted in every container; then the kernel's answer
	// has to do.
	if list, err := os.ReadFile("/sys/kernel/security/lsm"); err == nil {
		if !slices.Contains(strings.Split(strings.TrimSpace(string(list)), ","), "bpf") {
			return fmt.Errorf("the active LSMs are %s: add bpf to lsm= on the kernel's command line", strings.TrimSpace(string(list)))
		}
	}
	p, err := harmless(ebpf.LSM, ebpf.AttachLSMMac, "file_permission", 0)
	if err != nil {
		return err
	}
	defer p.Close()
	return attachAndTakeAway(func() (link.Link, error) {
		return link.AttachLSM(link.LSMOptions{Program: p})
	})
}

func tryUprobe() error {
	// A probe sits in a file. This one is nobody's program, so that no
	// process runs into it.
	fd, err := unix.MemfdCreate("guard-probe", unix.MFD_CLOEXEC)
	if err != nil {
		return err
	}
	f := os.NewFile(uintptr(fd), "guard-probe")
	defer f.Close()
	if err := f.Truncate(8192); err != nil {
		return err
	}
	p, err := harmless(ebpf.Kprobe, ebpf.AttachNone, "", 0)
	if err != nil {
		return err
	}
	defer p.Close()
	exe, err := link.OpenExecutable("/proc/self/fd/" + strconv.Itoa(fd))
	if err != nil {
		return err
	}
	return attachAndTakeAway(func() (link.Link, error) {
		return exe.Uprobe("", p, &link.UprobeOptions{Address: 4096})
	})
}

func tryCgroup() error {
	root, err := cgroup2()
	if err != nil {
		return err
	}
	dir, err := os.MkdirTemp(root, "guard-probe-*")
	if err != nil {
		return err
	}
	defer os.Remove(dir)
	p, err := harmless(ebpf.CGroupSKB, ebpf.AttachCGroupInetEgress, "", 1)
	if err != nil {
		return err
	}
	defer p.Close()
	return attachAndTakeAway(func() (link.Link, error) {
		return link.AttachCgroup(link.CgroupOptions{Path: dir, Attach: ebpf.AttachCGroupInetEgress, Program: p})
	})
}

// cgroup2 is where the v2 hierarchy is mounted, also beside a v1 one.
func cgroup2() (string, error) {
	mounts, err := os.ReadFile("/proc/self/mounts")
	if err != nil {
		return "", err
	}
	for line := range strings.Lines(string(mounts)) {
		if f := strings.Fields(line); len(f) > 2 && f[2] == "cgroup2" {
			return f[1], nil
		}
	}
	return "", errors.New("no cgroup2 is mounted")
}

// CgroupID is the number of a cgroup of the v2 hierarchy, for Options.Cgroup.
// dir is its folder, for instance "/sys/fs/cgroup/user.slice".
func CgroupID(dir string) (uint64, error) {
	var fs unix.Statfs_t
	if err := unix.Statfs(dir, &fs); err != nil {
		return 0, fmt.Errorf("bpf: cgroup %s: %w", dir, err)
	}
	if fs.Type != unix.CGROUP2_SUPER_MAGIC {
		return 0, fmt.Errorf("bpf: %s is not a folder of the cgroup v2 hierarchy (on a hybrid machine that is /sys/fs/cgroup/unified)", filepath.Clean(dir))
	}
	// The handle, not the inode number: where ino_t has 32 bits they differ.
	h, _, err := unix.NameToHandleAt(unix.AT_FDCWD, dir, 0)
	if err != nil {
		return 0, fmt.Errorf("bpf: cgroup %s: %w", dir, err)
	}
	if h.Size() != 8 {
		return 0, fmt.Errorf("bpf: cgroup %s: a handle of %d bytes", dir, h.Size())
	}
	return binary.LittleEndian.Uint64(h.Bytes()), nil
}
