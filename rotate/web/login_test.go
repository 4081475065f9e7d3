package web

import (
	"crypto/hmac"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"strconv"
	"strings"
	"testing"
	"time"

	"guard"
	"guard/rotate"
	"guard/rotate/rotatetest"
)

func webhookFake(w *wire, rw http.ResponseWriter, r *http.Request) {
	type m = map[string]any
	if r.Method == http.MethodGet {
		if w.live(bearerOf(r)) == nil {
			rw.WriteHeader(http.StatusUnauthorized)
		}
		return
	}
	b, _ := io.ReadAll(r.Body)
	sig := r.Header.Get("Guard-Signature")
	at, _ := strconv.ParseInt(strings.TrimPrefix(strings.Split(sig, ",")[0], "t="), 10, 64)
	if !hmac.Equal([]byte(sig), []byte(signature(boss, time.Unix(at, 0), b))) || time.Since(time.Unix(at, 0)).Abs() > time.Minute {
		rw.WriteHeader(http.StatusForbidden)
		return
	}
	var q webhookRequest
	if json.Unmarshal(b, &q) != nil {
		rw.WriteHeader(http.StatusBadRequest)
		return
	}
	ok := true
	switch q.Step {
	case rotate.StepMint:
		if w.refuse {
			ok = false
			break
		}
		if w.live(q.Candidate) == nil {
			w.give(w.oneOwner(), q.Intent, q.Candidate)
		}
	case rotate.StepVerify:
		ok = w.live(q.Candidate) != nil
	case rotate.StepRevoke:
		for _, v := range w.all {
			if v.value == q.Current {
				w.end(v)
			}
		}
	case rotate.StepDead:
		ok = w.live(q.Current) == nil
	}
	answer(rw, http.StatusOK, m{"ok": ok, "error": "you sent " + q.Current})
}

func TestWebhookConformance(t *testing.T) {
	t.Parallel()
	w := serve(t, webhookFake)
	rotatetest.Test(t, theIssuer{
		name: "webhook", provider: Webhook{}, wire: w, spec: "url=URL,sign=boss", others: admins(""), try: tryWith("GET", "/", "Authorization", "Bearer "),
		first: func(owner string) string { return w.give(owner, "first", w.rand("wh_")).value },
	}.open())
}

// oauthFake is an authorization server: client credentials, and refresh tokens that work
// once and whose second use ends the login.
func oauthFake(w *wire, rw http.ResponseWriter, r *http.Request) {
	type m = map[string]any
	r.ParseForm()
	f := r.PostForm
	if user, pass, _ := r.BasicAuth(); user != "the-client" || pass != boss {
		answer(rw, http.StatusUnauthorized, m{"error": "invalid_client"})
		return
	}
	switch r.URL.Path {
	case "/introspect":
		answer(rw, http.StatusOK, m{"active": w.live(f.Get("token")) != nil})
	case "/revoke":
		for _, v := range w.all {
			if v.value == f.Get("token") {
				w.end(v)
			}
		}
		answer(rw, http.StatusOK, nil)
	case "/token":
		got := m{"token_type": "Bearer", "expires_in": 3600}
		if w.refuse {
			answer(rw, http.StatusBadRequest, m{"error": "invalid_scope"})
			return
		}
		if f.Get("grant_type") == "refresh_token" {
			old := w.live(f.Get("refresh_token"))
			if old == nil {
				answer(rw, http.StatusBadRequest, m{"error": "invalid_grant"})
				return
			}
			w.end(old)
			got["refresh_token"] = w.give("refresh", "", w.rand("rt_")).value
		}
		got["access_token"] = w.give(w.all[0].owner, "", w.rand("at_")).value
		answer(rw, http.StatusOK, got)
	}
}

func oauthIssuer(t *testing.T, more string) theIssuer {
	w := serve(t, oauthFake)
	return theIssuer{
		name: "oauth", provider: OAuth{}, wire: w, orphans: true, others: admins(""),
		spec:  "token=URL/token,revoke=URL/revoke,introspect=URL/introspect,client=the-client,admin=boss" + more,
		first: func(owner string) string { return w.give(owner, "first", w.rand("at_")).value },
		try: func(base, _, value string) (*http.Response, error) {
			r, err := http.NewRequest("POST", base+"/introspect", strings.NewReader("token="+value))
			if err != nil {
				return nil, err
			}
			r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
			r.SetBasicAuth("the-client", boss)
			res, err := http.DefaultClient.Do(r)
			if err == nil {
				b, _ := io.ReadAll(res.Body)
				if strings.Contains(string(b), "false") {
					res.StatusCode = http.StatusUnauthorized
				}
			}
			return res, err
		},
	}
}

func TestOAuthConformance(t *testing.T) {
	t.Parallel()
	rotatetest.Test(t, oauthIssuer(t, "").open())
}

// A refresh token is sent once. The one that comes back is stored; if the answer is
// lost, a person must log in, and the token is not sent again.
func TestOAuthRefreshIsSentOnce(t *testing.T) {
	i := oauthIssuer(t, ",refresh=renew")
	i.wire.give("owner", "first", "the-first-access-token")
	i.others = append(i.others, rotatetest.Other{Credential: guard.Credential{Name: "renew", Kind: "generic"}, Value: "the-first-refresh-token"})
	i.wire.give("refresh", "first", "the-first-refresh-token")
	fx := i.open()(t, "")
	r := runner(t, fx)
	rep, err := r.Rotate(t.Context(), "test", "token", rotate.Graceful, "")
	if err != nil || !rep.Dead {
		t.Fatalf("%+v, %v", rep, err)
	}
	if got := i.wire.living("refresh"); len(got) != 1 || current(t, r, "renew") != got[0] {
		t.Errorf("the stored refresh token is not the living one")
	}
	asked := func() int { return strings.Count(strings.Join(i.wire.hits, "\n"), "/token") }
	before := asked()
	i.wire.set(func() { i.wire.drop = func(q *http.Request) bool { return q.URL.Path == "/token" } })
	rep, err = r.Rotate(t.Context(), "test", "token", rotate.Graceful, "")
	if !errors.Is(err, rotate.ErrByHand) || rep.State != "by hand" {
		t.Errorf("%+v, %v", rep, err)
	}
	if _, err := r.Resume(t.Context()); !errors.Is(err, rotate.ErrByHand) {
		t.Error(err)
	}
	if n := asked() - before; n != 1 {
		t.Errorf("the refresh token was sent %d times", n)
	}
}

// A signed token that its issuer calls inactive is taken by who does not ask it.
func TestOAuthJWTOutlivesItsRevocation(t *testing.T) {
	key, pem := newKey(t)
	_ = key
	i := oauthIssuer(t, "")
	fx := i.open()(t, "")
	j := jobOf(t, runner(t, fx), fx)
	j.Step = rotate.StepDead
	for in, dead := range map[time.Duration]bool{time.Hour: false, -time.Hour: true} {
		jwt, err := signJWT(pem, "", map[string]any{"exp": time.Now().Add(in).Unix()})
		must(t, err)
		if err := (OAuth{}).Verify(t.Context(), j, guard.NewSecret([]byte(jwt))); err == nil || errors.Is(err, rotate.ErrRefused) != dead {
			t.Errorf("expires in %v: %v", in, err)
		}
	}
}
