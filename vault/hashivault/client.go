// Package hashivault keeps values in HashiCorp Vault or OpenBao, and takes leases from it.
//
// It speaks the HTTP API by itself: a dozen requests of JSON each, which does not outweigh
// a client library's dependencies, and lets every status be told apart and nothing be
// followed. (The API is described at developer.hashicorp.com/vault/api-docs; OpenBao's is
// the same for what is used here.)
//
// # Tenancy
//
// A Client logs in once (Login), with a token, an AppRole or a Kubernetes service
// account. Tenant gives a token of its own for one session, a child of a token or another
// login: whatever is leased with it is revoked with it. So the token is written down
// (Tenant.Token) before the first lease is asked for, and a lease that a crash left
// behind can always be ended: there is no moment in which one exists and nothing durable
// leads to it. A server that grants no tokens of their own leaves the Client's own, and
// then only the leases' ids, which come with their answers, lead to them.
//
// # Requests
//
// Tokens go over TLS, or to a loopback address. A redirect is never followed: Vault's
// standbys name another host, and a token is for the host that the user named. Answers
// are limited to 1 MiB and 15 seconds. Errors name path and status, never what was
// sent or answered.
package hashivault

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"net"
	"net/http"
	"net/url"
	"os"
	"slices"
	"strings"
	"sync"
	"time"

	"guard"
	"guard/vault"
)

// What a server answers, besides vault.ErrNotFound and the like.
var (
	ErrDenied    = errors.New("the server denies it to this token")
	ErrSealed    = errors.New("the server is sealed")
	ErrStandby   = errors.New("the server is a standby")
	ErrThrottled = errors.New("the server has had too many requests")
	ErrServer    = errors.New("the server failed")
	ErrAnswer    = errors.New("the answer is not one of Vault's or OpenBao's")
)

const (
	maxReply = 1 << 20
	wait     = 15 * time.Second
)

// Config says which server, and how to log in.
type Config struct {
	// Addr is https://HOST[:PORT]; http only on loopback.
	Addr string
	// Namespace is sent as X-Vault-Namespace; "": none.
	Namespace string
	// CA has the roots (PEM) that the server is certified by; nil: the system's.
	CA []byte
	// Auth is how to log in.
	Auth Auth
	// Timeout is for one request; 0: 15 s.
	Timeout time.Duration
}

// Auth is one way to log in. Which one is in Method.
type Auth struct {
	Method string // "token", "approle" or "kubernetes"
	Mount  string // of the method, below auth/; "": its name
	Role   string // kubernetes: the role; approle: the role id

	Token    guard.Secret // token
	SecretID guard.Secret // approle
	JWTFile  string       // kubernetes; "": where pods have it
}

// podToken is where Kubernetes puts a service account's token.
const podToken = "/var/run/secrets/kubernetes.io/serviceaccount/token"

// Client is a connection to a server. Its methods may be called by several goroutines.
type Client struct {
	cfg  Config
	base *url.URL
	http *http.Client

	mu    sync.Mutex
	token guard.Secret // zero until Login
	own   bool         // the token came from a login, so that Close revokes it
}

