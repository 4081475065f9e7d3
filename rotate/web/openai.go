package web

import (
	"context"
	"net/http"
	"net/url"

	"guard"
	"guard/rotate"
)

// OpenAI makes project service accounts with one API key each:
// platform.openai.com/docs/api-reference/project-service-accounts.
type OpenAI struct {
	Client Client
}

// About describes it.
func (OpenAI) About() rotate.About {
	return rotate.About{
		Name: "openai",
		Options: []rotate.Option{
			adminOption("credential with an admin key (sk-admin-...), of host api.openai.com"),
			{Key: "project", About: "id of the project (proj_...)", Must: true},
			idOption("of the present key's service account, or of the key"),
			urlOption("https://api.openai.com", ""), caOption(),
		},
		Privileges: "an admin key of the organization",
		Sessions:   "none: each request is tried by itself",
		Limits:     "each new key has a service account of its own, which is deleted with it; a key that a person has is deleted, its owner stays",
		Calls:      []string{"GET, POST /v1/organization/projects/{project}/service_accounts", "DELETE .../service_accounts/{id}", "GET /v1/organization/projects/{project}/api_keys", "DELETE .../api_keys/{id}", "GET /v1/models"},
	}
}

func (p OpenAI) at(j rotate.Job) (kept, error) {
	a := asked{&p.Client, j}
	base, err := a.base("url", "https://api.openai.com")
	if err != nil {
		return kept{}, err
	}
	admin, _, err := a.admin("admin", base)
	if err != nil {
		return kept{}, err
	}
	path := base + "/v1/organization/projects/" + url.PathEscape(j.Options["project"])
	type item struct {
		ID, Name string
		Redacted string `json:"redacted_value"`
		Owner    struct {
			Account *struct{ ID string } `json:"service_account"`
		}
		Key struct{ Value string } `json:"api_key"`
	}
	pages := func(ctx context.Context, what string, each func(item)) error {
		after := ""
		for range maxPages {
			var got struct {
				Data []item
				More bool   `json:"has_more"`
				Last string `json:"last_id"`
			}
			if _, err := a.get(ctx, "list the project's "+what, request{method: http.MethodGet, url: path + "/" + what + "?limit=100&after=" + url.QueryEscape(after), header: bearer(admin)}, &got); err != nil {
				return err
			}
			for _, i := range got.Data {
				each(i)
			}
			if after = got.Last; !got.More || after == "" {
				return nil
			}
		}
		return tooManyPages()
	}
	remove := func(ctx context.Context, what, id string) (*reply, error) {
		return a.get(ctx, "delete one of the project's "+what, request{method: http.MethodDelete, url: path + "/" + what + "/" + url.PathEscape(id), header: bearer(admin)}, nil, http.StatusNotFound)
	}
	return kept{asked: a, base: base, page: "https://platform.openai.com/api-keys",
		named: named{
			list: func(ctx context.Context) ([]entry, error) {
				var out []entry
				at := map[string]int{}
				err := pages(ctx, "service_accounts", func(i item) {
					at[i.ID] = len(out)
					out = append(out, entry{id: i.ID, name: i.Name})
				})
				if err != nil {
					return nil, err
				}
				err = pages(ctx, "api_keys", func(i item) {
					e := entry{id: i.ID, hint: i.Redacted}
					if i.Owner.Account != nil {
						if n, ok := at[i.Owner.Account.ID]; ok && out[n].hint == "" {
							out[n].hint = i.Redacted
							return
						}
					}
					out = append(out, e)
				})
				return out, err
			},
			create: func(ctx context.Context, name string) (made, error) {
				var got item
				r, err := a.get(ctx, "make a service account", request{method: http.MethodPost, url: path + "/service_accounts", header: bearer(admin), json: map[string]string{"name": name}}, &got)
				return made{value: got.Key.Value, id: got.ID}, refusedToMake(r, err)
			},
			remove: func(ctx context.Context, id string) error {
				r, err := remove(ctx, "service_accounts", id)
				if err == nil && r.status == http.StatusNotFound {
					_, err = remove(ctx, "api_keys", id)
				}
				return err
			},
		},
		try: func(ctx context.Context, value string) error {
			r, err := a.do(ctx, request{method: http.MethodGet, url: base + "/v1/models", header: bearer(value)})
			if err != nil {
				return err
			}
			return r.tried()
		},
		which: func(_ context.Context, all []entry, _ string) (string, error) { return inList(all, j.ID), nil },
		goes:  masked,
	}, nil
}

// Check lists what there is as the admin, tries the present value and looks for its id.
func (p OpenAI) Check(ctx context.Context, j rotate.Job) error {
	k, err := p.at(j)
	if err != nil {
		return err
	}
	return k.check(ctx)
}

// Mint makes a service account of this rotation's name, and its key.
func (p OpenAI) Mint(ctx context.Context, j rotate.Job) (guard.Secret, error) {
	k, err := p.at(j)
	if err != nil {
		return guard.Secret{}, err
	}
	return k.mint(ctx, j)
}

// Verify tries a value.
func (p OpenAI) Verify(ctx context.Context, j rotate.Job, value guard.Secret) error {
	k, err := p.at(j)
	if err != nil {
		return err
	}
	return k.verify(ctx, value)
}

// Revoke deletes the old value.
func (p OpenAI) Revoke(ctx context.Context, j rotate.Job) error {
	k, err := p.at(j)
	if err != nil {
		return err
	}
	return k.revoke(ctx)
}
