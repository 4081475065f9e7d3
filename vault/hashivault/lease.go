package hashivault

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"time"

	"guard"
	"guard/vault"
)

// Tenant is a token for one session. What is leased with it ends with it.
type Tenant struct {
	Client *Client
	// Token leads to everything that was leased. It is to be kept, sealed, before the first
	// Lease, and given to Resume after a crash.
	Token guard.Secret
	// Own says that the token is the tenant's alone, so that End revokes it. If not, each
	// lease has to be revoked by its id.
	Own bool
	// TTL is how long the token lasts unless it is renewed; 0: it does not expire.
	TTL time.Duration
}

// tenantTTL is what a tenant's token is asked for; renewing keeps it.
const tenantTTL = "1h"

// Tenant makes a token for one session: a child of the Client's, or another login. Where
// the server denies both, it is the Client's own (Own is false).
func (c *Client) Tenant(ctx context.Context) (*Tenant, error) {
	if c.cfg.Auth.Method != "token" {
		t, _, err := c.login(ctx)
		if err != nil {
			return nil, fmt.Errorf("log in for the session: %w", err)
		}
		n := &Tenant{Client: c, Token: t, Own: true}
		return n, n.look(ctx)
	}
	r, code, err := c.authed(ctx, "POST", "auth/token/create", nil, map[string]any{"ttl": tenantTTL, "renewable": true, "display_name": "guard-session"})
	if code == 403 || code == 400 { // 400: a batch token, or one of a limited number of uses
		c.mu.Lock()
		t := c.token.Clone()
		c.mu.Unlock()
		n := &Tenant{Client: c, Token: t}
		return n, n.look(ctx)
	}
	if err != nil {
		return nil, fmt.Errorf("a token for the session: %w", err)
	}
	if r.Auth == nil || r.Auth.Token == "" {
		return nil, fmt.Errorf("auth/token/create: %w", ErrAnswer)
	}
	return &Tenant{Client: c, Token: guard.NewSecret([]byte(r.Auth.Token)), Own: true, TTL: seconds(r.Auth.Lease)}, nil
}

// look asks how long the token lasts.
func (n *Tenant) look(ctx context.Context) error {
	r, _, err := n.Client.call(ctx, "GET", "auth/token/lookup-self", nil, n.Token, nil)
	if errors.Is(err, ErrDenied) {
		return nil // a token that may not look itself up: what is asked next says whether it is good
	}
	if err != nil {
		return err
	}
	var d struct {
		TTL int `json:"ttl"`
	}
	if json.Unmarshal(r.Data, &d) != nil {
		return fmt.Errorf("lookup-self: %w", ErrAnswer)
	}
	n.TTL = seconds(d.TTL)
	return nil
}

// Lease is what a server lent.
type Lease struct {
	ID        string // "": there is none to renew or revoke (a certificate, often)
	TTL       time.Duration
	Renewable bool
	// Value is what is used; its form is by the engine: a database's password; an AWS key
	// as JSON with AccessKeyId, SecretAccessKey and SessionToken; a certificate, its chain
	// and its key as PEM.
	Value guard.Secret
	// User is the login that goes with it: a database's user, an AWS access key id.
	User string
	// Serial is a certificate's.
	Serial string
	// path is what it was asked for at.
	path string
}

// Kinds of engines, as their paths tell them: MOUNT/creds/ROLE, MOUNT/sts/ROLE and
// MOUNT/issue/ROLE.
const (
	opCreds = "creds"
	opSTS   = "sts"
	opIssue = "issue"
)

// CheckLease says whether path is one that Lease takes, and whether it is a certificate's.
func CheckLease(path string) (certificate bool, err error) {
	if err := checkPath(path); err != nil {
		return false, err
	}
	parts := strings.Split(path, "/")
	if len(parts) >= 3 {
		switch parts[len(parts)-2] {
		case opCreds, opSTS:
			return false, nil
		case opIssue:
			return true, nil
		}
	}
	return false, errors.New("want MOUNT/creds/ROLE (databases, AWS), MOUNT/sts/ROLE (AWS) or MOUNT/issue/ROLE (PKI)")
}

// Lease takes a new one at path, with params. The answer's lease can be renewed and
// revoked by its ID; End ends it too.
func (n *Tenant) Lease(ctx context.Context, path string, params map[string]string) (*Lease, error) {
	certificate, err := CheckLease(path)
	if err != nil {
		return nil, err
	}
	method, body := "GET", any(nil)
	if certificate || len(params) > 0 {
		method, body = "POST", params
		if params == nil {
			body = map[string]string{}
		}
	}
	r, code, err := n.Client.call(ctx, method, path, nil, n.Token, body)
	if code == 400 {
		return nil, fmt.Errorf("%s at %s: the role or its parameters %v are not ones that it takes (status 400)", path, n.Client.Host(), names(params))
	}
	if err != nil {
		return nil, err
	}
	l := &Lease{ID: r.LeaseID, TTL: seconds(r.Lease), Renewable: r.Renewable, path: path}
	if err := l.read(r.Data); err != nil {
		// It exists, and is of no use.
		if l.ID != "" {
			err = errors.Join(err, n.Revoke(ctx, l))
		}
		return nil, fmt.Errorf("%s at %s: %w", path, n.Client.Host(), err)
	}
	return l, nil
}

