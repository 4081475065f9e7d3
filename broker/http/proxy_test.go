package http

import (
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"io"
	"net"
	nethttp "net/http"
	"net/netip"
	"strconv"
	"strings"
	"testing"
	"time"
)

func TestBothVersions(t *testing.T) {
	e := newEnv(t)
	s := &seen{}
	e.upstream("plain.test", 443, nethttp.HandlerFunc(func(w nethttp.ResponseWriter, r *nethttp.Request) {
		w.Header().Set("Alt-Svc", `h3=":443"`)
		s.ServeHTTP(w, r)
	}))
	for _, h2 := range []bool{false, true} {
		c := e.client("plain.test", 443, h2)
		res, body := do(t, c, "POST", "https://plain.test/a%2Fb?x=1;y=%zz", strings.NewReader("hello"), "X-Mixed", "v")
		r, got := s.last()
		if body != "ok" || got != "hello" || r.RequestURI != "/a%2Fb?x=1;y=%zz" || r.Host != "plain.test" || r.ContentLength != 5 || (r.ProtoMajor == 2) != h2 {
			t.Errorf("h2 %v: %q, upstream got %s %s %q, length %d, %s", h2, body, r.Host, r.RequestURI, got, r.ContentLength, r.Proto)
		}
		if res.Header.Get("Alt-Svc") != "" {
			t.Error("the client is told of HTTP/3")
		}
		if (res.ProtoMajor == 2) != h2 {
			t.Errorf("h2 %v: client got %s", h2, res.Proto)
		}
		if r.Header.Get("X-Forwarded-For") != "" || r.Header.Get("Via") != "" || r.Header.Get("Accept-Encoding") != "" {
			t.Errorf("headers were added: %v", r.Header)
		}
	}
}

func TestLeafCertificate(t *testing.T) {
	e := newEnv(t)
	for _, host := range []string{"leaf.test", "93.184.216.34"} {
		pool := x509.NewCertPool()
		pool.AppendCertsFromPEM(e.ca.CAPEM())
		c, err := tls.Dial("tcp", e.transparent(host, 443), &tls.Config{RootCAs: pool, ServerName: host})
		if err != nil {
			t.Fatal(err)
		}
		leaf := c.ConnectionState().PeerCertificates[0]
		c.Close()
		if len(leaf.AuthorityKeyId) == 0 || len(leaf.SubjectKeyId) == 0 || leaf.VerifyHostname(host) != nil || leaf.NotAfter.After(time.Now().Add(48*time.Hour)) {
			t.Errorf("%s: AKI %x, SKI %x, names %v %v, until %s", host, leaf.AuthorityKeyId, leaf.SubjectKeyId, leaf.DNSNames, leaf.IPAddresses, leaf.NotAfter)
		}
		if len(leaf.DNSNames)+len(leaf.IPAddresses) != 1 {
			t.Errorf("%s: more than one name", host)
		}
	}
	a, _ := e.ca.Leaf("leaf.test")
	b, _ := e.ca.Leaf("leaf.test")
	if a != b {
		t.Error("the leaf is not cached")
	}
	block, rest := pem.Decode(e.ca.CAPEM())
	if block.Type != "CERTIFICATE" || len(rest) > 0 {
		t.Error("the PEM holds more than a certificate")
	}
}

func TestFrontingIsRefused(t *testing.T) {
	e := newEnv(t)
	s := &seen{}
	e.upstream("front.test", 443, s)
	e.upstream("evil.test", 443, s)
	pool := x509.NewCertPool()
	pool.AppendCertsFromPEM(e.ca.CAPEM())
	if c, err := tls.Dial("tcp", e.transparent("front.test", 443), &tls.Config{RootCAs: pool, ServerName: "evil.test"}); err == nil {
		c.Close()
		t.Error("another name in SNI was accepted")
	}
	for _, h2 := range []bool{false, true} {
		c := e.client("front.test", 443, h2)
		for _, host := range []string{"evil.test", "front.test:8443", "front.test.evil.test", "x@evil.test", ""} {
			r, _ := nethttp.NewRequest("GET", "https://front.test/", nil)
			if r.Host = host; host == "" {
				r.Host = "127.0.0.1"
			}
			res, err := c.Do(r)
			if err != nil {
				continue // refused by the server's own parser
			}
			b, _ := io.ReadAll(res.Body)
			res.Body.Close()
			if res.StatusCode == 400 {
				continue
			}
			wantDenied(t, res, string(b), 421, "protocol", "host")
		}
		for _, host := range []string{"FRONT.test", "front.test:443"} {
			r, _ := nethttp.NewRequest("GET", "https://front.test/", nil)
			r.Host = host
			res, err := c.Do(r)
			if err != nil || res.StatusCode != 200 {
				t.Errorf("Host %s: %v %v", host, res, err)
				continue
			}
			res.Body.Close()
		}
	}
	if n := s.completed(); n != 4 {
		t.Errorf("%d requests arrived, want 4", n)
	}
}

