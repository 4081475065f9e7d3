package http

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"io"
	"net"
	nethttp "net/http"
	"net/http/httptest"
	"net/netip"
	"testing"

	"guard"
	"guard/broker"
)

// benchClients returns a client that goes through the broker and one that goes
// straight to the same upstream.
func benchClients(b *testing.B, h nethttp.Handler) (through, direct *nethttp.Client) {
	b.Helper()
	root := newTestCA(b)
	up := httptest.NewUnstartedServer(h)
	up.EnableHTTP2 = true
	up.TLS = &tls.Config{Certificates: []tls.Certificate{root.leaf(b, "api.test")}}
	up.StartTLS()
	b.Cleanup(up.Close)
	at := up.Listener.Addr().(*net.TCPAddr).AddrPort()
	roots := x509.NewCertPool()
	roots.AddCert(root.cert)
	ca, err := NewCA()
	if err != nil {
		b.Fatal(err)
	}
	pass := func(p []byte, _ guard.Step) ([]byte, guard.Decision) { return p, guard.Decision{Action: guard.Pass} }
	eg := &broker.Egress{
		Decide:  func(string, int, string) guard.Decision { return guard.Decision{Action: guard.Pass} },
		Resolve: func(string, int) (netip.AddrPort, bool) { return at, true },
	}
	p, err := New(Config{Line: &broker.Line{}, Egress: eg, Creds: func() []guard.Credential { return nil }, Open: func(guard.Origin) guard.Filter { return pass },
		Scrub: func([]guard.SecretID) guard.Filter { return pass }, CA: ca, Roots: roots})
	if err != nil {
		b.Fatal(err)
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		b.Fatal(err)
	}
	s := &broker.Server{Listeners: []net.Listener{&sandboxListener{l, netip.MustParseAddrPort("198.18.0.1:443")}}, HTTP: p.Handle, Egress: eg,
		Name: func(netip.Addr) (string, bool) { return "api.test", true }}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{}, 2)
	go func() { p.Serve(ctx); done <- struct{}{} }()
	go func() { s.Serve(ctx); done <- struct{}{} }()
	b.Cleanup(func() { cancel(); <-done; <-done })
	pool := x509.NewCertPool()
	pool.AddCert(root.cert)
	pool.AppendCertsFromPEM(ca.CAPEM())
	client := func(addr string) *nethttp.Client {
		tr := &nethttp.Transport{
			DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
				return new(net.Dialer).DialContext(ctx, "tcp", addr)
			},
			TLSClientConfig: &tls.Config{RootCAs: pool}, DisableCompression: true,
		}
		b.Cleanup(tr.CloseIdleConnections)
		return &nethttp.Client{Transport: tr}
	}
	return client(l.Addr().String()), client(at.String())
}

func BenchmarkKeepAlive(b *testing.B) {
	through, direct := benchClients(b, nethttp.HandlerFunc(func(w nethttp.ResponseWriter, _ *nethttp.Request) { io.WriteString(w, "ok") }))
	for name, c := range map[string]*nethttp.Client{"broker": through, "direct": direct} {
		b.Run(name, func(b *testing.B) {
			for b.Loop() {
				res, err := c.Get("https://api.test/")
				if err != nil {
					b.Fatal(err)
				}
				io.Copy(io.Discard, res.Body)
				res.Body.Close()
			}
		})
	}
}

func BenchmarkDownload(b *testing.B) {
	const size = 64 << 20
	chunk := make([]byte, 64<<10)
	through, direct := benchClients(b, nethttp.HandlerFunc(func(w nethttp.ResponseWriter, _ *nethttp.Request) {
		w.Header().Set("Content-Length", fmt.Sprint(size))
		for range size / len(chunk) {
			w.Write(chunk)
		}
	}))
	for name, c := range map[string]*nethttp.Client{"broker": through, "direct": direct} {
		b.Run(name, func(b *testing.B) {
			b.SetBytes(size)
			for b.Loop() {
				res, err := c.Get("https://api.test/")
				if err != nil {
					b.Fatal(err)
				}
				io.Copy(io.Discard, res.Body)
				res.Body.Close()
			}
		})
	}
}

func BenchmarkUpload(b *testing.B) {
	const size = 64 << 20
	through, direct := benchClients(b, nethttp.HandlerFunc(func(_ nethttp.ResponseWriter, r *nethttp.Request) { io.Copy(io.Discard, r.Body) }))
	for name, c := range map[string]*nethttp.Client{"broker": through, "direct": direct} {
		b.Run(name, func(b *testing.B) {
			b.SetBytes(size)
			for b.Loop() {
				r, _ := nethttp.NewRequest("POST", "https://api.test/", io.LimitReader(zeros{}, size))
				r.ContentLength = size
				res, err := c.Do(r)
				if err != nil {
					b.Fatal(err)
				}
				res.Body.Close()
			}
		})
	}
}

type zeros struct{}

func (zeros) Read(p []byte) (int, error) { return len(p), nil }
