//go:build linux && (amd64 || arm64)

package notify

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"runtime"
	"sync"
	"syscall"
	"testing"
	"unsafe"

	"golang.org/x/net/bpf"
	"golang.org/x/sys/unix"
)

// The test binary is also the program whose writes are handed over: it loads a
// filter, sends the listener to the tests, and then runs a job, or a program.
const childEnv = "GUARD_NOTIFY_CHILD"

func TestMain(m *testing.M) {
	if os.Getenv(childEnv) != "" {
		child()
		return
	}
	if name := os.Getenv(jobEnv); name != "" {
		os.Exit(runJob(name, os.Args[1:]))
	}
	os.Exit(m.Run())
}

func fatal(what string, err error) {
	// Not by write, which may be what does not work.
	b := []byte(what + ": " + fmt.Sprint(err) + "\n")
	unix.Sendto(3, b, 0, nil)
	os.Exit(3)
}

// child loads the filter on its only useful thread, with the socket to the tests
// as descriptor 3, and executes its arguments.
func child() {
	runtime.LockOSThread()
	p := []bpf.Instruction{bpf.LoadAbsolute{Off: 0, Size: 4}}
	for _, nr := range []uint32{unix.SYS_WRITE, unix.SYS_PWRITE64, unix.SYS_WRITEV, unix.SYS_PWRITEV, unix.SYS_PWRITEV2, unix.SYS_SENDTO, unix.SYS_SENDMSG, unix.SYS_SENDMMSG} {
		p = append(p, bpf.JumpIf{Cond: bpf.JumpEqual, Val: nr, SkipFalse: 1}, bpf.RetConstant{Val: unix.SECCOMP_RET_USER_NOTIF})
	}
	if os.Getenv(childEnv) == "einval" {
		for _, nr := range []uint32{unix.SYS_SENDFILE, unix.SYS_SPLICE, unix.SYS_TEE, unix.SYS_VMSPLICE, unix.SYS_COPY_FILE_RANGE} {
			p = append(p, bpf.JumpIf{Cond: bpf.JumpEqual, Val: nr, SkipFalse: 1}, bpf.RetConstant{Val: unix.SECCOMP_RET_ERRNO | uint32(unix.EINVAL)})
		}
	}
	p = append(p, bpf.RetConstant{Val: unix.SECCOMP_RET_ALLOW})
	raw, err := bpf.Assemble(p)
	if err != nil {
		fatal("assemble", err)
	}
	f := make([]unix.SockFilter, len(raw))
	for i, r := range raw {
		f[i] = unix.SockFilter{Code: r.Op, Jt: r.Jt, Jf: r.Jf, K: r.K}
	}
	if err := unix.Prctl(unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0); err != nil {
		fatal("no_new_privs", err)
	}
	listener, sent, there := make(chan int), make(chan error), make(chan bool)
	go func() {
		runtime.LockOSThread()
		there <- true
		sent <- unix.Sendmsg(3, []byte{'!'}, unix.UnixRights(<-listener), nil, 0)
	}()
	<-there
	prog := unix.SockFprog{Len: uint16(len(f)), Filter: &f[0]}
	fd, _, errno := unix.Syscall(unix.SYS_SECCOMP, unix.SECCOMP_SET_MODE_FILTER,
		unix.SECCOMP_FILTER_FLAG_NEW_LISTENER|unix.SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV, uintptr(unsafe.Pointer(&prog)))
	if errno != 0 {
		fatal("seccomp", errno)
	}
	// By a thread that was there before the filter, and has none.
	listener <- int(fd)
	if err := <-sent; err != nil {
		fatal("send the listener", err)
	}
	unix.Close(int(fd))
	unix.CloseOnExec(3)
	os.Unsetenv(childEnv)
	env := os.Environ()
	args := os.Args[1:]
	path, err := exec.LookPath(args[0])
	if err != nil {
		fatal("find the program", err)
	}
	fatal("exec", syscall.Exec(path, args, env))
}

// session is a program whose writes are served.
type session struct {
	t      testing.TB
	cmd    *exec.Cmd
	server *Server
	cancel context.CancelFunc
	served chan error
	sock   int
	once   sync.Once
}

