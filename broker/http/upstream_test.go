package http

import (
	"bufio"
	"bytes"
	"crypto/rand"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/base64"
	"encoding/pem"
	"fmt"
	"io"
	"math/big"
	"net"
	nethttp "net/http"
	"net/http/httptest"
	"net/netip"
	"net/url"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"guard"
)

// clientPEM is a client certificate by ca, with its key.
func clientPEM(t *testing.T, ca *testCA, name string) string {
	t.Helper()
	made := ca.leaf(t, name)
	tmpl := &x509.Certificate{SerialNumber: big.NewInt(7), Subject: pkix.Name{CommonName: name}, NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}, KeyUsage: x509.KeyUsageDigitalSignature}
	leaf, err := x509.ParseCertificate(made.Certificate[0])
	if err != nil {
		t.Fatal(err)
	}
	der, err := x509.CreateCertificate(rand.Reader, tmpl, ca.cert, leaf.PublicKey, ca.key)
	if err != nil {
		t.Fatal(err)
	}
	key, err := x509.MarshalPKCS8PrivateKey(made.PrivateKey)
	if err != nil {
		t.Fatal(err)
	}
	return string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})) + string(pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: key}))
}

func TestClientCertificate(t *testing.T) {
	clients := newTestCA(t)
	var value string
	e := newEnv(t, func(e *env, c *Config) {
		e.creds = append(e.creds, guard.Credential{Name: "corp", Context: "default", Version: 1, Hosts: []string{"mtls.test", "maybe.test"}, Placeholder: "none-of-it-is-ever-sent"})
		c.ClientCerts = []string{"corp"}
		scrub, other := c.Scrub, c.Line.Value
		c.Scrub = func(ids []guard.SecretID) guard.Filter {
			return scrub(slices.DeleteFunc(slices.Clone(ids), func(id guard.SecretID) bool { return id.Name == "corp" }))
		}
		c.Line.Value = func(id guard.SecretID) (guard.Secret, error) {
			if id.Name == "corp" {
				return guard.NewSecret([]byte(value)), nil
			}
			return other(id)
		}
	})
	pool := x509.NewCertPool()
	pool.AddCert(clients.cert)
	serve := func(host string, auth tls.ClientAuthType) {
		s := httptest.NewUnstartedServer(nethttp.HandlerFunc(func(w nethttp.ResponseWriter, r *nethttp.Request) {
			name := "nobody"
			if cs := r.TLS.PeerCertificates; len(cs) > 0 {
				name = cs[0].Subject.CommonName
			}
			io.WriteString(w, name)
		}))
		s.Config.ErrorLog = e.proxy.server.ErrorLog
		s.EnableHTTP2 = true
		s.TLS = &tls.Config{Certificates: []tls.Certificate{e.root.leaf(t, host)}, ClientAuth: auth, ClientCAs: pool}
		s.StartTLS()
		t.Cleanup(func() { s.CloseClientConnections(); s.Close() })
		e.mu.Lock()
		e.at[host+":443"] = s.Listener.Addr().(*net.TCPAddr).AddrPort()
		e.mu.Unlock()
	}
	serve("mtls.test", tls.RequireAndVerifyClientCert)
	serve("maybe.test", tls.VerifyClientCertIfGiven)
	serve("other.test", tls.VerifyClientCertIfGiven)
	value = clientPEM(t, clients, "agent of corp")
	allow := func(ok bool) {
		e.mu.Lock()
		defer e.mu.Unlock()
		e.deny["corp"] = !ok
	}
	for _, h2 := range []bool{false, true} {
		for range 2 { // made, then kept
			if res, body := do(t, e.client("mtls.test", 443, h2), "GET", "https://mtls.test/", nil); res.StatusCode != 200 || body != "agent of corp" {
				t.Errorf("h2 %v: %d %s", h2, res.StatusCode, body)
			}
		}
	}
	if got := e.recorded(4); len(got) != 4 || got[0] != "status 200 wiped=true" {
		t.Errorf("%d uses were recorded: %v", len(got), got)
	}
	// Another host is not shown it, nor is one that a refused session talks to,
	// although there is a connection that was made with it.
	if _, body := do(t, e.client("other.test", 443, true), "GET", "https://other.test/", nil); body != "nobody" {
		t.Errorf("another host saw %q", body)
	}
	if _, body := do(t, e.client("maybe.test", 443, true), "GET", "https://maybe.test/", nil); body != "agent of corp" {
		t.Errorf("allowed: %q", body)
	}
	allow(false)
	if _, body := do(t, e.client("maybe.test", 443, true), "GET", "https://maybe.test/", nil); body != "nobody" {
		t.Errorf("refused, the host saw %q", body)
	}
	res, body := do(t, e.client("mtls.test", 443, false), "GET", "https://mtls.test/", nil)
	if res.StatusCode != 502 || res.Header.Get("X-Guard-Decision") != "" {
		t.Errorf("without a certificate: %d %s", res.StatusCode, body)
	}
	allow(true)
	e.creds[2].Version = 2 // stored anew: another route
	value = "-----BEGIN CERTIFICATE-----\nnot one\n-----END CERTIFICATE-----\n"
	res, body = do(t, e.client("mtls.test", 443, false), "GET", "https://mtls.test/", nil)
	wantDenied(t, res, body, 403, "credential", "value")
	if strings.Contains(body, "not one") {
		t.Error("the refusal quotes the value")
	}
}

