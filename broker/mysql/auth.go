package mysql

import (
	"crypto/sha1"
	"crypto/sha256"
	"crypto/sha512"
	"errors"

	"filippo.io/edwards25519"
)

// The plugins that guard logs in with, as the protocol names them.
const (
	pluginNative  = "mysql_native_password"
	pluginCaching = "caching_sha2_password"
	pluginSHA256  = "sha256_password"
	pluginClear   = "mysql_clear_password"
	pluginEd25519 = "client_ed25519"
)

// scrambleLen is the length of a server's nonce.
const scrambleLen = 20

var (
	errPlugin    = errors.New("the server wants a login that guard does not know")
	errUntrusted = errors.New("the server's certificate is not trusted")
	errClear     = errors.New("the server wants the password itself, and its certificate is not trusted")
	errNoTLS     = errors.New("the server has no TLS")
)

// answer is what a plugin answers a nonce with. The value cannot be read from it but
// for pluginClear and pluginSHA256, which are for a trusted server.
func answer(plugin string, nonce, password []byte, trusted bool) ([]byte, error) {
	switch plugin {
	case pluginNative:
		return scrambleNative(nonce, password), nil
	case pluginCaching:
		return scrambleSHA2(nonce, password), nil
	case pluginEd25519:
		return signEd25519(nonce, password)
	case pluginClear, pluginSHA256:
		if !trusted {
			return nil, errClear
		}
		return append(append([]byte(nil), password...), 0), nil
	}
	return nil, errPlugin
}

// scrambleNative is SHA1(p) XOR SHA1(nonce, SHA1(SHA1(p))).
func scrambleNative(nonce, password []byte) []byte {
	if len(password) == 0 {
		return nil
	}
	out := sha1.Sum(password)
	twice := sha1.Sum(out[:])
	h := sha1.New()
	h.Write(nonce)
	h.Write(twice[:])
	for i, b := range h.Sum(nil) {
		out[i] ^= b
	}
	return out[:]
}

// scrambleSHA2 is SHA256(p) XOR SHA256(SHA256(SHA256(p)), nonce).
func scrambleSHA2(nonce, password []byte) []byte {
	if len(password) == 0 {
		return nil
	}
	out := sha256.Sum256(password)
	twice := sha256.Sum256(out[:])
	h := sha256.New()
	h.Write(twice[:])
	h.Write(nonce)
	for i, b := range h.Sum(nil) {
		out[i] ^= b
	}
	return out[:]
}

// signEd25519 signs the nonce as Ed25519 does (RFC 8032, 5.1.6), with the SHA-512 of
// the password where that takes the SHA-512 of a seed: MariaDB's auth_ed25519.
func signEd25519(nonce, password []byte) ([]byte, error) {
	h := sha512.Sum512(password)
	defer clear(h[:])
	s, err := edwards25519.NewScalar().SetBytesWithClamping(h[:32])
	if err != nil {
		return nil, err
	}
	public := edwards25519.NewIdentityPoint().ScalarBaseMult(s).Bytes()
	sum := func(parts ...[]byte) (*edwards25519.Scalar, error) {
		d := sha512.New()
		for _, p := range parts {
			d.Write(p)
		}
		return edwards25519.NewScalar().SetUniformBytes(d.Sum(nil))
	}
	r, err := sum(h[32:], nonce)
	if err != nil {
		return nil, err
	}
	commit := edwards25519.NewIdentityPoint().ScalarBaseMult(r).Bytes()
	k, err := sum(commit, public, nonce)
	if err != nil {
		return nil, err
	}
	return append(commit, edwards25519.NewScalar().MultiplyAdd(k, s, r).Bytes()...), nil
}
