package ssh

import (
	"bytes"
	"cmp"
	"crypto/rand"
	"encoding/binary"
	"fmt"
	"io"
	"strings"
	"testing"

	xssh "golang.org/x/crypto/ssh"
	"golang.org/x/crypto/ssh/agent"

	"guard"
)

func deploy(hosts ...string) guard.Credential {
	return guard.Credential{Name: "deploy", Kind: KindKey, Hosts: hosts}
}

// A login at a host of the credential is signed, by each sort of key, with and
// without the host-bound method.
func TestLogin(t *testing.T) {
	for _, tt := range []struct {
		kind, alg string
		flags     uint32
	}{
		{"ed25519", xssh.KeyAlgoED25519, 0}, {"ecdsa", xssh.KeyAlgoECDSA256, 0},
		{"rsa", xssh.KeyAlgoRSASHA256, flagSHA256}, {"rsa", xssh.KeyAlgoRSASHA512, flagSHA512},
	} {
		for _, bound := range []bool{false, true} {
			t.Run(fmt.Sprint(tt.alg, bound), func(t *testing.T) {
				value, signer := newKey(t, tt.kind)
				w := newWorld(t, map[string][]byte{"deploy": value}, deploy("git.example.com:22"))
				_, host := newKey(t, "rsa")
				w.knows("git.example.com", host.PublicKey())
				c := w.dial()
				key := c.key()
				if !bytes.Equal(key, signer.PublicKey().Marshal()) {
					t.Fatal("another key is listed")
				}
				sid := newSID(t)
				w.carries(host, sid, "git.example.com", 22)
				if !c.bind(host, sid, false) {
					t.Fatal("a right bind is refused: ", w.last())
				}
				var hk []byte
				if bound {
					hk = host.PublicKey().Marshal()
				}
				data := login(sid, "git", tt.alg, key, hk)
				sig := c.sign(key, data, tt.flags)
				if sig == nil {
					t.Fatal("refused: ", w.last())
				}
				if err := signer.PublicKey().Verify(data, sig); err != nil || sig.Format != tt.alg {
					t.Errorf("%s: %v", sig.Format, err)
				}
				u := w.use()
				if u.Action != "ssh:connect" || u.Host != "git.example.com" || u.Port != 22 || u.Resource != "git" || u.Channel != guard.ChannelSSH {
					t.Errorf("recorded as %+v", u)
				}
			})
		}
	}
}

