//go:build unix

package hashivault_test

import (
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"guard"
	"guard/internal/testutil"
	"guard/vault"
	"guard/vault/hashivault"
	"guard/vault/vaulttest"
)

func secret(s string) guard.Secret { return guard.NewSecret([]byte(s)) }

func dial(t *testing.T, srv *testutil.VaultServer, auth hashivault.Auth) *hashivault.Client {
	t.Helper()
	ca, err := os.ReadFile(srv.CAFile)
	if err != nil {
		t.Fatal(err)
	}
	c, err := hashivault.New(hashivault.Config{Addr: srv.Addr, CA: ca, Auth: auth})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close(t.Context()) })
	return c
}

func token(t *testing.T, srv *testutil.VaultServer, tok string) *hashivault.Client {
	t.Helper()
	c := dial(t, srv, hashivault.Auth{Method: "token", Token: secret(tok)})
	if err := c.Login(t.Context()); err != nil {
		t.Fatal(err)
	}
	return c
}

func TestRealKV(t *testing.T) {
	testutil.Leftovers(t)
	srv := testutil.Vault(t)
	t.Logf("Vault %s", srv.Version)
	srv.Ready(t)
	srv.Policy(t, "team", "secret/data/team/* create,read,update", "secret/destroy/team/* update")
	c := token(t, srv, srv.NewToken(t, "1h", "team"))
	kv := hashivault.KV{Client: c, Mount: "secret", Prefix: "team"}
	t.Run("store", func(t *testing.T) { vaulttest.Store(t, kv, "x-") })

	t.Run("deleted is not destroyed", func(t *testing.T) {
		if _, err := kv.Put(t.Context(), "gone", 0, secret("value-of-gone")); err != nil {
			t.Fatal(err)
		}
		srv.Do(t, "DELETE", "secret/data/team/gone", nil)
		if _, _, err := kv.Get(t.Context(), "gone", 0); !errors.Is(err, vault.ErrDeleted) || errors.Is(err, vault.ErrNotFound) {
			t.Errorf("deleted: %v", err)
		}
		if n, err := kv.Newest(t.Context(), "gone"); n != 1 || err != nil {
			t.Errorf("the newest is %d, %v", n, err)
		}
		srv.Do(t, "POST", "secret/undelete/team/gone", map[string][]int{"versions": {1}})
		if s, n, err := kv.Get(t.Context(), "gone", 0); err != nil || n != 1 || string(s.Reveal()) != "value-of-gone" {
			t.Errorf("brought back: %d, %v", n, err)
		}
	})
	t.Run("fields", func(t *testing.T) {
		srv.Do(t, "POST", "secret/data/team/app", map[string]any{"data": map[string]any{"db_password": "the-db-password", "port": 5432}})
		of := kv
		of.Field = "db_password"
		if s, _, err := of.Get(t.Context(), "app", 0); err != nil || string(s.Reveal()) != "the-db-password" {
			t.Errorf("field: %v", err)
		}
		if _, err := of.Put(t.Context(), "app", 1, secret("would drop the port")); err == nil {
			t.Error("a field was written, and the others dropped")
		}
		for _, f := range []string{"port", "absent"} {
			of.Field = f
			if _, _, err := of.Get(t.Context(), "app", 0); !errors.Is(err, vault.ErrNotFound) {
				t.Errorf("%s: %v", f, err)
			}
		}
		if _, _, err := kv.Get(t.Context(), "app", 0); !errors.Is(err, vault.ErrNotFound) || !strings.Contains(err.Error(), "name the field") {
			t.Errorf("without a field: %v", err)
		}
	})
	t.Run("denied", func(t *testing.T) {
		other := hashivault.KV{Client: c, Mount: "secret", Prefix: "others"}
		if _, _, err := other.Get(t.Context(), "x", 0); !errors.Is(err, hashivault.ErrDenied) {
			t.Error(err)
		}
		bad := token(t, srv, "hvs.notATokenOfThisServer")
		if _, _, err := (hashivault.KV{Client: bad, Mount: "secret", Prefix: "team"}).Get(t.Context(), "x", 0); !errors.Is(err, hashivault.ErrDenied) {
			t.Error(err)
		}
	})
	t.Run("version 1 is refused", func(t *testing.T) {
		srv.Do(t, "POST", "sys/mounts/old", map[string]any{"type": "kv", "options": map[string]string{"version": "1"}})
		srv.Do(t, "POST", "old/data/x", map[string]string{"value": "a value of the old kind"})
		root := hashivault.KV{Client: token(t, srv, srv.Token), Mount: "old"}
		if _, _, err := root.Get(t.Context(), "x", 0); !errors.Is(err, hashivault.ErrAnswer) || !strings.Contains(err.Error(), "version 2") {
			t.Error(err)
		}
		if _, err := root.Put(t.Context(), "y", 0, secret("some value")); err == nil {
			t.Error("a value was put in an engine of version 1")
		}
	})
	t.Run("no trust", func(t *testing.T) {
		c, err := hashivault.New(hashivault.Config{Addr: srv.Addr, Auth: hashivault.Auth{Method: "token", Token: secret(srv.Token)}})
		if err != nil {
			t.Fatal(err)
		}
		c.Login(t.Context())
		if _, err := c.Whoami(t.Context()); err == nil || !strings.Contains(err.Error(), "certificate") {
			t.Errorf("a server that nothing vouches for was talked to: %v", err)
		}
	})
	t.Run("sealed", func(t *testing.T) {
		srv.Do(t, "PUT", "sys/seal", nil)
		if _, _, err := kv.Get(t.Context(), "gone", 0); !errors.Is(err, hashivault.ErrSealed) {
			t.Error(err)
		}
		if _, err := kv.Put(t.Context(), "gone", 1, secret("some value")); !errors.Is(err, hashivault.ErrSealed) {
			t.Error(err)
		}
		srv.Do(t, "PUT", "sys/unseal", map[string]string{"key": srv.Unseal})
		if _, _, err := kv.Get(t.Context(), "gone", 0); err != nil {
			t.Error(err)
		}
	})
}

