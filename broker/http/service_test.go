package http

import (
	nethttp "net/http"
	"strings"
	"testing"

	"guard"
)

func TestGitUse(t *testing.T) {
	const (
		up   = "service=git-upload-pack"
		down = "service=git-receive-pack"
	)
	for _, tt := range []struct {
		method, url, kind, action, resource string
		header                              []string
	}{
		{"GET", "/o/r.git/info/refs?" + up, "", "repo:read", "o/r", nil},
		{"HEAD", "/o/r.git/info/refs?" + up, "", "repo:read", "o/r", nil},
		{"POST", "/o/r/git-upload-pack", fetchType, "repo:read", "o/r", nil},
		{"GET", "/o/r.git/info/refs?" + down, "", "repo:push", "o/r", nil},
		{"POST", "/g/sub/r.git/git-receive-pack", pushType, "repo:push", "g/sub/r", nil},
		// Named like git's, and not git's.
		{"GET", "/o/r.git/info/refs?" + up + "&" + down, "", "http:read", "/o/r.git/info/refs", nil},
		{"GET", "/o/r.git/info/refs?" + up + "&a=b", "", "http:read", "/o/r.git/info/refs", nil},
		{"GET", "/o/r.git/info/refs", "", "http:read", "/o/r.git/info/refs", nil},
		{"PATCH", "/repos/o/r/info/refs?" + up, "", "http:write", "/repos/o/r/info/refs", nil},
		{"POST", "/repos/o/r/info/refs?" + up, fetchType, "http:write", "/repos/o/r/info/refs", nil},
		{"OPTIONS", "/repos/o/r/info/refs?" + up, "", "http:read", "/repos/o/r/info/refs", nil},
		{"PUT", "/repos/o/r/contents/git-upload-pack", "application/json", "http:write", "/repos/o/r/contents/git-upload-pack", nil},
		{"PUT", "/repos/o/r/contents/git-upload-pack", fetchType, "http:write", "/repos/o/r/contents/git-upload-pack", nil},
		{"PUT", "/repos/o/r/contents/git-receive-pack", "application/json", "http:write", "/repos/o/r/contents/git-receive-pack", nil},
		{"DELETE", "/repos/o/r/git/refs/heads/x/git-upload-pack", "", "http:write", "/repos/o/r/git/refs/heads/x/git-upload-pack", nil},
		{"GET", "/o/r/git-upload-pack", fetchType, "http:read", "/o/r/git-upload-pack", nil},
		{"GET", "/o/r/git-receive-pack", "", "http:read", "/o/r/git-receive-pack", nil},
		{"POST", "/o/r/git-upload-pack", "", "http:write", "/o/r/git-upload-pack", nil},
		{"POST", "/o/r/git-upload-pack", "application/json", "http:write", "/o/r/git-upload-pack", nil},
		{"POST", "/o/r/git-upload-pack", "application/json, " + fetchType, "http:write", "/o/r/git-upload-pack", nil},
		{"POST", "/o/r/git-upload-pack/", fetchType, "http:write", "/o/r/git-upload-pack/", nil},
		{"POST", "/xgit-upload-pack", fetchType, "http:write", "/xgit-upload-pack", nil},
		{"DELETE", "/o/r", "", "http:write", "/o/r", nil},
		// A method that is not the request's.
		{"GET", "/o/r", "", "http:write", "/o/r", []string{"X-HTTP-Method-Override", "DELETE"}},
		{"HEAD", "/o/r", "", "http:write", "/o/r", []string{"X-HTTP-Method", "PUT"}},
		{"OPTIONS", "/o/r", "", "http:write", "/o/r", []string{"X-Method-Override", "patch"}},
		{"GET", "/o/r", "", "http:write", "/o/r", []string{"x_http_method_override", "DELETE"}},
		{"GET", "/o/r", "", "http:write", "/o/r", []string{"X-HTTP-Method-Override", "GET, DELETE"}},
		{"GET", "/o/r", "", "http:read", "/o/r", []string{"X-HTTP-Method-Override", "GET"}},
		{"POST", "/o/r", "", "http:write", "/o/r", []string{"X-HTTP-Method-Override", "GET"}},
		{"GET", "/o/r?a=b&_method=DELETE", "", "http:write", "/o/r", nil},
		{"GET", "/o/r?a=%zz;%5Fmethod=dele%54e", "", "http:write", "/o/r", nil},
		{"GET", "/o/r?_METHOD[]=put", "", "http:write", "/o/r", nil},
		{"GET", "/o/r?_method=GET&_method=DELETE", "", "http:write", "/o/r", nil},
		{"GET", "/o/r?X-HTTP-Method-Override=PUT", "", "http:write", "/o/r", nil},
		{"GET", "/o/r?_method=get&method=DELETE", "", "http:read", "/o/r", nil},
		{"POST", "/o/r/git-upload-pack", fetchType, "http:write", "/o/r/git-upload-pack", []string{"X-HTTP-Method-Override", "DELETE"}},
		{"POST", "/o/r/git-upload-pack?_method=PUT", fetchType, "http:write", "/o/r/git-upload-pack", nil},
		{"GET", "/o/r/info/refs?" + up, "", "http:write", "/o/r/info/refs", []string{"X-HTTP-Method-Override", "PATCH"}},
		// Could be a push that is not seen as one.
		{"POST", "/o/r/git-receive-pack", "", "refused", "", nil},
		{"POST", "/o/r/git-receive-pack", "application/json", "refused", "", nil},
		{"POST", "/o/r/git-receive-pack", fetchType, "refused", "", nil},
		{"POST", "/o/r/git-receive-pack/", pushType, "refused", "", nil},
		{"POST", "/o/r/git-receive-pack;a=b", "text/plain", "refused", "", nil},
		{"POST", "/o/r/GIT-receive-pack", "text/plain", "refused", "", nil},
		{"POST", "/o/r/git%2Dreceive%2Dpack", "text/plain", "refused", "", nil},
		{"POST", "/o/r/git-receive-pack", pushType, "refused", "", []string{"X-HTTP-Method-Override", "POST"}},
		{"GET", "/o/r/git-receive-pack", "", "refused", "", []string{"X-HTTP-Method-Override", "POST"}},
		{"PUT", "/o/r/git-receive-pack", pushType, "refused", "", nil},
		{"POST", "/elsewhere", "Application/X-git-receive-pack-request; a=b", "refused", "", nil},
	} {
		r, _ := nethttp.NewRequest(tt.method, "https://x.git.test"+tt.url, nil)
		if tt.kind != "" {
			r.Header.Set("Content-Type", tt.kind)
		}
		for i := 0; i+1 < len(tt.header); i += 2 {
			r.Header.Set(tt.header[i], tt.header[i+1])
		}
		x := &exchange{p: &Proxy{}, in: r, method: tt.method, path: r.URL.Path}
		var ref *refusal
		x.git, x.push, ref = gitService(r)
		if ref != nil || tt.action == "refused" {
			if ref == nil || tt.action != "refused" || x.git || x.push {
				t.Errorf("%s %s %s %v: refused %v", tt.method, tt.url, tt.kind, tt.header, ref)
			}
			continue
		}
		if u := x.use(guard.Credential{}); u.Action != tt.action || u.Resource != tt.resource || (u.Channel == guard.ChannelGit) != strings.HasPrefix(tt.action, "repo:") {
			t.Errorf("%s %s %s %v: %s %s %s", tt.method, tt.url, tt.kind, tt.header, u.Channel, u.Action, u.Resource)
		}
	}
}

