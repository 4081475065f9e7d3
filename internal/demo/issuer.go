//go:build linux

package main

import (
	"encoding/json"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"sync"
	"testing"

	"guard/internal/testutil"
)

// issuer gives out the tokens of the API and of the git server: what a company's
// own token service would be. rotate-token.py talks to it.
type issuer struct {
	mu     sync.Mutex
	tokens map[string]string // by service
	set    map[string]func(string)
	admin  string
	url    string
}

func newIssuer(t testing.TB, ca *testutil.CA, api *testutil.API, git *testutil.Git, tokens map[string]string) *issuer {
	i := &issuer{tokens: tokens, admin: testutil.Random(32), set: map[string]func(string){"api": api.SetToken, "git": git.SetToken}}
	i.url = testutil.HTTPSServer(t, ca, http.HandlerFunc(i.serve)).URL
	return i
}

// token is the one that works now.
func (i *issuer) token(service string) string {
	i.mu.Lock()
	defer i.mu.Unlock()
	return i.tokens[service]
}

// serve takes {"service","token"}: PUT makes the token the one that works,
// DELETE ends it if it works, POST answers 200 or 401.
func (i *issuer) serve(w http.ResponseWriter, r *http.Request) {
	var q struct{ Service, Token string }
	b, err := io.ReadAll(io.LimitReader(r.Body, 1<<16))
	if err != nil || json.Unmarshal(b, &q) != nil || i.set[q.Service] == nil || r.Header.Get("Authorization") != "Bearer "+i.admin {
		w.WriteHeader(http.StatusBadRequest)
		return
	}
	i.mu.Lock()
	defer i.mu.Unlock()
	switch r.Method {
	case http.MethodPut:
		i.tokens[q.Service] = q.Token
		i.set[q.Service](q.Token)
	case http.MethodDelete:
		if i.tokens[q.Service] == q.Token {
			i.tokens[q.Service] = ""
			i.set[q.Service]("")
		}
	case http.MethodPost:
		if q.Token == "" || i.tokens[q.Service] != q.Token {
			w.WriteHeader(http.StatusUnauthorized)
		}
	}
}

// rotateProgram is the user's command that replaces a token, in the exec
// provider's protocol. Values come and go on its standard input and output.
const rotateProgram = `#!/usr/bin/env python3
"""Replaces a token at the demo's issuer: one JSON object in, one out."""
import json, ssl, sys, urllib.error, urllib.request

URL, ADMIN, CA, SERVICE = %q, %q, %q, %q


def call(method, token):
    body = json.dumps({"service": SERVICE, "token": token}).encode()
    request = urllib.request.Request(URL, body, {"Authorization": "Bearer " + ADMIN}, method=method)
    try:
        with urllib.request.urlopen(request, context=ssl.create_default_context(cafile=CA), timeout=10):
            return True
    except urllib.error.HTTPError as error:
        if error.code != 401:
            raise
        return False


job = json.load(sys.stdin)
step = job["step"]
if step == "mint":
    call("PUT", job["candidate"])
    answer = {"ok": True}
elif step == "verify":
    answer = {"ok": call("POST", job["candidate"])}
elif step == "revoke":
    call("DELETE", job["current"])
    answer = {"ok": True}
else:
    answer = {"ok": not call("POST", job["current"])}
json.dump(answer, sys.stdout)
`

// program writes the rotation program for one service.
func (i *issuer) program(t testing.TB, dir, caFile, service string) string {
	path := filepath.Join(dir, "rotate-"+service+".py")
	if err := os.WriteFile(path, []byte(sprintf(rotateProgram, i.url, i.admin, caFile, service)), 0o700); err != nil {
		t.Fatal(err)
	}
	return path
}
