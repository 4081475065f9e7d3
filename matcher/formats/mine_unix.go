//go:build cgo && hyperscan && unix

package formats

import (
	"os"
	"syscall"
)

// mine says that a file belongs to this user.
func mine(info os.FileInfo) bool {
	s, ok := info.Sys().(*syscall.Stat_t)
	return ok && int(s.Uid) == os.Geteuid()
}
