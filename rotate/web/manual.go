package web

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/url"
	"slices"
	"strings"

	"guard"
	"guard/rotate"
)

// Manual is for credentials that no program can make: a person does, at a page that
// guard names. guard tries old and new value, revokes the old one where its issuer
// lets the value itself do that, and waits until the new one is stored.
type Manual struct {
	Client Client
}

// About describes it.
func (Manual) About() rotate.About {
	return rotate.About{
		Name: "manual",
		Options: []rotate.Option{
			{Key: "page", About: "where a person makes a new value; default: the kind's"},
			{Key: "probe", About: "URL at the credential's own host that answers 401 to a value that is dead; default: the kind's"},
			{Key: "header", About: "header that the value goes into for probe; default Authorization, as a bearer token"},
			{Key: "ca", About: "file with further root certificates to trust"},
		},
		Privileges: "none",
		Sessions:   "the issuer's own",
		Limits:     "a person makes the new value and stores it with guard secret set; without a probe, guard cannot prove the old one dead",
		Calls:      []string{"the kind's probe, such as GET api.github.com/user", "POST api.github.com/credentials/revoke (GitHub)", "POST slack.com/api/auth.revoke (Slack)", "DELETE /api/v4/personal_access_tokens/self (GitLab)"},
	}
}

// CanDefault says whether Manual knows enough of a kind to be the default for it.
func CanDefault(kind string) bool {
	_, ok := services()[kind]
	return ok
}

// service is what is known of the issuer of one kind.
type service struct {
	page  string
	steps []string
	// probe asks whether a value works; nil: it cannot be tried. host is the
	// credential's own.
	probe func(host string, c guard.Credential, value string) request
	// dead are statuses besides 401 that say that the value is refused.
	dead []int
	// alive reads an answer with status 200, where that is also the status of a
	// refusal; nil: 200 is alive.
	alive func(*reply) (bool, error)
	// hosts are the issuer's, where probe and revoke go; none: the credential's first.
	hosts []string
	// revoke makes the issuer refuse value; nil: only a person can.
	revoke func(host string, value string) request
}

func bearer(value string) map[string]string {
	return map[string]string{"Authorization": "Bearer " + value}
}

// get probes with a bearer token.
func get(path string) func(string, guard.Credential, string) request {
	return func(host string, _ guard.Credential, value string) request {
		return request{method: http.MethodGet, url: "https://" + host + path, header: bearer(value)}
	}
}

