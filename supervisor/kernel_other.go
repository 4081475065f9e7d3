//go:build !linux

package supervisor

import (
	"net/netip"
	"os"
)

// There is no search in the kernel here: see package bpf.

func statKey(*os.File) ([2]uint64, bool) { return [2]uint64{}, false }

func keyOf(*os.File) (fileKey, bool) { return fileKey{}, false }

func hostDevices() map[uint64]bool { return nil }

func inodeOf(string) uint64 { return 0 }

func describe(*Find) {}

func isNull(Find) bool { return false }

func terminalKeys(*os.File) []fileKey { return nil }

func socketPeer(int, uint64) (netip.AddrPort, bool) { return netip.AddrPort{}, false }
