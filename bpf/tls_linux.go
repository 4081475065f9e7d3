//go:build linux && (amd64 || arm64)

package bpf

import (
	"bytes"
	"debug/buildinfo"
	"debug/elf"
	"encoding/binary"
	"fmt"
	"go/version"
	"io"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"

	"github.com/cilium/ebpf/link"
	"golang.org/x/sys/unix"
)

// The functions that are given plaintext.
const goWrite = "crypto/tls.(*Conn).Write"

func tlsWriters() []string { return []string{"SSL_write", "SSL_write_ex", "gnutls_record_send"} }

// mayBeTLS says of a library's name that it is worth a look. Executables always are.
func mayBeTLS(name string) bool {
	name = strings.ToLower(filepath.Base(name))
	for _, part := range []string{"ssl", "tls"} {
		if strings.Contains(name, part) {
			return true
		}
	}
	return false
}

// symbol is a function in a file.
type symbol struct {
	name   string
	offset uint64 // in the file
	golang bool   // by Go's calling convention
}

// maxSymbols bounds the symbol table and its names that are read of one file, bytes.
const maxSymbols = 512 << 20

// writersOf finds the functions of an ELF file of this machine's that are given
// plaintext. A file that has none, or that is of another kind, has none.
func writersOf(r io.ReaderAt, exe bool) []symbol {
	f, err := elf.NewFile(r)
	if err != nil {
		return nil
	}
	machine := map[string]elf.Machine{"amd64": elf.EM_X86_64, "arm64": elf.EM_AARCH64}[runtime.GOARCH]
	if f.Class != elf.ELFCLASS64 || f.Machine != machine || f.ByteOrder != binary.LittleEndian {
		return nil
	}
	var out []symbol
	add := func(section elf.SectionType, names []string, golang bool) {
		for name, value := range lookUp(f, section, names) {
			for _, p := range f.Progs {
				// A probe is put at an offset in the file.
				if p.Type == elf.PT_LOAD && p.Flags&elf.PF_X != 0 && value >= p.Vaddr && value-p.Vaddr < p.Filesz {
					s := symbol{name, value - p.Vaddr + p.Off, golang}
					if !slices.ContainsFunc(out, func(o symbol) bool { return o.offset == s.offset }) {
						out = append(out, s)
					}
				}
			}
		}
	}
	add(elf.SHT_DYNSYM, tlsWriters(), false)
	if exe {
		if f.Section(".go.buildinfo") != nil && registerABI(r) {
			add(elf.SHT_SYMTAB, []string{goWrite}, true)
		}
		add(elf.SHT_SYMTAB, tlsWriters(), false)
	}
	slices.SortFunc(out, func(a, b symbol) int { return strings.Compare(a.name, b.name) })
	return out
}

// registerABI says that a Go program passes arguments in registers.
func registerABI(r io.ReaderAt) bool {
	info, err := buildinfo.Read(r)
	if err != nil {
		return false
	}
	since := map[string]string{"amd64": "go1.17", "arm64": "go1.18"}[runtime.GOARCH]
	v, _, _ := strings.Cut(info.GoVersion, " ") // experiments come after it
	return strings.HasPrefix(v, "devel") || version.Compare(v, since) >= 0
}

// lookUp finds functions in one symbol table, by name. The names are looked for first, which
// is quicker than to make a string of each.
func lookUp(f *elf.File, section elf.SectionType, names []string) map[string]uint64 {
	found := map[string]uint64{}
	table := f.SectionByType(section)
	if table == nil || int(table.Link) >= len(f.Sections) || table.Size > maxSymbols || f.Sections[table.Link].Size > maxSymbols {
		return found
	}
	text, err := f.Sections[table.Link].Data()
	if err != nil {
		return found
	}
	wanted := map[uint32]string{}
	for _, name := range names {
		// The end of a longer name may serve for a shorter one.
		end := append([]byte(name), 0)
		for at := 0; ; {
			i := bytes.Index(text[at:], end)
			if i < 0 {
				break
			}
			wanted[uint32(at+i)] = name
			at += i + 1
		}
	}
	if len(wanted) == 0 {
		return found
	}
	syms, err := table.Data()
	if err != nil {
		return found
	}
	for ; len(syms) >= elf.Sym64Size; syms = syms[elf.Sym64Size:] {
		name, ok := wanted[binary.LittleEndian.Uint32(syms)]
		if ok && elf.ST_TYPE(syms[4]) == elf.STT_FUNC && elf.SectionIndex(binary.LittleEndian.Uint16(syms[6:])) != elf.SHN_UNDEF {
			found[name] = binary.LittleEndian.Uint64(syms[8:])
		}
	}
	return found
}

