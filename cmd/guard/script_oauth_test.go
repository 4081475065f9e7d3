//go:build linux

package main

import (
	"strconv"

	"github.com/rogpeppe/go-internal/testscript"

	"guard/internal/testutil"
)

// oauth LIFE|jwt|gzip... NAME...: an authorization server and API at the hosts
// NAME. $OAUTH_PORT is its port; LIFE is how many seconds its tokens live. Every
// token that it gives out is a canary. The client "service" has the secret $CANARY.
func cmdOAuth(ts *testscript.TestScript, neg bool, args []string) {
	s := stateOf(ts)
	life, jwt, gz := 3600, false, false
	var names []string
	for _, a := range args {
		n, err := strconv.Atoi(a)
		switch {
		case err == nil:
			life = n
		case a == "jwt":
			jwt = true
		case a == "gzip":
			gz = true
		default:
			names = append(names, a)
		}
	}
	o := testutil.OAuthServer(s.t.T, authority(ts, s), names...)
	o.Life, o.JWT, o.Gzip, o.Secret = life, jwt, gz, ts.Getenv("CANARY")
	o.Issued = func(token string) { s.t.plant("TOKEN", token) }
	s.oauth = o
	ts.Setenv("OAUTH_PORT", portOf(o.URL))
}

// [!] oauthrefreshed N: N refresh tokens at least were taken, none of them twice.
func cmdOAuthRefreshed(ts *testscript.TestScript, neg bool, args []string) {
	need(ts, args, 1, "oauthrefreshed N")
	n, _ := strconv.Atoi(args[0])
	o := stateOf(ts).oauth
	if got := o.Refreshes(); got < n || o.Ended() {
		ts.Fatalf("%d refreshes; a token was used twice: %v", got, o.Ended())
	}
}
