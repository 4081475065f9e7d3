package broker

import (
	"context"
	"fmt"
	"net/netip"
	"net/url"
	"strings"
	"time"

	"guard"
)

// viaLookup is how long a name that goes by way of a proxy may take to resolve.
const viaLookup = 2 * time.Second

// Via returns the proxy by which host:port is reached, nil where it is reached
// directly. The proxy resolves the name, and what it finds cannot be judged here;
// so the name is judged as far as it resolves on this machine, and an address in
// its place always. The error is an *EgressError, and is recorded.
func (e *Egress) Via(ctx context.Context, proto, host string, port int) (*url.URL, error) {
	host = CanonicalHost(host)
	if e == nil || e.Proxy == nil || proto != "http" && proto != "https" {
		return nil, nil
	}
	if e.Resolve != nil {
		if _, ok := e.Resolve(host, port); ok {
			return nil, nil
		}
	}
	via := e.Proxy(proto, host, port)
	if via == nil {
		return nil, nil
	}
	if err := e.Check(host, port, proto); err != nil {
		return nil, err
	}
	if looksNumeric(host) {
		if _, err := netip.ParseAddr(host); err != nil {
			return nil, e.refuse(host, port, proto, guard.Decision{Action: guard.Block, Rule: "egress-address", Reason: "not a name and not an address"})
		}
	}
	if host == "localhost" || strings.HasSuffix(host, ".localhost") {
		return nil, e.refuse(host, port, proto, guard.Decision{Action: guard.Block, Rule: "egress-address", Reason: host + " is a machine's own, also the proxy's"})
	}
	ctx, cancel := context.WithTimeout(ctx, viaLookup)
	defer cancel()
	addrs, err := e.lookup(ctx, host)
	if err != nil {
		return via, nil // only the proxy knows the name
	}
	own := ownAddrs()
	for _, a := range addrs {
		if why := unreachable(a, own); why != "" && (e.Allow == nil || !e.Allow(host, port, a.Unmap())) {
			return nil, e.refuse(host, port, proto, guard.Decision{
				Action: guard.Block, Rule: "egress-address", Reason: fmt.Sprintf("%s resolves to %s, %s", host, a, why),
				NextSteps: []string{"if the user wants this, they can list the host (--allow-host) or take it out of the proxy's reach (NO_PROXY)"},
			})
		}
	}
	return via, nil
}
