package ssh

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"encoding/binary"
	"encoding/pem"
	"fmt"
	"io"
	"net"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	xssh "golang.org/x/crypto/ssh"

	"guard"
	"guard/broker"
	"guard/internal/testutil"
	"guard/policy"
)

// world is an agent with keys, its policy and its log.
type world struct {
	t      testing.TB
	a      *Agent
	path   string
	policy *policy.Policy
	end    func() // of the session

	mu      sync.Mutex
	now     time.Time
	creds   []guard.Credential
	values  map[string][]byte // name -> PEM
	hosts   []byte            // known_hosts
	uses    []guard.Use
	refused []string // rules
	told    []string // rules
	reads   int      // values given to the use line
	unaudit bool     // the log cannot be written
	dialed  int
}

var session = guard.Session{ID: "s1", Context: "default"}

// newKey makes a private key: "ed25519", "rsa", "ecdsa".
func newKey(t testing.TB, kind string) (pemBytes []byte, signer xssh.Signer) {
	t.Helper()
	var key any
	var err error
	switch kind {
	case "ed25519":
		_, key, err = ed25519.GenerateKey(rand.Reader)
	case "rsa":
		key, err = rsa.GenerateKey(rand.Reader, 2048)
	case "ecdsa":
		key, err = ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	}
	check(t, err)
	block, err := xssh.MarshalPrivateKey(key, "")
	check(t, err)
	signer, err = xssh.NewSignerFromKey(key)
	check(t, err)
	return pem.EncodeToMemory(block), signer
}

func check(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// newWorld makes an agent that serves creds, all of them allowed. Values are made
// by kind: an Ed25519 key, unless values has one.
func newWorld(t testing.TB, values map[string][]byte, creds ...guard.Credential) *world {
	t.Helper()
	w := &world{t: t, now: time.Now(), values: map[string][]byte{}}
	var grants []policy.Grant
	for _, c := range creds {
		c.Context, c.Version = session.Context, 1
		w.creds = append(w.creds, c)
		w.values[c.Name] = values[c.Name]
		if w.values[c.Name] == nil {
			w.values[c.Name], _ = newKey(t, "ed25519")
		}
		grants = append(grants, policy.Grant{Name: c.Name, Scope: policy.Scope{Verb: "use"}})
	}
	var err error
	w.policy, err = policy.New(policy.Options{Session: session, Allow: grants}, w.creds)
	check(t, err)
	line := &broker.Line{
		Decide: func(u guard.Use) guard.Decision { return w.policy.Use(u) },
		Record: func(u guard.Use, d guard.Decision) (broker.Result, error) {
			w.mu.Lock()
			defer w.mu.Unlock()
			if w.unaudit {
				return nil, io.ErrShortWrite
			}
			w.uses = append(w.uses, u)
			return func(string, time.Duration, bool) {}, nil
		},
		Value: func(id guard.SecretID) (guard.Secret, error) {
			w.mu.Lock()
			defer w.mu.Unlock()
			w.reads++
			return guard.NewSecret(bytes.Clone(w.values[id.Name])), nil
		},
		Refused: func(u guard.Use, d guard.Decision) {
			w.mu.Lock()
			defer w.mu.Unlock()
			w.refused = append(w.refused, d.Rule)
		},
	}
	w.a = &Agent{
		Session: session, Use: line.Use, Refused: line.Refuse,
		Credentials: func() []guard.Credential { w.mu.Lock(); defer w.mu.Unlock(); return slices.Clone(w.creds) },
		Value: func(id guard.SecretID) (guard.Secret, error) {
			w.mu.Lock()
			defer w.mu.Unlock()
			return guard.NewSecret(bytes.Clone(w.values[id.Name])), nil
		},
		Tell: func(u guard.Use, d guard.Decision) {
			w.mu.Lock()
			defer w.mu.Unlock()
			w.told = append(w.told, d.Rule)
			if d.Reason == "" || len(d.NextSteps) == 0 {
				t.Errorf("the refusal by %q says not why or what to do: %+v", d.Rule, d)
			}
		},
		KnownHosts: func() (*KnownHosts, error) { w.mu.Lock(); defer w.mu.Unlock(); return ParseKnownHosts(w.hosts), nil },
		Now:        func() time.Time { w.mu.Lock(); defer w.mu.Unlock(); return w.now },
	}
	if tt, ok := t.(*testing.T); ok {
		testutil.Leftovers(tt)
	}
	w.path = filepath.Join(t.TempDir(), "a")
	l, err := net.Listen("unix", w.path)
	check(t, err)
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- w.a.Serve(ctx, named{l}) }()
	w.end = sync.OnceFunc(func() {
		cancel()
		if err := <-done; err != nil {
			t.Errorf("serve: %v", err)
		}
	})
	t.Cleanup(w.end)
	return w
}

// knows adds a host's key to known_hosts.
func (w *world) knows(names string, key xssh.PublicKey) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.hosts = fmt.Appendf(w.hosts, "%s %s", names, xssh.MarshalAuthorizedKey(key))
}

// last is the rule of the last refusal, which the user was told of too.
func (w *world) last() string {
	w.mu.Lock()
	defer w.mu.Unlock()
	if len(w.refused) == 0 || len(w.told) == 0 {
		return ""
	}
	if r, t := w.refused[len(w.refused)-1], w.told[len(w.told)-1]; r != t {
		return r + " (but told: " + t + ")"
	}
	return w.refused[len(w.refused)-1]
}

func (w *world) use() guard.Use {
	w.mu.Lock()
	defer w.mu.Unlock()
	if len(w.uses) == 0 {
		return guard.Use{}
	}
	return w.uses[len(w.uses)-1]
}

