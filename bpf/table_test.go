//go:build linux && (amd64 || arm64)

package bpf

import (
	"bytes"
	"encoding/binary"
	"errors"
	"slices"
	"strings"
	"testing"
	"unsafe"
)

func TestNeedlesThatCannotBeSearchedFor(t *testing.T) {
	ends := func(n int) (ns []Needle) {
		for i := range n {
			ns = append(ns, needle(uint32(i), append(random(10), "the-same-end-of-all"...)))
		}
		return ns
	}
	canary := random(7)
	for _, c := range []struct {
		name    string
		needles []Needle
		want    error
	}{
		{"none", nil, nil},
		{"the shortest", []Needle{needle(1, random(8))}, nil},
		{"one byte less", []Needle{needle(1, random(15)), needle(2, canary)}, ErrTooShort},
		{"empty", []Needle{{ID: 3}}, ErrTooShort},
		{"60 that end alike", ends(60), nil},
		{"130 that end alike", ends(130), ErrTooMany},
		{"all alike", slices.Repeat([]Needle{needle(1, bytes.Repeat([]byte{'a'}, 40))}, 8), nil},
		{"more than fit", slices.Repeat([]Needle{needle(1, random(20))}, MaxNeedles+1), ErrTooMany},
	} {
		_, err := newTable(MaxNeedles, c.needles, 1)
		if !errors.Is(err, c.want) {
			t.Errorf("%s: %v, want %v", c.name, err, c.want)
		}
		if err != nil && strings.Contains(err.Error(), string(canary)) {
			t.Errorf("%s: the error holds the needle", c.name)
		}
	}
}

// As many as are promised, each with all of its windows where the kernel looks.
func TestFullTable(t *testing.T) {
	var needles []Needle
	for i := range MaxNeedles {
		needles = append(needles, needle(uint32(i), random(15+i%120)))
	}
	tab, err := newTable(MaxNeedles, needles, 1)
	if err != nil {
		t.Fatal(err)
	}
	used := 0
	for _, s := range tab.Slots {
		if s.Entry != 0 {
			used++
		}
	}
	if used != MaxNeedles*stride {
		t.Fatalf("%d windows in the table, want %d", used, MaxNeedles*stride)
	}
	bits := 0
	for i := range 100_000 {
		b := tab.windowHash(binary.LittleEndian.Uint64(random(8))) >> tab.BitmapShift
		if w := tab.Bitmap[b>>12]; w>>(b&63)&(w>>(b>>6&63))&1 == 1 {
			bits++
		}
		if i == 0 && int(b>>12) >= words {
			t.Fatal("a bit outside of the bitmap")
		}
	}
	if bits > 3000 {
		t.Errorf("%d of 100000 other windows pass the bitmap of a full table, want under 3 %%", bits)
	}
}

// What is written out of a table is all that is in it.
func TestUsedParts(t *testing.T) {
	for _, n := range []int{0, 1, 3, 100, 5000, MaxNeedles} {
		var needles []Needle
		for i := range n {
			needles = append(needles, needle(uint32(i), random(8+i%100)))
		}
		tab, err := newTable(MaxNeedles, needles, 1)
		if err != nil {
			t.Fatal(err)
		}
		got := new(detectTable)
		all := unsafe.Slice((*byte)(unsafe.Pointer(got)), unsafe.Sizeof(*got))
		size := 0
		for at, part := range tab.used(n) {
			size += copy(all[at:], part)
		}
		if *got != *tab {
			t.Errorf("%d needles: something is left out", n)
		}
		if n < 100 && size > 300_000 {
			t.Errorf("%d needles: %d bytes are written", n, size)
		}
	}
}

func TestKeysAreNewForEveryTable(t *testing.T) {
	n := []Needle{needle(1, []byte("a needle of some length"))}
	a, errA := newTable(MaxNeedles, n, 1)
	b, errB := newTable(MaxNeedles, n, 1)
	if errA != nil || errB != nil || a.Key == b.Key || a.Entries[1].Sum == b.Entries[1].Sum {
		t.Fatal("two tables share a key")
	}
}

func TestSegmentEndLeavesACommonEndOut(t *testing.T) {
	b := slices.Concat(random(1600), []byte("\n-----END PRIVATE KEY-----\n"))
	if end := segmentEnd(b); end > 1606 {
		t.Errorf("what is searched for ends at %d, in the armour", end)
	}
	for _, n := range []int{15, 127, 128} {
		if end := segmentEnd(bytes.Repeat([]byte{'x'}, n)); end != n {
			t.Errorf("%d bytes: ends at %d", n, end)
		}
	}
}
