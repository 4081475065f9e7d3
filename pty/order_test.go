package pty

import (
	"math/rand/v2"
	"strings"
	"testing"

	"guard"
)

// displayed gives what a terminal gets of pieces; with quiet, the copier waits
// in vain for the rest of an escape sequence after each of them.
func displayed(t *testing.T, f guard.Filter, quiet bool, pieces ...string) string {
	t.Helper()
	var out strings.Builder
	c := copier{filter: f, tame: &tame{}, again: &tame{mark: true}, write: func(p []byte) error { out.Write(p); return nil }}
	for _, p := range pieces {
		if err := c.pass([]byte(p), guard.More); err != nil {
			t.Fatal(err)
		}
		if quiet && c.waiting() {
			if err := c.letGo(); err != nil {
				t.Fatal(err)
			}
			if c.waiting() {
				t.Fatalf("still waits after %q", p)
			}
		}
	}
	if err := c.pass(nil, guard.End); err != nil {
		t.Fatal(err)
	}
	if c.pending != 0 {
		t.Errorf("%d bytes are pending at the end", c.pending)
	}
	return out.String()
}

// What is dropped does not hide a secret from the filter.
func TestDroppedControlDoesNotHideASecret(t *testing.T) {
	const word = "ghx_0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZ"
	mask := strings.Repeat("*", len(word))
	for _, drop := range []string{
		"\x05", "\x05\x05", "\x1b[21t", "\x1b[20t", "\x9b21t", "\u009b21t", "\x1b[2\x051t", "\x1b[2\n1t", "\x1b[4294967317t",
		"\x1b[" + strings.Repeat("0", 300) + "m", "\x1b[1;1;1;1;9;9*y", "\x1bP$qm\x1b\\", "\x90$qm\x9c", "\u0090$qm\x1b\\",
		"\x1bP1;1|17/6c73\x1b\\", "\x1bP@kitty-cmd{}\x1b\\", "\x1b]52;c;?\x07", "\x1b]52;;?\x1b\\", "\x9d52;c;?\x9c", "\u009d52;c;?\x07",
		"\x1b]52;" + strings.Repeat("c", 400) + ";?\x07", "\x1b]50;?\x07", "\x1b]1337;ReportVariable=dXNlci54\x07",
		"\x1b]5522;type=read;Lg==\x1b\\", "\x1b[21t\x05\x9b21t",
	} {
		try := func(in string) {
			t.Helper()
			for _, pieces := range [][]string{{in}, strings.Split(in, "")} {
				f := &wordFilter{word: word, action: guard.Redact}
				if got := displayed(t, f.filter, false, pieces...); got != "<"+mask+">" {
					t.Errorf("%.80q in %d pieces became %.80q", in, len(pieces), got)
				}
			}
			f := &wordFilter{word: word, action: guard.Redact}
			if got := displayed(t, f.filter, true, bytewise(in)...); strings.Contains(got, word) ||
				strings.Trim(drop, "\x05") == "" && got != "<"+mask+">" {
				t.Errorf("%.80q, slowly, became %.80q", in, got)
			}
		}
		for cut := 1; cut < len(word); cut++ {
			try("<" + word[:cut] + drop + word[cut:] + ">")
			many := "<"
			for i := range cut {
				many += word[i:i+1] + drop
			}
			try(many + word[cut:] + ">")
		}
	}
}

func bytewise(s string) (pieces []string) {
	for i := range len(s) {
		pieces = append(pieces, s[i:i+1])
	}
	return pieces
}

// A mask that makes, of what is before it, a control that types does not reach
// the terminal as one, and what is around it does not join.
func TestMaskMakesNoControl(t *testing.T) {
	const word = "sesame-open-now"
	masked := func(mask string) guard.Filter {
		return func(p []byte, _ guard.Step) ([]byte, guard.Decision) {
			return []byte(strings.ReplaceAll(string(p), word, mask)), pass
		}
	}
	for _, test := range []struct{ before, mask, want string }{
		{"\x1b", "[name********m]", "\x1b[name********m]"},
		{"\x1b", "[21t**********]", "\x18?**********]"},
		{"\x1b", "[21t**********\x05", "\x18?**********?"},
		{"\x1b\x1b", "[21t**********]", "\x18?**********]"},
		{"\x1b", "]52;c;?\x07*******", "\x18?*******"},
		{"\x1b", "P$q*********\x1b\\*", "\x18?\x18?*"},
		{"\x1b", "[*************]", "\x1b[*************]"},
	} {
		in := test.before + word
		if got := displayed(t, masked(test.mask), false, "a", in, "b"); got != "a"+test.want+"b" {
			t.Errorf("%q masked with %q became %q", in, test.mask, got)
		}
		got := displayed(t, masked(test.mask), true, "a"+test.before, word, "b")
		if strings.Contains(got, "\x1b[21t") || strings.Contains(got, "52;c;?") || strings.Contains(got, "$q") {
			t.Errorf("%q masked with %q, slowly, became %q", in, test.mask, got)
		}
	}
}

// What a dropped control was in the midst of does not become one, and nothing is
// found in what is displayed that would be dropped again: the filter sees what
// the terminal gets.
func TestTameDropsNothingTwice(t *testing.T) {
	for in, want := range map[string]string{
		"\x1b[2\x1b[21t1tb":                   "\x1b[2\x18b",
		"\x1b\x9b21t[21tb":                    "\x1b\x18b",
		"\x1b[2\x1b]52;c;?\x07\x9b20t1tb":     "\x1b[2\x18b",
		"\x1b]52;\x1b[21tc;?\x07b":            "\x1b]52;\x18b",
		"\x1bP\x1b[21t$qm\x1b\\b":             "\x1bP\x18b",
		"\x1bPtmux;\x1b\x1b[2\x1b\x1b[21t1tb": "\x1bPtmux;\x1b\x1b[2\x18b",
		"\x1b[3\x1b[21t1mb":                   "\x1b[31mb",
	} {
		for size := 1; size <= len(in); size++ {
			got := through(in, size, false, false)
			if again := through(got, len(got), false, false); again != got || strings.Contains(got, "21t") || strings.Contains(got, ";?") {
				t.Errorf("%q in pieces of %d became %q, then %q", in, size, got, again)
			}
			if size == len(in) && got != want {
				t.Errorf("%q became %q, want %q", in, got, want)
			}
		}
	}
	parts := []string{"\x1b", "\x1b[", "\x1b]", "\x1bP", "\x9b", "\x9d", "\x90", "\xc2", "\x05", "\x18", "\x07", "\x1b\\", "\x9c", "[", "]", "P", "2", "1", "21t", "52;c;", "?", "$q", "|", "*y", "t", "m", ";", "a", "\n",
		"\x1b[21t", "\x9b20t", "\x1b]52;c;?\x07", "\x1bP$qm\x1b\\", "5", "1337;", "ReportVariable", strings.Repeat("0", 250)}
	r := rand.New(rand.NewPCG(1, 2))
	changed := 0
	for range 100_000 {
		var in strings.Builder
		for range 1 + r.IntN(12) {
			in.WriteString(parts[r.IntN(len(parts))])
		}
		once := through(in.String(), 1<<20, false, false)
		if again := through(once, 1<<20, false, false); again != once {
			t.Fatalf("%q became %q, then %q", in.String(), once, again)
		}
		if once != in.String() {
			changed++
		}
	}
	if changed < 10_000 {
		t.Errorf("only %d of the streams had something to drop", changed)
	}
}
