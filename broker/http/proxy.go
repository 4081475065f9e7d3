package http

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"io"
	"log"
	"log/slog"
	"net"
	nethttp "net/http"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"guard"
	"guard/broker"
)

// Scrubber starts a stream in which the values of ids are replaced by their
// placeholders, or masked, with the same length. It is for one reply.
type Scrubber func(ids []guard.SecretID) guard.Filter

// Config is what a Proxy needs. Line, Egress, Creds, Open, Scrub and CA are
// required.
type Config struct {
	Line   *broker.Line
	Egress *broker.Egress
	// Creds returns the credentials of the session's context, allowed or not.
	// It is called a few times a request, for what changes meanwhile.
	Creds func() []guard.Credential
	// Open starts a stream on the leak line.
	Open guard.OpenFilter
	// Formats starts a search for credential formats in one thing that a push sends
	// (a blob, a message, the paths). It changes nothing: a decision that stops, with
	// a rule that begins with pack.FormatRule, refuses the push. Optional.
	Formats guard.OpenFilter
	// Scrub starts the rewriting of a reply. Hosts that a credential may be sent to
	// are scrubbed of its value from their first reply on, so most sets of ids come
	// again and again: keep what is made of one. At guard.Pause, what its filter
	// keeps must be the beginning of a value: if the reply ends there it is masked.
	Scrub Scrubber
	CA    *CA
	// Roots verify upstreams; nil is the system's. See Roots.
	Roots *x509.CertPool
	// Pins are, by host, the SHA-256 sums of public keys (SubjectPublicKeyInfo in
	// DER) one of which the host's verified chain must hold; optional.
	Pins map[string][][32]byte
	// ClientCerts are names of credentials whose value is a certificate and its key
	// (PEM). Their hosts are shown it when they ask, by way of the use line, where
	// the session may use it.
	ClientCerts []string
	Session     guard.Session
	// Models are hosts of model APIs besides the well-known ones: placeholders
	// may go there, as text.
	Models []string
	// Token is the password that clients of the explicit proxy must give; ""
	// asks for none.
	Token string
	// Tunnel serves what CONNECT asks for (broker.Server.Dispatch); nil serves
	// HTTP and TLS only.
	Tunnel broker.Handler
	// Sign looks at every request for one that is signed, or answered by guard itself;
	// nil for one that is none. Optional.
	Sign func(*SignRequest) *Signing
	// Issuing takes the credentials that replies give out.
	Issuing Issuing
	// HeadTimeout is how long a client may take for the head of a request, and for a
	// TLS handshake; a minute where it is 0. Bodies and streams take what they take.
	HeadTimeout time.Duration
	// SpoolDir holds unlinked temporary files of bodies that must be unpacked
	// before they are sent; "" is the system's folder.
	SpoolDir string
	// Log gets a line a refusal, without input; optional.
	Log *slog.Logger
}

// Proxy serves HTTP connections. Its Handle is a broker.Handler.
type Proxy struct {
	cfg     Config
	issuers []issuer
	models  []string
	server  *nethttp.Server
	conns   chan net.Conn
	ctx     context.Context
	cancel  context.CancelFunc
	active  sync.WaitGroup // connections and requests
	pool    buffers
	book    atomic.Pointer[book]

	mu     sync.Mutex
	closed bool
	routes map[route]*nethttp.Transport
	judged map[string]time.Time                   // what hosts may be reached by way of a proxy, and until when that is known
	sent   map[string]map[guard.SecretID]struct{} // by host: what it got
}

// New makes a proxy; Serve runs it.
func New(cfg Config) (*Proxy, error) {
	switch {
	case cfg.Line == nil, cfg.Egress == nil, cfg.Creds == nil, cfg.Open == nil, cfg.Scrub == nil, cfg.CA == nil:
		return nil, errors.New("broker/http: Line, Egress, Creds, Open, Scrub and CA are required")
	}
	issuers, err := parseIssuers(issuersText)
	if err != nil {
		return nil, err
	}
	if cfg.HeadTimeout == 0 {
		cfg.HeadTimeout = time.Minute
	}
	p := &Proxy{
		cfg: cfg, issuers: issuers,
		models: append([]string{"api.anthropic.com", "api.openai.com", "generativelanguage.googleapis.com"}, cfg.Models...),
		conns:  make(chan net.Conn),
		sent:   map[string]map[guard.SecretID]struct{}{},
		judged: map[string]time.Time{},
	}
	p.ctx, p.cancel = context.WithCancel(context.Background())
	p.pool.p.New = func() any { return new([bufSize]byte) }
	p.routes = map[route]*nethttp.Transport{}
	protos := new(nethttp.Protocols)
	protos.SetHTTP1(true)
	protos.SetHTTP2(true)
	p.server = &nethttp.Server{
		Handler:                      nethttp.HandlerFunc(p.serveHTTP),
		Protocols:                    protos,
		TLSConfig:                    &tls.Config{NextProtos: []string{"h2", "http/1.1"}},
		ReadHeaderTimeout:            cfg.HeadTimeout,
		IdleTimeout:                  10 * time.Minute,
		DisableGeneralOptionsHandler: true,
		ErrorLog:                     log.New(io.Discard, "", 0), // it quotes requests
		BaseContext:                  func(net.Listener) context.Context { return p.ctx },
		ConnContext: func(ctx context.Context, c net.Conn) context.Context {
			if t, ok := c.(*tls.Conn); ok {
				c = t.NetConn()
			}
			if ic, ok := c.(*inner); ok {
				ctx = context.WithValue(ctx, metaKey{}, ic.meta)
			}
			return ctx
		},
		ConnState: func(_ net.Conn, s nethttp.ConnState) {
			switch s {
			case nethttp.StateNew:
				p.active.Add(1)
			case nethttp.StateHijacked, nethttp.StateClosed:
				p.active.Done()
			}
		},
	}
	return p, nil
}

