//go:build unix

package pty

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"os/exec"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/creack/pty"
	"golang.org/x/sys/unix"
	"golang.org/x/term"

	"guard"
	"guard/internal/testutil"
)

// user is the other side of the user's terminal.
type user struct {
	master, slave *os.File
	screen        *screen
	term          *Terminal
}

func pair(t testing.TB) (master, slave *os.File) {
	t.Helper()
	m, s, err := pty.Open()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close(); m.Close() })
	return m, s
}

func rawPair(t testing.TB) (master, slave *os.File) {
	t.Helper()
	m, s := pair(t)
	if _, err := term.MakeRaw(int(s.Fd())); err != nil {
		t.Fatal(err)
	}
	return m, s
}

func newUser(t testing.TB) *user {
	t.Helper()
	m, s := pair(t)
	if err := pty.Setsize(m, &pty.Winsize{Rows: 24, Cols: 80}); err != nil {
		t.Fatal(err)
	}
	tm, err := OpenTerminal(s, s)
	if err != nil {
		t.Fatal(err)
	}
	if err := tm.Raw(); err != nil {
		t.Fatal(err)
	}
	u := &user{master: m, slave: s, screen: newScreen(), term: tm}
	done := make(chan struct{})
	go func() { defer close(done); io.Copy(u.screen, m) }()
	t.Cleanup(func() { s.Close(); <-done })
	return u
}

func (u *user) typed(t testing.TB, keys string) {
	t.Helper()
	if _, err := u.master.WriteString(keys); err != nil {
		t.Fatal(err)
	}
}

// start runs s and returns what waits for its end.
func start(t testing.TB, s *Session) (wait func() error, cancel context.CancelFunc) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- s.Run(ctx) }()
	var once atomic.Bool
	wait = func() error {
		t.Helper()
		once.Store(true)
		select {
		case err := <-done:
			noGoroutines(t)
			return err
		case <-time.After(30 * time.Second):
			t.Fatal("Run did not return")
			return nil
		}
	}
	t.Cleanup(func() {
		cancel()
		if !once.Load() {
			<-done
		}
	})
	return wait, cancel
}

func say(t testing.TB, f *os.File, text string) {
	t.Helper()
	if _, err := f.WriteString(text); err != nil {
		t.Fatal(err)
	}
}

func TestEchoThroughRealShell(t *testing.T) {
	testutil.Leftovers(t)
	u := newUser(t)
	cmd := exec.Command("/bin/sh", "-c", `stty size; read line; echo "got:$line"; exit 7`)
	m, err := Start(cmd, 10, 20)
	if err != nil {
		t.Fatal(err)
	}
	defer m.Close()
	ended, _ := start(t, &Session{Master: m, Terminal: u.term, Out: passAll})
	u.typed(t, "hello\r")
	u.screen.waitFor(t, "got:hello\r\n")
	if err := ended(); err != nil {
		t.Fatal(err)
	}
	if err := cmd.Wait(); cmd.ProcessState.ExitCode() != 7 {
		t.Fatalf("agent ended with %v", err)
	}
	if s := u.screen.String(); !strings.Contains(s, "24 80") && !strings.Contains(s, "10 20") {
		t.Errorf("size is neither the first nor the user's: %q", s)
	}
}

func TestSizes(t *testing.T) {
	testutil.Leftovers(t)
	u := newUser(t)
	m, s := rawPair(t)
	ended, _ := start(t, &Session{Master: m, Terminal: u.term, Out: passAll})
	say(t, s, "ready")
	u.screen.waitFor(t, "ready")
	if r, c, err := pty.Getsize(s); err != nil || r != 24 || c != 80 {
		t.Fatalf("first size is %dx%d, %v", r, c, err)
	}
	for i := range 20 {
		if err := pty.Setsize(u.master, &pty.Winsize{Rows: uint16(30 + i), Cols: uint16(100 + i)}); err != nil {
			t.Fatal(err)
		}
		syscall.Kill(os.Getpid(), syscall.SIGWINCH)
	}
	eventually(t, "the last size arrives", func() bool {
		r, c, _ := pty.Getsize(s)
		return r == 49 && c == 119
	})
	s.Close()
	if err := ended(); err != nil {
		t.Fatal(err)
	}
}

