//go:build linux

package bpf

func legacySearched() map[uint32]call { return nil }
