package main

import (
	"bytes"
	"context"
	"crypto/rand"
	"crypto/tls"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"os"
	"slices"
	"strconv"
	"strings"
	"time"

	"guard"
	brokerhttp "guard/broker/http"
	"guard/vault"
)

// login is one login in progress.
type login struct {
	app    *app
	svc    vault.Service
	flags  loginFlags
	meta   issuerMeta
	client *http.Client
	id     string
	secret string
	// wait is how the device flow waits between two questions.
	wait func(ctx context.Context, d time.Duration) error
}

// issuerMeta is what is used of an issuer's metadata (RFC 8414, section 2; RFC 8628,
// section 4; RFC 9207, section 3).
type issuerMeta struct {
	Issuer     string   `json:"issuer"`
	Authorize  string   `json:"authorization_endpoint"`
	Token      string   `json:"token_endpoint"`
	Device     string   `json:"device_authorization_endpoint"`
	Challenges []string `json:"code_challenge_methods_supported"`
	NamesSelf  bool     `json:"authorization_response_iss_parameter_supported"`
}

// tokens are what a login gave out.
type tokens struct {
	access, refresh guard.Secret
	lifetime        time.Duration
	scopes          []string
}

func (t tokens) wipe() {
	t.access.Wipe()
	t.refresh.Wipe()
}

// loginMax bounds what is read of an issuer's answer.
const loginMax = 1 << 20

