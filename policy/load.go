package policy

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"

	"github.com/cedar-policy/cedar-go"
	xast "github.com/cedar-policy/cedar-go/x/exp/ast"
	"github.com/cedar-policy/cedar-go/x/exp/schema"
	"github.com/cedar-policy/cedar-go/x/exp/schema/validate"
)

// File is policies in Cedar that the user wrote, read and validated.
type File struct {
	Name  string // base name, for rules
	Text  string
	rules rules
}

const (
	maxCedarFile = 256 << 10 // bytes
	maxCedar     = 1000      // policies of one file
	maxNesting   = 100       // brackets, in one another
	maxChain     = 2000      // operators of one policy: each is a step of the stack
)

// LoadPolicies reads a file of Cedar. What does not parse, or says what guard's schema does
// not have, is an error, as Problems with line numbers: half-understood rules are no rules.
func LoadPolicies(path string) (*File, error) {
	f, problems, err := loadCedar(path)
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
	return f, nil
}

func loadCedar(path string) (*File, []Problem, error) {
	r, err := os.Open(path)
	if err != nil {
		return nil, nil, fmt.Errorf("read policies: %w", err)
	}
	defer r.Close()
	if st, err := r.Stat(); err != nil || !st.Mode().IsRegular() {
		return nil, nil, fmt.Errorf("read policies: %s is not a regular file", filepath.Base(path))
	}
	b, err := io.ReadAll(io.LimitReader(r, maxCedarFile+1))
	if err != nil {
		return nil, nil, fmt.Errorf("read policies: %w", err)
	}
	f, problems := ParsePolicies(filepath.Base(path), b)
	return f, problems, nil
}

// ParsePolicies is LoadPolicies for a text; without problems, the File is good.
func ParsePolicies(name string, text []byte) (f *File, problems []Problem) {
	defer func() {
		if recover() != nil { // the parser or the validator met what it does not expect
			f, problems = nil, []Problem{{File: name, What: "cannot be checked: write it another way"}}
		}
	}()
	one := func(line int, what string) (*File, []Problem) { return nil, []Problem{{name, line, what}} }
	if len(text) > maxCedarFile {
		return one(0, "larger than 256 KiB")
	}
	if line, what := tooDeep(text); what != "" {
		return one(line, what)
	}
	list, err := cedar.NewPolicyListFromBytes(name, text)
	if err != nil {
		// The parser's words quote the file.
		line := 0
		if m := errorLine.FindStringSubmatch(err.Error()); m != nil {
			fmt.Sscan(m[1], &line)
		}
		return one(line, "not Cedar: a policy is permit or forbid (principal, action, resource), when { ... } or unless { ... }, and a semicolon")
	}
	if len(list) > maxCedar {
		return one(0, fmt.Sprintf("more than %d policies", maxCedar))
	}
	v, err := validator()
	if err != nil {
		return one(0, err.Error())
	}
	f = &File{Name: name, Text: string(text)}
	for _, p := range list {
		line := p.Position().Line
		if n := operators(p); n > maxChain {
			problems = append(problems, Problem{name, line, fmt.Sprintf("%d operators in one policy: %d are enough for anyone", n, maxChain)})
			continue
		}
		if err := v.Policy(fmt.Sprint("line ", line), (*xast.Policy)(p.AST())); err != nil {
			problems = append(problems, Problem{name, line, schemaWords(err)})
			continue
		}
		at := fmt.Sprintf("%s:%d", name, line)
		source := at
		if id := string(p.Annotations()["id"]); id != "" {
			source = plainWords(id)
		}
		var r *rule
		f.rules, r = f.rules.add(at, source, rankUser, p)
		r.user = true
		if r.permits() {
			r.rank = rankScope
		}
	}
	return f, problems
}

var errorLine = regexp.MustCompile(`<input>:(\d+):`)

// plainWords bounds what an annotation says, which ends up in logs and on terminals.
func plainWords(s string) string {
	s = strings.Map(func(r rune) rune {
		if r < 0x20 || r >= 0x7f {
			return '?'
		}
		return r
	}, s)
	if len(s) > 100 {
		s = s[:100] + "..."
	}
	return s
}

// validator checks policies against guard's schema.
func validator() (*validate.Validator, error) {
	b, err := files.ReadFile("guard.cedarschema")
	if err != nil {
		return nil, err
	}
	var s schema.Schema
	if err := s.UnmarshalCedar(b); err != nil {
		return nil, fmt.Errorf("guard's own schema: %w", err)
	}
	r, err := s.Resolve()
	if err != nil {
		return nil, fmt.Errorf("guard's own schema: %w", err)
	}
	return validate.New(r), nil
}

