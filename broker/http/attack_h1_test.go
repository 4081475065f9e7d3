package http

import (
	"bufio"
	"bytes"
	"compress/gzip"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"io"
	"log/slog"
	"net"
	nethttp "net/http"
	"os"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"
)

// replies splits what a connection answered into statuses.
func replies(t *testing.T, raw string) (statuses []string) {
	t.Helper()
	for r := bufio.NewReader(strings.NewReader(raw)); ; {
		res, err := nethttp.ReadResponse(r, &nethttp.Request{Method: "POST"})
		if err != nil {
			return statuses
		}
		io.Copy(io.Discard, res.Body)
		statuses = append(statuses, fmt.Sprint(res.StatusCode))
	}
}

// TestHostileRequests sends what two parsers could read in two ways. Each is
// refused, or arrives as the one request that guard inspected.
func TestHostileRequests(t *testing.T) {
	const host = "Host: plain.test\r\n"
	smuggled := "GET /smuggled HTTP/1.1\r\nHost: plain.test\r\n\r\n"
	body := func(head, body string) string { return "POST /p HTTP/1.1\r\n" + host + head + "\r\n" + body }
	for name, tt := range map[string]struct{ send, want string }{
		// Host.
		"two hosts, the same":   {"GET / HTTP/1.1\r\n" + host + host + "\r\n", "400"},
		"host with user":        {"GET / HTTP/1.1\r\nHost: plain.test@evil.test\r\n\r\n", "400 421"},
		"user before":           {"GET / HTTP/1.1\r\nHost: evil.test@plain.test\r\n\r\n", "400 421"},
		"port of another":       {"GET / HTTP/1.1\r\nHost: plain.test:22\r\n\r\n", "421"},
		"port twice":            {"GET / HTTP/1.1\r\nHost: plain.test:80:80\r\n\r\n", "400 421"},
		"port of words":         {"GET / HTTP/1.1\r\nHost: plain.test:http\r\n\r\n", "400 421"},
		"port zero":             {"GET / HTTP/1.1\r\nHost: plain.test:0\r\n\r\n", "400 421"},
		"port of 2^32+80":       {"GET / HTTP/1.1\r\nHost: plain.test:4294967376\r\n\r\n", "400 421"},
		"path in host":          {"GET / HTTP/1.1\r\nHost: plain.test/evil.test\r\n\r\n", "400 421"},
		"query in host":         {"GET / HTTP/1.1\r\nHost: plain.test?.evil.test\r\n\r\n", "400 421"},
		"fragment in host":      {"GET / HTTP/1.1\r\nHost: plain.test#.evil.test\r\n\r\n", "400 421"},
		"backslash in host":     {"GET / HTTP/1.1\r\nHost: plain.test\\evil.test\r\n\r\n", "400 421"},
		"comma in host":         {"GET / HTTP/1.1\r\nHost: plain.test,evil.test\r\n\r\n", "400 421"},
		"escaped host":          {"GET / HTTP/1.1\r\nHost: plain%2etest\r\n\r\n", "400 421"},
		"zero byte in host":     {"GET / HTTP/1.1\r\nHost: plain.test\x00.evil.test\r\n\r\n", "400 421"},
		"blank in host":         {"GET / HTTP/1.1\r\nHost: plain.test evil.test\r\n\r\n", "400 421"},
		"another name":          {"GET / HTTP/1.1\r\nHost: plain.test.evil.test\r\n\r\n", "421"},
		"punycode of another":   {"GET / HTTP/1.1\r\nHost: xn--plan-8cd.test\r\n\r\n", "421"},
		"the same in Cyrillic":  {"GET / HTTP/1.1\r\nHost: pl\u0430in.test\r\n\r\n", "400 421"},
		"full-width dot":        {"GET / HTTP/1.1\r\nHost: plain\uff0etest\r\n\r\n", "400 421"},
		"two dots at the end":   {"GET / HTTP/1.1\r\nHost: plain.test..\r\n\r\n", "400 421"},
		"brackets":              {"GET / HTTP/1.1\r\nHost: [plain.test]\r\n\r\n", "400 421 200"},
		"address with a zone":   {"GET / HTTP/1.1\r\nHost: [fe80::1%25eth0]\r\n\r\n", "400 421"},
		"folded host":           {"GET / HTTP/1.1\r\nHost: plain.test\r\n evil.test\r\n\r\n", "400 421"},
		"host after a blank":    {"GET / HTTP/1.1\r\n Host: plain.test\r\n\r\n", "400"},
		"underscored host":      {"GET / HTTP/1.1\r\n" + host + "Host_: evil.test\r\nX-Forwarded-Host: evil.test\r\n\r\n", "200"},
		"dot at the end":        {"GET / HTTP/1.1\r\nHost: plain.test.\r\n\r\n", "200"},
		"the default port":      {"GET / HTTP/1.1\r\nHost: PLAIN.test:80\r\n\r\n", "200"},
		"absolute, another":     {"GET http://evil.test/ HTTP/1.1\r\n" + host + "\r\n", "421"},
		"absolute, with user":   {"GET http://plain.test@evil.test/ HTTP/1.1\r\n" + host + "\r\n", "400 421"},
		"absolute, the same":    {"GET http://plain.test/ HTTP/1.1\r\n" + host + "\r\n", "200"},
		"two slashes":           {"GET //evil.test/ HTTP/1.1\r\n" + host + "\r\n", "200 400"},
		"asterisk":              {"GET * HTTP/1.1\r\n" + host + "\r\n", "400 200"},
		"authority form":        {"GET evil.test:80 HTTP/1.1\r\n" + host + "\r\n", "400"},
		"blank in the target":   {"GET /a b HTTP/1.1\r\n" + host + "\r\n", "400"},
		"HTTP/0.9":              {"GET /\r\n", "400"},
		"HTTP/1.2":              {"GET / HTTP/1.2\r\n" + host + "\r\n", "200 400 505"},
		"HTTP/2.0 in words":     {"GET / HTTP/2.0\r\n" + host + "\r\n", "400 505"},
		"tab in the first line": {"GET\t/\tHTTP/1.1\r\n" + host + "\r\n", "400"},
		// Lengths.
		"length twice, the same":   {body("Content-Length: 2\r\nContent-Length: 2\r\n", "ab"), "400 200"},
		"length twice":             {body("Content-Length: 2\r\nContent-Length: 60\r\n", "ab"+smuggled), "400"},
		"length list":              {body("Content-Length: 2, 60\r\n", "ab"+smuggled), "400"},
		"length with sign":         {body("Content-Length: +2\r\n", "ab"), "400"},
		"negative length":          {body("Content-Length: -2\r\n", ""), "400"},
		"length in hex":            {body("Content-Length: 0x2\r\n", "ab"), "400"},
		"length with blank":        {body("Content-Length: 1 2\r\n", "ab"+smuggled), "400"},
		"huge length":              {body("Content-Length: 99999999999999999999\r\n", "ab"), "400"},
		"length and name with tab": {body("Content-Length\t: 2\r\n", "ab"+smuggled), "400"},
		"name with a blank":        {body("Content-Length : 2\r\n", "ab"+smuggled), "400"},
		"CL and TE":                {body("Content-Length: 4\r\nTransfer-Encoding: chunked\r\n", "0\r\n\r\n"), "200 400"},
		"TE twice":                 {body("Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n", "0\r\n\r\n"), "400 501"},
		"TE identity":              {body("Transfer-Encoding: identity\r\n", smuggled), "400 501"},
		"TE list":                  {body("Transfer-Encoding: gzip, chunked\r\n", "0\r\n\r\n"), "400 501"},
		"TE chunked first":         {body("Transfer-Encoding: chunked, identity\r\n", "0\r\n\r\n"), "400 501"},
		"TE with a tab":            {body("Transfer-Encoding:\tchunked\r\n", "0\r\n\r\n"), "200 400 501"},
		"TE vertical tab":          {body("Transfer-Encoding: \x0bchunked\r\n", "0\r\n\r\n"), "400 501"},
		"TE folded":                {body("Transfer-Encoding:\r\n chunked\r\n", "0\r\n\r\n"), "200 400 501"},
		"TE in HTTP/1.0":           {"POST /p HTTP/1.0\r\n" + host + "Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n", "200 400 501"},
		"chunk size with sign":     {body("Transfer-Encoding: chunked\r\n", "+1\r\na\r\n0\r\n\r\n"), "400 502"},
		"chunk size 0x":            {body("Transfer-Encoding: chunked\r\n", "0x1\r\na\r\n0\r\n\r\n"), "400 502"},
		"chunk size too large":     {body("Transfer-Encoding: chunked\r\n", "fffffffffffffffff\r\na\r\n0\r\n\r\n"), "400 502"},
		"chunk with bare LF":       {body("Transfer-Encoding: chunked\r\n", "1\na\n0\n\n"), "200 400 502"},
		"chunk longer than said":   {body("Transfer-Encoding: chunked\r\n", "1\r\nabc\r\n0\r\n\r\n"), "400 502"},
		"chunk extension":          {body("Transfer-Encoding: chunked\r\n", "1;x=\"\n0\r\n\r\nGET /smuggled HTTP/1.1\r\n\"\r\na\r\n0\r\n\r\n"), "200 400 502"},
		"fat GET":                  {"GET /p HTTP/1.1\r\n" + host + "Content-Length: 2\r\n\r\nab", "200"},
		"header without a colon":   {"GET / HTTP/1.1\r\n" + host + "X-Nothing\r\n\r\n", "400"},
		"bare CR":                  {"GET / HTTP/1.1\r\n" + host + "X-A: b\rX-B: c\r\n\r\n", "400"},
		"zero byte in a value":     {"GET / HTTP/1.1\r\n" + host + "X-A: b\x00c\r\n\r\n", "400"},
		"name of nothing":          {"GET / HTTP/1.1\r\n" + host + ": b\r\n\r\n", "400"},
		"huge head":                {"GET / HTTP/1.1\r\n" + host + "X-A: " + strings.Repeat("a", 3<<20) + "\r\n\r\n", "431"},
	} {
		t.Run(name, func(t *testing.T) {
			e := newEnv(t)
			s := &seen{}
			e.upstream("plain.test", 80, s)
			e.upstream("evil.test", 80, s)
			c, err := net.Dial("tcp", e.transparent("plain.test", 80))
			if err != nil {
				t.Fatal(err)
			}
			defer c.Close()
			c.SetDeadline(time.Now().Add(20 * time.Second))
			// The refusal of a head may come before all of it was written.
			go io.WriteString(c, tt.send+"GET /after HTTP/1.1\r\n"+host+"Connection: close\r\n\r\n")
			raw, _ := io.ReadAll(c)
			got := replies(t, string(raw))
			if len(got) == 0 || !strings.Contains(" "+tt.want+" ", " "+got[0]+" ") {
				t.Errorf("answers %v, want %s first: %.200q", got, tt.want, raw)
			}
			s.mu.Lock()
			defer s.mu.Unlock()
			for i, r := range s.reqs {
				if !s.done[i] {
					continue
				}
				path := r.URL.Path
				if !strings.EqualFold(strings.TrimSuffix(strings.TrimSuffix(r.Host, ":80"), "."), "plain.test") && name != "brackets" || strings.Contains(path, "smuggled") ||
					path != "/" && path != "/p" && path != "/after" && path != "//evil.test/" && path != "*" {
					t.Errorf("there arrived %s %s %s", r.Method, r.Host, r.RequestURI)
				}
			}
		})
	}
}

