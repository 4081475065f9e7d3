package redis

import (
	"bytes"
	"errors"
	"io"
	"net"
	"os"
	"strings"
	"sync/atomic"
	"testing"
)

// TestScriptsDoNotMigrate: a script that would have the server send a key to another
// host is refused however it spells that, and the host sees nobody.
func TestScriptsDoNotMigrate(t *testing.T) {
	srv := startServer(t)
	w := newWorld(t, srv)
	evil, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer evil.Close()
	var came atomic.Int32
	go func() {
		for {
			c, err := evil.Accept()
			if err != nil {
				return
			}
			came.Add(1)
			c.Close()
		}
	}()
	_, port, _ := net.SplitHostPort(evil.Addr().String())
	tail := `,'127.0.0.1','` + port + `','k',0,1000)`
	srv.ask(t, "SET", "k", "v")
	// The server itself lets scripts do it: without guard, this is a way out.
	if got := srv.ask(t, "EVAL", "return redis.pcall('MIGRATE'"+tail, "0"); came.Load() == 0 {
		t.Fatalf("the server does not migrate from scripts: %q", got)
	}
	came.Store(0)
	c := dial(t, w.port)
	long := strings.Repeat("-", 70<<10)
	for _, cmd := range [][]string{
		{"MIGRATE", "127.0.0.1", port, "k", "0", "1000"},
		{"EVAL", "return redis.call('MIGRATE'" + tail, "0"},
		{"eval", `return redis.pcall("mIgRaTe"` + tail, "0"},
		{"EVAL", "return redis.call([[MIGRATE]]" + tail, "0"},
		{"EVAL", "return redis.call([==[\nMIGRATE]==]" + tail, "0"},
		{"EVAL", "return redis.call('MIG' .. \n \"RATE\"" + tail, "0"},
		{"EVAL", `return redis.call('\077IGRAT\69'` + tail, "0"},
		{"EVAL", "local f = redis.call; return f('MIGRATE'" + tail, "0"},
		{"EVAL", "return redis.call(unpack(ARGV))", "0", "migrate", "127.0.0.1", port, "k", "0", "1000"},
		{"EVAL", "return redis.call(KEYS[1],unpack(ARGV))", "1", "MIGRATE", "127.0.0.1", port, "k", "0", "1000"},
		{"EVAL_RO", "return redis.call('MIGRATE'" + tail, "0"},
		{"EVALSHA", "0000000000000000000000000000000000000000", "0", "MIGRATE"},
		{"FCALL", "f", "0", "Migrate"},
		{"SCRIPT", "LOAD", "return redis.call('MIGRATE'" + tail},
		{"FUNCTION", "LOAD", "#!lua name=x\nredis.register_function('f',function() return redis.call('MIGRATE'" + tail + " end)"},
		{"FUNCTION", "LOAD", "REPLACE", "#!lua name=x\nredis.register_function('f',function() return redis.call('MIGRATE'" + tail + " end)"},
		{"FUNCTION", "RESTORE", "x"},
		{"EVAL", "--" + long + "\nreturn redis.call('MIGRATE'" + tail, "0"},
		{"SCRIPT", "LOAD", "--" + long + "\nreturn redis.call('MIGRATE'" + tail},
		{"FUNCTION", "LOAD", "#!lua name=x\n--" + long + "\nredis.call('MIGRATE'" + tail},
	} {
		if got := c.do(cmd...); !strings.HasPrefix(got, "-NOPERM guard refuses") && !strings.HasPrefix(got, "-NOPERM guard looks") {
			t.Errorf("%.80q: %q", cmd, got)
		}
	}
	// Of what only looks like it nothing is refused.
	for want, cmd := range map[string][]string{
		"migrated": {"EVAL", "-- migrate the list\nreturn 'migrated'", "0"}, "a": {"EVAL", "return ARGV[1]", "0", "a"}, ":3": {"EVAL", "return 3 -- 'migrate:jobs'", "0"},
		"migrate:jobs": {"EVAL", "return KEYS[1]", "1", "migrate:jobs"}, "v": {"EVAL", "return redis.call('GET','k')", "0"},
		":200000": {"EVAL", "return #ARGV[1]", "0", strings.Repeat("x", 200000)},
	} {
		c.want(want, cmd...)
	}
	c.want("-NOPERM", "EVAL", "return redis.call('MIGRATE'"+tail, "0")
	c.want("+OK", "MULTI")
	c.want("+QUEUED", "SET", "k", "w")
	c.want("-NOPERM", "EVAL", "return redis.call('MIGRATE'"+tail, "0")
	c.want("-EXECABORT", "EXEC")
	c.want("v", "GET", "k")
	if n := came.Load(); n > 0 {
		t.Errorf("the other host was reached %d times", n)
	}
}

// TestAnswersDoNotPileUp: a client that sends what is refused and reads nothing is cut off.
func TestAnswersDoNotPileUp(t *testing.T) {
	srv := startServer(t)
	w := newWorld(t, srv)
	c := dial(t, w.port)
	c.want("+PONG", "PING")
	many := bytes.Repeat(wire("MONITOR"), 5000)
	cut := false
	for range 2000 { // of which the answers would be more than 1 GB
		if _, err := c.Write(many); err != nil {
			cut = !errors.Is(err, os.ErrDeadlineExceeded)
			break
		}
	}
	if n, _ := io.Copy(io.Discard, c); !cut || n > 2*maxHeld {
		t.Errorf("cut off: %v; %d bytes of answers were kept for it", cut, n)
	}
	dial(t, w.port).want("+PONG", "PING")
}
