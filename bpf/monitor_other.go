//go:build !linux || !(amd64 || arm64)

package bpf

import (
	"os"
	"time"
)

// Monitor is a Detector for processes that guard did not start. There is none on this
// system.
type Monitor struct{ Detector }

// OpenMonitor fails with a *NotSupportedError.
func OpenMonitor(o MonitorOptions) (*Monitor, error) {
	if err := o.check(); err != nil {
		return nil, err
	}
	return nil, Probe().Need(needs(Tracepoint)...)
}

// Own returns false.
func (*Monitor) Own(Event) bool { return false }

// Runs returns false.
func Runs(Event, string) bool { return false }

// Kin knows nobody.
func (*Monitor) Kin(int) (int, bool) { return 0, false }

// Follow returns os.ErrClosed.
func (*Monitor) Follow() error { return os.ErrClosed }

// TLS returns an empty report.
func (*Monitor) TLS() TLSReport { return TLSReport{} }

// Pieces hands on what processes write. There are none on this system.
type Pieces struct{}

// OpenPieces fails with a *NotSupportedError.
func OpenPieces(o Options) (*Pieces, error) {
	if err := o.check(); err != nil {
		return nil, err
	}
	return nil, Probe().Need(needs(Tracepoint)...)
}

// Read returns os.ErrClosed.
func (*Pieces) Read() (Piece, error) { return Piece{}, os.ErrClosed }

// SetDeadline does nothing.
func (*Pieces) SetDeadline(time.Time) {}

// Describe returns os.ErrClosed.
func (*Pieces) Describe([]byte) (Event, error) { return Event{}, os.ErrClosed }

// Stats returns os.ErrClosed.
func (*Pieces) Stats() (Stats, error) { return Stats{}, os.ErrClosed }

// Stop does nothing.
func (*Pieces) Stop() error { return nil }

// Close does nothing.
func (*Pieces) Close() error { return nil }
