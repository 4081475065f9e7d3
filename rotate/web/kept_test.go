package web

import (
	"crypto/md5"
	"crypto/rsa"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"
	"testing"
	"time"

	"guard"
	"guard/rotate"
	"guard/rotate/rotatetest"
)

const boss = "the-admin-value-of-this-issuer"

func admins(user string) []rotatetest.Other {
	return []rotatetest.Other{{Credential: guard.Credential{Name: "boss", Kind: "generic", User: user}, Value: boss}}
}

func body(r *http.Request) map[string]any {
	var m map[string]any
	json.NewDecoder(r.Body).Decode(&m)
	return m
}

func bearerOf(r *http.Request) string {
	return strings.TrimPrefix(r.Header.Get("Authorization"), "Bearer ")
}

func last(path string) string { return path[strings.LastIndexByte(path, '/')+1:] }

// oneOwner is who owns every value of a fake whose requests do not say it: there is one
// rotation at a time.
func (w *wire) oneOwner() string { return w.all[len(w.all)-1].owner }

func cloudflareFake(w *wire, rw http.ResponseWriter, r *http.Request) {
	type m = map[string]any
	const tokens = "/client/v4/user/tokens"
	show := func(v *issued) m {
		return m{"id": v.id, "name": v.name, "status": "active", "policies": []m{{"effect": "allow", "of": v.extra}}}
	}
	v := w.live(bearerOf(r))
	if r.URL.Path == tokens+"/verify" {
		if v == nil {
			answer(rw, http.StatusUnauthorized, m{"success": false, "errors": []m{{"code": 1000}}})
			return
		}
		answer(rw, http.StatusOK, m{"result": m{"id": v.id, "status": "active"}})
		return
	}
	if bearerOf(r) != boss {
		rw.WriteHeader(http.StatusForbidden)
		return
	}
	id := strings.Trim(strings.TrimPrefix(r.URL.Path, tokens), "/")
	switch {
	case r.Method == http.MethodGet && id == "":
		page, next := w.paged(w.of(w.oneOwner()), r.URL.Query().Get("page"))
		out := []m{}
		for _, v := range page {
			out = append(out, show(v))
		}
		pages := 1
		if next != "" {
			fmt.Sscan(next, &pages)
		}
		answer(rw, http.StatusOK, m{"result": out, "result_info": m{"total_pages": pages}})
	case r.Method == http.MethodPost:
		b := body(r)
		if w.full(w.oneOwner()) {
			rw.WriteHeader(http.StatusBadRequest)
			return
		}
		v := w.give(w.oneOwner(), b["name"].(string), w.rand("cf"))
		p, _ := json.Marshal(b["policies"])
		v.extra = strings.Trim(strings.TrimSuffix(strings.TrimPrefix(string(p), `[{"effect":"allow","of":`), "}]"), `"`)
		answer(rw, http.StatusOK, m{"result": m{"id": v.id, "value": v.value}})
	case w.byID(id) == nil:
		rw.WriteHeader(http.StatusNotFound)
	case r.Method == http.MethodGet:
		answer(rw, http.StatusOK, m{"result": show(w.byID(id))})
	default:
		w.end(w.byID(id))
		answer(rw, http.StatusOK, m{"result": m{"id": id}})
	}
}

