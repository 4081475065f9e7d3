//go:build linux && (amd64 || arm64)

package bpf

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"errors"
	"fmt"
	"io"
	"math/big"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// watchAll is a monitor of the whole machine, and what it found.
type watchAll struct {
	*Monitor
	mu  sync.Mutex
	evs []Event
}

func openMonitor(t testing.TB, o MonitorOptions) *watchAll {
	t.Helper()
	canWatch(t)
	m, err := OpenMonitor(o)
	if err != nil {
		if errors.Is(err, ErrNotSupported) && os.Getuid() != 0 {
			t.Skip(err)
		}
		t.Fatal(err)
	}
	w := &watchAll{Monitor: m}
	var wg sync.WaitGroup
	wg.Go(func() {
		if err := m.Follow(); !errors.Is(err, os.ErrClosed) {
			t.Errorf("Follow: %v", err)
		}
	})
	wg.Go(func() {
		for {
			e, err := m.Read()
			if err != nil {
				return
			}
			w.mu.Lock()
			w.evs = append(w.evs, e)
			w.mu.Unlock()
		}
	})
	t.Cleanup(func() {
		if err := m.Stop(); err != nil {
			t.Error(err)
		}
		wg.Wait()
		if err := m.Close(); err != nil {
			t.Error(err)
		}
		if _, err := m.Stats(); !errors.Is(err, os.ErrClosed) {
			t.Errorf("Stats after Close: %v", err)
		}
	})
	return w
}

func (w *watchAll) until(t testing.TB, what string, cond func() bool) {
	t.Helper()
	for end := time.Now().Add(20 * time.Second); !cond(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("there was never %s: %+v", what, w.TLS())
		}
	}
}

// uncovered processes of a program, also those that had ended when they were looked at.
func uncovered(w *watchAll, exe string) int {
	u := w.TLS().Uncovered
	n := u[exe]
	var st unix.Stat_t
	if unix.Stat(exe, &st) == nil {
		n += u[fmt.Sprintf("a program that has ended (inode %d)", st.Ino)]
	}
	return n
}

// of waits until a needle was found on a channel, and returns all its events.
func (w *watchAll) of(t testing.TB, id uint32, channel string) (out []Event) {
	t.Helper()
	for end := time.Now().Add(5 * time.Second); time.Now().Before(end); time.Sleep(5 * time.Millisecond) {
		w.mu.Lock()
		out = nil
		for _, e := range w.evs {
			if e.Needle == id && string(e.Channel) == channel {
				out = append(out, e)
			}
		}
		w.mu.Unlock()
		if len(out) > 0 {
			return out
		}
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	st, _ := w.Stats()
	t.Fatalf("needle %d was not found on %s; all: %+v; tls: %+v, %+v", id, channel, w.evs, w.TLS(), st.Channels[ChannelTLS])
	return nil
}

const goClient = `package main

import (
	"crypto/tls"
	"io"
	"net"
	"net/http"
	"os"
	"strings"
)

func main() {
	c := &http.Client{Transport: &http.Transport{
		TLSClientConfig: &tls.Config{InsecureSkipVerify: true},
		DialTLS: nil,
		Dial:    net.Dial,
	}}
	v, err := io.ReadAll(os.Stdin)
	if err != nil {
		panic(err)
	}
	r, err := c.Post(os.Args[1], "text/plain", strings.NewReader(string(v)))
	if err != nil {
		panic(err)
	}
	r.Body.Close()
}
`

// buildGo builds a small client, with its symbols or without.
func buildGo(t testing.TB, strip bool) string {
	t.Helper()
	goTool, err := exec.LookPath("go")
	if err != nil {
		t.Fatal(err) // it runs this test
	}
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "main.go"), []byte(goClient), 0o600); err != nil {
		t.Fatal(err)
	}
	args := []string{"build", "-o", "client"}
	if strip {
		args = append(args, "-ldflags", "-s -w")
	}
	cmd := exec.Command(goTool, append(args, "main.go")...)
	cmd.Dir = dir
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0", "GOFLAGS=", "GOWORK=off")
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	return filepath.Join(dir, "client")
}

