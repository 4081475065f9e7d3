package hashivault_test

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"guard"
	"guard/internal/testutil"
	"guard/vault"
	"guard/vault/hashivault"
)

const fakeToken = "hvs.tokenOfAFake"

// fake is a server that answers as a test says: for wrong answers, which a real one
// gives only when it is in trouble.
func fake(t *testing.T, h http.HandlerFunc) (*hashivault.Client, *testutil.CA) {
	t.Helper()
	ca := testutil.NewCA(t)
	srv := testutil.HTTPSServer(t, ca, h)
	c, err := hashivault.New(hashivault.Config{Addr: srv.URL, CA: pemOf(t, ca), Namespace: "team/a/", Timeout: 5 * time.Second, Auth: hashivault.Auth{Method: "token", Token: guard.NewSecret([]byte(fakeToken))}})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close(context.Background()) })
	if err := c.Login(t.Context()); err != nil {
		t.Fatal(err)
	}
	return c, ca
}

func TestStatuses(t *testing.T) {
	testutil.Leftovers(t)
	for _, w := range []struct {
		code, health int
		want         error
	}{
		{403, 0, hashivault.ErrDenied}, {404, 0, vault.ErrNotFound}, {429, 0, hashivault.ErrThrottled},
		{472, 0, hashivault.ErrStandby}, {473, 0, hashivault.ErrStandby}, {500, 0, hashivault.ErrServer}, {502, 0, hashivault.ErrServer},
		{503, 503, hashivault.ErrSealed}, {503, 501, hashivault.ErrSealed}, {503, 429, hashivault.ErrStandby}, {503, 472, hashivault.ErrStandby}, {503, 473, hashivault.ErrStandby}, {503, 200, hashivault.ErrServer}, {501, 501, hashivault.ErrSealed},
	} {
		t.Run(fmt.Sprintf("%d, health %d", w.code, w.health), func(t *testing.T) {
			c, _ := fake(t, func(rw http.ResponseWriter, r *http.Request) {
				if r.URL.Path == "/v1/sys/health" {
					if r.Header.Get("X-Vault-Token") != "" {
						t.Error("the health check has a token")
					}
					rw.WriteHeader(w.health)
					return
				}
				if r.Header.Get("X-Vault-Token") != fakeToken || r.Header.Get("X-Vault-Namespace") != "team/a" {
					t.Errorf("token or namespace missing: %v", r.Header.Get("X-Vault-Namespace"))
				}
				rw.WriteHeader(w.code)
				fmt.Fprint(rw, `{"errors":["the value is hunter2-in-an-error"]}`)
			})
			kv := hashivault.KV{Client: c, Mount: "secret"}
			_, _, err := kv.Get(t.Context(), "x", 0)
			_, perr := kv.Put(t.Context(), "x", 1, guard.NewSecret([]byte("hunter2-was-put")))
			for _, err := range []error{err, perr} {
				if !errors.Is(err, w.want) {
					t.Errorf("%v, want %v", err, w.want)
				}
				if err != nil && (strings.Contains(err.Error(), "hunter2") || strings.Contains(err.Error(), fakeToken)) {
					t.Errorf("an error says what was sent or answered: %v", err)
				}
			}
		})
	}
}

// A redirect is not followed: neither the token nor the value goes to another host.
func TestRedirect(t *testing.T) {
	testutil.Leftovers(t)
	var got atomic.Int32
	thief := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { got.Add(1) }))
	t.Cleanup(thief.Close)
	for _, code := range []int{301, 302, 303, 307, 308} {
		for _, to := range []string{thief.URL + "/v1/secret/data/x", "/v1/elsewhere"} {
			var here atomic.Int32
			c, _ := fake(t, func(rw http.ResponseWriter, r *http.Request) {
				here.Add(1)
				rw.Header().Set("Location", to)
				rw.WriteHeader(code)
			})
			_, _, err := hashivault.KV{Client: c, Mount: "secret"}.Get(t.Context(), "x", 0)
			if !errors.Is(err, hashivault.ErrStandby) || here.Load() != 1 {
				t.Errorf("%d to %s: %v after %d requests", code, to, err, here.Load())
			}
		}
	}
	if got.Load() != 0 {
		t.Error("another host was talked to")
	}
}

