package main

import (
	"errors"
	"strings"
	"testing"
)

func TestParsePins(t *testing.T) {
	sum := "47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU="
	got, err := parsePins([]string{"Api.Example.com.=sha256//" + sum, "api.example.com=sha256//" + strings.Replace(sum, "4", "5", 1)})
	if err != nil || len(got) != 1 || len(got["api.example.com"]) != 2 || got["api.example.com"][0][0] != 0xe3 {
		t.Errorf("%v, %v", got, err)
	}
	for _, bad := range []string{"", "x", "x=", "x=" + sum, "x=sha1//" + sum, "=sha256//" + sum, "x=sha256//" + sum[:20], "*.x=sha256//" + sum, "x:443=sha256//" + sum, "10.0.0.1=sha256//" + sum, "x=sha256//!" + sum[1:]} {
		var usage usageError
		if _, err := parsePins([]string{bad}); !errors.As(err, &usage) {
			t.Errorf("%q: %v", bad, err)
		}
	}
}

func TestNetworkProxyFromTheEnvironment(t *testing.T) {
	env := func(kv ...string) func(string) string {
		return func(k string) string {
			for i := 0; i+1 < len(kv); i += 2 {
				if kv[i] == k {
					return kv[i+1]
				}
			}
			return ""
		}
	}
	find := func(getenv func(string) string, proto, host string, port int) string {
		f, err := networkProxy(getenv)
		if err != nil {
			t.Error(err)
			return ""
		}
		if f == nil {
			return "none"
		}
		if u := f(proto, host, port); u != nil {
			return u.String()
		}
		return "direct"
	}
	corp := env("HTTPS_PROXY", "http://u:p@proxy.corp:3128", "NO_PROXY", ".corp,10.0.0.0/8,special.example:8443")
	for _, tt := range []struct {
		env              func(string) string
		proto, host, out string
		port             int
	}{
		{env(), "https", "a.example", "none", 443},
		{corp, "https", "a.example", "http://u:p@proxy.corp:3128", 443},
		{corp, "http", "a.example", "direct", 80},
		{corp, "https", "git.corp", "direct", 443},
		{corp, "https", "10.1.2.3", "direct", 443},
		{corp, "https", "special.example", "direct", 8443},
		{corp, "https", "special.example", "http://u:p@proxy.corp:3128", 443},
		{corp, "https", "localhost", "direct", 443},
		{corp, "https", "2001:db8::1", "http://u:p@proxy.corp:3128", 443},
		{env("https_proxy", "http://low", "HTTPS_PROXY", "http://high"), "https", "a.example", "http://low", 443},
		{env("ALL_PROXY", "socks5://s:1080"), "http", "a.example", "socks5://s:1080", 80},
		{env("http_proxy", "proxy:8080"), "http", "a.example", "http://proxy:8080", 80},
	} {
		if got := find(tt.env, tt.proto, tt.host, tt.port); got != tt.out {
			t.Errorf("%s %s:%d goes by %s, want %s", tt.proto, tt.host, tt.port, got, tt.out)
		}
	}
	for _, bad := range []string{"ftp://u:hunter2@p", "http://u:hunter2@p:port", "http://[::1:hunter2"} {
		if _, err := networkProxy(env("HTTPS_PROXY", bad)); err == nil || strings.Contains(err.Error(), "hunter2") {
			t.Errorf("%v", err)
		}
	}
}
