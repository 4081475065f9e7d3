//go:build linux

// Command bench measures what a user of `guard run` would notice, each time
// against the same thing without guard in the same run, and prints a Markdown
// table. It needs bin/guard.
//
// It is also the client that it measures: "bench client ..." runs inside the
// session and outside of it. "bench broker" measures the broker alone.
package main

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/creack/pty"

	"guard/internal/testutil"
)

func main() {
	if len(os.Args) > 1 && os.Args[1] == "client" {
		if err := client(os.Args[2], os.Args[3], os.Args[4]); err != nil {
			fmt.Fprintln(os.Stderr, "bench client:", err)
			os.Exit(1)
		}
		return
	}
	if len(os.Args) > 1 && os.Args[1] == "drive" {
		if err := drive(os.Args[2], os.Stdin, os.Stdout); err != nil {
			fmt.Fprintln(os.Stderr, "bench drive:", err)
			os.Exit(1)
		}
		return
	}
	if len(os.Args) > 1 && os.Args[1] == "plainproxy" {
		if err := plainProxy(os.Args[2], os.Args[3], os.Args[4]); err != nil {
			fmt.Fprintln(os.Stderr, "bench plainproxy:", err)
			os.Exit(1)
		}
		return
	}
	guard, err := filepath.Abs("bin/guard")
	if err != nil {
		panic(err)
	}
	base, err := os.MkdirTemp("", "guard-bench-")
	if err == nil {
		err = testutil.Outside(base, func(t testing.TB) {
			b := newBench(t, guard, base)
			if len(os.Args) > 1 && os.Args[1] == "broker" {
				b.brokers()
				return
			}
			if len(os.Args) > 1 && os.Args[1] == "terminal" {
				b.terminal(3)
				b.echo()
				return
			}
			b.run()
			b.brokers()
		})
		os.RemoveAll(base)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
}

type bench struct {
	testing.TB
	guard, work, self string
	env               []string
	server            string // host:port
	ca                *testutil.CA
}

func newBench(t testing.TB, guard, base string) *bench {
	b := &bench{TB: t, guard: guard, work: filepath.Join(base, "work")}
	for _, d := range []string{b.work, filepath.Join(base, "home")} {
		b.must(os.Mkdir(d, 0o755))
	}
	self, err := os.Executable()
	b.must(err)
	b.self = filepath.Join(b.work, "bench") // where the session can run it
	data, err := os.ReadFile(self)
	b.must(err)
	b.must(os.WriteFile(b.self, data, 0o755))
	b.ca = testutil.NewCA(t)
	b.env = []string{
		"PATH=" + os.Getenv("PATH"), "HOME=" + filepath.Join(base, "home"), "GUARD_HOME=" + filepath.Join(base, "guard"),
		"GUARD_KEYFILE=" + filepath.Join(base, "key"), "TERM=xterm",
	}
	b.cli("", "init", "--unlock", "keyfile")
	// Twenty values, as somebody's vault may hold.
	for i := range 20 {
		b.cli("bench_"+testutil.Random(34), "secret", "set", fmt.Sprintf("token-%d", i), "--kind", "generic", "--host", benchHost, "--env", fmt.Sprintf("BENCH_TOKEN_%d", i), "--stdin")
	}
	b.server = strings.TrimPrefix(testutil.HTTPSServer(t, b.ca, http.HandlerFunc(serve), "api.bench.example", "127.0.0.1").URL, "https://")
	return b
}

// serve answers GET with as many bytes as the query says, and takes what POST
// sends.
func serve(w http.ResponseWriter, r *http.Request) {
	if r.Method == http.MethodPost {
		io.Copy(io.Discard, r.Body)
		return
	}
	n, _ := strconv.ParseInt(r.URL.Query().Get("n"), 10, 64)
	w.Header().Set("Content-Length", strconv.FormatInt(n, 10))
	io.CopyN(w, text{}, n)
}

// text is an endless stream that looks like text.
type text struct{}

var line = bytes.Repeat([]byte("GET /api/v1/items?page=3 200 12ms user=somebody trace=5f3a9c\n"), 1024)

func (text) Read(p []byte) (int, error) { return copy(p, line), nil }

// client does "requests N", "download BYTES" or "upload BYTES" against an
// address (host:port, dialled for api.bench.example) or, where it is "", what
// the name leads to. It prints nanoseconds: the median request, or the whole.
func client(what, amount, addr string) error {
	n, err := strconv.ParseInt(amount, 10, 64)
	if err != nil {
		return err
	}
	tr := &http.Transport{DisableCompression: true} // caught by its connection, no proxy variable
	pem, err := os.ReadFile(os.Getenv("SSL_CERT_FILE"))
	if err != nil {
		return err
	}
	pool := x509.NewCertPool()
	pool.AppendCertsFromPEM(pem)
	tr.TLSClientConfig = &tls.Config{RootCAs: pool}
	if addr != "-" {
		tr.DialContext = dialTo(addr)
	}
	c := &http.Client{Transport: tr}
	u := url.URL{Scheme: "https", Host: "api.bench.example", Path: "/"}
	get := func(n int64) error {
		u.RawQuery = "n=" + strconv.FormatInt(n, 10)
		resp, err := c.Get(u.String())
		if err != nil {
			return err
		}
		defer resp.Body.Close()
		got, err := io.Copy(io.Discard, resp.Body)
		if err == nil && got != n {
			err = fmt.Errorf("%d bytes instead of %d", got, n)
		}
		return err
	}
	if err := get(1); err != nil {
		return err
	}
	began := time.Now()
	switch what {
	case "requests":
		times := make([]time.Duration, n)
		for i := range times {
			t := time.Now()
			if err := get(100); err != nil {
				return err
			}
			times[i] = time.Since(t)
		}
		slices.Sort(times)
		fmt.Println(times[n/2].Nanoseconds(), times[n*99/100].Nanoseconds())
		return nil
	case "download":
		err = get(n)
	case "upload":
		var resp *http.Response
		resp, err = c.Post(u.String(), "text/plain", io.LimitReader(text{}, n))
		if err == nil {
			resp.Body.Close()
			if resp.StatusCode != 200 {
				err = fmt.Errorf("status %s", resp.Status)
			}
		}
	}
	fmt.Println(time.Since(began).Nanoseconds(), 0)
	return err
}

func (b *bench) must(err error) {
	if err != nil {
		b.Fatal(err)
	}
}

func (b *bench) cli(stdin string, args ...string) {
	cmd := exec.Command(b.guard, args...)
	cmd.Env, cmd.Dir, cmd.Stdin = b.env, b.work, strings.NewReader(stdin)
	if out, err := cmd.CombinedOutput(); err != nil {
		b.Fatalf("guard %s: %v: %s", strings.Join(args, " "), err, out)
	}
}

// command is argv by itself, or under guard.
func (b *bench) command(under bool, argv ...string) *exec.Cmd {
	if under {
		argv = append([]string{b.guard, "run", "--allow", "token-0", "--ca", b.ca.File, "--resolve", "api.bench.example:443:" + b.server, "--"}, argv...)
	}
	cmd := exec.Command(argv[0], argv[1:]...)
	cmd.Env, cmd.Dir = b.env, b.work
	return cmd
}

func (b *bench) run() {
	fmt.Println("| what | without guard | with guard | difference |\n|---|---|---|---|")
	b.start()
	b.throughput()
	b.echo()
	b.https()
}

func median(d []time.Duration) time.Duration {
	slices.Sort(d)
	return d[len(d)/2]
}

func ms(d time.Duration) string { return fmt.Sprintf("%.2f ms", float64(d.Microseconds())/1000) }

// start is `guard run -- true` against `true`, taken in turns.
func (b *bench) start() {
	var times [2][]time.Duration
	var memory int64
	for range 31 {
		for i := range 2 {
			cmd := b.command(false, "true")
			if i == 1 {
				cmd = b.command(false, b.guard, "run", "--", "true")
			}
			t := time.Now()
			b.must(cmd.Run())
			times[i] = append(times[i], time.Since(t))
			if i == 1 {
				memory = max(memory, cmd.ProcessState.SysUsage().(*syscall.Rusage).Maxrss)
			}
		}
	}
	bare, with := median(times[0]), median(times[1])
	fmt.Printf("| start and end of `true`, median of 31 | %s | %s | +%s |\n", ms(bare), ms(with), ms(with-bare))
	fmt.Printf("| resident memory of guard, at most | | %.1f MiB | |\n", float64(memory)/1024)
}

// onTTY runs cmd on a terminal of its own and returns its master.
func (b *bench) onTTY(cmd *exec.Cmd) *os.File {
	master, err := pty.StartWithSize(cmd, &pty.Winsize{Rows: 50, Cols: 200})
	b.must(err)
	return master
}

// throughput is the bytes per second of `cat` of a colour log on a terminal.
func (b *bench) throughput() {
	const size = 64 << 20
	one := []byte("\x1b[32m2026-01-02 03:04:05\x1b[0m \x1b[1mINFO\x1b[0m request served path=/api/v1/items status=200 took=12ms\r\n")
	log := bytes.Repeat(one, size/len(one))
	b.must(os.WriteFile(filepath.Join(b.work, "colour.log"), log, 0o644))
	var rates [2][]time.Duration
	for range 5 {
		for i := range 2 {
			cmd := b.command(i == 1, "cat", "colour.log")
			t := time.Now()
			master := b.onTTY(cmd)
			n, _ := io.Copy(io.Discard, master) // ends with EIO
			took := time.Since(t)
			b.must(cmd.Wait())
			master.Close()
			if n < int64(len(log)) {
				b.Fatalf("the terminal showed %d of %d bytes", n, len(log))
			}
			rates[i] = append(rates[i], took)
		}
	}
	bare, with := median(rates[0]), median(rates[1])
	mb := func(d time.Duration) string { return fmt.Sprintf("%.0f MB/s", float64(len(log))/1e6/d.Seconds()) }
	fmt.Printf("| `cat` of a 64 MiB colour log on a terminal, median of 5 | %s | %s | %.2f of it |\n", mb(bare), mb(with), bare.Seconds()/with.Seconds())
}

// echo is the time from a key to its echo.
func (b *bench) echo() {
	var got [2]time.Duration
	for i := range 2 {
		cmd := b.command(i == 1, "cat")
		master := b.onTTY(cmd)
		one := make([]byte, 4096)
		key := func() {
			_, err := master.Write([]byte("x"))
			b.must(err)
			for {
				n, err := master.Read(one)
				b.must(err)
				if bytes.IndexByte(one[:n], 'x') >= 0 {
					return
				}
			}
		}
		key() // the session is up
		var times []time.Duration
		for range 500 {
			t := time.Now()
			key()
			times = append(times, time.Since(t))
		}
		got[i] = median(times)
		_, err := master.Write([]byte("\x03"))
		b.must(err)
		io.Copy(io.Discard, master)
		_ = cmd.Wait() // ended by the interrupt
		master.Close()
	}
	fmt.Printf("| a key and its echo, median of 500 | %s | %s | %s more |\n", us(got[0]), us(got[1]), us(got[1]-got[0]))
}

func us(d time.Duration) string { return fmt.Sprintf("%.0f us", float64(d.Nanoseconds())/1000) }

// measure runs the client and returns the two numbers it prints.
func (b *bench) measure(under bool, what string, amount int64) (first, second time.Duration) {
	addr := b.server
	if under {
		addr = "-"
	}
	cmd := b.command(under, b.self, "client", what, strconv.FormatInt(amount, 10), addr)
	if !under {
		cmd.Env = append(slices.Clone(cmd.Env), "SSL_CERT_FILE="+b.ca.File)
	}
	cmd.Stderr = os.Stderr
	out, err := cmd.Output()
	b.must(err)
	var x, y int64
	_, err = fmt.Sscan(string(out), &x, &y)
	b.must(err)
	return time.Duration(x), time.Duration(y)
}

func (b *bench) https() {
	bare, bare99 := b.measure(false, "requests", 3000)
	with, with99 := b.measure(true, "requests", 3000)
	fmt.Printf("| HTTPS request on a kept connection, median of 3000 | %s | %s | +%s |\n", us(bare), us(with), us(with-bare))
	fmt.Printf("| the same, 99th percentile | %s | %s | +%s |\n", us(bare99), us(with99), us(with99-bare99))
	for _, what := range []string{"download", "upload"} {
		bare, _ := b.measure(false, what, 1<<30)
		with, _ := b.measure(true, what, 1<<30)
		mb := func(d time.Duration) string { return fmt.Sprintf("%.0f MB/s", float64(1<<30)/1e6/d.Seconds()) }
		fmt.Printf("| %s of 1 GiB over HTTPS | %s | %s | %.2f of it |\n", what, mb(bare), mb(with), bare.Seconds()/with.Seconds())
	}
}

// dialTo sends every connection to addr.
func dialTo(addr string) func(context.Context, string, string) (net.Conn, error) {
	return func(ctx context.Context, network, _ string) (net.Conn, error) {
		var d net.Dialer
		return d.DialContext(ctx, network, addr)
	}
}