func (a *app) newLogin(ctx context.Context, svc vault.Service, o loginFlags) (*login, error) {
	l := &login{app: a, svc: svc, flags: o, id: o.clientID, wait: func(ctx context.Context, d time.Duration) error {
		t := time.NewTimer(d)
		defer t.Stop()
		select {
		case <-t.C:
			return nil
		case <-ctx.Done():
			return ctx.Err()
		}
	}}
	if o.secretFile != "" {
		b, err := os.ReadFile(o.secretFile)
		if err != nil {
			return nil, fmt.Errorf("--client-secret-file: %w", plainError(err))
		}
		l.secret = string(oneLine(b))
		clear(b)
		if l.secret == "" {
			return nil, errors.New("--client-secret-file: it is empty")
		}
	}
	transport := http.DefaultTransport.(*http.Transport).Clone()
	if len(o.ca) > 0 {
		roots, err := brokerhttp.Roots(o.ca...)
		if err != nil {
			return nil, err
		}
		transport.TLSClientConfig = &tls.Config{RootCAs: roots, MinVersion: tls.VersionTLS12}
	}
	var overrides []override
	for _, r := range o.resolve {
		v, err := parseResolve(r)
		if err != nil {
			return nil, err
		}
		overrides = append(overrides, v)
	}
	if len(overrides) > 0 {
		dial := transport.DialContext
		transport.Proxy = nil
		transport.DialContext = func(ctx context.Context, network, addr string) (net.Conn, error) {
			host, port, _ := net.SplitHostPort(addr)
			n, _ := strconv.Atoi(port)
			for _, r := range overrides {
				if r.host == strings.ToLower(host) && r.port == n {
					to, toPort := r.to.Addr(), int(r.to.Port())
					if toPort == 0 {
						toPort = n
					}
					addr = net.JoinHostPort(to.String(), strconv.Itoa(toPort))
				}
			}
			return dial(ctx, network, addr)
		}
	}
	l.client = &http.Client{
		Transport: transport, Timeout: time.Minute,
		// A code, a verifier or a secret goes to the endpoint that was asked, and nowhere else.
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
	l.meta = issuerMeta{Issuer: svc.Issuer, Authorize: svc.Authorize, Token: svc.Token, Device: svc.Device}
	if svc.Token == "" {
		if err := l.discover(ctx); err != nil {
			l.close()
			return nil, err
		}
	}
	return l, nil
}

func (l *login) close() { l.client.CloseIdleConnections() }

// discover reads the issuer's metadata: OpenID Connect's place first, then that of
// RFC 8414.
func (l *login) discover(ctx context.Context) error {
	u, err := url.Parse(l.svc.Issuer)
	if err != nil {
		return errors.New("the issuer is no URL")
	}
	path := strings.TrimSuffix(u.Path, "/")
	var failed error
	for _, p := range []string{path + "/.well-known/openid-configuration", "/.well-known/oauth-authorization-server" + path} {
		at := *u
		at.Path = p
		r, err := http.NewRequestWithContext(ctx, http.MethodGet, at.String(), nil)
		if err != nil {
			return err
		}
		status, body, err := l.do(r)
		if err != nil {
			return fmt.Errorf("ask %s for its endpoints: %w", visible(u.Host), err)
		}
		if status != http.StatusOK {
			failed = fmt.Errorf("%s has no metadata at %s: it answered %d", visible(u.Host), visible(p), status)
			continue
		}
		var m issuerMeta
		if json.Unmarshal(body, &m) != nil {
			return fmt.Errorf("the metadata of %s is no JSON", visible(u.Host))
		}
		// An issuer speaks for itself alone (RFC 8414, section 3.3).
		if m.Issuer != l.svc.Issuer {
			return fmt.Errorf("the metadata of %s is another issuer's: %s. Give --issuer as the issuer writes it, if that is the one you mean", visible(l.svc.Issuer), visible(m.Issuer))
		}
		for _, e := range []string{m.Authorize, m.Token, m.Device} {
			if e != "" && checkEndpoint(e) != nil {
				return fmt.Errorf("the metadata of %s names an endpoint that is not https: %s", visible(u.Host), visible(e))
			}
		}
		if m.Token == "" {
			return fmt.Errorf("the metadata of %s names no token endpoint", visible(u.Host))
		}
		l.meta = m
		return nil
	}
	return failed
}

// do sends a request and reads the answer, at most loginMax of it.
func (l *login) do(r *http.Request) (int, []byte, error) {
	r.Header.Set("Accept", "application/json")
	r.Header.Set("User-Agent", "guard")
	resp, err := l.client.Do(r)
	if err != nil {
		var u *url.Error
		if errors.As(err, &u) {
			err = u.Err // without the URL, which may hold a code
		}
		return 0, nil, err
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(io.LimitReader(resp.Body, loginMax+1))
	if err == nil && len(body) > loginMax {
		err = errors.New("the answer is too long")
	}
	return resp.StatusCode, body, err
}

// post sends a form to an endpoint.
func (l *login) post(ctx context.Context, endpoint string, form url.Values) (int, []byte, error) {
	for k, v := range l.clientForm() {
		form[k] = v
	}
	r, err := http.NewRequestWithContext(ctx, http.MethodPost, endpoint, strings.NewReader(form.Encode()))
	if err != nil {
		return 0, nil, errors.New("its endpoint cannot be asked")
	}
	r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	return l.do(r)
}

func (l *login) clientForm() url.Values {
	form := url.Values{"client_id": {l.id}}
	if l.secret != "" {
		form.Set("client_secret", l.secret)
	}
	return form
}

// oauthError is an error that an issuer answered with (RFC 6749, section 5.2).
type oauthError struct {
	host, code, text string
	status           int
}

func (e *oauthError) Error() string {
	switch {
	case e.code == "":
		return fmt.Sprintf("%s answered %d, and nothing that says why", visible(e.host), e.status)
	case e.text == "":
		return fmt.Sprintf("%s refused: %s", visible(e.host), visible(e.code))
	}
	return fmt.Sprintf("%s refused: %s (%s)", visible(e.host), visible(e.code), visible(e.text))
}

// exchange asks the token endpoint, and takes the tokens from its answer.
func (l *login) exchange(ctx context.Context, form url.Values, nonce string) (t tokens, err error) {
	host := hostOfURL(l.meta.Token)
	status, body, err := l.post(ctx, l.meta.Token, form)
	if err != nil {
		return t, fmt.Errorf("ask %s for tokens: %w", visible(host), err)
	}
	defer clear(body)
	var reply struct {
		Access  string      `json:"access_token"`
		Refresh string      `json:"refresh_token"`
		ID      string      `json:"id_token"`
		Type    string      `json:"token_type"`
		Scope   string      `json:"scope"`
		Expires json.Number `json:"expires_in"`
		Error   string      `json:"error"`
		Text    string      `json:"error_description"`
	}
	bad := json.NewDecoder(bytes.NewReader(body)).Decode(&reply) != nil
	if bad || status != http.StatusOK || reply.Error != "" { // GitHub says errors with 200
		return t, &oauthError{host: host, code: reply.Error, text: reply.Text, status: status}
	}
	if reply.Access == "" {
		return t, fmt.Errorf("%s answered without an access token", visible(host))
	}
	if !strings.EqualFold(reply.Type, "bearer") {
		return t, fmt.Errorf("%s gave out a token of type %q, which guard does not speak: bearer is what it can keep", visible(host), visible(reply.Type))
	}
	if slices.Contains(l.svc.Scopes, "openid") || reply.ID != "" {
		if err := l.checkIDToken(reply.ID, nonce); err != nil {
			return t, fmt.Errorf("%s answered with an ID token that is not for this login: %w", visible(host), err)
		}
	}
	if n, err := reply.Expires.Float64(); err == nil && n > 0 && n < 1e9 {
		t.lifetime = time.Duration(n * float64(time.Second))
	}
	t.scopes = l.svc.Scopes
	if reply.Scope != "" {
		t.scopes = strings.FieldsFunc(reply.Scope, func(r rune) bool { return r == ' ' || r == ',' })
	}
	t.access, t.refresh = guard.NewSecret([]byte(reply.Access)), guard.NewSecret([]byte(reply.Refresh))
	return t, nil
}

// checkIDToken checks that an ID token is of this issuer, for this client and, in the
// code flow, for this login (OpenID Connect Core, section 3.1.3.7). Its signature says
// nothing more: it came from the issuer itself, over TLS.
func (l *login) checkIDToken(token, nonce string) error {
	parts := strings.Split(token, ".")
	if len(parts) != 3 {
		return errors.New("there is none")
	}
	b, err := base64.RawURLEncoding.DecodeString(parts[1])
	if err != nil {
		return errors.New("it cannot be read")
	}
	var claims struct {
		Issuer   string          `json:"iss"`
		Audience json.RawMessage `json:"aud"`
		Party    string          `json:"azp"`
		Nonce    string          `json:"nonce"`
		Expires  json.Number     `json:"exp"`
	}
	if json.Unmarshal(b, &claims) != nil {
		return errors.New("it cannot be read")
	}
	var audience []string
	if json.Unmarshal(claims.Audience, &audience) != nil {
		var one string
		if json.Unmarshal(claims.Audience, &one) != nil {
			return errors.New("it does not say whom it is for")
		}
		audience = []string{one}
	}
	exp, err := claims.Expires.Float64()
	switch {
	case l.meta.Issuer != "" && claims.Issuer != l.meta.Issuer:
		return errors.New("another issuer made it")
	case !slices.Contains(audience, l.id), claims.Party != "" && claims.Party != l.id, len(audience) > 1 && claims.Party == "":
		return errors.New("it is for another client")
	case nonce != "" && claims.Nonce != nonce:
		return errors.New("its nonce is another login's")
	case err != nil || time.Now().After(time.Unix(int64(exp), 0).Add(time.Minute)):
		return errors.New("it has ended")
	}
	return nil
}

// randomText is 256 random bits, as RFC 7636 wants a verifier.
func randomText() string {
	var b [32]byte
	_, _ = rand.Read(b[:]) // never fails (crypto/rand)
	return base64.RawURLEncoding.EncodeToString(b[:])
}

func hostOfURL(s string) string {
	u, err := url.Parse(s)
	if err != nil {
		return ""
	}
	return u.Host
}
