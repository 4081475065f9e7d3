package policy

import (
	"errors"
	"net/netip"
	"strconv"
	"strings"
)

// hostPattern is "host", "host:port", "*.suffix" or "*.suffix:port".
type hostPattern struct {
	host string // canonical; of "*.suffix" ".suffix"
	wild bool
	port int // 0: any
}

var errHost = errors.New("want HOST, HOST:PORT, *.SUFFIX or *.SUFFIX:PORT in ASCII (xn-- for other letters), an IPv6 address in brackets")

// CheckHost says whether s is a host pattern, as --host and --allow-host take it.
func CheckHost(s string) error {
	_, err := parseHost(s)
	return err
}

func parseHost(s string) (hostPattern, error) {
	var p hostPattern
	host := s
	if _, err := netip.ParseAddr(s); err != nil { // a bare IPv6 address has colons and no port
		if i := strings.LastIndexByte(s, ':'); i > strings.LastIndexByte(s, ']') {
			n, err := strconv.Atoi(s[i+1:])
			if err != nil || n < 1 || n > 65535 || strconv.Itoa(n) != s[i+1:] {
				return p, errHost
			}
			p.port, host = n, s[:i]
		}
	}
	host, p.wild = strings.CutPrefix(host, "*.")
	h, ok := canonical(host)
	if !ok {
		return p, errHost
	}
	if p.wild {
		// "*.com" would be every company: a suffix has two labels at least, or is one
		// under which nobody else can have a name.
		if _, err := netip.ParseAddr(h); err == nil || !strings.Contains(h, ".") && !privateSuffix(h) {
			return p, errors.New("a *. pattern needs a suffix of two labels or more, such as *.example.com, or a private network's: internal, local, lan, intranet, corp")
		}
		h = "." + h
	}
	p.host = h
	return p, nil
}

// canonical returns host in lower case without trailing dot or brackets, an
// address in its one spelling; false for what is not a host name in ASCII, or an
// address in a spelling that resolvers read differently (127.1, 0x7f.0.0.1).
func canonical(host string) (string, bool) {
	if strings.HasPrefix(host, "[") && strings.HasSuffix(host, "]") {
		host = host[1 : len(host)-1]
		if !strings.Contains(host, ":") {
			return "", false
		}
	}
	if a, err := netip.ParseAddr(host); err == nil {
		if a.Zone() != "" {
			return "", false
		}
		return a.Unmap().String(), true
	}
	host = strings.TrimSuffix(host, ".")
	if host == "" || len(host) > 253 {
		return "", false
	}
	upper := false
	label := 0
	for i := 0; i < len(host); i++ {
		c := host[i]
		switch {
		case c == '.':
			if label == 0 {
				return "", false
			}
			label = 0
			continue
		case c >= 'A' && c <= 'Z':
			upper = true
		case c >= 'a' && c <= 'z', c >= '0' && c <= '9', c == '_':
		case c == '-':
			if label == 0 {
				return "", false
			}
		default:
			return "", false
		}
		if label++; label > 63 {
			return "", false
		}
	}
	if label == 0 {
		return "", false
	}
	if last := host[strings.LastIndexByte(host, '.')+1:]; last[0] >= '0' && last[0] <= '9' {
		return "", false // WHATWG URL: a name that ends in a number is an IPv4 address, or an error
	}
	if upper {
		host = strings.ToLower(host)
	}
	return host, true
}

// matches takes a canonical host.
func (p hostPattern) matches(host string, port int) bool {
	if p.host == "" || p.port != 0 && p.port != port {
		return false
	}
	if p.wild {
		return strings.HasSuffix(host, p.host) && len(host) > len(p.host)
	}
	return host == p.host
}

func anyMatches(ps []hostPattern, host string, port int) bool {
	for _, p := range ps {
		if p.matches(host, port) {
			return true
		}
	}
	return false
}

// carrierNAT is RFC 6598; netip does not call it private.
var carrierNAT = netip.MustParsePrefix("100.64.0.0/10")

// private says whether a canonical host is not on the public internet, and why.
// Names are judged by what they are reserved for (RFC 6761, RFC 6762, RFC 8375,
// ICANN's .internal); the address that a name leads to is the broker's to judge.
func private(host string) (why string) {
	if a, err := netip.ParseAddr(host); err == nil {
		switch {
		case a.IsLoopback():
			return "this machine"
		case a.IsPrivate(), carrierNAT.Contains(a):
			return "a private network"
		case a.IsLinkLocalUnicast(), a.IsLinkLocalMulticast(), a.IsInterfaceLocalMulticast():
			return "a link-local address (cloud metadata lives there)"
		case a.IsUnspecified(), a.IsMulticast(), !a.IsGlobalUnicast():
			return "not an address of one public host"
		}
		return ""
	}
	if !strings.Contains(host, ".") {
		if host == "localhost" {
			return "this machine"
		}
		return "a name of the local network"
	}
	if strings.HasSuffix(host, ".localhost") || privateSuffix(host) {
		return "a name of the local network"
	}
	return ""
}

// privateSuffix says whether names below a canonical one are a private network's: the
// last label is delegated to nobody (ICANN's .internal; RFC 6762, section 3 and
// appendix G), or it is home.arpa (RFC 8375). Names of this machine are not meant.
func privateSuffix(host string) bool {
	switch host[strings.LastIndexByte(host, '.')+1:] {
	case "local", "internal", "lan", "intranet", "corp":
		return true
	}
	return host == "home.arpa" || strings.HasSuffix(host, ".home.arpa")
}

func loopback(host string) bool {
	a, err := netip.ParseAddr(host)
	return err == nil && a.IsLoopback() || host == "localhost" || strings.HasSuffix(host, ".localhost")
}

// hostPort is host:port for a person to paste.
func hostPort(host string, port int) string {
	if strings.Contains(host, ":") {
		host = "[" + host + "]"
	}
	if port < 1 || port > 65535 {
		return host
	}
	return host + ":" + strconv.Itoa(port)
}