func eventually(t testing.TB, what string, ok func() bool) {
	t.Helper()
	for range 3000 {
		if ok() {
			return
		}
		time.Sleep(time.Millisecond) // between looks at a condition
	}
	t.Fatalf("did not come true: %s", what)
}

func TestRawAndRestore(t *testing.T) {
	_, s := pair(t)
	tm, err := OpenTerminal(s, s)
	if err != nil {
		t.Fatal(err)
	}
	get := func() term.State {
		v, err := term.GetState(int(s.Fd()))
		if err != nil {
			t.Fatal(err)
		}
		return *v
	}
	before := get()
	copied, err := term.MakeRaw(int(s.Fd()))
	if err != nil {
		t.Fatal(err)
	}
	raw := get()
	if err := term.Restore(int(s.Fd()), copied); err != nil || raw == before {
		t.Fatal("the test does not tell raw mode from another")
	}
	for range 2 {
		for range 2 {
			if err := tm.Raw(); err != nil {
				t.Fatal(err)
			}
		}
		if get() != raw {
			t.Fatal("not raw")
		}
		for range 2 {
			if err := tm.Restore(); err != nil {
				t.Fatal(err)
			}
		}
		if get() != before {
			t.Fatal("Restore did not bring the settings back")
		}
	}
}

func TestOpenTerminalRefusesOthers(t *testing.T) {
	_, s := pair(t)
	null, err := os.Open(os.DevNull)
	if err != nil {
		t.Fatal(err)
	}
	defer null.Close()
	for _, c := range [][2]*os.File{{s, null}, {null, s}, {null, null}} {
		if _, err := OpenTerminal(c[0], c[1]); !errors.Is(err, ErrNotTerminal) {
			t.Errorf("%v: %v", c, err)
		}
	}
	if _, err := OpenTerminal(nil, s); err == nil {
		t.Error("nil taken for a terminal")
	}
}

func TestHeldTailsAreReleased(t *testing.T) {
	for _, tail := range []string{"s", "sesame-", "sesame-op", "sesame-open-no"} {
		t.Run(tail, func(t *testing.T) {
			u := newUser(t)
			m, s := rawPair(t)
			w := &wordFilter{word: "sesame-open-now", action: guard.Redact}
			ended, _ := start(t, &Session{Master: m, Terminal: u.term, Out: w.filter, LongHold: 50 * time.Millisecond})
			say(t, s, "x"+tail)
			u.screen.waitFor(t, "x"+tail)
			say(t, s, " end")
			u.screen.waitFor(t, "x"+tail+" end")
			s.Close()
			if err := ended(); err != nil {
				t.Fatal(err)
			}
		})
	}
}

// A tail of 8 bytes or more is not let go with the short ones.
func TestLongTailWaitsForTheLongHold(t *testing.T) {
	u := newUser(t)
	m, s := rawPair(t)
	w := &wordFilter{word: "sesame-open-now", action: guard.Redact}
	ended, _ := start(t, &Session{Master: m, Terminal: u.term, Out: w.filter, Hold: time.Millisecond, LongHold: time.Hour})
	say(t, s, "1 sesame-")
	u.screen.waitFor(t, "1 sesame-")
	say(t, s, "\n2 sesame-o")
	u.screen.waitFor(t, "\n2 ")
	say(t, s, "pen-now\n3")
	u.screen.waitFor(t, "3")
	s.Close()
	if err := ended(); err != nil {
		t.Fatal(err)
	}
	if got := u.screen.String(); got != "1 sesame-\n2 ***************\n3" {
		t.Errorf("displayed %q", got)
	}
}

func TestSecretSplitAtEveryByte(t *testing.T) {
	const word = "sesame-open-now"
	for cut := 1; cut < len(word); cut++ {
		for _, pause := range []bool{false, true} {
			u := newUser(t)
			m, s := rawPair(t)
			w := &wordFilter{word: word, action: guard.Redact}
			hold := time.Hour
			if pause {
				hold = time.Millisecond
			}
			ended, _ := start(t, &Session{Master: m, Terminal: u.term, Out: w.filter, Hold: hold, LongHold: hold})
			say(t, s, "<"+word[:cut])
			shown := "<"
			if pause {
				shown += word[:cut]
			}
			u.screen.waitFor(t, shown)
			say(t, s, word[cut:]+">")
			s.Close()
			if err := ended(); err != nil {
				t.Fatal(err)
			}
			u.screen.waitFor(t, ">")
			want := "<" + strings.Repeat("*", len(word)) + ">"
			if pause {
				want = "<" + word[:cut] + strings.Repeat("*", len(word)-cut) + ">"
			}
			if got := u.screen.String(); got != want {
				t.Errorf("cut %d, pause %v: displayed %q, want %q", cut, pause, got, want)
			}
		}
	}
}

