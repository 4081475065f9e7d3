//go:build linux

package main

import (
	"bufio"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"

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
