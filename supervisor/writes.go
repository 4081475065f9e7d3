package supervisor

import (
	"context"
	"os"
	"sync"
	"time"

	"guard"
	"guard/matcher"
	"guard/supervisor/notify"
)

// SourceWrites is Origin.Source of what was judged before it was written.
const SourceWrites = "seccomp"

// RuleRefusedWrite: the write failed with EPERM before a byte of it was out.
const RuleRefusedWrite = "refused before it was written"

// Writes has the session's writes to files and pipes judged before they are
// done: guard does them in the agent's place (package notify).
type Writes struct {
	// Refuse makes a refusal of what policy would have redacted. Without it the
	// bytes are masked on their way.
	Refuse bool
	// Done is told at the end what was written and judged.
	Done func(map[guard.Channel]notify.Counters)
}

// writer serves the writes of one session.
type writer struct {
	w      *Writes
	line   *Line
	leave  map[[2]uint64]bool
	failed chan error
	cancel context.CancelFunc
	served sync.WaitGroup
	server *notify.Server

	mu    sync.Mutex
	count map[writeKey]int
	last  map[writeKey]guard.Decision
}

type writeKey struct {
	secret  guard.SecretID
	channel guard.Channel
	path    string
}

func newWriter(w *Writes, line *Line) *writer {
	return &writer{
		w: w, line: line, leave: map[[2]uint64]bool{}, failed: make(chan error, 1), cancel: func() {},
		count: map[writeKey]int{}, last: map[writeKey]guard.Decision{},
	}
}

// take begins to serve. It is sandbox.Config.Notify.
func (w *writer) take(listener *os.File, uid, gid int) error {
	s, err := notify.New(listener, notify.Options{Judge: w.judge, Leave: w.leave, UID: uid, GID: gid})
	if err != nil {
		return err
	}
	w.server = s
	ctx, cancel := context.WithCancel(context.Background())
	w.cancel = cancel
	w.served.Go(func() {
		if err := s.Serve(ctx); err != nil {
			w.failed <- err
		}
	})
	return nil
}

// finish returns when nothing is served any more.
func (w *writer) finish() {
	w.cancel()
	w.served.Wait()
	if w.server != nil && w.w.Done != nil {
		w.w.Done(w.server.Stats())
	}
}

// judge searches one write together with what it comes next to.
func (w *writer) judge(b notify.Write) notify.Verdict {
	verdict := notify.Allow
	var who guard.Origin
	for _, h := range w.line.Matcher.Scan(b.Bytes) {
		from, till := int64(b.From), int64(b.Till)
		if h.End <= from || h.Start >= till {
			continue // it is in what was there before
		}
		if who.Source == "" {
			who = b.Who()
			who.Source = SourceWrites
		}
		l := guard.Leak{
			Origin: who, Secret: h.ID, Class: h.Class, Encoding: h.Encoding, Offset: h.Start - from, Length: int(h.End - h.Start), At: time.Now(),
			// What is next to the write is out already.
			Partial: b.Done || from-h.Start >= holdBack || h.End-till >= holdBack,
		}
		d := w.decide(l, b.Done, b.Fixed)
		switch {
		case d.Action == guard.Kill:
			verdict = notify.Hold // it does not even learn of the refusal
		case d.Action.Stops() && verdict == notify.Allow:
			verdict = notify.Refuse
		case d.Action == guard.Redact:
			part := b.Bytes[max(h.Start, from):min(h.End, till)]
			matcher.Mask(part[:0], part, []matcher.Hit{{ID: h.ID, Class: h.Class, Encoding: h.Encoding, Start: max(h.Start, from), End: min(h.End, till)}}, max(h.Start, from))
		}
	}
	return verdict
}

// decide is the leak line's answer. A program that tries the same again and again
// gets the same one, and no more records.
func (w *writer) decide(l guard.Leak, done, fixed bool) guard.Decision {
	key := writeKey{l.Secret, l.Channel, l.Path}
	w.mu.Lock()
	if len(w.count) > 1<<14 { // a program that makes up names gets records again
		clear(w.count)
		clear(w.last)
	}
	w.count[key]++
	if d, seen := w.last[key]; seen && w.count[key] > maxRecords && !done {
		w.mu.Unlock()
		return d
	}
	w.mu.Unlock()
	line := *w.line
	decide := line.Decide
	line.Decide = func(l guard.Leak) guard.Decision {
		d := decide(l)
		switch {
		case d.Action == guard.Pass && l.Class >= guard.Placeholder, d.Action == guard.Kill:
		case done:
			d.Action, d.Rule = guard.Warn, "two writes came to be next to each other by a race"
		case d.Action == guard.Block || d.Action == guard.Redact && (w.w.Refuse || fixed):
			d.Action, d.Rule = guard.Block, RuleRefusedWrite+": "+d.Rule
		}
		return d
	}
	// Not on this thread: where guard is root's, it has the agent's identity, and may
	// not write the log.
	answer := make(chan guard.Decision)
	go func() { answer <- line.Judge(l) }()
	d := <-answer
	w.mu.Lock()
	w.last[key] = d
	w.mu.Unlock()
	return d
}
