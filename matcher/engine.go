package matcher

import (
	"bytes"
	"encoding/binary"
)

// engine finds every occurrence of every needle, also overlapping ones, in one
// block. Many goroutines may scan at once; none while or after close.
type engine interface {
	scan(b []byte, out []match) ([]match, error) // appends, in any order
	close()
}

// match is one occurrence: needles[needle] ends before b[end].
type match struct {
	needle, end int
}

// goEngine hashes windows of the text at a stride. A window of q bytes at each
// multiple of the stride s meets every occurrence of a needle of q+s-1 bytes
// or more exactly once, if the s windows at s consecutive offsets of the needle
// are in the table. (Sampled q-grams as in Wu and Manber, "A fast algorithm for
// multi-pattern searching", 1994, turned round.)
type goEngine struct {
	needles [][]byte
	long    *grams // windows of 8 bytes, for needles of 15 bytes or more
	short   *grams // windows of 4 bytes, for the others; nil if there are none
}

const (
	longGram, longStride   = 8, 8
	shortGram, shortStride = 4, 5
)

func newGoEngine(needles [][]byte) *goEngine {
	g := &goEngine{needles: needles}
	long, short := 0, 0
	for _, b := range needles {
		if len(b) >= longGram+longStride-1 {
			long++
		} else {
			short++
		}
	}
	g.long = newGrams(long * longStride)
	if short > 0 {
		g.short = newGrams(short * shortStride)
	}
	for i, b := range needles {
		if len(b) >= longGram+longStride-1 {
			insert(g.long, b, i, longStride, longGram, func(b []byte) uint64 { return binary.LittleEndian.Uint64(b) })
		} else {
			insert(g.short, b, i, shortStride, shortGram, func(b []byte) uint64 { return uint64(binary.LittleEndian.Uint32(b)) })
		}
	}
	return g
}

// insert puts stride windows of b into t: the middle ones, or those at the end
// or the beginning if fewer other needles share them, as tokens of one kind
// share a prefix.
func insert(t *grams, b []byte, needle, stride, gram int, load func([]byte) uint64) {
	last := len(b) - (stride + gram - 1)
	best, least := 0, -1
	for _, from := range []int{last / 2, last, 0} {
		n := 0
		for i := from; i < from+stride; i++ {
			n += t.count(load(b[i:]))
		}
		if least < 0 || n < least {
			best, least = from, n
		}
	}
	for i := best; i < best+stride; i++ {
		t.add(load(b[i:]), needle, i)
	}
}

func (g *goEngine) scan(b []byte, out []match) ([]match, error) {
	bitmap, shift := g.long.bitmap, g.long.shift
	i := 0
	for ; i+4*longStride <= len(b); i += 4 * longStride {
		// Four at a time: the look-ups overlap, and the branch is one.
		w := b[i : i+4*longStride]
		h0, h1 := binary.LittleEndian.Uint64(w)*golden>>shift, binary.LittleEndian.Uint64(w[8:])*golden>>shift
		h2, h3 := binary.LittleEndian.Uint64(w[16:])*golden>>shift, binary.LittleEndian.Uint64(w[24:])*golden>>shift
		if (bitmap[h0>>6]>>(h0&63)|bitmap[h1>>6]>>(h1&63)|bitmap[h2>>6]>>(h2&63)|bitmap[h3>>6]>>(h3&63))&1 == 0 {
			continue
		}
		for j := i; j < i+4*longStride; j += longStride {
			if x := binary.LittleEndian.Uint64(b[j:]); g.long.maybe(x) {
				out = g.verify(g.long, x, b, j, out)
			}
		}
	}
	for ; i+longGram <= len(b); i += longStride {
		x := binary.LittleEndian.Uint64(b[i:])
		h := x * golden >> shift
		if bitmap[h>>6]>>(h&63)&1 != 0 {
			out = g.verify(g.long, x, b, i, out)
		}
	}
	if g.short == nil {
		return out, nil
	}
	bitmap, shift = g.short.bitmap, g.short.shift
	i = 0
	for ; i+4*shortStride <= len(b); i += 4 * shortStride {
		w := b[i : i+4*shortStride]
		h0, h1 := uint64(binary.LittleEndian.Uint32(w))*golden>>shift, uint64(binary.LittleEndian.Uint32(w[5:]))*golden>>shift
		h2, h3 := uint64(binary.LittleEndian.Uint32(w[10:]))*golden>>shift, uint64(binary.LittleEndian.Uint32(w[15:]))*golden>>shift
		if (bitmap[h0>>6]>>(h0&63)|bitmap[h1>>6]>>(h1&63)|bitmap[h2>>6]>>(h2&63)|bitmap[h3>>6]>>(h3&63))&1 == 0 {
			continue
		}
		for j := i; j < i+4*shortStride; j += shortStride {
			if x := uint64(binary.LittleEndian.Uint32(b[j:])); g.short.maybe(x) {
				out = g.verify(g.short, x, b, j, out)
			}
		}
	}
	for ; i+shortGram <= len(b); i += shortStride {
		x := uint64(binary.LittleEndian.Uint32(b[i:]))
		h := x * golden >> shift
		if bitmap[h>>6]>>(h&63)&1 != 0 {
			out = g.verify(g.short, x, b, i, out)
		}
	}
	return out, nil
}

// verify compares the needles that have x with the text around b[i].
func (g *goEngine) verify(t *grams, x uint64, b []byte, i int, out []match) []match {
	for j := t.slot(x).head; j != 0; j = t.places[j-1].next {
		at := t.places[j-1]
		d, from := g.needles[at.needle], i-int(at.off)
		if from >= 0 && from+len(d) <= len(b) && bytes.Equal(b[from:from+len(d)], d) {
			out = append(out, match{int(at.needle), from + len(d)})
		}
	}
	return out
}

func (g *goEngine) close() {
	g.long.wipe()
	if g.short != nil {
		g.short.wipe()
	}
}

// slowScan needs no table: for when an engine fails in the middle of a stream.
func slowScan(needles [][]byte, b []byte, out []match) []match {
	for i, d := range needles {
		for from := 0; ; from++ {
			j := bytes.Index(b[from:], d)
			if j < 0 {
				break
			}
			from += j
			out = append(out, match{i, from + len(d)})
		}
	}
	return out
}
