package web

import (
	"context"
	"fmt"
	"net/http"
	"net/url"
	"strconv"
	"strings"

	"guard"
	"guard/rotate"
)

// Datadog makes API keys: docs.datadoghq.com/api/latest/key-management.
type Datadog struct {
	Client Client
}

// About describes it.
func (Datadog) About() rotate.About {
	return rotate.About{
		Name: "datadog",
		Options: []rotate.Option{
			adminOption("credential with an application key that may write API keys, or, without api=, with an access token"),
			{Key: "api", About: "credential with another API key, which goes with an application key"},
			urlOption("https://api.datadoghq.com", "https://api.DATADOG_SITE of another site"), caOption(), idOption("of the present key"),
		},
		Privileges: "api_keys_read, api_keys_write, api_keys_delete",
		Sessions:   "none: each request is tried by itself; what agents sent stays",
		Limits:     "Datadog may take some time to refuse a deleted key; its answer to a dead key is 403",
		Calls:      []string{"GET, POST /api/v2/api_keys", "DELETE /api/v2/api_keys/{api_key_id}", "GET /api/v1/validate", "GET /api/v2/validate"},
	}
}

func (p Datadog) at(j rotate.Job) (kept, error) {
	a := asked{&p.Client, j}
	base, err := a.base("url", "https://api.datadoghq.com")
	if err != nil {
		return kept{}, err
	}
	admin, _, err := a.admin("admin", base)
	if err != nil {
		return kept{}, err
	}
	as := bearer(admin)
	if j.Options["api"] != "" {
		key, _, err := a.admin("api", base)
		if err != nil {
			return kept{}, err
		}
		as = map[string]string{"DD-API-KEY": key, "DD-APPLICATION-KEY": admin}
	}
	path := base + "/api/v2/api_keys"
	type key struct {
		ID         string
		Attributes struct {
			Name, Key string
			Last4     string `json:"last4"`
		}
	}
	return kept{asked: a, base: base, page: "https://app.datadoghq.com/organization-settings/api-keys",
		named: named{
			list: func(ctx context.Context) ([]entry, error) {
				var out []entry
				for page := 0; page < maxPages; page++ {
					var got struct{ Data []key }
					if _, err := a.get(ctx, "list the API keys", request{method: http.MethodGet, url: path + "?page%5Bsize%5D=100&page%5Bnumber%5D=" + strconv.Itoa(page), header: as}, &got); err != nil {
						return nil, err
					}
					if len(got.Data) == 0 {
						return out, nil
					}
					for _, k := range got.Data {
						out = append(out, entry{id: k.ID, name: k.Attributes.Name, hint: k.Attributes.Last4})
					}
				}
				return nil, tooManyPages()
			},
			create: func(ctx context.Context, name string) (made, error) {
				var got struct{ Data key }
				r, err := a.get(ctx, "make an API key", request{method: http.MethodPost, url: path, header: as, json: map[string]any{"data": map[string]any{"type": "api_keys", "attributes": map[string]string{"name": name}}}}, &got)
				return made{value: got.Data.Attributes.Key, id: got.Data.ID}, refusedToMake(r, err)
			},
			remove: func(ctx context.Context, id string) error {
				_, err := a.get(ctx, "delete an API key", request{method: http.MethodDelete, url: path + "/" + url.PathEscape(id), header: as}, nil, http.StatusNotFound)
				return err
			},
		},
		try: func(ctx context.Context, value string) error {
			r, err := a.do(ctx, request{method: http.MethodGet, url: base + "/api/v1/validate", header: map[string]string{"DD-API-KEY": value}})
			if err != nil {
				return err
			}
			if r.status == http.StatusForbidden {
				return fmt.Errorf("try the value: %w (403)", rotate.ErrRefused)
			}
			return r.err("try the value")
		},
		which: func(ctx context.Context, all []entry, value string) (string, error) {
			if id := inList(all, j.ID); id != "" {
				return id, nil
			}
			r, err := a.do(ctx, request{method: http.MethodGet, url: base + "/api/v2/validate", header: map[string]string{"DD-API-KEY": value}})
			if err != nil {
				return "", err
			}
			var got struct {
				Data struct {
					Attributes struct {
						ID string `json:"api_key_id"`
					}
				}
			}
			if r.ok() && r.read(&got) == nil && inList(all, got.Data.Attributes.ID) != "" {
				return got.Data.Attributes.ID, nil
			}
			return "", nil
		},
		goes: func(hint, value string) bool { return len(hint) >= 4 && strings.HasSuffix(value, hint) },
	}, nil
}

// Check lists what there is as the admin, tries the present value and looks for its id.
func (p Datadog) Check(ctx context.Context, j rotate.Job) error {
	k, err := p.at(j)
	if err != nil {
		return err
	}
	return k.check(ctx)
}

// Mint makes an API key of this rotation's name.
func (p Datadog) Mint(ctx context.Context, j rotate.Job) (guard.Secret, error) {
	k, err := p.at(j)
	if err != nil {
		return guard.Secret{}, err
	}
	return k.mint(ctx, j)
}

// Verify tries a value.
func (p Datadog) Verify(ctx context.Context, j rotate.Job, value guard.Secret) error {
	k, err := p.at(j)
	if err != nil {
		return err
	}
	return k.verify(ctx, value)
}

// Revoke deletes the old value.
func (p Datadog) Revoke(ctx context.Context, j rotate.Job) error {
	k, err := p.at(j)
	if err != nil {
		return err
	}
	return k.revoke(ctx)
}
