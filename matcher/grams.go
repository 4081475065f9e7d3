package matcher

import (
	"bytes"
	"encoding/binary"
	"math/bits"
	"unsafe"
)

// grams maps short strings to the places in needles where they occur: of at most
// 8 bytes, in a uint64, or of more, by a hash. A bitmap in front answers "nowhere"
// in a nanosecond or two.
type grams struct {
	bitmap []uint64 // a bit for each entry, of 48 to 96
	second []uint64 // another one, which is asked where bitmap says yes
	shift  uint     // of the hash, for these
	heads  []int32  // by hash, a power of two: index into places, plus 1; 0: none
	places []place
}

type place struct {
	needle int32
	next   int32 // as in heads
	tag    uint32
	off    uint16 // in the needle, bytes
}

// golden is 2^64 over the golden ratio (Knuth, TAOCP 3, 6.4).
const golden = 0x9E3779B97F4A7C15

// silver is another odd number without a pattern: 2^64 over the square root of 2.
const silver = 0xB504F333F9DE6485

const maxBits = 26 // 8 MiB for a bitmap

// newGrams has room for n places.
func newGrams(n int) *grams {
	logBits := min(max(bits.Len(uint(48*n)), 10), maxBits)
	return &grams{
		bitmap: make([]uint64, 1<<(logBits-6)),
		second: make([]uint64, 1<<(logBits-6)),
		shift:  uint(64 - logBits),
		heads:  make([]int32, 1<<bits.Len(uint(n))),
		places: make([]place, 0, n),
	}
}

// widths are those of longer strings, the longest first.
var widths = [...]int{32, 16}

// wideKey is a hash of b, which has 8, 16, 24 or 32 bytes.
func wideKey(b []byte) uint64 {
	h := uint64(len(b))
	for ; len(b) >= 8; b = b[8:] {
		h = bits.RotateLeft64((h^binary.LittleEndian.Uint64(b))*golden, 29)
	}
	return h
}

// next returns the first of i, i+stride, i+2*stride, ... where a window may be in
// g (mask says how long it is), or from where fewer than eight of them are left
// in b. It looks at eight at a time: the look-ups overlap, and the branch is one.
// This is where the time of a search goes, and a bounds check would cost as much
// as what it guards.
func (g *grams) next(b []byte, i, stride int, mask uint64) int {
	last := len(b) - 7*stride - 8 // where eight windows can be loaded from, with 8 bytes each
	if i > last {
		return i
	}
	// i <= last, so no load is outside b; a hash has 64-shift bits, so no index
	// is outside bitmap, which has that many.
	p, q, shift := unsafe.Pointer(unsafe.SliceData(b)), unsafe.Pointer(unsafe.SliceData(g.bitmap)), g.shift&63
	for ; i <= last; i += 8 * stride {
		w := unsafe.Add(p, i)
		h0 := load(w) & mask * golden >> shift
		h1 := load(unsafe.Add(w, stride)) & mask * golden >> shift
		h2 := load(unsafe.Add(w, 2*stride)) & mask * golden >> shift
		h3 := load(unsafe.Add(w, 3*stride)) & mask * golden >> shift
		h4 := load(unsafe.Add(w, 4*stride)) & mask * golden >> shift
		h5 := load(unsafe.Add(w, 5*stride)) & mask * golden >> shift
		h6 := load(unsafe.Add(w, 6*stride)) & mask * golden >> shift
		h7 := load(unsafe.Add(w, 7*stride)) & mask * golden >> shift
		b0, b1, b2, b3, b4, b5, b6, b7 := bit(q, h0), bit(q, h1), bit(q, h2), bit(q, h3), bit(q, h4), bit(q, h5), bit(q, h6), bit(q, h7)
		if (b0|b1|b2|b3|b4|b5|b6|b7)&1 == 0 {
			continue
		}
		yes := uint(b0&1 | b1&1<<1 | b2&1<<2 | b3&1<<3 | b4&1<<4 | b5&1<<5 | b6&1<<6 | b7&1<<7)
		for ; yes != 0; yes &= yes - 1 {
			k := bits.TrailingZeros(yes) * stride
			if h := load(unsafe.Add(w, k)) & mask * golden; g.confirm(h) {
				return i + k
			}
		}
	}
	return i
}

// load is 8 bytes at p, in an order that all machines have.
func load(p unsafe.Pointer) uint64 { return binary.LittleEndian.Uint64((*[8]byte)(p)[:]) }

// bit is bit h of a bitmap at q, and others above it.
func bit(q unsafe.Pointer, h uint64) uint64 {
	return *(*uint64)(unsafe.Add(q, h>>6<<3)) >> (h & 63)
}