// A session that may only read gets no value for a request that writes, however
// its path ends.
func TestReadScopeIsNotBypassed(t *testing.T) {
	e := newEnv(t)
	s := &seen{}
	e.upstream("api.test", 443, s)
	e.deny["http:write"], e.deny["repo:push"] = true, true
	auth := []string{"Authorization", "Bearer " + tokenPlaceholder}
	for _, h2 := range []bool{false, true} {
		c := e.client("api.test", 443, h2)
		for _, tt := range []struct {
			method, path string
			header       []string
		}{
			{"PUT", "/repos/o/r/contents/git-upload-pack", nil},
			{"DELETE", "/repos/o/r/git/refs/heads/x/git-upload-pack", nil},
			{"PATCH", "/repos/o/r/info/refs?service=git-upload-pack", nil},
			{"POST", "/repos/o/r/issues/git-upload-pack", []string{"Content-Type", "application/json"}},
			{"GET", "/repos/o/r", []string{"X-Http-Method-Override", "DELETE"}},
			{"GET", "/repos/o/r?_method=DELETE", nil},
			{"POST", "/o/r/git-receive-pack", []string{"Content-Type", pushType}},
		} {
			res, body := do(t, c, tt.method, "https://api.test"+tt.path, nil, append(tt.header, auth...)...)
			if res.StatusCode != 403 || !strings.Contains(body, "default-deny") {
				t.Errorf("%s %s %v: %d %s", tt.method, tt.path, tt.header, res.StatusCode, body)
			}
		}
		res, body := do(t, c, "POST", "https://api.test/o/r/git-receive-pack", strings.NewReader("0000"), append([]string{"Content-Type", "application/json"}, auth...)...)
		wantDenied(t, res, body, 400, "protocol", "git-push")
		if n := s.completed(); n != 0 || len(e.results) != 0 {
			t.Fatalf("%d requests arrived, results %v", n, e.results)
		}
	}
	c := e.client("api.test", 443, true)
	for _, tt := range [][3]string{{"GET", "/o/r/info/refs?service=git-upload-pack", ""}, {"POST", "/o/r/git-upload-pack", fetchType}, {"GET", "/repos/o/r", ""}} {
		if res, body := do(t, c, tt[0], "https://api.test"+tt[1], nil, append([]string{"Content-Type", tt[2]}, auth...)...); res.StatusCode != 200 {
			t.Errorf("%v: %d %s", tt, res.StatusCode, body)
		}
	}
}