// New checks c. Nothing is sent.
func New(c Config) (*Client, error) {
	base, err := url.Parse(c.Addr)
	if err != nil || base.Scheme != "https" && base.Scheme != "http" || base.Host == "" || base.User != nil || strings.Trim(base.Path, "/") != "" || base.RawQuery != "" {
		return nil, errors.New("the server's address is not a URL such as https://vault.example.com:8200")
	}
	if base.Scheme == "http" && !loopback(base.Hostname()) {
		return nil, errors.New("a token is not sent without TLS: use https (http is for loopback addresses)")
	}
	base.Path = ""
	conf := &tls.Config{MinVersion: tls.VersionTLS12}
	if c.CA != nil {
		conf.RootCAs = x509.NewCertPool()
		if !conf.RootCAs.AppendCertsFromPEM(c.CA) {
			return nil, errors.New("the file of roots holds no certificate (PEM)")
		}
	}
	for _, name := range []string{c.Namespace, c.Auth.Mount} {
		if name != "" {
			if err := checkPath(strings.Trim(name, "/")); err != nil {
				return nil, err
			}
		}
	}
	switch a := c.Auth; a.Method {
	case "token":
		if a.Token.Len() == 0 {
			return nil, errors.New("there is no token")
		}
	case "approle":
		if a.Role == "" || a.SecretID.Len() == 0 {
			return nil, errors.New("an AppRole wants its role id and its secret id")
		}
	case "kubernetes":
		if a.Role == "" {
			return nil, errors.New("kubernetes wants a role")
		}
	default:
		return nil, fmt.Errorf("unknown way to log in %q: want token, approle or kubernetes", a.Method)
	}
	if c.Timeout == 0 {
		c.Timeout = wait
	}
	// No proxy of the environment: it would be one more party that may be wrong.
	transport := &http.Transport{TLSClientConfig: conf, ForceAttemptHTTP2: true, MaxIdleConnsPerHost: 4, IdleConnTimeout: 30 * time.Second, DialContext: (&net.Dialer{Timeout: 10 * time.Second}).DialContext}
	return &Client{cfg: c, base: base, http: &http.Client{
		Transport: transport, Timeout: c.Timeout,
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}}, nil
}

func loopback(host string) bool {
	ip := net.ParseIP(host)
	return host == "localhost" || ip != nil && ip.IsLoopback()
}

// checkPath refuses what would lead out of the path that it is put in.
func checkPath(p string) error {
	for part := range strings.SplitSeq(p, "/") {
		if part == "" || part == "." || part == ".." || strings.ContainsAny(part, "?#%\\\r\n\x00") {
			return errors.New("a path's parts are names without ? # % and \\, and none is empty, . or ..")
		}
	}
	return nil
}

// Host is the server's HOST:PORT, for messages.
func (c *Client) Host() string { return c.base.Host }

// reply is the common shape of answers.
type reply struct {
	LeaseID   string          `json:"lease_id"`
	Lease     int             `json:"lease_duration"`
	Renewable bool            `json:"renewable"`
	Data      json.RawMessage `json:"data"`
	Auth      *struct {
		Token     string `json:"client_token"`
		Lease     int    `json:"lease_duration"`
		Renewable bool   `json:"renewable"`
	} `json:"auth"`
	Errors []string `json:"errors"`
}

// call sends body, if it is not nil, and reads the answer into out. The status is 0
// where there was none. What a 400 says is looked at by who knows what it may be.
func (c *Client) call(ctx context.Context, method, path string, query url.Values, token guard.Secret, body any) (*reply, int, error) {
	if err := checkPath(path); err != nil {
		return nil, 0, err
	}
	u := c.base.JoinPath("v1", path)
	u.RawQuery = query.Encode()
	var sent []byte
	if body != nil {
		var err error
		if sent, err = json.Marshal(body); err != nil {
			return nil, 0, errors.New("the request could not be written")
		}
		defer clear(sent)
	}
	req, err := http.NewRequestWithContext(ctx, method, u.String(), bytes.NewReader(sent))
	if err != nil {
		return nil, 0, errors.New("the request could not be made")
	}
	req.Header.Set("X-Vault-Request", "true")
	if body != nil {
		req.Header.Set("Content-Type", "application/json")
	}
	if c.cfg.Namespace != "" {
		req.Header.Set("X-Vault-Namespace", strings.Trim(c.cfg.Namespace, "/"))
	}
	if token.Len() > 0 {
		req.Header.Set("X-Vault-Token", string(token.Reveal()))
	}
	res, err := c.http.Do(req)
	if err != nil {
		var ue *url.Error
		if errors.As(err, &ue) {
			err = ue.Err // without the URL, which may have been taken from a message
		}
		return nil, 0, fmt.Errorf("%s does not answer: %w", c.base.Host, err)
	}
	defer res.Body.Close()
	b := make([]byte, 0, 4096)
	defer func() { clear(b) }()
	buf := bytes.NewBuffer(b)
	_, err = io.Copy(buf, io.LimitReader(res.Body, maxReply+1))
	b = buf.Bytes()
	if err != nil {
		return nil, 0, fmt.Errorf("the answer of %s broke off", c.base.Host)
	}
	if len(b) > maxReply {
		return nil, 0, fmt.Errorf("%s answered with more than %d KiB: %w", c.base.Host, maxReply>>10, ErrAnswer)
	}
	r := &reply{}
	if len(b) > 0 {
		if err := json.Unmarshal(b, r); err != nil {
			r = nil
		}
	}
	switch {
	case res.StatusCode/100 == 2 && r == nil:
		return nil, res.StatusCode, fmt.Errorf("%s %s: %w", method, path, ErrAnswer)
	case res.StatusCode/100 == 2:
		return r, res.StatusCode, nil
	}
	return r, res.StatusCode, c.refused(ctx, method, path, res)
}

