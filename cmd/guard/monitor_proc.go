package main

import (
	"bytes"
	"fmt"
	"guard/supervisor"
	"net/netip"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/pflag"
)

// What the monitor asks /proc.

// stat is fields 3 and later of /proc/PID/stat.
func procStat(pid int) []string {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return nil
	}
	// The name is in parentheses and may hold anything.
	return strings.Fields(string(b[bytes.LastIndexByte(b, ')')+1:]))
}

// exeOf is the program of a process, "" if it is gone.
func exeOf(pid int) string {
	name, err := os.Readlink(fmt.Sprintf("/proc/%d/exe", pid))
	if err != nil {
		return ""
	}
	return name
}

// fdName is what a descriptor without a path is called, "pipe:[1234]", if it is still of that
// inode. Shells put another file in its place after every command.
func fdName(pid, fd int, inode uint64) string {
	name, err := os.Readlink(fmt.Sprintf("/proc/%d/fd/%d", pid, fd))
	if err != nil || !strings.HasSuffix(name, ":["+strconv.FormatUint(inode, 10)+"]") {
		return ""
	}
	return name
}

// familyOf is a process and all that descend from it now.
func familyOf(pid int) ([]int, error) {
	if _, err := os.Stat(fmt.Sprintf("/proc/%d", pid)); err != nil {
		return nil, fmt.Errorf("--pid %d: there is no such process", pid)
	}
	children := map[int][]int{}
	dirs, _ := filepath.Glob("/proc/[0-9]*")
	for _, d := range dirs {
		p, err := strconv.Atoi(filepath.Base(d))
		if f := procStat(p); err == nil && len(f) > 1 {
			if parent, err := strconv.Atoi(f[1]); err == nil {
				children[parent] = append(children[parent], p)
			}
		}
	}
	all := []int{pid}
	for i := 0; i < len(all); i++ {
		all = append(all, children[all[i]]...)
	}
	return all, nil
}

// onlyPeer is whom a process is connected to by TCP, if that is one alone.
func onlyPeer(pid int) netip.AddrPort {
	dir := fmt.Sprintf("/proc/%d", pid)
	fds, err := os.ReadDir(dir + "/fd")
	if err != nil {
		return netip.AddrPort{}
	}
	sockets := map[string]bool{}
	for _, fd := range fds {
		if name, err := os.Readlink(dir + "/fd/" + fd.Name()); err == nil && strings.HasPrefix(name, "socket:[") {
			sockets[strings.TrimSuffix(strings.TrimPrefix(name, "socket:["), "]")] = true
		}
	}
	peers := map[netip.AddrPort]bool{}
	for _, name := range []string{"tcp", "tcp6"} {
		b, err := os.ReadFile(dir + "/net/" + name)
		if err != nil {
			continue
		}
		for line := range strings.Lines(string(b)) {
			f := strings.Fields(line)
			// 01: established
			if len(f) > 9 && f[3] == "01" && sockets[f[9]] {
				if p, ok := supervisor.ProcAddr(f[2]); ok {
					peers[p] = true
				}
			}
		}
	}
	if len(peers) != 1 {
		return netip.AddrPort{}
	}
	for p := range peers {
		return p
	}
	return netip.AddrPort{}
}

// guardKey is a process, as long as its number is not another's.
type guardKey struct {
	pid     int
	started string
}

// guardProcess is what another guard is doing.
type guardProcess struct {
	session bool   // it runs an agent
	home    string // of its vault
	context string // of its session
}

// ranGuard is a guard that began while the monitor watched, and what it did until it ended.
type ranGuard struct {
	guardProcess
	ok  bool   // it was there to be looked at
	end uint64 // CLOCK_MONOTONIC, ns; 0: not yet
}

// maxRan bounds how many are remembered; endWait is how long the news of an end may take that the kernel tells
// before the process is gone.
const (
	maxRan  = 1 << 12
	endWait = 200 * time.Millisecond
)

// noteGuard looks at a guard at once when it begins: a session may be over before its finds are judged.
func (m *monitor) noteGuard(pid int, ended bool, at uint64) {
	var r ranGuard
	if !ended {
		r.guardProcess, r.ok = m.readGuard(pid)
	}
	m.guardMu.Lock()
	defer m.guardMu.Unlock()
	switch {
	case !ended:
		if len(m.ran) >= maxRan {
			clear(m.ran)
		}
		m.ran[pid] = &r
	case m.ran[pid] != nil:
		m.ran[pid].end = at
		close(m.guardsEnd)
		m.guardsEnd = make(chan struct{})
	}
}

// endedGuard says what a guard did that is gone, if a call was made while it ran.
func (m *monitor) endedGuard(pid int, call uint64) (guardProcess, bool) {
	late := time.NewTimer(endWait)
	defer late.Stop()
	for {
		m.guardMu.Lock()
		r, news := m.ran[pid], m.guardsEnd
		if r == nil || !r.ok {
			m.guardMu.Unlock()
			return guardProcess{}, false
		}
		g, end := r.guardProcess, r.end
		m.guardMu.Unlock()
		if end != 0 {
			return g, call <= end
		}
		select {
		case <-news:
		case <-late.C:
			m.guardMu.Lock()
			r.ok = false // and nobody waits for it again
			m.guardMu.Unlock()
			return guardProcess{}, false
		}
	}
}

// guard says what guard process pid does, or did when a find's call was made. It is false where it had ended then.
func (m *monitor) guard(pid int, call uint64) (guardProcess, bool) {
	f := procStat(pid)
	if len(f) < 20 || f[0] == "Z" {
		return m.endedGuard(pid, call)
	}
	key := guardKey{pid, f[19]}
	if g, ok := m.guards[key]; ok {
		return g, true
	}
	g, ok := m.readGuard(pid)
	if !ok { // it ended just now
		return m.endedGuard(pid, call)
	}
	if ok {
		if len(m.guards) > 1<<10 {
			clear(m.guards)
		}
		m.guards[key] = g
	}
	return g, ok
}

func (m *monitor) readGuard(pid int) (g guardProcess, ok bool) {
	dir := fmt.Sprintf("/proc/%d/", pid)
	split := func(name string) []string {
		b, err := os.ReadFile(dir + name)
		if err != nil {
			return nil
		}
		return strings.Split(strings.TrimSuffix(string(b), "\x00"), "\x00")
	}
	args := split("cmdline")
	if len(args) < 2 {
		return g, false
	}
	if args[1] != "run" {
		return g, true
	}
	g.session, g.home = true, homeOf(split("environ"))
	// Its flags, as it read them itself.
	var o runFlags
	var unlock unlockFlags
	fs := pflag.NewFlagSet("", pflag.ContinueOnError)
	fs.SetInterspersed(false)
	fs.Usage = func() {}
	fs.StringVar(&unlock.passphraseFile, "passphrase-file", "", "")
	fs.StringVar(&unlock.keyfile, "keyfile", "", "")
	o.add(fs)
	if err := fs.Parse(args[2:]); err != nil {
		return g, false
	}
	g.context = o.context
	if g.context == "" {
		cwd, err := os.Readlink(dir + "cwd")
		cs, cerr := m.app.loadContexts()
		if err != nil || cerr != nil {
			return g, false
		}
		g.context = cs.contextOf(cwd)
	}
	return g, true
}