// What is no login and no git signature is refused, whatever it looks like.
func TestNoOracle(t *testing.T) {
	w := newWorld(t, nil, deploy("git.example.com"))
	_, host := newKey(t, "ed25519")
	w.knows("git.example.com", host.PublicKey())
	c := w.dial()
	key, sid := c.key(), newSID(t)
	w.carries(host, sid, "git.example.com", 22)
	if !c.bind(host, sid, false) {
		t.Fatal(w.last())
	}
	good := login(sid, "git", xssh.KeyAlgoED25519, key, nil)
	goodSig := sigData("git", "", "sha512", 64)
	bad := map[string][]byte{
		"nothing": nil, "a byte": {0}, "a digest": bytes.Repeat([]byte{9}, 32), "zeros": make([]byte, 300),
		"TLS 1.3 CertificateVerify": append([]byte(strings.Repeat(" ", 64)+"TLS 1.3, client CertificateVerify\x00"), make([]byte, 48)...),
		"JWT":                       []byte("eyJhbGciOiJFZERTQSJ9.eyJzdWIiOiJhZG1pbiJ9"),
		"a DER structure":           append([]byte{0x30, 0x82, 1, 0}, make([]byte, 256)...),
		"an OpenSSH certificate":    putString(putString(nil, xssh.CertAlgoED25519v01), make([]byte, 32)),
		"magic alone":               []byte(sigMagic), "another namespace": sigData("file", "", "sha512", 64), "no namespace": sigData("", "", "sha512", 64),
		"git with a zero":  sigData("git\x00", "", "sha512", 64),
		"git in capitals":  sigData("GIT", "", "sha512", 64),
		"reserved is used": sigData("git", "x", "sha512", 64), "SHA-1 digest": sigData("git", "", "sha1", 20), "short digest": sigData("git", "", "sha512", 32),
		"another key's login": login(sid, "git", xssh.KeyAlgoED25519, host.PublicKey().Marshal(), nil),
		"another algorithm":   login(sid, "git", xssh.KeyAlgoRSASHA512, key, nil),
		"no user":             login(sid, "", xssh.KeyAlgoED25519, key, nil),
		"another service":     bytes.Replace(good, []byte("ssh-connection"), []byte("ssh-userauth\x00\x00"), 1),
		"another method":      bytes.Replace(good, []byte("publickey"), []byte("hostbased"), 1),
		"another message":     bytes.Replace(good, append(sid, 50), append(bytes.Clone(sid), 51), 1),
		"a query, unsigned":   bytes.Replace(good, append([]byte("publickey"), 1), append([]byte("publickey"), 0), 1),
		"another true":        bytes.Replace(good, append([]byte("publickey"), 1), append([]byte("publickey"), 2), 1),
		"no session":          login(nil, "git", xssh.KeyAlgoED25519, key, nil),
		"a long session":      login(bytes.Repeat(sid, 3), "git", xssh.KeyAlgoED25519, key, nil),
		"an agent's request":  putString([]byte{msgSign}, key),
	}
	for _, whole := range [][]byte{good, goodSig} {
		for i := range whole {
			bad[fmt.Sprintf("%d bytes of %d", i, len(whole))] = whole[:i]
		}
		bad[fmt.Sprintf("%d bytes and one", len(whole))] = append(bytes.Clone(whole), 0)
		bad[fmt.Sprintf("%d bytes and itself", len(whole))] = append(bytes.Clone(whole), whole...)
	}
	for name, data := range bad {
		if c.sign(key, data, 0) != nil {
			t.Errorf("%s is signed", name)
		} else if r := w.last(); !strings.HasPrefix(r, "ssh ") {
			t.Errorf("%s is refused by %q", name, r)
		}
	}
	for name, data := range map[string][]byte{"a login": good, "a git signature": goodSig, "with SHA-256": sigData("git", "", "sha256", 32)} {
		if c.sign(key, data, 0) == nil {
			t.Errorf("%s is refused: %s", name, w.last())
		}
	}
	if u := w.use(); u.Resource == "git" && u.Action == "ssh:sign" && u.Host != "" {
		t.Errorf("a signature has the host %q", u.Host)
	}
	if w.reads != 3 {
		t.Errorf("the key was taken %d times for 3 signatures", w.reads)
	}
}

