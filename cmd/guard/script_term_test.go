//go:build linux

package main

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/creack/pty"
	"golang.org/x/sys/unix"
)

// statusProgram is "status N CMD [ARG...]": it runs CMD in its place and fails
// unless its exit status, as a shell would tell it, is N.
func statusProgram() {
	if len(os.Args) < 3 {
		fmt.Fprintln(os.Stderr, "usage: status N CMD [ARG...]")
		os.Exit(2)
	}
	want, err := strconv.Atoi(os.Args[1])
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(2)
	}
	cmd := exec.Command(os.Args[2], os.Args[3:]...)
	cmd.Stdin, cmd.Stdout, cmd.Stderr = os.Stdin, os.Stdout, os.Stderr
	err = cmd.Run()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(2)
	}
	if got := shellStatus(cmd.ProcessState); got != want {
		fmt.Fprintf(os.Stderr, "status: %d, want %d\n", got, want)
		os.Exit(1)
	}
}

func shellStatus(p *os.ProcessState) int {
	if ws := p.Sys().(syscall.WaitStatus); ws.Signaled() {
		return 128 + int(ws.Signal())
	}
	return p.ExitCode()
}

// termProgram is "term [-size ROWSxCOLS] FILE CMD [ARG...]": it runs CMD as the
// leader of a session on a terminal of its own, plays the user that FILE describes, and
// prints what the terminal showed. Its exit status is CMD's. Lines of FILE:
//
//	wait REGEXP      until what was shown since the last match matches
//	send TEXT        types TEXT: Go's escapes, and $VAR from the environment
//	keys TEXT        types TEXT key by key, each after something was shown for the one before
//	quiet            until the terminal echoes nothing
//	hidden           fails if it echoes now
//	resize ROWSxCOLS
//	sh COMMAND       runs COMMAND in a shell, elsewhere
//	hangup           closes the terminal
func termProgram() {
	fail := func(format string, v ...any) {
		fmt.Fprintf(os.Stderr, "term: "+format+"\n", v...)
		os.Exit(99)
	}
	args := os.Args[1:]
	size := &pty.Winsize{Rows: 24, Cols: 80}
	if len(args) > 2 && args[0] == "-size" {
		if _, err := fmt.Sscanf(args[1], "%dx%d", &size.Rows, &size.Cols); err != nil {
			fail("size: %v", err)
		}
		args = args[2:]
	}
	if len(args) < 2 {
		fail("usage: term [-size ROWSxCOLS] FILE CMD [ARG...]")
	}
	script, err := os.ReadFile(args[0])
	if err != nil {
		fail("%v", err)
	}
	cmd := exec.Command(args[1], args[2:]...)
	started, err := pty.StartWithSize(cmd, size)
	if err != nil {
		fail("%v", err)
	}
	// A descriptor that a Read waits on in the kernel would not be closed by Close,
	// and so would not hang up: it has to wait in the poller.
	fd, err := unix.FcntlInt(started.Fd(), unix.F_DUPFD_CLOEXEC, 0)
	if err != nil {
		fail("%v", err)
	}
	started.Close()
	if err := unix.SetNonblock(fd, true); err != nil {
		fail("%v", err)
	}
	master := os.NewFile(uintptr(fd), "terminal")
	shown := &screen{changed: make(chan struct{}, 1)}
	var wg sync.WaitGroup
	wg.Go(func() { shown.read(master) })
	for line := range strings.Lines(string(script)) {
		verb, rest, _ := strings.Cut(strings.TrimSuffix(line, "\n"), " ")
		switch verb {
		case "", "#":
		case "sh":
			if out, err := exec.Command("sh", "-c", rest).CombinedOutput(); err != nil {
				fail("sh %s: %v\n%s", rest, err, out)
			}
		case "wait":
			re, err := regexp.Compile(rest)
			if err != nil {
				fail("%v", err)
			}
			if !shown.wait(re) {
				cmd.Process.Kill()
				os.Stdout.Write(shown.all())
				fail("did not show %s", rest)
			}
		case "send":
			text, err := strconv.Unquote(`"` + rest + `"`)
			if err != nil {
				fail("send %s: %v", rest, err)
			}
			if _, err := master.WriteString(os.ExpandEnv(text)); err != nil {
				fail("send: %v", err)
			}
		case "keys":
			for _, key := range []byte(os.ExpandEnv(rest)) {
				from := len(shown.all())
				if _, err := master.Write([]byte{key}); err != nil {
					fail("keys: %v", err)
				}
				for end := time.Now().Add(20 * time.Second); len(shown.all()) == from; time.Sleep(time.Millisecond) {
					if time.Now().After(end) {
						fail("nothing was shown for a key")
					}
				}
			}
		case "resize":
			if _, err := fmt.Sscanf(rest, "%dx%d", &size.Rows, &size.Cols); err != nil {
				fail("resize: %v", err)
			}
			conn, err := master.SyscallConn()
			if err == nil {
				err = errors.Join(conn.Control(func(fd uintptr) {
					err = unix.IoctlSetWinsize(int(fd), unix.TIOCSWINSZ, &unix.Winsize{Row: size.Rows, Col: size.Cols})
				}), err)
			}
			if err != nil {
				fail("resize: %v", err)
			}
		case "quiet":
			for end := time.Now().Add(20 * time.Second); echoes(master); time.Sleep(time.Millisecond) {
				if time.Now().After(end) {
					fail("the terminal echoes what is typed")
				}
			}
		case "hidden":
			if echoes(master) {
				fail("the terminal echoes what is typed")
			}
		case "hangup":
			master.Close()
		default:
			fail("unknown line %q", line)
		}
	}
	late := time.AfterFunc(30*time.Second, func() { cmd.Process.Kill() })
	_ = cmd.Wait()
	if !late.Stop() {
		os.Stdout.Write(shown.all())
		fail("%s did not end", args[1])
	}
	// What the terminal still holds is shown; a descendant that lives on must not
	// keep it open.
	drained := make(chan struct{})
	go func() { wg.Wait(); close(drained) }()
	select {
	case <-drained:
	case <-time.After(5 * time.Second):
		fmt.Fprintln(os.Stderr, "term: something still holds the terminal")
	}
	os.Stdout.Write(shown.all())
	os.Exit(shellStatus(cmd.ProcessState))
}

