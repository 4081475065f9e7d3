package ssh

import (
	"bytes"
	"crypto/rsa"
	"encoding/pem"
	"guard/internal/testutil"
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	xssh "golang.org/x/crypto/ssh"

	"guard"
)

// TestRSAAsTheLibrary: keys of ssh-keygen, whole and damaged, are read as
// x/crypto/ssh reads them.
func TestRSAAsTheLibrary(t *testing.T) {
	keygen := testutil.Need(t, "ssh-keygen", "openssh-client")
	for _, bits := range []string{"1024", "2048", "3072"} {
		path := filepath.Join(t.TempDir(), "k")
		if out, err := exec.Command(keygen, "-q", "-t", "rsa", "-b", bits, "-N", "", "-C", "somebody@example.com", "-f", path).CombinedOutput(); err != nil {
			t.Fatalf("%v\n%s", err, out)
		}
		text, err := os.ReadFile(path)
		check(t, err)
		k, err := parseRSA(text)
		check(t, err)
		want, err := xssh.ParseRawPrivateKey(text)
		check(t, err)
		if !k.Equal(want) {
			t.Fatalf("%s bits: another key", bits)
		}
		if bits != "1024" {
			continue
		}
		block, _ := pem.Decode(text)
		for i := range block.Bytes {
			b := bytes.Clone(block.Bytes)
			b[i] ^= 1 << (i % 8)
			damaged := pem.EncodeToMemory(&pem.Block{Type: block.Type, Bytes: b})
			want, err := xssh.ParseRawPrivateKey(damaged)
			got, gotErr := parseRSA(damaged)
			if gotErr == nil && (err != nil || !got.Equal(want)) {
				t.Fatalf("byte %d: taken, and the library says %v", i, err)
			}
			_, wipe, parseErr := parse(guard.NewSecret(damaged))
			if (parseErr == nil) != (err == nil) {
				t.Fatalf("byte %d: %v, and the library says %v", i, parseErr, err)
			}
			if wipe != nil {
				wipe()
			}
		}
	}
}

// TestRSAOtherForms: what is not such a file is left to the library.
func TestRSAOtherForms(t *testing.T) {
	value, _ := newKey(t, "ed25519")
	rsaText, _ := newKey(t, "rsa")
	raw, err := xssh.ParseRawPrivateKey(rsaText)
	check(t, err)
	sealed, err := xssh.MarshalPrivateKeyWithPassphrase(raw.(*rsa.PrivateKey), "", []byte("words"))
	check(t, err)
	for name, text := range map[string][]byte{
		"another kind": value, "a passphrase": pem.EncodeToMemory(sealed), "nothing": nil, "no PEM": []byte("x"),
		"only a head": pem.EncodeToMemory(&pem.Block{Type: "OPENSSH PRIVATE KEY", Bytes: []byte(opensshMagic)}),
	} {
		if _, err := parseRSA(text); err == nil {
			t.Errorf("%s: taken", name)
		}
	}
}

// TestRSAWipe: the numbers that can be reached are zero afterwards.
func TestRSAWipe(t *testing.T) {
	text, _ := newKey(t, "rsa")
	k, err := parseRSA(text)
	check(t, err)
	wipeRSA(k)
	for i, w := range append(append(k.D.Bits(), k.Primes[0].Bits()...), append(k.Primes[1].Bits(), k.Precomputed.Dp.Bits()...)...) {
		if w != 0 {
			t.Fatalf("word %d is there", i)
		}
	}
}
