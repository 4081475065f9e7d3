//go:build !linux

package main

import (
	"errors"
	"os"
)

func kernelLacks() string { return "searching writes in the kernel needs Linux" }

func pidNamespace(int) (uint64, error) { return 0, errors.ErrUnsupported }

func ownPIDNamespace() uint64 { return 0 }

func ownNamespace(int) (uint64, *os.File, error) { return 0, nil, errors.ErrUnsupported }

func rootsAlone(string) error { return errors.ErrUnsupported }

func openHelper(int, helperAsk) (detector, error) { return detector{}, errors.ErrUnsupported }

func helperRefuses() error { return errors.ErrUnsupported }

func gainedRights() bool { return false }
