package policy

import (
	"errors"
	"fmt"
	"path"
	"strings"
)

// covers says which actions each verb of a scope lets through. An action that
// is not here is denied under every scope.
var covers = map[string][]string{
	"use":         nil, // every action of actions but those of aside
	"read":        {"read", "http:read", "repo:read", "db:read", "mail:read", "s3:get", "s3:list"},
	"write":       {"read", "write", "http:read", "http:write", "repo:read", "repo:push", "db:read", "db:write", "db:query", "mail:read", "mail:write", "mail:send", "s3:get", "s3:list", "s3:put", "s3:delete"},
	"repo:read":   {"repo:read"},
	"repo:push":   {"repo:read", "repo:push"},
	"http:read":   {"http:read"},
	"http:write":  {"http:write"},
	"db:read":     {"db:read"},
	"db:write":    {"db:write", "db:query", "db:read"},
	"mail:send":   {"mail:send"},
	"mail:read":   {"mail:read"},
	"mail:write":  {"mail:read", "mail:write"},
	"s3:read":     {"s3:get", "s3:list"},
	"s3:write":    {"s3:get", "s3:list", "s3:put", "s3:delete"},
	"s3:get":      {"s3:get"},
	"s3:list":     {"s3:list"},
	"s3:put":      {"s3:put"},
	"s3:delete":   {"s3:delete"},
	"aws:use":     {"aws:use"}, // everything of AWS that is neither an object of S3 nor gives out credentials
	"token:login": {"token:login"},
	"token:mint":  {"token:mint"},
	"exec:run":    {"exec:run"},
	"db:query":    {"db:query", "db:read"}, // a statement that nobody classified, and so also one that reads
	"ssh:connect": {"ssh:connect", "ssh:certify"},
	"ssh:sign":    {"ssh:sign"},
	"refresh":     {"refresh"},
	"rotate":      {"rotate"},
}

// aside are actions that make or show a value: no scope covers them but their own, and
// reveal none at all.
var aside = map[string]bool{"token:mint": true, "refresh": true, "rotate": true, "reveal": true}

const verbs = "read, write, repo:read, repo:push, http:read, http:write, db:read, db:write, db:query, mail:send, mail:read, mail:write, s3:read, s3:write, s3:get, s3:list, s3:put, s3:delete, aws:use, token:login, token:mint, exec:run, ssh:connect, ssh:sign, refresh, rotate or use (anything but token:mint, refresh and rotate)"

// actions are the actions that a Use may have.
var actions = map[string]bool{
	"read": true, "write": true, "use": true,
	"http:read": true, "http:write": true, "repo:read": true, "repo:push": true,
	"db:read": true, "db:write": true, "db:query": true,
	"mail:send": true, // its resource is the recipient
	"mail:read": true, "mail:write": true,
	"s3:get": true, "s3:list": true, "s3:put": true, "s3:delete": true, // their resource is BUCKET/KEY
	"aws:use":     true, // its resource is SERVICE/Operation
	"exec:run":    true, // a command that the user listed: its resource is the name in that list
	"ssh:connect": true, // a login; its resource is the user
	"ssh:sign":    true, // a signature for git, which has no host
	"ssh:certify": true, // a certificate for the session's own key, from an authority's key
	"token:login": true, // asks a token endpoint for tokens
	"token:mint":  true, // makes a credential that outlives the session: never under "use"
	"refresh":     true, // guard gets a new token for an old one
	"rotate":      true, // guard replaces the value
	"reveal":      true, // the value is shown: to the user alone, never to a session
}

// Scope is "VERB" or "VERB/RESOURCE-GLOB". The zero Scope covers nothing.
type Scope struct {
	Verb string
	Glob string // of the resource; "": any. See matchGlob
}

var errScope = errors.New("want VERB or VERB/RESOURCE-GLOB, such as repo:push or http:read/repos/acme/**; VERB is one of " + verbs)

