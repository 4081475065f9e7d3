package formats

import (
	"bytes"
	"errors"
	"fmt"
	"regexp"
	"regexp/syntax"
	"strings"
	"sync"
	"time"
)

// Rule is one credential format.
//
// Where Keywords is empty and every match of Regex begins with an anchor (bytes
// that are rare enough: "ghp_", or any 4 bytes of which there are few), the
// expression is tried at the anchors only. With Keywords, or where it has no
// anchor, it is searched for in cells of 4 KiB: those that have a keyword in
// them or up to 4 KiB before or 8 KiB after, or all of them. Such a match is found if it is
// no longer than 8 KiB.
type Rule struct {
	ID          string
	Provider    string
	Kind        string
	Description string
	Regex       string     // RE2 syntax, as package regexp has it
	SecretGroup int        // the group of Regex that is the secret; 0: the first group that took part, or all of it
	Keywords    []string   // letters in either case
	Entropy     float64    // the least Shannon entropy that the secret must have, in bits a byte; 0: any
	Checksum    string     // the name of a checksum; "": none
	Structure   string     // the name of a structure; "": none
	Confidence  Confidence // without checksum and structure
	Path        string     // an expression: only files with such a path; "": all, and text without a path
	Allow       []Allow
	Positive    []string // templates, as Sample expands them, that must be found
	Negative    []string // and that must not be found by this rule

	// Random: the secret must look as if it was drawn at random, which names of
	// variables and files do not.
	Random bool
	// Lenient: a secret whose checksum does not match is a finding of confidence Low.
	Lenient bool
	// Doubtful: one whose checksum does not match, and that looks random, is a finding of
	// confidence Medium: mistyped, made up, or of a form that is not known yet.
	Doubtful bool
	// Weak: the form is generic. Where it meets the finding of a rule that is not
	// weak, it is no finding.
	Weak bool
	// Near are words of which one must be in the 200 bytes before, letters in either case.
	Near []string
	// Before: the match begins that many bytes before the anchor in At, or as many
	// bytes of Back before it as there are, Before at most.
	At     string // an expression of fixed length; "": the beginning of Regex
	Before int
	Back   string // a class: "[0-9]"
	// Left and Right are what may not be next to the match: a class. "": letters, digits and
	// "_" to the left, letters and digits to the right. "none": anything may.
	Left, Right string
	Max         int    // a match has that many bytes at most; 0: 1024, or what Regex says
	Prefer      int    // among rules that find something at the same place, the one with the greatest is taken
	Password    bool   // the secret is a password: what people write in examples is none
	Plain       bool   // what looks like a placeholder is a finding, too
	Reason      string // for Finding.Why
	// Needs must follow in the bytes that a match may have, and the match's own beginning
	// must not come again before it; "": nothing. Run is how many letters, digits and "+/_-" in a row
	// must be there. Both are asked before Regex, which is slow.
	Needs  string
	Run    int
	Finder string // "run" or "words": candidates come from a search that is not for anchors

	// What a file says about all rules is in a rule without ID and Regex: Allow
	// holds for every rule, and
	Disabled  []string // these built-in rules are left out,
	NoBuiltin bool     // or all of them.

	cells   bool // always searched for in cells
	builtin bool
}

// Rules is what a file defines.
type Rules []Rule

// Allow says what is no finding.
type Allow struct {
	Reason    string
	Until     time.Time // the zero time: for good
	Regexes   []string
	StopWords []string // in the secret, letters in either case
	Paths     []string // expressions
	Rules     []string // IDs that it is about; none: all
	Target    string   // what Regexes look at: "secret" (also ""), "match" or "line"
	All       bool     // each kind of condition that is given must hold, not only one
}

type rule struct {
	Rule
	syntax         *syntax.Regexp
	regexp         func() *regexp.Regexp // compiled when it is first needed
	reader         func() *regexp.Regexp // for asked: with a first group, which keeps package regexp from its other engines
	path           *regexp.Regexp
	allow          []*allow
	back           byteSet
	left, right    byteSet
	max            int
	blob           bool   // Regex has no limit, and what reaches max is something else
	asserts        bool   // Regex asks what comes next without taking it
	cell           bool   // searched for in cells
	lead           string // what every match begins with
	near, keywords [][]byte
	check          checksum
	structure      structure
	prefix         int // of the secret: how many bytes every secret begins with
}

func (r *rule) info() RuleInfo {
	return RuleInfo{ID: r.ID, Provider: r.Provider, Kind: r.Kind, Description: r.Description, Confidence: r.Confidence, Checksum: r.Checksum, Structure: r.Structure}
}

