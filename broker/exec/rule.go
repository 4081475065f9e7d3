package exec

import (
	"errors"
	"fmt"
	"io/fs"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"time"
)

// Rule is one line of the user's list of commands.
type Rule struct {
	Name    string `json:"name"`
	Context string `json:"context"`
	Path    string `json:"path"`   // absolute
	SHA256  string `json:"sha256"` // of the program, hex
	// Args has a pattern for each argument. In a pattern * is any run of
	// characters but /, ** any run at all, and a backslash takes the meaning of the
	// next character away. A pattern that begins with a star matches no argument that begins
	// with -, so that an option is only let in where a pattern says so. "..." as
	// the last one is any further arguments, options too.
	Args    []string      `json:"args"`
	With    []Place       `json:"with"`
	Set     []string      `json:"set,omitempty"`     // further variables, KEY=VALUE
	Hosts   []string      `json:"hosts,omitempty"`   // besides those of the credentials: "host", "host:port" or "*.domain"
	Inputs  []string      `json:"inputs,omitempty"`  // patterns of files that the agent may send
	Outputs []string      `json:"outputs,omitempty"` // patterns of files that it may get back
	Timeout time.Duration `json:"timeout_ns"`
}

// Place says where a command finds a credential's value.
type Place struct {
	Credential string `json:"credential"`
	Env        string `json:"env"`            // the variable that holds the value, or with File the path of a file with it
	File       bool   `json:"file,omitempty"` // the value is in a file that only the command sees
}

// Check says whether r is a rule at all.
func (r Rule) Check() error {
	switch {
	case r.Name == "" || strings.ContainsAny(r.Name, "/ \t\n"):
		return errors.New("a command's name is a word without spaces and slashes")
	case !filepath.IsAbs(r.Path):
		return fmt.Errorf("%s: the program is named by its absolute path", r.Path)
	case len(r.With) == 0:
		return errors.New("a command without a credential needs no guard: name one with --with")
	case r.Timeout < 0:
		return errors.New("a timeout is not negative")
	}
	seen := map[string]bool{}
	for _, p := range r.With {
		if p.Credential == "" || !variable(p.Env) {
			return fmt.Errorf("%s: %q is not the name of a variable: say --with NAME=VAR", p.Credential, p.Env)
		}
		if seen[p.Env] {
			return fmt.Errorf("%s is set twice", p.Env)
		}
		seen[p.Env] = true
	}
	for _, kv := range r.Set {
		k, _, ok := strings.Cut(kv, "=")
		if !ok || !variable(k) {
			return fmt.Errorf("--set wants KEY=VALUE")
		}
		if seen[k] {
			return fmt.Errorf("%s is set twice", k)
		}
		seen[k] = true
	}
	for _, p := range slices.Concat(r.Inputs, r.Outputs) {
		if !fs.ValidPath(p) || p == "." {
			return fmt.Errorf("%s: files are named by a pattern below the working folder, without .. and without a slash at the beginning", p)
		}
	}
	return nil
}

func variable(s string) bool {
	for i, c := range s {
		if c != '_' && (c < 'A' || c > 'Z') && (c < 'a' || c > 'z') && (i == 0 || c < '0' || c > '9') {
			return false
		}
	}
	return s != ""
}

// Names are the credentials of r, in order.
func (r Rule) Names() []string {
	var out []string
	for _, p := range r.With {
		if !slices.Contains(out, p.Credential) {
			out = append(out, p.Credential)
		}
	}
	slices.Sort(out)
	return out
}

// Match says whether r is about what q asks for. It does not look at the program.
func (r Rule) Match(q Request) bool {
	if len(q.Argv) == 0 {
		return false
	}
	if q.Argv[0] != r.Path && q.Argv[0] != path.Base(filepath.ToSlash(r.Path)) {
		return false
	}
	names := slices.Clone(q.With)
	slices.Sort(names)
	if !slices.Equal(slices.Compact(names), r.Names()) {
		return false
	}
	return matchArgs(r.Args, q.Argv[1:])
}

func matchArgs(patterns, args []string) bool {
	for i, p := range patterns {
		if p == "..." && i == len(patterns)-1 {
			return true
		}
		if i >= len(args) || !matchArg(p, args[i]) {
			return false
		}
	}
	return len(args) == len(patterns)
}

func matchArg(pattern, arg string) bool {
	if strings.HasPrefix(pattern, "*") && strings.HasPrefix(arg, "-") {
		return false
	}
	return glob(pattern, arg)
}

// glob matches s with a pattern of *, ** and backslashes, in time that is the
// product of their lengths at most.
func glob(pattern, s string) bool {
	// at[i]: what was read of the pattern matches s[:i].
	at := make([]bool, len(s)+1)
	at[0] = true
	for p := 0; p < len(pattern); p++ {
		c := pattern[p]
		if c == '*' {
			deep := p+1 < len(pattern) && pattern[p+1] == '*'
			if deep {
				p++
			}
			for i := range len(s) {
				at[i+1] = at[i+1] || at[i] && (deep || s[i] != '/')
			}
			continue
		}
		if c == '\\' && p+1 < len(pattern) {
			p++
			c = pattern[p]
		}
		for i := len(s); i > 0; i-- {
			at[i] = at[i-1] && s[i-1] == c
		}
		at[0] = false
	}
	return at[len(s)]
}

// allowed says whether one of patterns matches name, a file below a folder.
func allowed(patterns []string, name string) bool {
	return slices.ContainsFunc(patterns, func(p string) bool { return glob(p, name) })
}

// ErrChanged is the error of a program that is not the one that the user pinned.
var ErrChanged = errors.New("the program is not the one that was pinned")

// verify says whether the program is still what was pinned. Between this and
// the start, the user's own uid could change it; an agent cannot, as its sandbox
// keeps it from writing there.
func (r Rule) verify(hash func(string) (string, error)) error {
	if r.SHA256 == "" || hash == nil {
		return fmt.Errorf("%s has no hash: %w", r.Path, ErrChanged)
	}
	sum, err := hash(r.Path)
	if err != nil {
		return fmt.Errorf("%s: %w", r.Path, err)
	}
	if sum != r.SHA256 {
		return fmt.Errorf("%s: %w", r.Path, ErrChanged)
	}
	return nil
}