func TestPinnedKeys(t *testing.T) {
	e := newEnv(t, func(e *env, c *Config) {
		c.Pins = map[string][][32]byte{"root.test": {{1}, PinOf(e.root.cert)}, "wrong.test": {sha256.Sum256([]byte("another key"))}}
	})
	s := &seen{}
	e.upstream("root.test", 443, s)
	e.upstream("wrong.test", 443, s)
	e.upstream("free.test", 443, s)
	for host, want := range map[string]int{"root.test": 200, "free.test": 200, "wrong.test": 502} {
		res, body := do(t, e.client(host, 443, true), "GET", "https://"+host+"/", nil)
		if res.StatusCode != want {
			t.Errorf("%s: %d %s", host, res.StatusCode, body)
		}
		if want == 502 {
			wantDenied(t, res, body, 502, "upstream", "upstream-certificate")
			if !strings.Contains(body, "pinned") {
				t.Errorf("%s", body)
			}
		}
	}
	if n := s.completed(); n != 2 {
		t.Errorf("%d requests arrived", n)
	}
}

// netProxy is a proxy of the user's network: CONNECT and absolute-form, with a
// password, to where env says that names are.
type netProxy struct {
	t    *testing.T
	at   map[string]netip.AddrPort
	mu   sync.Mutex
	asks []string
	wg   sync.WaitGroup
	open []net.Conn
}

// end closes the tunnels and waits for them.
func (p *netProxy) end() {
	p.mu.Lock()
	for _, c := range p.open {
		c.Close()
	}
	p.open = nil
	p.mu.Unlock()
	p.wg.Wait()
}

func (p *netProxy) ServeHTTP(w nethttp.ResponseWriter, r *nethttp.Request) {
	p.mu.Lock()
	p.asks = append(p.asks, r.Method+" "+r.RequestURI)
	p.mu.Unlock()
	if r.Header.Get("Proxy-Authorization") != "Basic "+base64.StdEncoding.EncodeToString([]byte("user:network-password")) {
		w.WriteHeader(407)
		return
	}
	to, ok := p.at[r.Host]
	if r.Method != "CONNECT" {
		to, ok = p.at[r.URL.Host+":80"]
	}
	if !ok {
		w.WriteHeader(503)
		return
	}
	up, err := net.Dial("tcp", to.String())
	if err != nil {
		p.t.Error(err)
		return
	}
	defer up.Close()
	if r.Method != "CONNECT" {
		r.Header.Del("Proxy-Authorization")
		r.Header.Set("Connection", "close")
		r.Write(up)
		res, err := nethttp.ReadResponse(bufio.NewReader(up), r)
		if err != nil {
			p.t.Error(err)
			return
		}
		defer res.Body.Close()
		w.WriteHeader(res.StatusCode)
		io.Copy(w, res.Body)
		return
	}
	c, rw, err := w.(nethttp.Hijacker).Hijack()
	if err != nil {
		p.t.Error(err)
		return
	}
	defer c.Close()
	p.wg.Add(2)
	p.mu.Lock()
	p.open = append(p.open, c)
	p.mu.Unlock()
	io.WriteString(c, "HTTP/1.1 200 OK\r\n\r\n")
	defer p.wg.Done()
	go func() { defer p.wg.Done(); io.Copy(up, rw); up.(*net.TCPConn).CloseWrite() }()
	io.Copy(c, up)
}

func (p *netProxy) asked() string {
	p.mu.Lock()
	defer p.mu.Unlock()
	return strings.Join(p.asks, ", ")
}

