package main

import (
	"bufio"
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"guard/internal/testutil"
	"guard/vault"
)

// oddIssuer is an issuer that answers as a test says: the honest one is in the scripts.
type oddIssuer struct {
	*httptest.Server
	mu     sync.Mutex
	meta   map[string]any
	device map[string]any
	token  func(form url.Values) (int, map[string]any)
	asked  []url.Values // at the token endpoint
}

func newOddIssuer(t *testing.T) *oddIssuer {
	o := &oddIssuer{}
	mux := http.NewServeMux()
	answer := func(w http.ResponseWriter, status int, v any) {
		w.Header().Set("Content-Type", "application/json")
		w.WriteHeader(status)
		json.NewEncoder(w).Encode(v)
	}
	mux.HandleFunc("/.well-known/openid-configuration", func(w http.ResponseWriter, _ *http.Request) { answer(w, 200, o.meta) })
	mux.HandleFunc("POST /device", func(w http.ResponseWriter, _ *http.Request) { answer(w, 200, o.device) })
	mux.HandleFunc("POST /token", func(w http.ResponseWriter, r *http.Request) {
		r.ParseForm()
		o.mu.Lock()
		o.asked = append(o.asked, r.PostForm)
		o.mu.Unlock()
		status, v := o.token(r.PostForm)
		answer(w, status, v)
	})
	o.Server = httptest.NewServer(mux)
	t.Cleanup(o.Close)
	o.meta = map[string]any{"issuer": o.URL, "authorization_endpoint": o.URL + "/auth", "token_endpoint": o.URL + "/token", "device_authorization_endpoint": o.URL + "/device",
		"code_challenge_methods_supported": []string{"S256"}, "authorization_response_iss_parameter_supported": true}
	o.device = map[string]any{"device_code": "the-device-code", "user_code": "ABCD-EFGH", "verification_uri": o.URL + "/activate", "interval": 5, "expires_in": 900}
	return o
}

func (o *oddIssuer) idToken(nonce string, change func(map[string]any)) string {
	c := map[string]any{"iss": o.URL, "aud": "cli", "exp": time.Now().Add(time.Hour).Unix(), "nonce": nonce}
	if change != nil {
		change(c)
	}
	b, _ := json.Marshal(c)
	return "e30." + base64.RawURLEncoding.EncodeToString(b) + ".c2ln"
}

// loginTest is a login whose words can be read.
type loginTest struct {
	*login
	lines *bufio.Scanner
	done  func()
}

func startLogin(t *testing.T, o *oddIssuer, scopes ...string) *loginTest {
	t.Helper()
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	a := &app{stdin: os.Stdin, stdout: w, stderr: w, getenv: func(string) string { return "" }}
	l, err := a.newLogin(t.Context(), vault.Service{Name: "x", Title: "x", Issuer: o.URL, Scopes: scopes}, loginFlags{clientID: "cli", noBrowser: true})
	if err != nil {
		t.Fatal(err)
	}
	lt := &loginTest{login: l, lines: bufio.NewScanner(r), done: func() { l.close(); w.Close(); r.Close() }}
	t.Cleanup(lt.done)
	return lt
}

// address waits for the address that the user is to open.
func (l *loginTest) address(t *testing.T) *url.URL {
	t.Helper()
	for l.lines.Scan() {
		if s, ok := strings.CutPrefix(l.lines.Text(), "guard: log in at "); ok {
			u, err := url.Parse(s)
			if err != nil {
				t.Fatal(err)
			}
			return u
		}
	}
	t.Fatal("no address was shown")
	return nil
}

// back is the browser that comes back with q.
func back(t *testing.T, redirect string, q url.Values) (int, string) {
	t.Helper()
	c := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
	resp, err := c.Get(redirect + "?" + q.Encode())
	if err != nil {
		return 0, ""
	}
	defer resp.Body.Close()
	b, _ := io.ReadAll(resp.Body)
	return resp.StatusCode, string(b)
}