// refused says what a status other than a success means.
func (c *Client) refused(ctx context.Context, method, path string, res *http.Response) error {
	at := fmt.Sprintf("%s: %s %s (status %d)", c.base.Host, method, path, res.StatusCode)
	switch code := res.StatusCode; {
	case code/100 == 3:
		to, err := res.Location()
		if err != nil || to.Host == c.base.Host {
			return fmt.Errorf("%s: it sends elsewhere, which is not followed: %w", at, ErrStandby)
		}
		return fmt.Errorf("%s: it sends to %s, and a token is only for the host that you named: name the active node: %w", at, to.Host, ErrStandby)
	case code == 403:
		return fmt.Errorf("%s: %w: is its policy one that may, and is it still good", at, ErrDenied)
	case code == 404:
		return fmt.Errorf("%s: %w", at, vault.ErrNotFound)
	case code == 429:
		return fmt.Errorf("%s: %w", at, ErrThrottled)
	case code == 472 || code == 473:
		return fmt.Errorf("%s: %w: it serves no writes, or nothing at all", at, ErrStandby)
	case code == 503 || code == 501:
		if why := c.health(ctx); why != nil {
			return fmt.Errorf("%s: %w", at, why)
		}
		return fmt.Errorf("%s: %w", at, ErrServer)
	case code >= 500:
		return fmt.Errorf("%s: %w", at, ErrServer)
	}
	return fmt.Errorf("%s: it takes the request for wrong", at)
}

// health asks the server what state it is in; nil: a good one, or none that it tells.
func (c *Client) health(ctx context.Context) error {
	req, err := http.NewRequestWithContext(ctx, "GET", c.base.JoinPath("v1/sys/health").String(), nil)
	if err != nil {
		return nil
	}
	res, err := c.http.Do(req)
	if err != nil {
		return nil
	}
	defer res.Body.Close()
	switch res.StatusCode { // as /sys/health documents them
	case 503:
		return ErrSealed
	case 501:
		return fmt.Errorf("%w: it was never initialised", ErrSealed)
	case 429, 472, 473:
		return ErrStandby
	}
	return nil
}

