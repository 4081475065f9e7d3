package vault

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"guard"
)

// childFull writes while no file may grow beyond fewer and fewer bytes.
func childFull(dir string, key KeyFile) error {
	signal.Ignore(syscall.SIGXFSZ)
	v, err := Open(dir, key)
	if err != nil {
		return err
	}
	size := uint64(len(must(readFileOf(dir))))
	for _, max := range []uint64{size, size - 1, size / 2, 40, 1, 0} {
		if err := unix.Setrlimit(unix.RLIMIT_FSIZE, &unix.Rlimit{Cur: max, Max: unix.RLIM_INFINITY}); err != nil {
			return err
		}
		if _, err := v.Set(guard.Credential{Name: "b"}, secret(canary+"-b")); !errors.Is(err, syscall.EFBIG) {
			return fmt.Errorf("with %d bytes: %v", max, err)
		}
		s, err := v.Get(guard.SecretID{Name: "a"})
		if err != nil || string(s.Reveal()) != canary {
			return fmt.Errorf("with %d bytes: get: %v", max, err)
		}
		if _, err := v.Find("", "b"); !errors.Is(err, ErrNotFound) {
			return fmt.Errorf("with %d bytes: half a write: %v", max, err)
		}
	}
	return nil
}

// A file system that is full, in a mount namespace of the test's own.
func TestFullFileSystem(t *testing.T) {
	home := t.TempDir()
	c := child("full-fs", home, KeyFile{})
	c.SysProcAttr = &syscall.SysProcAttr{
		Cloneflags:  syscall.CLONE_NEWUSER | syscall.CLONE_NEWNS,
		UidMappings: []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Geteuid(), Size: 1}},
		GidMappings: []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Getegid(), Size: 1}},
	}
	out, err := c.CombinedOutput()
	if errors.Is(err, syscall.EPERM) || errors.Is(err, syscall.ENOSPC) || errors.Is(err, syscall.EINVAL) {
		if b, _ := os.ReadFile("/proc/sys/user/max_user_namespaces"); len(b) > 0 && strings.TrimSpace(string(b)) != "0" && os.Geteuid() == 0 {
			t.Fatalf("user namespaces are on, and root cannot make one: %v", err)
		}
		t.Skipf("no user namespaces here: %v", err)
	}
	if err != nil {
		t.Fatalf("%v: %s", err, out)
	}
}

func childFullFS(home string, _ KeyFile) error {
	if err := unix.Mount("none", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
		return fmt.Errorf("mount private: %w", err)
	}
	if err := unix.Mount("tmpfs", home, "tmpfs", 0, "size=128k,mode=0700"); err != nil {
		return fmt.Errorf("mount tmpfs: %w", err)
	}
	dir, key := filepath.Join(home, "vault"), KeyFile{Path: filepath.Join(home, "key"), Create: true}
	v, err := Create(dir, key)
	if err != nil {
		return err
	}
	stored := 0
	for full := 0; full < 5; {
		_, err := v.Set(guard.Credential{Name: fmt.Sprint("n", stored)}, secret(fmt.Sprintf("%s-%d-%s", canary, stored, strings.Repeat("x", 2000))))
		switch {
		case err == nil && full > 0:
			return fmt.Errorf("full, and then there was room")
		case err == nil:
			stored++
		case errors.Is(err, syscall.ENOSPC):
			full++
		default:
			return err
		}
	}
	w, err := Open(dir, key)
	if err != nil {
		return err
	}
	if n := len(must(w.List(""))); n != stored || n < 3 {
		return fmt.Errorf("%d credentials where %d were stored", n, stored)
	}
	for i := range stored {
		s, err := w.Get(guard.SecretID{Name: fmt.Sprint("n", i)})
		if err != nil || !strings.HasPrefix(string(s.Reveal()), fmt.Sprintf("%s-%d-", canary, i)) {
			return fmt.Errorf("n%d: %v", i, err)
		}
	}
	return nil
}

// Keys are in pages that are locked and left out of core dumps, and gone after
// Close.
func TestLockedMemory(t *testing.T) {
	l, err := newLocked()
	if err != nil {
		t.Fatal(err)
	}
	defer l.free()
	var keys [][]byte
	for i := range 300 { // more than two pages
		in := []byte(fmt.Sprintf("%032d", i))
		k, err := l.put(in)
		if err != nil {
			t.Fatal(err)
		}
		if string(in) != string(make([]byte, 32)) {
			t.Fatal("the key that was put in is still outside")
		}
		keys = append(keys, k)
	}
	for i, k := range keys {
		if string(k) != fmt.Sprintf("%032d", i) || cap(k) != 32 {
			t.Fatal("keys overlap")
		}
	}
	smaps := must(os.ReadFile("/proc/self/smaps"))
	at := fmt.Sprintf("%x-", pageOf(keys[0]))
	_, rest, ok := strings.Cut("\n"+string(smaps), "\n"+at)
	if !ok {
		// The kernel may have joined the page with its neighbour below.
		_, rest, ok = strings.Cut(string(smaps), fmt.Sprintf("-%x ", pageOf(keys[0])+uintptr(os.Getpagesize())))
	}
	_, flags, ok2 := strings.Cut(rest, "VmFlags:")
	flags, _, _ = strings.Cut(flags, "\n")
	if !ok || !ok2 || !strings.Contains(flags, " lo") || !strings.Contains(flags, " dd") || !strings.Contains(flags, " wf") {
		t.Fatalf("flags of the keys' page (want lo, dd, wf):%s", flags)
	}
	first := keys[0]
	l.reset()
	if string(first) != string(make([]byte, 32)) {
		t.Fatal("reset does not wipe")
	}
}

func requireTool(t *testing.T, name string) {
	t.Helper()
	if _, err := exec.LookPath(name); err != nil {
		t.Skipf("%s is not installed: %v", name, err)
	}
}
