package aws

import (
	"crypto"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"io"
	nethttp "net/http"
	"net/url"
	"strings"
	"testing"
	"time"

	"guard"
	"guard/broker"
	"guard/policy"
)

// account is a service account: its file, and the key that Google knows.
type account struct {
	key  *rsa.PrivateKey
	file string
}

const email = "robot@project-1.iam.gserviceaccount.com"

func newAccount(t *testing.T) account {
	t.Helper()
	k, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	der, err := x509.MarshalPKCS8PrivateKey(k)
	if err != nil {
		t.Fatal(err)
	}
	b, err := json.Marshal(map[string]string{"type": "service_account", "client_email": email, "private_key_id": "kid", "private_key": string(pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der})), "token_uri": googleToken})
	if err != nil {
		t.Fatal(err)
	}
	return account{k, string(b)}
}

func assertion(t *testing.T, k *rsa.PrivateKey, head, body map[string]any) string {
	t.Helper()
	h, err := json.Marshal(head)
	if err != nil {
		t.Fatal(err)
	}
	b, err := json.Marshal(body)
	if err != nil {
		t.Fatal(err)
	}
	text := base64.RawURLEncoding.EncodeToString(h) + "." + base64.RawURLEncoding.EncodeToString(b)
	sum := sha256.Sum256([]byte(text))
	sig, err := rsa.SignPKCS1v15(rand.Reader, k, crypto.SHA256, sum[:])
	if err != nil {
		t.Fatal(err)
	}
	return text + "." + base64.RawURLEncoding.EncodeToString(sig)
}

// fakeGoogle is the token endpoint (RFC 7523): it verifies assertions.
type fakeGoogle struct {
	t      *testing.T
	key    *rsa.PublicKey
	scopes []string
	fail   bool
	now    func() time.Time
}

func (f *fakeGoogle) RoundTrip(r *nethttp.Request) (*nethttp.Response, error) {
	answer := func(status int, body string) (*nethttp.Response, error) {
		return &nethttp.Response{StatusCode: status, Header: nethttp.Header{}, Body: io.NopCloser(strings.NewReader(body))}, nil
	}
	b, err := io.ReadAll(r.Body)
	if err != nil {
		return nil, err
	}
	form, err := url.ParseQuery(string(b))
	if err != nil || r.URL.String() != googleToken {
		return answer(400, `{"error":"invalid_request"}`)
	}
	text, sig, _ := cutLast(form.Get("assertion"))
	_, body, _ := strings.Cut(text, ".")
	var c claims
	raw, _ := base64.RawURLEncoding.DecodeString(sig)
	sum := sha256.Sum256([]byte(text))
	if part(body, &c) != nil || rsa.VerifyPKCS1v15(f.key, crypto.SHA256, sum[:], raw) != nil || c.Iss != email || c.Aud != googleToken || c.Exp-c.Iat > 3600 || f.fail {
		return answer(400, `{"error":"invalid_grant","error_description":"Invalid JWT Signature."}`)
	}
	f.scopes = append(f.scopes, c.Scope)
	return answer(200, fmt.Sprintf(`{"access_token":"real-token-%d","expires_in":3599,"token_type":"Bearer"}`, len(f.scopes)))
}

