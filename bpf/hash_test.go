//go:build linux && (amd64 || arm64)

package bpf

import (
	"bytes"
	"os"
	"testing"
)

// Needles that others hashed are found as those that are known, and their finds bring what was around.
func TestHashedNeedles(t *testing.T) {
	known, theirs, long := random(40), random(40), random(1000)
	w := newWatch(t, nil, Options{Windows: true})
	key := NewHashKey()
	var hashed []HashedNeedle
	for i, b := range [][]byte{theirs, long} {
		h, err := key.Hash(needle(uint32(100+i), b))
		if err != nil {
			t.Fatal(err)
		}
		hashed = append(hashed, h)
	}
	generation, left, err := w.d.SetHashed(key, w.with([]Needle{needle(1, known)}), hashed)
	if err != nil || len(left) > 0 {
		t.Fatal(left, err)
	}
	before := bytes.Repeat([]byte("what is before "), 400)
	for _, c := range []struct {
		id    uint32
		value []byte
	}{{1, known}, {100, theirs}, {101, long}} {
		evs := w.do(job{Op: "write", To: "file", Calls: [][][]byte{{bytes.Join([][]byte{before, c.value, before}, nil)}}})
		if len(evs) != 1 || evs[0].Needle != c.id || evs[0].Generation != generation || evs[0].User != os.Getuid() {
			t.Fatalf("%d: %+v", c.id, evs)
		}
		e := evs[0]
		// Of a long one, what lies in the piece where it was found.
		cut := max(0, e.WindowAt-e.Offset)
		if cut > int64(len(c.value)-segment) && cut > 0 || !bytes.HasPrefix(e.Window[max(0, e.Offset-e.WindowAt):], c.value[cut:min(int64(len(c.value)), cut+segment)]) {
			t.Errorf("%d: the window of %d bytes at %d does not hold what was found at %d", c.id, len(e.Window), e.WindowAt, e.Offset)
		}
	}
	// Over two calls: of the first one there is no more than the needle's begin.
	evs := w.do(job{Op: "write", To: "file", Calls: [][][]byte{{append(bytes.Clone(before), theirs[:20]...)}, {append(bytes.Clone(theirs[20:]), before...)}}, Same: true})
	if len(evs) != 1 || evs[0].Offset != -20 || evs[0].WindowAt != -20 || !bytes.HasPrefix(evs[0].Window, theirs) {
		t.Errorf("over two calls: %+v", evs)
	}
	// Theirs are gone when the set is replaced.
	if _, _, err := w.d.SetHashed(key, w.with(nil), nil); err != nil {
		t.Fatal(err)
	}
	if evs := w.do(job{Op: "write", To: "file", Calls: [][][]byte{{theirs}}}); len(evs) != 0 {
		t.Errorf("found after it was removed: %+v", evs)
	}
}

// What somebody else says is a needle takes no room from those that are known, and is looked at before it is believed.
func TestHashedNeedlesOfAttackers(t *testing.T) {
	key := NewHashKey()
	var same []HashedNeedle
	for i := range 4000 {
		h, err := key.Hash(needle(uint32(i), random(20)))
		if err != nil {
			t.Fatal(err)
		}
		for p := range h.Tags {
			h.Tags[p], h.Bits[p] = 7, 1<<28-1
		}
		same = append(same, h)
	}
	var known []Needle
	for i := range 1000 {
		known = append(known, needle(uint32(i), random(20)))
	}
	tab, left, err := newTableOf(MaxNeedles, key, known, same, 1)
	if err != nil || len(left) < 3900 {
		t.Fatalf("%d of %d left, %v", len(left), len(same), err)
	}
	alone, _, err := newTableOf(MaxNeedles, key, known, nil, 1)
	if err != nil {
		t.Fatal(err)
	}
	for i := range known {
		if tab.Entries[i+1] != alone.Entries[i+1] {
			t.Fatal("a known needle has lost its entry")
		}
	}
	// More than fit.
	var many []HashedNeedle
	for i := range MaxNeedles {
		h, err := key.Hash(needle(uint32(i), random(16)))
		if err != nil {
			t.Fatal(err)
		}
		many = append(many, h)
	}
	if _, left, err := newTableOf(MaxNeedles, key, known, many, 1); err != nil || len(left) < 1000 {
		t.Errorf("%d left, %v", len(left), err)
	}
	good, err := key.Hash(needle(1, random(300)))
	if err != nil || good.Check() != nil {
		t.Fatal(err, good.Check())
	}
	for i, spoil := range []func(*HashedNeedle){
		func(h *HashedNeedle) { h.Length = 0 }, func(h *HashedNeedle) { h.Length = 1 << 31 }, func(h *HashedNeedle) { h.Segment = 0 },
		func(h *HashedNeedle) { h.Segment = 129 }, func(h *HashedNeedle) { h.Upto = h.Length + 1 }, func(h *HashedNeedle) { h.Upto = h.Segment - 1 },
		func(h *HashedNeedle) { h.Bits[3] = 1 << 28 },
	} {
		h := good
		spoil(&h)
		if h.Check() == nil {
			t.Errorf("%d: believed", i)
		}
	}
	if _, err := key.Hash(needle(1, random(14))); err == nil {
		t.Error("a short needle was hashed")
	}
}
