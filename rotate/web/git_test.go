package web

import (
	"crypto"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"net/http"
	"os"
	"strings"
	"testing"
	"time"

	"guard"
	"guard/rotate"
	"guard/rotate/rotatetest"
)

// newKey makes an RSA key and its PEM.
func newKey(t *testing.T) (*rsa.PrivateKey, string) {
	t.Helper()
	if os.Getenv("GUARD_ROTATETEST_CHILD") != "" {
		return nil, ""
	}
	k, err := rsa.GenerateKey(rand.Reader, 2048)
	must(t, err)
	b, err := x509.MarshalPKCS8PrivateKey(k)
	must(t, err)
	return k, string(pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: b}))
}

// claims are those of a JWT that key signed; nil: it did not.
func claims(jwt string, key *rsa.PublicKey) map[string]any {
	parts := strings.Split(jwt, ".")
	if len(parts) != 3 {
		return nil
	}
	sig, err := base64.RawURLEncoding.DecodeString(parts[2])
	sum := sha256.Sum256([]byte(parts[0] + "." + parts[1]))
	if err != nil || rsa.VerifyPKCS1v15(key, crypto.SHA256, sum[:], sig) != nil {
		return nil
	}
	b, err := base64.RawURLEncoding.DecodeString(parts[1])
	var c map[string]any
	if err != nil || json.Unmarshal(b, &c) != nil {
		return nil
	}
	return c
}

func gitHub(key *rsa.PublicKey) func(*wire, http.ResponseWriter, *http.Request) {
	return func(w *wire, rw http.ResponseWriter, r *http.Request) {
		token := strings.TrimPrefix(r.Header.Get("Authorization"), "Bearer ")
		bad := map[string]string{"message": "Bad credentials"}
		if app, ok := strings.CutPrefix(r.URL.Path, "/app/installations/"); ok && r.Method == http.MethodPost {
			owner, rest, _ := strings.Cut(app, "/")
			c := claims(token, key)
			now := time.Now().Add(w.skew)
			iat, _ := c["iat"].(float64)
			exp, _ := c["exp"].(float64)
			switch {
			case rest != "access_tokens":
				rw.WriteHeader(http.StatusNotFound)
			case c == nil || c["iss"] != "Iv1.app" || int64(iat) > now.Unix() || int64(exp) <= now.Unix() || exp-iat > 600:
				answer(rw, http.StatusUnauthorized, bad)
			case w.full(owner):
				answer(rw, http.StatusUnprocessableEntity, map[string]string{"message": "no"})
			default:
				var body struct {
					Repositories []string
					Permissions  map[string]string
				}
				json.NewDecoder(r.Body).Decode(&body)
				v := w.give(owner, "", w.rand("ghs_"))
				v.extra = fmt.Sprint(body.Repositories, body.Permissions)
				answer(rw, http.StatusCreated, map[string]any{"token": v.value, "expires_at": now.Add(time.Hour).UTC().Format(time.RFC3339)})
			}
			return
		}
		v := w.live(token)
		switch {
		case v == nil:
			answer(rw, http.StatusUnauthorized, bad)
		case r.Method == http.MethodGet && r.URL.Path == "/installation/repositories":
			answer(rw, http.StatusOK, map[string]int{"total_count": 1})
		case r.Method == http.MethodDelete && r.URL.Path == "/installation/token":
			w.end(v)
			rw.WriteHeader(http.StatusNoContent)
		default:
			rw.WriteHeader(http.StatusNotFound)
		}
	}
}

func gitHubIssuer(t *testing.T) theIssuer {
	key, text := newKey(t)
	if key == nil {
		key = &rsa.PrivateKey{}
	}
	w := serve(t, gitHub(&key.PublicKey))
	return theIssuer{
		name: "github-app", provider: GitHubApp{}, wire: w, orphans: true,
		spec:   "admin=app-key,app=Iv1.app,installation=OWNER,repositories=one+two,permissions=contents:read+issues:write,url=URL",
		first:  func(owner string) string { return w.give(owner, "first", w.rand("ghs_")).value },
		others: []rotatetest.Other{{Credential: guard.Credential{Name: "app-key", Kind: "generic"}, Value: text}},
		try:    tryWith("GET", "/installation/repositories", "Authorization", "Bearer "),
	}
}

func TestGitHubAppConformance(t *testing.T) {
	t.Parallel()
	rotatetest.Test(t, gitHubIssuer(t).open())
}

