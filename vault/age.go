package vault

import (
	"bufio"
	"bytes"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"

	"filippo.io/age"
	"filippo.io/age/agessh"
	"filippo.io/age/plugin"
	"golang.org/x/crypto/ssh"

	"guard"
)

// Age opens a vault with an age identity (https://age-encryption.org/v1): X25519,
// the post-quantum hybrid, ssh-ed25519 and ssh-rsa keys, and those of age's plugins,
// so that a TPM or a hardware token holds it. The slot holds the unlock key,
// encrypted to the recipients, which are public.
type Age struct {
	// Recipients are for Enrol: age1..., "ssh-ed25519 AAAA...", age1plugin1....
	Recipients []string
	// Identities are files for Unlock: age's, one identity a line, or an ssh private
	// key. All of them are tried.
	Identities []string
	// Ask returns what a plugin, or an ssh key under a passphrase, wants to know.
	// nil: these cannot be used. The answer is wiped where that can be done.
	Ask func(prompt string) (guard.Secret, error)
	// Say shows what a plugin has to say, such as that a token wants to be touched.
	Say func(text string)
}

type ageParams struct {
	Recipients []string `json:"recipients"`
	Box        []byte   `json:"box"`
}

// Name is "age".
func (Age) Name() string { return "age" }

// Enrol makes a key and encrypts it to the recipients.
func (a Age) Enrol(string) (guard.Secret, []byte, error) {
	if len(a.Recipients) == 0 {
		return guard.Secret{}, nil, errors.New("age: no recipient: name one, such as age1... or an ssh public key")
	}
	var rs []age.Recipient
	for _, s := range a.Recipients {
		r, err := a.recipient(s)
		if err != nil {
			return guard.Secret{}, nil, fmt.Errorf("age recipient %q: %w", s, err)
		}
		rs = append(rs, r)
	}
	key := make([]byte, keySize)
	rand.Read(key)
	var box bytes.Buffer
	w, err := age.Encrypt(&box, rs...)
	if err == nil {
		_, err = w.Write(key)
	}
	if err == nil {
		err = w.Close()
	}
	if err != nil {
		clear(key)
		return guard.Secret{}, nil, fmt.Errorf("encrypt to the age recipients: %w", err)
	}
	params, err := json.Marshal(ageParams{Recipients: a.Recipients, Box: box.Bytes()})
	return guard.NewSecret(key), params, err
}

func (a Age) recipient(s string) (age.Recipient, error) {
	switch {
	case strings.HasPrefix(s, "ssh-"):
		return agessh.ParseRecipient(s)
	case strings.HasPrefix(s, "age1pq1"):
		return age.ParseHybridRecipient(s)
	case strings.HasPrefix(s, "age1"):
		if r, err := age.ParseX25519Recipient(s); err == nil {
			return r, nil
		}
		// A plugin's name stands between age1 and the last 1.
		if name, _, err := plugin.ParseRecipient(s); err == nil && name != "" {
			return plugin.NewRecipient(s, a.ui())
		}
	}
	return nil, errors.New("want age1..., age1pq1..., an ssh public key or a plugin's recipient")
}

// Unlock decrypts the slot's key with the first identity that can.
func (a Age) Unlock(_ string, params []byte) (guard.Secret, error) {
	var p ageParams
	if err := decode(params, &p); err != nil {
		return guard.Secret{}, corrupt("unreadable age slot")
	}
	if len(a.Identities) == 0 {
		return guard.Secret{}, errors.New("age: no identity file was named: --age-identity FILE or GUARD_AGE_IDENTITY")
	}
	var ids []age.Identity
	for _, path := range a.Identities {
		got, err := a.identities(path)
		if err != nil {
			return guard.Secret{}, fmt.Errorf("age identity file %s: %w", path, err)
		}
		ids = append(ids, got...)
	}
	r, err := age.Decrypt(bytes.NewReader(p.Box), ids...)
	if err != nil {
		var none *age.NoIdentityMatchError
		if errors.As(err, &none) {
			return guard.Secret{}, fmt.Errorf("no identity is among the slot's recipients: %w", ErrWrongKey)
		}
		return guard.Secret{}, fmt.Errorf("decrypt the age slot: %w", err)
	}
	key, err := io.ReadAll(io.LimitReader(r, keySize+1))
	if err != nil || len(key) != keySize {
		clear(key)
		return guard.Secret{}, corrupt("the age slot holds no key")
	}
	return guard.NewSecret(key), nil
}

