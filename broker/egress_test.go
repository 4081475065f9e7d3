package broker

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"testing"

	"guard"
)

func TestUnreachable(t *testing.T) {
	own := map[netip.Addr]bool{netip.MustParseAddr("8.8.4.4"): true}
	for _, a := range []string{
		"127.0.0.1", "127.8.8.8", "::1", "0.0.0.0", "::", "169.254.169.254", "169.254.1.1", "fe80::1", "10.1.2.3", "172.16.0.1",
		"192.168.1.1", "100.64.0.1", "198.18.0.1", "224.0.0.1", "255.255.255.255", "fd00:ec2::254", "fc00::1", "ff02::1", "8.8.4.4",
		"::ffff:127.0.0.1", "::ffff:10.0.0.1", "64:ff9b::7f00:1", "64:ff9b::a9fe:a9fe", "2002:7f00:1::", "2002:a00:1::1", "::127.0.0.1",
		"2001:0:1:1:1:1:80ff:fffe", "fe80::1%eth0", "2001:db8::1", "64:ff9b::808:404", "::ffff:8.8.4.4",
	} {
		if unreachable(netip.MustParseAddr(a), own) == "" {
			t.Errorf("%s would be reached", a)
		}
	}
	for _, a := range []string{"1.1.1.1", "2606:4700::1111", "::ffff:1.1.1.1", "64:ff9b::101:101"} {
		if why := unreachable(netip.MustParseAddr(a), own); why != "" {
			t.Errorf("%s refused: %s", a, why)
		}
	}
}

func TestEgressDecidesBeforeItResolves(t *testing.T) {
	var looked, refused int
	e := &Egress{
		Decide: func(h string, _ int, _ string) guard.Decision {
			return guard.Decision{Action: guard.Block, Rule: "list"}
		},
		Refused: func(string, int, string, guard.Decision) { refused++ },
		Lookup:  func(context.Context, string) ([]netip.Addr, error) { looked++; return nil, nil },
	}
	_, err := e.Dial(t.Context(), "secret-in-a-name.evil.test", 443)
	var ee *EgressError
	if !errors.As(err, &ee) || !errors.Is(err, ErrEgress) || ee.Decision.Rule != "list" || looked != 0 || refused != 1 {
		t.Errorf("err %v, looked up %d times, refused %d", err, looked, refused)
	}
	if _, err := new(Egress).Dial(t.Context(), "example.com", 443); !errors.Is(err, ErrEgress) {
		t.Errorf("the zero Egress: %v", err)
	}
	if _, err := (*Egress)(nil).Dial(t.Context(), "example.com", 443); !errors.Is(err, ErrEgress) {
		t.Errorf("a nil Egress: %v", err)
	}
}

func TestEgressJudgesTheAddress(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	at := l.Addr().(*net.TCPAddr).AddrPort()
	e := &Egress{
		Decide: func(string, int, string) guard.Decision { return guard.Decision{Action: guard.Pass} },
		Lookup: func(context.Context, string) ([]netip.Addr, error) { return []netip.Addr{at.Addr()}, nil },
	}
	for _, host := range []string{"rebound.test", "127.0.0.1", "localhost", "0x7f.1", "2130706433", "127.1", "[::ffff:127.0.0.1]"} {
		if c, err := e.Dial(t.Context(), host, int(at.Port())); err == nil {
			c.Close()
			t.Errorf("%s reached this machine", host)
		}
	}
	e.Allow = func(host string, port int, a netip.Addr) bool { return host == "rebound.test" }
	c, err := e.Dial(t.Context(), "Rebound.test.", int(at.Port()))
	if err != nil {
		t.Fatal(err)
	}
	c.Close()
	e.Allow = nil
	e.Resolve = func(host string, port int) (netip.AddrPort, bool) { return at, host == "api.test" && port == 443 }
	if c, err = e.Dial(t.Context(), "api.test", 443); err != nil {
		t.Fatal(err)
	}
	c.Close()
	if !e.Loopback("API.test", 443) || e.Loopback("other.test", 443) || !e.Loopback("localhost", 1) || !e.Loopback("[::1]", 1) {
		t.Error("Loopback is wrong")
	}
}

func TestMatchHost(t *testing.T) {
	for _, tt := range []struct {
		pattern, host string
		port          int
		want          bool
	}{
		{"api.test", "api.test", 443, true}, {"API.test", "api.TEST.", 80, true}, {"api.test:443", "api.test", 443, true},
		{"api.test:443", "api.test", 80, false}, {"*.api.test", "x.api.test", 1, true}, {"*.api.test", "api.test", 1, false},
		{"*.api.test", "evilapi.test", 1, false}, {"api.test", "api.test.evil.test", 1, false}, {"*", "x", 1, false}, {"*.", "x.", 1, false},
		{"[::1]:8080", "::1", 8080, true}, {"::1", "[::1]", 1, true}, {"127.0.0.1:5432", "127.0.0.1", 5432, true}, {"", "", 1, false},
	} {
		if got := MatchHost([]string{tt.pattern}, tt.host, tt.port); got != tt.want {
			t.Errorf("MatchHost(%q, %q, %d) = %v", tt.pattern, tt.host, tt.port, got)
		}
	}
}
