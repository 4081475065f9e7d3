package policy

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/cedar-policy/cedar-go"
	"github.com/cedar-policy/cedar-go/types"
	xast "github.com/cedar-policy/cedar-go/x/exp/ast"

	"guard"
)

func cedarFile(t testing.TB, text string) *File {
	t.Helper()
	f, problems := ParsePolicies("mine.cedar", []byte(text))
	if len(problems) > 0 {
		t.Fatalf("%s: %v", text, problems)
	}
	return f
}

// What Go says of actions, guard's entities and schema say.
func TestSchemaIsTheCode(t *testing.T) {
	entities := actionEntities()
	b := Schema()
	for a := range allActions() {
		line := ""
		for l := range strings.SplitSeq(b, "\n") {
			if strings.HasPrefix(l, fmt.Sprintf("action %q", a)) {
				line = l
			}
		}
		if line == "" {
			t.Errorf("the schema has no action %s", a)
			continue
		}
		head, _, _ := strings.Cut(line, "appliesTo")
		for verb := range covers {
			in := (Scope{Verb: verb}).verbCovers(a) && verb != a
			if said := strings.Contains(head, fmt.Sprintf("%q", verb)) && verb != a; said != in {
				t.Errorf("%s in %s: the schema says %v, scopes say %v", a, verb, said, in)
			}
			if a == "connect" {
				continue
			}
			if got := entities[uid(typeAction, a)].Parents.Contains(uid(typeAction, verb)); got != in {
				t.Errorf("%s in %s: entities say %v", a, verb, got)
			}
		}
	}
	for _, n := range contextNames {
		if !strings.Contains(b, fmt.Sprintf("  %q: ", n)) && !strings.Contains(b, fmt.Sprintf("  %q?: ", n)) {
			t.Errorf("the schema's context has no %s", n)
		}
	}
	// All that guard itself makes is valid, too.
	v, err := validator()
	if err != nil {
		t.Fatal(err)
	}
	all := grants(t, "github-pat:repo:push/acme/*,count=3,bytes=1M", "dev-db:s3:read", "local-db,until=2030-01-01", "old:read,between=22:00-06:00")
	p := newPolicy(t, Options{Allow: all, Deny: []string{"old"}, Egress: "web", Logins: []string{"*.idp.example:8443"},
		Repo: repo(t, "deny=['x']\n[[use]]\ncredential='github-pat'\nscope='repo:push/a*/**'\n[egress]\nhosts=['*.a.example:1']\nmode='web'").And(repo(t, "[egress]\nmode='list'")).And(repo(t, "[egress]\nmode='web'"))})
	n := 0
	for _, e := range p.engines {
		rs := e.rules
		for _, c := range creds {
			rs = append(rs, compileCredential(c).own...)
		}
		for _, r := range rs {
			n++
			if err := v.Policy("x", (*xast.Policy)(r.policy.AST())); err != nil {
				t.Errorf("%s: %s\n%v", r.where(), r.policy.MarshalCedar(), err)
			}
		}
	}
	if n < 30 {
		t.Errorf("only %d policies", n)
	}
	text := p.Cedar()
	if _, problems := ParsePolicies("all", []byte(text)); len(problems) > 0 {
		t.Errorf("what is printed is not read again: %v", problems)
	}
}

