package aws

import (
	"bytes"
	"context"
	"crypto"
	"crypto/hmac"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	nethttp "net/http"
	"net/url"
	"slices"
	"strings"
	"time"

	"guard"
	"guard/policy"
)

// GoogleKind is that of service account keys (the JSON file as Google gives it).
const GoogleKind = "gcp-service-account"

const (
	googleToken = "https://oauth2.googleapis.com/token"
	jwtGrant    = "urn:ietf:params:oauth:grant-type:jwt-bearer"
	allScopes   = "https://www.googleapis.com/auth/"
)

// ServiceKey is what the agent signs with in the place of a service account: a key of
// the session's own, and what its tokens are made of.
type ServiceKey struct {
	key  *rsa.PrivateKey
	pem  string
	seed []byte
}

// NewServiceKey makes one.
func NewServiceKey() (*ServiceKey, error) {
	k, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		return nil, fmt.Errorf("make a placeholder key: %w", err)
	}
	der, err := x509.MarshalPKCS8PrivateKey(k)
	if err != nil {
		return nil, fmt.Errorf("write a placeholder key: %w", err)
	}
	seed := sha256.Sum256(der)
	return &ServiceKey{key: k, pem: string(pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der})), seed: seed[:]}, nil
}

// emailOf is the account that c's placeholder is called: its own name where --user
// says it, which is no secret.
func emailOf(c guard.Credential) string {
	if email, _ := Options(c.User); strings.Contains(email, "@") {
		return email
	}
	return "placeholder@guard-session.iam.gserviceaccount.com"
}

// File is the key file that the agent is shown for c: a service account's, with a key
// that is worth nothing outside the session.
func (k *ServiceKey) File(c guard.Credential) []byte {
	email := emailOf(c)
	_, domain, _ := strings.Cut(email, "@")
	project, _, _ := strings.Cut(domain, ".")
	b, err := json.MarshalIndent(map[string]string{
		"type": "service_account", "project_id": project, "private_key_id": k.id(c), "private_key": k.pem,
		"client_email": email, "client_id": "100000000000000000000", "auth_uri": "https://accounts.google.com/o/oauth2/auth", "token_uri": googleToken,
		"auth_provider_x509_cert_url": "https://www.googleapis.com/oauth2/v1/certs", "universe_domain": "googleapis.com",
	}, "", "  ")
	if err != nil {
		return nil
	}
	return append(b, '\n')
}

// id tells the credentials of a session apart.
func (k *ServiceKey) id(c guard.Credential) string {
	m := hmac.New(sha256.New, k.seed)
	m.Write([]byte(c.ID().String()))
	return hex.EncodeToString(m.Sum(nil)[:20])
}

// token is the placeholder of an access token of c with scopes. The scopes are in it,
// so that nothing has to be remembered.
func (k *ServiceKey) token(c guard.Credential, scopes []string) string {
	list := base64.RawURLEncoding.EncodeToString([]byte(strings.Join(scopes, " ")))
	m := hmac.New(sha256.New, k.seed)
	m.Write([]byte(c.ID().String() + "\n" + list))
	return "ya29.guard-" + k.id(c) + "." + list + "." + base64.RawURLEncoding.EncodeToString(m.Sum(nil))
}

// open finds the scopes of a placeholder of c.
func (k *ServiceKey) open(c guard.Credential, token string) ([]string, bool) {
	rest, ok := strings.CutPrefix(token, "ya29.guard-"+k.id(c)+".")
	list, _, ok2 := strings.Cut(rest, ".")
	b, err := base64.RawURLEncoding.DecodeString(list)
	if !ok || !ok2 || err != nil {
		return nil, false
	}
	scopes := strings.Fields(string(b))
	return scopes, hmac.Equal([]byte(token), []byte(k.token(c, scopes)))
}