func datadogFake(w *wire, rw http.ResponseWriter, r *http.Request) {
	type m = map[string]any
	show := func(v *issued, all bool) m {
		a := m{"name": v.name, "last4": v.value[len(v.value)-4:]}
		if all {
			a["key"] = v.value
		}
		return m{"id": v.id, "type": "api_keys", "attributes": a}
	}
	if strings.HasSuffix(r.URL.Path, "/validate") {
		v := w.live(r.Header.Get("DD-API-KEY"))
		switch {
		case v == nil:
			answer(rw, http.StatusForbidden, m{"errors": []string{"Forbidden"}})
		case r.URL.Path == "/api/v1/validate":
			answer(rw, http.StatusOK, m{"valid": true})
		default:
			answer(rw, http.StatusOK, m{"data": m{"attributes": m{"api_key_id": v.id, "valid": true}}})
		}
		return
	}
	if r.Header.Get("DD-APPLICATION-KEY") != boss || r.Header.Get("DD-API-KEY") != "the-other-api-key-of-datadog" {
		rw.WriteHeader(http.StatusForbidden)
		return
	}
	switch r.Method {
	case http.MethodGet:
		n := 0
		fmt.Sscan(r.URL.Query().Get("page[number]"), &n)
		page, _ := w.paged(w.of(w.oneOwner()), fmt.Sprint(n+1))
		if w.page == 0 && n > 0 {
			page = nil
		}
		out := []m{}
		for _, v := range page {
			out = append(out, show(v, false))
		}
		answer(rw, http.StatusOK, m{"data": out})
	case http.MethodPost:
		name := body(r)["data"].(m)["attributes"].(m)["name"].(string)
		if w.full(w.oneOwner()) {
			rw.WriteHeader(http.StatusBadRequest)
			return
		}
		answer(rw, http.StatusCreated, m{"data": show(w.give(w.oneOwner(), name, w.rand("dd")), true)})
	default:
		if !w.end(w.byID(last(r.URL.Path))) {
			rw.WriteHeader(http.StatusNotFound)
			return
		}
		rw.WriteHeader(http.StatusNoContent)
	}
}

func dockerFake(w *wire, rw http.ResponseWriter, r *http.Request) {
	type m = map[string]any
	show := func(v *issued, all bool) m {
		o := m{"uuid": v.id, "token_label": v.name, "is_active": true}
		if all {
			o["token"] = v.value
		}
		return o
	}
	if r.URL.Path == "/v2/auth/token" {
		b := body(r)
		switch {
		case b["identifier"] == "me" && b["secret"] == boss:
			answer(rw, http.StatusOK, m{"access_token": "a-session-of-the-account"})
		case b["identifier"] == "me" && w.live(b["secret"].(string)) != nil:
			answer(rw, http.StatusOK, m{"access_token": "a-session-of-a-token"})
		default:
			answer(rw, http.StatusUnauthorized, m{"detail": "Incorrect authentication credentials"})
		}
		return
	}
	if bearerOf(r) != "a-session-of-the-account" {
		rw.WriteHeader(http.StatusForbidden)
		return
	}
	switch r.Method {
	case http.MethodGet:
		page, next := w.paged(w.of(w.oneOwner()), r.URL.Query().Get("page"))
		out := []m{}
		for _, v := range page {
			out = append(out, show(v, false))
		}
		if next != "" {
			next = "https://evil.test/v2/access-tokens?page=" + next
		}
		answer(rw, http.StatusOK, m{"next": next, "results": out})
	case http.MethodPost:
		b := body(r)
		if w.full(w.oneOwner()) {
			rw.WriteHeader(http.StatusBadRequest)
			return
		}
		answer(rw, http.StatusCreated, show(w.give(w.oneOwner(), b["token_label"].(string), w.rand("dckr_pat_")), true))
	default:
		if !w.end(w.byID(last(r.URL.Path))) {
			rw.WriteHeader(http.StatusNotFound)
			return
		}
		rw.WriteHeader(http.StatusAccepted)
	}
}

