package sandbox

import (
	"cmp"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// plan checks c and makes what stage 1 gets of it. uid and gid are the agent's.
func plan(c Config, uid, gid int) (initConfig, []string, error) {
	p := initConfig{
		Agent: agentConfig{Argv: c.Argv, Env: c.Env, Dir: c.Dir, NoZeroCopy: c.NoZeroCopy, NoCore: c.NoCore},
		Files: slices.Clone(c.Files), HostPorts: c.HostPorts, Unix: c.Unix, TTY: c.TTY, Rows: c.Rows, Cols: c.Cols, UID: uid, GID: gid,
	}
	var notes []string
	if len(c.Argv) == 0 {
		return p, nil, fmt.Errorf("no program to run")
	}
	if len(c.HostPorts) > 128 {
		return p, nil, fmt.Errorf("%d host ports: the limit is 128", len(c.HostPorts))
	}
	for _, path := range c.Unix {
		if path != filepath.Clean(path) || path == "/run" || !within(path, "/run") || len(path) > 100 {
			return p, nil, fmt.Errorf("socket %q: want a short path below /run, which a session has for itself", path)
		}
	}
	for _, port := range c.HostPorts {
		if port < 1 || port > 65535 || port == 53 || port == ProxyPort {
			return p, nil, fmt.Errorf("port %d of the host cannot be shown inside: 53 and %d are guard's own there", port, ProxyPort)
		}
	}
	dir, err := canonical(c.Dir)
	if err != nil {
		return p, nil, fmt.Errorf("working folder: %w", err)
	}
	p.Agent.Dir = dir
	for _, l := range []struct {
		to   *[]string
		from []string
	}{{&p.Writable, c.Writable}, {&p.Hidden, c.Hidden}, {&p.ReadOnly, c.ReadOnly}} {
		for _, f := range l.from {
			if !filepath.IsAbs(f) {
				return p, nil, fmt.Errorf("%s is not an absolute path", f)
			}
			if real, err := filepath.EvalSymlinks(f); err == nil {
				f = real
			} else {
				f = filepath.Clean(f)
			}
			*l.to = append(*l.to, f)
		}
	}
	for i, f := range p.Files {
		if !filepath.IsAbs(f.Path) {
			return p, nil, fmt.Errorf("%s is not an absolute path", f.Path)
		}
		if real, err := filepath.EvalSymlinks(f.Path); err == nil {
			p.Files[i].Path = real
		}
	}
	for _, f := range append([]string{dir}, p.Writable...) {
		if err := shareable(f); err != nil {
			return p, nil, err
		}
	}
	if c.Home != "" {
		if p.Home, err = canonical(c.Home); err != nil || p.Home == "/" {
			notes = append(notes, fmt.Sprintf("%s is no home folder to overlay", c.Home))
			p.Home = ""
		}
	}
	if p.Home != "" && c.HomeUpper != "" {
		if p.HomeUpper, err = canonical(c.HomeUpper); err != nil {
			return p, nil, fmt.Errorf("folder for changes to %s: %w", p.Home, err)
		}
	}
	for _, w := range p.Writable {
		if w == "/" {
			return p, nil, fmt.Errorf("the whole file system cannot be shared: run in a folder of the project")
		}
		for _, h := range p.Hidden {
			if within(w, h) {
				return p, nil, fmt.Errorf("%s cannot be shared: it lies in %s, which is hidden", w, h)
			}
		}
	}
	mounts, err := mountInfo()
	if err != nil {
		return p, nil, err
	}
	found, lost, err := unixSockets()
	if err != nil {
		return p, nil, err
	}
	if lost > 0 {
		notes = append(notes, fmt.Sprintf("%d sockets of other users' processes have names relative to folders that cannot be found out: the agent could connect to one that everybody may write to", lost))
	}
	for _, s := range append(found, c.Sockets...) {
		if !filepath.IsAbs(s) {
			return p, nil, fmt.Errorf("%s is not an absolute path", s)
		}
		if real, err := filepath.EvalSymlinks(s); err == nil {
			s = real
		}
		if s = filepath.Clean(s); !slices.Contains(p.Writable, s) {
			p.Sockets = append(append(p.Sockets, s), aliases(mounts, s)...)
		}
	}
	slices.Sort(p.Sockets)
	p.Sockets = slices.Compact(p.Sockets)
	for _, h := range slices.Clone(p.Hidden) {
		p.Hidden = append(p.Hidden, aliases(mounts, h)...)
		notes = append(notes, linkNote(h)...)
	}
	for _, f := range slices.Clone(p.Files) {
		for _, a := range aliases(mounts, f.Path) {
			p.Files = append(p.Files, File{Path: a, Content: f.Content, Mode: f.Mode})
		}
		if within(f.Path, p.Agent.Dir) || p.Home != "" && within(f.Path, p.Home) {
			notes = append(notes, linkNote(f.Path)...)
		}
	}
	for _, l := range []*[]string{&p.Writable, &p.Hidden, &p.ReadOnly} {
		slices.Sort(*l) // parents before children
		*l = slices.Compact(*l)
	}
	p.Hidden = outermost(p.Hidden)
	slices.SortStableFunc(p.Files, func(a, b File) int { return cmp.Compare(a.Path, b.Path) })
	if p.Files, err = systemFiles(p); err != nil {
		return p, nil, err
	}
	return p, notes, nil
}

// dedupe sends content once that several files have: bundles of certificates
// are large, and shown at several paths.
func (p *initConfig) dedupe() {
	p.Same = make([]int, len(p.Files))
	type key struct {
		at   *byte
		size int
		mode fs.FileMode
	}
	seen := map[key]int{}
	for i, f := range p.Files {
		if len(f.Content) == 0 {
			continue
		}
		k := key{&f.Content[0], len(f.Content), f.Mode}
		if first, ok := seen[k]; ok {
			p.Same[i] = first + 1
			p.Files[i].Content = nil
		} else {
			seen[k] = i
		}
	}
}

// shareable says why a path cannot be shared: the kernel's own file systems
// would be a way out, and the session has its own.
func shareable(path string) error {
	var st unix.Stat_t
	if unix.Stat(path, &st) != nil {
		return nil // stage 1 says so
	}
	kind := st.Mode & unix.S_IFMT
	if kind == unix.S_IFSOCK || kind == unix.S_IFIFO { // of a service that is shared on purpose, wherever it is
		return nil
	}
	for _, d := range []string{"/proc", "/sys", "/dev", "/run", "/var/run"} {
		if within(path, d) {
			return fmt.Errorf("%s cannot be shared: the session has a %s of its own; use a folder that is not in it", path, d)
		}
	}
	if kind == unix.S_IFBLK || kind == unix.S_IFCHR {
		return fmt.Errorf("%s cannot be shared: it is a device", path)
	}
	var fs unix.Statfs_t
	if err := unix.Statfs(path, &fs); err == nil && kernelFS[int64(fs.Type)] {
		return fmt.Errorf("%s cannot be shared: it is on a file system of the kernel's own", path)
	}
	return nil
}

// kernelFS are file systems whose files are the kernel's (linux/magic.h).
var kernelFS = map[int64]bool{
	unix.PROC_SUPER_MAGIC: true, unix.SYSFS_MAGIC: true, unix.CGROUP_SUPER_MAGIC: true, unix.CGROUP2_SUPER_MAGIC: true, unix.DEBUGFS_MAGIC: true,
	unix.TRACEFS_MAGIC: true, unix.SECURITYFS_MAGIC: true, unix.SELINUX_MAGIC: true, unix.SMACK_MAGIC: true, unix.BPF_FS_MAGIC: true,
	unix.PSTOREFS_MAGIC: true, unix.EFIVARFS_MAGIC: true, unix.DEVPTS_SUPER_MAGIC: true, unix.NSFS_MAGIC: true, unix.BINFMTFS_MAGIC: true,
	unix.RDTGROUP_SUPER_MAGIC: true, 0x62656570 /* configfs */ : true, 0x19800202 /* mqueue */ : true, 0x65735543 /* fusectl */ : true,
}

func canonical(path string) (string, error) {
	if !filepath.IsAbs(path) {
		return "", fmt.Errorf("%q is not an absolute path", path)
	}
	return filepath.EvalSymlinks(path)
}

// outermost leaves out what lies in another path of the sorted list.
func outermost(sorted []string) []string {
	var out []string
	for _, p := range sorted {
		if len(out) == 0 || !within(p, out[len(out)-1]) {
			out = append(out, p)
		}
	}
	return out
}

// linkNote says that a file has other names, which a mask does not cover.
func linkNote(path string) []string {
	var st unix.Stat_t
	if unix.Lstat(path, &st) != nil || st.Mode&unix.S_IFMT != unix.S_IFREG || st.Nlink < 2 {
		return nil
	}
	return []string{fmt.Sprintf("%s has %d hard links: the agent can read it by another of its names", path, st.Nlink)}
}

// mount is a line of /proc/self/mountinfo, as far as it matters.
type mount struct{ dev, root, point string }

func mountInfo() ([]mount, error) {
	b, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		return nil, err
	}
	var all []mount
	for line := range strings.Lines(string(b)) {
		f := strings.Fields(line)
		if len(f) > 4 {
			all = append(all, mount{f[2], unescape(f[3]), unescape(f[4])})
		}
	}
	return all, nil
}

