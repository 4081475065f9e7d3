package policy

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"guard"
)

var (
	session = guard.Session{ID: "s1", Context: "shop/dev"}
	now     = time.Date(2026, 2, 26, 14, 0, 0, 0, time.UTC)
	pat     = guard.Credential{Name: "github-pat", Context: "shop/dev", Hosts: []string{"github.com", "*.github.com:443"}}
	db      = guard.Credential{Name: "dev-db", Context: "shop/dev", Kind: "postgres", Hosts: []string{"db.example.com"}, Scopes: []string{"db:read"}}
	localDB = guard.Credential{Name: "local-db", Context: "shop/dev", Kind: "postgres", Hosts: []string{"127.0.0.1:5432", "*.corp.internal"}}
	old     = guard.Credential{Name: "old", Context: "shop/dev", Hosts: []string{"old.example"}, Expires: now}
	nohost  = guard.Credential{Name: "nohost", Context: "shop/dev"}
	broken  = guard.Credential{Name: "broken", Context: "shop/dev", Hosts: []string{"broken.example"}, Scopes: []string{"nonsense"}}
	prod    = guard.Credential{Name: "prod-pat", Context: "shop/prod", Hosts: []string{"github.com"}}
	creds   = []guard.Credential{pat, db, localDB, old, nohost, broken, prod}
)

func grants(t testing.TB, ss ...string) (gs []Grant) {
	t.Helper()
	for _, s := range ss {
		g, err := ParseGrant(s)
		if err != nil {
			t.Fatalf("%s: %v", s, err)
		}
		gs = append(gs, g)
	}
	return gs
}

