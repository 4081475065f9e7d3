//go:build linux && (amd64 || arm64)

package bpf

import (
	"crypto/rand"
	"encoding/binary"
	"fmt"
	"math/bits"
	"unsafe"
)

// The numbers of headers/match.h that the generated types do not carry.
const (
	window  = MinNeedle
	stride  = 8
	segment = 128
	probes  = 128
	slots   = len(detectTable{}.Slots)
	words   = len(detectTable{}.Bitmap)
)

// newTable builds what the kernel searches with: see doc.go. Keys are new for
// every table.
func newTable(needles []Needle, generation uint64) (*detectTable, error) {
	if len(needles) > MaxNeedles {
		return nil, fmt.Errorf("%w: %d of at most %d", ErrTooMany, len(needles), MaxNeedles)
	}
	shortest := FastNeedle
	for i, n := range needles {
		l := n.Bytes.Len()
		if l < MinNeedle {
			return nil, fmt.Errorf("needle %d of ID %d: %w: %d bytes of at least %d", i, n.ID, ErrTooShort, l, MinNeedle)
		}
		shortest = min(shortest, l)
	}
	t := &detectTable{Generation: generation}
	// The stride is the greatest power of two at which a window of the shortest lies
	// whole within it wherever it is.
	for stride>>t.Passes > shortest-window+1 {
		t.Passes++
	}
	windows := len(needles) * stride
	// Two bits of 64 per window: 1 in 500 other windows has both set.
	t.BitmapShift = 64 - 12 - log2(windows, 1<<6, words)
	t.SlotShift = 32 - log2(windows*4, 1<<14, slots)
	// Chance alone can fill one neighbourhood of the table; another key
	// moves everything.
	var err error
	for range 16 {
		if err = t.fill(needles); err == nil {
			return t, nil
		}
		*t = detectTable{Generation: generation, Passes: t.Passes, BitmapShift: t.BitmapShift, SlotShift: t.SlotShift}
	}
	return nil, err
}

// used are the parts of the table that hold something, as bytes, by their offsets; the others are zero. Most of a table
// with few needles is: to write it out whole takes as long as to start a session.
func (t *detectTable) used(needles int) map[int64][]byte {
	all := unsafe.Slice((*byte)(unsafe.Pointer(t)), unsafe.Sizeof(*t))
	part := func(from, size uintptr) (int64, []byte) {
		return int64(from), all[from : from+size : from+size]
	}
	parts := map[int64][]byte{}
	for _, p := range [][2]uintptr{
		{0, unsafe.Offsetof(t.Bitmap)},
		{unsafe.Offsetof(t.Bitmap), min(1<<(64-12-t.BitmapShift), uintptr(words)) * unsafe.Sizeof(t.Bitmap[0])},
		{unsafe.Offsetof(t.Slots), min(1<<(32-t.SlotShift)+probes, uintptr(slots)) * unsafe.Sizeof(t.Slots[0])},
		{unsafe.Offsetof(t.Entries), min(uintptr(needles)+1, uintptr(len(t.Entries))) * unsafe.Sizeof(t.Entries[0])},
	} {
		at, b := part(p[0], p[1])
		parts[at] = b
	}
	return parts
}

func (t *detectTable) fill(needles []Needle) error {
	var key [32]byte
	rand.Read(key[:]) // never fails: crypto/rand's promise
	for i := range t.Key {
		t.Key[i] = binary.LittleEndian.Uint64(key[i*8:])
	}
	t.Key[1] |= 1
	t.Key[3] |= 1
	for i, n := range needles {
		b := n.Bytes.Reveal()
		e := &t.Entries[i+1] // 0 says that a slot is free
		upto := segmentEnd(b)
		seg := b[max(0, upto-segment):upto]
		e.Sum = t.segmentSum(seg)
		e.Id = n.ID
		e.Len = uint32(len(b))
		e.Upto = uint32(upto)
		e.Segment = uint32(len(seg))
		places := stride
		if len(b) < FastNeedle {
			places >>= t.Passes
		}
		for place := range places {
			at := len(seg) - window - place
			if !t.insert(binary.LittleEndian.Uint64(seg[at:]), uint32((i+1)<<3|place)) {
				return fmt.Errorf("needle %d of ID %d: %w that end in the same bytes", i, n.ID, ErrTooMany)
			}
		}
	}
	return nil
}

// insert is false if the kernel would not look far enough to find the window.
func (t *detectTable) insert(w uint64, entry uint32) bool {
	bit := t.windowHash(w) >> t.BitmapShift
	t.Bitmap[bit>>12] |= 1<<(bit&63) | 1<<(bit>>6&63)
	tag := t.windowTag(w)
	first := int(tag >> t.SlotShift)
	for i := range probes {
		s := &t.Slots[(first+i)&(slots-1)]
		if s.Entry == 0 {
			s.Tag, s.Entry = tag, entry
			return true
		}
	}
	return false
}

// The three hashes are those of headers/match.h and detect.bpf.c.

func (t *detectTable) windowHash(w uint64) uint64 { return (w ^ t.Key[0]) * t.Key[1] }

func (t *detectTable) windowTag(w uint64) uint32 {
	h := (w ^ t.Key[2]) * t.Key[3]
	h ^= h >> 29
	return uint32(h * t.Key[1] >> 32)
}

func (t *detectTable) segmentSum(seg []byte) uint64 {
	h := t.Key[2] + uint64(len(seg))
	for i := 0; i+8 <= len(seg); i += 8 {
		h = (h ^ binary.LittleEndian.Uint64(seg[i:])) * t.Key[3]
		h ^= h >> 29
	}
	h = (h ^ binary.LittleEndian.Uint64(seg[len(seg)-8:])) * t.Key[1]
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

// log2 of the power of two that is not below n, within bounds that are powers
// of two themselves.
func log2(n, low, high int) uint32 {
	return uint32(bits.Len(uint(min(max(n, low), high) - 1)))
}