func TestFloodArrivesWhole(t *testing.T) {
	u := newUser(t)
	m, s := rawPair(t)
	const size = 16 << 20
	data := make([]byte, 1<<16)
	r := rand.NewChaCha8([32]byte{1})
	want := sha256.New()
	ended, _ := start(t, &Session{Master: m, Terminal: u.term, Out: (&wordFilter{word: "sesame-open-now"}).filter})
	for n := 0; n < size; n += len(data) {
		r.Read(data)
		for i, b := range data { // no controls that are taken out
			if b == 0x05 || b == 0x1b || b >= 0x90 && b < 0xa0 {
				data[i] = 'x'
			}
		}
		want.Write(data)
		if _, err := s.Write(data); err != nil {
			t.Fatal(err)
		}
	}
	s.Close()
	if err := ended(); err != nil {
		t.Fatal(err)
	}
	u.screen.wait(t, "all of it", func(have string) bool { return len(have) >= size })
	if got := sha256.Sum256([]byte(u.screen.String())); !bytes.Equal(got[:], want.Sum(nil)) {
		t.Error("what was displayed is not what was written")
	}
}

func TestNothingIsLostWhenTheAgentEnds(t *testing.T) {
	for i := range 10 {
		u := newUser(t)
		size := 1000 + i*37777
		m, err := Start(exec.Command("/bin/sh", "-c", fmt.Sprintf("stty raw; head -c %d /dev/zero | tr '\\0' x; printf END", size)), 24, 80)
		if err != nil {
			t.Fatal(err)
		}
		w := &wordFilter{word: "ENDED-EARLY"} // holds END back until the end
		ended, _ := start(t, &Session{Master: m, Terminal: u.term, Out: w.filter, Hold: time.Hour})
		if err := ended(); err != nil {
			t.Fatal(err)
		}
		m.Close()
		u.screen.wait(t, "all of it", func(have string) bool { return strings.HasSuffix(have, "xEND") && len(have) == size+3 })
	}
}

func TestKeyAfterTheEndIsForTheNextReader(t *testing.T) {
	for _, how := range []string{"agent ends", "cancelled", "suspended"} {
		t.Run(how, func(t *testing.T) {
			testutil.Leftovers(t)
			u := newUser(t)
			m, s := rawPair(t)
			session := &Session{Master: m, Terminal: u.term, Out: passAll}
			ended, cancel := start(t, session)
			say(t, s, "ready")
			u.screen.waitFor(t, "ready")
			switch how {
			case "agent ends":
				s.Close()
				if err := ended(); err != nil {
					t.Fatal(err)
				}
			case "cancelled":
				cancel()
				if err := ended(); !errors.Is(err, context.Canceled) {
					t.Fatal(err)
				}
			case "suspended":
				if err := session.Suspend(); err != nil {
					t.Fatal(err)
				}
			}
			if err := u.term.Restore(); err != nil {
				t.Fatal(err)
			}
			u.typed(t, "ls\n")
			got := make([]byte, 10)
			n, err := u.slave.Read(got)
			if err != nil || string(got[:n]) != "ls\n" {
				t.Fatalf("the shell read %q, %v", got[:n], err)
			}
			if how == "suspended" {
				if err := session.Resume(); err != nil {
					t.Fatal(err)
				}
				u.typed(t, "\x1b") // a bare ESC goes on at once
				if n, err := s.Read(got); err != nil || string(got[:n]) != "\x1b" {
					t.Fatalf("the agent read %q, %v", got[:n], err)
				}
			}
		})
	}
}