// npmFake is npm's token API as verdaccio has it: tokens have no names, and their keys
// are hashes.
func npmFake(w *wire, rw http.ResponseWriter, r *http.Request) {
	type m = map[string]any
	key := func(v *issued) string { h := md5.Sum([]byte(v.value)); return hex.EncodeToString(h[:]) }
	if r.URL.Path == "/-/whoami" {
		if w.live(bearerOf(r)) == nil {
			rw.WriteHeader(http.StatusUnauthorized)
			return
		}
		answer(rw, http.StatusOK, m{"username": "me"})
		return
	}
	if user, pass, _ := r.BasicAuth(); user != "me" || pass != boss {
		rw.WriteHeader(http.StatusUnauthorized)
		return
	}
	switch r.Method {
	case http.MethodGet:
		page, next := w.paged(w.of(w.oneOwner()), r.URL.Query().Get("page"))
		out := []m{}
		for _, v := range page {
			out = append(out, m{"key": key(v), "token": v.value[:5] + "..."})
		}
		urls := m{}
		if next != "" {
			urls["next"] = "https://evil.test/-/npm/v1/tokens?page=" + next
		}
		answer(rw, http.StatusOK, m{"objects": out, "urls": urls})
	case http.MethodPost:
		if w.full(w.oneOwner()) || body(r)["password"] != boss {
			rw.WriteHeader(http.StatusBadRequest)
			return
		}
		v := w.give(w.oneOwner(), "", w.rand("npm_"))
		answer(rw, http.StatusOK, m{"token": v.value, "key": key(v)})
	default:
		for _, v := range w.of(w.oneOwner()) {
			if key(v) == last(r.URL.Path) {
				w.end(v)
				answer(rw, http.StatusOK, m{})
				return
			}
		}
		rw.WriteHeader(http.StatusNotFound)
	}
}

func openAIFake(w *wire, rw http.ResponseWriter, r *http.Request) {
	type m = map[string]any
	if r.URL.Path == "/v1/models" {
		if w.live(bearerOf(r)) == nil {
			answer(rw, http.StatusUnauthorized, m{"error": m{"code": "invalid_api_key", "message": "Incorrect API key provided: " + bearerOf(r)}})
			return
		}
		answer(rw, http.StatusOK, m{"data": []m{}})
		return
	}
	if bearerOf(r) != boss || !strings.HasPrefix(r.URL.Path, "/v1/organization/projects/proj_1/") {
		rw.WriteHeader(http.StatusForbidden)
		return
	}
	accounts := strings.Contains(r.URL.Path, "service_accounts")
	switch r.Method {
	case http.MethodGet:
		all, more := w.of(w.oneOwner()), false
		if after := r.URL.Query().Get("after"); after != "" {
			for i, v := range all {
				if v.id == after {
					all = all[i+1:]
					break
				}
			}
		}
		if w.page > 0 && len(all) > w.page {
			all, more = all[:w.page], true
		}
		out, end := []m{}, ""
		for _, v := range all {
			end = v.id
			if accounts {
				out = append(out, m{"id": v.id, "name": v.name})
			} else {
				out = append(out, m{"id": "key_" + v.id, "redacted_value": v.value[:10] + "..." + v.value[len(v.value)-4:], "owner": m{"type": "service_account", "service_account": m{"id": v.id}}})
			}
		}
		answer(rw, http.StatusOK, m{"data": out, "has_more": more, "last_id": end})
	case http.MethodPost:
		name := body(r)["name"].(string)
		if w.full(w.oneOwner()) {
			rw.WriteHeader(http.StatusBadRequest)
			return
		}
		v := w.give(w.oneOwner(), name, w.rand("sk-svcacct-"))
		answer(rw, http.StatusOK, m{"id": v.id, "name": name, "api_key": m{"value": v.value, "id": "key_" + v.id}})
	default:
		if !accounts || !w.end(w.byID(last(r.URL.Path))) {
			rw.WriteHeader(http.StatusNotFound)
			return
		}
		answer(rw, http.StatusOK, m{"deleted": true})
	}
}

