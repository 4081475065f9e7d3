package testutil

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

func osKinds() kinds {
	// Without it an orphan belongs to the machine's init, and is not found.
	_ = unix.Prctl(unix.PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
	return kinds{
		"process": processes, "mount": mounts, "file descriptor": descriptors,
		"thread in another network namespace": netThreads, "network namespace": netNames, "control group": cgroups,
	}
}

// processes lists descendants that run. A process that ended and was not
// waited for shows by its pidfd.
func processes() (map[string]string, error) {
	entries, err := os.ReadDir("/proc")
	if err != nil {
		return nil, err
	}
	type proc struct{ parent, id, name string }
	procs := map[string]proc{}
	for _, e := range entries {
		if _, err := strconv.Atoi(e.Name()); err != nil {
			continue
		}
		b, err := os.ReadFile("/proc/" + e.Name() + "/stat")
		if err != nil {
			continue // it ended
		}
		// pid (name, may have anything in it) state ppid ... starttime
		open, end := strings.IndexByte(string(b), '('), strings.LastIndexByte(string(b), ')')
		f := strings.Fields(string(b[end+1:]))
		if open < 0 || len(f) < 20 || f[0] == "Z" || f[0] == "X" {
			continue
		}
		procs[e.Name()] = proc{f[1], e.Name() + "@" + f[19], string(b[open+1 : end])}
	}
	self := strconv.Itoa(os.Getpid())
	all := map[string]string{}
	for pid, p := range procs {
		for up, n := p.parent, 0; n < 100; n++ {
			if up == self {
				all[p.id] = fmt.Sprintf("%s (%s)", pid, p.name)
				break
			}
			next, ok := procs[up]
			if !ok {
				break
			}
			up = next.parent
		}
	}
	return all, nil
}

func mounts() (map[string]string, error) {
	b, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		return nil, err
	}
	all := map[string]string{}
	for line := range strings.Lines(string(b)) {
		if f := strings.Fields(line); len(f) > 4 {
			all[f[0]+" "+f[2]+" "+f[4]] = f[4]
		}
	}
	return all, nil
}

func descriptors() (map[string]string, error) {
	entries, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		return nil, err
	}
	all := map[string]string{}
	for _, e := range entries {
		target, err := os.Readlink("/proc/self/fd/" + e.Name())
		if err != nil {
			continue // the listing's own
		}
		all[e.Name()+" "+target] = e.Name() + " -> " + target
	}
	return all, nil
}

// netThreads lists the namespaces of the threads. (A goroutine that ends locked
// to the process's first thread leaves that thread behind, parked, in whatever
// namespace it went to: the runtime cannot end it.)
func netThreads() (map[string]string, error) {
	tasks, err := os.ReadDir("/proc/self/task")
	if err != nil {
		return nil, err
	}
	all := map[string]string{}
	for _, e := range tasks {
		if ns, err := os.Readlink("/proc/self/task/" + e.Name() + "/ns/net"); err == nil {
			all[ns] = e.Name() + " in " + ns
		}
	}
	return all, nil
}

func netNames() (map[string]string, error) {
	all := map[string]string{}
	entries, err := os.ReadDir("/run/netns")
	if errors.Is(err, fs.ErrNotExist) {
		return all, nil
	}
	for _, e := range entries {
		all[e.Name()] = e.Name()
	}
	return all, err
}

func cgroups() (map[string]string, error) {
	all := map[string]string{}
	err := filepath.WalkDir("/sys/fs/cgroup", func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return nil // it went away, or is not there
		}
		if d.IsDir() && strings.Contains(path, "guard") {
			all[path] = path
		}
		return nil
	})
	return all, err
}
