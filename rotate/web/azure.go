package web

import (
	"context"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"

	"guard"
	"guard/rotate"
)

// Azure makes client secrets of an Entra application:
// learn.microsoft.com/graph/api/application-addpassword.
type Azure struct {
	Client Client
}

// About describes it.
func (Azure) About() rotate.About {
	return rotate.About{
		Name: "azure",
		Options: []rotate.Option{
			adminOption("credential of kind azure-app of another application, that may change this one; its user is its client id"),
			{Key: "tenant", About: "id of the tenant", Must: true},
			{Key: "app", About: "object id of the application", Must: true},
			{Key: "client", About: "client id of the application; default: the credential's user"},
			{Key: "days", About: "how long a new secret lives; default 90"},
			idOption("keyId of the present secret"),
			urlOption("https://graph.microsoft.com", ""), {Key: "login", About: "address that gives out tokens; default https://login.microsoftonline.com"}, caOption(),
		},
		Privileges: "the admin's: Application.ReadWrite.OwnedBy, and to be an owner of the application",
		Sessions:   "access tokens that were given out live on until they expire, about an hour (continuous access evaluation aside)",
		Limits:     "a new or removed secret takes seconds to minutes to be known everywhere; two secrets that begin with the same three letters cannot be told apart without id=",
		Calls:      []string{"POST {login}/{tenant}/oauth2/v2.0/token", "GET /v1.0/applications/{id}?$select=passwordCredentials", "POST /v1.0/applications/{id}/addPassword", "POST /v1.0/applications/{id}/removePassword"},
	}
}

func (p Azure) at(j rotate.Job) (kept, error) {
	a := asked{&p.Client, j}
	graph, err := a.base("url", "https://graph.microsoft.com")
	if err != nil {
		return kept{}, err
	}
	login, err := a.base("login", "https://login.microsoftonline.com")
	if err != nil {
		return kept{}, err
	}
	password, boss, err := a.admin("admin", login)
	if err != nil {
		return kept{}, err
	}
	token := func(ctx context.Context, client, secret string) (*reply, error) {
		return a.do(ctx, request{method: http.MethodPost, url: login + "/" + url.PathEscape(j.Options["tenant"]) + "/oauth2/v2.0/token", form: url.Values{
			"grant_type": {"client_credentials"}, "client_id": {client}, "client_secret": {secret}, "scope": {"https://graph.microsoft.com/.default"},
		}})
	}
	session := "" // of the admin, for this step
	admin := func(ctx context.Context, r request, doing string, v any, none ...int) (*reply, error) {
		if session == "" {
			res, err := token(ctx, boss.User, password)
			if err != nil {
				return nil, err
			}
			var got struct {
				Token string `json:"access_token"`
			}
			if err := res.admin("log in as admin=" + boss.Name); err != nil {
				return nil, err
			}
			if err := res.read(&got); err != nil {
				return nil, err
			}
			session = got.Token
		}
		r.header = bearer(session)
		return a.get(ctx, doing, r, v, none...)
	}
	client := j.Options["client"]
	if client == "" {
		client = j.Credential.User
	}
	path := graph + "/v1.0/applications/" + url.PathEscape(j.Options["app"])
	type secret struct {
		KeyID       string `json:"keyId"`
		Name        string `json:"displayName"`
		Hint        string
		Text        string    `json:"secretText"`
		EndDateTime time.Time `json:"endDateTime"`
	}
	return kept{asked: a, base: login, page: "https://entra.microsoft.com/#view/Microsoft_AAD_RegisteredApps/ApplicationsListBlade",
		named: named{
			list: func(ctx context.Context) ([]entry, error) {
				var got struct{ PasswordCredentials []secret }
				if _, err := admin(ctx, request{method: http.MethodGet, url: path + "?$select=passwordCredentials"}, "list the client secrets", &got); err != nil {
					return nil, err
				}
				var out []entry
				for _, s := range got.PasswordCredentials {
					out = append(out, entry{id: s.KeyID, name: s.Name, hint: s.Hint})
				}
				return out, nil
			},
			create: func(ctx context.Context, name string) (made, error) {
				days := 90
				if n, err := strconv.Atoi(j.Options["days"]); err == nil && n > 0 {
					days = n
				}
				var s secret
				r, err := admin(ctx, request{method: http.MethodPost, url: path + "/addPassword", json: map[string]any{"passwordCredential": map[string]string{
					"displayName": name, "endDateTime": time.Now().UTC().AddDate(0, 0, days).Format(time.RFC3339),
				}}}, "make a client secret", &s)
				return made{value: s.Text, id: s.KeyID, expires: s.EndDateTime}, refusedToMake(r, err)
			},
			remove: func(ctx context.Context, id string) error {
				_, err := admin(ctx, request{method: http.MethodPost, url: path + "/removePassword", json: map[string]string{"keyId": id}}, "remove a client secret", nil, http.StatusNotFound)
				return err
			},
		},
		try: func(ctx context.Context, value string) error {
			r, err := token(ctx, client, value)
			if err != nil {
				return err
			}
			return r.tried()
		},
		which: func(_ context.Context, all []entry, _ string) (string, error) {
			return inList(all, j.ID), nil
		},
		goes: func(hint, value string) bool { return len(hint) >= 3 && strings.HasPrefix(value, hint) },
	}, nil
}

// Check lists what there is as the admin, tries the present value and looks for its id.
func (p Azure) Check(ctx context.Context, j rotate.Job) error {
	k, err := p.at(j)
	if err != nil {
		return err
	}
	return k.check(ctx)
}

// Mint makes a client secret of this rotation's name.
func (p Azure) Mint(ctx context.Context, j rotate.Job) (guard.Secret, error) {
	k, err := p.at(j)
	if err != nil {
		return guard.Secret{}, err
	}
	return k.mint(ctx, j)
}

// Verify tries a value.
func (p Azure) Verify(ctx context.Context, j rotate.Job, value guard.Secret) error {
	k, err := p.at(j)
	if err != nil {
		return err
	}
	return k.verify(ctx, value)
}

// Revoke deletes the old value.
func (p Azure) Revoke(ctx context.Context, j rotate.Job) error {
	k, err := p.at(j)
	if err != nil {
		return err
	}
	return k.revoke(ctx)
}