// google looks at a request for a placeholder of a service account's.
func (s *Signer) google(r *Request) *Signing {
	if s.Key == nil {
		return nil
	}
	for _, c := range r.Creds {
		if c.Kind != GoogleKind || c.Decoy {
			continue
		}
		if g := s.assertion(r, c); g != nil {
			return g
		}
		for _, a := range r.Header["Authorization"] {
			scheme, token, _ := strings.Cut(strings.TrimSpace(a), " ")
			if !strings.EqualFold(scheme, "bearer") || !strings.Contains(token, "ya29.guard-"+s.Key.id(c)) {
				continue
			}
			return s.bearer(r, c, strings.TrimSpace(token))
		}
	}
	return nil
}

// bearer is a request with a placeholder of an access token.
func (s *Signer) bearer(r *Request, c guard.Credential, token string) *Signing {
	stop := func(rule, reason string, next ...string) *Signing {
		return &Signing{Credential: c, Refused: &Refused{Decision: guard.Decision{Action: guard.Block, Rule: rule, Secret: c.ID(), Reason: reason, NextSteps: next}}}
	}
	if !r.Home(c) {
		return stop("placeholder-host", "the credential "+c.Name+" does not belong to "+r.Host, "send it to its own hosts only")
	}
	scopes, ok := s.Key.open(c, token)
	if !ok || len(r.Header["Authorization"]) != 1 {
		return stop("gcp-token", "the access token is not one that this session was given", "ask the token endpoint with GOOGLE_APPLICATION_CREDENTIALS as it is")
	}
	return &Signing{Credential: c, Apply: func(out *nethttp.Request, value string) error {
		real, err := s.googleToken(out.Context(), c, value, scopes)
		if err != nil {
			return &Refused{Decision: guard.Decision{Action: guard.Block, Rule: "gcp-token", Secret: c.ID(), Reason: err.Error(), NextSteps: []string{"tell the user"}}}
		}
		out.Header["Authorization"] = []string{"Bearer " + real}
		return nil
	}}
}

// claims are those of an assertion (RFC 7523, and Google's own).
type claims struct {
	Iss    string `json:"iss"`
	Sub    string `json:"sub,omitempty"`
	Aud    string `json:"aud"`
	Scope  string `json:"scope,omitempty"`
	Target string `json:"target_audience,omitempty"`
	Iat    int64  `json:"iat"`
	Exp    int64  `json:"exp"`
}

// assertion answers a request for a token that the placeholder key signed.
func (s *Signer) assertion(r *Request, c guard.Credential) *Signing {
	if r.Method != nethttp.MethodPost || r.Host != "oauth2.googleapis.com" || strings.TrimSuffix(r.URL.Path, "/") != "/token" || r.Body == nil {
		return nil
	}
	b, err := io.ReadAll(io.LimitReader(r.Body, 64<<10))
	rest := r.Body
	r.Body = struct {
		io.Reader
		io.Closer
	}{io.MultiReader(bytes.NewReader(b), rest), rest}
	form, ferr := url.ParseQuery(string(b))
	if err != nil || ferr != nil || form.Get("grant_type") != jwtGrant || len(form["assertion"]) != 1 {
		return nil
	}
	text, sig, ok := cutLast(form.Get("assertion"))
	head, body, ok2 := strings.Cut(text, ".")
	var h struct{ Alg, Kid string }
	var cl claims
	if !ok || !ok2 || part(head, &h) != nil || part(body, &cl) != nil || h.Kid != s.Key.id(c) && cl.Iss != emailOf(c) {
		return nil // another account's: broker/http's rules for logins
	}
	refuse := func(code, why string) *Signing {
		b, err := json.Marshal(map[string]string{"error": code, "error_description": "guard: " + why})
		if err != nil {
			return nil
		}
		return &Signing{Credential: c, Reply: &Reply{Status: nethttp.StatusBadRequest, ContentType: "application/json; charset=utf-8", Body: b}}
	}
	sum := sha256.Sum256([]byte(text))
	raw, err := base64.RawURLEncoding.DecodeString(strings.TrimRight(sig, "="))
	now := s.now()
	switch {
	case h.Alg != "RS256" || err != nil || rsa.VerifyPKCS1v15(&s.Key.key.PublicKey, crypto.SHA256, sum[:], raw) != nil:
		return refuse("invalid_grant", "the assertion is not signed with the session's key")
	case cl.Aud != googleToken:
		return refuse("invalid_grant", "the assertion is for another token endpoint")
	case now.After(time.Unix(cl.Exp, 0)) || now.Add(maxSkew).Before(time.Unix(cl.Iat, 0)) || cl.Exp-cl.Iat > 3600:
		return refuse("invalid_grant", "the assertion's times are not of now, or more than an hour apart")
	case cl.Iss != emailOf(c) || cl.Sub != "" && cl.Sub != cl.Iss:
		return refuse("unauthorized_client", "the assertion is for another account, or on behalf of somebody")
	case cl.Target != "" || strings.TrimSpace(cl.Scope) == "":
		return refuse("invalid_scope", "only access tokens for scopes are given out")
	}
	scopes := strings.Fields(cl.Scope)
	slices.Sort(scopes)
	if scopes = s.narrow(c, scopes); len(scopes) == 0 {
		return refuse("invalid_scope", "the credential "+c.Name+" is not for these scopes")
	}
	if s.Active == nil || !s.Active(c) {
		return refuse("access_denied", c.Name+" is not allowed in this session: guard ask "+c.Name)
	}
	b, err = json.Marshal(map[string]any{"access_token": s.Key.token(c, scopes), "expires_in": 3599, "token_type": "Bearer"})
	if err != nil {
		return nil
	}
	return &Signing{Credential: c, Reply: &Reply{Status: nethttp.StatusOK, ContentType: "application/json; charset=utf-8", Body: b}}
}

