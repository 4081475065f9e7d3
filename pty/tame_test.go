package pty

import (
	"bytes"
	"math/rand/v2"
	"os"
	"strings"
	"testing"
	"time"

	"guard"
)

// through gives what is displayed of text, in pieces; with quiet, the copier
// waits in vain after each of them.
func through(text string, size int, quiet, noClipboard bool) string {
	t := &tame{clipboard: noClipboard}
	var out strings.Builder
	for len(text) > 0 {
		n := min(size, len(text))
		out.Write(t.feed([]byte(text[:n])))
		if quiet && t.waiting() {
			out.Write(t.release())
		}
		text = text[n:]
	}
	out.Write(t.release())
	return out.String()
}

// What makes a terminal type is not displayed, whatever form it has and however
// it is cut. The second string is what stays of it between two words.
func TestTameDropsWhatTypes(t *testing.T) {
	for in, want := range map[string]string{
		"\x05":                "",
		"\x1b[21t":            "",
		"\x1b[20t":            "",
		"\x1b[021;0t":         "",
		"\x1b[2\x051t":        "",
		"\x1b[2\n1t":          "",
		"\x1b\n[21t":          "",
		"\x1b\x00]52;c;?\x07": "",
		"\x1b[4294967317t":    "",
		"\x1b[" + strings.Repeat("0", 300) + "21t": "",
		"\x9b21t":                              "",
		"\u009b21t":                            "",
		"\x1b\x9b21t":                          "\x1b",
		"\xc0\x9b21t":                          "\xc0",
		"\x1b\u009b21t":                        "\x1b",
		"é\x9b21t":                             "é",
		"€\x9b21t":                             "€",
		"\x1b[1;1;1;1;9;9*y":                   "",
		"\x1bP$q\"p\x1b\\":                     "",
		"\x1bP$q;touch /tmp/x;\n\x1b\\":        "",
		"\x1bP0;0$qm\x9c":                      "",
		"\x90$qm\x9c":                          "",
		"\u0090$qm\x1b\\":                      "",
		"\x1bP1;1|17/6c73\x1b\\":               "",
		"\x1bP@kitty-cmd{\"cmd\":\"x\"}\x1b\\": "",
		"\x1b]52;c;?\x07":                      "",
		"\x1b]52;;?\x1b\\":                     "",
		"\x1b]052;cp0;?\x1b\\":                 "",
		"\x1b]5\n2;c;?\x07":                    "",
		"\x1b]52;c;?\x18":                      "",
		"\x1b]52;" + strings.Repeat("c", 400) + ";?\x07": "",
		"\x9d52;c;?\x9c":                            "",
		"\u009d52;c;?\x07":                          "",
		"\x1b]0;a\u009d52;c;?\x07":                  "\x1b]0;a\xc2",
		"\x1b]0;a\x9d52;c;?\x07":                    "\x1b]0;a",
		"\x1b]50;?\x07":                             "",
		"\x1b]3;?\x07":                              "",
		"\x1b]1337;ReportVariable=dXNlci54\x07":     "",
		"\x1b]5522;type=read;Lg==\x1b\\":            "",
		"\x1bPtmux;\x1b\x1b]52;c;?\x07\x1b\\":       "\x1bPtmux;\x1b\\",
		"\x1bPtmux;\x1b\x1b]52;c;?\x1b\x1b\\\x1b\\": "\x1bPtmux;\x1b\\",
		"\x1bP\x1b]52;c;?\x07\x1b\\":                "\x1bP\x1b\\",
		"\x1bPtmux;\x1b\x1b[21t\x1b\\":              "\x1bPtmux;\x1b\\",
		"\x1b[1\x1b[21t":                            "\x1b[1",
		"\x1b]0;x\x1b[21t":                          "\x1b]0;x",
		"\x1bPq#0\x05\x1b\\":                        "\x1bPq#0\x1b\\",
	} {
		if got := through("a"+in+"b", 1<<10, false, false); got != "a"+want+"b" {
			t.Errorf("%q became %q", in, got)
		}
		for size := 1; size < len(in); size++ {
			if got := through("a"+in+"b", size, false, false); got != "a"+want+"b" {
				t.Errorf("%q in pieces of %d became %q", in, size, got)
			}
			// Shown too early, the start is there, but then it is cancelled.
			got := through("a"+in+"b", size, true, false)
			for _, bad := range []string{"21t", "*y", "$q", "52;c;?", "52;;?", ";?", "|17", "\x05", "ReportVariable=", "kitty", "type=read"} {
				if strings.Contains(got, bad) {
					t.Errorf("%q in pieces of %d, slowly, became %q", in, size, got)
				}
			}
			if i := strings.IndexByte(got, 0x18); !strings.HasSuffix(got, "b") || got != "a"+want+"b" && i < 0 {
				t.Errorf("%q in pieces of %d, slowly, became %q", in, size, got)
			}
		}
	}
}

