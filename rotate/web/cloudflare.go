package web

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"

	"guard"
	"guard/rotate"
)

// Cloudflare makes API tokens: developers.cloudflare.com/api. It never rolls a token
// (PUT .../value), which ends the old value before anybody has the new one.
type Cloudflare struct {
	Client Client
}

// About describes it.
func (Cloudflare) About() rotate.About {
	return rotate.About{
		Name: "cloudflare",
		Options: []rotate.Option{
			adminOption("credential of kind cloudflare with a token that may edit API tokens"),
			{Key: "account", About: "id of the account, for a token that the account owns; default: the user's own"},
			{Key: "days", About: "how long a new token lives; default: as the old one, for ever"},
			urlOption("https://api.cloudflare.com", ""), caOption(),
		},
		Privileges: "the admin's: User / API Tokens / Edit, or Account / Account API Tokens / Edit",
		Sessions:   "none: each request is tried by itself",
		Limits:     "the new token gets the policies and conditions of the old one",
		Calls:      []string{"GET, POST /client/v4/user/tokens or /client/v4/accounts/{account_id}/tokens", "GET .../tokens/verify", "GET, DELETE .../tokens/{token_id}"},
	}
}

const cloudflareOld = "policies: "

func (p Cloudflare) at(j rotate.Job) (kept, error) {
	a := asked{&p.Client, j}
	base, err := a.base("url", "https://api.cloudflare.com")
	if err != nil {
		return kept{}, err
	}
	path := base + "/client/v4/user/tokens"
	if s := j.Options["account"]; s != "" {
		path = base + "/client/v4/accounts/" + url.PathEscape(s) + "/tokens"
	}
	admin, _, err := a.admin("admin", base)
	if err != nil {
		return kept{}, err
	}
	type token struct {
		ID, Name, Status, Value string
		Policies, Condition     json.RawMessage
		Expires                 time.Time `json:"expires_on"`
	}
	// verified is the token that a value is; nil: it is refused.
	verified := func(ctx context.Context, value string) (*token, *reply, error) {
		r, err := a.do(ctx, request{method: http.MethodGet, url: path + "/verify", header: bearer(value)})
		if err != nil || !r.ok() {
			return nil, r, err
		}
		var got struct{ Result token }
		if err := r.read(&got); err != nil {
			return nil, r, err
		}
		return &got.Result, r, nil
	}
	template := func(ctx context.Context, id string) (token, error) {
		var got struct{ Result token }
		_, err := a.get(ctx, "read the old token's policies", request{method: http.MethodGet, url: path + "/" + url.PathEscape(id), header: bearer(admin)}, &got)
		return got.Result, err
	}
	return kept{asked: a, base: base, page: "https://dash.cloudflare.com/profile/api-tokens",
		named: named{
			list: func(ctx context.Context) ([]entry, error) {
				var out []entry
				for page := 1; page < maxPages; page++ {
					var got struct {
						Result []token
						Info   struct {
							Pages int `json:"total_pages"`
						} `json:"result_info"`
					}
					if _, err := a.get(ctx, "list the tokens", request{method: http.MethodGet, url: path + "?per_page=50&page=" + strconv.Itoa(page), header: bearer(admin)}, &got); err != nil {
						return nil, err
					}
					for _, t := range got.Result {
						out = append(out, entry{id: t.ID, name: t.Name, idle: t.Status == "expired"})
					}
					if page >= got.Info.Pages {
						return out, nil
					}
				}
				return nil, tooManyPages()
			},
			create: func(ctx context.Context, name string) (made, error) {
				var old token
				if saved, ok := strings.CutPrefix(j.Note, cloudflareOld); ok {
					if err := json.Unmarshal([]byte(saved), &old); err != nil {
						return made{}, fmt.Errorf("the old token's policies cannot be read: %w", rotate.ErrPermanent)
					}
				} else {
					t, r, err := verified(ctx, text(j.Current))
					if err != nil {
						return made{}, err
					}
					if t == nil {
						return made{}, fmt.Errorf("the old token, whose policies the new one gets, is not accepted (%d): %w", r.status, rotate.ErrPermanent)
					}
					if old, err = template(ctx, t.ID); err != nil {
						return made{}, err
					}
				}
				body := map[string]any{"name": name, "policies": old.Policies}
				if len(old.Condition) > 0 && string(old.Condition) != "null" {
					body["condition"] = old.Condition
				}
				if s := j.Options["days"]; s != "" {
					days, err := strconv.Atoi(s)
					if err != nil || days < 1 || days > 3650 {
						return made{}, rotate.NotMade(fmt.Errorf("days of %s's rotate option wants 1 to 3650: %w", j.Credential.Name, rotate.ErrPermanent))
					}
					body["expires_on"] = time.Now().UTC().AddDate(0, 0, days).Format("2006-01-02T15:04:05Z")
				}
				var got struct{ Result token }
				r, err := a.get(ctx, "make a token", request{method: http.MethodPost, url: path, header: bearer(admin), json: body}, &got)
				return made{value: got.Result.Value, id: got.Result.ID, expires: got.Result.Expires}, refusedToMake(r, err)
			},
			remove: func(ctx context.Context, id string) error {
				_, err := a.get(ctx, "delete a token", request{method: http.MethodDelete, url: path + "/" + url.PathEscape(id), header: bearer(admin)}, nil, http.StatusNotFound)
				return err
			},
		},
		try: func(ctx context.Context, value string) error {
			t, r, err := verified(ctx, value)
			switch {
			case err != nil:
				return err
			case t == nil:
				return r.tried()
			case t.Status != "active":
				return fmt.Errorf("try the value: %w (it is not active)", rotate.ErrRefused)
			}
			return nil
		},
		which: func(ctx context.Context, all []entry, value string) (string, error) {
			if id := inList(all, j.ID); id != "" {
				return id, nil
			}
			t, _, err := verified(ctx, value)
			if err != nil || t == nil {
				return "", err
			}
			return t.ID, nil
		},
		before: func(ctx context.Context, id string) error {
			if j.Live {
				return nil // there is a new one already
			}
			t, err := template(ctx, id)
			if err != nil {
				return err
			}
			b, err := json.Marshal(map[string]json.RawMessage{"policies": t.Policies, "condition": t.Condition})
			if err != nil {
				return err
			}
			return j.Remember(cloudflareOld + string(b))
		},
	}, nil
}

// Check lists what there is as the admin, tries the present value and looks for its id.
func (p Cloudflare) Check(ctx context.Context, j rotate.Job) error {
	k, err := p.at(j)
	if err != nil {
		return err
	}
	return k.check(ctx)
}

// Mint makes a token of this rotation's name, that may do what the old one may.
func (p Cloudflare) Mint(ctx context.Context, j rotate.Job) (guard.Secret, error) {
	k, err := p.at(j)
	if err != nil {
		return guard.Secret{}, err
	}
	return k.mint(ctx, j)
}

// Verify tries a value.
func (p Cloudflare) Verify(ctx context.Context, j rotate.Job, value guard.Secret) error {
	k, err := p.at(j)
	if err != nil {
		return err
	}
	return k.verify(ctx, value)
}

// Revoke deletes the old value.
func (p Cloudflare) Revoke(ctx context.Context, j rotate.Job) error {
	k, err := p.at(j)
	if err != nil {
		return err
	}
	return k.revoke(ctx)
}
