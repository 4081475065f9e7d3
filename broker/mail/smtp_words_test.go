package mail

import (
	"encoding/base64"
	"fmt"
	"strings"
	"testing"
)

func bWord(charset, s string) string {
	return "=?" + charset + "?B?" + base64.StdEncoding.EncodeToString([]byte(s)) + "?="
}

func qWord(s string) string {
	out := "=?utf-8?q?"
	for i, c := range []byte(s) {
		if i%3 == 0 {
			out += fmt.Sprintf("=%02x", c)
		} else {
			out += string(c)
		}
	}
	return out + "?="
}

func wide(s string) string {
	out := ""
	for _, c := range s {
		out += "\x00" + string(c)
	}
	return out
}

// TestEncodedWords: a value in several encoded words is one for who reads them.
func TestEncodedWords(t *testing.T) {
	srv := startSMTP(t, false)
	w := newWorld(t, srv)
	w.h.Plain = func(string, int) bool { return true }
	port := w.listen(t, w.h.SMTP, 587)
	one, two, three := planted[:9], planted[9:20], planted[20:]
	send := func(c *client, want, message string) {
		t.Helper()
		c.want("250", "MAIL FROM:<a@mail.test>\r\n")
		c.want("250", "RCPT TO:<b@example.com>\r\n")
		c.want("354", "DATA\r\n")
		c.want(want, message)
	}
	c := dial(t, port)
	c.reply()
	c.want("250", "EHLO me\r\n")
	for name, m := range map[string]string{
		"one word, Q":  "Subject: " + qWord(planted) + "\r\n\r\nx",
		"two, B":       "Subject: " + bWord("utf-8", one) + " " + bWord("utf-8", two+three) + "\r\n\r\nx",
		"B and Q":      "Subject: x " + bWord("utf-8", one) + "  " + qWord(two) + " " + bWord("UTF-8*en", three) + " y\r\n\r\nx",
		"folded":       "To: a@b\r\nSubject: " + bWord("utf-8", one) + "\r\n " + qWord(two) + "\r\n\t" + bWord("utf-8", three) + "\r\nX: y\r\n\r\nx",
		"no gap":       "Subject: " + qWord(one) + qWord(two) + qWord(three) + "\r\n\r\nx",
		"stuck":        "Subject: " + one + qWord(two) + three + "\r\n\r\nx",
		"UTF-16":       "Subject: " + bWord("utf-16be", wide(one)) + " " + bWord("utf-16be", wide(two+three)) + "\r\n\r\nx",
		"a false one":  "Subject: =?x =?x?y?=?utf-8?Z?x?= " + qWord(one) + " " + qWord(two+three) + "\r\n\r\nx",
		"last line":    "Subject: " + qWord(one) + "\r\n " + qWord(two+three),
		"part":         "Content-Type: multipart/mixed; boundary=b\r\n\r\n--b\r\nContent-Disposition: attachment; filename=\"" + qWord(one) + " " + qWord(two+three) + "\"\r\n\r\nx\r\n--b--",
		"no padding":   "Subject: " + strings.Replace(bWord("utf-8", planted[:10]), "==?=", "?=", 1) + " " + qWord(planted[10:]) + "\r\n\r\nx",
		"lone LF fold": "Subject: " + qWord(one) + "\n " + qWord(two+three) + "\r\n\r\nx",
	} {
		send(c, "554 5.7.1 guard stopped this: it holds a secret (other)", m+"\r\n.\r\n")
		if m := srv.messages(t); len(m) > 0 {
			t.Fatalf("%s arrived: %q", name, m)
		}
	}
	clean := "Subject: " + bWord("utf-8", "grüße") + " " + qWord("to all") + "\r\n\r\n" + strings.Repeat("=?x?q?y?= =?\r\n", 3000)
	send(c, "250", clean+"\r\n.\r\n")
	if m := srv.messages(t); len(m) != 1 || !strings.HasSuffix(strings.TrimRight(m[0], "\r\n"), strings.TrimRight(clean, "\r\n")) {
		t.Errorf("a clean one: %d messages", len(m))
	}
	// A byte of zero ends the connection.
	send(c, "554 5.6.0 guard refuses a message with a byte of zero", "Subject: "+one+"\x00"+two+"\r\n\r\nx\r\n.\r\n")
	if got := c.reply(); got != "gone" || len(srv.messages(t)) != 1 {
		t.Errorf("behind a byte of zero: %q", got)
	}
}

// TestWordsAtEverySplit: what is decoded does not hang on how a message comes.
func TestWordsAtEverySplit(t *testing.T) {
	in := "A: b\r\nS: x " + qWord("one") + "\r\n " + bWord("u", "two") + " y\r\nT: " + qWord("three") + "\r\n\r\nbody\r\n"
	var all words
	want := string(all.feed([]byte(in)))
	if want != "S: x onetwo y\r\nT: three\n" {
		t.Errorf("%q", want)
	}
	for i := range in {
		var w words
		if got := string(w.feed([]byte(in[:i]))) + string(w.feed([]byte(in[i:]))); got != want {
			t.Errorf("at %d: %q", i, got)
		}
	}
}