// services has the pages and probes that the issuers document.
func services() map[string]service {
	slackOK := func(r *reply) (bool, error) {
		var a struct {
			OK    bool   `json:"ok"`
			Error string `json:"error"`
		}
		if err := r.read(&a); err != nil {
			return false, err
		}
		switch a.Error {
		case "invalid_auth", "token_revoked", "token_expired", "account_inactive":
			return false, nil
		case "":
			return a.OK, nil
		}
		return false, fmt.Errorf("Slack answered neither that the token works nor that it does not")
	}
	return map[string]service{
		"github-pat": {
			page: "https://github.com/settings/tokens", hosts: []string{"api.github.com"}, probe: get("/user"),
			steps: []string{"choose the same repositories and permissions, and an expiry"},
			revoke: func(host, value string) request { // must not be authenticated: docs.github.com/rest/credentials/revoke
				return request{method: http.MethodPost, url: "https://" + host + "/credentials/revoke", json: map[string]any{"credentials": []string{value}}}
			},
		},
		"gitlab-pat": {
			page: "https://gitlab.com/-/user_settings/personal_access_tokens",
			probe: func(host string, _ guard.Credential, value string) request {
				return request{method: http.MethodGet, url: "https://" + host + "/api/v4/personal_access_tokens/self", header: map[string]string{"PRIVATE-TOKEN": value}}
			},
			revoke: func(host, value string) request {
				return request{method: http.MethodDelete, url: "https://" + host + "/api/v4/personal_access_tokens/self", header: map[string]string{"PRIVATE-TOKEN": value}}
			},
		},
		"anthropic": {
			page: "https://console.anthropic.com/settings/keys", hosts: []string{"api.anthropic.com"},
			steps: []string{"disable the old key on the same page"},
			probe: func(host string, _ guard.Credential, value string) request {
				return request{method: http.MethodGet, url: "https://" + host + "/v1/models", header: map[string]string{"x-api-key": value, "anthropic-version": "2023-06-01"}}
			},
		},
		"openai":     {page: "https://platform.openai.com/api-keys", hosts: []string{"api.openai.com"}, probe: get("/v1/models"), steps: []string{"revoke the old key on the same page"}},
		"openrouter": {page: "https://openrouter.ai/settings/keys", hosts: []string{"openrouter.ai"}, probe: get("/api/v1/key"), steps: []string{"delete the old key on the same page"}},
		"google-ai": {
			page: "https://aistudio.google.com/apikey", hosts: []string{"generativelanguage.googleapis.com"}, dead: []int{http.StatusBadRequest},
			steps: []string{"delete the old key on the same page"},
			probe: func(host string, _ guard.Credential, value string) request {
				return request{method: http.MethodGet, url: "https://" + host + "/v1beta/models", header: map[string]string{"x-goog-api-key": value}}
			},
		},
		"groq":         {page: "https://console.groq.com/keys", hosts: []string{"api.groq.com"}, probe: get("/openai/v1/models"), steps: []string{"delete the old key on the same page"}},
		"huggingface":  {page: "https://huggingface.co/settings/tokens", hosts: []string{"huggingface.co"}, probe: get("/api/whoami-v2"), steps: []string{"invalidate the old token on the same page"}},
		"npm":          {page: "https://www.npmjs.com/settings/~/tokens", hosts: []string{"registry.npmjs.org"}, probe: get("/-/whoami"), steps: []string{"delete the old token on the same page; the registry may take it for an hour"}},
		"pypi":         {page: "https://pypi.org/manage/account/token/", steps: []string{"remove the old token on the same page"}},
		"stripe":       {page: "https://dashboard.stripe.com/apikeys", hosts: []string{"api.stripe.com"}, probe: get("/v1/balance"), steps: []string{"press Rotate key at the old key, and let it expire now"}},
		"sendgrid":     {page: "https://app.sendgrid.com/settings/api_keys", hosts: []string{"api.sendgrid.com"}, probe: get("/v3/scopes"), steps: []string{"delete the old key on the same page"}},
		"digitalocean": {page: "https://cloud.digitalocean.com/account/api/tokens", hosts: []string{"api.digitalocean.com"}, probe: get("/v2/account"), steps: []string{"delete the old token on the same page"}},
		"cloudflare":   {page: "https://dash.cloudflare.com/profile/api-tokens", hosts: []string{"api.cloudflare.com"}, probe: get("/client/v4/user/tokens/verify"), steps: []string{"delete the old token on the same page"}},
		"linear": {
			page: "https://linear.app/settings/account/security", hosts: []string{"api.linear.app"}, steps: []string{"revoke the old key on the same page"},
			probe: func(host string, _ guard.Credential, value string) request {
				return request{method: http.MethodPost, url: "https://" + host + "/graphql", header: map[string]string{"Authorization": value}, json: map[string]string{"query": "{viewer{id}}"}}
			},
		},
		"docker-hub": {
			page: "https://app.docker.com/settings/personal-access-tokens", hosts: []string{"hub.docker.com"}, steps: []string{"delete the old token on the same page"},
			probe: func(host string, c guard.Credential, value string) request {
				return request{method: http.MethodPost, url: "https://" + host + "/v2/auth/token", json: map[string]string{"identifier": c.User, "secret": value}}
			},
		},
		"slack-bot": {
			page: "https://api.slack.com/apps", hosts: []string{"slack.com"}, alive: slackOK, steps: []string{"choose the app, OAuth & Permissions, and reinstall it"},
			probe: func(host string, _ guard.Credential, value string) request {
				return request{method: http.MethodPost, url: "https://" + host + "/api/auth.test", header: bearer(value)}
			},
			revoke: func(host, value string) request {
				return request{method: http.MethodPost, url: "https://" + host + "/api/auth.revoke", header: bearer(value)}
			},
		},
		"aws":                 {page: "https://console.aws.amazon.com/iam/home#/security_credentials", steps: []string{"create an access key, then deactivate and delete the old one", "or let guard do it: guard secret edit NAME --rotate aws-iam,..."}},
		"gcp-service-account": {page: "https://console.cloud.google.com/iam-admin/serviceaccounts", steps: []string{"choose the account, Keys, Add key (JSON); then delete the old key"}},
		"azure-app":           {page: "https://entra.microsoft.com/#view/Microsoft_AAD_RegisteredApps/ApplicationsListBlade", steps: []string{"choose the application, Certificates & secrets, New client secret; then delete the old one"}},
	}
}

