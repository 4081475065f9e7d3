package mail

import (
	"bufio"
	"context"
	"crypto/tls"
	"encoding/base64"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"guard"
	"guard/broker"
	"guard/internal/testutil"
	"guard/policy"
)

const (
	realUser = "real@mail.test"
	realPass = "value-one-of-the-mailbox"
	planted  = "PLANTED-secret-value-0123456789"
	holder   = "guard-placeholder-of-mail"
)

func must(tb testing.TB, err error) {
	tb.Helper()
	if err != nil {
		tb.Fatal(err)
	}
}

// smtpServer is aiosmtpd: it writes what it got into files, a message each, with the
// envelope in front.
const smtpServer = `
import asyncio, os, ssl, sys
from aiosmtpd.controller import Controller
from aiosmtpd.smtp import AuthResult, SMTP
port, folder, cert, password = int(sys.argv[1]), sys.argv[2], sys.argv[3], os.environ["MAIL_PASSWORD"]
class Handler:
    n = 0
    async def handle_DATA(self, server, session, envelope):
        Handler.n += 1
        with open(os.path.join(folder, "tmp"), "wb") as f:
            f.write(repr((session.auth_data, envelope.mail_from, envelope.rcpt_tos, envelope.mail_options)).encode() + b"\n" + envelope.original_content)
        os.rename(os.path.join(folder, "tmp"), os.path.join(folder, "message-%d" % Handler.n))
        return "250 2.0.0 taken from ` + realUser + `"
def login(server, session, envelope, mechanism, data):
    ok = data.login.decode() == "` + realUser + `" and data.password.decode() == password
    return AuthResult(success=ok, handled=False, auth_data=(mechanism, data.login.decode()))
context = None
if cert:
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(cert)
class C(Controller):
    def factory(self):
        return SMTP(self.handler, authenticator=login, auth_required=True, auth_require_tls=bool(cert), tls_context=context, require_starttls=bool(cert), enable_SMTPUTF8=True, hostname="mail.test")
c = C(Handler(), hostname="127.0.0.1", port=port)
c.start()
print("ready", flush=True)
sys.stdin.read()
c.stop()
`

type server struct {
	port int
	dir  string
	ca   *testutil.CA
}

func startSMTP(tb testing.TB, secure bool) *server {
	tb.Helper()
	testutil.Need(tb, "/usr/bin/python3", "python3-aiosmtpd")
	if exec.Command("/usr/bin/python3", "-c", "import aiosmtpd").Run() != nil {
		testutil.Need(tb, "aiosmtpd", "python3-aiosmtpd")
	}
	s := &server{port: testutil.FreePort(tb), dir: tb.TempDir(), ca: testutil.NewCA(tb)}
	pem := ""
	if secure {
		pem = filepath.Join(tb.TempDir(), "cert.pem")
		must(tb, os.WriteFile(pem, testutil.PEM(tb, s.ca.Server(tb, "mail.test")), 0o600))
	}
	cmd := exec.Command("/usr/bin/python3", "-c", smtpServer, strconv.Itoa(s.port), s.dir, pem)
	cmd.Env = append(os.Environ(), "MAIL_PASSWORD="+realPass)
	in, err := cmd.StdinPipe()
	must(tb, err)
	out, err := cmd.StdoutPipe()
	must(tb, err)
	must(tb, cmd.Start())
	tb.Cleanup(func() { in.Close(); cmd.Process.Kill(); cmd.Wait() })
	if l, err := bufio.NewReader(out).ReadString('\n'); l != "ready\n" {
		tb.Fatalf("aiosmtpd says %q, %v", l, err)
	}
	return s
}

func (s *server) messages(tb testing.TB) []string {
	files, err := filepath.Glob(filepath.Join(s.dir, "message-*"))
	must(tb, err)
	slices.Sort(files)
	var out []string
	for _, f := range files {
		b, err := os.ReadFile(f)
		must(tb, err)
		out = append(out, string(b))
	}
	return out
}

