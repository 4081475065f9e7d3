package sandbox

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"
)

// errNoIdmap: root must not fall back to a tier in which the agent is root.
var errNoIdmap = fmt.Errorf("idmapped mounts: %w", errors.ErrUnsupported)

// Start starts the agent and returns when its program runs. The error is a
// *StartError, whose Code is an exit status. ctx bounds the start only.
//
// With Boundary "auto" (or "") the strongest tier that works here is used, and
// Notes says what was lost; an explicit one works or fails.
func Start(ctx context.Context, c Config) (*Sandbox, error) {
	tiers := []Tier{Contained, Restricted, Cooperative}
	switch c.Boundary {
	case "", "auto":
	case "namespace":
		tiers = tiers[:1]
	case "landlock":
		tiers = tiers[1:2]
	case "proxy":
		tiers = tiers[2:]
	case "none":
		tiers = []Tier{None}
	default:
		return nil, &StartError{125, "start the sandbox", fmt.Errorf("unknown boundary %q: want auto, namespace, landlock, proxy or none", c.Boundary)}
	}
	var notes []string
	var last error
	for _, t := range tiers {
		s, err := start(ctx, c, t)
		if err == nil {
			s.Notes = append(notes, s.Notes...)
			return s, nil
		}
		last = err
		if ctx.Err() != nil || !Unavailable(err) {
			return nil, err
		}
		notes = append(notes, lost(t)+": "+err.Error())
	}
	return nil, last
}

// Unavailable says that err proves that this machine lacks what a tier needs, so
// that a weaker one may be tried. Whatever else went wrong (the configuration,
// the program, a full disk, a file in the project that cannot be covered) is an
// error in every tier.
func Unavailable(err error) bool {
	return errors.Is(err, errLacking) && !errors.Is(err, errNoIdmap)
}

// errLacking marks what a machine does not have.
var errLacking = errors.New("this machine lacks it")

type lackError struct{ error }

func (lackError) Is(target error) bool { return target == errLacking }
func (e lackError) Unwrap() error      { return e.error }

// lacking marks err if it is an answer that a kernel without a feature gives,
// or one that may not be used.
func lacking(err error) error {
	for _, e := range []error{
		unix.ENOSYS, unix.EPERM, unix.EACCES, unix.EINVAL, unix.ENODEV, unix.EOPNOTSUPP, unix.EAFNOSUPPORT, unix.EPROTONOSUPPORT, unix.ESOCKTNOSUPPORT,
		unix.ENOPROTOOPT, errors.ErrUnsupported,
	} {
		if errors.Is(err, e) {
			return lackError{err}
		}
	}
	return err
}

// lackingNamespaces is lacking for the calls that make namespaces, whose limits
// are how administrators turn them off.
func lackingNamespaces(err error) error {
	if errors.Is(err, unix.ENOSPC) || errors.Is(err, unix.EUSERS) {
		return lackError{err}
	}
	return lacking(err)
}

// lost says what the tiers below t do not do.
func lost(t Tier) string {
	if t == Contained {
		return "no namespaces here, so the agent sees the host's processes and network, and files cannot be replaced by copies without secrets"
	}
	return "no Landlock here either, so the agent could read any file and socket of this user, the keyring included, and connect anywhere"
}

