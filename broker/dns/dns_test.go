package dns

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"testing"
	"time"

	"github.com/miekg/dns"
)

func ask(t *Table, name string, qtype uint16) *dns.Msg {
	q := new(dns.Msg)
	q.SetQuestion(dns.Fqdn(name), qtype)
	return t.Answer(q)
}

func addr(t *testing.T, m *dns.Msg) netip.Addr {
	t.Helper()
	if m.Rcode != 0 || len(m.Answer) != 1 {
		t.Fatalf("rcode %d, %d answers", m.Rcode, len(m.Answer))
	}
	switch r := m.Answer[0].(type) {
	case *dns.A:
		a, _ := netip.AddrFromSlice(r.A)
		return a.Unmap()
	case *dns.AAAA:
		a, _ := netip.AddrFromSlice(r.AAAA)
		return a
	}
	t.Fatal("no address")
	return netip.Addr{}
}

func TestOneAddressPerName(t *testing.T) {
	tab := New(Options{})
	seen := map[netip.Addr]string{}
	for i := range 2000 {
		name := fmt.Sprintf("h%d.example.com", i)
		a4, a6 := addr(t, ask(tab, name, dns.TypeA)), addr(t, ask(tab, name, dns.TypeAAAA))
		for _, a := range []netip.Addr{a4, a6} {
			if was, dup := seen[a]; dup {
				t.Fatalf("%s is %s and %s", a, was, name)
			}
			seen[a] = name
			if !tab.Synthetic(a) {
				t.Fatalf("%s is not synthetic", a)
			}
			if got, ok := tab.Name(a); !ok || got != name {
				t.Fatalf("Name(%s) = %q, want %q", a, got, name)
			}
		}
		if !v4.Contains(a4) || a4 == v4.Addr() || !v6.Contains(a6) {
			t.Fatalf("%s and %s", a4, a6)
		}
	}
	if a, b := addr(t, ask(tab, "API.Example.COM.", dns.TypeA)), addr(t, ask(tab, "api.example.com", dns.TypeA)); a != b {
		t.Error("case makes a difference")
	}
	if _, ok := tab.Name(netip.MustParseAddr("198.19.255.255")); ok {
		t.Error("a name nobody asked for")
	}
	if _, ok := tab.Name(netip.MustParseAddr("8.8.8.8")); ok {
		t.Error("a real address has a name")
	}
	if _, ok := tab.Name(netip.MustParseAddr("fd67:7561:7264::1:0:1")); ok {
		t.Error("bits that are not looked at")
	}
}

func TestTypes(t *testing.T) {
	tab := New(Options{Block: func(n string) bool { return n == "blocked.test" }})
	for _, qt := range []uint16{dns.TypeHTTPS, dns.TypeSVCB, dns.TypeTXT, dns.TypeMX, dns.TypeSRV, dns.TypeNS, dns.TypeSOA, dns.TypeCAA, dns.TypeANY, dns.TypeAXFR} {
		if m := ask(tab, "example.com", qt); m.Rcode != 0 || len(m.Answer) != 0 {
			t.Errorf("type %s: rcode %d, %v", dns.TypeToString[qt], m.Rcode, m.Answer)
		}
	}
	for _, n := range []string{"localhost", "a.localhost"} {
		if addr(t, ask(tab, n, dns.TypeA)).String() != "127.0.0.1" || addr(t, ask(tab, n, dns.TypeAAAA)).String() != "::1" {
			t.Errorf("%s is not loopback", n)
		}
	}
	for _, n := range []string{"10.0.0.1", "x.onion", "a b.example.com", ".", "blocked.test", "x.invalid"} {
		if m := ask(tab, n, dns.TypeA); m.Rcode != dns.RcodeNameError {
			t.Errorf("%q: rcode %d", n, m.Rcode)
		}
	}
	q := new(dns.Msg)
	q.SetQuestion("example.com.", dns.TypeA)
	q.Question[0].Qclass = dns.ClassCHAOS
	if tab.Answer(q).Rcode != dns.RcodeNotImplemented {
		t.Error("class CHAOS answered")
	}
}

func TestPTR(t *testing.T) {
	tab := New(Options{})
	for _, qt := range []uint16{dns.TypeA, dns.TypeAAAA} {
		a := addr(t, ask(tab, "api.example.com", qt))
		rev, _ := dns.ReverseAddr(a.String())
		m := ask(tab, rev, dns.TypePTR)
		if len(m.Answer) != 1 || m.Answer[0].(*dns.PTR).Ptr != "api.example.com." {
			t.Errorf("PTR of %s: %v", a, m.Answer)
		}
	}
	for _, n := range []string{"8.8.8.8.in-addr.arpa", "1.in-addr.arpa", "x.ip6.arpa", "example.com"} {
		if m := ask(tab, n, dns.TypePTR); m.Rcode != dns.RcodeNameError {
			t.Errorf("PTR %s: rcode %d", n, m.Rcode)
		}
	}
	if m := ask(tab, "1.0.0.127.in-addr.arpa", dns.TypePTR); len(m.Answer) != 1 {
		t.Error("127.0.0.1 has no name")
	}
}

func TestBounded(t *testing.T) {
	now := time.Unix(0, 0)
	tab := New(Options{Max: 3, Hold: time.Minute})
	tab.now = func() time.Time { return now }
	first := addr(t, ask(tab, "a.test", dns.TypeA))
	addr(t, ask(tab, "b.test", dns.TypeA))
	addr(t, ask(tab, "c.test", dns.TypeA))
	if m := ask(tab, "d.test", dns.TypeA); m.Rcode != dns.RcodeServerFailure {
		t.Error("a name in use lost its address")
	}
	now = now.Add(time.Hour)
	tab.Name(first) // in use
	got := addr(t, ask(tab, "d.test", dns.TypeA))
	if n, _ := tab.Name(got); n != "d.test" {
		t.Errorf("d.test's address belongs to %s", n)
	}
	if n, _ := tab.Name(first); n != "a.test" {
		t.Error("the name in use was dropped, not the oldest")
	}
	if len(tab.byName) != 3 || len(tab.byNum) != 3 || tab.age.Len() != 3 {
		t.Error("the table grew")
	}
}

func TestServe(t *testing.T) {
	pc, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	tab := New(Options{})
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error)
	go func() { done <- tab.Serve(ctx, pc, ln) }()
	for network, at := range map[string]string{"udp": pc.LocalAddr().String(), "tcp": ln.Addr().String()} {
		r := &net.Resolver{PreferGo: true, Dial: func(ctx context.Context, _, _ string) (net.Conn, error) {
			var d net.Dialer
			return d.DialContext(ctx, network, at)
		}}
		ips, err := r.LookupNetIP(t.Context(), "ip", "www.example.org")
		if err != nil || len(ips) != 2 {
			t.Fatalf("%s: %v, %v", network, ips, err)
		}
	}
	cancel()
	if err := <-done; err != nil {
		t.Errorf("Serve: %v", err)
	}
	pc2, err := net.ListenPacket("udp", pc.LocalAddr().String())
	if err != nil {
		t.Fatalf("the socket is still open: %v", err)
	}
	pc2.Close()
}
