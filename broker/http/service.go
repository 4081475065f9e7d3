package http

import (
	nethttp "net/http"
	"strings"
)

// The bodies of git's smart protocol (gitprotocol-http(5)).
const (
	fetchType = "application/x-git-upload-pack-request"
	pushType  = "application/x-git-receive-pack-request"
)

// gitService says whether r speaks git's smart protocol, and whether to push. A
// path alone says nothing: an API has paths that its clients choose the end of
// (a file's or a branch's name), so method, query and type must be git's too, and
// what is not git's is judged by its method. A request that some server could
// take for a push although it is not written as git writes one is a *refusal:
// its pack could not be inspected.
func gitService(r *nethttp.Request) (is, push bool, ref *refusal) {
	path := r.URL.Path
	other := overridden(r)
	switch r.Method {
	case nethttp.MethodGet, nethttp.MethodHead:
		if strings.HasSuffix(path, "/info/refs") && !other {
			switch r.URL.RawQuery {
			case "service=git-upload-pack":
				return true, false, nil
			case "service=git-receive-pack":
				return true, true, nil
			}
		}
	case nethttp.MethodPost:
		switch {
		case other:
		case strings.HasSuffix(path, "/git-receive-pack") && isType(r, pushType):
			return true, true, nil
		case strings.HasSuffix(path, "/git-upload-pack") && isType(r, fetchType):
			return true, false, nil
		}
	}
	if claimsPush(r) || (r.Method == nethttp.MethodPost || other) && endsInPush(path) {
		return false, false, refuse(nethttp.StatusBadRequest, "protocol", "git-push",
			"the request may be a push but is not written as one, so it could not be inspected",
			"push with git: a POST to .../git-receive-pack of "+pushType+", without a method override")
	}
	return false, false, nil
}

// isType says whether r's body is of the type t, by its only Content-Type.
func isType(r *nethttp.Request, t string) bool {
	vs := r.Header["Content-Type"]
	return len(vs) == 1 && strings.EqualFold(strings.TrimSpace(vs[0]), t)
}

func claimsPush(r *nethttp.Request) bool {
	for k, vs := range r.Header {
		if loose(k) != "content-type" {
			continue
		}
		for _, v := range vs {
			if strings.Contains(strings.ToLower(v), pushType) {
				return true
			}
		}
	}
	return false
}

// endsInPush is what a lenient server takes for /git-receive-pack: slashes at
// the end, parameters of the last segment, another case.
func endsInPush(path string) bool {
	path = strings.TrimRight(path, "/")
	last, _, _ := strings.Cut(path[strings.LastIndexByte(path, '/')+1:], ";")
	return strings.EqualFold(strings.TrimSpace(last), "git-receive-pack")
}

// overridden says whether r asks, in a header or its query, to be taken for a
// request of a method that does more than read. Many frameworks heed that.
func overridden(r *nethttp.Request) bool {
	for k, vs := range r.Header {
		if !isOverride(loose(k)) {
			continue
		}
		for _, v := range vs {
			if !reads(v) {
				return true
			}
		}
	}
	for pair := range strings.FieldsFuncSeq(r.URL.RawQuery, func(c rune) bool { return c == '&' || c == ';' }) {
		k, v, _ := strings.Cut(pair, "=")
		k, _, _ = strings.Cut(unescape(k), "[") // PHP: _method[]=
		if k = loose(k); (k == "-method" || isOverride(k)) && !reads(unescape(v)) {
			return true
		}
	}
	return false
}

// loose is a name as servers compare it that see no difference between case,
// hyphen, underscore (CGI), dot and blank (PHP).
func loose(k string) string {
	return strings.Map(func(c rune) rune {
		switch c {
		case '_', '.', ' ', '+':
			return '-'
		}
		return c
	}, strings.ToLower(k))
}

func isOverride(k string) bool {
	switch k {
	case "x-http-method-override", "x-http-method", "x-method-override":
		return true
	}
	return false
}

// reads says whether v, the value of an override, is one method that only reads.
func reads(v string) bool {
	switch strings.ToUpper(strings.TrimSpace(v)) {
	case nethttp.MethodGet, nethttp.MethodHead, nethttp.MethodOptions:
		return true
	}
	return false
}

// gitRepo is "owner/repo" of a smart protocol path.
func gitRepo(path string) string {
	for _, s := range []string{"/git-receive-pack", "/git-upload-pack", "/info/refs"} {
		path = strings.TrimSuffix(path, s)
	}
	return strings.TrimSuffix(strings.Trim(path, "/"), ".git")
}
