package formats

import (
	"fmt"
	"io"
	"regexp"
	"strings"
	"time"

	"github.com/BurntSushi/toml"
)

// file is guard's own form, and that of Gitleaks 8, in one: keys that only one
// of them has do not get into the other's way.
type file struct {
	// guard
	Provider string
	Rule     []fileRule
	Allow    []fileAllow

	// Gitleaks
	Title      string
	MinVersion string `toml:"minVersion"`
	Version    any
	Extend     struct {
		UseDefault    bool     `toml:"useDefault"`
		DisabledRules []string `toml:"disabledRules"`
		Path          string
		URL           string `toml:"url"`
	}
	Rules      []leaksRule
	Allowlist  *leaksAllow
	Allowlists []leaksAllow
}

type fileRule struct {
	ID, Provider, Kind, Description, Regex           string
	Group                                            int
	Keywords, Near                                   []string
	Entropy                                          float64
	Checksum, Structure, Confidence                  string
	Random, Lenient, Doubtful, Weak, Plain, Password bool
	At, Back, Left, Right                            string
	Before, Max, Prefer, Run                         int
	Needs, Finder, Path, Why                         string
	Allow                                            []fileAllow
	Positive, Negative                               []string
}

type fileAllow struct {
	Reason    string
	Until     string // a date, or a time as in RFC 3339
	Regexes   []string
	StopWords []string
	Paths     []string
	Rules     []string
	Target    string
	All       bool
}

type leaksRule struct {
	ID          string
	Description string
	Regex       string
	SecretGroup int `toml:"secretGroup"`
	Entropy     float64
	Keywords    []string
	Path        string
	Tags        []string
	SkipReport  bool `toml:"skipReport"`
	Allowlist   *leaksAllow
	Allowlists  []leaksAllow
	Required    []struct {
		ID            string
		WithinLines   *int `toml:"withinLines"`
		WithinColumns *int `toml:"withinColumns"`
	}
}

type leaksAllow struct {
	Description string
	Condition   string
	Commits     []string
	Paths       []string
	RegexTarget string `toml:"regexTarget"`
	Regexes     []string
	StopWords   []string `toml:"stopwords"`
	TargetRules []string `toml:"targetRules"`
}

// LoadTOML reads rules in guard's own form ([[rule]]) or in that of Gitleaks 8
// ([[rules]]), as they are. name is for errors.
//
// An allowance of guard's form has a reason, and may have a date after which it
// does not hold any more:
//
//	[[allow]]
//	reason = "a key of the demo account"
//	until = "2027-01-31"
//	rules = ["stripe-secret-key"]
//	regexes = ['^sk_test_demo']
//
// Of a Gitleaks file, what does not apply here is taken and has no effect:
// tags, commits of allowlists, version. A file that extends another file or a URL
// is refused, since only [extend] useDefault, which stands for guard's built-in rules, can be
// followed. Rules without a regex, about paths alone, are left out: they are about files, not credentials.
// Unlike in Gitleaks, a keyword must be no further than 4 KiB before or 8 KiB
// behind the 4 KiB in which the match begins, and a match is no longer than 8 KiB.
func LoadTOML(r io.Reader, name string) (Rules, error) {
	var f file
	meta, err := toml.NewDecoder(r).Decode(&f)
	if err != nil {
		// The error of the parser quotes the line, which is a rule, not a secret: but it
		// could be one, in an allowance.
		if p, ok := err.(toml.ParseError); ok {
			return nil, fmt.Errorf("%s:%d: not valid TOML, or a value of the wrong type", name, p.Position.Line)
		}
		return nil, fmt.Errorf("%s: not valid TOML, or a value of the wrong type", name)
	}
	if len(f.Rule) > 0 || len(f.Allow) > 0 || f.Provider != "" {
		if un := meta.Undecoded(); len(un) > 0 {
			return nil, fmt.Errorf("%s: unknown key %q", name, un[0].String())
		}
		return f.own(name)
	}
	return f.leaks(name)
}

func (f *file) own(name string) (Rules, error) {
	var rules Rules
	for _, in := range f.Rule {
		r := Rule{
			ID: in.ID, Provider: in.Provider, Kind: in.Kind, Description: in.Description, Regex: in.Regex, SecretGroup: in.Group, Keywords: in.Keywords, Near: in.Near,
			Entropy: in.Entropy, Checksum: in.Checksum, Structure: in.Structure, Confidence: High, Random: in.Random, Lenient: in.Lenient, Doubtful: in.Doubtful, Weak: in.Weak, Plain: in.Plain, Password: in.Password,
			At: in.At, Back: in.Back, Left: in.Left, Right: in.Right, Before: in.Before, Max: in.Max, Prefer: in.Prefer, Needs: in.Needs, Run: in.Run, Finder: in.Finder, Path: in.Path, Reason: in.Why,
			Positive: in.Positive, Negative: in.Negative,
		}
		if r.Provider == "" {
			r.Provider = f.Provider
		}
		if r.ID == "" || r.Regex == "" {
			return nil, fmt.Errorf("%s: a rule has no id or no regex", name)
		}
		if in.Confidence != "" {
			c, err := parseConfidence(in.Confidence)
			if err != nil {
				return nil, fmt.Errorf("%s: rule %q: %w", name, r.ID, err)
			}
			r.Confidence = c
		}
		for _, a := range in.Allow {
			c, err := a.allow()
			if err != nil {
				return nil, fmt.Errorf("%s: rule %q: allow: %w", name, r.ID, err)
			}
			r.Allow = append(r.Allow, c)
		}
		rules = append(rules, r)
	}
	if len(f.Allow) > 0 {
		var all Rule
		for _, a := range f.Allow {
			c, err := a.allow()
			if err != nil {
				return nil, fmt.Errorf("%s: allow: %w", name, err)
			}
			all.Allow = append(all.Allow, c)
		}
		rules = append(rules, all)
	}
	return rules, nil
}

