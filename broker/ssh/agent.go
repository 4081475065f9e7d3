package ssh

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"sync"
	"time"

	xssh "golang.org/x/crypto/ssh"

	"guard"
	"guard/broker"
)

// Agent serves one session. Credentials, Use, Value and KnownHosts are needed;
// without one of them nothing is listed, or nothing is signed.
type Agent struct {
	Session guard.Session
	// Credentials lists those that the session may use, of kinds KindKey and
	// KindCA, with their current versions; it is asked for each request.
	Credentials func() []guard.Credential
	// Use is the use line: broker.Line.Use.
	Use func(u guard.Use, send func(guard.Secret) (string, error)) (guard.Decision, error)
	// Value returns a copy of a version's value, from which the public half is
	// made. Signatures do not use it.
	Value func(guard.SecretID) (guard.Secret, error)
	// Refused records a refusal: broker.Line.Refuse.
	Refused func(u guard.Use, d guard.Decision)
	// Tell says a refusal to the user, since the protocol has no words for one;
	// optional.
	Tell func(u guard.Use, d guard.Decision)
	// KnownHosts are the host keys that the user trusts, as they are now.
	KnownHosts func() (*KnownHosts, error)
	// Source is the source-address option of certificates ("10.0.0.0/8,::1"); "": none.
	Source string
	// Now is the time; nil: time.Now.
	Now func() time.Time

	wires wires
	conns conns

	mu      sync.Mutex
	gateway xssh.PublicKey // of the Gateway, which logs in itself
	publics map[guard.SecretID]xssh.PublicKey

	certs sync.Mutex
	pairs map[guard.SecretID]*pair
}

const (
	maxFrame = 256 << 10        // AGENT_MAX_LEN of OpenSSH
	idle     = 10 * time.Minute // between requests
	maxBegun = 30 * time.Second // for a request that has begun, and for an answer
)

func (a *Agent) now() time.Time {
	if a.Now != nil {
		return a.Now()
	}
	return time.Now()
}

// Serve serves l until ctx ends, and returns when every connection is done. It
// closes l, and forgets the session's own keys.
func (a *Agent) Serve(ctx context.Context, l net.Listener) error {
	defer a.forget()
	ctx, cancel := context.WithCancel(ctx)
	var wg sync.WaitGroup
	defer wg.Wait()
	defer cancel()
	stop := context.AfterFunc(ctx, func() { l.Close() })
	defer stop()
	defer l.Close()
	for wait := time.Duration(0); ; {
		c, err := l.Accept()
		switch {
		case err == nil:
		case ctx.Err() != nil:
			return nil
		case errors.Is(err, net.ErrClosed):
			return fmt.Errorf("accept from the sandbox: %w", err)
		default: // out of descriptors
			wait = min(max(2*wait, 5*time.Millisecond), time.Second)
			select {
			case <-ctx.Done():
				return nil
			case <-time.After(wait):
			}
			continue
		}
		wait = 0
		s := &conn{a: a, self: c}
		if !a.conns.admit(s, a.now()) {
			c.Close() // a client is told at once
			continue
		}
		wg.Go(func() {
			defer a.conns.drop(s)
			defer c.Close()
			stop := context.AfterFunc(ctx, func() { c.Close() })
			defer stop()
			s.serve()
		})
	}
}

func (a *Agent) forget() {
	a.certs.Lock()
	defer a.certs.Unlock()
	for _, p := range a.pairs {
		clear(p.private)
	}
	a.pairs = nil
}

// gatewayKey is the host key of the session's Gateway; nil: there is none.
func (a *Agent) gatewayKey() xssh.PublicKey {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.gateway
}

// conn is one connection to the agent.
type conn struct {
	a    *Agent
	pid  int
	exe  string
	self net.Conn

	bound bool
	sid   []byte // session id that this connection is bound to
	// barred is why nothing is served any more.
	barred *guard.Decision
}

func (s *conn) serve() {
	c := s.self
	for {
		_ = c.SetDeadline(time.Now().Add(idle))
		var head [4]byte
		if _, err := io.ReadFull(c, head[:1]); err != nil {
			return
		}
		_ = c.SetDeadline(time.Now().Add(maxBegun))
		if _, err := io.ReadFull(c, head[1:]); err != nil {
			return
		}
		n := binary.BigEndian.Uint32(head[:])
		if n == 0 || n > maxFrame {
			return // OpenSSH closes then, too
		}
		body, err := readBody(c, int(n))
		if err != nil {
			return
		}
		s.a.conns.touch(s, s.a.now(), true)
		answer := s.answer(body)
		s.a.conns.touch(s, s.a.now(), false)
		_ = c.SetDeadline(time.Now().Add(maxBegun))
		out := binary.BigEndian.AppendUint32(make([]byte, 0, 4+len(answer)), uint32(len(answer)))
		if _, err := c.Write(append(out, answer...)); err != nil {
			return
		}
	}
}

