package supervisor

import (
	"errors"
	"fmt"
	"time"

	"guard"
	"guard/matcher"
)

// Line is the leak line: bytes that an agent outputs go in, what may leave comes
// out. Every source of a session shares one Line. Its functions are called from
// many goroutines.
type Line struct {
	Matcher *matcher.Matcher
	// Join finds values whose parts go out by different streams; nil: nobody looks
	// for those.
	Join *matcher.Join
	// Decide is policy's answer to a leak. Nil decides nothing, which kills.
	Decide func(guard.Leak) guard.Decision
	// Record writes the leak to the audit log, durably, and returns its sequence
	// number. An error makes the decision the strictest one.
	Record func(guard.Leak, guard.Decision) (uint64, error)
	// Act is told of every leak after it was recorded and before its bytes go
	// anywhere; it must not block. Main starts the rotation there.
	Act func(guard.Leak, guard.Decision)

	kill   func()           // ends the agent; Run sets it
	judged func(guard.Leak) // told of every leak once it was acted on; Run sets it, for what the kernel finds
}

// Judge takes one leak through decision, record and act, and returns what was
// decided. No decision, or no record: the strictest action.
func (l *Line) Judge(leak guard.Leak) guard.Decision {
	var d guard.Decision
	if l.Decide != nil {
		d = l.Decide(leak)
	}
	d.Secret = leak.Secret
	if d.Action == guard.Pass && leak.Class >= guard.Placeholder {
		return d // a placeholder where it belongs is no event
	}
	var seq uint64
	err := errors.New("there is none")
	if l.Record != nil {
		seq, err = l.Record(leak, d)
	}
	if err != nil {
		d = strictest(d, "the audit log could not be written: "+err.Error())
	}
	d.Record = seq
	if d.Action == guard.Kill && l.kill != nil {
		l.kill()
	}
	if l.Act != nil {
		l.Act(leak, d)
	}
	if l.judged != nil {
		l.judged(leak)
	}
	return d
}

func strictest(d guard.Decision, why string) guard.Decision {
	d.Action, d.Rule, d.Reason = guard.Kill, "no record, no output", why
	return d
}

// Open starts a stream from o. It is a guard.OpenFilter.
func (l *Line) Open(o guard.Origin) guard.Filter {
	s := &stream{line: l, origin: o, matcher: l.Matcher.Stream()}
	if l.Join != nil {
		s.part = l.Join.Stream()
	}
	return s.filter
}

// holdBack is how many bytes of a value may go out when a stream pauses in the
// middle of it: fewer than this many. From that many on the pause does not
// matter, or whoever writes slowly would get the value out in pieces. A prompt
// that ends in the first bytes of a value, such as a token's public prefix, is
// shown when more follows.
const holdBack = 8

// stream is one Filter: the bytes that were seen and not yet released.
type stream struct {
	line     *Line
	origin   guard.Origin
	matcher  *matcher.Stream
	part     *matcher.Part
	held     []byte // bytes [released, released+len(held)) of the stream
	released int64
	spent    int    // bytes at the start of held that the last call returned
	gone     []byte // the last bytes before released: of what pauses let go, and not yet safe then
	stopped  bool
	last     guard.Decision // the decision that stopped the stream
}

func (s *stream) filter(p []byte, step guard.Step) ([]byte, guard.Decision) {
	// The slice that the last call returned is the front of held: drop it now,
	// when its reader is done.
	s.held = s.held[:copy(s.held, s.held[s.spent:])]
	s.spent = 0
	if s.stopped {
		return nil, s.last
	}
	s.held = append(s.held, p...)
	hits, safe := s.matcher.Write(p)
	if step == guard.End {
		hits = append(hits, s.matcher.Close()...)
	}
	end := s.released + int64(len(s.held))
	paused := step == guard.Pause
	switch step {
	case guard.End:
		safe = end
	case guard.Pause:
		s.forget(safe)
		safe = s.matcher.Pause()
	}
	// The strictest decision of this call is the one returned; pass if none.
	worst := guard.Decision{Action: guard.Pass}
	// Where a stream is stopped, nothing of any hit goes out, in whatever order
	// they were reported.
	first := safe
	for _, h := range hits {
		first = min(first, h.Start)
	}
	for _, h := range hits {
		leak := guard.Leak{
			Origin: s.origin, Secret: h.ID, Class: h.Class, Encoding: h.Encoding,
			Offset: h.Start, Length: int(h.End - h.Start), At: time.Now(),
			Partial: s.partial(h.Start),
		}
		d := s.line.Judge(leak)
		if d.Action < worst.Action {
			worst = d
		}
		switch {
		case d.Action.Stops():
			s.stopped, s.last = true, d
			out := s.held[:max(0, first-s.released)]
			s.advance(len(out))
			return out, d
		case d.Action == guard.Redact:
			// Only what is still here can be masked; Partial says that some was not. A
			// hit may be reported late, when the bytes after it decide what it is.
			if from := max(h.Start, s.released); from < h.End {
				part := s.held[from-s.released : h.End-s.released]
				if s.origin.Channel == guard.ChannelTerminal {
					name := h.ID.Name
					if from > h.Start {
						name = ""
					}
					maskShown(part, name)
					continue
				}
				matcher.Mask(part[:0], part, []matcher.Hit{{ID: h.ID, Class: h.Class, Encoding: h.Encoding, Start: from, End: h.End}}, from)
			}
		}
	}
	out := s.held[:max(0, safe-s.released)]
	if d := s.joined(out); d.Action < worst.Action {
		worst = d
		if d.Action.Stops() {
			s.stopped, s.last = true, d
			return nil, d
		}
	}
	if paused {
		s.gone = append(s.gone, out...)
	} else if len(out) > 0 {
		s.gone = s.gone[:0]
	}
	s.advance(len(out))
	return out, worst
}

// joined judges values of which out, that is about to go, has the last part. What
// went before, by this stream or another, is out; so the leak is a partial one.
func (s *stream) joined(out []byte) guard.Decision {
	worst := guard.Decision{Action: guard.Pass}
	if s.part == nil || len(out) == 0 {
		return worst
	}
	for _, x := range s.part.Write(out) {
		d := s.line.Judge(guard.Leak{
			Origin: s.origin, Secret: x.ID, Class: x.Class, Encoding: "split", Offset: s.released, Length: len(out), At: time.Now(), Partial: true,
		})
		if d.Action < worst.Action {
			worst = d
		}
	}
	return worst
}

func (s *stream) advance(n int) {
	s.spent = n
	s.released += int64(n)
}

// Words is what guard says of a leak on the user's terminal: one line, no value.
func Words(l guard.Leak, d guard.Decision) string {
	where := string(l.Channel)
	switch {
	case l.Host != "":
		where = fmt.Sprintf("%s to %s%s", l.Channel, l.Host, l.Path)
	case l.Path != "":
		where = fmt.Sprintf("%s %s", l.Channel, l.Path)
	}
	did := map[guard.Action]string{
		guard.Kill: "agent ended", guard.Block: "blocked", guard.Redact: "redacted", guard.Warn: "let through", guard.Pass: "let through",
	}[d.Action]
	what := "credential " + l.Secret.Name
	if l.Class >= guard.Placeholder {
		what = l.Class.String() + " of " + l.Secret.Name
	}
	return fmt.Sprintf("%s (%s) in %s: %s (%s)", what, l.Encoding, where, did, d.Rule)
}