func TestServiceAccount(t *testing.T) {
	real := newAccount(t)
	key, err := NewServiceKey()
	if err != nil {
		t.Fatal(err)
	}
	now := testNow()
	google := &fakeGoogle{t: t, key: &real.key.PublicKey, now: func() time.Time { return now }}
	s := &Signer{Key: key, Now: func() time.Time { return now }, Client: &nethttp.Client{Transport: google}, Active: func(guard.Credential) bool { return true }}
	c := guard.Credential{Name: "gcp", Context: "default", Version: 1, Kind: GoogleKind, User: email, Hosts: []string{"*.googleapis.com"}, Placeholder: "x"}
	wrap := func(r *nethttp.Request) *Request {
		host := broker.CanonicalHost(r.Host)
		return &Request{Request: r, Host: host, Port: 443, TLS: true, Creds: []guard.Credential{c}, Home: func(c guard.Credential) bool { return broker.MatchHost(c.Hosts, host, 443) }}
	}
	var file struct {
		Email string `json:"client_email"`
		Key   string `json:"private_key"`
		Kid   string `json:"private_key_id"`
		Token string `json:"token_uri"`
		ID    string `json:"project_id"`
	}
	if err := json.Unmarshal(key.File(c), &file); err != nil || file.Email != email || file.Token != googleToken || file.ID != "project-1" {
		t.Fatalf("%+v, %v", file, err)
	}
	block, _ := pem.Decode([]byte(file.Key))
	parsed, err := x509.ParsePKCS8PrivateKey(block.Bytes)
	if err != nil {
		t.Fatal(err)
	}
	shown := parsed.(*rsa.PrivateKey)
	if shown.Equal(real.key) {
		t.Fatal("the agent is shown the real key")
	}
	head := func() map[string]any { return map[string]any{"alg": "RS256", "typ": "JWT", "kid": file.Kid} }
	body := func() map[string]any {
		return map[string]any{"iss": email, "aud": googleToken, "scope": allScopes + "devstorage.read_write", "iat": now.Unix(), "exp": now.Unix() + 3600}
	}
	ask := func(a string) (int, map[string]any) {
		t.Helper()
		r := request(t, "POST", googleToken, map[string]string{"Content-Type": "application/x-www-form-urlencoded"}, url.Values{"grant_type": {jwtGrant}, "assertion": {a}}.Encode())
		g := s.Sign(wrap(r))
		if g == nil || g.Reply == nil {
			return 0, nil
		}
		var v map[string]any
		if err := json.Unmarshal(g.Reply.Body, &v); err != nil {
			t.Fatal(err)
		}
		return g.Reply.Status, v
	}
	padded := func(a string) string { // as google-auth for Python writes it
		text, sig, _ := cutLast(a)
		h, b, _ := strings.Cut(text, ".")
		for _, p := range []*string{&h, &b} {
			*p += strings.Repeat("=", (4-len(*p)%4)%4)
		}
		sum := sha256.Sum256([]byte(h + "." + b))
		raw, err := rsa.SignPKCS1v15(rand.Reader, shown, crypto.SHA256, sum[:])
		if err != nil || sig == "" {
			t.Fatal(err)
		}
		return h + "." + b + "." + base64.URLEncoding.EncodeToString(raw)
	}
	if status, v := ask(padded(assertion(t, shown, head(), body()))); status != 200 {
		t.Fatalf("%d %v", status, v)
	}
	status, v := ask(assertion(t, shown, head(), body()))
	token, _ := v["access_token"].(string)
	if status != 200 || !strings.HasPrefix(token, "ya29.guard-") {
		t.Fatalf("%d %v", status, v)
	}
	call := func(url, token string) (*nethttp.Request, *Signing) {
		r := request(t, "GET", url, map[string]string{"Authorization": "Bearer " + token}, "")
		return r, s.Sign(wrap(r))
	}
	use := func() string {
		t.Helper()
		r, g := call("https://storage.googleapis.com/storage/v1/b/x", token)
		if g == nil || g.Refused != nil {
			t.Fatalf("%+v", g)
		}
		if err := g.Apply(r, real.file); err != nil {
			t.Fatal(err)
		}
		return r.Header.Get("Authorization")
	}
	// One token for as long as it lives, for the scopes that were asked for.
	for _, later := range []time.Duration{0, 50 * time.Minute} {
		now = now.Add(later)
		if got := use(); got != "Bearer real-token-1" {
			t.Errorf("%s after %v", got, later)
		}
	}
	now = now.Add(6 * time.Minute)
	if got := use(); got != "Bearer real-token-2" {
		t.Error(got)
	}
	if google.scopes[0] != allScopes+"devstorage.read_write" {
		t.Error(google.scopes)
	}

	set := func(m map[string]any, k string, v any) map[string]any { m[k] = v; return m }
	for name, a := range map[string]string{
		"signed by another key":   assertion(t, real.key, head(), body()),
		"for another endpoint":    assertion(t, shown, head(), set(body(), "aud", "https://evil.test/token")),
		"expired":                 assertion(t, shown, head(), set(set(body(), "iat", now.Unix()-7200), "exp", now.Unix()-3600)),
		"for a day":               assertion(t, shown, head(), set(body(), "exp", now.Unix()+86400)),
		"on behalf of somebody":   assertion(t, shown, head(), set(body(), "sub", "boss@example.test")),
		"of another account":      assertion(t, shown, head(), set(body(), "iss", "other@project-1.iam.gserviceaccount.com")),
		"for an ID token":         assertion(t, shown, head(), set(body(), "target_audience", "https://x.test")),
		"for nothing":             assertion(t, shown, head(), set(body(), "scope", "")),
		"without a signature":     strings.Join(strings.Split(assertion(t, shown, set(head(), "alg", "none"), body()), ".")[:2], ".") + ".",
		"with another algorithm":  assertion(t, shown, set(head(), "alg", "HS256"), body()),
		"with a changed claim":    strings.Replace(assertion(t, shown, head(), body()), ".ey", ".fy", 1),
		"with a changed head":     "e30." + strings.SplitN(assertion(t, shown, head(), body()), ".", 2)[1],
		"with too many signs":     assertion(t, shown, head(), body()) + ".x",
		"of nobody that is known": assertion(t, shown, set(head(), "kid", "x"), set(body(), "iss", "x")),
	} {
		if status, v := ask(a); status == 200 {
			t.Errorf("an assertion %s: %v", name, v)
		}
	}
	for name, c := range map[string]struct{ url, token, rule string }{
		"at somebody else's host":     {"https://evil.test/", token, "placeholder-host"},
		"with a changed token":        {"https://storage.googleapis.com/", token + "x", "gcp-token"},
		"with scopes put in":          {"https://storage.googleapis.com/", strings.Replace(token, "."+base64.RawURLEncoding.EncodeToString([]byte(allScopes+"devstorage.read_write")), "."+base64.RawURLEncoding.EncodeToString([]byte(allScopes+"cloud-platform")), 1), "gcp-token"},
		"a token of another's making": {"https://storage.googleapis.com/", "ya29.guard-" + key.id(c) + ".eA.eA", "gcp-token"},
	} {
		if _, g := call(c.url, c.token); g == nil || g.Refused == nil || g.Refused.Decision.Rule != c.rule {
			t.Errorf("%s: %+v", name, g)
		}
	}
	// What the session is for narrows what is asked for.
	s.Scopes = func(guard.Credential) []policy.Scope { return []policy.Scope{{Verb: "http:read"}} }
	_, v = ask(assertion(t, shown, head(), body()))
	token, _ = v["access_token"].(string)
	use()
	if got := google.scopes[len(google.scopes)-1]; got != allScopes+"devstorage.read_only" {
		t.Error(got)
	}
	c.User = email + ",scopes=bigquery"
	if status, v := ask(assertion(t, shown, head(), body())); status != 400 || v["error"] != "invalid_scope" {
		t.Errorf("%d %v", status, v)
	}
	// A refusal of Google's is said, and never answered with what is stored.
	google.fail = true
	s.Close()
	r, g := call("https://storage.googleapis.com/storage/v1/b/x", token)
	c.User = email
	err = g.Apply(r, real.file)
	if ref, ok := err.(*Refused); !ok || !strings.Contains(ref.Decision.Reason, "status 400, invalid_grant") || strings.Contains(r.Header.Get("Authorization"), "real") {
		t.Errorf("%v", err)
	}
	// A key file that sends the assertion elsewhere is not followed.
	evil := strings.Replace(real.file, googleToken, "https://evil.test/token", 1)
	if err := g.Apply(r, evil); err == nil || !strings.Contains(err.Error(), "token_uri") {
		t.Errorf("%v", err)
	}
}
