//go:build unix

package pty

import (
	"errors"
	"fmt"
	"os"
	"os/signal"
	"syscall"

	"golang.org/x/term"
)

// ReadHidden shows each prompt on tty and reads a line after it, with echo off
// from before the first prompt until after the last line, so that nothing of
// what is typed ahead or pasted is shown. A signal that would end the process
// meanwhile puts the terminal back first.
func ReadHidden(tty *os.File, prompts ...string) (lines [][]byte, err error) {
	fd := int(tty.Fd())
	before, err := term.GetState(fd)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrNotTerminal, err)
	}
	signals := make(chan os.Signal, 1)
	signal.Notify(signals, syscall.SIGINT, syscall.SIGTERM, syscall.SIGHUP, syscall.SIGQUIT)
	done := make(chan struct{})
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		select {
		case s := <-signals:
			_ = term.Restore(fd, before)
			fmt.Fprintln(tty)
			signal.Reset(s)
			_ = syscall.Kill(syscall.Getpid(), s.(syscall.Signal))
		case <-done:
		}
	}()
	defer func() {
		signal.Stop(signals)
		close(done)
		<-ended
		err = errors.Join(err, term.Restore(fd, before))
	}()
	if err := hush(fd); err != nil {
		return nil, fmt.Errorf("turn echo off: %w", err)
	}
	for _, p := range prompts {
		if _, err := tty.WriteString(p); err != nil {
			return nil, err
		}
		line, err := readLine(tty)
		tty.WriteString("\n")
		if err != nil {
			return nil, err
		}
		lines = append(lines, line)
	}
	return lines, nil
}

// readLine reads up to a newline and nothing past it.
func readLine(f *os.File) ([]byte, error) {
	var line []byte
	for one := make([]byte, 1); ; {
		n, err := f.Read(one)
		if n == 1 && one[0] == '\n' {
			return line, nil
		}
		if n == 1 {
			line = append(line, one[0])
		}
		if err != nil {
			if len(line) > 0 {
				return line, nil
			}
			return nil, err
		}
	}
}