func TestWrongAnswers(t *testing.T) {
	testutil.Leftovers(t)
	for name, body := range map[string]string{
		"nothing": "", "no JSON": "<html>proxy</html>", "an array": "[]", "null": "null", "no data": `{"data":null}`, "no metadata": `{"data":{"data":{"value":"abcdefgh"}}}`,
		"another type": `{"data":{"data":{"value":7},"metadata":{"version":1}}}`, "version 0": `{"data":{"data":{"value":"abcdefgh"},"metadata":{"version":0}}}`,
		"another version": `{"data":{"data":{"value":"abcdefgh"},"metadata":{"version":2}}}`,
		"bad base64":      `{"data":{"data":{"value_base64":"***"},"metadata":{"version":1}}}`,
		"too long":        `{"data":"` + strings.Repeat("x", 2<<20) + `"}`, "cut": `{"data":{"data":{"value":"abc`,
	} {
		t.Run(name, func(t *testing.T) {
			c, _ := fake(t, func(rw http.ResponseWriter, r *http.Request) { fmt.Fprint(rw, body) })
			if s, _, err := (hashivault.KV{Client: c, Mount: "secret"}).Get(t.Context(), "x", 1); err == nil {
				t.Errorf("a value of %d bytes came of it", s.Len())
			}
			if n, err := (hashivault.KV{Client: c, Mount: "secret"}).Put(t.Context(), "x", 4, guard.NewSecret([]byte("abcdefgh"))); err == nil {
				t.Errorf("version %d came of it", n)
			}
			n := c.Resume(guard.NewSecret([]byte(fakeToken)), true)
			if l, err := n.Lease(t.Context(), "database/creds/x", nil); err == nil {
				t.Errorf("a lease came of it: %s", l.ID)
			}
		})
	}
}

// A lease whose answer is of no use is given back.
func TestUselessLeaseIsRevoked(t *testing.T) {
	testutil.Leftovers(t)
	var revoked atomic.Int32
	c, _ := fake(t, func(rw http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/v1/sys/leases/revoke" {
			revoked.Add(1)
			rw.WriteHeader(204)
			return
		}
		fmt.Fprint(rw, `{"lease_id":"other/creds/x/1","lease_duration":60,"data":{"colour":"green"}}`)
	})
	if _, err := c.Resume(guard.NewSecret([]byte(fakeToken)), true).Lease(t.Context(), "other/creds/x", nil); !errors.Is(err, hashivault.ErrAnswer) {
		t.Fatal(err)
	}
	if revoked.Load() != 1 {
		t.Fatal("it was left")
	}
}

func TestConfig(t *testing.T) {
	tok := hashivault.Auth{Method: "token", Token: guard.NewSecret([]byte(fakeToken))}
	for _, c := range []hashivault.Config{
		{Addr: "http://vault.example.com:8200", Auth: tok}, {Addr: "vault.example.com", Auth: tok}, {Addr: "https://user:pass@vault.example.com", Auth: tok},
		{Addr: "https://vault.example.com/v1/x", Auth: tok}, {Addr: "https://vault.example.com?x=y", Auth: tok}, {Addr: "ftp://vault.example.com", Auth: tok},
		{Addr: "https://v.example.com", Auth: hashivault.Auth{Method: "token"}}, {Addr: "https://v.example.com", Auth: hashivault.Auth{Method: "approle", Role: "x"}},
		{Addr: "https://v.example.com", Auth: hashivault.Auth{Method: "kubernetes"}}, {Addr: "https://v.example.com", Auth: hashivault.Auth{}},
		{Addr: "https://v.example.com", Auth: tok, CA: []byte("no certificate")}, {Addr: "https://v.example.com", Auth: tok, Namespace: "a/../b"}, {Addr: "http://127.0.0.1.example.com", Auth: tok},
	} {
		if _, err := hashivault.New(c); err == nil {
			t.Errorf("%s was taken", c.Addr)
		}
	}
	for _, a := range []string{"http://127.0.0.1:8200", "http://localhost:8200", "http://[::1]:8200", "https://vault.example.com", "https://vault.example.com:8200/"} {
		if _, err := hashivault.New(hashivault.Config{Addr: a, Auth: tok}); err != nil {
			t.Errorf("%s: %v", a, err)
		}
	}
}

func TestLeasePaths(t *testing.T) {
	for path, ok := range map[string]bool{
		"database/creds/app": true, "teams/a/database/creds/app": true, "aws/sts/deploy": true, "pki/issue/agent": true,
		"": false, "creds/app": false, "sys/raw/creds": false, "database/creds/": false, "database/creds/../../sys/seal": false, "/database/creds/app": false,
		"database/creds/app?x=y": false, "database/static-creds/app": false, "auth/token/create": false, "database/creds/app#x": false,
	} {
		if _, err := hashivault.CheckLease(path); (err == nil) != ok {
			t.Errorf("%q: %v", path, err)
		}
	}
}