type loginResult struct {
	t   tokens
	err error
}

func (l *loginTest) code(ctx context.Context) <-chan loginResult {
	c := make(chan loginResult, 1)
	go func() {
		t, err := l.codeFlow(ctx)
		c <- loginResult{t, err}
	}()
	return c
}

func TestLoginByCode(t *testing.T) {
	good := testutil.Random(40)
	for name, c := range map[string]struct {
		scopes []string
		back   func(o *oddIssuer, q, honest url.Values) // changes what the browser brings
		id     func(map[string]any)
		reply  func(map[string]any)
		want   string // of the error; "": it works
		asked  bool   // the token endpoint
	}{
		"honest":                    {scopes: []string{"openid"}, asked: true},
		"no openid":                 {scopes: []string{"api"}, asked: true},
		"another issuer's answer":   {scopes: []string{"api"}, back: func(_ *oddIssuer, q, _ url.Values) { q.Set("iss", "https://evil.example.com") }, want: "does not come from"},
		"an answer without issuer":  {scopes: []string{"api"}, back: func(_ *oddIssuer, q, _ url.Values) { q.Del("iss") }, want: "does not come from"},
		"refused":                   {scopes: []string{"api"}, back: func(_ *oddIssuer, q, _ url.Values) { q.Del("code"); q.Set("error", "access_denied") }, want: "refused: access_denied"},
		"error that draws":          {scopes: []string{"api"}, back: func(_ *oddIssuer, q, _ url.Values) { q.Del("code"); q.Set("error", "x\x1b]0;y\x07") }, want: `x\x1b]0;y\a`},
		"no code":                   {scopes: []string{"api"}, back: func(_ *oddIssuer, q, _ url.Values) { q.Del("code") }, want: "without a code"},
		"another login's nonce":     {scopes: []string{"openid"}, id: func(m map[string]any) { m["nonce"] = "other" }, want: "nonce is another login's", asked: true},
		"no nonce":                  {scopes: []string{"openid"}, id: func(m map[string]any) { delete(m, "nonce") }, want: "nonce is another login's", asked: true},
		"ID token of another":       {scopes: []string{"openid"}, id: func(m map[string]any) { m["iss"] = "https://evil.example.com" }, want: "another issuer made it", asked: true},
		"ID token for another":      {scopes: []string{"openid"}, id: func(m map[string]any) { m["aud"] = "other" }, want: "for another client", asked: true},
		"ID token for two":          {scopes: []string{"openid"}, id: func(m map[string]any) { m["aud"] = []string{"cli", "other"} }, want: "for another client", asked: true},
		"ID token that ended":       {scopes: []string{"openid"}, id: func(m map[string]any) { m["exp"] = 1 }, want: "has ended", asked: true},
		"no ID token":               {scopes: []string{"openid"}, reply: func(m map[string]any) { delete(m, "id_token") }, want: "there is none", asked: true},
		"no access token":           {scopes: []string{"api"}, reply: func(m map[string]any) { delete(m, "access_token") }, want: "without an access token", asked: true},
		"a token of another type":   {scopes: []string{"api"}, reply: func(m map[string]any) { m["token_type"] = "DPoP" }, want: "type \"DPoP\"", asked: true},
		"an error with 200":         {scopes: []string{"api"}, reply: func(m map[string]any) { m["error"] = "bad_verification_code" }, want: "refused: bad_verification_code", asked: true},
		"an ID token that was sent": {scopes: []string{"api"}, id: func(m map[string]any) { m["aud"] = "other" }, want: "for another client", asked: true},
	} {
		t.Run(name, func(t *testing.T) {
			o := newOddIssuer(t)
			var sent url.Values
			o.token = func(f url.Values) (int, map[string]any) {
				if f.Get("code") != "the-code" || f.Get("client_id") != "cli" || f.Get("redirect_uri") != sent.Get("redirect_uri") || len(f.Get("code_verifier")) < 43 || f.Get("grant_type") != "authorization_code" {
					return 400, map[string]any{"error": "invalid_grant"}
				}
				m := map[string]any{"access_token": good, "token_type": "Bearer", "expires_in": 3600, "refresh_token": "refresh-" + good, "id_token": o.idToken(sent.Get("nonce"), c.id)}
				if c.id == nil && c.scopes[0] != "openid" {
					delete(m, "id_token")
				}
				if c.reply != nil {
					c.reply(m)
				}
				return 200, m
			}
			l := startLogin(t, o, c.scopes...)
			got := l.code(t.Context())
			at := l.address(t)
			sent = at.Query()
			if sent.Get("code_challenge_method") != "S256" || len(sent.Get("state")) < 43 || !strings.HasPrefix(sent.Get("redirect_uri"), "http://127.0.0.1:") {
				t.Errorf("asked for %v", sent)
			}
			q := url.Values{"code": {"the-code"}, "state": {sent.Get("state")}, "iss": {o.URL}}
			// What is not of this login changes nothing, whoever sends it.
			for what, wrong := range map[string]url.Values{
				"state": {"code": {"evil"}, "state": {"guessed"}, "iss": {o.URL}}, "no state": {"code": {"evil"}}, "error": {"error": {"access_denied"}},
				"two codes": {"code": {"evil", "the-code"}, "state": {sent.Get("state")}},
			} {
				if status, _ := back(t, sent.Get("redirect_uri"), wrong); status != http.StatusBadRequest {
					t.Errorf("%s: answered %d", what, status)
				}
			}
			if status, _ := back(t, strings.Replace(sent.Get("redirect_uri"), callbackPath, "/other", 1), q); status != http.StatusNotFound {
				t.Errorf("another path: answered %d", status)
			}
			if c.back != nil {
				c.back(o, q, q)
			}
			status, page := back(t, sent.Get("redirect_uri"), q)
			r := <-got
			if strings.Contains(page, "the-code") {
				t.Error("the page shows the code")
			}
			// The same answer once more finds nobody.
			if again, _ := back(t, sent.Get("redirect_uri"), q); again == http.StatusOK {
				t.Error("the answer was taken twice")
			}
			if (len(o.asked) > 0) != c.asked || len(o.asked) > 1 {
				t.Errorf("the token endpoint was asked %d times", len(o.asked))
			}
			if c.want == "" {
				if r.err != nil || status != http.StatusOK || string(r.t.access.Reveal()) != good || r.t.lifetime != time.Hour || r.t.refresh.Len() == 0 {
					t.Errorf("status %d: %v", status, r.err)
				}
				return
			}
			if r.err == nil || !strings.Contains(r.err.Error(), c.want) {
				t.Errorf("error %v, want %q", r.err, c.want)
			}
			if r.err != nil && (strings.Contains(r.err.Error(), "the-code") || strings.Contains(r.err.Error(), good)) {
				t.Error("the error shows a code or a token")
			}
		})
	}
}

