package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	tea "charm.land/bubbletea/v2"
	"github.com/charmbracelet/x/ansi"
	"golang.org/x/term"

	"guard"
	"guard/audit"
)

const (
	liveEvery  = 200 * time.Millisecond
	liveKept   = 2000 // events that can be scrolled back to
	liveRecent = 24 * time.Hour
)

// live is the screen of guard status --live and guard audit tail --live: what goes
// on, as the log has it. It only reads the log; its strings cannot drive a terminal.
type live struct {
	dir  string
	q    audit.Filter
	next uint64 // record to read from
	err  error

	events   []audit.Record
	view     string // "", or the type of event that is shown
	back     int    // events scrolled back from the newest
	paused   bool
	sessions map[string]*liveSession
	byUse    map[uint64]audit.Record // uses without an outcome yet
	counts   struct{ uses, refused, leaks, escaped, rotations int }

	width, height int
	colour        bool
}

type liveSession struct {
	id, context, task, program, profile string
	started, last                       time.Time
	uses, refused, leaks                int
}

// runLive shows the log in dir until the user leaves or ctx ends.
func (a *app) runLive(ctx context.Context, dir string, q audit.Filter) error {
	if !term.IsTerminal(int(a.stdout.Fd())) || !term.IsTerminal(int(a.stdin.Fd())) {
		return fmt.Errorf("--live wants a terminal: %w", errNoTerminal)
	}
	m := &live{dir: dir, q: q, next: 1, sessions: map[string]*liveSession{}, byUse: map[uint64]audit.Record{}, colour: a.colour(a.stdout)}
	// What is older than a day is of no interest here.
	if q.Since.IsZero() {
		m.q.Since = time.Now().Add(-liveRecent)
	}
	m.read()
	m.q.Since = time.Time{}
	p := tea.NewProgram(m, tea.WithContext(ctx), tea.WithInput(a.stdin), tea.WithOutput(a.stdout))
	_, err := p.Run()
	if errors.Is(err, tea.ErrProgramKilled) && ctx.Err() != nil {
		err = nil
	}
	return errors.Join(err, m.err)
}

type liveTick struct{}

func (m *live) tick() tea.Cmd {
	return tea.Tick(liveEvery, func(time.Time) tea.Msg { return liveTick{} })
}

func (m *live) Init() tea.Cmd { return m.tick() }

// Update takes keys, sizes and the clock.
func (m *live) Update(msg tea.Msg) (tea.Model, tea.Cmd) {
	switch msg := msg.(type) {
	case tea.WindowSizeMsg:
		m.width, m.height = msg.Width, msg.Height
	case liveTick:
		if !m.paused {
			m.read()
		}
		if m.err != nil {
			return m, tea.Quit
		}
		return m, m.tick()
	case tea.KeyPressMsg:
		if m.key(msg.String()) {
			return m, tea.Quit
		}
		m.back = max(0, min(m.back, len(m.shown())-1))
	}
	return m, nil
}

// key does what a key is for, and says whether it ends the screen.
func (m *live) key(k string) (leave bool) {
	switch k {
	case "q", "esc", "ctrl+c":
		return true
	case "a":
		m.view, m.back = "", 0
	case "u":
		m.view, m.back = audit.TypeUse, 0
	case "l":
		m.view, m.back = audit.TypeLeak, 0
	case "r":
		m.view, m.back = audit.TypeRotation, 0
	case "p", "space":
		m.paused = !m.paused
	case "up", "k":
		m.back++
	case "down", "j":
		m.back--
	case "pgup":
		m.back += m.height / 2
	case "pgdown":
		m.back -= m.height / 2
	case "end", "G":
		m.back = 0
	}
	return false
}

// read takes over what was recorded since.
func (m *live) read() {
	// How far the log is, first: what comes meanwhile is for the next time, or taken now.
	last := uint64(0)
	m.err = audit.Read(m.dir, audit.Filter{Last: 1}, func(r audit.Record) error {
		last = r.Seq
		return nil
	})
	if m.err != nil || last < m.next {
		return
	}
	m.q.From = m.next
	m.err = audit.Read(m.dir, m.q, func(r audit.Record) error {
		m.take(r)
		return nil
	})
	m.next = max(m.next, last+1) // what the filter leaves out is not read again
}

