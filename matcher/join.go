package matcher

import (
	"bytes"
	"encoding/binary"
	"math/bits"
	"os"
	"slices"
	"sync"

	"guard"
)

const (
	joinFrom  = 16      // bytes: of a shorter value there are no two parts to speak of
	joinPart  = 8       // bytes: shorter parts of a value are met by chance
	joinGap   = 4       // bytes of a value that may be missing: a prefix that is public, or what one can try
	joinBytes = 1 << 18 // of all values that are joined
)

// Join finds values whose parts are in different streams, or apart in one: half of
// one on the terminal, and half in a file. It keeps which stretches of 8 bytes or
// more of each value were seen anywhere, and reports a value when all but 4 bytes
// of it were. What programs print of a value on purpose, its first and last few
// characters with stars between them, does not cover it.
//
// Only values as they are take part, and only those of 16 to 512 bytes in which
// letters and digits are in no order: words that a value is made of are met in
// text. Give it what goes out, after masking: a value that is in one stream as a
// whole is the job of Stream, and reported here again only if it was not masked.
// All methods may be called from any goroutine, those of a Part from one at a time.
type Join struct {
	mu      sync.Mutex
	values  []*joinValue
	windows map[uint64][]joinPlace // every 8 bytes of every value
	bitmap  []uint64               // of the hashes of every 4 bytes
	shift   uint
	parts   int
	closed  bool
}

// joinValue is what was seen of one value.
type joinValue struct {
	id    guard.SecretID
	class guard.Class
	b     []byte
	seen  []uint64 // a bit for each byte of b
	parts []int    // that had some of it
}

type joinPlace struct {
	v   *joinValue
	off int
}

// Split is a value that was put together from its parts. Those that came before
// are out: see guard.Leak.Partial.
type Split struct {
	ID      guard.SecretID
	Class   guard.Class
	Streams int // that had a part of it
}

// NewJoin begins a session in which values are looked for in parts. Those that
// cannot be are left out: see Join.
func NewJoin(values []guard.Value) *Join {
	j := &Join{}
	j.Add(values...)
	return j
}

// Add adds values, of which nothing was seen so far. One that is there already
// takes the new class.
func (j *Join) Add(values ...guard.Value) {
	j.mu.Lock()
	defer j.mu.Unlock()
	if j.closed {
		return
	}
	total := 0
	for _, v := range j.values {
		total += len(v.b)
	}
	for _, v := range values {
		b := trim(v.Secret.Reveal())
		if len(b) < joinFrom || len(b) > maxNeedle || refuse(b) != nil || !random(b) || total+len(b) > joinBytes {
			continue
		}
		if i := slices.IndexFunc(j.values, func(o *joinValue) bool { return o.id == v.ID && bytes.Equal(o.b, b) }); i >= 0 {
			j.values[i].class = v.Class
			continue
		}
		total += len(b)
		j.values = append(j.values, &joinValue{id: v.ID, class: v.Class, b: bytes.Clone(b), seen: make([]uint64, (len(b)+63)/64)})
	}
	j.build()
}

// Remove forgets all values of ids.
func (j *Join) Remove(ids ...guard.SecretID) {
	j.mu.Lock()
	defer j.mu.Unlock()
	j.values = slices.DeleteFunc(j.values, func(v *joinValue) bool {
		gone := slices.Contains(ids, v.id)
		if gone {
			clear(v.b)
		}
		return gone
	})
	j.build()
}

// build makes the tables.
func (j *Join) build() {
	clear(j.windows)
	clear(j.bitmap)
	n := 0
	for _, v := range j.values {
		n += len(v.b)
	}
	logBits := max(bits.Len(uint(16*n)), 12)
	j.windows, j.bitmap, j.shift = make(map[uint64][]joinPlace, n), make([]uint64, 1<<(logBits-6)), uint(64-logBits)
	for _, v := range j.values {
		for i := 0; i+gram <= len(v.b); i++ {
			h := uint64(binary.LittleEndian.Uint32(v.b[i:])) * golden >> j.shift
			j.bitmap[h>>6] |= 1 << (h & 63)
		}
		for off := 0; off+joinPart <= len(v.b); off++ {
			key := binary.LittleEndian.Uint64(v.b[off:])
			j.windows[key] = append(j.windows[key], joinPlace{v, off})
		}
	}
}