// TestTLS leaks through each library that is known, to a server of its own.
func TestTLS(t *testing.T) {
	server := httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		io.Copy(io.Discard, r.Body)
	}))
	defer server.Close()
	const python = `import ssl, sys, urllib.request
urllib.request.urlopen(sys.argv[1], data=sys.stdin.buffer.read(), context=ssl._create_unverified_context())`
	const node = `process.env.NODE_TLS_REJECT_UNAUTHORIZED = "0"; const b = require("fs").readFileSync(0);
const r = require("https").request(process.argv[1], {method: "POST"}, s => s.resume()); r.end(b)`
	clients := []struct {
		name string
		argv []string
	}{
		{"curl", []string{"curl", "-sk", "--http1.1", "--data-binary", "@-", server.URL}},
		{"python", []string{"/usr/bin/python3", "-c", python, server.URL}},
		{"node", []string{"node", "-e", node, server.URL}},
		{"go", []string{buildGo(t, false), server.URL}},
	}
	var needles []Needle
	values := make([][]byte, len(clients)+1)
	for i := range values {
		values[i] = random(40)
		needles = append(needles, needle(uint32(i), values[i]))
	}
	w := openMonitor(t, MonitorOptions{Options: Options{All: true, Needles: needles}, TLS: true, own: "/bin/true"})
	for i, c := range clients {
		t.Run(c.name, func(t *testing.T) {
			if _, err := exec.LookPath(c.argv[0]); err != nil {
				if os.Getenv("GUARD_TEST_ALL") != "" {
					t.Fatal(err)
				}
				t.Skip(err)
			}
			// A file for standard input, whose bytes nobody writes during the search.
			in, err := os.CreateTemp(t.TempDir(), "")
			if err != nil {
				t.Fatal(err)
			}
			defer in.Close()
			if _, err := in.Write(values[i]); err != nil {
				t.Fatal(err)
			}
			if _, err := in.Seek(0, io.SeekStart); err != nil {
				t.Fatal(err)
			}
			if c.name == "go" {
				// Of a program that nobody ran before the first bytes may go unseen; then it counts
				// as uncovered. Afterwards it is known.
				if out, err := exec.Command(c.argv[0], c.argv[1:]...).CombinedOutput(); err != nil {
					t.Fatalf("%v\n%s", err, out)
				}
				w.until(t, "a probe in "+c.argv[0], func() bool { return w.TLS().Files[c.argv[0]] != nil })
			}
			cmd := exec.Command(c.argv[0], c.argv[1:]...)
			cmd.Stdin = in
			if out, err := cmd.CombinedOutput(); err != nil {
				t.Fatalf("%v\n%s", err, out)
			}
			evs := w.of(t, uint32(i), "tls")
			if len(evs) != 1 || evs[0].PID != cmd.Process.Pid {
				t.Errorf("found %d times, by %d: want once, by %d", len(evs), evs[0].PID, cmd.Process.Pid)
			}
		})
	}
	st, err := w.Stats()
	if err != nil {
		t.Fatal(err)
	}
	c := st.Channels[ChannelTLS]
	if c.Seen == 0 || c.Seen != c.Scanned+c.Unreadable+c.Oversize || c.Hits < 4 {
		t.Errorf("counters: %+v", c)
	}
	t.Run("stripped", func(t *testing.T) {
		client := buildGo(t, true)
		cmd := exec.Command(client, server.URL)
		cmd.Stdin = bytes.NewReader(values[len(clients)])
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Fatalf("%v\n%s", err, out)
		}
		w.until(t, "an uncovered process", func() bool { return uncovered(w, client) == 1 })
	})
	for _, c := range clients[:3] {
		exe, err := exec.LookPath(c.argv[0])
		if err == nil {
			exe, err = filepath.EvalSymlinks(exe)
		}
		if n := uncovered(w, exe); err == nil && n != 0 {
			t.Errorf("%s is counted as uncovered %d times", exe, n)
		}
	}
}

// TestNewProgram: what a program sends that nobody ran before is found, or the program is
// counted as uncovered.
func TestNewProgram(t *testing.T) {
	server := httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		io.Copy(io.Discard, r.Body)
	}))
	defer server.Close()
	client := buildGo(t, false)
	value := random(40)
	w := openMonitor(t, MonitorOptions{Options: Options{All: true, Needles: []Needle{needle(1, value)}}, TLS: true, own: "/bin/true"})
	cmd := exec.Command(client, server.URL)
	cmd.Stdin = bytes.NewReader(value)
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	w.until(t, "a find, or an uncovered process", func() bool {
		w.mu.Lock()
		defer w.mu.Unlock()
		for _, e := range w.evs {
			if e.Channel == ChannelTLS {
				return true
			}
		}
		return uncovered(w, client) > 0
	})
}

// TestTLSSplit cuts a value over two calls of SSL_write, in one connection and in two.
func TestTLSSplit(t *testing.T) {
	cert := selfSigned(t)
	l, err := tls.Listen("tcp", "127.0.0.1:0", &tls.Config{Certificates: []tls.Certificate{cert}})
	if err != nil {
		t.Fatal(err)
	}
	var wg sync.WaitGroup
	defer wg.Wait()
	defer l.Close()
	wg.Go(func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			wg.Go(func() {
				io.Copy(io.Discard, c)
				c.Close()
			})
		}
	})
	one, two := random(40), random(40)
	w := openMonitor(t, MonitorOptions{Options: Options{All: true, Needles: []Needle{needle(1, one), needle(2, two)}}, TLS: true, own: "/bin/true"})
	const script = `import socket, ssl, sys
host, port = sys.argv[1].rsplit(":", 1)
one, two = sys.stdin.buffer.read().split(b"\n")
def conn():
    return ssl._create_unverified_context().wrap_socket(socket.create_connection((host, int(port))))
a = conn()
a.sendall(one[:21]); a.sendall(one[21:])
b, c = conn(), conn()
b.sendall(two[:21]); c.sendall(two[21:])
`
	cmd := exec.Command("/usr/bin/python3", "-c", script, l.Addr().String())
	cmd.Stdin = bytes.NewReader(append(append(append([]byte{}, one...), '\n'), two...))
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	if evs := w.of(t, 1, "tls"); len(evs) != 1 || evs[0].Offset != -21 {
		t.Errorf("one connection: %+v", evs)
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, e := range w.evs {
		if e.Needle == 2 && e.Channel == ChannelTLS {
			t.Errorf("two connections are taken for one: %+v", e)
		}
	}
}

