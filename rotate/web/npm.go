package web

import (
	"context"
	"crypto/md5"
	"crypto/sha512"
	"encoding/hex"
	"net/http"
	"net/url"
	"slices"
	"strings"

	"guard"
	"guard/rotate"
)

// NPM makes tokens at a registry with npm's token API, such as registry.npmjs.org and
// verdaccio: what `npm token` asks.
type NPM struct {
	Client Client
}

// About describes it.
func (NPM) About() rotate.About {
	return rotate.About{
		Name: "npm",
		Options: []rotate.Option{
			adminOption("credential with the account's password, of the registry's host"),
			{Key: "session", About: "credential with a token of a login that may manage tokens; default: the password, by Basic authentication"},
			{Key: "readonly", About: "yes: the new token may only read"},
			{Key: "cidr", About: "networks that may use it, joined by +"},
			idOption("key of the present token"),
			urlOption("https://registry.npmjs.org", "that of another registry"), caOption(),
		},
		Privileges: "the account's password; registry.npmjs.org asks accounts with a second factor for it, which guard cannot give: manual is for those",
		Sessions:   "none: each request is tried by itself",
		Limits:     "registry.npmjs.org may take a deleted token for an hour; some registries answer a deletion with 200 and go on taking it, which is shown as still alive. Tokens need not have names: one that an earlier try made is told by not having been there before",
		Calls:      []string{"GET, POST /-/npm/v1/tokens", "DELETE /-/npm/v1/tokens/token/{key}", "GET /-/whoami"},
	}
}

func (p NPM) at(j rotate.Job) (kept, error) {
	a := asked{&p.Client, j}
	base, err := a.base("url", "https://registry.npmjs.org")
	if err != nil {
		return kept{}, err
	}
	password, boss, err := a.admin("admin", base)
	if err != nil {
		return kept{}, err
	}
	user := boss.User
	if user == "" {
		user = j.Credential.User
	}
	as := func(r request) request { r.user, r.pass = user, password; return r }
	if j.Options["session"] != "" {
		login, _, err := a.admin("session", base)
		if err != nil {
			return kept{}, err
		}
		as = func(r request) request { r.header = bearer(login); return r }
	}
	type token struct {
		Key, ID, Name, Token string
	}
	idOf := func(t token) string {
		if t.Key != "" {
			return t.Key
		}
		return t.ID
	}
	return kept{asked: a, base: base, page: "https://www.npmjs.com/settings/~/tokens",
		named: named{
			nameless: true,
			list: func(ctx context.Context) ([]entry, error) {
				var out []entry
				next := base + "/-/npm/v1/tokens"
				for range maxPages {
					var got struct {
						Objects []token
						URLs    struct{ Next string }
					}
					if _, err := a.get(ctx, "list the tokens", as(request{method: http.MethodGet, url: next}), &got); err != nil {
						return nil, err
					}
					for _, t := range got.Objects {
						out = append(out, entry{id: idOf(t), name: t.Name, hint: t.Token})
					}
					if got.URLs.Next == "" {
						return out, nil
					}
					// The path of the next page, never another host.
					u, err := url.Parse(got.URLs.Next)
					if err != nil {
						return nil, tooManyPages()
					}
					next = base + "/-/npm/v1/tokens?" + u.RawQuery
				}
				return nil, tooManyPages()
			},
			create: func(ctx context.Context, name string) (made, error) {
				var t token
				r, err := a.get(ctx, "make a token", as(request{method: http.MethodPost, url: base + "/-/npm/v1/tokens", json: map[string]any{
					"name": name, "password": password, "readonly": j.Options["readonly"] == "yes", "cidr_whitelist": words(j.Options["cidr"]),
				}}), &t)
				return made{value: t.Token, id: idOf(t)}, refusedToMake(r, err)
			},
			remove: func(ctx context.Context, id string) error {
				_, err := a.get(ctx, "delete a token", as(request{method: http.MethodDelete, url: base + "/-/npm/v1/tokens/token/" + url.PathEscape(id)}), nil, http.StatusNotFound)
				return err
			},
		},
		try: func(ctx context.Context, value string) error {
			r, err := a.do(ctx, request{method: http.MethodGet, url: base + "/-/whoami", header: bearer(value)})
			if err != nil {
				return err
			}
			return r.tried()
		},
		which: func(_ context.Context, all []entry, value string) (string, error) {
			if id := inList(all, j.ID); id != "" {
				return id, nil
			}
			// A key is a hash of its token: SHA-512 at npm, MD5 at verdaccio.
			long, short := sha512.Sum512([]byte(value)), md5.Sum([]byte(value))
			hashes := []string{hex.EncodeToString(long[:]), hex.EncodeToString(short[:])}
			for _, e := range all {
				if slices.Contains(hashes, e.id) {
					return e.id, nil
				}
			}
			return "", nil
		},
		goes: func(hint, value string) bool {
			return masked(hint, value) || len(hint) >= 6 && strings.HasPrefix(value, hint)
		},
	}, nil
}

// Check lists what there is as the admin, tries the present value and looks for its id.
func (p NPM) Check(ctx context.Context, j rotate.Job) error {
	k, err := p.at(j)
	if err != nil {
		return err
	}
	return k.check(ctx)
}

// Mint makes a token.
func (p NPM) Mint(ctx context.Context, j rotate.Job) (guard.Secret, error) {
	k, err := p.at(j)
	if err != nil {
		return guard.Secret{}, err
	}
	return k.mint(ctx, j)
}

// Verify tries a value.
func (p NPM) Verify(ctx context.Context, j rotate.Job, value guard.Secret) error {
	k, err := p.at(j)
	if err != nil {
		return err
	}
	return k.verify(ctx, value)
}

// Revoke deletes the old value.
func (p NPM) Revoke(ctx context.Context, j rotate.Job) error {
	k, err := p.at(j)
	if err != nil {
		return err
	}
	return k.revoke(ctx)
}
