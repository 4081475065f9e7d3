//go:build !linux

package main

import "os"

// rawTerminal is of use during a session, of which there is none here.
func rawTerminal(*os.File) bool { return false }
