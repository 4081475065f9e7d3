package policy

import (
	"strings"
	"testing"

	"guard"
)

func leakOf(c guard.Channel, class guard.Class) guard.Leak {
	return guard.Leak{Origin: guard.Origin{Channel: c, Host: "paste.example", Port: 443}, Class: class, Secret: guard.SecretID{Context: "shop/dev", Name: "github-pat", Version: 1}}
}

func TestLeak(t *testing.T) {
	var locals, nets []guard.Channel
	for c, p := range places {
		if p == network {
			nets = append(nets, c)
		} else {
			locals = append(locals, c)
		}
	}
	if len(locals) != 4 || len(nets) != 11 {
		t.Fatal("channels", locals, nets)
	}
	warn, block, kill, redact := guard.Warn, guard.Block, guard.Kill, guard.Redact
	for _, c := range []struct {
		onLeak     *guard.Action
		repo       string
		local, net guard.Action
		model      guard.Action
		rule       string
	}{
		{nil, "", guard.Redact, guard.Block, guard.Redact, "default"},
		{&kill, "", guard.Kill, guard.Kill, guard.Kill, "flag --on-leak"},
		{&block, "", guard.Block, guard.Block, guard.Block, "flag --on-leak"},
		{&redact, "", guard.Redact, guard.Redact, guard.Redact, "flag --on-leak"},
		{&warn, "", guard.Warn, guard.Warn, guard.Warn, "flag --on-leak"},
		{&warn, "\non_leak='redact'", guard.Redact, guard.Redact, guard.Redact, "guard.toml:2"},
		{&kill, "on_leak='warn'", guard.Kill, guard.Kill, guard.Kill, "flag --on-leak"},
		{nil, "on_leak='warn'", guard.Redact, guard.Block, guard.Redact, "default"},
		{nil, "on_leak='kill'", guard.Kill, guard.Kill, guard.Kill, "guard.toml:1"},
	} {
		o := Options{OnLeak: c.onLeak, Models: []string{"api.model.example"}}
		if c.repo != "" {
			o.Repo = repo(t, c.repo)
		}
		p := newPolicy(t, o)
		for _, class := range []guard.Class{guard.Live, guard.Retired, 9} {
			for _, ch := range locals {
				if d := p.Leak(leakOf(ch, class)); d.Action != c.local || !strings.HasPrefix(d.Rule, c.rule) {
					t.Errorf("%v %s: %+v", class, ch, d)
				}
			}
			for _, ch := range nets {
				l := leakOf(ch, class)
				l.Home = []string{"github-pat"} // a working value at home is still one that the agent should not have
				if d := p.Leak(l); d.Action != c.net || !strings.HasPrefix(d.Rule, c.rule) {
					t.Errorf("%v %s: %+v", class, ch, d)
				}
				l.Model = true
				if d := p.Leak(l); d.Action != c.model {
					t.Errorf("%v %s to a model: %+v", class, ch, d)
				}
				l.Model, l.Host = false, "API.model.example."
				if d := p.Leak(l); d.Action != c.model {
					t.Errorf("%v %s to a listed model: %+v", class, ch, d)
				}
			}
		}
		for _, class := range []guard.Class{guard.Placeholder, guard.Decoy} {
			for _, ch := range locals {
				if d := p.Leak(leakOf(ch, class)); d.Action != guard.Pass || d.Rule != "placeholder" {
					t.Errorf("%v %s: %+v", class, ch, d)
				}
			}
			for _, ch := range nets {
				l := leakOf(ch, class)
				rule := "placeholder at a foreign host"
				if class == guard.Decoy {
					rule = RuleDecoy
				}
				if d := p.Leak(l); d.Action != guard.Block || d.Rule != rule {
					t.Errorf("%v %s: %+v", class, ch, d)
				}
				l.Home = []string{"other"}
				if d := p.Leak(l); d.Action != guard.Block {
					t.Errorf("%v %s at another's home: %+v", class, ch, d)
				}
				l.Home = []string{"other", "github-pat"}
				if d := p.Leak(l); (d.Action == guard.Pass) != (class == guard.Placeholder) {
					t.Errorf("%v %s at home: %+v", class, ch, d)
				}
				l.Home, l.Model = nil, true
				if d := p.Leak(l); d.Action != guard.Pass {
					t.Errorf("%v %s to a model: %+v", class, ch, d)
				}
				l.Secret.Name, l.Model, l.Home = "", false, []string{""}
				if d := p.Leak(l); d.Action != guard.Block {
					t.Errorf("%v %s without a name: %+v", class, ch, d)
				}
			}
		}
	}
}