const (
	defaultMax = 1024
	nearBefore = 200
	cellSize   = 4 << 10
	cellBefore = 4 << 10
	cellAfter  = 8 << 10
)

const (
	classWord  = `[0-9A-Za-z_]`
	classAlnum = `[0-9A-Za-z]`
)

// compile checks r and returns it with the anchors that it needs, of which rule
// is not set.
func compile(r Rule, now time.Time) (*rule, []anchor, error) {
	fail := func(what string, err error) (*rule, []anchor, error) {
		return nil, nil, fmt.Errorf("rule %q: %s: %w", r.ID, what, err)
	}
	if r.ID == "" {
		return nil, nil, errors.New("a rule has no id")
	}
	c := &rule{Rule: r}
	var err error
	if c.syntax, err = syntax.Parse(r.Regex, syntax.Perl); err != nil {
		return fail("regex", err)
	}
	if r.SecretGroup > c.syntax.MaxCap() {
		return fail("regex", fmt.Errorf("there is no group %d", r.SecretGroup))
	}
	if r.Path != "" {
		if c.path, err = regexp.Compile(r.Path); err != nil {
			return fail("path", err)
		}
	}
	for _, a := range r.Allow {
		if !a.Until.IsZero() && now.After(a.Until) {
			continue
		}
		ca, err := compileAllow(a)
		if err != nil {
			return fail("allow", err)
		}
		c.allow = append(c.allow, ca)
	}
	if c.check, err = checksumOf(r.Checksum); err != nil {
		return fail("checksum", err)
	}
	if c.structure, err = structureOf(r.Structure); err != nil {
		return fail("structure", err)
	}
	if c.left, err = class(r.Left, classWord); err != nil {
		return fail("left", err)
	}
	if c.right, err = class(r.Right, classAlnum); err != nil {
		return fail("right", err)
	}
	if r.Back != "" {
		if c.back, err = class(r.Back, ""); err != nil {
			return fail("back", err)
		}
	}
	for _, w := range r.Near {
		c.near = append(c.near, []byte(strings.ToLower(w)))
	}
	c.max = r.Max
	if n := longest(c.syntax); c.max == 0 && n >= 0 {
		c.max = n
	} else if c.max == 0 {
		c.max, c.blob = defaultMax, true
	}
	c.asserts = asserts(c.syntax, r.builtin)
	anchors, err := c.anchors()
	if err != nil {
		return fail("anchor", err)
	}
	expr := `\A(?:` + r.Regex + `)`
	if c.cell {
		expr = r.Regex
		c.max = min(c.max, cellAfter)
	}
	c.regexp = sync.OnceValue(func() *regexp.Regexp { return regexp.MustCompile(expr) })
	c.reader = sync.OnceValue(func() *regexp.Regexp { return regexp.MustCompile(`(\A)(?:` + r.Regex + `)`) })
	c.prefix = literalPrefix(c.syntax)
	if seqs := sequences(c.syntax); len(seqs) == 1 && !c.cell {
		for _, set := range seqs[0].sets {
			if set.size() != 1 || len(c.lead) >= c.prefix {
				break
			}
			set.each(func(b byte) { c.lead += string(rune(b)) })
		}
	}
	return c, anchors, nil
}

// asserts says that re asks whether a word, a line or the text ends. Where a
// built-in rule asks for the end of the text, any other byte would do as well.
func asserts(re *syntax.Regexp, builtin bool) bool {
	switch re.Op {
	case syntax.OpWordBoundary, syntax.OpNoWordBoundary, syntax.OpEndLine, syntax.OpBeginLine:
		return true
	case syntax.OpEndText:
		return !builtin
	}
	for _, sub := range re.Sub {
		if asserts(sub, builtin) {
			return true
		}
	}
	return false
}

// anchors finds out where c is to be looked for.
func (c *rule) anchors() ([]anchor, error) {
	if c.Finder != "" {
		if c.Finder != "run" && c.Finder != "words" {
			return nil, fmt.Errorf("unknown finder %q", c.Finder)
		}
		return nil, nil
	}
	var exprs []string
	switch {
	case c.cells && len(c.Keywords) == 0:
		c.cell = true
		return nil, nil
	case c.At != "":
		exprs = []string{c.At}
	case len(c.Keywords) > 0:
		c.cell = true
		for _, k := range c.Keywords {
			exprs = append(exprs, `(?i:`+regexp.QuoteMeta(k)+`)`)
		}
	default:
		exprs = []string{c.Regex}
	}
	var list []anchor
	for _, e := range exprs {
		re, err := syntax.Parse(e, syntax.Perl)
		if err != nil {
			return nil, err
		}
		for _, q := range sequences(re) {
			a := anchor{sets: pad(q.sets)}
			if a.win = a.window(); a.win < 0 {
				// Nothing rare to look for: every cell, then.
				if c.At != "" {
					return nil, fmt.Errorf("%q is too common", c.At)
				}
				c.cell, c.Keywords = true, nil
				return nil, nil
			}
			list = append(list, a)
		}
	}
	return list, nil
}

