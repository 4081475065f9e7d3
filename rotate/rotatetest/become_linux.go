package rotatetest

import (
	"os/exec"
	"syscall"
)

// become makes a command run as another user and end with the test.
func become(c *exec.Cmd, uid, gid int) {
	c.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGINT}
	if uid >= 0 {
		c.SysProcAttr.Credential = &syscall.Credential{Uid: uint32(uid), Gid: uint32(gid)}
	}
}

func killSelf() { _ = syscall.Kill(syscall.Getpid(), syscall.SIGKILL) }
