//go:build !unix

package supervisor

import (
	"os"
	"syscall"
)

// forwarded are the signals that guard passes on to the agent.
var forwarded = []os.Signal{os.Interrupt, syscall.SIGTERM}

const sigCont = syscall.Signal(0)

// stopSelf does nothing where there is no job control.
func stopSelf() {}
