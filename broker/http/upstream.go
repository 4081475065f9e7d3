package http

import (
	"context"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"net"
	nethttp "net/http"
	"net/url"
	"slices"
	"strconv"
	"sync"
	"time"

	"guard"
	"guard/broker"
)

// route is a way to an upstream. Connections are shared among requests of one
// route only: those that were made with a client certificate are for requests that
// may use it.
type route struct {
	tls  bool
	h1   bool // the client speaks HTTP/1: so does guard. HTTP/2 goes on as what the server can
	via  bool // by a proxy of the user's network
	cert guard.SecretID
}

type (
	viaKey      struct{} // *url.URL
	identityKey struct{} // *identity
)

// viaLife is how long the judgement of a host that is reached by way of a proxy
// holds.
const viaLife = 30 * time.Second

// roundTrip sends out on the route that is x's.
func (x *exchange) roundTrip(out *nethttp.Request) (*nethttp.Response, error) {
	r := route{tls: x.meta.tls, h1: x.in.ProtoMajor == 1}
	id, _ := out.Context().Value(identityKey{}).(*identity)
	if id != nil {
		r.cert = id.id
	}
	via, err := x.p.via(out.Context(), x.meta)
	if err != nil {
		return nil, err
	}
	if via != nil {
		r.via = true
		out = out.WithContext(context.WithValue(out.Context(), viaKey{}, via))
	}
	res, err := x.p.transport(r).RoundTrip(out)
	switch {
	case err != nil && id != nil && id.unreadable():
		ref := refuse(nethttp.StatusForbidden, "credential", "value", "the credential's value is not a certificate with its key (PEM)", "tell the user to store both in it: guard secret set NAME --from-file FILE")
		ref.credential = id.id.Name
		return nil, ref
	case err == nil && via != nil && !r.tls && res.StatusCode == nethttp.StatusProxyAuthRequired:
		res.Body.Close()
		return nil, proxyRefused(res.StatusCode)
	}
	return res, err
}

// proxyRefused is what a proxy's own answer becomes: the client did not ask it.
func proxyRefused(status int) *refusal {
	return refuse(nethttp.StatusBadGateway, "upstream", "upstream-proxy", "the proxy of the user's network refused the connection with status "+strconv.Itoa(status),
		"ask the user to check HTTPS_PROXY and NO_PROXY as they were when the session began")
}

