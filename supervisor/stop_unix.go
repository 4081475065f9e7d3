//go:build unix

package supervisor

import (
	"os"
	"os/signal"
	"syscall"
	"time"
)

// forwarded are the signals that guard passes on to the agent.
var forwarded = []os.Signal{syscall.SIGINT, syscall.SIGTERM, syscall.SIGHUP, syscall.SIGQUIT, syscall.SIGUSR1, syscall.SIGUSR2}

const sigCont = syscall.SIGCONT

// stopSelf stops guard's whole process group, as the terminal would have: the
// shell waits for the job, and other members of a pipeline stop with it. It
// returns when the shell continues the job, or soon, where the group is orphaned
// and the kernel ignores the signal.
func stopSelf() {
	cont := make(chan os.Signal, 1)
	signal.Notify(cont, syscall.SIGCONT)
	defer signal.Stop(cont)
	if syscall.Kill(0, syscall.SIGTSTP) != nil {
		return
	}
	// kill returns before the stop is in effect: wait for what ends it.
	select {
	case <-cont:
	case <-time.After(100 * time.Millisecond):
	}
}
