package sandbox

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"golang.org/x/sys/unix"
)

// bench is where the new tree is put together: a tmpfs over this folder of the
// old one, whose own content nobody needs any more by then. It goes away with
// the old tree.
const bench = "/sys"

const (
	attrPlain    = unix.MOUNT_ATTR_NOSUID | unix.MOUNT_ATTR_NODEV
	attrReadOnly = attrPlain | unix.MOUNT_ATTR_RDONLY
)

// tree builds the file tree that the agent sees. It is used in stage 1, once.
type tree struct {
	c     *initConfig
	given map[string]int // mounts that the caller made, by path: see idmap_linux.go
	root  int            // the new root, O_PATH
	store store
	notes []string
	tty   *tty
}

// newFS makes a file system that is mounted nowhere yet. options are KEY or
// KEY=VALUE.
func newFS(kind string, attr int, options ...string) (int, error) {
	fd, err := unix.Fsopen(kind, unix.FSOPEN_CLOEXEC)
	if err != nil {
		return -1, fmt.Errorf("a new %s: %w", kind, err)
	}
	defer unix.Close(fd)
	for _, o := range options {
		k, v, has := strings.Cut(o, "=")
		if has {
			err = unix.FsconfigSetString(fd, k, v)
		} else {
			err = unix.FsconfigSetFlag(fd, k)
		}
		if err != nil {
			return -1, fmt.Errorf("a new %s with %s: %w", kind, o, err)
		}
	}
	if err := unix.FsconfigCreate(fd); err != nil {
		return -1, fmt.Errorf("a new %s: %w", kind, err)
	}
	m, err := unix.Fsmount(fd, unix.FSMOUNT_CLOEXEC, attr)
	if err != nil {
		return -1, fmt.Errorf("a new %s: %w", kind, err)
	}
	return m, nil
}

// clone copies the mount at path, with everything mounted below it if deep,
// and adds attr to the copy.
func clone(dir int, path string, deep bool, attr uint64) (int, error) {
	flags := uint(unix.OPEN_TREE_CLONE | unix.OPEN_TREE_CLOEXEC)
	set := uint(0)
	if path == "" {
		flags |= unix.AT_EMPTY_PATH
	}
	if deep {
		flags |= unix.AT_RECURSIVE
		set = unix.AT_RECURSIVE
	}
	fd, err := unix.OpenTree(dir, path, flags)
	if err != nil {
		return -1, fmt.Errorf("copy the mount of %s: %w", path, err)
	}
	if err := unix.MountSetattr(fd, "", set|unix.AT_EMPTY_PATH, &unix.MountAttr{Attr_set: attr}); err != nil {
		unix.Close(fd)
		return -1, fmt.Errorf("restrict the mount of %s: %w", path, err)
	}
	return fd, nil
}

// find opens path as the agent will see it, following symbolic links inside
// the new root.
func (t *tree) find(path string, flags uint64) (int, error) {
	return unix.Openat2(t.root, strings.TrimPrefix(path, "/"), &unix.OpenHow{
		Flags: unix.O_PATH | unix.O_CLOEXEC | flags, Resolve: unix.RESOLVE_IN_ROOT | unix.RESOLVE_NO_MAGICLINKS,
	})
}

// attach puts the mount fd at path, and closes it.
func (t *tree) attach(fd int, path string) error {
	at, err := t.find(path, 0)
	if err != nil {
		unix.Close(fd)
		return fmt.Errorf("find %s: %w", path, err)
	}
	defer unix.Close(at)
	return attachAt(fd, at, path)
}

func attachAt(fd, at int, path string) error {
	defer unix.Close(fd)
	if err := unix.MoveMount(fd, "", at, "", unix.MOVE_MOUNT_F_EMPTY_PATH|unix.MOVE_MOUNT_T_EMPTY_PATH); err != nil {
		return fmt.Errorf("mount on %s: %w", path, err)
	}
	return nil
}