func TestRefusedMethodsAndForms(t *testing.T) {
	e := newEnv(t)
	s := &seen{}
	e.upstream("plain.test", 80, s)
	for name, tt := range map[string]struct{ send, want string }{
		"trace":         {"TRACE / HTTP/1.1\r\nHost: plain.test\r\nConnection: close\r\n\r\n", "HTTP/1.1 405"},
		"track":         {"TRACK / HTTP/1.1\r\nHost: plain.test\r\nConnection: close\r\n\r\n", "HTTP/1.1 405"},
		"two hosts":     {"GET / HTTP/1.1\r\nHost: plain.test\r\nHost: evil.test\r\n\r\n", "HTTP/1.1 400"},
		"no host":       {"GET / HTTP/1.1\r\n\r\n", "HTTP/1.1 400"},
		"two lengths":   {"POST / HTTP/1.1\r\nHost: plain.test\r\nContent-Length: 3\r\nContent-Length: 4\r\n\r\nabcd", "HTTP/1.1 400"},
		"odd chunked":   {"POST / HTTP/1.1\r\nHost: plain.test\r\nTransfer-Encoding: xchunked\r\n\r\n0\r\n\r\n", "HTTP/1.1 501"},
		"space in name": {"GET / HTTP/1.1\r\nHost: plain.test\r\nX-A : b\r\n\r\n", "HTTP/1.1 400"},
		"absolute":      {"GET http://evil.test/ HTTP/1.1\r\nHost: plain.test\r\nConnection: close\r\n\r\n", "HTTP/1.1 421"},
	} {
		if got := e.raw("plain.test", 80, tt.send); !strings.HasPrefix(got, tt.want) {
			t.Errorf("%s: %.200q", name, got)
		}
	}
	if n := s.completed(); n != 0 {
		t.Errorf("%d requests arrived", n)
	}
}

func TestSmuggling(t *testing.T) {
	e := newEnv(t)
	s := &seen{}
	e.upstream("plain.test", 80, s)
	// CL and TE: the chunked reading counts, alone, and what follows is a
	// request that is looked at like any other.
	got := e.raw("plain.test", 80, "POST /one HTTP/1.1\r\nHost: plain.test\r\nContent-Length: 60\r\nTransfer-Encoding: chunked\r\n\r\n"+
		"0\r\n\r\nGET /two HTTP/1.1\r\nHost: evil.test\r\nConnection: close\r\n\r\n")
	if strings.Contains(got, "200 OK\r\n") && strings.Count(got, "HTTP/1.1 ") > 2 {
		t.Errorf("answers: %q", got)
	}
	for _, r := range s.reqs {
		if r.URL.Path != "/one" || r.Header.Get("Content-Length") != "" && len(r.TransferEncoding) > 0 {
			t.Errorf("upstream got %s %v", r.URL, r.Header)
		}
	}
	if strings.Contains(got, "HTTP/1.1 200") && strings.Contains(got, "evil") && !strings.Contains(got, "421") {
		t.Errorf("the smuggled request was served: %q", got)
	}
}

func TestObsFoldIsUnfolded(t *testing.T) {
	e := newEnv(t)
	s := &seen{}
	e.upstream("plain.test", 80, s)
	got := e.raw("plain.test", 80, "GET / HTTP/1.1\r\nHost: plain.test\r\nX-Folded: a\r\n "+canary+"\r\nConnection: close\r\n\r\n")
	if strings.HasPrefix(got, "HTTP/1.1 200") || s.completed() != 0 {
		t.Errorf("a secret in a folded header arrived: %q", got)
	}
}

func TestHTTP10(t *testing.T) {
	e := newEnv(t)
	s := &seen{}
	e.upstream("plain.test", 80, s)
	if got := e.raw("plain.test", 80, "GET /old HTTP/1.0\r\n\r\n"); !strings.HasPrefix(got, "HTTP/1.0 200") || !strings.HasSuffix(got, "ok") {
		t.Errorf("%q", got)
	}
	if r, _ := s.last(); r == nil || r.Host != "plain.test" {
		t.Error("no Host upstream")
	}
}

