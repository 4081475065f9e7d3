//go:build linux && (amd64 || arm64)

package bpf

import (
	"bufio"
	"bytes"
	"compress/gzip"
	"crypto/rand"
	_ "embed"
	"encoding/gob"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strings"
	"sync"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"guard"
)

// watch is a detector on one child.
type watch struct {
	t      testing.TB
	d      *Detector
	cmd    *exec.Cmd
	jobs   *gob.Encoder
	reply  *bufio.Reader
	marker []byte
	evs    []Event
}

// markerID is of a needle that the child is told to write after a job: when its
// event is read, all of the job's events have been.
const markerID = 1 << 31

func start(t testing.TB) (*exec.Cmd, *gob.Encoder, *bufio.Reader, uint64) {
	t.Helper()
	canWatch(t)
	cmd := exec.Command("/proc/self/exe")
	cmd.Env = append(os.Environ(), childEnv+"=1")
	cmd.Stderr = os.Stderr
	cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWPID, Pdeathsig: syscall.SIGKILL}
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		in.Close()
		if err := cmd.Wait(); err != nil {
			t.Errorf("child: %v", err)
		}
	})
	var st unix.Stat_t
	if err := unix.Stat(fmt.Sprintf("/proc/%d/ns/pid", cmd.Process.Pid), &st); err != nil {
		t.Fatal(err)
	}
	return cmd, gob.NewEncoder(in), bufio.NewReader(out), st.Ino
}

// probed is what this kernel has; asking costs seconds in a virtual machine.
var probed = sync.OnceValue(Probe)

// canWatch skips where open would.
func canWatch(t testing.TB) {
	t.Helper()
	if os.Getuid() != 0 {
		if missing := probed().Need(needs(Tracepoint)...); missing != nil {
			t.Skip(missing)
		}
	}
}

// open skips only where the kernel is too old or the tests do not run as root.
func open(t testing.TB, o Options) *Detector {
	t.Helper()
	d, err := OpenDetector(o)
	if err == nil {
		t.Cleanup(func() {
			if err := d.Close(); err != nil {
				t.Error(err)
			}
		})
		return d
	}
	if !errors.Is(err, ErrNotSupported) {
		t.Fatal(err)
	}
	var major, minor int
	fmt.Sscanf(probed().Kernel, "%d.%d", &major, &minor)
	if os.Getuid() == 0 && (major > 5 || major == 5 && minor >= 17 || major == 5 && minor >= 10 && !o.Refuse) {
		t.Fatalf("this kernel is new enough: %v", err)
	}
	t.Skip(err)
	return nil
}

func newWatch(t testing.TB, needles []Needle, o Options) *watch {
	t.Helper()
	w := &watch{t: t, marker: random(24)}
	var ns uint64
	w.cmd, w.jobs, w.reply, ns = start(t)
	o.PIDNamespace = ns
	o.Needles = w.with(needles)
	w.d = open(t, o)
	return w
}

func (w *watch) with(needles []Needle) []Needle {
	return append([]Needle{needle(markerID, w.marker)}, needles...)
}

func needle(id uint32, b []byte) Needle {
	return Needle{ID: id, Bytes: guard.NewSecret(append([]byte(nil), b...))}
}

// random bytes from the alphabet of base64.
func random(n int) []byte {
	const alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
	b := make([]byte, n)
	rand.Read(b)
	for i := range b {
		b[i] = alphabet[b[i]&63]
	}
	return b
}

// ask has the child do j, and returns what it says of it: "+", or "-" and an error.
func (w *watch) ask(j job) string {
	w.t.Helper()
	if err := w.jobs.Encode(j); err != nil {
		w.t.Fatal(err)
	}
	line, err := w.reply.ReadString('\n')
	if err != nil {
		w.t.Fatalf("%s to %s: child says %q, %v", j.Op, j.To, line, err)
	}
	return line
}

func (w *watch) order(j job) {
	w.t.Helper()
	if line := w.ask(j); !strings.HasPrefix(line, "+") {
		w.t.Fatalf("%s to %s: child says %q", j.Op, j.To, line)
	}
}

// do has the child do j, and returns the events that this led to.
func (w *watch) do(j job) []Event {
	w.t.Helper()
	w.order(j)
	w.order(job{Op: "write", To: "file", Calls: [][][]byte{{w.marker}}})
	var evs []Event
	for {
		e, err := w.d.Read()
		if err != nil {
			w.t.Fatal(err)
		}
		if e.Needle == markerID {
			return evs
		}
		evs = append(evs, e)
	}
}

func (c Counters) minus(o Counters) Counters {
	return Counters{
		c.Calls - o.Calls, c.Seen - o.Seen, c.Scanned - o.Scanned, c.Unreadable - o.Unreadable, c.Oversize - o.Oversize,
		c.UnreadableCalls - o.UnreadableCalls, c.OversizeCalls - o.OversizeCalls, c.Hits - o.Hits, c.Dropped - o.Dropped, c.TailsLost - o.TailsLost,
		c.Refused - o.Refused, c.TakenAway - o.TakenAway, c.Unjudged - o.Unjudged,
	}
}

//go:embed testdata/build.log.gz
var packedLog []byte

// buildLog is what `go build -x -a std` printed.
func buildLog(t testing.TB) []byte {
	t.Helper()
	r, err := gzip.NewReader(bytes.NewReader(packedLog))
	if err != nil {
		t.Fatal(err)
	}
	log, err := io.ReadAll(r)
	if err != nil || len(log) < 100_000 {
		t.Fatalf("%d bytes of a build's log, %v", len(log), err)
	}
	return log
}