func TestLoginByDevice(t *testing.T) {
	good := testutil.Random(40)
	fine := map[string]any{"access_token": good, "token_type": "bearer"}
	refuse := func(code string) func() (int, map[string]any) {
		return func() (int, map[string]any) { return 400, map[string]any{"error": code} }
	}
	ok := func() (int, map[string]any) { return 200, fine }
	for name, c := range map[string]struct {
		device  func(o *oddIssuer, m map[string]any)
		replies []func() (int, map[string]any)
		waits   []int // seconds
		want    string
	}{
		"at once":        {replies: []func() (int, map[string]any){ok}, waits: []int{5}},
		"pending, then":  {replies: []func() (int, map[string]any){refuse("authorization_pending"), refuse("authorization_pending"), ok}, waits: []int{5, 5, 5}},
		"slow down":      {replies: []func() (int, map[string]any){refuse("slow_down"), refuse("authorization_pending"), refuse("slow_down"), ok}, waits: []int{5, 10, 10, 15}},
		"no interval":    {device: func(_ *oddIssuer, m map[string]any) { delete(m, "interval") }, replies: []func() (int, map[string]any){ok}, waits: []int{5}},
		"own interval":   {device: func(_ *oddIssuer, m map[string]any) { m["interval"] = 7 }, replies: []func() (int, map[string]any){refuse("slow_down"), ok}, waits: []int{7, 12}},
		"denied":         {replies: []func() (int, map[string]any){refuse("authorization_pending"), refuse("access_denied")}, waits: []int{5, 5}, want: "refused on the other device"},
		"expired":        {replies: []func() (int, map[string]any){refuse("expired_token")}, waits: []int{5}, want: "not entered in time"},
		"another error":  {replies: []func() (int, map[string]any){refuse("invalid_grant")}, waits: []int{5}, want: "refused: invalid_grant"},
		"a server error": {replies: []func() (int, map[string]any){func() (int, map[string]any) { return 500, nil }}, waits: []int{5}, want: "answered 500"},
		"GitHub's 200":   {replies: []func() (int, map[string]any){func() (int, map[string]any) { return 200, map[string]any{"error": "authorization_pending"} }, ok}, waits: []int{5, 5}},
		"Google's old name": {device: func(o *oddIssuer, m map[string]any) {
			m["verification_url"] = m["verification_uri"]
			delete(m, "verification_uri")
		}, replies: []func() (int, map[string]any){ok}, waits: []int{5}},
		"no https":              {device: func(_ *oddIssuer, m map[string]any) { m["verification_uri"] = "http://evil.example.com/" }, want: "not https"},
		"no https, whole":       {device: func(_ *oddIssuer, m map[string]any) { m["verification_uri_complete"] = "javascript:alert(1)" }, want: "not https"},
		"no code":               {device: func(_ *oddIssuer, m map[string]any) { delete(m, "user_code") }, want: "without a code"},
		"refused at the device": {device: func(_ *oddIssuer, m map[string]any) { m["error"] = "unauthorized_client" }, want: "unauthorized_client"},
	} {
		t.Run(name, func(t *testing.T) {
			o := newOddIssuer(t)
			if c.device != nil {
				c.device(o, o.device)
			}
			n := 0
			o.token = func(f url.Values) (int, map[string]any) {
				if f.Get("device_code") != "the-device-code" || f.Get("client_id") != "cli" {
					return 400, map[string]any{"error": "invalid_request"}
				}
				n++
				return c.replies[min(n, len(c.replies))-1]()
			}
			l := startLogin(t, o, "api")
			var waits []int
			l.wait = func(_ context.Context, d time.Duration) error {
				waits = append(waits, int(d.Seconds()))
				if len(waits) > 20 {
					return errors.New("it asks on and on")
				}
				return nil
			}
			got, err := l.deviceFlow(t.Context())
			if fmt.Sprint(waits) != fmt.Sprint(c.waits) {
				t.Errorf("waited %v, want %v", waits, c.waits)
			}
			if c.want == "" && (err != nil || string(got.access.Reveal()) != good) || c.want != "" && (err == nil || !strings.Contains(err.Error(), c.want)) {
				t.Errorf("error %v, want %q", err, c.want)
			}
			if err != nil && strings.Contains(err.Error(), "the-device-code") {
				t.Error("the error shows the device code")
			}
		})
	}
}

