package main

import (
	"fmt"
	"slices"
	"sync"
	"time"

	"guard"
	"guard/audit"
	"guard/broker/pack"
	"guard/matcher"
	"guard/matcher/formats"
)

// pushFormats searches what a push sends for credentials by their form. The rules
// are compiled when the first push comes: most sessions have none. close frees
// them; no stream is open by then.
func (s *session) pushFormats() (open guard.OpenFilter, close func()) {
	var once sync.Once
	var set *formats.Set
	var err error
	make := func() (*formats.Set, error) {
		once.Do(func() {
			set, err = formats.New(formats.Options{
				CacheDir: s.app.cacheDir(),
				// Known values are the leak line's, placeholders nobody's; but one inside of a
				// credential, in a key's headers for instance, excuses nothing.
				Ignore: func(b []byte) bool {
					return slices.ContainsFunc(s.matcher.Scan(b), func(h matcher.Hit) bool { return h.Start == 0 && h.End == int64(len(b)) })
				},
			})
		})
		return set, err
	}
	open = func(o guard.Origin) guard.Filter {
		set, err := make()
		if err != nil {
			return func([]byte, guard.Step) ([]byte, guard.Decision) {
				return nil, guard.Decision{Action: guard.Block, Rule: pack.FormatRule + "search", Reason: "what could not be looked through for credentials"}
			}
		}
		return (&formatFilter{s: s, st: set.Stream(), o: o}).filter
	}
	close = func() {
		once.Do(func() {})
		if set != nil {
			set.Close()
		}
	}
	return open, close
}

// formatFilter is the Filter of one thing that a push sends.
type formatFilter struct {
	s  *session
	st *formats.Stream
	o  guard.Origin
}

func (f *formatFilter) filter(p []byte, step guard.Step) ([]byte, guard.Decision) {
	found := f.st.Write(p)
	if step == guard.End {
		found = append(found, f.st.Close()...)
	}
	out := guard.Decision{Action: guard.Pass}
	for _, x := range found {
		if x.Confidence < formats.High {
			continue // a guess would stop work that is fine
		}
		d := guard.Decision{Action: guard.Block, Rule: pack.FormatRule + x.Rule,
			Reason:    fmt.Sprintf("what looks like a credential (%s %s, confidence %s)", x.Provider, x.Kind, x.Confidence),
			NextSteps: []string{"if it opens nothing, the user can let it through: guard run --on-leak warn"}}
		if f.s.policy.Leak(guard.Leak{Origin: f.o}).Action == guard.Warn { // --on-leak, and a project that is stricter
			d.Action = guard.Warn
		}
		f.s.leaks.Add(1)
		if err := f.s.recordFormat(f.o, x, d); err != nil {
			d = guard.Decision{Action: guard.Block, Rule: "no record, no output", Reason: "the audit log could not be written"}
		}
		if d.Action.Stops() {
			return nil, d
		}
		out = d
	}
	return p, out
}

// recordFormat is the record of a credential that guard does not know.
func (s *session) recordFormat(o guard.Origin, x formats.Finding, d guard.Decision) error {
	r := s.record(audit.TypeLeak)
	r.Time = time.Now()
	r.Class, r.Encoding = "format", x.Encoding
	r.Channel, r.PID, r.Exe, r.Host, r.Method, r.Path = string(o.Channel), o.PID, o.Exe, o.Host, o.Method, o.Path
	r.Decision, r.Rule, r.Reason, r.Bytes = d.Action.String(), d.Rule, d.Reason, x.End-x.Start
	r.Result = "contained"
	if !d.Action.Stops() {
		r.Result = "escaped"
	}
	s.describe(&r)
	_, err := s.append(r)
	return err
}
