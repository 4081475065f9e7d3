package http

import (
	"bufio"
	"context"
	"crypto/rand"
	"crypto/sha1"
	"crypto/tls"
	"crypto/x509"
	"encoding/base64"
	"encoding/binary"
	"fmt"
	"hash/crc32"
	"io"
	"net"
	nethttp "net/http"
	"net/http/httptrace"
	"net/textproto"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"
)

func TestEventsArriveOneByOne(t *testing.T) {
	e := newEnv(t)
	steps := map[string]chan bool{"/false": make(chan bool), "/true": make(chan bool)}
	e.upstream("api.test", 443, nethttp.HandlerFunc(func(w nethttp.ResponseWriter, r *nethttp.Request) {
		w.Header().Set("Content-Type", "text/event-stream")
		for {
			select {
			case <-steps[r.URL.Path]:
			case <-r.Context().Done():
				return
			}
			// The end looks like the start of the value: it must come all the same.
			fmt.Fprintf(w, "data: %s\n\ndata: g", tokenValue)
			w.(nethttp.Flusher).Flush()
		}
	}))
	for _, h2 := range []bool{false, true} {
		path := fmt.Sprint("/", h2)
		next := steps[path]
		r, _ := nethttp.NewRequest("GET", "https://api.test"+path, nil)
		r.Header.Set("Authorization", "Bearer "+tokenPlaceholder)
		ctx, cancel := context.WithCancel(t.Context())
		got := make(chan *nethttp.Response, 1)
		go func() {
			res, err := e.client("api.test", 443, h2).Do(r.WithContext(ctx))
			if err != nil {
				t.Error(err)
			}
			got <- res
		}()
		want := "data: " + tokenPlaceholder + "\n\ndata: g"
		b := make([]byte, len(want))
		next <- true
		res := <-got
		for i := range 3 {
			if _, err := io.ReadFull(res.Body, b); err != nil || string(b) != want {
				t.Fatalf("%q, %v", b, err)
			}
			if i < 2 {
				next <- true
			}
		}
		cancel()
		res.Body.Close()
	}
}

func TestBothDirectionsAtOnce(t *testing.T) {
	e := newEnv(t)
	e.upstream("rpc.test", 443, nethttp.HandlerFunc(func(w nethttp.ResponseWriter, r *nethttp.Request) {
		w.Header().Set("Content-Type", "application/grpc")
		w.Header().Set("Trailer", "Grpc-Status")
		w.WriteHeader(200)
		w.(nethttp.Flusher).Flush()
		sc := bufio.NewScanner(r.Body)
		for sc.Scan() {
			fmt.Fprintln(w, "re:", sc.Text())
			w.(nethttp.Flusher).Flush()
		}
		w.Header().Set("Grpc-Status", "0")
	}))
	pr, pw := io.Pipe()
	r, _ := nethttp.NewRequest("POST", "https://rpc.test/svc/M", pr)
	r.Header.Set("Te", "trailers")
	res, err := e.client("rpc.test", 443, true).Do(r)
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	in := bufio.NewReader(res.Body)
	for i := range 5 {
		fmt.Fprintf(pw, "m%d\n", i)
		if line, err := in.ReadString('\n'); err != nil || line != fmt.Sprintf("re: m%d\n", i) {
			t.Fatalf("%q, %v", line, err)
		}
	}
	pw.Close()
	io.Copy(io.Discard, in)
	if res.Trailer.Get("Grpc-Status") != "0" {
		t.Errorf("trailers %v", res.Trailer)
	}
}

func TestInformational(t *testing.T) {
	e := newEnv(t)
	e.upstream("api.test", 443, nethttp.HandlerFunc(func(w nethttp.ResponseWriter, r *nethttp.Request) {
		w.Header().Set("Link", "</"+tokenValue+">")
		w.WriteHeader(nethttp.StatusEarlyHints)
		w.Header().Del("Link")
		io.WriteString(w, "done")
	}))
	for _, h2 := range []bool{false, true} {
		var hints []string
		ctx := httptrace.WithClientTrace(t.Context(), &httptrace.ClientTrace{Got1xxResponse: func(code int, h textproto.MIMEHeader) error {
			hints = append(hints, fmt.Sprint(code, h.Get("Link")))
			return nil
		}})
		r, _ := nethttp.NewRequestWithContext(ctx, "GET", "https://api.test/", nil)
		r.Header.Set("X-Api-Key", tokenPlaceholder)
		res, err := e.client("api.test", 443, h2).Do(r)
		if err != nil {
			t.Fatal(err)
		}
		res.Body.Close()
		if len(hints) != 1 || hints[0] != "103</"+tokenPlaceholder+">" && hints[0] != "103 </"+tokenPlaceholder+">" {
			t.Errorf("h2 %v: %q", h2, hints)
		}
	}
}