// Login gets the Client's token.
func (c *Client) Login(ctx context.Context) error {
	t, own, err := c.login(ctx)
	if err != nil {
		return fmt.Errorf("log in: %w", err)
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.token, c.own = t, own
	return nil
}

func (c *Client) login(ctx context.Context) (_ guard.Secret, own bool, err error) {
	a := c.cfg.Auth
	mount := strings.Trim(a.Mount, "/")
	if mount == "" {
		mount = a.Method
	}
	var body map[string]string
	switch a.Method {
	case "token":
		return a.Token.Clone(), false, nil
	case "approle":
		body = map[string]string{"role_id": a.Role, "secret_id": string(a.SecretID.Reveal())}
	case "kubernetes":
		file := a.JWTFile
		if file == "" {
			file = podToken
		}
		jwt, err := os.ReadFile(file) // anew each time: it is replaced every hour
		if err != nil {
			return guard.Secret{}, false, fmt.Errorf("the service account's token: %w", err)
		}
		body = map[string]string{"role": a.Role, "jwt": strings.TrimSpace(string(jwt))}
		clear(jwt)
	}
	r, code, err := c.call(ctx, "POST", "auth/"+mount+"/login", nil, guard.Secret{}, body)
	if code == 400 {
		return guard.Secret{}, false, fmt.Errorf("%s: %s refuses the role or what goes with it: %w", c.base.Host, mount, ErrDenied)
	}
	if err != nil {
		return guard.Secret{}, false, err
	}
	if r.Auth == nil || r.Auth.Token == "" {
		return guard.Secret{}, false, fmt.Errorf("auth/%s/login: %w", mount, ErrAnswer)
	}
	return guard.NewSecret([]byte(r.Auth.Token)), true, nil
}

// authed is call with the Client's token.
func (c *Client) authed(ctx context.Context, method, path string, query url.Values, body any) (*reply, int, error) {
	c.mu.Lock()
	t := c.token
	c.mu.Unlock()
	if t.Len() == 0 {
		return nil, 0, errors.New("not logged in")
	}
	return c.call(ctx, method, path, query, t, body)
}

// Whoami is what the server says about the Client's token.
type Whoami struct {
	Policies  []string
	TTL       time.Duration // 0: it does not expire
	Renewable bool
}

// Whoami asks the server about the Client's token.
func (c *Client) Whoami(ctx context.Context) (Whoami, error) {
	r, _, err := c.authed(ctx, "GET", "auth/token/lookup-self", nil, nil)
	if err != nil {
		return Whoami{}, err
	}
	var d struct {
		Policies  []string `json:"policies"`
		TTL       int      `json:"ttl"`
		Renewable bool     `json:"renewable"`
	}
	if err := json.Unmarshal(r.Data, &d); err != nil {
		return Whoami{}, fmt.Errorf("lookup-self: %w", ErrAnswer)
	}
	return Whoami{Policies: d.Policies, TTL: seconds(d.TTL), Renewable: d.Renewable}, nil
}

// RenewSelf renews the Client's token, and says for how long; 0: it does not expire.
func (c *Client) RenewSelf(ctx context.Context) (time.Duration, error) {
	r, _, err := c.authed(ctx, "POST", "auth/token/renew-self", nil, map[string]string{})
	if err != nil {
		return 0, err
	}
	if r.Auth == nil {
		return 0, fmt.Errorf("renew-self: %w", ErrAnswer)
	}
	return seconds(r.Auth.Lease), nil
}

// Close forgets the token, and revokes one that came from a login.
func (c *Client) Close(ctx context.Context) error {
	c.mu.Lock()
	t, own := c.token, c.own
	c.token, c.own = guard.Secret{}, false
	c.mu.Unlock()
	defer c.http.CloseIdleConnections()
	if t.Len() == 0 {
		return nil
	}
	defer t.Wipe()
	if !own {
		return nil
	}
	return c.revokeToken(ctx, t)
}

// revokeToken revokes a token, and what was leased with it. One that is revoked already
// is no error.
func (c *Client) revokeToken(ctx context.Context, t guard.Secret) error {
	_, code, err := c.call(ctx, "POST", "auth/token/revoke-self", nil, t, map[string]string{})
	if code == 403 {
		// A token that is gone may do nothing, not even this.
		if _, code, _ := c.call(ctx, "GET", "auth/token/lookup-self", nil, t, nil); code == 403 {
			return nil
		}
	}
	return err
}

func seconds(n int) time.Duration { return time.Duration(n) * time.Second }

// names of the parameters, in order, for messages.
func names(m map[string]string) []string { return slices.Sorted(maps.Keys(m)) }
