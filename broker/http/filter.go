package http

import (
	"bytes"
	"io"
	"sync/atomic"
	"time"

	"guard"
	"guard/broker"
)

// filtered is a body on its way through a filter.
type filtered struct {
	src    io.ReadCloser
	f      guard.Filter
	pauses bool                       // the sender may wait for an answer in the middle
	stop   func(guard.Decision) error // what Read returns when the filter stops
	end    func() error               // at the end, before io.EOF; optional
	// maskTail masks what the filter keeps even when it is told of a pause and then
	// of the end: the beginning of a value, long enough to tell something of it. A
	// sender that knows the value could stop one byte before its end.
	maskTail bool

	buf   []byte
	out   []byte
	held  int
	told  bool  // the filter was told of this silence
	ended bool  // src is at its end, the filter was not told yet
	err   error // what Read returns once out is empty
	ahead chan read

	stopped atomic.Pointer[stopError] // for those who do not see what Read returned
}

type stopError struct{ error }

type read struct {
	n   int
	err error
}

// firstRead is how much of a body is read at a time until there is more of it: most
// are small.
const firstRead = 2 << 10

// Read gives what the filter lets go.
func (t *filtered) Read(p []byte) (int, error) {
	for {
		if len(t.out) > 0 {
			n := copy(p, t.out)
			t.out = t.out[n:]
			return n, nil
		}
		if t.err != nil {
			return 0, t.err
		}
		if t.ended {
			if t.maskTail && t.held > 0 && !t.told {
				t.told = true
				t.step(nil, guard.Pause)
				continue
			}
			t.err = io.EOF
			cut := t.held
			t.step(nil, guard.End)
			if t.maskTail {
				for i := max(0, len(t.out)-cut); i < len(t.out); i++ {
					t.out[i] = '*'
				}
			}
			if t.err == io.EOF && t.end != nil {
				if err := t.end(); err != nil {
					t.err = err
				}
			}
			continue
		}
		if t.buf == nil {
			t.buf = make([]byte, firstRead)
		}
		n, err, idle := t.fill()
		if idle {
			t.told = true
			t.step(nil, guard.Pause)
			continue
		}
		if err == io.EOF {
			t.ended = true
		} else if err != nil {
			t.err = err
		}
		if n > 0 {
			t.step(t.buf[:n], guard.More)
		}
		if n == firstRead && n == len(t.buf) {
			t.buf = make([]byte, bufSize) // what the filter returned may be the old one
		}
	}
}

func (t *filtered) step(p []byte, s guard.Step) {
	out, d := t.f(p, s)
	t.held += len(p) - len(out)
	t.out = out
	if d.Action.Stops() {
		t.out = nil
		t.err = t.stop(d)
		t.stopped.Store(&stopError{t.err})
	}
}

// fill reads into buf. While the filter holds something back, it does not wait
// for longer than broker.Idle and reports idle then, once: what the filter keeps
// after that waits for what comes next.
func (t *filtered) fill() (n int, err error, idle bool) {
	if t.ahead == nil && (!t.pauses || t.held == 0 || t.told) {
		t.told = false
		n, err = t.src.Read(t.buf)
		return n, err, false
	}
	if t.ahead == nil {
		t.ahead = make(chan read, 1)
		go func(buf []byte, ch chan<- read) {
			n, err := t.src.Read(buf)
			ch <- read{n, err}
		}(t.buf, t.ahead)
	}
	var timeout <-chan time.Time
	if t.held > 0 && !t.told {
		timer := time.NewTimer(broker.Idle)
		defer timer.Stop()
		timeout = timer.C
	}
	select {
	case r := <-t.ahead:
		t.ahead, t.told = nil, false
		return r.n, r.err, false
	case <-timeout:
		return 0, nil, true
	}
}

// Close closes the source, which ends a read that is under way.
func (t *filtered) Close() error { return t.src.Close() }

// both is f, and a search for placeholders that must not go to this host. A hit
// is given to refused, whose decision stops the stream.
func both(f guard.Filter, foreign []guard.Credential, refused func(guard.Credential) guard.Decision) guard.Filter {
	if len(foreign) == 0 {
		return f
	}
	longest := 0
	needles := make([][]stand, len(foreign))
	for i, c := range foreign {
		longest = max(longest, len(c.Placeholder))
		needles[i] = stands(c)
	}
	tail := make([]byte, 0, 2*longest)
	find := func(b []byte) (guard.Credential, bool) {
		for i, c := range foreign {
			for _, st := range needles[i] {
				if bytes.Contains(b, []byte(st.ph)) {
					return c, true
				}
			}
		}
		return guard.Credential{}, false
	}
	return func(p []byte, s guard.Step) ([]byte, guard.Decision) {
		if len(p) > 0 {
			seam := append(tail, p[:min(len(p), longest)]...)
			c, hit := find(seam)
			if !hit && len(p) > longest {
				c, hit = find(p)
			}
			if hit {
				return nil, refused(c)
			}
			if len(p) >= longest {
				tail = append(tail[:0], p[len(p)-longest+1:]...)
			} else {
				tail = append(tail[:0], seam[max(0, len(seam)-longest+1):]...)
			}
		}
		return f(p, s)
	}
}

// opening runs all of b through f and returns a copy of what goes on: b, or b with masks.
// rest is f, if it holds nothing back: then nothing that is looked for can begin in b
// and end in what comes next, so f may go on with something else. Otherwise f was
// ended, and rest is nil.
func opening(f guard.Filter, b []byte) (res []byte, rest guard.Filter, d guard.Decision) {
	out, d := f(b, guard.More)
	if d.Action.Stops() {
		return nil, nil, d
	}
	if len(out) == len(b) {
		return bytes.Clone(out), f, d // it is f's own, until its next call
	}
	res = append(make([]byte, 0, len(b)), out...)
	out, end := f(nil, guard.End)
	if end.Action < d.Action {
		d = end
	}
	if d.Action.Stops() {
		return nil, nil, d
	}
	if res = append(res, out...); len(res) != len(b) {
		return nil, nil, guard.Decision{Action: guard.Block, Rule: "leak-line", Reason: "the leak line gave no verdict on all of the bytes"}
	}
	return res, nil, d
}

// whole is opening, and the end of f.
func whole(f guard.Filter, b []byte) ([]byte, guard.Decision) {
	res, rest, d := opening(f, b)
	if rest == nil {
		return res, d
	}
	out, end := rest(nil, guard.End)
	if end.Action < d.Action {
		d = end
	}
	if d.Action.Stops() {
		return nil, d
	}
	if len(out) > 0 {
		return nil, guard.Decision{Action: guard.Block, Rule: "leak-line", Reason: "the leak line gave no verdict on all of the bytes"}
	}
	return res, d
}
