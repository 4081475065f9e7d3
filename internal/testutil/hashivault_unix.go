//go:build unix

package testutil

import (
	"bufio"
	"bytes"
	"encoding/json"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

// VaultServer is a HashiCorp Vault with storage in memory, on 127.0.0.1, with TLS by a CA
// of its own.
type VaultServer struct {
	Addr    string // https://127.0.0.1:PORT
	Token   string // root's
	Unseal  string
	Version string
	CAFile  string
	client  *http.Client
}

// Vault starts a server for this test. The program is internal/testutil/hashivault, which
// `make test-vault` builds and names in GUARD_TEST_VAULT: where that is not set, the test
// is skipped.
func Vault(t testing.TB) *VaultServer {
	t.Helper()
	program := os.Getenv("GUARD_TEST_VAULT")
	if program == "" {
		t.Skip("GUARD_TEST_VAULT names no HashiCorp Vault: make test-vault builds one (minutes, once) and runs this")
	}
	dir, ca := t.TempDir(), NewCA(t)
	pair := ca.Server(t, "127.0.0.1", "localhost")
	v := &VaultServer{CAFile: ca.File, client: ca.Client()}
	cert := filepath.Join(dir, "cert.pem")
	if err := os.WriteFile(cert, PEM(t, pair), 0o600); err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(program, "-cert", cert, "-key", cert)
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	stdin, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	var log bytes.Buffer
	cmd.Stderr = &log
	if err := cmd.Start(); err != nil {
		t.Fatalf("start Vault: %v", err)
	}
	t.Cleanup(func() {
		stdin.Close() // it ends then
		kill := time.AfterFunc(10*time.Second, func() { cmd.Process.Kill() })
		cmd.Wait()
		kill.Stop()
	})
	line, err := bufio.NewReader(stdout).ReadBytes('\n')
	var said struct{ Addr, Token, Unseal, Version string }
	if err != nil || json.Unmarshal(line, &said) != nil {
		t.Fatalf("Vault did not start: %v\n%s", err, log.String())
	}
	v.Addr, v.Token, v.Unseal, v.Version = said.Addr, said.Token, said.Unseal, said.Version
	return v
}

// Do is root's request to /v1/PATH; body is sent as JSON. It fails the test unless it is
// answered with a success, and returns the answer.
func (v *VaultServer) Do(t testing.TB, method, path string, body any) map[string]any {
	t.Helper()
	code, out := v.As(t, v.Token, method, path, body)
	if code/100 != 2 {
		t.Fatalf("%s %s: status %d: %v", method, path, code, out["errors"])
	}
	return out
}

// As is a request with a token, and its status.
func (v *VaultServer) As(t testing.TB, token, method, path string, body any) (int, map[string]any) {
	t.Helper()
	b, err := json.Marshal(body)
	if err != nil {
		t.Fatal(err)
	}
	req, err := http.NewRequest(method, v.Addr+"/v1/"+path, bytes.NewReader(b))
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("X-Vault-Token", token)
	res, err := v.client.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	out := map[string]any{}
	if b, err = io.ReadAll(res.Body); err == nil && len(b) > 0 {
		err = json.Unmarshal(b, &out)
	}
	if err != nil {
		t.Fatal(err)
	}
	return res.StatusCode, out
}

// Ready mounts what tests use: KV version 2 at secret/, and AppRole.
func (v *VaultServer) Ready(t testing.TB) {
	t.Helper()
	v.Do(t, "POST", "sys/mounts/secret", map[string]any{"type": "kv", "options": map[string]string{"version": "2"}})
	WaitFor(t, "the KV engine", func() bool { // it upgrades itself for a moment
		code, _ := v.As(t, v.Token, "LIST", "secret/metadata", nil)
		return code == 404 || code == 200
	})
	v.Do(t, "POST", "sys/auth/approle", map[string]string{"type": "approle"})
}

// Policy makes a policy; paths are "PATH CAPABILITY,CAPABILITY".
func (v *VaultServer) Policy(t testing.TB, name string, paths ...string) {
	t.Helper()
	var hcl strings.Builder
	for _, p := range paths {
		path, caps, _ := strings.Cut(p, " ")
		hcl.WriteString(`path "` + path + `" { capabilities = ["` + strings.ReplaceAll(caps, ",", `","`) + `"] }` + "\n")
	}
	v.Do(t, "PUT", "sys/policies/acl/"+name, map[string]string{"policy": hcl.String()})
}

// NewToken makes a token with policies.
func (v *VaultServer) NewToken(t testing.TB, ttl string, policies ...string) string {
	t.Helper()
	r := v.Do(t, "POST", "auth/token/create", map[string]any{"policies": policies, "ttl": ttl, "no_parent": true})
	return r["auth"].(map[string]any)["client_token"].(string)
}

// Database makes an engine at database/ whose role "app" gives out logins to pg; ttl and
// max are the leases'.
func (v *VaultServer) Database(t testing.TB, pg *Server, ttl, max string) {
	t.Helper()
	v.Do(t, "POST", "sys/mounts/database", map[string]string{"type": "database"})
	v.Do(t, "POST", "database/config/pg", map[string]any{
		"plugin_name": "postgresql-database-plugin", "allowed_roles": "*", "connection_url": pg.Superuser,
	})
	v.Do(t, "POST", "database/roles/app", map[string]any{
		"db_name": "pg", "default_ttl": ttl, "max_ttl": max,
		"creation_statements": []string{`CREATE ROLE "{{name}}" WITH LOGIN PASSWORD '{{password}}' VALID UNTIL '{{expiration}}'`},
	})
}
