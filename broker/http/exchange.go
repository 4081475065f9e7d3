package http

import (
	"crypto/subtle"
	"encoding/base64"
	"errors"
	"io"
	"net"
	nethttp "net/http"
	"net/http/httptrace"
	"net/http/httputil"
	"net/textproto"
	"strconv"
	"strings"
	"time"

	"guard"
	"guard/broker"
)

// A reply that is known to be small goes out when it is whole, or after smallDelay.
const (
	smallReply = 2 << 10
	smallDelay = 5 * time.Millisecond
)

// exchange is one request and its reply.
type exchange struct {
	p      *Proxy
	meta   meta
	in     *nethttp.Request
	id     string
	method string
	path   string // for records and refusals: without query, withheld if it holds a secret
	git    bool   // speaks git's smart protocol
	push   bool   // to push
	model  bool
	creds  []guard.Credential // of the context
	book   *book
	view   *view

	masked  *head        // what goes on of the request's head
	judged  guard.Filter // the stream of the headers, if it may go on with the body
	swaps   []swap       // placeholders to be replaced
	body    io.ReadCloser
	length  int64
	coding  bool // drop Content-Encoding: the body was unpacked
	ids     []guard.SecretID
	issue   *issue   // it asks for a credential
	signing *Signing // it is signed
}

func (p *Proxy) serveHTTP(w nethttp.ResponseWriter, r *nethttp.Request) {
	if !p.enter() {
		panic(nethttp.ErrAbortHandler)
	}
	defer p.active.Done()
	m, ok := r.Context().Value(metaKey{}).(*meta)
	if !ok {
		panic(nethttp.ErrAbortHandler)
	}
	x := &exchange{p: p, meta: *m, in: r, id: newID(), method: shownMethod(r.Method), length: r.ContentLength}
	if m.proxy {
		if !p.authorized(w, r) {
			return
		}
		if r.Method == nethttp.MethodConnect {
			x.connect(w)
			return
		}
	}
	x.serve(w)
}

// authorized asks a client of the explicit proxy for the session's token. The
// connection stays open: libcurl and git only authenticate when asked to.
func (p *Proxy) authorized(w nethttp.ResponseWriter, r *nethttp.Request) bool {
	if p.cfg.Token == "" {
		return true
	}
	_, cred, _ := strings.Cut(r.Header.Get("Proxy-Authorization"), " ")
	plain, _ := base64.StdEncoding.DecodeString(cred)
	_, pass, _ := strings.Cut(string(plain), ":")
	for _, got := range []string{pass, cred} { // Basic, or Bearer
		if subtle.ConstantTimeCompare([]byte(got), []byte(p.cfg.Token)) == 1 {
			return true
		}
	}
	const text = "guard's proxy needs the session's token: use the proxy variables of the session as they are\n"
	h := w.Header()
	h.Set("Proxy-Authenticate", `Basic realm="guard"`)
	h.Set("Content-Type", "text/plain; charset=utf-8")
	h.Set("Content-Length", strconv.Itoa(len(text)))
	w.WriteHeader(nethttp.StatusProxyAuthRequired)
	if r.Method != nethttp.MethodHead {
		io.WriteString(w, text)
	}
	return false
}

// connect serves CONNECT: the tunnel is a connection like any other.
func (x *exchange) connect(w nethttp.ResponseWriter) {
	host, ps, err := net.SplitHostPort(x.in.Host)
	port, perr := strconv.Atoi(ps)
	if err != nil || perr != nil || host == "" || port < 1 || port > 65535 {
		x.answer(w, refuse(400, "protocol", "connect-target", "CONNECT needs HOST:PORT"))
		return
	}
	x.meta.host, x.meta.port = broker.CanonicalHost(host), port
	if d := x.p.cfg.Egress.Decide; d == nil || !d(x.meta.host, port, "tcp").Allowed() {
		if err := x.p.cfg.Egress.Check(x.meta.host, port, "https"); err != nil {
			x.answer(w, fromError(err, x.meta.host, port))
			return
		}
	}
	hj, ok := w.(nethttp.Hijacker)
	if !ok {
		x.answer(w, refuse(400, "protocol", "connect-target", "CONNECT is for HTTP/1.1 connections to the proxy"))
		return
	}
	c, rw, err := hj.Hijack()
	if err != nil {
		return
	}
	defer c.Close()
	if _, err := io.WriteString(c, "HTTP/1.1 200 Connection established\r\n\r\n"); err != nil {
		return
	}
	buffered, _ := rw.Reader.Peek(rw.Reader.Buffered())
	tunnel := broker.Preload(c, buffered)
	serve := x.p.cfg.Tunnel
	if serve == nil {
		serve = x.p.Handle
	}
	serve(x.p.ctx, tunnel, x.meta.host, port)
}

