//go:build linux

package pty

import (
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"guard/internal/testutil"
)

// What the terminal answers after the agent's end is not for the shell; what the
// user types is.
func TestLateAnswers(t *testing.T) {
	testutil.Leftovers(t)
	for _, tt := range []struct{ asks, answers, left string }{
		{"\x1b[c", "\x1b[?62;4c", ""},
		{"\x1b[6n\x1b[>q", "\x1b[12;40R\x1bP>|term(1)\x1b\\", ""},
		{"\x1b]11;?\x07", "\x1b]11;rgb:0000/0000/0000\x1b\\", ""},
		{"\x1b]4;1;?\x07", "\x1b]4;1;rgb:00/00/00\x07", ""},
		{"\x1b[?2026$p", "\x1b[?2026;2$y", ""},
		{"\x1b[?u", "\x1b[?0u", ""},
		{"\x1b[c", "\x1b[?62;4cls\r", "s\r"}, // the first key after it is lost when pasted at once
		{"\x1b[c", "q", "q"},
		{"no question", "\x1b[?62;4c", "\x1b[?62;4c"},
		{"\x1b[c", "ls -l\r", "s -l\r"}, // pasted at that moment: one byte is lost
	} {
		u := newUser(t)
		m, s := rawPair(t)
		ended, _ := start(t, &Session{Master: m, Terminal: u.term, Out: passAll})
		say(t, s, tt.asks)
		u.screen.waitFor(t, tt.asks)
		s.Close()
		// As soon as the agent's terminal is gone, nothing is read for it.
		eventually(t, "the agent's end is seen", func() bool {
			_, err := unix.FcntlInt(m.Fd(), unix.F_GETFL, 0)
			fds := []unix.PollFd{{Fd: int32(m.Fd())}}
			unix.Poll(fds, 0)
			return err == nil && fds[0].Revents&unix.POLLHUP != 0
		})
		time.Sleep(10 * time.Millisecond) // the answer is late: that is what is tested
		u.typed(t, tt.answers)
		if err := ended(); err != nil {
			t.Fatal(err)
		}
		// A thread of the kernel brings over what is typed.
		eventually(t, "what is left arrives", func() bool {
			n, err := unix.IoctlGetInt(int(u.slave.Fd()), unix.TIOCINQ)
			return err != nil || n >= len(tt.left)
		})
		n, err := unix.IoctlGetInt(int(u.slave.Fd()), unix.TIOCINQ)
		if err != nil {
			t.Fatal(err)
		}
		got := make([]byte, n)
		if n > 0 {
			n, _ = unix.Read(int(u.slave.Fd()), got)
		}
		if string(got[:n]) != tt.left {
			t.Errorf("%q answered with %q: left %q, want %q", tt.asks, tt.answers, got[:n], tt.left)
		}
	}
}

func TestAnswerForms(t *testing.T) {
	for in, want := range map[string]bool{
		"\x1b[?62c": true, "\x1b[>0;1;2c": true, "\x1b[0n": true, "\x1b[1;1R": true, "\x1b[8;24;80t": true, "\x1b[?1;2$y": true, "\x1b[?7u": true,
		"\x1bP1+r544e=78\x1b\\": true, "\x1bP!|00\x1b\\": true, "\x1b]10;rgb:0/0/0\x07": true,
		"\x1b[A": false, "\x1bOP": false, "\x1b[97;5u": false, "\x1b[15~": false, "\x1b\x1b": false, "a": false, "\x1b[c": false, "\x1b]L": false, "\x1b[200~": false,
		"\x1bPx": false, "\x1b]1;a\x1bx": false,
	} {
		got := false
		for i := range in {
			belongs, done := answer([]byte(in[:i+1]))
			if !belongs {
				break
			}
			if got = done; done && i < len(in)-1 {
				t.Errorf("%q ended early", in)
			}
		}
		if got != want {
			t.Errorf("%q: an answer: %v", in, got)
		}
	}
}
