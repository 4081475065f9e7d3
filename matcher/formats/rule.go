package formats

// Rule is one credential format.
type Rule struct {
	ID          string
	Provider    string
	Kind        string
	Description string
	Regex       string // RE2 syntax (package regexp)
	SecretGroup int    // group of Regex that is the secret; 0: the first group that took part, or all
	Keywords    []string
	Entropy     float64 // least Shannon entropy of the secret, bits a byte
	Checksum    string  // name of a checksum
	Structure   string  // name of a structure
	Confidence  Confidence
	Path        string // regex: only in files whose path matches
	Allow       []Allow
	Positive    []string // templates of Sample
	Negative    []string

	// Of a pseudo-rule without an ID, which carries what a file says about all rules:
	Disabled  []string // built-in rules that are left out
	NoBuiltin bool     // all of them are
}

// Rules is what a file defines.
type Rules []Rule

// Allow says what is no finding.
type Allow struct {
	Description string
	Regexes     []string
	StopWords   []string
	Paths       []string
	Target      string // "secret" (default), "match" or "line": what Regexes look at
	All         bool   // every kind of condition that is given must hold, not one of them
}

type rule struct{ Rule }

func (r *rule) info() RuleInfo {
	return RuleInfo{ID: r.ID, Provider: r.Provider, Kind: r.Kind, Description: r.Description, Confidence: r.Confidence, Checksum: r.Checksum, Structure: r.Structure}
}
