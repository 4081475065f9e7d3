package main

import (
	"cmp"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"

	"guard"
	"guard/bpf"
	"guard/supervisor"
	"guard/supervisor/notify"
)

// kernelPower is what a session has the kernel do about values in writes.
type kernelPower uint8

const (
	kernelOff kernelPower = iota
	kernelDetect
	kernelBlock
)

// kernelPlan is what --bpf and --on-leak come to on this machine.
type kernelPlan struct {
	power    kernelPower
	required bool   // the user asked for it by name: without it there is no session
	helper   bool   // by the helper: this process may not
	writes   bool   // guard does writes to files and pipes itself
	lacks    string // why the kernel does not refuse
	words    string // what the session has and why, for -v
	prepared *prepared
}

// prepared are programs that the kernel takes, or has taken, for the session's first start.
type prepared struct {
	done chan struct{}
	p    *bpf.Prepared
	err  error
}

// prepareKernel has the kernel take the programs of a session that is most likely to detect, while the
// vault is opened and the policy read: nobody waits for it then.
func (s *session) prepareKernel() {
	if (s.flags.bpf == "auto" && s.flags.onLeak == "" || s.flags.bpf == "detect") && kernelLacks() == "" {
		s.inKernel.prepared = s.prepare(bpf.Options{})
	}
}

// detects is what was prepared to detect.
func (s *session) detects() *prepared {
	if s.inKernel.prepared == nil {
		return s.prepare(bpf.Options{})
	}
	return s.inKernel.prepared
}

// prepare has the kernel take them meanwhile.
func (s *session) prepare(o bpf.Options) *prepared {
	o.Types = filepath.Join(s.app.home(), "kernel-types")
	r := &prepared{done: make(chan struct{})}
	go func() {
		defer close(r.done)
		r.p, r.err = bpf.Prepare(o)
	}()
	// What no start used is given back; and nothing runs on once the session is over.
	s.closers = append(s.closers, func() {
		<-r.done
		if r.p != nil {
			if err := r.p.Close(); err != nil {
				s.app.say("what the kernel was prepared with could not be taken back: %v", err)
			}
		}
	})
	return r
}

// take returns what was prepared, once; nil after that.
func (r *prepared) take() (*bpf.Prepared, error) {
	if r == nil {
		return nil, nil
	}
	<-r.done
	p := r.p
	r.p = nil
	return p, r.err
}

// asksToRefuse says that policy would stop a value in a write to a file: the
// user said so by --on-leak, or the project by guard.toml.
func (s *session) asksToRefuse() bool {
	return s.policy.Leak(guard.Leak{Origin: guard.Origin{Channel: guard.ChannelFile}, Class: guard.Live}).Action.Stops()
}

// planKernel decides what this session asks of the kernel: the strongest that
// --bpf names and this machine has. Where a write is to be refused and BPF LSM is
// missing, guard does the writes itself (package notify), if it may.
func (s *session) planKernel() (kernelPlan, error) {
	refuse := s.flags.bpf == "block" || s.asksToRefuse()
	p, err := s.planBPF(refuse)
	if err != nil || !refuse || p.power == kernelBlock {
		return p, err
	}
	if s.flags.bpfStrict {
		return p, fmt.Errorf("--bpf-strict: %s", p.lacks)
	}
	err = notify.Supported()
	if err == nil && (s.flags.boundary == "proxy" || s.flags.boundary == "none") {
		err = fmt.Errorf("the boundary %s has no system call filter", s.flags.boundary)
	}
	switch {
	case err == nil:
		p.writes = true
	case s.flags.bpf == "block":
		return p, fmt.Errorf("--bpf block: %s; and %w", p.lacks, err)
	default:
		s.app.say("a value in a write to a file cannot be refused here, and is found after the fact: %v; %v", p.lacks, err)
	}
	return p, nil
}

