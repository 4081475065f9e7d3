package http

import (
	"bytes"
	"compress/gzip"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"io"
	nethttp "net/http"
	"strings"
	"testing"

	"guard"
)

func TestAuthenticationHeaders(t *testing.T) {
	e := newEnv(t)
	s := &seen{}
	e.upstream("api.test", 443, s)
	b64 := func(s string) string { return base64.StdEncoding.EncodeToString([]byte(s)) }
	for _, h2 := range []bool{false, true} {
		c := e.client("api.test", 443, h2)
		for _, tt := range []struct{ name, sent, want string }{
			{"Authorization", "Bearer " + tokenPlaceholder, "Bearer " + tokenValue},
			{"Authorization", "token " + tokenPlaceholder, "token " + tokenValue},
			{"Authorization", tokenPlaceholder, tokenValue},
			{"Authorization", "Basic " + b64("user:"+tokenPlaceholder), "Basic " + b64("user:"+tokenValue)},
			{"Authorization", "basic " + b64(tokenPlaceholder+":x-oauth-basic"), "basic " + b64(tokenValue+":x-oauth-basic")},
			{"X-Api-Key", tokenPlaceholder, tokenValue},
			{"Api-Key", tokenPlaceholder, tokenValue},
			{"X-Auth-Token", tokenPlaceholder, tokenValue},
			{"Private-Token", tokenPlaceholder, tokenValue},
			// Not a position of this credential: it stays what it is.
			{"X-Metadata", tokenPlaceholder, tokenPlaceholder},
			{"Cookie", "t=" + tokenPlaceholder, "t=" + tokenPlaceholder},
			{"User-Agent", tokenPlaceholder, tokenPlaceholder},
		} {
			res, body := do(t, c, "GET", "https://api.test/v1?q="+tokenPlaceholder, nil, tt.name, tt.sent)
			r, _ := s.last()
			if got := r.Header.Get(tt.name); res.StatusCode != 200 || got != tt.want {
				t.Errorf("%s %q arrived as %q (status %d %s)", tt.name, tt.sent, got, res.StatusCode, body)
			}
			if r.URL.RawQuery != "q="+tokenPlaceholder {
				t.Errorf("the query arrived as %q", r.URL.RawQuery)
			}
		}
	}
	for _, r := range e.recorded(12) {
		if r != "status 200 wiped=true" {
			t.Errorf("result %q", r)
		}
	}
	if u := e.uses[0]; u.Action != "http:read" || u.Resource != "/v1" || u.Path != "/v1" || u.Host != "api.test" || u.Port != 443 || u.Method != "GET" || u.Channel != guard.ChannelHTTP {
		t.Errorf("use %+v", u)
	}
}