// ParseScope reads "VERB" or "VERB/RESOURCE-GLOB". In the glob, * ? and [...]
// are path.Match's, within one part between slashes; ** is any number of parts.
func ParseScope(s string) (Scope, error) {
	verb, glob, has := strings.Cut(s, "/")
	if _, ok := covers[verb]; !ok {
		return Scope{}, errScope
	}
	glob = strings.Trim(glob, "/")
	if has && glob == "" {
		return Scope{}, errors.New("the resource after the slash is empty: leave out the slash, or write /**")
	}
	for part := range strings.SplitSeq(glob, "/") {
		if _, err := path.Match(part, ""); err != nil || has && part == "" || strings.Contains(part, "**") && part != "**" {
			return Scope{}, errors.New("the resource glob is not one: * ? [a-z] within a part, ** for any number of parts")
		}
	}
	return Scope{Verb: verb, Glob: glob}, nil
}

func (s Scope) String() string {
	if s.Glob == "" {
		return s.Verb
	}
	return s.Verb + "/" + s.Glob
}

// verbCovers says whether the verb lets action through, on some resource.
func (s Scope) verbCovers(action string) bool {
	if !actions[action] {
		return false
	}
	if s.Verb == "use" {
		return !aside[action]
	}
	for _, a := range covers[s.Verb] {
		if a == action {
			return true
		}
	}
	return false
}

// Covers says whether s lets action on resource through.
func (s Scope) Covers(action, resource string) bool {
	if !s.verbCovers(action) {
		return false
	}
	if s.Glob == "" {
		return true
	}
	r, ok := normalResource(action, resource)
	return ok && matchGlob(s.Glob, r)
}

// normalResource returns the one reading of resource, without slashes around
// it; false for one that servers may read in two ways.
func normalResource(action, resource string) (string, bool) {
	r := strings.Trim(resource, "/")
	if strings.HasPrefix(action, "repo:") {
		r = strings.TrimSuffix(r, ".git")
	}
	if r == "" {
		return "", false
	}
	for i := 0; i < len(r); i++ {
		if r[i] < 0x20 || r[i] == 0x7f || r[i] == '\\' || r[i] == ';' || r[i] == '?' || r[i] == '#' {
			return "", false
		}
		if r[i] == '%' {
			return "", false // an encoded slash or dot is decoded by some servers and not by others
		}
	}
	for part := range strings.SplitSeq(r, "/") {
		if part == "" || part == "." || part == ".." {
			return "", false
		}
	}
	return r, true
}

// matchGlob matches part by part; "**" matches any number of parts, none too.
// Time is bounded by the product of the lengths.
func matchGlob(glob, name string) bool {
	g, n := strings.Split(glob, "/"), strings.Split(name, "/")
	gi, ni := 0, 0
	star, mark := -1, 0
	for ni < len(n) {
		if gi < len(g) && g[gi] == "**" {
			star, mark = gi, ni
			gi++
			continue
		}
		if gi < len(g) {
			if ok, err := path.Match(g[gi], n[ni]); ok && err == nil {
				gi++
				ni++
				continue
			}
		}
		if star < 0 {
			return false
		}
		mark++
		gi, ni = star+1, mark
	}
	for gi < len(g) && g[gi] == "**" {
		gi++
	}
	return gi == len(g)
}

// Grant is one --allow: a credential, what it may be used for, and for how long and
// how much.
type Grant struct {
	Name   string
	Scope  Scope // of no scope: "use", which the credential's own scopes bound
	Limits Limits
}

func (g Grant) String() string {
	if g.Scope == (Scope{Verb: "use"}) {
		return g.Name + g.Limits.String()
	}
	return g.Name + ":" + g.Scope.String() + g.Limits.String()
}

// ParseGrant reads "NAME" or "NAME:SCOPE", and after a comma each: count=N (uses),
// bytes=N[K|M|G] (sent to its hosts), for=DURATION (from the session's start),
// until=HH:MM (or a date, or a time in RFC 3339), between=HH:MM-HH:MM.
func ParseGrant(s string) (Grant, error) {
	s, limits := splitLimits(s)
	name, scope, has := strings.Cut(s, ":")
	if name == "" || strings.ContainsAny(name, ",= ") {
		return Grant{}, errors.New("want NAME or NAME:SCOPE, and limits after commas: " + errLimit.Error())
	}
	g := Grant{Name: name, Scope: Scope{Verb: "use"}}
	var err error
	if g.Limits, err = parseLimits(limits); err != nil {
		return Grant{}, fmt.Errorf("limits of %s: %w", name, err)
	}
	if !has {
		return g, nil
	}
	if g.Scope, err = ParseScope(scope); err != nil {
		return Grant{}, fmt.Errorf("scope of %s: %w", name, err)
	}
	return g, nil
}
