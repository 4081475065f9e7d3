//go:build unix && !linux

package pty

import "errors"

// reopen is Linux's: elsewhere a descriptor's other name may be the same open file.
func reopen(int) (int, error) { return -1, errors.ErrUnsupported }
