package main

import (
	"encoding/gob"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strconv"
	"sync"
	"syscall"

	"golang.org/x/sys/unix"

	"guard/bpf"
)

// From linux/nsfs.h.
const (
	nsGetUserNS   = 0xb701
	nsGetOwnerUID = 0xb704
)

// ownNamespace is the pid namespace of a process, if the calling user made it, and
// an open descriptor of it.
func ownNamespace(pid int) (uint64, *os.File, error) {
	f, err := os.Open("/proc/" + strconv.Itoa(pid) + "/ns/pid")
	if err != nil {
		return 0, nil, fmt.Errorf("find the session's pid namespace: %w", err)
	}
	fail := func(why string) (uint64, *os.File, error) {
		f.Close()
		return 0, nil, fmt.Errorf("the pid namespace of process %d is not this user's: %s", pid, why)
	}
	var st, own unix.Stat_t
	if unix.Fstat(int(f.Fd()), &st) != nil || unix.Stat("/proc/self/ns/pid", &own) != nil || st.Ino == own.Ino {
		return fail("it is the machine's")
	}
	user, err := unix.IoctlRetInt(int(f.Fd()), nsGetUserNS)
	if err != nil {
		return fail(err.Error())
	}
	defer unix.Close(user)
	owner, err := unix.IoctlGetUint32(user, nsGetOwnerUID)
	if err != nil {
		return fail(err.Error())
	}
	if int(owner) != os.Getuid() {
		return fail("user " + strconv.Itoa(int(owner)) + " made it")
	}
	return st.Ino, f, nil
}

// gainedRights says that this process has rights by its program's file that its
// user does not have.
func gainedRights() bool {
	const secure = 23 // AT_SECURE of linux/auxvec.h
	all, err := unix.Auxv()
	if err != nil {
		return os.Geteuid() != os.Getuid()
	}
	for _, v := range all {
		if v[0] == secure {
			return v[1] != 0 && os.Getuid() != 0
		}
	}
	return false
}

// rootsAlone says why somebody else than root could change a program.
func rootsAlone(path string) error {
	var st unix.Stat_t
	if err := unix.Stat(path, &st); err != nil {
		return fmt.Errorf("no helper for it is installed at %s: %w (make install-system installs it)", path, err)
	}
	if st.Uid != 0 || st.Mode&0o022 != 0 {
		return fmt.Errorf("%s could be changed by others than root", path)
	}
	return nil
}

// helper is a detector in another process.
type helper struct {
	cmd  *exec.Cmd
	conn *os.File
	enc  *gob.Encoder

	mu      sync.Mutex // one question at a time
	answers chan helperSays
	events  chan helperSays
	wg      sync.WaitGroup
}

// openHelper has the helper search what the pid namespace of process pid writes.
func openHelper(pid int, ns helperAsk) (detector, error) {
	h, err := startHelper()
	if err != nil {
		return detector{}, err
	}
	ns.Op, ns.PID = "open", pid
	if _, err := h.ask(ns); err != nil {
		return detector{}, errors.Join(err, h.close())
	}
	return detector{
		read: h.next,
		set: func(ns helperAsk) (uint64, error) {
			ns.Op = "set"
			s, err := h.ask(ns)
			return s.Generation, err
		},
		stop: func() (bpf.Stats, error) {
			s, err := h.ask(helperAsk{Op: "stop"})
			return s.Stats, err
		},
		close: h.close,
	}, nil
}

// helperRefuses says why the helper could not refuse writes.
func helperRefuses() error {
	h, err := startHelper()
	if err != nil {
		return err
	}
	_, err = h.ask(helperAsk{Op: "can"})
	return errors.Join(err, h.close())
}

func startHelper() (*helper, error) {
	path, err := helperPath()
	if err != nil {
		return nil, err
	}
	p, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("socketpair: %w", err)
	}
	theirs := os.NewFile(uintptr(p[1]), "helper")
	h := &helper{conn: os.NewFile(uintptr(p[0]), "helper"), answers: make(chan helperSays, 1), events: make(chan helperSays, 1024)}
	h.cmd = exec.Command(path, argHelper)
	h.cmd.Args[0] = "guard"
	h.cmd.Env = []string{}
	h.cmd.Stdin, h.cmd.Stdout = theirs, theirs
	h.cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	err = h.cmd.Start()
	theirs.Close()
	if err != nil {
		h.conn.Close()
		return nil, fmt.Errorf("start the helper: %w", err)
	}
	h.enc = gob.NewEncoder(h.conn)
	h.wg.Go(h.read)
	return h, nil
}

func (h *helper) read() {
	defer close(h.events)
	defer close(h.answers)
	dec := gob.NewDecoder(h.conn)
	for {
		var s helperSays
		if err := dec.Decode(&s); err != nil {
			return
		}
		switch s.Op {
		case "event", "end":
			h.events <- s
		default:
			h.answers <- s
		}
	}
}

func (h *helper) ask(a helperAsk) (helperSays, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if err := h.enc.Encode(a); err != nil {
		return helperSays{}, fmt.Errorf("the helper is gone: %w", err)
	}
	s, ok := <-h.answers
	switch {
	case !ok:
		return s, errors.New("the helper is gone")
	case s.Lacks:
		return s, fmt.Errorf("%w: %s", bpf.ErrNotSupported, s.Err)
	case s.Err != "":
		return s, errors.New(s.Err)
	}
	return s, nil
}

func (h *helper) next() (bpf.Event, error) {
	s, ok := <-h.events
	switch {
	case !ok:
		return bpf.Event{}, errors.New("the helper is gone")
	case s.Op == "end":
		return bpf.Event{}, os.ErrClosed
	case s.Err != "":
		return bpf.Event{}, errors.New(s.Err)
	}
	return s.Event, nil
}

func (h *helper) close() error {
	_ = unix.Shutdown(int(h.conn.Fd()), unix.SHUT_RDWR)
	for range h.events { // whoever reads has gone
	}
	h.wg.Wait()
	h.conn.Close()
	return h.cmd.Wait()
}
