package main

import (
	"testing"

	"guard/vault"
)

func TestParseStore(t *testing.T) {
	for s, want := range map[string]storePlace{
		"vault://vault.example.com/secret":             {"https://vault.example.com:8200", "secret", ""},
		"vault://vault.example.com:443/secret/team/a/": {"https://vault.example.com:443", "secret", "team/a"},
		"vault://[::1]/kv":                             {"https://[::1]:8200", "kv", ""},
		"vault+http://127.0.0.1:8200/secret":           {"http://127.0.0.1:8200", "secret", ""},
		"":                                             {}, "vault://": {}, "vault:///secret": {}, "vault://host": {}, "vault://host/": {}, "https://host/secret": {}, "vault://user:pass@host/secret": {},
		"vault://host/secret?x=y": {}, "vault://host/secret#field": {}, "vault+ftp://host/secret": {}, "vault://:8200/secret": {},
	} {
		got, err := parseStore(s)
		if (err == nil) != (want.Addr != "") || got != want {
			t.Errorf("%q: %+v, %v", s, got, err)
		}
	}
}

func TestParseReference(t *testing.T) {
	for s, want := range map[string]vault.Source{
		"vault://secret/app#key":       {Mount: "secret", Path: "app", Field: "key"},
		"vault://secret/a/b/c#db.pass": {Mount: "secret", Path: "a/b/c", Field: "db.pass"},
		"vault://secret/app":           {}, "vault://secret#key": {}, "secret/app#key": {}, "vault:///app#key": {}, "vault://secret/app#": {}, "": {},
	} {
		got, err := parseReference(s)
		if (err == nil) != (want.Path != "") || got.Mount != want.Mount || got.Path != want.Path || got.Field != want.Field {
			t.Errorf("%q: %+v, %v", s, got, err)
		}
	}
}

func TestParseLease(t *testing.T) {
	for s, ok := range map[string]bool{
		"database/creds/app": true, "team/db/creds/app": true, "aws/sts/deploy,ttl=15m": true, "pki/issue/web,common_name=a.example.com,ttl=1h": true,
		"pki/issue/web": false, "database/creds/app,ttl": false, "database/creds/app,=1": false, "sys/leases/revoke": false, "": false, "database/creds/../x": false,
	} {
		if _, err := parseLease(s); (err == nil) != ok {
			t.Errorf("%q: %v", s, err)
		}
	}
	got, err := parseLease("pki/issue/web,common_name=a.example.com,ttl=1h")
	if err != nil || got.Lease != "pki/issue/web" || got.Params["common_name"] != "a.example.com" || got.Params["ttl"] != "1h" {
		t.Errorf("%+v, %v", got, err)
	}
}
