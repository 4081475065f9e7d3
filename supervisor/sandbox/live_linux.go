package sandbox

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

// Masks during a session. When the host renames a file over one that is
// masked, the kernel drops the mask in every mount namespace, and the agent
// reads the new file. So stage 1 can mount another one, which appears in the
// agent's namespaces too: all mounts of stage 1 but /sys are shared, and a
// mount namespace that is made with a new user namespace gets them as slaves.
// Mounts travel down only, to the agent and to namespaces that it made of its
// own; that these stay slaves, mountRules sees to. What travels is a mount
// with another one on top of itself: the kernel lets the owner of a namespace
// unmount the lower one, which cannot be named, and locks the upper one.

// store keeps the content of masks, in a tmpfs that only stage 1 sees.
type store struct {
	dir   string
	mount int // a copy of it that is mounted nowhere, until keep
	n     int
	// shown has the name of what is shown at a path and nowhere else.
	shown map[string]string
}

// put makes a file that has the content and the mode of f.
func (s *store) put(f File) (name string, err error) {
	s.n++
	name = strconv.Itoa(s.n)
	return name, s.write(name, f)
}

func (s *store) write(name string, f File) error {
	mode := f.Mode.Perm()
	if mode == 0 {
		mode = 0o444
	}
	w, err := os.OpenFile(s.dir+"/"+name, os.O_WRONLY|os.O_CREATE, 0o600)
	if err != nil {
		return err
	}
	defer w.Close()
	// In this order a reader of a file that is shown already gets old content
	// and new, and nothing else.
	if _, err := w.Write(f.Content); err != nil {
		return err
	}
	if err := w.Truncate(int64(len(f.Content))); err != nil {
		return err
	}
	return w.Chmod(mode)
}

func (s *store) clone(name string) (int, error) {
	return clone(unix.AT_FDCWD, s.dir+"/"+name, false, attrReadOnly)
}

// propagate makes what stage 1 mounts from now on appear in the namespaces
// that are made from its own, except below /sys.
func propagate() error {
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_SHARED, ""); err != nil {
		return fmt.Errorf("make mounts shared: %w", err)
	}
	if err := unix.Mount("", bench, "", unix.MS_PRIVATE, ""); err != nil {
		return fmt.Errorf("make %s private: %w", bench, err)
	}
	return nil
}

// keep mounts the store over /sys of stage 1. The agent's namespace is a copy
// that was made before.
func (s *store) keep() error {
	defer unix.Close(s.mount)
	if err := unix.MoveMount(s.mount, "", unix.AT_FDCWD, bench, unix.MOVE_MOUNT_F_EMPTY_PATH); err != nil {
		return fmt.Errorf("keep the copies: %w", err)
	}
	return nil
}

// maskRequest asks stage 1 to show a file, or nothing, at paths.
type maskRequest struct {
	Paths []string // other than the first, they may be missing
	File  File     // without a path
	Hide  bool     // a folder may be there, and gets an empty one
}

func (s *store) mask(r *maskRequest) error {
	for i, p := range r.Paths {
		err := s.maskPath(p, r)
		if err != nil && (i == 0 || !absent(err)) {
			return fmt.Errorf("%s: %w", p, err)
		}
	}
	return nil
}

func (s *store) maskPath(path string, r *maskRequest) error {
	// The agent may put links in the place of folders at any time, so none is
	// followed; from here on there is a descriptor and no path.
	at, err := openNoLinks(path)
	if err != nil {
		return err
	}
	defer unix.Close(at)
	var st, own unix.Stat_t
	if err := unix.Fstat(at, &st); err != nil {
		return err
	}
	dir := st.Mode&unix.S_IFMT == unix.S_IFDIR
	if dir && !r.Hide {
		return unix.EISDIR
	}
	name, ok := s.shown[path]
	if ok && unix.Stat(s.dir+"/"+name, &own) == nil && own.Dev == st.Dev && own.Ino == st.Ino {
		if dir {
			return nil
		}
		return s.write(name, r.File) // still there
	}
	if dir {
		s.n++
		name = strconv.Itoa(s.n)
		err = os.Mkdir(s.dir+"/"+name, 0o555)
	} else {
		name, err = s.put(r.File)
	}
	if err != nil {
		return err
	}
	fd, err := s.stack(name)
	if err == nil {
		err = attachAt(fd, at, path)
	}
	if err != nil {
		os.Remove(s.dir + "/" + name)
		return err
	}
	if ok { // what was shown here is gone
		os.Remove(s.dir + "/" + s.shown[path])
	}
	s.shown[path] = name
	return nil
}

