//go:build !linux

package main

import "errors"

func kernelLacks() string { return "searching writes in the kernel needs Linux" }

func pidNamespace(int) (uint64, error) { return 0, errors.ErrUnsupported }

func ownPIDNamespace() uint64 { return 0 }
