package supervisor

import (
	"testing"

	"guard"
)

func TestFindsOfOneCall(t *testing.T) {
	find := func(tid int, call uint64, name string, offset int64, length int) Find {
		return Find{TID: tid, Call: call, Leak: guard.Leak{Secret: guard.SecretID{Name: name}, Offset: offset, Length: length}}
	}
	var c Calls
	for i, x := range []struct {
		find Find
		want bool
	}{
		{find(1, 10, "a", 0, 40), false},
		{find(1, 10, "a", 4, 36), true},  // without its prefix
		{find(1, 10, "b", 0, 40), false}, // another credential of the same bytes
		{find(1, 10, "a", 0, 30), true},  // the first is remembered
		{find(2, 10, "a", 0, 40), false}, // another thread, between
		{find(1, 10, "a", 100, 40), false},
		{find(1, 10, "a", 104, 36), true},
		{find(1, 11, "a", 4, 36), false}, // the next call, at once
		{find(1, 11, "a", 0, 40), true},
		{find(1, 12, "a", 0, 40), false}, // and the next, the same
		{find(2, 10, "a", 4, 36), true},
		{find(3, 0, "a", 0, 40), false}, // no call is known
		{find(3, 0, "a", 0, 40), false},
	} {
		if got := c.Again(x.find); got != x.want {
			t.Errorf("find %d: %v", i, got)
		}
	}
	for i := range 3 * maxCallThreads {
		c.Again(find(i, 1, "a", 0, 40))
	}
	for i := range 3 * maxCallFinds {
		c.Again(find(1, 99, "a", int64(i)*100, 40))
	}
	if len(c.latest) > maxCallThreads || len(c.latest[1].finds) > maxCallFinds {
		t.Errorf("%d threads and %d finds are remembered", len(c.latest), len(c.latest[1].finds))
	}
}