// supported skips only where the kernel is too old.
func supported(t testing.TB) {
	t.Helper()
	if err := Supported(); err != nil {
		var u unix.Utsname
		_ = unix.Uname(&u)
		var major, minor int
		fmt.Sscanf(unix.ByteSliceToString(u.Release[:]), "%d.%d", &major, &minor)
		if !errors.Is(err, ErrNotSupported) || major > 5 || major == 5 && minor >= 19 {
			t.Fatal(err)
		}
		t.Skip(err)
	}
}

// begin starts argv with its writes handed over to judge.
func begin(t testing.TB, o Options, zeroCopy bool, set func(*exec.Cmd), argv ...string) *session {
	t.Helper()
	supported(t)
	p, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	theirs := os.NewFile(uintptr(p[1]), "socket")
	cmd := exec.Command("/proc/self/exe", argv...)
	cmd.Env = append(os.Environ(), childEnv+"=yes")
	if !zeroCopy {
		cmd.Env = append(os.Environ(), childEnv+"=einval")
	}
	cmd.ExtraFiles = []*os.File{theirs}
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if set != nil {
		set(cmd)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	theirs.Close()
	s := &session{t: t, cmd: cmd, sock: p[0], served: make(chan error, 1)}
	var b [512]byte
	oob := make([]byte, unix.CmsgSpace(4))
	n, oobn, _, _, err := unix.Recvmsg(s.sock, b[:], oob, unix.MSG_CMSG_CLOEXEC)
	if err != nil || oobn == 0 {
		t.Fatalf("no listener: %s %v", b[:max(n, 0)], err)
	}
	cmsgs, _ := unix.ParseSocketControlMessage(oob[:oobn])
	fds, _ := unix.ParseUnixRights(&cmsgs[0])
	if s.server, err = New(os.NewFile(uintptr(fds[0]), "listener"), o); err != nil {
		t.Fatal(err)
	}
	var ctx context.Context
	ctx, s.cancel = context.WithCancel(context.Background())
	go func() { s.served <- s.server.Serve(ctx) }()
	t.Cleanup(func() { s.cmd.Process.Kill(); s.end() })
	return s
}

// end waits until the service is over, which it is when the last process is gone.
func (s *session) end() {
	s.once.Do(func() {
		s.cmd.Wait()
		s.cancel()
		if err := <-s.served; err != nil {
			s.t.Errorf("serve: %v", err)
		}
		unix.Close(s.sock)
	})
}

// run runs argv to its end and returns what it printed.
func run(t testing.TB, o Options, set func(*exec.Cmd), argv ...string) (string, error, map[string]Counters) {
	t.Helper()
	var out bytes.Buffer
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	s := begin(t, o, false, func(c *exec.Cmd) {
		c.Stdout, c.Stderr = w, w
		if set != nil {
			set(c)
		}
	}, argv...)
	w.Close()
	io.Copy(&out, r)
	r.Close()
	err = s.cmd.Wait()
	s.end()
	stats := map[string]Counters{}
	for ch, c := range s.server.Stats() {
		stats[string(ch)] = c
	}
	return out.String(), err, stats
}

// forbid refuses writes that hold one of the values, and keeps what it was shown.
func forbid(values ...[]byte) Options {
	return Options{Judge: func(w Write) Verdict {
		for _, v := range values {
			for at := 0; ; {
				i := bytes.Index(w.Bytes[at:], v)
				if i < 0 {
					break
				}
				if at += i; at < w.Till && at+len(v) > w.From {
					return Refuse
				}
				at++
			}
		}
		return Allow
	}}
}

// do runs one of the jobs.
func do(t testing.TB, o Options, stdin []byte, name string, args ...string) (string, error, map[string]Counters) {
	t.Helper()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	return run(t, o, func(c *exec.Cmd) {
		c.Stdin, c.Dir = bytes.NewReader(stdin), dir
		c.Env = append(c.Env, jobEnv+"="+name)
	}, append([]string{self}, args...)...)
}
