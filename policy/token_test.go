package policy

import (
	"strings"
	"testing"

	"guard"
)

func TestMintingIsNeverAPartOfUse(t *testing.T) {
	use := func(p *Policy, action string) guard.Decision {
		return p.Use(guard.Use{Session: session, Credential: pat, Action: action, Resource: "/user/keys", Host: "github.com", Port: 443, At: now})
	}
	for _, c := range []struct {
		allow       []string
		login, mint bool
	}{
		{[]string{"github-pat"}, true, false},
		{[]string{"github-pat:write"}, false, false},
		{[]string{"github-pat:http:write"}, false, false},
		{[]string{"github-pat:token:login"}, true, false},
		{[]string{"github-pat:token:mint"}, false, true},
		{[]string{"github-pat", "github-pat:token:mint"}, true, true},
		{[]string{"github-pat:token:mint/user/keys"}, false, true},
		{[]string{"github-pat:token:mint/repos/**"}, false, false},
		{[]string{"github-pat:token:mint/**"}, false, true},
		{nil, false, false},
	} {
		p := newPolicy(t, Options{Allow: grants(t, c.allow...)})
		if d := use(p, "token:login"); d.Allowed() != c.login {
			t.Errorf("%v: token:login %+v", c.allow, d)
		}
		d := use(p, "token:mint")
		if d.Allowed() != c.mint {
			t.Errorf("%v: token:mint %+v", c.allow, d)
		}
		if !c.mint && (len(d.NextSteps) == 0 || !strings.Contains(d.NextSteps[0], "github-pat:token:mint")) {
			t.Errorf("%v: the refusal does not say what would allow it: %+v", c.allow, d)
		}
		if c.mint && len(c.allow) == 1 && use(p, "http:write").Allowed() {
			t.Errorf("%v lets other requests through", c.allow)
		}
	}
}

func TestAllowLogin(t *testing.T) {
	p := newPolicy(t, Options{Logins: []string{"login.example.com", "*.idp.example:8443"}})
	for _, c := range []struct {
		host   string
		port   int
		action string
		ok     bool
	}{
		{"login.example.com", 443, "token:login", true},
		{"LOGIN.example.com.", 443, "token:login", true},
		{"login.example.com", 443, "token:mint", true},
		{"a.idp.example", 8443, "token:login", true},
		{"a.idp.example", 443, "token:login", false},
		{"evil.example", 443, "token:login", false},
		{"login.example.com.evil.example", 443, "token:login", false},
		{"login.example.com", 443, "http:write", false},
		{"", 443, "token:login", false},
	} {
		u := guard.Use{Session: session, Action: c.action, Host: c.host, Port: c.port}
		d := p.Login(u)
		if d.Allowed() != c.ok {
			t.Errorf("%+v: %+v", c, d)
		}
		if !c.ok && c.host != "" && !strings.Contains(strings.Join(d.NextSteps, "\n"), "--allow-login "+c.host) {
			t.Errorf("%+v: the refusal does not say what would allow it: %v", c, d.NextSteps)
		}
		u.Session.ID = "another"
		if d := p.Login(u); d.Allowed() {
			t.Errorf("%+v in another session: %+v", c, d)
		}
	}
	for _, p := range []*Policy{nil, {}, newPolicy(t, Options{})} {
		if d := p.Login(guard.Use{Session: session, Action: "token:login", Host: "login.example.com", Port: 443}); d.Allowed() {
			t.Errorf("allowed by nothing: %+v", d)
		}
	}
	if _, err := New(Options{Session: session, Logins: []string{"a b"}}, nil); err == nil {
		t.Error("a host that is none was taken")
	}
}

func TestDecoyIsNeverUsed(t *testing.T) {
	bait := pat
	bait.Name, bait.Decoy = "bait", true
	p, err := New(Options{Session: session, Allow: grants(t, "bait", "bait:token:mint")}, append([]guard.Credential{bait}, creds...))
	if err != nil {
		t.Fatal(err)
	}
	for a := range actions {
		if d := p.Use(guard.Use{Session: session, Credential: bait, Action: a, Host: "github.com", Port: 443, At: now}); d.Action != guard.Block || d.Rule != RuleDecoy {
			t.Errorf("%s: %+v", a, d)
		}
	}
}