func TestCedarFiles(t *testing.T) {
	use := func(action, resource string) guard.Use { return useOf(pat, action, resource, "github.com", 443) }
	get := func(path string) guard.Use {
		u := use("http:read", path)
		u.Method, u.Path = "GET", path
		return u
	}
	for _, c := range []struct {
		name, text string
		allow      []string
		use        guard.Use
		rule       string
		ok         bool
	}{
		{"permit", `permit(principal, action == Action::"http:read", resource == Credential::"github-pat");`, nil, get("/x"), "mine.cedar:1", true},
		{"permit by kind does not cover others", `permit(principal, action, resource is Credential) when { resource.kind == "npm" };`, nil, get("/x"), "scope", false},
		{"permit in the context", "\npermit(principal, action in Action::\"read\", resource in Context::\"shop\");", nil, get("/x"), "mine.cedar:2", true},
		{"permit in another context", `permit(principal, action, resource in Context::"shop/prod");`, nil, get("/x"), "scope", false},
		{"forbid wins", `forbid(principal, action, resource == Credential::"github-pat") when { context.method == "GET" };`, []string{"github-pat"}, get("/x"), "mine.cedar:1", false},
		{"forbid of something else", `forbid(principal, action, resource == Credential::"github-pat") when { context.method == "DELETE" };`, []string{"github-pat"}, get("/x"), "flag --allow", true},
		{"forbid a path", `forbid(principal, action, resource) when { context.path like "/admin/*" };`, []string{"github-pat"}, get("/admin/x"), "mine.cedar:1", false},
		{"forbid a path, escaped", `forbid(principal, action, resource) when { context.path like "/admin/*" };`, []string{"github-pat"}, get("/%61dmin/x"), "mine.cedar:1", false},
		{"forbid a path, with dots", `forbid(principal, action, resource) when { context.path like "/admin/*" };`, []string{"github-pat"}, get("/a/%2e%2e/admin/x"), "mine.cedar:1", false},
		{"forbid a path, doubled slash", `forbid(principal, action, resource) when { context.path like "/admin/*" };`, []string{"github-pat"}, get("//admin/x"), "mine.cedar:1", false},
		{"forbid a path, backslash", `forbid(principal, action, resource) when { context.path like "/admin/*" };`, []string{"github-pat"}, get("/\\admin/x"), "mine.cedar:1", false},
		{"a path with a space is one", `permit(principal, action, resource is Credential) when { context.path == "/a b" };`, nil, func() guard.Use { u := get("/x"); u.Path = "/a%20b"; return u }(), "mine.cedar:1", true},
		{"permit does not leave its path", `permit(principal, action, resource is Credential) when { context.path like "/ok/*" };`, nil, get("/ok/../secret"), "mine.cedar:1", false},
		{"forbid a glob of what has two readings", `forbid(principal, action, resource) when { context.matches.contains("prod/**") };`, []string{"github-pat"}, use("repo:push", "x/../prod/a"), "mine.cedar:1", false},
		{"forbid a glob", `forbid(principal, action, resource) when { context.matches.contains("prod/**") };`, []string{"github-pat"}, use("repo:push", "prod/a"), "mine.cedar:1", false},
		{"any of globs", `permit(principal, action, resource is Credential) when { context.matches.containsAny(["x/*", "acme/*"]) };`, nil, use("repo:push", "acme/a"), "mine.cedar:1", true},
		{"forbid by host, in capitals", `forbid(principal, action, resource) when { context.host == "github.com" };`, []string{"github-pat"}, useOf(pat, "http:read", "/x", "GitHub.COM.", 443), "mine.cedar:1", false},
		{"hours", `forbid(principal, action, resource) when { context.hour >= 8 && context.hour < 18 };`, []string{"github-pat"}, get("/x"), "mine.cedar:1", false},
		{"hours, without a time", `forbid(principal, action, resource) when { context.hour < 8 };`, []string{"github-pat"}, func() guard.Use { u := get("/x"); u.At = time.Time{}; return u }(), "mine.cedar:1", false},
		{"the program", `forbid(principal, action, resource) when { principal.exe like "*/curl" };`, []string{"github-pat"}, func() guard.Use { u := get("/x"); u.Exe = "/usr/bin/curl"; return u }(), "mine.cedar:1", false},
		{"the program's hash", `permit(principal, action, resource is Credential) when { principal.exe_sha256 == "h7" };`, nil, func() guard.Use { u := get("/x"); u.PID = 7; return u }(), "mine.cedar:1", true},
		{"a label", `forbid(principal, action, resource is Credential) when { resource.labels.contains("env:dev") };`, []string{"github-pat"}, get("/x"), "mine.cedar:1", false},
		{"an address", `forbid(principal, action, resource) when { context has address && context.address.isLoopback() };`, []string{"local-db"}, useOf(localDB, "db:read", "", "127.0.0.1", 5432), "mine.cedar:1", false},
		{"a statement", `forbid(principal, action, resource) when { context.statement == "write" };`, []string{"local-db"}, useOf(localDB, "db:write", "", "127.0.0.1", 5432), "mine.cedar:1", false},
		{"another credential of that name", `permit(principal, action, resource == Credential::"github-pat");`, nil, useOf(guard.Credential{Name: "github-pat", Context: "shop/prod", Hosts: pat.Hosts}, "http:read", "", "github.com", 443), "credential context", false},
		{"not beyond its hosts", `permit(principal, action, resource);`, nil, useOf(pat, "http:read", "/x", "evil.example", 443), "credential hosts", false},
		{"not beyond its scopes", `permit(principal, action, resource);`, nil, useOf(db, "db:write", "", "db.example.com", 5432), "credential scope", false},
		{"not beyond its expiry", `permit(principal, action, resource);`, nil, useOf(old, "http:read", "", "old.example", 443), "credential expired", false},
		{"nothing is revealed", `permit(principal, action, resource);`, []string{"github-pat"}, use("reveal", ""), "action", false},
	} {
		o := Options{Allow: grants(t, c.allow...), Policies: []*File{cedarFile(t, c.text)}, Zone: time.UTC, Hash: func(pid int, _ string) string { return fmt.Sprint("h", pid) }}
		d := newPolicy(t, o).Use(c.use)
		if d.Rule != c.rule || d.Allowed() != c.ok {
			t.Errorf("%s: %v by %q (%s), want %q", c.name, d.Action, d.Rule, d.Reason, c.rule)
		}
	}
	// --deny wins over the user's own permit, and a guard.toml narrows it.
	f := []*File{cedarFile(t, `permit(principal, action, resource);`)}
	if d := newPolicy(t, Options{Policies: f, Deny: []string{"github-pat"}}).Use(get("/x")); d.Rule != "flag --deny" {
		t.Errorf("%+v", d)
	}
	if d := newPolicy(t, Options{Policies: f, Repo: repo(t, "use=[]")}).Use(get("/x")); d.Rule != "guard.toml:1" {
		t.Errorf("%+v", d)
	}
}

