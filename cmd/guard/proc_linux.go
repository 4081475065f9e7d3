package main

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io"
	"os"
	"strconv"
	"strings"
	"sync"
	"syscall"
)

const (
	maxHashed    = 512 << 20 // bytes: a larger program is recorded without its hash
	maxAncestors = 16
)

// processes says what the log records of a process. It remembers the hashes of
// programs, by what of a file changes whenever its content does.
type processes struct {
	mu     sync.Mutex
	hashes map[fileState]string
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
	state := func() (s fileState, ok bool) {
		fi, err := f.Stat()
		if err != nil || !fi.Mode().IsRegular() || fi.Size() > maxHashed {
			return s, false
		}
		st, ok := fi.Sys().(*syscall.Stat_t)
		if !ok {
			return s, false
		}
		return fileState{uint64(st.Dev), st.Ino, st.Size, st.Mtim.Nano(), st.Ctim.Nano()}, true
	}
	before, ok := state()
	if !ok {
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
	if after, ok := state(); ok && after == before {
		if p.hashes == nil || len(p.hashes) > 1024 {
			p.hashes = map[fileState]string{}
		}
		p.hashes[before] = h
	}
	return h
}

// ancestors names the processes above pid, nearest first, up to top, which is the session's first.
func ancestors(pid, top int) string {
	var out []string
	for range maxAncestors {
		b, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
		if err != nil {
			break
		}
		// The name is in parentheses and may hold anything, these too.
		open, end := bytes.IndexByte(b, '('), bytes.LastIndexByte(b, ')')
		if open < 0 || end < open {
			break
		}
		fields := strings.Fields(string(b[end+1:]))
		if len(fields) < 2 {
			break
		}
		if len(out) > 0 || pid > 0 {
			out = append(out, fmt.Sprintf("%s[%d]", b[open+1:end], pid))
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
