package vault

import (
	"bytes"
	"crypto/sha256"
	"encoding/base32"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"hash/crc32"
	"math/rand/v2"
	"net/url"
	"regexp"
	"strings"
	"testing"
	"time"

	"guard"
)

func fake(t testing.TB, key, name, value string) string {
	t.Helper()
	p, err := placeholder([]byte(key), name, []byte(value))
	if err != nil {
		t.Fatalf("%s: %v", name, err)
	}
	return p
}

func randomText(r *rand.Rand, n int, alphabet string) string {
	b := make([]byte, n)
	for i := range b {
		b[i] = alphabet[r.IntN(len(alphabet))]
	}
	return string(b)
}

// checks are written from the formats' descriptions, not from checksum.go.
func crcOK(body string) bool {
	n := uint64(0)
	for _, c := range body[len(body)-6:] {
		n = n*62 + uint64(strings.IndexRune("0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz", c))
	}
	return n == uint64(crc32.ChecksumIEEE([]byte(body[:len(body)-6])))
}

func fineGrainedOK(tok string) bool {
	m := regexp.MustCompile(`^github_pat_([A-Za-z0-9]{22})_([A-Za-z0-9]{43})([A-Z2-7]{8})([A-Za-z0-9]{8})$`).FindStringSubmatch(tok)
	if m == nil {
		return false
	}
	sum := sha256.Sum256([]byte("github_pat_" + m[1] + "_" + m[2]))
	return base32.StdEncoding.EncodeToString(sum[:])[:8] == m[3]
}

func TestChecksumsOfPublishedTokens(t *testing.T) {
	// The token that descriptions of the format print as their example.
	if !crcOK(strings.TrimPrefix("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", "ghp_")) {
		t.Fatal("the check itself is wrong")
	}
}