func TestSuspendShowsLastWordsAndResumesModes(t *testing.T) {
	u := newUser(t)
	m, s := rawPair(t)
	w := &wordFilter{word: "sesame-open-now"}
	session := &Session{Master: m, Terminal: u.term, Out: w.filter, Hold: time.Hour, LongHold: time.Hour}
	ended, _ := start(t, session)
	say(t, s, "\x1b[?1049h\x1b[?2004h\x1b[?25lhere is my sesame-o")
	u.screen.waitFor(t, "here is my ")
	if err := session.Suspend(); err != nil {
		t.Fatal(err)
	}
	u.screen.waitFor(t, "sesame-o\x1b[?2004l\x1b[?1049l\x1b[?25h")
	say(t, s, " while away")
	if err := pty.Setsize(u.master, &pty.Winsize{Rows: 5, Cols: 6}); err != nil {
		t.Fatal(err)
	}
	if err := session.Resume(); err != nil {
		t.Fatal(err)
	}
	u.screen.waitFor(t, "\x1b[?25l\x1b[?1049h\x1b[?2004h while away")
	if r, c, _ := pty.Getsize(s); r != 5 || c != 6 {
		t.Errorf("size after Resume is %dx%d", r, c)
	}
	s.Close()
	if err := ended(); err != nil {
		t.Fatal(err)
	}
}

func TestBigPasteArrivesWholeThoughTheAgentIsSlow(t *testing.T) {
	testutil.Leftovers(t)
	u := newUser(t)
	m, s := rawPair(t)
	ended, _ := start(t, &Session{Master: m, Terminal: u.term, Out: passAll})
	paste := make([]byte, 1<<20)
	for i := range paste {
		paste[i] = byte('a' + i*7%26)
	}
	go u.master.Write(paste)
	agentIsFull(t, m)
	got := make([]byte, len(paste))
	if _, err := io.ReadFull(s, got); err != nil || !bytes.Equal(got, paste) {
		t.Fatalf("paste arrived otherwise: %v", err)
	}
	s.Close()
	if err := ended(); err != nil {
		t.Fatal(err)
	}
}

// pasteForever types until the test ends, as fast as it is taken: byte by byte,
// since a write to a full master does not end when the slave is closed.
func (u *user) pasteForever(t *testing.T) {
	var stop atomic.Bool
	done := make(chan struct{})
	go func() {
		defer close(done)
		for !stop.Load() {
			_ = withFD(u.master, func(fd uintptr) error {
				fds := []interest{{fd: int(fd), write: true}}
				if err := wait(fds, time.Millisecond); err == nil && fds[0].ready {
					unix.Write(int(fd), []byte{'x'})
				}
				return nil
			})
		}
	}()
	t.Cleanup(func() { stop.Store(true); <-done })
}

func agentIsFull(t *testing.T, master *os.File) {
	t.Helper()
	eventually(t, "the agent's terminal is full", func() bool {
		return withFD(master, func(fd uintptr) error {
			fds := []interest{{fd: int(fd), write: true}}
			if err := wait(fds, 0); err != nil || fds[0].ready {
				return errors.New("there is room")
			}
			return nil
		}) == nil
	})
}

// Input that waits for room does not outlive the agent.
func TestAgentEndsWithFullInput(t *testing.T) {
	testutil.Leftovers(t)
	u := newUser(t)
	m, s := rawPair(t)
	ended, _ := start(t, &Session{Master: m, Terminal: u.term, Out: passAll})
	u.pasteForever(t)
	agentIsFull(t, m)
	s.Close()
	if err := ended(); err != nil {
		t.Fatal(err)
	}
}

func TestCancelWithAFullAgentAndAFlood(t *testing.T) {
	testutil.Leftovers(t)
	u := newUser(t)
	m, s := rawPair(t)
	ended, cancel := start(t, &Session{Master: m, Terminal: u.term, Out: passAll})
	u.pasteForever(t) // nobody reads it
	flood := make(chan struct{})
	go func() {
		defer close(flood)
		for {
			if _, err := s.Write(make([]byte, 4096)); err != nil {
				return
			}
		}
	}()
	u.screen.wait(t, "a flood", func(have string) bool { return len(have) > 1<<20 })
	cancel()
	if err := ended(); !errors.Is(err, context.Canceled) {
		t.Fatal(err)
	}
	m.Close() // ends the flood: EIO
	u.slave.Close()
	<-flood
}