// Each of these has a connection of its own, a right bind and a right login but for
// one thing.
func TestDestination(t *testing.T) {
	_, host := newKey(t, "ed25519")
	_, other := newKey(t, "ed25519")
	hostKey := host.PublicKey().Marshal()
	for _, tt := range []struct {
		name  string
		known string // names of host's key in known_hosts
		to    string // where the connection goes; "": git.example.com
		port  int    // 0: 22
		cred  guard.Credential
		do    func(c *client, key, sid []byte) *xssh.Signature
		rule  string // "": signed
		at    string
	}{
		{name: "as it should be", known: "git.example.com", cred: deploy("git.example.com:22"), at: "git.example.com:22"},
		{name: "another port", known: "[git.example.com]:2222", port: 2222, cred: deploy("git.example.com:2222"), at: "git.example.com:2222"},
		{name: "another port, the host's key", known: "git.example.com", port: 2222, cred: deploy("git.example.com:2222"), at: "git.example.com:2222"},
		{name: "a port that is not the credential's", known: "[git.example.com]:2222", port: 2222, cred: deploy("git.example.com:22"), rule: "credential hosts"},
		{name: "a wildcard", known: "a.deploy.example.com", to: "a.deploy.example.com", cred: deploy("*.deploy.example.com"), at: "a.deploy.example.com:22"},
		{name: "not below the wildcard", known: "deploy.example.com", to: "deploy.example.com", cred: deploy("*.deploy.example.com"), rule: "credential hosts"},
		{name: "the second of its names", known: "10.0.0.1,git.example.com", cred: deploy("git.example.com"), at: "git.example.com:22"},
		{name: "nobody knows the key", known: "", cred: deploy("git.example.com"), rule: "ssh host key"},
		{name: "another host's key", known: "evil.example.net", cred: deploy("git.example.com"), rule: "ssh host key"},
		{name: "another host", known: "evil.example.net", to: "evil.example.net", cred: deploy("git.example.com"), rule: "credential hosts"},
		{name: "another host that repeats what the right one says", known: "git.example.com", to: "evil.example.net", cred: deploy("git.example.com"), rule: "ssh host key"},
		{name: "a host whose name ends alike", known: "evilgit.example.com", to: "evilgit.example.com", cred: deploy("git.example.com"), rule: "credential hosts"},
		{name: "no hosts", known: "git.example.com", cred: deploy(), rule: "credential hosts"},
		{name: "revoked", known: "@revoked git.example.com", cred: deploy("git.example.com"), rule: "ssh host key"},
		{name: "a pattern", known: "*.example.com", cred: deploy("git.example.com"), at: "git.example.com:22"},
		{name: "excluded from a pattern", known: "!git.example.com,*.example.com", cred: deploy("git.example.com"), rule: "ssh host key"},
		{
			name: "another user", known: "git.example.com", cred: guard.Credential{Name: "deploy", Kind: KindKey, Hosts: []string{"git.example.com"}, User: "git"},
			do: func(c *client, key, sid []byte) *xssh.Signature {
				return c.sign(key, login(sid, "root", xssh.KeyAlgoED25519, key, hostKey), 0)
			}, rule: "ssh user",
		},
		{
			name: "the second of its users", known: "git.example.com", cred: guard.Credential{Name: "deploy", Kind: KindKey, Hosts: []string{"git.example.com"}, User: "git, root"},
			do: func(c *client, key, sid []byte) *xssh.Signature {
				return c.sign(key, login(sid, "root", xssh.KeyAlgoED25519, key, hostKey), 0)
			}, at: "git.example.com:22",
		},
		{
			name: "another session", known: "git.example.com", cred: deploy("git.example.com"),
			do: func(c *client, key, sid []byte) *xssh.Signature {
				return c.sign(key, login(append(sid[:31:31], sid[31]^1), "git", xssh.KeyAlgoED25519, key, nil), 0)
			}, rule: "ssh session-bind",
		},
		{
			name: "the host key in the login is another", known: "git.example.com", cred: deploy("git.example.com"),
			do: func(c *client, key, sid []byte) *xssh.Signature {
				return c.sign(key, login(sid, "git", xssh.KeyAlgoED25519, key, other.PublicKey().Marshal()), 0)
			}, rule: "ssh host key",
		},
		{
			name: "a key that is not listed", known: "git.example.com", cred: deploy("git.example.com"),
			do: func(c *client, key, sid []byte) *xssh.Signature {
				k := other.PublicKey().Marshal()
				return c.sign(k, login(sid, "git", xssh.KeyAlgoED25519, k, nil), 0)
			}, rule: "ssh key",
		},
		{
			name: "flags that nobody knows", known: "git.example.com", cred: deploy("git.example.com"),
			do: func(c *client, key, sid []byte) *xssh.Signature {
				return c.sign(key, login(sid, "git", xssh.KeyAlgoED25519, key, nil), 64)
			}, rule: "ssh algorithm",
		},
		{
			name: "bound a second time", known: "git.example.com", cred: deploy("git.example.com"),
			do: func(c *client, key, sid []byte) *xssh.Signature {
				if c.bind(host, newSID(c.t), false) {
					c.t.Error("a second bind is taken")
				}
				return c.sign(key, login(sid, "git", xssh.KeyAlgoED25519, key, nil), 0)
			}, rule: "ssh session-bind",
		},
		{
			name: "the same bind again", known: "git.example.com", cred: deploy("git.example.com"),
			do: func(c *client, key, sid []byte) *xssh.Signature {
				if c.bind(host, sid, false) {
					c.t.Error("a second bind is taken")
				}
				return c.sign(key, login(sid, "git", xssh.KeyAlgoED25519, key, nil), 0)
			}, rule: "ssh session-bind",
		},
		{
			name: "forwarded after a login", known: "git.example.com", cred: deploy("git.example.com"),
			do: func(c *client, key, sid []byte) *xssh.Signature {
				if c.bind(host, newSID(c.t), true) {
					c.t.Error("forwarding is taken")
				}
				return c.sign(key, login(sid, "git", xssh.KeyAlgoED25519, key, nil), 0)
			}, rule: "ssh forwarded",
		},
	} {
		t.Run(tt.name, func(t *testing.T) {
			w := newWorld(t, nil, tt.cred)
			if marker, name, ok := strings.Cut(tt.known, " "); ok {
				w.knows(name, host.PublicKey())
				w.knows(marker+" "+name, host.PublicKey())
			} else if tt.known != "" {
				w.knows(tt.known, host.PublicKey())
			}
			c := w.dial()
			key, sid := c.key(), newSID(t)
			w.carries(host, sid, cmp.Or(tt.to, "git.example.com"), cmp.Or(tt.port, 22))
			if !c.bind(host, sid, false) {
				t.Fatal("bind: ", w.last())
			}
			var sig *xssh.Signature
			if tt.do == nil {
				sig = c.sign(key, login(sid, "git", xssh.KeyAlgoED25519, key, hostKey), 0)
			} else {
				sig = tt.do(c, key, sid)
			}
			u := w.use()
			switch {
			case tt.rule == "" && sig == nil:
				t.Errorf("refused by %q", w.last())
			case tt.rule != "" && (sig != nil || w.last() != tt.rule):
				t.Errorf("signed: %t, refused by %q, want %q", sig != nil, w.last(), tt.rule)
			case tt.rule != "" && w.reads > 0:
				t.Error("the key was taken from the vault")
			case tt.at != "" && fmt.Sprintf("%s:%d", u.Host, u.Port) != tt.at:
				t.Errorf("recorded for %s:%d, want %s", u.Host, u.Port, tt.at)
			}
		})
	}
}

