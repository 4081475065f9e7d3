package web

import (
	"context"
	"fmt"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"

	"guard"
	"guard/rotate"
)

// GitLab makes access tokens of users, projects, groups and service accounts:
// docs.gitlab.com/api. It never calls .../rotate: there, an old token that is shown
// again, as a retry does, revokes every token that came after it.
type GitLab struct {
	Client Client
}

// About describes it.
func (GitLab) About() rotate.About {
	return rotate.About{
		Name: "gitlab",
		Options: []rotate.Option{
			adminOption("credential with a token of scope api, of the same host: an administrator's for users, an Owner's or Maintainer's for a group or a project"),
			{Key: "scopes", About: "of the new tokens, joined by +, such as read_api+read_repository", Must: true},
			{Key: "user", About: "id of the user (or service account) whose token it is, or"},
			{Key: "project", About: "id of the project, or"},
			{Key: "group", About: "id of the group; with user: the group of the service account"},
			{Key: "level", About: "access level of a project's or group's token: 10 to 50; default 30 (Developer)"},
			{Key: "days", About: "how long a new token lives; default 30, at most 365"},
			urlOption("https://gitlab.com", "https://HOST of one that you host"), caOption(),
		},
		Privileges: "the admin's: api scope, and the right to make and revoke tokens of that user, project or group",
		Sessions:   "none: each request is tried by itself",
		Limits:     "tokens end at midnight UTC of a day; the old token is never used to rotate, since GitLab revokes the whole family of a token that is used twice for that",
		Calls: []string{"GET, POST /api/v4/personal_access_tokens, /users/{id}/personal_access_tokens, /projects/{id}/access_tokens, /groups/{id}/access_tokens, /groups/{id}/service_accounts/{user_id}/personal_access_tokens",
			"GET /api/v4/personal_access_tokens/self", "DELETE .../{token_id}"},
	}
}

func (g GitLab) at(j rotate.Job) (asked, string, error) {
	a := asked{&g.Client, j}
	base, err := a.base("url", "https://gitlab.com")
	return a, base + "/api/v4", err
}

func gitLabHeader(token string) map[string]string { return map[string]string{"PRIVATE-TOKEN": token} }

// paths are where tokens of this owner are listed and deleted, and where they are made.
func (g GitLab) paths(j rotate.Job) (list, query, make string, err error) {
	o := j.Options
	for _, k := range []string{"user", "project", "group"} {
		if o[k] != "" {
			if _, err := strconv.ParseUint(o[k], 10, 63); err != nil {
				return "", "", "", fmt.Errorf("%s of %s's rotate option is not an id (a number): %w", k, j.Credential.Name, rotate.ErrPermanent)
			}
		}
	}
	switch user, project, group := o["user"], o["project"], o["group"]; {
	case user != "" && group != "" && project == "":
		p := "/groups/" + group + "/service_accounts/" + user + "/personal_access_tokens"
		return p, "", p, nil
	case user != "" && project == "" && group == "":
		return "/personal_access_tokens", "&user_id=" + user, "/users/" + user + "/personal_access_tokens", nil
	case project != "" && user == "" && group == "":
		p := "/projects/" + project + "/access_tokens"
		return p, "", p, nil
	case group != "" && user == "" && project == "":
		p := "/groups/" + group + "/access_tokens"
		return p, "", p, nil
	}
	return "", "", "", fmt.Errorf("%s's rotate option wants one of user=, project= and group=: %w", j.Credential.Name, rotate.ErrPermanent)
}

type gitLabToken struct {
	ID      int64
	Name    string
	Active  bool
	Revoked bool
	Token   string
	Expires string `json:"expires_at"`
}