func TestExpectContinue(t *testing.T) {
	e := newEnv(t)
	var read bool
	e.upstream("big.test", 443, nethttp.HandlerFunc(func(w nethttp.ResponseWriter, r *nethttp.Request) {
		if r.URL.Path == "/no" {
			w.WriteHeader(nethttp.StatusExpectationFailed)
			return
		}
		io.Copy(io.Discard, r.Body)
		io.WriteString(w, "got it")
	}))
	c := e.client("big.test", 443, false)
	for path, want := range map[string]int{"/yes": 200, "/no": 417} {
		read = false
		body := &noting{Reader: strings.NewReader("body"), read: &read}
		r, _ := nethttp.NewRequest("POST", "https://big.test"+path, body)
		r.ContentLength = 4
		r.Header.Set("Expect", "100-continue")
		res, err := c.Do(r)
		if err != nil {
			t.Fatal(err)
		}
		res.Body.Close()
		if res.StatusCode != want {
			t.Errorf("%s: %d", path, res.StatusCode)
		}
		if path == "/yes" && !read {
			t.Error("the body was not asked for")
		}
	}
}

type noting struct {
	io.Reader
	read *bool
}

func (n *noting) Read(p []byte) (int, error) { *n.read = true; return n.Reader.Read(p) }

// pattern gives n bytes that hold nothing.
type pattern struct{ left int64 }

func (p *pattern) Read(b []byte) (int, error) {
	if p.left == 0 {
		return 0, io.EOF
	}
	n := int(min(int64(len(b)), p.left))
	for i := range b[:n] {
		b[i] = byte('0' + i%64)
	}
	p.left -= int64(n)
	return n, nil
}

func TestLargeBodiesInBoundedMemory(t *testing.T) {
	e := newEnv(t)
	const size = 100 << 20
	sums := make(chan uint32, 1)
	e.upstream("big.test", 443, nethttp.HandlerFunc(func(w nethttp.ResponseWriter, r *nethttp.Request) {
		h := crc32.NewIEEE()
		n, _ := io.Copy(h, r.Body)
		if r.Method == "POST" {
			fmt.Fprint(w, n)
			sums <- h.Sum32()
			return
		}
		w.Header().Set("Content-Length", fmt.Sprint(size))
		io.Copy(w, &pattern{size})
	}))
	var peak uint64
	runtime.GC() // of what other tests left
	runtime.GC() // twice for pools
	var before runtime.MemStats
	runtime.ReadMemStats(&before)
	stop := make(chan struct{})
	var wg sync.WaitGroup
	wg.Go(func() {
		for {
			select {
			case <-stop:
				return
			case <-time.After(20 * time.Millisecond):
				var m runtime.MemStats
				runtime.ReadMemStats(&m)
				peak = max(peak, m.HeapInuse)
			}
		}
	})
	for _, h2 := range []bool{false, true} {
		c := e.client("big.test", 443, h2)
		for _, length := range []int64{size, -1} {
			r, _ := nethttp.NewRequest("POST", "https://big.test/", &pattern{size})
			r.ContentLength = length
			res, err := c.Do(r)
			if err != nil {
				t.Fatal(err)
			}
			b, _ := io.ReadAll(res.Body)
			res.Body.Close()
			if string(b) != fmt.Sprint(size) {
				t.Errorf("%s of %d arrived", b, size)
			}
			<-sums
		}
		res, err := c.Get("https://big.test/")
		if err != nil {
			t.Fatal(err)
		}
		n, err := io.Copy(io.Discard, res.Body)
		res.Body.Close()
		if n != size || err != nil {
			t.Errorf("%d came, %v", n, err)
		}
	}
	close(stop)
	wg.Wait()
	if peak > before.HeapInuse+80<<20 {
		t.Errorf("the heap grew from %d to %d MiB", before.HeapInuse>>20, peak>>20)
	}
}

// dialWS makes a WebSocket connection and returns it after the handshake.
func dialWS(t *testing.T, e *env, host string) (net.Conn, *bufio.Reader, string) {
	t.Helper()
	pool := x509.NewCertPool()
	pool.AppendCertsFromPEM(e.ca.CAPEM())
	c, err := tls.Dial("tcp", e.transparent(host, 443), &tls.Config{RootCAs: pool, ServerName: host})
	if err != nil {
		t.Fatal(err)
	}
	fmt.Fprintf(c, "GET /ws HTTP/1.1\r\nHost: %s\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Extensions: permessage-deflate\r\nAuthorization: Bearer %s\r\n\r\n", host, tokenPlaceholder)
	r := bufio.NewReader(c)
	var head strings.Builder
	for {
		line, err := r.ReadString('\n')
		if err != nil {
			t.Fatal(err)
		}
		head.WriteString(line)
		if line == "\r\n" {
			return c, r, head.String()
		}
	}
}

func wsFrame(op byte, payload []byte) []byte {
	b := []byte{op, 0x80 | byte(min(len(payload), 126))}
	if len(payload) > 125 {
		b = binary.BigEndian.AppendUint16(b, uint16(len(payload)))
	}
	var key [4]byte
	rand.Read(key[:])
	b = append(b, key[:]...)
	for i, c := range payload {
		b = append(b, c^key[i&3])
	}
	return b
}

