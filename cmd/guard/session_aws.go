package main

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"io"
	"net"
	"net/http"
	"net/url"
	"os"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"guard"
	"guard/broker"
	"guard/broker/aws"
	brokerhttp "guard/broker/http"
	"guard/policy"
	"guard/supervisor/sandbox"
)

// clouds is what of the session signs for AWS and Google Cloud.
type clouds struct {
	once sync.Once
	key  *aws.ServiceKey // nil: no service account is used
	err  error
	last atomic.Pointer[unswapped]

	mu   sync.Mutex
	lent []guard.Value // what clouds gave for the session's credentials, under their names
}

// values are copies of what was lent.
func (c *clouds) values() []guard.Value {
	c.mu.Lock()
	defer c.mu.Unlock()
	out := make([]guard.Value, len(c.lent))
	for i, v := range c.lent {
		out[i] = guard.Value{ID: v.ID, Class: v.Class, Secret: v.Secret.Clone()}
	}
	return out
}

// of are copies of what was lent for the credential of that name.
func (c *clouds) of(name string) []guard.Value {
	return slices.DeleteFunc(c.values(), func(v guard.Value) bool {
		if v.ID.Name == name {
			return false
		}
		v.Secret.Wipe()
		return true
	})
}

func (c *clouds) wipe() {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, v := range c.lent {
		v.Secret.Wipe()
	}
	c.lent = nil
}

// keepLent has what a cloud gave for c looked for as c's own value is, in what the agent
// outputs and in replies. It is in memory only: it ends by itself, within the hour.
func (s *session) keepLent(c guard.Credential, value guard.Secret) {
	s.cloud.mu.Lock()
	s.cloud.lent = append(s.cloud.lent, guard.Value{ID: c.ID(), Class: guard.Live, Secret: value})
	s.cloud.mu.Unlock()
	s.refresh()
}

// unswapped is what swapped made of what.
type unswapped struct{ from, to []guard.Credential }

// signingKinds are kinds of credentials that sign, and are put in no request.
var signingKinds = []string{aws.Kind, aws.GoogleKind}

// swapped are the session's credentials for the swapping of placeholders: those that
// sign have no position at all. The same credentials give the same slice.
func (s *session) swapped() []guard.Credential {
	creds := s.credentials()
	signs := func(c guard.Credential) bool { return slices.Contains(signingKinds, c.Kind) }
	if !slices.ContainsFunc(creds, signs) {
		return creds
	}
	if last := s.cloud.last.Load(); last != nil && len(last.from) == len(creds) && &last.from[0] == &creds[0] {
		return last.to
	}
	to := slices.Clone(creds)
	for i := range to {
		if signs(to[i]) {
			to[i].In = []guard.Position{{Place: "none"}}
		}
	}
	s.cloud.last.Store(&unswapped{from: creds, to: to})
	return to
}

// signing is broker/http's way to package broker/aws; close it when the broker has
// ended.
func (s *session) signing(egress *broker.Egress, roots *x509.CertPool, decide func(guard.Use) guard.Decision) (sign func(*brokerhttp.SignRequest) *brokerhttp.Signing, end func()) {
	way := newOwnWay(egress, roots)
	signer := &aws.Signer{
		Active: func(c guard.Credential) bool { return s.flags.allows(c.Name) },
		Decide: decide, Scopes: s.grantedScopes, Session: s.info.ID, Key: s.cloud.key, Minted: s.keepLent,
		Client: &http.Client{Transport: way, CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }},
	}
	sign = func(r *brokerhttp.SignRequest) *brokerhttp.Signing {
		body := r.Body
		g := signingOf(signer.Sign(awsRequest(r)))
		if r.Body != body && r.Body != http.NoBody {
			r.Body = refusedBody{r.Body}
		}
		return g
	}
	return sign, func() {
		signer.Close()
		s.cloud.wipe()
		way.direct.CloseIdleConnections()
		way.via.CloseIdleConnections()
	}
}

// ownWay is how guard's own requests go out: as the agent's do, judged by egress.
type ownWay struct {
	egress      *broker.Egress
	direct, via *http.Transport
}

type viaKey struct{}

func newOwnWay(egress *broker.Egress, roots *x509.CertPool) *ownWay {
	base := func() *http.Transport {
		return &http.Transport{
			TLSClientConfig: &tls.Config{RootCAs: roots, MinVersion: tls.VersionTLS12}, TLSHandshakeTimeout: 15 * time.Second,
			DisableCompression: true, IdleConnTimeout: time.Minute,
		}
	}
	w := &ownWay{egress: egress, direct: base(), via: base()}
	w.direct.DialContext = func(ctx context.Context, _, addr string) (net.Conn, error) {
		host, port := splitHostPort(addr, 443)
		return egress.DialFor(ctx, "https", host, port)
	}
	w.via.DialContext = egress.Dialer.DialContext
	w.via.Proxy = func(r *http.Request) (*url.URL, error) {
		u, ok := r.Context().Value(viaKey{}).(*url.URL)
		if !ok {
			return nil, errors.New("no proxy")
		}
		return u, nil
	}
	return w
}

