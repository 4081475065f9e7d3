package sandbox

import (
	"bytes"
	"encoding/gob"
	"errors"
	"fmt"
	"io"
	"os"
	"runtime"
	"strconv"
	"sync"
	"syscall"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// Names under which the executable runs itself again.
const (
	argInit  = "__init"
	argAgent = "__agent"
)

// Stage runs the stage that args asks for, if it asks for one, and returns its
// exit status. main calls it before anything else.
func Stage(args []string) (handled bool, code int) {
	if len(args) != 2 {
		return false, 0
	}
	switch args[1] {
	case argInit:
		return true, stage1()
	case argAgent:
		return true, stage2()
	}
	return false, 0
}

// initConfig is Config as stage 1 gets it: checked, with paths made canonical.
type initConfig struct {
	Agent agentConfig
	Plain bool // no namespaces: the tiers below Contained
	Hold  bool // say "prepared" and wait for "go" before the agent's process is started

	Writable, Hidden, ReadOnly []string
	Sockets                    []string // of the host, covered as Hidden is
	Files                      []File
	Same                       []int // by file: 1 + the index of an earlier one with the same content and mode; 0: none
	Home, HomeUpper            string
	HostPorts                  []int
	Unix                       []string
	Given                      []bool // which of the agent's descriptors 0 to 2 the caller gave
	TTY                        bool
	Rows, Cols                 uint16
	UID, GID                   int // the agent's, inside
}

// agentConfig is what stage 2 gets.
type agentConfig struct {
	Argv, Env  []string
	Dir        string
	NoZeroCopy bool
	NoCore     bool
	Reserved   bool // stage 1 and its threads have process ids up to reservedPids
	Probe      bool // try what there is, run no agent
	Open       bool // no restriction at all: the tiers below Restricted
	Notify     bool // hand over writes, by the socket at agentNotifyFD
	// Restrict asks for Landlock's file and network rules, for the restricted tier.
	Restrict *landlockRules
}

// failure is a step that did not work.
type failure struct {
	code int
	step string
	err  error
}

func failed(step string, err error) *failure { return &failure{125, step, err} }

func (f *failure) message() message {
	m := message{Op: "failed", Code: f.code, Step: f.step, Text: f.err.Error(), Lacks: errors.Is(f.err, errLacking)}
	var errno syscall.Errno
	if errors.As(f.err, &errno) {
		m.Errno = int(errno)
	}
	return m
}

// initFD is the control socket in stage 1; the three after it are the agent's
// standard streams, if it has no terminal.
const initFD = 3

// stage1 is process 1 of a session.
func stage1() int {
	// Nothing that the agent may do to this process is worth a core or a
	// ptrace. Signals from inside are ignored; SIGCHLD has to keep its default,
	// which reaps nothing by itself.
	unix.Prctl(unix.PR_SET_DUMPABLE, 0, 0, 0, 0)
	setSignals(1)
	for fd := initFD; fd <= initFD+3; fd++ {
		unix.CloseOnExec(fd)
	}
	w, err := wireOf(initFD)
	if err != nil {
		fmt.Fprintln(os.Stderr, "this is a part of guard run, not a command: "+err.Error())
		return 2
	}
	m, given, err := w.recv()
	if err != nil || m.Op != "start" || m.Config == nil || len(given) != len(m.FDs) {
		return 1
	}
	in := &inner{w: w, c: m.Config, notify: -1}
	trees := map[string]int{}
	for i, name := range m.FDs {
		trees[name] = given[i]
	}
	if fd, ok := trees[fdNotify]; ok {
		in.notify = fd
		delete(trees, fdNotify)
	}
	if in.c.Agent.Probe {
		in.probe()
		return 0
	}
	fds, f := in.prepare(trees)
	if f == nil && in.c.Hold {
		if w.send(message{Op: "prepared"}) != nil {
			return 1
		}
		if m, _, err := w.recv(); err != nil || m.Op != "go" {
			return 1
		}
	}
	if f == nil {
		f = in.startAgent()
	}
	if f != nil {
		w.send(f.message())
		return 1
	}
	m = message{Op: "started", FDs: in.names, Notes: in.notes}
	if err := w.send(m, fds...); err != nil {
		return 1
	}
	closeAll(fds)
	go in.reap()
	in.serve()
	return 0
}

// inner is stage 1's state.
type inner struct {
	w     *wire
	c     *initConfig
	tty   *tty
	tree  *tree // nil without namespaces
	agent int   // process id of the agent, and of its process group
	// notify is where stage 2 sends the filter's listener; -1: nowhere.
	notify int
	names  []string
	notes  []string
}

// prepare makes the tree, the network and the terminal. It returns what the
// caller gets.
func (in *inner) prepare(trees map[string]int) ([]int, *failure) {
	var fds []int
	give := func(name string, fd int) {
		in.names = append(in.names, name)
		fds = append(fds, fd)
	}
	if in.c.Plain {
		unix.Prctl(unix.PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
		if in.c.TTY {
			var err error
			if in.tty, err = openTTY(unix.AT_FDCWD, "/dev/ptmx", in.c.Rows, in.c.Cols); err != nil {
				return nil, failed("open a terminal", err)
			}
		}
	} else {
		type result struct {
			s   *sockets
			err error
		}
		done := make(chan result, 1)
		go func() {
			s, err := network(in.c.HostPorts)
			done <- result{s, err}
		}()
		t := &tree{c: in.c, given: trees}
		err := t.build()
		r := <-done
		if err != nil {
			return nil, failed("build the file tree", err)
		}
		if r.err != nil {
			return nil, failed("build the network", lacking(r.err))
		}
		in.tree, in.tty = t, t.tty
		in.notes = append(t.notes, r.s.notes...)
		for i, name := range r.s.names {
			give(name, r.s.fds[i])
		}
		for _, path := range in.c.Unix {
			fd, err := listenUnix(path)
			if err != nil {
				return nil, failed("listen on "+path+" inside", err)
			}
			give(unixPrefix+path, fd)
		}
		if err := keepUnix(in.c.Unix); err != nil {
			return nil, failed("keep the sockets inside", lacking(err))
		}
	}
	if in.tty != nil {
		give("pty", in.tty.master)
		if err := unix.IoctlSetInt(in.tty.slave, unix.TIOCSCTTY, 0); err != nil {
			return nil, failed("take the terminal", err)
		}
	}
	return fds, nil
}

// startAgent starts stage 2, and returns when the agent's program runs.
func (in *inner) startAgent() *failure {
	read, write, err := os.Pipe()
	if err != nil {
		return failed("make a pipe", err)
	}
	defer read.Close()
	cfgRead, cfgWrite, err := os.Pipe()
	if err != nil {
		write.Close()
		return failed("make a pipe", err)
	}
	attr := &syscall.ProcAttr{Env: []string{}, Sys: &syscall.SysProcAttr{Setpgid: true}}
	attr.Files = []uintptr{initFD + 1, initFD + 2, initFD + 3}
	if in.tty != nil {
		for i := range attr.Files {
			if i >= len(in.c.Given) || !in.c.Given[i] {
				attr.Files[i] = uintptr(in.tty.slave)
			}
		}
		attr.Sys.Foreground, attr.Sys.Ctty = true, in.tty.slave
	}
	attr.Files = append(attr.Files, cfgRead.Fd(), write.Fd())
	if in.notify >= 0 {
		attr.Files = append(attr.Files, uintptr(in.notify))
	}
	if !in.c.Plain {
		attr.Sys.Cloneflags = unix.CLONE_NEWUSER | unix.CLONE_NEWNS
		attr.Sys.UidMappings = []syscall.SysProcIDMap{{ContainerID: in.c.UID, HostID: 0, Size: 1}}
		attr.Sys.GidMappings = []syscall.SysProcIDMap{{ContainerID: in.c.GID, HostID: 0, Size: 1}}
		attr.Sys.AmbientCaps = []uintptr{unix.CAP_SETPCAP} // to empty the bounding set; given up there
	}
	if !in.c.Plain {
		in.c.Agent.Reserved = reservePids() == nil
	}
	in.agent, err = syscall.ForkExec("/proc/self/exe", []string{"guard", argAgent}, attr)
	cfgRead.Close()
	write.Close()
	closeAll([]int{initFD + 1, initFD + 2, initFD + 3})
	if in.notify >= 0 {
		unix.Close(in.notify) // else its other end would never see that nothing comes
	}
	if err != nil {
		cfgWrite.Close()
		return failed("start in a second user namespace", lackingNamespaces(err))
	}
	if in.tree != nil { // the agent's namespace is made, and the agent waits for its configuration
		if err := in.tree.store.keep(); err != nil {
			cfgWrite.Close()
			return failed("build the file tree", err)
		}
	}
	pipeErr := gob.NewEncoder(cfgWrite).Encode(in.c.Agent)
	cfgWrite.Close()
	status, err := io.ReadAll(read)
	if err != nil {
		return failed("start the agent", err)
	}
	if len(status) == 1 && status[0] == statusGo {
		return nil
	}
	if len(status) == 0 {
		if pipeErr == nil {
			pipeErr = errors.New("it ended before it ran")
		}
		return failed("start the agent", pipeErr)
	}
	_, said, _ := bytes.Cut(status, []byte{statusFailed})
	var m message
	if err := gob.NewDecoder(bytes.NewReader(said)).Decode(&m); err != nil {
		return failed("start the agent", err)
	}
	return &failure{m.Code, m.Step, m.err()}
}

// reservedPids are the process ids that the kernel does not give out again when
// it starts over (RESERVED_PIDS in kernel/pid.c).
const reservedPids = 300

// reservePids makes all process ids from now on higher than reservedPids, so
// that the system call filter can tell this process and its threads from the
// agent's by number. The threads that will be needed are made before.
func reservePids() error {
	const threads = 8
	var made, done sync.WaitGroup
	made.Add(threads)
	for range threads {
		done.Go(func() {
			runtime.LockOSThread()
			defer runtime.UnlockOSThread()
			made.Done()
			made.Wait()
		})
	}
	done.Wait()
	return os.WriteFile("/proc/sys/kernel/ns_last_pid", []byte(strconv.Itoa(reservedPids)), 0)
}

// stepError is an error that crossed a process boundary: its words, and the
// error number that is in them.
type stepError struct {
	text  string
	errno syscall.Errno
}

func (e *stepError) Error() string { return e.text }
func (e *stepError) Unwrap() error { return e.errno }

// reap waits for every process of the session, and ends the session with the
// agent: whatever else runs in it then is killed by the kernel.
func (in *inner) reap() {
	for {
		var ws unix.WaitStatus
		pid, err := unix.Wait4(-1, &ws, unix.WUNTRACED|unix.WCONTINUED, nil)
		if errors.Is(err, unix.EINTR) {
			continue
		}
		if err != nil {
			in.end(1)
		}
		if pid != in.agent {
			continue
		}
		switch {
		case ws.Stopped():
			in.w.send(message{Op: "stopped", Signal: int(ws.StopSignal())})
		case ws.Continued():
			in.w.send(message{Op: "continued"})
		case ws.Signaled():
			in.w.send(message{Op: "exited", Signal: int(ws.Signal()), Code: 128 + int(ws.Signal())})
			in.end(0)
		default:
			in.w.send(message{Op: "exited", Code: ws.ExitStatus()})
			in.end(0)
		}
	}
}

// end ends the session. In a pid namespace the kernel kills what is left.
func (in *inner) end(code int) {
	if in.c.Plain {
		killChildren()
	}
	os.Exit(code)
}

// killChildren kills what descends from this process. Orphans become children
// of this process, a subreaper, so that a few rounds find all of them.
func killChildren() {
	for range 1000 {
		pids := descendants(os.Getpid())
		if len(pids) == 0 {
			return
		}
		for _, pid := range pids {
			unix.Kill(pid, unix.SIGKILL)
		}
		for {
			if pid, err := unix.Wait4(-1, nil, unix.WNOHANG, nil); err != nil || pid <= 0 {
				break
			}
		}
		time.Sleep(time.Millisecond)
	}
}

// serve does what the caller asks for, until it is gone.
func (in *inner) serve() {
	for {
		m, fds, err := in.w.recv()
		closeAll(fds)
		if err != nil {
			in.end(1)
		}
		switch m.Op {
		case "signal":
			in.signal(unix.Signal(m.Signal))
		case "socket":
			fd, err := unix.Socket(m.Family, unix.SOCK_STREAM|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
			if err != nil {
				in.answer(m, err)
				continue
			}
			in.answer(m, nil, fd)
			unix.Close(fd)
		case "mask":
			err := error(unix.EINVAL)
			if in.tree != nil && m.Mask != nil {
				err = in.tree.store.mask(m.Mask)
			}
			in.answer(m, err)
		case "end":
			in.end(0)
		}
	}
}

func (in *inner) answer(to message, err error, fds ...int) {
	m := message{Op: "answer", ID: to.ID}
	if err != nil {
		m = failed(to.Op, err).message()
		m.Op, m.ID = "answer", to.ID
	}
	in.w.send(m, fds...)
}

// signal sends sig to the process group in the terminal's foreground, and to
// the agent's own where sig is meant to end or to continue it.
func (in *inner) signal(sig unix.Signal) {
	group := in.agent
	if in.tty != nil {
		if sig == unix.SIGCONT {
			unix.IoctlSetPointerInt(in.tty.slave, unix.TIOCSPGRP, in.agent)
		} else if g, err := unix.IoctlGetInt(in.tty.slave, unix.TIOCGPGRP); err == nil && g > 1 {
			group = g
		}
	}
	unix.Kill(-group, sig)
	if group != in.agent {
		switch sig {
		case unix.SIGKILL, unix.SIGTERM, unix.SIGHUP:
			unix.Kill(-in.agent, sig)
		}
	}
}

// setSignals sets the disposition of every signal that has one to how (0: the
// default, 1: ignored), except SIGCHLD, which gets its default. It goes around
// the runtime on purpose: os/signal cannot ignore all of them, and what is
// ignored would be so in the agent too.
func setSignals(how uint64) {
	for sig := uintptr(1); sig <= 64; sig++ {
		act := [8]uint64{how}
		if unix.Signal(sig) == unix.SIGCHLD {
			act[0] = 0
		}
		unix.RawSyscall6(unix.SYS_RT_SIGACTION, sig, uintptr(unsafe.Pointer(&act[0])), 0, 8, 0, 0)
	}
	runtime.KeepAlive(how)
}

// descendants lists the processes below pid, as /proc of this process has them.
func descendants(pid int) []int {
	var all []int
	todo := []int{pid}
	for len(todo) > 0 && len(all) < 1<<16 {
		p := todo[len(todo)-1]
		todo = todo[:len(todo)-1]
		for _, c := range children(p) {
			all = append(all, c)
			todo = append(todo, c)
		}
	}
	return all
}

func children(pid int) []int {
	dir := "/proc/" + strconv.Itoa(pid) + "/task"
	tasks, err := os.ReadDir(dir)
	if err != nil {
		return nil
	}
	var pids []int
	for _, t := range tasks {
		b, err := os.ReadFile(dir + "/" + t.Name() + "/children")
		if err != nil {
			continue
		}
		n := 0
		for _, c := range b {
			if c >= '0' && c <= '9' {
				n = n*10 + int(c-'0')
			} else if n > 0 {
				pids = append(pids, n)
				n = 0
			}
		}
	}
	return pids
}
