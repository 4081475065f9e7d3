//go:build linux && !race

package main

import (
	"bytes"
	"context"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"crypto/tls"
	"encoding/hex"
	"fmt"
	"hash/crc32"
	"io"
	"net"
	"net/http"
	"net/netip"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"guard"
	"guard/broker"
	"guard/broker/aws"
	brokerhttp "guard/broker/http"
	"guard/internal/testutil"
	"guard/matcher"
	"guard/supervisor"
)

// s3Bench is an S3 server that takes and gives what it is asked, a client that goes
// straight to it, and one that goes by the broker, whose leak line looks for 50 values
// and which signs anew.
type s3Bench struct {
	direct, broker *http.Client
	placeholder    string
}

const s3BenchObject = 64 << 20

func newS3Bench(b *testing.B) *s3Bench {
	b.Helper()
	object := make([]byte, s3BenchObject)
	_, _ = rand.Read(object) // never fails (crypto/rand)
	authority := testutil.NewCA(b)
	up := testutil.HTTPSServer(b, authority, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Method == http.MethodGet {
			w.Header().Set("Content-Length", strconv.Itoa(len(object)))
			_, _ = w.Write(object)
			return
		}
		if n, err := io.Copy(io.Discard, r.Body); err != nil || n != r.ContentLength {
			w.WriteHeader(http.StatusBadRequest)
		}
	}), "s3.bench.test")
	at := up.Listener.Addr().(*net.TCPAddr).AddrPort()

	var values []guard.Value
	for i := range 50 {
		values = append(values, guard.Value{ID: guard.SecretID{Context: "default", Name: fmt.Sprint("v", i), Version: 1}, Secret: guard.NewSecret([]byte(rand.Text()))})
	}
	m, err := matcher.New(values)
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { _ = m.Close() })
	pass := func(guard.Leak) guard.Decision { return guard.Decision{Action: guard.Block} }
	leaks := &supervisor.Line{Matcher: m, Decide: pass, Record: func(guard.Leak, guard.Decision) (uint64, error) { return 1, nil }}
	s := &s3Bench{placeholder: "PLACEplacePLACEplacePLACEplacePLACEplace"}
	creds := []guard.Credential{{Name: "s3", Context: "default", Version: 1, Kind: aws.Kind, User: "REALID", Hosts: []string{"s3.bench.test"}, In: []guard.Position{{Place: "none"}}, Placeholder: s.placeholder}}
	egress := &broker.Egress{
		Decide:  func(string, int, string) guard.Decision { return guard.Decision{Action: guard.Pass} },
		Resolve: func(string, int) (netip.AddrPort, bool) { return at, true },
	}
	ca, err := brokerhttp.NewCA()
	if err != nil {
		b.Fatal(err)
	}
	signer := &aws.Signer{Active: func(guard.Credential) bool { return true }}
	p, err := brokerhttp.New(brokerhttp.Config{
		Line: &broker.Line{
			Decide: func(guard.Use) guard.Decision { return guard.Decision{Action: guard.Pass} },
			Record: func(guard.Use, guard.Decision) (broker.Result, error) {
				return func(string, time.Duration, bool) {}, nil
			},
			Value: func(guard.SecretID) (guard.Secret, error) {
				return guard.NewSecret([]byte("realREALrealREALrealREALrealREALrealREAL")), nil
			},
		},
		Egress: egress, Creds: func() []guard.Credential { return creds }, Open: leaks.Open, CA: ca, Roots: authority.Pool(),
		Scrub: func([]guard.SecretID) guard.Filter { return leaks.Open(guard.Origin{Channel: guard.ChannelHTTP}) },
		Sign: func(r *brokerhttp.SignRequest) *brokerhttp.Signing {
			body := r.Body
			g := signingOf(signer.Sign(awsRequest(r)))
			if r.Body != body && r.Body != http.NoBody {
				r.Body = refusedBody{r.Body}
			}
			return g
		},
	})
	if err != nil {
		b.Fatal(err)
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		b.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	served := make(chan error, 2)
	go func() { served <- p.Serve(ctx) }()
	go func() {
		served <- serveConns(ctx, l, func(ctx context.Context, c net.Conn) { p.Handle(ctx, c, "s3.bench.test", 443) })
	}()
	b.Cleanup(func() { cancel(); <-served; <-served })
	roots := authority.Pool()
	roots.AppendCertsFromPEM(ca.CAPEM())
	client := func(addr string) *http.Client {
		tr := &http.Transport{
			DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
				return new(net.Dialer).DialContext(ctx, "tcp", addr)
			},
			TLSClientConfig: &tls.Config{RootCAs: roots}, DisableCompression: true, WriteBufferSize: 64 << 10,
		}
		b.Cleanup(tr.CloseIdleConnections)
		return &http.Client{Transport: tr}
	}
	s.direct, s.broker = client(at.String()), client(l.Addr().String())
	return s
}

