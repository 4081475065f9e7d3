package guard

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
)

// Secret is a value that cannot be printed, compared, logged or marshalled. It
// holds its bytes behind a function, since fmt, encoding/json and log/slog look
// into fields, also unexported ones, but not into functions. The zero Secret is
// empty.
type Secret struct {
	reveal func(wipe bool) []byte
}

// NewSecret takes b over: the caller must not keep it.
func NewSecret(b []byte) Secret {
	return Secret{reveal: func(wipe bool) []byte {
		if wipe {
			clear(b)
			b = nil
		}
		return b
	}}
}

// Reveal returns the value itself, not a copy. Callers are few, on purpose:
// deps_test.go counts them.
func (s Secret) Reveal() []byte {
	if s.reveal == nil {
		return nil
	}
	return s.reveal(false)
}

// Wipe overwrites the value. Every copy of s is empty after it.
func (s Secret) Wipe() {
	if s.reveal != nil {
		s.reveal(true)
	}
}

// Clone returns a Secret with a copy of the bytes, to be wiped by itself.
func (s Secret) Clone() Secret {
	return NewSecret(append([]byte(nil), s.Reveal()...))
}

// Len is the value's length in bytes.
func (s Secret) Len() int { return len(s.Reveal()) }

// Fingerprint ties records about the same value together without holding it:
// the first 8 bytes of HMAC-SHA256(key, value), in hex. key is the vault's.
func (s Secret) Fingerprint(key []byte) string {
	m := hmac.New(sha256.New, key)
	m.Write(s.Reveal())
	return hex.EncodeToString(m.Sum(nil)[:8])
}

// String says that there is a secret, and nothing of it.
func (s Secret) String() string { return "[secret]" }

// GoString is String.
func (s Secret) GoString() string { return "[secret]" }
