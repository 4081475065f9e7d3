package pty

import (
	"testing"
	"time"
)

func TestKeysOfAPerson(t *testing.T) {
	var f keyFilter
	at := time.Unix(1000, 0)
	feed := func(s string, after time.Duration) bool {
		at = at.Add(after)
		_, ok := f.feed([]byte(s), at)
		return ok
	}
	for _, s := range []string{"os", "\x1b", "\x1b[1;1R", "\x1b[M oo", "\xc3\xa9", "\x1b[<0;1;1M"} {
		if feed(s, time.Second) {
			t.Errorf("%q is a key", s)
		}
	}
	if !feed("o", time.Second) || !feed("s", time.Second) {
		t.Error("a key is none")
	}
	feed("\x1b", time.Second)
	if feed("[", time.Millisecond) || feed("c", time.Millisecond) {
		t.Error("the rest of a sequence is a key")
	}
	feed("\x1b[20", time.Second)
	feed("0~", time.Millisecond)
	if feed("o", time.Minute) {
		t.Error("what is pasted is a key")
	}
	feed("\x1b[201~", time.Second)
	if !feed("o", time.Second) {
		t.Error("after a paste nothing is a key")
	}
}
