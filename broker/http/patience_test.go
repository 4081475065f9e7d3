package http

import (
	"bufio"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"io"
	"net"
	nethttp "net/http"
	"strings"
	"testing"
	"time"
)

// TestSlowClients: who is slow with a head or a handshake is closed; a stream and a
// body that take far longer than that go on.
func TestSlowClients(t *testing.T) {
	const patience = 150 * time.Millisecond
	e := newEnv(t, func(_ *env, c *Config) { c.HeadTimeout = patience })
	next := make(chan string)
	e.upstream("api.test", 443, nethttp.HandlerFunc(func(w nethttp.ResponseWriter, r *nethttp.Request) {
		if r.Method == "POST" {
			n, err := io.Copy(io.Discard, r.Body)
			fmt.Fprint(w, n, err)
			return
		}
		w.Header().Set("Content-Type", "text/event-stream")
		w.(nethttp.Flusher).Flush()
		for s := range next {
			fmt.Fprintf(w, "data: %s\n\n", s)
			w.(nethttp.Flusher).Flush()
		}
	}))
	pool := x509.NewCertPool()
	pool.AppendCertsFromPEM(e.ca.CAPEM())
	conf := &tls.Config{RootCAs: pool, ServerName: "api.test"}
	at := e.transparent("api.test", 443)

	stream, err := e.client("api.test", 443, false).Get("https://api.test/events")
	if err != nil {
		t.Fatal(err)
	}
	defer stream.Body.Close()
	body, err := tls.Dial("tcp", at, conf)
	if err != nil {
		t.Fatal(err)
	}
	defer body.Close()
	fmt.Fprintf(body, "POST / HTTP/1.1\r\nHost: api.test\r\nContent-Length: 10\r\n\r\nhalf,")

	closed := func(name string, c net.Conn) {
		t.Helper()
		began := time.Now()
		c.SetReadDeadline(began.Add(20 * time.Second))
		if _, err := io.Copy(io.Discard, c); err != nil && strings.Contains(err.Error(), "timeout") {
			t.Errorf("%s: still open", name)
		}
		if took := time.Since(began); took < patience/2 {
			t.Errorf("%s: closed after %v", name, took)
		}
		c.Close()
	}
	c, err := tls.Dial("tcp", at, conf)
	if err != nil {
		t.Fatal(err)
	}
	io.WriteString(c, "GET / HTTP/1.1\r\nHost: api.te")
	closed("half a head", c)
	raw, err := net.Dial("tcp", at)
	if err != nil {
		t.Fatal(err)
	}
	raw.Write([]byte{0x16, 3, 1, 2, 0, 1, 0}) // the start of a hello
	closed("half a handshake", raw)

	// By now patience has run out twice over.
	r := bufio.NewReader(stream.Body)
	for _, s := range []string{"one", "two"} {
		next <- s
		if line, err := r.ReadString('\n'); err != nil || line != "data: "+s+"\n" {
			t.Errorf("the stream: %q, %v", line, err)
		}
		r.ReadString('\n')
	}
	close(next)
	io.WriteString(body, "other")
	body.SetReadDeadline(time.Now().Add(20 * time.Second))
	res, err := nethttp.ReadResponse(bufio.NewReader(body), nil)
	if err != nil {
		t.Fatal(err)
	}
	if b, _ := io.ReadAll(res.Body); string(b) != "10<nil>" && string(b) != "10 <nil>" {
		t.Errorf("the slow body: %q", b)
	}
}

// TestUpstreamEndsEarly: a server that breaks off, in the head or in the middle of a
// body, is told from one that ended.
func TestUpstreamEndsEarly(t *testing.T) {
	e := newEnv(t)
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			req, err := nethttp.ReadRequest(bufio.NewReader(c))
			if err == nil {
				io.WriteString(c, map[string]string{
					"/head": "HTTP/1.1 200 OK\r\nContent-Le", "/nothing": "", "/rubbish": "220 smtp.example.com\r\n",
					"/short":   "HTTP/1.1 200 OK\r\nContent-Length: 5000\r\n\r\nnot all",
					"/chunked": "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n7\r\nnot all\r\n",
					"/both":    "HTTP/1.1 200 OK\r\nContent-Length: 3\r\nContent-Length: 4\r\n\r\nabc",
					"/split":   "HTTP/1.1 200 OK\r\nX-A: b\rX-Evil: c\r\nContent-Length: 2\r\n\r\nok",
				}[req.URL.Path])
			}
			c.Close()
		}
	}()
	t.Cleanup(func() { l.Close(); <-done })
	e.mu.Lock()
	e.at["plain.test:80"] = l.Addr().(*net.TCPAddr).AddrPort()
	e.mu.Unlock()
	for path, want := range map[string]int{"/head": 502, "/nothing": 502, "/rubbish": 502, "/both": 502, "/short": 0, "/chunked": 0} {
		res, err := e.client("plain.test", 80, false).Get("http://plain.test" + path)
		if err != nil {
			if want != 0 {
				t.Errorf("%s: %v", path, err)
			}
			continue
		}
		b, err := io.ReadAll(res.Body)
		res.Body.Close()
		switch {
		case want == 0 && err == nil:
			t.Errorf("%s: a part was taken for the whole: %q", path, b)
		case want != 0:
			wantDenied(t, res, string(b), want, "upstream", "upstream")
		}
	}
	if res, err := e.client("plain.test", 80, false).Get("http://plain.test/split"); err == nil {
		res.Body.Close()
		if res.Header.Get("X-Evil") != "" {
			t.Error("a header came of a bare CR")
		}
	}
}