// Serve runs until ctx ends and returns when every connection and request has.
// A Proxy serves once.
func (p *Proxy) Serve(ctx context.Context) error {
	unhook := context.AfterFunc(ctx, func() {
		p.cancel()
		p.server.Close()
	})
	defer unhook()
	err := p.server.Serve(&listener{p: p})
	p.cancel()
	p.server.Close()
	p.mu.Lock()
	p.closed = true
	p.mu.Unlock()
	p.active.Wait()
	for _, t := range p.routes { // nobody adds one any more
		t.CloseIdleConnections()
	}
	if errors.Is(err, nethttp.ErrServerClosed) {
		return nil
	}
	return err
}

// enter counts a request in, unless the proxy has ended.
func (p *Proxy) enter() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.closed {
		return false
	}
	p.active.Add(1)
	return true
}

// later records a result while the reply is on its way already; Serve waits for it.
// It is called by a request.
func (p *Proxy) later(record func()) { p.active.Go(record) }

// Handle serves one connection until its end; host "" is a client of the
// explicit proxy.
func (p *Proxy) Handle(ctx context.Context, c net.Conn, host string, port int) {
	pid, exe := broker.Process(c)
	m := &meta{host: broker.CanonicalHost(host), port: port, proxy: host == "", pid: pid, exe: exe}
	pc := broker.Peekable(c)
	defer c.Close()
	stop := context.AfterFunc(ctx, func() { c.Close() })
	defer stop()
	if !m.proxy {
		first, err := pc.Peek(1, 0)
		if err != nil {
			return
		}
		m.tls = first[0] == 0x16
	}
	ic := &inner{PeekConn: pc, meta: m, done: make(chan struct{})}
	var sc net.Conn = ic
	if m.tls {
		sc = tls.Server(ic, p.serverTLS(m.host))
	}
	select {
	case p.conns <- sc:
		<-ic.done
	case <-ctx.Done():
	case <-p.ctx.Done():
	}
}

// meta is what is known about a connection from the sandbox.
type meta struct {
	host  string
	port  int
	tls   bool
	proxy bool // the client speaks to guard as to a proxy
	pid   int
	exe   string
}

type metaKey struct{}

// inner tells Handle when the server is done with a connection.
type inner struct {
	*broker.PeekConn
	meta *meta
	once sync.Once
	done chan struct{}
}

func (c *inner) Close() error {
	err := c.PeekConn.Close()
	c.once.Do(func() { close(c.done) })
	return err
}

// listener gives the server the connections that Handle was called with.
type listener struct{ p *Proxy }

func (l *listener) Accept() (net.Conn, error) {
	select {
	case c := <-l.p.conns:
		return c, nil
	case <-l.p.ctx.Done():
		return nil, nethttp.ErrServerClosed
	}
}

func (l *listener) Close() error   { return nil }
func (l *listener) Addr() net.Addr { return &net.TCPAddr{} }

const bufSize = 32 << 10

type buffers struct{ p sync.Pool }

// Get and Put make it an httputil.BufferPool.
func (b *buffers) Get() []byte { return b.p.Get().(*[bufSize]byte)[:] }

// Put takes a slice of Get's back.
func (b *buffers) Put(s []byte) {
	if cap(s) >= bufSize {
		b.p.Put((*[bufSize]byte)(s[:bufSize]))
	}
}

// remember notes that host got the value of id.
func (p *Proxy) remember(host string, id guard.SecretID) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.sent[host] == nil {
		p.sent[host] = map[guard.SecretID]struct{}{}
	}
	p.sent[host][id] = struct{}{}
}

// got returns ids, and the other values that host got in this session.
func (p *Proxy) got(host string, ids []guard.SecretID) []guard.SecretID {
	p.mu.Lock()
	defer p.mu.Unlock()
	for id := range p.sent[host] {
		if !slices.Contains(ids, id) {
			ids = append(ids, id)
		}
	}
	return ids
}