// narrow takes out of scopes what the credential is not for: those in --user
// (scopes=A+B, the names without https://www.googleapis.com/auth/), and what can write
// where the session may only read.
func (s *Signer) narrow(c guard.Credential, scopes []string) []string {
	_, opts := Options(c.User)
	if list := opts["scopes"]; list != "" {
		var ok []string
		for n := range strings.SplitSeq(list, "+") {
			ok = append(ok, allScopes+strings.TrimPrefix(n, allScopes))
		}
		scopes = slices.DeleteFunc(scopes, func(sc string) bool { return !slices.Contains(ok, sc) })
	}
	if s.Scopes != nil && readsOnly(s.Scopes(c)) {
		for i, sc := range scopes {
			scopes[i] = readOnlyScope(sc)
		}
		slices.Sort(scopes)
		scopes = slices.Compact(scopes)
	}
	return scopes
}

func readsOnly(scopes []policy.Scope) bool {
	for _, sc := range scopes {
		if sc.Verb != "read" && sc.Verb != "http:read" {
			return false
		}
	}
	return len(scopes) > 0
}

// readOnlyScope is what of a scope reads, where Google has such a one.
func readOnlyScope(sc string) string {
	switch strings.TrimPrefix(sc, allScopes) {
	case "cloud-platform":
		return allScopes + "cloud-platform.read-only"
	case "devstorage.full_control", "devstorage.read_write":
		return allScopes + "devstorage.read_only"
	case "bigquery":
		return allScopes + "bigquery.readonly"
	case "drive":
		return allScopes + "drive.readonly"
	case "compute":
		return allScopes + "compute.readonly"
	}
	return sc
}

func cutLast(s string) (before, after string, ok bool) {
	i := strings.LastIndexByte(s, '.')
	if i < 0 {
		return s, "", false
	}
	return s[:i], s[i+1:], true
}

func part(s string, v any) error {
	b, err := base64.RawURLEncoding.DecodeString(strings.TrimRight(s, "=")) // google-auth pads
	if err != nil {
		return err
	}
	return json.Unmarshal(b, v)
}

