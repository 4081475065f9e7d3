package sandbox

import "golang.org/x/sys/unix"

// Harden makes this process undumpable: no core file, and no other process of
// the same user reads its memory, environment or descriptors, or traces it
// (prctl(2), PR_SET_DUMPABLE). It is called after Start, not before: while it is
// in effect an unprivileged process cannot set up a user namespace for a child.
func Harden() error { return unix.Prctl(unix.PR_SET_DUMPABLE, 0, 0, 0, 0) }
