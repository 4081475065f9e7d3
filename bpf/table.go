//go:build linux && (amd64 || arm64)

package bpf

import (
	"errors"
	"fmt"
	"math/bits"
	"unsafe"
)

// words of the bitmap, of the generated type.
const words = len(detectTable{}.Bitmap)

// newTable builds what the kernel searches with: see doc.go. Keys are new for
// every table; room is how many needles one holds here.
func newTable(room int, needles []Needle, generation uint64) (*detectTable, error) {
	// Chance alone can fill one neighbourhood of the table; another key
	// moves everything.
	var err error
	for range 16 {
		var t *detectTable
		if t, _, err = newTableOf(room, NewHashKey(), needles, nil, generation); err == nil || !errors.Is(err, errFull) {
			return t, err
		}
	}
	return nil, err
}

// errFull: with another key it may go better. It is ErrTooMany.
var errFull = fmt.Errorf("%w that end in the same bytes", ErrTooMany)

// newTableOf has a table of known needles, and of such as others hashed under the same key: those get what room
// is left. left are the places in hashed of which there was none for.
func newTableOf(room int, key HashKey, needles []Needle, hashed []HashedNeedle, generation uint64) (_ *detectTable, left []int, err error) {
	if len(needles) > room {
		return nil, nil, fmt.Errorf("%w: %d of at most %d", ErrTooMany, len(needles), room)
	}
	shortest := FastNeedle
	for i, n := range needles {
		l := n.Bytes.Len()
		if l < MinNeedle {
			return nil, nil, fmt.Errorf("needle %d of ID %d: %w: %d bytes of at least %d", i, n.ID, ErrTooShort, l, MinNeedle)
		}
		shortest = min(shortest, l)
	}
	t := &detectTable{Generation: generation, Key: key, Room: uint32(room)}
	// The stride is the greatest power of two at which a window of the shortest lies
	// whole within it wherever it is.
	for stride>>t.Passes > shortest-window+1 {
		t.Passes++
	}
	windows := min(len(needles)+len(hashed), room) * stride
	// Two bits of 64 per window: 1 in 500 other windows has both set.
	t.BitmapShift = 64 - 12 - log2(windows, 1<<6, words)
	t.SlotShift = 32 - log2(windows*4, 1<<14, t.slots())
	if err := t.fill(needles); err != nil {
		return nil, nil, err
	}
	n := len(needles)
	for i, h := range hashed {
		if n == room || !t.add(n+1, h, stride) {
			left = append(left, i)
			// What there is of it finds nothing without an entry of its own; the next one takes that.
			if n < room {
				t.entry(n+1, HashedNeedle{})
			}
			continue
		}
		n++
	}
	return t, left, nil
}

// slots that the kernel's program has for such a table: 16 an entry, half of which a full one uses.
func (t *detectTable) slots() int { return int(t.Room+1) << 4 }

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
		{unsafe.Offsetof(t.Slots), min(1<<(32-t.SlotShift)+probes, uintptr(t.slots())) * unsafe.Sizeof(t.Slots[0])},
		{unsafe.Offsetof(t.Entries), (min(uintptr(needles), uintptr(t.Room)) + 1) * unsafe.Sizeof(t.Entries[0])},
	} {
		at, b := part(p[0], p[1])
		if p[0] == unsafe.Offsetof(t.Entries) { // in a smaller table they follow fewer slots
			at -= int64(uintptr(len(t.Slots)-t.slots()) * unsafe.Sizeof(t.Slots[0]))
		}
		parts[at] = b
	}
	return parts
}

func (t *detectTable) fill(needles []Needle) error {
	for i, n := range needles {
		places := stride
		if n.Bytes.Len() < FastNeedle {
			places >>= t.Passes
		}
		if !t.add(i+1, HashKey(t.Key).hash(n, places), places) {
			return fmt.Errorf("needle %d of ID %d: %w", i, n.ID, errFull)
		}
	}
	return nil
}

// add is false if the kernel would not look far enough to find one of its windows.
func (t *detectTable) add(entry int, h HashedNeedle, places int) bool {
	t.entry(entry, h)
	for place := range places {
		if !t.insert(h.Bits[place], h.Tags[place], uint32(entry<<3|place)) {
			return false
		}
	}
	return true
}

func (t *detectTable) entry(i int, h HashedNeedle) {
	e := &t.Entries[i]
	e.Sum, e.Id, e.Len, e.Upto, e.Segment = h.Sum, h.ID, h.Length, h.Upto, h.Segment
}

func (t *detectTable) insert(bits, tag, entry uint32) bool {
	bit := bits >> (t.BitmapShift - 36)
	t.Bitmap[bit>>12] |= 1<<(bit&63) | 1<<(bit>>6&63)
	first := int(tag >> t.SlotShift)
	for i := range probes {
		s := &t.Slots[(first+i)&(t.slots()-1)]
		if s.Entry == 0 {
			s.Tag, s.Entry = tag, entry
			return true
		}
	}
	return false
}

func (t *detectTable) windowHash(w uint64) uint64 { return (*HashKey)(&t.Key).windowHash(w) }

// log2 of the power of two that is not below n, within bounds that are powers
// of two themselves.
func log2(n, low, high int) uint32 {
	return uint32(bits.Len(uint(min(max(n, low), high) - 1)))
}
