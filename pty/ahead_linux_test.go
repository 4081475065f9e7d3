package pty

import (
	"bytes"
	"io"
	"math/rand/v2"
	"testing"

	"golang.org/x/sys/unix"
)

// aheadOn is one on a terminal of which the test reads the master.
func aheadOn(t *testing.T, seen func([]byte)) (*ahead, io.Reader) {
	um, us := rawPair(t)
	var a *ahead
	if err := withFD(us, func(fd uintptr) error {
		n, err := reopen(int(fd))
		a = &ahead{fd: n, seen: seen}
		return err
	}); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { unix.Close(a.fd) })
	return a, struct{ io.Reader }{um}
}

func TestAheadKeepsOrder(t *testing.T) {
	var want, seen bytes.Buffer
	a, r := aheadOn(t, func(p []byte) { seen.Write(p) })
	rnd := rand.New(rand.NewPCG(1, 2))
	var pieces [][]byte
	for i := range 300 {
		p := bytes.Repeat([]byte{byte('a' + i%26), byte('A' + i%25)}, 1+rnd.IntN(1<<rnd.IntN(16)))
		pieces = append(pieces, p)
		want.Write(p)
	}
	got := make(chan []byte)
	go func() {
		b := make([]byte, want.Len())
		n, _ := io.ReadFull(r, b)
		got <- b[:n]
	}()
	for i, p := range pieces {
		if err := a.put(p); err != nil {
			t.Fatal(err)
		}
		clear(p) // the filter uses its buffer again
		if i%7 == 0 {
			if err := a.push(); err != nil {
				t.Fatal(err)
			}
		}
	}
	if err := a.flush(); err != nil || a.waiting() {
		t.Fatalf("flush: %v, %d bytes left", err, len(a.buf)-a.wrote)
	}
	if b := <-got; !bytes.Equal(b, want.Bytes()) || !bytes.Equal(seen.Bytes(), want.Bytes()) {
		t.Error("what was written is not what was put")
	}
	noGoroutines(t)
}

// A terminal that takes nothing: put keeps so much and no more, and does not wait
// before that.
func TestAheadIsBounded(t *testing.T) {
	a, r := aheadOn(t, func([]byte) {})
	const most = 1 << 20 // more than the kernel keeps for a terminal
	put := 0
	for !a.waiting() {
		if put > most {
			t.Fatal("a terminal that nobody reads takes everything")
		}
		if err := a.put(make([]byte, 4<<10)); err != nil {
			t.Fatal(err)
		}
		put += 4 << 10
	}
	for len(a.buf)-a.wrote+512 <= aheadMost {
		if err := a.put(make([]byte, 512)); err != nil {
			t.Fatal(err)
		}
		put += 512
	}
	full := make(chan error)
	go func() { full <- a.put(make([]byte, 2*aheadMost)) }()
	put += 2 * aheadMost
	if _, err := io.ReadFull(r, make([]byte, put-aheadMost)); err != nil {
		t.Fatal(err)
	}
	if err := <-full; err != nil {
		t.Fatal(err)
	}
	if n := len(a.buf) - a.wrote; n > aheadMost || cap(a.buf) > 4*aheadMost {
		t.Errorf("%d bytes kept, in a buffer of %d", n, cap(a.buf))
	}
}

// The modes of the terminal's own descriptor, which the shell has too, stay.
func TestReopenLeavesTheOthersAlone(t *testing.T) {
	_, us := rawPair(t)
	if err := withFD(us, func(fd uintptr) error {
		before, err := unix.FcntlInt(fd, unix.F_GETFL, 0)
		if err != nil {
			return err
		}
		n, err := reopen(int(fd))
		if err != nil {
			return err
		}
		defer unix.Close(n)
		after, err := unix.FcntlInt(fd, unix.F_GETFL, 0)
		own, oerr := unix.FcntlInt(uintptr(n), unix.F_GETFL, 0)
		if err != nil || oerr != nil || after != before || own&unix.O_NONBLOCK == 0 {
			t.Errorf("modes %x before, %x after, %x of its own (%v, %v)", before, after, own, err, oerr)
		}
		return nil
	}); err != nil {
		t.Fatal(err)
	}
}
