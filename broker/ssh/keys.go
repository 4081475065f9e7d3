package ssh

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/rsa"
	"encoding/binary"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	xssh "golang.org/x/crypto/ssh"

	"guard"
)

// Kinds of credentials that the agent serves.
const (
	KindKey = "ssh-key" // a private key
	KindCA  = "ssh-ca"  // the private key of an authority that signs users' certificates
)

// Actions of guard.Use.
const (
	actConnect = "ssh:connect" // sign a login
	actSign    = "ssh:sign"    // sign for git
	actCertify = "ssh:certify" // sign a certificate for the session's own key
)

// identity is a key that the agent offers.
type identity struct {
	cred guard.Credential
	blob []byte // public key or certificate, as it is offered
	key  xssh.PublicKey
	pair *pair // of a certificate: who signs
}

// pair is a key pair of the session's own, which is nowhere but here.
type pair struct {
	private ed25519.PrivateKey
	signer  xssh.Signer
	cert    *xssh.Certificate
	before  *xssh.Certificate // that a client may have been given just before
}

const (
	certBack  = time.Minute     // for clocks that are behind
	certLives = 5 * time.Minute // from now on
	certRenew = 2 * time.Minute // left, when a new one is made
)

// identities lists what the session may use now.
func (a *Agent) identities(c *conn) []identity {
	if a.Credentials == nil {
		return nil
	}
	var out []identity
	for _, cred := range a.Credentials() {
		switch cred.Kind {
		case KindKey:
			if key := a.public(cred); key != nil {
				out = append(out, identity{cred: cred, blob: key.Marshal(), key: key})
			}
		case KindCA:
			out = append(out, a.certified(c, cred)...)
		}
	}
	return out
}

// public is the public half of a key in the vault, which is looked at once for
// each version.
func (a *Agent) public(cred guard.Credential) xssh.PublicKey {
	id := cred.ID()
	a.mu.Lock()
	key, ok := a.publics[id]
	a.mu.Unlock()
	if ok || a.Value == nil {
		return key
	}
	s, err := a.Value(id)
	if err != nil {
		return nil // maybe of a version that was just replaced
	}
	defer s.Wipe()
	signer, wipe, err := parse(s)
	if err == nil {
		key = signer.PublicKey()
		wipe()
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.publics == nil {
		a.publics = map[guard.SecretID]xssh.PublicKey{}
	}
	a.publics[id] = key
	return key
}

// parse reads a private key. wipe overwrites what of it can be reached.
func parse(s guard.Secret) (signer xssh.Signer, wipe func(), err error) {
	text := s.Reveal()
	var raw any
	if raw, err = parseRSA(text); err != nil {
		raw, err = xssh.ParseRawPrivateKey(text)
	}
	if err != nil {
		return nil, nil, errors.New("not a private key that can be used") // the library's words may hold input
	}
	if p, ok := raw.(*ed25519.PrivateKey); ok {
		raw = *p
	}
	if signer, err = xssh.NewSignerFromKey(raw); err != nil {
		return nil, nil, errors.New("not a key for SSH")
	}
	return signer, func() {
		switch k := raw.(type) {
		case ed25519.PrivateKey:
			clear(k)
		case *ecdsa.PrivateKey:
			clear(k.D.Bits())
		case *rsa.PrivateKey:
			wipeRSA(k)
		}
	}, nil
}

// certified returns the certificates of an authority: the current one, and the
// one before, as long as it is valid.
func (a *Agent) certified(c *conn, cred guard.Credential) []identity {
	a.certs.Lock() // also while one is made: two clients want the same
	defer a.certs.Unlock()
	p := a.pairs[cred.ID()]
	now := a.now()
	if p == nil || now.Add(certRenew).After(time.Unix(int64(p.cert.ValidBefore), 0)) {
		fresh, err := a.certify(c, cred, p)
		if err != nil {
			return nil
		}
		p = fresh
		if a.pairs == nil {
			a.pairs = map[guard.SecretID]*pair{}
		}
		a.pairs[cred.ID()] = p
	}
	out := []identity{{cred: cred, blob: p.cert.Marshal(), key: p.cert, pair: p}}
	if p.before != nil && now.Before(time.Unix(int64(p.before.ValidBefore), 0)) {
		out = append(out, identity{cred: cred, blob: p.before.Marshal(), key: p.before, pair: p})
	}
	return out
}

// certify has a certificate signed for the session's key, by way of the use line.
func (a *Agent) certify(c *conn, cred guard.Credential, old *pair) (*pair, error) {
	u := c.use(cred, actCertify)
	users := users(cred)
	u.Resource = strings.Join(users, ",")
	if len(users) == 0 { // no principals would be any
		return nil, c.refuse(u, refusal("ssh certificate", "the authority has no user, and a certificate without principals would be good for all", "guard secret edit "+cred.Name+" --user NAME"))
	}
	p := &pair{}
	if old != nil {
		p.private, p.signer, p.before = old.private, old.signer, old.cert
	} else {
		_, private, err := ed25519.GenerateKey(rand.Reader)
		if err != nil {
			return nil, err
		}
		if p.signer, err = xssh.NewSignerFromKey(private); err != nil {
			return nil, err
		}
		p.private = private
	}
	var serial [8]byte
	_, _ = rand.Read(serial[:]) // never fails (crypto/rand)
	now := a.now()
	p.cert = &xssh.Certificate{
		Key: p.signer.PublicKey(), Serial: binary.BigEndian.Uint64(serial[:]), CertType: xssh.UserCert,
		KeyId: "guard " + a.Session.ID + " " + cred.Name, ValidPrincipals: users,
		ValidAfter: uint64(now.Add(-certBack).Unix()), ValidBefore: uint64(now.Add(certLives).Unix()),
		Permissions: xssh.Permissions{Extensions: map[string]string{"permit-pty": ""}},
	}
	if a.Source != "" {
		p.cert.CriticalOptions = map[string]string{"source-address": a.Source}
	}
	d, err := a.use(u, func(s guard.Secret) (string, error) {
		ca, wipe, err := parse(s)
		if err != nil {
			return "failed", err
		}
		defer wipe()
		if rsa, ok := ca.(xssh.AlgorithmSigner); ok && ca.PublicKey().Type() == xssh.KeyAlgoRSA {
			if ca, err = xssh.NewSignerWithAlgorithms(rsa, []string{xssh.KeyAlgoRSASHA512}); err != nil {
				return "failed", err
			}
		}
		if err := p.cert.SignCert(rand.Reader, ca); err != nil {
			return "failed", err
		}
		return fmt.Sprintf("certificate %d", p.cert.Serial), nil
	})
	if err != nil && !d.Allowed() {
		c.tell(u, d)
	}
	return p, err
}

// users are the login names that a credential is for; none: any.
func users(c guard.Credential) (out []string) {
	for u := range strings.SplitSeq(c.User, ",") {
		if u = strings.TrimSpace(u); u != "" && !slices.Contains(out, u) {
			out = append(out, u)
		}
	}
	return out
}

// find returns the identity whose public half is blob.
func find(ids []identity, blob []byte) (identity, bool) {
	i := slices.IndexFunc(ids, func(id identity) bool { return bytes.Equal(id.blob, blob) })
	if i < 0 {
		return identity{}, false
	}
	return ids[i], true
}
