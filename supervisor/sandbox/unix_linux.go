package sandbox

import (
	"fmt"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strconv"

	"golang.org/x/sys/unix"
)

// unixPrefix comes before the path in the name of a descriptor.
const unixPrefix = "unix:"

// listenUnix opens a socket in the session's tree, which stage 1 is in by now.
// Its owner is the agent's uid, so that the agent can take it away: from itself.
func listenUnix(path string) (fd int, err error) {
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return -1, err
	}
	fd, err = unix.Socket(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
	if err != nil {
		return -1, err
	}
	if err = unix.Bind(fd, &unix.SockaddrUnix{Name: path}); err == nil {
		err = unix.Chmod(path, 0o600)
	}
	if err == nil {
		err = unix.Listen(fd, 1024)
	}
	if err != nil {
		unix.Close(fd)
		return -1, err
	}
	return fd, nil
}

// UnixConn is a connection that the agent made to one of Config.Unix.
type UnixConn struct {
	*net.UnixConn
	s *session
}

// unixListener makes *UnixConn of what it accepts.
type unixListener struct {
	net.Listener
	s *session
}

func (l *unixListener) Accept() (net.Conn, error) {
	c, err := l.Listener.Accept()
	if err != nil {
		return nil, err
	}
	u, ok := c.(*net.UnixConn)
	if !ok {
		c.Close()
		return nil, fmt.Errorf("accepted a %T", c)
	}
	return &UnixConn{u, l.s}, nil
}

// Process is the process that connected, in the caller's pid namespace, and its
// executable as the agent sees it: 0 and "" if it is none of the session's any more.
func (c *UnixConn) Process() (pid int, exe string) {
	raw, err := c.SyscallConn()
	if err != nil {
		return 0, ""
	}
	raw.Control(func(fd uintptr) {
		if cred, err := unix.GetsockoptUcred(int(fd), unix.SOL_SOCKET, unix.SO_PEERCRED); err == nil {
			pid = int(cred.Pid)
		}
	})
	// The id of a process that is gone may be another's by now.
	if pid <= 0 || !slices.Contains(descendants(c.s.pid), pid) {
		return 0, ""
	}
	exe, _ = os.Readlink("/proc/" + strconv.Itoa(pid) + "/exe")
	return pid, exe
}
