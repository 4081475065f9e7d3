package pty

import (
	"strings"
	"testing"
)

func TestModes(t *testing.T) {
	for _, c := range []struct{ in, off, on string }{
		{"plain \x1b[31mred\x1b[0m text\n", "", ""},
		{"\x1b[?2004h", "\x1b[?2004l", "\x1b[?2004h"},
		{"\x1b[?2004h\x1b[?2004l", "", ""},
		{"\x1b[?1000;1006h", "\x1b[?1000l\x1b[?1006l", "\x1b[?1006h\x1b[?1000h"},
		{"\x1b[?1049h\x1b[?25l", "\x1b[?1049l\x1b[?25h", "\x1b[?25l\x1b[?1049h"},
		{"\x1b[?1049h\x1b[?1049l", "", ""},
		{"\x1b[?1049h\x1b[?47l", "", ""},
		{"\x1b[?7l", "\x1b[?7h", "\x1b[?7l"},
		{"\x1b=", "\x1b>", "\x1b="},
		{"\x1b=\x1b>", "", ""},
		{"\x1b[4h", "\x1b[4l", "\x1b[4h"},
		{"\x1b[31m", "\x1b[0m", ""},
		{"\x1b[3;9r", "\x1b7\x1b[r\x1b8", ""},
		{"\x1b(0lqqk", "\x1b(B", ""},
		{"\x1b(0\x1b(B", "", ""},
		{"\x1b[5 q", "\x1b[0 q", "\x1b[5 q"},
		{"\x1b[>4;2m", "\x1b[>4m", "\x1b[>4;2m"},
		{"\x1b[>4;2m\x1b[>4m", "", ""},
		{"\x1b[>1u\x1b[>5u", "\x1b[<2u", "\x1b[>1u\x1b[>5u"},
		{"\x1b[>1u\x1b[<u", "", ""},
		{"\x1b[>1u\x1b[?1049h\x1b[>3u", "\x1b[<1u\x1b[?1049l\x1b[<1u", "\x1b[>1u\x1b[?1049h\x1b[>3u"},
		{"\x1b]8;;http://x\x1b\\link", "\x1b]8;;\x1b\\", ""},
		{"\x1b]8;;http://x\x07link\x1b]8;;\x07", "", ""},
		{"\x1b[?2004h\x1bc", "", ""},
		{"\x1b[?25l\x1b[!p", "", ""},
		{"\x1b]0;title", "\x1b\\", ""},
		{"\x1b]0;title\x1b", "\x1b\\", ""},
		{"\x1bP" + strings.Repeat("q#0;2", 1000), "\x1b\\", ""},
		{"\x1bPx\x1b[?2004h", "\x1b[?2004l", "\x1b[?2004h"}, // ESC ends a string
		{"\x1bP?2004h\x1b\\", "", ""},
		{"\x1b[?20", "\x18", ""},
		{"\x1b", "\x18", ""},
		{"\x1b[?20\x18\x1b[?1h", "\x1b[?1l", "\x1b[?1h"},
		{"\x1b[" + strings.Repeat("1;", 100) + "m", "\x1b[0m", ""},
		{"\x1b[?99999999999999999999h\x1b[?h\x1b[?;;h", "", ""},
	} {
		for cut := range len(c.in) + 1 {
			var m modes
			m.feed([]byte(c.in[:cut]))
			m.feed([]byte(c.in[cut:]))
			if off, on := m.undo(); string(off) != c.off || string(on) != c.on {
				t.Fatalf("%q cut at %d: off %q, want %q; on %q, want %q", c.in, cut, off, c.off, on, c.on)
			}
		}
	}
}

// What undo returns leaves nothing to undo, and what it returns to do again
// leaves the same.
func FuzzModes(f *testing.F) {
	f.Add([]byte("\x1b[?1049h\x1b[>1u\x1b[?25l\x1b[1;5r\x1b]0;x"))
	f.Fuzz(func(t *testing.T, in []byte) {
		var m modes
		m.feed(in)
		off, on := m.undo()
		m.feed(off)
		if again, _ := m.undo(); len(again) > 0 {
			t.Fatalf("%q: after %q there is still %q", in, off, again)
		}
		m = modes{}
		m.feed(on)
		if _, on2 := m.undo(); string(on2) != string(on) {
			t.Fatalf("%q: %q became %q", in, on, on2)
		}
	})
}

func TestCalm(t *testing.T) {
	for in, want := range map[string]bool{
		"": true, "x": true, "ä": true, "\xc3": false, "\xe2\x82": false, "\x1b": false, "\x1b[": false,
		"\x1b[m": true, "\x1b]0;x": false, "\x1b]0;x\x07": true, "\x1b[?1049h": false, "\x1b[?2026h": false, "\xff": true,
	} {
		var m modes
		m.feed([]byte(in))
		if m.calm() != want {
			t.Errorf("%q: calm is %v", in, m.calm())
		}
	}
}
