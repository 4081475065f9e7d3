package pty

import (
	"os"
	"strings"
	"sync"
	"time"
	"unicode"

	"guard"
)

// Session copies between the user's terminal and the master of the agent's.
// Its fields are set before Run and not changed after.
type Session struct {
	Master   *os.File  // stays the caller's to close, after Run
	Terminal *Terminal // in raw mode
	// Out judges everything from the agent before it is displayed. It must not
	// be nil.
	Out guard.Filter
	// Held returns how many bytes Out holds back that a pause may let go, for an Out
	// that gives out more than it was given; nil: it does not.
	Held func() int64
	// Hold is how long a held-back tail of under 8 bytes, or the start of an
	// escape sequence, waits for more; 0: 5 ms.
	Hold time.Duration
	// LongHold is how long a longer one does; 0: 1 s.
	LongHold time.Duration
	// NoClipboard also drops what writes the user's clipboard (OSC 52).
	NoClipboard bool
	// Resize sets the size of the agent's terminal; nil: on Master.
	Resize func(rows, cols uint16) error
	// OnDecision is told every decision of Out that is not Pass, before its
	// bytes are displayed. After Kill and Block nothing more of the agent's is
	// displayed, and what it writes is read and dropped. It runs between the
	// agent's output and the screen: it must not wait for either.
	OnDecision func(guard.Decision)
	// In judges what the user types and pastes before the agent gets it; nil: it
	// passes. It is told of a pause after each key, and of what is pasted when 5 ms
	// of silence (inside bracketed paste, 1 s) came: it must let go of everything
	// then. The reason of a decision that is not Pass is shown to the user. After one
	// that stops, nothing more of what is typed reaches the agent. It is called on a
	// goroutine of Run's, beside Out.
	In guard.Filter
	// Note returns text that guard wants to show, or "". It is asked when the
	// agent is silent, after Wake, and at the end. The text is shown on lines of its own,
	// never inside an escape sequence or on a full-screen program's screen; what
	// is there is kept until that ends.
	Note func() string

	suspend sync.Mutex // one Suspend or Resume at a time
	mu      sync.Mutex // for live and said
	live    *live
	notes   []string // for the goroutine of Run alone
	said    []string // by In's decisions, not yet in notes; under mu
}

// shown makes text of guard's own fit for a raw terminal: lines that end in CR
// LF, and no control character, since a reason may quote what an agent chose.
func shown(text string) string {
	text = strings.Map(func(r rune) rune {
		if r != '\n' && !unicode.IsPrint(r) {
			return -1
		}
		return r
	}, text)
	return strings.ReplaceAll(strings.TrimRight(text, "\n"), "\n", "\r\n") + "\r\n"
}

// idle shows what guard has to say, when it can be shown after what is written.
func (s *Session) idle(written func() error) error {
	if !s.noted() {
		return nil
	}
	if err := written(); err != nil {
		return err
	}
	if calm, _ := s.Terminal.calm(); !calm {
		return nil
	}
	return s.say()
}

// typed is what keys go through, nil if nothing judges them.
func (s *Session) typed() *typed {
	if s.In == nil {
		return nil
	}
	return &typed{filter: s.In, decided: func(d guard.Decision) {
		if d.Reason == "" {
			return
		}
		s.mu.Lock()
		s.said = append(s.said, "guard: "+d.Reason)
		s.mu.Unlock()
		s.Wake()
	}}
}

// noted asks for news, and says whether there is something to show.
func (s *Session) noted() bool {
	if s.In != nil {
		s.mu.Lock()
		s.notes, s.said = append(s.notes, s.said...), nil
		s.mu.Unlock()
	}
	if s.Note != nil {
		if text := s.Note(); text != "" {
			s.notes = append(s.notes, text)
		}
	}
	return len(s.notes) > 0
}

// say shows the notes, wherever the cursor is.
func (s *Session) say() error {
	for _, text := range s.notes {
		text = shown(text)
		if _, fresh := s.Terminal.calm(); !fresh {
			text = "\r\n" + text
		}
		if err := s.Terminal.Write([]byte(text)); err != nil {
			return err
		}
	}
	s.notes = nil
	return nil
}

// blocked ends the agent's part of the screen.
func (s *Session) blocked(d guard.Decision) error {
	if d.Action == guard.Kill && s.OnDecision != nil {
		return nil // whoever kills also says so
	}
	if err := s.Terminal.reset(); err != nil {
		return err
	}
	reason := d.Reason
	if reason == "" {
		reason = "no reason given"
	}
	s.notes = append(s.notes, "guard: output stopped: "+reason)
	return s.say()
}