// mapping is a file that a process has mapped.
type mapping struct {
	inode uint64
	path  string
	open  string // by which it can be opened in whatever mount namespace it is
}

// mappings are the files that a process has mapped, each once.
func mappings(pid int) []mapping {
	dir := "/proc/" + strconv.Itoa(pid)
	b, err := os.ReadFile(dir + "/maps")
	if err != nil {
		return nil
	}
	var out []mapping
	seen := map[string]bool{}
	for line := range strings.Lines(string(b)) {
		f := strings.SplitN(strings.TrimSuffix(line, "\n"), " ", 6)
		if len(f) < 6 {
			continue
		}
		path := strings.TrimLeft(f[5], " ")
		inode, err := strconv.ParseUint(f[4], 10, 64)
		if err != nil || inode == 0 || !strings.HasPrefix(path, "/") || seen[f[4]+path] {
			continue
		}
		seen[f[4]+path] = true
		from, to, _ := strings.Cut(f[0], "-")
		out = append(out, mapping{inode, strings.TrimSuffix(path, " (deleted)"),
			dir + "/map_files/" + strings.TrimLeft(from, "0") + "-" + strings.TrimLeft(to, "0")})
	}
	return out
}

// look puts probes into what process pid runs and has mapped. m.mu is held.
func (m *Monitor) look(pid int) {
	exe := "/proc/" + strconv.Itoa(pid) + "/exe"
	if name, err := os.Readlink(exe); err == nil {
		m.file(exe, strings.TrimSuffix(name, " (deleted)"), true)
	}
	if !m.tls {
		return
	}
	for _, mp := range mappings(pid) {
		if mayBeTLS(mp.path) {
			m.file(mp.open, mp.path, false)
		}
	}
}

// file puts probes into a file, once. It is false where the file could not be opened.
func (m *Monitor) file(path, name string, exe bool) bool {
	fd, err := unix.Open(path, unix.O_RDONLY|unix.O_CLOEXEC|unix.O_NONBLOCK, 0)
	if err != nil {
		return false
	}
	f := os.NewFile(uintptr(fd), name)
	defer f.Close()
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil || st.Mode&unix.S_IFMT != unix.S_IFREG {
		return true
	}
	id := idOf(&st)
	if exe {
		if len(m.programs) > 1<<14 {
			clear(m.programs)
		}
		m.programs[id] = name
	}
	if !m.tls || m.seen[id] || m.stopped || id == m.own {
		return true
	}
	if len(m.seen) > 1<<16 {
		clear(m.seen)
		for id := range m.probes {
			m.seen[id] = true
		}
	}
	m.seen[id] = true
	functions := writersOf(f, exe)
	if len(functions) == 0 {
		return true
	}
	// By descriptor, since the name may mean another file elsewhere.
	ex, err := link.OpenExecutable("/proc/self/fd/" + strconv.Itoa(fd))
	if err != nil {
		m.failed[name] = err.Error()
		return true
	}
	p := &probe{name: name}
	for _, s := range functions {
		links, err := m.put(ex, s)
		p.links = append(p.links, links...)
		if err != nil {
			m.failed[name] = fmt.Sprintf("%s: %v", s.name, err)
			continue
		}
		p.functions = append(p.functions, s.name)
	}
	if len(p.links) > 0 {
		var now unix.Timespec
		_ = unix.ClockGettime(unix.CLOCK_MONOTONIC, &now) // it cannot fail with this clock
		p.at = uint64(now.Nano())
		m.probes[id] = p
	}
	return true
}

