//go:build windows

package main

const ttyPath = "CONIN$"

// catchBrokenPipe has nothing to catch: there is no such signal.
func catchBrokenPipe() {}
