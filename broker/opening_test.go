package broker

import (
	"context"
	"io"
	"net"
	"net/netip"
	"strings"
	"testing"
	"time"

	"guard"
)

func TestOpening(t *testing.T) {
	for _, c := range []struct {
		in   string
		want string // "is", "more" or "no"
	}{
		{"", "more"}, {"G", "more"}, {"GET", "more"}, {"GET x", "more"}, {"GET / HTTP/1.1\r", "more"}, {"GET / HTTP/1.1\r\n", "is"}, {"GET / HTTP/1.0\n", "is"}, {"PRI * HTTP/2.0\r\n\r\nSM", "is"},
		{"FOO-BAR x\n", "no"}, {"GET key\n", "no"}, {"PUT a HTTP/3\n", "no"}, {"TRACE 1\n", "no"}, {"STARTTLS\r\n", "no"}, {"\x00", "no"}, {"\x00\x00\x00\x01\x06", "no"}, {"\x05\x01\x00", "no"}, {"get / HTTP/1.1\r\n", "no"}, {" ", "no"}, {"\n", "no"},
		{strings.Repeat("A", 33), "no"}, {"\x16", "more"}, {"\x16\x03\x01\x00", "more"}, {"\x16\x03\x01\x00\x05\x01", "is"}, {"\x16\x03\x01\x00\x05h", "no"}, {"\x16\x02", "no"}, {"\x16\x03\x05", "no"},
	} {
		is, more := opening([]byte(c.in))
		got := map[[2]bool]string{{true, false}: "is", {false, true}: "more", {false, false}: "no"}[[2]bool{is, more}]
		if got != c.want {
			t.Errorf("%q: %s, want %s", c.in, got, c.want)
		}
	}
}

// Where any protocol may be spoken, every first message has its answer.
func TestAnyProtocolIsAnswered(t *testing.T) {
	echo, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer echo.Close()
	go func() {
		for {
			c, err := echo.Accept()
			if err != nil {
				return
			}
			go func() { defer c.Close(); io.Copy(c, c) }()
		}
	}()
	s := &Server{
		Quiet: 20 * time.Millisecond,
		HTTP:  func(_ context.Context, c net.Conn, _ string, _ int) { io.WriteString(c, "it is HTTP, or TLS") },
		Open: func(guard.Origin) guard.Filter {
			return func(p []byte, _ guard.Step) ([]byte, guard.Decision) { return p, guard.Decision{Action: guard.Pass} }
		},
		Egress: &Egress{
			Decide:  func(string, int, string) guard.Decision { return guard.Decision{Action: guard.Pass} },
			Resolve: func(string, int) (netip.AddrPort, bool) { return echo.Addr().(*net.TCPAddr).AddrPort(), true },
		},
	}
	for _, first := range []string{"\x00", "\x00\x00\x00\x01\x06", strings.Repeat("\x00", 9), "\x05\x01\x00", "\x16", "G", "GET x", "POST", "CONNECT", "GET key\n", "OPTIONS\n", "PUT a\n", "\x16\x03\x01\x00\x05hello", "SSH-2.0-x\r\n", "\x80.\x01"} {
		client, server := net.Pipe()
		done := make(chan struct{})
		go func() { defer close(done); defer server.Close(); s.Dispatch(t.Context(), server, "any.example.com", 7) }()
		go io.WriteString(client, first)
		got := make([]byte, len(first))
		if _, err := io.ReadFull(client, got); err != nil || string(got) != first {
			t.Errorf("%q: %q %v", first, got, err)
		}
		client.Close()
		<-done
	}
	for _, first := range []string{"GET / HTTP/1.1\r\n", "\x16\x03\x01\x00\x05\x01\x00\x00\x00"} {
		client, server := net.Pipe()
		done := make(chan struct{})
		go func() { defer close(done); defer server.Close(); s.Dispatch(t.Context(), server, "any.example.com", 7) }()
		go io.WriteString(client, first)
		if b, err := io.ReadAll(client); err != nil || string(b) != "it is HTTP, or TLS" {
			t.Errorf("%q: %q %v", first, b, err)
		}
		client.Close()
		<-done
	}
}