// A code ends by the clock too, without a word from the issuer.
func TestLoginCodeEnds(t *testing.T) {
	o := newOddIssuer(t)
	o.device["expires_in"] = 0.05
	o.token = func(url.Values) (int, map[string]any) { return 400, map[string]any{"error": "authorization_pending"} }
	l := startLogin(t, o, "api")
	l.wait = func(ctx context.Context, _ time.Duration) error { <-ctx.Done(); return ctx.Err() }
	if _, err := l.deviceFlow(t.Context()); !errors.Is(err, errCodeEnded) {
		t.Errorf("%v", err)
	}
}

func TestLoginMetadata(t *testing.T) {
	for name, c := range map[string]struct {
		change func(o *oddIssuer)
		want   string
	}{
		"another's":     {func(o *oddIssuer) { o.meta["issuer"] = "https://evil.example.com" }, "another issuer's"},
		"a slash more":  {func(o *oddIssuer) { o.meta["issuer"] = o.URL + "/" }, "another issuer's"},
		"plain token":   {func(o *oddIssuer) { o.meta["token_endpoint"] = "http://evil.example.com/token" }, "not https"},
		"plain device":  {func(o *oddIssuer) { o.meta["device_authorization_endpoint"] = "http://evil.example.com/" }, "not https"},
		"odd authorize": {func(o *oddIssuer) { o.meta["authorization_endpoint"] = "file:///etc/passwd" }, "not https"},
		"no token":      {func(o *oddIssuer) { delete(o.meta, "token_endpoint") }, "no token endpoint"},
	} {
		t.Run(name, func(t *testing.T) {
			o := newOddIssuer(t)
			c.change(o)
			a := &app{stderr: os.Stderr, getenv: os.Getenv}
			if _, err := a.newLogin(t.Context(), vault.Service{Issuer: o.URL}, loginFlags{clientID: "cli"}); err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("%v, want %q", err, c.want)
			}
		})
	}
	o := newOddIssuer(t)
	o.meta["code_challenge_methods_supported"] = []string{"plain"}
	if _, err := startLogin(t, o, "api").codeFlow(t.Context()); err == nil || !strings.Contains(err.Error(), "PKCE") {
		t.Errorf("an issuer without S256: %v", err)
	}
}