// A policy that cannot be decided is no policy that is passed over.
func TestErrorsDeny(t *testing.T) {
	for _, text := range []string{
		`forbid(principal, action, resource) when { context.address.isLoopback() };`, // not there: the host is a name
		`forbid(principal, action, resource) when { context.port + 9223372036854775807 > 0 };`,
		`permit(principal, action, resource) when { context.port + 9223372036854775807 > 0 };`,
		`forbid(principal, action, resource) when { resource.expires < context.time };`,
	} {
		f := &File{Name: "mine.cedar"}
		list, err := parseUnchecked(text)
		if err != nil {
			t.Fatal(err)
		}
		for _, p := range list {
			var r *rule
			f.rules, r = f.rules.add("mine.cedar:1", "mine.cedar:1", rankUser, p)
			r.user = true
		}
		p := newPolicy(t, Options{Allow: grants(t, "github-pat"), Policies: []*File{f}, Egress: "web"})
		if d := p.Use(useOf(pat, "http:read", "/x", "github.com", 443)); d.Allowed() || d.Rule != "mine.cedar:1" || !strings.Contains(d.Reason, "mine.cedar:1") {
			t.Errorf("%s: %+v", text, d)
		}
	}
}

func TestCedarProblems(t *testing.T) {
	for _, c := range []struct{ text, want string }{
		{"\npermit(principal, action == Action::\"fly\", resource);", "mine.cedar:2: unrecognized action"},
		{`permit(principal, action, resource is Planet);`, "unrecognized entity type"},
		{`permit(principal, action, resource) when { context.colour == "red" };`, "attribute `colour`"},
		{`permit(principal, action, resource) when { context.port == "443" };`, "not compatible"},
		{`permit(principal, action == Action::"connect", resource is Credential);`, "unable to find an applicable action"},
		{`forbid(principal, action, resource) when { context.address.isLoopback() };`, "optional attribute `address`"},
		{`forbid(principal, action, resource is Credential) when { resource.expires < context.time };`, "optional attribute `expires`"},
		{`forbid(principal, action, resource) when { resource.kind == "x" };`, "write: resource is Credential"},
		{"\n\npermit(principal, action, C4n4ry);", "mine.cedar:3: not Cedar"},
		{`include "other.cedar"`, "not Cedar"},
		{`permit(principal, action, resource) when { ` + strings.Repeat("(", 20000) + "true" + strings.Repeat(")", 20000) + ` };`, "nested deeper"},
		{`permit(principal, action, resource) when { ` + strings.Repeat("!", 20000) + `true };`, "in a row"},
		{`permit(principal, action, resource) when { ` + strings.Repeat("true&&", 20000) + `true };`, "operators in one policy"},
		{`permit(principal, action, resource) when { ` + strings.Repeat("if true then true else ", 5000) + `true };`, "operators in one policy"},
		{strings.Repeat("permit(principal, action, resource);\n", maxCedar+1), "more than 1000"},
		{"//" + strings.Repeat("x", maxCedarFile), "larger than"},
	} {
		f, problems := ParsePolicies("mine.cedar", []byte(c.text))
		if len(problems) == 0 || !strings.Contains(problems[0].String(), c.want) || strings.Contains(problems[0].String(), "C4n4ry") {
			t.Errorf("%.80q: %.300v, want %q", c.text, problems, c.want)
		}
		name := filepath.Join(t.TempDir(), "mine.cedar")
		if err := os.WriteFile(name, []byte(c.text), 0o600); err != nil {
			t.Fatal(err)
		}
		if f, err := LoadPolicies(name); f != nil || err == nil {
			t.Errorf("%.80q was loaded", c.text)
		}
		_ = f
	}
	if _, err := LoadPolicies(t.TempDir()); err == nil {
		t.Error("a folder was read")
	}
}

