package http

import (
	"bytes"
	"compress/gzip"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	nethttp "net/http"
	"net/url"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"guard"
)

// Tokens of the tests. What stands for them is "stands-for-" and a number.
const (
	accessToken  = "real-access-token-value-0001"
	refreshToken = "real-refresh-token-value-002"
)

func jwtToken() string {
	enc := func(s string) string { return base64.RawURLEncoding.EncodeToString([]byte(s)) }
	return enc(`{"alg":"RS256","typ":"JWT"}`) + "." + enc(`{"sub":"someone","exp":4102444800}`) + "." + enc("a signature of the real token")
}

type kept struct {
	mu     sync.Mutex
	issues []Issue
	values []string
	broken bool
}

// issuingEnv keeps what is given out; login is the host at which that is allowed.
func issuingEnv(t *testing.T, login string) (*env, *kept) {
	k := &kept{}
	e := newEnv(t, func(e *env, c *Config) {
		e.creds = append(e.creds, guard.Credential{Name: "client", Context: "default", Version: 1, Hosts: []string{"login.test"}, Placeholder: "placeholder-of-a-client-secret", In: []guard.Position{{Place: "basic"}, {Place: "form", Name: "client_secret"}}})
		get := c.Line.Value
		c.Line.Value = func(id guard.SecretID) (guard.Secret, error) {
			if id.Name == "client" {
				return guard.NewSecret([]byte("the-real-secret-of-a-client-00")), nil
			}
			return get(id)
		}
		c.Issuing = Issuing{
			Allow: func(u guard.Use) guard.Decision {
				if u.Host == login {
					return guard.Decision{Action: guard.Pass, Rule: "flag --allow-login"}
				}
				return guard.Decision{Action: guard.Block, Rule: u.Action, Reason: "not allowed"}
			},
			Store: func(i Issue) ([]string, error) {
				k.mu.Lock()
				defer k.mu.Unlock()
				if k.broken {
					return nil, errors.New("full")
				}
				var out []string
				for _, tok := range i.Tokens {
					k.values = append(k.values, string(tok.Value.Reveal()))
					out = append(out, fmt.Sprintf("stands-for-%d", len(k.values)))
				}
				k.issues = append(k.issues, i)
				return out, nil
			},
		}
		c.Scrub = func([]guard.SecretID) guard.Filter {
			k.mu.Lock()
			defer k.mu.Unlock()
			m := map[string]string{"the-real-secret-of-a-client-00": "placeholder-of-a-client-secret"}
			for _, v := range k.values {
				m[v] = ""
			}
			return search(guard.Redact, m, nil)
		}
	})
	return e, k
}

func (k *kept) has(v string) bool {
	k.mu.Lock()
	defer k.mu.Unlock()
	return slices.Contains(k.values, v)
}

func gz(s string) string {
	var b bytes.Buffer
	z := gzip.NewWriter(&b)
	io.WriteString(z, s)
	z.Close()
	return b.String()
}

const codeGrant = "grant_type=authorization_code&code=x&client_id=tool"

