package pty

import (
	"bytes"
	"time"

	"golang.org/x/sys/unix"
)

const (
	lateAsked = time.Second            // a question this old has been answered, or never will be
	lateWait  = 100 * time.Millisecond // for the answers to those that have not
	shortest  = 3                      // bytes that an answer has at least
)

// swallow reads and drops late answers from the user's terminal: an agent asked
// and ended, and the shell would take the answer for what the user typed. A byte
// that was read cannot be put back, so nothing is read before there are as many
// bytes as an answer has, all at once: a key that somebody types is one. Then one
// byte at a time is read, for as long as they are an answer. What is lost is the
// first byte of something pasted at that moment, or a key that begins as an answer
// does, such as an arrow.
func swallow(in int, asked time.Time) {
	if time.Since(asked) > lateAsked {
		return
	}
	deadline := time.Now().Add(lateWait)
	var got []byte
	for {
		left := time.Until(deadline)
		n, err := unix.IoctlGetInt(in, unix.TIOCINQ)
		switch {
		case err != nil || left <= 0:
			return
		case n == 0:
			fds := [1]interest{{fd: in, read: true}}
			if wait(fds[:], left) != nil || fds[0].ended {
				return
			}
			continue
		case n < shortest && len(got) == 0:
			if wait(nil, min(left, 2*time.Millisecond)) != nil {
				return
			}
			continue
		}
		var b [1]byte
		if k, err := unix.Read(in, b[:]); k != 1 || err != nil {
			return
		}
		got = append(got, b[0])
		switch belongs, done := answer(got); {
		case !belongs:
			return
		case done:
			got = got[:0]
		}
	}
}

// answer says whether p is the start of a terminal's answer, and whether all of
// one.
func answer(p []byte) (belongs, done bool) {
	if p[0] != 0x1b || len(p) > maxArgs {
		return false, false
	}
	if len(p) < 2 {
		return true, false
	}
	body, last := p[2:], p[len(p)-1]
	switch p[1] {
	case '[':
		if len(body) == 0 {
			return true, false
		}
		lead := body[0] >= '<' && body[0] <= '?'
		if last >= '0' && last <= ';' || last == '$' || len(body) == 1 && lead {
			return true, false
		}
		switch last {
		case 'c', 'u':
			return lead, lead
		case 'n', 'R', 't':
			return len(body) > 1, len(body) > 1
		case 'y':
			ok := bytes.HasSuffix(body, []byte("$y"))
			return ok, ok
		}
		return false, false
	case ']', 'P':
		if len(body) == 0 {
			return true, false
		}
		first := body[0]
		switch {
		case (first < '0' || first > '9') && (p[1] == ']' || first != '>' && first != '!'):
			return false, false
		case last == 0x07 && p[1] == ']', bytes.HasSuffix(body, []byte("\x1b\\")):
			return true, true
		case bytes.Contains(body[:len(body)-1], []byte{0x1b}):
			return false, false
		}
		return last >= 0x20 || last == 0x1b, false
	}
	return false, false
}