func TestWarnings(t *testing.T) {
	for _, c := range []struct{ text, want string }{
		{`permit(principal, action, resource == Credential::"nosuch");`, `there is no credential "nosuch"`},
		{`permit(principal, action, resource is Credential) when { resource.name == "nosuch" };`, `there is no credential "nosuch"`},
		{`permit(principal, action, resource in Context::"elsewhere");`, `no credential is in context "elsewhere"`},
		{`permit(principal, action, resource is Credential) when { principal.context == "elsewhere" };`, `no credential is in context`},
		{`permit(principal, action, resource is Credential) when { resource.kind == "npm" };`, `no credential is of kind "npm"`},
		{`forbid(principal, action in Action::"use", resource == Credential::"github-pat") when { context.host == "gitlab.com" };`, `no credential may go to "gitlab.com"`},
		{`forbid(principal, action in Action::"read", resource) when { context.host == "GitHub.com" };`, "in lower case"},
		{`forbid(principal, action in Action::"read", resource) when { context.host == "gıthub.com" };`, "ASCII"},
		{`forbid(principal, action, resource) when { context.host == "github.com:443" };`, "without port"},
		{`forbid(principal, action, resource) when { context.host == "github.com" && context.host == "example.com" };`, "two values"},
		{`forbid(principal, action, resource) when { context.host == "github.com" } when { context.host like "*.example.com" };`, "like another"},
		{`forbid(principal, action, resource) when { context.port > 500 && context.port < 400 };`, "exclude each other"},
		{`forbid(principal, action, resource) when { 500 > context.port && context.port == 500 };`, "exclude each other"},
		{`forbid(principal, action, resource) when { context.hour > 23 };`, "exclude each other"},
		{`forbid(principal, action, resource) when { context.time > datetime("2026-02-01") && context.time < datetime("2026-01-01") };`, "exclude each other"},
		{`forbid(principal, action, resource) when { context.path == "/a/../b" };`, "decoded"},
		{`forbid(principal, action, resource) when { context.method == "get" };`, "capitals"},
		{`forbid(principal, action, resource) when { context.resource == "/acme/app" };`, "no slash at its ends"},
		{`forbid(principal, action, resource) when { context.matches.contains("/acme/**") };`, "not a glob"},
		{`forbid(principal, action, resource) when { context.day == "monday" };`, "one of"},
		{"permit(principal, action == Action::\"repo:push\", resource is Credential);\nforbid(principal, action in Action::\"write\", resource);", "line 2 forbids all of it"},
		{`forbid(principal, action, resource) when { false };`, "false"},
		// and what can match
		{`forbid(principal, action == Action::"connect", resource) when { context.host == "gitlab.com" };`, ""},
		{`forbid(principal, action in Action::"read", resource) when { context.host == "api.github.com" };`, ""},
		{`permit(principal, action, resource == Credential::"github-pat") when { context.port >= 443 && context.port <= 443 };`, ""},
		{"permit(principal, action, resource is Credential);\nforbid(principal, action in Action::\"write\", resource);", ""},
		{"permit(principal, action == Action::\"repo:push\", resource is Credential);\nforbid(principal, action in Action::\"write\", resource) when { context.port == 1 };", ""},
	} {
		f, problems := ParsePolicies("mine.cedar", []byte(c.text))
		if len(problems) > 0 {
			if c.want == "" || !strings.Contains(c.text, "false") { // the validator sees that one itself
				t.Errorf("%s: %v", c.text, problems)
			}
			continue
		}
		ws := f.Warnings(creds)
		if c.want == "" && len(ws) > 0 || c.want != "" && (len(ws) == 0 || !strings.Contains(ws[0].String(), c.want)) {
			t.Errorf("%s: %v, want %q", c.text, ws, c.want)
		}
	}
}

