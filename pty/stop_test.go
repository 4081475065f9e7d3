//go:build unix

package pty

import (
	"strings"
	"sync/atomic"
	"testing"

	"github.com/creack/pty"

	"guard"
	"guard/internal/testutil"
)

func TestStops(t *testing.T) {
	for _, action := range []guard.Action{guard.Kill, guard.Block} {
		t.Run(action.String(), func(t *testing.T) {
			u := newUser(t)
			m, s := rawPair(t)
			var told []guard.Action
			w := &wordFilter{word: "sesame-open-now", action: action}
			ended, _ := start(t, &Session{Master: m, Terminal: u.term, Out: w.filter,
				OnDecision: func(d guard.Decision) { told = append(told, d.Action) }})
			say(t, s, "\x1b[?1049hbefore sesame-open-now after")
			for range 64 { // far more than a terminal holds: it must be drained
				say(t, s, strings.Repeat("after", 1000))
			}
			s.Close()
			if err := ended(); err != nil {
				t.Fatal(err)
			}
			got := u.screen.String()
			if strings.Contains(got, "sesame") || strings.Contains(got, "after") {
				t.Errorf("displayed %q", tail(got))
			}
			want := "\x1b[?1049hbefore "
			if action == guard.Block {
				want += "\x1b[?1049l\r\nguard: output stopped: the word came\r\n"
			}
			u.screen.waitFor(t, want)
			if len(told) != 1 || told[0] != action {
				t.Errorf("told %v", told)
			}
		})
	}
}

func TestZeroDecisionShowsNothing(t *testing.T) {
	u := newUser(t)
	m, s := rawPair(t)
	ended, _ := start(t, &Session{Master: m, Terminal: u.term,
		Out: func(p []byte, _ guard.Step) ([]byte, guard.Decision) { return nil, guard.Decision{} }})
	say(t, s, "anything")
	s.Close()
	if err := ended(); err != nil {
		t.Fatal(err)
	}
	u.screen.waitFor(t, "output stopped")
	if strings.Contains(u.screen.String(), "anything") {
		t.Error("displayed without a decision")
	}
	if err := (&Session{Master: m, Terminal: u.term}).Run(t.Context()); err == nil {
		t.Error("ran without a filter")
	}
}

func TestNotes(t *testing.T) {
	testutil.Leftovers(t)
	u := newUser(t)
	m, s := rawPair(t)
	var note atomic.Pointer[string]
	session := &Session{Master: m, Terminal: u.term, Out: passAll, Note: func() string {
		if p := note.Swap(nil); p != nil {
			return *p
		}
		return ""
	}}
	tell := func(text string) { note.Store(&text); session.Wake() }
	ended, _ := start(t, session)
	say(t, s, "prompt> ")
	u.screen.waitFor(t, "prompt> ")
	tell("guard: one\nguard: \x1b[31mtwo\u009b")
	u.screen.waitFor(t, "prompt> \r\nguard: one\r\nguard: [31mtwo\r\n")
	say(t, s, "\x1b[?1049hfull")
	u.screen.waitFor(t, "full")
	tell("guard: three")
	say(t, s, "\x1b[1")
	u.screen.waitFor(t, "full\x1b[1")
	say(t, s, ";2Hmore\x1b[?1049")
	u.screen.waitFor(t, "full\x1b[1;2Hmore\x1b[?1049")
	say(t, s, "l")
	u.screen.waitFor(t, "\x1b[?1049l\r\nguard: three\r\n")
	say(t, s, "\x1b]0;never ended")
	u.screen.waitFor(t, "never ended")
	tell("guard: four")
	s.Close()
	if err := ended(); err != nil {
		t.Fatal(err)
	}
	u.screen.waitFor(t, "never ended\x1b\\\r\nguard: four\r\n")
}

func TestUsersTerminalGoesAway(t *testing.T) {
	testutil.Leftovers(t)
	om, os_, err := pty.Open()
	if err != nil {
		t.Fatal(err)
	}
	defer os_.Close()
	tm, err := OpenTerminal(os_, os_)
	if err != nil {
		t.Fatal(err)
	}
	m, s := rawPair(t)
	ended, _ := start(t, &Session{Master: m, Terminal: tm, Out: passAll})
	om.Close()
	say(t, s, "x")
	if err := ended(); err == nil {
		t.Error("no error though nobody sees the output")
	}
}
