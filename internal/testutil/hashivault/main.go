// Command hashivault is HashiCorp Vault for tests: its own core, HTTP handlers and engines
// (KV, database with PostgreSQL's plugin, AWS, PKI; AppRole and Kubernetes for logging in),
// with storage in memory, initialised and unsealed as `vault server -dev` does it. Engines
// that the tests have no use for are left out, which halves the build. It is a module of
// its own, so that none of it is in guard; internal/setup/vault.sh builds it.
//
// It prints one line of JSON, with the root token and the unseal key, and serves until
// standard input ends.
package main

import (
	"context"
	"crypto/tls"
	"encoding/hex"
	"encoding/json"
	"flag"
	"io"
	"log"
	"net"
	"net/http"
	"os"

	hclog "github.com/hashicorp/go-hclog"
	kubernetes "github.com/hashicorp/vault-plugin-auth-kubernetes"
	"github.com/hashicorp/vault/builtin/credential/approle"
	"github.com/hashicorp/vault/builtin/logical/aws"
	"github.com/hashicorp/vault/builtin/logical/database"
	"github.com/hashicorp/vault/builtin/logical/pki"
	vaulthttp "github.com/hashicorp/vault/http"
	"github.com/hashicorp/vault/internalshared/configutil"
	"github.com/hashicorp/vault/plugins/database/postgresql"
	"github.com/hashicorp/vault/sdk/helper/consts"
	"github.com/hashicorp/vault/sdk/logical"
	"github.com/hashicorp/vault/sdk/physical/inmem"
	"github.com/hashicorp/vault/vault"
	"github.com/hashicorp/vault/version"
)

// plugins is the catalog of plugins that are built in: one.
type plugins struct{}

const plugin = "postgresql-database-plugin"

func (plugins) Contains(name string, t consts.PluginType) bool {
	return name == plugin && t == consts.PluginTypeDatabase
}

func (p plugins) Get(name string, t consts.PluginType) (func() (interface{}, error), bool) {
	return postgresql.New, p.Contains(name, t)
}

func (p plugins) Keys(t consts.PluginType) []string {
	if t == consts.PluginTypeDatabase {
		return []string{plugin}
	}
	return nil
}

func (plugins) DeprecationStatus(string, consts.PluginType) (consts.DeprecationStatus, bool) {
	return consts.Supported, true
}

func (plugins) IsBuiltinEntPlugin(string, consts.PluginType) bool { return false }

func main() {
	listen := flag.String("listen", "127.0.0.1:0", "address to serve on")
	cert := flag.String("cert", "", "certificate (PEM); none: no TLS")
	key := flag.String("key", "", "its key")
	flag.Parse()
	if err := serve(*listen, *cert, *key); err != nil {
		log.Fatal(err)
	}
}

func serve(listen, cert, key string) error {
	logger := hclog.New(&hclog.LoggerOptions{Output: os.Stderr, Level: hclog.Warn})
	storage, err := inmem.NewInmem(nil, logger)
	if err != nil {
		return err
	}
	ln, err := net.Listen("tcp", listen)
	if err != nil {
		return err
	}
	scheme := "http"
	if cert != "" {
		pair, err := tls.LoadX509KeyPair(cert, key)
		if err != nil {
			return err
		}
		ln, scheme = tls.NewListener(ln, &tls.Config{Certificates: []tls.Certificate{pair}}), "https"
	}
	core, err := vault.NewCore(&vault.CoreConfig{
		Physical: storage, Logger: logger, DisableMlock: true, RedirectAddr: scheme + "://" + ln.Addr().String(), BuiltinRegistry: plugins{},
		LogicalBackends:    map[string]logical.Factory{"database": database.Factory, "aws": aws.Factory, "pki": pki.Factory},
		CredentialBackends: map[string]logical.Factory{"approle": approle.Factory, "kubernetes": kubernetes.Factory},
	})
	if err != nil {
		return err
	}
	made, err := core.Initialize(context.Background(), &vault.InitParams{
		BarrierConfig: &vault.SealConfig{SecretShares: 1, SecretThreshold: 1, Name: "shamir"}, RecoveryConfig: &vault.SealConfig{SecretShares: 1, SecretThreshold: 1},
	})
	if err != nil {
		return err
	}
	if _, err := core.Unseal(append([]byte(nil), made.SecretShares[0]...)); err != nil {
		return err
	}
	srv := &http.Server{Handler: vaulthttp.Handler.Handler(&vault.HandlerProperties{Core: core, ListenerConfig: &configutil.Listener{Address: ln.Addr().String()}})}
	if err := json.NewEncoder(os.Stdout).Encode(map[string]string{
		"addr": scheme + "://" + ln.Addr().String(), "token": made.RootToken, "unseal": hex.EncodeToString(made.SecretShares[0]), "version": version.GetVersion().Version,
	}); err != nil {
		return err
	}
	go srv.Serve(ln)
	_, err = io.Copy(io.Discard, os.Stdin)
	srv.Close()
	core.Shutdown()
	return err
}
