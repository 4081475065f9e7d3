//go:build !unix

package scan

import (
	"io/fs"
	"os"
)

// openFile opens a regular file for reading, and follows no link in the last name.
func openFile(path string) (*os.File, error) {
	fi, err := os.Lstat(path)
	if err != nil {
		return nil, err
	}
	if !fi.Mode().IsRegular() {
		return nil, &fs.PathError{Op: "open", Path: path, Err: errSpecial}
	}
	return os.Open(path)
}
