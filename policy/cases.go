package policy

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/BurntSushi/toml"

	"guard"
)

// A folder of cases says what is to be decided, and is run without a vault:
//
//	context = "shop/dev"                     # of the session; also profile, task
//	allow = ["github-pat:repo:push/acme/*"]  # as --allow; also deny, allow_hosts, allow_logins, egress
//	policies = ["mine.cedar"]                # files beside this one
//	presets = ["frontend"]
//	repo = "guard.toml"                      # a file beside this one
//
//	[[credential]]
//	name = "github-pat"
//	kind = "github-pat"
//	hosts = ["github.com"]                   # also scopes, context, expires, decoy
//
//	[[case]]
//	name = "push to our own"
//	credential = "github-pat"                # none: a connection or a login
//	action = "repo:push"                     # "connect" for connections
//	host = "github.com"                      # also port (443), resource, method, path, channel, at, exe
//	resource = "acme/app"
//	expect = "allow"                         # or "deny"
//	rule = "flag --allow"                    # optional
type caseFile struct {
	Context, Profile, Task, Egress, Repo string
	Allow, Deny, Policies, Presets       []string
	AllowHosts                           []string `toml:"allow_hosts"`
	AllowLogins                          []string `toml:"allow_logins"`
	Started                              time.Time
	Credential                           []struct {
		Name, Kind, Context string
		Hosts, Scopes       []string
		Expires             time.Time
		Decoy               bool
	}
	Case []struct {
		Name, Credential, Action, Host, Resource, Method, Path, Channel, Exe, Expect, Rule string
		Port                                                                               int
		At                                                                                 time.Time
	}
}

// CaseResult is what came of one case.
type CaseResult struct {
	File, Name string
	OK         bool
	Want       string // "allow" or "deny", and the rule where one is wanted
	Got        guard.Decision
}

// RunCases runs every *.toml of dir that has [[case]] tables. Files that cannot be read,
// and a folder without cases, are errors.
func RunCases(dir string) ([]CaseResult, error) {
	names, err := filepath.Glob(filepath.Join(escapeGlob(dir), "*.toml"))
	if err != nil {
		return nil, err
	}
	slices.Sort(names)
	var out []CaseResult
	for _, n := range names {
		rs, err := runCaseFile(dir, n)
		if err != nil {
			return nil, err
		}
		out = append(out, rs...)
	}
	if len(out) == 0 {
		return nil, fmt.Errorf("%s has no cases: *.toml files with [[case]] tables", dir)
	}
	return out, nil
}

func escapeGlob(s string) string {
	var b strings.Builder
	for _, r := range s {
		if strings.ContainsRune(`*?[\`, r) {
			b.WriteByte('\\')
		}
		b.WriteRune(r)
	}
	return b.String()
}

func runCaseFile(dir, name string) ([]CaseResult, error) {
	base := filepath.Base(name)
	b, err := os.ReadFile(name)
	if err != nil {
		return nil, err
	}
	var f caseFile
	md, err := toml.Decode(string(b), &f)
	if err != nil {
		return nil, Problem{File: base, What: "not TOML of the form that cases have"}
	}
	if !md.IsDefined("case") {
		return nil, nil // a guard.toml beside them
	}
	if u := md.Undecoded(); len(u) > 0 {
		return nil, Problem{File: base, Line: lines(string(b)).of(u[0]...), What: "unknown key" + quoteKey(u[0])}
	}
	beside := func(rel string) (string, error) {
		if !filepath.IsLocal(rel) {
			return "", Problem{File: base, What: "files of a case lie beside it"}
		}
		return filepath.Join(dir, rel), nil
	}
	o := Options{Deny: f.Deny, Egress: f.Egress, AllowHosts: f.AllowHosts, Logins: f.AllowLogins, Zone: time.UTC,
		Session: guard.Session{ID: "test", Context: f.Context, Profile: f.Profile, Task: f.Task, Started: f.Started}}
	if f.Context == "" {
		o.Session.Context = "default"
	}
	for _, s := range f.Allow {
		g, err := ParseGrant(s)
		if err != nil {
			return nil, fmt.Errorf("%s: allow: %w", base, err)
		}
		o.Allow = append(o.Allow, g)
	}
	for _, s := range f.Presets {
		p, err := Preset(s)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", base, err)
		}
		o.Policies = append(o.Policies, p)
	}
	for _, s := range f.Policies {
		path, err := beside(s)
		if err != nil {
			return nil, err
		}
		p, err := LoadPolicies(path)
		if err != nil {
			return nil, err
		}
		o.Policies = append(o.Policies, p)
	}
	if f.Repo != "" {
		path, err := beside(f.Repo)
		if err != nil {
			return nil, err
		}
		if o.Repo, err = LoadRepo(path); err != nil {
			return nil, err
		}
	}
	var creds []guard.Credential
	for _, c := range f.Credential {
		x := guard.Credential{Name: c.Name, Kind: c.Kind, Context: c.Context, Hosts: c.Hosts, Scopes: c.Scopes, Expires: c.Expires, Decoy: c.Decoy, Version: 1}
		if x.Context == "" {
			x.Context = o.Session.Context
		}
		creds = append(creds, x)
	}
	p, err := New(o, creds)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", base, err)
	}
	at := lines(string(b))
	var out []CaseResult
	for i, c := range f.Case {
		if c.Expect != "allow" && c.Expect != "deny" {
			return nil, Problem{base, at.item("case", i), `expect: want "allow" or "deny"`}
		}
		r := CaseResult{File: fmt.Sprintf("%s:%d", base, at.item("case", i)), Name: c.Name, Want: c.Expect}
		u := guard.Use{Session: o.Session, Channel: guard.Channel(c.Channel), Action: c.Action, Resource: c.Resource, Host: c.Host, Port: c.Port, Method: c.Method, Path: c.Path, Exe: c.Exe, At: c.At}
		if u.Port == 0 && u.Host != "" {
			u.Port = 443
		}
		if u.At.Equal(time.Time{}) {
			u.At = time.Date(2026, 1, 1, 12, 0, 0, 0, time.UTC)
		}
		if u.Channel == "" {
			u.Channel = guard.ChannelHTTP
		}
		switch {
		case c.Credential != "":
			k := slices.IndexFunc(creds, func(x guard.Credential) bool { return x.Name == c.Credential })
			if k < 0 {
				return nil, Problem{base, at.item("case", i), "there is no [[credential]] of that name"}
			}
			u.Credential = creds[k]
			r.Got = p.Use(u)
		case c.Action == "connect":
			proto := "https"
			if c.Channel != "" {
				proto = c.Channel
			}
			r.Got = p.Egress(u.Host, u.Port, proto)
		case c.Action == "token:login", c.Action == "token:mint":
			r.Got = p.Login(u)
		default:
			return nil, Problem{base, at.item("case", i), "a case names a credential, or its action is connect, token:login or token:mint"}
		}
		r.OK = r.Got.Allowed() == (c.Expect == "allow") && (c.Rule == "" || c.Rule == r.Got.Rule)
		if c.Rule != "" {
			r.Want += " by " + c.Rule
		}
		out = append(out, r)
	}
	return out, nil
}