// What a user or a project writes is a value to Cedar, and never a part of a policy.
func TestGrantsAreValues(t *testing.T) {
	evil := `x"); permit(principal, action, resource) when { "" == "`
	c := guard.Credential{Name: evil, Context: "shop/dev", Hosts: []string{"github.com"}, Scopes: []string{"http:read/a\"b/*"}}
	other := pat
	p, err := New(Options{Session: session, Allow: []Grant{{Name: evil, Scope: Scope{Verb: "http:read", Glob: `a"b/*`}}}, Deny: []string{evil + "2"},
		Repo: (&Repo{file: evil, deny: map[string]int{evil + "3": 1}}).And(nil)},
		[]guard.Credential{c, {Name: evil + "2", Context: "shop/dev"}, other})
	if err != nil {
		t.Fatal(err)
	}
	if d := p.Use(useOf(other, "http:read", "/x", "github.com", 443)); d.Allowed() {
		t.Errorf("%+v", d)
	}
	if d := p.Use(useOf(c, "http:read", `a"b/c`, "github.com", 443)); !d.Allowed() {
		t.Errorf("%+v", d)
	}
	f, problems := ParsePolicies("printed", []byte(p.Cedar()))
	if len(problems) > 0 {
		t.Fatal(problems)
	}
	for _, r := range f.rules {
		if x := (*xast.Policy)(r.policy.AST()); r.permits() {
			if e, ok := x.Resource.(xast.ScopeTypeEq); ok && e.Entity.ID != types.String(evil) {
				t.Errorf("a policy that nobody wrote: %s", r.policy.MarshalCedar())
			}
		}
	}
}

func TestPresets(t *testing.T) {
	if len(Presets()) != 4 {
		t.Fatal(Presets())
	}
	gh := guard.Credential{Name: "gh", Kind: "github-pat", Context: "shop/dev", Hosts: []string{"github.com"}}
	pg := guard.Credential{Name: "pg", Kind: "postgres", Context: "shop/dev", Hosts: []string{"db.example.com:5432"}}
	push, query, write, mint := useOf(gh, "repo:push", "acme/a", "github.com", 443), useOf(pg, "db:read", "shop", "db.example.com", 5432), useOf(pg, "db:write", "shop", "db.example.com", 5432), useOf(gh, "token:mint", "/user/keys", "github.com", 443)
	for _, name := range Presets() {
		f, err := Preset(name)
		if err != nil {
			t.Fatal(err)
		}
		if !strings.HasPrefix(f.Text, "// "+name+": ") {
			t.Errorf("%s does not say what it is", name)
		}
		p, err := New(Options{Session: session, Policies: []*File{f}, Zone: time.UTC, Allow: grants(t, "pg", "gh:token:mint")}, []guard.Credential{gh, pg})
		if err != nil {
			t.Fatal(err)
		}
		got := fmt.Sprint(p.Use(push).Allowed(), p.Use(query).Allowed(), p.Use(write).Allowed(), p.Use(mint).Allowed())
		want := map[string]string{"frontend": "true false false true", "migration": "false true true false", "logs": "false true false false", "release": "true false false false"}[name]
		if got != want {
			t.Errorf("%s: push, query, write, mint: %s, want %s", name, got, want)
		}
	}
	night := push
	night.At = now.Add(9 * time.Hour)
	f, _ := Preset("release")
	p, _ := New(Options{Session: session, Policies: []*File{f}, Zone: time.UTC}, []guard.Credential{gh})
	if d := p.Use(night); d.Allowed() || !strings.HasPrefix(d.Rule, "release.cedar:") {
		t.Errorf("%+v", d)
	}
	if _, err := Preset("../frontend"); err == nil {
		t.Error("a path is no preset")
	}
}