// The token endpoint of another host gets nothing, also by a redirect, and a port that
// somebody has is said.
func TestLoginStaysAtTheIssuer(t *testing.T) {
	evil := make(chan string, 1)
	other := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) { evil <- r.URL.String() }))
	defer other.Close()
	o := newOddIssuer(t)
	o.Config.Handler.(*http.ServeMux).HandleFunc("POST /moved", func(w http.ResponseWriter, r *http.Request) {
		http.Redirect(w, r, other.URL, http.StatusTemporaryRedirect)
	})
	o.meta["token_endpoint"] = o.URL + "/moved"
	l := startLogin(t, o, "api")
	l.wait = func(context.Context, time.Duration) error { return nil }
	if _, err := l.deviceFlow(t.Context()); err == nil || !strings.Contains(err.Error(), "answered 307") {
		t.Errorf("%v", err)
	}
	select {
	case <-evil:
		t.Error("the redirect was followed")
	default:
	}
	taken, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer taken.Close()
	l.flags.port = taken.Addr().(*net.TCPAddr).Port
	if _, err := l.codeFlow(t.Context()); err == nil || !strings.Contains(err.Error(), "--redirect-port") {
		t.Errorf("a port that is taken: %v", err)
	}
	l.flags.port = 0
	ctx, cancel := context.WithCancel(t.Context())
	got := l.code(ctx)
	l.address(t)
	cancel()
	if r := <-got; !errors.Is(r.err, context.Canceled) {
		t.Errorf("a login that was given up: %v", r.err)
	}
}

func TestCheckEndpoint(t *testing.T) {
	for s, want := range map[string]bool{
		"https://a.example.com/x": true, "http://127.0.0.1:1/x": true, "http://[::1]:1/x": true, "http://localhost/": false, "http://a.example.com": false, "https://u:p@a.example.com": false,
		"https://": false, "": false, "file:///x": false, "https://a.example.com/#x": false, "http://127.0.0.1.example.com/": false,
	} {
		if got := checkEndpoint(s) == nil; got != want {
			t.Errorf("%q: %v", s, got)
		}
	}
}