// client is a connection to the agent.
type client struct {
	net.Conn
	t testing.TB
}

// dial connects as a process of its own.
func (w *world) dial() *client {
	w.t.Helper()
	w.mu.Lock()
	pid := 1000 + w.dialed
	w.mu.Unlock()
	return w.dialAs(pid)
}

func (w *world) dialAs(pid int) *client {
	w.t.Helper()
	w.mu.Lock()
	w.dialed++
	from := fmt.Sprintf("%s%d.%d", w.path, w.dialed, pid)
	w.mu.Unlock()
	c, err := net.DialUnix("unix", &net.UnixAddr{Name: from, Net: "unix"}, &net.UnixAddr{Name: w.path, Net: "unix"})
	check(w.t, err)
	w.t.Cleanup(func() { c.Close() })
	_ = c.SetDeadline(time.Now().Add(30 * time.Second))
	return &client{c, w.t}
}

// ask sends one message and returns the answer.
func (c *client) ask(body []byte) []byte {
	c.t.Helper()
	_, err := c.Write(append(binary.BigEndian.AppendUint32(nil, uint32(len(body))), body...))
	check(c.t, err)
	var head [4]byte
	_, err = io.ReadFull(c, head[:])
	check(c.t, err)
	out := make([]byte, binary.BigEndian.Uint32(head[:]))
	_, err = io.ReadFull(c, out)
	check(c.t, err)
	return out
}

// keys are the blobs that are offered.
func (c *client) keys() (out [][]byte) {
	c.t.Helper()
	m := c.ask([]byte{msgRequestIDs})
	r := reader{b: m[1:]}
	for range r.uint32() {
		out = append(out, r.string())
		if name := r.string(); len(name) == 0 {
			c.t.Error("a key without a name")
		}
	}
	if m[0] != msgIDsAnswer || !r.end() {
		c.t.Fatalf("a strange answer: %x", m)
	}
	return out
}

// key is the blob of the first key that is offered.
func (c *client) key() []byte {
	c.t.Helper()
	keys := c.keys()
	if len(keys) == 0 {
		return nil
	}
	return keys[0]
}

// sign asks for a signature over data, and returns it where there is one.
func (c *client) sign(blob, data []byte, flags uint32) *xssh.Signature {
	c.t.Helper()
	m := putString(putString([]byte{msgSign}, blob), data)
	out := c.ask(binary.BigEndian.AppendUint32(m, flags))
	if out[0] == msgFailure {
		return nil
	}
	r := reader{b: out[1:]}
	sig := parseSignature(r.string())
	if out[0] != msgSignResponse || !r.end() || sig == nil {
		c.t.Fatalf("a strange answer: %x", out)
	}
	return sig
}

// bind is what OpenSSH's client sends.
func (c *client) bind(host xssh.Signer, sid []byte, forwarding bool) bool {
	c.t.Helper()
	sig, err := host.Sign(rand.Reader, sid)
	if as, ok := host.(xssh.AlgorithmSigner); ok && host.PublicKey().Type() == xssh.KeyAlgoRSA {
		sig, err = as.SignWithAlgorithm(rand.Reader, sid, xssh.KeyAlgoRSASHA512)
	}
	check(c.t, err)
	return c.bindAs(host.PublicKey().Marshal(), sid, xssh.Marshal(sig), forwarding)
}

func (c *client) bindAs(key, sid, sig []byte, forwarding bool) bool {
	c.t.Helper()
	m := putString(putString(putString(putString([]byte{msgExtension}, extBind), key), sid), sig)
	if forwarding {
		m = append(m, 1)
	} else {
		m = append(m, 0)
	}
	return c.ask(m)[0] == msgSuccess
}

// login is the data of a login (RFC 4252, section 7).
func login(sid []byte, user, alg string, key, hostKey []byte) []byte {
	b := append(putString(nil, sid), 50)
	b = putString(putString(b, user), "ssh-connection")
	if hostKey == nil {
		b = putString(b, methodPlain)
	} else {
		b = putString(b, methodBound)
	}
	b = putString(putString(append(b, 1), alg), key)
	if hostKey != nil {
		b = putString(b, hostKey)
	}
	return b
}

func sigData(namespace, reserved, hash string, digest int) []byte {
	b := putString(putString([]byte(sigMagic), namespace), reserved)
	return putString(putString(b, hash), bytes.Repeat([]byte{7}, digest))
}

func newSID(t testing.TB) []byte {
	t.Helper()
	b := make([]byte, 32)
	_, err := rand.Read(b)
	check(t, err)
	return b
}

// named takes the process at the other end from the name of its socket.
type named struct{ net.Listener }

func (l named) Accept() (net.Conn, error) {
	c, err := l.Listener.Accept()
	if err != nil {
		return nil, err
	}
	return namedConn{c}, nil
}

type namedConn struct{ net.Conn }

func (c namedConn) Peer() int {
	pid, _ := strconv.Atoi(strings.TrimPrefix(filepath.Ext(c.RemoteAddr().String()), "."))
	return pid
}

func (c namedConn) Process() (int, string) { return c.Peer(), "" }

// carries has guard carry a connection to a place, whose server has signed sid.
func (w *world) carries(host xssh.Signer, sid []byte, name string, port int) (id uint64) {
	w.t.Helper()
	sig, err := host.Sign(rand.Reader, sid)
	if as, ok := host.(xssh.AlgorithmSigner); ok && host.PublicKey().Type() == xssh.KeyAlgoRSA {
		sig, err = as.SignWithAlgorithm(rand.Reader, sid, xssh.KeyAlgoRSASHA512)
	}
	check(w.t, err)
	return w.a.wires.add(exchange{place{name, port}, host.PublicKey().Marshal(), sig})
}
