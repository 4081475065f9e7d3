package vault

import (
	"crypto/rand"
	"encoding/base64"
	"errors"
	"fmt"
	"strconv"
	"time"

	"github.com/zalando/go-keyring"

	"guard"
)

const (
	keyringName    = "keyring"
	keyringService = "guard"
	keyringWait    = 10 * time.Second
)

// Keyring opens a vault with a key in the system's keychain: Secret Service,
// macOS Keychain, Windows Credential Manager. The item (service "guard", user
// the vault's id) is 32 random bytes in base64, good for nothing without the
// vault file, and never a secret of the user's.
//
// It protects the file at rest. It is no boundary against a process of the
// same user, which can ask the keychain too.
type Keyring struct {
	// Timeout bounds each wait for the keychain, the time to type its password
	// included. Zero: 10 seconds.
	Timeout time.Duration
}

// Name is "keyring".
func (Keyring) Name() string { return keyringName }

// Enrol stores a new key, in place of one for the same vault. ErrNoKeyring: no
// keychain answers.
func (k Keyring) Enrol(vault string) (guard.Secret, []byte, error) {
	b := make([]byte, keySize)
	rand.Read(b)
	text := base64.StdEncoding.EncodeToString(b)
	got, err := k.call(func() (string, error) {
		if err := keyring.Set(keyringService, vault, text); err != nil {
			return "", err
		}
		return keyring.Get(keyringService, vault)
	})
	if err == nil && got != text {
		err = fmt.Errorf("%w: it gives back something else than was stored", ErrNoKeyring)
	}
	if err != nil {
		clear(b)
		return guard.Secret{}, nil, err
	}
	return guard.NewSecret(b), nil, nil
}

// Unlock reads the key. ErrNoKeyring: no keychain answers. ErrNotFound: it has
// no key for this vault.
func (k Keyring) Unlock(vault string, _ []byte) (guard.Secret, error) {
	text, err := k.call(func() (string, error) { return keyring.Get(keyringService, vault) })
	if err != nil {
		return guard.Secret{}, err
	}
	b, err := base64.StdEncoding.DecodeString(text)
	if err != nil || len(b) != keySize {
		return guard.Secret{}, fmt.Errorf("the keychain's item for this vault is not one of guard's: %w", ErrWrongKey)
	}
	return guard.NewSecret(b), nil
}

// generations is the service of the items that Keep makes.
const generations = keyringService + " generation"

// Keep remembers how far a vault is, beside its key: whoever puts an older file
// back does not get at it without the user's session.
func (k Keyring) Keep(vault string, generation uint64) error {
	if kept, err := k.Kept(vault); err == nil && kept >= generation {
		return nil
	}
	_, err := k.call(func() (string, error) {
		return "", keyring.Set(generations, vault, strconv.FormatUint(generation, 10))
	})
	return err
}

// Kept is what Keep remembered; 0: nothing.
func (k Keyring) Kept(vault string) (uint64, error) {
	text, err := k.call(func() (string, error) { return keyring.Get(generations, vault) })
	if errors.Is(err, ErrNotFound) {
		return 0, nil
	}
	if err != nil {
		return 0, err
	}
	n, err := strconv.ParseUint(text, 10, 64)
	if err != nil {
		return 0, fmt.Errorf("the keychain's item for this vault's generation is not one of guard's: %w", ErrWrongKey)
	}
	return n, nil
}

// Forget removes the key from the keychain. That there was none is no error.
func (k Keyring) Forget(vault string) error {
	// What Keep remembered may not be there.
	_, _ = k.call(func() (string, error) { return "", keyring.Delete(generations, vault) })
	_, err := k.call(func() (string, error) { return "", keyring.Delete(keyringService, vault) })
	if errors.Is(err, ErrNotFound) {
		return nil
	}
	return err
}

// call waits for f no longer than the timeout. The library cannot be told to
// stop: a call that is late goes on, alone, until the keychain answers or goes
// away, and what it brings is dropped.
func (k Keyring) call(f func() (string, error)) (string, error) {
	if err := findKeyring(); err != nil {
		return "", fmt.Errorf("%w: %w", ErrNoKeyring, err)
	}
	wait := k.Timeout
	if wait <= 0 {
		wait = keyringWait
	}
	type answer struct {
		text string
		err  error
	}
	c := make(chan answer, 1)
	go func() {
		text, err := f()
		c <- answer{text, err}
	}()
	t := time.NewTimer(wait)
	defer t.Stop()
	select {
	case a := <-c:
		switch {
		case a.err == nil:
			return a.text, nil
		case errors.Is(a.err, keyring.ErrNotFound):
			return "", fmt.Errorf("the keychain has no key for this vault: %w", ErrNotFound)
		}
		return "", fmt.Errorf("%w: %w", ErrNoKeyring, a.err)
	case <-t.C:
		return "", fmt.Errorf("%w within %v: is it locked?", ErrNoKeyring, wait)
	}
}