func TestRealAppRole(t *testing.T) {
	testutil.Leftovers(t)
	srv := testutil.Vault(t)
	srv.Ready(t)
	srv.Policy(t, "team", "secret/data/team/* create,read,update")
	srv.Do(t, "POST", "auth/approle/role/guard", map[string]any{"token_policies": "team", "token_ttl": "20m", "token_max_ttl": "1h"})
	role := srv.Do(t, "GET", "auth/approle/role/guard/role-id", nil)["data"].(map[string]any)["role_id"].(string)
	id := srv.Do(t, "POST", "auth/approle/role/guard/secret-id", nil)["data"].(map[string]any)["secret_id"].(string)
	c := dial(t, srv, hashivault.Auth{Method: "approle", Role: role, SecretID: secret(id)})
	if err := c.Login(t.Context()); err != nil {
		t.Fatal(err)
	}
	if _, err := (hashivault.KV{Client: c, Mount: "secret", Prefix: "team"}).Put(t.Context(), "x", 0, secret("some value")); err != nil {
		t.Fatal(err)
	}
	who, err := c.Whoami(t.Context())
	if err != nil || who.TTL == 0 || !who.Renewable {
		t.Fatalf("%+v, %v", who, err)
	}
	if ttl, err := c.RenewSelf(t.Context()); err != nil || ttl != 20*time.Minute {
		t.Fatalf("renewed for %v, %v", ttl, err)
	}
	n, err := c.Tenant(t.Context())
	if err != nil || !n.Own || n.TTL == 0 {
		t.Fatalf("%+v, %v", n, err)
	}
	if err := n.End(t.Context()); err != nil {
		t.Fatal(err)
	}
	if _, err := n.RenewSelf(t.Context()); !errors.Is(err, hashivault.ErrDenied) {
		t.Fatalf("the session's token after its end: %v", err)
	}
	if err := n.End(t.Context()); err != nil {
		t.Fatalf("a second time: %v", err)
	}
	wrong := dial(t, srv, hashivault.Auth{Method: "approle", Role: role, SecretID: secret("not-the-secret-id")})
	if err := wrong.Login(t.Context()); !errors.Is(err, hashivault.ErrDenied) || strings.Contains(err.Error(), "not-the-secret-id") {
		t.Fatalf("a wrong secret id: %v", err)
	}
}

