package formats

import (
	"slices"
	"sync/atomic"
)

// Confidence says how sure a finding is.
type Confidence uint8

const (
	Low      Confidence = iota // the form is generic, or a checksum of which little is known does not match
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

// Finding is one credential that was found by its form. It holds none of its
// bytes.
type Finding struct {
	Rule       string // ID of the rule: "github-pat"
	Provider   string // "github"
	Kind       string // "personal access token"
	Why        string // a sentence for a person: what about the bytes makes them a credential
	Confidence Confidence
	Encoding   string // "raw"; "base64" where it was found inside of base64; "ansi" where terminal escapes were taken out of it
	Start, End int64  // of the secret's bytes, as encoded, in the stream
}

// Options are what New takes. The zero value is the built-in rules alone.
type Options struct {
	// Rules are added to the built-in ones. A rule with the ID of a built-in one
	// takes its place.
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
	rules  []*rule
	allow  []Allow
	ignore func([]byte) bool
	closed atomic.Bool
}

// Rules lists the rules in the order of their IDs.
func (s *Set) Rules() []RuleInfo {
	list := make([]RuleInfo, len(s.rules))
	for i, r := range s.rules {
		list[i] = r.info()
	}
	slices.SortFunc(list, func(a, b RuleInfo) int {
		if a.ID < b.ID {
			return -1
		}
		if a.ID > b.ID {
			return 1
		}
		return 0
	})
	return list
}
