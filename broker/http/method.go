package http

import (
	"fmt"
	nethttp "net/http"
	"strings"
)

// maxMethod is the length of the longest extension method that is let through,
// and maxName that of a header's name. Names that are in use are shorter
// (x-amz-server-side-encryption-customer-key-md5 has 47).
const (
	maxMethod = 16
	maxName   = 64
)

// known says whether m is in IANA's registry of HTTP methods (RFC 9110, PATCH,
// QUERY, and those of WebDAV, DeltaV and CalDAV), in the case that it is there.
// CONNECT, TRACE and PRI are left out: the one is served elsewhere, the others
// not at all.
func known(m string) bool {
	switch m {
	case "GET", "HEAD", "POST", "PUT", "DELETE", "OPTIONS", "PATCH", "QUERY",
		"ACL", "BASELINE-CONTROL", "BIND", "CHECKIN", "CHECKOUT", "COPY", "LABEL", "LINK", "LOCK", "MERGE", "MKACTIVITY", "MKCALENDAR", "MKCOL",
		"MKREDIRECTREF", "MKWORKSPACE", "MOVE", "ORDERPATCH", "PROPFIND", "PROPPATCH", "REBIND", "REPORT", "SEARCH", "UNBIND", "UNCHECKOUT",
		"UNLINK", "UNLOCK", "UPDATE", "UPDATEREDIRECTREF", "VERSION-CONTROL":
		return true
	}
	return false
}

// extension says whether m can be a method that some server made up: PURGE,
// M-SEARCH. No digits and no small letters: what has those is no method but data.
func extension(m string) bool {
	if m == "" || len(m) > maxMethod {
		return false
	}
	for _, c := range []byte(m) {
		if (c < 'A' || c > 'Z') && c != '-' {
			return false
		}
	}
	return true
}

// shownMethod is m as records and refusals name it before it was judged.
func shownMethod(m string) string {
	switch {
	case known(m), m == nethttp.MethodConnect, m == nethttp.MethodTrace, m == "TRACK":
		return m
	}
	return withheld
}

func (x *exchange) checkMethod() *refusal {
	switch m := x.in.Method; {
	case m == nethttp.MethodTrace, m == "TRACK", m == nethttp.MethodConnect:
		return refuse(nethttp.StatusMethodNotAllowed, "protocol", "method", m+" is not served: it would echo a credential, or end inspection")
	case known(m), extension(m):
		return nil
	}
	return refuse(nethttp.StatusNotImplemented, "protocol", "method",
		fmt.Sprintf("the request's method is none that guard knows, nor at most %d capital letters and hyphens", maxMethod), "use GET, POST or another method of RFC 9110")
}

// checkName refuses what cannot be a header's name, or looks like data: the case
// of a name is lost by the time that it can be compared with a value, so that
// one with capital and small letters would not be found.
func checkName(k string) *refusal {
	why := ""
	switch {
	case k == "" || strings.IndexFunc(k, notToken) >= 0:
		why = "a header's name has characters that no name may have"
	case len(k) > maxName:
		why = fmt.Sprintf("a header's name has more than %d characters", maxName)
	default:
		for word := range strings.FieldsFuncSeq(k, func(c rune) bool { return c == '-' || c == '_' || c == '.' }) {
			if len(word) >= 20 && strings.ContainsAny(word, "0123456789") && strings.Trim(word, "0123456789") != "" {
				why = "a header's name has a word of 20 or more letters and digits, as keys are"
			}
		}
	}
	if why == "" {
		return nil
	}
	return refuse(nethttp.StatusBadRequest, "protocol", "header-name", why, "put data into a header's value or the body")
}

// notToken is the inverse of tchar (RFC 9110, 5.6.2).
func notToken(c rune) bool {
	return !(c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9' || strings.ContainsRune("!#$%&'*+-.^_`|~", c))
}
