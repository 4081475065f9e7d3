package mysql

import (
	"bufio"
	"context"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha1"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"database/sql"
	"encoding/pem"
	"fmt"
	"net"
	"strings"
	"testing"

	"guard/internal/testutil"
)

// fake is a server that speaks as MySQL 8 does where no such server is installed: the
// login of caching_sha2_password, as its documentation tells. go-sql-driver, which
// is somebody else's, has to be able to log in to it.
type fake struct {
	cert   *tls.Certificate
	cached bool   // it knows the password's hash already
	first  string // of the answer to any statement, in hex
	secret []byte // the password itself, if somebody sent it
	key    *rsa.PrivateKey
}

func (f *fake) serve(c net.Conn) {
	defer c.Close()
	nonce := []byte("abcdefghijklmnopqrst")
	caps := uint32(capBoth | capNeeded | capPluginAuth | capConnectWithDB | capAuthLenEnc)
	if f.cert != nil {
		caps |= capSSL
	}
	hello := append([]byte("\x0a8.4.0-fake\x00\x01\x00\x00\x00"), nonce[:8]...)
	hello = append(hello, 0, byte(caps), byte(caps>>8), 45, 2, 0, byte(caps>>16), byte(caps>>24), 21)
	hello = append(append(append(hello, make([]byte, 10)...), nonce[8:]...), 0)
	hello = append(hello, pluginCaching+"\x00"...)
	say := func(b []byte, seq byte) bool {
		p, _ := appendPacket(nil, b, seq)
		_, err := c.Write(p)
		return err == nil
	}
	if !say(hello, 0) {
		return
	}
	msg, seq, err := readPacket(c, nil, 1<<20)
	if err != nil {
		return
	}
	secure := false
	if len(msg) == 32 {
		t := tls.Server(c, &tls.Config{Certificates: []tls.Certificate{*f.cert}})
		if t.Handshake() != nil {
			return
		}
		c, secure = t, true
		if msg, seq, err = readPacket(c, nil, 1<<20); err != nil {
			return
		}
	}
	cl := &client{}
	if cl.parse(msg, caps) != nil {
		return
	}
	// The server's side of it: XOR gives SHA256(p) back, which has to hash to what it knows.
	h1 := sha256.Sum256([]byte(password))
	h2 := sha256.Sum256(h1[:])
	mix := sha256.Sum256(append(h2[:], nonce...))
	good := len(cl.auth) == 32
	for i := range cl.auth {
		good = good && cl.auth[i]^mix[i] == h1[i]
	}
	deny := (&serverError{code: 1045, state: "28000", message: "Access denied for user '" + cl.user + "'@'h'"}).packet()
	switch {
	case !good && f.cached:
		say(deny, seq+1)
		return
	case f.cached:
		say([]byte{1, 3}, seq+1)
		seq++
	default:
		say([]byte{1, 4}, seq+1)
		if msg, seq, err = readPacket(c, nil, 1<<20); err != nil {
			return
		}
		if len(msg) == 1 && msg[0] == 2 && !secure { // wants the public key
			der, _ := x509.MarshalPKIXPublicKey(&f.key.PublicKey)
			say(append([]byte{1}, pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: der})...), seq+1)
			if msg, seq, err = readPacket(c, nil, 1<<20); err != nil {
				return
			}
			if msg, err = rsa.DecryptOAEP(sha1.New(), nil, f.key, msg, nil); err != nil {
				return
			}
			for i := range msg {
				msg[i] ^= nonce[i%len(nonce)]
			}
		}
		f.secret = append([]byte(nil), msg...)
		if string(msg) != password+"\x00" {
			say(deny, seq+1)
			return
		}
	}
	say(okPacket(2), seq+1)
	r := bufio.NewReader(c)
	for {
		msg, seq, err := readPacket(r, nil, 1<<20)
		if err != nil || msg[0] == comQuit {
			return
		}
		if f.first != "" {
			say([]byte(f.first), seq+1)
			if f.first[0] != 0xfb {
				return
			}
			if msg, _, err = readPacket(r, nil, 1<<20); err == nil {
				f.secret = msg // whatever it was sent
			}
			return
		}
		say(okPacket(2), seq+1)
	}
}