// fresh puts a new file system at path, where path is a folder of its own.
func (t *tree) fresh(path, kind string, attr int, options ...string) error {
	if fd, err := t.find(path, unix.O_NOFOLLOW|unix.O_DIRECTORY); err != nil {
		return nil // a link (it leads to one that is fresh), or not there
	} else {
		unix.Close(fd)
	}
	fd, err := newFS(kind, attr, options...)
	if err != nil {
		return err
	}
	return t.attach(fd, path)
}

// build makes the new tree and changes to it. After it, nothing of the old one
// can be reached. What is the same in every session is marked as lacking if it
// fails; what depends on the configuration, or on what a project has in its
// folders, is not: nobody gets a weaker tier by that.
func (t *tree) build() error {
	src, err := t.base()
	if err != nil {
		return lacking(err)
	}
	if src, err = t.sources(src); err != nil {
		return err
	}
	if err := t.home(src); err != nil {
		return err
	}
	for _, p := range t.c.Writable {
		fd, ok := src[p]
		if !ok {
			continue
		}
		at, err := t.ensure(p, fd)
		if err != nil {
			return fmt.Errorf("share %s: %w", p, err)
		}
		err = attachAt(fd, at, p)
		unix.Close(at)
		if err != nil {
			return err
		}
	}
	t.store = store{dir: bench, shown: map[string]string{}}
	if err := t.masks(); err != nil {
		return err
	}
	if t.store.mount, err = clone(unix.AT_FDCWD, bench, false, attrPlain); err != nil {
		return lacking(err)
	}
	if err := t.enter(); err != nil {
		return lacking(err)
	}
	return lacking(propagate())
}

// base makes the part of the tree that is the same in every session.
func (t *tree) base() (src map[string]int, err error) {
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
		return nil, fmt.Errorf("make mounts private: %w", err)
	}
	// Stage 1 is not dumpable, but its files in /proc belong to its uid 0, which
	// is the agent's uid for the host: oom_score_adj could be written. So what a
	// process may not trace it does not see.
	proc, err := newFS("proc", attrPlain|unix.MOUNT_ATTR_NOEXEC, "hidepid=ptraceable")
	if err != nil {
		return nil, err
	}
	sys, err := newFS("sysfs", attrReadOnly|unix.MOUNT_ATTR_NOEXEC)
	if err != nil { // hosts that mask parts of /sys forbid a new one: an empty one it is
		if sys, err = newFS("tmpfs", attrReadOnly|unix.MOUNT_ATTR_NOEXEC, "mode=0555"); err != nil {
			return nil, err
		}
	}
	root, err := clone(unix.AT_FDCWD, "/", true, attrReadOnly)
	if err != nil {
		return nil, err
	}
	src = map[string]int{}
	for name := range devices {
		if fd, err := clone(unix.AT_FDCWD, "/dev/"+name, false, unix.MOUNT_ATTR_NOSUID|unix.MOUNT_ATTR_NOEXEC); err == nil {
			src["/dev/"+name] = fd
		}
	}
	for _, p := range keptInRun {
		if fd, err := clone(unix.AT_FDCWD, p, false, attrReadOnly); err == nil {
			src[p] = fd
		}
	}
	if err := t.openBench(root); err != nil {
		return nil, err
	}
	if err := t.attach(proc, "/proc"); err != nil {
		return nil, err
	}
	if err := t.attach(sys, "/sys"); err != nil {
		return nil, err
	}
	for _, f := range []struct{ path, options string }{{"/tmp", "mode=1777"}, {"/var/tmp", "mode=1777"}, {"/run", "mode=0755"}, {"/var/run", "mode=0755"}} {
		if err := t.fresh(f.path, "tmpfs", attrPlain, f.options); err != nil {
			return nil, err
		}
	}
	if err := t.runFolder(src); err != nil {
		return nil, err
	}
	return src, t.devices(src)
}