// googleToken asks for a real access token with scopes, by the service account's own
// key.
func (s *Signer) googleToken(ctx context.Context, c guard.Credential, value string, scopes []string) (string, error) {
	sum := sha256.Sum256([]byte(value + "\n" + strings.Join(scopes, " ")))
	return s.minted.get(c.ID().String()+" "+hex.EncodeToString(sum[:8])).use(s.now(), func() ([]byte, time.Time, error) {
		return s.askGoogle(ctx, c, value, scopes)
	})
}

func (s *Signer) askGoogle(ctx context.Context, c guard.Credential, value string, scopes []string) ([]byte, time.Time, error) {
	fail := func(why string) ([]byte, time.Time, error) { return nil, time.Time{}, errors.New(why) }
	var v struct {
		Email string `json:"client_email"`
		Key   string `json:"private_key"`
		Kid   string `json:"private_key_id"`
		Token string `json:"token_uri"`
	}
	if json.Unmarshal([]byte(value), &v) != nil || v.Email == "" {
		return fail("the credential's value is not a service account's key file")
	}
	block, _ := pem.Decode([]byte(v.Key))
	if block == nil {
		return fail("the credential's value has no private key")
	}
	any, err := x509.ParsePKCS8PrivateKey(block.Bytes)
	if err != nil {
		any, err = x509.ParsePKCS1PrivateKey(block.Bytes)
	}
	key, ok := any.(*rsa.PrivateKey)
	if err != nil || !ok {
		return fail("the credential's private key cannot be read")
	}
	u, err := url.Parse(v.Token)
	if v.Token == "" {
		v.Token = googleToken
	} else if err != nil || u.Scheme != "https" || u.Host != "oauth2.googleapis.com" && !strings.HasSuffix(u.Hostname(), ".googleapis.com") {
		return fail("the credential's token_uri is not Google's")
	}
	now := s.now()
	head, err := json.Marshal(map[string]string{"alg": "RS256", "typ": "JWT", "kid": v.Kid})
	if err != nil {
		return fail("the assertion cannot be written")
	}
	body, err := json.Marshal(claims{Iss: v.Email, Aud: v.Token, Scope: strings.Join(scopes, " "), Iat: now.Unix(), Exp: now.Add(mintLife).Unix()})
	if err != nil {
		return fail("the assertion cannot be written")
	}
	text := base64.RawURLEncoding.EncodeToString(head) + "." + base64.RawURLEncoding.EncodeToString(body)
	digest := sha256.Sum256([]byte(text))
	sig, err := rsa.SignPKCS1v15(rand.Reader, key, crypto.SHA256, digest[:])
	if err != nil {
		return fail("the assertion cannot be signed")
	}
	if s.Client == nil {
		return fail("this session cannot ask the token endpoint")
	}
	form := url.Values{"grant_type": {jwtGrant}, "assertion": {text + "." + base64.RawURLEncoding.EncodeToString(sig)}}
	ctx, cancel := contextOf(ctx)
	defer cancel()
	r, err := nethttp.NewRequestWithContext(ctx, nethttp.MethodPost, v.Token, strings.NewReader(form.Encode()))
	if err != nil {
		return fail("the credential's token_uri is none")
	}
	r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	status, b, err := s.ask(r)
	if err != nil {
		return fail("the token endpoint could not be asked")
	}
	var got struct {
		Token   string `json:"access_token"`
		Expires int    `json:"expires_in"`
		Error   string `json:"error"`
	}
	bad := json.Unmarshal(b, &got)
	if status != nethttp.StatusOK || bad != nil || got.Token == "" {
		if !word(got.Error) {
			got.Error = "no reason"
		}
		return fail(fmt.Sprintf("the token endpoint gave no token: status %d, %s", status, got.Error))
	}
	if got.Expires <= 0 {
		got.Expires = 3600
	}
	for _, ch := range []byte(got.Token) {
		if ch <= ' ' || ch > '~' {
			return fail("what the token endpoint gave is no token")
		}
	}
	s.tell(c, got.Token)
	return []byte(got.Token), now.Add(time.Duration(got.Expires) * time.Second), nil
}