func (f *fake) dial(ctx context.Context) (net.Conn, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	defer l.Close()
	done := make(chan net.Conn, 1)
	go func() {
		c, err := l.Accept()
		if err == nil {
			done <- c
		}
		close(done)
	}()
	c, err := net.Dial("tcp", l.Addr().String())
	if err != nil {
		return nil, err
	}
	go f.serve(<-done)
	return c, nil
}

func TestCachingSHA2(t *testing.T) {
	ca := testutil.NewCA(t)
	cert := ca.Server(t, "127.0.0.1", "db.test")
	key, err := rsa.GenerateKey(rand.Reader, 2048)
	must(t, err)
	for name, c := range map[string]struct {
		f       fake
		roots   bool
		clear   bool // the password itself is sent
		refused string
	}{
		"known hash, TLS":                     {f: fake{cert: &cert, cached: true}, roots: true},
		"known hash, in clear text":           {f: fake{cached: true}},
		"known hash, a certificate of nobody": {f: fake{cert: &cert, cached: true}},
		"full login, TLS":                     {f: fake{cert: &cert}, roots: true, clear: true},
		"full login, a certificate of nobody": {f: fake{cert: &cert}, refused: "--ca"},
		"full login, in clear text":           {f: fake{key: key}, refused: "--ca"},
	} {
		t.Run(name, func(t *testing.T) {
			f := c.f
			// Somebody else's client gets in.
			d, err := f.dial(context.Background())
			must(t, err)
			config := ""
			if f.cert != nil {
				config = "&tls=skip-verify"
			}
			proxy, err := net.Listen("tcp", "127.0.0.1:0")
			must(t, err)
			d.Close()
			defer proxy.Close()
			go func() {
				for {
					c, err := proxy.Accept()
					if err != nil {
						return
					}
					go f.serve(c)
				}
			}()
			db, err := sql.Open("mysql", fmt.Sprintf("x:%s@tcp(%s)/?x=1%s", password, proxy.Addr(), config))
			must(t, err)
			defer db.Close()
			if err := db.Ping(); err != nil {
				t.Fatalf("go-sql-driver: %v", err)
			}

			g := c.f
			w := newWorld(t, func(w *world) { w.dial = g.dial })
			w.h.TLS = &tls.Config{RootCAs: x509.NewCertPool()}
			if c.roots {
				w.h.TLS.RootCAs = ca.Pool()
			}
			for _, plugin := range []string{"", "&allowFallbackToPlaintext=true"} {
				err := w.open(t, plugin).Ping()
				if c.refused == "" && err != nil || c.refused != "" && (err == nil || !strings.Contains(err.Error(), c.refused)) {
					t.Errorf("%v", err)
				}
			}
			if sent := string(g.secret) == password+"\x00"; sent != c.clear {
				t.Errorf("the password itself was sent: %v", sent)
			}
			w.change(func() { w.values[1] = "wrong" })
			if err := w.open(t, "").Ping(); err == nil || strings.Contains(err.Error(), realUser) {
				t.Errorf("a wrong value: %v", err)
			}
			w.change(func() { w.values[1] = password })
			// Elsewhere than on this machine nothing is said without trust.
			w.h.Plain = func(string, int) bool { return false }
			if err := w.open(t, "").Ping(); (err == nil) != c.roots {
				t.Errorf("elsewhere: %v", err)
			}
		})
	}
}

// A server of the other side's asks for a file, or speaks nonsense.
func TestServerThatAttacks(t *testing.T) {
	for name, first := range map[string]string{"a file": "\xfb/etc/passwd", "columns without an end": "\x05", "an answer to a login": "\xfe\x01\x02"} {
		f := &fake{cached: true, first: first}
		w := newWorld(t, func(w *world) { w.dial = f.dial })
		db := w.open(t, "&allowAllFiles=true")
		if _, err := db.Exec("SELECT 1"); err == nil {
			t.Errorf("%s: no error", name)
		} else if name == "a file" && !strings.Contains(err.Error(), "LOCAL INFILE") {
			t.Errorf("%s: %v", name, err)
		}
		if len(f.secret) > 0 {
			t.Errorf("%s: it was sent %q", name, f.secret)
		}
		db.Close()
	}
}
