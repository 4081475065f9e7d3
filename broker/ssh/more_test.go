package ssh

import (
	"bytes"
	"crypto/rand"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	xssh "golang.org/x/crypto/ssh"
	"golang.org/x/crypto/ssh/knownhosts"

	"guard"
)

// certificate is the one that is offered.
func (c *client) certificate() *xssh.Certificate {
	c.t.Helper()
	keys := c.keys()
	if len(keys) != 1 {
		c.t.Fatalf("%d keys", len(keys))
	}
	k, err := xssh.ParsePublicKey(keys[0])
	check(c.t, err)
	cert, ok := k.(*xssh.Certificate)
	if !ok {
		c.t.Fatalf("a %T", k)
	}
	return cert
}

// An authority's certificates are short, narrow, made anew in time, and for a key
// that is in no message.
func TestCertificates(t *testing.T) {
	for _, kind := range []string{"ed25519", "rsa", "ecdsa"} {
		t.Run(kind, func(t *testing.T) {
			value, authority := newKey(t, kind)
			w := newWorld(t, map[string][]byte{"ca": value}, guard.Credential{Name: "ca", Kind: KindCA, Hosts: []string{"a.example.com"}, User: "deploy, root"})
			w.a.Source = "10.0.0.0/8"
			_, host := newKey(t, "ed25519")
			w.knows("a.example.com", host.PublicKey())
			c := w.dial()
			cert := c.certificate()
			checker := xssh.CertChecker{Clock: func() time.Time { return w.now }, SupportedCriticalOptions: []string{"source-address"}}
			if err := checker.CheckCert("deploy", cert); err != nil || !same(cert.SignatureKey, authority.PublicKey()) {
				t.Fatalf("the certificate is not good: %v", err)
			}
			if cert.Signature.Format == xssh.KeyAlgoRSA {
				t.Error("signed with SHA-1")
			}
			if from, to := w.now.Unix()-int64(cert.ValidAfter), int64(cert.ValidBefore)-w.now.Unix(); from < 59 || from > 61 || to < 299 || to > 300 {
				t.Errorf("valid from %d s ago for %d s", from, to)
			}
			if fmt.Sprint(cert.ValidPrincipals, cert.CriticalOptions, cert.Extensions) != "[deploy root] map[source-address:10.0.0.0/8] map[permit-pty:]" {
				t.Errorf("%v %v %v", cert.ValidPrincipals, cert.CriticalOptions, cert.Extensions)
			}
			if u := w.use(); u.Action != "ssh:certify" || u.Host != "" || u.Resource != "deploy,root" {
				t.Errorf("recorded as %+v", u)
			}
			sid := newSID(t)
			w.carries(host, sid, "a.example.com", 22)
			c.bind(host, sid, false)
			data := login(sid, "deploy", cert.Type(), cert.Marshal(), host.PublicKey().Marshal())
			sig := c.sign(cert.Marshal(), data, 0)
			if sig == nil || cert.Key.Verify(data, sig) != nil {
				t.Fatal("the session's key does not sign: ", w.last())
			}
			if u := w.use(); u.Action != "ssh:connect" || u.Host != "a.example.com" || u.Resource != "deploy" {
				t.Errorf("recorded as %+v", u)
			}
			for name, data := range map[string][]byte{
				"a git signature": sigData("git", "", "sha512", 64), "another user": login(sid, "admin", cert.Type(), cert.Marshal(), nil),
				"the plain key": login(sid, "deploy", xssh.KeyAlgoED25519, cert.Key.Marshal(), nil),
			} {
				if c.sign(cert.Marshal(), data, 0) != nil {
					t.Errorf("%s is signed", name)
				}
			}
			if c.sign(cert.Key.Marshal(), data, 0) != nil {
				t.Error("signed for the key without its certificate")
			}
			// The same one until 2 minutes are left, then another for the same key.
			step := func(d time.Duration) { w.mu.Lock(); w.now = w.now.Add(d); w.mu.Unlock() }
			step(2*time.Minute + 59*time.Second)
			if again := c.certificate(); again.Serial != cert.Serial {
				t.Error("made anew too early")
			}
			step(2 * time.Second)
			next := c.certificate()
			if next.Serial == cert.Serial || !same(next.Key, cert.Key) || next.ValidBefore <= cert.ValidBefore {
				t.Error("not made anew")
			}
			if c.sign(cert.Marshal(), data, 0) == nil { // whoever listed just before
				t.Error("the one before is not known: ", w.last())
			}
			step(3 * time.Minute)
			c.certificate()
			if c.sign(cert.Marshal(), data, 0) != nil {
				t.Error("signed for a certificate that has expired")
			}
		})
	}
	t.Run("no user", func(t *testing.T) {
		w := newWorld(t, nil, guard.Credential{Name: "ca", Kind: KindCA, Hosts: []string{"a.example.com"}})
		if c := w.dial(); c.key() != nil || w.last() != "ssh certificate" || w.reads > 0 {
			t.Errorf("a certificate for everybody; refused by %q", w.last())
		}
	})
	t.Run("no record", func(t *testing.T) {
		w := newWorld(t, nil, guard.Credential{Name: "ca", Kind: KindCA, Hosts: []string{"a.example.com"}, User: "root"})
		w.unaudit = true
		if c := w.dial(); c.key() != nil || w.reads > 0 {
			t.Error("a certificate without a record")
		}
	})
}