func azureFake(w *wire, rw http.ResponseWriter, r *http.Request) {
	type m = map[string]any
	show := func(v *issued, all bool) m {
		o := m{"keyId": v.id, "displayName": v.name, "hint": v.value[:3], "endDateTime": time.Now().AddDate(0, 0, 90).UTC().Format(time.RFC3339)}
		if all {
			o["secretText"] = v.value
		}
		return o
	}
	if r.URL.Path == "/tenant-1/oauth2/v2.0/token" {
		r.ParseForm()
		client, secret := r.PostForm.Get("client_id"), r.PostForm.Get("client_secret")
		switch {
		case client == "boss-app" && secret == boss:
			answer(rw, http.StatusOK, m{"access_token": "a-session-of-the-admin"})
		case client == "the-app" && w.live(secret) != nil:
			answer(rw, http.StatusOK, m{"access_token": "a-session-of-the-app"})
		default:
			answer(rw, http.StatusUnauthorized, m{"error": "invalid_client", "error_codes": []int{7000215}})
		}
		return
	}
	if bearerOf(r) != "a-session-of-the-admin" {
		rw.WriteHeader(http.StatusUnauthorized)
		return
	}
	switch last(r.URL.Path) {
	case "addPassword":
		name := body(r)["passwordCredential"].(m)["displayName"].(string)
		if w.full(w.oneOwner()) {
			rw.WriteHeader(http.StatusBadRequest)
			return
		}
		answer(rw, http.StatusOK, show(w.give(w.oneOwner(), name, w.rand("x8Q~")), true))
	case "removePassword":
		if !w.end(w.byID(body(r)["keyId"].(string))) {
			rw.WriteHeader(http.StatusNotFound)
			return
		}
		rw.WriteHeader(http.StatusNoContent)
	default:
		out := []m{}
		for _, v := range w.of(w.oneOwner()) {
			out = append(out, show(v, false))
		}
		answer(rw, http.StatusOK, m{"passwordCredentials": out})
	}
}

// gcpFake gives out key files, all with one RSA key: what tells them apart is the id
// in the JWT's header.
func gcpFake(pub *rsa.PublicKey, pem string) func(*wire, http.ResponseWriter, *http.Request) {
	return func(w *wire, rw http.ResponseWriter, r *http.Request) {
		type m = map[string]any
		if r.URL.Path == "/token" {
			r.ParseForm()
			jwt := r.PostForm.Get("assertion")
			c := claims(jwt, pub)
			now := time.Now().Add(w.skew)
			iat, _ := c["iat"].(float64)
			exp, _ := c["exp"].(float64)
			head, _, _ := strings.Cut(jwt, ".")
			b, _ := base64.RawURLEncoding.DecodeString(head)
			var h struct{ Kid string }
			json.Unmarshal(b, &h)
			var v *issued
			for _, one := range w.all {
				if one.id == h.Kid {
					v = w.live(one.value)
				}
			}
			switch {
			case int64(iat) > now.Unix() || int64(exp) < now.Unix():
				answer(rw, http.StatusBadRequest, m{"error": "invalid_grant", "error_description": "Invalid JWT: Token must be a short-lived token (60 minutes) and in a reasonable timeframe."})
			case c["iss"] == "boss@p.iam.gserviceaccount.com" && h.Kid == "boss-key":
				answer(rw, http.StatusOK, m{"access_token": "a-session-of-the-admin"})
			case v == nil:
				answer(rw, http.StatusBadRequest, m{"error": "invalid_grant", "error_description": "Invalid JWT Signature."})
			default:
				answer(rw, http.StatusOK, m{"access_token": "a-session-of-the-key"})
			}
			return
		}
		if bearerOf(r) != "a-session-of-the-admin" {
			rw.WriteHeader(http.StatusUnauthorized)
			return
		}
		name := func(v *issued) string { return "projects/p/serviceAccounts/x@p.iam.gserviceaccount.com/keys/" + v.id }
		id, disable := strings.CutSuffix(last(r.URL.Path), ":disable")
		switch {
		case r.Method == http.MethodGet:
			out := []m{}
			for _, v := range w.of(w.oneOwner()) {
				out = append(out, m{"name": name(v), "disabled": v.idle})
			}
			answer(rw, http.StatusOK, m{"keys": out})
		case disable:
			v := w.byID(id)
			if v == nil {
				rw.WriteHeader(http.StatusNotFound)
				return
			}
			if !w.lie {
				v.idle, v.ended = true, time.Now()
			}
			answer(rw, http.StatusOK, m{})
		case r.Method == http.MethodPost:
			if w.full(w.oneOwner()) {
				rw.WriteHeader(http.StatusBadRequest)
				return
			}
			v := w.give(w.oneOwner(), "", "")
			v.value = gcpFile(v.id, "x@p.iam.gserviceaccount.com", pem)
			answer(rw, http.StatusOK, m{"name": name(v), "privateKeyData": base64.StdEncoding.EncodeToString([]byte(v.value))})
		default:
			if !w.end(w.byID(id)) {
				rw.WriteHeader(http.StatusNotFound)
				return
			}
			answer(rw, http.StatusOK, m{})
		}
	}
}

