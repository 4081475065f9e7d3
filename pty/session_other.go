//go:build !unix

package pty

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
)

const canPoll = false

type live struct{}

var errNoTerminal = fmt.Errorf("terminal sessions need a Unix: %w", errors.ErrUnsupported)

// Run returns an error that wraps [errors.ErrUnsupported].
func (s *Session) Run(context.Context) error { return errNoTerminal }

// Suspend is Restore.
func (s *Session) Suspend() error { return s.Terminal.Restore() }

// Resume is Raw.
func (s *Session) Resume() error { return s.Terminal.Raw() }

// Wake does nothing.
func (s *Session) Wake() {}

// Start returns an error that wraps [errors.ErrUnsupported].
func Start(*exec.Cmd, uint16, uint16) (*os.File, error) { return nil, errNoTerminal }

type gate struct{}

func newPollSource(uintptr, *gate) source { return nil }

func writeFile(f *os.File, p []byte) error {
	_, err := f.Write(p)
	return err
}

// Relay returns an error that wraps [errors.ErrUnsupported].
func Relay(context.Context, *os.File, *os.File) error { return errNoTerminal }

// ErrGone is Over's error when there is no session on the terminal.
var ErrGone = errors.New("no session has the terminal")

// Over returns an error that wraps [errors.ErrUnsupported].
func (s *Session) Over(context.Context, func(rows, cols int) []string, func(k byte) bool) error {
	return errNoTerminal
}