// server is an SSH server that takes every key; its handshakes are what clients
// of other libraries do.
func server(t *testing.T, host xssh.Signer, kex ...string) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	check(t, err)
	cfg := &xssh.ServerConfig{PublicKeyCallback: func(xssh.ConnMetadata, xssh.PublicKey) (*xssh.Permissions, error) { return nil, nil }}
	cfg.KeyExchanges = kex
	cfg.AddHostKey(host)
	done := make(chan struct{})
	go func() {
		defer close(done)
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			if s, chans, reqs, err := xssh.NewServerConn(c, cfg); err == nil {
				go xssh.DiscardRequests(reqs)
				go func() {
					for ch := range chans {
						ch.Reject(xssh.Prohibited, "")
					}
				}()
				_ = s.Wait()
			}
			c.Close()
		}
	}()
	t.Cleanup(func() { l.Close(); <-done })
	return l.Addr().String()
}

// wireSigner asks guard's agent, and binds nothing, as clients other than OpenSSH's.
type wireSigner struct {
	c    *client
	key  []byte
	data []byte // of the last login
}

func (s *wireSigner) PublicKey() xssh.PublicKey {
	k, err := xssh.ParsePublicKey(s.key)
	check(s.c.t, err)
	return k
}

func (s *wireSigner) Sign(_ io.Reader, data []byte) (*xssh.Signature, error) {
	s.data = bytes.Clone(data)
	if sig := s.c.sign(s.key, data, 0); sig != nil {
		return sig, nil
	}
	return nil, errors.New("refused")
}

// A client that binds nothing logs in over a connection that guard has seen, as long as
// it is open, and over no other.
func TestLoginFromTheWire(t *testing.T) {
	for _, kex := range []string{xssh.KeyExchangeCurve25519, xssh.KeyExchangeECDHP256, xssh.KeyExchangeDH14SHA256, xssh.KeyExchangeDHGEXSHA256, xssh.KeyExchangeMLKEM768X25519} {
		for _, kind := range []string{"ed25519", "rsa"} {
			t.Run(kex+kind, func(t *testing.T) {
				_, host := newKey(t, kind)
				addr := server(t, host, kex)
				w := newWorld(t, nil, deploy("*.example.com"))
				w.knows("git.example.com", host.PublicKey())
				dial := func(watched bool, signer xssh.Signer) (net.Conn, error) {
					up, err := net.Dial("tcp", addr)
					check(t, err)
					if watched {
						up = w.a.Watch(up, "git.example.com", 22)
					}
					conn, chans, reqs, err := xssh.NewClientConn(up, addr, &xssh.ClientConfig{
						User: "git", Auth: []xssh.AuthMethod{xssh.PublicKeys(signer)}, HostKeyCallback: xssh.FixedHostKey(host.PublicKey()),
						Config: xssh.Config{KeyExchanges: []string{kex}},
					})
					if err != nil {
						up.Close()
						return nil, err
					}
					go xssh.DiscardRequests(reqs)
					go func() {
						for range chans {
						}
					}()
					_ = conn
					return up, nil
				}
				c := w.dial()
				s := &wireSigner{c: c, key: c.key()}
				up, err := dial(true, s)
				if err != nil {
					t.Fatalf("%v, %s", err, w.last())
				}
				if u := w.use(); u.Host != "git.example.com" || u.Port != 22 || u.Resource != "git" {
					t.Errorf("recorded as %+v", u)
				}
				seen := s.data
				if c.sign(s.key, seen, 0) == nil {
					t.Error("an open connection's login is refused")
				}
				up.Close()
				if c.sign(s.key, seen, 0) != nil || w.last() != "ssh connection" {
					t.Errorf("the login of a closed connection is signed, or refused by %q", w.last())
				}
				if _, err := dial(false, s); err == nil || w.last() != "ssh connection" {
					t.Errorf("a connection that was not seen: %v, %q", err, w.last())
				}
				if len(w.a.wires.all()) != 0 {
					t.Error("connections are left in the table")
				}
			})
		}
	}
}

