//go:build linux

package main

import (
	"bufio"
	"bytes"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"

	"guard/internal/testutil"
)

const benchHost = "api.bench.example"

// plainProxy is Go's own reverse proxy with TLS on both sides, in a process of its
// own: it prints its address and runs until its standard input ends.
func plainProxy(upstream, cert, root string) error {
	b, err := os.ReadFile(root)
	if err != nil {
		return err
	}
	pool := x509.NewCertPool()
	pool.AppendCertsFromPEM(b)
	pair, err := tls.LoadX509KeyPair(cert, cert)
	if err != nil {
		return err
	}
	same := byVersion{}
	for i := range same {
		same[i] = &http.Transport{TLSClientConfig: &tls.Config{RootCAs: pool}, DialContext: dialTo(upstream), MaxIdleConnsPerHost: 64, ForceAttemptHTTP2: i == 2}
	}
	s := httptest.NewUnstartedServer(&httputil.ReverseProxy{
		Transport: same,
		Rewrite:   func(r *httputil.ProxyRequest) { r.SetURL(&url.URL{Scheme: "https", Host: benchHost}) },
	})
	s.EnableHTTP2 = true
	s.TLS = &tls.Config{Certificates: []tls.Certificate{pair}}
	s.StartTLS()
	defer s.Close()
	fmt.Println(s.Listener.Addr())
	_, err = io.Copy(io.Discard, os.Stdin)
	return err
}

// byVersion sends a request on as what it came as, as guard does.
type byVersion [3]*http.Transport

func (v byVersion) RoundTrip(r *http.Request) (*http.Response, error) {
	return v[min(r.ProtoMajor, 2)].RoundTrip(r)
}

// way is one of the ways to the server that are compared.
type way struct {
	name  string
	under bool   // guard
	addr  string // of a proxy, or the server
	pid   int    // of the proxy
}

// startPlain starts the plain proxy and returns its address and process.
func (b *bench) startPlain() (string, int) {
	cert := b.ca.Server(b, benchHost, "127.0.0.1")
	file := filepath.Join(b.work, "plain.pem")
	b.must(os.WriteFile(file, testutil.PEM(b, cert), 0o600))
	cmd := exec.Command(b.self, "plainproxy", b.server, file, b.ca.File)
	cmd.Stderr = os.Stderr
	in, err := cmd.StdinPipe()
	b.must(err)
	out, err := cmd.StdoutPipe()
	b.must(err)
	b.must(cmd.Start())
	b.Cleanup(func() { in.Close(); _ = cmd.Wait() })
	line, err := bufio.NewReader(out).ReadString('\n')
	b.must(err)
	root, err := os.ReadFile(b.ca.File)
	b.must(err)
	b.must(os.WriteFile(filepath.Join(b.work, "roots.pem"), root, 0o644))
	return strings.TrimSpace(line), cmd.Process.Pid
}

// startMitm starts Debian's mitmproxy as a reverse proxy that streams bodies, and
// trusts it; "" where it is not installed.
func (b *bench) startMitm() (string, int) {
	path, err := exec.LookPath("mitmdump")
	if err != nil {
		fmt.Fprintln(os.Stderr, "bench: mitmproxy is not installed (apt-get install mitmproxy): left out")
		return "", 0
	}
	conf := filepath.Join(b.work, "mitm")
	b.must(os.Mkdir(conf, 0o700))
	addr := "127.0.0.1:" + strconv.Itoa(testutil.FreePort(b))
	_, port, _ := net.SplitHostPort(addr)
	cmd := exec.Command(path, "--quiet", "--mode", "reverse:https://"+b.server, "--listen-host", "127.0.0.1", "--listen-port", port, "--ssl-insecure", "--set", "confdir="+conf,
		"--set", "stream_large_bodies=1m", "--set", "keep_host_header=true", "--set", "flow_detail=0")
	cmd.Env = b.env
	cmd.Stdout, cmd.Stderr = os.Stderr, os.Stderr
	b.must(cmd.Start())
	b.Cleanup(func() { _ = cmd.Process.Signal(syscall.SIGTERM); _ = cmd.Wait() })
	var ca []byte
	testutil.WaitFor(b, "mitmproxy listens", func() bool {
		ca, err = os.ReadFile(filepath.Join(conf, "mitmproxy-ca-cert.pem"))
		c, derr := net.Dial("tcp", addr)
		if derr == nil {
			c.Close()
		}
		return err == nil && derr == nil && bytes.Contains(ca, []byte("END CERTIFICATE"))
	})
	f, err := os.OpenFile(filepath.Join(b.work, "roots.pem"), os.O_APPEND|os.O_WRONLY, 0)
	b.must(err)
	_, err = f.Write(append([]byte("\n"), ca...))
	b.must(err)
	b.must(f.Close())
	return addr, cmd.Process.Pid
}

// memory is a field of /proc/PID/status, in bytes.
func (b *bench) memory(pid int, field string) int64 {
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	b.must(err)
	for line := range strings.Lines(string(status)) {
		if v, ok := strings.CutPrefix(line, field+":"); ok {
			n, err := strconv.ParseInt(strings.TrimSpace(strings.TrimSuffix(strings.TrimSpace(v), "kB")), 10, 64)
			b.must(err)
			return n << 10
		}
	}
	b.Fatal("no " + field)
	return 0
}
