package http

import (
	"bytes"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"io"
	"strings"
	"testing"
	"time"

	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"
)

// h2conn is a client that writes HTTP/2 frames as it likes.
type h2conn struct {
	t   *testing.T
	c   *tls.Conn
	f   *http2.Framer
	enc *hpack.Encoder
	buf bytes.Buffer
	id  uint32
}

func (e *env) h2(host string) *h2conn {
	e.t.Helper()
	pool := x509.NewCertPool()
	pool.AppendCertsFromPEM(e.ca.CAPEM())
	c, err := tls.Dial("tcp", e.transparent(host, 443), &tls.Config{RootCAs: pool, ServerName: host, NextProtos: []string{"h2"}})
	if err != nil {
		e.t.Fatal(err)
	}
	e.t.Cleanup(func() { c.Close() })
	c.SetDeadline(time.Now().Add(20 * time.Second))
	io.WriteString(c, http2.ClientPreface)
	h := &h2conn{t: e.t, c: c, f: http2.NewFramer(c, c), id: 1}
	h.enc = hpack.NewEncoder(&h.buf)
	h.f.ReadMetaHeaders = hpack.NewDecoder(4096, nil)
	h.f.AllowIllegalWrites = true
	if err := h.f.WriteSettings(); err != nil {
		e.t.Fatal(err)
	}
	return h
}

// ask sends a request with these fields, pairs of name and value, and returns the
// status; "reset" or "closed" where there was none.
func (h *h2conn) ask(body string, fields ...string) string {
	h.t.Helper()
	h.buf.Reset()
	for i := 0; i+1 < len(fields); i += 2 {
		h.enc.WriteField(hpack.HeaderField{Name: fields[i], Value: fields[i+1]})
	}
	id := h.id
	h.id += 2
	h.f.WriteHeaders(http2.HeadersFrameParam{StreamID: id, BlockFragment: h.buf.Bytes(), EndHeaders: true, EndStream: body == ""})
	if body != "" {
		h.f.WriteData(id, true, []byte(body))
	}
	for {
		fr, err := h.f.ReadFrame()
		if err != nil {
			var se http2.StreamError
			if errors.As(err, &se) {
				continue
			}
			return "closed"
		}
		switch fr := fr.(type) {
		case *http2.MetaHeadersFrame:
			if fr.StreamID == id {
				return fr.PseudoValue("status")
			}
		case *http2.RSTStreamFrame:
			if fr.StreamID == id {
				return "reset"
			}
		case *http2.GoAwayFrame:
			return "closed"
		case *http2.SettingsFrame:
			if !fr.IsAck() {
				h.f.WriteSettingsAck()
			}
		}
	}
}

