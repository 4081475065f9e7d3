package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/spf13/pflag"

	"guard"
	"guard/policy"
)

// userPolicy is what flags say about policies besides --allow and --deny, and what a
// session makes of it.
type userPolicy struct {
	policyFiles, presets []string

	asks      bool            // --approve was left to guard: a project's file is asked about
	permitted map[string]bool // credentials that the user's policies permit something
	files     []*policy.File
	budget    *policy.Budget
	hash      func(pid int, exe string) string
}

func (o *userPolicy) add(f *pflag.FlagSet) {
	f.StringArrayVar(&o.policyFiles, "policy", nil, "FILE.cedar with policies of yours, which permit and forbid, or a file like guard.toml, which narrows (repeatable; those in guard's configuration folder, policies/*.cedar, always hold)")
	f.StringArrayVar(&o.presets, "preset", nil, "policies for a common task: "+strings.Join(policy.Presets(), ", ")+" (repeatable; guard policy show PRESET prints them)")
}

// policiesDir is where policies of the user's are that hold in every session.
func (a *app) policiesDir() string { return filepath.Join(a.configDir(), "policies") }

// standingPolicies are the files of policiesDir.
func (a *app) standingPolicies() ([]string, error) {
	list, err := os.ReadDir(a.policiesDir())
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("read your policies: %w", err)
	}
	var out []string
	for _, e := range list {
		if strings.HasSuffix(e.Name(), ".cedar") {
			out = append(out, filepath.Join(a.policiesDir(), e.Name()))
		}
	}
	return out, nil
}

// load reads the user's policies: standing, presets, and those of --policy.
func (o *userPolicy) load(standing []string) error {
	o.files = nil
	for _, n := range standing {
		f, err := policy.LoadPolicies(n)
		if err != nil {
			return fmt.Errorf("%s: %w", n, err)
		}
		o.files = append(o.files, f)
	}
	for _, n := range o.presets {
		f, err := policy.Preset(n)
		if err != nil {
			return usageError{fmt.Errorf("--preset: %w", err)}
		}
		o.files = append(o.files, f)
	}
	for _, n := range o.policyFiles {
		if !strings.HasSuffix(n, ".cedar") {
			continue
		}
		f, err := policy.LoadPolicies(n)
		if err != nil {
			return err
		}
		o.files = append(o.files, f)
	}
	return nil
}

// newPolicy compiles flags, the user's files and the repository's.
func newPolicy(o runFlags, info guard.Session, creds []guard.Credential, repoFile string) (*policy.Policy, error) {
	act, err := o.leakAction()
	if err != nil {
		return nil, err
	}
	grants, err := o.grants()
	if err != nil {
		return nil, err
	}
	var repo *policy.Repo
	for _, file := range append([]string{repoFile}, o.policyFiles...) {
		if file == "" || strings.HasSuffix(file, ".cedar") {
			continue
		}
		r, err := policy.LoadRepo(file)
		if err != nil {
			return nil, err
		}
		repo = repo.And(r)
	}
	return policy.New(policy.Options{
		Session: info, Allow: grants, Deny: o.deny, OnLeak: act, Egress: o.egress, AllowHosts: o.allowHosts, Models: o.modelHosts, HostPorts: o.hostPorts, Logins: o.logins, Repo: repo,
		Policies: o.files, Budget: o.budget, Hash: o.hash,
	}, creds)
}

// openPolicy reads and compiles what decides in this session.
func (s *session) openPolicy() error {
	standing, err := s.app.standingPolicies()
	if err != nil {
		return err
	}
	if err := s.flags.load(standing); err != nil {
		return err
	}
	before, err := s.app.readBudget(s.vault, s.info)
	if err != nil {
		return err
	}
	s.flags.budget = policy.NewBudget(before)
	s.flags.hash = func(pid int, exe string) string {
		h, _ := s.procs.about(pid, exe, 0)
		return h
	}
	repoFile := findRepoFile(s.dir, s.home)
	if s.policy, err = newPolicy(s.flags, s.info, s.creds, repoFile); err != nil {
		return err
	}
	s.flags.permitted = map[string]bool{}
	for _, c := range s.creds {
		s.flags.permitted[c.Name] = s.policy.Allowed(c.Name)
	}
	if s.info.Profile == "daemon" {
		s.closers = append(s.closers, func() {
			if err := s.app.keepBudget(s.vault, s.info, s.flags.budget.Spent()); err != nil {
				s.app.say("what was used of grants could not be kept: %v", err)
			}
		})
	}
	return s.approveProject(repoFile)
}

// timed gives a use that is asked about, and not made, the time it is.
func timed(u guard.Use) guard.Use {
	if u.At.IsZero() {
		u.At = time.Now()
	}
	return u
}

// counted is decide for uses that follow at once: those that a grant is for so many of
// are counted.
func (s *session) counted(decide func(guard.Use) guard.Decision) func(guard.Use) guard.Decision {
	return func(u guard.Use) guard.Decision {
		d := decide(u)
		p := s.policyNow()
		if !d.Allowed() || !p.Counts() {
			return d
		}
		if s.info.Profile != "daemon" {
			return p.Take(timed(u))
		}
		// A daemon that is killed, or runs twice, does not get its budget anew.
		d, err := s.takeKept(p, timed(u))
		if err != nil {
			return guard.Decision{Action: guard.Block, Rule: "budget", Reason: "what is left of the grant could not be read or written down", Secret: u.Credential.ID(), NextSteps: []string{"tell the user; guard doctor says what is missing"}}
		}
		return d
	}
}

