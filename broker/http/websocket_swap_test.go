package http

import (
	"bufio"
	"crypto/sha1"
	"crypto/tls"
	"crypto/x509"
	"encoding/base64"
	"encoding/binary"
	"fmt"
	"io"
	"net"
	nethttp "net/http"
	"strings"
	"sync"
	"testing"

	"guard"
)

// wsEcho keeps what arrives and sends it back.
type wsEcho struct {
	mu      sync.Mutex
	arrived []string
}

func (s *wsEcho) ServeHTTP(w nethttp.ResponseWriter, r *nethttp.Request) {
	c, rw, err := w.(nethttp.Hijacker).Hijack()
	if err != nil {
		return
	}
	defer c.Close()
	sum := sha1.Sum([]byte(r.Header.Get("Sec-WebSocket-Key") + "258EAFA5-E914-47DA-95CA-C5AB0DC85B11"))
	fmt.Fprintf(c, "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: %s\r\n\r\n", base64.StdEncoding.EncodeToString(sum[:]))
	for {
		op, p, err := wsRead(rw)
		if err != nil {
			return
		}
		s.mu.Lock()
		s.arrived = append(s.arrived, string(p))
		s.mu.Unlock()
		out := []byte{op, byte(len(p))}
		if len(p) > 125 {
			out = binary.BigEndian.AppendUint16([]byte{op, 126}, uint16(len(p)))
		}
		c.Write(append(out, p...))
	}
}

func (s *wsEcho) got(i int) string {
	s.mu.Lock()
	defer s.mu.Unlock()
	if i >= len(s.arrived) {
		return ""
	}
	return s.arrived[i]
}

func (e *env) ws(host string) (net.Conn, *bufio.Reader) {
	e.t.Helper()
	pool := x509.NewCertPool()
	pool.AppendCertsFromPEM(e.ca.CAPEM())
	c, err := tls.Dial("tcp", e.transparent(host, 443), &tls.Config{RootCAs: pool, ServerName: host})
	if err != nil {
		e.t.Fatal(err)
	}
	e.t.Cleanup(func() { c.Close() })
	fmt.Fprintf(c, "GET /ws HTTP/1.1\r\nHost: %s\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n", host)
	r := bufio.NewReader(c)
	for {
		line, err := r.ReadString('\n')
		if err != nil {
			e.t.Fatal(err)
		}
		if line == "\r\n" {
			return c, r
		}
	}
}

func TestWebSocketSwap(t *testing.T) {
	value := "wsv_" + strings.Repeat("r", 20)
	ph := "wsp_" + strings.Repeat("f", 20)
	e := newEnv(t, func(e *env, c *Config) {
		e.creds = []guard.Credential{
			{Name: "frame", Context: "default", Version: 1, Hosts: []string{"chat.test"}, Placeholder: ph, In: []guard.Position{{Place: "frame"}}},
			{Name: "header", Context: "default", Version: 1, Hosts: []string{"chat.test"}, Placeholder: keyPlaceholder},
		}
		c.Line.Value = func(id guard.SecretID) (guard.Secret, error) { return guard.NewSecret([]byte(value)), nil }
		c.Scrub = func([]guard.SecretID) guard.Filter { return search(guard.Redact, map[string]string{value: ph}, nil) }
	})
	s := &wsEcho{}
	e.upstream("chat.test", 443, s)
	e.upstream("other.test", 443, s)
	c, r := e.ws("chat.test")
	say := func(frames ...[]byte) {
		t.Helper()
		for _, f := range frames {
			if _, err := c.Write(f); err != nil {
				t.Fatal(err)
			}
		}
	}
	read := func() string {
		t.Helper()
		_, p, err := wsRead(r)
		if err != nil {
			t.Fatal(err)
		}
		return string(p)
	}
	// In the middle, at the ends, twice, alone; the client never sees the value.
	n := 0
	for _, text := range []string{`{"op":2,"d":{"token":"` + ph + `"}}`, ph, ph + " and " + ph, "nothing", "ends in " + ph[:10], ph + strings.Repeat("x", 300)} {
		say(wsFrame(0x81, []byte(text)))
		if back := read(); back != text {
			t.Errorf("back came %q", back)
		}
		if got := s.got(n); got != strings.ReplaceAll(text, ph, value) {
			t.Errorf("%q arrived as %q", text, got)
		}
		n++
	}
	// A placeholder over the frames of one message, byte by byte on the wire.
	for _, f := range [][]byte{wsFrame(0x01, []byte("a "+ph[:12])), wsFrame(0x00, []byte(ph[12:18])), wsFrame(0x80, []byte(ph[18:]+" z"))} {
		for _, b := range f {
			say([]byte{b})
		}
	}
	whole := ""
	for range 3 {
		whole += read()
	}
	if got := s.got(n) + s.got(n+1) + s.got(n+2); got != "a "+value+" z" || whole != "a "+ph+" z" {
		t.Errorf("over frames: %q arrived, %q came back", got, whole)
	}
	n += 3
	// A control frame is not data, and one that is for headers stays one.
	say(wsFrame(0x89, []byte("ping "+ph)), wsFrame(0x81, []byte(keyPlaceholder)))
	if a, b := read(), read(); a != "ping "+ph || b != keyPlaceholder || s.got(n) != "ping "+ph || s.got(n+1) != keyPlaceholder {
		t.Errorf("%q, %q; %q, %q arrived", a, b, s.got(n), s.got(n+1))
	}
	n += 2
	for _, u := range e.uses {
		if u.Action != "http:write" || u.Credential.Name != "frame" || u.Path != "/ws" {
			t.Errorf("a use of %s: %s %s", u.Credential.Name, u.Action, u.Path)
		}
	}
	if len(e.results) == 0 || e.results[0] != "sent in a frame wiped=true" {
		t.Errorf("%v", e.results)
	}
	// Refused, or a value that has no place in a frame: the connection ends, and
	// neither goes on.
	ended := func(name string) {
		t.Helper()
		c, r = e.ws("chat.test")
		say(wsFrame(0x81, []byte("first")))
		read()
		n++
		say(wsFrame(0x81, []byte("say "+ph)))
		if _, _, err := wsRead(r); err == nil {
			t.Errorf("%s: the connection goes on", name)
		}
		if got := s.got(n); got != "" {
			t.Errorf("%s: %q arrived", name, got)
		}
	}
	e.mu.Lock()
	e.deny["frame"] = true
	e.mu.Unlock()
	ended("refused")
	e.mu.Lock()
	e.deny["frame"] = false
	e.mu.Unlock()
	value = "short"
	ended("another length")
	value = `wsv_","admin":true,"x":"`
	ended("ends the string")
	// At another host it is refused as everywhere.
	c, r = e.ws("other.test")
	say(wsFrame(0x81, []byte("say "+ph)))
	if _, err := io.ReadAll(r); err != nil && !strings.Contains(err.Error(), "EOF") && !strings.Contains(err.Error(), "reset") {
		t.Error(err)
	}
	if got := s.got(n); got != "" {
		t.Errorf("another host got %q", got)
	}
}