func TestGitHubAppKnobs(t *testing.T) {
	t.Parallel()
	i := gitHubIssuer(t)
	knobs(t, i)
	fx := i.open()(t, "")
	r := runner(t, fx)
	if _, err := r.Rotate(t.Context(), "test", "token", rotate.Graceful, ""); err != nil {
		t.Fatal(err)
	}
	c, err := r.Vault.Find("test", "token")
	must(t, err)
	if left := time.Until(c.Expires); left < 50*time.Minute || left > 70*time.Minute {
		t.Errorf("expires in %v", left)
	}
	if v := i.wire.all[len(i.wire.all)-1]; v.extra != "[one two] map[contents:read issues:write]" {
		t.Errorf("narrowed to %s", v.extra)
	}
	must(t, r.Check(t.Context(), "test", "token"))
	must(t, GitHubApp{}.Verify(t.Context(), jobOf(t, r, fx), guard.NewSecret([]byte(current(t, r, "token")))))
	j := jobOf(t, r, fx)
	for what, change := range map[string]func(map[string]string){
		"not a number":    func(o map[string]string) { o["installation"] = "../x" },
		"permissions":     func(o map[string]string) { o["permissions"] = "all" },
		"wants https":     func(o map[string]string) { o["url"] = "http://github.example.com" },
		"does not belong": func(o map[string]string) { o["url"] = "https://github.example.com" },
		"needs admin":     func(o map[string]string) { delete(o, "admin") },
		"does not accept": func(o map[string]string) { o["app"] = "another" },
	} {
		o := map[string]string{}
		for k, v := range j.Options {
			o[k] = v
		}
		change(o)
		bad := j
		bad.Options = o
		if _, err := (GitHubApp{}).Mint(t.Context(), bad); err == nil || !strings.Contains(err.Error(), what) {
			t.Errorf("want %q: %v", what, err)
		}
	}
}

// gitLab is GitLab's API of access tokens. A token that is shown after it was rotated,
// or used to rotate twice, ends the family; guard never rotates.
func gitLab(w *wire, rw http.ResponseWriter, r *http.Request) {
	token := r.Header.Get("PRIVATE-TOKEN")
	path := strings.TrimPrefix(r.URL.Path, "/api/v4")
	show := func(v *issued, secret bool) map[string]any {
		var id int64
		fmt.Sscan(v.id, &id)
		m := map[string]any{"id": id, "name": v.name, "active": !v.gone, "revoked": v.gone, "user_id": 7, "expires_at": time.Now().UTC().AddDate(0, 0, 30).Format(time.DateOnly)}
		if secret {
			m["token"] = v.value
		}
		return m
	}
	if strings.HasSuffix(path, "/rotate") {
		for _, v := range w.all {
			v.gone = true
		}
		rw.WriteHeader(http.StatusUnauthorized)
		return
	}
	admin := token == "the-admin-of-gitlab"
	v := w.live(token)
	if v == nil && !admin {
		answer(rw, http.StatusUnauthorized, map[string]string{"message": "401 Unauthorized"})
		return
	}
	if path == "/personal_access_tokens/self" && v != nil {
		answer(rw, http.StatusOK, show(v, false))
		return
	}
	if !admin {
		answer(rw, http.StatusForbidden, map[string]string{"error": "insufficient_scope"})
		return
	}
	parts := strings.Split(strings.Trim(path, "/"), "/")
	owner := r.URL.Query().Get("user_id")
	switch parts[0] {
	case "users", "projects":
		owner = parts[1]
	case "groups":
		owner = parts[1]
		if parts[2] == "service_accounts" {
			owner = parts[3]
		}
	}
	switch r.Method {
	case http.MethodGet:
		page, next := w.paged(w.of(owner), r.URL.Query().Get("page"))
		out := []any{}
		for _, v := range page {
			out = append(out, show(v, false))
		}
		rw.Header().Set("X-Next-Page", next)
		answer(rw, http.StatusOK, out)
	case http.MethodPost:
		var body struct {
			Name    string
			Scopes  []string
			Expires string `json:"expires_at"`
		}
		json.NewDecoder(r.Body).Decode(&body)
		if w.full(owner) || body.Name == "" || len(body.Scopes) == 0 || body.Expires == "" {
			answer(rw, http.StatusBadRequest, map[string]string{"message": "no"})
			return
		}
		answer(rw, http.StatusCreated, show(w.give(owner, body.Name, w.rand("glpat-")), true))
	case http.MethodDelete:
		if !w.end(w.byID(parts[len(parts)-1])) {
			answer(rw, http.StatusNotFound, nil)
			return
		}
		rw.WriteHeader(http.StatusNoContent)
	}
}

func gitLabIssuer(t *testing.T, owner string) theIssuer {
	w := serve(t, gitLab)
	return theIssuer{
		name: "gitlab", provider: GitLab{}, wire: w, kind: "generic",
		spec:   "admin=boss,scopes=read_api+read_repository," + owner + ",url=URL",
		first:  func(owner string) string { return w.give(owner, "first", w.rand("glpat-")).value },
		others: []rotatetest.Other{{Credential: guard.Credential{Name: "boss", Kind: "generic"}, Value: "the-admin-of-gitlab"}},
		try:    tryWith("GET", "/api/v4/personal_access_tokens/self", "PRIVATE-TOKEN", ""),
	}
}

func TestGitLabConformance(t *testing.T) {
	t.Parallel()
	rotatetest.Test(t, gitLabIssuer(t, "user=OWNER").open())
}

func TestGitLabKnobs(t *testing.T) {
	t.Parallel()
	i := gitLabIssuer(t, "user=OWNER")
	knobs(t, i)
	for _, owner := range []string{"project=OWNER", "group=OWNER", "group=9,user=OWNER"} {
		t.Run(owner, func(t *testing.T) { rotatetest.Once(t, gitLabIssuer(t, owner).open()) })
	}
	for _, hit := range i.wire.hits {
		if strings.HasSuffix(hit, "/rotate") {
			t.Error("it was rotated with a token that may have been used already")
		}
	}
	fx := i.open()(t, "")
	must(t, runner(t, fx).Check(t.Context(), "test", "token"))
}
