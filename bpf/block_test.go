//go:build linux && (amd64 || arm64)

package bpf

import (
	"bytes"
	"errors"
	"os"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// canRefuse skips where this kernel has no BPF LSM for us, which must then be
// what OpenDetector says; TestOtherKernels runs these tests where it has.
func canRefuse(t *testing.T) {
	t.Helper()
	missing := Probe().Need(LSM)
	if missing == nil {
		return
	}
	if os.Getpid() == 1 {
		t.Fatalf("a machine that was booted for this: %v", missing)
	}
	if d, err := OpenDetector(Options{PIDNamespace: 1, Refuse: true}); !errors.Is(err, ErrNotSupported) || !strings.Contains(err.Error(), LSM) {
		t.Fatalf("no LSM, but OpenDetector says %v, %v", d, err)
	}
	t.Skip(missing)
}

// refused has the child do j, which must fail with EPERM.
func (w *watch) refused(j job) {
	w.t.Helper()
	if err := w.jobs.Encode(j); err != nil {
		w.t.Fatal(err)
	}
	line, err := w.reply.ReadString('\n')
	if err != nil || !strings.HasPrefix(line, "-") || !strings.Contains(line, unix.EPERM.Error()) {
		w.t.Fatalf("%s to %s: child says %q, %v", j.Op, j.To, line, err)
	}
}

func TestRefuse(t *testing.T) {
	canRefuse(t)
	secret := random(40)
	w := newWatch(t, []Needle{needle(1, secret)}, Options{Refuse: true})
	file := t.TempDir() + "/out"
	onDisk := func() []byte {
		b, err := os.ReadFile(file)
		if err != nil && !os.IsNotExist(err) {
			t.Fatal(err)
		}
		return b
	}
	event := func() {
		t.Helper()
		e, err := w.d.Read()
		if err != nil || e.Needle != 1 || !e.Refused || e.PID != w.cmd.Process.Pid {
			t.Fatalf("%+v, %v", e, err)
		}
	}
	for _, at := range []int{0, 1, 7, 8, 4080, 4095, 4096, 20000} {
		b := slices.Concat(random(at), secret, random(9))
		w.refused(job{Op: "write", To: file, Calls: [][][]byte{{b}}})
		event()
		for _, c := range []struct{ op, to string }{{"write", "pipe"}, {"write", "socket"}, {"pwrite64", "file"}} {
			w.refused(job{Op: c.op, To: c.to, Calls: [][][]byte{{b}}})
			event()
		}
		cut := at + 20
		for _, op := range []string{"writev", "pwritev", "pwritev2"} {
			w.refused(job{Op: op, To: "file", Calls: [][][]byte{{b[:cut/2], b[cut/2 : cut], b[cut:]}}})
			event()
		}
	}
	if b := onDisk(); len(b) != 0 {
		t.Fatalf("%d bytes of a refused write are on disk", len(b))
	}
	// Split over two writes: the second one fails, and so does the same again.
	w.order(job{Op: "write", To: file, Calls: [][][]byte{{secret[:30]}}})
	for range 2 {
		w.refused(job{Op: "write", To: file, Calls: [][][]byte{{secret[30:]}}})
		event()
	}
	// What is clean goes through, unchanged.
	clean := random(100_000)
	w.order(job{Op: "write", To: file, Calls: [][][]byte{{clean}}})
	if b := onDisk(); !bytes.Equal(b, append(secret[:30:30], clean...)) {
		t.Fatalf("%d bytes on disk", len(b))
	}
	// A terminal is the pty's.
	w.order(job{Op: "write", To: "terminal", Calls: [][][]byte{{secret}}})
	// A process outside may write what it likes.
	if err := os.WriteFile(file, secret, 0o600); err != nil {
		t.Fatal(err)
	}
	s, err := w.d.Stats()
	if err != nil || s.Total.Dropped != 0 || s.Total.Hits != 8*7+2 || s.Total.Seen != s.Total.Scanned {
		t.Fatalf("%+v, %v", s.Total, err)
	}
	if _, err := w.d.SetNeedles(nil); err != nil {
		t.Fatal(err)
	}
	w.order(job{Op: "write", To: "pipe", Calls: [][][]byte{{secret}}})
}

func TestRefuseStrict(t *testing.T) {
	canRefuse(t)
	for _, strict := range []bool{false, true} {
		w := newWatch(t, []Needle{needle(1, random(40))}, Options{Refuse: true, Strict: strict, MaxBytes: 50_000})
		w.order(job{Op: "write", To: "file", Calls: [][][]byte{{random(50_000)}}})
		big := job{Op: "write", To: "file", Calls: [][][]byte{{random(50_001)}}}
		if strict {
			w.refused(big)
		} else {
			w.order(big)
		}
	}
}
