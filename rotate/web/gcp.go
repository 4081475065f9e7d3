package web

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"net/http"
	"net/url"
	"strings"
	"time"

	"guard"
	"guard/rotate"
)

// GCP makes keys of a Google Cloud service account: cloud.google.com/iam/docs/reference/rest.
type GCP struct {
	Client Client
}

// About describes it.
func (GCP) About() rotate.About {
	return rotate.About{
		Name: "gcp",
		Options: []rotate.Option{
			adminOption("credential of kind gcp-service-account, of another account, that may manage this one's keys"),
			urlOption("https://iam.googleapis.com", ""), {Key: "token", About: "address that gives out tokens; default https://oauth2.googleapis.com/token"}, caOption(),
		},
		Privileges: "the admin's: roles/iam.serviceAccountKeyAdmin on the account",
		Sessions:   "access tokens that were made with the old key stay valid for up to an hour: only disabling the whole account ends them (gcloud iam service-accounts disable)",
		Limits:     "a key works only after it has spread, seconds to a minute; an account has ten keys at most. Keys have no names: one that an earlier try made is told by not having been there before",
		Calls:      []string{"GET, POST /v1/projects/-/serviceAccounts/{email}/keys", "POST .../keys/{id}:disable", "DELETE .../keys/{id}", "POST {token} (urn:ietf:params:oauth:grant-type:jwt-bearer)"},
	}
}

// gcpKey is a service account's key file.
type gcpKey struct {
	ID    string `json:"private_key_id"`
	Email string `json:"client_email"`
	Key   string `json:"private_key"`
}

func gcpKeyOf(value string) (gcpKey, error) {
	var k gcpKey
	if json.Unmarshal([]byte(value), &k) != nil || k.ID == "" || k.Key == "" || !strings.Contains(k.Email, "@") {
		return k, fmt.Errorf("its value is not a service account's key file (JSON): %w", rotate.ErrPermanent)
	}
	return k, nil
}