func (g GitLab) named(j rotate.Job) (named, error) {
	a, base, err := g.at(j)
	if err != nil {
		return named{}, err
	}
	path, query, create, err := g.paths(j)
	if err != nil {
		return named{}, err
	}
	days := 30
	if s := j.Options["days"]; s != "" {
		if days, err = strconv.Atoi(s); err != nil || days < 1 || days > 365 {
			return named{}, fmt.Errorf("days of %s's rotate option wants 1 to 365: %w", j.Credential.Name, rotate.ErrPermanent)
		}
	}
	admin, _, err := a.admin("admin", base)
	if err != nil {
		return named{}, err
	}
	return named{
		list: func(ctx context.Context) ([]entry, error) {
			var out []entry
			for page, n := "1", 0; page != ""; n++ {
				if n == 1000 {
					return nil, fmt.Errorf("list the tokens: more than %d pages: %w", n, rotate.ErrPermanent)
				}
				var got []gitLabToken
				r, err := a.get(ctx, "list the tokens", request{method: http.MethodGet, url: base + path + "?state=active&per_page=100" + query + "&page=" + url.QueryEscape(page), header: gitLabHeader(admin)}, &got)
				if err != nil {
					return nil, err
				}
				for _, t := range got {
					out = append(out, entry{id: strconv.FormatInt(t.ID, 10), name: t.Name, idle: t.Revoked || !t.Active})
				}
				page = r.header.Get("X-Next-Page")
			}
			return out, nil
		},
		create: func(ctx context.Context, name string) (made, error) {
			body := map[string]any{"name": name, "scopes": strings.Split(j.Options["scopes"], "+"), "expires_at": time.Now().UTC().AddDate(0, 0, days).Format(time.DateOnly)}
			if j.Options["user"] == "" {
				level, err := strconv.Atoi(j.Options["level"])
				if j.Options["level"] == "" {
					level, err = 30, nil
				}
				if err != nil {
					return made{}, rotate.NotMade(fmt.Errorf("level of %s's rotate option is not a number: %w", j.Credential.Name, rotate.ErrPermanent))
				}
				body["access_level"] = level
			}
			var t gitLabToken
			r, err := a.get(ctx, "make a token", request{method: http.MethodPost, url: base + create, header: gitLabHeader(admin), json: body}, &t)
			if err != nil {
				return made{}, refusedToMake(r, err)
			}
			expires, _ := time.Parse(time.DateOnly, t.Expires)
			return made{value: t.Token, expires: expires}, nil
		},
		remove: func(ctx context.Context, id string) error {
			_, err := a.get(ctx, "revoke a token", request{method: http.MethodDelete, url: base + path + "/" + url.PathEscape(id), header: gitLabHeader(admin)}, nil, http.StatusNotFound)
			return err
		},
	}, nil
}

// Check lists the tokens as the admin.
func (g GitLab) Check(ctx context.Context, j rotate.Job) error {
	n, err := g.named(j)
	if err != nil {
		return err
	}
	if _, err := n.list(ctx); err != nil {
		return err
	}
	return g.Verify(ctx, j, j.Current)
}

// Mint makes a token of this rotation's name.
func (g GitLab) Mint(ctx context.Context, j rotate.Job) (guard.Secret, error) {
	n, err := g.named(j)
	if err != nil {
		return guard.Secret{}, err
	}
	return n.mint(ctx, j)
}

// self asks what the token itself is. nil and no error: it is refused.
func (g GitLab) self(ctx context.Context, a asked, base string, value guard.Secret) (*gitLabToken, *reply, error) {
	v, err := a.own(base, value)
	if err != nil {
		return nil, nil, err
	}
	r, err := a.do(ctx, request{method: http.MethodGet, url: base + "/personal_access_tokens/self", header: gitLabHeader(v)})
	if err != nil || !r.ok() {
		return nil, r, err
	}
	var t gitLabToken
	if err := r.read(&t); err != nil {
		return nil, r, err
	}
	return &t, r, nil
}

// Verify asks the token about itself.
func (g GitLab) Verify(ctx context.Context, j rotate.Job, value guard.Secret) error {
	a, base, err := g.at(j)
	if err != nil {
		return err
	}
	_, r, err := g.self(ctx, a, base, value)
	if err != nil {
		return err
	}
	return r.tried()
}

// Revoke deletes the old token, as the admin.
func (g GitLab) Revoke(ctx context.Context, j rotate.Job) error {
	a, base, err := g.at(j)
	if err != nil {
		return err
	}
	t, r, err := g.self(ctx, a, base, j.Current)
	switch {
	case err != nil:
		return err
	case t == nil && r.status == http.StatusUnauthorized:
		return nil // it is refused already
	case t == nil:
		return r.err("ask for the old token's id")
	}
	n, err := g.named(j)
	if err != nil {
		return err
	}
	if err := n.remove(ctx, strconv.FormatInt(t.ID, 10)); err != nil {
		return err
	}
	j.Mark(rotate.PartRevoked)
	return nil
}
