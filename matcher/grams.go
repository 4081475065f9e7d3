package matcher

import (
	"bytes"
	"encoding/binary"
	"math/bits"
)

// grams maps short strings (at most 8 bytes, in a uint64) to the places in
// needles where they occur. A bitmap in front answers "nowhere" in a nanosecond
// or two.
type grams struct {
	bitmap []uint64 // about 64 bits an entry
	shift  uint     // of the hash, for the bitmap
	slots  []slot   // open addressing, a power of two, at most half full
	places []place
}

type slot struct {
	key  uint64
	head int32 // index into places, plus 1; 0: empty
}

type place struct {
	needle int32
	off    int32 // in the needle, bytes
	next   int32 // as slot.head
}

// golden is 2^64 over the golden ratio (Knuth, TAOCP 3, 6.4).
const golden = 0x9E3779B97F4A7C15

// newGrams has room for n places.
func newGrams(n int) *grams {
	logBits := min(max(bits.Len(uint(64*n)), 10), 23)
	return &grams{
		bitmap: make([]uint64, 1<<(logBits-6)),
		shift:  uint(64 - logBits),
		slots:  make([]slot, 1<<bits.Len(uint(2*n))),
		places: make([]place, 0, n),
	}
}

func (g *grams) slot(key uint64) *slot {
	mask := uint64(len(g.slots) - 1)
	for i := (key * golden >> 20) & mask; ; i = (i + 1) & mask {
		if s := &g.slots[i]; s.head == 0 || s.key == key {
			return s
		}
	}
}

func (g *grams) add(key uint64, needle, off int) {
	s := g.slot(key)
	g.places = append(g.places, place{int32(needle), int32(off), s.head})
	s.key, s.head = key, int32(len(g.places))
	h := key * golden >> g.shift
	g.bitmap[h>>6] |= 1 << (h & 63)
}

// count is the number of places of key.
func (g *grams) count(key uint64) (n int) {
	for i := g.slot(key).head; i != 0; i = g.places[i-1].next {
		n++
	}
	return n
}

// maybe is false if key is nowhere.
func (g *grams) maybe(key uint64) bool {
	h := key * golden >> g.shift
	return g.bitmap[h>>6]>>(h&63)&1 != 0
}

func (g *grams) wipe() {
	clear(g.bitmap)
	clear(g.slots)
	clear(g.places)
}

// beginnings finds the longest end of a stream that is the beginning of a
// needle. It looks up the last 8 bytes, and those that end up to 7 bytes
// earlier, among the needles' blocks at offsets 0, 8, 16, ...: every beginning
// of 8 bytes or more has one of them as its last block. So the cost does not
// depend on how long the stream, the chunk or the needles are.
type beginnings struct {
	needles [][]byte
	blocks  *grams      // block -> offset of its end
	short   *grams      // first 1 to 7 bytes, the number of them in the top byte
	next    *beginnings // of other needles; nil: none
}

// newBeginnings leaves the first skip needles out.
func newBeginnings(needles [][]byte, skip int) *beginnings {
	n := 0
	for _, b := range needles {
		n += len(b) / 8
	}
	p := &beginnings{needles: needles, blocks: newGrams(n), short: newGrams(7 * len(needles))}
	for i := skip; i < len(needles); i++ {
		b := needles[i]
		for end := 8; end < len(b); end += 8 {
			p.blocks.add(binary.LittleEndian.Uint64(b[end-8:]), i, end)
		}
		for k := 1; k <= 7; k++ {
			if key := shortKey(b[:k]); p.short.slot(key).head == 0 {
				p.short.add(key, i, k)
			}
		}
	}
	return p
}

// shortKey holds up to 7 bytes and their number.
func shortKey(b []byte) uint64 {
	var x uint64
	for i, c := range b {
		x |= uint64(c) << (8 * i)
	}
	return x | uint64(len(b))<<56
}

// hold is the length of the longest end of b that is a proper beginning of a
// needle.
func (p *beginnings) hold(b []byte) int {
	best := p.longest(b)
	if p.next != nil {
		best = max(best, p.next.longest(b))
	}
	return best
}

func (p *beginnings) longest(b []byte) int {
	best, n := 0, len(b)
	for k := 0; k < 8 && n-k >= 8; k++ {
		key := binary.LittleEndian.Uint64(b[n-k-8:])
		if !p.blocks.maybe(key) {
			continue
		}
		for i := p.blocks.slot(key).head; i != 0; i = p.blocks.places[i-1].next {
			at := p.blocks.places[i-1]
			d, l := p.needles[at.needle], int(at.off)+k
			if l > best && l < len(d) && l <= n && bytes.Equal(b[n-l:], d[:l]) {
				best = l
			}
		}
	}
	if best > 7 {
		return best
	}
	var x uint64 // the last k bytes
	for k := 1; k <= 7 && k <= n; k++ {
		x = x<<8 | uint64(b[n-k])
		if key := x | uint64(k)<<56; p.short.maybe(key) && p.short.slot(key).head != 0 {
			best = k
		}
	}
	return best
}

// wipe leaves next to whoever has it.
func (p *beginnings) wipe() {
	p.blocks.wipe()
	p.short.wipe()
}