func (p GCP) at(j rotate.Job) (kept, error) {
	a := asked{&p.Client, j}
	base, err := a.base("url", "https://iam.googleapis.com")
	if err != nil {
		return kept{}, err
	}
	// The file's own token_uri is not asked: who made the file could name any server.
	tokens, err := a.base("token", "https://oauth2.googleapis.com/token")
	if err != nil {
		return kept{}, err
	}
	file, _, err := a.admin("admin", base)
	if err != nil {
		return kept{}, err
	}
	boss, err := gcpKeyOf(file)
	if err != nil {
		return kept{}, fmt.Errorf("admin=%s: %w", j.Options["admin"], err)
	}
	mine, err := gcpKeyOf(text(j.Current))
	if err != nil {
		return kept{}, err
	}
	// token asks for an access token, again with the issuer's time if the clock is off.
	token := func(ctx context.Context, k gcpKey) (*reply, error) {
		now := time.Now()
		for try := 0; ; try++ {
			jwt, err := signJWT(k.Key, k.ID, map[string]any{"iss": k.Email, "scope": "https://www.googleapis.com/auth/cloud-platform", "aud": tokens, "iat": now.Add(-10 * time.Second).Unix(), "exp": now.Add(10 * time.Minute).Unix()})
			if err != nil {
				return nil, err
			}
			r, err := a.do(ctx, request{method: http.MethodPost, url: tokens, form: url.Values{"grant_type": {"urn:ietf:params:oauth:grant-type:jwt-bearer"}, "assertion": {jwt}}})
			if err != nil || r.ok() || try > 0 {
				return r, err
			}
			theirs, bad := http.ParseTime(r.header.Get("Date"))
			if bad != nil || time.Since(theirs).Abs() < 30*time.Second {
				return r, nil
			}
			now = theirs
		}
	}
	session := "" // of the admin, for this step
	admin := func(ctx context.Context, r request, doing string, v any, none ...int) (*reply, error) {
		if session == "" {
			res, err := token(ctx, boss)
			if err != nil {
				return nil, err
			}
			var got struct {
				Token string `json:"access_token"`
			}
			if err := res.admin("log in as admin=" + j.Options["admin"]); err != nil {
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
	path := base + "/v1/projects/-/serviceAccounts/" + url.PathEscape(mine.Email) + "/keys"
	type key struct {
		Name     string
		Data     string `json:"privateKeyData"`
		Disabled bool
	}
	idOf := func(name string) string { return name[strings.LastIndexByte(name, '/')+1:] }
	return kept{asked: a, base: tokens, page: "https://console.cloud.google.com/iam-admin/serviceaccounts",
		named: named{
			nameless: true,
			list: func(ctx context.Context) ([]entry, error) {
				var got struct{ Keys []key }
				if _, err := admin(ctx, request{method: http.MethodGet, url: path + "?keyTypes=USER_MANAGED"}, "list the keys", &got); err != nil {
					return nil, err
				}
				var out []entry
				for _, k := range got.Keys {
					out = append(out, entry{id: idOf(k.Name), idle: k.Disabled})
				}
				return out, nil
			},
			create: func(ctx context.Context, _ string) (made, error) {
				var k key
				r, err := admin(ctx, request{method: http.MethodPost, url: path, json: map[string]string{"privateKeyType": "TYPE_GOOGLE_CREDENTIALS_FILE"}}, "make a key", &k)
				if err != nil {
					return made{}, refusedToMake(r, err)
				}
				b, err := base64.StdEncoding.DecodeString(k.Data)
				if err != nil {
					return made{}, fmt.Errorf("the issuer's answer holds no key")
				}
				return made{value: string(b)}, nil
			},
			remove: func(ctx context.Context, id string) error {
				// A disabled key is refused at once, and can still be looked at if the
				// deletion does not come through.
				if _, err := admin(ctx, request{method: http.MethodPost, url: path + "/" + url.PathEscape(id) + ":disable", json: map[string]string{}}, "disable a key", nil, http.StatusNotFound); err != nil {
					return err
				}
				_, err := admin(ctx, request{method: http.MethodDelete, url: path + "/" + url.PathEscape(id)}, "delete a key", nil, http.StatusNotFound)
				return err
			},
		},
		try: func(ctx context.Context, value string) error {
			k, err := gcpKeyOf(value)
			if err != nil {
				return err
			}
			r, err := token(ctx, k)
			if err != nil {
				return err
			}
			// invalid_grant is also what a wrong clock gets.
			var said struct {
				Error string
				About string `json:"error_description"`
			}
			if r.status == http.StatusBadRequest && r.read(&said) == nil && said.Error == "invalid_grant" &&
				(strings.Contains(said.About, "Signature") || strings.Contains(said.About, "account not found")) {
				return fmt.Errorf("try the value: %w (invalid_grant)", rotate.ErrRefused)
			}
			return r.tried()
		},
		which: func(context.Context, []entry, string) (string, error) { return mine.ID, nil },
	}, nil
}

// Check lists what there is as the admin, tries the present value and looks for its id.
func (p GCP) Check(ctx context.Context, j rotate.Job) error {
	k, err := p.at(j)
	if err != nil {
		return err
	}
	return k.check(ctx)
}

// Mint makes a key.
func (p GCP) Mint(ctx context.Context, j rotate.Job) (guard.Secret, error) {
	k, err := p.at(j)
	if err != nil {
		return guard.Secret{}, err
	}
	return k.mint(ctx, j)
}

// Verify tries a value.
func (p GCP) Verify(ctx context.Context, j rotate.Job, value guard.Secret) error {
	k, err := p.at(j)
	if err != nil {
		return err
	}
	return k.verify(ctx, value)
}

// Revoke deletes the old value.
func (p GCP) Revoke(ctx context.Context, j rotate.Job) error {
	k, err := p.at(j)
	if err != nil {
		return err
	}
	return k.revoke(ctx)
}
