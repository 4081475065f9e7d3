package sandbox

import (
	"bytes"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"golang.org/x/sys/unix"
)

// Neither a read-only mount nor a network namespace stops connect(2) to a
// socket that has a path. Landlock does from ABI 9 on; an overlay does, too,
// since its inodes are its own, but a user namespace may not lay one over a
// folder in which others are mounted, / being one. So sockets are looked for and
// covered.

// maxDirEntries bounds how much of a folder is looked at for renamed sockets.
const maxDirEntries = 4096

// unixSockets finds the sockets that have paths in this network namespace:
// where they were bound; for relative names, in the working folder of every
// process that lets itself be looked at; and all others next to these, since a
// socket may be renamed after bind. lost counts relative names that led nowhere.
func unixSockets() (all []string, lost int, err error) {
	b, err := os.ReadFile("/proc/net/unix")
	if err != nil {
		return nil, 0, err
	}
	dirs := map[string]bool{}
	var relative []string
	_, b, _ = bytes.Cut(b, []byte{'\n'}) // the heading
	for line := range bytes.Lines(b) {
		name := unixName(string(bytes.TrimRight(line, "\n")))
		switch {
		case name == "" || name[0] == '@':
		case name[0] == '/':
			if isSocket(name) { // its folder may not be listable
				all = append(all, filepath.Clean(name))
			}
			dirs[filepath.Dir(filepath.Clean(name))] = true
		default:
			relative = append(relative, name)
		}
	}
	if len(relative) > 0 {
		slices.Sort(relative)
		relative = slices.Compact(relative)
		cwds, complete := workingFolders()
		for _, name := range relative {
			here := false
			for _, d := range cwds {
				p := filepath.Join(d, name)
				if isSocket(p) {
					here = true
					all = append(all, p)
				}
				if _, err := os.Stat(filepath.Dir(p)); err == nil {
					dirs[filepath.Dir(p)] = true
				}
			}
			if !here && !complete {
				lost++
			}
		}
	}
	for d := range dirs {
		if slices.ContainsFunc(fresh, func(f string) bool { return within(d, f) }) {
			continue // the session has its own
		}
		all = append(all, socketsIn(d)...)
	}
	slices.Sort(all)
	return slices.Compact(all), lost, nil
}

// fresh are folders of which nothing of the host is seen, unless it is shared.
var fresh = []string{"/proc", "/sys", "/dev"}

// unixName is the name at the end of a line of /proc/net/unix, which is as
// it was given to bind(2).
func unixName(line string) string {
	for range 7 {
		line = strings.TrimLeft(line, " ")
		i := strings.IndexByte(line, ' ')
		if i < 0 {
			return ""
		}
		line = line[i:]
	}
	return strings.TrimPrefix(line, " ")
}

// workingFolders lists those of all processes. complete says that none refused.
func workingFolders() (dirs []string, complete bool) {
	complete = true
	names, err := os.ReadDir("/proc")
	if err != nil {
		return nil, false
	}
	for _, n := range names {
		if c := n.Name()[0]; c < '0' || c > '9' {
			continue
		}
		d, err := os.Readlink("/proc/" + n.Name() + "/cwd")
		if errors.Is(err, fs.ErrPermission) {
			complete = false
		}
		if err == nil && filepath.IsAbs(d) && !slices.Contains(dirs, d) {
			dirs = append(dirs, d)
		}
	}
	return dirs, complete
}

// socketsIn lists the sockets in a folder.
func socketsIn(dir string) []string {
	f, err := os.Open(dir)
	if err != nil {
		return nil
	}
	defer f.Close()
	entries, _ := f.ReadDir(maxDirEntries)
	var all []string
	for _, e := range entries {
		if e.Type()&fs.ModeSocket != 0 {
			all = append(all, filepath.Join(dir, e.Name()))
		}
	}
	return all
}

func isSocket(path string) bool {
	var st unix.Stat_t
	return unix.Stat(path, &st) == nil && st.Mode&unix.S_IFMT == unix.S_IFSOCK
}