// RoundTrip sends r by the proxy of the user's network, if there is one for it.
func (w *ownWay) RoundTrip(r *http.Request) (*http.Response, error) {
	host, port := splitHostPort(r.URL.Host, 443)
	via, err := w.egress.Via(r.Context(), "https", host, port)
	if err != nil {
		return nil, err
	}
	if via == nil {
		return w.direct.RoundTrip(r)
	}
	return w.via.RoundTrip(r.WithContext(context.WithValue(r.Context(), viaKey{}, via)))
}

func awsRequest(r *brokerhttp.SignRequest) *aws.Request {
	return &aws.Request{Request: r.Request, Host: r.Host, Port: r.Port, TLS: r.TLS, Creds: r.Creds, Home: r.Home, Use: r.Use}
}

// signingOf is g in the words of broker/http, which knows nothing of clouds.
func signingOf(g *aws.Signing) *brokerhttp.Signing {
	if g == nil {
		return nil
	}
	out := &brokerhttp.Signing{Credential: g.Credential, Channel: g.Channel, Action: g.Action, Resource: g.Resource, Mint: g.Mint, MintFields: g.MintFields}
	if g.Apply != nil {
		out.Apply = func(r *http.Request, value string) error { return refusedOf(g.Apply(r, value)) }
	}
	if g.Deny != nil {
		out.Deny = func(d brokerhttp.Denial) (string, []byte) { return g.Deny(aws.Denial(d)) }
	}
	if g.Refused != nil {
		out.Refused = &brokerhttp.Refused{Layer: "credential", Decision: g.Refused.Decision}
	}
	if g.Reply != nil {
		out.Reply = &brokerhttp.Reply{Status: g.Reply.Status, ContentType: g.Reply.ContentType, Body: g.Reply.Body}
	}
	return out
}

func refusedOf(err error) error {
	var r *aws.Refused
	if errors.As(err, &r) {
		return &brokerhttp.Refused{Layer: "credential", Decision: r.Decision}
	}
	return err
}

// refusedBody is a body whose refusals are in the words of broker/http.
type refusedBody struct{ io.ReadCloser }

// Read reads.
func (b refusedBody) Read(p []byte) (int, error) {
	n, err := b.ReadCloser.Read(p)
	if err != nil && err != io.EOF {
		err = refusedOf(err)
	}
	return n, err
}

// grantedScopes are those of the session for c, or, where it has no narrower ones than
// its name, c's own.
func (s *session) grantedScopes(c guard.Credential) []policy.Scope {
	var out []policy.Scope
	grants, err := s.flags.grants()
	if err != nil {
		return nil // newSession looked
	}
	for _, g := range grants {
		if g.Name == c.Name && g.Scope != (policy.Scope{Verb: "use"}) {
			out = append(out, g.Scope)
		} else if g.Name == c.Name {
			out = nil
			break
		}
	}
	if len(out) > 0 {
		return out
	}
	for _, text := range c.Scopes {
		if sc, err := policy.ParseScope(text); err == nil {
			out = append(out, sc)
		}
	}
	return out
}

// showClouds shows the agent what stands for the credentials of clouds that it may
// use, besides the variable that each has: the id of a placeholder key, and key files.
func (s *session) showClouds(env *environment, boundary string) ([]sandbox.File, error) {
	var files []sandbox.File
	for _, c := range s.credentials() {
		if !s.flags.allows(c.Name) || c.Decoy {
			continue
		}
		switch c.Kind {
		case aws.Kind:
			env.set("AWS_ACCESS_KEY_ID", aws.KeyID(c.Placeholder))
			for _, k := range []string{"AWS_SESSION_TOKEN", "AWS_SECURITY_TOKEN", "AWS_PROFILE", "AWS_DEFAULT_PROFILE", "AWS_WEB_IDENTITY_TOKEN_FILE", "AWS_ROLE_ARN"} {
				env.unset(k) // they would sign with something else
			}
		case aws.GoogleKind:
			s.cloud.once.Do(func() { s.cloud.key, s.cloud.err = aws.NewServiceKey() })
			if s.cloud.err != nil {
				return nil, s.cloud.err
			}
			f := sandbox.File{Path: "/run/guard/" + c.Name + ".json", Content: s.cloud.key.File(c), Mode: 0o444}
			if boundary == "namespace" {
				files = append(files, f)
			} else {
				// It is worth something in this session alone.
				t, err := os.CreateTemp("", "guard-key-*.json")
				if err != nil {
					return nil, err
				}
				s.closers = append(s.closers, func() { os.Remove(t.Name()) })
				if _, err := t.Write(f.Content); err != nil {
					return nil, err
				}
				if err := errors.Join(t.Chmod(0o644), t.Close()); err != nil {
					return nil, err
				}
				f.Path = t.Name()
			}
			env.set("GOOGLE_APPLICATION_CREDENTIALS", f.Path)
			env.set("CLOUDSDK_AUTH_CREDENTIAL_FILE_OVERRIDE", f.Path)
		}
	}
	return files, nil
}
