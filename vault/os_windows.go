package vault

import (
	"errors"
	"io/fs"
	"os"

	"golang.org/x/sys/windows"
)

// Windows has access lists in place of modes; a user's profile folder is
// closed to others as it is.
const (
	hasModes     = false
	openNoFollow = 0
)

func tryLock(f *os.File) (bool, error) {
	err := windows.LockFileEx(windows.Handle(f.Fd()), windows.LOCKFILE_EXCLUSIVE_LOCK|windows.LOCKFILE_FAIL_IMMEDIATELY,
		0, 1, 0, &windows.Overlapped{})
	if errors.Is(err, windows.ERROR_LOCK_VIOLATION) || errors.Is(err, windows.ERROR_IO_PENDING) {
		return false, nil
	}
	return err == nil, err
}

func ownedByUs(fs.FileInfo) error { return nil }

// syncDir does nothing: a folder cannot be flushed there, and MoveFileEx
// writes its change to the journal.
func syncDir(string) error { return nil }
