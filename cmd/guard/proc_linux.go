package main

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io"
	"io/fs"
	"os"
	"strconv"
	"strings"
	"sync"
	"syscall"
)

const (
	maxHashed    = 512 << 20 // bytes: a larger program is recorded without its hash
	maxAncestors = 16
	maxKnown     = 1024 // processes and programs remembered
)

// processes says what the log records of a process. It remembers the hashes of
// programs, by what of a file changes whenever its content does.
type processes struct {
	mu     sync.Mutex
	hashes map[fileState]string
	known  map[int]known
}

// known is what was found of a process. It holds for as long as none of what comes
// first has changed.
type known struct {
	proc fileState // its folder in /proc, which is made anew for another process of that id
	exe  string
	file fileState

	hash, above string
}

type fileState struct {
	dev, ino           uint64
	size, mtime, ctime int64
}

// hash is the SHA-256, in hex, of the program that pid runs; "" if it is gone.
// It is read through /proc, so that no path can lead elsewhere.
func (p *processes) hash(pid int) string {
	if pid <= 0 {
		return ""
	}
	f, err := os.Open(fmt.Sprintf("/proc/%d/exe", pid))
	if err != nil {
		return ""
	}
	defer f.Close()
	fi, err := f.Stat()
	before, ok := fileStateOf(fi, err)
	if !ok || !fi.Mode().IsRegular() || fi.Size() > maxHashed {
		return ""
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if h, ok := p.hashes[before]; ok {
		return h
	}
	sum := sha256.New()
	if _, err := io.Copy(sum, f); err != nil {
		return ""
	}
	h := hex.EncodeToString(sum.Sum(nil))
	if after, ok := fileStateOf(f.Stat()); ok && after == before {
		if p.hashes == nil || len(p.hashes) >= maxKnown {
			p.hashes = map[fileState]string{}
		}
		p.hashes[before] = h
	}
	return h
}

// about is hash and ancestors of pid, if exe is still its program: a process may have
// become another program since it was asked about, and its id be another process's.
func (p *processes) about(pid int, exe string, top int) (hash, above string) {
	if pid <= 0 {
		return "", ""
	}
	now, ok := lookAt(pid)
	if !ok || strings.HasPrefix(exe, "/") && strings.TrimSuffix(exe, deleted) != strings.TrimSuffix(now.exe, deleted) {
		return "", ""
	}
	p.mu.Lock()
	k := p.known[pid]
	p.mu.Unlock()
	hash, above = k.hash, k.above
	if k.hash, k.above = "", ""; k == now {
		return hash, above
	}
	now.hash, now.above = p.hash(pid), ancestors(pid, top)
	k = now
	k.hash, k.above = "", ""
	if again, ok := lookAt(pid); !ok || again != k {
		return "", "" // it changed meanwhile
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.known == nil || len(p.known) >= maxKnown {
		p.known = map[int]known{}
	}
	p.known[pid] = now
	return now.hash, now.above
}

// deleted is what the kernel adds to the name of a file that has none any more.
const deleted = " (deleted)"

// lookAt says what may change of a process.
func lookAt(pid int) (k known, ok bool) {
	dir := "/proc/" + strconv.Itoa(pid)
	if k.proc, ok = fileStateOf(os.Stat(dir)); !ok {
		return k, false
	}
	var err error
	if k.exe, err = os.Readlink(dir + "/exe"); err != nil {
		return k, false
	}
	k.file, ok = fileStateOf(os.Stat(dir + "/exe"))
	return k, ok
}

func fileStateOf(fi fs.FileInfo, err error) (s fileState, ok bool) {
	if err != nil {
		return s, false
	}
	st, ok := fi.Sys().(*syscall.Stat_t)
	if !ok {
		return s, false
	}
	return fileState{uint64(st.Dev), st.Ino, st.Size, st.Mtim.Nano(), st.Ctim.Nano()}, true
}

// statOf reads the stat of a process's folder in /proc: its name, and what comes after.
func statOf(dir string) (name string, fields []string, ok bool) {
	b, err := os.ReadFile(dir + "/stat")
	if err != nil {
		return "", nil, false
	}
	// The name is in parentheses and may hold anything, these too.
	open, end := bytes.IndexByte(b, '('), bytes.LastIndexByte(b, ')')
	if open < 0 || end < open {
		return "", nil, false
	}
	return string(b[open+1 : end]), strings.Fields(string(b[end+1:])), true
}

// ancestors names the processes above pid, nearest first, up to top, which is the session's first.
func ancestors(pid, top int) string {
	var out []string
	for range maxAncestors {
		name, fields, ok := statOf("/proc/" + strconv.Itoa(pid))
		if !ok || len(fields) < 2 {
			break
		}
		if len(out) > 0 || pid > 0 {
			out = append(out, fmt.Sprintf("%s[%d]", name, pid))
		}
		parent, err := strconv.Atoi(fields[1])
		if err != nil || parent <= 1 || pid == top {
			break
		}
		pid = parent
	}
	if len(out) < 2 {
		return ""
	}
	return strings.Join(out[1:], " < ")
}