func (m *live) take(r audit.Record) {
	if r.Seq < m.next {
		return
	}
	m.next = r.Seq + 1
	s := m.sessions[r.Session]
	if s == nil && r.Session != "" {
		s = &liveSession{id: r.Session, context: r.Context, started: r.Time}
		m.sessions[r.Session] = s
	}
	if s != nil {
		s.last = r.Time
	}
	switch r.Type {
	case audit.TypeSessionStart:
		s.task, s.program, s.profile, s.started = r.Task, base(r.Exe), r.Profile, r.Time
	case audit.TypeSessionEnd:
		delete(m.sessions, r.Session)
	case audit.TypeUse:
		if stops(r.Decision) {
			m.counts.refused++
			if s != nil {
				s.refused++
			}
		} else {
			m.counts.uses++
			m.byUse[r.Seq] = r
			if s != nil {
				s.uses++
			}
		}
	case audit.TypeResult:
		// The outcome belongs to the line of its use.
		if _, ok := m.byUse[r.Of]; ok {
			delete(m.byUse, r.Of)
			for i := len(m.events) - 1; i >= 0; i-- {
				if m.events[i].Seq == r.Of {
					m.events[i].Result, m.events[i].DurationMS = r.Result+" "+r.Reason, r.DurationMS
					return
				}
			}
		}
		return
	case audit.TypeLeak:
		m.counts.leaks++
		if r.Result == "escaped" {
			m.counts.escaped++
		}
		if s != nil {
			s.leaks++
		}
	case audit.TypeRotation:
		if r.Step == "done" {
			m.counts.rotations++
		}
	}
	m.events = append(m.events, r)
	if m.back > 0 {
		m.back++ // what the user looks at stays where it is
	}
	if len(m.events) > 2*liveKept {
		m.events = slices.Delete(m.events, 0, len(m.events)-liveKept)
	}
}

func stops(decision string) bool {
	a, err := guard.ParseAction(decision)
	return err == nil && a.Stops()
}

func base(exe string) string { return exe[strings.LastIndexByte(exe, '/')+1:] }

func (m *live) shown() []audit.Record {
	if m.view == "" {
		return m.events
	}
	return slices.DeleteFunc(slices.Clone(m.events), func(r audit.Record) bool { return r.Type != m.view })
}

// View is the whole screen: what is open, what happened, and the keys.
func (m *live) View() tea.View {
	v := tea.NewView(m.screen())
	v.AltScreen = true
	return v
}

func (m *live) screen() string {
	if m.width == 0 {
		return ""
	}
	var lines []string
	put := func(code, format string, v ...any) {
		s := ansi.Truncate(fmt.Sprintf(format, v...), m.width, "…")
		if code != "" {
			s = paint(m.colour, code, s)
		}
		lines = append(lines, s)
	}
	state := ""
	if m.paused {
		state = "   PAUSED"
	}
	put("1", "guard   %d uses, %d refused, %d leaks (%d escaped), %d rotations since %s%s", m.counts.uses, m.counts.refused, m.counts.leaks, m.counts.escaped,
		m.counts.rotations, "yesterday", state)
	put("", "")
	put("1", "%-27s %-16s %-24s %-12s %5s %7s %5s", "SESSION", "CONTEXT", "TASK", "PROGRAM", "USES", "REFUSED", "LEAKS")
	open := slices.SortedFunc(maps.Values(m.sessions), func(a, b *liveSession) int {
		return cmp.Or(b.last.Compare(a.last), cmp.Compare(a.id, b.id))
	})
	room := max(1, min(len(open), m.height/3))
	for _, s := range open[:min(room, len(open))] {
		code := ""
		if s.leaks > 0 {
			code = "31"
		}
		put(code, "%-27s %-16s %-24s %-12s %5d %7d %5d", s.id, ansi.Truncate(s.context, 16, "…"), ansi.Truncate(s.task, 24, "…"), ansi.Truncate(s.program, 12, "…"), s.uses, s.refused, s.leaks)
	}
	if len(open) == 0 {
		put("2", "no session is open")
	} else if more := len(open) - room; more > 0 {
		put("2", "and %d more", more)
	}
	put("", "")
	put("1", "%-8s %-17s %-20s %s", "TIME", "EVENT", "CREDENTIAL", "WHAT")
	events := m.shown()
	left := max(1, m.height-len(lines)-1)
	end := len(events) - m.back
	for _, r := range events[max(0, end-left):max(0, end)] {
		code := ""
		switch {
		case r.Type == audit.TypeLeak:
			code = "31"
		case stops(r.Decision):
			code = "33"
		case r.Type == audit.TypeRotation:
			code = "36"
		}
		put(code, "%s %-17s %-20s %s", r.Time.Local().Format(time.TimeOnly), ansi.Truncate(r.Type, 17, "…"), ansi.Truncate(r.Credential, 20, "…"), liveWhat(r))
	}
	for len(lines) < m.height-1 {
		lines = append(lines, "")
	}
	put("2", "q leave   a all   u uses   l leaks   r rotations   p pause   arrows scroll")
	return strings.Join(lines, "\n")
}

// liveWhat is the rest of an event's line.
func liveWhat(r audit.Record) string {
	where := strings.TrimSpace(r.Method + " " + r.Host + r.Path)
	switch r.Type {
	case audit.TypeSessionStart:
		where = r.Exe
	case audit.TypeRotation:
		where = r.Step
	case audit.TypeLeak:
		where = strings.TrimSpace(r.Channel + " " + where)
	}
	parts := []string{where, r.Decision, strings.TrimSpace(r.Result)}
	if r.DurationMS > 0 {
		parts = append(parts, fmt.Sprintf("%.0f ms", r.DurationMS))
	}
	if stops(r.Decision) {
		parts = append(parts, r.Rule)
	}
	return strings.Join(slices.DeleteFunc(parts, func(s string) bool { return s == "" }), ", ")
}