func TestLimits(t *testing.T) {
	start := time.Date(2026, 2, 26, 9, 30, 0, 0, time.UTC)
	s := session
	s.Started = start
	at := func(grant string, when time.Time) guard.Decision {
		p, err := New(Options{Session: s, Allow: grants(t, grant), Zone: time.UTC}, creds)
		if err != nil {
			t.Fatalf("%s: %v", grant, err)
		}
		u := useOf(pat, "repo:push", "acme/app", "github.com", 443)
		u.Session, u.At = s, when
		return p.Use(u)
	}
	for _, c := range []struct {
		grant string
		after time.Duration
		rule  string
	}{
		{"github-pat:repo:push,for=2h", 2*time.Hour - 1, "flag --allow"},
		{"github-pat:repo:push,for=2h", 2 * time.Hour, "grant expired"},
		{"github-pat,until=18:00", 8 * time.Hour, "flag --allow"},
		{"github-pat,until=18:00", 8*time.Hour + 30*time.Minute, "grant expired"},
		{"github-pat,until=09:00", 23 * time.Hour, "flag --allow"}, // tomorrow's
		{"github-pat,until=09:00", 23*time.Hour + 30*time.Minute, "grant expired"},
		{"github-pat,until=2026-02-26T12:00", 3 * time.Hour, "grant expired"},
		{"github-pat,until=2026-02-27", 14 * time.Hour, "flag --allow"},
		{"github-pat,until=2026-02-26T10:00:00Z", time.Hour, "grant expired"},
		{"github-pat,between=09:00-18:00", 0, "flag --allow"},
		{"github-pat,between=09:00-18:00", 9 * time.Hour, "time window"},
		{"github-pat,between=22:00-06:00", 13 * time.Hour, "flag --allow"},
		{"github-pat,between=22:00-06:00", 0, "time window"},
		{"github-pat,for=2h,until=10:00", time.Hour, "grant expired"},
	} {
		if d := at(c.grant, start.Add(c.after)); d.Rule != c.rule {
			t.Errorf("%s after %s: %q (%s), want %q", c.grant, c.after, d.Rule, d.Reason, c.rule)
		}
	}
	if d := at("github-pat,for=2h", time.Time{}); d.Allowed() {
		t.Errorf("without a time: %+v", d)
	}
	if _, err := New(Options{Session: session, Allow: grants(t, "github-pat,for=2h")}, creds); err == nil {
		t.Error("bound to a session of which nobody knows when it began")
	}
	for _, bad := range []string{"x,count=0", "x,count=-1", "x,count=a", "x,bytes=", "x,bytes=1T", "x,bytes=9999999999G", "x,for=0s", "x,for=-1h", "x,until=25:00", "x,until=soon", "x,between=9-18", "x,between=09:00-09:00",
		"x,count=1,count=2", "x,what=1", "x:read,count", "x:read/a,b,count=x", ",count=1", "x,read"} {
		if g, err := ParseGrant(bad); err == nil {
			t.Errorf("%q gave %+v", bad, g)
		}
	}
	for _, s := range []string{"x,count=3", "x:repo:push/acme/*,count=100,bytes=10240,for=2h0m0s,until=18:00,between=22:00-06:00", "x:http:read/a,b/**,count=1"} {
		if g := grants(t, s)[0]; g.String() != s {
			t.Errorf("%s prints as %s", s, g)
		}
	}
}

func TestBudgets(t *testing.T) {
	b := NewBudget(map[string]Spent{"github-pat:repo:push,count=5": {Count: 2}})
	o := Options{Session: session, Allow: grants(t, "github-pat:repo:push,count=5", "github-pat:http:read"), Budget: b}
	p, err := New(o, creds)
	if err != nil {
		t.Fatal(err)
	}
	push := useOf(pat, "repo:push", "acme/app", "github.com", 443)
	for range 10 {
		if d := p.Use(push); !d.Allowed() {
			t.Fatalf("asking is not using: %+v", d)
		}
	}
	// Many at once get no more than there are, by whichever policy of the session.
	again, err := New(o, creds)
	if err != nil {
		t.Fatal(err)
	}
	var wg sync.WaitGroup
	var mu sync.Mutex
	won := 0
	for i := range 40 {
		wg.Go(func() {
			d := []*Policy{p, again}[i%2].Take(push)
			mu.Lock()
			defer mu.Unlock()
			if d.Allowed() {
				won++
			} else if d.Rule != "budget" {
				t.Errorf("%+v", d)
			}
		})
	}
	wg.Wait()
	if won != 3 {
		t.Errorf("%d uses of 3 that were left", won)
	}
	if d := p.Use(push); !d.Allowed() {
		t.Errorf("a connection that was allowed does not go on: %+v", d)
	}
	if d := p.Take(useOf(pat, "http:read", "/x", "github.com", 443)); !d.Allowed() {
		t.Errorf("another grant: %+v", d)
	}
	if got := b.Spent()["github-pat:repo:push,count=5"].Count; got != 5 {
		t.Errorf("%d were counted", got)
	}
	// Bytes, which a connection is held to as well.
	o = Options{Session: session, Allow: grants(t, "github-pat:repo:push,bytes=1K")}
	if p, err = New(o, creds); err != nil {
		t.Fatal(err)
	}
	if left, ok := p.Sent("api.github.com", 443, 1000); !ok || left != 24 {
		t.Errorf("%d left, %v", left, ok)
	}
	if !p.Use(push).Allowed() {
		t.Error("refused before it is used up")
	}
	if _, ok := p.Sent("github.com", 443, 25); ok {
		t.Error("more than there was")
	}
	if d := p.Use(push); d.Rule != "budget" {
		t.Errorf("%+v", d)
	}
	if _, ok := p.Sent("example.com", 443, 1<<40); !ok {
		t.Error("a host without a budget")
	}
	// The user's own policies count as well.
	p, err = New(Options{Session: session, Allow: grants(t, "github-pat"), Policies: []*File{cedarFile(t, `forbid(principal, action, resource) when { context.count >= 2 };`)}}, creds)
	if err != nil {
		t.Fatal(err)
	}
	for i := range 4 {
		if d := p.Take(push); d.Allowed() != (i < 2) {
			t.Errorf("use %d: %+v", i, d)
		}
	}
}

