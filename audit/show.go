package audit

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"path"
	"strings"
	"time"
)

// ShowOptions are Show's. The zero value is for a person at this machine.
type ShowOptions struct {
	Location *time.Location // of the times; nil: the reader's
	// Alive says whether a session may still be running; nil: one that has no
	// session.end record may. It decides between "in progress" and "unknown" for a
	// use without an outcome.
	Alive func(session string) bool
}

// outcome is what a later record said about an earlier one.
type outcome struct {
	result, reason string
	ms             float64
	wiped          bool
}

// Show is ShowOptions.Show with the zero options.
func Show(w io.Writer, dir string, f Filter) error { return ShowOptions{}.Show(w, dir, f) }

// ShowRecord writes one record for a person, as it comes (guard audit tail): the
// outcome of a use is a block of its own, since the use was shown before.
func ShowRecord(w io.Writer, r Record) error {
	bw := bufio.NewWriter(w)
	s := shower{w: bw, opts: ShowOptions{Location: time.Local}}
	if r.Type == TypeResult {
		s.outcome(r)
	} else {
		s.show(r)
	}
	return bw.Flush()
}

// showBatch is how many records are shown at a time: memory is bounded, and what
// completes them is looked up for all of them together.
const showBatch = 4096

// Show writes the records of dir that f selects for a person, a block each; a
// use and its outcome are one block.
func (o ShowOptions) Show(w io.Writer, dir string, f Filter) error {
	if o.Location == nil {
		o.Location = time.Local
	}
	v, err := openView(dir)
	if err != nil {
		return err
	}
	bw := bufio.NewWriter(w)
	s := shower{w: bw, opts: o, ended: map[string]bool{}}
	var batch []Record
	flush := func() error {
		if err := s.complete(v, batch); err != nil {
			return err
		}
		for _, r := range batch {
			s.show(r)
		}
		batch = batch[:0]
		return bw.Flush()
	}
	if err := v.read(f, func(r Record) error {
		if r.Of == 0 || r.Type != TypeResult && r.Type != TypeUse {
			batch = append(batch, r)
		}
		if len(batch) < showBatch {
			return nil
		}
		return flush()
	}); err != nil {
		return errors.Join(flush(), err)
	}
	return flush()
}

// complete looks up what later records say of batch: they come later than a
// filter may reach, and need not repeat the fields that it asks for.
func (s *shower) complete(v view, batch []Record) error {
	s.outcomes = map[uint64]outcome{}
	var seqs []uint64
	open := map[string]bool{}
	for _, r := range batch {
		seqs = append(seqs, r.Seq)
		if r.Type == TypeUse && !s.ended[r.Session] {
			open[r.Session] = true
		}
	}
	if err := v.completions(seqs, func(r Record) {
		s.outcomes[r.Of] = outcome{r.Result, r.Reason, r.DurationMS, r.Wiped}
	}); err != nil {
		return err
	}
	for _, r := range batch {
		if _, done := s.outcomes[r.Seq]; done || r.Type != TypeUse || !open[r.Session] {
			continue
		}
		open[r.Session] = false
		if err := v.read(Filter{Session: r.Session, Type: TypeSessionEnd, Last: 1}, func(Record) error {
			s.ended[r.Session] = true
			return nil
		}); err != nil {
			return err
		}
	}
	return nil
}

type shower struct {
	w        io.Writer
	opts     ShowOptions
	outcomes map[uint64]outcome
	ended    map[string]bool
}

// field is one line of a block; an empty value has no line.
type field struct{ name, value string }

func (s *shower) block(r Record, title string, fields ...field) {
	if title != "" {
		title = ": " + title
	}
	fmt.Fprintf(s.w, "[%s] %s%s\n", r.Time.In(s.opts.Location).Format("2006-01-02 15:04:05"), heading(r.Type), title)
	for _, f := range fields {
		switch {
		case f.value == "":
		case f.name == "":
			fmt.Fprintf(s.w, "    %s\n", f.value)
		default:
			fmt.Fprintf(s.w, "    %s: %s\n", f.name, f.value)
		}
	}
}

func heading(typ string) string {
	switch typ {
	case TypeUse:
		return "CREDENTIAL ACCESS"
	case TypeSessionStart:
		return "SESSION START"
	case TypeSessionEnd:
		return "SESSION END"
	case TypeHealed:
		return "LOG HEALED"
	}
	return strings.ToUpper(strings.ReplaceAll(typ, ".", " "))
}