var forPolicy = regexp.MustCompile("for policy `[^`]*`, ")

// schemaWords says each of the validator's findings once: it has one for every action.
func schemaWords(err error) string {
	inContext := regexp.MustCompile(` in context for Action::"[^"]*"`)
	var out []string
	for l := range strings.SplitSeq(err.Error(), "\n") {
		l = inContext.ReplaceAllString(forPolicy.ReplaceAllString(l, ""), " of context")
		if !slices.Contains(out, l) {
			out = append(out, l)
		}
	}
	s := strings.Join(out, "; ")
	if strings.Contains(s, "on entity type `Host` not found") {
		s += " (write: resource is Credential)"
	}
	return plainText(s)
}

func plainText(s string) string {
	if len(s) > 600 {
		s = s[:600] + "..."
	}
	return strings.Map(func(r rune) rune {
		if r < 0x20 || r >= 0x7f {
			return '?'
		}
		return r
	}, s)
}

// tooDeep refuses what a parser that calls itself would need too much of a stack for.
func tooDeep(text []byte) (line int, what string) {
	line = 1
	depth, unary := 0, 0
	for i := 0; i < len(text); i++ {
		switch c := text[i]; c {
		case '\n':
			line++
		case '"':
			for i++; i < len(text) && text[i] != '"'; i++ {
				switch text[i] {
				case '\\':
					i++
				case '\n':
					line++
				}
			}
			unary = 0
		case '/':
			if i+1 < len(text) && text[i+1] == '/' {
				for i < len(text) && text[i] != '\n' {
					i++
				}
				line++
			}
		case '(', '[', '{':
			unary = 0
			if depth++; depth > maxNesting {
				return line, fmt.Sprintf("brackets nested deeper than %d", maxNesting)
			}
		case ')', ']', '}':
			unary = 0
			depth--
		case '!', '-':
			if unary++; unary > 8 {
				return line, "more than 8 of ! or - in a row"
			}
		case ' ', '\t', '\r':
		default:
			unary = 0
		}
	}
	return 0, ""
}

// operators is how many nodes a policy's conditions have.
func operators(p *cedar.Policy) int {
	n := 0
	for _, c := range (*xast.Policy)(p.AST()).Conditions {
		xast.Inspect(xast.NewNode(c.Body), func(x xast.IsNode) bool {
			if _, ok := x.(xast.NodeValue); !ok {
				n++
			}
			return true
		})
	}
	return n
}

// Presets are the names of the policies for common tasks that come with guard.
func Presets() []string {
	list, err := fs.ReadDir(files, "presets")
	if err != nil {
		return nil
	}
	var out []string
	for _, e := range list {
		out = append(out, strings.TrimSuffix(e.Name(), ".cedar"))
	}
	return out
}

// Preset is one of Presets.
func Preset(name string) (*File, error) {
	if !slices.Contains(Presets(), name) {
		return nil, fmt.Errorf("there is no preset %q: there is %s", name, strings.Join(Presets(), ", "))
	}
	b, err := files.ReadFile("presets/" + name + ".cedar")
	if err != nil {
		return nil, err
	}
	f, problems := ParsePolicies(name+".cedar", b)
	if len(problems) > 0 {
		return nil, problems[0]
	}
	return f, nil
}

// Schema is guard's schema, in Cedar's language.
func Schema() string {
	b, err := files.ReadFile("guard.cedarschema")
	if err != nil {
		return ""
	}
	return string(b)
}

// Cedar is what the policy is made of, in Cedar's language: guard's own, those of flags,
// files and credentials, and each guard.toml's by itself.
func (p *Policy) Cedar() string {
	if p == nil || p.creds == nil {
		return ""
	}
	var b strings.Builder
	write := func(rs rules) {
		for _, r := range rs {
			fmt.Fprintf(&b, "// %s\n%s\n\n", plainText(r.where()), r.policy.MarshalCedar())
		}
	}
	for i, e := range p.engines {
		if i == 0 {
			b.WriteString("// ---- The session's. A forbid wins over every permit, and what nothing permits is denied.\n\n")
			write(e.rules)
			names := make([]string, 0, len(p.creds))
			for n := range p.creds {
				names = append(names, n)
			}
			slices.Sort(names)
			for _, n := range names {
				write(compileCredential(p.creds[n].Credential).own)
			}
			continue
		}
		fmt.Fprintf(&b, "// ---- %s, which is asked by itself: both have to allow.\n\n", e.repo.file)
		write(e.rules)
	}
	return strings.TrimRight(b.String(), "\n") + "\n"
}