func TestAsk(t *testing.T) {
	p := newPolicy(t, Options{Allow: grants(t, "github-pat:http:read", "github-pat:repo:push,until=2026-02-26T10:00:00Z"), Deny: []string{"dev-db"}, Repo: repo(t, "deny=['local-db']")})
	for _, c := range []struct {
		use        guard.Use
		kind, want string
	}{
		{useOf(pat, "http:write", "/repos/acme/app", "GitHub.com", 443), "use", "github-pat:http:write/repos/acme/app"},
		{useOf(pat, "repo:push", "acme/app.git", "github.com", 443), "renew", "github-pat:repo:push/acme/app"},
		{useOf(pat, "http:write", "/a*b/[x", "github.com", 443), "use", `github-pat:http:write/a\*b/\[x`},
		{useOf(pat, "http:read", "/x", "github.com", 443), "", ""},
		{useOf(pat, "http:write", "/x", "evil.example", 443), "", ""}, // a host is not asked about by way of a scope
		{useOf(db, "db:read", "", "db.example.com", 5432), "", ""},
		{useOf(localDB, "db:read", "", "127.0.0.1", 5432), "", ""},
		{useOf(old, "http:read", "", "old.example", 443), "use", "old:http:read"},
	} {
		_, a := p.Decide(c.use)
		switch {
		case a == nil && c.kind != "", a != nil && (a.Kind != c.kind || a.Grant.String() != c.want):
			t.Errorf("%s of %s: %+v, want %s %s", c.use.Action, c.use.Credential.Name, a, c.kind, c.want)
		case a != nil && c.use.Credential.Name == "github-pat":
			if g, err := ParseGrant(a.Grant.String()); err != nil || !g.Scope.Covers(c.use.Action, c.use.Resource) {
				t.Errorf("%s would not allow it: %v", a.Grant, err)
			}
		}
	}
}

