// Package web replaces credentials at issuers that are asked over HTTP.
//
// One file is one issuer: what it takes, its calls, and the tests beside it. All of
// them share Client, which keeps three rules: a value goes to its credential's own
// hosts or to the issuer's documented ones and is never carried by a redirect; what
// an issuer answers is bounded, and never part of an error, since it may hold a value;
// and only an answer that says so is a refusal (rotate.ErrRefused): 401, where an
// issuer does not document another one. 403 is what a living credential gets that may
// not do something.
package web

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"os"
	"strconv"
	"strings"
	"time"

	"guard/rotate"
)

// Client asks issuers. Its zero value works.
type Client struct {
	// Transport makes the requests; nil: the network's, with the system's roots.
	Transport http.RoundTripper
	// Timeout of one request; 0: 15 s.
	Timeout time.Duration
}

const maxReply = 4 << 20

// request is one call of an issuer.
type request struct {
	method, url string
	header      map[string]string
	user, pass  string     // Basic authentication, if user is set
	json        any        // body, or
	form        url.Values // body, or
	raw         []byte     // body, of JSON
	ca          string     // file of further roots
}

// reply is its answer.
type reply struct {
	status int
	header http.Header
	body   []byte
}

// do asks once. The error is one of the network, or of a body that is too large; a
// status is none: see reply.err.
func (c *Client) do(ctx context.Context, r request) (*reply, error) {
	u, err := url.Parse(r.url)
	if err != nil || u.Scheme != "https" && !(u.Scheme == "http" && loopback(u.Hostname())) {
		return nil, fmt.Errorf("an issuer is asked by https, and %s is not: %w", where(r.url), rotate.ErrPermanent)
	}
	var body io.Reader
	kind := ""
	switch {
	case r.json != nil:
		b, err := json.Marshal(r.json)
		if err != nil {
			return nil, fmt.Errorf("write the request to %s: %w", where(r.url), rotate.ErrPermanent)
		}
		defer clear(b)
		body, kind = bytes.NewReader(b), "application/json"
	case r.raw != nil:
		body, kind = bytes.NewReader(r.raw), "application/json"
	case r.form != nil:
		body, kind = strings.NewReader(r.form.Encode()), "application/x-www-form-urlencoded"
	}
	req, err := http.NewRequestWithContext(ctx, r.method, r.url, body)
	if err != nil {
		return nil, fmt.Errorf("the address %s cannot be asked: %w", where(r.url), rotate.ErrPermanent)
	}
	req.Header.Set("User-Agent", "guard")
	req.Header.Set("Accept", "application/json")
	if kind != "" {
		req.Header.Set("Content-Type", kind)
	}
	for k, v := range r.header {
		req.Header.Set(k, v)
	}
	if r.user != "" {
		req.SetBasicAuth(r.user, r.pass)
	}
	transport := c.Transport
	if transport == nil {
		t, err := network(r.ca)
		if err != nil {
			return nil, err
		}
		defer t.CloseIdleConnections()
		transport = t
	}
	timeout := c.Timeout
	if timeout == 0 {
		timeout = 15 * time.Second
	}
	client := http.Client{Transport: transport, Timeout: timeout, CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}
	res, err := client.Do(req)
	if err != nil {
		return nil, fmt.Errorf("%s %s: %w", r.method, where(r.url), plainError(err))
	}
	defer res.Body.Close()
	b, err := io.ReadAll(io.LimitReader(res.Body, maxReply+1))
	if err != nil {
		return nil, fmt.Errorf("%s %s: the answer broke off", r.method, where(r.url))
	}
	if len(b) > maxReply {
		return nil, fmt.Errorf("%s %s: the answer is longer than %d bytes: %w", r.method, where(r.url), maxReply, rotate.ErrPermanent)
	}
	return &reply{status: res.StatusCode, header: res.Header, body: b}, nil
}

func network(ca string) (*http.Transport, error) {
	t := http.DefaultTransport.(*http.Transport).Clone()
	t.DisableKeepAlives = true // a rotation is a few requests; nothing stays open after it
	if ca == "" {
		return t, nil
	}
	pem, err := os.ReadFile(ca)
	if err != nil {
		return nil, fmt.Errorf("the ca file of the rotate option cannot be read: %w", rotate.ErrPermanent)
	}
	roots, err := x509.SystemCertPool()
	if err != nil {
		roots = x509.NewCertPool()
	}
	if !roots.AppendCertsFromPEM(pem) {
		return nil, fmt.Errorf("the ca file of the rotate option holds no certificate: %w", rotate.ErrPermanent)
	}
	t.TLSClientConfig = &tls.Config{RootCAs: roots}
	return t, nil
}

// plainError keeps of an error what cannot hold a value: url.Error repeats the URL.
func plainError(err error) error {
	var op *net.OpError
	var dns *net.DNSError
	var cert *tls.CertificateVerificationError
	switch {
	case errors.Is(err, context.DeadlineExceeded), os.IsTimeout(err):
		return fmt.Errorf("no answer in time: %w", context.DeadlineExceeded)
	case errors.Is(err, context.Canceled):
		return context.Canceled
	case errors.As(err, &cert):
		return errors.New("the server's certificate is not trusted: add ca=FILE to the rotate option")
	case errors.As(err, &dns):
		return errors.New("the name is not known")
	case errors.As(err, &op):
		return op
	}
	return errors.New("the connection failed")
}

// where is a URL without user, path parameters that may be secret, and query.
func where(raw string) string {
	u, err := url.Parse(raw)
	if err != nil {
		return "the issuer"
	}
	return u.Host
}

func loopback(host string) bool {
	ip := net.ParseIP(host)
	return host == "localhost" || ip != nil && ip.IsLoopback()
}

// ok says whether the issuer did what it was asked.
func (r *reply) ok() bool { return r.status >= 200 && r.status < 300 }

// read decodes the answer's JSON into v.
func (r *reply) read(v any) error {
	if err := json.Unmarshal(r.body, v); err != nil {
		return fmt.Errorf("the issuer's answer (%d) is not the JSON that its documentation says", r.status)
	}
	return nil
}

// err is what a status means for a step: nil for success, rotate.ErrRefused for 401,
// a pause for 429 and 503, rotate.ErrPermanent for what no waiting repairs.
func (r *reply) err(doing string) error {
	switch {
	case r.ok():
		return nil
	case r.status == http.StatusUnauthorized:
		return fmt.Errorf("%s: %w (401)", doing, rotate.ErrRefused)
	case r.status == http.StatusTooManyRequests, r.status == http.StatusServiceUnavailable:
		return &rotate.RetryAfter{After: r.after(), Err: fmt.Errorf("%s: the issuer answered %d", doing, r.status)}
	case r.status >= 500:
		return fmt.Errorf("%s: the issuer answered %d", doing, r.status)
	}
	return fmt.Errorf("%s: the issuer answered %d: %w", doing, r.status, rotate.ErrPermanent)
}

// after is what Retry-After says, a second if it says nothing, an hour at most.
func (r *reply) after() time.Duration {
	text := r.header.Get("Retry-After")
	d := time.Second
	if n, err := strconv.Atoi(text); err == nil && n >= 0 {
		d = time.Duration(min(n, 3600)) * time.Second
	} else if at, err := http.ParseTime(text); err == nil {
		d = time.Until(at)
	}
	return max(0, min(d, time.Hour))
}
