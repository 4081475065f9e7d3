package broker

import (
	"context"
	"io"
	"net"
	"net/netip"
	"runtime"
	"strings"
	"testing"
	"time"

	"guard"
)

type fakeListener struct {
	net.Listener
	dst netip.AddrPort
}

type fakeConn struct {
	net.Conn
	dst netip.AddrPort
}

func (c *fakeConn) Dst() netip.AddrPort    { return c.dst }
func (c *fakeConn) Process() (int, string) { return 7, "/bin/agent" }

func (l *fakeListener) Accept() (net.Conn, error) {
	c, err := l.Listener.Accept()
	if err != nil {
		return nil, err
	}
	if !l.dst.IsValid() {
		return &fakeConn{c, c.LocalAddr().(*net.TCPAddr).AddrPort()}, nil
	}
	return &fakeConn{c, l.dst}, nil
}

func TestServerDispatches(t *testing.T) {
	before := runtime.NumGoroutine()
	say := func(what string) Handler {
		return func(_ context.Context, c net.Conn, host string, _ int) {
			_, exe := Process(c)
			io.WriteString(c, what+" "+host+" "+exe)
		}
	}
	name, below := netip.MustParseAddr("198.18.0.5"), netip.MustParseAddr("198.18.0.6")
	s := &Server{
		Name: func(a netip.Addr) (string, bool) {
			if a == below {
				return "x.Db.test", true
			}
			return "DB.test", a == name
		},
		Synthetic: func(a netip.Addr) bool { return netip.MustParsePrefix("198.18.0.0/15").Contains(a) },
		Handlers:  map[string]Handler{"db.test:5432": say("postgres"), "*.test:3306": say("mysql"), "*.db.test:3306": say("closer"), "*.x.db.test:3306": say("below")},
		HTTP:      say("http"),
	}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	at := map[string]string{}
	for what, dst := range map[string]netip.AddrPort{
		"db": netip.AddrPortFrom(name, 5432), "wild": netip.AddrPortFrom(name, 3306), "closer": netip.AddrPortFrom(below, 3306), "other": netip.AddrPortFrom(below, 5432), "web": netip.AddrPortFrom(name, 443), "unknown": netip.MustParseAddrPort("198.18.9.9:443"),
		"ip": netip.MustParseAddrPort("[::ffff:93.184.216.34]:80"), "proxy": {},
	} {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		at[what] = l.Addr().String()
		s.Listeners = append(s.Listeners, &fakeListener{l, dst})
	}
	go func() { done <- s.Serve(ctx) }()
	for _, tt := range []struct{ to, send, want string }{
		{"db", "", "postgres db.test /bin/agent"}, // nothing need be said first
		{"wild", "", "mysql db.test /bin/agent"},
		{"closer", "", "closer x.db.test /bin/agent"},
		{"other", "GET / HTTP/1.1\r\n", "http x.db.test /bin/agent"},
		{"web", "GET / HTTP/1.1\r\n", "http db.test /bin/agent"},
		{"web", "\x16\x03\x01\x00\x05", "http db.test /bin/agent"},
		{"web", "PRI * HTTP/2.0\r\n", "http db.test /bin/agent"},
		{"web", "SSH-2.0-x\r\n", ""}, // opaque, and no egress for it
		{"web", "G", "http db.test /bin/agent"},
		{"unknown", "GET / HTTP/1.1\r\n", ""},
		{"ip", "GET / HTTP/1.1\r\n", "http 93.184.216.34 /bin/agent"},
		{"proxy", "", "http  /bin/agent"},
	} {
		c, err := net.Dial("tcp", at[tt.to])
		if err != nil {
			t.Fatal(err)
		}
		io.WriteString(c, tt.send)
		b, _ := io.ReadAll(c)
		c.Close()
		if string(b) != tt.want {
			t.Errorf("%s %q: %q, want %q", tt.to, tt.send, b, tt.want)
		}
	}
	idle, err := net.Dial("tcp", at["web"]) // is closed at the end
	if err != nil {
		t.Fatal(err)
	}
	defer idle.Close()
	cancel()
	if err := <-done; err != nil {
		t.Errorf("Serve: %v", err)
	}
	for end := time.Now().Add(10 * time.Second); runtime.NumGoroutine() > before && time.Now().Before(end); {
		runtime.Gosched()
	}
	if n := runtime.NumGoroutine(); n > before {
		t.Errorf("%d goroutines, %d before", n, before)
	}
}

func TestPipeReleasesWhatIsHeldWhenIdle(t *testing.T) {
	var kept []byte
	f := func(p []byte, s guard.Step) ([]byte, guard.Decision) {
		if strings.Contains(string(kept)+string(p), "SECRET") {
			return nil, guard.Decision{Action: guard.Block}
		}
		kept = append(kept, p...)
		if s == guard.More {
			return nil, guard.Decision{Action: guard.Pass}
		}
		out := kept
		kept = nil
		return out, guard.Decision{Action: guard.Pass}
	}
	agent, inside := net.Pipe()
	outside, server := net.Pipe()
	done := make(chan error, 1)
	go func() { done <- Pipe(t.Context(), inside, outside, f) }()
	io.WriteString(agent, "hello?")
	b := make([]byte, 6)
	if _, err := io.ReadFull(server, b); err != nil || string(b) != "hello?" {
		t.Fatalf("%q, %v", b, err)
	}
	io.WriteString(server, "yes")
	if _, err := io.ReadFull(agent, b[:3]); err != nil || string(b[:3]) != "yes" {
		t.Fatalf("%q, %v", b, err)
	}
	io.WriteString(agent, "SECRET")
	if rest, _ := io.ReadAll(server); len(rest) > 0 {
		t.Errorf("%q arrived", rest)
	}
	if err := <-done; err != ErrStopped {
		t.Errorf("Pipe: %v", err)
	}
	agent.Close()
	server.Close()
	if err := Send(io.Discard, nil, nil); err != ErrStopped {
		t.Errorf("no filter: %v", err)
	}
}
