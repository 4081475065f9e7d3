package broker

import (
	"context"
	"guard"
	"testing"
	"time"
)

func TestReplaceWord(t *testing.T) {
	part := func(c byte) bool { return c >= 'a' && c <= 'z' }
	for _, c := range []struct{ in, from, want string }{
		{"user a is a", "a", "user X is X"}, {"an a.a", "a", "an X.X"}, {"aa", "a", "aa"}, {"", "a", ""}, {"a", "a", "X"}, {"a", "", "a"}, {"b", "a", "b"}, {"(ab)", "ab", "(X)"}, {"abab", "ab", "abab"},
	} {
		if got := string(ReplaceWord([]byte(c.in), c.from, "X", part)); got != c.want {
			t.Errorf("%q of %q: %q", c.from, c.in, got)
		}
	}
}

func TestWait(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	if !Wait(ctx, time.Nanosecond) {
		t.Error("nothing ended it")
	}
	cancel()
	if Wait(ctx, time.Hour) {
		t.Error("waited for nobody")
	}
}

func TestRequestID(t *testing.T) {
	if RequestID(guard.Decision{Record: 42}) != "42" {
		t.Error("not the record's number")
	}
	if a, b := RequestID(guard.Decision{}), RequestID(guard.Decision{}); a == b || len(a) != 16 {
		t.Errorf("%s and %s name two refusals", a, b)
	}
}