func wsRead(r io.Reader) (op byte, payload []byte, err error) {
	var h [2]byte
	if _, err = io.ReadFull(r, h[:]); err != nil {
		return 0, nil, err
	}
	n := int(h[1] & 0x7f)
	if n == 126 {
		var l [2]byte
		io.ReadFull(r, l[:])
		n = int(binary.BigEndian.Uint16(l[:]))
	}
	var key [4]byte
	if h[1]&0x80 != 0 {
		io.ReadFull(r, key[:])
	}
	payload = make([]byte, n)
	_, err = io.ReadFull(r, payload)
	for i := range payload {
		payload[i] ^= key[i&3]
	}
	return h[0], payload, err
}

func TestWebSocket(t *testing.T) {
	e := newEnv(t)
	var mu sync.Mutex
	var arrived []string
	e.upstream("api.test", 443, nethttp.HandlerFunc(func(w nethttp.ResponseWriter, r *nethttp.Request) {
		c, rw, err := w.(nethttp.Hijacker).Hijack()
		if err != nil {
			t.Error(err)
			return
		}
		defer c.Close()
		sum := sha1.Sum([]byte(r.Header.Get("Sec-WebSocket-Key") + "258EAFA5-E914-47DA-95CA-C5AB0DC85B11"))
		fmt.Fprintf(c, "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: %s\r\nX-Ext: %s\r\nX-Auth: %s\r\n\r\n",
			base64.StdEncoding.EncodeToString(sum[:]), r.Header.Get("Sec-WebSocket-Extensions"), r.Header.Get("Authorization"))
		for {
			op, p, err := wsRead(rw)
			if err != nil {
				return
			}
			mu.Lock()
			arrived = append(arrived, string(p))
			mu.Unlock()
			out := []byte{op, byte(len(p))}
			if len(p) > 125 {
				out = binary.BigEndian.AppendUint16([]byte{op, 126}, uint16(len(p)))
			}
			c.Write(append(out, p...))
		}
	}))
	c, r, head := dialWS(t, e, "api.test")
	defer c.Close()
	if !strings.HasPrefix(head, "HTTP/1.1 101") || !strings.Contains(head, "X-Ext: \r\n") || !strings.Contains(head, "X-Auth: Bearer "+tokenPlaceholder) {
		t.Fatalf("%s", head)
	}
	for _, msg := range []string{"hello", "", strings.Repeat("long ", 5000), "ends like a secret: " + canary[:7], "text " + keyPlaceholder[:5]} {
		f := wsFrame(0x81, []byte(msg))
		for i := 0; i < len(f); i += max(1, len(f)/7) { // split anywhere
			c.Write(f[i:min(len(f), i+max(1, len(f)/7))])
		}
		if op, p, err := wsRead(r); err != nil || op != 0x81 || string(p) != msg {
			t.Fatalf("%x %.40q %v", op, p, err)
		}
	}
	c.Write(wsFrame(0x89, []byte("ping")))
	if op, p, err := wsRead(r); err != nil || op != 0x89 || string(p) != "ping" {
		t.Fatalf("%x %q %v", op, p, err)
	}
	c.Write(wsFrame(0x81, []byte("x "+canary)))
	if _, p, err := wsRead(r); err == nil {
		t.Errorf("after the secret came %q", p)
	}
	mu.Lock()
	defer mu.Unlock()
	for _, a := range arrived {
		if strings.Contains(a, canary) {
			t.Errorf("the secret arrived: %q", a)
		}
	}
}

func TestManyConnections(t *testing.T) {
	e := newEnv(t) // its cleanup counts the goroutines
	e.upstream("api.test", 443, nethttp.HandlerFunc(echo))
	at := e.transparent("api.test", 443)
	pool := x509.NewCertPool()
	pool.AppendCertsFromPEM(e.ca.CAPEM())
	var wg sync.WaitGroup
	for i := range 200 {
		wg.Go(func() {
			c, err := tls.Dial("tcp", at, &tls.Config{RootCAs: pool, ServerName: "api.test"})
			if err != nil {
				t.Error(err)
				return
			}
			defer c.Close()
			if i%4 == 0 {
				return // a client that goes away
			}
			fmt.Fprintf(c, "POST / HTTP/1.1\r\nHost: api.test\r\nAuthorization: Bearer %s\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n", tokenPlaceholder)
			if i%4 == 1 {
				return // in the middle
			}
			io.WriteString(c, "0\r\n\r\n")
			res, err := nethttp.ReadResponse(bufio.NewReader(c), nil)
			if err != nil {
				t.Error(err)
				return
			}
			b, _ := io.ReadAll(res.Body)
			if res.StatusCode != 200 || strings.Contains(string(b), tokenValue) || !strings.Contains(string(b), tokenPlaceholder) {
				t.Errorf("%d %s", res.StatusCode, b)
			}
			if i%4 == 2 {
				io.ReadAll(io.LimitReader(c, 0)) // an idle one, closed by the test's end
			}
		})
	}
	wg.Wait()
}
