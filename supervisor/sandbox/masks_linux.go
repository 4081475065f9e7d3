package sandbox

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"
)

// masks puts the read-only, the hidden and the replaced paths on top.
func (t *tree) masks() error {
	for _, p := range t.c.ReadOnly {
		at, err := t.find(p, 0)
		if absent(err) {
			continue
		} else if err != nil {
			return fmt.Errorf("find %s: %w", p, err)
		}
		fd, err := clone(at, "", true, attrReadOnly)
		if err == nil {
			err = attachAt(fd, at, p)
		}
		unix.Close(at)
		if err != nil {
			return fmt.Errorf("make %s read-only: %w", p, err)
		}
	}
	for _, p := range append(t.c.Hidden, t.c.Sockets...) {
		if err := t.hide(p); err != nil {
			return fmt.Errorf("hide %s: %w", p, err)
		}
	}
	names := make([]string, len(t.c.Files))
	shared := map[string]bool{}
	for i := range t.c.Files {
		if i < len(t.c.Same) && t.c.Same[i] > 0 {
			names[i] = names[t.c.Same[i]-1]
			shared[names[i]] = true
			continue
		}
		var err error
		if names[i], err = t.store.put(t.c.Files[i]); err != nil {
			return fmt.Errorf("replace %s: %w", t.c.Files[i].Path, err)
		}
	}
	for i, f := range t.c.Files {
		if err := t.replace(f, names[i], shared[names[i]]); err != nil {
			return fmt.Errorf("replace %s: %w", f.Path, err)
		}
	}
	return t.sshFolder()
}

// absent says that there is nothing at a path that this uid can get at; the
// agent, with the same uid and fewer powers, cannot either.
func absent(err error) bool {
	return errors.Is(err, unix.ENOENT) || errors.Is(err, unix.ENOTDIR) || errors.Is(err, unix.EACCES)
}

func (t *tree) hide(path string) error {
	at, err := t.find(path, 0)
	if absent(err) {
		return nil
	} else if err != nil {
		return err
	}
	defer unix.Close(at)
	var st unix.Stat_t
	if err := unix.Fstat(at, &st); err != nil {
		return err
	}
	with := bench + "/none"
	if st.Mode&unix.S_IFMT == unix.S_IFDIR {
		with = bench + "/empty"
	}
	fd, err := clone(unix.AT_FDCWD, with, false, attrReadOnly|unix.MOUNT_ATTR_NOEXEC)
	if err != nil {
		return err
	}
	return attachAt(fd, at, path)
}

// replace shows the file called name in the store at a path. A path that is not
// there is made if it can be; otherwise it is left out, and noted.
func (t *tree) replace(f File, name string, shared bool) error {
	at, err := t.find(f.Path, 0)
	if absent(err) {
		target := f.Path
		if link, err := os.Readlink(f.Path); err == nil { // dangles: what it pointed to was in a folder that is fresh now
			if target = link; !filepath.IsAbs(link) {
				target = filepath.Join(filepath.Dir(f.Path), link)
			}
		}
		if at, err = t.make(target, false); err != nil {
			t.notes = append(t.notes, fmt.Sprintf("%s cannot be shown: %v", f.Path, err))
			return nil
		}
	} else if err != nil {
		return err
	}
	defer unix.Close(at)
	fd, err := t.store.clone(name)
	if err != nil {
		return err
	}
	if !shared {
		t.store.shown[f.Path] = name
	}
	return attachAt(fd, at, f.Path)
}

// sshFolder shows /etc/ssh as a copy owned by the user: ssh refuses files that
// belong to a uid that the session does not have ("Bad owner").
func (t *tree) sshFolder() error {
	at, err := t.find("/etc/ssh", unix.O_DIRECTORY)
	if err != nil {
		return nil
	}
	defer unix.Close(at)
	to := bench + "/ssh"
	if err := os.Mkdir(to, 0o755); err != nil {
		return err
	}
	for _, pattern := range []string{"/etc/ssh/ssh_config", "/etc/ssh/ssh_known_hosts*", "/etc/ssh/ssh_config.d/*"} {
		names, err := filepath.Glob(pattern)
		if err != nil {
			return err
		}
		for _, name := range names {
			b, err := os.ReadFile(name)
			if err != nil {
				continue
			}
			file := to + strings.TrimPrefix(name, "/etc/ssh")
			if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
				return err
			}
			if err := os.WriteFile(file, b, 0o644); err != nil {
				return err
			}
		}
	}
	fd, err := clone(unix.AT_FDCWD, to, false, attrReadOnly)
	if err != nil {
		return err
	}
	return attachAt(fd, at, "/etc/ssh")
}
