package vault

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"time"
)

const (
	fileName = "vault.gv1"
	bakName  = "vault.gv1.bak"
	tmpName  = "vault.gv1.tmp"
	lockName = "vault.lock"

	lockWait = 10 * time.Second
)

// makeDir makes dir, mode 0700, and checks it.
func makeDir(dir string) error {
	if dir == "" {
		return errors.New("no folder for the vault: set GUARD_HOME")
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return fmt.Errorf("make the vault's folder: %w", err)
	}
	return checkDir(dir)
}

// checkDir makes sure that only its owner, who is us, gets into dir. A mode
// that lets others in is mended.
func checkDir(dir string) error {
	f, err := os.Open(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("%w in %s: `guard init` makes one", ErrNoVault, dir)
	}
	if err != nil {
		return fmt.Errorf("open the vault's folder: %w", err)
	}
	defer f.Close()
	return mend(f, 0o700)
}

// mend checks an open file's owner and takes away the permissions that others
// have on it.
func mend(f *os.File, mode fs.FileMode) error {
	fi, err := f.Stat()
	if err != nil {
		return err
	}
	if err := ownedByUs(fi); err != nil {
		return fmt.Errorf("%s: %w", f.Name(), err)
	}
	if !hasModes || fi.Mode().Perm()&^mode == 0 {
		return nil
	}
	if err := f.Chmod(mode); err != nil {
		return fmt.Errorf("%s: %w: mode %#o lets others in, and it cannot be changed to %#o: %w", f.Name(), ErrUnsafe, fi.Mode().Perm(), mode, err)
	}
	return nil
}

// openRegular opens a plain file for reading; not a link, and no waiting for a
// pipe's other end.
func openRegular(path string) (*os.File, fs.FileInfo, error) {
	f, err := os.OpenFile(path, os.O_RDONLY|openNoFollow, 0)
	if err != nil {
		return nil, nil, err
	}
	fi, err := f.Stat()
	if err == nil && !fi.Mode().IsRegular() {
		err = fmt.Errorf("%s: %w: not a plain file", path, ErrUnsafe)
	}
	if err != nil {
		f.Close()
		return nil, nil, err
	}
	return f, fi, nil
}

func openVault(dir string) (*os.File, fs.FileInfo, error) {
	f, fi, err := openRegular(filepath.Join(dir, fileName))
	if errors.Is(err, fs.ErrNotExist) {
		hint := "`guard init` makes one"
		if _, err := os.Lstat(filepath.Join(dir, bakName)); err == nil {
			hint = fmt.Sprintf("there is a backup: rename %s to %s", bakName, fileName)
		}
		return nil, nil, fmt.Errorf("%w in %s: %s", ErrNoVault, dir, hint)
	}
	if err != nil {
		return nil, nil, fmt.Errorf("open the vault: %w", err)
	}
	return f, fi, nil
}

// readVault reads the whole file.
func readVault(dir string) ([]byte, fs.FileInfo, error) {
	f, fi, err := openVault(dir)
	if err != nil {
		return nil, nil, err
	}
	defer f.Close()
	if err := mend(f, 0o600); err != nil {
		return nil, nil, err
	}
	if fi.Size() > maxFile+64 {
		return nil, nil, fmt.Errorf("%s: %w", f.Name(), corrupt("%d bytes are too many for a vault", fi.Size()))
	}
	raw := make([]byte, fi.Size())
	if _, err := io.ReadFull(f, raw); err != nil {
		return nil, nil, fmt.Errorf("read the vault: %w", err)
	}
	return raw, fi, nil
}