// TestHopByHop: what a Connection header names is not taken away, and hop-by-hop
// fields do not go on.
func TestHopByHop(t *testing.T) {
	e := newEnv(t)
	s := &seen{}
	e.upstream("api.test", 443, s)
	c := e.client("api.test", 443, false)
	for _, connection := range []string{"Authorization", "close, authorization", "keep-alive, Content-Type, Host, X-Custom", "Transfer-Encoding, Content-Length", "Cookie, Content-Encoding"} {
		res, body := do(t, c, "POST", "https://api.test/", strings.NewReader("text"), "Connection", connection, "Authorization", "Bearer "+tokenPlaceholder, "Content-Type", "text/plain",
			"X-Custom", "v", "Cookie", "a=b", "Keep-Alive", "timeout=5", "Proxy-Connection", "keep-alive", "Te", "gzip", "Upgrade-Insecure-Requests", "1")
		r, got := s.last()
		if res.StatusCode != 200 || body != "ok" || got != "text" || r.Header.Get("Authorization") != "Bearer "+tokenValue || r.Header.Get("Content-Type") != "text/plain" ||
			r.Header.Get("X-Custom") != "v" || r.Header.Get("Cookie") != "a=b" || r.Header.Get("Upgrade-Insecure-Requests") != "1" {
			t.Errorf("%s: %d %q; upstream got %q %v", connection, res.StatusCode, body, got, r.Header)
		}
		for _, k := range []string{"Connection", "Keep-Alive", "Proxy-Connection", "Te"} {
			if r.Header.Get(k) != "" {
				t.Errorf("%s: %s went on", connection, k)
			}
		}
	}
}

