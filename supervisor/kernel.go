package supervisor

import (
	"errors"
	"fmt"
	"net/netip"
	"os"
	"strconv"
	"strings"
	"sync"
	"time"

	"guard"
	"guard/supervisor/sandbox"
)

// SourceKernel is Origin.Source of what the kernel found.
const SourceKernel = "bpf"

// Origin.Source of those that a find may be left to.
const (
	sourceFiles  = "files"
	sourceBroker = "broker"
)

// Rules of decisions about what the kernel found and did not refuse.
const (
	// RuleInside: the bytes went from one process of the session to another, or to
	// memory or a file that nothing outside of the session reads. They may yet
	// leave, by a way that another source judges.
	RuleInside = "seen in the kernel, inside the session"
	// RuleSeen: the bytes went where nobody judges them.
	RuleSeen = "seen in the kernel, not stopped"
	// RuleRefused: the write failed with EPERM before a byte of it was out.
	RuleRefused = "refused in the kernel"
)

// Kernel finds known values in what a session's processes write, from inside
// the kernel. Main makes it: package bpf, or a helper that has the privileges.
type Kernel interface {
	// Attach starts the search. pid is the session's first process, before it
	// has started anything; own says that it has a pid namespace to itself.
	Attach(pid int, own bool) error
	// Read waits for the next find. It returns os.ErrClosed after Stop, once all
	// were read, and at once if Attach found that there is nothing to search with.
	Read() (Find, error)
	// Stop ends the search.
	Stop() error
}

// Find is a known value in bytes that a process is about to write.
type Find struct {
	guard.Leak        // with Channel, PID and, where it is known, Exe
	Refused    bool   // the call failed, and no byte is out
	TID        int    // the thread
	Call       uint64 // the finds of one call of a thread have it in common
	FD         int    // of the process; -1: none
	Device     uint64 // st_dev of what FD is, as the kernel numbers it (major<<20 | minor)
	Inode      uint64 // likewise; of the folder, where a name is what was found
	Peer       netip.AddrPort
}

// Channels of finds that are not among the shared words.
const (
	channelName    guard.Channel = "name"    // a file's
	channelLink    guard.Channel = "link"    // a symbolic link's target
	channelXattr   guard.Channel = "xattr"   // an extended attribute
	channelBacking guard.Channel = "backing" // what an overlay writes below it, after the same bytes
)

// patience is how long a find waits for the source that judges the same bytes
// before it counts by itself.
const patience = 2 * time.Second

// watcher takes the kernel's finds to the leak line. What another source judges
// is left to it, so that nothing counts twice, or as escaped before it was
// redacted:
//
//   - the session's terminal and the pipes of its standard streams: the copiers;
//   - a socket: the broker, if it judges the same value within patience. What it
//     does not was inside the session, where that has a network of its own;
//   - a file that lies on a file system of the host: Files, which scans the
//     shared folders when a file settles. If it did not find the value, the file
//     was changed or removed before: the value was there to be read meanwhile.
//
// Everything else inside a session with its own file tree (pipes, memory, its
// /tmp and the layer over $HOME, sockets between its processes, arguments, which
// the user's own ps shows) is new: it is recorded, and counts as contained. In
// weaker tiers it counts as escaped.
type watcher struct {
	line   Line // decides as the kernel's finds need it
	kernel Kernel
	say    func(string)
	tier   sandbox.Tier
	agent  int              // its process id
	host   map[uint64]bool  // devices of the host's file systems
	copied map[fileKey]bool // pipes and terminals that copiers judge
	calls  Calls            // that something was found in
	ports  []int            // of 127.0.0.1 inside that lead to the broker

	mu      sync.Mutex
	judged  map[judgedKey]time.Time // the latest
	waiting []waiting
	count   map[countKey]int
	more    int // not recorded one by one

	found  chan Find
	failed chan error    // what Read met
	wake   chan struct{} // something was judged
	wg     sync.WaitGroup
}

type fileKey struct{ device, inode uint64 }

// judgedKey is what another source judged: where a file was concerned, by its
// inode, since programs write under one name and rename, and by its path.
type judgedKey struct {
	source string
	secret guard.SecretID
	inode  uint64
	path   string
}

type countKey struct {
	secret  guard.SecretID
	channel guard.Channel
	file    fileKey
	refused bool
}

// waiting is a find that another source may judge.
type waiting struct {
	find   Find
	source string
	until  time.Time
}