const maxIdentityFile = 1 << 20

// identities reads one file, which nobody else may read.
func (a Age) identities(path string) ([]age.Identity, error) {
	f, fi, err := openRegular(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	if err := ownedByUs(fi); err != nil {
		return nil, err
	}
	if hasModes && fi.Mode().Perm()&0o077 != 0 {
		return nil, fmt.Errorf("%w: mode %#o lets others read it: chmod 600 it if no one did", ErrUnsafe, fi.Mode().Perm())
	}
	b, err := io.ReadAll(io.LimitReader(f, maxIdentityFile))
	if err != nil {
		return nil, err
	}
	defer clear(b)
	if bytes.HasPrefix(b, []byte("-----BEGIN")) {
		return a.sshIdentity(path, b)
	}
	if bytes.HasPrefix(b, []byte("age-encryption.org/")) {
		return nil, errors.New("it is encrypted itself: decrypt it with age to a file of mode 0600, or name a plugin's identity")
	}
	var ids []age.Identity
	lines := bufio.NewScanner(bytes.NewReader(b))
	for n := 1; lines.Scan(); n++ {
		line := strings.TrimSpace(lines.Text())
		if line == "" || strings.HasPrefix(line, "#") {
			continue
		}
		var id age.Identity
		switch {
		case strings.HasPrefix(line, "AGE-SECRET-KEY-PQ-"):
			id, err = age.ParseHybridIdentity(line)
		case strings.HasPrefix(line, "AGE-SECRET-KEY-"):
			id, err = age.ParseX25519Identity(line)
		case strings.HasPrefix(line, "AGE-PLUGIN-"):
			id, err = plugin.NewIdentity(line, a.ui())
		default:
			err = errors.New("not an identity")
		}
		if err != nil {
			return nil, fmt.Errorf("line %d is not an age identity", n) // the error may repeat the line
		}
		ids = append(ids, id)
	}
	if len(ids) == 0 {
		return nil, errors.New("it holds no identity")
	}
	return ids, nil
}

func (a Age) sshIdentity(path string, pem []byte) ([]age.Identity, error) {
	id, err := agessh.ParseIdentity(pem)
	if err == nil {
		return []age.Identity{id}, nil
	}
	pub, perr := os.ReadFile(path + ".pub")
	if perr != nil {
		return nil, errors.New("an ssh key that cannot be read: if it is under a passphrase, its public half has to be beside it, as FILE.pub")
	}
	key, _, _, _, rerr := ssh.ParseAuthorizedKey(pub)
	if rerr != nil {
		return nil, fmt.Errorf("%s.pub: not a public key of ssh", path)
	}
	enc, err := agessh.NewEncryptedSSHIdentity(key, bytes.Clone(pem), func() ([]byte, error) {
		if a.Ask == nil {
			return nil, errors.New("it is under a passphrase, and there is no one to ask")
		}
		s, err := a.Ask("passphrase of " + path)
		if err != nil {
			return nil, err
		}
		defer s.Wipe()
		return bytes.Clone(s.Reveal()), nil
	})
	if err != nil {
		return nil, err
	}
	return []age.Identity{enc}, nil
}

// ui lets plugins ask.
func (a Age) ui() *plugin.ClientUI {
	say := func(text string) {
		if a.Say != nil {
			a.Say(text)
		}
	}
	return &plugin.ClientUI{
		DisplayMessage: func(name, message string) error { say(name + ": " + message); return nil },
		RequestValue: func(name, prompt string, _ bool) (string, error) {
			if a.Ask == nil {
				return "", fmt.Errorf("the age plugin %s wants to ask, and there is no one to answer", name)
			}
			s, err := a.Ask(name + ": " + prompt)
			if err != nil {
				return "", err
			}
			defer s.Wipe()
			return string(s.Reveal()), nil
		},
		Confirm: func(name, prompt, yes, no string) (bool, error) {
			return false, fmt.Errorf("the age plugin %s wants a confirmation that guard does not give", name)
		},
		WaitTimer: func(name string) { say(name + ": waiting, is a token to be touched?") },
	}
}