// target is the host that a credential's probe goes to: the issuer's own or the
// credential's. It is never one that the credential does not belong to.
func (s service) target(c guard.Credential) (string, error) {
	own := func(h string) bool {
		host, _, err := net.SplitHostPort(h)
		if err != nil {
			host = h
		}
		return slices.ContainsFunc(c.Hosts, func(have string) bool {
			name, _, err := net.SplitHostPort(have)
			if err != nil {
				name = have
			}
			return name == host
		})
	}
	for _, h := range s.hosts {
		if own(h) {
			return h, nil
		}
	}
	if len(s.hosts) == 0 && len(c.Hosts) > 0 && !strings.Contains(c.Hosts[0], "*") {
		return c.Hosts[0], nil
	}
	return "", fmt.Errorf("%s belongs to none of its issuer's hosts: it cannot be tried there", c.Name)
}

// of is what is known of a credential's issuer, with what its spec says.
func (Manual) of(j rotate.Job) (service, error) {
	s := services()[j.Credential.Kind]
	if p := j.Options["page"]; p != "" {
		s.page = p
	}
	if s.page == "" {
		s.page = "its issuer"
	}
	raw := j.Options["probe"]
	if raw == "" {
		return s, nil
	}
	u, err := url.Parse(raw)
	if err != nil || u.Host == "" {
		return s, fmt.Errorf("probe of %s's rotate option is not a URL: %w", j.Credential.Name, rotate.ErrPermanent)
	}
	s.hosts, s.dead, s.alive = []string{u.Host}, nil, nil
	header := j.Options["header"]
	s.probe = func(_ string, _ guard.Credential, value string) request {
		if header == "" || strings.EqualFold(header, "Authorization") {
			return request{method: http.MethodGet, url: raw, header: bearer(value)}
		}
		return request{method: http.MethodGet, url: raw, header: map[string]string{header: value}}
	}
	return s, nil
}

// Mint says where a person makes the new value.
func (m Manual) Mint(_ context.Context, j rotate.Job) (guard.Secret, error) {
	s, err := m.of(j)
	if err != nil {
		return guard.Secret{}, err
	}
	return guard.Secret{}, &rotate.ByHand{Page: s.page, Steps: s.steps}
}

// Verify asks the kind's probe.
func (m Manual) Verify(ctx context.Context, j rotate.Job, value guard.Secret) error {
	s, err := m.of(j)
	if err != nil {
		return err
	}
	if s.probe == nil {
		if j.Step == rotate.StepVerify {
			return nil // a person made it
		}
		return fmt.Errorf("guard knows no way to try a credential of kind %s: look at %s whether the old one is gone: %w", j.Credential.Kind, s.page, rotate.ErrPermanent)
	}
	host, err := s.target(j.Credential)
	if err != nil {
		return fmt.Errorf("%w: %w", err, rotate.ErrPermanent)
	}
	r := s.probe(host, j.Credential, string(value.Reveal()))
	r.ca = j.Options["ca"]
	a, err := m.Client.do(ctx, r)
	if err != nil {
		return err
	}
	switch {
	case slices.Contains(s.dead, a.status):
		return fmt.Errorf("try the value: %w (%d)", rotate.ErrRefused, a.status)
	case a.status == http.StatusForbidden:
		return nil // it is known, and may not do this
	case a.ok() && s.alive != nil:
		alive, err := s.alive(a)
		if err == nil && !alive {
			err = fmt.Errorf("try the value: %w", rotate.ErrRefused)
		}
		return err
	}
	return a.err("try the value")
}

// Revoke asks the issuer to refuse the old value, where the value itself may.
func (m Manual) Revoke(ctx context.Context, j rotate.Job) error {
	s, err := m.of(j)
	if err != nil {
		return err
	}
	host, err := s.target(j.Credential)
	if s.revoke == nil || err != nil {
		if errors.Is(m.Verify(ctx, j, j.Current), rotate.ErrRefused) {
			return nil
		}
		return &rotate.ByHand{Page: s.page, Steps: s.steps}
	}
	r := s.revoke(host, string(j.Current.Reveal()))
	r.ca = j.Options["ca"]
	a, err := m.Client.do(ctx, r)
	if err != nil {
		// A person is told where to go, rather than kept waiting for the network.
		return fmt.Errorf("%w: %w", err, rotate.ErrPermanent)
	}
	if a.status == http.StatusUnauthorized {
		return nil // it is refused already
	}
	if err := a.err("revoke the old value"); err != nil {
		return err
	}
	j.Mark(rotate.PartRevoked)
	return nil
}
