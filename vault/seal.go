package vault

import (
	"crypto/hkdf"
	"crypto/rand"
	"crypto/sha256"
	"encoding/binary"

	"golang.org/x/crypto/chacha20poly1305"
)

const (
	keySize  = 32
	boxExtra = chacha20poly1305.NonceSizeX + chacha20poly1305.Overhead
)

// onceKey is a derived key that the next seal or open wipes.
type onceKey []byte

// derive makes the subkey of key for the job info, for one use.
func derive(key []byte, info string) onceKey { return onceKey(deriveKeep(key, info)) }

func deriveKeep(key []byte, info string) []byte {
	k, err := hkdf.Key(sha256.New, key, nil, "guard/v1/"+info, keySize)
	if err != nil {
		panic("vault: hkdf: " + err.Error()) // only a length over 8160 bytes does this
	}
	return k
}

// aad is the associated data of a box: every part with its length in front, so
// that no two lists of parts read the same.
func aad(vault, context, name string, version int, purpose string) []byte {
	b := binary.BigEndian.AppendUint16([]byte("guard"), formatVersion)
	for _, s := range []string{vault, context, name, purpose} {
		b = binary.BigEndian.AppendUint32(b, uint32(len(s)))
		b = append(b, s...)
	}
	return binary.BigEndian.AppendUint64(b, uint64(version))
}

// seal encrypts plain and wipes key.
func seal(key onceKey, plain, ad []byte) []byte {
	defer clear(key)
	a, err := chacha20poly1305.NewX(key)
	if err != nil {
		panic("vault: aead: " + err.Error()) // only a key that is not 32 bytes does this
	}
	box := make([]byte, chacha20poly1305.NonceSizeX, len(plain)+boxExtra)
	rand.Read(box)
	return a.Seal(box, box, plain, ad)
}

// open decrypts box and wipes key.
func open(key onceKey, box, ad []byte) ([]byte, error) {
	defer clear(key)
	if len(key) != keySize || len(box) < boxExtra {
		return nil, errBox
	}
	a, err := chacha20poly1305.NewX(key)
	if err != nil {
		return nil, errBox
	}
	n := chacha20poly1305.NonceSizeX
	p, err := a.Open(nil, box[:n], box[n:], ad)
	if err != nil {
		return nil, errBox
	}
	return p, nil
}
