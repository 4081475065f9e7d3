package web

import (
	"context"
	"crypto"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"net/http"
	"strconv"
	"strings"
	"time"

	"guard"
	"guard/rotate"
)

// GitHubApp makes installation tokens of a GitHub App: docs.github.com/rest/apps/apps.
type GitHubApp struct {
	Client Client
}

// About describes it.
func (GitHubApp) About() rotate.About {
	return rotate.About{
		Name: "github-app",
		Options: []rotate.Option{
			{Key: "admin", About: "credential with the app's private key (PEM), of host api.github.com; the key is used to sign and never sent", Must: true},
			{Key: "app", About: "the app's client id or app id", Must: true},
			{Key: "installation", About: "the installation's id", Must: true},
			{Key: "repositories", About: "names of repositories, joined by +; default: all of the installation"},
			{Key: "permissions", About: "such as contents:read+issues:write; default: all of the app"},
			urlOption("https://api.github.com", "https://HOST/api/v3 of GitHub Enterprise Server"),
			caOption(),
		},
		Privileges: "the app's private key; a token can do what the app may, narrowed by repositories and permissions",
		Sessions:   "none: each request is tried by itself",
		Limits:     "a token lives an hour; one whose answer was lost cannot be found again and lives unseen until its hour is over; the app's own key is changed by hand",
		Calls:      []string{"POST /app/installations/{installation_id}/access_tokens", "GET /installation/repositories", "DELETE /installation/token"},
	}
}

func urlOption(standard, other string) rotate.Option {
	about := "address of the API; default " + standard
	if other != "" {
		about += "; " + other
	}
	return rotate.Option{Key: "url", About: about}
}

func caOption() rotate.Option {
	return rotate.Option{Key: "ca", About: "file with further root certificates to trust"}
}

func adminOption(about string) rotate.Option {
	return rotate.Option{Key: "admin", About: about, Must: true}
}

func idOption(about string) rotate.Option {
	return rotate.Option{Key: "id", About: about + "; guard keeps it up to date"}
}

func (g GitHubApp) at(j rotate.Job) (asked, string, error) {
	a := asked{&g.Client, j}
	base, err := a.base("url", "https://api.github.com")
	return a, base, err
}

func gitHubHeader(token string) map[string]string {
	return map[string]string{"Authorization": "Bearer " + token, "Accept": "application/vnd.github+json", "X-GitHub-Api-Version": "2022-11-28"}
}

// token asks for an installation token. If this machine's clock is off, it is asked
// for again with the time that the issuer told.
func (g GitHubApp) token(ctx context.Context, a asked, base string) (*reply, error) {
	key, _, err := a.admin("admin", base)
	if err != nil {
		return nil, err
	}
	id := a.job.Options["installation"]
	if _, err := strconv.ParseUint(id, 10, 63); err != nil {
		return nil, fmt.Errorf("installation of %s's rotate option is not a number: %w", a.job.Credential.Name, rotate.ErrPermanent)
	}
	body := map[string]any{}
	if s := a.job.Options["repositories"]; s != "" {
		body["repositories"] = strings.Split(s, "+")
	}
	if s := a.job.Options["permissions"]; s != "" {
		p := map[string]string{}
		for part := range strings.SplitSeq(s, "+") {
			what, how, ok := strings.Cut(part, ":")
			if !ok {
				return nil, fmt.Errorf("permissions of %s's rotate option want NAME:read or NAME:write, joined by +: %w", a.job.Credential.Name, rotate.ErrPermanent)
			}
			p[what] = how
		}
		body["permissions"] = p
	}
	now := time.Now()
	for try := 0; ; try++ {
		jwt, err := signJWT(key, "", map[string]any{"iat": now.Add(-time.Minute).Unix(), "exp": now.Add(8 * time.Minute).Unix(), "iss": a.job.Options["app"]})
		if err != nil {
			return nil, fmt.Errorf("admin=%s: %w", a.job.Options["admin"], err)
		}
		r, err := a.do(ctx, request{method: http.MethodPost, url: base + "/app/installations/" + id + "/access_tokens", header: gitHubHeader(jwt), json: body})
		if err != nil {
			return nil, err
		}
		theirs, bad := http.ParseTime(r.header.Get("Date"))
		if r.status != http.StatusUnauthorized || try > 0 || bad != nil || time.Since(theirs).Abs() < 30*time.Second {
			return r, nil
		}
		now = theirs
	}
}

