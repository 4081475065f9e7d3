package mail

import (
	"bufio"
	"bytes"
	"context"
	"crypto/hmac"
	"crypto/md5"
	"crypto/tls"
	"encoding/base64"
	"encoding/hex"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"slices"
	"strconv"
	"strings"
	"testing"

	"guard"
	"guard/internal/testutil"
)

func TestSubmission(t *testing.T) {
	testutil.Leftovers(t)
	for _, secure := range []bool{false, true} {
		srv := startSMTP(t, secure)
		w := newWorld(t, srv)
		w.h.Plain = func(string, int) bool { return !secure }
		port := w.listen(t, w.h.SMTP, 587)
		c := dial(t, port)
		if got := c.reply(); got != "220 mail.test ESMTP guard\r\n" {
			t.Error(got)
		}
		io.WriteString(c, "EHLO me\r\n")
		if got := c.reply(); !strings.Contains(got, "250 AUTH PLAIN LOGIN XOAUTH2") || !strings.Contains(got, "250-STARTTLS") || !strings.Contains(got, "SMTPUTF8") || strings.Contains(got, "CHUNKING") {
			t.Errorf("EHLO: %q", got)
		}
		c.want("535 5.7.8 guard: this is no placeholder", "AUTH PLAIN "+plain("me", "guess")+"\r\n")
		c.want("535 5.7.8 guard refused the use of credential foreign", "AUTH PLAIN "+plain("me", "placeholder-of-foreign-0001")+"\r\n")
		c.want("334 VXNlcm5hbWU6", "AUTH LOGIN\r\n")
		c.want("334 UGFzc3dvcmQ6", base64.StdEncoding.EncodeToString([]byte("me"))+"\r\n")
		c.want("235", base64.StdEncoding.EncodeToString([]byte(holder+"-smtp"))+"\r\n")
		c.want("250", "MAIL FROM:<a@mail.test> BODY=8BITMIME SMTPUTF8\r\n")
		c.want("250", "RCPT TO:<b@Example.com>\r\n")
		c.want("354", "DATA\r\n")
		c.want("250 2.0.0 taken from me", "Subject: x\r\n\r\n..dot\r\nbody\r\n.\r\n")
		// Without a login, and pipelined.
		c = dial(t, port)
		c.reply()
		c.want("250", "EHLO me\r\n")
		io.WriteString(c, "MAIL FROM:<a@mail.test>\r\nRCPT TO:<c@example.com>\r\nRCPT TO:<d@example.com>\r\nDATA\r\n")
		for _, want := range []string{"250", "250", "250", "354"} {
			if got := c.reply(); !strings.HasPrefix(got, want) {
				t.Errorf("pipelined: %q, want %s", got, want)
			}
		}
		c.want("250", "second\r\n.\r\n")
		c.want("221", "QUIT\r\n")
		m := srv.messages(t)
		if len(m) != 2 || !strings.Contains(m[0], "'"+realUser+"'), 'a@mail.test', ['b@Example.com']") || !strings.Contains(m[0], "\r\n\r\n.dot\r\nbody") || !strings.Contains(m[1], "['c@example.com', 'd@example.com']") {
			t.Errorf("secure %v: arrived %q", secure, m)
		}
		w.change(func() {
			if w.uses[0].Action != "mail:send" || w.uses[0].Credential.Name != "my-smtp" {
				t.Errorf("%+v", w.uses[0])
			}
		})
		testutil.WaitFor(t, "the end is recorded", func() bool { w.mu.Lock(); defer w.mu.Unlock(); return len(w.did) > 0 })
		w.change(func() {
			if want := "foreign mail:send  placeholder at a foreign host"; !slices.Contains(w.refused, want) || w.did[0] != "1 messages to 2 recipients, 0 refused" {
				t.Errorf("%q %q", w.refused, w.did)
			}
		})
	}
}

