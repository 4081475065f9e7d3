//go:build !linux

package main

func firstPIDNamespace() bool { return false }
