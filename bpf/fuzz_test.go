//go:build linux && (amd64 || arm64)

package bpf

import (
	"bytes"
	"encoding/binary"
	"testing"
)

// Whatever is in the ring, reading it does not panic, and gives nothing that is
// longer than the kernel's record.
func FuzzDecode(f *testing.F) {
	size := binary.Size(detectEvent{})
	f.Add(make([]byte, size))
	f.Add(bytes.Repeat([]byte{0xff}, size))
	f.Add([]byte{1})
	d := &Detector{names: map[uint32]string{1: "write"}}
	f.Fuzz(func(t *testing.T, raw []byte) {
		e, err := d.decode(raw)
		if (err == nil) != (len(raw) == size) {
			t.Fatalf("%d bytes: %v", len(raw), err)
		}
		if err == nil && (len(e.Comm) > 16 || len(e.Name) > 64 || e.Channel == "") {
			t.Fatalf("%+v", e)
		}
	})
}