func (a fileAllow) allow() (Allow, error) {
	c := Allow{Reason: a.Reason, Regexes: a.Regexes, StopWords: a.StopWords, Paths: a.Paths, Rules: a.Rules, Target: a.Target, All: a.All}
	if strings.TrimSpace(a.Reason) == "" {
		return c, fmt.Errorf("it has no reason")
	}
	if len(a.Regexes)+len(a.StopWords)+len(a.Paths) == 0 {
		return c, fmt.Errorf("it has no regexes, stopwords or paths, and would allow everything")
	}
	if a.Until != "" {
		t, err := time.Parse(time.DateOnly, a.Until)
		if err == nil {
			t = t.AddDate(0, 0, 1) // the day included
		} else if t, err = time.Parse(time.RFC3339, a.Until); err != nil {
			return c, fmt.Errorf("until is %q: want a date such as 2027-01-31", a.Until)
		}
		c.Until = t
	}
	return c, nil
}

func (f *file) leaks(name string) (Rules, error) {
	if f.Extend.Path != "" || f.Extend.URL != "" {
		return nil, fmt.Errorf("%s: [extend] names another file: load that one as well and take the line out", name)
	}
	all := Rule{Disabled: f.Extend.DisabledRules}
	// A Gitleaks file alone stands for itself; guard's rules are there in any case,
	// since a file that is given in addition must not take protection away.
	var rules Rules
	for _, in := range f.Rules {
		if in.ID == "" {
			return nil, fmt.Errorf("%s: a rule has no id", name)
		}
		if in.Regex == "" {
			if len(in.Allowlists) > 0 || in.Allowlist != nil { // it changes a built-in rule
				for _, a := range lists(in.Allowlist, in.Allowlists) {
					c, err := a.allow()
					if err != nil {
						return nil, fmt.Errorf("%s: rule %q: allowlist: %w", name, in.ID, err)
					}
					c.Rules = []string{in.ID}
					all.Allow = append(all.Allow, c)
				}
			}
			continue
		}
		if _, err := regexp.Compile(in.Regex); err != nil {
			return nil, fmt.Errorf("%s: rule %q: its regex is not in RE2 syntax", name, in.ID)
		}
		r := Rule{
			ID: in.ID, Provider: provider(in.ID), Kind: in.ID, Description: in.Description, Regex: in.Regex, SecretGroup: in.SecretGroup, Keywords: in.Keywords, Entropy: in.Entropy,
			Path: in.Path, Confidence: Medium, Left: "none", Right: "none", Plain: true, cells: true,
		}
		for _, a := range lists(in.Allowlist, in.Allowlists) {
			c, err := a.allow()
			if err != nil {
				return nil, fmt.Errorf("%s: rule %q: allowlist: %w", name, in.ID, err)
			}
			r.Allow = append(r.Allow, c)
		}
		rules = append(rules, r)
	}
	for _, a := range lists(f.Allowlist, f.Allowlists) {
		c, err := a.allow()
		if err != nil {
			return nil, fmt.Errorf("%s: allowlist: %w", name, err)
		}
		all.Allow = append(all.Allow, c)
	}
	if len(all.Allow) > 0 || len(all.Disabled) > 0 {
		rules = append(rules, all)
	}
	return rules, nil
}

// provider is the first word of an ID.
func provider(id string) string {
	p, _, _ := strings.Cut(id, "-")
	return p
}

func lists(one *leaksAllow, more []leaksAllow) []leaksAllow {
	if one != nil {
		return append([]leaksAllow{*one}, more...)
	}
	return more
}

func (a leaksAllow) allow() (Allow, error) {
	c := Allow{Reason: a.Description, Regexes: a.Regexes, StopWords: a.StopWords, Paths: a.Paths, Rules: a.TargetRules, Target: a.RegexTarget}
	switch strings.ToUpper(a.Condition) {
	case "", "OR", "||":
	case "AND", "&&":
		c.All = true
		if len(a.Commits) > 0 {
			// With a commit that must match, and none here, it never holds.
			c.Regexes = append(c.Regexes, `\A\z.`)
		}
	default:
		return c, fmt.Errorf("unknown condition: want AND or OR")
	}
	if _, err := compileAllow(c); err != nil {
		return c, fmt.Errorf("a regex of it is not in RE2 syntax, or its target is unknown")
	}
	return c, nil
}
