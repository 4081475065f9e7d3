package main

import (
	"crypto/sha256"
	"encoding/base64"
	"net"
	"net/netip"
	"net/url"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/net/http/httpproxy"

	"guard"
	"guard/broker"
)

// parsePins reads --pin HOST=sha256//BASE64, curl's form of a key; a host may have
// several.
func parsePins(flags []string) (map[string][][32]byte, error) {
	pins := map[string][][32]byte{}
	for _, f := range flags {
		host, key, ok := strings.Cut(f, "=")
		host = broker.CanonicalHost(host)
		sum, err := base64.StdEncoding.DecodeString(strings.TrimPrefix(key, "sha256//"))
		if !ok || host == "" || strings.ContainsAny(host, ":*/") || !strings.HasPrefix(key, "sha256//") || err != nil || len(sum) != sha256.Size {
			return nil, usagef("--pin %q: want HOST=sha256//BASE64, the SHA-256 of a public key, as curl's --pinnedpubkey", f)
		}
		if _, err := netip.ParseAddr(host); err == nil {
			return nil, usagef("--pin %q: a pin is for a name, not for an address", f)
		}
		pins[host] = append(pins[host], [32]byte(sum))
	}
	return pins, nil
}

// checkUpstream refuses, before the agent starts, what the session could not reach
// servers with.
func (s *session) checkUpstream() error {
	for _, n := range s.flags.clientCerts {
		if !slices.ContainsFunc(s.creds, func(c guard.Credential) bool { return c.Name == n }) {
			return usagef("--client-cert %s: there is no such credential in this context (guard secret ls)", n)
		}
	}
	_, err := networkProxy(s.app.getenv)
	return err
}

// networkProxy is the proxy of the user's network, from HTTPS_PROXY, HTTP_PROXY and
// NO_PROXY as guard itself has them; nil where there is none. The agent has its own
// values of these.
func networkProxy(getenv func(string) string) (func(proto, host string, port int) *url.URL, error) {
	either := func(name string) string {
		if v := getenv(strings.ToLower(name)); v != "" {
			return v
		}
		return getenv(name)
	}
	c := httpproxy.Config{HTTPProxy: either("HTTP_PROXY"), HTTPSProxy: either("HTTPS_PROXY"), NoProxy: either("NO_PROXY")}
	if all := either("ALL_PROXY"); all != "" {
		if c.HTTPProxy == "" {
			c.HTTPProxy = all
		}
		if c.HTTPSProxy == "" {
			c.HTTPSProxy = all
		}
	}
	if c.HTTPProxy == "" && c.HTTPSProxy == "" {
		return nil, nil
	}
	for _, v := range []string{c.HTTPProxy, c.HTTPSProxy} {
		if v != "" && !strings.Contains(v, "://") {
			v = "http://" + v
		}
		u, err := url.Parse(v)
		if err != nil || v != "" && (u.Hostname() == "" || !slices.Contains([]string{"http", "https", "socks5", "socks5h"}, u.Scheme)) {
			// Not quoted: it may hold a password.
			return nil, usagef("a proxy in guard's environment (HTTPS_PROXY, HTTP_PROXY, ALL_PROXY) is not http://, https:// or socks5://[USER:PASSWORD@]HOST[:PORT]")
		}
	}
	find := c.ProxyFunc()
	return func(proto, host string, port int) *url.URL {
		u, err := find(&url.URL{Scheme: proto, Host: net.JoinHostPort(host, strconv.Itoa(port))})
		if err != nil {
			return nil
		}
		return u
	}, nil
}
