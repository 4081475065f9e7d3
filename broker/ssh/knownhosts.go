package ssh

import (
	"bytes"
	"crypto/hmac"
	"crypto/sha1"
	"encoding/base64"
	"errors"
	"io"
	"io/fs"
	"os"
	"slices"
	"strconv"
	"strings"
	"time"

	xssh "golang.org/x/crypto/ssh"
)

// KnownHosts are host keys that the user trusts (sshd(8), SSH_KNOWN_HOSTS FILE FORMAT). The nil and the
// zero KnownHosts know none.
type KnownHosts struct{ lines []knownLine }

type knownLine struct {
	marker string // "", "cert-authority" or "revoked"
	hosts  []string
	key    xssh.PublicKey
}

// maxKnownHosts bounds what is read of one file, in bytes.
const maxKnownHosts = 8 << 20

// ReadKnownHosts reads files, in order. A file that is not there holds nothing; a
// line that cannot be read is left out, as ssh does.
func ReadKnownHosts(files ...string) (*KnownHosts, error) {
	k := &KnownHosts{}
	for _, name := range files {
		f, err := os.Open(name)
		if errors.Is(err, fs.ErrNotExist) {
			continue
		} else if err != nil {
			return nil, err
		}
		b, err := io.ReadAll(io.LimitReader(f, maxKnownHosts))
		f.Close()
		if err != nil {
			return nil, err
		}
		k.lines = append(k.lines, ParseKnownHosts(b).lines...)
	}
	return k, nil
}

// ParseKnownHosts reads the text of such a file.
func ParseKnownHosts(text []byte) *KnownHosts {
	k := &KnownHosts{}
	for line := range bytes.Lines(text) {
		line = bytes.TrimSpace(line)
		if len(line) == 0 || line[0] == '#' {
			continue
		}
		marker, hosts, key, _, _, err := xssh.ParseKnownHosts(line)
		if err != nil || marker != "" && marker != "cert-authority" && marker != "revoked" {
			continue
		}
		k.lines = append(k.lines, knownLine{marker, hosts, key})
	}
	return k
}

// verdict is what is known of a key at a host, the better the higher.
type verdict uint8

const (
	unknown verdict = iota // nothing
	changed                // the host has another key of this type
	revoked                // the key is not to be trusted, there or anywhere
	known
)

// check says what is known of key at host:port. A key without a port in its
// line's name counts for every port of the host, as it does for ssh.
func (k *KnownHosts) check(host string, port int, key xssh.PublicKey, now time.Time) verdict {
	if k == nil {
		return unknown
	}
	cert, _ := key.(*xssh.Certificate)
	plain := key
	if cert != nil {
		plain = cert.Key
	}
	best := unknown
	for _, l := range k.lines {
		if l.marker == "revoked" {
			// Under whatever name: ssh asks for the host's, which is less strict.
			if same(l.key, key) || same(l.key, plain) || cert != nil && same(l.key, cert.SignatureKey) {
				return revoked
			}
			continue
		}
		if best == known || !l.matches(host, port) {
			continue
		}
		switch {
		case l.marker == "cert-authority":
			if cert != nil && same(l.key, cert.SignatureKey) && certFor(cert, host, now) {
				best = known
			}
		case same(l.key, plain):
			best = known
		case l.key.Type() == plain.Type():
			best = changed
		}
	}
	return best
}

// algorithms are those of the keys and authorities that are known for a host, in their
// files' order; nil: nothing is known of it.
func (k *KnownHosts) algorithms(host string, port int) (out []string) {
	add := func(names ...string) {
		for _, n := range names {
			if !slices.Contains(out, n) {
				out = append(out, n)
			}
		}
	}
	if k == nil {
		return nil
	}
	authority := false
	for _, l := range k.lines {
		switch {
		case l.marker == "revoked" || !l.matches(host, port):
		case l.marker == "cert-authority":
			authority = true
		case l.key.Type() == xssh.KeyAlgoRSA:
			add(xssh.KeyAlgoRSASHA512, xssh.KeyAlgoRSASHA256)
		default:
			add(l.key.Type())
		}
	}
	if authority {
		out = append([]string{xssh.CertAlgoED25519v01, xssh.CertAlgoECDSA256v01, xssh.CertAlgoECDSA384v01, xssh.CertAlgoECDSA521v01, xssh.CertAlgoRSASHA512v01, xssh.CertAlgoRSASHA256v01}, out...)
	}
	return out
}

func same(a, b xssh.PublicKey) bool {
	return a != nil && b != nil && bytes.Equal(a.Marshal(), b.Marshal())
}

// certFor says whether a host certificate is good for host: type, time, principals
// (which may be patterns), options and the authority's signature.
func certFor(c *xssh.Certificate, host string, now time.Time) bool {
	if c.CertType != xssh.HostCert {
		return false
	}
	check := xssh.CertChecker{Clock: func() time.Time { return now }}
	for _, p := range c.ValidPrincipals {
		if wild(strings.ToLower(p), host) && check.CheckCert(p, c) == nil {
			return true
		}
	}
	return false
}

func (l knownLine) matches(host string, port int) bool {
	if port != 22 && l.match("["+host+"]:"+strconv.Itoa(port)) {
		return true
	}
	return l.match(host)
}

// match says whether one of the line's names is name, and none excludes it.
func (l knownLine) match(name string) bool {
	found := false
	for _, p := range l.hosts {
		if strings.HasPrefix(p, "|") {
			found = found || hashed(p, name)
			continue
		}
		p, not := strings.CutPrefix(p, "!")
		if p == "" || !wild(strings.ToLower(p), name) {
			continue
		}
		if not {
			return false
		}
		found = true
	}
	return found
}

// hashed says whether p is name's hash: |1|SALT|HMAC-SHA1(salt, name).
func hashed(p, name string) bool {
	f := strings.Split(p, "|")
	if len(f) != 4 || f[1] != "1" {
		return false
	}
	salt, err1 := base64.StdEncoding.DecodeString(f[2])
	want, err2 := base64.StdEncoding.DecodeString(f[3])
	if err1 != nil || err2 != nil {
		return false
	}
	m := hmac.New(sha1.New, salt)
	m.Write([]byte(name))
	return hmac.Equal(m.Sum(nil), want)
}

// wild matches * and ?, in time bounded by the product of the lengths.
func wild(pattern, s string) bool {
	p, i, star, mark := 0, 0, -1, 0
	for i < len(s) {
		switch {
		case p < len(pattern) && pattern[p] == '*':
			star, mark = p, i
			p++
		case p < len(pattern) && (pattern[p] == '?' || pattern[p] == s[i]):
			p++
			i++
		case star >= 0:
			mark++
			p, i = star+1, mark
		default:
			return false
		}
	}
	for p < len(pattern) && pattern[p] == '*' {
		p++
	}
	return p == len(pattern)
}