func (s *shower) show(r Record) {
	by := with(r.Profile, first(r.Task, base(r.Exe)))
	out, done := s.outcomes[r.Seq]
	if !done && r.Result != "" {
		out, done = outcome{r.Result, r.Reason, r.DurationMS, r.Wiped}, true
	}
	took := ""
	if out.ms > 0 {
		took = seconds(out.ms)
	}
	where := first(place(r), r.Path)
	switch r.Type {
	case TypeUse:
		s.use(r, by, out, done)
	case TypeSessionStart:
		s.block(r, r.Session, field{"Requested by", by}, field{"Context", r.Context}, field{"Program", r.Exe}, field{"Boundary", r.Reason})
	case TypeSessionEnd:
		s.block(r, r.Session, field{"Duration", took}, field{"Result", with(out.result, out.reason)})
	case TypeLeak:
		s.block(r, first(r.Credential, "unnamed value"),
			field{"Channel", r.Channel}, field{"Encoding", r.Encoding}, field{"Value", r.Class},
			field{"Where", where}, field{"Requested by", by}, field{"Decision", with(r.Decision, r.Rule)},
			field{"Contained", contained(r, out)}, field{"Incident", r.Incident})
	case TypeRotation:
		s.block(r, r.Credential, field{"Step", r.Step}, field{"Version", version(r.Version)}, field{"Incident", r.Incident},
			field{"Duration", took}, field{"Result", with(out.result, out.reason)})
	case TypeApproval:
		s.block(r, r.Credential, field{"Requested by", by}, field{"Scope", with(r.Scope, r.Resource)}, field{"Where", where},
			field{"Decision", with(r.Decision, r.Rule)}, field{"Result", with(out.result, out.reason)})
	default:
		s.block(r, first(r.Credential, r.Result), field{"Where", where}, field{"Decision", with(r.Decision, r.Rule)}, field{"Reason", r.Reason})
	}
}

// outcome is what came of a use whose own block is not there.
func (s *shower) outcome(r Record) {
	s.block(r, r.Credential, field{"Use", fmt.Sprint(r.Of)}, field{"Duration", seconds(r.DurationMS)},
		field{"Result", with(r.Result, r.Reason)}, field{"", "Credential wiped from memory: " + wiped(r.Wiped)})
}

func wiped(ok bool) string {
	if ok {
		return "confirmed"
	}
	return "NOT confirmed"
}

func (s *shower) use(r Record, by string, out outcome, done bool) {
	fields := []field{{"Requested by", by}, {"Scope", with(r.Scope, r.Resource)}}
	switch {
	case refused(r.Decision):
		why := r.Rule
		if r.Reason != "" {
			why = strings.TrimPrefix(r.Rule+": "+r.Reason, ": ")
		}
		fields = append(fields, field{"Result", with("refused", why)})
	case !done && !s.alive(r.Session):
		fields = append(fields, field{"Result", "unknown: guard ended before the answer"})
	case !done:
		fields = append(fields, field{"Result", "in progress"})
	default:
		fields = append(fields, field{"Duration", seconds(out.ms)}, field{"Result", with(out.result, out.reason)},
			field{"", "Credential wiped from memory: " + wiped(out.wiped)})
	}
	s.block(r, r.Credential, fields...)
}

func (s *shower) alive(session string) bool {
	return !s.ended[session] && (s.opts.Alive == nil || s.opts.Alive(session))
}

// refused says that a decision, as recorded, let nothing go on.
func refused(decision string) bool {
	switch decision {
	case "", "pass", "warn":
		return false
	}
	return true
}

// contained says whether a leak stayed where guard could stop it.
func contained(r Record, out outcome) string {
	if out.result != "" {
		return with(out.result, out.reason)
	}
	switch r.Decision {
	case "kill", "block", "redact":
		return "yes"
	}
	return "no: it went out"
}

// place is where a request went.
func place(r Record) string {
	s := r.Host
	if s != "" && r.Path != "" {
		s += " " + r.Path
	}
	if s != "" && r.Method != "" {
		s = r.Method + " " + s
	}
	return s
}

func seconds(ms float64) string {
	if ms < 1000 {
		return fmt.Sprintf("%.3f seconds", ms/1000)
	}
	return fmt.Sprintf("%.1f seconds", ms/1000)
}

func version(n int) string {
	if n == 0 {
		return ""
	}
	return fmt.Sprint(n)
}

// with is "s (detail)", or the one of them that there is.
func with(s, detail string) string {
	if s == "" || detail == "" {
		return s + detail
	}
	return s + " (" + detail + ")"
}

func first(s ...string) string {
	for _, x := range s {
		if x != "" {
			return x
		}
	}
	return ""
}

func base(exe string) string {
	if exe == "" {
		return ""
	}
	return path.Base(strings.ReplaceAll(exe, `\`, "/"))
}