// random says that b is not made of words: that it goes from letters to digits, or
// from small letters to capital ones, and back often enough.
func random(b []byte) bool {
	kind := func(c byte) int {
		switch {
		case '0' <= c && c <= '9':
			return 1
		case 'A' <= c && c <= 'Z':
			return 2
		case 'a' <= c && c <= 'z':
			return 3
		}
		return 0
	}
	var seen [256]bool
	distinct, changes := 0, 0
	for i, c := range b {
		if i > 0 && kind(c)*kind(b[i-1]) != 0 && kind(c) != kind(b[i-1]) {
			changes++
		}
		if !seen[c] {
			seen[c] = true
			distinct++
		}
	}
	return distinct >= joinPart && changes >= len(b)/6
}

// Part is one stream of a Join.
type Part struct {
	j    *Join
	n    int
	tail []byte // the last joinPart-1 bytes
}

// Stream opens one more stream of the session.
func (j *Join) Stream() *Part {
	j.mu.Lock()
	defer j.mu.Unlock()
	j.parts++
	return &Part{j: j, n: j.parts}
}

// Write takes the next bytes of the stream, and returns the values that they
// complete.
func (p *Part) Write(b []byte) []Split {
	j := p.j
	j.mu.Lock()
	defer j.mu.Unlock()
	if j.closed || len(j.values) == 0 {
		return nil
	}
	var room [2 * joinPart]byte
	head := append(append(room[:0], p.tail...), b[:min(len(b), joinPart-1)]...)
	found := p.look(b, p.look(head, nil))
	if len(b) >= joinPart-1 {
		head = b
	}
	p.tail = append(p.tail[:0], head[max(0, len(head)-(joinPart-1)):]...)
	clear(room[:])
	return found
}

// look marks what b has of the values. Every 8 bytes have 4 in them that begin at
// a multiple of 5.
func (p *Part) look(b []byte, found []Split) []Split {
	j := p.j
	next := 0 // windows before it were looked up
	for i := 0; i+gram <= len(b); i += joinPart - gram + 1 {
		h := uint64(binary.LittleEndian.Uint32(b[i:])) * golden >> j.shift
		if j.bitmap[h>>6]>>(h&63)&1 == 0 {
			continue
		}
		for k := max(next, i-(joinPart-gram)); k <= i && k+joinPart <= len(b); k++ {
			next = k + 1
			for _, at := range j.windows[binary.LittleEndian.Uint64(b[k:])] {
				if at.v.mark(at.off, p.n) {
					found = append(found, Split{at.v.id, at.v.class, len(at.v.parts)})
					clear(at.v.seen)
					at.v.parts = nil
				}
			}
		}
	}
	return found
}

// mark notes that 8 bytes of v from off on were seen in a part, and says whether
// that makes a whole.
func (v *joinValue) mark(off, part int) bool {
	fresh := false
	for k := off; k < off+joinPart; k++ {
		if bit := uint64(1) << (k & 63); v.seen[k>>6]&bit == 0 {
			v.seen[k>>6] |= bit
			fresh = true
		}
	}
	if !fresh {
		return false
	}
	if !slices.Contains(v.parts, part) {
		v.parts = append(v.parts, part)
	}
	n := 0
	for _, w := range v.seen {
		n += bits.OnesCount64(w)
	}
	return n >= len(v.b)-joinGap
}

// Close overwrites the values.
func (j *Join) Close() error {
	j.mu.Lock()
	defer j.mu.Unlock()
	if j.closed {
		return os.ErrClosed
	}
	j.closed = true
	for _, v := range j.values {
		clear(v.b)
	}
	j.values = nil
	j.build()
	return nil
}