// unchanged says whether the file is still the one of stamp and gen. Every
// write makes a new file; the generation tells two apart that got the same
// inode within one tick of the file system's clock.
func unchanged(dir string, stamp fs.FileInfo, gen uint64) (bool, error) {
	f, fi, err := openVault(dir)
	if err != nil {
		return false, err
	}
	defer f.Close()
	if !os.SameFile(fi, stamp) || fi.Size() != stamp.Size() || !fi.ModTime().Equal(stamp.ModTime()) {
		return false, nil
	}
	b := make([]byte, prefixSize)
	if _, err := io.ReadFull(f, b); err != nil {
		return false, nil
	}
	g, err := generation(b)
	return err == nil && g == gen, nil
}

// lockDir waits for the one lock that every writer takes. The lock file is
// never renamed or removed.
func lockDir(dir string) (unlock func(), err error) {
	f, err := os.OpenFile(filepath.Join(dir, lockName), os.O_RDWR|os.O_CREATE|openNoFollow, 0o600)
	if err != nil {
		return nil, fmt.Errorf("open the vault's lock: %w", err)
	}
	for end := time.Now().Add(lockWait); ; time.Sleep(2 * time.Millisecond) {
		got, err := tryLock(f)
		if err != nil {
			f.Close()
			return nil, fmt.Errorf("lock the vault: %w", err)
		}
		if got {
			return func() { f.Close() }, nil
		}
		if time.Now().After(end) {
			f.Close()
			return nil, fmt.Errorf("lock %s: %w for more than %v", f.Name(), ErrBusy, lockWait)
		}
	}
}

// replace makes raw the vault file, durably, and keeps the file that was there
// as the backup. Caller holds the lock. If it fails, the old file is in place,
// or, where only the last sync failed, the new one is.
func replace(dir string, raw []byte) (stamp fs.FileInfo, err error) {
	tmp, cur := filepath.Join(dir, tmpName), filepath.Join(dir, fileName)
	if err := os.Remove(tmp); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, err // what a killed writer left
	}
	if stamp, err = writeNew(tmp, raw, 0o600); err != nil {
		return nil, err
	}
	if err := backup(cur, filepath.Join(dir, bakName)); err != nil {
		os.Remove(tmp)
		return nil, fmt.Errorf("keep the generation before: %w", err)
	}
	if err := os.Rename(tmp, cur); err != nil {
		os.Remove(tmp)
		return nil, err
	}
	return stamp, syncDir(dir)
}

// writeNew makes a file that was not there, durably but for its name.
func writeNew(path string, b []byte, mode fs.FileMode) (fi fs.FileInfo, err error) {
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL|openNoFollow, mode)
	if err != nil {
		return nil, err
	}
	_, err = f.Write(b)
	if err == nil {
		err = f.Sync()
	}
	if err == nil {
		fi, err = f.Stat()
	}
	if cerr := f.Close(); err == nil {
		err = cerr
	}
	if err != nil {
		os.Remove(path)
		return nil, err
	}
	return fi, nil
}

// backup gives the file cur the second name bak, in place of what had it.
func backup(cur, bak string) error {
	next := bak + ".tmp"
	if err := os.Remove(next); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	err := os.Link(cur, next)
	if errors.Is(err, fs.ErrNotExist) {
		return nil // the first write
	}
	if err != nil { // a file system without links
		b, err := os.ReadFile(cur)
		if err != nil {
			return err
		}
		if _, err := writeNew(next, b, 0o600); err != nil {
			return err
		}
	}
	if err := os.Rename(next, bak); err != nil {
		return err
	}
	// Where both names were one file already, rename does nothing (POSIX) and
	// leaves the first.
	if err := os.Remove(next); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return nil
}

// TryLock takes the lock of the file at path, which it makes, unless another process has it:
// ErrBusy. The lock ends with release, or the process.
func TryLock(path string) (release func(), err error) {
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE|openNoFollow, 0o600)
	if err != nil {
		return nil, fmt.Errorf("open a lock: %w", err)
	}
	got, err := tryLock(f)
	if err == nil && !got {
		err = ErrBusy
	}
	if err != nil {
		f.Close()
		return nil, fmt.Errorf("take the lock %s: %w", path, err)
	}
	return func() { f.Close() }, nil
}