// echoes says whether the terminal shows what is typed.
func echoes(master *os.File) (echo bool) {
	conn, err := master.SyscallConn()
	if err == nil {
		_ = conn.Control(func(fd uintptr) {
			t, err := unix.IoctlGetTermios(int(fd), unix.TCGETS)
			echo = err == nil && t.Lflag&unix.ECHO != 0
		})
	}
	return echo
}

// screen is what a terminal showed, in order.
type screen struct {
	mu      sync.Mutex
	buf     bytes.Buffer
	from    int // what was matched already
	done    bool
	changed chan struct{}
}

func (s *screen) read(master *os.File) {
	buf := make([]byte, 64<<10)
	for {
		n, err := master.Read(buf)
		s.mu.Lock()
		s.buf.Write(buf[:n])
		s.done = err != nil
		s.mu.Unlock()
		select {
		case s.changed <- struct{}{}:
		default:
		}
		if err != nil {
			return // EIO: nobody has the terminal open any more
		}
	}
}

func (s *screen) wait(re *regexp.Regexp) bool {
	late := time.After(20 * time.Second)
	for {
		s.mu.Lock()
		m := re.FindIndex(s.buf.Bytes()[s.from:])
		if m != nil {
			s.from += m[1]
		}
		done := s.done
		s.mu.Unlock()
		if m != nil {
			return true
		}
		if done {
			return false
		}
		select {
		case <-s.changed:
		case <-late:
			return false
		}
	}
}

func (s *screen) all() []byte {
	s.mu.Lock()
	defer s.mu.Unlock()
	return bytes.Clone(s.buf.Bytes())
}
