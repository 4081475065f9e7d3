//go:build !linux || !(amd64 || arm64)

package bpf

import (
	"errors"
	"os"
	"runtime"
)

// Detector finds needles in what a session's processes write. There is none on
// this system.
type Detector struct{}

// Probe says that there is nothing.
func Probe() Report {
	r := Report{Kernel: runtime.GOOS + "/" + runtime.GOARCH}
	for _, name := range featureNames() {
		r.Features = append(r.Features, Feature{Name: name, Reason: "needs Linux on amd64 or arm64"})
	}
	return r
}

// OpenDetector fails with a *NotSupportedError.
func OpenDetector(o Options) (*Detector, error) {
	if err := o.check(); err != nil {
		return nil, err
	}
	if o.Refuse {
		return nil, Probe().Need(needs(LSM)...)
	}
	return nil, Probe().Need(needs(Tracepoint)...)
}

// Prepared is there on no other system than Linux.
type Prepared struct{}

// Prepare fails as OpenDetector does.
func Prepare(o Options) (*Prepared, error) {
	o.PIDNamespace = 1
	_, err := OpenDetector(o)
	return nil, err
}

// Watch returns os.ErrClosed.
func (*Prepared) Watch(uint64, []Needle) (*Detector, error) { return nil, os.ErrClosed }

// Close does nothing.
func (*Prepared) Close() error { return nil }

// Via returns "".
func (*Detector) Via() string { return "" }

// SetNeedles returns os.ErrClosed.
func (*Detector) SetNeedles([]Needle) (uint64, error) { return 0, os.ErrClosed }

// SetHashed returns os.ErrClosed.
func (*Detector) SetHashed(HashKey, []Needle, []HashedNeedle) (uint64, []int, error) {
	return 0, nil, os.ErrClosed
}

// Read returns os.ErrClosed.
func (*Detector) Read() (Event, error) { return Event{}, os.ErrClosed }

// Stats returns os.ErrClosed.
func (*Detector) Stats() (Stats, error) { return Stats{}, os.ErrClosed }

// Stop does nothing.
func (*Detector) Stop() error { return nil }

// Close does nothing.
func (*Detector) Close() error { return nil }

// Room is 0 here.
func Room() int { return 0 }

// CgroupID returns errors.ErrUnsupported.
func CgroupID(string) (uint64, error) { return 0, errors.ErrUnsupported }