// sources adds the mounts of the old tree that a session shares, by path. src
// has those that every session gets.
func (t *tree) sources(src map[string]int) (map[string]int, error) {
	for p, fd := range t.given {
		src[p] = fd
	}
	for _, p := range t.c.Writable {
		if _, ok := src[p]; ok {
			continue
		}
		fd, err := clone(unix.AT_FDCWD, p, true, attrPlain)
		if errors.Is(err, fs.ErrNotExist) {
			t.notes = append(t.notes, p+" does not exist, so it is not shared")
			continue
		} else if err != nil {
			return nil, err
		}
		src[p] = fd
	}
	if _, ok := src[srcLower]; !ok && t.c.Home != "" {
		fd, err := clone(unix.AT_FDCWD, t.c.Home, false, attrPlain)
		if err != nil {
			t.notes = append(t.notes, fmt.Sprintf("%s cannot be overlaid, so what the agent writes there is refused outside of shared paths: %v", t.c.Home, err))
		} else {
			src[srcLower] = fd
		}
	}
	if _, ok := src[srcUpper]; !ok && t.c.HomeUpper != "" {
		fd, err := clone(unix.AT_FDCWD, t.c.HomeUpper, false, attrPlain)
		if err != nil {
			return nil, err
		}
		src[srcUpper] = fd
	}
	return src, nil
}

// Names in tree.given and sources that are no paths of the agent's.
const (
	srcLower = "lower" // the host's Home
	srcUpper = "upper" // HomeUpper
)

