//go:build !linux || !(amd64 || arm64)

package bpf

import "os"

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
func (*Monitor) Runs(Event, string) bool { return false }

// Kin knows nobody.
func (*Monitor) Kin(int) (int, bool) { return 0, false }

// Follow returns os.ErrClosed.
func (*Monitor) Follow() error { return os.ErrClosed }

// TLS returns an empty report.
func (*Monitor) TLS() TLSReport { return TLSReport{} }
