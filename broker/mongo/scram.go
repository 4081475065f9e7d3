package mongo

import (
	"crypto/hmac"
	"crypto/pbkdf2"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"errors"
	"strconv"
	"strings"
)

// SCRAM-SHA-256 (RFC 5802, 7677) without channel binding, both ways.

var errLogin = errors.New("login refused")

const (
	minIterations = 4096
	maxIterations = 10_000_000
)

func mac(key []byte, s string) []byte {
	m := hmac.New(sha256.New, key)
	m.Write([]byte(s))
	return m.Sum(nil)
}

// keys are those of one password.
func keys(password string, salt []byte, iterations int) (client, stored, server []byte, err error) {
	salted, err := pbkdf2.Key(sha256.New, password, salt, iterations, sha256.Size)
	if err != nil {
		return nil, nil, nil, err
	}
	client = mac(salted, "Client Key")
	sum := sha256.Sum256(client)
	return client, sum[:], mac(salted, "Server Key"), nil
}

func fields(s string) map[byte]string {
	out := map[byte]string{}
	for f := range strings.SplitSeq(s, ",") {
		if len(f) >= 2 && f[1] == '=' {
			if _, twice := out[f[0]]; !twice {
				out[f[0]] = f[2:]
			}
		}
	}
	return out
}

// client is guard towards a server.
type client struct {
	password    string
	nonce, bare string
	want        string
}

func newClient(user, password string) *client {
	c := &client{password: password, nonce: rand.Text()}
	c.bare = "n=" + strings.NewReplacer("=", "=3D", ",", "=2C").Replace(user) + ",r=" + c.nonce
	return c
}

func (c *client) first() string { return "n,," + c.bare }

// final answers the server's first message.
func (c *client) final(challenge string) (string, error) {
	f := fields(challenge)
	salt, err := base64.StdEncoding.DecodeString(f['s'])
	n, _ := strconv.Atoi(f['i'])
	if err != nil || !strings.HasPrefix(f['r'], c.nonce) || len(f['r']) == len(c.nonce) || n < minIterations || n > maxIterations || len(salt) < 8 {
		return "", errLogin
	}
	key, stored, server, err := keys(c.password, salt, n)
	if err != nil {
		return "", errLogin
	}
	final := "c=biws,r=" + f['r']
	message := c.bare + "," + challenge + "," + final
	for i, b := range mac(stored, message) {
		key[i] ^= b
	}
	c.want = base64.StdEncoding.EncodeToString(mac(server, message))
	return final + ",p=" + base64.StdEncoding.EncodeToString(key), nil
}

// proven says whether the server knows the password's verifier.
func (c *client) proven(final string) bool {
	return c.want != "" && hmac.Equal([]byte(fields(final)['v']), []byte(c.want))
}

// login is guard as a server: a client's login that goes on.
type login struct {
	user      string
	bare      string
	challenge string
	nonce     string
	salt      []byte
}

func newLogin(first string) (*login, error) {
	bare, ok := strings.CutPrefix(first, "n,,")
	f := fields(bare)
	if !ok || f['r'] == "" || f['n'] == "" || f['m'] != "" || len(first) > 1024 {
		return nil, errLogin
	}
	l := &login{bare: bare, user: strings.NewReplacer("=2C", ",", "=3D", "=").Replace(f['n']), salt: make([]byte, 16)}
	rand.Read(l.salt)
	l.nonce = f['r'] + rand.Text()
	l.challenge = "r=" + l.nonce + ",s=" + base64.StdEncoding.EncodeToString(l.salt) + ",i=" + strconv.Itoa(minIterations)
	return l, nil
}

// check says whether the client knows password, and with what guard proves that it
// does, too.
func (l *login) check(final, password string) (proof string, ok bool) {
	i := strings.LastIndex(final, ",p=")
	f := fields(final)
	if i < 0 || f['c'] != "biws" || f['r'] != l.nonce || password == "" {
		return "", false
	}
	p, err := base64.StdEncoding.DecodeString(final[i+3:])
	if err != nil || len(p) != sha256.Size {
		return "", false
	}
	_, stored, server, err := keys(password, l.salt, minIterations)
	if err != nil {
		return "", false
	}
	message := l.bare + "," + l.challenge + "," + final[:i]
	for k, b := range mac(stored, message) {
		p[k] ^= b
	}
	sum := sha256.Sum256(p)
	if !hmac.Equal(sum[:], stored) {
		return "", false
	}
	return "v=" + base64.StdEncoding.EncodeToString(mac(server, message)), true
}
