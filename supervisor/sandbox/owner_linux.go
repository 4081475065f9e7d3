package sandbox

import (
	"bytes"
	"encoding/binary"
	"maps"
	"net/netip"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

const (
	maxPlaces  = 1 << 13 // sockets remembered
	maxConnect = 64      // processes that connected, remembered
	maxAbove   = 32      // processes above one that are looked at
	guesses    = 3       // descriptors that are tried before all of a process's are listed
)

// owners finds which process holds a socket of the session. What it remembers says only
// where to look first: an answer is what /proc/PID/fd says now, and the number of a
// socket's inode is given once.
type owners struct {
	diag diag

	mu     sync.Mutex
	places map[uint32]place // by inode
	recent []place          // of processes that connected before, the last one first
	seen   map[int]process
	swept  time.Time // when the last look at every process began that found nobody
}

type place struct{ pid, fd int }

// process is one that was looked at before.
type process struct {
	ino    uint64 // of its folder in /proc, which is another one's for another process of that id
	inside bool   // it may be the session's
}

func (o *owners) find(s *session, local, remote netip.AddrPort, accepted time.Time) (pid int, exe string) {
	inode, err := o.diag.inode(local, remote)
	o.mu.Lock()
	defer o.mu.Unlock()
	if err != nil {
		for _, p := range []int{s.agent, s.pid} {
			if inode = socketInode(p, local, remote); inode != 0 {
				break
			}
		}
	}
	if inode == 0 {
		return 0, "" // nobody holds it, or there is none
	}
	if o.seen == nil {
		o.places, o.seen = map[uint32]place{}, map[int]process{}
	}
	if len(o.places) > maxPlaces {
		clear(o.places)
	}
	if at, ok := o.places[inode]; ok {
		if pid, exe = o.confirm(s, at, inode); pid != 0 {
			return pid, exe
		}
		delete(o.places, inode)
	}
	if pid, exe = o.guess(s, inode); pid != 0 {
		return pid, exe
	}
	if o.swept.After(accepted) {
		return 0, "" // all were looked at since, and nobody had it
	}
	began := time.Now()
	if pid, exe = o.sweep(s, inode); pid == 0 {
		o.swept = began
	}
	return pid, exe
}

// confirm says who holds inode, if at is still a place where it is held.
func (o *owners) confirm(s *session, at place, inode uint32) (pid int, exe string) {
	dir, err := openProc(at.pid)
	if err != nil {
		return 0, ""
	}
	// The descriptor is of this process, whoever has its id later.
	defer func() { unix.Close(dir) }()
	if socketAt(dir, "fd/"+strconv.Itoa(at.fd)) != inode {
		return 0, ""
	}
	o.note(at)
	// A child inherits: the connection is its parent's, if that has it still.
	next := parent(dir)
	for range maxAbove {
		if next <= 1 || next == s.pid || next == os.Getpid() {
			break
		}
		above, err := openProc(next)
		if err != nil {
			break
		}
		fd, holds := o.look(above, "fd", next, inode)
		if holds {
			dir, above, at = above, dir, place{next, fd}
			next = parent(dir)
		} else {
			next = parent(above)
		}
		unix.Close(above)
	}
	exe, _ = readlinkAt(dir, "exe")
	return at.pid, exe
}

// note puts at first among those that connected.
func (o *owners) note(at place) {
	i := slices.IndexFunc(o.recent, func(p place) bool { return p.pid == at.pid })
	if i < 0 {
		if len(o.recent) < maxConnect {
			o.recent = append(o.recent, at)
		}
		i = len(o.recent) - 1
	}
	copy(o.recent[1:i+1], o.recent[:i])
	o.recent[0] = at
}

// guess looks where the next connection of a process that connected before would be: at
// the same descriptor or right after it.
func (o *owners) guess(s *session, inode uint32) (pid int, exe string) {
	for i := 0; i < len(o.recent); i++ {
		at := o.recent[i]
		dir := "/proc/" + strconv.Itoa(at.pid)
		for fd := at.fd; fd < at.fd+guesses; fd++ {
			n := socketAt(unix.AT_FDCWD, dir+"/fd/"+strconv.Itoa(fd))
			if n == 0 {
				continue
			}
			o.places[n] = place{at.pid, fd}
			if n == inode {
				if pid, exe = o.confirm(s, o.places[n], inode); pid != 0 {
					return pid, exe
				}
			}
		}
	}
	// One that is gone is only in the way.
	o.recent = slices.DeleteFunc(o.recent, func(p place) bool {
		return unix.Access("/proc/"+strconv.Itoa(p.pid), unix.F_OK) != nil
	})
	return 0, ""
}

// sweep looks at the processes that are new, then at those that connected before, then
// at all others that may be the session's, the newest first. What is not found so may be
// in a descriptor table that a thread has for itself.
func (o *owners) sweep(s *session, inode uint32) (pid int, exe string) {
	now := o.list()
	look := func(pid int) (int, string) {
		dir, err := openProc(pid)
		if err != nil {
			return 0, ""
		}
		defer unix.Close(dir)
		if fd, ok := o.look(dir, "fd", pid, inode); ok {
			return o.confirm(s, place{pid, fd}, inode)
		}
		return 0, ""
	}
	own, _ := os.Readlink("/proc/self/ns/user")
	maps.DeleteFunc(o.seen, func(id int, was process) bool { return now[id] != was.ino })
	var old []int
	for _, id := range slices.Backward(slices.Sorted(maps.Keys(now))) {
		if was, known := o.seen[id]; known {
			if was.inside {
				old = append(old, id)
			}
			continue
		}
		// What the agent starts is in a user namespace below guard's.
		ns, err := os.Readlink("/proc/" + strconv.Itoa(id) + "/ns/user")
		is := process{now[id], err == nil && ns != own && id != s.pid}
		o.seen[id] = is
		if is.inside {
			if pid, exe = look(id); pid != 0 {
				return pid, exe
			}
		}
	}
	before := make(map[int]int, len(o.recent))
	for i, r := range o.recent {
		before[r.pid] = maxConnect - i
	}
	slices.SortStableFunc(old, func(a, b int) int { return before[b] - before[a] })
	if len(o.recent) > 0 { // processes of one program have theirs at the same descriptor
		fd := o.recent[0].fd
		for _, id := range old {
			if socketAt(unix.AT_FDCWD, "/proc/"+strconv.Itoa(id)+"/fd/"+strconv.Itoa(fd)) == inode {
				if pid, exe = o.confirm(s, place{id, fd}, inode); pid != 0 {
					return pid, exe
				}
			}
		}
	}
	for _, id := range old {
		if pid, exe = look(id); pid != 0 {
			return pid, exe
		}
	}
	return o.threads(s, inode)
}

// threads looks at every thread below stage 1, since one may have descriptors that its
// process's first thread has not.
func (o *owners) threads(s *session, inode uint32) (pid int, exe string) {
	for _, id := range descendants(s.pid) {
		dir, err := openProc(id)
		if err != nil {
			continue
		}
		tasks, _ := os.ReadDir("/proc/" + strconv.Itoa(id) + "/task")
		for _, t := range tasks {
			if _, ok := o.look(dir, "task/"+t.Name()+"/fd", id, inode); ok {
				exe, _ = readlinkAt(dir, "exe")
				if exe == "" { // of a process whose first thread ended
					exe, _ = readlinkAt(dir, "task/"+t.Name()+"/exe")
				}
				unix.Close(dir)
				return id, exe
			}
		}
		unix.Close(dir)
	}
	return 0, ""
}

// list is the processes that there are, with the inodes of their folders in /proc.
func (o *owners) list() map[int]uint64 {
	out := make(map[int]uint64, len(o.seen)+16)
	dir, err := unix.Open("/proc", unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return out
	}
	defer unix.Close(dir)
	eachEntry(dir, func(ino uint64, n int) { out[n] = ino })
	return out
}

// look reads a table of descriptors of process pid, whose folder dir is, remembers what
// it saw, and says where inode is.
func (o *owners) look(dir int, table string, pid int, inode uint32) (at int, ok bool) {
	t, err := unix.Openat(dir, table, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return 0, false
	}
	defer unix.Close(t)
	eachEntry(t, func(_ uint64, fd int) {
		n := socketAt(t, strconv.Itoa(fd))
		if n == inode {
			at, ok = fd, true
		}
		if n != 0 && table == "fd" && len(o.places) < 2*maxPlaces {
			o.places[n] = place{pid, fd}
		}
	})
	return at, ok
}

// eachEntry calls f with every entry of a folder whose name is a number.
func eachEntry(dir int, f func(ino uint64, n int)) {
	var buf [8192]byte
	for {
		n, err := unix.ReadDirent(dir, buf[:])
		if err != nil || n <= 0 {
			return
		}
		for b := buf[:n]; len(b) >= 19; { // struct linux_dirent64
			size := int(binary.NativeEndian.Uint16(b[16:]))
			if size < 19 || size > len(b) {
				return
			}
			name, _, _ := bytes.Cut(b[19:size], []byte{0})
			if n, err := strconv.Atoi(string(name)); err == nil {
				f(binary.NativeEndian.Uint64(b), n)
			}
			b = b[size:]
		}
	}
}

func openProc(pid int) (int, error) {
	return unix.Open("/proc/"+strconv.Itoa(pid), unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
}

func readlinkAt(dir int, name string) (string, error) {
	var buf [unix.PathMax]byte
	n, err := unix.Readlinkat(dir, name, buf[:])
	if err != nil {
		return "", err
	}
	return string(buf[:n]), nil
}

// socketAt is the inode of the socket that a descriptor's link names; 0: it is none.
func socketAt(dir int, link string) uint32 {
	var buf [64]byte
	n, err := unix.Readlinkat(dir, link, buf[:])
	if err != nil {
		return 0
	}
	num, ok := bytes.CutPrefix(buf[:n], []byte("socket:["))
	if !ok {
		return 0
	}
	inode, err := strconv.ParseUint(strings.TrimSuffix(string(num), "]"), 10, 32)
	if err != nil {
		return 0
	}
	return uint32(inode)
}

// parent is the parent of the process whose folder in /proc dir is; 0: it is gone.
func parent(dir int) int {
	f, err := unix.Openat(dir, "stat", unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return 0
	}
	defer unix.Close(f)
	var buf [512]byte
	n, err := unix.Read(f, buf[:])
	if err != nil {
		return 0
	}
	// The name is in parentheses and may hold anything, these too.
	fields := bytes.Fields(buf[bytes.LastIndexByte(buf[:n], ')')+1 : n])
	if len(fields) < 2 {
		return 0
	}
	ppid, _ := strconv.Atoi(string(fields[1]))
	return ppid
}
