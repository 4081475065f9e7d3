//go:build !unix

package main

import (
	"io/fs"
	"os"
)

// otherNames says that a file has hard links; what the file's information does not say.
func otherNames(fs.FileInfo) bool { return false }

// keepOwner has nothing to do: a new file has the folder's rights.
func keepOwner(*os.File, fs.FileInfo) error { return nil }

// foreignOwner says nothing here: the file's information has no owner.
func foreignOwner(fs.FileInfo) bool { return false }
