package main

import (
	"fmt"
	"time"

	"guard"
	"guard/audit"
	"guard/matcher"
)

// channelInput is the way into the session, from the user's keyboard.
const channelInput guard.Channel = "input"

// input judges what the user types and pastes before the agent gets it: the
// other direction than the leak line's. What the user hands over is no leak of
// the agent's, so it starts no rotation and no incident; it is recorded, told,
// and, unless --input says otherwise, kept back.
func (s *session) input() guard.Filter {
	return (&inputFilter{session: s, st: s.matcher.Stream()}).filter
}

// inputFilter is the Filter of the user's terminal. At a pause it lets go of
// everything, since what is typed must appear: of a value that is typed key by
// key only the bytes that complete it are kept back.
type inputFilter struct {
	session  *session
	st       *matcher.Stream
	held     []byte // bytes [released, released+len(held)) of the stream
	released int64
	spent    int // bytes at the start of held that the last call returned
}

func (f *inputFilter) filter(p []byte, step guard.Step) ([]byte, guard.Decision) {
	f.held = f.held[:copy(f.held, f.held[f.spent:])]
	f.held = append(f.held, p...)
	hits, safe := f.st.Write(p)
	if step == guard.End {
		hits = append(hits, f.st.Close()...)
	}
	if step != guard.More {
		safe = f.released + int64(len(f.held))
	}
	worst := guard.Decision{Action: guard.Pass}
	for _, h := range hits {
		if h.Class >= guard.Placeholder {
			continue
		}
		from := max(h.Start, f.released)
		d := f.session.judgeInput(h, from-h.Start)
		if d.Action < worst.Action {
			worst = d
		}
		if d.Action == guard.Redact && from < h.End {
			f.session.replace(f.held[from-f.released:h.End-f.released], h, from)
		}
	}
	f.spent = int(max(0, safe-f.released))
	f.released += int64(f.spent)
	return f.held[:f.spent], worst
}

// replace puts the credential's placeholder, or else a mask, where its value is.
// part is the value from the stream's offset from on.
func (s *session) replace(part []byte, h matcher.Hit, from int64) {
	if h.Encoding == "raw" && from == h.Start {
		for _, c := range s.credentials() {
			if c.Name == h.ID.Name && len(c.Placeholder) == len(part) {
				copy(part, c.Placeholder)
				return
			}
		}
	}
	h.Start = from
	matcher.Mask(part[:0], part, []matcher.Hit{h}, from)
}

// judgeInput decides about a value of which the first out bytes are with the
// agent already, records it, and says what the user is to be told.
func (s *session) judgeInput(h matcher.Hit, out int64) guard.Decision {
	d := guard.Decision{Secret: h.ID, Action: guard.Redact, Rule: "--input " + s.flags.input}
	switch s.flags.input {
	case "allow":
		d.Action = guard.Pass
	case "warn":
		d.Action = guard.Warn
	}
	if h.Class == guard.Retired { // worth nothing any more
		d.Action, d.Rule = guard.Pass, "retired"
	}
	name := h.ID.Name
	switch {
	case d.Action == guard.Warn:
		d.Reason = fmt.Sprintf("what you typed or pasted holds the value of %s, and the agent got it (--input warn)", name)
	case d.Action == guard.Pass:
		d.Reason = fmt.Sprintf("the user gave the value of %s to the agent", name)
	case out > 0:
		d.Reason = fmt.Sprintf("you typed the value of %s: only its end was kept back from the agent, which has the %d bytes before it. Replace it: guard rotate %s", name, out, name)
	default:
		d.Reason = fmt.Sprintf("the value of %s was kept back from the agent, which got its placeholder or a mask (--input warn lets it through)", name)
	}
	r := s.record(audit.TypeLeak)
	r.Time = time.Now()
	r.Credential, r.Version, r.Class, r.Encoding = name, h.ID.Version, h.Class.String(), h.Encoding
	r.Channel, r.Bytes = string(channelInput), h.End-h.Start
	r.Decision, r.Rule, r.Reason, r.Result = d.Action.String(), d.Rule, d.Reason, "given"
	if d.Action == guard.Redact {
		r.Result = "contained"
		if out > 0 {
			r.Result = fmt.Sprintf("contained but for %d bytes", out)
		}
	}
	seq, err := s.append(r)
	if err != nil {
		d.Action, d.Rule = guard.Redact, "no record, no input"
		d.Reason = fmt.Sprintf("the value of %s was kept back from the agent: the audit log could not be written: %v", name, err)
	}
	d.Record = seq
	return d
}
