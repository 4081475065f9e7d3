package broker

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"net/url"
	"strconv"
	"strings"
	"time"

	"guard"
)

// EgressError says that guard lets nothing go to a destination. It is
// ErrEgress.
type EgressError struct {
	Host     string
	Port     int
	Decision guard.Decision
}

func (e *EgressError) Error() string {
	return fmt.Sprintf("connection to %s refused by %s: %s", net.JoinHostPort(e.Host, strconv.Itoa(e.Port)), e.Decision.Rule, e.Decision.Reason)
}

// Is makes errors.Is(err, ErrEgress) true.
func (e *EgressError) Is(target error) bool { return target == ErrEgress }

// ErrEgress is what every EgressError is.
var ErrEgress = errors.New("destination refused")

// Egress is the only way out of a session. The zero value refuses everything.
type Egress struct {
	// Decide says whether the session may reach host:port by proto ("http",
	// "https" or "tcp"). It is asked before any name is resolved.
	Decide func(host string, port int, proto string) guard.Decision
	// Ask asks a person about what Decide refused with d, and returns what is decided
	// then; optional. It waits for the answer.
	Ask func(host string, port int, proto string, d guard.Decision) guard.Decision
	// Refused records a refusal; optional.
	Refused func(host string, port int, proto string, d guard.Decision)
	// Resolve is the user's --resolve: an address for host:port that is used
	// as it is, whatever it is; optional.
	Resolve func(host string, port int) (netip.AddrPort, bool)
	// Allow lets a resolved address through that is refused otherwise (a
	// private network that policy names); optional.
	Allow func(host string, port int, a netip.Addr) bool
	// Lookup resolves a name; nil is the system's resolver.
	Lookup func(ctx context.Context, host string) ([]netip.Addr, error)
	// Proxy names the proxy of the user's network by which host:port is reached,
	// nil for none; optional. It is for http and https; see Via.
	Proxy func(proto, host string, port int) *url.URL
	// Dialer makes the connections; its ControlContext and Timeout are the
	// caller's, 10 s where it sets no timeout.
	Dialer net.Dialer
}

// Check asks whether host:port may be reached by proto, without reaching it.
// The error is an *EgressError, and is recorded.
func (e *Egress) Check(host string, port int, proto string) error {
	host = CanonicalHost(host)
	d := guard.Decision{Action: guard.Block, Rule: "egress", Reason: "no egress policy in this session"}
	if e != nil && e.Decide != nil {
		d = e.Decide(host, port, proto)
		if !d.Allowed() && e.Ask != nil {
			d = e.Ask(host, port, proto, d)
		}
	}
	if d.Allowed() {
		return nil
	}
	return e.refuse(host, port, proto, d)
}

func (e *Egress) refuse(host string, port int, proto string, d guard.Decision) error {
	if e != nil && e.Refused != nil {
		e.Refused(host, port, proto, d)
	}
	return &EgressError{Host: host, Port: port, Decision: d}
}

// Loopback says whether host:port is on this machine by the user's word: a
// loopback address, localhost, or such a --resolve.
func (e *Egress) Loopback(host string, port int) bool {
	host = CanonicalHost(host)
	if e != nil && e.Resolve != nil {
		if a, ok := e.Resolve(host, port); ok {
			return a.Addr().Unmap().IsLoopback()
		}
	}
	if a, err := netip.ParseAddr(host); err == nil {
		return a.Unmap().IsLoopback()
	}
	return host == "localhost" || strings.HasSuffix(host, ".localhost")
}

// Dial connects to host:port as plain "tcp"; see DialFor.
func (e *Egress) Dial(ctx context.Context, host string, port int) (net.Conn, error) {
	return e.DialFor(ctx, "tcp", host, port)
}

// DialFor connects to host:port. Policy decides before the name is resolved,
// and the address that comes back is judged too: a public name that points at
// this machine, its networks or a cloud's metadata service is refused.
func (e *Egress) DialFor(ctx context.Context, proto, host string, port int) (net.Conn, error) {
	host = CanonicalHost(host)
	if err := e.Check(host, port, proto); err != nil {
		return nil, err
	}
	d := e.Dialer
	if d.Timeout == 0 {
		d.Timeout = 10 * time.Second
	}
	if e.Resolve != nil {
		if a, ok := e.Resolve(host, port); ok {
			return d.DialContext(ctx, "tcp", a.String())
		}
	}
	addrs, err := e.lookup(ctx, host)
	if err != nil {
		return nil, fmt.Errorf("resolve %s: %w", host, err)
	}
	own := ownAddrs()
	var last error
	for _, a := range addrs {
		if why := unreachable(a, own); why != "" && (e.Allow == nil || !e.Allow(host, port, a.Unmap())) {
			last = e.refuse(host, port, proto, guard.Decision{
				Action: guard.Block, Rule: "egress-address", Reason: fmt.Sprintf("%s resolves to %s, %s", host, a, why),
				NextSteps: []string{"if the user wants this, they can start the session with --resolve HOST:PORT:ADDR or --host-port PORT"},
			})
			continue
		}
		c, err := d.DialContext(ctx, "tcp", netip.AddrPortFrom(a, uint16(port)).String())
		if err == nil {
			return c, nil
		}
		last = err
		if ctx.Err() != nil {
			break
		}
	}
	if last == nil {
		last = fmt.Errorf("%s has no address", host)
	}
	return nil, last
}

