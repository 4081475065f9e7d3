package web

import (
	"context"
	"net/http"
	"net/url"
	"strconv"
	"time"

	"guard"
	"guard/rotate"
)

// DockerHub makes personal access tokens: docs.docker.com/reference/api/hub.
type DockerHub struct {
	Client Client
}

// About describes it.
func (DockerHub) About() rotate.About {
	return rotate.About{
		Name: "docker-hub",
		Options: []rotate.Option{
			adminOption("credential with the account's password, of host hub.docker.com: a token may not make tokens"),
			{Key: "scopes", About: "of the new tokens, joined by +, such as repo:read", Must: true},
			{Key: "days", About: "how long a new token lives; default: for ever"},
			idOption("uuid of the present token, which the issuer does not tell"),
			urlOption("https://hub.docker.com", ""), caOption(),
		},
		Privileges: "the account's password; a second factor stops it",
		Sessions:   "what was logged in with the token lives until its bearer token ends, minutes later",
		Limits:     "a token cannot be told by its value: the first one's uuid must be given as id",
		Calls:      []string{"POST /v2/auth/token", "GET, POST /v2/access-tokens", "DELETE /v2/access-tokens/{uuid}"},
	}
}

func (p DockerHub) at(j rotate.Job) (kept, error) {
	a := asked{&p.Client, j}
	base, err := a.base("url", "https://hub.docker.com")
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
	session := "" // of the admin, for this step
	admin := func(ctx context.Context, r request, doing string, v any, none ...int) (*reply, error) {
		if session == "" {
			var got struct {
				Token string `json:"access_token"`
			}
			if _, err := a.get(ctx, "log in", request{method: http.MethodPost, url: base + "/v2/auth/token", json: map[string]string{"identifier": user, "secret": password}}, &got); err != nil {
				return nil, err
			}
			session = got.Token
		}
		r.header = bearer(session)
		return a.get(ctx, doing, r, v, none...)
	}
	path := base + "/v2/access-tokens"
	type token struct {
		UUID, Token string
		Label       string    `json:"token_label"`
		Active      bool      `json:"is_active"`
		Expires     time.Time `json:"expires_at"`
	}
	return kept{asked: a, base: base, page: "https://app.docker.com/settings/personal-access-tokens",
		named: named{
			list: func(ctx context.Context) ([]entry, error) {
				var out []entry
				for page := 1; page < maxPages; page++ {
					var got struct {
						Next    string
						Results []token
					}
					if _, err := admin(ctx, request{method: http.MethodGet, url: path + "?page_size=100&page=" + strconv.Itoa(page)}, "list the tokens", &got); err != nil {
						return nil, err
					}
					for _, t := range got.Results {
						out = append(out, entry{id: t.UUID, name: t.Label, idle: !t.Active})
					}
					if got.Next == "" {
						return out, nil
					}
				}
				return nil, tooManyPages()
			},
			create: func(ctx context.Context, name string) (made, error) {
				body := map[string]any{"token_label": name, "scopes": words(j.Options["scopes"])}
				if days, err := strconv.Atoi(j.Options["days"]); err == nil && days > 0 {
					body["expires_at"] = time.Now().UTC().AddDate(0, 0, days).Format(time.RFC3339)
				}
				var t token
				r, err := admin(ctx, request{method: http.MethodPost, url: path, json: body}, "make a token", &t)
				return made{value: t.Token, id: t.UUID, expires: t.Expires}, refusedToMake(r, err)
			},
			remove: func(ctx context.Context, id string) error {
				_, err := admin(ctx, request{method: http.MethodDelete, url: path + "/" + url.PathEscape(id)}, "delete a token", nil, http.StatusNotFound)
				return err
			},
		},
		try: func(ctx context.Context, value string) error {
			r, err := a.do(ctx, request{method: http.MethodPost, url: base + "/v2/auth/token", json: map[string]string{"identifier": j.Credential.User, "secret": value}})
			if err != nil {
				return err
			}
			return r.tried()
		},
		which: func(_ context.Context, all []entry, _ string) (string, error) { return inList(all, j.ID), nil },
	}, nil
}

// Check lists what there is as the admin, tries the present value and looks for its id.
func (p DockerHub) Check(ctx context.Context, j rotate.Job) error {
	k, err := p.at(j)
	if err != nil {
		return err
	}
	return k.check(ctx)
}

// Mint makes a token of this rotation's name.
func (p DockerHub) Mint(ctx context.Context, j rotate.Job) (guard.Secret, error) {
	k, err := p.at(j)
	if err != nil {
		return guard.Secret{}, err
	}
	return k.mint(ctx, j)
}

// Verify tries a value.
func (p DockerHub) Verify(ctx context.Context, j rotate.Job, value guard.Secret) error {
	k, err := p.at(j)
	if err != nil {
		return err
	}
	return k.verify(ctx, value)
}

// Revoke deletes the old value.
func (p DockerHub) Revoke(ctx context.Context, j rotate.Job) error {
	k, err := p.at(j)
	if err != nil {
		return err
	}
	return k.revoke(ctx)
}
