package pty

import (
	"bytes"
	"errors"
	"io"
	"math/rand/v2"
	"os"
	"runtime"
	"strings"
	"sync/atomic"
	"testing"

	"golang.org/x/sys/unix"

	"guard"
	"guard/internal/testutil"
)

func TestAsideKeepsOrder(t *testing.T) {
	var got, want bytes.Buffer
	var inside atomic.Int32
	r := rand.New(rand.NewPCG(1, 2))
	a := newAside(func(p []byte) error {
		if inside.Add(1) != 1 {
			t.Error("two writes at a time")
		}
		if len(p) > asideMost {
			t.Errorf("a write of %d bytes", len(p))
		}
		got.Write(p)
		runtime.Gosched()
		inside.Add(-1)
		return nil
	}, func() { t.Error("failed") })
	for i := range 3000 {
		p := bytes.Repeat([]byte{byte(i), byte(i >> 8)}, 1+r.IntN(1<<r.IntN(16)))
		want.Write(p)
		if err := a.put(p); err != nil {
			t.Fatal(err)
		}
		clear(p) // the filter uses its buffer again
		if i%100 == 0 {
			if err := a.flush(); err != nil || got.Len() != want.Len() {
				t.Fatalf("flush left %d of %d bytes, %v", want.Len()-got.Len(), want.Len(), err)
			}
		}
	}
	a.end()
	if !bytes.Equal(got.Bytes(), want.Bytes()) {
		t.Error("what was written is not what was put")
	}
	noGoroutines(t)
}

// A keystroke's echo is written before put returns, by whoever put it.
func TestAsideWritesLittleItself(t *testing.T) {
	var got strings.Builder
	a := newAside(func(p []byte) error { got.Write(p); return nil }, nil)
	defer a.end()
	for _, key := range []string{"a", "b", "\x1b[31mc"} {
		if err := a.put([]byte(key)); err != nil {
			t.Fatal(err)
		}
	}
	if got.String() != "ab\x1b[31mc" {
		t.Errorf("written: %q", got.String())
	}
}

// While a write does not end, no more is taken than two buffers.
func TestAsideIsBounded(t *testing.T) {
	let := make(chan struct{})
	var written, taken atomic.Int64
	a := newAside(func(p []byte) error { <-let; written.Add(int64(len(p))); return nil }, nil)
	full := make(chan struct{})
	go func() {
		defer close(full)
		for range 100 {
			if a.put(make([]byte, asideMost/4)) == nil {
				taken.Add(asideMost / 4)
			}
		}
	}()
	eventually(t, "it is full", func() bool { return taken.Load() >= asideMost })
	for range 100 {
		runtime.Gosched()
	}
	if n := taken.Load(); n > 2*asideMost {
		t.Errorf("%d bytes taken", n)
	}
	close(let)
	<-full
	a.end()
	if written.Load() != 25*asideMost {
		t.Errorf("%d bytes written", written.Load())
	}
}

func TestAsideReportsErrors(t *testing.T) {
	var failed atomic.Int32
	a := newAside(func([]byte) error { return io.ErrClosedPipe }, func() { failed.Add(1) })
	_ = a.put(make([]byte, asideWorth))
	if err := a.flush(); err != io.ErrClosedPipe {
		t.Errorf("flush: %v", err)
	}
	for _, n := range []int{1, 10 * asideMost} {
		if err := a.put(make([]byte, n)); err != io.ErrClosedPipe {
			t.Errorf("put of %d bytes after it: %v", n, err)
		}
	}
	a.end()
	if failed.Load() != 1 {
		t.Errorf("failed was called %d times", failed.Load())
	}
}

func TestAsidePanicsOnItsOwner(t *testing.T) {
	a := newAside(func([]byte) error { panic("broken") }, func() {})
	defer a.end()
	_ = a.put(make([]byte, asideWorth))
	defer func() {
		if v, _ := recover().(string); !strings.HasPrefix(v, "broken") || !strings.Contains(v, "aside") {
			t.Errorf("panicked with %q", v)
		}
	}()
	_ = a.flush()
	t.Error("flush returned")
}

var flood = strings.Repeat("0123456789abcdef", 4<<10)