// readBody takes memory as the bytes come, not as they are announced.
func readBody(r io.Reader, n int) ([]byte, error) {
	var b bytes.Buffer
	if m, err := io.CopyN(&b, r, int64(n)); err != nil {
		return nil, fmt.Errorf("%d bytes of %d: %w", m, n, err)
	}
	return b.Bytes(), nil
}

func (c *conn) answer(body []byte) []byte {
	r := reader{b: body}
	switch typ := r.byte(); typ {
	case msgRequestIDs:
		if r.end() {
			return c.list()
		}
	case msgSign:
		blob, data, flags := r.string(), r.string(), r.uint32()
		if r.end() {
			return c.sign(blob, data, flags)
		}
	case msgExtension:
		switch name := string(r.string()); {
		case r.bad:
		case name == extBind:
			return c.bind(&r)
		case name == "query" && r.end():
			return putString(putString([]byte{msgExtensionAnswer}, "query"), extBind)
		}
	default:
		if what := changing[typ]; what != "" {
			c.refuse(c.use(guard.Credential{}, actConnect), refusal("ssh agent request", "a program wanted to "+what+", and this agent's keys are guard's", "store the key outside of the session: guard secret set NAME --kind ssh-key --host HOST:22 --stdin < KEYFILE"))
		}
	}
	return []byte{msgFailure}
}

// list is the answer with the public halves.
func (c *conn) list() []byte {
	var ids []identity
	if c.barred == nil {
		ids = c.a.identities(c)
	}
	out := binary.BigEndian.AppendUint32([]byte{msgIDsAnswer}, 0)
	n := uint32(0)
	for _, id := range ids {
		if id.pair != nil && id.key != xssh.PublicKey(id.pair.cert) {
			continue // the one before is for whoever has it already
		}
		out = putString(putString(out, id.blob), id.cred.Name)
		n++
	}
	binary.BigEndian.PutUint32(out[1:], n)
	return out
}

// bind is session-bind@openssh.com: one for a connection.
func (c *conn) bind(r *reader) []byte {
	raw, sid, sigRaw, forwarding := r.string(), r.string(), r.string(), r.bool()
	u := c.use(guard.Credential{}, actConnect)
	bar := func(d guard.Decision) []byte {
		if c.barred == nil {
			c.barred = &d
		}
		c.refuse(u, d)
		return []byte{msgFailure}
	}
	switch key, err := xssh.ParsePublicKey(raw); {
	case c.barred != nil:
		return []byte{msgFailure}
	case !r.end() || err != nil:
		return bar(refusal("ssh session-bind", "the client's session-bind cannot be read", "use OpenSSH's own client"))
	case forwarding:
		return bar(refusal("ssh forwarded", "the agent was to be forwarded to another machine, which could then log in as you", "connect without -A (ForwardAgent no)"))
	case c.bound:
		return bar(refusal("ssh session-bind", "this connection to the agent is bound to a session already", "open another connection to the agent"))
	case !proves(key, sid, parseSignature(sigRaw)):
		return bar(refusal("ssh session-bind", "the host key's signature is not over this session id", "if this was ssh itself, somebody is in between: tell the user"))
	default:
		c.bound, c.sid = true, bytes.Clone(sid)
	}
	return []byte{msgSuccess}
}

// use is a use with what is known of the client.
func (c *conn) use(cred guard.Credential, action string) guard.Use {
	if c.exe == "" && c.pid == 0 && c.self != nil {
		c.pid, c.exe = broker.Process(c.self)
	}
	return guard.Use{Session: c.a.Session, Credential: cred, Channel: guard.ChannelSSH, Action: action, PID: c.pid, Exe: c.exe, At: c.a.now()}
}

var errRefused = errors.New("refused")

// refuse records d and tells the user.
func (c *conn) refuse(u guard.Use, d guard.Decision) error {
	d.Secret = u.Credential.ID()
	if c.a.Refused != nil {
		c.a.Refused(u, d)
	}
	c.tell(u, d)
	return errRefused
}

func (c *conn) tell(u guard.Use, d guard.Decision) {
	if c.a.Tell != nil {
		c.a.Tell(u, d)
	}
}

func refusal(rule, reason string, next ...string) guard.Decision {
	return guard.Decision{Action: guard.Block, Rule: rule, Reason: reason, NextSteps: next}
}