// via asks for the proxy to m's host, and remembers for a while that the host may
// be reached by it.
func (p *Proxy) via(ctx context.Context, m meta) (*url.URL, error) {
	e := p.cfg.Egress
	if e.Proxy == nil {
		return nil, nil
	}
	proto := "http"
	if m.tls {
		proto = "https"
	}
	key := proto + " " + net.JoinHostPort(m.host, strconv.Itoa(m.port))
	p.mu.Lock()
	known := time.Now().Before(p.judged[key])
	p.mu.Unlock()
	if known {
		return e.Proxy(proto, m.host, m.port), nil
	}
	via, err := e.Via(ctx, proto, m.host, m.port)
	if err != nil || via == nil {
		return nil, err
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if len(p.judged) > 4096 {
		clear(p.judged)
	}
	p.judged[key] = time.Now().Add(viaLife)
	return via, nil
}

// transport returns the transport of a route, made when it is first asked for.
func (p *Proxy) transport(r route) *nethttp.Transport {
	p.mu.Lock()
	defer p.mu.Unlock()
	t := p.routes[r]
	if t == nil {
		t = p.newTransport(r)
		p.routes[r] = t
	}
	return t
}

func (p *Proxy) newTransport(r route) *nethttp.Transport {
	protos := new(nethttp.Protocols)
	protos.SetHTTP1(true)
	protos.SetHTTP2(r.tls && !r.h1)
	t := &nethttp.Transport{
		DialContext: p.dialer(r),
		TLSClientConfig: &tls.Config{
			RootCAs: p.cfg.Roots, MinVersion: tls.VersionTLS12,
			VerifyConnection:     p.pinned,
			GetClientCertificate: clientCert,
		},
		TLSHandshakeTimeout:   15 * time.Second,
		Protocols:             protos,
		ForceAttemptHTTP2:     r.tls && !r.h1,
		DisableCompression:    true, // what the client did not ask for, it does not get
		MaxIdleConnsPerHost:   64,
		IdleConnTimeout:       90 * time.Second,
		ExpectContinueTimeout: 2 * time.Second,
		ResponseHeaderTimeout: 30 * time.Minute, // from the request's end; a model may think for long
		HTTP2:                 &nethttp.HTTP2Config{SendPingTimeout: time.Minute, PingTimeout: 30 * time.Second},
	}
	if r.via {
		t.Proxy = func(out *nethttp.Request) (*url.URL, error) {
			u, ok := out.Context().Value(viaKey{}).(*url.URL)
			if !ok {
				return nil, errors.New("no proxy")
			}
			return u, nil
		}
		// It is used for a proxy's own TLS alone, which is not shown the certificate
		// that is for the upstream.
		t.DialTLSContext = func(ctx context.Context, network, addr string) (net.Conn, error) {
			d := tls.Dialer{NetDialer: &p.cfg.Egress.Dialer, Config: &tls.Config{RootCAs: p.cfg.Roots, MinVersion: tls.VersionTLS12}}
			return d.DialContext(ctx, network, addr)
		}
		t.OnProxyConnectResponse = func(_ context.Context, _ *url.URL, _ *nethttp.Request, res *nethttp.Response) error {
			if res.StatusCode != nethttp.StatusOK {
				return proxyRefused(res.StatusCode)
			}
			return nil
		}
	}
	return t
}

func (p *Proxy) dialer(r route) func(context.Context, string, string) (net.Conn, error) {
	if r.via {
		d := p.cfg.Egress.Dialer // to the user's own proxy, wherever it is
		if d.Timeout == 0 {
			d.Timeout = 10 * time.Second
		}
		return func(ctx context.Context, network, addr string) (net.Conn, error) {
			return d.DialContext(ctx, network, addr)
		}
	}
	proto := "http"
	if r.tls {
		proto = "https"
	}
	return func(ctx context.Context, _, addr string) (net.Conn, error) {
		host, ps, err := net.SplitHostPort(addr)
		if err != nil {
			return nil, err
		}
		port, err := strconv.Atoi(ps)
		if err != nil {
			return nil, err
		}
		return p.cfg.Egress.DialFor(ctx, proto, host, port)
	}
}

// errPin is of the type that a failed verification has.
var errPin = errors.New("none of the host's pinned keys is in its chain")

// pinned checks the keys of a chain that was verified against the host's pins.
func (p *Proxy) pinned(cs tls.ConnectionState) error {
	pins := p.cfg.Pins[broker.CanonicalHost(cs.ServerName)]
	if len(pins) == 0 {
		return nil
	}
	for _, chain := range cs.VerifiedChains {
		for _, c := range chain {
			if slices.Contains(pins, sha256.Sum256(c.RawSubjectPublicKeyInfo)) {
				return nil
			}
		}
	}
	return &tls.CertificateVerificationError{UnverifiedCertificates: cs.PeerCertificates, Err: errPin}
}

// findClientCert adds the use of a client certificate of this host, if the session
// may use it: no placeholder stands for it, so nothing but its host asks for it.
// Without leave the request goes on without a certificate.
func (x *exchange) findClientCert() {
	if !x.meta.tls || x.p.cfg.Line.Decide == nil {
		return
	}
	for _, c := range x.creds {
		if slices.Contains(x.p.cfg.ClientCerts, c.Name) && x.isHome(c) && x.p.cfg.Line.Decide(x.use(c)).Allowed() {
			x.swaps = append(x.swaps, swap{cred: c, cert: true})
			return // a handshake takes one
		}
	}
}

// identify gives out's connection, if it makes one, the certificate of s. forget
// ends that.
func (x *exchange) identify(out *nethttp.Request, s swap, value string) (_ *nethttp.Request, forget func()) {
	if !s.cert {
		return out, func() {}
	}
	id := &identity{id: s.cred.ID(), pem: value}
	return out.WithContext(context.WithValue(out.Context(), identityKey{}, id)), id.forget
}

// identity is a client certificate for as long as its use lasts.
type identity struct {
	id  guard.SecretID
	mu  sync.Mutex
	pem string
	bad bool
}

func (i *identity) forget() {
	i.mu.Lock()
	defer i.mu.Unlock()
	i.pem = ""
}

func (i *identity) unreadable() bool {
	i.mu.Lock()
	defer i.mu.Unlock()
	return i.bad
}

// certificate parses the value; the error says nothing of it.
func (i *identity) certificate() (*tls.Certificate, error) {
	i.mu.Lock()
	defer i.mu.Unlock()
	if i.pem == "" {
		return nil, errors.New("the use of the client certificate has ended")
	}
	c, err := tls.X509KeyPair([]byte(i.pem), []byte(i.pem))
	if err != nil {
		i.bad = true
		return nil, errors.New("the client certificate cannot be read")
	}
	return &c, nil
}

// clientCert is asked by a handshake in which the server wants a certificate.
func clientCert(info *tls.CertificateRequestInfo) (*tls.Certificate, error) {
	id, ok := info.Context().Value(identityKey{}).(*identity)
	if !ok {
		return new(tls.Certificate), nil // none
	}
	return id.certificate()
}

// PinOf is the sum that Config.Pins has for c's key.
func PinOf(c *x509.Certificate) [32]byte { return sha256.Sum256(c.RawSubjectPublicKeyInfo) }