func TestPositions(t *testing.T) {
	e := newEnv(t)
	s := &seen{}
	e.upstream("fields.test", 443, s)
	c := e.client("fields.test", 443, true)
	form := "application/x-www-form-urlencoded"
	for _, tt := range []struct{ name, method, path, header, value, kind, body, wantURI, wantHeader, wantBody string }{
		{name: "named header", method: "GET", path: "/", header: "X-Custom", value: "k=" + keyPlaceholder, wantURI: "/", wantHeader: "k=" + keyValue},
		{name: "authorization is no position of it", method: "GET", path: "/", header: "Authorization", value: "Bearer " + keyPlaceholder, wantURI: "/", wantHeader: "Bearer " + keyPlaceholder},
		{name: "query", method: "GET", path: "/s?a=%20+&key=" + keyPlaceholder + "&z", wantURI: "/s?a=%20+&key=" + keyValue + "&z"},
		{name: "another query field", method: "GET", path: "/s?other=" + keyPlaceholder, wantURI: "/s?other=" + keyPlaceholder},
		{name: "path", method: "GET", path: "/bot" + keyPlaceholder + "/send%2Fme", wantURI: "/bot" + keyValue + "/send%2Fme"},
		{name: "form", method: "POST", path: "/", kind: form, body: "a=b&secret=" + keyPlaceholder + "&c=%20", wantURI: "/", wantBody: "a=b&secret=" + keyValue + "&c=%20"},
		{name: "another form field", method: "POST", path: "/", kind: form, body: "text=" + keyPlaceholder, wantURI: "/", wantBody: "text=" + keyPlaceholder},
		{name: "json", method: "POST", path: "/", kind: "application/json; charset=utf-8", body: `{ "auth" : {"key":"` + keyPlaceholder + `", "n": 1.0e3}, "text":"` + keyPlaceholder + `"}`,
			wantURI: "/", wantBody: `{ "auth" : {"key":"` + keyValue + `", "n": 1.0e3}, "text":"` + keyPlaceholder + `"}`},
		{name: "json escaped", method: "POST", path: "/", kind: "application/json", body: `{"auth":{"key":"\u0073` + keyPlaceholder[1:] + `"}}`, wantURI: "/", wantBody: `{"auth":{"key":"` + keyValue + `"}}`},
		{name: "json path inside a key", method: "POST", path: "/", kind: "application/json", body: `{"x":{"auth":{"key":"` + keyPlaceholder + `"}}}`, wantURI: "/", wantBody: `{"x":{"auth":{"key":"` + keyPlaceholder + `"}}}`},
		{name: "text body", method: "POST", path: "/", kind: "text/plain", body: "secret=" + keyPlaceholder, wantURI: "/", wantBody: "secret=" + keyPlaceholder},
	} {
		t.Run(tt.name, func(t *testing.T) {
			var body io.Reader
			if tt.body != "" {
				body = strings.NewReader(tt.body)
			}
			h := []string{}
			if tt.header != "" {
				h = append(h, tt.header, tt.value)
			}
			if tt.kind != "" {
				h = append(h, "Content-Type", tt.kind)
			}
			res, text := do(t, c, tt.method, "https://fields.test"+tt.path, body, h...)
			r, got := s.last()
			if res.StatusCode != 200 || r.RequestURI != tt.wantURI || got != tt.wantBody || r.Header.Get(tt.header) != tt.wantHeader && tt.header != "" {
				t.Errorf("status %d %s; upstream got %s %v %q", res.StatusCode, text, r.RequestURI, r.Header, got)
			}
			if r.ContentLength != int64(len(tt.wantBody)) {
				t.Errorf("Content-Length %d, want %d", r.ContentLength, len(tt.wantBody))
			}
		})
	}
}

func TestPolicyDenies(t *testing.T) {
	e := newEnv(t)
	s := &seen{}
	e.upstream("api.test", 443, s)
	e.deny["token"] = true
	res, body := do(t, e.client("api.test", 443, true), "POST", "https://api.test/repos?x=y", strings.NewReader("b"), "Authorization", "Bearer "+tokenPlaceholder)
	wantDenied(t, res, body, 403, "credential", "default-deny")
	var m map[string]any
	json.Unmarshal([]byte(body), &m)
	if m["credential"] != "token" || m["path"] != "/repos" || m["method"] != "POST" || m["host"] != "api.test" || m["error"] != "policy_denied" {
		t.Errorf("%v", m)
	}
	if s.completed() != 0 || len(e.results) != 0 || len(e.refused) != 1 {
		t.Errorf("%d requests arrived, results %v, %d refusals recorded", s.completed(), e.results, len(e.refused))
	}
}