func TestSubmissionLeaks(t *testing.T) {
	srv := startSMTP(t, false)
	w := newWorld(t, srv)
	w.h.Plain = func(string, int) bool { return true }
	port := w.listen(t, w.h.SMTP, 587)
	quoted := planted[:9] + "=\r\n" + planted[9:]
	c := dial(t, port)
	c.reply()
	c.want("250", "EHLO me\r\n")
	for name, body := range map[string]string{
		"raw": "Subject: x\r\n\r\nit is " + planted + "\r\n.\r\n", "subject": "Subject: " + planted + "\r\n\r\n\r\n.\r\n", "quoted-printable": "\r\n" + quoted + "\r\n.\r\n",
		"base64": "\r\n" + base64.StdEncoding.EncodeToString([]byte(planted)) + "\r\n.\r\n", "big": "\r\n" + strings.Repeat(strings.Repeat("x", 70)+"\r\n", 3000) + planted + "\r\n" + strings.Repeat("y\r\n", 50000) + ".\r\n",
	} {
		c.want("250", "MAIL FROM:<a@mail.test>\r\n")
		c.want("250", "RCPT TO:<b@example.com>\r\n")
		c.want("354", "DATA\r\n")
		c.want("554 5.7.1 guard stopped this: it holds a secret (other)", body)
		if m := srv.messages(t); len(m) > 0 {
			t.Fatalf("%s arrived: %q", name, m)
		}
	}
	// The connection goes on, and sends what is clean.
	c.want("250", "MAIL FROM:<a@mail.test>\r\n")
	c.want("250", "RCPT TO:<b@example.com>\r\n")
	c.want("354", "DATA\r\n")
	c.want("250", "clean\r\n.\r\n")
	if m := srv.messages(t); len(m) != 1 || strings.Contains(m[0], planted) {
		t.Errorf("%q", m)
	}
	c.want("554 5.7.1 guard stopped", "MAIL FROM:<"+planted+"@mail.test>\r\n")
	if got := c.reply(); got != "gone" {
		t.Error(got)
	}
}

func TestRecipientScope(t *testing.T) {
	srv := startSMTP(t, false)
	w := newWorld(t, srv)
	w.scope = "mail:send/*@example.com"
	w.h.Plain = func(string, int) bool { return true }
	c := dial(t, w.listen(t, w.h.SMTP, 587))
	c.reply()
	c.want("250", "EHLO me\r\n")
	c.want("235", "AUTH PLAIN "+plain("me", holder+"-smtp")+"\r\n")
	c.want("250", "MAIL FROM:<a@mail.test>\r\n")
	c.want("554 5.7.1 guard refused the use of credential my-smtp: mail:send on x@evil.test is outside", "RCPT TO:<x@evil.test>\r\n")
	c.want("503", "DATA\r\n")
	c.want("250", "RCPT TO:<b@EXAMPLE.com>\r\n")
	c.want("550 5.7.1 guard refused", "RCPT TO:<x@evil.test>\r\n")
	for _, a := range []string{"<\"x\"@evil.test,b@example.com>", "<@evil.test:b@example.com>", "b@example.com", "<x@evil.test@example.com>", "<>", "<a b@example.com>", "<x@evil.test\\@example.com>"} {
		c.want("501", "RCPT TO:"+a+"\r\n")
	}
	for _, a := range []string{"x%evil.test@example.com", "evil.test!x@example.com", "a!b!x@example.com", "evil.test!x"} { // routed by some servers
		c.want("550", "RCPT TO:<"+a+">\r\n")
	}
	c.want("354", "DATA\r\n")
	c.want("250", "hello\r\n.\r\n")
	if m := srv.messages(t); len(m) != 1 || strings.Contains(m[0], "evil") {
		t.Errorf("%q", m)
	}
	w.change(func() { w.scope = "mail:read" })
	c.want("250", "MAIL FROM:<a@mail.test>\r\n")
	c.want("550", "RCPT TO:<b@example.com>\r\n")
}

