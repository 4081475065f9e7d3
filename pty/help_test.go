package pty

import (
	"bytes"
	"io"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	"guard"
)

var pass = guard.Decision{Action: guard.Pass}

func passAll(p []byte, _ guard.Step) ([]byte, guard.Decision) { return p, pass }

// wordFilter masks one word, byte by byte, and holds back what may be its
// start. It knows what it already let go.
type wordFilter struct {
	word   string
	action guard.Action
	q      int // how much of the word the stream ends with
	held   []byte
	out    []byte
	steps  []guard.Step
}

func (w *wordFilter) filter(p []byte, s guard.Step) ([]byte, guard.Decision) {
	w.out = w.out[:0]
	w.steps = append(w.steps, s)
	d := pass
	for _, b := range p {
		w.held = append(w.held, b)
		for w.q > 0 && w.word[w.q] != b {
			w.q = w.border(w.q)
		}
		if w.word[w.q] == b {
			w.q++
		}
		if w.q == len(w.word) {
			d = guard.Decision{Action: w.action, Reason: "the word came"}
			if w.action.Stops() {
				return w.out, d
			}
			w.out = append(w.out, strings.Repeat("*", len(w.held))...)
			w.held, w.q = w.held[:0], 0
			continue
		}
		if n := len(w.held) - w.q; n > 0 {
			w.out = append(w.out, w.held[:n]...)
			w.held = append(w.held[:0], w.held[n:]...)
		}
	}
	if s != guard.More {
		w.out = append(w.out, w.held...)
		w.held = w.held[:0]
	}
	return w.out, d
}

func (w *wordFilter) border(q int) int {
	for k := q - 1; k > 0; k-- {
		if w.word[:k] == w.word[q-k:q] {
			return k
		}
	}
	return 0
}

// screen collects what was displayed.
type screen struct {
	mu   sync.Mutex
	cond sync.Cond
	buf  bytes.Buffer
}

func newScreen() *screen {
	s := &screen{}
	s.cond.L = &s.mu
	return s
}

func (s *screen) Write(p []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.buf.Write(p)
	s.cond.Broadcast()
	return len(p), nil
}

func (s *screen) String() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.buf.String()
}

// wait returns once ok holds for what was displayed.
func (s *screen) wait(t testing.TB, what string, ok func(string) bool) {
	t.Helper()
	late := false
	timer := time.AfterFunc(30*time.Second, func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		late = true
		s.cond.Broadcast()
	})
	defer timer.Stop()
	s.mu.Lock()
	defer s.mu.Unlock()
	for !ok(s.buf.String()) {
		if late {
			t.Fatalf("never displayed: %s; displayed %d bytes, the last of them %q", what, s.buf.Len(), tail(s.buf.String()))
		}
		s.cond.Wait()
	}
}

func (s *screen) waitFor(t testing.TB, text string) {
	t.Helper()
	s.wait(t, text, func(have string) bool { return strings.Contains(have, text) })
}

func tail(s string) string { return s[max(0, len(s)-200):] }

// noGoroutines fails if one of the package's own is left.
func noGoroutines(t testing.TB) {
	t.Helper()
	buf := make([]byte, 1<<20)
	left := ""
	for range 500 { // they end asynchronously
		left = ""
		for g := range strings.SplitSeq(string(buf[:runtime.Stack(buf, true)]), "\n\n") {
			if strings.Contains(g, "guard/pty.") && !strings.Contains(g, "_test.go") {
				left = g
			}
		}
		if left == "" {
			return
		}
		time.Sleep(time.Millisecond)
	}
	t.Errorf("a goroutine of this package is left:\n%s", left)
}

// ReadFrom collects what r displays, until it ends.
func (s *screen) ReadFrom(r io.Reader) (int64, error) {
	return io.Copy(struct{ io.Writer }{s}, r)
}
