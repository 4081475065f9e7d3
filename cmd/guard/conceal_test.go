package main

import (
	"encoding/base64"
	"encoding/json"
	"fmt"
	"regexp"
	"strings"
	"testing"

	"guard"
	"guard/internal/testutil"
	"guard/matcher"
)

// concealed is a conceal that knows value by the name tok.
func concealed(t *testing.T, value, placeholder string) *conceal {
	t.Helper()
	id := guard.SecretID{Context: "default", Name: "tok", Version: 1}
	m, err := matcher.New([]guard.Value{
		{ID: id, Secret: guard.NewSecret([]byte(value))},
		{ID: id, Class: guard.Placeholder, Secret: guard.NewSecret([]byte(placeholder))},
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { m.Close() })
	return &conceal{matcher: m, placeholders: map[string][]string{"tok": {placeholder}}}
}

func TestConcealEncoded(t *testing.T) {
	value, placeholder := testutil.Canary(t), testutil.Canary(t)
	c := concealed(t, value, placeholder)
	std, url := base64.StdEncoding, base64.URLEncoding
	for _, enc := range []*base64.Encoding{std, url, std.WithPadding(base64.NoPadding)} {
		for _, around := range [][2]string{{"", ""}, {"u:", ""}, {"user:", ""}, {"me@example.com:", ""}, {"x", "yz"}, {"", "\n"}, {"\xff\xfe\xfb:", "\xff\xef"}} {
			for _, line := range []string{"//h/:_auth=%s\n", `{"auth":"%s"}`, "Basic %s", "/path/%s", "%s", "a/b/c+%s "} {
				b := fmt.Sprintf(line, enc.EncodeToString([]byte(around[0]+value+around[1])))
				want := fmt.Sprintf(line, enc.EncodeToString([]byte(around[0]+placeholder+around[1])))
				if got := string(c.bytes([]byte(b))); got != want {
					t.Errorf("%q around it, as %q: %q", around, line, strings.ReplaceAll(got, value, "[value]"))
				}
			}
		}
	}
	twice := std.EncodeToString([]byte(value + " and " + value))
	if got := string(c.bytes([]byte(twice))); got != std.EncodeToString([]byte(placeholder+" and "+placeholder)) {
		t.Errorf("twice in one: %q", got)
	}
	if got := string(c.bytes([]byte(value + twice + value))); strings.Count(got, placeholder) < 1 || len(c.matcher.Scan([]byte(got))) == 0 {
		t.Errorf("next to each other: %q", strings.ReplaceAll(got, value, "[value]"))
	}
	// Other characters, as they are in URLs and in JSON.
	odd, other := "p@ss/w\"ord%20=+1x"+testutil.Random(8), "P@SS/W\"ORD%20=+1X"+testutil.Random(8)
	c = concealed(t, odd, other)
	for _, f := range []func(string) string{
		func(s string) string { b, _ := json.Marshal(s); return string(b) },
		func(s string) string {
			return "https://u:" + strings.ReplaceAll(urlEscape(s), "+", "%20") + "@h/simple"
		},
		func(s string) string { return std.EncodeToString([]byte(s)) },
	} {
		if got := string(c.bytes([]byte(f(odd)))); got != f(other) {
			t.Errorf("%q, want %q", got, f(other))
		}
	}
	// What has no placeholder of its length is masked, whatever its form.
	c.placeholders["tok"] = []string{"short"}
	for _, s := range []string{odd, std.EncodeToString([]byte("u:" + odd)), urlEscape(odd)} {
		got := c.bytes([]byte(s))
		if got == nil || len(got) != len(s) || len(c.matcher.Scan(got)) > 0 || !strings.Contains(string(got), "*") {
			t.Errorf("%d bytes are not masked: %d", len(s), len(got))
		}
	}
}

func urlEscape(s string) string {
	var b strings.Builder
	for i := range len(s) {
		if c := s[i]; c >= '0' && c <= '9' || c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' {
			b.WriteByte(c)
		} else {
			fmt.Fprintf(&b, "%%%02X", c)
		}
	}
	return b.String()
}