// TestTokensDoNotReachTheAgent has an authorization server that answers in every
// way that it may, and some in which it should not.
func TestTokensDoNotReachTheAgent(t *testing.T) {
	e, k := issuingEnv(t, "login.test")
	reply := func(nethttp.ResponseWriter, *nethttp.Request) {}
	e.upstream("login.test", 443, nethttp.HandlerFunc(func(w nethttp.ResponseWriter, r *nethttp.Request) {
		io.Copy(io.Discard, r.Body)
		reply(w, r)
	}))
	jwt := jwtToken()
	flat := `{"access_token":"` + accessToken + `","token_type":"Bearer","expires_in":60,"refresh_token":"` + refreshToken + `"}`
	text := func(status int, kind, body string, h ...string) func(nethttp.ResponseWriter, *nethttp.Request) {
		return func(w nethttp.ResponseWriter, _ *nethttp.Request) {
			if kind != "" {
				w.Header().Set("Content-Type", kind)
			}
			for i := 0; i+1 < len(h); i += 2 {
				w.Header().Set(h[i], h[i+1])
			}
			w.WriteHeader(status)
			io.WriteString(w, body)
		}
	}
	for name, tt := range map[string]struct {
		reply  func(nethttp.ResponseWriter, *nethttp.Request)
		status int    // what the agent gets; 0: the upstream's, 200
		want   string // in the body; "": stands-for-
	}{
		"json":                  {reply: text(200, "application/json", flat)},
		"json as text":          {reply: text(200, "text/plain", flat)},
		"json of no type":       {reply: text(200, "application/octet-stream", flat)},
		"json with a mark":      {reply: text(200, "application/json", "\xef\xbb\xbf"+flat)},
		"in camel case":         {reply: text(200, "application/json", `{"accessToken":"`+accessToken+`"}`)},
		"escaped":               {reply: text(200, "application/json", `{"\u0061ccess_token":"\u0072`+accessToken[1:]+`"}`)},
		"nested":                {reply: text(200, "application/json", `{"ok":true,"authed_user":{"tokens":[{"access_token":"`+accessToken+`"}]}}`)},
		"twice":                 {reply: text(200, "application/json", `{"access_token":"x-other-value","access_token":"`+accessToken+`","note":"it is `+accessToken+`"}`)},
		"a jwt under any name":  {reply: text(200, "application/json", `{"access_token":"`+accessToken+`","session":"`+jwt+`"}`)},
		"a form":                {reply: text(200, "application/x-www-form-urlencoded", "access_token="+accessToken+"&scope=a%2Cb&token_type=bearer")},
		"a form as text":        {reply: text(200, "text/plain", "access_token="+accessToken+"&token_type=bearer")},
		"gzip":                  {reply: text(200, "application/json", gz(flat), "Content-Encoding", "gzip")},
		"gzip twice":            {reply: text(200, "application/json", gz(gz(flat)), "Content-Encoding", "gzip, gzip")},
		"an error with a token": {reply: text(400, "application/json", `{"error":"odd","access_token":"`+accessToken+`"}`), status: 400},
		"in a header too":       {reply: text(200, "application/json", flat, "X-Token", accessToken)},
		"in chunks": {reply: func(w nethttp.ResponseWriter, _ *nethttp.Request) {
			w.Header().Set("Content-Type", "application/json")
			for _, c := range flat {
				io.WriteString(w, string(c))
				w.(nethttp.Flusher).Flush()
			}
		}},
		"in a trailer": {reply: func(w nethttp.ResponseWriter, _ *nethttp.Request) {
			w.Header().Set("Content-Type", "application/json")
			w.Header().Set("Trailer", "X-Token")
			io.WriteString(w, flat)
			w.Header().Set("X-Token", accessToken)
		}},
		"html":             {reply: text(200, "text/html", "<html><p>your token: "+accessToken+"<br></html>"), status: 502, want: "token-reply"},
		"html as error":    {reply: text(500, "text/html", "<html><p>your token: "+accessToken+"<br></html>"), status: 500, want: "withheld"},
		"two values":       {reply: text(200, "application/json", flat+"\n"+flat), status: 502, want: "token-reply"},
		"half":             {reply: text(200, "application/json", flat[:len(flat)-1]), status: 502, want: "token-reply"},
		"a prefix":         {reply: text(200, "application/json", ")]}',\n"+flat), status: 502, want: "token-reply"},
		"utf-16":           {reply: text(200, "application/json; charset=utf-16", strings.Join(strings.Split(flat, ""), "\x00")), status: 502, want: "token-reply"},
		"another coding":   {reply: text(200, "application/json", gz(flat), "Content-Encoding", "x-own"), status: 502, want: "token-reply"},
		"no gzip":          {reply: text(200, "application/json", flat, "Content-Encoding", "gzip"), status: 502, want: "token-reply"},
		"gzip and more":    {reply: text(200, "application/json", gz(flat)+flat, "Content-Encoding", "gzip"), status: 502, want: "token-reply"},
		"too much":         {reply: text(200, "application/json", `{"access_token":"`+accessToken+`","x":"`+strings.Repeat("x", maxIssued)+`"}`), status: 502, want: "token-reply"},
		"protobuf":         {reply: text(200, "application/x-protobuf", "\x0a\x1c"+accessToken), status: 502, want: "token-reply"},
		"in a redirect":    {reply: text(302, "", "", "Location", "http://127.0.0.1/cb#access_token="+accessToken+"&state=x"), status: 302},
		"in its query":     {reply: text(302, "", "", "Location", "http://127.0.0.1/cb?access_token="+accessToken), status: 302},
		"in its own route": {reply: text(302, "", "", "Location", "http://127.0.0.1/#/cb?id_token="+jwt), status: 302},
	} {
		for _, h2 := range []bool{false, true} {
			reply = tt.reply
			k.mu.Lock()
			k.values, k.issues = nil, nil
			k.mu.Unlock()
			res, body := do(t, e.client("login.test", 443, h2), "POST", "https://login.test/token", strings.NewReader(codeGrant), "Content-Type", "application/x-www-form-urlencoded", "Accept-Encoding", "gzip")
			if tt.status == 0 {
				tt.status = 200
			}
			all := body + fmt.Sprint(res.Header, res.Trailer)
			for _, v := range []string{accessToken, refreshToken, jwt, jwt[len(jwt)-20:]} {
				if strings.Contains(all, v) || strings.Contains(strings.ReplaceAll(all, "\x00", ""), v) {
					t.Errorf("%s (h2 %v): the agent got it: %s", name, h2, all)
				}
			}
			if tt.want == "" {
				tt.want = "stands-for-1"
			}
			if res.StatusCode != tt.status || !strings.Contains(all, tt.want) {
				t.Errorf("%s (h2 %v): status %d, want %d and %q: %s", name, h2, res.StatusCode, tt.status, tt.want, all)
			}
			if tt.want == "stands-for-1" && !k.has(accessToken) && !k.has(jwt) {
				t.Errorf("%s: nothing was kept", name)
			}
		}
	}
}

