//go:build !linux

package sandbox

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"runtime"
	"syscall"
)

type session struct{}

// Stage runs nothing here: only the Linux sandbox runs its own executable again.
func Stage([]string) (handled bool, code int) { return false, 0 }

func errSystem() error { return unsupported("no sandbox on %s", runtime.GOOS) }

// Probe says that there is no sandbox for this system.
func Probe() Report {
	return Report{Tier: None, Checks: []Check{{Name: "sandbox", Reason: errSystem().Error()}}}
}

// Start fails with an error that is errors.ErrUnsupported.
func Start(context.Context, Config) (*Sandbox, error) {
	return nil, &StartError{Code: 125, Op: "start the sandbox", Err: errSystem()}
}

// Dial fails with an error that is errors.ErrUnsupported.
func (s *Sandbox) Dial(context.Context, int) (net.Conn, error) { return nil, errSystem() }

// Signal fails with an error that is errors.ErrUnsupported.
func (s *Sandbox) Signal(syscall.Signal) error { return errSystem() }

// Resize fails with an error that is errors.ErrUnsupported.
func (s *Sandbox) Resize(rows, cols uint16) error { return errSystem() }

// Events never sends.
func (s *Sandbox) Events() <-chan Event { return nil }

// Pid is 0.
func (s *Sandbox) Pid() int { return 0 }

// Close does nothing.
func (s *Sandbox) Close() error { return nil }

// Conn is a connection that an agent made.
type Conn struct{ net.Conn }

// Dst is where the agent wanted to connect to.
func (c *Conn) Dst() netip.AddrPort { return netip.AddrPort{} }

// Process finds nothing.
func (c *Conn) Process() (pid int, exe string) { return 0, "" }

// Unavailable says that err means that a tier is not to be had here.
func Unavailable(err error) bool { return errors.Is(err, errors.ErrUnsupported) }

// Mask fails with an error that is errors.ErrUnsupported.
func (s *Sandbox) Mask(File) error { return errSystem() }

// Hide fails with an error that is errors.ErrUnsupported.
func (s *Sandbox) Hide(string) error { return errSystem() }
