package sandbox

import (
	"bytes"
	"encoding/gob"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"
)

// Descriptors of stage 2 besides the agent's own three.
const (
	agentConfigFD = 3
	agentStatusFD = 4
	agentNotifyFD = 5 // with agentConfig.Notify
)

// statusGo is written when all restrictions are in place; statusFailed, and a
// message after it, when the program did not start, before or after that.
const (
	statusGo     = '!'
	statusFailed = '?'
)

// stage2 gives everything up and becomes the agent. It returns only if that
// fails.
func stage2() int {
	// Capabilities, no_new_privs, Landlock and seccomp belong to a thread; the
	// one that calls execve is the one whose restrictions last.
	runtime.LockOSThread()
	unix.CloseOnExec(agentConfigFD)
	unix.CloseOnExec(agentStatusFD)
	status := os.NewFile(agentStatusFD, "status")
	if f := become(status); f != nil {
		b := bytes.NewBuffer([]byte{statusFailed})
		gob.NewEncoder(b).Encode(f.message())
		status.Write(b.Bytes())
		return f.code
	}
	return 125
}

func become(status *os.File) *failure {
	in := os.NewFile(agentConfigFD, "config")
	var c agentConfig
	if err := gob.NewDecoder(in).Decode(&c); err != nil {
		return failed("read the agent's configuration", err)
	}
	in.Close()
	// Before the chdir, whose result must be judged by the agent's own powers.
	if !c.Open {
		if err := dropCapabilities(); err != nil {
			return failed("give up capabilities", lacking(err))
		}
	}
	if err := unix.Chdir(c.Dir); err != nil {
		return failed("enter the working folder "+c.Dir, err)
	}
	if c.NoCore {
		if err := unix.Setrlimit(unix.RLIMIT_CORE, &unix.Rlimit{}); err != nil {
			return failed("forbid core files", err)
		}
	}
	var filter []unix.SockFilter
	if !c.Open {
		if err := unix.Prctl(unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0); err != nil {
			return failed("set no_new_privs", lacking(err))
		}
		var err error
		if filter, err = seccompFilter(filterOptions{noZeroCopy: c.NoZeroCopy, restricted: c.Restrict != nil, reserved: c.Reserved, notify: c.Notify}); err != nil {
			return failed("make the system call filter", lacking(err))
		}
		if err := landlock(c.Restrict); err != nil {
			return failed("apply Landlock", err)
		}
	}
	path := ""
	if !c.Probe {
		var f *failure
		if path, f = lookPath(c.Argv[0], c.Env); f != nil {
			return f
		}
	}
	if c.Env == nil {
		c.Env = []string{}
	}
	setSignals(0)
	unix.CloseRange(agentConfigFD, ^uint(0), unix.CLOSE_RANGE_CLOEXEC)
	if filter != nil {
		send := func(int) error { return nil }
		if c.Notify {
			send = sender()
		}
		listener, err := loadFilter(filter, c.Notify)
		if err != nil {
			return failed("load the system call filter", lacking(err))
		}
		if c.Notify {
			// From here on a write of this thread waits for whoever gets the listener.
			if err := send(listener); err != nil {
				return failed("hand over writes", err)
			}
			closeAll([]int{listener, agentNotifyFD})
		}
	}
	if _, err := status.Write([]byte{statusGo}); err != nil {
		return failed("report", err)
	}
	if c.Probe {
		return nil
	}
	err := syscall.Exec(path, c.Argv, c.Env)
	return &failure{126, "run " + c.Argv[0], fmt.Errorf("%s: %w", path, err)}
}

// sender is a thread that was there before the filter and has none, so that it can send the
// listener. It waits for one, and ends when this process executes the agent.
func sender() (send func(listener int) error) {
	there, listener, sent := make(chan struct{}), make(chan int), make(chan error)
	go func() {
		runtime.LockOSThread()
		close(there)
		sent <- unix.Sendmsg(agentNotifyFD, []byte{statusGo}, unix.UnixRights(<-listener), nil, 0)
	}()
	<-there
	return func(fd int) error {
		listener <- fd
		return <-sent
	}
}

// dropCapabilities empties all five sets of this thread.
func dropCapabilities() error {
	if err := unix.Prctl(unix.PR_CAP_AMBIENT, unix.PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0); err != nil {
		return fmt.Errorf("ambient set: %w", err)
	}
	for c := uintptr(0); c < 64; c++ {
		err := unix.Prctl(unix.PR_CAPBSET_DROP, c, 0, 0, 0)
		if errors.Is(err, unix.EINVAL) {
			break // past the last one that this kernel has
		}
		// An ordinary user outside of a namespace may not, and has none to lose.
		if errors.Is(err, unix.EPERM) && c == 0 && os.Geteuid() != 0 && !hasCapabilities() {
			break
		}
		if err != nil {
			return fmt.Errorf("bounding set, capability %d: %w", c, err)
		}
	}
	head := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	var none [2]unix.CapUserData
	if err := unix.Capset(&head, &none[0]); err != nil {
		return fmt.Errorf("capset: %w", err)
	}
	return nil
}

func hasCapabilities() bool {
	head := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	var d [2]unix.CapUserData
	return unix.Capget(&head, &d[0]) != nil || d[0].Permitted|d[1].Permitted != 0
}

// lookPath finds name as execvp(3) does, in PATH of env.
func lookPath(name string, env []string) (string, *failure) {
	step := "run " + name
	if name == "" {
		return "", &failure{127, "run the agent", errors.New("its name is empty")}
	}
	if strings.Contains(name, "/") {
		err := executable(name)
		switch {
		case err == nil:
			return name, nil
		case errors.Is(err, fs.ErrNotExist) || errors.Is(err, unix.ENOTDIR):
			return "", &failure{127, step, err}
		}
		return "", &failure{126, step, err}
	}
	dirs := "/usr/local/bin:/usr/bin:/bin"
	for _, e := range env {
		if v, ok := strings.CutPrefix(e, "PATH="); ok {
			dirs = v
		}
	}
	var denied error
	for _, d := range filepath.SplitList(dirs) {
		if d == "" {
			d = "."
		}
		p := d + "/" + name
		err := executable(p)
		if err == nil {
			return p, nil
		}
		if denied == nil && errors.Is(err, fs.ErrPermission) {
			denied = err
		}
	}
	if denied != nil {
		return "", &failure{126, step, denied}
	}
	return "", &failure{127, step, errors.New("not found in PATH inside the sandbox")}
}

func executable(path string) error {
	st, err := os.Stat(path)
	if err != nil {
		return err
	}
	if !st.Mode().IsRegular() {
		return &fs.PathError{Op: "exec", Path: path, Err: unix.EACCES}
	}
	if err := unix.Access(path, unix.X_OK); err != nil {
		return &fs.PathError{Op: "exec", Path: path, Err: err}
	}
	return nil
}
