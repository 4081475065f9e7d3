//go:build linux

package main

import (
	"encoding/json"
	"net"
	"os"
	"strings"
	"testing"

	"github.com/rogpeppe/go-internal/testscript"

	"guard/internal/testutil"
)

// TestVaultScripts runs what needs a HashiCorp Vault.
func TestVaultScripts(t *testing.T) {
	if os.Getenv("GUARD_TEST_VAULT") == "" {
		t.Skip("GUARD_TEST_VAULT names no HashiCorp Vault: make test-vault builds one (minutes, once) and runs this")
	}
	testutil.Leftovers(t)
	t.Run("all", func(t *testing.T) { runScripts(t, "testdata/vault") })
	pgServer.Stop()
}

// hashivault [TTL MAX]: a Vault of the script's own with a KV engine at secret/, and one for
// logins of PostgreSQL, at $PG_PORT, that last for TTL and for MAX at most (10m, 1h). $VAULT
// is where guard may keep values, $VAULT_CA its roots, and $TOKEN may do what guard needs there.
func cmdHashiVault(ts *testscript.TestScript, neg bool, args []string) {
	if len(args) == 0 {
		args = []string{"10m", "1h"}
	}
	need(ts, args, 2, "hashivault [TTL MAX]")
	s := stateOf(ts)
	v, pg := testutil.Vault(s.t.T), pgServer.Get(s.t.T)
	s.vault = v
	v.Ready(s.t.T)
	v.Database(s.t.T, pg, args[0], args[1])
	v.Policy(s.t.T, "guard", "secret/data/team/* create,read,update", "secret/data/shared/* read", "database/creds/app read",
		"auth/token/create update", "sys/leases/revoke update", "sys/leases/lookup update")
	_, port, _ := net.SplitHostPort(pg.Addr)
	ts.Setenv("PG_PORT", port)
	ts.Setenv("VAULT", "vault://"+strings.TrimPrefix(v.Addr, "https://")+"/secret/team")
	ts.Setenv("VAULT_CA", v.CAFile)
	token := v.NewToken(s.t.T, "1h", "guard")
	s.t.plant("TOKEN", token)
	ts.Setenv("TOKEN", token)
}

// vaultdo METHOD PATH [JSON]: a request of root's; variables in JSON are expanded.
func cmdVaultDo(ts *testscript.TestScript, neg bool, args []string) {
	var body any
	if len(args) == 3 {
		ts.Check(json.Unmarshal([]byte(os.Expand(args[2], ts.Getenv)), &body))
		args = args[:2]
	}
	need(ts, args, 2, "vaultdo METHOD PATH [JSON]")
	v := stateOf(ts).vault
	if args[1] == "sys/unseal" {
		body = map[string]string{"key": v.Unseal}
	}
	v.Do(stateOf(ts).t.T, args[0], args[1], body)
}

// vaultroles N: wait until PostgreSQL has N roles of Vault's making.
func cmdVaultRoles(ts *testscript.TestScript, neg bool, args []string) {
	need(ts, args, 1, "vaultroles N")
	t := stateOf(ts).t.T
	pg := pgServer.Get(t)
	testutil.WaitFor(t, args[0]+" roles", func() bool {
		return pg.Exec(t, `select count(*) from pg_roles where rolname like 'v-%'`) == args[0]
	})
}
