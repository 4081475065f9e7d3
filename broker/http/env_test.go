package http

import (
	"bufio"
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"io"
	"math/big"
	"net"
	nethttp "net/http"
	"net/http/httptest"
	"net/netip"
	"net/url"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"guard"
	"guard/broker"
)

const (
	tokenValue       = "ghp_REALrealREALrealREALrealREALreal1234"
	tokenPlaceholder = "ghp_PLACEplacePLACEplacePLACEplace001234"
	keyValue         = "sk-REALrealREALrealREALreal99"
	keyPlaceholder   = "sk-FAKEfakeFAKEfakeFAKEfake99"
	canary           = "canary-7f3a9c51d2e84b60"
)

// env is a session on loopback: a broker with its front server, whose
// listeners pretend to be the sandbox's.
type env struct {
	t      *testing.T
	ca     *CA
	root   *testCA
	server *broker.Server
	proxy  *Proxy
	at     map[string]netip.AddrPort // "host:port": the upstream's real address
	creds  []guard.Credential
	action guard.Action // on a leak

	mu      sync.Mutex
	deny    map[string]bool // credential names
	uses    []guard.Use
	refused []guard.Decision
	results []string
	leaks   []guard.Origin
	noNet   map[string]bool // hosts that egress refuses
	opaque  map[string]bool
}

type testCA struct {
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
}

func newTestCA(t testing.TB) *testCA {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	tmpl := &x509.Certificate{SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "upstream test root"}, NotBefore: time.Now().Add(-time.Hour),
		NotAfter: time.Now().Add(time.Hour), IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign}
	der, err := x509.CreateCertificate(rand.Reader, tmpl, tmpl, &key.PublicKey, key)
	if err != nil {
		t.Fatal(err)
	}
	cert, _ := x509.ParseCertificate(der)
	return &testCA{cert, key}
}

func (ca *testCA) leaf(t testing.TB, host string) tls.Certificate {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	tmpl := &x509.Certificate{SerialNumber: big.NewInt(2), NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour), DNSNames: []string{host}}
	if ip := net.ParseIP(host); ip != nil {
		tmpl.DNSNames, tmpl.IPAddresses = nil, []net.IP{ip}
	}
	der, err := x509.CreateCertificate(rand.Reader, tmpl, ca.cert, &key.PublicKey, ca.key)
	if err != nil {
		t.Fatal(err)
	}
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}
}

// sandboxListener gives its connections a destination.
type sandboxListener struct {
	net.Listener
	dst netip.AddrPort // invalid: the listener itself, as for a client of the explicit proxy
}

type sandboxConn struct {
	net.Conn
	dst netip.AddrPort
}

func (c *sandboxConn) Dst() netip.AddrPort    { return c.dst }
func (c *sandboxConn) Process() (int, string) { return 4242, "/usr/bin/agent" }
func (c *sandboxConn) CloseWrite() error      { return c.Conn.(*net.TCPConn).CloseWrite() }

func (l *sandboxListener) Accept() (net.Conn, error) {
	c, err := l.Listener.Accept()
	if err != nil {
		return nil, err
	}
	dst := l.dst
	if !dst.IsValid() {
		dst = c.LocalAddr().(*net.TCPAddr).AddrPort()
	}
	return &sandboxConn{c, dst}, nil
}

// search is a stand-in for the leak line: it holds back what may be the start
// of a value, from 8 bytes on also when it is told of a pause, whatever of it
// went out before, and masks or stops at one.
func search(action guard.Action, mask map[string]string, hit func()) guard.Filter {
	var seen []byte // the end of the stream, of which rel bytes went out
	rel, longest := 0, 0
	for v := range mask {
		longest = max(longest, len(v))
	}
	return func(p []byte, s guard.Step) ([]byte, guard.Decision) {
		seen = append(seen, p...)
		d := guard.Decision{Action: guard.Pass}
		for v, m := range mask {
			if m == "" {
				m = strings.Repeat("*", len(v))
			}
			for {
				i := bytes.Index(seen, []byte(v))
				if i < 0 {
					break
				}
				if hit != nil {
					hit()
				}
				d = guard.Decision{Action: action, Rule: "test-leak", Secret: guard.SecretID{Name: "known"}}
				if action.Stops() {
					return append([]byte(nil), seen[rel:max(i, rel)]...), d
				}
				copy(seen[i:], m)
			}
		}
		keep := 0
		for v := range mask {
			for n := min(len(v)-1, len(seen)); n > keep; n-- {
				if bytes.HasSuffix(seen, []byte(v[:n])) {
					keep = n
					break
				}
			}
		}
		if s == guard.End || s == guard.Pause && keep < 8 {
			keep = 0
		}
		safe := max(rel, len(seen)-keep)
		out := append([]byte(nil), seen[rel:safe]...)
		cut := max(0, safe-longest)
		seen, rel = append([]byte(nil), seen[cut:]...), safe-cut
		return out, d
	}
}