// The token reviewer of a Kubernetes API is a wire-level fake: Vault itself is the real one.
func TestRealKubernetes(t *testing.T) {
	testutil.Leftovers(t)
	srv := testutil.Vault(t)
	part := func(s string) string { return base64.RawURLEncoding.EncodeToString([]byte(s)) }
	jwt := part(`{"alg":"RS256"}`) + "." + part(`{"iss":"kubernetes/serviceaccount","sub":"system:serviceaccount:ci:agent","kubernetes.io":{"namespace":"ci","serviceaccount":{"name":"agent","uid":"u1"}},"iat":1,"nbf":1,"exp":4102444800}`) + "." + part("no signature: the reviewer says whether it is good")
	api := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		var review struct{ Spec struct{ Token string } }
		json.NewDecoder(r.Body).Decode(&review)
		w.Header().Set("Content-Type", "application/json")
		w.WriteHeader(http.StatusCreated)
		fmt.Fprintf(w, `{"apiVersion":"authentication.k8s.io/v1","kind":"TokenReview","status":{"authenticated":%t,"user":{"username":"system:serviceaccount:ci:agent","uid":"u1"}}}`, review.Spec.Token == jwt)
	}))
	t.Cleanup(api.Close)
	srv.Do(t, "POST", "sys/auth/kubernetes", map[string]string{"type": "kubernetes"})
	srv.Do(t, "POST", "auth/kubernetes/config", map[string]any{"kubernetes_host": api.URL, "disable_local_ca_jwt": true})
	srv.Do(t, "POST", "auth/kubernetes/role/ci", map[string]any{"bound_service_account_names": "agent", "bound_service_account_namespaces": "ci", "token_policies": "default", "ttl": "10m"})
	file := filepath.Join(t.TempDir(), "token")
	login := func(content string) error {
		if err := os.WriteFile(file, []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
		return dial(t, srv, hashivault.Auth{Method: "kubernetes", Role: "ci", JWTFile: file}).Login(t.Context())
	}
	if err := login(jwt + "\n"); err != nil {
		t.Fatal(err)
	}
	if err := login(jwt + "AAAA"); err == nil {
		t.Fatal("another token logged in")
	}
	if err := dial(t, srv, hashivault.Auth{Method: "kubernetes", Role: "ci", JWTFile: file + "-gone"}).Login(t.Context()); !errors.Is(err, os.ErrNotExist) {
		t.Fatal(err)
	}
}

func TestRealDatabaseLease(t *testing.T) {
	testutil.Leftovers(t)
	srv, pg := testutil.Vault(t), testutil.Postgres(t)
	srv.Database(t, pg, "10m", "1h")
	srv.Policy(t, "app", "database/creds/app read")
	srv.Policy(t, "children", "auth/token/create update")
	roles := func() string {
		return pg.Exec(t, `select count(*) from pg_roles where rolname like 'v-%'`)
	}
	for name, policies := range map[string][]string{"own token": {"app", "children"}, "no token of its own": {"app"}} {
		t.Run(name, func(t *testing.T) {
			c := token(t, srv, srv.NewToken(t, "1h", policies...))
			n, err := c.Tenant(t.Context())
			if err != nil || n.Own != (len(policies) == 2) {
				t.Fatalf("%+v, %v", n, err)
			}
			l, err := n.Lease(t.Context(), "database/creds/app", nil)
			if err != nil {
				t.Fatal(err)
			}
			if l.ID == "" || l.TTL != 10*time.Minute || !l.Renewable || !strings.HasPrefix(l.User, "v-") {
				t.Fatalf("%+v", l)
			}
			if got := pg.Exec(t, fmt.Sprintf(`select 1 from pg_roles where rolname = '%s'`, l.User)); got != "1" {
				t.Fatal("the role is not there")
			}
			if ttl, err := n.Renew(t.Context(), l.ID); err != nil || ttl < 9*time.Minute {
				t.Fatalf("renewed for %v, %v", ttl, err)
			}
			if _, err := n.Renew(t.Context(), l.ID+"x"); !errors.Is(err, vault.ErrNotFound) {
				t.Fatalf("a lease that there is not: %v", err)
			}
			// The default policy may not revoke leases: the token's end does it, or it is said.
			if err := n.Revoke(t.Context(), l); !errors.Is(err, hashivault.ErrDenied) {
				t.Fatalf("revoked by a token that may not: %v", err)
			}
			if !n.Own {
				srv.Policy(t, "app", "database/creds/app read", "sys/leases/revoke update", "sys/leases/lookup update")
				for range 2 {
					if err := n.Revoke(t.Context(), l); err != nil {
						t.Fatal(err)
					}
				}
				if got := roles(); got != "0" {
					t.Fatalf("%s roles are left right after a revocation", got)
				}
				srv.Policy(t, "app", "database/creds/app read")
				return
			}
			// As after a crash: from what was written down.
			for range 2 {
				if err := c.Resume(n.Token.Clone(), true).End(t.Context()); err != nil {
					t.Fatal(err)
				}
			}
			testutil.WaitFor(t, "the role to go", func() bool { return roles() == "0" })
		})
	}
	t.Run("a role that there is not", func(t *testing.T) {
		n, err := token(t, srv, srv.Token).Tenant(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		defer n.End(t.Context())
		if _, err := n.Lease(t.Context(), "database/creds/absent", nil); err == nil {
			t.Fatal("a lease of a role that there is not")
		}
	})
}

// AWS itself is a wire-level fake: Vault's engine makes a user and a key with it.
func TestRealAWS(t *testing.T) {
	testutil.Leftovers(t)
	srv := testutil.Vault(t)
	var mu sync.Mutex
	keys := map[string]string{} // user of each key
	secretKey := testutil.Random(40)
	api := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		r.ParseForm()
		mu.Lock()
		defer mu.Unlock()
		user, action := r.Form.Get("UserName"), r.Form.Get("Action")
		result := ""
		switch action {
		case "CreateAccessKey":
			id := "AKIA" + strings.Repeat("X", 12) + fmt.Sprintf("%04d", len(keys))
			keys[id] = user
			result = "<AccessKey><UserName>" + user + "</UserName><AccessKeyId>" + id + "</AccessKeyId><Status>Active</Status><SecretAccessKey>" + secretKey + "</SecretAccessKey></AccessKey>"
		case "ListAccessKeys":
			for id, u := range keys {
				if u == user {
					result += "<member><AccessKeyId>" + id + "</AccessKeyId><UserName>" + u + "</UserName></member>"
				}
			}
			result = "<AccessKeyMetadata>" + result + "</AccessKeyMetadata><IsTruncated>false</IsTruncated>"
		case "DeleteAccessKey":
			delete(keys, r.Form.Get("AccessKeyId"))
		case "CreateUser", "GetUser":
			result = "<User><UserName>" + user + "</UserName><Path>/</Path><UserId>U1</UserId><Arn>arn:aws:iam::123456789012:user/" + user + "</Arn></User>"
		}
		w.Header().Set("Content-Type", "text/xml")
		fmt.Fprintf(w, "<%[1]sResponse><%[1]sResult>%[2]s</%[1]sResult><ResponseMetadata><RequestId>1</RequestId></ResponseMetadata></%[1]sResponse>", action, result)
	}))
	t.Cleanup(api.Close)
	srv.Do(t, "POST", "sys/mounts/aws", map[string]string{"type": "aws"})
	srv.Do(t, "POST", "aws/config/root", map[string]any{"access_key": "AKIA" + strings.Repeat("R", 16), "secret_key": testutil.Random(40), "region": "us-east-1", "iam_endpoint": api.URL, "sts_endpoint": api.URL})
	srv.Do(t, "POST", "aws/roles/deploy", map[string]any{"credential_type": "iam_user", "policy_document": `{"Version":"2012-10-17","Statement":[{"Effect":"Allow","Action":"s3:GetObject","Resource":"*"}]}`})
	n, err := token(t, srv, srv.Token).Tenant(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	l, err := n.Lease(t.Context(), "aws/creds/deploy", nil)
	if err != nil {
		t.Fatal(err)
	}
	var value struct{ AccessKeyId, SecretAccessKey, SessionToken string }
	if err := json.Unmarshal(l.Value.Reveal(), &value); err != nil || value.SecretAccessKey != secretKey || value.AccessKeyId != l.User || value.SessionToken != "" {
		t.Fatalf("%v: the key is not AWS's, or %v", l.User, err)
	}
	mu.Lock()
	made := len(keys)
	mu.Unlock()
	if made != 1 || l.ID == "" {
		t.Fatalf("%d keys, lease %q", made, l.ID)
	}
	if err := n.End(t.Context()); err != nil {
		t.Fatal(err)
	}
	testutil.WaitFor(t, "the key to go", func() bool {
		mu.Lock()
		defer mu.Unlock()
		return len(keys) == 0
	})
}