func TestCases(t *testing.T) {
	dir := t.TempDir()
	write := func(name, text string) {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := RunCases(dir); err == nil {
		t.Error("no cases")
	}
	write("guard.toml", "deny=['other']\n")
	write("mine.cedar", `forbid(principal, action == Action::"connect", resource) when { context.host like "*.evil.example" };`)
	head := "context='shop/dev'\nallow=['gh:repo:push/acme/*']\npolicies=['mine.cedar']\nrepo='guard.toml'\negress='web'\n[[credential]]\nname='gh'\nhosts=['github.com']\n"
	write("a.toml", head+"[[case]]\nname='own'\ncredential='gh'\naction='repo:push'\nhost='github.com'\nresource='acme/app'\nexpect='allow'\nrule='flag --allow'\n"+
		"[[case]]\nname='other'\ncredential='gh'\naction='repo:push'\nhost='github.com'\nresource='evil/app'\nexpect='deny'\n"+
		"[[case]]\naction='connect'\nhost='x.evil.example'\nexpect='deny'\nrule='mine.cedar:1'\n[[case]]\naction='connect'\nhost='good.example'\nexpect='allow'\n"+
		"[[case]]\nname='wrong'\ncredential='gh'\naction='repo:push'\nhost='github.com'\nresource='evil/app'\nexpect='allow'\n")
	rs, err := RunCases(dir)
	if err != nil || len(rs) != 5 {
		t.Fatal(rs, err)
	}
	for i, r := range rs {
		if r.OK != (i < 4) {
			t.Errorf("%d: %+v", i, r)
		}
	}
	for _, bad := range []string{"[[case]]\nexpect='maybe'", "[[case]]\ncredential='x'\nexpect='deny'", "[[case]]\naction='fly'\nexpect='deny'", "policies=['../x.cedar']\n[[case]]\n", "alow=[]\n[[case]]\n", "[[case]]\nx="} {
		write("b.toml", bad)
		if _, err := RunCases(dir); err == nil {
			t.Errorf("%q was run", bad)
		}
	}
}

func parseUnchecked(text string) (cedar.PolicyList, error) {
	return cedar.NewPolicyListFromBytes("mine.cedar", []byte(text))
}

// What is left out of a set beforehand would have said nothing.
func TestUndecidedLeavesNothingOut(t *testing.T) {
	f := cedarFile(t, `
forbid(principal, action, resource is Credential) when { resource.kind == "postgres" && context.statement == "write" };
forbid(principal, action, resource) when { context has address };
permit(principal, action, resource is Credential) when { principal.exe == "/bin/x" };
permit(principal, action in Action::"read", resource is Credential) unless { context.host == "github.com" || resource.kind == "postgres" };
permit(principal in Context::"shop/prod", action, resource);
`)
	p := newPolicy(t, Options{Allow: grants(t, "github-pat:repo:push/acme/*", "dev-db:db:read", "old", "local-db:write"), Deny: []string{"broken"}, Policies: []*File{f}, Repo: repo(t, "deny=['old']\n[[use]]\ncredential='github-pat'\n[[use]]\ncredential='local-db'\nscope='db:read'")})
	n, left := 0, 0
	for _, c := range creds {
		cc := compileCredential(c)
		for action := range actions {
			var whole []*set
			for i, e := range p.engines {
				own := cc.own
				if i > 0 {
					own = nil
				}
				whole = append(whole, newSet(own, e.applicable(action, cc.entity.UID)))
			}
			share(whole)
			sets := p.setsOf(cc, action)
			for _, host := range []string{"github.com", "db.example.com", "127.0.0.1", ""} {
				for _, res := range []string{"", "acme/app", "x/../y"} {
					for _, exe := range []string{"", "/bin/x"} {
						u := useOf(c, action, res, host, 443)
						u.Exe = exe
						for i := range sets {
							q := newRequest(u, cc.entity)
							a, b := p.ask(q, sets[i], p.asked(q, sets[0])), p.ask(q, whole[i], p.asked(q, whole[0]))
							n++
							left += len(whole[i].rules) - len(sets[i].rules)
							if a.allowed != b.allowed || len(a.permits) != len(b.permits) || len(a.forbids) != len(b.forbids) {
								t.Fatalf("%s of %s at %q on %q: %+v, whole %+v", action, c.Name, host, res, a, b)
							}
						}
					}
				}
			}
		}
	}
	if left == 0 {
		t.Error("nothing was left out")
	}
	t.Logf("%d questions, %d policies left out", n, left)
}

func TestWith(t *testing.T) {
	p := newPolicy(t, Options{Allow: grants(t, "github-pat:http:read,count=1"), Deny: []string{"dev-db"}, Repo: repo(t, "deny=['local-db']"), Policies: []*File{cedarFile(t, `forbid(principal, action, resource) when { context.method == "DELETE" };`)}})
	read, push := useOf(pat, "http:read", "/x", "github.com", 443), useOf(pat, "repo:push", "acme/app", "github.com", 443)
	if !p.Take(read).Allowed() || p.Use(push).Allowed() {
		t.Fatal("before")
	}
	q, err := p.With(grants(t, "github-pat:repo:push/acme/app", "dev-db", "local-db")...)
	if err != nil {
		t.Fatal(err)
	}
	if d := q.Use(push); !d.Allowed() {
		t.Errorf("%+v", d)
	}
	if p.Use(push).Allowed() {
		t.Error("the policy that it was made of changed")
	}
	if d := q.Take(read); d.Rule != "budget" {
		t.Errorf("what was used does not count on: %+v", d)
	}
	deleting := push
	deleting.Method = "DELETE"
	for want, u := range map[string]guard.Use{
		"flag --deny": useOf(db, "db:read", "", "db.example.com", 5432), "guard.toml:1": useOf(localDB, "db:read", "", "127.0.0.1", 5432),
		"mine.cedar:1": deleting, "credential hosts": useOf(pat, "repo:push", "acme/app", "evil.example", 443), "scope": useOf(pat, "repo:push", "acme/other", "github.com", 443),
	} {
		if d := q.Use(u); d.Rule != want {
			t.Errorf("%+v, want %s", d, want)
		}
	}
	if _, err := q.With(Grant{Name: "nosuch", Scope: Scope{Verb: "use"}}); err == nil {
		t.Error("an unknown credential was granted")
	}
	if _, err := (*Policy)(nil).With(); err == nil {
		t.Error("nothing was widened")
	}
}