// encodings of v, as the matcher knows them.
func encodings(v string) map[string]string {
	m := map[string]string{v: ""}
	m[base64.StdEncoding.EncodeToString([]byte(v))] = ""
	return m
}

func newEnv(t *testing.T, change ...func(*env, *Config)) *env {
	t.Helper()
	e := &env{
		t: t, root: newTestCA(t), at: map[string]netip.AddrPort{}, action: guard.Block,
		deny: map[string]bool{}, noNet: map[string]bool{}, opaque: map[string]bool{},
		creds: []guard.Credential{
			{Name: "token", Context: "default", Version: 1, Hosts: []string{"api.test", "*.git.test"}, Placeholder: tokenPlaceholder},
			{Name: "key", Context: "default", Version: 3, Hosts: []string{"fields.test"}, Placeholder: keyPlaceholder, In: []guard.Position{
				{Place: "header", Name: "x-custom"}, {Place: "query", Name: "key"}, {Place: "path"}, {Place: "form", Name: "secret"}, {Place: "json", Name: "auth.key"}, {Place: "basic"}}},
		},
	}
	var err error
	if e.ca, err = NewCA(); err != nil {
		t.Fatal(err)
	}
	pool := x509.NewCertPool()
	pool.AddCert(e.root.cert)
	values := map[string]string{"token": tokenValue, "key": keyValue}
	egress := &broker.Egress{
		Decide: func(host string, port int, proto string) guard.Decision {
			e.mu.Lock()
			defer e.mu.Unlock()
			if e.noNet[host] || proto == "tcp" && !e.opaque[net.JoinHostPort(host, strconv.Itoa(port))] {
				return guard.Decision{Action: guard.Block, Rule: "egress-list", Reason: "not listed"}
			}
			return guard.Decision{Action: guard.Pass}
		},
		Resolve: func(host string, port int) (netip.AddrPort, bool) {
			e.mu.Lock()
			defer e.mu.Unlock()
			a, ok := e.at[net.JoinHostPort(host, strconv.Itoa(port))]
			return a, ok
		},
		Lookup: func(context.Context, string) ([]netip.Addr, error) {
			return nil, &net.DNSError{Err: "no such host", IsNotFound: true}
		},
	}
	cfg := Config{
		Line: &broker.Line{
			Decide: func(u guard.Use) guard.Decision {
				e.mu.Lock()
				defer e.mu.Unlock()
				e.uses = append(e.uses, u)
				if e.deny[u.Credential.Name] || e.deny[u.Action] {
					return guard.Decision{Action: guard.Block, Rule: "default-deny", Reason: "not allowed in this session", NextSteps: []string{"guard ask"}}
				}
				return guard.Decision{Action: guard.Pass, Rule: "flag --allow"}
			},
			Record: func(guard.Use, guard.Decision) (broker.Result, error) {
				return func(o string, _ time.Duration, wiped bool) {
					e.mu.Lock()
					defer e.mu.Unlock()
					e.results = append(e.results, fmt.Sprintf("%s wiped=%v", o, wiped))
				}, nil
			},
			Value: func(id guard.SecretID) (guard.Secret, error) {
				return guard.NewSecret([]byte(values[id.Name])), nil
			},
			Refused: func(_ guard.Use, d guard.Decision) {
				e.mu.Lock()
				defer e.mu.Unlock()
				e.refused = append(e.refused, d)
			},
		},
		Egress: egress,
		Creds:  func() []guard.Credential { return e.creds },
		Open: func(o guard.Origin) guard.Filter {
			return search(e.action, map[string]string{canary: "", base64.StdEncoding.EncodeToString([]byte(canary)): ""}, func() {
				e.mu.Lock()
				defer e.mu.Unlock()
				e.leaks = append(e.leaks, o)
			})
		},
		Scrub: func(ids []guard.SecretID) guard.Filter {
			m := map[string]string{}
			for _, id := range ids {
				for _, c := range e.creds {
					if c.Name == id.Name {
						for enc := range encodings(values[c.Name]) {
							m[enc] = ""
						}
						if len(values[c.Name]) == len(c.Placeholder) {
							m[values[c.Name]] = c.Placeholder
						}
					}
				}
			}
			return search(guard.Redact, m, nil)
		},
		CA: e.ca, Roots: pool, SpoolDir: t.TempDir(),
	}
	for _, f := range change {
		f(e, &cfg)
	}
	before := runtime.NumGoroutine()
	if e.proxy, err = New(cfg); err != nil {
		t.Fatal(err)
	}
	e.server = &broker.Server{HTTP: e.proxy.Handle, Egress: egress, Open: cfg.Open, Name: e.name}
	e.proxy.cfg.Tunnel = e.server.Dispatch
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- e.proxy.Serve(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Errorf("Serve: %v", err)
		}
		if left, err := os.ReadDir(cfg.SpoolDir); err != nil || len(left) > 0 {
			t.Errorf("left in the spool folder: %v, %v", left, err)
		}
		settle(t, before)
	})
	return e
}

