//go:build linux && (amd64 || arm64)

package bpf

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/cilium/ebpf"
)

func TestFullRingDropsAndCounts(t *testing.T) {
	secret := random(30)
	w := newWatch(t, []Needle{needle(1, secret)}, Options{RingBytes: 4096})
	j := job{Op: "write", To: "socket"}
	for range 500 {
		j.Calls = append(j.Calls, [][]byte{secret})
	}
	w.order(j)
	if err := w.d.Stop(); err != nil {
		t.Fatal(err)
	}
	s, err := w.d.Stats()
	if err != nil {
		t.Fatal(err)
	}
	n := uint64(0)
	for {
		if _, err := w.d.Read(); err != nil {
			if !errors.Is(err, os.ErrClosed) {
				t.Fatal(err)
			}
			break
		}
		n++
	}
	if s.Total.Hits != 500 || s.Total.Dropped == 0 || n+s.Total.Dropped != 500 {
		t.Fatalf("%d read, %+v", n, s.Total)
	}
	if _, err := w.d.Read(); !errors.Is(err, os.ErrClosed) {
		t.Fatalf("a second Read after the last: %v", err)
	}
}

func TestClose(t *testing.T) {
	d := open(t, Options{PIDNamespace: 1})
	got := make(chan error)
	go func() {
		_, err := d.Read()
		got <- err
	}()
	if err := d.Close(); err != nil {
		t.Fatal(err)
	}
	if err := <-got; !errors.Is(err, os.ErrClosed) {
		t.Fatalf("a Read that waits: %v", err)
	}
	if _, err := d.Read(); !errors.Is(err, os.ErrClosed) {
		t.Fatalf("Read: %v", err)
	}
	if _, err := d.SetNeedles(nil); !errors.Is(err, os.ErrClosed) {
		t.Fatalf("SetNeedles: %v", err)
	}
	if _, err := d.Stats(); !errors.Is(err, os.ErrClosed) {
		t.Fatalf("Stats: %v", err)
	}
	if err := errors.Join(d.Close(), d.Stop()); err != nil {
		t.Fatal(err)
	}
}

func TestOptions(t *testing.T) {
	canWatch(t)
	for _, o := range []Options{{}, {PIDNamespace: 1 << 32}, {PIDNamespace: 1, MaxBytes: -1}, {PIDNamespace: 1, RingBytes: -4096}, {Cgroup: 1, Streams: -1},
		{Processes: []int{0}}, {All: true, Rescans: true}, {All: true, Refuse: true, Lenient: true, Strict: true}} {
		if d, err := OpenDetector(o); err == nil || errors.Is(err, ErrNotSupported) {
			t.Errorf("%+v: %v, %v", o, d, err)
		}
	}
	if _, err := OpenDetector(Options{PIDNamespace: 1, RingBytes: 5000}); err == nil || errors.Is(err, ErrNotSupported) || strings.Contains(err.Error(), "\n") {
		t.Errorf("a ring of 5000 bytes: %v", err)
	}
}

// An ordinary user is told what is missing; that is what skips and guard doctor
// rely on.
func TestWithoutPrivileges(t *testing.T) {
	if os.Getuid() != 0 {
		t.Skip("needs root to become another user")
	}
	cmd := exec.Command("/proc/self/exe")
	cmd.Env = append(os.Environ(), childEnv+"=probe")
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: 65534, Gid: 65534}}
	out, err := cmd.CombinedOutput()
	if err != nil || !strings.Contains(string(out), "CAP_BPF and CAP_PERFMON") || !strings.HasSuffix(string(out), "typed\n") {
		t.Fatalf("%v: %s", err, out)
	}
}

// Nothing is left behind: descriptors here, programs and maps in the kernel.
func TestNothingIsLeft(t *testing.T) {
	count := func() (fds, maps int) {
		es, err := os.ReadDir("/proc/self/fd")
		if err != nil {
			t.Fatal(err)
		}
		mine := map[ebpf.MapID]bool{}
		for _, e := range es {
			b, _ := os.ReadFile("/proc/self/fdinfo/" + e.Name())
			if _, rest, ok := bytes.Cut(b, []byte("map_id:\t")); ok {
				var id ebpf.MapID
				fmt.Sscan(string(rest), &id)
				mine[id] = true
			}
		}
		return len(es), len(mine)
	}
	// The runtime's own poller and the loader's cached tests come with the first.
	open(t, Options{PIDNamespace: 1}).Close()
	fds, maps := count()
	for range 3 {
		d := open(t, Options{PIDNamespace: 1})
		if _, err := d.SetNeedles([]Needle{needle(1, random(20))}); err != nil {
			t.Fatal(err)
		}
		if err := d.Close(); err != nil {
			t.Fatal(err)
		}
		Probe()
	}
	if f, m := count(); f != fds || m != maps || m != 0 {
		t.Fatalf("%d descriptors and %d maps before, %d and %d after", fds, maps, f, m)
	}
	if left, _ := filepath.Glob("/sys/fs/cgroup/*/guard-probe-*"); len(left) != 0 {
		t.Fatalf("Probe left %v", left)
	}
}
