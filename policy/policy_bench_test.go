package policy

import (
	"fmt"
	"strings"
	"testing"

	"guard"
)

// A decision is to take under 20 us, with many credentials and rules.
func BenchmarkDecisions(b *testing.B) {
	many := append([]guard.Credential(nil), creds...)
	var allow []string
	text := ""
	for i := range 200 {
		c := guard.Credential{Name: fmt.Sprint("c", i), Context: "shop/dev", Hosts: []string{fmt.Sprintf("h%d.example.com", i)}}
		many = append(many, c)
		allow = append(allow, c.Name+":http:read/repos/*/**")
		text += fmt.Sprintf("[[use]]\ncredential=%q\n", c.Name)
	}
	p, err := New(Options{Session: session, Egress: "web", Allow: grants(b, allow...), Repo: repo(b, text)}, many)
	if err != nil {
		b.Fatal(err)
	}
	u := useOf(many[len(many)-1], "http:read", "/repos/a/b/c/d", "h199.example.com", 443)
	if d := p.Use(u); !d.Allowed() {
		b.Fatal(d)
	}
	b.Run("use", func(b *testing.B) {
		for b.Loop() {
			p.Use(u)
		}
	})
	// A hundred policies of the user's, each of which may say something.
	var mine strings.Builder
	for i := range 100 {
		fmt.Fprintf(&mine, "forbid(principal, action in Action::\"use\", resource is Credential) when { context.host == \"x%d.example\" && context.path like \"/p/*\" };\n", i)
	}
	hundred, err := New(Options{Session: session, Egress: "web", Allow: grants(b, allow...), Policies: []*File{cedarFile(b, mine.String())}}, many)
	if err != nil {
		b.Fatal(err)
	}
	if d := hundred.Use(u); !d.Allowed() {
		b.Fatal(d)
	}
	b.Run("use-100-policies", func(b *testing.B) {
		for b.Loop() {
			hundred.Use(u)
		}
	})
	b.Run("leak", func(b *testing.B) {
		l := leakOf(guard.ChannelHTTP, guard.Live)
		for b.Loop() {
			p.Leak(l)
		}
	})
	b.Run("egress", func(b *testing.B) {
		for b.Loop() {
			p.Egress("example.com", 443, "https")
		}
	})
}