// A bind is taken only with the host's signature over the session id, and a refused
// one makes the connection useless.
func TestBindIsProven(t *testing.T) {
	w := newWorld(t, nil, deploy("git.example.com"))
	_, host := newKey(t, "ed25519")
	_, evil := newKey(t, "ed25519")
	_, weak := newKey(t, "rsa")
	w.knows("git.example.com", host.PublicKey())
	w.knows("git.example.com", weak.PublicKey())
	sid := newSID(t)
	right, _ := host.Sign(rand.Reader, sid)
	wrong, _ := evil.Sign(rand.Reader, sid)
	over, _ := host.Sign(rand.Reader, newSID(t))
	sha1, _ := weak.(xssh.AlgorithmSigner).SignWithAlgorithm(rand.Reader, sid, xssh.KeyAlgoRSA)
	short, _ := host.Sign(rand.Reader, sid[:8])
	raw := host.PublicKey().Marshal()
	for name, b := range map[string]struct {
		key, sid, sig []byte
		forwarding    bool
		rule          string
	}{
		"another's signature":     {raw, sid, xssh.Marshal(wrong), false, "ssh session-bind"},
		"over another session":    {raw, sid, xssh.Marshal(over), false, "ssh session-bind"},
		"with SHA-1":              {weak.PublicKey().Marshal(), sid, xssh.Marshal(sha1), false, "ssh session-bind"},
		"of a short session":      {raw, sid[:8], xssh.Marshal(short), false, "ssh session-bind"},
		"no signature":            {raw, sid, nil, false, "ssh session-bind"},
		"a signature and a byte":  {raw, sid, append(xssh.Marshal(right), 0), false, "ssh session-bind"},
		"no key":                  {nil, sid, xssh.Marshal(right), false, "ssh session-bind"},
		"a key and a byte":        {append(bytes.Clone(raw), 0), sid, xssh.Marshal(right), false, "ssh session-bind"},
		"forwarding":              {raw, sid, xssh.Marshal(right), true, "ssh forwarded"},
		"forwarding, not proven":  {raw, sid, xssh.Marshal(wrong), true, "ssh forwarded"},
		"the evil host's own key": {evil.PublicKey().Marshal(), sid, xssh.Marshal(right), false, "ssh session-bind"},
	} {
		c := w.dial()
		key := c.key()
		if c.bindAs(b.key, b.sid, b.sig, b.forwarding) {
			t.Errorf("%s: taken", name)
		}
		if w.last() != b.rule {
			t.Errorf("%s: refused by %q", name, w.last())
		}
		// OpenSSH's client goes on after that.
		if c.bind(host, sid, false) {
			t.Errorf("%s: the right bind is taken after it", name)
		}
		for _, data := range [][]byte{login(sid, "git", xssh.KeyAlgoED25519, key, nil), sigData("git", "", "sha512", 64)} {
			if c.sign(key, data, 0) != nil {
				t.Errorf("%s: signed after it", name)
			}
		}
		if c.key() != nil {
			t.Errorf("%s: keys are listed after it", name)
		}
		if out := c.ask([]byte{msgExtension}); out[0] != msgFailure {
			t.Errorf("%s: %x", name, out)
		}
	}
	if w.reads > 0 {
		t.Error("the key was taken from the vault")
	}
	// Trailing bytes, and a boolean of another sort.
	for _, tail := range []string{"\x02", "\x00\x00", ""} {
		c := w.dial()
		m := putString(putString(putString(putString([]byte{msgExtension}, extBind), raw), sid), xssh.Marshal(right))
		if c.ask(append(m, tail...))[0] != msgFailure {
			t.Errorf("a bind that ends in %x is taken", tail)
		}
	}
}

