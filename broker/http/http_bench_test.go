//go:build unix

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
	"net/http/httputil"
	"net/netip"
	"net/url"
	"runtime"
	"syscall"
	"testing"
	"time"

	"guard"
	"guard/broker"
)

// benchClients returns a client that goes through the broker, one that goes through
// Go's own reverse proxy, and one that goes straight to the same upstream.
func benchClients(b *testing.B, h nethttp.Handler) map[string]*nethttp.Client {
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
	// What Go's own reverse proxy does with TLS on both sides.
	rt := &nethttp.Transport{TLSClientConfig: &tls.Config{RootCAs: roots}, ForceAttemptHTTP2: true, MaxIdleConnsPerHost: 64,
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return new(net.Dialer).DialContext(ctx, "tcp", at.String())
		}}
	b.Cleanup(rt.CloseIdleConnections)
	rp := httptest.NewUnstartedServer(&httputil.ReverseProxy{Transport: rt, Rewrite: func(r *httputil.ProxyRequest) { r.SetURL(&url.URL{Scheme: "https", Host: "api.test"}) }})
	rp.TLS = &tls.Config{Certificates: []tls.Certificate{root.leaf(b, "api.test")}}
	rp.EnableHTTP2 = true
	rp.StartTLS()
	b.Cleanup(rp.Close)
	client := func(addr string) *nethttp.Client {
		tr := &nethttp.Transport{
			DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
				return new(net.Dialer).DialContext(ctx, "tcp", addr)
			},
			TLSClientConfig: &tls.Config{RootCAs: pool}, DisableCompression: true, MaxIdleConnsPerHost: 64,
		}
		b.Cleanup(tr.CloseIdleConnections)
		return &nethttp.Client{Transport: tr}
	}
	return map[string]*nethttp.Client{"broker": client(l.Addr().String()), "direct": client(at.String()), "plain proxy": client(rp.Listener.Addr().String())}
}

func BenchmarkKeepAlive(b *testing.B) {
	clients := benchClients(b, nethttp.HandlerFunc(func(w nethttp.ResponseWriter, _ *nethttp.Request) { io.WriteString(w, "ok") }))
	for name, c := range clients {
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
	clients := benchClients(b, nethttp.HandlerFunc(func(w nethttp.ResponseWriter, _ *nethttp.Request) {
		w.Header().Set("Content-Length", fmt.Sprint(size))
		for range size / len(chunk) {
			w.Write(chunk)
		}
	}))
	for name, c := range clients {
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
	clients := benchClients(b, nethttp.HandlerFunc(func(_ nethttp.ResponseWriter, r *nethttp.Request) { io.Copy(io.Discard, r.Body) }))
	for name, c := range clients {
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

// BenchmarkRequests is requests a second over 16 connections.
func BenchmarkRequests(b *testing.B) {
	clients := benchClients(b, nethttp.HandlerFunc(func(w nethttp.ResponseWriter, _ *nethttp.Request) { io.WriteString(w, "ok") }))
	for name, c := range clients {
		b.Run(name, func(b *testing.B) {
			b.SetParallelism(max(1, 16/runtime.GOMAXPROCS(0)))
			began := cpuTime(b)
			defer func() { b.ReportMetric(float64((cpuTime(b)-began).Microseconds())/float64(b.N), "cpu-us/op") }()
			b.RunParallel(func(pb *testing.PB) {
				for pb.Next() {
					res, err := c.Get("https://api.test/")
					if err != nil {
						b.Error(err)
						return
					}
					io.Copy(io.Discard, res.Body)
					res.Body.Close()
				}
			})
		})
	}
}

// cpuTime is what this process used, of all processors; on a busy machine it tells
// more than the clock.
func cpuTime(b *testing.B) time.Duration {
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		b.Fatal(err)
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}