func newWatcher(k Kernel, line *Line, say func(string), ports []int) *watcher {
	w := &watcher{
		kernel: k, say: say, ports: ports, host: hostDevices(), copied: map[fileKey]bool{},
		judged: map[judgedKey]time.Time{}, count: map[countKey]int{}, wake: make(chan struct{}, 1),
		found: make(chan Find, 4096), failed: make(chan error, 1),
	}
	line.judged = w.note
	w.line = *line
	w.line.judged = nil
	return w
}

// note is told of every leak that another source judged.
func (w *watcher) note(l guard.Leak) {
	key := judgedKey{source: l.Source, secret: l.Secret}
	var inode uint64
	if l.Source == sourceFiles {
		key.path, inode = l.Path, inodeOf(l.Path)
	}
	w.mu.Lock()
	now := time.Now()
	w.judged[key] = now
	if inode != 0 {
		key.path, key.inode = "", inode
		w.judged[key] = now
	}
	w.mu.Unlock()
	select {
	case w.wake <- struct{}{}:
	default:
	}
}

// attach starts the search, and reading what it finds: what /proc says of a
// process is there only as long as the process is.
func (w *watcher) attach(pid int, own bool) error {
	if err := w.kernel.Attach(pid, own); err != nil {
		return err
	}
	w.wg.Go(func() {
		defer close(w.found)
		for {
			f, err := w.kernel.Read()
			if err != nil {
				if !errors.Is(err, os.ErrClosed) {
					w.failed <- err
				}
				return
			}
			describe(&f)
			w.found <- f // when it is full, so is the ring soon, which counts what it drops
		}
	})
	return nil
}

// start begins to judge, once the agent runs.
func (w *watcher) start(sb *sandbox.Sandbox) {
	if sb.PTY != nil {
		for _, k := range terminalKeys(sb.PTY) {
			w.copied[k] = true
		}
	}
	w.begin(sb.Tier, sb.Pid())
}

func (w *watcher) begin(tier sandbox.Tier, agent int) {
	w.tier, w.agent = tier, agent
	w.wg.Go(func() {
		tick := time.NewTicker(patience / 8)
		defer tick.Stop()
		for {
			select {
			case f, ok := <-w.found:
				if !ok {
					return
				}
				w.take(f)
				continue
			case <-w.wake:
			case <-tick.C:
			}
			w.settle(time.Now(), false)
		}
	})
}

// finish returns when everything that was found has been judged. The other
// sources are done by then.
func (w *watcher) finish() error {
	err := w.kernel.Stop()
	if w.tier == "" { // no agent ran, and nobody judges
		for range w.found {
		}
	}
	w.wg.Wait()
	w.settle(time.Now(), true)
	if w.more > 0 && w.say != nil {
		w.say(fmt.Sprintf("the kernel found values in the same places %d more times: those are not in the log one by one", w.more))
	}
	return err
}

// take sorts a find.
func (w *watcher) take(f Find) {
	if w.calls.Again(f) {
		return
	}
	f.Source = SourceKernel
	if f.Refused {
		w.judge(f, RuleRefused)
		return
	}
	own := w.tier == sandbox.Contained
	switch f.Channel {
	case guard.ChannelTerminal:
		// In a session with its own /dev every terminal is the session's: what is
		// written to a further one is read by one of its processes.
		if !own && !w.copied[fileKey{f.Device, f.Inode}] {
			w.judge(f, RuleSeen)
		}
	case guard.ChannelSocket:
		w.wait(f, sourceBroker)
	case guard.ChannelPipe, guard.ChannelFile:
		key := fileKey{f.Device, f.Inode}
		switch {
		case w.copied[key] || isNull(f):
		case w.host[f.Device] && f.Channel == guard.ChannelPipe:
			w.judge(f, RuleSeen) // a FIFO with a name that the host has, too
		case w.host[f.Device]:
			w.wait(f, sourceFiles)
		case own:
			w.judge(f, RuleInside)
		default:
			w.judge(f, RuleSeen)
		}
	case channelName, channelLink:
		switch {
		case w.host[f.Device]:
			w.wait(f, sourceFiles) // which judges names, too
		case own:
			w.judge(f, RuleInside)
		default:
			w.judge(f, RuleSeen)
		}
	case channelBacking:
		// The overlay's own find came before it.
	default:
		// Arguments and environments, message queues, attributes; and what is no
		// file at all, so that the call fails.
		if own && !(f.Channel == channelXattr && w.host[f.Device]) {
			w.judge(f, RuleInside)
		} else {
			w.judge(f, RuleSeen)
		}
	}
}

