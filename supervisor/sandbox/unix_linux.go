package sandbox

import (
	"fmt"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// unixPrefix comes before the path in the name of a descriptor.
const unixPrefix = "unix:"

// listenUnix opens a socket in the session's tree, which stage 1 is in by now.
// Its owner is the agent's uid: see keepUnix.
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

// keepUnix makes sockets that are open, and the folders that they are in, what the agent
// cannot take away, rename or put others in the place of: a mount on itself of the first
// name below /run, to read only. A socket takes connections all the same.
func keepUnix(paths []string) error {
	var tops []string
	for _, path := range paths {
		name, _, _ := strings.Cut(strings.TrimPrefix(path, "/run/"), "/")
		if top := "/run/" + name; !slices.Contains(tops, top) {
			tops = append(tops, top)
		}
	}
	for _, top := range tops {
		at, err := unix.Open(top, unix.O_PATH|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
		if err != nil {
			return fmt.Errorf("find %s: %w", top, err)
		}
		fd, err := clone(at, "", true, attrReadOnly)
		if err == nil {
			err = attachAt(fd, at, top)
		}
		unix.Close(at)
		if err != nil {
			return fmt.Errorf("keep %s: %w", top, err)
		}
	}
	return nil
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

// Peer is the id of the process that connected, in the caller's pid namespace, as the
// kernel noted it then: it may be another's by now. 0: not known.
func (c *UnixConn) Peer() (pid int) {
	raw, err := c.SyscallConn()
	if err != nil {
		return 0
	}
	_ = raw.Control(func(fd uintptr) {
		if cred, err := unix.GetsockoptUcred(int(fd), unix.SOL_SOCKET, unix.SO_PEERCRED); err == nil {
			pid = int(cred.Pid)
		}
	})
	return pid
}

// Process is the process that connected, in the caller's pid namespace, and its
// executable as the agent sees it: 0 and "" if it is none of the session's any more.
func (c *UnixConn) Process() (pid int, exe string) {
	pid = c.Peer()
	// The id of a process that is gone may be another's by now.
	if pid <= 0 || !slices.Contains(descendants(c.s.pid), pid) {
		return 0, ""
	}
	exe, _ = os.Readlink("/proc/" + strconv.Itoa(pid) + "/exe")
	return pid, exe
}
