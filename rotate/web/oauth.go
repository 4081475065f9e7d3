package web

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"strings"
	"time"

	"guard"
	"guard/rotate"
)

// OAuth gets access tokens from an authorization server: RFC 6749 (refresh and client
// credentials), RFC 7009 (revocation), RFC 7662 (introspection).
type OAuth struct {
	Client Client
}

// About describes it.
func (OAuth) About() rotate.About {
	return rotate.About{
		Name: "oauth",
		Options: []rotate.Option{
			{Key: "token", About: "address of the token endpoint", Must: true},
			{Key: "revoke", About: "address of the revocation endpoint", Must: true},
			{Key: "introspect", About: "address of the introspection endpoint, which says whether a token is active"},
			{Key: "probe", About: "address at the credential's own host that answers 401 to a dead token; without it, introspect is needed"},
			{Key: "client", About: "the client's id", Must: true},
			{Key: "admin", About: "credential with the client's secret; none: a public client"},
			{Key: "refresh", About: "credential with the refresh token; none: grant client_credentials"},
			{Key: "reuse", About: "yes: the server lets a refresh token be used again, so that a lost answer is no harm"},
			{Key: "scope", About: "of the new tokens, joined by +"},
			caOption(),
		},
		Privileges: "the client's own",
		Sessions:   "none at the server; a resource server that does not ask it takes a signed token (JWT) until it expires",
		Limits:     "a refresh token that works once is sent once: if its answer is lost, a person must log in again, since sending it again ends the whole login at servers that look for that",
		Calls:      []string{"POST token (grant_type=refresh_token or client_credentials)", "POST revoke (token_type_hint=access_token)", "POST introspect", "GET probe"},
	}
}

const oauthSent = "refresh token sent"

// post asks an endpoint as the client.
func (p OAuth) post(ctx context.Context, a asked, key string, form url.Values) (*reply, error) {
	at, err := a.base(key, "")
	if err != nil {
		return nil, err
	}
	client := a.job.Options["client"]
	r := request{method: http.MethodPost, url: at, form: form}
	if a.job.Options["admin"] == "" {
		form.Set("client_id", client)
	} else {
		secret, _, err := a.admin("admin", at)
		if err != nil {
			return nil, err
		}
		// RFC 6749, section 2.3.1: both are encoded as in a form first.
		r.user, r.pass = url.QueryEscape(client), url.QueryEscape(secret)
	}
	return a.do(ctx, r)
}

// Check looks whether the old value can be tried.
func (p OAuth) Check(ctx context.Context, j rotate.Job) error { return p.Verify(ctx, j, j.Current) }

// Mint asks for a new access token. A refresh token is sent once, unless it may be used
// again, and the one that takes its place is stored before anything else is done.
func (p OAuth) Mint(ctx context.Context, j rotate.Job) (guard.Secret, error) {
	a := asked{&p.Client, j}
	none := guard.Secret{}
	form := url.Values{"grant_type": {"client_credentials"}}
	if s := j.Options["scope"]; s != "" {
		form.Set("scope", strings.ReplaceAll(s, "+", " "))
	}
	refresh := j.Options["refresh"]
	at, err := a.base("token", "")
	if err != nil {
		return none, err
	}
	once := refresh != "" && j.Options["reuse"] != "yes"
	if refresh != "" {
		v, _, err := a.admin("refresh", at)
		if err != nil {
			return none, err
		}
		form.Set("grant_type", "refresh_token")
		form.Set("refresh_token", v)
		if once && j.Note == oauthSent {
			return none, lostRefresh(where(at), refresh)
		}
		if once {
			if err := j.Remember(oauthSent); err != nil {
				return none, err
			}
		}
	}
	r, err := p.post(ctx, a, "token", form)
	if err != nil {
		if once {
			return none, fmt.Errorf("%w: %w", err, lostRefresh(where(at), refresh))
		}
		return none, err
	}
	var said struct {
		Access  string `json:"access_token"`
		Refresh string `json:"refresh_token"`
		In      int64  `json:"expires_in"`
		Error   string
	}
	if !r.ok() {
		err := r.admin("ask for a token")
		if once && r.status >= 500 && r.status != http.StatusServiceUnavailable {
			return none, fmt.Errorf("%w: %w", err, lostRefresh(where(at), refresh)) // it may have been spent
		}
		if once {
			if note := j.Remember(""); note != nil {
				return none, note
			}
		}
		if r.read(&said) == nil && said.Error == "invalid_grant" && refresh != "" {
			return none, lostRefresh(where(at), refresh)
		}
		return none, refusedToMake(r, err)
	}
	if err := r.read(&said); err != nil {
		return none, err
	}
	if said.Refresh != "" && refresh != "" && said.Refresh != form.Get("refresh_token") {
		next := guard.NewSecret([]byte(said.Refresh))
		err := j.Put(refresh, next)
		next.Wipe()
		if err != nil {
			return none, fmt.Errorf("store the new refresh token: %w", err)
		}
	}
	if once {
		// From here on the stored refresh token is one that was not used.
		if err := j.Remember(""); err != nil {
			return none, err
		}
	}
	m := made{value: said.Access}
	if said.In > 0 {
		m.expires = time.Now().Add(time.Duration(said.In) * time.Second)
	}
	return m.keep(j)
}