func TestRotates(t *testing.T) {
	for _, class := range []guard.Class{guard.Live, guard.Retired, guard.Placeholder, guard.Decoy} {
		for a := guard.Kill; a <= guard.Pass; a++ {
			for _, partial := range []bool{false, true} {
				worth := class == guard.Live || class == guard.Retired
				r, e := Rotates(guard.Leak{Class: class, Partial: partial}, guard.Decision{Action: a})
				if r != (class == guard.Live) || e != (worth && (partial || a == guard.Warn || a == guard.Pass)) {
					t.Errorf("%v %v partial %v: rotate %v, escaped %v", class, a, partial, r, e)
				}
			}
		}
	}
}

func TestEgress(t *testing.T) {
	allow := []string{"github-pat", "dev-db", "local-db"}
	hosts := []string{"git.example", "*.lists.example:99", "10.0.0.5:80", "intra.local"}
	for _, c := range []struct {
		egress string
		host   string
		port   int
		proto  string
		rule   string
		ok     bool
	}{
		{"web", "example.com", 443, "https", "flag --egress web", true},
		{"web", "example.com", 80, "http", "flag --egress web", true},
		{"web", "EXAMPLE.com.", 8443, "https", "flag --egress web", true},
		{"web", "example.com", 443, "tcp", "flag --egress web", false},
		{"web", "1.1.1.1", 443, "https", "flag --egress web", true},
		{"web", "git.example", 22, "tcp", "flag --allow-host", true},
		{"web", "a.lists.example", 99, "tcp", "flag --allow-host", true},
		{"web", "a.lists.example", 98, "tcp", "flag --egress web", false},
		{"web", "lists.example", 99, "tcp", "flag --egress web", false},
		{"web", "db.example.com", 5432, "tcp", "host of dev-db", true},
		{"web", "db.example.com", 5433, "tcp", "flag --egress web", false},
		{"web", "api.github.com", 443, "tcp", "host of github-pat", true},
		{"web", "old.example", 5432, "tcp", "flag --egress web", false},
		{"list", "example.com", 443, "https", "flag --egress list", false},
		{"list", "github.com", 443, "https", "host of github-pat", true},
		{"list", "github.com", 9418, "tcp", "flag --egress list", false},
		{"", "example.com", 443, "https", "flag --egress list", false},
		{"ask", "example.com", 443, "https", "flag --egress ask", false},
		{"any", "example.com", 25, "tcp", "flag --egress any", true},
		{"any", "10.0.0.5", 80, "http", "flag --allow-host", true},
		{"any", "10.0.0.5", 81, "http", "egress private", false},
		{"any", "127.0.0.1", 5432, "tcp", "host of local-db", true},
		{"any", "127.0.0.1", 5433, "tcp", "egress private", false},
		{"any", "::ffff:127.0.0.1", 5432, "tcp", "host of local-db", true},
		{"web", "x.corp.internal", 5432, "tcp", "host of local-db", true}, // a private network's suffix
		{"any", "x.corp.internal", 5433, "tcp", "egress private", false},
		{"any", "x.corp.internal", 80, "http", "egress private", false},
		{"any", "corp.internal", 5432, "tcp", "egress private", false},
		{"any", "y.internal", 5432, "tcp", "egress private", false},
		{"any", "localhost", 3000, "http", "flag --host-port", true},
		{"any", "[::1]", 3000, "http", "flag --host-port", true},
		{"any", "localhost", 3001, "http", "egress private", false},
		{"any", "intra.local", 80, "http", "flag --allow-host", true},
		{"any", "169.254.169.254", 80, "http", "egress private", false},
		{"any", "fd00:ec2::254", 80, "http", "egress private", false},
		{"any", "100.100.100.100", 80, "http", "egress private", false},
		{"any", "0.0.0.0", 80, "http", "egress private", false},
		{"any", "printer", 80, "http", "egress private", false},
		{"any", "2130706433", 80, "http", "egress", false},
		{"any", "0x7f.0.0.1", 80, "http", "egress", false},
		{"any", "127.1", 80, "http", "egress", false},
		{"any", "fe80::1%eth0", 80, "http", "egress", false},
		{"any", "exämple.com", 443, "https", "egress", false},
		{"any", "user@example.com", 443, "https", "egress", false},
		{"any", "example.com/", 443, "https", "egress", false},
	} {
		p := newPolicy(t, Options{Egress: c.egress, Allow: grants(t, allow...), AllowHosts: hosts, HostPorts: []int{3000}})
		d := p.Egress(c.host, c.port, c.proto)
		if d.Allowed() != c.ok || d.Rule != c.rule {
			t.Errorf("%s %s:%d %s: %v by %q, want %v by %q", c.egress, c.host, c.port, c.proto, d.Action, d.Rule, c.ok, c.rule)
		}
		if !d.Allowed() && len(d.NextSteps) < 2 {
			t.Errorf("%s: no next steps", c.host)
		}
	}
	p := newPolicy(t, Options{Egress: "any", Deny: []string{"local-db"}, Allow: grants(t, allow...)})
	if p.Egress("127.0.0.1", 5432, "tcp").Allowed() || p.Listed("127.0.0.1", 5432) {
		t.Error("the host of a denied credential is reached")
	}
}

