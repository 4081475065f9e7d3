package vault

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"net/url"
	"os"
	"path/filepath"
	"time"

	"guard"
)

// Issued is where a credential came from that an issuer gave to a session: by a
// token endpoint (RFC 6749, section 3.2), or by a request that makes credentials.
type Issued struct {
	// Login is the same for all that came in one reply, and for what replaces it.
	Login string `json:"login"`
	// Part is the reply's name for it: "access_token", "refresh_token", ...
	Part string `json:"part"`
	// Endpoint is the URL that was asked, without query.
	Endpoint string `json:"endpoint"`
	// JSON says that the endpoint takes JSON; otherwise a form.
	JSON bool `json:"json,omitempty"`
	// Client are client_id and client_secret as the agent sent them, as a form, and
	// Authorization the header: with placeholders, where it used some.
	Client        string `json:"client,omitempty"`
	Authorization string `json:"authorization,omitempty"`
	// Parents are the credentials that it was got with; none: the agent logged in.
	Parents []string  `json:"parents,omitempty"`
	At      time.Time `json:"at"`
	Expires time.Time `json:"expires,omitzero"` // zero: not said
}

// SetIssued stores a credential that an issuer gave out, as Set does. One that is
// there keeps all that is known about it but where the new value came from; its
// versions that have expired are taken for dead. ErrExists: the user stored one of
// that name.
func (v *Vault) SetIssued(c guard.Credential, s guard.Secret, from Issued) (guard.Credential, error) {
	if c.Decoy {
		return guard.Credential{}, fmt.Errorf("credential %q: %w", c.Name, ErrDecoy)
	}
	if c.Context == "" {
		c.Context = defaultContext
	}
	return v.set(c, s, &from, nil)
}

// Issued says where the credentials of a context came from, by name, of those
// that were issued to a session.
func (v *Vault) Issued(context string) (map[string]Issued, error) {
	out := map[string]Issued{}
	err := v.each(inContext(context), func(seg *segment, _ []byte) error {
		for i := range seg.Credentials {
			if e := &seg.Credentials[i]; e.Issued != nil {
				out[e.Meta.Name] = *e.Issued
			}
		}
		return nil
	})
	return out, err
}

// keepIssued is how long a value that was replaced counts as one that may work.
const keepIssued = 24 * time.Hour

// expire takes versions that were replaced long ago for dead: what issuers give
// to logins is short-lived, or, as refresh tokens, worth nothing once replaced
// (RFC 9700, section 4.14).
func (e *entry) expire(at time.Time) {
	for i := range e.Versions {
		if ver := &e.Versions[i]; ver.State == Retiring && at.Sub(ver.Created) > keepIssued {
			ver.State = Dead
		}
	}
	e.forget()
}

// Lock keeps other holders of the same lock out, also in other processes, until
// release is called. ErrBusy: done was closed first.
func (v *Vault) Lock(done <-chan struct{}, name string) (release func(), err error) {
	sum := sha256.Sum256([]byte(name))
	f, err := os.OpenFile(filepath.Join(v.dir, "login-"+hex.EncodeToString(sum[:6])+".lock"), os.O_RDWR|os.O_CREATE|openNoFollow, 0o600)
	if err != nil {
		return nil, fmt.Errorf("open a lock: %w", err)
	}
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for {
		got, err := tryLock(f)
		if err != nil {
			f.Close()
			return nil, fmt.Errorf("take a lock: %w", err)
		}
		if got {
			return func() { f.Close() }, nil
		}
		select {
		case <-tick.C:
		case <-done:
			f.Close()
			return nil, fmt.Errorf("wait for a lock: %w", ErrBusy)
		}
	}
}

// Part finds the part of a value that clients use by itself: the password in a
// URL, as it is written there, and decoded. Values looks for both.
func Part(value string) (written, decoded string, ok bool) {
	from, to, ok := urlPassword([]byte(value))
	if !ok || to-from < minValue {
		return "", "", false
	}
	written = value[from:to]
	return written, string(unescape([]byte(written))), true
}

// Parts returns Part of a value, as values; the caller wipes them.
func Parts(s guard.Secret) []guard.Secret {
	p := s.Reveal()
	from, to, ok := urlPassword(p)
	if !ok || to-from < minValue {
		return nil
	}
	out := []guard.Secret{guard.NewSecret(bytes.Clone(p[from:to]))}
	if dec := unescape(p[from:to]); len(dec) >= minValue && len(dec) != to-from {
		out = append(out, guard.NewSecret(dec))
	}
	return out
}

// unescape decodes percent-encoding; what is none is a copy.
func unescape(p []byte) []byte {
	if s, err := url.PathUnescape(string(p)); err == nil {
		return []byte(s)
	}
	return bytes.Clone(p)
}