// TestReplyForms: replies without a body, and those that are coded, arrive as they
// were sent.
func TestReplyForms(t *testing.T) {
	e := newEnv(t)
	text := strings.Repeat("nothing of note ", 4000)
	bodies := map[string][]byte{}
	for _, coding := range []string{"gzip", "deflate", "br", "zstd"} {
		bodies[coding] = coded(t, coding, []byte(text))
	}
	e.upstream("web.test", 443, nethttp.HandlerFunc(func(w nethttp.ResponseWriter, r *nethttp.Request) {
		w.Header().Set("Etag", `"1"`)
		switch what := strings.TrimPrefix(r.URL.Path, "/"); what {
		case "204", "304", "205":
			fmt.Sscan(what, new(int))
			code := map[string]int{"204": 204, "304": 304, "205": 205}[what]
			w.WriteHeader(code)
		case "range":
			nethttp.ServeContent(w, r, "x.txt", time.Unix(1, 0), strings.NewReader(text))
		default:
			if b, ok := bodies[what]; ok {
				w.Header().Set("Content-Encoding", what)
				w.Header().Set("Content-Length", fmt.Sprint(len(b)))
				w.Write(b)
				return
			}
			w.Header().Set("Content-Length", "1234")
			if r.Method != "HEAD" {
				io.WriteString(w, strings.Repeat("x", 1234))
			}
		}
	}))
	for _, h2 := range []bool{false, true} {
		c := e.client("web.test", 443, h2)
		for _, code := range []int{204, 304, 205} {
			res, body := do(t, c, "GET", fmt.Sprintf("https://web.test/%d", code), nil)
			if res.StatusCode != code || body != "" || res.Header.Get("Etag") != `"1"` {
				t.Errorf("%d: %d %q %v", code, res.StatusCode, body, res.Header)
			}
		}
		res, body := do(t, c, "HEAD", "https://web.test/head", nil)
		if res.StatusCode != 200 || res.ContentLength != 1234 || body != "" {
			t.Errorf("HEAD: %d, length %d, %q", res.StatusCode, res.ContentLength, body)
		}
		res, body = do(t, c, "GET", "https://web.test/range", nil, "Range", "bytes=16-31")
		if res.StatusCode != 206 || body != "nothing of note " || res.Header.Get("Content-Range") == "" {
			t.Errorf("a range where no credential belongs: %d %q", res.StatusCode, body)
		}
		for coding, b := range bodies {
			res, body := do(t, c, "GET", "https://web.test/"+coding, nil, "Accept-Encoding", coding)
			if res.Header.Get("Content-Encoding") != coding || body != string(b) || res.ContentLength != int64(len(b)) {
				t.Errorf("%s: %d bytes of %d, %v", coding, len(body), len(b), res.Header)
			}
		}
	}
}