// TestWhoMayLogIn tries to have tokens where it is not allowed.
func TestWhoMayLogIn(t *testing.T) {
	e, k := issuingEnv(t, "elsewhere.test")
	asked := 0
	e.upstream("login.test", 443, nethttp.HandlerFunc(func(w nethttp.ResponseWriter, r *nethttp.Request) {
		io.Copy(io.Discard, r.Body)
		asked++
		w.Header().Set("Content-Type", "application/json")
		io.WriteString(w, `{"access_token":"`+accessToken+`","token_type":"Bearer"}`)
	}))
	form := "application/x-www-form-urlencoded"
	multi := "--X\r\nContent-Disposition: form-data; name=\"grant_type\"\r\n\r\nauthorization_code\r\n--X--\r\n"
	for name, tt := range map[string]struct {
		method, path, kind, body string
		h                        []string
	}{
		"a form":                {"POST", "/token", form, codeGrant, nil},
		"at another path":       {"POST", "/anything", form, codeGrant, nil},
		"a form as text":        {"POST", "/anything", "text/plain", codeGrant, nil},
		"a form of no type":     {"POST", "/anything", "", codeGrant, nil},
		"json":                  {"POST", "/anything", "application/json", `{"grant_type":"client_credentials"}`, nil},
		"json, escaped":         {"POST", "/anything", "application/json", `{"\u0067rant_type":"refresh_token"}`, nil},
		"json as text":          {"POST", "/anything", "text/plain", ` {"grantType":"password"}`, nil},
		"multipart":             {"POST", "/anything", "multipart/form-data; boundary=X", multi, nil},
		"in the query":          {"POST", "/anything?grant_type=password", "", "", nil},
		"a GET":                 {"GET", "/anything?grant_type=password", "", "", nil},
		"OPTIONS":               {"OPTIONS", "/anything", form, codeGrant, nil},
		"PUT":                   {"PUT", "/token", form, codeGrant, nil},
		"escaped names":         {"POST", "/anything", form, "%67rant_type=authorization%5Fcode", nil},
		"gzip":                  {"POST", "/anything", form, gz(codeGrant), []string{"Content-Encoding", "gzip"}},
		"a device":              {"POST", "/anything", form, "grant_type=urn:ietf:params:oauth:grant-type:device_code&device_code=x", nil},
		"an exchange":           {"POST", "/anything", form, "grant_type=urn%3Aietf%3Aparams%3Aoauth%3Agrant-type%3Atoken-exchange", nil},
		"two grants":            {"POST", "/anything", form, "grant_type=none&grant_type=password", nil},
		"no grant, by path":     {"POST", "/oauth/access_token", form, "code=x", nil},
		"no grant, no path":     {"POST", "/session", "application/json", `{"user":"x"}`, nil},
		"a method that is none": {"PURGE", "/anything", form, codeGrant, nil},
	} {
		for _, h2 := range []bool{false, true} {
			h := tt.h
			if tt.kind != "" {
				h = append([]string{"Content-Type", tt.kind}, h...)
			}
			res, body := do(t, e.client("login.test", 443, h2), tt.method, "https://login.test"+tt.path, strings.NewReader(tt.body), h...)
			if strings.Contains(body, accessToken) || res.StatusCode != 403 {
				t.Errorf("%s (h2 %v): %d %s", name, h2, res.StatusCode, body)
				continue
			}
			wantDenied(t, res, body, 403, "credential", "token:login")
		}
	}
	if len(k.values) > 0 {
		t.Error("something was kept")
	}
	// What only may be a login is sent, and what it brings withheld.
	if asked != 4 {
		t.Errorf("%d requests arrived, want the 4 without a grant", asked)
	}
	// A client's secret is allowed by the use line, with the action's name.
	c := e.client("login.test", 443, true)
	e.deny["token:login"] = true
	res, body := do(t, c, "POST", "https://login.test/token", strings.NewReader("grant_type=client_credentials&client_secret=placeholder-of-a-client-secret"), "Content-Type", form)
	wantDenied(t, res, body, 403, "credential", "default-deny")
	delete(e.deny, "token:login")
	res, body = do(t, c, "POST", "https://login.test/token", strings.NewReader("grant_type=client_credentials&client_secret=placeholder-of-a-client-secret"), "Content-Type", form)
	if res.StatusCode != 200 || strings.Contains(body, accessToken) || len(k.issues) != 1 || len(k.issues[0].Parents) != 1 || k.issues[0].Client.Get("client_secret") != "placeholder-of-a-client-secret" {
		t.Errorf("%d %s %+v", res.StatusCode, body, k.issues)
	}
	// A reply that cannot be kept is withheld.
	k.broken = true
	res, body = do(t, c, "POST", "https://login.test/token", strings.NewReader("grant_type=client_credentials&client_secret=placeholder-of-a-client-secret"), "Content-Type", form)
	wantDenied(t, res, body, 502, "upstream", "token-store")
}

