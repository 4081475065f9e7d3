package policy

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"guard"
)

func TestRepoProblems(t *testing.T) {
	dir := t.TempDir()
	for _, c := range []struct{ text, want string }{
		{"context='a'\nallow=['x']", "guard.toml:2: unknown key allow"},
		{"\n\n[[use]]\ncredential='a'\nhost='x'", "guard.toml:5: unknown key use.host"},
		{"[egress]\nallow='x'", "guard.toml:2: unknown key egress.allow"},
		{"[policy]\nx=1", "guard.toml:1: unknown key policy"},
		{"ghp_C4n4rySecret=1", "guard.toml:1: unknown key: known are"},
		{"context=''", "guard.toml:1: context is empty"},
		{"on_leak='pass'", "guard.toml:1: on_leak"},
		{"on_leak='ignore'", "guard.toml:1: on_leak"},
		{"x", "guard.toml:1: not TOML"},
		{"deny=['a'\n\nb=", "not TOML"},
		{"deny='a'", "not TOML"},
		{"deny=['']", "guard.toml:1: a name in deny is empty"},
		{"[[use]]\nscope='read'", "guard.toml:1: [[use]] names no credential"},
		{"[[use]]\ncredential='a'\n[[use]]\ncredential='a'\nscope='C4n4ry'", "guard.toml:3: [[use]] scope"},
		{"[egress]\nmode='all'", "guard.toml:2: egress mode"},
		{"[egress]\nhosts=['ok.example',\n'C4n4ry secret']", "guard.toml:2: egress hosts"},
		{"deny=['C4n4ry", "not TOML"},
	} {
		f := filepath.Join(dir, "guard.toml")
		if err := os.WriteFile(f, []byte(c.text), 0o600); err != nil {
			t.Fatal(err)
		}
		ps := Check(f)
		if len(ps) == 0 || !strings.Contains(ps[0].String(), c.want) || strings.Contains(ps[0].String(), "C4n4ry") {
			t.Errorf("%q: %v, want %q", c.text, ps, c.want)
		}
		r, err := LoadRepo(f)
		var p Problem
		if r != nil || !errors.As(err, &p) {
			t.Errorf("%q was loaded: %v", c.text, err)
		}
	}
	if _, err := LoadRepo(filepath.Join(dir, "none")); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("no file: %v", err)
	}
	if _, err := LoadRepo(dir); err == nil || len(Check(dir)) != 1 {
		t.Errorf("a folder: %v", err)
	}
	big := filepath.Join(dir, "big")
	if err := os.WriteFile(big, make([]byte, maxRepoFile+1), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := LoadRepo(big); err == nil {
		t.Error("2 MiB were read")
	}
	good := filepath.Join(dir, "good.toml")
	text := "context='shop'\ndeny=['x']\non_leak='kill'\n[[use]]\ncredential='a'\nscope='read'\nfor='reasons'\n[egress]\nmode='web'\nhosts=['*.example.com:443']\n"
	if err := os.WriteFile(good, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	if ps := Check(good); len(ps) != 0 {
		t.Error(ps)
	}
}

// randomRepo writes a guard.toml that says anything it may say.
func randomRepo(t *testing.T, r *rand.Rand) *Repo {
	var b strings.Builder
	pick := func(ss ...string) string { return ss[r.IntN(len(ss))] }
	if r.IntN(3) == 0 {
		fmt.Fprintf(&b, "deny=[%q]\n", pick("github-pat", "dev-db", "none"))
	}
	if r.IntN(2) == 0 {
		fmt.Fprintf(&b, "on_leak=%q\n", pick("kill", "block", "redact", "warn"))
	}
	if r.IntN(6) == 0 {
		b.WriteString("use=[]\n")
	} else {
		for range r.IntN(4) {
			fmt.Fprintf(&b, "[[use]]\ncredential=%q\nscope=%q\n", pick("github-pat", "dev-db", "local-db", "prod-pat", "none"), pick("use", "write", "read", "repo:push/acme/**", "db:read"))
		}
	}
	if r.IntN(2) == 0 {
		b.WriteString("[egress]\n")
		if r.IntN(2) == 0 {
			fmt.Fprintf(&b, "mode=%q\n", pick("list", "ask", "web", "any"))
		}
		if r.IntN(2) == 0 {
			fmt.Fprintf(&b, "hosts=[%q,%q]\n", pick("github.com", "127.0.0.1", "*.example.com"), pick("example.com", "localhost:3000"))
		}
	}
	return repo(t, b.String())
}

// Whatever a repository says, no decision becomes more permissive by it; and
// what --deny names is never allowed.
func TestRepoNeverWidens(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	pick := func(ss ...string) string { return ss[r.IntN(len(ss))] }
	verbsAll := []string{"", ":use", ":read", ":write", ":repo:push", ":repo:push/acme/*", ":repo:read", ":http:read", ":http:write/x", ":db:read", ":db:write", ":db:query"}
	narrowed := 0
	for range 400 {
		o := Options{Egress: pick("", "list", "ask", "web", "any")}
		for range r.IntN(5) {
			o.Allow = append(o.Allow, grants(t, pick("github-pat", "dev-db", "local-db", "broken")+pick(verbsAll...))...)
		}
		if r.IntN(4) == 0 {
			o.Deny = []string{pick("github-pat", "dev-db")}
		}
		if r.IntN(2) == 0 {
			a := guard.Action(r.IntN(int(guard.Pass)))
			o.OnLeak = &a
		}
		if r.IntN(2) == 0 {
			o.AllowHosts = []string{pick("127.0.0.1:80", "example.com", "*.example.com")}
		}
		without := newPolicy(t, o)
		o.Repo = randomRepo(t, r)
		if r.IntN(3) == 0 {
			o.Repo = o.Repo.And(randomRepo(t, r))
		}
		with := newPolicy(t, o)
		for range 40 {
			c := creds[r.IntN(len(creds))]
			host := pick("github.com", "api.github.com", "db.example.com", "127.0.0.1", "example.com", "localhost", "")
			port := []int{443, 80, 5432, 3000, 0}[r.IntN(5)]
			u := useOf(c, pick("repo:push", "repo:read", "http:read", "http:write", "db:read", "db:write", "db:query", "read", "", "x"), pick("acme/app", "x", ""), host, port)
			a, b := without.Use(u), with.Use(u)
			if b.Allowed() && !a.Allowed() {
				t.Fatalf("use widened: %+v\nwithout %+v\nwith %+v", u, a, b)
			}
			if len(o.Deny) > 0 && o.Deny[0] == c.Name && b.Allowed() {
				t.Fatalf("denied and allowed: %+v", b)
			}
			l := leakOf(guard.Channel(pick("terminal", "file", "http", "git", "socket", "pipe", "", "x")), guard.Class(r.IntN(5)))
			l.Model = r.IntN(2) == 0
			if la, lb := without.Leak(l), with.Leak(l); lb.Action > la.Action {
				t.Fatalf("leak widened: %+v\nwithout %+v\nwith %+v", l, la, lb)
			} else if lb.Action < la.Action {
				narrowed++
			}
			proto := pick("http", "https", "tcp", "")
			ea, eb := without.Egress(host, port, proto), with.Egress(host, port, proto)
			if eb.Allowed() && !ea.Allowed() {
				t.Fatalf("egress widened: %s:%d %s\nwithout %+v\nwith %+v", host, port, proto, ea, eb)
			}
			if a.Allowed() != b.Allowed() || ea.Allowed() != eb.Allowed() {
				narrowed++
			}
		}
	}
	if narrowed < 100 {
		t.Errorf("only %d decisions were narrowed: this test tries too little", narrowed)
	}
}

func TestAnd(t *testing.T) {
	a, b := repo(t, "deny=['github-pat']"), repo(t, "deny=['dev-db']")
	var none *Repo
	if none.And(nil) != nil || none.And(a) != a || a.And(nil) != a || len(a.And(b).And(a).all()) != 3 || len(a.all()) != 1 {
		t.Error("And loses or adds")
	}
	p := newPolicy(t, Options{Allow: grants(t, "github-pat", "dev-db"), Repo: a.And(b)})
	for _, u := range []guard.Use{useOf(pat, "repo:read", "", "github.com", 443), useOf(db, "db:read", "", "db.example.com", 5432)} {
		if p.Use(u).Allowed() {
			t.Errorf("%s allowed", u.Credential.Name)
		}
	}
}
