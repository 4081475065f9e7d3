package ssh

import (
	"crypto/sha1"
	"hash"
	"math/rand/v2"
)

func newSum() hash.Hash { return sha1.New() }

// randomBytes do not get smaller.
func randomBytes(seed uint64, n int) []byte {
	r := rand.New(rand.NewPCG(seed, 1))
	b := make([]byte, n)
	for i := range b {
		b[i] = byte(r.Uint32())
	}
	return b
}
