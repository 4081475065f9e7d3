package ssh

import (
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"encoding/binary"
	"encoding/pem"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"time"

	xssh "golang.org/x/crypto/ssh"
	"golang.org/x/crypto/ssh/knownhosts"

	"guard"
	"guard/rotate"
)

// parse reads a private key.
func parse(v guard.Secret) (xssh.Signer, error) {
	k, err := xssh.ParsePrivateKey(v.Reveal())
	var locked *xssh.PassphraseMissingError
	switch {
	case errors.As(err, &locked):
		return nil, fmt.Errorf("the key has a passphrase: store it without: %w", rotate.ErrPermanent)
	case err != nil: // whose text may quote the key
		return nil, fmt.Errorf("the value is no private key that ssh reads: %w", rotate.ErrPermanent)
	}
	return k, nil
}

// choose makes a key pair with the old one's comment, or the credential's name.
func choose(j rotate.Job) (guard.Secret, error) {
	name := j.Credential.Name
	if c, ok := comment(j.Current); ok {
		name = c
	}
	_, private, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		return guard.Secret{}, err
	}
	defer clear(private)
	block, err := xssh.MarshalPrivateKey(private, name)
	if err != nil {
		return guard.Secret{}, err
	}
	defer clear(block.Bytes)
	return guard.NewSecret(pem.EncodeToMemory(block)), nil
}

// comment is an Ed25519 key's (PROTOCOL.key of OpenSSH); of others it is not looked for.
func comment(v guard.Secret) (string, bool) {
	block, _ := pem.Decode(v.Reveal())
	if block == nil {
		return "", false
	}
	defer clear(block.Bytes)
	rest, ok := strings.CutPrefix(string(block.Bytes), "openssh-key-v1\x00")
	if !ok {
		return "", false
	}
	var outer struct {
		Cipher, KDF, Options string
		N                    uint32
		Public, Private      []byte
	}
	var inner struct {
		Check1, Check2  uint32
		Type            string
		Public, Private []byte
		Comment         string
		Pad             []byte `ssh:"rest"`
	}
	if xssh.Unmarshal([]byte(rest), &outer) != nil || outer.Cipher != "none" || xssh.Unmarshal(outer.Private, &inner) != nil || inner.Type != xssh.KeyAlgoED25519 {
		return "", false
	}
	clear(inner.Private)
	return inner.Comment, !strings.ContainsAny(inner.Comment, "\r\n\x00")
}

// certify has the authority sign a key that is thrown away, for as long as a login takes.
func certify(ca xssh.Signer, principal string) (xssh.Signer, error) {
	_, private, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		return nil, err
	}
	own, err := xssh.NewSignerFromKey(private)
	if err != nil {
		return nil, err
	}
	var serial [8]byte
	rand.Read(serial[:])
	now := time.Now()
	cert := &xssh.Certificate{
		Key: own.PublicKey(), CertType: xssh.UserCert, KeyId: "guard-rotation", ValidPrincipals: []string{principal}, Serial: binary.BigEndian.Uint64(serial[:]),
		ValidAfter: uint64(now.Add(-time.Minute).Unix()), ValidBefore: uint64(now.Add(2 * time.Minute).Unix()),
	}
	if err := cert.SignCert(rand.Reader, ca); err != nil {
		return nil, fmt.Errorf("sign a certificate: %w", err)
	}
	return xssh.NewCertSigner(cert, own)
}

// client is a connection that ends with its context.
type client struct {
	*xssh.Client
	user string
	stop func() bool
}

func (c *client) Close() error {
	c.stop()
	_ = c.Client.Close()
	return nil
}

