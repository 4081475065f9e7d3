//go:build unix

package main

const ttyPath = "/dev/tty"
