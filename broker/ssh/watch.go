package ssh

import (
	"bytes"
	"encoding/binary"
	"net"
	"sync"

	xssh "golang.org/x/crypto/ssh"

	"guard/broker"
)

// place is a host and port.
type place struct {
	host string
	port int
}

// exchange is what a server said in the first key exchange of a connection.
type exchange struct {
	place
	hostKey []byte
	sig     *xssh.Signature
}

// wires are the session's open connections whose key exchange was seen.
type wires struct {
	mu   sync.Mutex
	next uint64
	open map[uint64]exchange
}

// maxWires bounds what is remembered, and so how many signatures are tried for
// a login. The oldest is forgotten for the newest.
const maxWires = 256

func (w *wires) add(e exchange) uint64 {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.open == nil {
		w.open = map[uint64]exchange{}
	}
	if len(w.open) >= maxWires { // a login comes soon after its key exchange
		oldest := w.next
		for id := range w.open {
			oldest = min(oldest, id)
		}
		delete(w.open, oldest)
	}
	w.next++
	w.open[w.next] = e
	return w.next
}

func (w *wires) drop(id uint64) {
	w.mu.Lock()
	defer w.mu.Unlock()
	delete(w.open, id)
}

func (w *wires) all() []exchange {
	w.mu.Lock()
	defer w.mu.Unlock()
	out := make([]exchange, 0, len(w.open))
	for _, e := range w.open {
		out = append(out, e)
	}
	return out
}

// find returns the open connection whose server signed session.
func (w *wires) find(session []byte) (xssh.PublicKey, place, bool) {
	for _, e := range w.all() {
		key, err := xssh.ParsePublicKey(e.hostKey)
		if err == nil && proves(key, session, e.sig) {
			return key, e.place, true
		}
	}
	return nil, place{}, false
}

// proves says whether sig is a host key's signature over an exchange hash. SHA-1 is none.
func proves(key xssh.PublicKey, session []byte, sig *xssh.Signature) bool {
	if sig == nil || sig.Format == xssh.KeyAlgoRSA || len(session) < minSession || len(session) > maxSession {
		return false
	}
	return key.Verify(session, sig) == nil
}

// Watch looks on at the beginning of a connection to a server: what is used
// instead of up. Nothing is held back or changed.
func (a *Agent) Watch(up net.Conn, host string, port int) net.Conn {
	return &watched{Conn: up, agent: a, at: place{broker.CanonicalHost(host), port}}
}

type watched struct {
	net.Conn
	agent *Agent
	at    place

	mu    sync.Mutex
	first opening
	done  bool
	id    uint64
}

func (c *watched) Read(p []byte) (int, error) {
	n, err := c.Conn.Read(p)
	if n > 0 {
		c.look(p[:n])
	}
	return n, err
}

func (c *watched) look(p []byte) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.done {
		return
	}
	key, sig, more := c.first.feed(p)
	if more {
		return
	}
	c.done, c.first = true, opening{}
	if key != nil {
		c.id = c.agent.wires.add(exchange{c.at, key, sig})
	}
}

// Close forgets the connection.
func (c *watched) Close() error {
	c.forget()
	return c.Conn.Close()
}

func (c *watched) forget() {
	c.mu.Lock()
	id := c.id
	c.done, c.id = true, 0
	c.mu.Unlock()
	if id != 0 {
		c.agent.wires.drop(id)
	}
}

// watchServer looks on at what the gateway itself says to a client.
func (a *Agent) watchServer(c net.Conn, host string, port int) *own {
	return &own{watched{Conn: c, agent: a, at: place{broker.CanonicalHost(host), port}}}
}

// own is a client's connection to the gateway.
type own struct{ watched }

func (c *own) Read(p []byte) (int, error) { return c.Conn.Read(p) }

func (c *own) Write(p []byte) (int, error) {
	c.look(p) // before the client can have it: its login comes at once
	return c.Conn.Write(p)
}

// CloseWrite ends the sending direction.
func (c *watched) CloseWrite() error { return broker.CloseWrite(c.Conn) }

// opening reads what a server sends before encryption begins (RFC 4253, sections
// 4.2, 6 and 8): lines up to its version, then packets, of which one holds host key
// and signature.
type opening struct {
	buf     []byte
	version bool
	seen    int
}

// maxOpening is more than any key exchange takes, in bytes.
const maxOpening = 128 << 10

// feed takes the next bytes. more says that there is nothing to tell yet.
func (o *opening) feed(p []byte) (hostKey []byte, sig *xssh.Signature, more bool) {
	if o.seen += len(p); o.seen > maxOpening {
		return nil, nil, false
	}
	o.buf = append(o.buf, p...)
	for !o.version {
		line, rest, ok := bytes.Cut(o.buf, []byte("\n"))
		if !ok {
			return nil, nil, true
		}
		o.buf, o.version = rest, bytes.HasPrefix(line, []byte("SSH-2.0-")) || bytes.HasPrefix(line, []byte("SSH-1.99-"))
	}
	for len(o.buf) >= 5 {
		size := int(binary.BigEndian.Uint32(o.buf))
		pad := int(o.buf[4])
		if size < pad+2 || size > 64<<10 {
			return nil, nil, false
		}
		if len(o.buf) < 4+size {
			return nil, nil, true
		}
		payload := o.buf[5 : 4+size-pad]
		o.buf = o.buf[4+size:]
		switch payload[0] {
		case 21: // encryption begins
			return nil, nil, false
		case 31, 33: // KEXDH_REPLY, KEX_ECDH_REPLY (and GEX_GROUP, which reads otherwise); KEX_DH_GEX_REPLY
			if key, sig := reply(payload[1:]); key != nil {
				return key, sig, false
			}
		}
	}
	return nil, nil, true
}

// reply reads host key, the server's public value and signature.
func reply(b []byte) ([]byte, *xssh.Signature) {
	r := reader{b: b}
	key := r.string()
	r.string()
	raw := r.string()
	if !r.end() {
		return nil, nil
	}
	if _, err := xssh.ParsePublicKey(key); err != nil {
		return nil, nil
	}
	sig := parseSignature(raw)
	if sig == nil {
		return nil, nil
	}
	return bytes.Clone(key), sig
}

// parseSignature reads string format, string blob, and copies them.
func parseSignature(b []byte) *xssh.Signature {
	r := reader{b: b}
	s := &xssh.Signature{Format: string(r.string()), Blob: bytes.Clone(r.string())}
	if !r.end() || len(s.Blob) == 0 {
		return nil
	}
	return s
}
