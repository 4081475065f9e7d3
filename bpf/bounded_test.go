//go:build linux && (amd64 || arm64)

package bpf

import (
	"errors"
	"os"
	"strings"
	"testing"
)

// withoutLoop skips where the kernel has bpf_loop, which every one since 5.17 has.
func withoutLoop(t *testing.T) {
	t.Helper()
	if probed().Has(Loop) || os.Getuid() != 0 {
		t.Skip("this is for kernels without bpf_loop")
	}
}

// A kernel without bpf_loop refuses nothing, and says what it lacks.
func TestRefuseNeedsLoops(t *testing.T) {
	withoutLoop(t)
	_, err := OpenDetector(Options{PIDNamespace: 1, Refuse: true})
	if !errors.Is(err, ErrNotSupported) || !strings.Contains(err.Error(), Loop) {
		t.Errorf("Refuse: %v", err)
	}
	if _, err := OpenPieces(Options{PIDNamespace: 1}); !errors.Is(err, ErrNotSupported) || !strings.Contains(err.Error(), Loop) {
		t.Errorf("pieces: %v", err)
	}
	if Room() != MaxNeedles/2 {
		t.Errorf("room for %d needles", Room())
	}
}

// A monitor finds what is written there, and says that it does not look at TLS.
func TestMonitorWithoutLoop(t *testing.T) {
	withoutLoop(t)
	m, err := OpenMonitor(MonitorOptions{Options: Options{PIDNamespace: 1}, TLS: true})
	if err != nil {
		t.Fatal(err)
	}
	defer m.Close()
	if _, ok := m.Kin(os.Getpid()); !ok {
		t.Error("this process is not known to be guard")
	}
	r := m.TLS()
	if !strings.Contains(r.Failed["every TLS library"], "bpf_loop") {
		t.Errorf("%+v", r)
	}
}

// The program of bounded loops finds on any kernel what the other one finds.
func TestBoundedFindsTheSame(t *testing.T) {
	secret, short := random(93), random(8)
	for _, needles := range [][]Needle{{needle(7, secret)}, {needle(7, secret), needle(9, short)}} {
		w := newWatch(t, needles, Options{bounded: true})
		for _, at := range []int{0, 1, 7, 4000, 4095, 65530, 900_000} {
			b := random(1 << 20)[:at+200]
			copy(b[at:], secret)
			if got := w.do(job{Op: "write", To: "file", Calls: [][][]byte{{b}}}); len(got) != 1 || got[0].Needle != 7 || got[0].Offset != int64(at) {
				t.Errorf("at %d: %+v", at, got)
			}
		}
		split := [][][]byte{{secret[:40]}, {secret[40:]}}
		if got := w.do(job{Op: "write", To: "pipe", Calls: split, Same: true}); len(got) != 1 || got[0].Offset != -40 {
			t.Errorf("in two calls: %+v", got)
		}
		if len(needles) > 1 {
			if got := w.do(job{Op: "write", To: "file", Calls: [][][]byte{{append(random(333), short...)}}}); len(got) != 1 || got[0].Needle != 9 {
				t.Errorf("a short one: %+v", got)
			}
		}
	}
}