func TestListed(t *testing.T) {
	p := newPolicy(t, Options{Egress: "any", Allow: grants(t, "local-db", "github-pat"), AllowHosts: []string{"h.example:1"}, HostPorts: []int{3000}})
	for at, want := range map[[2]any]bool{
		{"127.0.0.1", 5432}: true, {"127.0.0.1", 3000}: true, {"localhost", 3000}: true, {"h.example", 1}: true,
		{"h.example", 2}: false, {"example.com", 3000}: false, {"github.com", 443}: false, {"", 3000}: false,
	} {
		if got := p.Listed(at[0].(string), at[1].(int)); got != want {
			t.Errorf("%v: %v", at, got)
		}
	}
}

// TestPrivateSuffix: a wildcard over names that no registry gives out may have one
// label, and lets a session reach them at its port; over any other name it may not.
func TestPrivateSuffix(t *testing.T) {
	for _, s := range []string{"*.internal", "*.local:22", "*.LAN", "*.corp.", "*.intranet", "*.home.arpa", "*.db.internal", "*.example.com"} {
		if err := CheckHost(s); err != nil {
			t.Errorf("%s: %v", s, err)
		}
	}
	for _, s := range []string{"*", "*.", "*.com", "*.com:22", "*.dev", "*.arpa", "*.localhost", "*.notinternal", "*.1", "*.*.internal", "*.inter nal", "*..internal", "*.com."} {
		if CheckHost(s) == nil {
			t.Errorf("%s is taken", s)
		}
	}
	with := func(kind string, hosts ...string) *Policy {
		p, err := New(Options{Session: session, Egress: "web", Allow: grants(t, "key")}, []guard.Credential{{Name: "key", Context: session.Context, Kind: kind, Hosts: hosts}})
		if err != nil {
			t.Fatal(err)
		}
		return p
	}
	for _, c := range []struct {
		kind, pattern, host string
		port                int
		proto               string
		want                bool
	}{
		{"ssh-key", "*.internal", "git.internal", 22, "tcp", true},
		{"ssh-key", "*.internal", "a.b.INTERNAL.", 22, "tcp", true},
		{"ssh-key", "*.internal", "git.internal", 23, "tcp", false},
		{"ssh-key", "*.internal", "internal", 22, "tcp", false},
		{"ssh-key", "*.internal", "xinternal", 22, "tcp", false},
		{"ssh-key", "*.internal", "git.internal.example.com", 22, "tcp", false},
		{"ssh-key", "*.internal", "10.0.0.1", 22, "tcp", false},
		{"ssh-key", "*.internal", "metadata.google.internal", 80, "http", false},
		{"ssh-key", "*.internal:2222", "git.internal", 2222, "tcp", true},
		{"ssh-key", "*.internal:2222", "git.internal", 22, "tcp", false},
		{"ssh-key", "*.home.arpa", "nas.home.arpa", 22, "tcp", true},
		{"ssh-key", "*.example.com", "git.example.com", 22, "tcp", true},
		{"mongodb", "*.lan", "db.lan", 27017, "tcp", true},
		{"smtp", "mail.lan", "mail.lan", 587, "tcp", true},
		{"imap", "mail.lan", "mail.lan", 993, "tcp", true},
		{"imap", "mail.lan", "mail.lan", 587, "tcp", false},
		{"generic", "*.internal", "api.internal", 443, "https", false}, // no port is said
		{"generic", "*.internal:443", "api.internal", 443, "https", true},
	} {
		p := with(c.kind, c.pattern)
		d := p.Egress(c.host, c.port, c.proto)
		if d.Allowed() != c.want {
			t.Errorf("%s %s, %s:%d: %v by %q", c.kind, c.pattern, c.host, c.port, d.Action, d.Rule)
		}
		if private(strings.ToLower(strings.TrimSuffix(c.host, "."))) != "" && p.Listed(c.host, c.port) != c.want {
			t.Errorf("%s %s, %s:%d: listed %v", c.kind, c.pattern, c.host, c.port, !c.want)
		}
	}
	// A public name is reached, but may lead to no private address.
	if with("ssh-key", "*.example.com").Listed("git.example.com", 22) {
		t.Error("a public wildcard leads to private addresses")
	}
	p, err := New(Options{Session: session, Egress: "web", Allow: grants(t, "key"), Deny: []string{"key"}}, []guard.Credential{{Name: "key", Context: session.Context, Kind: "ssh-key", Hosts: []string{"*.internal"}}})
	if err != nil || p.Egress("git.internal", 22, "tcp").Allowed() || p.Listed("git.internal", 22) {
		t.Errorf("a denied credential's hosts are reached: %v", err)
	}
}

