package vault

import (
	"bytes"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"

	"golang.org/x/crypto/argon2"

	"guard"
)

// Passphrase opens a vault with words that a person types. The key is
// Argon2id of them (RFC 9106, section 4, second recommended option: 3 passes,
// 64 MiB, 4 lanes), with the parameters kept in the slot.
type Passphrase struct {
	// Ask returns the passphrase, which Passphrase wipes. It is called when a
	// passphrase slot is to be made (confirm: ask twice) or opened, once for
	// each such slot.
	Ask func(confirm bool) (guard.Secret, error)
}

const minPassphrase = 8

// argon holds Argon2id's parameters.
type argon struct {
	Time   uint32 `json:"t"`
	Memory uint32 `json:"m"` // KiB
	Lanes  uint8  `json:"p"`
	Salt   []byte `json:"salt"`
}

// check refuses what is too weak to have been made by guard (the floor is
// OWASP's 19 MiB and two passes), and what would take the machine down.
func (a argon) check() error {
	if a.Time < 2 || a.Memory < 19<<10 || a.Lanes < 1 || len(a.Salt) < 16 {
		return corrupt("the passphrase slot asks for a weaker Argon2id than guard makes")
	}
	if a.Time > 16 || a.Memory > 1<<20 || a.Lanes > 16 || len(a.Salt) > 64 {
		return corrupt("the passphrase slot asks for more work than guard ever does")
	}
	return nil
}

// Name is "passphrase".
func (Passphrase) Name() string { return "passphrase" }

// Enrol asks for a new passphrase of at least 8 bytes.
func (p Passphrase) Enrol(string) (guard.Secret, []byte, error) {
	a := argon{Time: 3, Memory: 64 << 10, Lanes: 4, Salt: make([]byte, 16)}
	rand.Read(a.Salt)
	k, err := p.key(a, true)
	if err != nil {
		return guard.Secret{}, nil, err
	}
	params, err := json.Marshal(a)
	return k, params, err
}

// Unlock asks for the passphrase.
func (p Passphrase) Unlock(_ string, params []byte) (guard.Secret, error) {
	var a argon
	if err := decode(params, &a); err != nil {
		return guard.Secret{}, corrupt("unreadable passphrase slot")
	}
	if err := a.check(); err != nil {
		return guard.Secret{}, err
	}
	return p.key(a, false)
}

func (p Passphrase) key(a argon, confirm bool) (guard.Secret, error) {
	if p.Ask == nil {
		return guard.Secret{}, errors.New("there is no one to ask for the passphrase")
	}
	s, err := p.Ask(confirm)
	if err != nil {
		return guard.Secret{}, fmt.Errorf("ask for the passphrase: %w", err)
	}
	defer s.Wipe()
	if confirm && s.Len() < minPassphrase {
		return guard.Secret{}, fmt.Errorf("passphrase: %w: at least %d characters", ErrTooShort, minPassphrase)
	}
	return guard.NewSecret(argon2.IDKey(s.Reveal(), a.Salt, a.Time, a.Memory, a.Lanes, keySize)), nil
}

// KeyFile opens a vault with a file of at least 32 random bytes, mode 0600.
type KeyFile struct {
	Path   string
	Create bool // make the file when a slot is set up and there is none
}

const maxKeyFile = 4096

// Name is "keyfile".
func (KeyFile) Name() string { return "keyfile" }

// Enrol reads the file, or makes it.
func (k KeyFile) Enrol(string) (guard.Secret, []byte, error) {
	s, err := k.read()
	if !errors.Is(err, fs.ErrNotExist) || !k.Create {
		return s, nil, err
	}
	b := make([]byte, keySize)
	rand.Read(b)
	if err := os.MkdirAll(filepath.Dir(k.Path), 0o700); err != nil {
		return guard.Secret{}, nil, fmt.Errorf("make the key file's folder: %w", err)
	}
	if _, err := writeNew(k.Path, b, 0o600); err != nil {
		return guard.Secret{}, nil, fmt.Errorf("make the key file: %w", err)
	}
	if err := syncDir(filepath.Dir(k.Path)); err != nil {
		return guard.Secret{}, nil, fmt.Errorf("make the key file: %w", err)
	}
	return guard.NewSecret(b), nil, nil
}

// Unlock reads the file.
func (k KeyFile) Unlock(string, []byte) (guard.Secret, error) { return k.read() }

func (k KeyFile) read() (guard.Secret, error) {
	f, fi, err := openRegular(k.Path)
	if err != nil {
		return guard.Secret{}, fmt.Errorf("key file: %w", err)
	}
	defer f.Close()
	if err := ownedByUs(fi); err != nil {
		return guard.Secret{}, fmt.Errorf("key file %s: %w", k.Path, err)
	}
	if hasModes && fi.Mode().Perm()&0o077 != 0 {
		return guard.Secret{}, fmt.Errorf("key file %s: %w: mode %#o lets others read it: make a new one, or chmod 600 it if no one did",
			k.Path, ErrUnsafe, fi.Mode().Perm())
	}
	b, err := io.ReadAll(io.LimitReader(f, maxKeyFile+1))
	if err != nil {
		return guard.Secret{}, fmt.Errorf("key file: %w", err)
	}
	if len(b) < keySize || len(b) > maxKeyFile {
		clear(b)
		return guard.Secret{}, fmt.Errorf("key file %s: want %d to %d random bytes", k.Path, keySize, maxKeyFile)
	}
	if len(bytes.Trim(b, string(b[:1]))) == 0 {
		clear(b)
		return guard.Secret{}, fmt.Errorf("key file %s: one byte over and over is no key", k.Path)
	}
	return guard.NewSecret(b), nil
}
