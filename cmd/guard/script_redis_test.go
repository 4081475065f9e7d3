//go:build linux

package main

import (
	"bytes"
	"net"
	"os"
	"os/exec"
	"strconv"

	"github.com/rogpeppe/go-internal/testscript"

	"guard/internal/testutil"
)

// redisserver USER VAR: a Redis server on 127.0.0.1:$REDIS_PORT with a user whose
// password is $VAR; "default" has none, and is off.
func cmdRedisServer(ts *testscript.TestScript, neg bool, args []string) {
	need(ts, args, 2, "redisserver USER VAR")
	bin, err := exec.LookPath("redis-server")
	if err != nil && os.Getenv("GUARD_TEST_ALL") == "" {
		stateOf(ts).t.T.Skip("redis-server is not installed: apt-get install redis-server redis-tools")
	}
	ts.Check(err)
	t := stateOf(ts).t.T
	port := strconv.Itoa(testutil.FreePort(t))
	cmd := exec.Command(bin, "--port", port, "--bind", "127.0.0.1", "--save", "", "--dir", t.TempDir(), "--user", "default", "off",
		"--user", args[0], "on", ">"+ts.Getenv(args[1]), "~*", "&*", "+@all")
	var log bytes.Buffer
	cmd.Stdout, cmd.Stderr = &log, &log
	ts.Check(cmd.Start())
	t.Cleanup(func() { cmd.Process.Kill(); cmd.Wait() })
	testutil.WaitFor(t, "redis-server answers", func() bool {
		c, err := net.Dial("tcp", "127.0.0.1:"+port)
		if err == nil {
			c.Close()
		}
		return err == nil
	})
	ts.Setenv("REDIS_PORT", port)
}

// [!] rediscli USER VAR ARG...: redis-cli outside of the session, with $VAR as the
// user's password; "!": what it says is an error.
func cmdRedisCLI(ts *testscript.TestScript, neg bool, args []string) {
	if len(args) < 3 {
		ts.Fatalf("usage: [!] rediscli USER VAR ARG...")
	}
	cmd := exec.Command("redis-cli", append([]string{"-p", ts.Getenv("REDIS_PORT"), "-e", "--user", args[0], "--no-auth-warning"}, args[2:]...)...)
	cmd.Env = []string{"PATH=" + ts.Getenv("PATH"), "REDISCLI_AUTH=" + ts.Getenv(args[1])}
	out, err := cmd.CombinedOutput()
	if (err != nil) != neg {
		ts.Fatalf("redis-cli: %v\n%s", err, out)
	}
}