// unescape undoes the kernel's octal escapes in mountinfo.
func unescape(s string) string {
	if !strings.Contains(s, `\`) {
		return s
	}
	return strings.NewReplacer(`\040`, " ", `\011`, "\t", `\012`, "\n", `\134`, `\`, `\043`, "#").Replace(s)
}

// aliases are the other paths at which path can be seen, because its file
// system, or a part of it, is mounted more than once.
func aliases(mounts []mount, path string) []string {
	var at mount
	for _, m := range mounts { // later lines are on top of earlier ones
		if within(path, m.point) && len(m.point) >= len(at.point) {
			at = m
		}
	}
	if at.point == "" || at.root == "" {
		return nil
	}
	inside := filepath.Join(at.root, strings.TrimPrefix(path, strings.TrimSuffix(at.point, "/")))
	var all []string
	for _, m := range mounts {
		if m.dev != at.dev || m.point == at.point || !within(inside, m.root) {
			continue
		}
		all = append(all, filepath.Join(m.point, strings.TrimPrefix(inside, strings.TrimSuffix(m.root, "/"))))
	}
	return all
}

// systemFiles adds the files of /etc that the session needs, unless p has
// them: names come from guard's DNS, users from files alone.
func systemFiles(p initConfig) ([]File, error) {
	has := func(path string) bool {
		real, err := filepath.EvalSymlinks(path)
		if err != nil {
			real = path
		}
		return slices.ContainsFunc(p.Files, func(f File) bool { return f.Path == path || f.Path == real })
	}
	files := p.Files
	if !has("/etc/resolv.conf") {
		files = append(files, File{Path: "/etc/resolv.conf", Content: []byte("nameserver 127.0.0.1\noptions timeout:5 attempts:2\n")})
	}
	if !has("/etc/nsswitch.conf") {
		files = append(files, File{Path: "/etc/nsswitch.conf", Content: []byte("passwd: files\ngroup: files\nshadow: files\nhosts: files dns\n" +
			"networks: files\nprotocols: files\nservices: files\nethers: files\nrpc: files\n")})
	}
	home, name := p.Home, "agent"
	if home == "" {
		home = "/"
	}
	for _, e := range p.Agent.Env {
		if v, ok := strings.CutPrefix(e, "USER="); ok && v != "" && v != "root" && !strings.ContainsAny(v, ":\n/") {
			name = v
		}
	}
	for path, line := range map[string]string{
		"/etc/passwd": fmt.Sprintf("%s:x:%d:%d::%s:/bin/sh\n", name, p.UID, p.GID, home),
		"/etc/group":  fmt.Sprintf("%s:x:%d:\n", name, p.GID),
	} {
		b, err := os.ReadFile(path)
		if err != nil && !os.IsNotExist(err) {
			return nil, err
		}
		id := p.UID
		if path == "/etc/group" {
			id = p.GID
		}
		if has(path) || hasID(b, id) {
			continue
		}
		if len(b) > 0 && b[len(b)-1] != '\n' {
			b = append(b, '\n')
		}
		files = append(files, File{Path: path, Content: append(b, line...)})
	}
	return files, nil
}

// hasID says whether a passwd or group file has an entry for id.
func hasID(b []byte, id int) bool {
	for line := range strings.Lines(string(b)) {
		if f := strings.Split(strings.TrimSpace(line), ":"); len(f) > 2 && f[2] == strconv.Itoa(id) {
			return true
		}
	}
	return false
}