// TestOrdinaryRepliesPass holds that nothing else is taken for a login.
func TestOrdinaryRepliesPass(t *testing.T) {
	e, k := issuingEnv(t, "")
	bodies := map[string]string{
		"/token/verify":  `{"ok":true,"scope":"all"}`,
		"/tokens":        `{"tokens":[{"id":1,"name":"x"}]}`,
		"/v2/token":      `{"error":"authorization_pending"}`,
		"/code":          `{"text":"set grant_type=authorization_code and read access_token"}`,
		"/oauth":         `not json at all: access_token=` + accessToken,
		"/stream":        strings.Repeat(`{"a":"b"}`+"\n", 10000),
		"/registry":      `{"token":"anonymous-token-of-a-registry"}`,
		"/token?scope=x": `{"token":"anonymous-token-of-a-registry"}`,
	}
	e.upstream("app.test", 443, nethttp.HandlerFunc(func(w nethttp.ResponseWriter, r *nethttp.Request) {
		io.Copy(io.Discard, r.Body)
		w.Header().Set("Content-Type", "application/json")
		io.WriteString(w, bodies[r.URL.RequestURI()])
	}))
	for path, want := range bodies {
		method := "POST"
		if strings.Contains(path, "?") {
			method = "GET" // anyone gets it
		}
		res, body := do(t, e.client("app.test", 443, true), method, "https://app.test"+path, strings.NewReader(`{"text":"grant_type=password"}`), "Content-Type", "application/json")
		if res.StatusCode != 200 || body != want {
			t.Errorf("%s: %d %.80q", path, res.StatusCode, body)
		}
	}
	if len(k.issues) > 0 {
		t.Errorf("%d replies were taken for a login", len(k.issues))
	}
}

