//go:build linux && (amd64 || arm64)

package bpf

import (
	"cmp"
	"encoding/binary"
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/link"
	"github.com/cilium/ebpf/ringbuf"
	"golang.org/x/sys/unix"
)

// channelTLS and callTLS are the numbers of tls.bpf.c.
const (
	channelTLS = 64
	callTLS    = 0x10000
)

// fileID is a file as the kernel numbers it.
type fileID struct{ device, inode uint64 }

func idOf(st *unix.Stat_t) fileID {
	return fileID{uint64(unix.Major(st.Dev))<<20 | uint64(unix.Minor(st.Dev)), st.Ino}
}

// Monitor is a Detector for processes that guard did not start. It also knows who
// is guard or descends from it, and, with MonitorOptions.TLS, searches
// what is handed to TLS libraries; those events come from Read as well, with ChannelTLS.
// Follow must run for new programs and libraries to be noticed.
type Monitor struct {
	*Detector
	coll  *ebpf.Collection
	links []link.Link
	told  *ringbuf.Reader
	own   fileID // guard's executable
	tls   bool

	guards func(pid int, ended bool, at uint64)

	mu        sync.Mutex // guards what follows
	seen      map[fileID]bool
	programs  map[fileID]string // names of executables
	probes    map[fileID]*probe
	uncovered map[string]int
	failed    map[string]string
	stopped   bool
	closed    bool
}

// probe is a file with its functions.
type probe struct {
	name      string
	functions []string
	links     []link.Link
	at        uint64 // since when, CLOCK_MONOTONIC, ns
}

// OpenMonitor starts watching. When it returns, what every task in scope writes is searched, and
// the TLS libraries of all running processes have their probes. Errors are those of
// OpenDetector.
func OpenMonitor(o MonitorOptions) (_ *Monitor, err error) {
	var st unix.Stat_t
	if err := unix.Stat(cmp.Or(o.own, "/proc/self/exe"), &st); err != nil {
		return nil, fmt.Errorf("bpf: guard's own executable: %w", err)
	}
	d, err := OpenDetector(o.Options)
	if err != nil {
		return nil, err
	}
	m := &Monitor{
		Detector: d, own: idOf(&st), tls: o.TLS, guards: o.Guards, seen: map[fileID]bool{}, programs: map[fileID]string{}, probes: map[fileID]*probe{},
		uncovered: map[string]int{}, failed: map[string]string{},
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, m.Close())
		}
	}()
	if err := m.load(o); err != nil {
		if missing := Probe().Need(needs(Tracepoint)...); missing != nil {
			return nil, missing
		}
		return nil, fmt.Errorf("bpf: start the monitor: %w", err)
	}
	d.names[callTLS] = "tls_write"
	m.seed()
	return m, nil
}

