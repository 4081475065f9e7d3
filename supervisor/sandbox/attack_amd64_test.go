//go:build linux && amd64

package sandbox

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"syscall"
)

// int80 is an i386 program: exit(0).
var int80 = []byte{
	0x7f, 'E', 'L', 'F', 1, 1, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0,
	2, 0, 3, 0, 1, 0, 0, 0, 0x54, 0x80, 0x04, 0x08, 0x34, 0, 0, 0,
	0, 0, 0, 0, 0, 0, 0, 0, 0x34, 0, 0x20, 0, 1, 0, 0, 0, 0, 0, 0, 0,
	1, 0, 0, 0, 0, 0, 0, 0, 0, 0x80, 0x04, 0x08, 0, 0x80, 0x04, 0x08,
	0x60, 0, 0, 0, 0x60, 0, 0, 0, 5, 0, 0, 0, 0, 0x10, 0, 0,
	0x31, 0xc0, 0x40, 0x31, 0xdb, 0xcd, 0x80, 0x90, 0x90, 0x90, 0x90, 0x90, // eax=1; ebx=0; int 0x80
}

// attackABI makes system calls of foreign ABIs, in children since the filter
// kills them.
func attackABI() {
	self, _ := os.Executable()
	if err := os.WriteFile("/tmp/int80", int80, 0o755); err != nil {
		fmt.Println("BROKEN:", err)
	}
	for _, argv := range [][]string{{self, "@abi-x32"}, {"/tmp/int80"}} {
		err := exec.Command(argv[0], argv[1:]...).Run()
		var ee *exec.ExitError
		if errors.As(err, &ee) && ee.Sys().(syscall.WaitStatus).Signal() == syscall.SIGSYS || errors.Is(err, syscall.ENOEXEC) {
			fmt.Println("held:", argv, err)
		} else {
			fmt.Println("BROKEN:", argv, err)
		}
	}
}
