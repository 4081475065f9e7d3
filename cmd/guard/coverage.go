package main

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"

	"guard/audit"
	"guard/bpf"
	"guard/supervisor"
	"guard/supervisor/notify"
	"guard/supervisor/sandbox"
)

// typeCoverage is the type of records that say what a source searched, one for
// each channel, written when a session ends.
const typeCoverage = "coverage"

// coverage is what a source did about one channel's bytes in a session.
type coverage struct {
	channel string
	seen    uint64 // bytes
	counts  []count
}

type count struct {
	name string
	n    uint64
}

// String is how the log has it: name=number, in a fixed order.
func (c coverage) String() string {
	var b strings.Builder
	fmt.Fprintf(&b, "seen=%d", c.seen)
	for _, x := range c.counts {
		fmt.Fprintf(&b, " %s=%d", x.name, x.n)
	}
	return b.String()
}

func bpfCoverage(st bpf.Stats) []coverage {
	var out []coverage
	for ch, c := range st.Channels {
		out = append(out, coverage{string(ch), c.Seen, []count{
			{"calls", c.Calls}, {"scanned", c.Scanned}, {"unreadable", c.Unreadable}, {"oversize", c.Oversize},
			{"unreadable_calls", c.UnreadableCalls}, {"oversize_calls", c.OversizeCalls}, {"hits", c.Hits}, {"dropped", c.Dropped},
			{"tails_lost", c.TailsLost}, {"refused", c.Refused}, {"taken_away", c.TakenAway}, {"unjudged", c.Unjudged},
		}})
	}
	if st.Missed > 0 {
		out = append(out, coverage{"missed", 0, []count{{"calls", st.Missed}}})
	}
	slices.SortFunc(out, func(a, b coverage) int { return cmp.Compare(a.channel, b.channel) })
	return out
}

func writesCoverage[C ~string](st map[C]notify.Counters) []coverage {
	var out []coverage
	for ch, c := range st {
		out = append(out, coverage{string(ch), c.Judged + c.Left + c.Unreadable, []count{
			{"calls", c.Calls}, {"scanned", c.Judged}, {"unreadable", c.Unreadable}, {"left", c.Left}, {"refused", c.Refused},
			{"no_access", c.NoAccess}, {"blind", c.Blind},
		}})
	}
	slices.SortFunc(out, func(a, b coverage) int { return cmp.Compare(a.channel, b.channel) })
	return out
}

func (s *session) recordCoverage(source string, all []coverage) {
	for _, c := range all {
		r := s.record(typeCoverage)
		r.Channel, r.Resource, r.Result, r.Bytes = c.channel, source, c.String(), int64(c.seen)
		if _, err := s.append(r); err != nil {
			s.app.say("what was searched could not be recorded: %v", err)
			return
		}
	}
}

// searched adds up coverage, as `guard status` shows it.
type searched struct {
	Source  string            `json:"source"`
	Channel string            `json:"channel"`
	Counts  map[string]uint64 `json:"counts"` // by the names of the log: seen, scanned, unreadable, ...
}

type searchedSum map[[2]string]map[string]uint64

func (s searchedSum) add(r audit.Record) {
	key := [2]string{r.Resource, r.Channel}
	if s[key] == nil {
		s[key] = map[string]uint64{}
	}
	for f := range strings.FieldsSeq(r.Result) {
		if name, n, ok := strings.Cut(f, "="); ok {
			if v, err := strconv.ParseUint(n, 10, 64); err == nil {
				s[key][name] += v
			}
		}
	}
}

func (s searchedSum) list() []searched {
	out := []searched{}
	for _, k := range slices.SortedFunc(maps.Keys(s), func(a, b [2]string) int {
		return cmp.Or(cmp.Compare(a[0], b[0]), cmp.Compare(a[1], b[1]))
	}) {
		out = append(out, searched{k[0], k[1], s[k]})
	}
	return out
}

// String is one line for a person: what was not searched is always said.
func (s searched) String() string {
	c := s.Counts
	parts := []string{fmt.Sprintf("%d calls", c["calls"]), size(int64(c["seen"])) + " seen"}
	if s.Channel == "missed" {
		return fmt.Sprintf("%d calls not looked at: the kernel skipped the program", c["calls"])
	}
	missing := 0
	for _, x := range []struct{ name, words string }{
		{"unreadable", "%s unreadable"}, {"oversize", "%s beyond what is searched of a call"}, {"left", "%s left to who judges them"},
	} {
		if n := c[x.name]; n > 0 {
			missing++
			parts = append(parts, fmt.Sprintf(x.words, size(int64(n))))
		}
	}
	for _, x := range []struct{ name, words string }{
		{"unreadable_calls", "%d calls unreadable"}, {"oversize_calls", "%d calls of too many parts"}, {"unjudged", "%d calls not judged"},
		{"dropped", "%d finds not reported: the ring was full"}, {"tails_lost", "%d streams whose end was forgotten"},
		{"no_access", "%d calls refused: their process cannot be looked into"}, {"blind", "%d writes without what is next to them"},
		{"refused", "%d refused"}, {"taken_away", "%d taken away"},
	} {
		if n := c[x.name]; n > 0 {
			missing++
			parts = append(parts, fmt.Sprintf(x.words, n))
		}
	}
	if missing == 0 {
		parts = append(parts, "all searched")
	}
	return strings.Join(parts, ", ")
}

// boundedWords say what is different on a kernel that has no bpf_loop.
func boundedWords(rep bpf.Report) string {
	if rep.Has(bpf.Loop) {
		return ""
	}
	return "; by bounded loops, since this kernel has no bpf_loop (5.17): the same channels and finds, half as many encodings, and nothing can be refused by BPF"
}

// writeChannels is what doctor says of writes that no other source sees, and of
// those that can be refused.
func writeChannels(rep bpf.Report, tier sandbox.Tier) []channel {
	var cs []channel
	need := []string{bpf.Capabilities, bpf.BTF, bpf.RingBuffer}
	switch lacks := rep.Need(append(need, bpf.Tracepoint)...); {
	case rep.Has(append(need, bpf.Loop, bpf.LSM)...), rep.Has(append(need, bpf.Loop, bpf.FmodRet)...):
		cs = append(cs, channel{"file", supervisor.SourceKernel, "block", "with --bpf block, or --on-leak block: a write to a file, pipe or socket that holds a value fails before a byte is out; else detect"})
	case lacks == nil:
		cs = append(cs, channel{"file", supervisor.SourceKernel, "detect", "values in writes to files, pipes and sockets, in arguments and names are found in the kernel and reported" + boundedWords(rep)})
	default:
		path, err := helperPath()
		if err == nil && kernelLacks() != "" && tier == sandbox.Contained {
			cs = append(cs, channel{"file", supervisor.SourceKernel, "detect", "values in writes of a session are found in the kernel and reported, by " + path})
		} else {
			cs = append(cs, channel{"file", supervisor.SourceKernel, "none", lacks.Error()})
		}
	}
	switch err := notify.Supported(); {
	case err != nil:
		cs = append(cs, channel{"file", supervisor.SourceWrites, "none", err.Error()})
	case tier != sandbox.Contained && tier != sandbox.Restricted:
		cs = append(cs, channel{"file", supervisor.SourceWrites, "none", "this tier has no system call filter"})
	default:
		cs = append(cs, channel{"file", supervisor.SourceWrites, "block", "with --on-leak block or --bpf block, where the kernel cannot refuse: guard does writes to files and pipes itself, after judging them"})
	}
	return cs
}