func TestSMTPIsStrict(t *testing.T) {
	srv := startSMTP(t, false)
	w := newWorld(t, srv)
	w.h.Plain = func(string, int) bool { return true }
	port := w.listen(t, w.h.SMTP, 587)
	open := func() *client {
		c := dial(t, port)
		c.reply()
		c.want("250", "EHLO me\r\n")
		return c
	}
	// Commands behind STARTTLS are not taken for encrypted ones.
	c := open()
	c.want("220", "STARTTLS\r\nMAIL FROM:<a@mail.test>\r\n")
	if got := c.reply(); !strings.HasPrefix(got, "554 5.5.0 guard refuses commands behind STARTTLS") {
		t.Errorf("injection: %q", got)
	}
	c = open()
	c.want("220", "STARTTLS\r\n")
	n := tls.Client(c.Conn, &tls.Config{RootCAs: srv.ca.Pool(), ServerName: "mail.test"})
	must(t, n.Handshake())
	tc := &client{n, t, bufio.NewReader(n)}
	tc.want("250", "EHLO me\r\n")
	tc.want("503", "STARTTLS\r\n")
	tc.want("221", "QUIT\r\n")
	for _, line := range []string{"MAIL FROM:<a@mail.test>\n", "MAIL FROM:<a@mail\r.test>\r\n", "NOOP " + strings.Repeat("x", 20<<10) + "\r\n", "NOOP \x00\r\n"} {
		c := open()
		c.want("500 5.5.2", line)
		if got := c.reply(); got != "gone" {
			t.Errorf("goes on: %q", got)
		}
	}
	c = open()
	c.want("502", "BDAT 5 LAST\r\nQUIT\r\n")
	if got := c.reply(); got != "gone" {
		t.Errorf("what follows BDAT is taken for a command: %q", got)
	}
	for _, end := range []string{"\n.\n", "\n.\r\n", "\r\n.\n", "\r.\r", "\r\n.\r", "\r.\r\n", "\n.\r"} {
		c := open()
		c.want("250", "MAIL FROM:<a@mail.test>\r\n")
		c.want("250", "RCPT TO:<b@example.com>\r\n")
		c.want("354", "DATA\r\n")
		c.want("554 5.6.0 guard refuses a message with a line of one dot", "text"+end+"MAIL FROM:<smuggled@mail.test>\r\nRCPT TO:<c@example.com>\r\nDATA\r\nx\r\n.\r\n")
		c.want("221", "QUIT\r\n")
	}
	c = open()
	c.want("250", "MAIL FROM:<a@mail.test>\r\n")
	c.want("250", "RCPT TO:<b@example.com>\r\n")
	c.want("354", "DATA\r\n")
	c.want("554 5.6.0 guard refuses a message with a line that is longer", strings.Repeat("x", 70<<10)+"\r\n.\r\n")
	if m := srv.messages(t); len(m) != 0 {
		t.Errorf("arrived: %q", m)
	}
	c = open()
	c.want("250", "MAIL FROM:<a@mail.test>\r\n")
	c.want("250", "RCPT TO:<b@example.com>\r\n")
	c.want("354", "DATA\r\n")
	c.want("250", "a lone\nline feed, and .\nanother.\r\n..\r\n.\r\n")
}

func TestUpstreamTLS(t *testing.T) {
	plainSrv, srv := startSMTP(t, false), startSMTP(t, true)
	w := newWorld(t, srv)
	w.h.Plain = func(string, int) bool { return false }
	greet := func() string {
		c := dial(t, w.listen(t, w.h.SMTP, 587))
		c.reply()
		io.WriteString(c, "EHLO me\r\n")
		return c.reply()
	}
	w.srv = plainSrv
	dialTo := func(port int) func(context.Context, string, int) (net.Conn, error) {
		return func(ctx context.Context, _ string, _ int) (net.Conn, error) {
			return net.Dial("tcp", net.JoinHostPort("127.0.0.1", strconv.Itoa(port)))
		}
	}
	w.h.Dial = dialTo(plainSrv.port)
	if got := greet(); !strings.HasPrefix(got, "421") || !strings.Contains(got, "offers no TLS") {
		t.Errorf("a server without TLS: %q", got)
	}
	w.h.Dial = dialTo(srv.port)
	w.host = "other.test"
	w.change(func() { w.creds[0].Hosts = []string{"other.test"} })
	if got := greet(); !strings.HasPrefix(got, "421") || !strings.Contains(got, "certificate is not trusted") {
		t.Errorf("a certificate for another name: %q", got)
	}
	// A server, or somebody on the way, that says more than yes to STARTTLS.
	l, err := net.Listen("tcp", "127.0.0.1:0")
	must(t, err)
	defer l.Close()
	go func() {
		c, err := l.Accept()
		if err != nil {
			return
		}
		defer c.Close()
		r := bufio.NewReader(c)
		io.WriteString(c, "220 x\r\n")
		r.ReadString('\n')
		io.WriteString(c, "250-x\r\n250 STARTTLS\r\n")
		r.ReadString('\n')
		io.WriteString(c, "220 go\r\n250-x\r\n250 AUTH PLAIN\r\n")
		r.ReadString('\n')
	}()
	w.h.Dial = dialTo(l.Addr().(*net.TCPAddr).Port)
	if got := greet(); !strings.Contains(got, "clear text behind STARTTLS") {
		t.Errorf("injection by the server: %q", got)
	}
}

