package http

import (
	"crypto/sha1"
	"encoding/base64"
	"encoding/json"
	"fmt"
	nethttp "net/http"
	"strings"
	"testing"

	"guard"
)

// A message to a real-time API is masked in its frame, also where it is cut over
// two messages, and each stays JSON.
func TestModelWebSocket(t *testing.T) {
	masks := map[string]string{canary: "", slyValues[0]: ""}
	e := newEnv(t, func(_ *env, c *Config) {
		c.Open = func(guard.Origin) guard.Filter { return search(guard.Redact, masks, nil) }
	})
	got := make(chan string, 10)
	e.upstream("api.openai.com", 443, nethttp.HandlerFunc(func(w nethttp.ResponseWriter, r *nethttp.Request) {
		c, rw, err := w.(nethttp.Hijacker).Hijack()
		if err != nil {
			t.Error(err)
			return
		}
		defer c.Close()
		sum := sha1.Sum([]byte(r.Header.Get("Sec-WebSocket-Key") + "258EAFA5-E914-47DA-95CA-C5AB0DC85B11"))
		fmt.Fprintf(c, "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: %s\r\n\r\n", base64.StdEncoding.EncodeToString(sum[:]))
		for {
			_, p, err := wsRead(rw)
			if err != nil {
				return
			}
			got <- string(p)
		}
	}))
	c, _, head := dialWS(t, e, "api.openai.com")
	defer c.Close()
	if !strings.HasPrefix(head, "HTTP/1.1 101") {
		t.Fatal(head)
	}
	for _, msg := range []string{
		`{"type":"conversation.item.create","item":{"content":[{"type":"input_text","text":"` + canary + `"}]}}`,
		`{"type":"a","text":"line\` + slyValues[0] + `\\"}`,
		`{"type":"response.create"}`,
	} {
		f := wsFrame(0x81, []byte(msg))
		c.Write(f[:len(f)/2])
		c.Write(f[len(f)/2:])
		p := <-got
		if len(p) != len(msg) || !json.Valid([]byte(p)) || strings.Contains(p, canary) || strings.Contains(p, slyValues[0][1:]) {
			t.Errorf("%s arrived", p)
		}
	}
}