// TestCodedBodies: every coding of a request is looked into, and what holds nothing
// goes on as it is.
func TestCodedBodies(t *testing.T) {
	e := newEnv(t)
	s := &seen{}
	e.upstream("web.test", 443, s)
	for _, h2 := range []bool{false, true} {
		c := e.client("web.test", 443, h2)
		for _, coding := range []string{"gzip", "deflate", "br", "zstd"} {
			plain := []byte(strings.Repeat("nothing of note ", 4000))
			b := coded(t, coding, plain)
			res, _ := do(t, c, "POST", "https://web.test/", bytes.NewReader(b), "Content-Encoding", coding)
			if r, got := s.last(); res.StatusCode != 200 || got != string(b) || r.Header.Get("Content-Encoding") != coding {
				t.Errorf("%s: %d", coding, res.StatusCode)
			}
			n := s.completed()
			b = coded(t, coding, append(plain, canary...))
			res, body := do(t, c, "POST", "https://web.test/", bytes.NewReader(b), "Content-Encoding", coding)
			wantDenied(t, res, body, 403, "leak", "test-leak")
			var twice bytes.Buffer
			zw := gzip.NewWriter(&twice)
			zw.Write(b)
			zw.Close()
			res, body = do(t, c, "POST", "https://web.test/", &twice, "Content-Encoding", coding+", gzip")
			wantDenied(t, res, body, 403, "leak", "test-leak")
			if s.completed() != n {
				t.Errorf("%s: the secret arrived", coding)
			}
		}
	}
}

func descriptors(t *testing.T) int {
	t.Helper()
	d, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Skipf("no list of descriptors: %v", err)
	}
	return len(d)
}