// What was read is displayed before the terminal is given back, and before a note.
func TestSuspendAndNotesWaitForAFlood(t *testing.T) {
	testutil.Leftovers(t)
	u := newUser(t)
	m, s := rawPair(t)
	var note atomic.Bool
	session := &Session{Master: m, Terminal: u.term, Out: passAll, Note: func() string {
		if note.Swap(false) {
			return "guard: a note"
		}
		return ""
	}}
	ended, _ := start(t, session)
	want := ""
	for range 10 {
		say(t, s, "\x1b[?2004h"+flood)
		if err := session.Suspend(); err != nil {
			t.Fatal(err)
		}
		want += "\x1b[?2004h" + flood + "\x1b[?2004l"
		if err := session.Resume(); err != nil {
			t.Fatal(err)
		}
		want += "\x1b[?2004h"
	}
	note.Store(true)
	session.Wake()
	say(t, s, flood)
	u.screen.waitFor(t, "a note\r\n")
	s.Close()
	if err := ended(); err != nil {
		t.Fatal(err)
	}
	all := len(want) + len(flood) + len("\r\nguard: a note\r\n")
	u.screen.wait(t, "all of it", func(have string) bool { return len(have) >= all })
	got := u.screen.String()
	if !strings.HasPrefix(got, want) {
		t.Errorf("displayed otherwise than in order: %d bytes", len(got))
	}
	// The note may come before the end of the flood, but inside of nothing.
	if strings.Replace(got[len(want):], "\r\nguard: a note\r\n", "", 1) != flood {
		t.Errorf("the note is not on a line of its own, or something is lost")
	}
}

// An agent does not run ahead of a terminal that displays nothing.
func TestStoppedTerminalStopsTheAgent(t *testing.T) {
	testutil.Leftovers(t)
	um, us := rawPair(t)
	tm, err := OpenTerminal(us, us)
	if err != nil {
		t.Fatal(err)
	}
	m, s := rawPair(t)
	ended, _ := start(t, &Session{Master: m, Terminal: tm, Out: passAll})
	fd := int(s.Fd()) // once: Fd makes it block
	if err := unix.SetNonblock(fd, true); err != nil {
		t.Fatal(err)
	}
	taken := 0
	for {
		n, err := unix.Write(fd, []byte(flood))
		if n > 0 {
			taken += n
			continue
		}
		if err != unix.EAGAIN {
			t.Fatal(err)
		}
		// The kernel's thread and the copier move what they can: until there is no room any more.
		room, err := unix.Poll([]unix.PollFd{{Fd: int32(fd), Events: unix.POLLOUT}}, 50)
		if err != nil && err != unix.EINTR {
			t.Fatal(err)
		}
		if room == 0 && err == nil {
			break
		}
	}
	if taken > 1<<20 {
		t.Errorf("the agent wrote %d bytes that nobody saw", taken)
	}
	read := make(chan int64, 1)
	go func() {
		n, _ := io.CopyN(io.Discard, um, int64(taken))
		read <- n
	}()
	if n := <-read; n != int64(taken) {
		t.Errorf("%d of %d bytes displayed", n, taken)
	}
	s.Close()
	if err := ended(); err != nil {
		t.Fatal(err)
	}
}

// A filter that panics in the midst of a flood takes Run's caller down, who
// restores the terminal, and leaves no goroutine.
func TestPanicInAFlood(t *testing.T) {
	testutil.Leftovers(t)
	u := newUser(t)
	m, s := rawPair(t)
	seen := 0
	session := &Session{Master: m, Terminal: u.term, Out: func(p []byte, _ guard.Step) ([]byte, guard.Decision) {
		if seen += len(p); seen > 3*len(flood) {
			panic("filter broken")
		}
		return p, pass
	}}
	wrote := make(chan struct{})
	go func() {
		defer close(wrote)
		for {
			if _, err := s.WriteString(flood); err != nil {
				return
			}
		}
	}()
	func() {
		defer func() {
			if v := recover(); v != "filter broken" {
				t.Errorf("recovered %v", v)
			}
			if err := u.term.Restore(); err != nil {
				t.Error(err)
			}
		}()
		_ = session.Run(t.Context())
	}()
	noGoroutines(t)
	m.Close()
	<-wrote
}

// The user's terminal goes away while the other goroutine writes to it, and the
// agent is silent: Run ends all the same.
func TestTerminalGoesAwayInAFlood(t *testing.T) {
	testutil.Leftovers(t)
	um, us := rawPair(t)
	tm, err := OpenTerminal(us, us)
	if err != nil {
		t.Fatal(err)
	}
	m, s := rawPair(t)
	ended, _ := start(t, &Session{Master: m, Terminal: tm, Out: passAll})
	say(t, s, flood[:28<<10]) // more than a terminal that is not read takes, less than with the two buffers
	eventually(t, "the agent's terminal is empty", func() bool { return unread(t, m) == 0 })
	um.Close()
	if err := ended(); err == nil {
		t.Error("no error though nobody sees the output")
	} else if errors.Is(err, os.ErrClosed) {
		t.Error(err)
	}
}

func unread(t *testing.T, f *os.File) (n int) {
	t.Helper()
	err := withFD(f, func(fd uintptr) (err error) { // Fd would make it block
		n, err = unix.IoctlGetInt(int(fd), unix.TIOCINQ)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return n
}