func gcpFile(id, email, pem string) string {
	b, _ := json.Marshal(map[string]string{"type": "service_account", "private_key_id": id, "client_email": email, "private_key": pem, "token_uri": "https://evil.test/token"})
	return string(b)
}

// simple is a fake whose first value starts with prefix.
func simple(t *testing.T, name string, p rotate.Provider, h func(*wire, http.ResponseWriter, *http.Request), spec, prefix string, try func(string, string, string) (*http.Response, error)) theIssuer {
	w := serve(t, h)
	return theIssuer{
		name: name, provider: p, wire: w, spec: "admin=boss," + spec + "url=URL", user: "me", others: admins("me"), try: try,
		first: func(owner string) string { return w.give(owner, "first", w.rand(prefix)).value },
	}
}

func postForm(path string, form func(value string) url.Values) func(string, string, string) (*http.Response, error) {
	return func(base, _, value string) (*http.Response, error) { return http.PostForm(base+path, form(value)) }
}

// keptIssuers are the fakes that are not of the conformance suite's whole length.
func keptIssuers(t *testing.T) map[string]theIssuer {
	all := map[string]theIssuer{
		"cloudflare": simple(t, "cloudflare", Cloudflare{}, cloudflareFake, "", "cf", tryWith("GET", "/client/v4/user/tokens/verify", "Authorization", "Bearer ")),
		"npm":        simple(t, "npm", NPM{}, npmFake, "", "npm_", tryWith("GET", "/-/whoami", "Authorization", "Bearer ")),
		"openai":     simple(t, "openai", OpenAI{}, openAIFake, "project=proj_1,", "sk-svcacct-", tryWith("GET", "/v1/models", "Authorization", "Bearer ")),
		"docker-hub": simple(t, "docker-hub", DockerHub{}, dockerFake, "scopes=repo:read,id=ID,", "dckr_pat_", func(base, _, value string) (*http.Response, error) {
			return http.Post(base+"/v2/auth/token", "application/json", strings.NewReader(`{"identifier":"me","secret":"`+value+`"}`))
		}),
		"azure": simple(t, "azure", Azure{}, azureFake, "tenant=tenant-1,app=obj-1,login=URL,", "aB3~", postForm("/tenant-1/oauth2/v2.0/token", func(v string) url.Values {
			return url.Values{"client_id": {"the-app"}, "client_secret": {v}}
		})),
	}
	dd := simple(t, "datadog", Datadog{}, datadogFake, "api=other,", "dd", tryWith("GET", "/api/v1/validate", "DD-API-KEY", ""))
	dd.refused = func(status int) bool { return status == http.StatusForbidden }
	dd.others = append(dd.others, rotatetest.Other{Credential: guard.Credential{Name: "other", Kind: "generic"}, Value: "the-other-api-key-of-datadog"})
	all["datadog"] = dd

	az := all["azure"]
	az.user, az.others = "the-app", admins("boss-app")
	all["azure"] = az

	docker := all["docker-hub"]
	docker.credential = func(c *guard.Credential, owner string) {
		c.Rotate = strings.Replace(c.Rotate, "id=ID", "id="+docker.wire.of(owner)[0].id, 1)
	}
	all["docker-hub"] = docker

	key, pem := newKey(t)
	g := simple(t, "gcp", GCP{}, gcpFake(&key.PublicKey, pem), "token=URL/token,", "", nil)
	g.first = func(owner string) string {
		v := g.wire.give(owner, "first", "")
		v.value = gcpFile(v.id, "x@p.iam.gserviceaccount.com", pem)
		return v.value
	}
	g.others[0].Value = gcpFile("boss-key", "boss@p.iam.gserviceaccount.com", pem)
	g.refused = func(status int) bool { return status == http.StatusBadRequest }
	g.try = postForm("/token", func(v string) url.Values {
		k, err := gcpKeyOf(v)
		must(t, err)
		now := time.Now()
		jwt, err := signJWT(k.Key, k.ID, map[string]any{"iss": k.Email, "iat": now.Unix(), "exp": now.Add(time.Minute).Unix()})
		must(t, err)
		return url.Values{"assertion": {jwt}}
	})
	all["gcp"] = g
	return all
}