// Each mechanism of the server's, as its RFC has it.
func TestUpstreamMechanisms(t *testing.T) {
	cert := testutil.NewCA(t)
	_ = cert
	for _, mech := range []string{"PLAIN", "LOGIN", "CRAM-MD5", "XOAUTH2", "OAUTHBEARER"} {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		must(t, err)
		got := make(chan string, 1)
		go func() {
			c, err := l.Accept()
			if err != nil {
				return
			}
			defer c.Close()
			r := bufio.NewReader(c)
			read := func() string { s, _ := r.ReadString('\n'); return strings.TrimSpace(s) }
			dec := func(s string) string { b, _ := base64.StdEncoding.DecodeString(s); return string(b) }
			io.WriteString(c, "220 x\r\n")
			read()
			io.WriteString(c, "250-x\r\n250 AUTH "+mech+"\r\n")
			f := strings.Fields(read())
			s := f[1] + " "
			switch mech {
			case "LOGIN":
				io.WriteString(c, "334 VXNlcm5hbWU6\r\n")
				s += dec(read())
				io.WriteString(c, "334 UGFzc3dvcmQ6\r\n")
				s += " " + dec(read())
			case "CRAM-MD5":
				io.WriteString(c, "334 "+base64.StdEncoding.EncodeToString([]byte("<1896.1@x>"))+"\r\n")
				s += dec(read())
			default:
				s += dec(f[2])
			}
			got <- s
			io.WriteString(c, "235 ok\r\n")
			read()
		}()
		srv := &server{port: l.Addr().(*net.TCPAddr).Port, ca: testutil.NewCA(t)}
		w := newWorld(t, srv)
		w.h.Plain = func(string, int) bool { return true }
		c := dial(t, w.listen(t, w.h.SMTP, 587))
		c.reply()
		c.want("250", "EHLO me\r\n")
		if strings.Contains(mech, "OAUTH") {
			c.want("235", "AUTH XOAUTH2 "+base64.StdEncoding.EncodeToString([]byte("user=me\x01auth=Bearer "+holder+"-smtp\x01\x01"))+"\r\n")
		} else {
			c.want("235", "AUTH PLAIN "+plain("me", holder+"-smtp")+"\r\n")
		}
		m := hmac.New(md5.New, []byte(realPass))
		m.Write([]byte("<1896.1@x>"))
		want := map[string]string{
			"PLAIN": "\x00" + realUser + "\x00" + realPass, "LOGIN": realUser + " " + realPass, "CRAM-MD5": realUser + " " + hex.EncodeToString(m.Sum(nil)),
			"XOAUTH2":     "user=" + realUser + "\x01auth=Bearer " + realPass + "\x01\x01",
			"OAUTHBEARER": "n,a=" + realUser + ",\x01host=mail.test\x01port=587\x01auth=Bearer " + realPass + "\x01\x01",
		}[mech]
		if s := <-got; s != mech+" "+want {
			t.Errorf("%s: %q, want %q", mech, s, want)
		}
		c.Close()
		l.Close()
	}
}

func TestWrongValue(t *testing.T) {
	srv := startSMTP(t, false)
	w := newWorld(t, srv)
	w.value = "a-wrong-value"
	w.h.Plain = func(string, int) bool { return true }
	c := dial(t, w.listen(t, w.h.SMTP, 587))
	c.reply()
	c.want("250", "EHLO me\r\n")
	io.WriteString(c, "AUTH PLAIN "+plain("me", holder+"-smtp")+"\r\n")
	if got := c.reply(); !strings.HasPrefix(got, "535 5.7.8 the server at mail.test:587 refused guard's credential my-smtp") || strings.Contains(got, realUser) || strings.Contains(got, w.value) {
		t.Errorf("%q", got)
	}
}

