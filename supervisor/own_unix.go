//go:build unix

package supervisor

import (
	"io/fs"
	"os"
	"syscall"
)

// noFollow refuses a symlink as the last part of a path.
const noFollow = syscall.O_NOFOLLOW

// ours says that a file belongs to guard's user.
func ours(fi fs.FileInfo) bool {
	st, ok := fi.Sys().(*syscall.Stat_t)
	return ok && int(st.Uid) == os.Geteuid()
}
