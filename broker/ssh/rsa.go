package ssh

import (
	"bytes"
	"crypto/rsa"
	"encoding/pem"
	"errors"
	"math/big"

	xssh "golang.org/x/crypto/ssh"
)

const opensshMagic = "openssh-key-v1\x00"

var errNotRSA = errors.New("not an RSA key in OpenSSH's form without a passphrase")

// parseRSA reads an RSA key from a file in OpenSSH's form (PROTOCOL.key) that has no
// passphrase. x/crypto/ssh works out q^-1 mod p, twice, which takes as long as signing
// does; it is in the file, and package rsa checks that it is right. Keys are read
// for each signature, since they are kept parsed nowhere. An error: ask x/crypto/ssh.
func parseRSA(text []byte) (*rsa.PrivateKey, error) {
	block, _ := pem.Decode(text)
	if block == nil || block.Type != "OPENSSH PRIVATE KEY" || !bytes.HasPrefix(block.Bytes, []byte(opensshMagic)) {
		return nil, errNotRSA
	}
	defer clear(block.Bytes) // the parts below are in it; the numbers are copies
	var file struct {
		Cipher, KDF, Options string
		Keys                 uint32
		Public, Private      []byte
	}
	if err := xssh.Unmarshal(block.Bytes[len(opensshMagic):], &file); err != nil || file.Cipher != "none" || file.KDF != "none" || file.Keys != 1 {
		return nil, errNotRSA
	}
	var head struct {
		Check1, Check2 uint32
		Type           string
		Rest           []byte `ssh:"rest"`
	}
	if err := xssh.Unmarshal(file.Private, &head); err != nil || head.Check1 != head.Check2 || head.Type != xssh.KeyAlgoRSA {
		return nil, errNotRSA
	}
	var n struct {
		N, E, D, Qinv, P, Q *big.Int
		Comment             []byte
		Pad                 []byte `ssh:"rest"`
	}
	if err := xssh.Unmarshal(head.Rest, &n); err != nil {
		return nil, errNotRSA
	}
	for i, b := range n.Pad {
		if int(b) != i+1 {
			return nil, errNotRSA
		}
	}
	// The limits of x/crypto/ssh.
	if n.N.BitLen() > 16384 || n.P.BitLen() > 8192 || n.Q.BitLen() > 8192 || n.E.BitLen() > 24 ||
		n.D.Sign() <= 0 || n.P.Cmp(big.NewInt(2)) <= 0 || n.Q.Cmp(big.NewInt(2)) <= 0 || n.Qinv.Sign() <= 0 {
		return nil, errNotRSA
	}
	below := func(p *big.Int) *big.Int { // D mod p-1
		m := new(big.Int).Sub(p, big.NewInt(1))
		defer clear(m.Bits())
		return new(big.Int).Mod(n.D, m)
	}
	k := &rsa.PrivateKey{PublicKey: rsa.PublicKey{N: n.N, E: int(n.E.Int64())}, D: n.D, Primes: []*big.Int{n.P, n.Q}}
	k.Precomputed.Dp, k.Precomputed.Dq, k.Precomputed.Qinv = below(n.P), below(n.Q), n.Qinv
	k.Precompute()
	if err := k.Validate(); err != nil {
		wipeRSA(k)
		return nil, errNotRSA
	}
	return k, nil
}

// wipeRSA overwrites what of a key can be reached.
func wipeRSA(k *rsa.PrivateKey) {
	for _, n := range append([]*big.Int{k.D, k.Precomputed.Dp, k.Precomputed.Dq, k.Precomputed.Qinv}, k.Primes...) {
		if n != nil {
			clear(n.Bits())
		}
	}
}