func TestKept(t *testing.T) {
	t.Parallel()
	for name, i := range keptIssuers(t) {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			rotatetest.Once(t, i.open())
			t.Run("knobs", func(t *testing.T) { knobs(t, i) })
			fx := i.open()(t, "")
			r := runner(t, fx)
			must(t, r.Check(t.Context(), "test", "token"))
			for range 2 {
				if _, err := r.Rotate(t.Context(), "test", "token", rotate.Graceful, ""); err != nil {
					t.Fatal(err)
				}
			}
			settled(t, r, fx)
			// An earlier version leaks again: the present value must not be taken for it.
			old := guard.SecretID{Context: "test", Name: "token", Version: 1}
			if rep, err := r.Replace(t.Context(), old, rotate.Emergency, "", ""); err != nil || rep.State != "replaced" {
				t.Errorf("%+v, %v", rep, err)
			}
			settled(t, r, fx)
			i.wire.set(func() { i.wire.refuse = true })
			if _, err := r.Rotate(t.Context(), "test", "token", rotate.Graceful, ""); !errors.Is(err, rotate.ErrRolledBack) {
				t.Error(err)
			}
			i.wire.set(func() { i.wire.refuse = false })
			settled(t, r, fx)
		})
	}
}

// What the new token may do is what the old one might, in both orders.
func TestCloudflarePoliciesStay(t *testing.T) {
	t.Parallel()
	i := keptIssuers(t)["cloudflare"]
	for _, m := range []rotate.Mode{rotate.Graceful, rotate.Emergency} {
		fx := i.open()(t, "")
		i.wire.set(func() { i.wire.all[len(i.wire.all)-1].extra = "zone-7" })
		if _, err := runner(t, fx).Rotate(t.Context(), "test", "token", m, ""); err != nil {
			t.Fatal(err)
		}
		if got := i.wire.all[len(i.wire.all)-1].extra; got != "zone-7" {
			t.Errorf("%v: policies are of %q", m, got)
		}
	}
}

// Without an id, a token of Docker Hub cannot be told from others: none is deleted.
func TestDockerHubDoesNotGuess(t *testing.T) {
	t.Parallel()
	i := keptIssuers(t)["docker-hub"]
	i.credential = func(c *guard.Credential, _ string) { c.Rotate = strings.Replace(c.Rotate, "id=ID,", "", 1) }
	i.orphans = true
	fx := i.open()(t, "")
	r := runner(t, fx)
	r.DeadFor = 20 * time.Millisecond
	rep, err := r.Rotate(t.Context(), "test", "token", rotate.Graceful, "")
	if !errors.Is(err, rotate.ErrAlive) || rep.Dead || len(rep.Next) == 0 || len(i.wire.living(i.wire.oneOwner())) != 2 {
		t.Errorf("%+v, %v", rep, err)
	}
}

// Several values that came since: none is deleted, and that is said.
func TestNamelessLeavesOthers(t *testing.T) {
	t.Parallel()
	i := keptIssuers(t)["npm"]
	i.orphans = true
	fx := i.open()(t, "")
	r := runner(t, fx)
	n := 0
	i.wire.answer = func(rw http.ResponseWriter, q *http.Request) bool {
		if q.Method != http.MethodPost || n > 0 {
			return false
		}
		n++
		owner := i.wire.oneOwner()
		i.wire.give(owner, "", i.wire.rand("npm_"))
		i.wire.give(owner, "", i.wire.rand("npm_"))
		rw.WriteHeader(http.StatusInternalServerError)
		io.WriteString(rw, "{}")
		return true
	}
	_, err := r.Rotate(t.Context(), "test", "token", rotate.Graceful, "")
	if err == nil || !strings.Contains(err.Error(), "2 values were made") || len(i.wire.living(i.wire.oneOwner())) != 3 {
		t.Error(err)
	}
}