// The host on the wire is the one that counts: its key must be known for it, also where
// the same key is known for another one.
func TestWireHost(t *testing.T) {
	_, host := newKey(t, "ed25519")
	for _, tt := range []struct{ known, at, rule string }{
		{"git.example.com", "git.example.com", ""},
		{"git.example.com", "evil.example.net", "ssh host key"},
		{"evil.example.net", "evil.example.net", "credential hosts"},
		{"", "git.example.com", "ssh host key"},
	} {
		w := newWorld(t, nil, deploy("git.example.com"))
		if tt.known != "" {
			w.knows(tt.known, host.PublicKey())
		}
		c, sid := w.dial(), newSID(t)
		w.carries(host, sid, tt.at, 22)
		key := c.key()
		if got := c.sign(key, login(sid, "git", xssh.KeyAlgoED25519, key, nil), 0); (got != nil) != (tt.rule == "") || tt.rule != "" && w.last() != tt.rule {
			t.Errorf("%+v: signed: %t, %q", tt, got != nil, w.last())
		}
	}
}

// opened is what a server sends first.
func opened(key, sig []byte, lines string, before ...[]byte) []byte {
	packet := func(p []byte) []byte {
		pad := 8 - (5+len(p))%8 + 8
		b := append([]byte{0, 0, 0, byte((1 + len(p) + pad) >> 0), byte(pad)}, p...)
		if n := 1 + len(p) + pad; n > 255 {
			b[2], b[3] = byte(n>>8), byte(n)
		}
		return append(b, make([]byte, pad)...)
	}
	out := []byte(lines)
	out = append(out, packet(append([]byte{20}, make([]byte, 16)...))...)
	for _, p := range before {
		out = append(out, packet(p)...)
	}
	return append(out, packet(putString(putString(putString([]byte{31}, key), "public value"), sig))...)
}

// The beginning is read whatever its pieces are, and nothing is taken for a key that
// is none.
func TestOpening(t *testing.T) {
	_, host := newKey(t, "ed25519")
	sid := newSID(t)
	s, _ := host.Sign(rand.Reader, sid)
	key, sig := host.PublicKey().Marshal(), xssh.Marshal(s)
	group := putString(putString([]byte{31}, make([]byte, 257)), []byte{2})
	good := opened(key, sig, "hello\r\nSSH-2.0-x\r\n", []byte{2, 0, 0, 0, 0}, group)
	for i := range good {
		var o opening
		k, got, more := o.feed(good[:i])
		if k != nil || !more {
			t.Fatalf("known after %d bytes of %d", i, len(good))
		}
		if k, got, _ = o.feed(good[i:]); !bytes.Equal(k, key) || !proves(host.PublicKey(), sid, got) {
			t.Fatalf("split at %d: %x", i, k)
		}
	}
	for name, b := range map[string][]byte{
		"no key": opened(nil, sig, "SSH-2.0-x\n"), "no signature": opened(key, nil, "SSH-2.0-x\n"), "after encryption began": opened(key, sig, "SSH-2.0-x\n", []byte{21}),
		"SSH 1": opened(key, sig, "SSH-1.5-x\n"), "no version": opened(key, sig, ""), "too long": append(bytes.Repeat([]byte("x\n"), maxOpening/2), good...),
		"a packet of nothing": append([]byte("SSH-2.0-x\n\x00\x00\x00\x04\x04\x00\x00\x00\x00"), good...),
		"a huge packet":       append([]byte("SSH-2.0-x\n\x7f\x00\x00\x04\x04\x00\x00\x00\x00"), good...),
	} {
		var o opening
		if k, _, _ := o.feed(b); k != nil {
			t.Errorf("%s: a key", name)
		}
	}
}

