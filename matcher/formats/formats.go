package formats

import (
	"bytes"
	"cmp"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"
)

// Confidence says how sure a finding is.
type Confidence uint8

const (
	Low      Confidence = iota // the form is generic, a key for tests, or a checksum of which little is known does not match
	Medium                     // a keyword near it, or a form that few other things have
	High                       // a prefix that belongs to one issuer
	Verified                   // its checksum matches, or its structure was parsed
)

var confidenceNames = [...]string{Low: "low", Medium: "medium", High: "high", Verified: "verified"}

func (c Confidence) String() string {
	if int(c) < len(confidenceNames) {
		return confidenceNames[c]
	}
	return "low"
}

func parseConfidence(s string) (Confidence, error) {
	for c, n := range confidenceNames {
		if n == s {
			return Confidence(c), nil
		}
	}
	return Low, fmt.Errorf("unknown confidence %q: want low, medium, high or verified", s)
}

// Finding is one credential that was found by its form. It holds none of its
// bytes.
type Finding struct {
	Rule       string // ID of the rule: "github-pat"
	Provider   string // "github"
	Kind       string // "personal access token"
	Why        string // for a person: what about the bytes makes them a credential
	Confidence Confidence
	Encoding   string // "raw"; "base64" where it was found inside of base64; "ansi" (or "ansi+base64") where terminal escapes were taken out of it
	Start, End int64  // of the secret's bytes, as encoded, in the stream
}

// Options are what New takes. The zero value is the built-in rules alone.
type Options struct {
	// Rules are added to the built-in ones. A rule with the ID of a built-in one
	// takes its place, unless it is from a Gitleaks file: then both are there.
	Rules []Rule
	// CacheDir is where a compiled database is kept, if the engine has one to keep;
	// it is made, 0700, if it is not there. "": nothing is kept.
	CacheDir string
	// Ignore says that a secret is known not to be one, as guard's own placeholders
	// are. It may be called from many goroutines and must not keep its argument.
	Ignore func(secret []byte) bool
}

// RuleInfo describes a rule for a person.
type RuleInfo struct {
	ID, Provider, Kind, Description string
	Confidence                      Confidence // without checksum and structure
	Checksum, Structure             string     // names; "" if the form has none
}

// Set is a compiled set of rules. All methods may be called from any goroutine;
// none while Close runs or after it.
type Set struct {
	rules      []*rule
	anchors    []anchor
	everywhere []int // rules that are searched for in every cell
	runRules   []int // of the finders
	wordRules  []int
	hasCells   bool
	firsts     func() *[256][]int // strong anchors by their first byte
	lookBack   int                // how much of what came before a stream retains
	allow      []*allow
	ignore     func([]byte) bool
	engine     engine
	spare      func() *goEngine // for when engine fails
}

// New compiles the built-in rules and those of o. It fails for a rule that is
// malformed, and for an engine that does not find a planted sample of every
// rule's anchors.
func New(o Options) (*Set, error) {
	list, err := builtin()
	if err != nil {
		return nil, err
	}
	s := &Set{ignore: o.Ignore}
	now := time.Now()
	out := map[string]bool{}
	for _, r := range o.Rules {
		if r.ID != "" {
			out[r.ID] = out[r.ID] || !r.cells
			continue
		}
		for _, id := range r.Disabled {
			out[id] = true
		}
		if r.NoBuiltin {
			list = nil
		}
		for _, a := range r.Allow {
			if !a.Until.IsZero() && now.After(a.Until) {
				continue
			}
			c, err := compileAllow(a)
			if err != nil {
				return nil, fmt.Errorf("allow: %w", err)
			}
			s.allow = append(s.allow, c)
		}
	}
	seen := map[string]bool{}
	for i, rules := range [][]Rule{list, o.Rules} {
		for _, r := range rules {
			switch {
			case r.ID == "" || i == 0 && out[r.ID]:
				continue
			case seen[r.ID] && !(r.cells && i == 1):
				return nil, fmt.Errorf("rule %q is there twice", r.ID)
			}
			seen[r.ID] = true
			if err := s.add(r, now); err != nil {
				return nil, err
			}
		}
	}
	s.firsts = sync.OnceValue(s.byFirst)
	s.spare = sync.OnceValue(func() *goEngine { return newGoEngine(s.anchors) })
	if s.engine, err = newEngine(s.anchors, o.CacheDir); err != nil {
		return nil, err
	}
	if err := s.canary(); err != nil {
		s.engine.close()
		return nil, err
	}
	return s, nil
}

