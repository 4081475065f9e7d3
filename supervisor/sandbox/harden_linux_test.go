package sandbox

import (
	"bufio"
	"errors"
	"io/fs"
	"os"
	"os/exec"
	"strconv"
	"testing"

	"golang.org/x/sys/unix"
)

// hardenedHelper makes the test binary harden itself, say so, and wait.
const hardenedHelper = "GUARD_TEST_HARDENED"

// A hardened process is not read by another of the same user.
func TestHarden(t *testing.T) {
	if os.Getenv(hardenedHelper) == "1" {
		if err := Harden(); err != nil {
			t.Fatal(err)
		}
		dumpable, err := unix.PrctlRetInt(unix.PR_GET_DUMPABLE, 0, 0, 0, 0)
		if err != nil || dumpable != 0 {
			t.Fatal(dumpable, err)
		}
		os.Stdout.WriteString("hardened\n")
		os.Stdin.Read(make([]byte, 1))
		return
	}
	cmd := exec.Command("/proc/self/exe", "-test.run=^TestHarden$")
	cmd.Env = append(os.Environ(), hardenedHelper+"=1")
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() { in.Close(); cmd.Wait() }()
	if line, err := bufio.NewReader(out).ReadString('\n'); err != nil || line != "hardened\n" {
		t.Fatalf("%q %v", line, err)
	}
	if os.Geteuid() == 0 {
		return // root reads everything; the ordinary user's run tries the rest
	}
	for _, name := range []string{"environ", "mem", "maps"} {
		f, err := os.Open("/proc/" + strconv.Itoa(cmd.Process.Pid) + "/" + name)
		if !errors.Is(err, fs.ErrPermission) {
			f.Close()
			t.Errorf("/proc/PID/%s of a hardened process was opened: %v", name, err)
		}
	}
	if err := unix.PtraceAttach(cmd.Process.Pid); err == nil {
		t.Error("a hardened process was traced")
	}
}
