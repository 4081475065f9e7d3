package pty

import (
	"bytes"
	"time"
)

// withoutAlt leaves out what switches between screens.
func withoutAlt(p []byte) []byte {
	for _, n := range []string{"1049", "1047", "47"} {
		p = bytes.ReplaceAll(p, []byte("\x1b[?"+n+"h"), nil)
		p = bytes.ReplaceAll(p, []byte("\x1b[?"+n+"l"), nil)
	}
	return p
}

// apart is how far from other input a key is that counts.
const apart = 20 * time.Millisecond

// keyFilter tells keys that a person presses from what else comes from a terminal.
type keyFilter struct {
	paste bool      // inside of brackets
	last  time.Time // when something came that is no key
	tail  []byte    // of what came, for brackets that are cut
}

// feed takes what one read gave: a key, if it is one byte that is no part of anything else.
func (f *keyFilter) feed(p []byte, now time.Time) (key byte, ok bool) {
	f.tail = append(f.tail, p...)
	// Brackets are looked for over reads.
	open, shut := bytes.LastIndex(f.tail, []byte("\x1b[200~")), bytes.LastIndex(f.tail, []byte("\x1b[201~"))
	switch {
	case open > shut:
		f.paste = true
	case shut > open:
		f.paste = false
	}
	if len(f.tail) > 16 {
		f.tail = append(f.tail[:0], f.tail[len(f.tail)-16:]...)
	}
	if f.paste || len(p) != 1 || p[0] == 0x1b || p[0] >= 0x80 {
		f.last = now
		return 0, false
	}
	if now.Sub(f.last) < apart {
		f.last = now // what goes on from there, a piece of a sequence or of a paste
		return 0, false
	}
	return p[0], true
}