// connect logs in. The error Is rotate.ErrRefused if and only if the host, whose key is
// known, was asked with the key and refused it.
func (w *work) connect(ctx context.Context, h host, user string, key xssh.Signer, ca bool) (*client, error) {
	if ca {
		principal := w.j.Options["principal"]
		if principal == "" {
			principal = user
		}
		var err error
		if key, err = certify(key, principal); err != nil {
			return nil, err
		}
	}
	check, algorithms, err := w.hostKeys(h)
	if err != nil {
		return nil, err
	}
	var d net.Dialer
	nc, err := d.DialContext(ctx, "tcp", h.String())
	if err != nil {
		return nil, err
	}
	stop := context.AfterFunc(ctx, func() { nc.Close() })
	sc, chans, reqs, err := xssh.NewClientConn(nc, h.String(), &xssh.ClientConfig{
		User: user, Auth: []xssh.AuthMethod{xssh.PublicKeys(key)}, HostKeyCallback: check, HostKeyAlgorithms: algorithms,
		ClientVersion: "SSH-2.0-guard",
	})
	if err != nil {
		stop()
		nc.Close()
		var unknown *knownhosts.KeyError
		var revoked *knownhosts.RevokedError
		switch said := err.Error(); {
		case errors.As(err, &revoked):
			return nil, fmt.Errorf("the host's key is revoked in known_hosts: %w", rotate.ErrPermanent)
		case errors.As(err, &unknown) && len(unknown.Want) > 0:
			return nil, fmt.Errorf("the host shows another key than the one in known_hosts: %w", rotate.ErrPermanent)
		case errors.As(err, &unknown):
			return nil, fmt.Errorf("the host's key is not in known_hosts: log in once with ssh, or add known_hosts=FILE to the rotate option: %w", rotate.ErrPermanent)
		case strings.Contains(said, "unable to authenticate, attempted methods [none publickey]"):
			return nil, fmt.Errorf("SSH_MSG_USERAUTH_FAILURE: %w", rotate.ErrRefused)
		}
		return nil, fmt.Errorf("log in: %w", err)
	}
	return &client{xssh.NewClient(sc, chans, reqs), user, stop}, nil
}

// hostKeys is what the known hosts say. As for ssh, a name without a port counts for
// all of a host's ports.
func (w *work) hostKeys(h host) (xssh.HostKeyCallback, []string, error) {
	files := []string{w.j.Options["known_hosts"]}
	if files[0] == "" {
		files = []string{"/etc/ssh/ssh_known_hosts"}
		if home, err := os.UserHomeDir(); err == nil {
			files = append(files, filepath.Join(home, ".ssh", "known_hosts"))
		}
	}
	var there []string
	for _, f := range files {
		if _, err := os.Stat(f); err == nil {
			there = append(there, f)
		}
	}
	known, err := knownhosts.New(there...)
	if err != nil {
		return nil, nil, fmt.Errorf("a known_hosts file cannot be read: %w", rotate.ErrPermanent)
	}
	check := func(addr string, remote net.Addr, key xssh.PublicKey) error {
		err := known(addr, remote, key)
		var unknown *knownhosts.KeyError
		if errors.As(err, &unknown) && len(unknown.Want) == 0 && h.port != "22" {
			return known(net.JoinHostPort(h.name, "22"), &net.TCPAddr{IP: net.IPv4zero, Port: 22}, key)
		}
		return err
	}
	// Asked about a key that is nobody's, they tell those that they know.
	public, _, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		return nil, nil, err
	}
	strange, err := xssh.NewPublicKey(public)
	if err != nil {
		return nil, nil, err
	}
	var algorithms []string
	var unknown *knownhosts.KeyError
	if errors.As(check(h.String(), &net.TCPAddr{IP: net.IPv4zero}, strange), &unknown) {
		for _, k := range unknown.Want {
			if k.Key.Type() == xssh.KeyAlgoRSA {
				algorithms = append(algorithms, xssh.KeyAlgoRSASHA512, xssh.KeyAlgoRSASHA256)
			} else {
				algorithms = append(algorithms, k.Key.Type())
			}
		}
	}
	return check, algorithms, nil
}
