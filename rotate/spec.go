package rotate

import (
	"fmt"
	"slices"
	"strings"
)

// About describes a provider to a person: what to write, what it needs.
type About struct {
	Name       string
	Options    []Option
	Privileges string
	Sessions   string // what happens to sessions that are open
	Limits     string
}

// Option is one key of a rotate spec.
type Option struct {
	Key   string
	About string
	Must  bool
}

// Providers lists every provider that guard has.
func Providers() []About {
	return []About{
		{
			Name: "postgres",
			Options: []Option{
				{Key: "admin", About: "credential of the same context that may alter the role: a password with a user, or a DSN; without it the role changes its own password"},
				{Key: "host", About: "server; default: the credential's first host"},
				{Key: "port", About: "default 5432"},
				{Key: "db", About: "database to connect to; default postgres"},
				{Key: "user", About: "role whose password this is; default: the credential's user"},
				{Key: "sslmode", About: "disable, prefer, require, verify-ca or verify-full; default verify-full, and prefer for a loopback address"},
				{Key: "ca", About: "file with the root certificates to trust"},
				{Key: "superuser", About: "yes: rotate the role even if it is a superuser or replicates"},
			},
			Privileges: "with admin: CREATEROLE (from PostgreSQL 16 on also ADMIN OPTION on the role) and membership in pg_signal_backend or in the role; without: none",
			Sessions:   "pg_terminate_backend for every session of the role; a graceful rotation spares guard's own",
			Limits:     "a role has one password: new logins with the old one fail from the moment of mint on",
		},
		{
			Name: "exec",
			Options: []Option{
				{Key: "cmd", About: "absolute path of the program to run once a step", Must: true},
				{Key: "sha256", About: "hash of that program, recorded when the credential was set"},
				{Key: "timeout", About: "of one step; default 30s"},
			},
			Privileges: "what the program needs",
			Sessions:   "the program's revoke step ends them",
			Limits:     "the program and its folders must not be writable by anyone else; values must be text",
		},
	}
}

// ParseSpec reads what `--rotate` takes: PROVIDER[,key=value]...
func ParseSpec(s string) (provider string, options map[string]string, err error) {
	name, rest, more := strings.Cut(s, ",")
	list := Providers()
	i := slices.IndexFunc(list, func(a About) bool { return a.Name == name })
	if i < 0 {
		names := make([]string, len(list))
		for i, a := range list {
			names[i] = a.Name
		}
		return "", nil, fmt.Errorf("no such rotation provider: want one of %s", strings.Join(names, ", "))
	}
	options = map[string]string{}
	if more {
		for part := range strings.SplitSeq(rest, ",") {
			// The part itself is not repeated: someone may have typed a password.
			key, value, ok := strings.Cut(part, "=")
			if !ok || !slices.ContainsFunc(list[i].Options, func(o Option) bool { return o.Key == key }) {
				return "", nil, fmt.Errorf("rotation provider %s: an option is not one of %s=...", name, strings.Join(keys(list[i]), "=..., "))
			}
			if _, twice := options[key]; twice {
				return "", nil, fmt.Errorf("rotation provider %s: option %s is given twice", name, key)
			}
			if value == "" || strings.ContainsAny(value, "\x00\n\r") {
				return "", nil, fmt.Errorf("rotation provider %s: option %s has no usable value", name, key)
			}
			options[key] = value
		}
	}
	for _, o := range list[i].Options {
		if o.Must && options[o.Key] == "" {
			return "", nil, fmt.Errorf("rotation provider %s needs %s=...: %s", name, o.Key, o.About)
		}
	}
	return name, options, nil
}

// FormatSpec is the inverse of ParseSpec, keys in the order of Providers.
func FormatSpec(provider string, options map[string]string) string {
	s := provider
	for _, a := range Providers() {
		if a.Name != provider {
			continue
		}
		for _, k := range keys(a) {
			if v := options[k]; v != "" {
				s += "," + k + "=" + v
			}
		}
	}
	return s
}

func keys(a About) []string {
	out := make([]string, len(a.Options))
	for i, o := range a.Options {
		out[i] = o.Key
	}
	return out
}
