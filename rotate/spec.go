package rotate

import (
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"
)

// About describes a provider to a person: what to write, what it needs.
type About struct {
	Name       string   `json:"name"`
	Options    []Option `json:"options"`
	Privileges string   `json:"privileges"`
	Sessions   string   `json:"sessions"` // what happens to sessions that are open
	Limits     string   `json:"limits"`
	Calls      []string `json:"calls,omitempty"` // statements or requests that it makes, as the issuer's own documentation writes them
}

// Option is one key of a rotate spec.
type Option struct {
	Key   string `json:"key"`
	About string `json:"about"`
	Must  bool   `json:"must,omitempty"`
}

// Describer is a Provider that can say what it takes. The options of one that
// is not are not checked.
type Describer interface {
	About() About
}

// Pinner is a Provider that completes the options of a spec with what is fixed
// when it is set, such as a program's hash.
type Pinner interface {
	Pin(options map[string]string) error
}

// Providers are the issuers that a build can replace credentials at, by name.
type Providers map[string]Provider

// common are the options that every provider takes: when the credential is
// replaced, and what a leak of it sets off (see Schedule).
var common = []Option{
	{Key: "every", About: "replace the value when it is that old, such as 12h; a tenth earlier or later, so that not all are replaced at once"},
	{Key: "before", About: "replace it that long before it expires; default: a tenth of its life"},
	{Key: "uses", About: "replace it after so many uses"},
	{Key: "at", About: "replace it at start, end or killed (a session that used it was ended because of a leak, or died), joined by +"},
	{Key: "overlap", About: "how long the old value is left valid when the schedule or a person replaces it, where the issuer can have both; default: not at all"},
	{Key: "contained", About: "what a leak that was stopped sets off: graceful (default), emergency or record"},
	{Key: "rest", About: "how long leaks that were stopped leave it alone once it was replaced for one; default 10m"},
	{Key: "escaped", About: "what a leak that got out sets off: emergency (default), graceful or record"},
}

// Common lists the options that every provider takes.
func Common() []Option { return slices.Clone(common) }

// List describes the providers, by name.
func (ps Providers) List() []About {
	var out []About
	for _, name := range slices.Sorted(maps.Keys(ps)) {
		if d, ok := ps[name].(Describer); ok {
			out = append(out, d.About())
		}
	}
	return out
}

// Parse reads what `--rotate` takes: PROVIDER[,key=value]...
func (ps Providers) Parse(spec string) (provider string, options map[string]string, err error) {
	name, rest, more := strings.Cut(spec, ",")
	p, ok := ps[name]
	if !ok {
		return "", nil, fmt.Errorf("no such rotation provider: want one of %s", strings.Join(slices.Sorted(maps.Keys(ps)), ", "))
	}
	takes, checked := ps.takes(p)
	options = map[string]string{}
	if more {
		for part := range strings.SplitSeq(rest, ",") {
			// The part itself is not repeated: someone may have typed a password.
			key, value, ok := strings.Cut(part, "=")
			if !ok || checked && !slices.ContainsFunc(takes, func(o Option) bool { return o.Key == key }) {
				return "", nil, fmt.Errorf("rotation provider %s: an option is not one of %s=...", name, strings.Join(keys(takes), "=..., "))
			}
			if _, twice := options[key]; twice {
				return "", nil, fmt.Errorf("rotation provider %s: option %s is given twice", name, key)
			}
			if value == "" || strings.ContainsAny(value, "\x00\n\r") {
				return "", nil, fmt.Errorf("rotation provider %s: option %s has no usable value", name, key)
			}
			options[key] = value
		}
	}
	for _, o := range takes {
		if o.Must && options[o.Key] == "" {
			return "", nil, fmt.Errorf("rotation provider %s needs %s=...: %s", name, o.Key, o.About)
		}
	}
	if _, err := ParseSchedule(options); err != nil {
		return "", nil, fmt.Errorf("rotation provider %s: %w", name, err)
	}
	return name, options, nil
}

// Pin is Parse and Format, with what the provider adds when a spec is set.
func (ps Providers) Pin(spec string) (string, error) {
	name, options, err := ps.Parse(spec)
	if err != nil {
		return "", err
	}
	if p, ok := ps[name].(Pinner); ok {
		if err := p.Pin(options); err != nil {
			return "", fmt.Errorf("--rotate %s: %w", name, err)
		}
	}
	return ps.Format(name, options), nil
}

// Format is the inverse of Parse: the provider's own keys in their order, then
// the common ones.
func (ps Providers) Format(provider string, options map[string]string) string {
	order, checked := ps.takes(ps[provider])
	if !checked {
		for _, k := range slices.Sorted(maps.Keys(options)) {
			order = append(order, Option{Key: k})
		}
	}
	s := provider
	done := map[string]bool{}
	for _, k := range keys(order) {
		if v := options[k]; v != "" && !done[k] {
			done[k] = true
			s += "," + k + "=" + v
		}
	}
	return s
}

func (ps Providers) takes(p Provider) (options []Option, checked bool) {
	if d, ok := p.(Describer); ok {
		options, checked = d.About().Options, true
	}
	return append(slices.Clone(options), common...), checked
}

func keys(options []Option) []string {
	out := make([]string, len(options))
	for i, o := range options {
		out[i] = o.Key
	}
	return out
}

// Schedule says when a credential is replaced without anybody asking, and what
// a leak of it sets off.
type Schedule struct {
	Every, Before, Overlap time.Duration
	Rest                   time.Duration // 0: Rest
	Uses                   int
	Start, End, Killed     bool
	Contained, Escaped     string // "graceful", "emergency", "record"; "": the default
}

// least is how often a credential may be replaced by a schedule.
const least = time.Minute

// ParseSchedule reads the common options of a spec.
func ParseSchedule(options map[string]string) (Schedule, error) {
	var s Schedule
	for key, to := range map[string]*time.Duration{"every": &s.Every, "before": &s.Before, "overlap": &s.Overlap, "rest": &s.Rest} {
		text := options[key]
		if text == "" {
			continue
		}
		d, err := duration(text)
		if err != nil || d <= 0 || key == "every" && d < least {
			return Schedule{}, fmt.Errorf("option %s wants a duration such as 30m, 12h or 7d (every: %v or more)", key, least)
		}
		*to = d
	}
	if text := options["uses"]; text != "" {
		n, err := strconv.Atoi(text)
		if err != nil || n < 1 {
			return Schedule{}, fmt.Errorf("option uses wants a number, 1 or more")
		}
		s.Uses = n
	}
	if text := options["at"]; text != "" {
		for word := range strings.SplitSeq(text, "+") {
			switch word {
			case "start":
				s.Start = true
			case "end":
				s.End = true
			case "killed":
				s.Killed = true
			default:
				return Schedule{}, fmt.Errorf("option at wants start, end or killed, joined by +")
			}
		}
	}
	for key, to := range map[string]*string{"contained": &s.Contained, "escaped": &s.Escaped} {
		switch text := options[key]; text {
		case "", "graceful", "emergency", "record":
			*to = text
		default:
			return Schedule{}, fmt.Errorf("option %s wants graceful, emergency or record", key)
		}
	}
	return s, nil
}

// duration is time.ParseDuration, and days.
func duration(s string) (time.Duration, error) {
	if n, ok := strings.CutSuffix(s, "d"); ok {
		days, err := strconv.ParseUint(n, 10, 16)
		return time.Duration(days) * 24 * time.Hour, err
	}
	return time.ParseDuration(s)
}