// settle waits until no more goroutines run than before.
func settle(t testing.TB, before int) {
	t.Helper()
	for end := time.Now().Add(20 * time.Second); ; runtime.Gosched() {
		if runtime.NumGoroutine() <= before {
			return
		}
		if time.Now().After(end) {
			buf := make([]byte, 1<<20)
			t.Errorf("%d goroutines, %d before:\n%s", runtime.NumGoroutine(), before, buf[:runtime.Stack(buf, true)])
			return
		}
	}
}

var synthetic = struct {
	sync.Mutex
	names map[netip.Addr]string
}{names: map[netip.Addr]string{}}

// recorded waits for the results of n uses, which come after the replies, and
// returns all that there are.
func (e *env) recorded(n int) []string {
	e.t.Helper()
	for end := time.Now().Add(10 * time.Second); ; time.Sleep(time.Millisecond) {
		e.mu.Lock()
		got := slices.Clone(e.results)
		e.mu.Unlock()
		if len(got) >= n || time.Now().After(end) {
			return got
		}
	}
}

func (e *env) name(a netip.Addr) (string, bool) {
	synthetic.Lock()
	defer synthetic.Unlock()
	n, ok := synthetic.names[a]
	return n, ok
}

// listen starts a sandbox listener for dst and returns its address.
func (e *env) listen(dst netip.AddrPort) string {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		e.t.Fatal(err)
	}
	s := *e.server
	s.Listeners = []net.Listener{&sandboxListener{l, dst}}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() { defer close(done); s.Serve(ctx) }()
	e.t.Cleanup(func() { cancel(); <-done })
	return l.Addr().String()
}

// transparent is where a client connects to reach host:port as if it had
// resolved it.
func (e *env) transparent(host string, port int) string {
	if a, err := netip.ParseAddr(host); err == nil {
		return e.listen(netip.AddrPortFrom(a, uint16(port)))
	}
	synthetic.Lock()
	a := netip.AddrFrom4([4]byte{198, 18, byte(len(synthetic.names) >> 8), byte(len(synthetic.names) + 1)})
	synthetic.names[a] = host
	synthetic.Unlock()
	return e.listen(netip.AddrPortFrom(a, uint16(port)))
}

// explicit is the address of the proxy that proxy variables name.
func (e *env) explicit() string { return e.listen(netip.AddrPort{}) }

// upstream starts a server that is host:443 (or port, without TLS, for 80).
func (e *env) upstream(host string, port int, h nethttp.Handler) *httptest.Server {
	s := httptest.NewUnstartedServer(h)
	s.Config.ErrorLog = e.proxy.server.ErrorLog
	if port == 80 {
		s.Start()
	} else {
		s.EnableHTTP2 = true
		s.TLS = &tls.Config{Certificates: []tls.Certificate{e.root.leaf(e.t, host)}}
		s.StartTLS()
	}
	e.mu.Lock()
	e.at[net.JoinHostPort(host, strconv.Itoa(port))] = s.Listener.Addr().(*net.TCPAddr).AddrPort()
	e.mu.Unlock()
	e.t.Cleanup(func() { s.CloseClientConnections(); s.Close() })
	return s
}

