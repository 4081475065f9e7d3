package ssh

import (
	"io"
	"net"
	"testing"
	"time"

	xssh "golang.org/x/crypto/ssh"
)

// Whoever is led to the agent's socket from elsewhere (ssh -R, any relay) has the
// proof of its own connection to the right host, and logs in to nothing by it.
func TestLoginFromOutside(t *testing.T) {
	_, host := newKey(t, "ed25519")
	hostKey := host.PublicKey().Marshal()
	for _, tt := range []struct {
		name   string
		inside func(w *world, sid []byte) // what the session's own connections are
		rule   string
	}{
		{"no connection", func(*world, []byte) {}, "ssh connection"},
		{"another connection to the same host", func(w *world, _ []byte) { w.carries(host, newSID(t), "git.example.com", 22) }, "ssh connection"},
		{"its server's words by way of another host", func(w *world, sid []byte) { w.carries(host, sid, "evil.example.net", 22) }, "ssh host key"},
		{"a connection that was closed", func(w *world, sid []byte) { w.a.wires.drop(w.carries(host, sid, "git.example.com", 22)) }, "ssh connection"},
	} {
		for _, bound := range []bool{true, false} {
			w := newWorld(t, nil, deploy("git.example.com"))
			w.knows("git.example.com", host.PublicKey())
			c, sid := w.dial(), newSID(t)
			key := c.key()
			tt.inside(w, sid)
			if bound && !c.bind(host, sid, false) {
				t.Fatal("bind: ", w.last())
			}
			for _, hk := range [][]byte{hostKey, nil} {
				if c.sign(key, login(sid, "git", xssh.KeyAlgoED25519, key, hk), 0) != nil || w.last() != tt.rule || w.reads > 0 {
					t.Errorf("%s, bound: %t, host-bound: %t: signed, or refused by %q; the key was taken %d times", tt.name, bound, hk != nil, w.last(), w.reads)
				}
			}
		}
	}
}

// A git signature is for a process that can be named.
func TestGitSignatureIsForAProcess(t *testing.T) {
	w := newWorld(t, nil, deploy("git.example.com"))
	c := w.dialAs(0) // gone, or of another session
	key := c.key()
	if c.sign(key, sigData("git", "", "sha512", 64), 0) != nil || w.last() != "ssh process" || w.reads > 0 {
		t.Errorf("signed for nobody, or refused by %q", w.last())
	}
	c = w.dialAs(7)
	if c.sign(key, sigData("git", "", "sha512", 64), 0) == nil {
		t.Errorf("refused: %s", w.last())
	}
	if u := w.use(); u.PID != 7 {
		t.Errorf("recorded as %+v", u)
	}
}

// After the session there is no agent for anybody, wherever the other end is.
func TestNothingAfterTheSession(t *testing.T) {
	w := newWorld(t, nil, deploy("git.example.com"))
	c := w.dial()
	key := c.key()
	w.end()
	_, _ = c.Write([]byte{0, 0, 0, 1, msgRequestIDs})
	if _, err := io.ReadFull(c, make([]byte, 1)); err == nil {
		t.Error("a connection is answered")
	}
	if c, err := net.Dial("unix", w.path); err == nil {
		c.Close()
		t.Error("the socket takes connections")
	}
	if w.reads > 0 || key == nil {
		t.Error("a key was taken")
	}
}

// More connections than are remembered: the newest one's login is signed.
func TestManyWires(t *testing.T) {
	w := newWorld(t, nil, deploy("git.example.com"))
	_, host := newKey(t, "ed25519")
	w.knows("git.example.com", host.PublicKey())
	for range maxWires + 50 {
		w.a.wires.add(exchange{place{"other.example.com", 22}, host.PublicKey().Marshal(), nil})
	}
	c, sid := w.dial(), newSID(t)
	w.carries(host, sid, "git.example.com", 22)
	key := c.key()
	if c.sign(key, login(sid, "git", xssh.KeyAlgoED25519, key, nil), 0) == nil {
		t.Error("refused: ", w.last())
	}
	if n := len(w.a.wires.all()); n > maxWires {
		t.Errorf("%d are remembered", n)
	}
}

// served says whether a list comes.
func (c *client) served() bool {
	_, _ = c.Write([]byte{0, 0, 0, 1, msgRequestIDs})
	var head [4]byte
	if _, err := io.ReadFull(c, head[:]); err != nil {
		return false
	}
	_, err := io.CopyN(io.Discard, c, int64(head[2])<<8|int64(head[3]))
	return err == nil
}

// A thousand connections, each by another process: so many are open at a time, the
// newest is always served, and those that were silent the longest are closed for it.
func TestManyConnections(t *testing.T) {
	w := newWorld(t, nil, deploy("git.example.com"))
	first := w.dial()
	first.served()
	var open []*client
	for i := range 1000 {
		c := w.dial()
		if !c.served() {
			t.Fatalf("connection %d is not served", i)
		}
		if open = append(open, c); !first.served() { // it is not silent
			t.Fatalf("who asks all the time is closed for connection %d", i)
		}
	}
	n := 0
	for _, c := range open {
		_ = c.SetReadDeadline(time.Now().Add(time.Minute))
		if c.served() {
			n++
		}
	}
	if n != maxConns-1 {
		t.Errorf("%d of 1000 are open", n)
	}
	w.a.conns.mu.Lock()
	defer w.a.conns.mu.Unlock()
	if len(w.a.conns.open) > maxConns {
		t.Errorf("%d in the table", len(w.a.conns.open))
	}
}

// One process opens 300 and says nothing: the others are served, and it has what it may.
func TestConnectionsOfOneProcess(t *testing.T) {
	w := newWorld(t, nil, deploy("git.example.com"))
	n := 0
	for range 300 {
		if w.dialAs(7).served() {
			n++
		}
	}
	if n != maxProcess {
		t.Errorf("%d are served", n)
	}
	if !w.dialAs(8).served() {
		t.Error("another process is not served")
	}
}

// Where half of the places are taken, the oldest that was silent for long is closed
// for each new one; below that nobody is.
func TestSilentConnections(t *testing.T) {
	for _, tt := range []struct {
		n    int
		step time.Duration
		open bool
	}{{maxConns / 2, maxSilent, true}, {maxConns/2 + 1, maxSilent - time.Second, true}, {maxConns/2 + 1, maxSilent, false}} {
		w := newWorld(t, nil, deploy("git.example.com"))
		var open []*client
		for range tt.n {
			c := w.dial()
			c.served()
			open = append(open, c)
		}
		w.mu.Lock()
		w.now = w.now.Add(tt.step)
		w.mu.Unlock()
		if !w.dial().served() {
			t.Fatal("not served")
		}
		if got := open[0].served(); got != tt.open {
			t.Errorf("%d connections, silent for %v: the oldest is open: %t", tt.n, tt.step, got)
		}
		if !open[1].served() {
			t.Error("more than one was closed")
		}
	}
}