// A file of credentials is shown so that its program still reads it, and without
// what guard does not know.
func TestConcealOnlyKnown(t *testing.T) {
	value, ph := testutil.Canary(t), testutil.Canary(t)
	c := concealed(t, value, ph)
	const other = "UNKNOWN-SECRET"
	b64 := base64.StdEncoding.EncodeToString
	for _, f := range []struct{ name, in, want string }{
		{".netrc", "# c\nmachine a.example login x password " + other + "\nmachine b.example\n  login y\n  password " + ph + "\n  account " + other + "\nmacdef init\n cd /x " + other + "\n\ndefault login z password " + other,
			"machine b.example\n\tlogin y\n\tpassword " + ph + "\n"},
		{".netrc", `machine a login "x y" password "` + ph + `" machine b password ` + other, "machine a\n\tlogin \"x y\"\n\tpassword \"" + ph + "\"\n"},
		{".netrc", "machine a login", ""},
		{".git-credentials", "https://u:" + other + "@a\nhttps://u:" + ph + "@b\n", "https://u:" + ph + "@b\n"},
		{".docker/config.json", `{"credsStore":"desktop","auths":{"a":{"auth":"` + b64([]byte("u:"+other)) + `"},"b":{"auth":"` + b64([]byte("u:"+ph)) + `","email":"e","identitytoken":"` + other + `"}},"HttpHeaders":{"X":"` + other + `"}}`,
			"{\n\t\"auths\": {\n\t\t\"b\": {\n\t\t\t\"auth\": \"" + b64([]byte("u:"+ph)) + "\",\n\t\t\t\"email\": \"e\"\n\t\t}\n\t}\n}\n"},
		{".docker/config.json", `{"auths": broken ` + other + "\n" + ph + "\n", ph + "\n"},
		{".terraform.d/credentials.tfrc.json", `{"credentials":{"a":{"token":"` + other + `"},"b":{"token":"` + ph + `"}}}`, "{\n\t\"credentials\": {\n\t\t\"b\": {\n\t\t\t\"token\": \"" + ph + "\"\n\t\t}\n\t}\n}\n"},
		{".pypirc", "[distutils]\nindex-servers =\n    a\n    b\n[a]\nusername = u\npassword = " + other + "\n[b]\n# " + other + "\nrepository: https://b/\nusername: u\npassword: " + ph + "\nclient_cert = " + other + "\n",
			"[distutils]\nindex-servers =\n    a\n    b\n[b]\nrepository: https://b/\nusername: u\npassword: " + ph + "\n"},
		{".cargo/credentials.toml", "[registry]\ntoken = \"" + other + "\"\n\n[registries.b]\ntoken = \"Bearer " + ph + "\"\nsecret-key = \"" + other + "\"\n", "[registries.b]\ntoken = \"Bearer " + ph + "\"\n"},
		{".config/gh/hosts.yml", "a.example:\n    oauth_token: " + other + "\n    user: u\ngithub.com:\n    users:\n        me:\n            oauth_token: " + ph + "\n        you:\n            oauth_token: " + other + "\n    git_protocol: https\n    user: me\n    oauth_token: " + ph + "\n",
			"github.com:\n    users:\n        me:\n            oauth_token: " + ph + "\n        you:\n    git_protocol: https\n    user: me\n    oauth_token: " + ph + "\n"},
		{".config/hub", "github.com:\n- user: u\n  oauth_token: " + ph + "\n  protocol: https\n- oauth_token: " + other + "\n", "github.com:\n- user: u\n  oauth_token: " + ph + "\n  protocol: https\n- oauth_token:\n"},
		{".kube/config", "apiVersion: v1\nclusters:\n- cluster:\n    server: https://k:6443\n    proxy-url: http://u:" + other + "@p\n  name: k\ncontexts:\n- context: {cluster: k, x: " + other + "}\n  name: k\ncurrent-context: k\nusers:\n- name: a\n  user:\n    token: " + ph + "\n- name: b\n  user:\n    client-key-data: |\n      " + other + "\n      " + other + "\n    exec:\n      args:\n      - --token=" + other + "\n      env:\n      - name: T\n        value: " + other + "\n    token: \"" + other + "\n      " + other + "\"\n",
			"apiVersion: v1\nclusters:\n- cluster:\n    server: https://k:6443\n  name: k\ncontexts:\n- context:\n  name: k\ncurrent-context: k\nusers:\n- name: a\n  user:\n    token: " + ph + "\n- name: b\n  user:\n    exec:\n      args:\n      env:\n      - name: T\n"},
		{".vault-token", other, ""},
	} {
		got := string(c.onlyKnown(f.name, []byte(f.in)))
		if got != f.want {
			t.Errorf("%s:\n%s\nwant:\n%s", f.name, got, f.want)
		}
		if regexp.MustCompile("UNKNOWN|" + regexp.QuoteMeta(b64([]byte("u:" + other))[:16])).MatchString(got) {
			t.Errorf("%s shows what guard does not know", f.name)
		}
	}
}

func FuzzConcealOnlyKnown(f *testing.F) {
	ph := "ghp_" + strings.Repeat("k", 18) + strings.Repeat("Z", 18)
	for _, s := range []string{"machine a login b password " + ph, `{"a":{"b":"` + ph + `"}}`, "[a]\nx = " + ph, "a:\n- b: " + ph + "\n  c: |\n   d"} {
		f.Add(s)
	}
	id := guard.SecretID{Name: "tok", Version: 1}
	m, err := matcher.New([]guard.Value{{ID: id, Class: guard.Placeholder, Secret: guard.NewSecret([]byte(ph))}})
	if err != nil {
		f.Fatal(err)
	}
	c := &conceal{matcher: m}
	f.Fuzz(func(t *testing.T, s string) {
		for _, name := range []string{".netrc", ".docker/config.json", ".pypirc", ".kube/config", ".config/gh/hosts.yml", ".pgpass"} {
			c.onlyKnown(name, []byte(s))
			if got := c.onlyKnown(name, []byte("password: hunter2-"+strings.ReplaceAll(s, ph, ""))); strings.Contains(string(got), "hunter2") && name != ".pgpass" {
				t.Errorf("%s shows an unknown password", name)
			}
		}
	})
}