func (m *Monitor) load(o MonitorOptions) error {
	spec, err := loadTls()
	if err != nil {
		return err
	}
	if m.tls && m.old {
		m.tls, o.TLS = false, false
		m.failed["every TLS library"] = "what programs hand to one is not searched on this kernel: it has no bpf_loop (since 5.17)"
	}
	if m.old {
		defer unlimited()()
		for _, name := range []string{"scratches", "tables", "tails", "events"} { // of the search, which is not there
			delete(spec.Maps, name)
		}
	}
	// Those that follow members are the detector's.
	for name := range spec.Programs {
		if membership(name) || !o.TLS && (name == "tell_enter" || strings.HasPrefix(name, "tls_")) {
			delete(spec.Programs, name)
		}
	}
	var shapes [512]uint8
	for nr, s := range map[int]detectShape{
		unix.SYS_WRITE: detectShapeSHAPE_BUF, unix.SYS_SENDTO: detectShapeSHAPE_BUF, unix.SYS_WRITEV: detectShapeSHAPE_IOV,
		unix.SYS_SENDMSG: detectShapeSHAPE_MSG, unix.SYS_MMAP: detectShapeSHAPE_UNMAP,
	} {
		shapes[nr] = uint8(s)
	}
	maxBytes := uint64(o.MaxBytes)
	if maxBytes == 0 {
		maxBytes = 1 << 20
	}
	vars := map[string]any{
		"shapes": shapes, "max_bytes": maxBytes, "scope_pidns": uint32(o.PIDNamespace), "scope_cgroup": o.Cgroup,
		"guard_inode": m.own.inode, "guard_device": uint32(m.own.device),
	}
	if len(o.Processes) > 0 {
		vars["scope_tasks"] = uint32(1)
	}
	if o.All {
		vars["scope_all"] = uint32(os.Getpid())
	}
	if o.Windows {
		vars["windows"] = uint32(1)
	}
	for name, v := range vars {
		if err := spec.Variables[name].Set(v); err != nil {
			return err
		}
	}
	// One table, one ring, one set of members for both.
	shared := map[string]*ebpf.Map{}
	for _, name := range []string{"tables", "events", "members"} {
		have := m.Detector.coll.Maps[name]
		if spec.Maps[name] == nil {
			continue
		}
		spec.Maps[name].MaxEntries = have.MaxEntries()
		shared[name] = have
	}
	if m.coll, err = ebpf.NewCollectionWithOptions(spec, ebpf.CollectionOptions{MapReplacements: shared}); err != nil {
		return err
	}
	if m.told, err = ringbuf.NewReader(m.coll.Maps["told"]); err != nil {
		return err
	}
	for _, name := range slices.Sorted(maps.Keys(m.coll.Programs)) {
		p := m.coll.Programs[name]
		if p.Type() != ebpf.Tracing {
			continue
		}
		l, err := link.AttachTracing(link.TracingOptions{Program: p})
		if err != nil {
			return fmt.Errorf("attach %s: %w", name, err)
		}
		m.links = append(m.links, l)
		m.progs = append(m.progs, p)
	}
	return nil
}