func TestTameKeepsTheRest(t *testing.T) {
	var rare strings.Builder // every character that has C1 bytes in its UTF-8
	for r := rune(0xa0); r < 0x3000; r++ {
		rare.WriteRune(r)
	}
	for _, in := range []string{
		rare.String(), "😀 漢字 Ð\u0410\u041b\u041d ‐–— ✐✛✝", "plain\r\n\ttext\x00\x08\x7f",
		"\x1b[31mred\x1b[0m\x1b[2J\x1b[20;21H\x1b[21m\x1b[1;20t\x1b[22;0t\x1b[23;0t\x1b[18t\x1b[14t\x1b[20;3;4;5;7$t\x1b[21 t",
		"\x1b[c\x1b[>c\x1b[6n\x1b[?6n\x1b[?2026$p\x1b[>q\x1b[?u\x1bZ\x1b7\x1b8\x1b(B\x1b#8\x1bM",
		"\x1b]0;a title\x07\x1b]2;what?\x1b\\\x1b]2;?\x07\x1b]8;;http://a?b\x1b\\x\x1b]8;;\x1b\\\x1b]133;A\x07",
		"\x1b]10;?\x07\x1b]11;?\x1b\\\x1b]4;1;?\x07\x1b]12;?\x07\x1b]52;c;aGVsbG8=\x07\x1b]52;c;!\x07\x1b]777;notify;a;b\x07\x1b]9;4;1;50\x07",
		"\x1b]1337;File=inline=1:" + strings.Repeat("QUJD", 1000) + "\x07", "\x1bPq#0;2;0;0;0" + strings.Repeat("~", 5000) + "\x1b\\",
		"\x1bP+q544e\x1b\\\x1b_Gi=31,s=1,v=1,a=q,t=d,f=24;AAAA\x1b\\\x1b^pm\x1b\\\x1bXsos\x1b\\", "\x1bPtmux;\x1b\x1b]0;t\x07\x1b\\",
		"\x1b", "\x1b[", "\x1b]52;c", "\x1b\x1b\x1b[A", "\x1b[1\x18x", "\x1b[1\x1b[2m", "\xc2", "\xe2\x90", "\x9bm\x80\x85\x9c\x90q\x9c", "\xff\xfe\xc3",
	} {
		for _, size := range []int{1, 2, 3, 7, 1 << 16} {
			for _, quiet := range []bool{false, true} {
				if got := through(in, size, quiet, false); got != in {
					t.Errorf("%.60q in pieces of %d (quiet %v) became %.80q", in, size, quiet, got)
				}
			}
		}
	}
}

func TestTameClipboard(t *testing.T) {
	for _, in := range []string{"\x1b]52;c;aGVsbG8=\x07", "\x1b]52;c;" + strings.Repeat("QUJD", 1000) + "\x1b\\", "\x1b]1337;CopyToClipboard=\x07", "\x1b]5522;type=write\x1b\\"} {
		for _, size := range []int{1, 3, 1 << 16} {
			if got := through("a"+in+"b", size, false, true); got != "ab" {
				t.Errorf("%.40q became %.40q", in, got)
			}
		}
	}
}

// A lone ESC is shown when nothing follows, though the filter holds nothing, and
// also while the filter itself holds something for long.
func TestTameDoesNotKeepForLong(t *testing.T) {
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	out := newScreen()
	pauses := 0
	f := &wordFilter{word: "sesame-open-now"}
	c := copier{hold: time.Millisecond, long: time.Hour, tame: &tame{}, again: &tame{mark: true}, filter: func(p []byte, s guard.Step) ([]byte, guard.Decision) {
		if s == guard.Pause {
			pauses++
		}
		return f.filter(p, s)
	}, write: func(p []byte) error { _, err := out.Write(p); return err }}
	done := make(chan error, 1)
	go func() {
		s := newReaderSource(r)
		defer s.close()
		done <- c.run(s)
	}()
	w.WriteString("a\x1b")
	out.waitFor(t, "a\x1b")
	w.WriteString("[2")
	out.waitFor(t, "a\x1b[2")
	w.WriteString("1tb\x1b]52;sesame-open")
	out.waitFor(t, "a\x1b[2\x18b\x1b]52;")
	w.Close()
	if err := <-done; err != nil {
		t.Fatal(err)
	}
	if got := out.String(); got != "a\x1b[2\x18b\x1b]52;sesame-open" || pauses != 0 {
		t.Errorf("displayed %q, %d pauses", got, pauses)
	}
	noGoroutines(t)
}

func FuzzTame(f *testing.F) {
	f.Add([]byte("a\x1b]52;c;?\x07b\x9b21t\x1bP$qm\x1b\\"), 3)
	f.Fuzz(func(t *testing.T, b []byte, size int) {
		if size < 1 || size > 1<<20 {
			size = 1
		}
		whole := through(string(b), len(b)+1, false, false)
		if got := through(string(b), size, false, false); got != whole {
			t.Errorf("in pieces of %d: %q, whole: %q", size, got, whole)
		}
		if again := through(whole, len(b)+1, false, false); bytes.IndexByte(b, 0x18) < 0 && len(again) > len(whole) {
			t.Errorf("grew: %q, %q", whole, again)
		}
	})
}

// What is passed over eight bytes at a time is what is passed over one by one.
func TestOrdinaries(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	some := []byte("abc 0\r\n\x04\x05\x06\x1a\x1b\x1c\x7f\x80\x85\x9b\xc2\xff")
	for range 20000 {
		p := make([]byte, r.IntN(40))
		for i := range p {
			if p[i] = some[r.IntN(5)]; r.IntN(9) == 0 {
				p[i] = some[r.IntN(len(some))]
			}
		}
		n := ordinaries(p)
		want := bytes.IndexFunc(append(bytes.Clone(p), 0x1b), func(c rune) bool { return c == 5 || c == 0x1b || c >= 0x80 })
		if want >= len(p)&^7 { // the rest is looked at one by one
			want = len(p) &^ 7
		}
		if n != want {
			t.Fatalf("%q: %d, want %d", p, n, want)
		}
	}
}