// pad makes sets long enough for a window.
func pad(sets []byteSet) []byteSet {
	for len(sets) < gram {
		sets = append(sets, byteSet{^uint64(0), ^uint64(0), ^uint64(0), ^uint64(0)})
	}
	return sets
}

// class reads a character class of ASCII.
func class(expr, fallback string) (s byteSet, err error) {
	switch expr {
	case "none":
		return s, nil
	case "":
		expr = fallback
	}
	re, err := syntax.Parse(expr, syntax.Perl)
	if err != nil {
		return s, err
	}
	seqs := sequences(re)
	if len(seqs) != 1 || len(seqs[0].sets) != 1 || !seqs[0].done {
		return s, fmt.Errorf("%q is not a character class", expr)
	}
	return seqs[0].sets[0], nil
}

// literalPrefix is how many bytes all matches of re begin with, whichever
// they are: of "(?:sk|rk)_live_[0-9a-z]{24}" it is 8.
func literalPrefix(re *syntax.Regexp) int {
	n, _ := prefixLen(re)
	return n
}

func prefixLen(re *syntax.Regexp) (n int, whole bool) {
	switch re.Op {
	case syntax.OpLiteral:
		return len(string(re.Rune)), true
	case syntax.OpCapture:
		return prefixLen(re.Sub[0])
	case syntax.OpCharClass: // parsed from an alternation of single letters
		return len(re.Rune) / 2 / max(1, len(re.Rune)/2), len(re.Rune) <= 6
	case syntax.OpEmptyMatch, syntax.OpBeginText, syntax.OpBeginLine, syntax.OpWordBoundary:
		return 0, true
	case syntax.OpConcat:
		for _, sub := range re.Sub {
			m, w := prefixLen(sub)
			if !w {
				if sub.Op == syntax.OpCharClass {
					return n, false
				}
				return n + m, false
			}
			n += m
		}
		return n, true
	case syntax.OpAlternate:
		n, whole = -1, true
		for _, sub := range re.Sub {
			m, w := prefixLen(sub)
			if whole = whole && w && (n < 0 || m == n); n < 0 || m < n {
				n = m
			}
		}
		return max(n, 0), whole
	}
	return 0, false
}

type allow struct {
	Allow
	regexes, paths []*regexp.Regexp
	words          [][]byte
}

func compileAllow(a Allow) (*allow, error) {
	c := &allow{Allow: a}
	switch a.Target {
	case "", "secret", "match", "line":
	default:
		return nil, fmt.Errorf("unknown target %q: want secret, match or line", a.Target)
	}
	for _, list := range []struct {
		exprs []string
		to    *[]*regexp.Regexp
	}{{a.Regexes, &c.regexes}, {a.Paths, &c.paths}} {
		for _, e := range list.exprs {
			re, err := regexp.Compile(e)
			if err != nil {
				return nil, err
			}
			*list.to = append(*list.to, re)
		}
	}
	for _, w := range a.StopWords {
		c.words = append(c.words, []byte(strings.ToLower(w)))
	}
	return c, nil
}

// allows says that a finding is none.
func (a *allow) allows(id string, secret, match, line []byte, path string) bool {
	if len(a.Rules) > 0 && !contains(a.Rules, id) {
		return false
	}
	target := secret
	switch a.Target {
	case "match":
		target = match
	case "line":
		target = line
	}
	given, held := 0, 0
	note := func(n int, ok bool) {
		if n == 0 {
			return
		}
		given++
		if ok {
			held++
		}
	}
	note(len(a.regexes), anyMatch(a.regexes, target))
	note(len(a.paths), path != "" && anyMatch(a.paths, []byte(path)))
	note(len(a.words), containsAny(bytes.ToLower(secret), a.words))
	if a.All {
		return given > 0 && held == given
	}
	return held > 0
}

func anyMatch(list []*regexp.Regexp, b []byte) bool {
	for _, re := range list {
		if re.Match(b) {
			return true
		}
	}
	return false
}

func containsAny(b []byte, words [][]byte) bool {
	for _, w := range words {
		if bytes.Contains(b, w) {
			return true
		}
	}
	return false
}

func contains(list []string, s string) bool {
	for _, l := range list {
		if l == s {
			return true
		}
	}
	return false
}
