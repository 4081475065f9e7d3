package vault

import (
	"bytes"
	"crypto/dsa"
	"crypto/rsa"
	"encoding/pem"
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

// searched is what of a value is looked for in output: of a private key the lines
// without those that are public, which an agent prints rightly (ssh-add -L), and
// which are the same text where they happen to begin at the same place.
func searched(kind string, plain []byte) []byte {
	if kind != kindSSHKey && kind != kindSSHCA {
		return plain
	}
	block, _ := pem.Decode(plain)
	key, err := ssh.ParseRawPrivateKey(plain)
	if block == nil || err != nil {
		return plain
	}
	signer, err := ssh.NewSignerFromKey(key)
	if err != nil {
		return plain
	}
	shown := signer.PublicKey().Marshal()
	public := shown
	if k, ok := key.(*rsa.PrivateKey); ok {
		public = k.N.Bytes()
	}
	var out []byte
	at, kept := 0, 0
	for line := range bytes.Lines(plain) {
		text := bytes.TrimSpace(line)
		if len(text) == 0 || bytes.HasPrefix(text, []byte("-----")) {
			out = append(out, line...)
			continue
		}
		from, to := at, min(at+len(text)*3/4, len(block.Bytes))
		at = to
		if b := block.Bytes[from:to]; bytes.Contains(public, b) || bytes.Contains(shown, b) {
			continue
		}
		out = append(out, line...)
		kept++
	}
	clear(block.Bytes)
	if kept == 0 {
		return plain
	}
	clear(plain)
	return out
}
