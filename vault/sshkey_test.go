package vault

import (
	"bytes"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"encoding/base64"
	"encoding/pem"
	"errors"
	"strings"
	"testing"

	"golang.org/x/crypto/ssh"
)

// Of an RSA key no line is looked for that the public half could have, and of no
// key one too few.
func TestPublicHalfIsNotSearched(t *testing.T) {
	k, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	_, ed, _ := ed25519.GenerateKey(rand.Reader)
	block := func(key any) []byte {
		b, err := ssh.MarshalPrivateKey(key, "")
		if err != nil {
			t.Fatal(err)
		}
		return pem.EncodeToMemory(b)
	}
	pub, err := ssh.NewPublicKey(k.Public())
	if err != nil {
		t.Fatal(err)
	}
	var shown []string // at each of the three places that it can begin at
	for i := range 3 {
		shown = append(shown, base64.StdEncoding.EncodeToString(append(make([]byte, i), pub.Marshal()...)), base64.StdEncoding.EncodeToString(append(make([]byte, i), k.N.Bytes()...)))
	}
	for name, text := range map[string][]byte{
		"OpenSSH's": block(k), "PEM": pem.EncodeToMemory(&pem.Block{Type: "RSA PRIVATE KEY", Bytes: x509.MarshalPKCS1PrivateKey(k)}), "Ed25519": block(ed),
	} {
		got := searched(kindSSHKey, bytes.Clone(text))
		lines := bytes.Count(got, []byte("\n"))
		if all := bytes.Count(text, []byte("\n")); name == "Ed25519" && lines != all || lines < all/3 {
			t.Errorf("%s: %d lines of %d", name, lines, all)
		}
		for line := range strings.Lines(string(got)) {
			line = strings.TrimSpace(line)
			for _, s := range shown {
				if len(line) > 16 && strings.Contains(s, line) {
					t.Errorf("%s: a line of the public half is looked for", name)
				}
			}
		}
		if !bytes.Equal(searched("generic", bytes.Clone(text)), text) {
			t.Errorf("%s: changed in another kind", name)
		}
	}
}

func TestKeysThatCannotBeUsed(t *testing.T) {
	_, ed, _ := ed25519.GenerateKey(rand.Reader)
	locked, err := ssh.MarshalPrivateKeyWithPassphrase(ed, "", []byte("passphrase"))
	if err != nil {
		t.Fatal(err)
	}
	open, _ := ssh.MarshalPrivateKey(ed, "")
	text := string(pem.EncodeToMemory(open))
	for name, c := range map[string]struct{ text, want string }{
		"locked": {string(pem.EncodeToMemory(locked)), "passphrase"}, "half": {text[:len(text)/2], "private half"}, "no key": {"some other secret", "private half"},
		"no body": {"-----BEGIN OPENSSH PRIVATE KEY-----\n-----END OPENSSH PRIVATE KEY-----\n", "private half"},
	} {
		err := checkKind("x", kindSSHKey, []byte(c.text))
		if !errors.Is(err, ErrKey) || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v", name, err)
		}
		if err := checkKind("x", "generic", []byte(c.text)); err != nil {
			t.Errorf("%s as another kind: %v", name, err)
		}
	}
	if err := checkKind("x", kindSSHCA, []byte(text)); err != nil {
		t.Error(err)
	}
}