func TestPlaceholderAtAnotherHost(t *testing.T) {
	e := newEnv(t)
	s := &seen{}
	e.upstream("evil.test", 443, s)
	e.upstream("api.openai.com", 443, s)
	c := e.client("evil.test", 443, false)
	var gz bytes.Buffer
	zw := gzip.NewWriter(&gz)
	io.WriteString(zw, strings.Repeat("x", 5000)+tokenPlaceholder)
	zw.Close()
	enc := ""
	for _, b := range []byte(tokenPlaceholder) {
		enc += fmt.Sprintf("%%%02x", b)
	}
	for name, tt := range map[string]struct {
		url  string
		body io.Reader
		h    []string
	}{
		"header":        {"/", nil, []string{"Authorization", "Bearer " + tokenPlaceholder}},
		"basic":         {"/", nil, []string{"Authorization", "Basic " + base64.StdEncoding.EncodeToString([]byte("u:"+tokenPlaceholder))}},
		"any header":    {"/", nil, []string{"X-Note", tokenPlaceholder}},
		"query":         {"/?a=" + tokenPlaceholder, nil, nil},
		"escaped query": {"/?a=" + enc, nil, nil},
		"path":          {"/a/" + enc, nil, nil},
		"body":          {"/", strings.NewReader(strings.Repeat("x", 100<<10) + tokenPlaceholder), nil},
		"chunked body":  {"/", &slowReader{parts: []string{"abc" + tokenPlaceholder[:11], tokenPlaceholder[11:] + "x"}}, nil},
		"gzip body":     {"/", &gz, []string{"Content-Encoding", "gzip"}},
		"json body":     {"/", strings.NewReader(`{"a":"` + tokenPlaceholder + `"}`), []string{"Content-Type", "application/json"}},
	} {
		n := len(e.refused)
		method := "GET"
		if tt.body != nil {
			method = "POST"
		}
		res, body := do(t, c, method, "https://evil.test"+tt.url, tt.body, tt.h...)
		wantDenied(t, res, body, 403, "credential", "placeholder-host")
		if len(e.refused) != n+1 {
			t.Errorf("%s: not recorded", name)
		}
	}
	if n := s.completed(); n != 0 {
		t.Errorf("%d requests arrived whole", n)
	}
	// A model may see it: it is text there.
	res, body := do(t, e.client("api.openai.com", 443, true), "POST", "https://api.openai.com/v1/chat", strings.NewReader(tokenPlaceholder))
	if _, got := s.last(); res.StatusCode != 200 || got != tokenPlaceholder {
		t.Errorf("model API: %d %s", res.StatusCode, body)
	}
}

// slowReader gives parts one by one: a body of unknown length.
type slowReader struct{ parts []string }

func (s *slowReader) Read(p []byte) (int, error) {
	if len(s.parts) == 0 {
		return 0, io.EOF
	}
	n := copy(p, s.parts[0])
	if s.parts[0] = s.parts[0][n:]; s.parts[0] == "" {
		s.parts = s.parts[1:]
	}
	return n, nil
}

func TestNoCredentialOverPlainHTTP(t *testing.T) {
	e := newEnv(t)
	c := e.client("api.test", 80, false) // no --resolve: not this machine
	res, body := do(t, c, "GET", "http://api.test/", nil, "Authorization", "Bearer "+tokenPlaceholder)
	wantDenied(t, res, body, 403, "credential", "plaintext")
	s := &seen{}
	e.upstream("api.test", 80, s) // loopback by the user's word
	if res, _ := do(t, c, "GET", "http://api.test/", nil, "Authorization", "Bearer "+tokenPlaceholder); res.StatusCode != 200 {
		t.Errorf("loopback: status %d", res.StatusCode)
	}
	if r, _ := s.last(); r == nil || r.Header.Get("Authorization") != "Bearer "+tokenValue {
		t.Error("loopback: no value")
	}
}

func TestTwoCredentialsInOneRequest(t *testing.T) {
	e := newEnv(t)
	e.creds[1].Hosts = append(e.creds[1].Hosts, "api.test")
	s := &seen{}
	e.upstream("api.test", 443, s)
	c := e.client("api.test", 443, true)
	do(t, c, "GET", "https://api.test/", nil, "Authorization", "Bearer "+tokenPlaceholder, "X-Custom", keyPlaceholder)
	r, _ := s.last()
	if r.Header.Get("Authorization") != "Bearer "+tokenValue || r.Header.Get("X-Custom") != keyValue || len(e.recorded(2)) != 2 {
		t.Errorf("%v, results %v", r.Header, e.recorded(2))
	}
	e.deny["key"] = true
	n := s.completed()
	res, body := do(t, c, "GET", "https://api.test/", nil, "Authorization", "Bearer "+tokenPlaceholder, "X-Custom", keyPlaceholder)
	wantDenied(t, res, body, 403, "credential", "default-deny")
	if s.completed() != n {
		t.Error("half a request arrived")
	}
}

