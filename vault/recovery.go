package vault

import (
	"crypto/rand"
	"crypto/sha256"
	"errors"
	"fmt"
	"strings"

	"guard"
)

// Recovery opens a vault with a code that was shown once, when its slot was made:
// 32 random bytes and 24 bits of their SHA-256, in 56 characters of Crockford's
// base32 in groups of seven. It is for a drawer, not for a disk.
type Recovery struct {
	// Show hands the code to a person. It must not keep it. An error ends Enrol.
	Show func(code guard.Secret) error
	// Ask returns the code as it was typed, which Recovery wipes.
	Ask func() (guard.Secret, error)
}

const (
	crockford     = "0123456789ABCDEFGHJKMNPQRSTVWXYZ"
	recoveryChars = 56
)

// ErrMistyped: a recovery code is not one, or has a slip in it.
var ErrMistyped = errors.New("the recovery code is not right: compare it with what was written down")

// Name is "recovery".
func (Recovery) Name() string { return "recovery" }

// Enrol makes a code and shows it.
func (r Recovery) Enrol(string) (guard.Secret, []byte, error) {
	if r.Show == nil {
		return guard.Secret{}, nil, errors.New("there is no one to show the recovery code to")
	}
	b := make([]byte, keySize)
	rand.Read(b)
	code := guard.NewSecret(recoveryCode(b))
	defer code.Wipe()
	if err := r.Show(code); err != nil {
		clear(b)
		return guard.Secret{}, nil, fmt.Errorf("show the recovery code: %w", err)
	}
	return guard.NewSecret(b), nil, nil
}

// Unlock asks for the code.
func (r Recovery) Unlock(string, []byte) (guard.Secret, error) {
	if r.Ask == nil {
		return guard.Secret{}, errors.New("there is no one to ask for the recovery code")
	}
	s, err := r.Ask()
	if err != nil {
		return guard.Secret{}, fmt.Errorf("ask for the recovery code: %w", err)
	}
	defer s.Wipe()
	b, err := parseRecovery(s.Reveal())
	if err != nil {
		return guard.Secret{}, err
	}
	return guard.NewSecret(b), nil
}

// recoveryCode writes key, 32 bytes.
func recoveryCode(key []byte) []byte {
	sum := sha256.Sum256(key)
	out := make([]byte, 0, recoveryChars+8)
	var acc, bits uint32
	n := 0
	put := func(v uint32) {
		if n > 0 && n%7 == 0 {
			out = append(out, '-')
		}
		out = append(out, crockford[v&31])
		n++
	}
	for _, b := range append(append(make([]byte, 0, keySize+3), key...), sum[:3]...) {
		acc = acc<<8 | uint32(b)
		for bits += 8; bits >= 5; {
			bits -= 5
			put(acc >> bits)
		}
	}
	return out
}

// parseRecovery reads what a person typed: spaces, dashes and case do not matter,
// and letters that look like digits are these.
func parseRecovery(code []byte) ([]byte, error) {
	out := make([]byte, 0, keySize+3)
	var acc, bits uint32
	n := 0
	for _, c := range code {
		switch {
		case c == '-' || c == ' ' || c == '\t' || c == '\r' || c == '\n':
			continue
		case c >= 'a' && c <= 'z':
			c -= 'a' - 'A'
		}
		switch c {
		case 'O':
			c = '0'
		case 'I', 'L':
			c = '1'
		}
		v := strings.IndexByte(crockford, c)
		if v < 0 {
			clear(out)
			return nil, ErrMistyped
		}
		if n++; n > recoveryChars {
			clear(out)
			return nil, ErrMistyped
		}
		acc = acc<<5 | uint32(v)
		if bits += 5; bits >= 8 {
			bits -= 8
			out = append(out, byte(acc>>bits))
		}
	}
	if n != recoveryChars || len(out) != keySize+3 {
		clear(out)
		return nil, ErrMistyped
	}
	sum := sha256.Sum256(out[:keySize])
	if string(sum[:3]) != string(out[keySize:]) {
		clear(out)
		return nil, ErrMistyped
	}
	return out[:keySize], nil
}