func TestPlaceholderShapes(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	b62 := func(n int) string { return randomText(r, n, base62) }
	jwt := func(h, p string) string {
		e := base64.RawURLEncoding
		return e.EncodeToString([]byte(h)) + "." + e.EncodeToString([]byte(p)) + "." + b62(86)
	}
	for name, c := range map[string]struct {
		value string
		like  string // regular expression
		ok    func(string) bool
	}{
		"ghp":      {"ghp_" + b62(36), `^ghp_[A-Za-z0-9]{36}$`, func(p string) bool { return crcOK(p[4:]) }},
		"gho":      {"gho_" + b62(36), `^gho_[A-Za-z0-9]{36}$`, func(p string) bool { return crcOK(p[4:]) }},
		"ghr":      {"ghr_" + b62(76), `^ghr_[A-Za-z0-9]{76}$`, func(p string) bool { return crcOK(p[4:]) }},
		"npm":      {"npm_" + b62(36), `^npm_[A-Za-z0-9]{36}$`, func(p string) bool { return crcOK(p[4:]) }},
		"fine":     {"github_pat_" + b62(22) + "_" + b62(59), `^github_pat_`, fineGrainedOK},
		"gitlab":   {"glpat-" + randomText(r, 20, b64url), `^glpat-[\w-]{20}$`, nil},
		"routable": {"glpat-" + randomText(r, 27, b64url) + ".01.0r" + randomText(r, 7, digits+lower), `^glpat-[\w-]{27}\.01\.0r[0-9a-z]{7}$`, nil},
		"ant":      {"sk-ant-api03-" + randomText(r, 95, b64url), `^sk-ant-api03-[\w-]{95}$`, nil},
		"openai":   {"sk-proj-" + randomText(r, 120, b64url), `^sk-proj-[\w-]{120}$`, nil},
		"slack":    {"xoxb-" + randomText(r, 12, digits) + "-" + randomText(r, 13, digits) + "-" + b62(24), `^xoxb-\d{12}-\d{13}-[A-Za-z0-9]{24}$`, nil},
		"stripe":   {"sk_live_" + b62(24), `^sk_live_[A-Za-z0-9]{24}$`, nil},
		"aws":      {randomText(r, 40, base62+"+/"), `^[A-Za-z0-9_-]{40}$`, nil},
		"hex":      {randomText(r, 32, hexa), `^[0-9a-f]{32}$`, nil},
		"digits":   {randomText(r, 16, digits), `^\d{16}$`, nil},
		"uuid":     {"3f2504e0-4f89-11d3-9a0c-0305e82c3301", `^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$`, nil},
		"short":    {"hunter22", `^[a-z0-9]{8}$`, nil},
		"words":    {"correct horse battery staple", `^[a-z_-]{28}$`, nil},
		"binary":   {"\x00\x01\xff\xfe\x80secretbytes", `^[a-z_-]{16}$`, nil},
		"base64": {base64.StdEncoding.EncodeToString([]byte(b62(64))), `==$`, func(p string) bool {
			_, err := base64.StdEncoding.Strict().DecodeString(p)
			return err == nil
		}},
		"pem": {"-----BEGIN OPENSSH PRIVATE KEY-----\n" + b62(70) + "\n" + b62(30) + "==\n-----END OPENSSH PRIVATE KEY-----\n",
			`^-----BEGIN OPENSSH PRIVATE KEY-----\n[A-Za-z0-9]{70}\n[A-Za-z0-9]{30}==\n-----END OPENSSH PRIVATE KEY-----\n$`, nil},
		"jwt":        {jwt(`{"alg":"RS256","typ":"JWT","kid":"k1k1k1k1k1k1"}`, `{"sub":"alice@example.com","jti":"77aa88bb99","exp":1700000000}`), ``, jwtOK},
		"jwt of jti": {jwt(`{"typ":"JWT","alg":"ES256"}`, `{"jti":"alice@example.com","exp":4102444800}`), ``, jwtOK},
		"small jwt":  {jwt(`{"alg":"HS256"}`, `{"a":1}`), ``, jwtOK},
		"ghs jwt":    {"ghs_12345_" + jwt(`{"alg":"RS256"}`, `{"iss":"https://github.com/apps/some-app","n":1}`), `^ghs_12345_eyJ`, func(p string) bool { return jwtOK(p[10:]) }},
		"url": {"postgres://app:" + b62(24) + "@db.example.com:5432/shop?sslmode=require", `^postgres://app:[A-Za-z0-9]{24}@db\.example\.com:5432/shop\?sslmode=require$`,
			func(p string) bool { _, err := url.Parse(p); return err == nil }},
		"url signs":   {"redis://:p%40ss+w/0rd@h", `^redis://:.*@h$|^[a-z0-9_-]{23}$`, nil},
		"short pw":    {"mysql://u:pw@host/db", `^mysql://u:[a-z]{12}@host/db$`, nil},
		"dsn":         {"https://" + randomText(r, 32, hexa) + "@o1.ingest.example.com/2", `^https://[0-9a-f]{32}@o1\.ingest\.example\.com/2$`, nil},
		"webhook":     {"https://hooks.slack.com/services/T0" + b62(8) + "/B0" + b62(8) + "/" + b62(24), `^https://hooks\.slack\.com/[A-Za-z0-9_-]{8}/[A-Za-z0-9_-]{10}/[A-Za-z0-9_-]{10}/[A-Za-z0-9_-]{24}$`, nil},
		"scheme only": {"x://thereallysecretpart", `^[a-z_-]{23}$`, nil},
		"prefix only": {"ghp_abcd", `^[a-z_-]{8}$`, nil},
	} {
		t.Run(name, func(t *testing.T) {
			p := fake(t, "key", name, c.value)
			if !regexp.MustCompile(c.like).MatchString(p) || c.ok != nil && !c.ok(p) {
				t.Fatalf("bad shape: %q", p)
			}
			if len(p) != len(c.value) && name != "short pw" {
				t.Fatalf("%d bytes where the value has %d", len(p), len(c.value))
			}
			if p == c.value || p != fake(t, "key", name, c.value) {
				t.Fatal("equal to the value, or another one the second time")
			}
			if p == fake(t, "other key", name, c.value) || p == fake(t, "key", name+"x", c.value) {
				t.Fatal("the same for another context or name")
			}
		})
	}
}

func jwtOK(tok string) bool {
	parts := strings.Split(tok, ".")
	if len(parts) != 3 {
		return false
	}
	for _, p := range parts[:2] {
		b, err := base64.RawURLEncoding.DecodeString(p)
		var m map[string]any
		if err != nil || json.Unmarshal(b, &m) != nil {
			return false
		}
		if exp, ok := m["exp"].(float64); ok && time.Unix(int64(exp), 0).Before(time.Now().AddDate(1, 0, 0)) {
			return false
		}
	}
	return true
}