// startIMAP is Dovecot, with the login mechanisms that are named.
func startIMAP(tb testing.TB, mechs string) *server {
	tb.Helper()
	testutil.Need(tb, "/usr/sbin/dovecot", "dovecot-imapd")
	if os.Geteuid() != 0 {
		tb.Skip("Dovecot's own users need root")
	}
	s := &server{port: testutil.FreePort(tb), ca: testutil.NewCA(tb)}
	var err error
	s.dir, err = os.MkdirTemp("", "guard-imap-") // short: it has sockets in it
	must(tb, err)
	tb.Cleanup(func() { os.RemoveAll(s.dir) })
	must(tb, os.Chmod(s.dir, 0o755))
	u, err := user.Lookup("mail")
	must(tb, err)
	uid, _ := strconv.Atoi(u.Uid)
	gid, _ := strconv.Atoi(u.Gid)
	must(tb, os.MkdirAll(filepath.Join(s.dir, "home"), 0o755))
	must(tb, os.Chown(filepath.Join(s.dir, "home"), uid, gid))
	pem := filepath.Join(s.dir, "cert.pem")
	must(tb, os.WriteFile(pem, testutil.PEM(tb, s.ca.Server(tb, "mail.test")), 0o600))
	must(tb, os.WriteFile(filepath.Join(s.dir, "users"), []byte(realUser+":{PLAIN}"+realPass+"\n"), 0o644))
	conf := filepath.Join(s.dir, "dovecot.conf")
	must(tb, os.WriteFile(conf, []byte(fmt.Sprintf(`
base_dir = %[1]s/run
state_dir = %[1]s/state
log_path = %[1]s/log
protocols = imap
listen = 127.0.0.1
ssl = yes
ssl_cert = <%[1]s/cert.pem
ssl_key = <%[1]s/cert.pem
disable_plaintext_auth = no
auth_failure_delay = 0
auth_mechanisms = %[2]s
mail_location = maildir:%[1]s/home/%%n
first_valid_uid = 1
first_valid_gid = 1
default_login_user = nobody
default_internal_user = nobody
default_internal_group = nogroup
passdb {
  driver = passwd-file
  args = %[1]s/users
}
userdb {
  driver = static
  args = uid=%[3]d gid=%[4]d home=%[1]s/home
}
service imap-login {
  chroot =
  inet_listener imap {
    port = %[5]d
  }
  inet_listener imaps {
    port = 0
  }
}
service anvil {
  chroot =
  unix_listener anvil-auth-penalty {
    mode = 0
  }
}
service stats {
  chroot =
}
`, s.dir, mechs, uid, gid, s.port)), 0o644))
	cmd := exec.Command("/usr/sbin/dovecot", "-F", "-c", conf)
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	must(tb, cmd.Start())
	// Asked to, it takes a second to end; nobody needs its files any more.
	tb.Cleanup(func() { _ = syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL); cmd.Wait() })
	testutil.WaitFor(tb, "dovecot greets", func() bool {
		c, err := net.Dial("tcp", net.JoinHostPort("127.0.0.1", strconv.Itoa(s.port)))
		if err != nil {
			return false
		}
		defer c.Close()
		c.SetDeadline(time.Now().Add(time.Second))
		l, _ := bufio.NewReader(c).ReadString('\n')
		return strings.HasPrefix(l, "* OK")
	})
	return s
}

type world struct {
	h    *Handler
	srv  *server
	host string

	mu      sync.Mutex
	creds   []guard.Credential
	value   string
	scope   string
	uses    []guard.Use
	refused []string
	did     []string
}

func (w *world) change(f func()) { w.mu.Lock(); defer w.mu.Unlock(); f() }

func newWorld(tb testing.TB, srv *server) *world {
	w := &world{srv: srv, host: "mail.test", value: realPass}
	for _, kind := range []string{"smtp", "imap"} {
		w.creds = append(w.creds, guard.Credential{Name: "my-" + kind, Context: "c", Version: 1, Kind: kind, Hosts: []string{"mail.test", "127.0.0.1"}, User: realUser, Placeholder: holder + "-" + kind})
	}
	w.creds = append(w.creds, guard.Credential{Name: "foreign", Context: "c", Version: 1, Kind: "smtp", Hosts: []string{"elsewhere.test"}, Placeholder: "placeholder-of-foreign-0001"})
	decide := func(u guard.Use) guard.Decision {
		w.mu.Lock()
		defer w.mu.Unlock()
		sc := policy.Scope{Verb: "use"}
		if w.scope != "" {
			var err error
			if sc, err = policy.ParseScope(w.scope); err != nil {
				tb.Error(err)
			}
		}
		if !sc.Covers(u.Action, u.Resource) {
			return guard.Decision{Action: guard.Block, Rule: "rule-seven", Reason: u.Action + " on " + u.Resource + " is outside", Secret: u.Credential.ID()}
		}
		return guard.Decision{Action: guard.Pass}
	}
	line := &broker.Line{
		Decide: decide,
		Record: func(u guard.Use, _ guard.Decision) (broker.Result, error) {
			w.change(func() { w.uses = append(w.uses, u) })
			return func(_ string, _ time.Duration, wiped bool) {
				if !wiped {
					tb.Error("not wiped")
				}
			}, nil
		},
		Value: func(guard.SecretID) (guard.Secret, error) {
			w.mu.Lock()
			defer w.mu.Unlock()
			return guard.NewSecret([]byte(w.value)), nil
		},
		Refused: func(u guard.Use, d guard.Decision) {
			w.change(func() { w.refused = append(w.refused, u.Credential.Name+" "+u.Action+" "+u.Resource+" "+d.Rule) })
		},
	}
	cert := srv.ca.Server(tb, "mail.test")
	w.h = &Handler{Login: broker.Login{
		Session: guard.Session{ID: "s"}, Credentials: func() []guard.Credential { w.mu.Lock(); defer w.mu.Unlock(); return slices.Clone(w.creds) },
		Decide: decide, Use: line.Use, Refused: line.Refuse, Ended: func(_ guard.Use, did string, _ time.Duration) { w.change(func() { w.did = append(w.did, did) }) },
		Dial: func(ctx context.Context, _ string, _ int) (net.Conn, error) {
			return (&net.Dialer{}).DialContext(ctx, "tcp", net.JoinHostPort("127.0.0.1", strconv.Itoa(srv.port)))
		},
		Open: func(guard.Origin) guard.Filter { return search() },
		Scrub: func([]guard.SecretID) guard.Filter {
			return func(p []byte, _ guard.Step) ([]byte, guard.Decision) {
				return []byte(strings.ReplaceAll(string(p), realPass, (holder + "****")[:len(realPass)])), guard.Decision{Action: guard.Pass}
			}
		},
		TLS:            &tls.Config{RootCAs: srv.ca.Pool()},
		GetCertificate: func(*tls.ClientHelloInfo) (*tls.Certificate, error) { return &cert, nil },
	}}
	return w
}

