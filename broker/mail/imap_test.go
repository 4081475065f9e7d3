package mail

import (
	"encoding/base64"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"testing"

	"guard/internal/testutil"
)

func TestIMAP(t *testing.T) {
	for _, mechs := range []string{"plain login", "scram-sha-256", "cram-md5"} {
		srv := startIMAP(t, mechs)
		w := newWorld(t, srv)
		port := w.listen(t, w.h.IMAP, 143)
		c := dial(t, port)
		c.tagged("AUTH=PLAIN", "a0", "CAPABILITY")
		c.tagged("a1 NO [AUTHENTICATIONFAILED] guard: this is no placeholder", "a1", "LOGIN me guess")
		c.tagged("a2 NO [AUTHENTICATIONFAILED] guard refused the use of credential my-smtp", "a2", "LOGIN me "+holder+"-smtp")
		if got := c.tagged("a3 OK [CAPABILITY IMAP4rev1", "a3", `LOGIN "me" "`+holder+`-imap"`); strings.Contains(got, "AUTH=") || strings.Contains(got, "STARTTLS") {
			t.Errorf("%s: %q", mechs, got)
		}
		c.tagged("+ ", "a4", "APPEND INBOX {21}")
		_, _ = io.WriteString(c, "Subject: x\r\n\r\nhello\r\n\r\n")
		c.until("a4 OK", "a4 ")
		c.tagged("a5 OK [READ-WRITE]", "a5", "SELECT INBOX")
		if got := c.tagged("a6 OK", "a6", "FETCH 1 BODY[]"); !strings.Contains(got, "hello") {
			t.Errorf("%s: %q", mechs, got)
		}
		c.tagged("a7 OK", "a7", `UID STORE 1 +FLAGS (\Seen)`)
		if got := c.tagged("a8 OK", "a8", "CAPABILITY"); strings.Contains(got, "COMPRESS") || strings.Contains(got, "AUTH=") {
			t.Errorf("%q", got)
		}
		for _, no := range []string{"COMPRESS DEFLATE", "LOGIN a b", "SETACL INBOX x lrs", "GENURLAUTH x", "XNONE", "UID XNONE", "UNAUTHENTICATE", "STARTTLS"} {
			c.tagged("a9 NO [CANNOT] guard refuses", "a9", no)
		}
		c.tagged("+ idling", "b1", "IDLE")
		_, _ = io.WriteString(c, "DONE\r\n")
		c.until("b1 OK", "b1 ")
	}
}

func TestIMAPReadScope(t *testing.T) {
	srv := startIMAP(t, "plain")
	w := newWorld(t, srv)
	port := w.listen(t, w.h.IMAP, 143)
	c := dial(t, port)
	c.tagged("a1 OK", "a1", "LOGIN me "+holder+"-imap")
	c.tagged("a2 OK", "a2", "APPEND INBOX {8+}\r\nx: y\r\n\r\n")
	c.Close()
	w.change(func() { w.scope = "mail:read" })
	c = dial(t, port)
	c.tagged("a1 OK", "a1", "LOGIN me "+holder+"-imap")
	c.tagged("a2 OK [READ-ONLY]", "a2", "SELECT INBOX")
	c.tagged("x: y", "a3", "FETCH 1 BODY[]")
	for _, no := range []string{
		`STORE 1 +FLAGS (\Deleted)`, "uid store 1 +FLAGS (x)", "EXPUNGE", "UID EXPUNGE 1", "COPY 1 x", "MOVE 1 x", "UID MOVE 1 x", "CREATE x", "DELETE INBOX", "RENAME INBOX x",
		"SUBSCRIBE x", "SETMETADATA x (a b)", "APPEND INBOX {5}", "APPEND INBOX {9+}\r\nb STORE 1 more",
	} {
		c.tagged("b NO [NOPERM] guard refused the use of credential my-imap: mail:write", "b", no)
	}
	c.tagged("c OK", "c", "SEARCH ALL")
	if got := c.tagged("d OK", "d", "STATUS INBOX (MESSAGES)"); !strings.Contains(got, "MESSAGES 1") {
		t.Error(got)
	}
	// The connection that may send only.
	w.change(func() { w.scope = "mail:send" })
	c = dial(t, port)
	c.tagged("a1 NO [AUTHENTICATIONFAILED] guard refused", "a1", "LOGIN me "+holder+"-imap")
}