func lostRefresh(host, name string) error {
	return &rotate.ByHand{Page: host, Steps: []string{"log in again there: the refresh token " + name + " may have been used, and sending it again would end the login", "store the new refresh token with `guard secret set " + name + "`"}}
}

// Verify asks the probe and the introspection endpoint, as far as there are any: a
// token is dead if both say so.
func (p OAuth) Verify(ctx context.Context, j rotate.Job, value guard.Secret) error {
	a := asked{&p.Client, j}
	probe, introspect := j.Options["probe"] != "", j.Options["introspect"] != ""
	if !probe && !introspect {
		return fmt.Errorf("%s's rotate option needs introspect= or probe=, to see whether a token works: %w", j.Credential.Name, rotate.ErrPermanent)
	}
	if probe {
		at, err := a.base("probe", "")
		if err != nil {
			return err
		}
		v, err := a.own(at, value)
		if err != nil {
			return err
		}
		r, err := a.do(ctx, request{method: http.MethodGet, url: at, header: bearer(v)})
		if err != nil {
			return err
		}
		if err := r.tried(); err != nil || !introspect || j.Step == rotate.StepDead {
			return err // what a resource server takes is alive, whatever its issuer says
		}
	}
	at, err := a.base("introspect", "")
	if err != nil {
		return err
	}
	v, err := a.own(at, value)
	if err != nil {
		return err
	}
	r, err := p.post(ctx, a, "introspect", url.Values{"token": {v}, "token_type_hint": {"access_token"}})
	if err != nil {
		return err
	}
	if err := r.admin("introspect the token"); err != nil {
		return err
	}
	var got struct{ Active *bool }
	if err := r.read(&got); err != nil {
		return err
	}
	switch {
	case got.Active == nil:
		return errors.New("the introspection's answer does not say whether the token is active")
	case *got.Active:
		return nil
	}
	if until := jwtEnd(v); j.Step == rotate.StepDead && !probe && time.Now().Before(until) {
		return fmt.Errorf("the issuer says that it is not active, but it is a signed token, which a resource server that does not ask takes until %s: give one to try it at with probe=: %w", until.UTC().Format(time.RFC3339), rotate.ErrPermanent)
	}
	return fmt.Errorf("try the value: %w (not active)", rotate.ErrRefused)
}

// jwtEnd is when a JWT expires, or in a long time if it does not say; the zero time: it
// is no JWT.
func jwtEnd(token string) time.Time {
	parts := strings.Split(token, ".")
	if len(parts) != 3 {
		return time.Time{}
	}
	var head struct{ Alg string }
	var claims struct{ Exp float64 }
	for i, v := range []any{&head, &claims} {
		b, err := base64.RawURLEncoding.DecodeString(parts[i])
		if err != nil || json.Unmarshal(b, v) != nil {
			return time.Time{}
		}
	}
	switch {
	case head.Alg == "":
		return time.Time{}
	case claims.Exp == 0:
		return time.Now().AddDate(100, 0, 0)
	}
	return time.Unix(int64(claims.Exp), 0)
}

// Revoke asks the revocation endpoint, whose 200 says nothing: Verify tells.
func (p OAuth) Revoke(ctx context.Context, j rotate.Job) error {
	a := asked{&p.Client, j}
	at, err := a.base("revoke", "")
	if err != nil {
		return err
	}
	v, err := a.own(at, j.Current)
	if err != nil {
		return err
	}
	r, err := p.post(ctx, a, "revoke", url.Values{"token": {v}, "token_type_hint": {"access_token"}})
	if err != nil {
		return err
	}
	if err := r.admin("revoke the old token"); err != nil {
		return err
	}
	j.Mark(rotate.PartRevoked)
	return nil
}