// The keys are not the session's to change, and other messages are not known.
func TestKeysAreNotChanged(t *testing.T) {
	w := newWorld(t, nil, deploy("git.example.com"))
	c := w.dial()
	before := c.key()
	lib := agent.NewClient(w.dial()) // which reads by itself
	private, _ := newKey(t, "ed25519")
	raw, err := xssh.ParseRawPrivateKey(private)
	check(t, err)
	for name, err := range map[string]error{
		"add": lib.Add(agent.AddedKey{PrivateKey: raw}), "remove all": lib.RemoveAll(), "lock": lib.Lock([]byte("x")), "unlock": lib.Unlock([]byte("x")),
	} {
		if err == nil {
			t.Errorf("%s is done", name)
		}
	}
	if w.last() != "ssh agent request" || len(w.refused) != 4 {
		t.Errorf("recorded: %v", w.refused)
	}
	for typ := range 256 {
		if typ == msgRequestIDs || typ == msgExtension {
			continue
		}
		if out := c.ask([]byte{byte(typ)}); out[0] != msgFailure || len(out) != 1 {
			t.Errorf("message %d: %x", typ, out)
		}
	}
	if !bytes.Equal(c.key(), before) {
		t.Error("other keys are listed")
	}
	if out := c.ask(putString([]byte{msgExtension}, "query")); out[0] != msgExtensionAnswer || !bytes.Contains(out, []byte(extBind)) {
		t.Errorf("query: %x", out)
	}
	for _, ext := range []string{"", "lock@example.com", "session-bind@openssh.com2"} {
		if out := c.ask(putString([]byte{msgExtension}, ext)); out[0] != msgFailure {
			t.Errorf("extension %q: %x", ext, out)
		}
	}
}

// Frames that are too long are not read, and what is announced takes no memory.
func TestFrames(t *testing.T) {
	w := newWorld(t, nil, deploy("git.example.com"))
	for _, n := range []uint32{0, maxFrame + 1, 1 << 31, 1<<32 - 1} {
		c := w.dial()
		c.Write(binary.BigEndian.AppendUint32(nil, n))
		if b, err := io.ReadAll(c); err != nil || len(b) > 0 {
			t.Errorf("a frame of %d bytes: %x, %v", n, b, err)
		}
	}
	// The longest one is answered.
	c := w.dial()
	if out := c.ask(append([]byte{msgSign}, make([]byte, maxFrame-1)...)); out[0] != msgFailure {
		t.Errorf("%x", out)
	}
	// A byte at a time is a client too.
	c = w.dial()
	for _, b := range []byte{0, 0, 0, 1, msgRequestIDs} {
		c.Write([]byte{b})
	}
	var head [5]byte
	if _, err := io.ReadFull(c, head[:]); err != nil || head[4] != msgIDsAnswer {
		t.Errorf("%x, %v", head, err)
	}
}