func TestRepliesAreScrubbed(t *testing.T) {
	e := newEnv(t)
	b64 := base64.StdEncoding.EncodeToString([]byte(tokenValue))
	e.upstream("api.test", 443, nethttp.HandlerFunc(func(w nethttp.ResponseWriter, r *nethttp.Request) {
		if enc := r.Header.Get("Accept-Encoding"); r.URL.Path != "/first" && enc != "identity" {
			t.Errorf("Accept-Encoding %q", enc)
		}
		switch r.URL.Path {
		case "/gzip":
			w.Header().Set("Content-Encoding", "gzip")
			zw := gzip.NewWriter(w)
			io.WriteString(zw, "got "+tokenValue)
			zw.Close()
			return
		case "/unknown":
			w.Header().Set("Content-Encoding", "rot13")
			io.WriteString(w, "tuc_...")
			return
		case "/trailer":
			w.Header().Set("Trailer", "X-Late")
			io.WriteString(w, "t")
			w.Header().Set("X-Late", tokenValue)
			return
		}
		w.Header().Set("X-Echo", r.Header.Get("Authorization")+"/"+tokenValue)
		w.Header().Set("X-Encoded", b64)
		w.Header().Set("Location", "https://other.test/?t="+tokenValue)
		w.Header().Set("Link", "<"+nethttp.CanonicalHeaderKey(tokenValue)+">")
		text := "got " + tokenValue + " and " + b64
		w.Header().Set("Content-Length", fmt.Sprint(len(text)))
		for i := 0; i < len(text); i += 7 { // splits the value
			io.WriteString(w, text[i:min(i+7, len(text))])
			w.(nethttp.Flusher).Flush()
		}
	}))
	for _, h2 := range []bool{false, true} {
		c := e.client("api.test", 443, h2)
		auth := []string{"Authorization", "Bearer " + tokenPlaceholder, "Accept-Encoding", "gzip, br"}
		for _, h := range [][]string{auth, nil} { // also a later request that has no credential
			res, body := do(t, c, "GET", "https://api.test/", nil, h...)
			all := body + fmt.Sprint(res.Header)
			if strings.Contains(all, tokenValue) || strings.Contains(all, b64) || !strings.Contains(body, "got "+tokenPlaceholder+" and ***") || res.Header.Get("Location") != "https://other.test/?t="+tokenPlaceholder {
				t.Errorf("h2 %v: %s", h2, all)
			}
			if res.ContentLength != int64(len(body)) {
				t.Errorf("Content-Length %d of %d", res.ContentLength, len(body))
			}
		}
		res, body := do(t, c, "GET", "https://api.test/gzip", nil, auth...)
		if body != "got "+tokenPlaceholder || res.Header.Get("Content-Encoding") != "" {
			t.Errorf("gzip reply: %q %v", body, res.Header)
		}
		res, body = do(t, c, "GET", "https://api.test/unknown", nil, auth...)
		wantDenied(t, res, body, 502, "upstream", "unscrubbable")
		res, _ = do(t, c, "GET", "https://api.test/trailer", nil, auth...)
		if got := res.Trailer.Get("X-Late"); got != tokenPlaceholder {
			t.Errorf("trailer %q", got)
		}
	}
}

func TestSwapJSONKeepsTheRest(t *testing.T) {
	for _, tt := range []struct {
		in, path, out string
		n             int
	}{
		{`{"a":{"b":["P","x",{"c":"P"}]}}`, "a.b", `{"a":{"b":["V","x",{"c":"P"}]}}`, 1},
		{"{\"a\":\"P\"}\n{\"a\":\"xPx\"}\n", "a", "{\"a\":\"V\"}\n{\"a\":\"xVx\"}\n", 2},
		{`{"P":"a"}`, "P", `{"P":"a"}`, 0},
		{`{"a":"P"`, "a", `{"a":"V"`, 1},
		{`not json P`, "a", `not json P`, 0},
	} {
		out, n := swapJSON([]byte(tt.in), tt.path, "P", "V")
		if string(out) != tt.out || n != tt.n {
			t.Errorf("%s: %s, %d", tt.in, out, n)
		}
	}
	out, _ := swapJSON([]byte(`{"a":"P"}`), "a", "P", "q\"\\<\n")
	var m map[string]string
	if err := json.Unmarshal(out, &m); err != nil || m["a"] != "q\"\\<\n" {
		t.Errorf("%s: %v", out, err)
	}
}
