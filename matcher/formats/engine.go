package formats

import (
	"encoding/binary"
	"slices"
)

// engine finds every place where an anchor is. Many goroutines may scan at
// once; none while or after close.
type engine interface {
	scan(b []byte, out []place) ([]place, error) // appends, in any order
	close()
}

// place is where an anchor begins.
type place struct {
	at     int
	anchor int
}

// goEngine looks at each window of 4 bytes, case folded, in a bitmap, and
// compares only on a hit.
type goEngine struct {
	anchors []anchor
	bitmap  []uint64 // 1<<bitmapBits bits
	slots   []slot   // open addressing
	chain   []link
}

type slot struct {
	key  uint32
	head int32 // index into chain, from 1; 0: the slot is free
}

type link struct {
	anchor int32
	off    int16 // of the window in the anchor
	next   int32
}

const (
	bitmapBits = 19
	foldMask   = 0x20202020
	golden     = 0x9E3779B1
)

func newGoEngine(anchors []anchor) *goEngine {
	g := &goEngine{anchors: anchors, bitmap: make([]uint64, 1<<bitmapBits/64)}
	type entry struct {
		key uint32
		link
	}
	var entries []entry
	for i := range anchors {
		a := &anchors[i]
		w := a.win
		keys := []uint32{0}
		for j := range gram {
			var next []uint32
			f := folded(&a.sets[w+j])
			f.each(func(c byte) {
				for _, k := range keys {
					next = append(next, k|uint32(c)<<(8*j))
				}
			})
			keys = next
		}
		for _, k := range keys {
			entries = append(entries, entry{k, link{anchor: int32(i), off: int16(w)}})
		}
	}
	size := 1024
	for size < 3*len(entries) {
		size *= 2
	}
	g.slots = make([]slot, size)
	for _, e := range entries {
		h := e.key * golden >> (32 - bitmapBits)
		g.bitmap[h>>6] |= 1 << (h & 63)
		s := g.slot(e.key)
		e.next = s.head
		g.chain = append(g.chain, e.link)
		s.key, s.head = e.key, int32(len(g.chain))
	}
	return g
}

func (g *goEngine) slot(key uint32) *slot {
	mask := uint32(len(g.slots) - 1)
	for i := key * golden >> 7 & mask; ; i = (i + 1) & mask {
		if s := &g.slots[i]; s.head == 0 || s.key == key {
			return s
		}
	}
}

func (g *goEngine) scan(b []byte, out []place) ([]place, error) {
	bitmap := (*[1 << bitmapBits / 64]uint64)(g.bitmap)
	const shift = 32 - bitmapBits
	i := 0
	for ; i+8 <= len(b); i += 4 {
		// Four windows of one load; the branch is one.
		x := binary.LittleEndian.Uint64(b[i:]) | foldMask<<32 | foldMask
		h0, h1 := uint32(x)*golden>>shift, uint32(x>>8)*golden>>shift
		h2, h3 := uint32(x>>16)*golden>>shift, uint32(x>>24)*golden>>shift
		if (bitmap[h0>>6]>>(h0&63)|bitmap[h1>>6]>>(h1&63)|bitmap[h2>>6]>>(h2&63)|bitmap[h3>>6]>>(h3&63))&1 == 0 {
			continue
		}
		for j := range 4 {
			k := uint32(x >> (8 * j))
			h := k * golden >> shift
			if bitmap[h>>6]>>(h&63)&1 != 0 {
				out = g.verify(k, b, i+j, out)
			}
		}
	}
	for ; i+gram <= len(b); i++ {
		out = g.verify(binary.LittleEndian.Uint32(b[i:])|foldMask, b, i, out)
	}
	return out, nil
}

func (g *goEngine) verify(key uint32, b []byte, i int, out []place) []place {
	for j := g.slot(key).head; j != 0; j = g.chain[j-1].next {
		l := g.chain[j-1]
		at := i - int(l.off)
		if at >= 0 && g.anchors[l.anchor].match(b[at:]) {
			out = append(out, place{at, int(l.anchor)})
		}
	}
	return out
}

func (g *goEngine) close() {}

// slowScan needs no table: for when an engine fails in the middle of a stream,
// and for tests.
func slowScan(anchors []anchor, b []byte, out []place) []place {
	for at := range b {
		for i := range anchors {
			if anchors[i].match(b[at:]) {
				out = append(out, place{at, i})
			}
		}
	}
	return out
}

func sortPlaces(p []place) {
	slices.SortFunc(p, func(a, b place) int {
		if a.at != b.at {
			return a.at - b.at
		}
		return a.anchor - b.anchor
	})
}