// planBPF is the part of the plan that is package bpf's.
func (s *session) planBPF(refuse bool) (kernelPlan, error) {
	why := kernelLacks()
	p, err := s.planDetector(refuse, why)
	if why == "" || s.flags.bpf == "off" {
		return p, err
	}
	// The helper has the rights that this process lacks. It watches namespaces.
	path, herr := helperPath()
	switch {
	case herr == nil && (s.flags.boundary == "auto" || s.flags.boundary == "namespace"):
		p := kernelPlan{power: kernelDetect, helper: true, required: s.flags.bpf == "detect", words: detectWords + ", by " + path}
		if refuse && s.flags.bpf != "detect" {
			if err := helperRefuses(); err == nil {
				p.power, p.required, p.words = kernelBlock, true, s.blockWords()+", by "+path
			} else {
				p.lacks = "the helper cannot refuse: " + err.Error()
			}
		}
		return p, nil
	case err != nil && herr != nil:
		err = fmt.Errorf("%w; %w", err, herr)
	}
	return p, err
}

func (s *session) planDetector(refuse bool, why string) (kernelPlan, error) {
	switch {
	case s.flags.bpf == "off":
		return kernelPlan{lacks: "--bpf off", words: "kernel: off, as --bpf says: what nobody judges is not searched"}, nil
	case s.flags.bpf == "detect" && why != "":
		return kernelPlan{}, fmt.Errorf("--bpf detect: %s", why)
	case why != "":
		return kernelPlan{lacks: why, words: "kernel: off, " + why}, nil
	case s.flags.bpf == "detect":
		return kernelPlan{power: kernelDetect, required: true, lacks: "--bpf detect", words: detectWords, prepared: s.detects()}, nil
	case !refuse:
		return kernelPlan{power: kernelDetect, words: detectWords, prepared: s.detects()}, nil
	}
	// Whether the kernel refuses is found out by trying.
	ready := s.prepare(s.refuseOptions())
	<-ready.done
	switch {
	case ready.err == nil:
		return kernelPlan{power: kernelBlock, required: true, words: s.blockWords(), prepared: ready}, nil
	case !errors.Is(ready.err, bpf.ErrNotSupported):
		return kernelPlan{}, ready.err
	}
	return kernelPlan{power: kernelDetect, lacks: ready.err.Error(), words: detectWords + ". It cannot refuse: " + ready.err.Error(), prepared: s.detects()}, nil
}

// refuseOptions are those of a detector that refuses.
func (s *session) refuseOptions() bpf.Options {
	return bpf.Options{Refuse: true, Strict: s.flags.bpfStrict}
}

// kernelWords says what a session that runs has.
func (s *session) kernelWords(k *kernel) string {
	words := s.inKernel.words
	if k != nil {
		k.mu.Lock()
		if !k.open {
			words = "kernel: off, it could not be started"
		}
		k.mu.Unlock()
	}
	if s.inKernel.writes {
		words = "writes: block. guard does the session's writes to files and pipes itself, after it judged them (seccomp); " + words
	}
	return words
}

// writes is what the supervisor is told of them; nil: nothing.
func (s *session) writes() *supervisor.Writes {
	if !s.inKernel.writes {
		return nil
	}
	return &supervisor.Writes{
		// --bpf block means that a write fails, unless --on-leak says how it goes on.
		Refuse: s.flags.bpf == "block" && s.flags.onLeak == "",
		Done: func(st map[guard.Channel]notify.Counters) {
			s.recordCoverage(supervisor.SourceWrites, writesCoverage(st))
		},
	}
}

const blockWords = "kernel: block. What holds a known value fails with EPERM before a byte is out"

func (s *session) blockWords() string {
	if s.flags.bpfStrict {
		return blockWords + "; and so does what cannot be searched whole"
	}
	return blockWords
}

const detectWords = "kernel: detect. Values in what the session's processes write are found and reported (BPF tracepoint), not stopped"

// kernel is bpf's detector as the supervisor's Kernel, for one start of a
// session.
type kernel struct {
	s     *session
	power kernelPower
	must  bool

	mu     sync.Mutex // guards what follows, and needles while they change
	open   bool
	d      detector
	owners map[uint64][]owner // by generation
	group  string             // cgroup that was made, where there is no pid namespace
	closed bool
}

// detector is one of package bpf's, in this process or in the helper's.
type detector struct {
	read  func() (bpf.Event, error)
	set   func(helperAsk) (generation uint64, err error)
	stop  func() (bpf.Stats, error)
	close func() error
}