func selfSigned(t testing.TB) tls.Certificate {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	der, err := x509.CreateCertificate(rand.Reader, &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "test"}, IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)},
		NotAfter: time.Now().Add(time.Hour),
	}, &x509.Certificate{SerialNumber: big.NewInt(1)}, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}
}

// TestPieces has every call that writes made with every size at an edge, and wants the same bytes back.
func TestPieces(t *testing.T) {
	canWatch(t)
	cmd, jobs, reply, ns := start(t)
	p, err := OpenPieces(Options{PIDNamespace: ns})
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := p.Close(); err != nil {
			t.Error(err)
		}
	}()
	pid := cmd.Process.Pid
	for _, op := range []string{"write", "pwrite64", "writev", "sendto", "sendmsg", "sendmmsg"} {
		for _, n := range []int{1, 511, 512, 513, 4095, 4096, 4097, 20000} {
			to := map[string]string{"sendto": "socket", "sendmsg": "socket", "sendmmsg": "socket"}[op]
			if to == "" {
				to = "file"
			}
			want := random(n)
			parts := [][]byte{want}
			if op != "write" && op != "pwrite64" && op != "sendto" && n > 3 {
				parts = [][]byte{want[:n/3], want[n/3:]}
			}
			if err := jobs.Encode(job{Op: op, To: to, Calls: [][][]byte{parts}}); err != nil {
				t.Fatal(err)
			}
			if line, err := reply.ReadString('\n'); err != nil || line != "+\n" {
				t.Fatalf("%s: %q, %v", op, line, err)
			}
			var got []byte
			var e Event
			for len(got) < n {
				piece, err := p.Read()
				if err != nil {
					t.Fatal(err)
				}
				if e, err = p.Describe(piece.About); err != nil {
					t.Fatal(err)
				}
				// The child's answer goes to its standard output.
				if e.FD == 1 || piece.PID != pid {
					continue
				}
				if piece.Offset != int64(len(got)) {
					t.Fatalf("%s of %d: a piece at %d after %d bytes", op, n, piece.Offset, len(got))
				}
				got = append(got, piece.Bytes...)
			}
			if !bytes.Equal(got, want) || string(e.Channel) != to || e.Syscall != op {
				t.Errorf("%s of %d: other bytes, or another call: %s to %s", op, n, e.Syscall, e.Channel)
			}
		}
	}
	if err := p.Stop(); err != nil {
		t.Fatal(err)
	}
	for {
		if _, err := p.Read(); err != nil {
			if !errors.Is(err, os.ErrClosed) {
				t.Error(err)
			}
			break
		}
	}
	st, err := p.Stats()
	if err != nil || st.Total.Seen == 0 || st.Total.Seen != st.Total.Scanned || st.Total.Dropped != 0 {
		t.Errorf("%+v, %v", st.Total, err)
	}
}

// TestPiecesLost: what found no room in the ring is counted, to the byte.
func TestPiecesLost(t *testing.T) {
	canWatch(t)
	_, jobs, reply, ns := start(t)
	p, err := OpenPieces(Options{PIDNamespace: ns, RingBytes: 1 << 16})
	if err != nil {
		t.Fatal(err)
	}
	defer p.Close()
	if err := jobs.Encode(job{Op: "write", To: "file", Calls: [][][]byte{{random(1 << 20)}}}); err != nil {
		t.Fatal(err)
	}
	if line, err := reply.ReadString('\n'); err != nil || line != "+\n" {
		t.Fatalf("%q, %v", line, err)
	}
	if err := p.Stop(); err != nil {
		t.Fatal(err)
	}
	read, pieces := uint64(0), uint64(0)
	for {
		piece, err := p.Read()
		if err != nil {
			break
		}
		pieces++
		read += uint64(len(piece.Bytes))
	}
	st, err := p.Stats()
	if err != nil || st.Total.Dropped == 0 || read == 0 || st.Total.Scanned <= read || pieces+st.Total.Dropped < 1<<8 {
		t.Errorf("%d bytes in %d pieces came: %+v, %v", read, pieces, st.Total, err)
	}
}
