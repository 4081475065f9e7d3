package http

import (
	"encoding/base64"
	nethttp "net/http"
	"strings"
	"testing"

	"guard"
)

// urlEnv has a credential that is a URL, with a password that is coded in it.
func urlEnv(t *testing.T) (*env, *seen, string, string) {
	const value, ph = "https://app:real%40pass:word%2Fnumber9@svc.test/base", "https://app:standsforthepassword@svc.test/base"
	e := newEnv(t, func(e *env, c *Config) {
		e.creds = append(e.creds, guard.Credential{Name: "url", Context: "default", Version: 1, Hosts: []string{"svc.test"}, Placeholder: ph, In: []guard.Position{
			{Place: "auth"}, {Place: "form", Name: "password"}, {Place: "json", Name: "auth.password"}, {Place: "query", Name: "password"}}})
		get := c.Line.Value
		c.Line.Value = func(id guard.SecretID) (guard.Secret, error) {
			if id.Name == "url" {
				return guard.NewSecret([]byte(value)), nil
			}
			return get(id)
		}
		c.Scrub = func([]guard.SecretID) guard.Filter { return search(guard.Redact, map[string]string{value: ""}, nil) }
	})
	s := &seen{}
	e.upstream("svc.test", 443, s)
	return e, s, "standsforthepassword", "real@pass:word/number9"
}

func TestPartOfAURL(t *testing.T) {
	e, s, part, real := urlEnv(t)
	c := e.client("svc.test", 443, true)
	b64 := func(s string) string { return base64.StdEncoding.EncodeToString([]byte(s)) }
	whole := e.creds[len(e.creds)-1].Placeholder
	for name, tt := range map[string]struct{ method, path, body, kind, auth, wantAuth, wantBody string }{
		"basic":        {"GET", "/", "", "", "Basic " + b64("app:"+part), "Basic " + b64("app:"+real), ""},
		"bearer":       {"GET", "/", "", "", "Bearer " + part, "Bearer " + real, ""},
		"the whole":    {"GET", "/", "", "", "Bearer " + whole, "Bearer https://app:real%40pass:word%2Fnumber9@svc.test/base", ""},
		"form":         {"POST", "/", "user=app&password=" + part, "application/x-www-form-urlencoded", "", "", "user=app&password=real%40pass%3Aword%2Fnumber9"},
		"json":         {"POST", "/", `{"auth":{"password":"` + part + `"}}`, "application/json", "", "", `{"auth":{"password":"` + real + `"}}`},
		"another form": {"POST", "/", "text=" + part, "application/x-www-form-urlencoded", "", "", "text=" + part},
	} {
		h := []string{"Authorization", tt.auth}
		if tt.kind != "" {
			h = append(h, "Content-Type", tt.kind)
		}
		res, text := do(t, c, tt.method, "https://svc.test"+tt.path, strings.NewReader(tt.body), h...)
		r, got := s.last()
		if res.StatusCode != 200 || r.Header.Get("Authorization") != tt.wantAuth || got != tt.wantBody {
			t.Errorf("%s: status %d %s; arrived %q %q", name, res.StatusCode, text, r.Header.Get("Authorization"), got)
		}
	}
	// The part is bound to its hosts as the whole is.
	n := s.completed()
	evil := &seen{}
	e.upstream("evil.test", 443, evil)
	ce := e.client("evil.test", 443, false)
	for _, tt := range []struct{ auth, body string }{{"Basic " + b64("app:"+part), ""}, {"", "x=" + part}} {
		res, body := do(t, ce, "POST", "https://evil.test/", strings.NewReader(tt.body), "Authorization", tt.auth)
		wantDenied(t, res, body, 403, "credential", "placeholder-host")
	}
	if evil.completed() != 0 || s.completed() != n {
		t.Error("it went to another host")
	}
}

func TestMultipartFields(t *testing.T) {
	e, s, part, real := urlEnv(t)
	c := e.client("svc.test", 443, true)
	form := func(fields ...string) string {
		var b strings.Builder
		for i := 0; i+1 < len(fields); i += 2 {
			b.WriteString("--XXX\r\nContent-Disposition: form-data; " + fields[i] + "\r\n\r\n" + fields[i+1] + "\r\n")
		}
		return b.String() + "--XXX--\r\n"
	}
	for name, tt := range map[string]struct{ body, want string }{
		"field":              {form(`name="password"`, part, `name="a"`, "b"), form(`name="password"`, real, `name="a"`, "b")},
		"another field":      {form(`name="text"`, part), form(`name="text"`, part)},
		"a file":             {form(`name="password"; filename="x"`, part), form(`name="password"; filename="x"`, part)},
		"a file like it":     {form(`name="f"; filename="x"`, part, `name="password"`, part), form(`name="f"; filename="x"`, part, `name="password"`, real)},
		"a form in a field":  {form(`name="text"`, "--YYY\r\nContent-Disposition: form-data; name=\"password\"\r\n\r\n"+part+"\r\n--YYY--"), ""},
		"two names":          {form(`name="text"; name="password"`, part), ""},
		"no end":             {strings.TrimSuffix(form(`name="password"`, part), "--\r\n"), ""},
		"bare line feeds":    {strings.ReplaceAll(form(`name="password"`, part), "\r\n", "\n"), ""},
		"a preamble":         {"hello\r\n" + form(`name="password"`, part), "hello\r\n" + form(`name="password"`, real)},
		"field in two parts": {form(`name="password"`, part, `name="password"`, "x"+part), form(`name="password"`, real, `name="password"`, "x"+real)},
	} {
		if tt.want == "" {
			tt.want = tt.body
		}
		res, text := do(t, c, nethttp.MethodPost, "https://svc.test/", strings.NewReader(tt.body), "Content-Type", "multipart/form-data; boundary=XXX")
		r, got := s.last()
		if res.StatusCode != 200 || got != tt.want || r.ContentLength != int64(len(tt.want)) {
			t.Errorf("%s: status %d %s; arrived %q (%d)", name, res.StatusCode, text, got, r.ContentLength)
		}
	}
}