// openDetector is the one in this process: of what was prepared, where there is a namespace.
func openDetector(o bpf.Options, ready *prepared, ns helperAsk) (detector, error) {
	needles, err := ns.needles()
	if err != nil {
		return detector{}, err
	}
	var p *bpf.Prepared
	if o.PIDNamespace != 0 {
		if p, err = ready.take(); err != nil {
			return detector{}, err
		}
	}
	var d *bpf.Detector
	if p != nil {
		d, err = p.Watch(o.PIDNamespace, needles)
	} else {
		o.Needles = needles
		d, err = bpf.OpenDetector(o)
	}
	if err != nil {
		return detector{}, err
	}
	return detector{
		read: d.Read,
		set: func(ns helperAsk) (uint64, error) {
			needles, err := ns.needles()
			if err != nil {
				return 0, err
			}
			return d.SetNeedles(needles)
		},
		stop: func() (bpf.Stats, error) {
			err := d.Stop()
			st, serr := d.Stats()
			return st, errors.Join(err, serr)
		},
		close: d.Close,
	}, nil
}

// owner is what a needle stands for.
type owner struct {
	id       guard.SecretID
	class    guard.Class
	encoding string

	// A monitor's only: another user's guard registered it.
	of     *registrant
	handle uint32
	whole  bool // its hash is of all its bytes
}

// openKernel is nil where the kernel is asked for nothing.
func (s *session) openKernel(p kernelPlan) *kernel {
	if p.power == kernelOff {
		return nil
	}
	return &kernel{s: s, power: p.power, must: p.required, owners: map[uint64][]owner{}}
}

// needles are what the kernel can look for. short counts encodings that are too
// short for it, more those for which there is no room. The bytes are the caller's
// to overwrite.
func (k *kernel) needles() (ns helperAsk, owners []owner, short, more int) {
	room := bpf.Room()
	for _, n := range k.s.matcher.Needles() {
		switch {
		case n.Bytes.Len() < bpf.MinNeedle, n.Bytes.Len() < bpf.FastNeedle && n.Encoding != "raw":
			// One such needle makes the search of everything slower: only a value that
			// is short itself is worth it.
			short++
		case len(ns.IDs) == room:
			more++
		default:
			if o := (owner{id: n.ID, class: n.Class, encoding: n.Encoding}); len(owners) == 0 || owners[len(owners)-1] != o {
				owners = append(owners, o)
			}
			ns.IDs = append(ns.IDs, uint32(len(owners)-1))
			ns.Lengths = append(ns.Lengths, n.Bytes.Len())
			grown := n.Append(ns.Bytes)
			if cap(grown) != cap(ns.Bytes) {
				clear(ns.Bytes)
			}
			ns.Bytes = grown
		}
		n.Bytes.Wipe()
	}
	return ns, owners, short, more
}

// Attach starts the search, before the session's first process has started
// anything.
func (k *kernel) Attach(pid int, own bool) error {
	k.mu.Lock()
	defer k.mu.Unlock()
	var o bpf.Options
	if k.power == kernelBlock {
		o = k.s.refuseOptions()
	}
	var err error
	if own {
		o.PIDNamespace, err = pidNamespace(pid)
	} else if k.group, err = sessionCgroup(pid, k.s.info.ID); err == nil {
		o.Cgroup, err = bpf.CgroupID(k.group)
	}
	if err == nil {
		ns, owners, short, more := k.needles()
		if k.s.inKernel.helper {
			ns.Refuse, ns.Strict = o.Refuse, o.Strict
			k.d, err = openHelper(pid, ns)
		} else {
			k.d, err = openDetector(o, k.s.inKernel.prepared, ns)
		}
		clear(ns.Bytes)
		k.owners[1], k.open = owners, err == nil
		if more > 0 {
			k.s.app.say("the kernel looks for the first %d encodings of values; %d more do not fit", bpf.Room(), more)
		}
		if short > 0 && k.s.flags.verbose {
			k.s.app.say("%d encodings are shorter than the %d bytes that the kernel looks for, and are looked for everywhere else", short, bpf.FastNeedle)
		}
	}
	if err != nil && k.must {
		return err
	}
	if err != nil {
		k.s.app.say("writes are not searched in the kernel: %v", err)
		k.closed = true
	}
	return nil
}