// client speaks to host:port transparently; h2 says which version.
func (e *env) client(host string, port int, h2 bool) *nethttp.Client {
	at := e.transparent(host, port)
	pool := x509.NewCertPool()
	pool.AppendCertsFromPEM(e.ca.CAPEM())
	protos := new(nethttp.Protocols)
	protos.SetHTTP1(!h2)
	protos.SetHTTP2(h2)
	tr := &nethttp.Transport{
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return new(net.Dialer).DialContext(ctx, "tcp", at)
		},
		TLSClientConfig: &tls.Config{RootCAs: pool}, Protocols: protos, DisableCompression: true, ExpectContinueTimeout: 5 * time.Second,
	}
	e.t.Cleanup(tr.CloseIdleConnections)
	return &nethttp.Client{Transport: tr, CheckRedirect: func(*nethttp.Request, []*nethttp.Request) error { return nethttp.ErrUseLastResponse }}
}

// raw writes text to host:port (plain) and returns everything that comes back.
func (e *env) raw(host string, port int, text string) string {
	e.t.Helper()
	c, err := net.Dial("tcp", e.transparent(host, port))
	if err != nil {
		e.t.Fatal(err)
	}
	defer c.Close()
	io.WriteString(c, text)
	c.SetReadDeadline(time.Now().Add(10 * time.Second))
	b, _ := io.ReadAll(c)
	return string(b)
}

func (e *env) caFile() string {
	f := filepath.Join(e.t.TempDir(), "ca.pem")
	if err := os.WriteFile(f, e.ca.CAPEM(), 0o600); err != nil {
		e.t.Fatal(err)
	}
	return f
}

func do(t *testing.T, c *nethttp.Client, method, u string, body io.Reader, header ...string) (*nethttp.Response, string) {
	t.Helper()
	r, err := nethttp.NewRequest(method, u, body)
	if err != nil {
		t.Fatal(err)
	}
	for i := 0; i+1 < len(header); i += 2 {
		r.Header.Set(header[i], header[i+1])
	}
	res, err := c.Do(r)
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	b, err := io.ReadAll(res.Body)
	if err != nil {
		t.Fatal(err)
	}
	return res, string(b)
}

// wantDenied checks that a reply is guard's refusal, with exactly its keys.
func wantDenied(t *testing.T, res *nethttp.Response, body string, status int, layer, rule string) {
	t.Helper()
	var m map[string]any
	if err := json.Unmarshal([]byte(body), &m); err != nil {
		t.Errorf("status %d, not JSON: %q", res.StatusCode, body)
		return
	}
	keys := []string{"error", "layer", "credential", "host", "method", "path", "rule", "reason", "next_steps", "request_id"}
	for _, k := range keys {
		if _, ok := m[k]; !ok {
			t.Errorf("refusal without %s", k)
		}
	}
	if len(m) != len(keys) || res.StatusCode != status || m["layer"] != layer || m["rule"] != rule {
		t.Errorf("status %d, want %d %s %s: %s", res.StatusCode, status, layer, rule, body)
	}
	if deny := res.Header.Get("X-Guard-Decision") == "deny"; deny != (layer != "upstream") {
		t.Errorf("X-Guard-Decision: deny is %v for layer %s", deny, layer)
	}
	if strings.Contains(body, canary) || strings.Contains(body, tokenValue) || strings.Contains(body, keyValue) {
		t.Errorf("the refusal holds a secret: %s", body)
	}
}

// echo answers with the request as it arrived.
func echo(w nethttp.ResponseWriter, r *nethttp.Request) {
	b, _ := io.ReadAll(r.Body)
	w.Header().Set("X-Proto", r.Proto)
	json.NewEncoder(w).Encode(map[string]any{
		"method": r.Method, "uri": r.RequestURI, "host": r.Host, "header": r.Header, "body": string(b), "length": r.ContentLength, "trailer": r.Trailer,
	})
}

// seen records requests as they arrive upstream; last is the last that arrived whole.
type seen struct {
	mu   sync.Mutex
	reqs []*nethttp.Request
	body []string
	done []bool
}

func (s *seen) ServeHTTP(w nethttp.ResponseWriter, r *nethttp.Request) {
	b, err := io.ReadAll(r.Body)
	s.mu.Lock()
	s.reqs, s.body, s.done = append(s.reqs, r), append(s.body, string(b)), append(s.done, err == nil)
	s.mu.Unlock()
	io.WriteString(w, "ok")
}

func (s *seen) last() (*nethttp.Request, string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for i := len(s.reqs) - 1; i >= 0; i-- {
		if s.done[i] {
			return s.reqs[i], s.body[i]
		}
	}
	return &nethttp.Request{URL: &url.URL{}}, ""
}

func (s *seen) completed() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	n := 0
	for _, d := range s.done {
		if d {
			n++
		}
	}
	return n
}

var _ = []any{bufio.NewReader, pem.Decode, url.Parse}