func start(ctx context.Context, c Config, tier Tier) (_ *Sandbox, err error) {
	fail := func(op string, err error) (*Sandbox, error) { return nil, &StartError{125, op, err} }
	if err := ctx.Err(); err != nil {
		return fail("start the sandbox", err)
	}
	root := os.Geteuid() == 0
	uid, gid := os.Geteuid(), os.Getegid()
	if tier == Contained && root {
		uid, gid = agentUID(), agentUID()
	}
	p, notes, err := plan(c, uid, gid)
	if err != nil {
		return fail("start the sandbox", err)
	}
	s := &session{tier: tier}
	defer func() {
		if err != nil {
			s.release()
		}
	}()
	switch tier {
	case Contained:
		if p.HomeUpper != "" {
			if note, err := s.takeUpper(&p); err != nil {
				return fail("keep changes to "+p.Home, err)
			} else if note != "" {
				notes = append(notes, note)
			}
		}
	default:
		p.Plain = true
		p.Agent.Open = tier != Restricted
		if tier == Restricted {
			if p.Agent.Restrict, err = restriction(c, p, &notes); err != nil {
				return fail("restrict with Landlock", err)
			}
		}
	}
	if err := s.spawn(&p, c, root); err != nil {
		return fail("start in namespaces", err)
	}
	var before chan error
	if c.Before != nil {
		// Beside stage 1, which waits for it before it starts anything.
		p.Hold = true
		before = make(chan error, 1)
		go func() { before <- c.Before(s.pid, tier == Contained) }()
		defer func() {
			if before != nil {
				err = errors.Join(err, <-before)
			}
		}()
	}
	var names []string
	var fds []int
	if tier == Contained && root {
		if names, fds, err = trees(s.pid, &p); err != nil {
			return fail("share folders", err)
		}
	}
	p.dedupe()
	var hand *handover
	if c.Notify != nil && p.Agent.Open {
		notes = append(notes, "writes to files and pipes are not judged before they are done: this tier has no system call filter")
	} else if c.Notify != nil {
		var peer int
		if hand, peer, err = newHandover(c.Notify, uid, gid); err != nil {
			closeAll(fds)
			return fail("hand over writes", err)
		}
		names, fds = append(names, fdNotify), append(fds, peer)
		p.Agent.Notify = true
	}
	err = s.wire.send(message{Op: "start", Config: &p, FDs: names}, fds...)
	closeAll(fds)
	defer func() {
		if err != nil {
			_ = hand.end(true)
		}
	}()
	if err != nil {
		return fail("configure the sandbox", s.death(err))
	}
	stop := context.AfterFunc(ctx, func() { s.wire.close() })
	m, fds, err := s.wire.recv()
	if err == nil && m.Op == "prepared" {
		berr := <-before
		before = nil
		if berr != nil {
			stop()
			return fail("search in the kernel", berr)
		}
		if err = s.wire.send(message{Op: "go"}); err == nil {
			m, fds, err = s.wire.recv()
		}
	}
	if !stop() {
		closeAll(fds)
		return fail("start the sandbox", ctx.Err())
	}
	if err != nil {
		return fail("start the sandbox", s.death(err))
	}
	if m.Op == "failed" {
		closeAll(fds)
		err = m.err()
		return nil, &StartError{m.Code, m.Step, err}
	}
	sb := &Sandbox{Tier: tier, Notes: append(notes, m.Notes...), s: s}
	if err = sb.adopt(m.FDs, fds); err != nil {
		return fail("take over the sandbox's sockets", err)
	}
	if err = hand.end(false); err != nil {
		return fail("hand over writes", err)
	}
	if s.agent, err = s.findAgent(); err != nil {
		return fail("find the agent", err)
	}
	s.run()
	return sb, nil
}

// restriction makes the Landlock rules of the restricted tier.
func restriction(c Config, p initConfig, notes *[]string) (*landlockRules, error) {
	r := &landlockRules{Hidden: p.Hidden}
	if c.ProxyAddr != "" {
		_, port, err := net.SplitHostPort(c.ProxyAddr)
		if err == nil {
			r.Port, err = strconv.Atoi(port)
		}
		if err != nil || r.Port < 1 || r.Port > 65535 {
			return nil, fmt.Errorf("proxy address %q is not HOST:PORT", c.ProxyAddr)
		}
	}
	for _, f := range p.Files { // what cannot be replaced is hidden, except what everybody may read
		if !within(f.Path, "/etc") && !within(f.Path, "/run") {
			r.Hidden = append(r.Hidden, f.Path)
		}
	}
	r.Hidden = append(r.Hidden, p.readOnlyInside()...)
	r.Writable = append(r.Writable, p.Writable...)
	for _, d := range []string{"/tmp", "/var/tmp", "/dev"} {
		r.Writable = append(r.Writable, d)
	}
	for _, h := range r.Hidden {
		for _, w := range p.Writable {
			if h != w && within(h, w) {
				*notes = append(*notes, fmt.Sprintf("%s is hidden in %s, so the agent cannot make new files directly in %s", h, w, filepath.Dir(h)))
			}
		}
	}
	*notes = append(*notes,
		"Unix sockets and UDP are off: without namespaces they cannot be told apart from ways out",
		fmt.Sprintf("Landlock ABI %d", landlockABI()))
	return r, nil
}

// readOnlyInside is what would have to be read-only in a writable
// folder: Landlock cannot take a right away below one, so that it is hidden.
func (p initConfig) readOnlyInside() []string {
	var all []string
	for _, r := range p.ReadOnly {
		for _, w := range p.Writable {
			if within(r, w) {
				all = append(all, r)
			}
		}
	}
	return all
}