// update takes over values that were added during the session. Every write that
// begins after it returned is searched for them.
func (k *kernel) update() error {
	k.mu.Lock()
	defer k.mu.Unlock()
	if !k.open || k.closed {
		return nil
	}
	ns, owners, _, more := k.needles()
	generation, err := k.d.set(ns)
	clear(ns.Bytes)
	if errors.Is(err, os.ErrClosed) {
		return nil
	}
	if err != nil {
		return err
	}
	k.owners[generation] = owners
	if more > 0 {
		return fmt.Errorf("%d encodings do not fit", more)
	}
	return nil
}

// Read waits for the next find.
func (k *kernel) Read() (supervisor.Find, error) {
	k.mu.Lock()
	d, open := k.d, k.open
	k.mu.Unlock()
	if !open {
		return supervisor.Find{}, os.ErrClosed
	}
	e, err := d.read()
	for err == nil && e.Kind != bpf.Leak {
		e, err = d.read()
	}
	if err != nil {
		return supervisor.Find{}, err
	}
	k.mu.Lock()
	owners := k.owners[e.Generation]
	k.mu.Unlock()
	f := supervisor.Find{
		Leak: guard.Leak{
			Origin: guard.Origin{Channel: e.Channel, PID: e.PID, Exe: cmp.Or(e.Exe, e.Comm), Method: e.Syscall, Path: e.Path},
			Offset: e.Offset, Length: e.Length, At: e.At,
		},
		Refused: e.Refused, TID: e.TID, Call: e.Call, FD: e.FD, Device: e.Device, Inode: e.Inode, Peer: e.Peer,
	}
	if int(e.Needle) >= len(owners) {
		return f, fmt.Errorf("the kernel found needle %d of %d", e.Needle, len(owners))
	}
	if f.Path == "" && e.FD >= 0 {
		f.Path = e.Name // what is left of it, where the process is gone
	}
	o := owners[e.Needle]
	f.Secret, f.Class, f.Encoding = o.id, o.class, o.encoding
	return f, nil
}

// Stop ends the search, and writes down what it covered.
func (k *kernel) Stop() error {
	k.mu.Lock()
	d, skip := k.d, k.closed || !k.open
	k.closed = true
	k.mu.Unlock()
	if skip {
		return nil
	}
	st, err := d.stop()
	if err == nil {
		k.s.recordCoverage(supervisor.SourceKernel, bpfCoverage(st))
	}
	return err
}

// close frees what the kernel holds.
func (k *kernel) close() {
	if k == nil {
		return
	}
	k.mu.Lock()
	d, open := k.d, k.open
	k.mu.Unlock()
	if open {
		if err := d.close(); err != nil {
			k.s.app.say("the search in the kernel did not end cleanly: %v", err)
		}
	}
	if k.group != "" {
		removeCgroup(k.group)
	}
}

// cgroup2 is where the v2 hierarchy is mounted, alone or beside v1.
func cgroup2() (string, error) {
	b, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		return "", err
	}
	for line := range strings.Lines(string(b)) {
		fields, kind, ok := strings.Cut(line, " - ")
		f := strings.Fields(fields)
		if ok && len(f) > 4 && strings.HasPrefix(kind, "cgroup2 ") {
			return f[4], nil
		}
	}
	return "", errors.New("there is no cgroup v2 hierarchy, by which a session without namespaces could be told apart")
}

// sessionCgroup makes a cgroup and puts process pid into it.
func sessionCgroup(pid int, session string) (string, error) {
	root, err := cgroup2()
	if err != nil {
		return "", err
	}
	dir := filepath.Join(root, "guard-"+session)
	if err := os.Mkdir(dir, 0o755); err != nil {
		return "", fmt.Errorf("make a cgroup for the session: %w", err)
	}
	if err := os.WriteFile(filepath.Join(dir, "cgroup.procs"), fmt.Append(nil, pid), 0); err != nil {
		os.Remove(dir)
		return "", fmt.Errorf("put the session into its cgroup: %w", err)
	}
	return dir, nil
}

// removeCgroup removes the session's cgroup and what the session made below it.
// What still has a process in it stays.
func removeCgroup(dir string) {
	entries, _ := os.ReadDir(dir)
	for _, e := range entries {
		if e.IsDir() {
			removeCgroup(filepath.Join(dir, e.Name()))
		}
	}
	os.Remove(dir)
}

var _ supervisor.Kernel = (*kernel)(nil)
