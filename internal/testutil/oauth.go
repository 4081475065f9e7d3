package testutil

import (
	"compress/gzip"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"sync"
	"testing"
)

// OAuth is an authorization server and an API that takes its tokens (RFC 6749,
// RFC 8628), over HTTPS. Its endpoints:
//
//	POST /token          grants: authorization_code (code "good-code"), refresh_token, client_credentials
//	                     (client "service", secret as given), password, device_code (approved at the second poll)
//	POST /device         {"device_code","user_code","verification_uri","interval"}
//	GET  /authorize      redirects to redirect_uri with tokens in the fragment: the implicit flow
//	POST /login/oauth/access_token   GitHub's: a form, unless JSON is asked for
//	POST /user/keys      makes a key: {"id":1,"token":"..."}
//	GET  /refreshes      how many there were
//	     /api/...        what came, for who has an access token; 401 otherwise
//
// A refresh token works once; used again, it ends its login.
type OAuth struct {
	*httptest.Server
	// Life is expires_in; JWT makes access tokens of RFC 9068; Gzip codes replies;
	// Secret is the client's; Issued is told of every token.
	Life   int
	JWT    bool
	Gzip   bool
	Secret string
	Issued func(token string)

	t         testing.TB
	mu        sync.Mutex
	access    map[string]string // token -> login
	renew     map[string]string
	spent     map[string]string
	over      map[string]bool
	polls     int
	refreshes int
	n         int
	seen      []string
}

// OAuthServer starts one for names (see [CA.Server]); it ends with the test.
func OAuthServer(t testing.TB, ca *CA, names ...string) *OAuth {
	t.Helper()
	o := &OAuth{t: t, Life: 3600, access: map[string]string{}, renew: map[string]string{}, spent: map[string]string{}, over: map[string]bool{}}
	mux := http.NewServeMux()
	mux.HandleFunc("POST /token", o.token)
	mux.HandleFunc("POST /login/oauth/access_token", o.github)
	mux.HandleFunc("POST /device", func(w http.ResponseWriter, _ *http.Request) {
		reply(w, http.StatusOK, map[string]any{"device_code": "the-device-code", "user_code": "ABCD-EFGH", "verification_uri": "https://login.example.com/activate", "interval": 1})
	})
	mux.HandleFunc("GET /authorize", func(w http.ResponseWriter, r *http.Request) {
		a, _ := o.issue("implicit")
		http.Redirect(w, r, r.FormValue("redirect_uri")+"#state=x&token_type=bearer&access_token="+url.QueryEscape(a), http.StatusFound)
	})
	mux.HandleFunc("POST /user/keys", o.guarded(func(w http.ResponseWriter, _ *http.Request) {
		a, _ := o.issue("key")
		reply(w, http.StatusCreated, map[string]any{"id": 1, "token": a})
	}))
	mux.HandleFunc("GET /refreshes", func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, o.Refreshes()) })
	mux.HandleFunc("/api/", o.guarded(echo))
	o.Server = HTTPSServer(t, ca, mux, names...)
	return o
}

func (o *OAuth) guarded(next http.HandlerFunc) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		token := strings.TrimPrefix(r.Header.Get("Authorization"), "Bearer ")
		o.mu.Lock()
		o.seen = append(o.seen, token)
		login, ok := o.access[token]
		ok = ok && !o.over[login]
		o.mu.Unlock()
		if !ok {
			reply(w, http.StatusUnauthorized, map[string]any{"error": "invalid_token"})
			return
		}
		next(w, r)
	}
}

// issue makes an access and a refresh token of a login.
func (o *OAuth) issue(login string) (access, refresh string) {
	o.mu.Lock()
	defer o.mu.Unlock()
	access, refresh = "at-"+Random(40), "rt-"+Random(40)
	if o.JWT {
		enc := func(s string) string { return base64.RawURLEncoding.EncodeToString([]byte(s)) }
		access = enc(`{"alg":"RS256","typ":"at+jwt","kid":"`+Random(8)+`"}`) + "." + enc(fmt.Sprintf(`{"iss":"https://login.example.com","sub":"user-1","jti":"%s","exp":4102444800}`, Random(20))) + "." + enc(Random(64))
	}
	o.access[access], o.renew[refresh] = login, login
	if o.Issued != nil {
		o.Issued(access)
		o.Issued(refresh)
	}
	return access, refresh
}

func (o *OAuth) token(w http.ResponseWriter, r *http.Request) {
	get := r.FormValue
	if strings.HasPrefix(r.Header.Get("Content-Type"), "application/json") {
		var m map[string]string
		if json.NewDecoder(r.Body).Decode(&m) != nil {
			reply(w, http.StatusBadRequest, map[string]any{"error": "invalid_request"})
			return
		}
		get = func(k string) string { return m[k] }
	}
	fail := func(status int, word string) { reply(w, status, map[string]any{"error": word}) }
	o.mu.Lock()
	o.n++
	login := fmt.Sprintf("login-%d", o.n)
	o.mu.Unlock()
	switch get("grant_type") {
	case "authorization_code":
		if get("code") != "good-code" {
			fail(http.StatusBadRequest, "invalid_grant")
			return
		}
	case "password":
	case "client_credentials":
		id, secret, ok := r.BasicAuth()
		if !ok {
			id, secret = get("client_id"), get("client_secret")
		}
		if id != "service" || o.Secret == "" || secret != o.Secret {
			fail(http.StatusUnauthorized, "invalid_client")
			return
		}
	case "urn:ietf:params:oauth:grant-type:device_code":
		o.mu.Lock()
		o.polls++
		n := o.polls
		o.mu.Unlock()
		if n < 2 {
			fail(http.StatusBadRequest, "authorization_pending")
			return
		}
	case "refresh_token":
		o.mu.Lock()
		t := get("refresh_token")
		was, ok := o.renew[t]
		if l, used := o.spent[t]; used {
			o.over[l], ok = true, false
		}
		if ok {
			delete(o.renew, t)
			o.spent[t] = was
			o.refreshes++
			ok = !o.over[was]
		}
		o.mu.Unlock()
		if !ok {
			fail(http.StatusBadRequest, "invalid_grant")
			return
		}
		login = was
	default:
		fail(http.StatusBadRequest, "unsupported_grant_type")
		return
	}
	a, rt := o.issue(login)
	b, err := json.Marshal(map[string]any{"access_token": a, "token_type": "Bearer", "expires_in": o.Life, "refresh_token": rt, "scope": "all"})
	if err != nil {
		fail(http.StatusInternalServerError, "server_error")
		return
	}
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("Cache-Control", "no-store")
	if !o.Gzip {
		w.Write(b)
		return
	}
	w.Header().Set("Content-Encoding", "gzip")
	z := gzip.NewWriter(w)
	z.Write(b)
	z.Close()
}

func (o *OAuth) github(w http.ResponseWriter, r *http.Request) {
	a, _ := o.issue("github")
	if strings.Contains(r.Header.Get("Accept"), "json") {
		reply(w, http.StatusOK, map[string]any{"access_token": a, "token_type": "bearer", "scope": "repo"})
		return
	}
	w.Header().Set("Content-Type", "application/x-www-form-urlencoded; charset=utf-8")
	io.WriteString(w, "access_token="+a+"&scope=repo%2Cgist&token_type=bearer")
}

// Refreshes is how often a refresh token was taken.
func (o *OAuth) Refreshes() int {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.refreshes
}

// Ended says whether a refresh token was used twice.
func (o *OAuth) Ended() bool {
	o.mu.Lock()
	defer o.mu.Unlock()
	return len(o.over) > 0
}