// serve is an exchange from top to bottom.
func (x *exchange) serve(w nethttp.ResponseWriter) {
	if r := x.target(); r != nil {
		x.answer(w, r)
		return
	}
	var mixed *refusal
	x.git, x.push, mixed = gitService(x.in)
	x.book = x.p.look()
	x.creds, x.view = x.book.creds, x.p.view(x.book, x.dest())
	x.model = x.view.model
	if r := x.inspectHead(); r != nil {
		x.answer(w, r)
		return
	}
	if mixed != nil {
		x.answer(w, mixed)
		return
	}
	if err := x.p.mayReach(x.view, x.dest()); err != nil {
		x.answer(w, fromError(err, x.meta.host, x.meta.port))
		return
	}
	if done, r := x.sign(w); done || r != nil {
		if r != nil {
			x.answer(w, r)
		}
		return
	}
	if r := x.findPlaceholders(); r != nil {
		x.answer(w, r)
		return
	}
	x.findClientCert()
	if err := x.classify(); err != nil {
		x.answer(w, fromError(err, x.meta.host, x.meta.port))
		return
	}
	x.mints()
	done, r := x.inspectBody(w)
	defer done()
	if r != nil {
		if rep, ok := r.(*gitReport); ok {
			rep.write(w)
			return
		}
		x.answer(w, fromError(r, x.meta.host, x.meta.port))
		return
	}
	end, ref := x.mayIssue()
	defer end()
	if ref != nil {
		x.answer(w, ref)
		return
	}
	rp := &httputil.ReverseProxy{
		Rewrite:       x.rewrite,
		Transport:     x,
		FlushInterval: -1,
		BufferPool:    &x.p.pool,
		ErrorLog:      x.p.server.ErrorLog,
		ErrorHandler: func(w nethttp.ResponseWriter, _ *nethttp.Request, err error) {
			x.answer(w, fromError(x.cause(err), x.meta.host, x.meta.port))
		},
	}
	rp.ModifyResponse = func(res *nethttp.Response) error {
		switch {
		case res.ContentLength == 0:
			rp.FlushInterval = 0 // the head ends the stream: gRPC takes a status there, and nowhere else
		case res.ContentLength > 0 && res.ContentLength <= smallReply:
			rp.FlushInterval = smallDelay // most are whole by then: one write, not three
		}
		return x.scrub(res)
	}
	rp.ServeHTTP(w, x.in)
}

// cause prefers why the body was stopped to what the transport made of it.
func (x *exchange) cause(err error) error {
	var r *refusal
	if errors.As(err, &r) {
		return err
	}
	var d *Refused
	if x.signing != nil && errors.As(err, &d) {
		return x.signing.refusal(d)
	}
	if s, ok := x.body.(*filtered); ok {
		if stopped := s.stopped.Load(); stopped != nil {
			return stopped.error
		}
	}
	return err
}

