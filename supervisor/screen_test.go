package supervisor

import (
	"bytes"
	"encoding/base64"
	"encoding/hex"
	"fmt"
	"io"
	"strings"
	"testing"

	"github.com/charmbracelet/x/vt"

	"guard"
	"guard/matcher"
)

// A value that no issuer gives out.
const drawnValue = "zk-Wq8Vd2Xn5Lr9Tb4Hc7Mf1Js6Pg3"

// openScreen is the whole line to a terminal of this size, and what it judged.
func openScreen(t *testing.T, value string, rows, cols int) (guard.Filter, *[]guard.Leak) {
	t.Helper()
	m, err := matcher.New([]guard.Value{{ID: guard.SecretID{Name: "tok", Version: 1}, Secret: guard.NewSecret([]byte(value))}})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { m.Close() })
	var leaks []guard.Leak
	l := &Line{
		Matcher: m,
		Decide:  func(guard.Leak) guard.Decision { return guard.Decision{Action: guard.Redact} },
		Record:  func(l guard.Leak, _ guard.Decision) (uint64, error) { leaks = append(leaks, l); return 1, nil },
	}
	f, _ := l.OpenScreen(guard.Origin{Channel: guard.ChannelTerminal, Source: "pty"}, rows, cols)
	return f, &leaks
}

func feed(f guard.Filter, n int, in string) string {
	var all strings.Builder
	for i := 0; i < len(in); i += n {
		out, _ := f([]byte(in[i:min(i+n, len(in))]), guard.More)
		all.Write(out)
	}
	out, _ := f(nil, guard.End)
	all.Write(out)
	return all.String()
}

// What a terminal keeps beside the screen goes through the line as well.
func TestStringsOfTerminals(t *testing.T) {
	v := drawnValue
	b64 := base64.StdEncoding.EncodeToString([]byte(v))
	for name, in := range map[string]string{
		"title":             "\x1b]2;" + v + "\x07",
		"icon and title":    "\x1b]0;in " + v + "\x1b\\",
		"title, encoded":    "\x1b]2;" + hex.EncodeToString([]byte(v)) + "\x07",
		"link":              "\x1b]8;;https://example.com/?k=" + v + "\x1b\\x\x1b]8;;\x1b\\",
		"link, escaped":     "\x1b]8;;https://example.com/?k=" + strings.ReplaceAll(v, "-", "%2D") + "\x1b\\x\x1b]8;;\x1b\\",
		"clipboard":         "\x1b]52;c;" + b64 + "\x07",
		"clipboard, lines":  "\x1b]52;c;" + b64[:17] + "\n" + b64[17:] + "\x07",
		"clipboard, part":   "\x1b]52;c;" + base64.StdEncoding.EncodeToString([]byte("a"+v+"bc")) + "\x1b\\",
		"file":              "\x1b]1337;File=inline=1:" + b64 + "\x07",
		"sixel":             "\x1bPq" + v + "\x1b\\",
		"kitty":             "\x1b_Ga=T,f=100;" + b64 + "\x1b\\",
		"kitty, two chunks": "\x1b_Ga=T,m=1;" + b64[:16] + "\x1b\\\x1b_Gm=0;" + b64[16:] + "\x1b\\",
		"passed on":         "\x1bPtmux;\x1b\x1b]2;" + v + "\x07\x1b\\",
		"a NUL in a title":  "\x1b]2;" + v[:9] + "\x00" + v[9:] + "\x07",
		"synchronized":      "\x1b[?2026h\x1b[1;1H" + v + "\x1b[?2026l",
		"pasted":            "\x1b[200~" + v + "\x1b[201~",
	} {
		for _, n := range []int{1, 11, 1 << 16} {
			f, leaks := openScreen(t, v, 24, 80)
			out := feed(f, n, in)
			flat := strings.NewReplacer("\n", "", "\x00", "", "\x1b\\\x1b_Gm=0;", "").Replace(out)
			if strings.Contains(flat, v) || strings.Contains(flat, b64[4:len(b64)-4]) || len(*leaks) == 0 {
				t.Errorf("%s in pieces of %d: %q, %d leaks", name, n, out, len(*leaks))
			}
		}
	}
}

// Drawn in pieces, raw and encoded: with the search of the stream before it.
func TestDrawnThroughTheLine(t *testing.T) {
	v := drawnValue
	for name, text := range map[string]string{
		"raw": v, "base64": base64.StdEncoding.EncodeToString([]byte(v)), "hex": hex.EncodeToString([]byte(v)),
	} {
		h := len(text) / 2
		var back strings.Builder
		for i := len(text) - 1; i >= 0; i-- {
			fmt.Fprintf(&back, "\x1b[3;%dH%c", i+2, text[i])
		}
		for way, in := range map[string]string{
			"backwards":     "\x1b[H\x1b[2J" + back.String(),
			"the end first": "\x1b[H\x1b[2J\x1b[5;" + fmt.Sprint(h+3) + "H" + text[h:] + "\x1b[9;1Hx\x1b[5;3H" + text[:h],
			"lines":         "\x1b[H\x1b[2J" + text[:h] + "\r\n" + text[h:] + "\r\n",
			"a pane":        "\x1b[H\x1b[2Jname  │" + text[:h] + "│\r\nother │" + text[h:] + "│\r\n",
		} {
			for _, n := range []int{1, 5, 1 << 16} {
				f, leaks := openScreen(t, v, 24, 80)
				out := feed(f, n, in)
				e := vt.NewEmulator(80, 24)
				done := make(chan struct{})
				go func() { defer close(done); io.Copy(io.Discard, e) }()
				e.WriteString(out)
				shown := e.String()
				e.Close()
				<-done
				flat := strings.NewReplacer("\n", "", "\r", "", " ", "", "│", "", "name", "", "other", "").Replace(shown)
				if strings.Contains(flat, text) || !strings.Contains(flat, "***") {
					t.Errorf("%s, %s in pieces of %d: %q shows\n%s", name, way, n, out, shown)
				}
				if len(*leaks) == 0 {
					t.Errorf("%s, %s: no leak", name, way)
				}
			}
		}
	}
}

// A mask is as wide as what it replaces, whatever it is made of.
func TestMaskIsAsWide(t *testing.T) {
	const v = "pässwörd-漢字-Xq8Vd2Xn5L"
	f, _ := openScreen(t, v, 24, 80)
	out := feed(f, 1<<16, "\x1b[H\x1b[2J|"+v+"|\r\n")
	want := "|" + strings.Repeat("*", 24) + "|"
	if !strings.Contains(out, want) || bytes.ContainsRune([]byte(out), 0) {
		t.Errorf("%q, want %q in it", out, want)
	}
}