// seed looks at the processes that run already.
func (m *Monitor) seed() {
	pids, parents := running()
	for _, pid := range pids {
		// The first guard above it, if there is one.
		first := 0
		for p, hops := pid, 0; p > 0 && hops < 1<<12; p, hops = parents[p], hops+1 {
			if m.isOwn(p) {
				first = p
			}
		}
		if first != 0 {
			// Who was born meanwhile is in there, and right.
			_ = m.coll.Maps["kin"].Update(uint32(pid), uint32(first), ebpf.UpdateNoExist)
		}
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.tls {
		m.ahead()
	}
	for _, pid := range pids {
		m.look(pid)
	}
}

// running are all processes, and the parent of each.
func running() (pids []int, parents map[int]int) {
	parents = map[int]int{}
	dirs, _ := filepath.Glob("/proc/[0-9]*")
	for _, dir := range dirs {
		pid, err := strconv.Atoi(filepath.Base(dir))
		if err != nil {
			continue
		}
		stat, err := os.ReadFile(dir + "/stat")
		if err != nil {
			continue
		}
		pids = append(pids, pid)
		// The name is in parentheses and may hold anything.
		f := strings.Fields(string(stat[strings.LastIndexByte(string(stat), ')')+1:]))
		if len(f) > 1 {
			parents[pid], _ = strconv.Atoi(f[1])
		}
	}
	return pids, parents
}

func (m *Monitor) isOwn(pid int) bool {
	var st unix.Stat_t
	return unix.Stat("/proc/"+strconv.Itoa(pid)+"/exe", &st) == nil && idOf(&st) == m.own
}

// Own says that an event is about guard's own executable.
func (m *Monitor) Own(e Event) bool {
	return e.ExeInode == m.own.inode && e.ExeDevice == m.own.device
}

// Runs says that an event's process runs the file at path.
func Runs(e Event, path string) bool {
	var st unix.Stat_t
	return e.ExeInode != 0 && unix.Stat(path, &st) == nil && idOf(&st) == fileID{e.ExeDevice, e.ExeInode}
}

// Kin is the first guard process that pid is or descends from, however far, also where
// those between have ended. A process that has ended is known for a while.
func (m *Monitor) Kin(pid int) (first int, ok bool) {
	var f uint32
	if err := m.coll.Maps["kin"].Lookup(uint32(pid), &f); err != nil {
		return 0, false
	}
	return int(f), true
}

// Follow looks at programs and libraries as they come into use, and blocks until
// Stop or Close; it then returns os.ErrClosed.
func (m *Monitor) Follow() error {
	var rec ringbuf.Record
	for {
		if err := m.told.ReadInto(&rec); err != nil {
			if errors.Is(err, ringbuf.ErrFlushed) || errors.Is(err, os.ErrClosed) {
				return os.ErrClosed
			}
			return fmt.Errorf("bpf: read news: %w", err)
		}
		var n tlsNews
		if got, err := binary.Decode(rec.RawSample, binary.LittleEndian, &n); err != nil || got != len(rec.RawSample) {
			return fmt.Errorf("bpf: news of %d bytes do not fit the program that was built in", len(rec.RawSample))
		}
		m.news(n)
	}
}

// Read is the Detector's, and knows the executable also of processes that have ended.
func (m *Monitor) Read() (Event, error) {
	e, err := m.Detector.Read()
	if err == nil && e.Exe == "" && e.ExeInode != 0 {
		m.mu.Lock()
		e.Exe = m.programs[fileID{e.ExeDevice, e.ExeInode}]
		m.mu.Unlock()
	}
	return e, err
}

// Stats are the Detector's, with ChannelTLS.
func (m *Monitor) Stats() (Stats, error) {
	s, err := m.Detector.Stats()
	if err != nil || !m.tls {
		return s, err
	}
	var perCPU []tlsCounters
	if err := m.coll.Maps["stats"].Lookup(uint32(0), &perCPU); err != nil {
		return s, fmt.Errorf("bpf: read counters: %w", err)
	}
	var sum Counters
	for _, n := range perCPU {
		sum.add(Counters{
			Calls: n.Calls, Seen: n.Seen, Scanned: n.Scanned, Unreadable: n.Unreadable, Oversize: n.Oversize,
			UnreadableCalls: n.UnreadableCalls, OversizeCalls: n.OversizeCalls,
			Hits: n.Hits, Dropped: n.Dropped, TailsLost: n.TailsLost,
		})
	}
	if sum != (Counters{}) {
		s.Channels[ChannelTLS] = sum
		s.Total.add(sum)
	}
	return s, nil
}

// TLS says what is seen of TLS, and what is not.
func (m *Monitor) TLS() TLSReport {
	m.mu.Lock()
	defer m.mu.Unlock()
	r := TLSReport{Files: map[string][]string{}, Uncovered: maps.Clone(m.uncovered), Failed: maps.Clone(m.failed)}
	for _, p := range m.probes {
		r.Files[p.name] = p.functions
	}
	if m.coll != nil && !m.closed {
		_ = m.coll.Variables["news_lost"].Get(&r.Lost)
	}
	return r
}

// Stop ends the watching. Read returns the events that are left, then os.ErrClosed.
func (m *Monitor) Stop() error {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.stop()
}

func (m *Monitor) stop() error {
	if m.stopped {
		return nil
	}
	m.stopped = true
	// Finds end first: one of a process whose kin nobody noted any more would be
	// taken for a stranger's.
	err := m.Detector.coll.Variables["over"].Set(uint32(1))
	if m.coll != nil {
		err = errors.Join(err, m.coll.Variables["over"].Set(uint32(1)))
	}
	links := m.links
	for _, p := range m.probes {
		links = append(links, p.links...)
		p.links = nil
	}
	m.links = nil
	// As the detector's: the kernel takes a while for each probe, which nobody need wait for.
	if fs, e := detachedFS(); e == nil {
		for i, l := range links {
			_ = l.Pin(fmt.Sprintf("/proc/self/fd/%d/%d", fs, i))
		}
		defer unix.Close(fs)
	}
	for _, l := range links {
		err = errors.Join(err, l.Close())
	}
	if m.told != nil {
		err = errors.Join(err, m.told.Flush())
	}
	return errors.Join(err, m.Detector.Stop())
}

// Close ends the watching and frees what the kernel holds. Follow must have returned, or
// returns.
func (m *Monitor) Close() error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.closed {
		return nil
	}
	err := m.stop()
	m.closed = true
	if m.told != nil {
		err = errors.Join(err, m.told.Close())
	}
	if m.coll != nil {
		m.coll.Close()
	}
	return errors.Join(err, m.Detector.Close())
}
