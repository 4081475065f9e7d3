package main

import (
	"fmt"
	"os"
	"slices"
	"strconv"
	"strings"

	"guard"
)

// dropped are variables that lead to what a session must not reach: the user's
// buses, agents, displays and multiplexers, and guard's own settings.
var dropped = []string{
	"DBUS_SESSION_BUS_ADDRESS", "SSH_AUTH_SOCK", "SSH_AGENT_PID", "GPG_AGENT_INFO", "GNOME_KEYRING_CONTROL", "XDG_RUNTIME_DIR",
	"DISPLAY", "WAYLAND_DISPLAY", "XAUTHORITY", "ICEAUTHORITY", "SESSION_MANAGER", "TMUX", "TMUX_PANE", "STY", "DOCKER_HOST",
	"GUARD_HOME", "GUARD_PASSPHRASE_FILE", "GUARD_KEYFILE", "GUARD_AGE_IDENTITY", "GUARD_TRANSIT_TOKEN_FILE", "VSCODE_IPC_HOOK_CLI", "VSCODE_GIT_IPC_HANDLE", "NOTIFY_SOCKET",
	"CREDENTIALS_DIRECTORY", "LISTEN_FDS", "LISTEN_PID", "KRB5CCNAME",
}

// caVariables are how programs are told of extra roots. All but
// NODE_EXTRA_CA_CERTS replace the system's, so the file holds both.
var caVariables = []string{
	"SSL_CERT_FILE", "NODE_EXTRA_CA_CERTS", "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE", "GIT_SSL_CAINFO", "PIP_CERT", "AWS_CA_BUNDLE",
	"CARGO_HTTP_CAINFO", "DENO_CERT", "CLOUDSDK_CORE_CUSTOM_CA_CERTS_FILE", "NIX_SSL_CERT_FILE", "CODEX_CA_CERTIFICATE", "PGSSLROOTCERT",
}

var proxyVariables = []string{"HTTPS_PROXY", "HTTP_PROXY", "ALL_PROXY", "https_proxy", "http_proxy", "all_proxy", "GRPC_PROXY"}

// environment builds the agent's environment: the user's, without what is
// dropped, with values concealed, with proxy and CA variables, and with the
// placeholders of the credentials that it may use. Every variable is there once:
// getenv returns the first of two.
type environment struct{ vars []string }

func (e *environment) set(key, value string) {
	e.unset(key)
	e.vars = append(e.vars, key+"="+value)
}

func (e *environment) unset(key string) {
	e.vars = slices.DeleteFunc(e.vars, func(kv string) bool { return strings.HasPrefix(kv, key+"=") })
}

func (e *environment) get(key string) string {
	for _, kv := range e.vars {
		if v, ok := strings.CutPrefix(kv, key+"="); ok {
			return v
		}
	}
	return ""
}

func newEnvironment(c *conceal) *environment {
	e := &environment{vars: c.env(os.Environ())}
	for _, k := range dropped {
		e.unset(k)
	}
	return e
}

// network sets the proxy and CA variables.
func (e *environment) network(proxy, caFile string) {
	if proxy != "" {
		for _, k := range proxyVariables {
			e.set(k, proxy)
		}
		e.set("NO_PROXY", "localhost,127.0.0.1,::1")
		e.set("no_proxy", "localhost,127.0.0.1,::1")
		// Node before 24 ignores proxy variables unless told, and then is caught
		// by its connection alone.
		e.set("NODE_USE_ENV_PROXY", "1")
		e.gitConfig("http.proxyAuthMethod", "basic")
	}
	if caFile != "" {
		for _, k := range caVariables {
			e.set(k, caFile)
		}
	}
}

// gitConfig adds a setting to what git takes from its environment, after those
// that are there.
func (e *environment) gitConfig(key, value string) {
	n, err := strconv.Atoi(e.get("GIT_CONFIG_COUNT"))
	if err != nil || n < 0 {
		n = 0
	}
	e.set(fmt.Sprintf("GIT_CONFIG_KEY_%d", n), key)
	e.set(fmt.Sprintf("GIT_CONFIG_VALUE_%d", n), value)
	e.set("GIT_CONFIG_COUNT", strconv.Itoa(n+1))
}

// credential shows the agent a placeholder: in the credential's variable, and to
// git as the password of its hosts.
func (e *environment) credential(c guard.Credential) {
	if c.Env != "" {
		e.set(c.Env, c.Placeholder)
	}
	if !slices.ContainsFunc(gitKinds, func(k string) bool { return k == c.Kind }) {
		return
	}
	user := c.User
	if user == "" {
		user = "x-access-token"
	}
	for _, h := range c.Hosts {
		if strings.HasPrefix(h, "*") || strings.ContainsAny(user+c.Placeholder, "'\"\\\n$`;") {
			continue
		}
		// The first empty helper clears those of the user's own configuration, which
		// would ask keychains and prompts that a session does not have.
		e.gitConfig("credential.https://"+h+".helper", "")
		e.gitConfig("credential.https://"+h+".helper", fmt.Sprintf("!f() { test \"$1\" = get && printf 'username=%%s\\npassword=%%s\\n' '%s' '%s'; }; f", user, c.Placeholder))
	}
}

// gitKinds are kinds of credentials that open git repositories over HTTPS.
var gitKinds = []string{"github-pat", "github-app", "github-oauth", "gitlab-pat", "gitea", "bitbucket", "generic"}