func TestMintRequests(t *testing.T) {
	rules, err := parseIssuers(issuersText)
	if err != nil || len(rules) < 80 {
		t.Fatalf("%d rules, %v", len(rules), err)
	}
	p := &Proxy{issuers: rules}
	for _, tt := range []struct{ method, host, target, body, want string }{
		{"POST", "api.github.com", "/user/keys", "{}", "github-ssh-key"},
		{"POST", "api.github.com", "/User//keys/", "{}", "github-ssh-key"},
		{"POST", "api.github.com", "/user/./x/../keys", "{}", "github-ssh-key"},
		{"POST", "api.github.com", "/user/keys.json", "{}", "github-ssh-key"},
		{"POST", "api.github.com", "/user;a=b/keys;c", "{}", "github-ssh-key"},
		{"GET", "api.github.com", "/user/keys", "", ""},
		{"POST", "api.github.com", "/repos/a/b/keys", "{}", "github-deploy-key"},
		{"POST", "api.github.com", "/repos/a/b/issues", "{}", ""},
		{"POST", "api.github.com", "/app/installations/7/access_tokens", "", "github-app-token"},
		{"POST", "git.corp.example", "/api/v3/app/installations/7/access_tokens", "", "ghes-app-token"},
		{"PUT", "gitlab.com", "/api/v4/projects/a/b/access_tokens/7/rotate", "", "gitlab-token"},
		{"POST", "gitlab.example", "/api/v4/users/7/personal_access_tokens", "", "gitlab-token"},
		{"POST", "gitlab.com", "/api/v4/projects/7/deploy_tokens", "", "gitlab-deploy"},
		{"POST", "gitlab.com", "/api/v4/projects/7/issues", "", ""},
		{"POST", "iam.amazonaws.com", "/", "Action=CreateAccessKey&Version=2010-05-08", "aws-iam"},
		{"GET", "iam.amazonaws.com", "/?Action=CreateAccessKey", "", "aws-iam"},
		{"POST", "sts.eu-west-1.amazonaws.com", "/", "Version=1&Action=AssumeRole", "aws-sts"},
		{"POST", "iam.amazonaws.com", "/", "Action=ListUsers", ""},
		{"POST", "iam.googleapis.com", "/v1/projects/p/serviceAccounts/a@b/keys", "{}", "gcp-key"},
		{"POST", "iamcredentials.googleapis.com", "/v1/projects/-/serviceAccounts/a@b:generateAccessToken", "{}", "gcp-token"},
		{"POST", "graph.microsoft.com", "/v1.0/applications/7/addPassword", "{}", "azure-password"},
		{"POST", "k8s.corp.example", "/api/v1/namespaces/n/serviceaccounts/s/token", "{}", "kube-token"},
		{"POST", "registry.npmjs.org", "/-/npm/v1/tokens", "{}", "npm-token"},
		{"POST", "api.cloudflare.com", "/client/v4/user/tokens", "{}", "cloudflare-token"},
		{"POST", "api.cloudflare.com", "/client/v4/accounts/7/tokens", "{}", "cloudflare-token"},
	} {
		kind := "application/json"
		if strings.Contains(tt.body, "=") {
			kind = "application/x-www-form-urlencoded"
		}
		r, err := nethttp.NewRequest(tt.method, "https://"+tt.host+tt.target, strings.NewReader(tt.body))
		if err != nil {
			t.Fatal(err)
		}
		r.Header.Set("Content-Type", kind)
		x := &exchange{p: p, in: r, method: tt.method, path: r.URL.Path, meta: meta{host: tt.host, port: 443, tls: true}}
		x.view = p.view(&book{views: map[dest]*view{}}, x.dest())
		if err := x.classify(); err != nil {
			t.Fatal(err)
		}
		got := ""
		if x.issue != nil && x.issue.sure {
			got = x.issue.rule
			if x.issue.action != "token:mint" {
				t.Errorf("%s%s: %s", tt.host, tt.target, x.issue.action)
			}
		}
		if got != tt.want {
			t.Errorf("%s %s%s: %q, want %q", tt.method, tt.host, tt.target, got, tt.want)
		}
	}
	xml := `<R><C a="b"><AccessKeyId>AKIAEXAMPLEID</AccessKeyId><SecretAccessKey> real-secret&amp;key </SecretAccessKey></C></R>`
	is := &issue{fields: []string{"secretaccesskey"}, sure: true}
	found, err := (&exchange{}).findTokens([]byte(xml), is)
	if err != nil || len(found) != 1 || found[0].text != "real-secret&key" {
		t.Fatalf("%v %v", found, err)
	}
	out, err := rewriteTokens([]byte(xml), is, put(found, []string{"stands<for"}))
	if err != nil || string(out) != `<R><C a="b"><AccessKeyId>AKIAEXAMPLEID</AccessKeyId><SecretAccessKey>stands&lt;for</SecretAccessKey></C></R>` {
		t.Errorf("%s %v", out, err)
	}
}