func (s *Set) add(r Rule, now time.Time) error {
	c, anchors, err := compile(r, now)
	if err != nil {
		return err
	}
	n := len(s.rules)
	s.rules = append(s.rules, c)
	s.hasCells = s.hasCells || c.cell
	s.lookBack = max(s.lookBack, c.Before+nearBefore)
	switch {
	case c.Finder == "run":
		s.runRules = append(s.runRules, n)
	case c.Finder == "words":
		s.wordRules = append(s.wordRules, n)
	case c.cell && len(c.Keywords) == 0:
		s.everywhere = append(s.everywhere, n)
	}
	for _, a := range anchors {
		a.rule = n
		s.anchors = append(s.anchors, a)
		if !c.Weak && !c.cell && c.Before == 0 {
			s.anchors = append(s.anchors, encodedAnchors(a)...)
		}
	}
	return nil
}

func (s *Set) byFirst() *[256][]int {
	var t [256][]int
	for i := range s.anchors {
		if r := s.rules[s.anchors[i].rule]; !r.Weak && !r.cell {
			s.anchors[i].sets[0].each(func(c byte) { t[c] = append(t[c], i) })
		}
	}
	return &t
}

// canary asks the engine for an instance of every anchor, since an engine that
// finds nothing looks like a text that holds nothing.
func (s *Set) canary() error {
	var b []byte
	var want []place
	for i := range s.anchors {
		want = append(want, place{len(b), i})
		for j := range s.anchors[i].sets {
			set := &s.anchors[i].sets[j]
			for c := range 256 {
				// Not always the first of the set, which is what an engine could take for all of it.
				if k := byte(c*37 + i); set.has(k) {
					b = append(b, k)
					break
				}
			}
		}
		b = append(b, '\n')
	}
	got, err := s.engine.scan(b, nil)
	if err != nil {
		return fmt.Errorf("the %s engine does not work: %w", s.Engine(), err)
	}
	found := make(map[place]bool, len(got))
	for _, p := range got {
		found[p] = true
	}
	for _, p := range want {
		if !found[p] {
			return fmt.Errorf("the %s engine does not find a planted sample of rule %q", s.Engine(), s.rules[s.anchors[p.anchor].rule].ID)
		}
	}
	return nil
}

// scan asks the engine, or the spare one if that fails.
func (s *Set) scan(b []byte, out []place) []place {
	n := len(out)
	out, err := s.engine.scan(b, out)
	if err != nil {
		out, _ = s.spare().scan(b, out[:n])
	}
	return out
}

// Scan returns the findings in b, sorted by where they start. path, if it is
// not "", is what rules and allowances about paths look at.
func (s *Set) Scan(b []byte, path string) []Finding {
	in := search{set: s, path: path, b: b, last: true}
	found := in.run()
	if bytes.IndexByte(b, esc) >= 0 {
		v := &view{set: s, path: path}
		found = append(found, v.write(b, 0, nil)...)
		found = append(found, v.close()...)
		slices.SortFunc(found, compareFindings)
	}
	return found
}

// Rules lists the rules in the order of their IDs.
func (s *Set) Rules() []RuleInfo {
	list := make([]RuleInfo, len(s.rules))
	for i, r := range s.rules {
		list[i] = r.info()
	}
	slices.SortFunc(list, func(a, b RuleInfo) int { return cmp.Compare(a.ID, b.ID) })
	return list
}

// Engine names the engine: "go", or "hyperscan 5.4.0".
func (s *Set) Engine() string { return engineVersion() }

// Close frees what the engine holds.
func (s *Set) Close() error {
	if s.engine == nil {
		return errors.New("the set is closed")
	}
	s.engine.close()
	s.engine = nil
	return nil
}