func (t *tree) openBench(root int) error {
	if err := unix.Mount("tmpfs", bench, "tmpfs", unix.MS_NOSUID|unix.MS_NODEV, "mode=0700"); err != nil {
		return fmt.Errorf("mount a tmpfs: %w", err)
	}
	for _, d := range []string{"root", "empty", "lower", "upper", "home"} {
		if err := os.Mkdir(bench+"/"+d, 0o755); err != nil {
			return err
		}
	}
	if err := os.Chmod(bench+"/empty", 0o555); err != nil {
		return err
	}
	if err := os.WriteFile(bench+"/none", nil, 0o444); err != nil {
		return err
	}
	if err := unix.MoveMount(root, "", unix.AT_FDCWD, bench+"/root", unix.MOVE_MOUNT_F_EMPTY_PATH); err != nil {
		return fmt.Errorf("mount the new root: %w", err)
	}
	unix.Close(root)
	var err error
	t.root, err = unix.Open(bench+"/root", unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	return err
}

// home mounts an overlay on Home whose lower layer is the host's.
func (t *tree) home(src map[string]int) error {
	lower, ok := src[srcLower]
	if !ok || slices.Contains(t.c.Writable, t.c.Home) {
		return nil
	}
	at, err := t.ensure(t.c.Home, lower)
	if err != nil {
		return fmt.Errorf("find %s: %w", t.c.Home, err)
	}
	defer unix.Close(at)
	if err := unix.MoveMount(lower, "", unix.AT_FDCWD, bench+"/lower", unix.MOVE_MOUNT_F_EMPTY_PATH); err != nil {
		return fmt.Errorf("mount the lower layer of %s: %w", t.c.Home, err)
	}
	unix.Close(lower)
	if upper, ok := src[srcUpper]; ok {
		if err := unix.MoveMount(upper, "", unix.AT_FDCWD, bench+"/upper", unix.MOVE_MOUNT_F_EMPTY_PATH); err != nil {
			return fmt.Errorf("mount the upper layer of %s: %w", t.c.Home, err)
		}
		unix.Close(upper)
	} else {
		for _, d := range []string{"upper", "work"} {
			if err := os.Mkdir(bench+"/upper/"+d, 0o755); err != nil {
				return err
			}
		}
		// The top folder's permissions are those of the upper layer.
		if st, err := os.Stat(bench + "/lower"); err == nil {
			if err := os.Chmod(bench+"/upper/upper", st.Mode().Perm()); err != nil {
				return err
			}
		}
	}
	err = unix.Mount("overlay", bench+"/home", "overlay", unix.MS_NOSUID|unix.MS_NODEV,
		"userxattr,lowerdir="+bench+"/lower,upperdir="+bench+"/upper/upper,workdir="+bench+"/upper/work")
	if err != nil {
		t.notes = append(t.notes, fmt.Sprintf("%s cannot be overlaid, so what the agent writes there is refused outside of shared paths: %v", t.c.Home, err))
		// As it is, read-only: through the copy, since the agent's uid may not
		// be able to enter the real one.
		fd, err := unix.OpenTree(unix.AT_FDCWD, bench+"/lower", unix.OPEN_TREE_CLONE|unix.OPEN_TREE_CLOEXEC)
		if err == nil {
			err = unix.MountSetattr(fd, "", unix.AT_EMPTY_PATH, &unix.MountAttr{Attr_set: attrReadOnly})
		}
		if err != nil {
			return fmt.Errorf("show %s read-only: %w", t.c.Home, err)
		}
		return attachAt(fd, at, t.c.Home)
	}
	if err := unix.MoveMount(unix.AT_FDCWD, bench+"/home", at, "", unix.MOVE_MOUNT_T_EMPTY_PATH); err != nil {
		return fmt.Errorf("mount on %s: %w", t.c.Home, err)
	}
	return nil
}

// ensure opens the place for the mount like at path. What is missing is made,
// where the tree is fresh; a folder that the agent may not enter is covered by
// an empty one first.
func (t *tree) ensure(path string, like int) (int, error) {
	at, err := t.find(path, 0)
	if err == nil {
		return at, nil
	}
	var st unix.Stat_t
	if err := unix.Fstat(like, &st); err != nil {
		return -1, err
	}
	return t.make(path, st.Mode&unix.S_IFMT == unix.S_IFDIR)
}

func (t *tree) make(path string, dir bool) (int, error) {
	parent := filepath.Dir(path)
	if parent == path {
		return -1, unix.ENOENT
	}
	at, err := t.find(parent, unix.O_DIRECTORY)
	if err != nil {
		if at, err = t.make(parent, true); err != nil {
			return -1, err
		}
	}
	err = makeIn(at, filepath.Base(path), dir)
	if errors.Is(err, unix.EACCES) {
		unix.Close(at)
		if err := t.fresh(parent, "tmpfs", attrPlain, "mode=0755"); err != nil {
			return -1, err
		}
		if at, err = t.find(parent, unix.O_DIRECTORY); err != nil {
			return -1, err
		}
		err = makeIn(at, filepath.Base(path), dir)
	}
	unix.Close(at)
	if err != nil {
		return -1, err
	}
	return t.find(path, 0)
}

func makeIn(at int, name string, dir bool) error {
	if dir {
		return unix.Mkdirat(at, name, 0o755)
	}
	return makeFile(at, name)
}

func makeFile(at int, name string) error {
	fd, err := unix.Openat(at, name, unix.O_CREAT|unix.O_EXCL|unix.O_WRONLY|unix.O_CLOEXEC, 0o644)
	if err != nil {
		return fmt.Errorf("make %s: %w", name, err)
	}
	return unix.Close(fd)
}

// enter makes the new tree the root and lets go of the old one.
func (t *tree) enter() error {
	if err := unix.Fchdir(t.root); err != nil {
		return fmt.Errorf("enter the new root: %w", err)
	}
	unix.Close(t.root)
	if err := unix.PivotRoot(".", "."); err != nil {
		return fmt.Errorf("pivot_root: %w", err)
	}
	if err := unix.Unmount(".", unix.MNT_DETACH); err != nil {
		return fmt.Errorf("let go of the old root: %w", err)
	}
	return unix.Chdir("/")
}
