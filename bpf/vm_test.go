//go:build linux && amd64

package bpf

import (
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"guard/internal/testutil/vm"
)

// TestOtherKernels runs this package's tests in virtual machines, one for each
// kernel, with BPF among the active LSMs: every program must be accepted by
// every verifier, and what is refused must not come out. On the last kernel once
// more without it, for fmod_ret.
func TestOtherKernels(t *testing.T) {
	kernels, err := vm.Kernels("..")
	if err != nil {
		if os.Getenv("GUARD_TEST_KERNELS") != "" {
			t.Fatal(err)
		}
		t.Skip(err)
	}
	init := filepath.Join(t.TempDir(), "init")
	build := exec.Command("go", "test", "-c", "-o", init, ".")
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	machine := func(name, kernel, lsm, must string, args ...string) {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			ctx, cancel := context.WithTimeout(context.Background(), 5*time.Minute)
			defer cancel()
			// preempt=full: tasks meet in the search. One processor: qemu's emulation of several loses the kernel's changes to its
			// own code (static keys, tracing) now and then, and the kernel panics or locks up.
			o := vm.Options{Kernel: kernel, Init: init, CPUs: 1, Cmdline: "preempt=full lsm=" + lsm, Args: append([]string{"-test.v"}, args...)}
			if overlay := filepath.Join(filepath.Dir(kernel), "overlay.ko"); exists(overlay) {
				o.Modules = []string{overlay}
			}
			console, err := vm.Run(ctx, o)
			if err != nil {
				t.Fatalf("%v\n%s", err, console)
			}
			if code, err := vm.Exit(console); err != nil || code != 0 || !strings.Contains(console, "--- PASS: "+must) {
				t.Fatalf("exit %d, %v\n%s", code, err, console)
			}
			t.Log(console)
		})
	}
	// The machines are slow and have no shell. What this kernel is asked anyway is left
	// out there.
	for _, k := range kernels {
		if strings.HasPrefix(filepath.Base(k), "vmlinuz-5.") {
			// Before 5.17 there is no bpf_loop: detection by bounded loops, of every channel, by namespace and by cgroup.
			machine(filepath.Base(k), k, "lockdown,capability,bpf", "TestRefuseNeedsLoops",
				"-test.run=TestRefuseNeedsLoops|TestMonitorWithoutLoop|TestVerifier|TestEveryCall|TestMappings|TestNames|TestScopeOfC")
			continue
		}
		machine(filepath.Base(k), k, "lockdown,capability,bpf", "TestRefuseUnderLoad", "-test.run=TestRefuse|TestVerifier|TestEveryCall|TestCounters|TestCutTypes")
	}
	machine("without LSM, cgroup v1", kernels[len(kernels)-1], "lockdown,capability "+cgroup1Env+"=1", "TestRefuseUnderLoad", "-test.run=TestRefuse$|TestRefuseUnder|TestCgroupV1")
}

func exists(path string) bool {
	_, err := os.Stat(path)
	return err == nil
}