// TestThousandConnections keeps 1,000 connections in use at once, then ends them in
// every way; newEnv counts the goroutines that are left.
func TestThousandConnections(t *testing.T) {
	if runtime.GOOS != "linux" {
		t.Skip("descriptors are counted in /proc")
	}
	const n = 1000
	before := descriptors(t)
	t.Run("at once", func(t *testing.T) {
		e := newEnv(t)
		arrived, release := make(chan struct{}, n), make(chan struct{})
		e.upstream("api.test", 443, nethttp.HandlerFunc(func(w nethttp.ResponseWriter, r *nethttp.Request) {
			arrived <- struct{}{}
			select {
			case <-release:
			case <-r.Context().Done():
				return
			}
			io.WriteString(w, "so "+r.Header.Get("Authorization"))
		}))
		at := e.transparent("api.test", 443)
		pool := x509.NewCertPool()
		pool.AppendCertsFromPEM(e.ca.CAPEM())
		conf := &tls.Config{RootCAs: pool, ServerName: "api.test", NextProtos: []string{"http/1.1"}}
		var wg sync.WaitGroup
		dial := make(chan struct{}, 32) // as many handshakes at a time
		for i := range n {
			wg.Go(func() {
				dial <- struct{}{}
				c, err := tls.Dial("tcp", at, conf)
				<-dial
				if err != nil {
					t.Error(err)
					return
				}
				defer c.Close()
				fmt.Fprintf(c, "GET / HTTP/1.1\r\nHost: api.test\r\nAuthorization: Bearer %s\r\n\r\n", tokenPlaceholder)
				if i%10 == 9 {
					<-release
					return // goes away without having read
				}
				res, err := nethttp.ReadResponse(bufio.NewReader(c), nil)
				if err != nil {
					t.Error(err)
					return
				}
				b, err := io.ReadAll(res.Body)
				if err != nil || string(b) != "so Bearer "+tokenPlaceholder {
					t.Errorf("%q, %v", b, err)
				}
			})
		}
		for range n {
			<-arrived
		}
		close(release)
		wg.Wait()
	})
	for end := time.Now().Add(20 * time.Second); descriptors(t) > before+2; runtime.Gosched() {
		if time.Now().After(end) {
			t.Fatalf("%d descriptors, %d before", descriptors(t), before)
		}
	}
}

// TestMalformedRequestsAreNotQuoted: what cannot be read may hold a secret, so the
// answer to it, and the log, repeat nothing of it.
func TestMalformedRequestsAreNotQuoted(t *testing.T) {
	var logged bytes.Buffer
	e := newEnv(t, func(_ *env, c *Config) { c.Log = slog.New(slog.NewTextHandler(&logged, nil)) })
	e.upstream("plain.test", 80, &seen{})
	mark := "marked-" + canary
	for _, send := range []string{
		"GET / " + mark + "\r\n\r\n", "GET /" + mark + " HTTP/9\r\n\r\n", "GET / HTTP/1.1\r\nHost: " + mark + "/\r\n\r\n", "GET / HTTP/1.1\r\n" + mark + "\r\n\r\n",
		"GET / HTTP/1.1\r\nHost: plain.test\r\n" + mark + " : x\r\n\r\n", "POST / HTTP/1.1\r\nHost: plain.test\r\nTransfer-Encoding: " + mark + "\r\n\r\n",
		"POST / HTTP/1.1\r\nHost: plain.test\r\nContent-Length: " + mark + "\r\n\r\n", "POST / HTTP/1.1\r\nHost: plain.test\r\nContent-Length: 1\r\nContent-Length: 2\r\nX: " + mark + "\r\n\r\n",
		"POST / HTTP/1.1\r\nHost: plain.test\r\nTransfer-Encoding: chunked\r\n\r\n" + mark + "\r\n", "GET /%zz" + mark + " HTTP/1.1\r\nHost: plain.test\r\n\r\n",
		"GET http://" + mark + ":x/ HTTP/1.1\r\nHost: plain.test\r\n\r\n", "GET / HTTP/1.1\r\nHost: plain.test\r\nExpect: " + mark + "\r\nConnection: close\r\n\r\n",
		"GET / HTTP/1.1\r\nHost: plain.test\r\nContent-Encoding: " + mark + "\r\nContent-Length: 1\r\nConnection: close\r\n\r\nx",
	} {
		if got := e.raw("plain.test", 80, send); strings.Contains(got, canary[:12]) || strings.Contains(got, " 200 ") {
			t.Errorf("%.40q: %q", send, got)
		}
	}
	if strings.Contains(logged.String(), canary[:12]) {
		t.Errorf("the log: %s", logged.String())
	}
}