// ahead puts probes into libraries and runtimes that lie in the usual places, whether
// somebody uses them already or not: who starts one later is seen from its first byte on.
func (m *Monitor) ahead() {
	for _, pattern := range []string{"/lib*", "/lib/*-linux-gnu*", "/usr/lib*", "/usr/lib/*-linux-gnu*", "/usr/local/lib*"} {
		for _, name := range []string{"libssl.so*", "libgnutls.so*", "libssl-*.so*"} {
			files, _ := filepath.Glob(pattern + "/" + name)
			for _, f := range files {
				m.file(f, f, false)
			}
		}
	}
	for _, name := range []string{"node", "nodejs", "bun", "deno"} {
		for _, dir := range []string{"/usr/bin/", "/usr/local/bin/"} {
			m.file(dir+name, dir+name, true)
		}
	}
}

// put attaches the programs for one function: those for its end first, so that
// nothing is noted that nobody takes back.
func (m *Monitor) put(ex *link.Executable, s symbol) (links []link.Link, err error) {
	programs := map[string][]string{
		goWrite: {"tls_go"}, "gnutls_record_send": {"tls_send"}, "SSL_write": {"tls_wrote", "tls_write"}, "SSL_write_ex": {"tls_wrote_ex", "tls_write"},
	}
	for _, name := range programs[s.name] {
		attach := ex.Uprobe
		if strings.HasPrefix(name, "tls_wrote") {
			attach = ex.Uretprobe
		}
		l, err := attach("", m.coll.Programs[name], &link.UprobeOptions{Address: s.offset})
		if err != nil {
			return links, err
		}
		links = append(links, l)
	}
	return links, nil
}

// news takes one piece of news.
func (m *Monitor) news(n tlsNews) {
	if k := tlsNewsKind(n.Kind); k == tlsNewsKindNEWS_GUARD || k == tlsNewsKindNEWS_GUARD_END {
		if m.guards != nil {
			m.guards(int(n.Tgid), k == tlsNewsKindNEWS_GUARD_END, n.Time)
		}
		return
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.stopped {
		return
	}
	pid := int(n.Tgid)
	proc := "/proc/" + strconv.Itoa(pid)
	id := fileID{uint64(n.Device), n.Inode}
	ok := true
	switch tlsNewsKind(n.Kind) {
	case tlsNewsKindNEWS_EXEC:
		ok = m.named(proc+"/exe", id, true)
	case tlsNewsKindNEWS_MAP:
		if ok = m.named(proc+"/fd/"+strconv.Itoa(int(n.Fd)), id, false); ok {
			break
		}
		for _, mp := range mappings(pid) {
			if mp.inode == id.inode {
				ok = m.named(mp.open, id, false)
			}
		}
	case tlsNewsKindNEWS_HELLO:
		m.hello(pid, proc, id, n.Time)
	}
	if !ok {
		// It was gone before it could be looked at: tell again next time.
		_ = m.coll.Maps["known"].Delete(tlsFileid{Inode: n.Inode, Device: n.Device})
	}
}

// named looks at a file if path leads to it.
func (m *Monitor) named(path string, id fileID, exe bool) bool {
	var st unix.Stat_t
	if unix.Stat(path, &st) != nil || idOf(&st) != id {
		return false
	}
	name, err := os.Readlink(path)
	if err != nil {
		return false
	}
	name = strings.TrimSuffix(name, " (deleted)")
	if !exe && !mayBeTLS(name) {
		return true
	}
	return m.file(path, name, exe)
}

// hello is told that a process begins to speak TLS: is its plaintext seen?
// A probe that came later than its hello (at) may have missed something.
func (m *Monitor) hello(pid int, proc string, exe fileID, at uint64) {
	if exe == m.own {
		return
	}
	if _, kin := m.Kin(pid); kin {
		return // its session's broker sees the plaintext, or ends the connection
	}
	m.look(pid)
	covered := func(p *probe) bool { return p != nil && p.at < at }
	if covered(m.probes[exe]) {
		return
	}
	for _, mp := range mappings(pid) {
		for id, p := range m.probes {
			// By inode alone: some file systems number their devices otherwise here.
			if id.inode == mp.inode && covered(p) {
				return
			}
		}
	}
	var seen uint32
	if m.coll.Maps["plain"].Lookup(uint32(pid), &seen) == nil {
		return // it has ended since
	}
	name := path(proc+"/exe", exe.device, exe.inode)
	if name == "" {
		name = fmt.Sprintf("a program that has ended (inode %d)", exe.inode)
	}
	if len(m.uncovered) < 1<<10 || m.uncovered[name] > 0 {
		m.uncovered[name]++
	} else {
		m.uncovered["others"]++
	}
}
