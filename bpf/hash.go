package bpf

import (
	"crypto/rand"
	"encoding/binary"
	"errors"
	"fmt"
)

// The numbers of headers/match.h that the generated types do not carry.
const (
	window  = MinNeedle
	stride  = 8
	segment = 128
	probes  = 128
)

// HashKey is what a search table's hashes are keyed with.
type HashKey [4]uint64

// NewHashKey is a random one.
func NewHashKey() HashKey {
	var raw [32]byte
	rand.Read(raw[:]) // never fails: crypto/rand's promise
	var k HashKey
	for i := range k {
		k[i] = binary.LittleEndian.Uint64(raw[i*8:])
	}
	k[1] |= 1
	k[3] |= 1
	return k
}

// HashedNeedle is what the kernel needs to find a needle, and all that a user's guard tells the
// monitor of the machine: of each of the eight windows 28 bits for the bitmap and 32 for the table, and 64 of
// the segment, keyed. Who has the key can try out guesses, and so can root, who can read every process's memory.
type HashedNeedle struct {
	ID      uint32
	Length  uint32 // of the needle, bytes
	Upto    uint32 // of those up to the segment's end
	Segment uint32
	Sum     uint64
	Bits    [stride]uint32
	Tags    [stride]uint32
}

// Hash is n under this key. A needle of less than FastNeedle bytes is ErrTooShort.
func (k HashKey) Hash(n Needle) (HashedNeedle, error) {
	if l := n.Bytes.Len(); l < FastNeedle {
		return HashedNeedle{}, fmt.Errorf("needle of ID %d: %w: %d bytes of at least %d", n.ID, ErrTooShort, l, FastNeedle)
	}
	return k.hash(n, stride), nil
}

// hash takes the last places windows.
func (k HashKey) hash(n Needle, places int) HashedNeedle {
	b := n.Bytes.Reveal()
	upto := segmentEnd(b)
	seg := b[max(0, upto-segment):upto]
	h := HashedNeedle{ID: n.ID, Length: uint32(len(b)), Upto: uint32(upto), Segment: uint32(len(seg)), Sum: k.segmentSum(seg)}
	for place := range places {
		w := binary.LittleEndian.Uint64(seg[len(seg)-window-place:])
		h.Bits[place], h.Tags[place] = uint32(k.windowHash(w)>>36), k.windowTag(w)
	}
	return h
}

// Check says what is impossible in a needle that somebody else hashed.
func (h HashedNeedle) Check() error {
	if h.Length < FastNeedle || h.Length > 1<<20 || h.Segment < FastNeedle || h.Segment > segment || h.Upto > h.Length || h.Segment > h.Upto {
		return errors.New("a hashed needle's lengths are not those of one")
	}
	for _, b := range h.Bits {
		if b >= 1<<28 {
			return errors.New("a hashed needle's bits are not those of one")
		}
	}
	return nil
}

// The three hashes are those of headers/match.h and headers/search.h.

func (k *HashKey) windowHash(w uint64) uint64 { return (w ^ k[0]) * k[1] }

func (k *HashKey) windowTag(w uint64) uint32 {
	h := (w ^ k[2]) * k[3]
	h ^= h >> 29
	return uint32(h * k[1] >> 32)
}

func (k *HashKey) segmentSum(seg []byte) uint64 {
	h := k[2] + uint64(len(seg))
	for i := 0; i+8 <= len(seg); i += 8 {
		h = (h ^ binary.LittleEndian.Uint64(seg[i:])) * k[3]
		h ^= h >> 29
	}
	h = (h ^ binary.LittleEndian.Uint64(seg[len(seg)-8:])) * k[1]
	return h ^ h>>32
}

// segmentEnd chooses which bytes of a needle longer than a segment are
// searched for: those before the place with the most different bytes in its
// last 15, so that no PEM file's "-----END PRIVATE KEY-----" is what is looked
// for in every write. Nearer to the end wins a draw.
func segmentEnd(b []byte) int {
	best, most := len(b), 0
	for end := len(b); end >= segment && end > len(b)-segment; end-- {
		var seen [256]bool
		n := 0
		for _, c := range b[end-FastNeedle : end] {
			if !seen[c] {
				seen[c] = true
				n++
			}
		}
		if n > most {
			best, most = end, n
		}
	}
	return best
}