func TestIMAPLeaksAndStrictness(t *testing.T) {
	srv := startIMAP(t, "plain")
	w := newWorld(t, srv)
	port := w.listen(t, w.h.IMAP, 143)
	for name, cmd := range map[string]string{
		"search": "SEARCH TEXT " + planted, "mailbox": "CREATE " + planted, "append": fmt.Sprintf("APPEND INBOX {%d+}\r\n%s", len(planted)+4, "x: "+planted+"y"),
		"append, encoded words": fmt.Sprintf("APPEND INBOX {%d+}\r\nX: %s\r\n %s", 7+len(bWord("u", planted[:9])+qWord(planted[9:])), bWord("u", planted[:9]), qWord(planted[9:])),
		"append, base64":        fmt.Sprintf("APPEND INBOX {44+}\r\n%s", base64.StdEncoding.EncodeToString([]byte(planted))), "login": "LOGIN me " + planted,
	} {
		c := dial(t, port)
		if name != "login" {
			c.tagged("a1 OK", "a1", "LOGIN me "+holder+"-imap")
		}
		if got := c.tagged("* BYE guard stopped this: it holds a secret (other)", "b", cmd); strings.Contains(got, planted) {
			t.Errorf("%s: %q", name, got)
		}
	}
	c := dial(t, port)
	c.tagged("a OK", "a", "STARTTLS\r\nb LOGIN x y")
	c.until("* BYE guard refuses commands behind STARTTLS", "* BYE")
	c = dial(t, port)
	c.tagged("a1 OK", "a1", "LOGIN me "+holder+"-imap")
	c.tagged("* BYE guard refuses lines", "a2", "NOOP\nb STORE 1")
	c = dial(t, port)
	c.tagged("a1 OK", "a1", "LOGIN me "+holder+"-imap")
	if got := c.tagged("a2 OK", "a2", "STATUS INBOX (MESSAGES)"); !strings.Contains(got, "MESSAGES 0") {
		t.Errorf("arrived: %q", got)
	}
	w.change(func() { w.value = "a-wrong-value" })
	c = dial(t, port)
	if got := c.tagged("refused guard's credential my-imap", "a", "LOGIN me "+holder+"-imap"); strings.Contains(got, realUser) || strings.Contains(got, "a-wrong") {
		t.Error(got)
	}
}

// TestIMAPGoneAtOnce: a client that is gone as soon as it is logged in, or before, ends its own
// connection and nothing else; one that does not log in may begin with a literal.
func TestIMAPGoneAtOnce(t *testing.T) {
	testutil.Leftovers(t)
	srv := startIMAP(t, "plain")
	w := newWorld(t, srv)
	port := w.listen(t, w.h.IMAP, 143)
	for range 40 {
		c := dial(t, port)
		// What comes with the login ends the connection, at the instant that the other way begins.
		_, _ = io.WriteString(c, "a1 LOGIN me "+holder+"-imap\r\nno command\n\r\n")
		c.until("* BYE guard refuses lines", "* BYE")
	}
	c := dial(t, port)
	c.tagged("+ ", "a1", "APPEND INBOX {12}")
	_, _ = io.WriteString(c, "x: y\r\n\r\nbody\r\n")
	c.until("a1 OK", "a1 ")
	c.tagged("MESSAGES 1", "a2", "STATUS INBOX (MESSAGES)")
}

// imaplib and curl, as they are; and a client that does not log in.
func TestIMAPClients(t *testing.T) {
	testutil.Leftovers(t)
	srv := startIMAP(t, "plain login")
	w := newWorld(t, srv)
	port := w.listen(t, w.h.IMAP, 143)
	c := dial(t, port)
	c.tagged("a OK", "a", "APPEND INBOX {12+}\r\nx: y\r\n\r\nbody")
	py := fmt.Sprintf(`
import imaplib
m = imaplib.IMAP4("127.0.0.1", %d)
m.login("me", %q)
print(m.select())
print(m.search(None, "ALL"))
print(m.fetch("1", "(RFC822)"))
print(m.store("1", "+FLAGS", "\\Deleted"), m.expunge())
m.logout()
`, port, holder+"-imap")
	for _, cmd := range []*exec.Cmd{
		exec.Command("curl", "-sS", "imap://127.0.0.1:"+strconv.Itoa(port)+"/INBOX;MAILINDEX=1", "--user", "me:"+holder+"-imap"),
		exec.Command("/usr/bin/python3", "-c", py),
	} {
		cmd.Env = []string{"PATH=" + os.Getenv("PATH"), "HOME=" + t.TempDir()}
		out, err := cmd.CombinedOutput()
		if err != nil || !strings.Contains(string(out), "body") {
			t.Errorf("%s: %v\n%s", cmd.Path, err, out)
		}
	}
}