func TestRepoEgress(t *testing.T) {
	for _, c := range []struct {
		repo, host string
		proto      string
		rule       string
	}{
		{"[egress]\nmode='list'", "example.com", "https", "guard.toml:2"},
		{"[egress]\nmode='list'", "github.com", "https", ""},
		{"[egress]\nmode='any'", "example.com", "tcp", "flag --egress web"},
		{"[egress]\nhosts=['npm.example']", "npm.example", "https", ""},
		{"[egress]\nhosts=['npm.example']", "github.com", "https", "guard.toml:2"},
		{"[egress]\nhosts=['10.0.0.1', 'example.com']", "10.0.0.1", "https", "egress private"},
		{"[egress]\nhosts=['example.com']", "example.com", "tcp", "flag --egress web"},
		{"[egress]\nmode='list'\nhosts=['example.com']", "example.com", "https", ""},
		{"[egress]\nhosts=[]", "example.com", "https", "guard.toml:2"},
	} {
		p := newPolicy(t, Options{Egress: "web", Allow: grants(t, "github-pat"), Repo: repo(t, c.repo)})
		d := p.Egress(c.host, 443, c.proto)
		if d.Allowed() != (c.rule == "") || c.rule != "" && d.Rule != c.rule {
			t.Errorf("%q %s: %v by %q, want %q", c.repo, c.host, d.Action, d.Rule, c.rule)
		}
	}
}