// head is where the places begin that key may have. Those of others are among
// them; they have another tag, unless there is one chance in 2^32.
func (g *grams) head(key uint64) (at *int32, tag uint32) {
	return &g.heads[key*golden>>20&uint64(len(g.heads)-1)], uint32((key ^ key>>31) * silver >> 32)
}

// add puts a place under key, which mark may know by something else.
func (g *grams) add(key uint64, needle, off int) {
	at, tag := g.head(key)
	g.places = append(g.places, place{int32(needle), *at, tag, uint16(off)})
	*at = int32(len(g.places))
}

// mark has maybe say yes to key.
func (g *grams) mark(key uint64) {
	h := key * golden
	i, j := h>>g.shift, h<<other>>g.shift
	g.bitmap[i>>6] |= 1 << (i & 63)
	g.second[j>>6] |= 1 << (j & 63)
}

// count is the number of places of key.
func (g *grams) count(key uint64) (n int) {
	at, tag := g.head(key)
	for i := *at; i != 0; i = g.places[i-1].next {
		if g.places[i-1].tag == tag {
			n++
		}
	}
	return n
}

const other = 17 // how much further down in a hash the bits for second are

// maybe is false if key was not marked.
func (g *grams) maybe(key uint64) bool {
	h := key * golden
	i := h >> g.shift
	return g.bitmap[i>>6]>>(i&63)&1 != 0 && g.confirm(h)
}

// confirm asks the second bitmap about a hash.
func (g *grams) confirm(h uint64) bool {
	i := h << other >> g.shift
	return g.second[i>>6]>>(i&63)&1 != 0
}

func (g *grams) wipe() {
	clear(g.bitmap)
	clear(g.second)
	clear(g.heads)
	clear(g.places)
}

// beginnings finds the longest end of a stream that is the beginning of a
// needle. It looks up the last 8 bytes, and those that end up to 7 bytes
// earlier, among the needles' blocks at offsets 0, 8, 16, ...: every beginning
// of 8 bytes or more has one of them as its last block. So the cost does not
// depend on how long the stream, the chunk or the needles are. Which needle it
// is tell the bytes from its beginning to the end of the block, or the last 32.
type beginnings struct {
	needles [][]byte
	blocks  *grams      // block -> offset of its end
	short   *grams      // first 1 to 7 bytes, the number of them in the top byte
	next    *beginnings // of other needles; nil: none
}

const widest = 32 // bytes

// newBeginnings leaves the first skip needles out.
func newBeginnings(needles [][]byte, skip int) *beginnings {
	n := 0
	for _, b := range needles {
		n += len(b) / 8
	}
	p := &beginnings{needles: needles, blocks: newGrams(n), short: newGrams(2 * len(needles))} // most of the short ones are shared
	for i := skip; i < len(needles); i++ {
		b := needles[i]
		for end := 8; end < len(b); end += 8 {
			p.blocks.mark(binary.LittleEndian.Uint64(b[end-8:]))
			p.blocks.add(wideKey(b[max(0, end-widest):end]), i, end)
		}
		for k := 1; k <= 7; k++ {
			if key := shortKey(b[:k]); !p.begins(key, b[:k]) {
				p.short.mark(key)
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
		if !p.blocks.maybe(binary.LittleEndian.Uint64(b[n-k-8:])) {
			continue
		}
		for wide := 8; wide <= widest && n-k >= wide; wide += 8 {
			head, tag := p.blocks.head(wideKey(b[n-k-wide : n-k]))
			for i := *head; i != 0; i = p.blocks.places[i-1].next {
				at := &p.blocks.places[i-1]
				if at.tag != tag {
					continue
				}
				d, l := p.needles[at.needle], int(at.off)+k
				if l > best && l < len(d) && l <= n && bytes.Equal(b[n-l:], d[:l]) {
					best = l
				}
			}
		}
	}
	if best > 7 {
		return best
	}
	var x uint64 // the last k bytes
	for k := 1; k <= 7 && k <= n; k++ {
		x = x<<8 | uint64(b[n-k])
		if p.begins(x|uint64(k)<<56, b[n-k:]) {
			best = k
		}
	}
	return best
}

// begins says whether a needle begins with b, of which key is the short key.
func (p *beginnings) begins(key uint64, b []byte) bool {
	if !p.short.maybe(key) {
		return false
	}
	head, tag := p.short.head(key)
	for i := *head; i != 0; i = p.short.places[i-1].next {
		if at := &p.short.places[i-1]; at.tag == tag && bytes.Equal(p.needles[at.needle][:at.off], b) {
			return true
		}
	}
	return false
}

// wipe leaves next to whoever has it.
func (p *beginnings) wipe() {
	p.blocks.wipe()
	p.short.wipe()
}