// Of two values of one shape, the placeholder is the same: so it cannot tell
// which of them it stands for, however much anyone computes.
func TestPlaceholderTellsNothingOfTheValue(t *testing.T) {
	r := rand.New(rand.NewPCG(3, 4))
	for name, make := range map[string]func() string{
		"ghp":   func() string { return "ghp_" + randomText(r, 36, base62) },
		"hex":   func() string { return randomText(r, 40, hexa) },
		"plain": func() string { return "aA1-" + randomText(r, 28, b64url) },
		"url":   func() string { return "postgres://u:aA1" + randomText(r, 20, base62) + "@h/d" },
		"fine":  func() string { return "github_pat_" + randomText(r, 22, base62) + "_" + randomText(r, 59, base62) },
	} {
		first := fake(t, "key", name, make())
		for range 50 {
			if p := fake(t, "key", name, make()); p != first {
				t.Fatalf("%s: the placeholder depends on the value: %q and %q", name, p, first)
			}
		}
	}
}

// The value is what the placeholder would have been: then it must be another.
func TestPlaceholderNeverSharesWithTheValue(t *testing.T) {
	for _, value := range []string{"ghp_000000000000000000000000000000000000", "aaaaaaaaaaaaaaaaaaaaaaaa", "12345678", "aaaaaaaa",
		"3f2504e0-4f89-11d3-9a0c-0305e82c3301", "a b c d e f g h", strings.Repeat("\n", 3) + "secret-lines\nmore\n"} {
		p := fake(t, "key", "n", value)
		q := fake(t, "key", "n", p) // the value is the placeholder itself
		for _, pair := range [][2]string{{value, p}, {p, q}} {
			for i := 0; i+8 <= len(pair[1]); i++ {
				w := pair[1][i : i+8]
				if strings.HasPrefix(w, "ghp_") || strings.ContainsAny(w, "\n") || i < 4 && strings.HasPrefix(pair[1], "ghp_") {
					continue
				}
				if strings.Contains(pair[0], w) {
					t.Fatalf("%q and %q share %q", pair[0], pair[1], w)
				}
			}
		}
	}
	if _, err := placeholder([]byte("k"), "n", []byte("https://example.com")); err == nil {
		t.Fatal("a URL with nothing to hide got a placeholder")
	}
}

// Characters are as even as their alphabet allows.
func TestPlaceholderIsEven(t *testing.T) {
	counts := map[rune]int{}
	for i := range 500 {
		for _, c := range fake(t, "key", fmt.Sprint("n", i), "aA1"+strings.Repeat("x", 61)) {
			counts[c]++
		}
	}
	if len(counts) != 62 {
		t.Fatalf("%d different characters", len(counts))
	}
	chi, mean := 0.0, float64(500*64)/62
	for _, n := range counts {
		chi += (float64(n) - mean) * (float64(n) - mean) / mean
	}
	if chi > 120 { // 61 degrees of freedom: 1 in 100,000
		t.Fatalf("chi squared %.0f", chi)
	}
}

func TestKinds(t *testing.T) {
	seen := map[string]bool{}
	for _, k := range Kinds() {
		if seen[k.Name] || k.Name == "" || k.Title == "" {
			t.Errorf("kind %q", k.Name)
		}
		seen[k.Name] = true
		c := guard.Credential{Name: "n", Context: "c", Hosts: k.Hosts, Env: k.Env, In: k.In}
		if err := check(c); err != nil {
			t.Errorf("%s: %v", k.Name, err)
		}
		for _, h := range k.Hosts {
			if strings.Contains(h, "*") && k.Name != kindAWS && k.Name != kindGCP { // these sign, and go nowhere
				t.Errorf("%s: %s is everyone's", k.Name, h)
			}
		}
		for _, f := range k.Formats {
			v := f.Prefix + strings.Repeat(f.Alphabet[:1], 40)
			if got := GuessKind(secret(v)); got != k.Name {
				t.Errorf("%s is guessed as %s", v, got)
			}
		}
	}
	for _, n := range []string{"generic", "github-pat", "gitlab-pat", "anthropic", "openai", "npm", "pypi", "slack-bot", "stripe", "aws", "postgres", "mysql", "redis", "huggingface", "docker-hub"} {
		if _, ok := KindByName(n); !ok {
			t.Errorf("no kind %s", n)
		}
	}
	for v, want := range map[string]string{"postgresql://u:p@h/d": "postgres", "REDISS://u:p@h": "redis", "hello world": "generic", "ghp_x": "generic", "sk-or-v1-0123456789abcdef": "openrouter"} {
		if got := GuessKind(secret(v)); got != want {
			t.Errorf("%s: %s", v, got)
		}
	}
	Kinds()[1].Hosts[0] = "evil.example"
	if k, _ := KindByName("github-pat"); k.Hosts[0] != "api.github.com" {
		t.Error("the table can be changed")
	}
}