// read takes the value out of an answer.
func (l *Lease) read(data json.RawMessage) error {
	var d struct {
		Username     string   `json:"username"`
		Password     string   `json:"password"`
		AccessKey    string   `json:"access_key"`
		SecretKey    string   `json:"secret_key"`
		SessionToken string   `json:"session_token"`
		SecurityTok  string   `json:"security_token"`
		Certificate  string   `json:"certificate"`
		PrivateKey   string   `json:"private_key"`
		CAChain      []string `json:"ca_chain"`
		IssuingCA    string   `json:"issuing_ca"`
		Serial       string   `json:"serial_number"`
		Expiration   int64    `json:"expiration"`
	}
	if err := json.Unmarshal(data, &d); err != nil {
		return ErrAnswer
	}
	switch {
	case d.Username != "" && d.Password != "":
		l.User, l.Value = d.Username, guard.NewSecret([]byte(d.Password))
	case d.AccessKey != "" && d.SecretKey != "":
		if d.SessionToken == "" {
			d.SessionToken = d.SecurityTok // older servers
		}
		b, err := json.Marshal(struct {
			AccessKeyId, SecretAccessKey string
			SessionToken                 string `json:",omitempty"`
		}{d.AccessKey, d.SecretKey, d.SessionToken})
		if err != nil {
			return ErrAnswer
		}
		l.User, l.Value = d.AccessKey, guard.NewSecret(b)
	case d.Certificate != "" && d.PrivateKey != "":
		chain := d.CAChain
		if len(chain) == 0 && d.IssuingCA != "" {
			chain = []string{d.IssuingCA}
		}
		pem := []string{strings.TrimSpace(d.Certificate)}
		for _, c := range chain {
			pem = append(pem, strings.TrimSpace(c))
		}
		pem = append(pem, strings.TrimSpace(d.PrivateKey), "")
		l.Value, l.Serial = guard.NewSecret([]byte(strings.Join(pem, "\n"))), d.Serial
		if l.ID == "" && d.Expiration > 0 {
			l.TTL = time.Until(time.Unix(d.Expiration, 0)).Truncate(time.Second)
		}
	default:
		return fmt.Errorf("%w: no username and password, no access key, and no certificate with its key", ErrAnswer)
	}
	return nil
}

// Renew asks for a lease to last as long as it did at first, and says how long it lasts
// now: less, where its longest time is near. ErrDenied, vault.ErrNotFound (it is over).
func (n *Tenant) Renew(ctx context.Context, id string) (time.Duration, error) {
	r, code, err := n.Client.call(ctx, "POST", "sys/leases/renew", nil, n.Token, map[string]string{"lease_id": id})
	if code == 400 { // "lease not found", or one that cannot be renewed
		return 0, fmt.Errorf("renew a lease at %s: %w", n.Client.Host(), vault.ErrNotFound)
	}
	if err != nil {
		return 0, err
	}
	return seconds(r.Lease), nil
}

// RenewSelf renews the tenant's token, and says for how long; 0: it does not expire.
func (n *Tenant) RenewSelf(ctx context.Context) (time.Duration, error) {
	r, _, err := n.Client.call(ctx, "POST", "auth/token/renew-self", nil, n.Token, map[string]string{})
	if err != nil {
		return 0, err
	}
	if r.Auth == nil {
		return 0, fmt.Errorf("renew-self: %w", ErrAnswer)
	}
	return seconds(r.Auth.Lease), nil
}

// Revoke ends a lease, and returns once the engine did so. One that is over is no error.
// A certificate without a lease is revoked by its serial number.
func (n *Tenant) Revoke(ctx context.Context, l *Lease) error {
	if l.ID == "" {
		if l.Serial == "" {
			return nil
		}
		mount, _, _ := strings.Cut(l.path, "/"+opIssue+"/")
		_, _, err := n.Client.call(ctx, "POST", mount+"/revoke", nil, n.Token, map[string]string{"serial_number": l.Serial})
		return err
	}
	_, code, err := n.Client.call(ctx, "POST", "sys/leases/revoke", nil, n.Token, map[string]any{"lease_id": l.ID, "sync": true})
	if code == 404 || code == 400 && errors.Is(n.lookup(ctx, l.ID), vault.ErrNotFound) {
		return nil
	}
	return err
}

// lookup says whether a lease is there: vault.ErrNotFound.
func (n *Tenant) lookup(ctx context.Context, id string) error {
	_, code, err := n.Client.call(ctx, "POST", "sys/leases/lookup", nil, n.Token, map[string]string{"lease_id": id})
	if code == 400 || code == 404 {
		return vault.ErrNotFound
	}
	return err
}

// Restore is a lease that was written down, to revoke it.
func Restore(id, serial, path string) *Lease { return &Lease{ID: id, Serial: serial, path: path} }

// Path is what the lease was asked for at.
func (l *Lease) Path() string { return l.path }

// End revokes the tenant's own token, and so whatever was leased with it. It does nothing
// to a token that is not the tenant's own. A second time is no error.
func (n *Tenant) End(ctx context.Context) error {
	if !n.Own {
		return nil
	}
	return n.Client.revokeToken(ctx, n.Token)
}

// Resume is the tenant of a session that ended without ending it.
func (c *Client) Resume(token guard.Secret, own bool) *Tenant {
	return &Tenant{Client: c, Token: token, Own: own}
}

func notFoundIsNone(err error) error {
	if errors.Is(err, vault.ErrNotFound) {
		return nil
	}
	return err
}
