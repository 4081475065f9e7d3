package policy

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"

	"guard"

	"github.com/BurntSushi/toml"
)

// Repo is a guard.toml: what a project says it needs. It takes away, and gives
// nothing.
//
//	context = "shop/dev"          # must agree with the session's
//	deny = ["prod-db"]            # never, whatever --allow says
//	on_leak = "block"             # where stricter than the session's
//
//	[[use]]                       # with any of these, nothing else is used
//	credential = "github-pat"
//	scope = "repo:push/acme/*"    # none: whatever --allow gives
//	for = "pushing fixes"         # for a person to read
//
//	[egress]
//	mode = "list"                 # list, ask, web or any, where narrower
//	hosts = ["api.github.com"]    # with any, nothing else is reached
type Repo struct {
	file        string // base name, for rules
	context     string
	contextLine int
	deny        map[string]int // line by name
	onLeak      *guard.Action
	onLeakLine  int
	uses        []repoUse
	hasUses     bool
	useLine     int
	mode        string
	modeLine    int
	hosts       []hostPattern
	hasHosts    bool
	hostsLine   int
	also        []*Repo
}

type repoUse struct {
	name  string
	scope Scope
	line  int
}

// Problem is something wrong in a guard.toml.
type Problem struct {
	File string // base name
	Line int    // 0: not known
	What string // never a value from the file
}

func (p Problem) String() string {
	if p.Line == 0 {
		return p.File + ": " + p.What
	}
	return fmt.Sprintf("%s:%d: %s", p.File, p.Line, p.What)
}

func (p Problem) Error() string { return p.String() }

// And returns a Repo that takes away what r and o do. Either may be nil.
func (r *Repo) And(o *Repo) *Repo {
	if r == nil {
		return o
	}
	if o == nil {
		return r
	}
	both := *r
	both.also = append(slices.Clone(r.also), o)
	return &both
}

func (r *Repo) all() []*Repo {
	if r == nil {
		return nil
	}
	if len(r.also) == 0 {
		return []*Repo{r}
	}
	out := []*Repo{r}
	for _, o := range r.also {
		out = append(out, o.all()...)
	}
	return out
}

func (r *Repo) rule(line int) string { return fmt.Sprintf("%s:%d", r.file, line) }

// Context is the context that the file names, or "".
func (r *Repo) Context() string {
	if r == nil {
		return ""
	}
	return r.context
}

const maxRepoFile = 1 << 20 // bytes

// LoadRepo reads a guard.toml. Unknown keys and badly written values are errors,
// as Problems with line numbers: half-understood rules are no rules.
func LoadRepo(path string) (*Repo, error) {
	r, problems, err := load(path)
	if err != nil {
		return nil, err
	}
	var errs []error
	for _, p := range problems {
		errs = append(errs, p)
	}
	if len(errs) > 0 {
		return nil, errors.Join(errs...)
	}
	return r, nil
}

// Check says what is wrong in a guard.toml; nothing: LoadRepo takes it.
func Check(path string) []Problem {
	_, problems, err := load(path)
	if err != nil {
		return []Problem{{File: filepath.Base(path), What: err.Error()}}
	}
	return problems
}

// repoFile is the file's form.
type repoFile struct {
	Context string   `toml:"context"`
	Deny    []string `toml:"deny"`
	OnLeak  string   `toml:"on_leak"`
	Use     []struct {
		Credential string `toml:"credential"`
		Scope      string `toml:"scope"`
		For        string `toml:"for"`
	} `toml:"use"`
	Egress struct {
		Mode  string   `toml:"mode"`
		Hosts []string `toml:"hosts"`
	} `toml:"egress"`
}

func load(path string) (*Repo, []Problem, error) {
	// Opening a pipe would wait for somebody to write.
	if st, err := os.Stat(path); err == nil && !st.Mode().IsRegular() {
		return nil, nil, fmt.Errorf("read the project's policy: %s is not a regular file", filepath.Base(path))
	}
	f, err := os.Open(path)
	if err != nil {
		return nil, nil, fmt.Errorf("read the project's policy: %w", err)
	}
	defer f.Close()
	if st, err := f.Stat(); err != nil || !st.Mode().IsRegular() {
		return nil, nil, fmt.Errorf("read the project's policy: %s is not a regular file", filepath.Base(path))
	}
	b, err := io.ReadAll(io.LimitReader(f, maxRepoFile+1))
	if err != nil {
		return nil, nil, fmt.Errorf("read the project's policy: %w", err)
	}
	if len(b) > maxRepoFile {
		return nil, nil, fmt.Errorf("read the project's policy: %s is larger than 1 MiB", filepath.Base(path))
	}
	r, problems := parseRepo(filepath.Base(path), string(b))
	return r, problems, nil
}