// search stops at planted, raw or in base64, and keeps back a prefix.
func search() guard.Filter {
	var seen []byte
	rel := 0
	return func(p []byte, s guard.Step) ([]byte, guard.Decision) {
		seen = append(seen, p...)
		for _, v := range []string{planted, base64.StdEncoding.EncodeToString([]byte(planted))[:30]} {
			if strings.Contains(strings.ReplaceAll(strings.ReplaceAll(string(seen), "=\r\n", ""), "\r\n", ""), v) {
				return nil, guard.Decision{Action: guard.Block, Rule: "leak-rule-3", Reason: "a secret of this session", Secret: guard.SecretID{Name: "other"}}
			}
		}
		safe := max(rel, len(seen)-60)
		if s != guard.More {
			safe = len(seen)
		}
		out := slices.Clone(seen[rel:safe])
		rel = safe
		return out, guard.Decision{Action: guard.Pass}
	}
}

func (w *world) listen(tb testing.TB, serve func(context.Context, net.Conn, string, int), port int) int {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	must(tb, err)
	ctx, cancel := context.WithCancel(context.Background())
	var wg sync.WaitGroup
	wg.Go(func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			wg.Go(func() { serve(ctx, c, w.host, port) })
		}
	})
	tb.Cleanup(func() { l.Close(); cancel(); wg.Wait() })
	return l.Addr().(*net.TCPAddr).Port
}

// client sends lines and reads replies of either protocol.
type client struct {
	net.Conn
	tb testing.TB
	r  *bufio.Reader
}

func dial(tb testing.TB, port int) *client {
	tb.Helper()
	c, err := net.Dial("tcp", net.JoinHostPort("127.0.0.1", strconv.Itoa(port)))
	must(tb, err)
	tb.Cleanup(func() { c.Close() })
	c.SetDeadline(time.Now().Add(30 * time.Second))
	return &client{c, tb, bufio.NewReader(c)}
}

// reply is up to the last line of an SMTP reply.
func (c *client) reply() string {
	all := ""
	for {
		l, err := c.r.ReadString('\n')
		if err != nil {
			return all + "gone"
		}
		if all += l; len(l) > 3 && l[3] == ' ' {
			return all
		}
	}
}

func (c *client) want(want, line string) {
	c.tb.Helper()
	if _, err := io.WriteString(c, line); err != nil && want != "gone" {
		c.tb.Errorf("%q: %v", line, err)
		return
	}
	if got := c.reply(); !strings.HasPrefix(got, want) {
		c.tb.Errorf("%q: %q, want %q", line, got, want)
	}
}

// tagged sends an IMAP command and reads up to its tagged answer.
func (c *client) tagged(want, tag, line string) string {
	c.tb.Helper()
	_, _ = io.WriteString(c, tag+" "+line+"\r\n")
	return c.until(want, tag+" ")
}

func (c *client) until(want, prefix string) string {
	c.tb.Helper()
	all := ""
	for {
		l, err := c.r.ReadString('\n')
		all += l
		if err != nil || strings.HasPrefix(l, prefix) || strings.HasPrefix(l, "+ ") {
			if !strings.Contains(all, want) {
				c.tb.Errorf("%q, want %q", all, want)
			}
			return all
		}
	}
}

func plain(user, password string) string {
	return base64.StdEncoding.EncodeToString([]byte("\x00" + user + "\x00" + password))
}
