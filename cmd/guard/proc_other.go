//go:build !linux

package main

// processes says what the log records of a process: nothing where there is no /proc.
type processes struct{}

func (p *processes) hash(int) string { return "" }

func (p *processes) about(pid int, exe string, top int) (hash, above string) { return "", "" }

func ancestors(pid, top int) string { return "" }
