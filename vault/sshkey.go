package vault

import (
	"crypto/dsa"
	"crypto/rsa"
	"errors"
	"fmt"

	"golang.org/x/crypto/ssh"
)

const (
	kindSSHKey = "ssh-key"
	kindSSHCA  = "ssh-ca"
)

// ErrKey is what every refusal of a value for a kind of private keys is.
var ErrKey = errors.New("not a private key that guard can use")

// checkKind refuses a value that its kind could not be used with. The errors hold
// nothing of the value.
func checkKind(name, kind string, plain []byte) error {
	if kind != kindSSHKey && kind != kindSSHCA {
		return nil
	}
	bad := func(why string) error { return fmt.Errorf("credential %q: %w: %s", name, ErrKey, why) }
	key, err := ssh.ParseRawPrivateKey(plain)
	var passphrase *ssh.PassphraseMissingError
	switch {
	case errors.As(err, &passphrase):
		return bad("it is protected by a passphrase, and nobody is there to type it; take it off a copy (cp KEY COPY; ssh-keygen -p -N '' -f COPY), store the copy and delete it: the vault encrypts it")
	case err != nil:
		return bad("want the private half in OpenSSH's format or PEM, as ssh-keygen makes it; with --kind generic any text is stored")
	}
	switch k := key.(type) {
	case *dsa.PrivateKey:
		return bad("it is a DSA key, which servers refuse; make another: ssh-keygen -t ed25519")
	case *rsa.PrivateKey:
		if k.N.BitLen() < 2048 {
			return bad(fmt.Sprintf("an RSA key of %d bits is too short; make another: ssh-keygen -t ed25519", k.N.BitLen()))
		}
	}
	if _, err := ssh.NewSignerFromKey(key); err != nil {
		return bad("want RSA, ECDSA or Ed25519")
	}
	return nil
}