func TestRealPKI(t *testing.T) {
	testutil.Leftovers(t)
	srv := testutil.Vault(t)
	srv.Do(t, "POST", "sys/mounts/pki", map[string]string{"type": "pki"})
	srv.Do(t, "POST", "pki/root/generate/internal", map[string]string{"common_name": "test root", "ttl": "24h"})
	srv.Do(t, "POST", "pki/roles/agent", map[string]any{"allowed_domains": "example.com", "allow_subdomains": true, "max_ttl": "1h"})
	n, err := token(t, srv, srv.Token).Tenant(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer n.End(t.Context())
	l, err := n.Lease(t.Context(), "pki/issue/agent", map[string]string{"common_name": "ci.example.com", "ttl": "30m"})
	if err != nil {
		t.Fatal(err)
	}
	if l.Serial == "" || l.TTL < 29*time.Minute || l.TTL > 31*time.Minute {
		t.Fatalf("%+v", l)
	}
	pem := string(l.Value.Reveal())
	if strings.Count(pem, "BEGIN CERTIFICATE") < 2 || !strings.Contains(pem, "PRIVATE KEY-----") {
		t.Fatal("no certificate with its chain and key")
	}
	if err := n.Revoke(t.Context(), hashivault.Restore("", l.Serial, l.Path())); err != nil {
		t.Fatal(err)
	}
	if got := srv.Do(t, "GET", "pki/cert/"+strings.ReplaceAll(l.Serial, ":", "-"), nil)["data"].(map[string]any)["revocation_time"].(float64); got == 0 {
		t.Fatal("the certificate is not revoked")
	}
	if _, err := n.Lease(t.Context(), "pki/issue/agent", map[string]string{"common_name": "other.test"}); err == nil || strings.Contains(err.Error(), "other.test") {
		t.Fatalf("a name that the role does not have: %v", err)
	}
}