func TestWhereTokensMayGo(t *testing.T) {
	rules, err := parseIssuers(issuersText)
	if err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct {
		host string
		port int
		want string
	}{
		{"login.example.com", 443, "login.example.com,example.com,*.example.com"},
		{"example.co.uk", 443, "example.co.uk,*.example.co.uk"},
		{"someone.github.io", 443, "someone.github.io,*.someone.github.io"},
		{"github.io", 443, "github.io"},
		{"co.uk", 443, "co.uk"},
		{"localhost", 8443, "localhost:8443"},
		{"192.0.2.1", 443, "192.0.2.1"},
		{"github.com", 443, "api.github.com,github.com,uploads.github.com"},
	} {
		x := &exchange{p: &Proxy{issuers: rules}, meta: meta{host: tt.host, port: tt.port, tls: true}}
		if got := strings.Join(x.issuedHosts(), ","); got != tt.want {
			t.Errorf("%s:%d: %s", tt.host, tt.port, got)
		}
	}
}

func TestLoginsAreToldApart(t *testing.T) {
	a := func(id string, form url.Values, tokens ...issued) string {
		return account(&issue{client: url.Values{"client_id": {id}}, form: form}, tokens)
	}
	sub := func(s string) issued {
		return issued{"idtoken", "eyJhIjoxfQ." + base64.RawURLEncoding.EncodeToString([]byte(`{"sub":"`+s+`"}`)) + ".x"}
	}
	all := []string{a("one", nil), a("two", nil), a("one", nil, sub("x")), a("one", nil, sub("y")), a("one", url.Values{"username": {"u"}}),
		a("one", url.Values{"granttype": {"client_credentials"}, "scope": {"a"}}), a("one", url.Values{"granttype": {"client_credentials"}, "scope": {"b"}})}
	for i, v := range all {
		if slices.Index(all, v) != i || len(v) != 6 {
			t.Errorf("login %d is called %s, as another", i, v)
		}
	}
	if a("one", nil, sub("x")) != all[2] {
		t.Error("the same login has two names")
	}
	if lifetime([]byte(`{"expires_in":"60"}`)) != time.Minute || lifetime([]byte("access_token=x&expires_in=60")) != time.Minute || lifetime([]byte(`{"expires_in":-1}`)) != 0 {
		t.Error("expires_in")
	}
}