func TestKindFillsIn(t *testing.T) {
	v, _, _ := opened(t)
	c := set(t, v, "", "gh", "ghp_"+strings.Repeat("a", 36))
	if c.Kind != "github-pat" || c.Env != "GITHUB_TOKEN" || len(c.Hosts) != 3 || c.In[0].Place != "auth" {
		t.Fatalf("%+v", c)
	}
	u := set(t, v, "", "url", "postgres://app:s3cretpassword@db.example.com,db2.example.com:6432/x")
	if fmt.Sprint(u.Hosts) != "[db.example.com:5432 db2.example.com:6432]" || u.Env != "DATABASE_URL" || u.User != "app" || u.In[0].Place != "frame" {
		t.Fatalf("%+v", u)
	}
	own, err := v.Set(guard.Credential{Name: "own", Hosts: []string{"ghe.example.com"}, Env: "GHE"}, secret("ghp_"+strings.Repeat("b", 36)))
	if err != nil || fmt.Sprint(own.Hosts) != "[ghe.example.com]" || own.Env != "GHE" {
		t.Fatalf("%+v %v", own, err)
	}
	// Another kind takes the old kind's hosts away, but not the user's.
	d, err := v.Set(guard.Credential{Name: "gh", Kind: "gitlab-pat"}, secret("glpat-"+strings.Repeat("a", 20)))
	if err != nil || fmt.Sprint(d.Hosts) != "[gitlab.com]" || d.Env != "GITLAB_TOKEN" || d.Placeholder != c.Placeholder {
		t.Fatalf("%+v %v", d, err)
	}
	e, err := v.Set(guard.Credential{Name: "own", Kind: "gitlab-pat"}, secret("glpat-"+strings.Repeat("c", 20)))
	if err != nil || fmt.Sprint(e.Hosts) != "[ghe.example.com]" {
		t.Fatalf("%+v %v", e, err)
	}
	if a, err := v.Set(guard.Credential{Name: "aws", Kind: "aws"}, secret(strings.Repeat("aB3/", 10))); err != nil || fmt.Sprint(a.Hosts, a.In) != "[*.amazonaws.com *.api.aws] []" {
		t.Fatalf("%+v %v", a, err)
	}
}

func FuzzPlaceholder(f *testing.F) {
	for _, s := range []string{"ghp_000000000000000000000000000000000000", "postgres://u:p@h", "eyJhbGciOiJIUzI1NiJ9.eyJhIjoxfQ.c2ln", "https://h/a?b=c", "-----BEGIN A-----\nx\n-----END A-----\n", "xoxb-1-2-abcdefgh", "glpat-aaaaaaaaaaaaaaaaaaaaaaaaaaa.01.0r1234567"} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, value []byte) {
		if len(value) < minValue || len(value) > 4096 {
			return
		}
		p, err := placeholder([]byte("key"), "n", value)
		if err != nil {
			return
		}
		if p == string(value) {
			t.Fatal("equal")
		}
		d := &draft{like: value, rnd: stream{key: []byte("key"), name: "n"}}
		d.shape()
		if len(d.out) != len(d.kept) {
			t.Fatal("the draft lost count")
		}
		if _, _, url := urlPassword(value); !url && len(p) != len(value) {
			t.Fatalf("%d bytes where the value has %d", len(p), len(value))
		}
		for i, k := range d.kept {
			if k && len(d.out) == len(value) && !bytes.HasPrefix(value, []byte("eyJ")) && !bytes.HasPrefix(value, []byte("ghs_")) && d.out[i] != value[i] {
				t.Fatal("kept what is not the value's")
			}
		}
	})
}