func TestHostileConnectionHeader(t *testing.T) {
	e := newEnv(t)
	s := &seen{}
	e.upstream("api.test", 443, s)
	c := e.client("api.test", 443, false)
	do(t, c, "GET", "https://api.test/", nil, "Authorization", "Bearer "+tokenPlaceholder, "Connection", "close, Authorization, X-Api-Key", "X-Api-Key", "k", "Keep-Alive", "1")
	r, _ := s.last()
	if r.Header.Get("Authorization") != "Bearer "+tokenValue || r.Header.Get("X-Api-Key") != "k" || r.Header.Get("Keep-Alive") != "" {
		t.Errorf("upstream got %v", r.Header)
	}
}

func TestUpstreamFailures(t *testing.T) {
	e := newEnv(t)
	e.upstream("good.test", 443, &seen{})
	e.at["wrongname.test:443"] = e.at["good.test:443"]
	l, _ := net.Listen("tcp", "127.0.0.1:0")
	e.at["down.test:443"] = l.Addr().(*net.TCPAddr).AddrPort()
	l.Close()
	other := newTestCA(t)
	was := e.root
	e.root = other
	e.upstream("untrusted.test", 443, &seen{})
	e.root = was
	e.at["api.test:443"] = e.at["untrusted.test:443"]
	for host, rule := range map[string]string{
		"wrongname.test": "upstream-certificate", "untrusted.test": "upstream-certificate", "down.test": "upstream-connect", "nowhere.test": "upstream-name",
		"api.test": "upstream-certificate",
	} {
		res, body := do(t, e.client(host, 443, false), "GET", "https://"+host+"/p?q="+keyPlaceholder[:5], nil, "Authorization", "Bearer "+tokenPlaceholder[:8])
		wantDenied(t, res, body, 502, "upstream", rule)
	}
	if len(e.results) > 0 {
		t.Errorf("a value was used: %v", e.results)
	}
	e.noNet["good.test"] = true
	res, body := do(t, e.client("good.test", 443, true), "GET", "https://good.test/", nil)
	wantDenied(t, res, body, 403, "egress", "egress-list")
}

func TestRedirectIsNotFollowed(t *testing.T) {
	e := newEnv(t)
	other := &seen{}
	e.upstream("other.test", 443, other)
	e.upstream("api.test", 443, nethttp.RedirectHandler("https://other.test/x", 307))
	res, _ := do(t, e.client("api.test", 443, true), "GET", "https://api.test/", nil, "Authorization", "token "+tokenPlaceholder)
	if res.StatusCode != 307 || other.completed() != 0 {
		t.Errorf("status %d; %d requests at the other host", res.StatusCode, other.completed())
	}
	// A client that follows it brings the placeholder: refused there.
	res, body := do(t, e.client("other.test", 443, true), "GET", "https://other.test/x", nil, "Authorization", "token "+tokenPlaceholder)
	wantDenied(t, res, body, 403, "credential", "placeholder-host")
}

func TestIPLiteral(t *testing.T) {
	e := newEnv(t)
	s := &seen{}
	e.upstream("203.0.113.9", 443, s)
	e.upstream("2001:db8::9", 443, s)
	for _, tt := range []struct{ host, url string }{{"203.0.113.9", "https://203.0.113.9/"}, {"2001:db8::9", "https://[2001:db8::9]/"}} {
		if res, body := do(t, e.client(tt.host, 443, false), "GET", tt.url, nil); res.StatusCode != 200 {
			t.Errorf("%s: %d %s", tt.host, res.StatusCode, body)
		}
	}
	e.at = map[string]netip.AddrPort{}
	for _, host := range []string{"169.254.169.254", "10.0.0.1"} {
		res, body := do(t, e.client(host, 80, false), "GET", "http://"+host+"/latest/meta-data/", nil)
		wantDenied(t, res, body, 403, "egress", "egress-address")
	}
}