func repo(t testing.TB, text string) *Repo {
	t.Helper()
	f := filepath.Join(t.TempDir(), "guard.toml")
	if err := os.WriteFile(f, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	r, err := LoadRepo(f)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

func newPolicy(t testing.TB, o Options) *Policy {
	t.Helper()
	o.Session = session
	p, err := New(o, creds)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

func useOf(c guard.Credential, action, resource, host string, port int) guard.Use {
	return guard.Use{Session: session, Credential: c, Channel: guard.ChannelHTTP, Action: action, Resource: resource, Host: host, Port: port, At: now}
}

func TestUse(t *testing.T) {
	all := []string{"github-pat", "dev-db", "local-db", "old", "nohost", "broken"}
	push := []string{"github-pat:repo:push/acme/*"}
	for _, c := range []struct {
		name  string
		allow []string
		deny  []string
		repo  string
		use   guard.Use
		rule  string
	}{
		{"bare grant", all, nil, "", useOf(pat, "repo:push", "acme/app", "github.com", 443), "flag --allow"},
		{"case and dot", all, nil, "", useOf(pat, "http:read", "/x", "API.GitHub.com.", 443), "flag --allow"},
		{"no grant", nil, nil, "", useOf(pat, "repo:push", "acme/app", "github.com", 443), "default-deny"},
		{"grant of another", []string{"dev-db"}, nil, "", useOf(pat, "repo:push", "acme/app", "github.com", 443), "default-deny"},
		{"deny wins", all, []string{"github-pat"}, "", useOf(pat, "repo:push", "acme/app", "github.com", 443), "flag --deny"},
		{"wild port", all, nil, "", useOf(pat, "http:read", "/x", "api.github.com", 8443), "credential hosts"},
		{"suffix trick", all, nil, "", useOf(pat, "http:read", "/x", "evilgithub.com", 443), "credential hosts"},
		{"prefix trick", all, nil, "", useOf(pat, "http:read", "/x", "github.com.evil.example", 443), "credential hosts"},
		{"look-alike letter", all, nil, "", useOf(pat, "http:read", "/x", "gıthub.com", 443), "credential hosts"},
		{"NUL in host", all, nil, "", useOf(pat, "http:read", "/x", "github.com\x00.evil", 443), "credential hosts"},
		{"no host", all, nil, "", useOf(pat, "http:read", "/x", "", 443), "credential hosts"},
		{"no port", all, nil, "", useOf(pat, "http:read", "/x", "github.com", 0), "credential hosts"},
		{"credential without hosts", all, nil, "", useOf(nohost, "http:read", "/x", "github.com", 443), "credential hosts"},
		{"expired at that moment", all, nil, "", useOf(old, "http:read", "/x", "old.example", 443), "credential expired"},
		{"own scope", all, nil, "", useOf(db, "db:read", "", "db.example.com", 5432), "flag --allow"},
		{"beyond own scope", all, nil, "", useOf(db, "db:write", "", "db.example.com", 5432), "credential scope"},
		{"grant cannot widen", []string{"dev-db:write"}, nil, "", useOf(db, "db:write", "", "db.example.com", 5432), "credential scope"},
		{"unreadable own scope", all, nil, "", useOf(broken, "http:read", "", "broken.example", 443), "credential scope"},
		{"in glob", push, nil, "", useOf(pat, "repo:push", "acme/app.git", "github.com", 443), "flag --allow"},
		{"push reads too", push, nil, "", useOf(pat, "repo:read", "acme/app", "github.com", 443), "flag --allow"},
		{"other repository", push, nil, "", useOf(pat, "repo:push", "evil/app", "github.com", 443), "scope"},
		{"below the glob", push, nil, "", useOf(pat, "repo:push", "acme/app/x", "github.com", 443), "scope"},
		{"no resource", push, nil, "", useOf(pat, "repo:push", "", "github.com", 443), "scope"},
		{"dot segments", push, nil, "", useOf(pat, "repo:push", "acme/..", "github.com", 443), "scope"},
		{"encoded slash", push, nil, "", useOf(pat, "repo:push", "acme/a%2f..%2fb", "github.com", 443), "scope"},
		{"other verb", push, nil, "", useOf(pat, "http:read", "acme/app", "github.com", 443), "scope"},
		{"unknown action", all, nil, "", useOf(pat, "repo:delete", "acme/app", "github.com", 443), "action"},
		{"no action", all, nil, "", useOf(pat, "", "acme/app", "github.com", 443), "action"},
		{"exec needs its channel", all, nil, "", useOf(pat, "exec:run", "", "github.com", 443), "action"},
		{"another context", all, nil, "", useOf(prod, "http:read", "", "github.com", 443), "default-deny"},
		{"same name, another context", all, nil, "", useOf(guard.Credential{Name: "github-pat", Context: "shop/prod", Hosts: pat.Hosts}, "http:read", "", "github.com", 443), "credential context"},
		{"repo agrees", all, nil, "[[use]]\ncredential='github-pat'\nscope='repo:push'", useOf(pat, "repo:push", "acme/app", "github.com", 443), "flag --allow"},
		{"repo lists others", all, nil, "\n[[use]]\ncredential='dev-db'", useOf(pat, "repo:push", "acme/app", "github.com", 443), "guard.toml:2"},
		{"repo's scope", all, nil, "# x\n[[use]]\ncredential='github-pat'\nscope='repo:read'", useOf(pat, "repo:push", "acme/app", "github.com", 443), "guard.toml:2"},
		{"repo denies", all, nil, "deny=['github-pat']", useOf(pat, "repo:push", "acme/app", "github.com", 443), "guard.toml:1"},
		{"repo needs nothing", all, nil, "use=[]", useOf(pat, "repo:push", "acme/app", "github.com", 443), "guard.toml:1"},
		{"repo does not allow", nil, nil, "[[use]]\ncredential='github-pat'", useOf(pat, "repo:push", "acme/app", "github.com", 443), "default-deny"},
	} {
		o := Options{Allow: grants(t, c.allow...), Deny: c.deny}
		if c.repo != "" {
			o.Repo = repo(t, c.repo)
		}
		d := newPolicy(t, o).Use(c.use)
		if d.Rule != c.rule || d.Allowed() != (c.rule == "flag --allow") {
			t.Errorf("%s: %v by %q, want %q", c.name, d.Action, d.Rule, c.rule)
		}
		if d.Secret != c.use.Credential.ID() || d.Reason == "" {
			t.Errorf("%s: %+v", c.name, d)
		}
		if !d.Allowed() && (len(d.NextSteps) < 2 || !strings.Contains(d.NextSteps[len(d.NextSteps)-1], "not network")) {
			t.Errorf("%s: next steps %q", c.name, d.NextSteps)
		}
	}
}

// Taken field by field, what is zero or unknown denies.
func TestZeroDenies(t *testing.T) {
	p := newPolicy(t, Options{Allow: grants(t, "github-pat", "old"), Egress: "any"})
	good := useOf(pat, "http:read", "/x", "github.com", 443)
	if !p.Use(good).Allowed() {
		t.Fatal("the good use is refused")
	}
	for what, f := range map[string]func(*guard.Use){
		"all":         func(u *guard.Use) { *u = guard.Use{} },
		"session":     func(u *guard.Use) { u.Session = guard.Session{} },
		"session id":  func(u *guard.Use) { u.Session.ID = "other" },
		"credential":  func(u *guard.Use) { u.Credential = guard.Credential{} },
		"name":        func(u *guard.Use) { u.Credential.Name = "" },
		"context":     func(u *guard.Use) { u.Credential.Context = "" },
		"hosts":       func(u *guard.Use) { u.Credential.Hosts = nil },
		"action":      func(u *guard.Use) { u.Action = "" },
		"host":        func(u *guard.Use) { u.Host = "" },
		"port":        func(u *guard.Use) { u.Port = 0 },
		"big port":    func(u *guard.Use) { u.Port = 65536 },
		"expiry time": func(u *guard.Use) { u.Credential.Expires = now.Add(time.Hour); u.At = time.Time{} },
	} {
		u := good
		f(&u)
		if d := p.Use(u); d.Action != guard.Block || d.Rule == "" {
			t.Errorf("%s: %+v", what, d)
		}
	}
	for _, p := range []*Policy{nil, {}} {
		if p.Use(good).Allowed() || p.Egress("github.com", 443, "https").Allowed() || p.Leak(guard.Leak{}).Action != guard.Kill || p.Listed("github.com", 443) {
			t.Error("a zero policy allows")
		}
		p.Explain("x", "y")
	}
	for _, d := range []guard.Decision{p.Egress("", 443, "https"), p.Egress("a.example", 0, "https"), p.Egress("a.example", 443, ""), p.Egress("a.example", 443, "udp")} {
		if d.Allowed() || d.Rule != "egress" {
			t.Errorf("%+v", d)
		}
	}
	if d := p.Leak(guard.Leak{}); d.Action != guard.Block || d.Rule != "unknown channel" {
		t.Errorf("a zero leak: %+v", d)
	}
	if d := p.Leak(guard.Leak{Class: guard.Placeholder}); d.Action != guard.Block {
		t.Errorf("a placeholder on no channel: %+v", d)
	}
}

func TestNewRefuses(t *testing.T) {
	pass, kill := guard.Pass, guard.Kill
	for _, c := range []struct {
		o    Options
		want string
	}{
		{Options{Allow: []Grant{{Name: "githubpat", Scope: Scope{Verb: "use"}}}}, "github-pat, local-db, nohost"},
		{Options{Allow: []Grant{{Name: "prod-pat", Scope: Scope{Verb: "use"}}}}, "is in context shop/prod"},
		{Options{Allow: []Grant{{Name: "github-pat"}}}, "bad scope"},
		{Options{Allow: []Grant{{Name: "github-pat", Scope: Scope{Verb: "use", Glob: "["}}}}, "bad scope"},
		{Options{Deny: []string{"typo"}}, "--deny typo"},
		{Options{OnLeak: &pass}, "--on-leak"},
		{Options{Egress: "open"}, "--egress"},
		{Options{AllowHosts: []string{"exämple.com"}}, "--allow-host"},
		{Options{Models: []string{"a b"}}, "model host"},
		{Options{HostPorts: []int{0}}, "--host-port"},
		{Options{Repo: repo(t, "\ncontext='shop/prod'")}, "guard.toml:2"},
		{Options{Repo: repo(t, "context='sho'")}, "guard.toml:1"},
	} {
		c.o.Session = session
		if _, err := New(c.o, creds); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%+v: %v, want %q", c.o, err, c.want)
		}
	}
	if _, err := New(Options{}, nil); err == nil {
		t.Error("a session without context")
	}
	for _, ctx := range []string{"shop", "shop/dev"} {
		if _, err := New(Options{Session: session, OnLeak: &kill, Repo: repo(t, fmt.Sprintf("context=%q", ctx))}, creds); err != nil {
			t.Error(err)
		}
	}
}

func TestScopes(t *testing.T) {
	all := []string{"read", "write", "use", "http:read", "http:write", "repo:read", "repo:push", "db:read", "db:write", "db:query", "ssh:connect", "exec:run", "", "x"}
	for verb, want := range map[string]string{
		"use":        "read write use http:read http:write repo:read repo:push db:read db:write db:query ssh:connect exec:run",
		"read":       "read http:read repo:read db:read",
		"write":      "read write http:read http:write repo:read repo:push db:read db:write db:query",
		"repo:read":  "repo:read",
		"repo:push":  "repo:read repo:push",
		"http:read":  "http:read",
		"http:write": "http:write",
		"db:read":    "db:read",
		"db:write":   "db:read db:write db:query",
		"db:query":   "db:read db:query",
	} {
		s, err := ParseScope(verb)
		if err != nil {
			t.Fatal(err)
		}
		var got []string
		for _, a := range all {
			if s.Covers(a, "") {
				got = append(got, a)
			}
		}
		if strings.Join(got, " ") != want {
			t.Errorf("%s covers %v, want %s", verb, got, want)
		}
	}
	for _, bad := range []string{"", "admin", "READ", "read/", "read//", "read/a//b", "read/a**", "read/[", "repo", "use:x", " read"} {
		if s, err := ParseScope(bad); err == nil {
			t.Errorf("%q gave %+v", bad, s)
		}
	}
	for _, bad := range []string{"", ":read", "x:", "x:admin"} {
		if g, err := ParseGrant(bad); err == nil {
			t.Errorf("%q gave %+v", bad, g)
		}
	}
	for _, s := range []string{"x", "x:repo:push", "x:http:read/repos/**"} {
		if g := grants(t, s)[0]; g.String() != s {
			t.Errorf("%s prints as %s", s, g)
		}
	}
}

func TestGlob(t *testing.T) {
	for _, c := range []struct {
		glob, name string
		want       bool
	}{
		{"a", "a", true}, {"a", "b", false}, {"a", "a/b", false}, {"*", "a", true}, {"*", "a/b", false},
		{"a/*", "a/b", true}, {"a/*", "a", false}, {"a/**", "a", true}, {"a/**", "a/b/c", true}, {"a/**", "ab", false},
		{"**/z", "z", true}, {"**/z", "a/b/z", true}, {"**/z", "a/zz", false}, {"a/**/z", "a/z", true}, {"a/**/z", "a/b/c/z", true},
		{"a/**/m/**/z", "a/m/m/z", true}, {"a/**/m/**/z", "a/b/z", false}, {"**", "x/y", true}, {"a?/[bc]", "ax/c", true}, {"a?/[bc]", "ax/d", false},
	} {
		if got := matchGlob(c.glob, c.name); got != c.want {
			t.Errorf("%s on %s: %v", c.glob, c.name, got)
		}
	}
	if matchGlob(strings.Repeat("**/", 500)+"x", strings.Repeat("a/", 2000)+"b") {
		t.Error("matched")
	}
}

func TestExec(t *testing.T) {
	p := newPolicy(t, Options{Allow: grants(t, "github-pat", "local-db:db:read")})
	u := guard.Use{Session: session, Credential: pat, Channel: guard.ChannelExec, Action: "exec:run", At: now}
	if d := p.Use(u); !d.Allowed() {
		t.Errorf("%+v", d)
	}
	u.Credential = localDB
	if d := p.Use(u); d.Rule != "scope" {
		t.Errorf("a grant for reading a database runs commands: %+v", d)
	}
	u = useOf(pat, "http:read", "/x", "", 0)
	u.Channel = guard.ChannelExec
	if p.Use(u).Allowed() {
		t.Error("another action without a host")
	}
}

func TestExplain(t *testing.T) {
	p := newPolicy(t, Options{Allow: grants(t, "github-pat:repo:push/acme/*", "dev-db", "nohost", "old", "broken"), Deny: []string{"old"},
		Repo: repo(t, "deny=['broken']\n[[use]]\ncredential='github-pat'\nscope='repo:push/acme/app'\n[[use]]\ncredential='nohost'\n[[use]]\ncredential='dev-db'")})
	for _, c := range []struct{ name, action, want string }{
		{"github-pat", "repo:push", "allowed by --allow github-pat:repo:push/acme/*"},
		{"github-pat", "repo:push", "narrowed by guard.toml:2: repo:push/acme/app"},
		{"github-pat", "http:write", "refused by scope"},
		{"dev-db", "db:write", "refused by credential scope"},
		{"dev-db", "db:read", "its own scopes: db:read"},
		{"nohost", "use", "can be used nowhere"},
		{"old", "read", "refused by flag --deny"},
		{"broken", "read", "refused by guard.toml:1"},
		{"local-db", "db:read", "refused by default-deny"},
		{"local-db", "db:read", "guard run --allow local-db:db:read"},
		{"none", "read", "there is: broken, dev-db"},
		{"github-pat", "fly", "refused by action"},
	} {
		if got := p.Explain(c.name, c.action); !strings.Contains(got, c.want) {
			t.Errorf("%s %s: %q not in\n%s", c.name, c.action, c.want, got)
		}
	}
}