// target finds out where the request goes, and holds it to that.
func (x *exchange) target() *refusal {
	r := x.in
	if ref := x.checkMethod(); ref != nil {
		return ref
	}
	if x.meta.proxy {
		if r.URL.Host == "" {
			return refuse(400, "protocol", "proxy-form", "this is a proxy: ask with an absolute URL or CONNECT")
		}
		switch r.URL.Scheme {
		case "http":
			x.meta.port = 80
		case "https":
			x.meta.port, x.meta.tls = 443, true
		default:
			return refuse(400, "protocol", "proxy-form", "only http and https URLs are served")
		}
		x.meta.host = broker.CanonicalHost(r.URL.Hostname())
		if ps := r.URL.Port(); ps != "" {
			port, err := strconv.Atoi(ps)
			if err != nil || port < 1 || port > 65535 {
				return refuse(400, "protocol", "proxy-form", "the URL's port is not one")
			}
			x.meta.port = port
		}
	}
	if x.meta.host == "" {
		return refuse(400, "protocol", "host", "the request names no host")
	}
	if !x.meta.proxy && r.URL.Host != "" && r.URL.Host != r.Host { // HTTP/2: a URL in :path
		return refuse(400, "protocol", "host", "the request names two hosts")
	}
	host, port := splitAuthority(r.Host)
	defaultPort := 80
	if x.meta.tls {
		defaultPort = 443
	}
	if host == "" && r.ProtoMajor == 1 && r.ProtoMinor == 0 {
		return nil // HTTP/1.0 need not say
	}
	if host != x.meta.host || (port != x.meta.port && !(port == 0 && (x.meta.port == defaultPort || !x.meta.proxy))) {
		return refuse(nethttp.StatusMisdirectedRequest, "protocol", "host", "the request's Host is not the host that this connection was made to", "open a connection of its own for each host")
	}
	return nil
}

func splitAuthority(a string) (host string, port int) {
	if h, ps, err := net.SplitHostPort(a); err == nil {
		port, err = strconv.Atoi(ps)
		if err != nil || port < 1 || port > 65535 {
			return "", -1
		}
		return broker.CanonicalHost(h), port
	}
	return broker.CanonicalHost(a), 0
}

// rewrite makes the request that goes upstream. The placeholders are still in.
func (x *exchange) rewrite(pr *httputil.ProxyRequest) {
	out := pr.Out
	out.URL.Scheme = "http"
	port := 80
	if x.meta.tls {
		out.URL.Scheme, port = "https", 443
	}
	out.URL.Host = net.JoinHostPort(x.meta.host, strconv.Itoa(x.meta.port))
	if x.meta.port == port {
		out.URL.Host = x.meta.host
		if strings.Contains(x.meta.host, ":") {
			out.URL.Host = "[" + x.meta.host + "]"
		}
	}
	out.Host = x.in.Host
	if out.Host == "" {
		out.Host = out.URL.Host
	}
	out.URL.User = nil
	x.masked.apply(out, x.in)
	out.Header.Del("Proxy-Authorization")
	out.Header.Del("Proxy-Connection")
	if up := out.Header.Get("Upgrade"); up != "" {
		switch {
		case strings.EqualFold(up, "websocket"):
			out.Header.Del("Sec-WebSocket-Extensions") // compressed frames could not be inspected
		case strings.HasPrefix(strings.ToLower(up), "h2c"):
			out.Header.Del("Upgrade")
			out.Header.Del("Connection")
			out.Header.Del("Http2-Settings")
		}
	}
	out.ContentLength = x.length
	if x.length >= 0 {
		out.TransferEncoding = nil // it was chunked, and is all here by now
	}
	out.Body = x.body
	if x.body == nil {
		out.Body = nethttp.NoBody
		out.TransferEncoding = nil
		out.ContentLength = 0
	}
	if x.coding {
		out.Header.Del("Content-Encoding")
	}
	if f, ok := x.body.(*filtered); ok && len(x.in.Trailer) > 0 {
		if out.Trailer == nil {
			out.Trailer = nethttp.Header{}
		}
		for k := range x.in.Trailer {
			if isAuthHeader(k) {
				delete(out.Trailer, k)
			}
		}
		f.end = func() error { return x.trailers(out.Trailer) }
	}
	x.ids = x.toScrub()
	if len(x.ids) > 0 && !x.ranges() {
		for k := range out.Header {
			if isRange(loose(k)) {
				delete(out.Header, k)
			}
		}
	}
	if len(x.ids) > 0 || x.push || x.issue != nil { // a push: noThin reads the answer
		out.Header.Set("Accept-Encoding", "identity")
	}
}

// RoundTrip sends the request upstream, through the use line once for every
// credential in it.
func (x *exchange) RoundTrip(out *nethttp.Request) (*nethttp.Response, error) {
	ctx := httptrace.WithClientTrace(out.Context(), &httptrace.ClientTrace{
		Got1xxResponse: func(_ int, h textproto.MIMEHeader) error { return x.scrubHeader(nethttp.Header(h)) },
	})
	res, err := x.send(out.WithContext(ctx), x.swaps)
	var r *refusal
	if errors.As(err, &r) && out.Body != nil {
		out.Body.Close()
	}
	return res, err
}