func TestNetworkProxy(t *testing.T) {
	np := &netProxy{t: t, at: map[string]netip.AddrPort{}}
	var via *url.URL
	e := newEnv(t, func(e *env, c *Config) {
		c.Egress.Proxy = func(proto, host string, port int) *url.URL {
			if host == "direct.test" {
				return nil // NO_PROXY
			}
			return via
		}
	})
	for _, scheme := range []string{"http", "https"} {
		t.Run(scheme, func(t *testing.T) {
			s := httptest.NewUnstartedServer(np)
			s.Config.ErrorLog = e.proxy.server.ErrorLog
			if scheme == "https" {
				s.TLS = &tls.Config{Certificates: []tls.Certificate{e.root.leaf(t, "127.0.0.1")}, ClientAuth: tls.RequestClientCert,
					VerifyConnection: func(cs tls.ConnectionState) error {
						if len(cs.PeerCertificates) > 0 {
							t.Error("the proxy was shown a client certificate")
						}
						return nil
					}}
				s.StartTLS()
			} else {
				s.Start()
			}
			t.Cleanup(func() { s.CloseClientConnections(); s.Close(); np.end() })
			via, _ = url.Parse(s.URL)
			via.User = url.UserPassword("user", "network-password")
			home := scheme + ".git.test"
			up := &seen{}
			for _, h := range []struct {
				host string
				port int
			}{{home, 443}, {"plain.test", 80}, {"direct.test", 443}} {
				e.upstream(h.host, h.port, up)
				at := net.JoinHostPort(h.host, fmt.Sprint(h.port))
				if h.host == "direct.test" {
					continue
				}
				e.mu.Lock()
				np.at[at] = e.at[at]
				delete(e.at, at) // by no other way
				e.mu.Unlock()
			}
			for _, h2 := range []bool{false, true} {
				res, body := do(t, e.client(home, 443, h2), "POST", "https://"+home+"/p", strings.NewReader("b"), "Authorization", "Bearer "+tokenPlaceholder)
				if r, got := up.last(); res.StatusCode != 200 || body != "ok" || got != "b" || (r.ProtoMajor == 2) != h2 || r.Header.Get("Authorization") != "Bearer "+tokenValue || r.Header.Get("Proxy-Authorization") != "" {
					t.Errorf("h2 %v: %d %s", h2, res.StatusCode, body)
				}
			}
			if res, body := do(t, e.client("plain.test", 80, false), "GET", "http://plain.test/x", nil); res.StatusCode != 200 || body != "ok" {
				t.Errorf("plain: %d %s", res.StatusCode, body)
			}
			before := len(np.asks)
			if res, body := do(t, e.client("direct.test", 443, true), "GET", "https://direct.test/x", nil); res.StatusCode != 200 || len(np.asks) != before {
				t.Errorf("direct: %d %s, %d asked of the proxy", res.StatusCode, body, len(np.asks)-before)
			}
			for _, want := range []string{"CONNECT " + home + ":443", "GET http://plain.test/x"} {
				if !strings.Contains(np.asked(), want) {
					t.Errorf("the proxy was asked: %s", np.asked())
				}
			}
			// What the proxy says is not the upstream's answer.
			for _, u := range []string{"https://unknown.test/", "http://unknown.test/"} {
				port, status := 443, 502
				if strings.HasPrefix(u, "http:") {
					port, status = 80, 503 // a proxy's 503 and a host's look alike there
				}
				if res, body := do(t, e.client("unknown.test", port, false), "GET", u, nil); res.StatusCode != status {
					t.Errorf("%s: %d %s", u, res.StatusCode, body)
				}
			}
			asked := len(np.asks)
			for _, host := range []string{"169.254.169.254", "10.0.0.1", "localhost", "2130706433"} {
				res, body := do(t, e.client(host, 80, false), "GET", "http://"+host+"/latest/meta-data/", nil)
				wantDenied(t, res, body, 403, "egress", "egress-address")
			}
			e.noNet["closed.test"] = true
			res, body := do(t, e.client("closed.test", 443, false), "GET", "https://closed.test/", nil)
			wantDenied(t, res, body, 403, "egress", "egress-list")
			if len(np.asks) != asked {
				t.Errorf("the proxy was asked for what is refused: %s", np.asked())
			}
			via.User = url.UserPassword("user", "wrong")
			for _, host := range []string{"fresh.test", "plain.test"} {
				port, scheme := 443, "https"
				if host == "plain.test" {
					port, scheme = 80, "http"
				}
				res, body := do(t, e.client(host, port, false), "GET", scheme+"://"+host+"/", nil)
				wantDenied(t, res, body, 502, "upstream", "upstream-proxy")
				if strings.Contains(body, "wrong") || bytes.Contains([]byte(body), []byte("dXNlcj")) {
					t.Errorf("the refusal holds the proxy's password: %s", body)
				}
			}
		})
	}
}