// request signs one as clients of S3 do, and returns the chain of its chunks' signatures.
func (s *s3Bench) request(b *testing.B, method, payload string, body []byte, header map[string]string) func() *http.Request {
	now := time.Now().UTC()
	date, scope := now.Format("20060102T150405Z"), now.Format("20060102")+"/us-east-1/s3/aws4_request"
	mac := func(k []byte, v string) []byte {
		m := hmac.New(sha256.New, k)
		m.Write([]byte(v))
		return m.Sum(nil)
	}
	key := []byte("AWS4" + s.placeholder)
	for p := range strings.SplitSeq(scope, "/") {
		key = mac(key, p)
	}
	names := []string{"host", "x-amz-content-sha256", "x-amz-date"}
	lines := "host:s3.bench.test\nx-amz-content-sha256:" + payload + "\nx-amz-date:" + date + "\n"
	for _, k := range []string{"x-amz-decoded-content-length", "x-amz-trailer"} {
		if v := header[k]; v != "" {
			names, lines = append(names, k), lines+k+":"+v+"\n"
		}
	}
	sum := sha256.Sum256([]byte(method + "\n/data/x\n\n" + lines + "\n" + strings.Join(names, ";") + "\n" + payload))
	sig := hex.EncodeToString(mac(key, "AWS4-HMAC-SHA256\n"+date+"\n"+scope+"\n"+hex.EncodeToString(sum[:])))
	switch {
	case payload == "STREAMING-AWS4-HMAC-SHA256-PAYLOAD":
		last, empty := sig, hex.EncodeToString(sha256.New().Sum(nil))
		var out bytes.Buffer
		for rest := body; ; {
			n := min(len(rest), 128<<10)
			sum := sha256.Sum256(rest[:n])
			last = hex.EncodeToString(mac(key, "AWS4-HMAC-SHA256-PAYLOAD\n"+date+"\n"+scope+"\n"+last+"\n"+empty+"\n"+hex.EncodeToString(sum[:])))
			fmt.Fprintf(&out, "%x;chunk-signature=%s\r\n%s\r\n", n, last, rest[:n])
			if rest = rest[n:]; n == 0 {
				break
			}
		}
		body = out.Bytes()
	case strings.HasPrefix(payload, "STREAMING-UNSIGNED"):
		var out bytes.Buffer
		for rest := body; len(rest) > 0; rest = rest[min(len(rest), 1<<20):] {
			fmt.Fprintf(&out, "%x\r\n%s\r\n", min(len(rest), 1<<20), rest[:min(len(rest), 1<<20)])
		}
		fmt.Fprintf(&out, "0\r\nx-amz-checksum-crc32:%08x\r\n\r\n", crc32.ChecksumIEEE(body))
		body = out.Bytes()
	}
	return func() *http.Request {
		r, err := http.NewRequestWithContext(b.Context(), method, "https://s3.bench.test/data/x", bytes.NewReader(body))
		if err != nil {
			b.Fatal(err)
		}
		r.Header.Set("X-Amz-Date", date)
		r.Header.Set("X-Amz-Content-Sha256", payload)
		for k, v := range header {
			r.Header.Set(k, v)
		}
		r.Header.Set("Authorization", "AWS4-HMAC-SHA256 Credential="+aws.KeyID(s.placeholder)+"/"+scope+", SignedHeaders="+strings.Join(names, ";")+", Signature="+sig)
		return r
	}
}

// BenchmarkS3 moves 64 MiB, directly and by the broker, and says megabytes a second
// and megabytes for a second of CPU, of client, broker and server together.
func BenchmarkS3(b *testing.B) {
	s := newS3Bench(b)
	data := make([]byte, s3BenchObject)
	_, _ = rand.Read(data) // never fails (crypto/rand)
	sum := sha256.Sum256(data)
	empty := sha256.Sum256(nil)
	length := strconv.Itoa(len(data))
	for _, c := range []struct {
		name, method, payload string
		body                  []byte
		header                map[string]string
	}{
		{"download", "GET", hex.EncodeToString(empty[:]), nil, nil},
		{"upload", "PUT", hex.EncodeToString(sum[:]), data, nil},
		{"upload in chunks", "PUT", "STREAMING-UNSIGNED-PAYLOAD-TRAILER", data, map[string]string{"x-amz-decoded-content-length": length, "x-amz-trailer": "x-amz-checksum-crc32", "Content-Encoding": "aws-chunked"}},
		{"upload in signed chunks", "PUT", "STREAMING-AWS4-HMAC-SHA256-PAYLOAD", data, map[string]string{"x-amz-decoded-content-length": length, "Content-Encoding": "aws-chunked"}},
	} {
		next := s.request(b, c.method, c.payload, c.body, c.header)
		for _, by := range []struct {
			name   string
			client *http.Client
		}{{"direct", s.direct}, {"broker", s.broker}} {
			b.Run(c.name+"/"+by.name, func(b *testing.B) {
				b.SetBytes(s3BenchObject)
				before := cpuTime()
				for b.Loop() {
					res, err := by.client.Do(next())
					if err != nil {
						b.Fatal(err)
					}
					n, err := io.Copy(io.Discard, res.Body)
					if err != nil || res.StatusCode != 200 || c.method == "GET" && n != s3BenchObject {
						b.Fatal(res.Status, n, err)
					}
					res.Body.Close()
				}
				b.ReportMetric(float64(b.N)*s3BenchObject/1e6/(cpuTime()-before).Seconds(), "MB/cpu-s")
			})
		}
	}
}

// cpuTime is what this process has used.
func cpuTime() time.Duration {
	var u syscall.Rusage
	if syscall.Getrusage(syscall.RUSAGE_SELF, &u) != nil {
		return 0
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}
