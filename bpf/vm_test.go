//go:build linux && amd64

package bpf

import (
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	"guard/internal/testutil/vm"
)

// TestOtherKernels runs this package's tests in virtual machines, one for each
// kernel that GUARD_TEST_KERNELS names (a list of vmlinuz files, as in PATH):
// every program must be accepted by every verifier.
func TestOtherKernels(t *testing.T) {
	kernels := filepath.SplitList(os.Getenv("GUARD_TEST_KERNELS"))
	if len(kernels) == 0 {
		t.Skip("GUARD_TEST_KERNELS names no kernel")
	}
	init := filepath.Join(t.TempDir(), "init")
	build := exec.Command("go", "test", "-c", "-o", init, ".")
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	for _, k := range kernels {
		t.Run(filepath.Base(k), func(t *testing.T) {
			ctx, cancel := context.WithTimeout(context.Background(), 5*time.Minute)
			defer cancel()
			// One processor: qemu's emulation of several loses the kernel's changes to its
			// own code (static keys, tracing) now and then, and the kernel panics or locks up.
			console, err := vm.Run(ctx, vm.Options{
				Kernel: k, Init: init, CPUs: 1, Cmdline: "lsm=lockdown,capability,bpf",
				// The machine is slow, has no shell, and is its own root.
				Args: []string{"-test.v", "-test.skip=TestOtherKernels|TestScope$|TestWithoutPrivileges|TestFullTable|TestCleanWrites"},
			})
			if err != nil {
				t.Fatalf("%v\n%s", err, console)
			}
			if code, err := vm.Exit(console); err != nil || code != 0 {
				t.Fatalf("exit %d, %v\n%s", code, err, console)
			}
			t.Log(console)
		})
	}
}