// smtplib, curl and swaks, as they are.
func TestSMTPClients(t *testing.T) {
	srv := startSMTP(t, false)
	w := newWorld(t, srv)
	w.h.Plain = func(string, int) bool { return true }
	port := w.listen(t, w.h.SMTP, 587)
	run := func(want string, name string, args ...string) {
		t.Helper()
		cmd := exec.Command(name, args...)
		cmd.Env = []string{"PATH=" + os.Getenv("PATH"), "HOME=" + t.TempDir()}
		cmd.Stdin = strings.NewReader("Subject: x\r\n\r\nfrom " + name + "\r\n")
		out, err := cmd.CombinedOutput()
		if err != nil && want == "" || want != "" && (err == nil || !bytes.Contains(out, []byte(want))) {
			t.Errorf("%s: %v\n%s", name, err, out)
		}
	}
	login := fmt.Sprintf(`
import smtplib, sys
s = smtplib.SMTP("127.0.0.1", %d)
s.login("me", %q)
s.sendmail("a@mail.test", ["b@example.com"], "Subject: x\r\n\r\nfrom smtplib\r\n.dot\r\n" + (sys.argv[1] if len(sys.argv) > 1 else ""))
s.quit()
`, port, holder+"-smtp")
	run("", "/usr/bin/python3", "-c", login)
	run("554, b'5.7.1 guard stopped", "/usr/bin/python3", "-c", login, planted)
	url := fmt.Sprintf("smtp://127.0.0.1:%d", port)
	run("", "curl", "-sS", url, "--mail-from", "a@mail.test", "--mail-rcpt", "b@example.com", "-T", "-", "--user", "me:"+holder+"-smtp")
	testutil.Need(t, "swaks", "swaks")
	run("", "swaks", "--server", "127.0.0.1:"+strconv.Itoa(port), "--from", "a@mail.test", "--to", "b@example.com", "--auth", "LOGIN", "--auth-user", "me", "--auth-password", holder+"-smtp", "--body", "from swaks")
	run("guard stopped", "swaks", "--server", "127.0.0.1:"+strconv.Itoa(port), "--from", "a@mail.test", "--to", "b@example.com", "--body", planted)
	all := strings.Join(srv.messages(t), "\n")
	for _, want := range []string{"from smtplib\r\n.dot\r\n", "from curl", "from swaks"} {
		if !strings.Contains(all, want) {
			t.Errorf("%q did not arrive: %q", want, all)
		}
	}
	if strings.Contains(all, planted) || len(srv.messages(t)) != 3 {
		t.Errorf("arrived: %q", all)
	}
}

func FuzzBody(f *testing.F) {
	f.Add([]byte("a\r\n..b\r\n.\r\nQUIT"), 3)
	f.Add([]byte("a\n.\r\n\r\n.\r\n"), 2)
	f.Add([]byte(".\r\n"), 1)
	f.Fuzz(func(t *testing.T, b []byte, cut int) {
		if cut < 0 || cut > len(b) {
			return
		}
		whole := newBody()
		n, bad := whole.feed(b)
		if want := bytes.Index(append([]byte("\r\n"), b...), []byte("\r\n.\r\n")); (want >= 0) != whole.done || whole.done && n != want+3 {
			t.Fatalf("%q: ends at %d, want %d", b, n, want+3)
		}
		parts := newBody()
		k, bad1 := parts.feed(b[:cut])
		if !parts.done {
			m, bad2 := parts.feed(b[cut:])
			k += m
			if bad1 == "" {
				bad1 = bad2
			}
		}
		if k != n || parts.done != whole.done || (bad1 == "") != (bad == "") {
			t.Fatalf("cut at %d: %d %v %q, whole %d %v %q", cut, k, parts.done, bad1, n, whole.done, bad)
		}
	})
}

func FuzzLogin(f *testing.F) {
	f.Add("PLAIN", "AG1lAHB3")
	f.Add("XOAUTH2", "dXNlcj1tZQFhdXRoPUJlYXJlciB0AQE=")
	f.Add("OAUTHBEARER", "bixhPW1lLAFob3N0PXgBYXV0aD1CZWFyZXIgdAEB")
	f.Fuzz(func(t *testing.T, mech, initial string) {
		_, _, _, _ = takeLogin(mech, initial, true, func(string) (string, error) { return initial, nil })
		_, _ = recipient(initial)
		_, _, _ = literal(initial)
		s := scram("u", []byte("p"))
		_, _ = s.next([]byte(initial))
	})
}

var _ = guard.Pass