func TestHTTP2Games(t *testing.T) {
	e := newEnv(t)
	s := &seen{}
	e.upstream("api.test", 443, s)
	e.upstream("evil.test", 443, s)
	ok := []string{":method", "GET", ":scheme", "https", ":authority", "api.test", ":path", "/ok"}
	get := func(with ...string) []string { return append(append([]string(nil), ok...), with...) }
	for name, tt := range map[string]struct {
		fields []string
		body   string
		want   string // statuses, or reset, or closed
	}{
		"as it should be":            {fields: get("te", "trailers", "x-a", "b"), want: "200"},
		"another authority":          {fields: []string{":method", "GET", ":scheme", "https", ":authority", "evil.test", ":path", "/"}, want: "421"},
		"authority of a subdomain":   {fields: []string{":method", "GET", ":scheme", "https", ":authority", "api.test.evil.test", ":path", "/"}, want: "421"},
		"authority with user":        {fields: []string{":method", "GET", ":scheme", "https", ":authority", "api.test@evil.test", ":path", "/"}, want: "400 421 reset"},
		"authority with port":        {fields: []string{":method", "GET", ":scheme", "https", ":authority", "api.test:8443", ":path", "/"}, want: "421"},
		"host besides authority":     {fields: get("host", "evil.test"), want: "200 400 421 reset"},
		"no authority, another host": {fields: []string{":method", "GET", ":scheme", "https", ":path", "/", "host", "evil.test"}, want: "400 421 reset"},
		"neither":                    {fields: []string{":method", "GET", ":scheme", "https", ":path", "/"}, want: "400 421 reset"},
		"two paths":                  {fields: get(":path", "/two"), want: "400 reset closed"},
		"two methods":                {fields: get(":method", "POST"), want: "400 reset closed"},
		"two authorities":            {fields: get(":authority", "evil.test"), want: "400 reset closed"},
		"pseudo after field":         {fields: []string{":method", "GET", ":scheme", "https", "x-a", "b", ":authority", "api.test", ":path", "/"}, want: "400 reset closed"},
		"unknown pseudo":             {fields: get(":status", "200"), want: "400 reset closed"},
		"no path":                    {fields: []string{":method", "GET", ":scheme", "https", ":authority", "api.test"}, want: "400 reset closed"},
		"empty path":                 {fields: []string{":method", "GET", ":scheme", "https", ":authority", "api.test", ":path", ""}, want: "400 reset closed"},
		"absolute path":              {fields: []string{":method", "GET", ":scheme", "https", ":authority", "api.test", ":path", "https://evil.test/"}, want: "400 reset closed"},
		"path without slash":         {fields: []string{":method", "GET", ":scheme", "https", ":authority", "api.test", ":path", "evil"}, want: "400 reset closed"},
		"blank in path":              {fields: []string{":method", "GET", ":scheme", "https", ":authority", "api.test", ":path", "/ HTTP/1.1\r\nX: y"}, want: "400 reset closed"},
		"connection field":           {fields: get("connection", "close"), want: "400 reset closed"},
		"transfer-encoding":          {fields: get("transfer-encoding", "chunked"), want: "400 reset closed"},
		"te gzip":                    {fields: get("te", "gzip"), want: "400 reset closed"},
		"upgrade":                    {fields: get("upgrade", "h2c"), want: "400 reset closed"},
		"capitals":                   {fields: get("X-Upper", "b"), want: "400 reset closed"},
		"line break in a value":      {fields: get("x-a", "b\r\nx-evil: y"), want: "400 reset closed"},
		"zero byte in a value":       {fields: get("x-a", "b\x00c"), want: "400 reset closed"},
		"colon in a name":            {fields: get("x:a", "b"), want: "400 reset closed"},
		"line break in a name":       {fields: get("x\r\na", "b"), want: "400 reset closed"},
		"body longer than said":      {fields: []string{":method", "POST", ":scheme", "https", ":authority", "api.test", ":path", "/longer", "content-length", "2"}, body: "more", want: "400 502 reset closed"},
		"two lengths":                {fields: []string{":method", "POST", ":scheme", "https", ":authority", "api.test", ":path", "/longer", "content-length", "2", "content-length", "4"}, body: "more", want: "400 502 reset closed"},
		"TRACE":                      {fields: []string{":method", "TRACE", ":scheme", "https", ":authority", "api.test", ":path", "/"}, want: "405"},
		"CONNECT":                    {fields: []string{":method", "CONNECT", ":authority", "evil.test:443"}, want: "400 405 421 reset"},
		"extended CONNECT":           {fields: []string{":method", "CONNECT", ":protocol", "websocket", ":scheme", "https", ":authority", "api.test", ":path", "/ws"}, want: "400 405 reset closed"},
		"plain scheme":               {fields: []string{":method", "GET", ":scheme", "http", ":authority", "api.test", ":path", "/ok"}, want: "200 400 421 reset"},
		"expectation":                {fields: get("expect", "nonsense"), want: "200 417"},
		"placeholder as a name":      {fields: get(strings.ToLower(keyPlaceholder), "1"), want: "403 400"},
	} {
		h := e.h2("api.test")
		if got := h.ask(tt.body, tt.fields...); !strings.Contains(" "+tt.want+" ", " "+got+" ") {
			t.Errorf("%s: %s, want %s", name, got, tt.want)
		}
	}
	// What is refused by words leaves the connection usable.
	h := e.h2("api.test")
	for range 2 {
		if a, b := h.ask("", ":method", "GET", ":scheme", "https", ":authority", "evil.test", ":path", "/"), h.ask("", ok...); a != "421" || b != "200" {
			t.Errorf("one after the other: %s, %s", a, b)
		}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	for i, r := range s.reqs {
		if s.done[i] && (r.Host != "api.test" || r.URL.Path != "/ok" && r.URL.Path != "/" || r.Method != "GET" || r.Header.Get("X-Evil") != "") {
			t.Errorf("there arrived: %s %s%s %v", r.Method, r.Host, r.URL, r.Header)
		}
	}
}