func (e *Egress) lookup(ctx context.Context, host string) ([]netip.Addr, error) {
	if a, err := netip.ParseAddr(host); err == nil {
		return []netip.Addr{a}, nil
	}
	if _, err := netip.ParsePrefix(host + "/32"); err == nil || looksNumeric(host) {
		return nil, errors.New("not a name and not an address") // 0x7f.1, 2130706433: what a resolver makes of them differs
	}
	if e.Lookup != nil {
		return e.Lookup(ctx, host)
	}
	return net.DefaultResolver.LookupNetIP(ctx, "ip", host)
}

// looksNumeric says whether the last label is a number, which makes a name an
// IPv4 address to some resolvers (WHATWG URL, "ends in a number").
func looksNumeric(host string) bool {
	last := host[strings.LastIndexByte(host, '.')+1:]
	if last == "" {
		return true
	}
	_, err := strconv.ParseUint(last, 0, 64)
	return err == nil
}

func ownAddrs() map[netip.Addr]bool {
	own := map[netip.Addr]bool{}
	addrs, err := net.InterfaceAddrs()
	if err != nil {
		return own
	}
	for _, a := range addrs {
		if p, err := netip.ParsePrefix(a.String()); err == nil {
			own[p.Addr().Unmap()] = true
		}
	}
	return own
}

// The special blocks of RFC 6890 and its registries that a public host never
// has.
func special() []netip.Prefix {
	var ps []netip.Prefix
	for _, s := range []string{
		"0.0.0.0/8", "100.64.0.0/10", "192.0.0.0/24", "192.0.2.0/24", "192.88.99.0/24", "198.18.0.0/15", "198.51.100.0/24",
		"203.0.113.0/24", "240.0.0.0/4", "64:ff9b:1::/48", "100::/64", "2001:2::/48", "2001:db8::/32", "3fff::/20", "5f00::/16", "fec0::/10",
	} {
		ps = append(ps, netip.MustParsePrefix(s))
	}
	return ps
}

// unreachable says why a public name must not lead to a, or "".
func unreachable(a netip.Addr, own map[netip.Addr]bool) string {
	if a.Zone() != "" {
		return "an address with a zone"
	}
	if v4, how := embedded(a); v4.IsValid() {
		if why := unreachable(v4, own); why != "" {
			return why + " (" + how + ")"
		}
		return ""
	}
	switch {
	case a == netip.MustParseAddr("169.254.169.254"), a == netip.MustParseAddr("fd00:ec2::254"), a == netip.MustParseAddr("100.100.100.200"), a == netip.MustParseAddr("168.63.129.16"):
		return "a cloud's metadata service"
	case a.IsUnspecified(), a.IsLoopback():
		return "this machine"
	case own[a]:
		return "an address of this machine"
	case a.IsLinkLocalUnicast():
		return "a link-local address"
	case a.IsPrivate():
		return "a private address"
	case a.IsMulticast():
		return "a multicast address"
	}
	for _, p := range special() {
		if p.Contains(a) {
			return "a special-purpose address"
		}
	}
	return ""
}

// embedded returns the IPv4 address that an IPv6 one carries: mapped,
// compatible, NAT64 (RFC 6052), 6to4 (RFC 3056), Teredo (RFC 4380).
func embedded(a netip.Addr) (netip.Addr, string) {
	if !a.Is6() {
		return netip.Addr{}, ""
	}
	b := a.As16()
	at := func(i int) netip.Addr { return netip.AddrFrom4([4]byte(b[i : i+4])) }
	switch {
	case a.Is4In6():
		return a.Unmap(), "IPv4-mapped"
	case netip.MustParsePrefix("64:ff9b::/96").Contains(a):
		return at(12), "NAT64"
	case netip.MustParsePrefix("2002::/16").Contains(a):
		return at(2), "6to4"
	case netip.MustParsePrefix("2001::/32").Contains(a):
		return netip.AddrFrom4([4]byte{^b[12], ^b[13], ^b[14], ^b[15]}), "Teredo"
	case netip.MustParsePrefix("::/96").Contains(a) && !a.IsLoopback() && !a.IsUnspecified():
		return at(12), "IPv4-compatible"
	}
	return netip.Addr{}, ""
}

// CanonicalHost returns host in lower case, without a final dot or the
// brackets of an IPv6 literal.
func CanonicalHost(host string) string {
	if plainName(host) {
		return host
	}
	host = strings.ToLower(strings.TrimSuffix(host, "."))
	if strings.HasPrefix(host, "[") && strings.HasSuffix(host, "]") {
		host = host[1 : len(host)-1]
	}
	if a, err := netip.ParseAddr(host); err == nil {
		return a.Unmap().String()
	}
	return host
}

// plainName says whether host is canonical as it is: a name in small letters, which
// most are. An address ends in a digit or has a colon.
func plainName(host string) bool {
	if host == "" || host[len(host)-1] < 'a' || host[len(host)-1] > 'z' {
		return false
	}
	for i := range len(host) {
		if c := host[i]; (c < 'a' || c > 'z') && (c < '0' || c > '9') && c != '-' && c != '.' {
			return false
		}
	}
	return true
}

// MatchHost says whether host:port is one of patterns: "host", "host:port",
// "*.suffix" or "*.suffix:port". A suffix matches names below it, not itself.
func MatchHost(patterns []string, host string, port int) bool {
	host = CanonicalHost(host)
	for _, p := range patterns {
		if h, ps, err := net.SplitHostPort(p); err == nil {
			if n, err := strconv.Atoi(ps); err != nil || n != port {
				continue
			}
			p = h
		}
		p = CanonicalHost(p)
		if suffix, wild := strings.CutPrefix(p, "*."); wild {
			if suffix != "" && strings.HasSuffix(host, "."+suffix) {
				return true
			}
		} else if p == host && p != "" {
			return true
		}
	}
	return false
}