func parseRepo(file, text string) (*Repo, []Problem) {
	var form repoFile
	md, err := toml.Decode(text, &form)
	if err != nil {
		// The parser's words may quote the file.
		p := Problem{File: file, What: "not TOML of the form that guard.toml has"}
		if pe := (toml.ParseError{}); errors.As(err, &pe) {
			p.Line = pe.Position.Line
		}
		return nil, []Problem{p}
	}
	at := lines(text)
	var problems []Problem
	bad := func(line int, what string) { problems = append(problems, Problem{file, line, what}) }
	for _, k := range md.Undecoded() {
		bad(at.of(k...), "unknown key"+quoteKey(k)+": known are context, deny, on_leak, [[use]] with credential, scope and for, [egress] with mode and hosts")
	}
	r := &Repo{file: file, context: form.Context, contextLine: at.of("context"), deny: map[string]int{}}
	if md.IsDefined("context") && form.Context == "" {
		bad(r.contextLine, "context is empty: leave it out, or write PROJECT or PROJECT/ENV")
	}
	for _, n := range form.Deny {
		if n == "" {
			bad(at.of("deny"), "a name in deny is empty")
		}
		r.deny[n] = at.of("deny")
	}
	if md.IsDefined("on_leak") {
		r.onLeakLine = at.of("on_leak")
		a, err := guard.ParseAction(form.OnLeak)
		if err != nil || a == guard.Pass {
			bad(r.onLeakLine, "on_leak: want kill, block, redact or warn")
		}
		r.onLeak = &a
	}
	r.hasUses, r.useLine = md.IsDefined("use"), at.of("use")
	for i, u := range form.Use {
		line := at.item("use", i)
		use := repoUse{name: u.Credential, scope: Scope{Verb: "use"}, line: line}
		if u.Credential == "" {
			bad(line, "[[use]] names no credential")
		}
		if u.Scope != "" {
			if use.scope, err = ParseScope(u.Scope); err != nil {
				bad(line, "[[use]] scope: "+err.Error())
			}
		}
		r.uses = append(r.uses, use)
	}
	if md.IsDefined("egress", "mode") {
		r.mode, r.modeLine = form.Egress.Mode, at.of("egress", "mode")
		if _, ok := egressWidth[r.mode]; !ok {
			bad(r.modeLine, "egress mode: want list, ask, web or any")
		}
	}
	r.hasHosts, r.hostsLine = md.IsDefined("egress", "hosts"), at.of("egress", "hosts")
	for _, h := range form.Egress.Hosts {
		p, err := parseHost(h)
		if err != nil {
			bad(r.hostsLine, "egress hosts: "+err.Error())
		}
		r.hosts = append(r.hosts, p)
	}
	slices.SortStableFunc(problems, func(a, b Problem) int { return a.Line - b.Line })
	return r, problems
}

var plainKey = regexp.MustCompile(`^[a-z_.-]{1,40}$`)

// quoteKey names a key, unless it does not look like one.
func quoteKey(k toml.Key) string {
	if s := k.String(); plainKey.MatchString(s) {
		return " " + s
	}
	return ""
}

// lineIndex finds the lines of keys, for messages and rule names alone: a file
// made to mislead it gets a wrong number, not another decision.
type lineIndex map[string]int

var (
	header = regexp.MustCompile(`^\s*\[\[?\s*([A-Za-z0-9_."' -]+?)\s*\]\]?\s*(#.*)?$`)
	setKey = regexp.MustCompile(`^\s*([A-Za-z0-9_."'-]+)\s*=`)
)

func lines(text string) lineIndex {
	at := lineIndex{}
	table := ""
	count := map[string]int{}
	for i, l := range strings.Split(text, "\n") {
		l = strings.TrimSuffix(l, "\r")
		key := ""
		if m := header.FindStringSubmatch(l); m != nil {
			table = strings.Trim(m[1], `"'`)
			key = table
			if strings.HasPrefix(strings.TrimSpace(l), "[[") {
				at[fmt.Sprintf("%s#%d", table, count[table])] = i + 1
				count[table]++
			}
		} else if m := setKey.FindStringSubmatch(l); m != nil {
			key = strings.Trim(m[1], `"'`)
			if table != "" {
				key = table + "." + key
			}
		}
		if key != "" && at[key] == 0 {
			at[key] = i + 1
		}
	}
	return at
}

// of is the line of a key, or of the nearest table around it, from 1.
func (at lineIndex) of(key ...string) int {
	for n := len(key); n > 0; n-- {
		if l := at[strings.Join(key[:n], ".")]; l > 0 {
			return l
		}
	}
	return 1
}

func (at lineIndex) item(key string, i int) int {
	if l := at[fmt.Sprintf("%s#%d", key, i)]; l > 0 {
		return l
	}
	return at.of(key)
}

// repoDenies is the deny list of every repo file.
func (p *Policy) repoDenies(id guard.SecretID) (guard.Decision, bool) {
	for _, r := range p.repo.all() {
		if line, ok := r.deny[id.Name]; ok {
			return refuse(id, r.rule(line), fmt.Sprintf("the project's %s denies %s", r.file, id.Name), fmt.Sprintf("ask the user to change deny in %s", r.file)), true
		}
	}
	return guard.Decision{}, false
}

// repoUse asks every repo file that lists uses whether it lists this one.
func (p *Policy) repoUse(id guard.SecretID, action, resource string, anyResource bool) (guard.Decision, bool) {
	for _, r := range p.repo.all() {
		if !r.hasUses {
			continue
		}
		line, ok := r.useLine, false
		for _, u := range r.uses {
			if u.name != id.Name {
				continue
			}
			line = u.line
			if u.scope.Covers(action, resource) || anyResource && u.scope.verbCovers(action) {
				ok = true
				break
			}
		}
		if !ok {
			return refuse(id, r.rule(line), fmt.Sprintf("the project's %s lists what it needs, and %s for %s%s is not there", r.file, id.Name, action, on(resource)),
				fmt.Sprintf("ask the user to add [[use]] credential = %q, scope = %q to %s", id.Name, action, r.file)), false
		}
	}
	return guard.Decision{}, true
}