func (x *exchange) send(out *nethttp.Request, swaps []swap) (res *nethttp.Response, err error) {
	if len(swaps) == 0 {
		return x.roundTrip(out)
	}
	s := swaps[0]
	d, err := x.p.cfg.Line.UseShown(x.use(s.cred), asking(out), func(v guard.Secret) (string, error) {
		value := string(v.Reveal())
		out, forget := x.identify(out, s, value)
		defer forget()
		for _, edit := range s.edits {
			if err := edit(out, value); err != nil {
				return "not sent", err
			}
		}
		if !s.signs { // the host is never told what signs
			x.p.remember(x.meta.host, s.cred.ID())
		}
		for _, c := range x.p.cfg.Creds() { // the value is the current one: a use waits for a rotation
			if !s.signs && c.Name == s.cred.Name && c.Context == s.cred.Context {
				x.p.remember(x.meta.host, c.ID())
			}
		}
		x.ids = x.toScrub()
		var err error
		if res, err = x.send(out, swaps[1:]); err != nil {
			return "failed", err
		}
		return "status " + strconv.Itoa(res.StatusCode), nil
	}, x.p.later)
	if errors.Is(err, broker.ErrRefused) && !d.Allowed() {
		var inner *refusal
		if errors.As(err, &inner) {
			return nil, inner
		}
		return nil, &refusal{status: nethttp.StatusForbidden, layer: "credential", credential: s.cred.Name, d: d}
	}
	if err != nil {
		return nil, err
	}
	return res, nil
}

// use describes the use of c by this request.
func (x *exchange) use(c guard.Credential) guard.Use {
	u := guard.Use{
		Session: x.p.cfg.Session, Credential: c, Channel: guard.ChannelHTTP, Action: "http:write", Resource: x.path,
		Host: x.meta.host, Port: x.meta.port, Method: x.method, Path: x.path, PID: x.meta.pid, Exe: x.meta.exe,
	}
	switch x.method {
	case nethttp.MethodGet, nethttp.MethodHead, nethttp.MethodOptions:
		if !overridden(x.in) {
			u.Action = "http:read"
		}
	}
	if x.issue != nil && x.issue.sure && !x.issue.own {
		u.Action = x.issue.action
	}
	if s := x.signing; s != nil && s.Credential.ID() == c.ID() {
		if s.Channel != "" {
			u.Channel = s.Channel
		}
		if s.Action != "" && (x.issue == nil || !x.issue.sure) {
			u.Action = s.Action
		}
		if s.Resource != "" {
			u.Resource = s.Resource
		}
	}
	if x.git {
		u.Channel, u.Action, u.Resource = guard.ChannelGit, "repo:read", gitRepo(x.path)
		if x.push {
			u.Action = "repo:push"
		}
	}
	return u
}

// origin describes where the request's bytes go, for the leak line.
func (x *exchange) origin() guard.Origin {
	o := guard.Origin{
		Channel: guard.ChannelHTTP, Source: "broker", PID: x.meta.pid, Exe: x.meta.exe, Host: x.meta.host, Port: x.meta.port,
		Method: x.method, Path: x.path, Model: x.model, Home: x.view.home,
	}
	if x.git {
		o.Channel = guard.ChannelGit
	}
	return o
}

// trailers inspects the request's trailers and puts them into out.
func (x *exchange) trailers(out nethttp.Header) error {
	var b strings.Builder
	for k, vs := range x.in.Trailer {
		if isAuthHeader(k) {
			continue
		}
		if ref := checkName(k); ref != nil {
			return ref
		}
		if low := strings.ToLower(k); low != k {
			b.WriteString(low + "\n")
		}
		for _, v := range vs {
			b.WriteString(k + ": " + v + "\n")
		}
	}
	text := []byte(b.String())
	got, d := whole(both(x.p.cfg.Open(x.origin()), x.foreign(), x.refuseForeign), text)
	if d.Action.Stops() || string(got) != string(text) {
		return leakRefusal(d, "a trailer")
	}
	for k, vs := range x.in.Trailer {
		if !isAuthHeader(k) {
			out[k] = vs
		}
	}
	return nil
}
