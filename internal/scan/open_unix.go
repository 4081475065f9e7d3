//go:build unix

package scan

import (
	"io/fs"
	"os"
	"syscall"
)

// openFile opens a regular file for reading. It follows no link in the last name,
// and waits for no writer of a named pipe that took the file's place.
func openFile(path string) (*os.File, error) {
	f, err := os.OpenFile(path, os.O_RDONLY|syscall.O_NOFOLLOW|syscall.O_NONBLOCK|syscall.O_NOCTTY, 0)
	if err != nil {
		return nil, err
	}
	fi, err := f.Stat()
	if err == nil && !fi.Mode().IsRegular() {
		err = &fs.PathError{Op: "open", Path: path, Err: errSpecial}
	}
	if err != nil {
		f.Close()
		return nil, err
	}
	return f, nil
}