// Nothing is signed that policy does not allow or the log does not have.
func TestNoRecordNoSignature(t *testing.T) {
	w := newWorld(t, nil, deploy("git.example.com"))
	_, host := newKey(t, "ed25519")
	w.knows("git.example.com", host.PublicKey())
	c := w.dial()
	key, sid := c.key(), newSID(t)
	w.carries(host, sid, "git.example.com", 22)
	c.bind(host, sid, false)
	w.unaudit = true
	if c.sign(key, login(sid, "git", xssh.KeyAlgoED25519, key, nil), 0) != nil || w.reads > 0 {
		t.Error("signed without a record")
	}
	w.unaudit = false
	w.policy = nil
	if c.sign(key, login(sid, "git", xssh.KeyAlgoED25519, key, nil), 0) != nil || w.reads > 0 {
		t.Error("signed without a policy")
	}
	for name, a := range map[string]*Agent{"zero": {}, "no use line": {Credentials: w.a.Credentials, Value: w.a.Value, KnownHosts: w.a.KnownHosts}} {
		c := &conn{a: a}
		c.bound, c.sid = true, sid
		if out := c.sign(key, login(sid, "git", xssh.KeyAlgoED25519, key, nil), 0); out[0] != msgFailure {
			t.Errorf("%s: %x", name, out)
		}
		if out := c.list(); name == "zero" && binary.BigEndian.Uint32(out[1:]) != 0 {
			t.Errorf("%s: %x", name, out)
		}
	}
}

// A key that is replaced is listed and used at once; a request for the old one
// is not answered with the new one's signature.
func TestRotation(t *testing.T) {
	w := newWorld(t, nil, deploy("git.example.com"))
	_, host := newKey(t, "ed25519")
	w.knows("git.example.com", host.PublicKey())
	c := w.dial()
	old, sid := c.key(), newSID(t)
	w.carries(host, sid, "git.example.com", 22)
	c.bind(host, sid, false)
	if c.sign(old, login(sid, "git", xssh.KeyAlgoED25519, old, nil), 0) == nil {
		t.Fatal(w.last())
	}
	// Between the switch in the vault and the session's next look at it.
	value, signer := newKey(t, "ed25519")
	w.mu.Lock()
	w.values["deploy"] = value
	w.mu.Unlock()
	if c.sign(old, login(sid, "git", xssh.KeyAlgoED25519, old, nil), 0) != nil {
		t.Error("signed with a key that was replaced")
	}
	w.mu.Lock()
	w.creds[0].Version = 2
	w.mu.Unlock()
	now := c.key()
	if !bytes.Equal(now, signer.PublicKey().Marshal()) {
		t.Fatal("the old key is listed")
	}
	data := login(sid, "git", xssh.KeyAlgoED25519, now, nil)
	if sig := c.sign(now, data, 0); sig == nil || signer.PublicKey().Verify(data, sig) != nil {
		t.Errorf("the new key does not sign: %s", w.last())
	}
	if c.sign(old, login(sid, "git", xssh.KeyAlgoED25519, old, nil), 0) != nil {
		t.Error("the old key is known still")
	}
}

// FuzzData: whatever is signed reads in one way, and that is a login of the session
// that was proven, or a git signature.
func FuzzData(f *testing.F) {
	sid := bytes.Repeat([]byte{3}, 32)
	key := []byte("key")
	f.Add(login(sid, "git", xssh.KeyAlgoED25519, key, nil))
	f.Add(login(sid, "git", xssh.KeyAlgoED25519, key, []byte("host")))
	f.Add(sigData("git", "", "sha512", 64))
	f.Fuzz(func(t *testing.T, data []byte) {
		if u, err := parseUserauth(data); err == nil {
			if !bytes.Equal(login(u.session, u.user, u.alg, u.key, u.hostKey), data) && !(u.method == methodBound && len(u.hostKey) == 0) {
				t.Errorf("%x reads as %+v", data, u)
			}
			if bytes.HasPrefix(data, []byte(sigMagic)) {
				t.Errorf("%x is both", data)
			}
		}
		if s, err := parseSig(data); err == nil && !bytes.HasPrefix(data, append([]byte(sigMagic), putString(nil, s.namespace)...)) {
			t.Errorf("%x reads as %+v", data, s)
		}
	})
}