// openNoLinks opens the canonical path as the agent sees it.
func openNoLinks(path string) (int, error) {
	if !filepath.IsAbs(path) || filepath.Clean(path) != path || path == "/" {
		return -1, unix.EINVAL
	}
	root, err := unix.Open("/", unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return -1, err
	}
	defer unix.Close(root)
	return unix.Openat2(root, strings.TrimPrefix(path, "/"), &unix.OpenHow{
		Flags: unix.O_PATH | unix.O_CLOEXEC, Resolve: unix.RESOLVE_NO_SYMLINKS | unix.RESOLVE_NO_MAGICLINKS,
	})
}

// stack makes two mounts of a file of the store, one on top of the other.
func (s *store) stack(name string) (int, error) {
	place := s.dir + "/" + name
	lower, err := s.clone(name)
	if err != nil {
		return -1, err
	}
	defer unix.Close(lower)
	if err := unix.MoveMount(lower, "", unix.AT_FDCWD, place, unix.MOVE_MOUNT_F_EMPTY_PATH); err != nil {
		return -1, fmt.Errorf("mount the lower copy: %w", err)
	}
	defer unix.Unmount(place, unix.MNT_DETACH)
	upper, err := s.clone(name)
	if err != nil {
		return -1, err
	}
	defer unix.Close(upper)
	if err := unix.MoveMount(upper, "", lower, "", unix.MOVE_MOUNT_F_EMPTY_PATH|unix.MOVE_MOUNT_T_EMPTY_PATH); err != nil {
		return -1, fmt.Errorf("mount the upper copy: %w", err)
	}
	defer unix.Unmount(place, unix.MNT_DETACH)
	return clone(lower, "", true, attrReadOnly)
}

// Mask shows f at its path from now on, in the place of what is there on the
// host: a file that appeared or was replaced during the session. The path must
// be canonical: a symbolic link in it is refused, since the agent may have put
// it there. Where the path shows a copy already, that gets the new content.
//
// Between the change on the host and this call the agent may have read the
// file. And where the agent made a mount namespace of its own before, in which
// it has powers over mounts, it cannot unmount the mask, but can look below it:
// with an overlay whose lower layer is the folder, or a bind mount of the folder
// that leaves out what is mounted in it. Masks of Config.Files do not have that.
//
// The error is fs.ErrNotExist if there is no such path in the session, and
// errors.ErrUnsupported in tiers below Contained.
func (s *Sandbox) Mask(f File) error {
	return s.s.mask(&maskRequest{File: File{Content: f.Content, Mode: f.Mode}}, f.Path)
}

// Hide is Mask with nothing to see: a folder becomes an empty one, everything
// else an empty file.
func (s *Sandbox) Hide(path string) error {
	return s.s.mask(&maskRequest{Hide: true}, path)
}

func (s *session) mask(r *maskRequest, path string) error {
	if s.tier != Contained {
		return unsupported("the %s tier cannot replace files during a session", s.tier)
	}
	if !filepath.IsAbs(path) {
		return &fs.PathError{Op: "mask", Path: path, Err: errors.New("not an absolute path")}
	}
	mounts, err := mountInfo()
	if err != nil {
		return err
	}
	path = filepath.Clean(path)
	r.Paths = append([]string{path}, aliases(mounts, path)...)
	if _, err := s.ask(nil, message{Op: "mask", Mask: r}); err != nil {
		return fmt.Errorf("mask: %w", err)
	}
	return nil
}