// takeUpper makes the two folders of the overlay's upper layer and locks them
// for this session: one overlay at a time.
func (s *session) takeUpper(p *initConfig) (note string, err error) {
	s.lock, err = os.OpenFile(filepath.Join(p.HomeUpper, "lock"), os.O_CREATE|os.O_RDWR|unix.O_CLOEXEC, 0o600)
	if err != nil {
		return "", err
	}
	if err := unix.Flock(int(s.lock.Fd()), unix.LOCK_EX|unix.LOCK_NB); errors.Is(err, unix.EWOULDBLOCK) {
		p.HomeUpper = ""
		return "another session of this context is running, so changes to " + p.Home + " in this one are not kept", nil
	} else if err != nil {
		return "", err
	}
	for _, d := range []string{"upper", "work"} {
		if err := os.Mkdir(filepath.Join(p.HomeUpper, d), 0o700); err != nil && !errors.Is(err, os.ErrExist) {
			return "", err
		}
	}
	return "", nil
}

// spawn starts stage 1.
func (s *session) spawn(p *initConfig, c Config, root bool) error {
	w, peer, err := socketpair()
	if err != nil {
		return err
	}
	s.wire = w
	defer peer.Close()
	null, err := os.OpenFile(os.DevNull, os.O_RDWR, 0)
	if err != nil {
		return err
	}
	defer null.Close()
	words, err := unix.MemfdCreate("stage1", unix.MFD_CLOEXEC)
	if err != nil {
		return fmt.Errorf("memfd: %w", err)
	}
	s.words = os.NewFile(uintptr(words), "stage1")
	files := []*os.File{null, null, s.words, peer}
	for _, f := range []*os.File{c.Stdin, c.Stdout, c.Stderr} {
		p.Given = append(p.Given, f != nil)
		if f == nil {
			f = null
		}
		files = append(files, f)
	}
	attr := &os.ProcAttr{Env: []string{}, Files: files, Sys: &syscall.SysProcAttr{Setsid: true}}
	if !p.Plain {
		attr.Dir = "/"
		attr.Sys.Cloneflags = unix.CLONE_NEWUSER | unix.CLONE_NEWNS | unix.CLONE_NEWPID | unix.CLONE_NEWIPC | unix.CLONE_NEWNET | unix.CLONE_NEWUTS | unix.CLONE_NEWCGROUP
		host, group := os.Geteuid(), os.Getegid()
		if root {
			host, group = p.UID, p.GID
			// Become the user that 0 stands for, and leave root's groups.
			attr.Sys.Credential = &syscall.Credential{Uid: 0, Gid: 0}
			attr.Sys.GidMappingsEnableSetgroups = true
		}
		attr.Sys.UidMappings = []syscall.SysProcIDMap{{ContainerID: 0, HostID: host, Size: 1}}
		attr.Sys.GidMappings = []syscall.SysProcIDMap{{ContainerID: 0, HostID: group, Size: 1}}
	}
	proc, err := startProcess(attr)
	if err != nil {
		return lackingNamespaces(err)
	}
	s.proc, s.pid = proc, proc.Pid
	return nil
}

// startProcess starts this program again. A process that is undumpable (Harden)
// cannot do that: its own /proc is root's then, and so the child's where its ids are
// mapped. So it is dumpable until the child has its namespaces, some milliseconds,
// in which what guards it from an agent is that the agent is in another pid namespace,
// or held back by Landlock. Whoever hardened itself starts one sandbox at a time.
func startProcess(attr *os.ProcAttr) (*os.Process, error) {
	if d, err := unix.PrctlRetInt(unix.PR_GET_DUMPABLE, 0, 0, 0, 0); err == nil && d == 0 && os.Geteuid() != 0 {
		if err := unix.Prctl(unix.PR_SET_DUMPABLE, 1, 0, 0, 0); err != nil {
			return nil, err
		}
		proc, err := os.StartProcess("/proc/self/exe", []string{"guard", argInit}, attr)
		if herr := Harden(); herr != nil {
			if err == nil {
				_ = proc.Kill()
				_, _ = proc.Wait()
			}
			return nil, fmt.Errorf("make guard undumpable again: %w", herr)
		}
		return proc, err
	}
	return os.StartProcess("/proc/self/exe", []string{"guard", argInit}, attr)
}

// death says why stage 1 ended: by what it printed, if it did.
func (s *session) death(err error) error {
	b := make([]byte, 2048)
	n, _ := s.words.ReadAt(b, 0)
	if said := strings.TrimSpace(string(b[:n])); said != "" {
		return fmt.Errorf("%w: %s", err, said)
	}
	return err
}
