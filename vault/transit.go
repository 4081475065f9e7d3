package vault

import (
	"bytes"
	"crypto/rand"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"
	"time"

	"guard"
)

// Transit opens a vault with a key that HashiCorp Vault's or OpenBao's transit
// engine unwraps (POST /v1/MOUNT/encrypt/KEY and decrypt/KEY): who loses access to
// the server loses the vault, and a copy of the file alone opens nowhere.
type Transit struct {
	// Addr is the server's URL. It comes from the user and never from the slot: a
	// changed file must not choose who gets the token.
	Addr string
	// Token authenticates to it. It is not wiped.
	Token guard.Secret
	// Mount is where the engine is; "": transit.
	Mount string
	// Key is the name of the engine's key.
	Key string
	// Namespace is Vault Enterprise's and OpenBao's; "": none.
	Namespace string
	// Client makes the requests; nil: one that waits 10 seconds at most and follows
	// no redirect.
	Client *http.Client
}

type transitParams struct {
	Addr       string `json:"addr"` // for a person to see
	Mount      string `json:"mount"`
	Key        string `json:"key"`
	Namespace  string `json:"namespace,omitempty"`
	Ciphertext string `json:"ciphertext"`
}

const maxTransitReply = 64 << 10

// Name is "transit".
func (Transit) Name() string { return "transit" }

// Enrol makes a key and has the server encrypt it.
func (t Transit) Enrol(vault string) (guard.Secret, []byte, error) {
	if t.Key == "" {
		return guard.Secret{}, nil, errors.New("transit: name the engine's key")
	}
	key := make([]byte, keySize)
	rand.Read(key)
	var out struct {
		Data struct {
			Ciphertext string `json:"ciphertext"`
		} `json:"data"`
	}
	p := transitParams{Addr: t.Addr, Mount: t.mount(), Key: t.Key, Namespace: t.Namespace}
	body, _ := json.Marshal(map[string]string{"plaintext": base64.StdEncoding.EncodeToString(key)})
	err := t.call("encrypt", p, body, &out)
	clear(body)
	if err == nil && !strings.HasPrefix(out.Data.Ciphertext, "vault:") {
		err = errors.New("the server's answer holds no ciphertext")
	}
	if err != nil {
		clear(key)
		return guard.Secret{}, nil, err
	}
	p.Ciphertext = out.Data.Ciphertext
	params, err := json.Marshal(p)
	return guard.NewSecret(key), params, err
}

// Unlock has the server decrypt the slot's key.
func (t Transit) Unlock(_ string, params []byte) (guard.Secret, error) {
	var p transitParams
	if err := decode(params, &p); err != nil || p.Key == "" || !strings.HasPrefix(p.Ciphertext, "vault:") {
		return guard.Secret{}, corrupt("unreadable transit slot")
	}
	if t.Key != "" {
		p.Key = t.Key
	}
	if t.Mount != "" {
		p.Mount = t.Mount
	}
	if t.Namespace != "" {
		p.Namespace = t.Namespace
	}
	var out struct {
		Data struct {
			Plaintext []byte `json:"plaintext"`
		} `json:"data"`
	}
	body, _ := json.Marshal(map[string]string{"ciphertext": p.Ciphertext})
	if err := t.call("decrypt", p, body, &out); err != nil {
		return guard.Secret{}, err
	}
	if len(out.Data.Plaintext) != keySize {
		clear(out.Data.Plaintext)
		return guard.Secret{}, fmt.Errorf("the transit key %s decrypts to something else than a key of guard's: %w", p.Key, ErrWrongKey)
	}
	return guard.NewSecret(out.Data.Plaintext), nil
}

func (t Transit) mount() string {
	if t.Mount == "" {
		return "transit"
	}
	return strings.Trim(t.Mount, "/")
}

// call posts body to an operation of the engine.
func (t Transit) call(op string, p transitParams, body []byte, out any) error {
	if t.Addr == "" {
		return fmt.Errorf("transit: no server: set VAULT_ADDR (the slot was made at %s)", p.Addr)
	}
	base, err := url.Parse(t.Addr)
	if err != nil || base.Scheme != "https" && base.Scheme != "http" || base.Host == "" || base.User != nil {
		return errors.New("transit: the server's address is not a URL such as https://vault.example.com:8200")
	}
	if base.Scheme == "http" && base.Hostname() != "127.0.0.1" && base.Hostname() != "localhost" && base.Hostname() != "::1" {
		return errors.New("transit: a token is not sent without TLS: use https://")
	}
	if t.Token.Len() == 0 {
		return errors.New("transit: no token: `vault login`, or name a file with one by GUARD_TRANSIT_TOKEN_FILE")
	}
	for _, s := range append(strings.Split(p.Mount, "/"), p.Key) {
		if s == "" || s == "." || s == ".." || strings.ContainsAny(s, "/?#%\\") {
			return errors.New("transit: the mount or the key has a name that no engine has")
		}
	}
	req, err := http.NewRequest("POST", base.JoinPath("v1", p.Mount, op, p.Key).String(), bytes.NewReader(body))
	if err != nil {
		return errors.New("transit: the request could not be made")
	}
	req.Header.Set("Content-Type", "application/json")
	req.Header.Set("X-Vault-Request", "true")
	req.Header.Set("X-Vault-Token", strings.TrimSpace(string(t.Token.Reveal())))
	if p.Namespace != "" {
		req.Header.Set("X-Vault-Namespace", p.Namespace)
	}
	client := t.Client
	if client == nil {
		client = &http.Client{Timeout: 10 * time.Second, CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}
		defer client.CloseIdleConnections()
	}
	res, err := client.Do(req)
	if err != nil {
		return fmt.Errorf("transit: %s does not answer: %w", base.Host, err)
	}
	defer res.Body.Close()
	reply, err := io.ReadAll(io.LimitReader(res.Body, maxTransitReply))
	defer clear(reply)
	if err != nil {
		return fmt.Errorf("transit: the answer of %s broke off", base.Host)
	}
	switch {
	case res.StatusCode == 403:
		return fmt.Errorf("transit: %s refuses: is the token's policy one that may update %s/%s/%s: %w", base.Host, p.Mount, op, p.Key, ErrWrongKey)
	case res.StatusCode == 503:
		return fmt.Errorf("transit: %s is sealed or a standby", base.Host)
	case res.StatusCode != 200:
		return fmt.Errorf("transit: %s answered with status %d to %s/%s/%s", base.Host, res.StatusCode, p.Mount, op, p.Key)
	}
	if err := json.Unmarshal(reply, out); err != nil {
		return fmt.Errorf("transit: the answer of %s is not one of Vault's", base.Host)
	}
	return nil
}
