package http

import (
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"guard"
	"guard/broker"
)

// book is what follows from the credentials of the context, for as long as they
// stay as they are.
type book struct {
	creds  []guard.Credential // a copy
	stands [][]stand          // of each
	lower  []string           // their placeholders in small letters, as names of headers arrive

	mu    sync.Mutex
	views map[dest]*view
}

// dest is where a request goes.
type dest struct {
	host string
	port int
	tls  bool
}

// view is a book as one destination sees it. Nothing of it is written to after it
// was made, but reach.
type view struct {
	home    []string           // names of those that belong to it
	away    []bool             // of each: its placeholder must not go there
	foreign []guard.Credential // these
	model   bool
	told    []guard.SecretID // what its replies are scrubbed of, whatever it got: see toScrub
	issuers []issuer         // that are or may be there
	reach   atomic.Int64     // until when it holds that it may be reached (see mayReach), Unix nanoseconds
}

const maxViews = 4096

// look returns the book of the credentials as they are now.
func (p *Proxy) look() *book {
	creds := p.cfg.Creds()
	if b := p.book.Load(); b != nil && slices.EqualFunc(b.creds, creds, same) {
		return b
	}
	b := &book{views: map[dest]*view{}}
	for _, c := range creds {
		c.Hosts, c.In = slices.Clone(c.Hosts), slices.Clone(c.In)
		b.creds = append(b.creds, c)
		b.stands = append(b.stands, stands(c))
		b.lower = append(b.lower, strings.ToLower(c.Placeholder))
	}
	p.book.Store(b)
	return b
}

// same says that two credentials are alike in all that this package asks of one.
func same(a, b guard.Credential) bool {
	return a.Name == b.Name && a.Context == b.Context && a.Version == b.Version && a.Placeholder == b.Placeholder && a.Decoy == b.Decoy && a.Kind == b.Kind &&
		a.User == b.User && a.Rotate == b.Rotate && a.Env == b.Env && a.Expires.Equal(b.Expires) && a.Created.Equal(b.Created) && a.Updated.Equal(b.Updated) &&
		slices.Equal(a.Hosts, b.Hosts) && slices.Equal(a.In, b.In) && slices.Equal(a.Scopes, b.Scopes)
}

// view returns how a destination sees b.
func (p *Proxy) view(b *book, to dest) *view {
	b.mu.Lock()
	defer b.mu.Unlock()
	if v := b.views[to]; v != nil {
		return v
	}
	v := &view{model: broker.MatchHost(p.models, to.host, to.port), away: make([]bool, len(b.creds))}
	for i, c := range b.creds {
		home := broker.MatchHost(c.Hosts, to.host, to.port)
		if home {
			v.home = append(v.home, c.Name)
		}
		if v.away[i] = c.Decoy || !home; v.away[i] && c.Placeholder != "" && !v.model {
			v.foreign = append(v.foreign, c)
		}
		if !c.Decoy && (v.model || anyPort(c.Hosts, to.host)) && !slices.Contains(v.told, c.ID()) {
			v.told = append(v.told, c.ID())
		}
	}
	v.told = slices.Clip(v.told)
	for _, r := range p.issuers {
		if r.action != "hosts" && (r.hosts[0] == "*" || broker.MatchHost(r.hosts, to.host, to.port)) {
			v.issuers = append(v.issuers, r)
		}
	}
	if len(b.views) >= maxViews {
		clear(b.views)
	}
	b.views[to] = v
	return v
}

func (x *exchange) dest() dest { return dest{x.meta.host, x.meta.port, x.meta.tls} }

// reachLife is how long it holds that a host may be reached. Requests come by the
// thousand to a host that was reached a moment ago; every new connection is judged
// anew (Egress.DialFor).
const reachLife = 2 * time.Second

// mayReach is Egress.Check, which looks for credentials in the name and asks policy.
func (p *Proxy) mayReach(v *view, to dest) error {
	now := time.Now()
	if now.UnixNano() < v.reach.Load() {
		return nil
	}
	proto := "http"
	if to.tls {
		proto = "https"
	}
	if err := p.cfg.Egress.Check(to.host, to.port, proto); err != nil {
		return err
	}
	v.reach.Store(now.Add(reachLife).UnixNano())
	return nil
}
