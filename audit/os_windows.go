package audit

import (
	"errors"
	"os"

	"golang.org/x/sys/windows"
)

// lock waits for the lock of f, shared or exclusive; closing f, or the end of
// the process, gives it back.
func lock(f *os.File, shared bool) error {
	var how uint32 = windows.LOCKFILE_EXCLUSIVE_LOCK
	if shared {
		how = 0
	}
	return windows.LockFileEx(windows.Handle(f.Fd()), how, 0, 1, 0, new(windows.Overlapped))
}

func unlock(f *os.File) error {
	return windows.UnlockFileEx(windows.Handle(f.Fd()), 0, 1, 0, new(windows.Overlapped))
}

// full says that the disk or a quota stopped a write.
func full(err error) bool {
	return errors.Is(err, windows.ERROR_DISK_FULL) || errors.Is(err, windows.ERROR_HANDLE_DISK_FULL)
}

// syncDir does nothing: Windows has no sync of folders, and NTFS journals renames.
func syncDir(string) error { return nil }