// signJWT signs claims with RS256 (RFC 7515, RFC 7518). key is PEM, in PKCS#1 or PKCS#8.
func signJWT(key, kid string, claims map[string]any) (string, error) {
	bad := fmt.Errorf("its value is not an RSA private key in PEM: %w", rotate.ErrPermanent)
	block, _ := pem.Decode([]byte(key))
	if block == nil {
		return "", bad
	}
	defer clear(block.Bytes)
	k, err := x509.ParsePKCS1PrivateKey(block.Bytes)
	if err != nil {
		any8, err := x509.ParsePKCS8PrivateKey(block.Bytes)
		ok := false
		if k, ok = any8.(*rsa.PrivateKey); err != nil || !ok {
			return "", bad
		}
	}
	header := map[string]string{"alg": "RS256", "typ": "JWT"}
	if kid != "" {
		header["kid"] = kid
	}
	var parts [2]string
	for i, v := range []any{header, claims} {
		b, err := json.Marshal(v)
		if err != nil {
			return "", err
		}
		parts[i] = base64.RawURLEncoding.EncodeToString(b)
	}
	text := parts[0] + "." + parts[1]
	sum := sha256.Sum256([]byte(text))
	sig, err := rsa.SignPKCS1v15(rand.Reader, k, crypto.SHA256, sum[:])
	if err != nil {
		return "", fmt.Errorf("sign with it: %w", rotate.ErrPermanent)
	}
	return text + "." + base64.RawURLEncoding.EncodeToString(sig), nil
}

// Check makes a token and revokes it.
func (g GitHubApp) Check(ctx context.Context, j rotate.Job) error {
	a, base, err := g.at(j)
	if err != nil {
		return err
	}
	if err := home(j.Credential, base); err != nil {
		return err
	}
	v, err := g.Mint(ctx, j)
	if err != nil {
		return err
	}
	defer v.Wipe()
	_, err = a.get(ctx, "revoke the token that was made to see whether it can be", request{method: http.MethodDelete, url: base + "/installation/token", header: gitHubHeader(text(v))}, nil)
	return err
}

// Mint asks for a token.
func (g GitHubApp) Mint(ctx context.Context, j rotate.Job) (guard.Secret, error) {
	a, base, err := g.at(j)
	if err != nil {
		return guard.Secret{}, err
	}
	r, err := g.token(ctx, a, base)
	if err != nil {
		return guard.Secret{}, err
	}
	if err := r.admin("make an installation token"); err != nil {
		return guard.Secret{}, refusedToMake(r, err)
	}
	var got struct {
		Token   string
		Expires time.Time `json:"expires_at"`
	}
	if err := r.read(&got); err != nil {
		return guard.Secret{}, err
	}
	return made{value: got.Token, expires: got.Expires}.keep(j)
}

// Verify lists one of the token's repositories.
func (g GitHubApp) Verify(ctx context.Context, j rotate.Job, value guard.Secret) error {
	a, base, err := g.at(j)
	if err != nil {
		return err
	}
	v, err := a.own(base, value)
	if err != nil {
		return err
	}
	r, err := a.do(ctx, request{method: http.MethodGet, url: base + "/installation/repositories?per_page=1", header: gitHubHeader(v)})
	if err != nil {
		return err
	}
	return r.tried()
}

// tried is what a status says about a value: nil, it is accepted, also where it may not
// do this (403).
func (r *reply) tried() error {
	if r.status == http.StatusForbidden && r.header.Get("Retry-After") == "" {
		return nil
	}
	return r.err("try the value")
}

// Revoke revokes the token with itself.
func (g GitHubApp) Revoke(ctx context.Context, j rotate.Job) error {
	a, base, err := g.at(j)
	if err != nil {
		return err
	}
	v, err := a.own(base, j.Current)
	if err != nil {
		return err
	}
	if _, err := a.get(ctx, "revoke the token", request{method: http.MethodDelete, url: base + "/installation/token", header: gitHubHeader(v)}, nil, http.StatusUnauthorized); err != nil {
		return err
	}
	j.Mark(rotate.PartRevoked)
	return nil
}