func TestExplicitProxy(t *testing.T) {
	e := newEnv(t, func(_ *env, c *Config) { c.Token = "session-token" })
	s := &seen{}
	e.upstream("api.test", 443, s)
	e.upstream("plain.test", 80, s)
	at := e.explicit()
	talk := func(c net.Conn, text string) string {
		t.Helper()
		io.WriteString(c, text)
		c.SetReadDeadline(time.Now().Add(10 * time.Second))
		// Byte by byte: what follows a CONNECT is not HTTP any more.
		var b []byte
		for one := make([]byte, 1); !strings.HasSuffix(string(b), "\r\n\r\n"); b = append(b, one[0]) {
			if _, err := c.Read(one); err != nil {
				t.Fatal(err)
			}
		}
		if _, n, ok := strings.Cut(string(b), "Content-Length: "); ok {
			n, _, _ = strings.Cut(n, "\r\n")
			size, _ := strconv.Atoi(n)
			io.ReadFull(c, make([]byte, size))
		}
		return string(b)
	}
	c, err := net.Dial("tcp", at)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	// 407 keeps the connection; the next try on it works.
	if got := talk(c, "CONNECT api.test:443 HTTP/1.1\r\nHost: api.test:443\r\n\r\n"); !strings.HasPrefix(got, "HTTP/1.1 407") || !strings.Contains(got, "Proxy-Authenticate: Basic") || strings.Contains(got, "Connection: close") {
		t.Fatalf("%q", got)
	}
	if got := talk(c, "GET http://plain.test/x HTTP/1.1\r\nHost: ignored.test\r\nProxy-Authorization: Basic eDpzZXNzaW9uLXRva2Vu\r\n\r\n"); !strings.HasPrefix(got, "HTTP/1.1 200") {
		t.Fatalf("%q", got)
	}
	if r, _ := s.last(); r.Host != "plain.test" || r.Header.Get("Proxy-Authorization") != "" || r.URL.Path != "/x" {
		t.Errorf("upstream got %s %v", r.Host, r.Header)
	}
	if got := talk(c, "GET https://api.test/y HTTP/1.1\r\nHost: api.test\r\nProxy-Authorization: Basic eDpzZXNzaW9uLXRva2Vu\r\nAuthorization: Bearer "+tokenPlaceholder+"\r\n\r\n"); !strings.HasPrefix(got, "HTTP/1.1 200") {
		t.Fatalf("absolute https: %q", got)
	}
	if r, _ := s.last(); r.Header.Get("Authorization") != "Bearer "+tokenValue {
		t.Errorf("upstream got %v", r.Header)
	}
	if got := talk(c, "GET /z HTTP/1.1\r\nHost: api.test\r\nProxy-Authorization: Basic eDpzZXNzaW9uLXRva2Vu\r\n\r\n"); !strings.HasPrefix(got, "HTTP/1.1 400") {
		t.Errorf("origin form: %q", got)
	}
	if got := talk(c, "CONNECT api.test:443 HTTP/1.1\r\nHost: api.test:443\r\nProxy-Authorization: Basic eDpzZXNzaW9uLXRva2Vu\r\n\r\n"); !strings.HasPrefix(got, "HTTP/1.1 200") {
		t.Fatalf("%q", got)
	}
	pool := x509.NewCertPool()
	pool.AppendCertsFromPEM(e.ca.CAPEM())
	tc := tls.Client(c, &tls.Config{RootCAs: pool, ServerName: "api.test"})
	if got := talk(tc, "GET /in-tunnel HTTP/1.1\r\nHost: api.test\r\nX-Api-Key: "+tokenPlaceholder+"\r\n\r\n"); !strings.HasPrefix(got, "HTTP/1.1 200") {
		t.Fatalf("%q", got)
	}
	if r, _ := s.last(); r.Header.Get("X-Api-Key") != tokenValue || r.URL.Path != "/in-tunnel" {
		t.Errorf("upstream got %s %v", r.URL, r.Header)
	}
	for _, u := range e.uses {
		if u.PID != 4242 || u.Exe != "/usr/bin/agent" {
			t.Errorf("use by %d %s", u.PID, u.Exe)
		}
	}
}

func TestOpaque(t *testing.T) {
	e := newEnv(t)
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	got := make(chan string, 4)
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			io.WriteString(c, "220 hello\r\n")
			b, _ := io.ReadAll(c)
			got <- string(b)
			c.Close()
		}
	}()
	addr := l.Addr().(*net.TCPAddr).AddrPort()
	e.at["smtp.test:25"], e.at["unlisted.test:25"] = addr, addr
	e.opaque["smtp.test:25"] = true
	c, err := net.Dial("tcp", e.transparent("smtp.test", 25))
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	b := make([]byte, 11)
	if _, err := io.ReadFull(c, b); err != nil || string(b) != "220 hello\r\n" {
		t.Fatalf("the server's first word: %q, %v", b, err)
	}
	io.WriteString(c, "EHLO x\r\n"+canary[:10])
	io.WriteString(c, canary[10:]+"\r\n")
	if rest, _ := io.ReadAll(c); len(rest) > 0 {
		t.Errorf("more came: %q", rest)
	}
	if s := <-got; strings.Contains(s, canary[10:]) {
		t.Errorf("the secret arrived: %q", s)
	}
	if s := e.raw("unlisted.test", 25, "EHLO x\r\n"); s != "" {
		t.Errorf("an unlisted port answered %q", s)
	}
	if len(got) > 0 {
		t.Error("an unlisted port was connected to")
	}
}
