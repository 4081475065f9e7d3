package broker

import (
	"bytes"
	"errors"
	"strings"
	"testing"
)

func TestWeaveKeepsTheOrder(t *testing.T) {
	var out bytes.Buffer
	w := &Weave{Dst: &out}
	step := func(want string) {
		t.Helper()
		if err := w.Flush(); err != nil || out.String() != want {
			t.Errorf("%q, %v; want %q", out.String(), err, want)
		}
	}
	w.Raw([]byte("<"))
	w.Payload(0, 4, func(b []byte) { copy(b, bytes.ToUpper(b)) })
	w.Raw([]byte("><"))
	w.Payload(1, 2, nil)
	w.Payload(1, 0, nil)
	w.Raw([]byte(">"))
	step("<")
	w.Release(1, []byte("xyz")) // of another stream: it waits
	step("<")
	w.Release(0, []byte("ab"))
	step("<AB")
	w.Release(0, []byte("cdef"))
	step("<ABCD><xy>")
	w.Payload(0, 3, nil)
	w.Payload(1, 2, nil)
	step("<ABCD><xy>ef")
	w.Release(0, []byte("g"))
	step("<ABCD><xy>efgz")
	for err := error(nil); err == nil; err = w.Flush() { // one byte is missing for ever
		w.Raw([]byte(strings.Repeat("p", 1000)))
		if w.kept > 2*maxKept {
			t.Fatal("what waits has no bound")
		}
	}
	if err := w.Flush(); !errors.Is(err, ErrKept) {
		t.Errorf("%v", err)
	}
	if out.String() != "<ABCD><xy>efgz" {
		t.Errorf("%.40q", out.String())
	}
}
