package http

import (
	"encoding/base64"
	"io"
	"strings"
	"testing"

	"guard"
)

// A placeholder that is shaped as a token with claims (RFC 7519), dots and all, is swapped
// where it authenticates, in pieces on the wire too, and stays one wherever else an agent
// would publish it: at its own host as well.
func TestJWTPlaceholders(t *testing.T) {
	part := func(s string) string { return base64.RawURLEncoding.EncodeToString([]byte(s)) }
	head := part(`{"alg":"RS256","typ":"JWT","kid":"0123456789"}`)
	standIn := head + "." + part(`{"sub":"agent","exp":4000000000,"x":"stands-in"}`) + "." + strings.Repeat("P", 86)
	value := head + "." + part(`{"sub":"human","exp":4000000000,"x":"authentic"}`) + "." + strings.Repeat("V", 86)
	e := newEnv(t, func(e *env, c *Config) {
		c.Line.Value = func(guard.SecretID) (guard.Secret, error) { return guard.NewSecret([]byte(value)), nil }
		c.Scrub = func([]guard.SecretID) guard.Filter {
			return func(p []byte, _ guard.Step) ([]byte, guard.Decision) { return p, guard.Decision{Action: guard.Pass} }
		}
	})
	e.creds = []guard.Credential{{Name: "jwt", Context: "default", Version: 1, Kind: "jwt", Hosts: []string{"jwt.test"}, Placeholder: standIn,
		In: []guard.Position{{Place: "auth"}, {Place: "query", Name: "access_token"}, {Place: "json", Name: "session.token"}}}}
	s := &seen{}
	e.upstream("jwt.test", 443, s)
	e.upstream("elsewhere.test", 443, s)
	basic := func(s string) string { return "Basic " + base64.StdEncoding.EncodeToString([]byte("x-token:"+s)) }
	for _, h2 := range []bool{false, true} {
		c := e.client("jwt.test", 443, h2)
		for _, tt := range []struct {
			name, path, header, value, kind, body string
			swapped                               bool
		}{
			{name: "bearer", path: "/", header: "Authorization", value: "Bearer " + standIn, swapped: true},
			{name: "basic", path: "/", header: "Authorization", value: basic(standIn), swapped: true},
			{name: "query", path: "/?access_token=" + standIn, swapped: true},
			{name: "json", path: "/", kind: "application/json", body: `{"session":{"token":"` + standIn + `"}}`, swapped: true},
			{name: "a gist", path: "/gists", kind: "application/json", body: `{"files":{"a":{"content":"` + standIn + `"}}}`},
			{name: "a metadata header", path: "/", header: "X-Amz-Meta-Note", value: standIn},
			{name: "another query field", path: "/?q=" + standIn},
			{name: "a text body", path: "/", kind: "text/plain", body: standIn},
			{name: "a form", path: "/", kind: "application/x-www-form-urlencoded", body: "text=" + standIn},
			{name: "its payload alone", path: "/", header: "Authorization", value: "Bearer " + strings.Split(standIn, ".")[1]},
			{name: "cut short", path: "/", header: "Authorization", value: "Bearer " + standIn[:len(standIn)-1]},
		} {
			var body io.Reader
			method := "GET"
			if tt.body != "" {
				method, body = "POST", &slowReader{parts: []string{tt.body[:len(tt.body)/2], tt.body[len(tt.body)/2:]}}
			}
			var h []string
			if tt.header != "" {
				h = append(h, tt.header, tt.value)
			}
			if tt.kind != "" {
				h = append(h, "Content-Type", tt.kind)
			}
			res, text := do(t, c, method, "https://jwt.test"+tt.path, body, h...)
			if res.StatusCode != 200 {
				t.Errorf("%s: %d %s", tt.name, res.StatusCode, text)
				continue
			}
			r, got := s.last()
			all := r.RequestURI + "\n" + r.Header.Get("Authorization") + "\n" + r.Header.Get("X-Amz-Meta-Note") + "\n" + got
			if b, ok := strings.CutPrefix(r.Header.Get("Authorization"), "Basic "); ok {
				dec, _ := base64.StdEncoding.DecodeString(b)
				all += string(dec)
			}
			if strings.Contains(all, value) != tt.swapped || strings.Contains(all, strings.Split(value, ".")[1]) != tt.swapped {
				t.Errorf("%s: the server got %q", tt.name, all)
			}
		}
		res, text := do(t, e.client("elsewhere.test", 443, h2), "GET", "https://elsewhere.test/", nil, "Authorization", "Bearer "+standIn)
		wantDenied(t, res, text, 403, "credential", "placeholder-host")
	}
}