func (w *watcher) wait(f Find, source string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.waiting = append(w.waiting, waiting{f, source, time.Now().Add(patience)})
}

// settle lets go of finds that another source has judged since, and judges
// those that nobody did.
func (w *watcher) settle(now time.Time, all bool) {
	w.mu.Lock()
	kept := w.waiting[:0]
	var due []waiting
	for _, x := range w.waiting {
		switch {
		case w.covered(x):
		case all || now.After(x.until):
			due = append(due, x)
		default:
			kept = append(kept, x)
		}
	}
	w.waiting = kept
	w.mu.Unlock()
	for _, x := range due {
		rule := RuleSeen
		if x.source == sourceBroker {
			switch {
			case w.toBroker(x.find):
				continue // it passes nothing that it did not search
			case w.tier == sandbox.Contained:
				rule = RuleInside
			}
		}
		w.judge(x.find, rule)
	}
}

// covered says that x's source has judged the same value since, in the same file
// where it is one. w.mu is held.
func (w *watcher) covered(x waiting) bool {
	keys := []judgedKey{{source: x.source, secret: x.find.Secret}}
	if x.source == sourceFiles {
		keys = []judgedKey{{x.source, x.find.Secret, x.find.Inode, ""}, {x.source, x.find.Secret, 0, x.find.Path}}
	}
	for _, k := range keys {
		if at, ok := w.judged[k]; ok && at.After(x.find.At) {
			return true
		}
	}
	return false
}

// toBroker says that a socket leads to the broker.
func (w *watcher) toBroker(f Find) bool {
	if w.tier == sandbox.Restricted {
		return true // nothing else can be connected to
	}
	if w.tier != sandbox.Contained {
		return false
	}
	peer := f.Peer
	if !peer.IsValid() {
		if peer, _ = socketPeer(w.agent, f.Inode); !peer.IsValid() {
			return false
		}
	}
	if !peer.Addr().IsLoopback() || peer.Port() == sandbox.ProxyPort {
		return true
	}
	for _, p := range w.ports {
		if int(peer.Port()) == p {
			return true
		}
	}
	return false
}

func (w *watcher) judge(f Find, rule string) {
	key := countKey{f.Secret, f.Channel, fileKey{f.Device, f.Inode}, f.Refused}
	w.mu.Lock()
	w.count[key]++
	many := w.count[key] > maxRecords
	if many {
		w.more++
	}
	if len(w.count) > 1<<16 {
		clear(w.count)
	}
	w.mu.Unlock()
	if many {
		return
	}
	line := w.line
	decide := line.Decide
	line.Decide = func(l guard.Leak) guard.Decision {
		d := decide(l)
		switch {
		case d.Action == guard.Pass && l.Class >= guard.Placeholder, d.Action == guard.Kill:
		case rule == RuleRefused:
			d.Action, d.Rule = guard.Block, rule
		default:
			d.Action, d.Rule = guard.Warn, rule
			d.Reason = "the search in the kernel reports, and does not hold up a write"
		}
		return d
	}
	l := f.Leak
	switch rule {
	case RuleRefused:
		l.Partial = -l.Offset >= holdBack
	case RuleSeen:
		l.Partial = true // it is out, also where the agent is ended for it
	}
	line.Judge(l)
}

// ProcAddr reads an address as /proc/net/tcp has it: 32-bit words in the
// processor's order, which is little endian on all that guard runs on.
func ProcAddr(s string) (netip.AddrPort, bool) {
	addr, port, ok := strings.Cut(s, ":")
	p, err := strconv.ParseUint(port, 16, 16)
	if !ok || err != nil || len(addr)%8 != 0 {
		return netip.AddrPort{}, false
	}
	var b []byte
	for i := 0; i < len(addr); i += 8 {
		w, err := strconv.ParseUint(addr[i:i+8], 16, 32)
		if err != nil {
			return netip.AddrPort{}, false
		}
		b = append(b, byte(w), byte(w>>8), byte(w>>16), byte(w>>24))
	}
	a, ok := netip.AddrFromSlice(b)
	return netip.AddrPortFrom(a.Unmap(), uint16(p)), ok
}
