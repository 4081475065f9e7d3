//go:build linux

package main

import (
	"bufio"
	"fmt"
	"net"
	"os"
	"os/exec"
	osuser "os/user"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/rogpeppe/go-internal/testscript"

	"guard/internal/testutil"
)

// mailProgram is aiosmtpd, which wants a login, and keeps what it gets.
const mailProgram = `
import os, sys, warnings
warnings.simplefilter("ignore")
from aiosmtpd.controller import Controller
from aiosmtpd.smtp import AuthResult, SMTP
class Handler:
    async def handle_DATA(self, server, session, envelope):
        with open(sys.argv[2], "ab") as f:
            f.write(repr((session.auth_data, envelope.rcpt_tos)).encode() + b"\n" + envelope.original_content)
        return "250 2.0.0 taken"
def login(server, session, envelope, mechanism, data):
    ok = data.login.decode() == sys.argv[3] and data.password.decode() == os.environ["MAIL_PASSWORD"]
    return AuthResult(success=ok, handled=False, auth_data=data.login.decode())
class C(Controller):
    def factory(self):
        return SMTP(self.handler, authenticator=login, auth_required=True, auth_require_tls=False, hostname="mail.test")
c = C(Handler(), hostname="127.0.0.1", port=int(sys.argv[1]))
c.start()
print("ready", flush=True)
sys.stdin.read()
c.stop()
`

// mailserver USER VAR: a server for submission on 127.0.0.1:$MAIL_PORT whose password
// is $VAR; $MAIL_GOT is a file with what it got.
func cmdMailServer(ts *testscript.TestScript, neg bool, args []string) {
	need(ts, args, 2, "mailserver USER VAR")
	t := stateOf(ts).t.T
	if exec.Command("/usr/bin/python3", "-c", "import aiosmtpd").Run() != nil {
		if os.Getenv("GUARD_TEST_ALL") != "" {
			ts.Fatalf("aiosmtpd is missing: apt-get install python3-aiosmtpd")
		}
		t.Skip("aiosmtpd is missing: apt-get install python3-aiosmtpd")
	}
	port, got := strconv.Itoa(testutil.FreePort(t)), filepath.Join(t.TempDir(), "got")
	ts.Check(os.WriteFile(got, nil, 0o600))
	cmd := exec.Command("/usr/bin/python3", "-c", mailProgram, port, got, args[0])
	cmd.Env = append(os.Environ(), "MAIL_PASSWORD="+ts.Getenv(args[1]))
	in, err := cmd.StdinPipe()
	ts.Check(err)
	out, err := cmd.StdoutPipe()
	ts.Check(err)
	ts.Check(cmd.Start())
	t.Cleanup(func() { in.Close(); cmd.Process.Kill(); cmd.Wait() })
	if l, err := bufio.NewReader(out).ReadString('\n'); strings.TrimSpace(l) != "ready" {
		ts.Fatalf("aiosmtpd says %q, %v", l, err)
	}
	ts.Setenv("MAIL_PORT", port)
	ts.Setenv("MAIL_GOT", got)
}

// imapConfig is Dovecot's, for whoever runs it: folder, user and group of mailboxes, user
// and group of Dovecot's own, port.
const imapConfig = `base_dir = %[1]s/run
state_dir = %[1]s/state
log_path = %[1]s/log
protocols = imap
listen = 127.0.0.1
ssl = no
disable_plaintext_auth = no
auth_mechanisms = plain login
mail_location = maildir:%[1]s/home/box
mail_uid = %[2]s
mail_gid = %[3]s
first_valid_uid = 1
first_valid_gid = 1
default_login_user = %[4]s
default_internal_user = %[4]s
default_internal_group = %[5]s
passdb {
  driver = passwd-file
  args = %[1]s/users
}
userdb {
  driver = static
  args = uid=%[2]s gid=%[3]s home=%[1]s/home
}
service imap-login {
  chroot =
  inet_listener imap {
    port = %[6]d
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
`

// imapserver USER VAR: Dovecot on 127.0.0.1:$IMAP_PORT with a login whose password is $VAR, and
// one message.
func cmdIMAPServer(ts *testscript.TestScript, neg bool, args []string) {
	need(ts, args, 2, "imapserver USER VAR")
	t := stateOf(ts).t.T
	if _, err := os.Stat("/usr/sbin/dovecot"); err != nil {
		if os.Getenv("GUARD_TEST_ALL") != "" {
			ts.Fatalf("Dovecot is missing: apt-get install dovecot-imapd")
		}
		t.Skip("Dovecot is missing: apt-get install dovecot-imapd")
	}
	dir, err := os.MkdirTemp("", "guard-imap-") // short: it has sockets in it
	ts.Check(err)
	t.Cleanup(func() { os.RemoveAll(dir) })
	ts.Check(os.Chmod(dir, 0o755))
	me, err := osuser.Current()
	ts.Check(err)
	group, err := osuser.LookupGroupId(me.Gid)
	ts.Check(err)
	uid, gid, own, ownGroup := me.Uid, me.Gid, me.Username, group.Name
	if os.Geteuid() == 0 { // Dovecot gives no mailbox to root
		mail, err := osuser.Lookup("mail")
		ts.Check(err)
		uid, gid, own, ownGroup = mail.Uid, mail.Gid, "nobody", "nogroup"
	}
	box := filepath.Join(dir, "home", "box")
	for _, d := range []string{"cur", "new", "tmp"} {
		ts.Check(os.MkdirAll(filepath.Join(box, d), 0o700))
	}
	ts.Check(os.WriteFile(filepath.Join(box, "new", "1.1.x"), []byte("From: a@example.com\nSubject: first\n\nthe first message\n"), 0o600))
	ts.Check(os.WriteFile(filepath.Join(dir, "users"), []byte(args[0]+":{PLAIN}"+ts.Getenv(args[1])+"\n"), 0o644))
	if os.Geteuid() == 0 {
		u, _ := strconv.Atoi(uid)
		g, _ := strconv.Atoi(gid)
		ts.Check(filepath.WalkDir(filepath.Join(dir, "home"), func(path string, _ os.DirEntry, err error) error {
			if err != nil {
				return err
			}
			return os.Chown(path, u, g)
		}))
	}
	port := testutil.FreePort(t)
	conf := filepath.Join(dir, "conf")
	ts.Check(os.WriteFile(conf, fmt.Appendf(nil, imapConfig, dir, uid, gid, own, ownGroup, port), 0o644))
	cmd := exec.Command("/usr/sbin/dovecot", "-F", "-c", conf)
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	ts.Check(cmd.Start())
	t.Cleanup(func() { _ = syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL); cmd.Wait() })
	at := net.JoinHostPort("127.0.0.1", strconv.Itoa(port))
	testutil.WaitFor(t, "Dovecot greets", func() bool {
		c, err := net.Dial("tcp", at)
		if err != nil {
			return false
		}
		defer c.Close()
		_ = c.SetDeadline(time.Now().Add(time.Second))
		l, _ := bufio.NewReader(c).ReadString('\n')
		return strings.HasPrefix(l, "* OK")
	})
	ts.Setenv("IMAP_PORT", strconv.Itoa(port))
}
