//go:build !linux

package sandbox

// Harden does nothing on this system.
func Harden() error { return nil }
