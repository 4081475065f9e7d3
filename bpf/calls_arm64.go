//go:build linux

package bpf

func legacySearched() map[uint32]call { return nil }
func legacyNamed() map[uint32]string  { return nil }
