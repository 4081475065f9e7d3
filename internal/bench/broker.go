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
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

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
	s := httptest.NewUnstartedServer(&httputil.ReverseProxy{
		Transport: &http.Transport{TLSClientConfig: &tls.Config{RootCAs: pool}, DialContext: dialTo(upstream), MaxIdleConnsPerHost: 64},
		Rewrite:   func(r *httputil.ProxyRequest) { r.SetURL(&url.URL{Scheme: "https", Host: benchHost}) },
	})
	s.TLS = &tls.Config{Certificates: []tls.Certificate{pair}}
	s.StartTLS()
	defer s.Close()
	fmt.Println(s.Listener.Addr())
	_, err = io.Copy(io.Discard, os.Stdin)
	return err
}

// load makes n requests over 16 connections and returns how long all of it took.
func load(c *http.Client, u string, n int64) (time.Duration, error) {
	c.Transport.(*http.Transport).MaxIdleConnsPerHost = 64
	var (
		wg     sync.WaitGroup
		left   atomic.Int64
		failed atomic.Pointer[error]
	)
	left.Store(n)
	began := time.Now()
	for range 16 {
		wg.Go(func() {
			for left.Add(-1) >= 0 {
				resp, err := c.Get(u)
				if err == nil {
					_, err = io.Copy(io.Discard, resp.Body)
					resp.Body.Close()
				}
				if err != nil {
					failed.Store(&err)
					return
				}
			}
		})
	}
	wg.Wait()
	if err := failed.Load(); err != nil {
		return 0, *err
	}
	return time.Since(began), nil
}

// idle makes n connections with a request each, says so and keeps them until its
// standard input ends.
func idle(tr *http.Transport, u string, n int64) error {
	dial := tr.DialContext
	if dial == nil {
		var d net.Dialer
		dial = d.DialContext
	}
	for range n {
		c := &http.Client{Transport: &http.Transport{TLSClientConfig: tr.TLSClientConfig, DialContext: dial, DisableCompression: true}}
		resp, err := c.Get(u)
		if err != nil {
			return err
		}
		if _, err := io.Copy(io.Discard, resp.Body); err != nil {
			return err
		}
		resp.Body.Close()
	}
	fmt.Println("ready")
	_, err := io.Copy(io.Discard, os.Stdin)
	return err
}

// way is one of the ways to the server that are compared.
type way struct {
	name  string
	under bool   // guard
	addr  string // of a proxy, or the server
}

// brokers compares the broker with a direct connection, Go's own reverse proxy and
// mitmproxy, each in turn, three times.
func (b *bench) brokers() {
	ways := []way{{name: "direct", addr: b.server}, {name: "guard", under: true, addr: "-"}, {name: "plain Go reverse proxy", addr: b.startPlain()}}
	if addr := b.startMitm(); addr != "" {
		ways = append(ways, way{name: "mitmproxy", addr: addr})
	}
	fmt.Println("\n| broker, median of 3 rounds | p50 | p99 | requests/s, 16 connections | download | upload |\n|---|---|---|---|---|---|")
	rows := make([][5][]time.Duration, len(ways))
	const requests, many, big = 2000, 4000, 256 << 20
	for range 3 {
		for i, w := range ways {
			p50, p99 := b.measureAt(w, "requests", requests)
			all, _ := b.measureAt(w, "load", many)
			down, _ := b.measureAt(w, "download", big)
			up, _ := b.measureAt(w, "upload", big)
			for k, d := range []time.Duration{p50, p99, all, down, up} {
				rows[i][k] = append(rows[i][k], d)
			}
		}
	}
	for i, w := range ways {
		m := func(k int) time.Duration { return median(rows[i][k]) }
		mb := func(k int) string { return fmt.Sprintf("%.0f MB/s", float64(big)/1e6/m(k).Seconds()) }
		fmt.Printf("| %s | %s | %s | %.0f | %s | %s |\n", w.name, us(m(0)), us(m(1)), many/m(2).Seconds(), mb(3), mb(4))
	}
	b.idleMemory()
	b.large()
}

func (b *bench) measureAt(w way, what string, amount int64) (first, second time.Duration) {
	cmd := b.command(w.under, b.self, "client", what, strconv.FormatInt(amount, 10), w.addr)
	if !w.under {
		cmd.Env = append(slices.Clone(cmd.Env), "SSL_CERT_FILE="+filepath.Join(b.work, "roots.pem"))
	}
	cmd.Stderr = os.Stderr
	out, err := cmd.Output()
	b.must(err)
	var x, y int64
	_, err = fmt.Sscan(string(out), &x, &y)
	b.must(err)
	return time.Duration(x), time.Duration(y)
}

// startPlain starts the plain proxy and returns its address.
func (b *bench) startPlain() string {
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
	return strings.TrimSpace(line)
}

// startMitm starts Debian's mitmproxy as a reverse proxy that streams bodies, and
// trusts it; "" where it is not installed.
func (b *bench) startMitm() string {
	path, err := exec.LookPath("mitmdump")
	if err != nil {
		fmt.Fprintln(os.Stderr, "bench: mitmproxy is not installed (apt-get install mitmproxy): left out")
		return ""
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
	return addr
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

// held starts a session whose client holds n connections and gives guard's memory to
// measure.
func (b *bench) held(n int64) int64 {
	cmd := b.command(true, b.self, "client", "idle", strconv.FormatInt(n, 10), "-")
	in, err := cmd.StdinPipe()
	b.must(err)
	out, err := cmd.StdoutPipe()
	b.must(err)
	cmd.Stderr = os.Stderr
	b.must(cmd.Start())
	line, err := bufio.NewReader(out).ReadString('\n')
	b.must(err)
	if line != "ready\n" {
		b.Fatal("the client did not connect")
	}
	rss := b.memory(cmd.Process.Pid, "VmRSS")
	b.must(in.Close())
	b.must(cmd.Wait())
	return rss
}

func (b *bench) idleMemory() {
	const n = 1000
	one, many := b.held(1), b.held(n+1)
	fmt.Printf("\nguard's resident memory: %.1f MiB with 1 idle connection, %.1f MiB with %d: %.0f KiB for each.\n", float64(one)/(1<<20), float64(many)/(1<<20), n+1, float64(many-one)/n/1024)
}

// large is a body of 5 GiB in each direction, and the most memory that guard took.
func (b *bench) large() {
	for _, what := range []string{"download", "upload"} {
		cmd := b.command(true, b.self, "client", what, strconv.FormatInt(5<<30, 10), "-")
		var out bytes.Buffer
		cmd.Stdout, cmd.Stderr = &out, os.Stderr
		b.must(cmd.Start())
		var peak atomic.Int64
		stop, done := make(chan struct{}), make(chan struct{})
		go func() {
			defer close(done)
			for {
				select {
				case <-stop:
					return
				case <-time.After(50 * time.Millisecond):
					if status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", cmd.Process.Pid)); err == nil {
						var n int64
						if _, after, ok := strings.Cut(string(status), "VmHWM:"); ok {
							fmt.Sscan(after, &n)
							peak.Store(max(peak.Load(), n<<10))
						}
					}
				}
			}
		}()
		err := cmd.Wait()
		close(stop)
		<-done
		b.must(err)
		var ns int64
		fmt.Sscan(out.String(), &ns)
		fmt.Printf("%s of 5 GiB: %.0f MB/s, guard's resident memory at most %.1f MiB.\n", what, float64(5<<30)/1e6/time.Duration(ns).Seconds(), float64(peak.Load())/(1<<20))
	}
}