// TestDecoyIsRefusedAtItsOwnHost goes by the broker's own search: the leak line of
// these tests does not know it.
func TestDecoyIsRefusedAtItsOwnHost(t *testing.T) {
	const decoy = "ghp_DECOYdecoyDECOYdecoyDECOYdecoy001234"
	e := newEnv(t, func(e *env, _ *Config) {
		e.creds = append(e.creds, guard.Credential{Name: "bait", Context: "default", Version: 1, Hosts: []string{"api.test"}, Placeholder: decoy, Decoy: true})
	})
	s := &seen{}
	e.upstream("api.test", 443, s)
	e.upstream("other.test", 443, s)
	e.upstream("api.openai.com", 443, s)
	for _, host := range []string{"api.test", "other.test"} {
		c := e.client(host, 443, true)
		for name, tt := range map[string]struct {
			path, body string
			h          []string
		}{
			"header": {"/", "", []string{"Authorization", "Bearer " + decoy}}, "basic": {"/", "", []string{"Authorization", "Basic " + base64.StdEncoding.EncodeToString([]byte("u:"+decoy))}},
			"query": {"/?q=" + decoy, "", nil}, "path": {"/" + decoy, "", nil}, "body": {"/", strings.Repeat("x", 40000) + decoy, nil}, "another header": {"/", "", []string{"X-Note", decoy}},
		} {
			res, body := do(t, c, "POST", "https://"+host+tt.path, strings.NewReader(tt.body), tt.h...)
			if t.Run(name, func(t *testing.T) { wantDenied(t, res, body, 403, "credential", "decoy") }); len(e.refused) == 0 || e.refused[len(e.refused)-1].Rule != "decoy" {
				t.Errorf("%s %s: not recorded", host, name)
			}
		}
	}
	if len(e.uses) > 0 || s.completed() > 0 {
		t.Errorf("%d uses, %d requests arrived", len(e.uses), s.completed())
	}
	if res, body := do(t, e.client("api.openai.com", 443, true), "POST", "https://api.openai.com/v1/x", strings.NewReader(decoy)); res.StatusCode != 200 {
		t.Errorf("a model may see it: %d %s", res.StatusCode, body)
	}
}

// TestAgentsOwnLogins: an agent renews what it holds already; a first login of it
// is one like any other, and where logins are allowed both are kept.
func TestAgentsOwnLogins(t *testing.T) {
	const host = "console.anthropic.com"
	for _, allowed := range []bool{false, true} {
		login := ""
		if allowed {
			login = host
		}
		e, k := issuingEnv(t, login)
		e.upstream(host, 443, nethttp.HandlerFunc(func(w nethttp.ResponseWriter, r *nethttp.Request) {
			io.Copy(io.Discard, r.Body)
			w.Header().Set("Content-Type", "application/json")
			io.WriteString(w, `{"access_token":"`+accessToken+`"}`)
		}))
		c := e.client(host, 443, true)
		res, body := do(t, c, "POST", "https://"+host+"/v1/oauth/token", strings.NewReader(`{"grant_type":"refresh_token","refresh_token":"one that guard does not know"}`), "Content-Type", "application/json")
		if res.StatusCode != 200 || strings.Contains(body, accessToken) == allowed || k.has(accessToken) != allowed {
			t.Errorf("allowed %v: a refresh: %d %s", allowed, res.StatusCode, body)
		}
		res, body = do(t, c, "POST", "https://"+host+"/v1/oauth/token", strings.NewReader(`{"grant_type":"authorization_code","code":"x"}`), "Content-Type", "application/json")
		if (res.StatusCode == 200) != allowed || strings.Contains(body, accessToken) {
			t.Errorf("allowed %v: a login: %d %s", allowed, res.StatusCode, body)
		}
	}
}
