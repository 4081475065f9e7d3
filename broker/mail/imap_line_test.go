package mail

import (
	"fmt"
	"io"
	"strings"
	"testing"

	"guard/internal/testutil"
)

func TestScan(t *testing.T) {
	for line, want := range map[string]string{
		`a SEARCH SUBJECT {5}`:                 "5 sync",
		`a SEARCH SUBJECT {5+}`:                "5",
		`a SEARCH (SUBJECT "a \" b" FROM {0+}`: "0",
		`a FETCH 1 BODY[HEADER.FIELDS ({7+}`:   "7",
		`a STORE 1 +FLAGS (\Seen)`:             "none",
		`a SEARCH SUBJECT "{5+}"`:              "none",
		`a SEARCH SUBJECT "\\" BODY {3+}`:      "3",
		`a SEARCH SUBJECT x}`:                  "none",
		`a APPEND INBOX ~{5+}`:                 "bad",
		`a SEARCH SUBJECT "{5+}`:               "bad",
		`a SEARCH SUBJECT "a\" {5+}`:           "bad",
		`a SEARCH SUBJECT "a\`:                 "bad",
		`a SEARCH SUBJECT "a"{5+}`:             "bad",
		`a SEARCH SUBJECT a"b {5+}`:            "bad",
		`a SEARCH SUBJECT a"b`:                 "bad",
		`a SEARCH SUBJECT ""{5}`:               "bad",
		`a SEARCH SUBJECT x{5+}`:               "bad",
		`a SEARCH SUBJECT {5+} `:               "bad",
		`a SEARCH SUBJECT {5++}`:               "bad",
		`a SEARCH SUBJECT {}`:                  "bad",
		`a SEARCH SUBJECT {-5}`:                "bad",
		`a SEARCH SUBJECT {5-}`:                "bad",
		`a SEARCH SUBJECT {99999999999}`:       "bad",
		`a SEARCH SUBJECT {{5}`:                "bad",
		`a SEARCH SUBJECT [{5}`:                "bad",
		"a SEARCH SUBJECT\t{5}":                "bad",
		`{5}`:                                  "bad",
	} {
		n, sync, ok, bad := scan(line, false, false)
		got := "none"
		switch {
		case bad != "":
			got = "bad"
		case ok:
			if got = fmt.Sprint(n); sync {
				got += " sync"
			}
		}
		if got != want {
			t.Errorf("%s: %s, want %s", line, got, want)
		}
	}
	if n, _, ok, _ := scan(`a APPEND INBOX ~{5+}`, false, true); !ok || n != 5 {
		t.Error("a literal8 of APPEND")
	}
	if _, _, _, bad := scan(`a APPEND INBOX x~{5+}`, false, true); bad == "" {
		t.Error("a literal8 inside of a word")
	}
	for line, ok := range map[string]bool{"": true, ")": true, " {5}": true, ` "x")`: true, "x": false, "{5}": false, `"x"`: false, "~{5}": false} {
		if _, _, _, bad := scan(line, true, false); (bad == "") != ok {
			t.Errorf("behind a literal, %q: %q", line, bad)
		}
	}
}