// budgetWait bounds how long a use waits for another guard that counts one.
const budgetWait = 5 * time.Second

func (s *session) takeKept(p *policy.Policy, u guard.Use) (guard.Decision, error) {
	ctx, cancel := context.WithTimeout(context.Background(), budgetWait)
	defer cancel()
	end, err := s.vault.Lock(ctx.Done(), "budgets")
	if err != nil {
		return guard.Decision{}, err
	}
	defer end()
	before, err := s.app.readBudget(s.vault, s.info)
	if err != nil {
		return guard.Decision{}, err
	}
	s.flags.budget.Raise(before)
	d := p.Take(u)
	if !d.Allowed() {
		return d, nil
	}
	return d, s.app.keepBudget(s.vault, s.info, s.flags.budget.Spent())
}

// open is the leak line, and counts what goes to hosts of credentials of which only so
// many bytes may.
func (s *session) open(o guard.Origin) guard.Filter {
	f := s.line.Open(o)
	if !s.policyNow().Metered(o.Host, o.Port) {
		return f
	}
	over := false
	return func(p []byte, step guard.Step) ([]byte, guard.Decision) {
		if over {
			return nil, overBudget(o)
		}
		out, d := f(p, step)
		if _, ok := s.policyNow().Sent(o.Host, o.Port, int64(len(out))); !ok && len(out) > 0 {
			over = true
			return nil, overBudget(o)
		}
		return out, d
	}
}

func overBudget(o guard.Origin) guard.Decision {
	return guard.Decision{Action: guard.Block, Rule: "budget", Reason: "what may be sent to " + o.Host + " in this session is used up",
		NextSteps: []string{"tell the user what it is needed for: they can allow more, from outside the session"}}
}

// kept is what daemons used of their grants, by context: it survives restarts.
type keptBudgets map[string]map[string]policy.Spent

func (a *app) budgetPath() string { return filepath.Join(a.home(), "budgets") }

// sealer is the vault, for what only guard may have written.
type sealer interface {
	Seal(purpose string, plain []byte) ([]byte, error)
	Unseal(purpose string, box []byte) ([]byte, error)
}

// readSealed reads v from path, as writeSealed wrote it; nothing if there is no such file.
func readSealed(v sealer, path, purpose string, to any) error {
	box, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	b, err := v.Unseal(purpose, box)
	if err != nil {
		return fmt.Errorf("%s was changed or is not of this vault: %w", path, err)
	}
	return json.Unmarshal(b, to)
}

func writeSealed(v sealer, path, purpose string, from any) error {
	b, err := json.Marshal(from)
	if err != nil {
		return err
	}
	box, err := v.Seal(purpose, b)
	if err != nil {
		return err
	}
	return writeFile(path, box)
}

func (a *app) readBudget(v sealer, info guard.Session) (map[string]policy.Spent, error) {
	if info.Profile != "daemon" {
		return nil, nil
	}
	kept := keptBudgets{}
	err := readSealed(v, a.budgetPath(), "budgets", &kept)
	return kept[info.Context], err
}

func (a *app) keepBudget(v sealer, info guard.Session, spent map[string]policy.Spent) error {
	kept := keptBudgets{}
	if err := readSealed(v, a.budgetPath(), "budgets", &kept); err != nil {
		return err
	}
	if kept[info.Context] == nil {
		kept[info.Context] = map[string]policy.Spent{}
	}
	for k, n := range spent {
		o := kept[info.Context][k]
		kept[info.Context][k] = policy.Spent{Count: max(o.Count, n.Count), Bytes: max(o.Bytes, n.Bytes)}
	}
	return writeSealed(v, a.budgetPath(), "budgets", kept)
}

// words are the flags that a policy is made of, for the log: uses can be decided again
// by them (guard policy test --recorded, guard policy diff).
func (o *runFlags) words() string {
	var out []string
	for _, f := range []struct {
		key    string
		values []string
	}{{"allow", o.allow}, {"deny", o.deny}, {"preset", o.presets}, {"policy", o.policyFiles}} {
		for _, v := range f.values {
			out = append(out, f.key+"="+wordEscaper.Replace(v))
		}
	}
	s := strings.Join(out, " ")
	if len(s) > maxWords {
		return "too long"
	}
	return s
}

// maxWords bytes fit into a record.
const maxWords = 900

var wordEscaper = strings.NewReplacer("%", "%25", " ", "%20", "?", "%3F", "#", "%23")

var wordUnescaper = strings.NewReplacer("%20", " ", "%3F", "?", "%23", "#", "%25", "%")

// parseWords reads what words wrote; false where that is not all.
func (o *runFlags) parseWords(s string) bool {
	if s == "too long" || strings.HasSuffix(s, "…") {
		return false
	}
	for w := range strings.FieldsSeq(s) {
		key, v, ok := strings.Cut(w, "=")
		v = wordUnescaper.Replace(v)
		switch {
		case !ok:
			return false
		case key == "allow":
			o.allow = append(o.allow, v)
		case key == "deny":
			o.deny = append(o.deny, v)
		case key == "preset":
			o.presets = append(o.presets, v)
		case key == "policy":
			o.policyFiles = append(o.policyFiles, v)
		}
	}
	return true
}

// sortedNames are the names of m, in order.
func sortedNames[V any](m map[string]V) []string {
	out := make([]string, 0, len(m))
	for n := range m {
		out = append(out, n)
	}
	slices.Sort(out)
	return out
}