// known_hosts is read as the library reads it, line by line, and one bad line
// does not take the others with it.
func TestKnownHostsAsTheLibrary(t *testing.T) {
	_, k1 := newKey(t, "ed25519")
	_, k2 := newKey(t, "ed25519")
	line := func(names string, k xssh.Signer) string {
		return names + " " + string(xssh.MarshalAuthorizedKey(k.PublicKey()))
	}
	for _, names := range []string{
		"a.example.com", "a.example.com,b.example.com", "[a.example.com]:2222", "*.example.com", "?.example.com", "*.example.com,!b.example.com", "[*.example.com]:2222",
		knownhosts.HashHostname("a.example.com"), knownhosts.HashHostname("[a.example.com]:2222"), "@revoked a.example.com", "A.example.com", "*", "10.0.0.1", "[::1]:2222", "",
	} {
		file := filepath.Join(t.TempDir(), "known_hosts")
		check(t, os.WriteFile(file, []byte("# a comment\n\n"+line(names, k1)), 0o600))
		lib, err := knownhosts.New(file)
		if err != nil {
			lib = func(string, net.Addr, xssh.PublicKey) error { return &knownhosts.KeyError{} }
		}
		ours, err := ReadKnownHosts(file, file+"-not-there")
		check(t, err)
		for _, at := range []place{{"a.example.com", 22}, {"b.example.com", 22}, {"a.example.com", 2222}, {"example.com", 22}, {"10.0.0.1", 22}, {"::1", 2222}, {"xa.example.com", 22}} {
			for _, k := range []xssh.Signer{k1, k2} {
				err := lib(at.String(), &net.TCPAddr{IP: net.IPv4(192, 0, 2, 1), Port: at.port}, k.PublicKey())
				var ke *knownhosts.KeyError
				var re *knownhosts.RevokedError
				want := known
				switch {
				case errors.As(err, &re):
					want = revoked
				case errors.As(err, &ke) && len(ke.Want) > 0:
					want = changed
				case err != nil:
					want = unknown
				}
				got := ours.check(at.host, at.port, k.PublicKey(), time.Now())
				if got != want {
					// ssh itself takes a key without a port for every port, and names in any case.
					if at.port != 22 && ours.check(at.host, 22, k.PublicKey(), time.Now()) == got || strings.ToLower(names) != names || strings.HasPrefix(names, "@") && k == k2 {
						continue
					}
					t.Errorf("%q at %v: %d, the library says %d (%v)", names, at, got, want, err)
				}
			}
		}
	}
	k := ParseKnownHosts([]byte("nonsense\n\x00\xff|1|x|y z\na.example.com ssh-ed25519 AAAA\n|1|" + base64.StdEncoding.EncodeToString([]byte("s")) + "|!! " + line("", k1) + line("a.example.com", k1)))
	if k.check("a.example.com", 22, k1.PublicKey(), time.Now()) != known {
		t.Error("a bad line hides a good one")
	}
	if !wild("*a*a*a*a*a*a*a*a*a*b", strings.Repeat("a", 200)+"b") || wild(strings.Repeat("*a", 100)+"b", strings.Repeat("a", 5000)) {
		t.Error("wildcards")
	}
}

// A host certificate counts where an authority for the host signed it, for its
// principals and time only.
func TestHostCertificates(t *testing.T) {
	_, ca := newKey(t, "ed25519")
	_, evil := newKey(t, "ed25519")
	_, host := newKey(t, "ed25519")
	now := time.Now()
	for _, tt := range []struct {
		name   string
		change func(c *xssh.Certificate)
		signer xssh.Signer
		want   verdict
	}{
		{"good", func(*xssh.Certificate) {}, ca, known},
		{"a pattern", func(c *xssh.Certificate) { c.ValidPrincipals = []string{"*.example.com"} }, ca, known},
		{"another authority", func(*xssh.Certificate) {}, evil, unknown},
		{"another host", func(c *xssh.Certificate) { c.ValidPrincipals = []string{"b.example.com"} }, ca, unknown},
		{"nobody", func(c *xssh.Certificate) { c.ValidPrincipals = nil }, ca, unknown},
		{"a user's", func(c *xssh.Certificate) { c.CertType = xssh.UserCert }, ca, unknown},
		{"expired", func(c *xssh.Certificate) { c.ValidBefore = uint64(now.Unix()) - 1 }, ca, unknown},
		{"not yet", func(c *xssh.Certificate) { c.ValidAfter = uint64(now.Unix()) + 100 }, ca, unknown},
		{"an option that is not known", func(c *xssh.Certificate) { c.CriticalOptions = map[string]string{"x": ""} }, ca, unknown},
	} {
		c := &xssh.Certificate{Key: host.PublicKey(), CertType: xssh.HostCert, ValidPrincipals: []string{"a.example.com"}, ValidAfter: uint64(now.Unix()) - 10, ValidBefore: uint64(now.Unix()) + 100}
		tt.change(c)
		check(t, c.SignCert(rand.Reader, tt.signer))
		k := ParseKnownHosts([]byte("@cert-authority *.example.com " + string(xssh.MarshalAuthorizedKey(ca.PublicKey()))))
		if got := k.check("a.example.com", 22, c, now); got != tt.want && !(tt.want == unknown && got == changed) {
			t.Errorf("%s: %d, want %d", tt.name, got, tt.want)
		}
		if k.check("a.example.com", 22, ca.PublicKey(), now) == known {
			t.Error("the authority's key is taken for a host's")
		}
	}
}
