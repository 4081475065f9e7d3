package pty

import (
	"bytes"
	"time"

	"guard"
)

const (
	// keyBytes is what no key sends as text: that many bytes at once are a paste.
	keyBytes = 8
	// markers are around a paste, where the agent asked for that.
	pasteStart, pasteEnd = "\x1b[200~", "\x1b[201~"
)

// typed takes what comes from the user's terminal through a filter. What is
// typed is never held back: the filter is told of a pause at once. What is
// pasted, which is known by its markers or by coming together, may wait for what
// follows. It is for one goroutine.
type typed struct {
	filter  guard.Filter
	decided func(guard.Decision)

	pending int64  // bytes that the filter holds back
	paste   bool   // between the markers
	last    []byte // of what came, fewer than a marker has
	out     []byte
	stopped bool
}

// feed returns what goes to the agent now; it is valid until the next call.
func (t *typed) feed(p []byte) []byte {
	held := t.pending > 0
	t.follow(p)
	t.out = t.out[:0]
	t.judge(p, guard.More)
	if !t.paste && !held && (len(p) < keyBytes || p[0] == 0x1b) {
		t.letGo()
	}
	return t.out
}

// wait is how long what is held back waits for more; 0: nothing is.
func (t *typed) wait() time.Duration {
	switch {
	case t.pending == 0 || t.stopped:
		return 0
	case t.paste: // its end is announced
		return DefaultLongHold
	}
	return DefaultHold
}

// silence returns what nothing came for.
func (t *typed) silence() []byte {
	t.out, t.paste = t.out[:0], false
	t.letGo()
	return t.out
}

func (t *typed) letGo() {
	if t.pending > 0 {
		t.judge(nil, guard.Pause)
		t.pending = 0 // a filter that keeps more than that is not asked again
	}
}

func (t *typed) judge(p []byte, step guard.Step) {
	if t.stopped {
		return
	}
	out, d := t.filter(p, step)
	t.out = append(t.out, out...)
	t.pending = max(0, t.pending+int64(len(p)-len(out)))
	t.stopped = d.Action.Stops()
	if d.Action != guard.Pass && t.decided != nil {
		t.decided(d)
	}
}

// follow looks for the markers, which may come in pieces.
func (t *typed) follow(p []byte) {
	t.last = append(t.last, p...)
	start, end := bytes.LastIndex(t.last, []byte(pasteStart)), bytes.LastIndex(t.last, []byte(pasteEnd))
	if start >= 0 || end >= 0 {
		t.paste = start > end
	}
	if n := len(t.last) - len(pasteStart) + 1; n > 0 {
		t.last = t.last[:copy(t.last, t.last[n:])]
	}
}