// TestIMAPSmuggledCommands: what is sent as a literal is never there for the server to
// take for commands, whatever it thinks of the literal.
func TestIMAPSmuggledCommands(t *testing.T) {
	testutil.Leftovers(t)
	srv := startIMAP(t, "plain")
	w := newWorld(t, srv)
	port := w.listen(t, w.h.IMAP, 143)
	c := dial(t, port)
	c.tagged("a1 OK", "a1", "LOGIN me "+holder+"-imap")
	c.tagged("a2 OK", "a2", "APPEND INBOX {12+}\r\nx: y\r\n\r\nbody")
	c.Close()
	w.change(func() { w.scope = "mail:read" })
	inner := "d SELECT INBOX\r\ne STORE 1 +FLAGS (\\Deleted)\r\nf EXPUNGE\r\ng CREATE smuggled\r\n"
	for _, line := range []string{
		`c SEARCH SUBJECT "{N+}`, `c SEARCH SUBJECT "a\"{N+}`, `c SEARCH SUBJECT "{N}`, `c SEARCH SUBJECT ~{N+}`, `c SEARCH SUBJECT a"{N+}`, `c SEARCH SUBJECT a"b {N+}`,
		`c SEARCH SUBJECT x{N+}`, `c SEARCH XX {N+}`, `c SEARCH ) {N+}`, `c SEARCH ) {N}`, `c SEARCH SUBJECT {N+}`, `c SEARCH CHARSET x SUBJECT {N+}`, `c NOOP {N+}`, `c NOOP {N}`, `c CHECK {N+}`,
		`c STATUS INBOX (MESSAGES) {N+}`, `c STATUS INBOX (MESSAGES) {N}`, `c EXAMINE INBOX {N+}`, `c EXAMINE {N+}`, `c LIST "" {N+}`, `c FETCH 1 {N+}`, `c FETCH 1 BODY[HEADER.FIELDS ({N+}`,
		`c ID {N+}`, `c ENABLE {N+}`, `c NAMESPACE {N+}`, `c UID SEARCH "{N+}`, `c UID FETCH {N+}`, `c GETMETADATA {N+}`, `c SORT (X) {N+}`, `c THREAD {N+}`,
		"c IDLE\r\nDONE\r\nc NOOP {N+}", "c IDLE\r\nDONE\r\nc SEARCH ) {N+}", "c IDLE {N+}", "c NOOP\r\nc NOOP\r\nc NOOP {N+}", "c SEARCH ALL\r\nc SEARCH ) {N+}",
	} {
		c := dial(t, port)
		c.tagged("a1 OK", "a1", "LOGIN me "+holder+"-imap")
		c.tagged("a2 OK [READ-ONLY]", "a2", "SELECT INBOX")
		_, _ = io.WriteString(c, strings.ReplaceAll(line, "{N", fmt.Sprintf("{%d", len(inner)))+"\r\n"+inner+"\r\nzz LOGOUT\r\n")
		got, _ := io.ReadAll(c.r)
		for _, tag := range []string{"e", "f", "g"} {
			if strings.Contains(string(got), "\n"+tag+" OK") {
				t.Errorf("%s: %s was run: %q", line, tag, got)
			}
		}
		if strings.Contains(string(got), "[READ-WRITE]") {
			t.Errorf("%s: the mailbox was opened to be written: %q", line, got)
		}
	}
	c = dial(t, port)
	c.tagged("a1 OK", "a1", "LOGIN me "+holder+"-imap")
	if got := c.tagged("MESSAGES 1)", "a2", "STATUS INBOX (MESSAGES)"); strings.Contains(got, "MESSAGES 0") {
		t.Errorf("the message is gone: %q", got)
	}
	if got := c.tagged("a3 OK", "a3", `LIST "" "*"`); strings.Contains(got, "smuggled") {
		t.Errorf("a mailbox was made: %q", got)
	}
	// What is no attack works, one literal behind the other.
	c.tagged("a4 OK", "a4", "SELECT INBOX")
	c.tagged("* SEARCH 1\r\na5 OK", "a5", "SEARCH HEADER {1+}\r\nx {1+}\r\ny")
	c.tagged("a6 NO", "a6", "SEARCH CHARSET {7+}\r\nnothing SUBJECT {1+}\r\ny")
	_, _ = io.WriteString(c, "a7 NOOP\r\na8 SEARCH ALL\r\na9 SEARCH HEADER {1+}\r\nx {1+}\r\ny\r\nb0 NOOP\r\n")
	c.until("* SEARCH 1\r\na9 OK", "b0 ")
	c.tagged("+ ", "b1", "SEARCH HEADER {1}")
	c.tagged("+ ", "x", "{1}")
	_, _ = io.WriteString(c, "y\r\n")
	c.until("b1 OK", "b1 ")
}
