// Package dns answers a sandbox's name questions without asking anybody: every
// name gets one synthetic address of its own, so that the broker knows the name
// of each connection from its destination. Nothing is ever sent upstream, so a
// name carries nothing out.
//
// Addresses are from 198.18.0.0/15 (RFC 2544) and from a unique local /64
// (RFC 4193), the same number in both. localhost and names below it are
// 127.0.0.1 and ::1 (RFC 6761). A table is bounded: when it is full the name
// that was used longest ago loses its address, but not within the hold time,
// in which new names get SERVFAIL.
//
// Goroutines: Serve starts two servers and returns when both have ended.
package dns

import (
	"container/list"
	"context"
	"encoding/binary"
	"errors"
	"net"
	"net/netip"
	"strings"
	"sync"
	"time"

	"github.com/miekg/dns"
)

// TTL is what answers carry, in seconds: short, since a table can be full.
const TTL = 30

var (
	v4 = netip.MustParsePrefix("198.18.0.0/15")
	v6 = netip.MustParsePrefix("fd67:7561:7264::/64")
)

// Options change a Table; the zero value is good.
type Options struct {
	// Max is how many names are held: 65,536 where it is 0, 131,000 at most.
	Max int
	// Hold is how long an address keeps its name after the last question: one
	// hour where it is 0.
	Hold time.Duration
	// Block names that do not exist in this session (NXDOMAIN); optional.
	Block func(name string) bool
}

// Table is a session's names and their addresses. It is safe for concurrent
// use.
type Table struct {
	opts   Options
	mu     sync.Mutex
	byName map[string]*list.Element
	byNum  map[uint32]*list.Element
	age    *list.List // front: used last
	next   uint32
	now    func() time.Time
}

type entry struct {
	name string
	num  uint32
	used time.Time
}

// New makes an empty table.
func New(o Options) *Table {
	if o.Max <= 0 {
		o.Max = 1 << 16
	}
	o.Max = min(o.Max, 131000)
	if o.Hold <= 0 {
		o.Hold = time.Hour
	}
	return &Table{opts: o, byName: map[string]*list.Element{}, byNum: map[uint32]*list.Element{}, age: list.New(), now: time.Now}
}

// Synthetic says whether a is an address that only a table gives out.
func (t *Table) Synthetic(a netip.Addr) bool {
	a = a.Unmap()
	return v4.Contains(a) || v6.Contains(a)
}

// Name returns the name that has the synthetic address a.
func (t *Table) Name(a netip.Addr) (string, bool) {
	n, ok := number(a)
	if !ok {
		return "", false
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	el := t.byNum[n]
	if el == nil {
		return "", false
	}
	e := el.Value.(*entry)
	e.used = t.now()
	t.age.MoveToFront(el)
	return e.name, true
}

// Addrs returns the addresses of name, giving it some if it has none. ok is
// false when the table is full of names in use.
func (t *Table) Addrs(name string) (a4, a6 netip.Addr, ok bool) {
	name = canonical(name)
	t.mu.Lock()
	defer t.mu.Unlock()
	if el := t.byName[name]; el != nil {
		e := el.Value.(*entry)
		e.used = t.now()
		t.age.MoveToFront(el)
		return addr4(e.num), addr6(e.num), true
	}
	if t.age.Len() >= t.opts.Max {
		oldest := t.age.Back()
		e := oldest.Value.(*entry)
		if t.now().Sub(e.used) < t.opts.Hold {
			return a4, a6, false
		}
		t.age.Remove(oldest)
		delete(t.byName, e.name)
		delete(t.byNum, e.num)
	}
	for {
		// 1 to 131070: the first and last address of the /15 are left out.
		t.next = t.next%131070 + 1
		if t.byNum[t.next] == nil {
			break
		}
	}
	el := t.age.PushFront(&entry{name: name, num: t.next, used: t.now()})
	t.byName[name], t.byNum[t.next] = el, el
	return addr4(t.next), addr6(t.next), true
}

func canonical(name string) string { return strings.ToLower(strings.TrimSuffix(name, ".")) }

func addr4(n uint32) netip.Addr {
	b := v4.Addr().As4()
	binary.BigEndian.PutUint32(b[:], binary.BigEndian.Uint32(b[:])+n)
	return netip.AddrFrom4(b)
}

func addr6(n uint32) netip.Addr {
	b := v6.Addr().As16()
	binary.BigEndian.PutUint32(b[12:], n)
	return netip.AddrFrom16(b)
}

func number(a netip.Addr) (uint32, bool) {
	a = a.Unmap()
	switch {
	case v4.Contains(a):
		b, base := a.As4(), v4.Addr().As4()
		return binary.BigEndian.Uint32(b[:]) - binary.BigEndian.Uint32(base[:]), true
	case v6.Contains(a):
		b := a.As16()
		if binary.BigEndian.Uint32(b[8:]) != 0 {
			return 0, false
		}
		return binary.BigEndian.Uint32(b[12:]), true
	}
	return 0, false
}

// Serve answers on pc and ln, either of which may be nil, until ctx ends, and
// closes them.
func (t *Table) Serve(ctx context.Context, pc net.PacketConn, ln net.Listener) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	h := dns.HandlerFunc(t.serve)
	var servers []*dns.Server
	if pc != nil {
		servers = append(servers, &dns.Server{PacketConn: pc, Handler: h, UDPSize: 4096})
	}
	if ln != nil {
		servers = append(servers, &dns.Server{Listener: ln, Handler: h, MaxTCPQueries: -1, IdleTimeout: func() time.Duration { return 30 * time.Second }})
	}
	var wg sync.WaitGroup
	errs := make([]error, len(servers))
	for i, s := range servers {
		started := make(chan struct{})
		s.NotifyStartedFunc = func() { close(started) }
		wg.Go(func() {
			defer cancel()
			errs[i] = s.ActivateAndServe()
		})
		wg.Go(func() {
			<-ctx.Done()
			if s.PacketConn != nil {
				s.PacketConn.Close()
			}
			if s.Listener != nil {
				s.Listener.Close()
			}
			select {
			case <-started:
				s.Shutdown()
			default:
			}
		})
	}
	if len(servers) == 0 {
		<-ctx.Done()
	}
	asked := ctx
	wg.Wait()
	for i, err := range errs {
		if errors.Is(err, net.ErrClosed) && asked.Err() != nil {
			errs[i] = nil
		}
	}
	return errors.Join(errs...)
}

func (t *Table) serve(w dns.ResponseWriter, q *dns.Msg) {
	m := t.Answer(q)
	if w.LocalAddr().Network() == "udp" {
		size := dns.MinMsgSize
		if o := q.IsEdns0(); o != nil {
			size = max(size, int(o.UDPSize()))
		}
		m.Truncate(size)
	}
	w.WriteMsg(m) // a client that is gone needs no answer
}

// Answer is the reply to q: addresses for A and AAAA, names for PTR of
// synthetic addresses, no data for every other type (HTTPS and SVCB among them,
// so that nobody finds keys for ECH or hints at HTTP/3 here), and NOTIMP for
// everything that is not one question in class IN.
func (t *Table) Answer(q *dns.Msg) *dns.Msg {
	m := new(dns.Msg)
	m.SetReply(q)
	m.RecursionAvailable = true
	if o := q.IsEdns0(); o != nil {
		m.SetEdns0(4096, false)
	}
	if q.Opcode != dns.OpcodeQuery || len(q.Question) != 1 || q.Question[0].Qclass != dns.ClassINET {
		m.Rcode = dns.RcodeNotImplemented
		return m
	}
	ques := q.Question[0]
	name := canonical(ques.Name)
	hdr := func(rtype uint16) dns.RR_Header {
		return dns.RR_Header{Name: ques.Name, Rrtype: rtype, Class: dns.ClassINET, Ttl: TTL}
	}
	if ques.Qtype == dns.TypePTR {
		if host, ok := t.reverse(name); ok {
			m.Answer = append(m.Answer, &dns.PTR{Hdr: hdr(dns.TypePTR), Ptr: dns.Fqdn(host)})
		} else {
			m.Rcode = dns.RcodeNameError
		}
		return m
	}
	if !hostname(name) || t.opts.Block != nil && t.opts.Block(name) {
		m.Rcode = dns.RcodeNameError
		return m
	}
	var a4, a6 netip.Addr
	switch ques.Qtype {
	case dns.TypeA, dns.TypeAAAA:
		if name == "localhost" || strings.HasSuffix(name, ".localhost") {
			a4, a6 = netip.AddrFrom4([4]byte{127, 0, 0, 1}), netip.IPv6Loopback()
			break
		}
		var ok bool
		if a4, a6, ok = t.Addrs(name); !ok {
			m.Rcode = dns.RcodeServerFailure
			return m
		}
	default:
		return m
	}
	if ques.Qtype == dns.TypeA {
		m.Answer = append(m.Answer, &dns.A{Hdr: hdr(dns.TypeA), A: a4.AsSlice()})
	} else {
		m.Answer = append(m.Answer, &dns.AAAA{Hdr: hdr(dns.TypeAAAA), AAAA: a6.AsSlice()})
	}
	return m
}

// hostname says whether name is one that a host can have: labels of letters,
// digits, '-' and '_', at least two of them or localhost, no address, none of
// the special names that never are in the DNS (RFC 6761, 6762, 7686).
func hostname(name string) bool {
	if name == "localhost" {
		return true
	}
	if len(name) > 253 || name == "" {
		return false
	}
	if _, err := netip.ParseAddr(name); err == nil {
		return false
	}
	for l := range strings.SplitSeq(name, ".") {
		if l == "" || len(l) > 63 {
			return false
		}
		for _, c := range []byte(l) {
			if c != '-' && c != '_' && (c < '0' || c > '9') && (c < 'a' || c > 'z') {
				return false
			}
		}
	}
	switch name[strings.LastIndexByte(name, '.')+1:] {
	case "arpa", "invalid", "onion":
		return false
	}
	return true
}

func (t *Table) reverse(name string) (string, bool) {
	if s, ok := strings.CutSuffix(name, ".in-addr.arpa"); ok {
		p := strings.Split(s, ".")
		if len(p) != 4 {
			return "", false
		}
		a, err := netip.ParseAddr(p[3] + "." + p[2] + "." + p[1] + "." + p[0])
		if err != nil {
			return "", false
		}
		if a.IsLoopback() {
			return "localhost", true
		}
		return t.Name(a)
	}
	if s, ok := strings.CutSuffix(name, ".ip6.arpa"); ok {
		if len(s) != 63 {
			return "", false
		}
		var b strings.Builder
		for i := 62; i >= 0; i -= 2 {
			b.WriteByte(s[i])
			if i%8 == 0 && i > 0 {
				b.WriteByte(':')
			}
		}
		a, err := netip.ParseAddr(b.String())
		if err != nil {
			return "", false
		}
		if a.IsLoopback() {
			return "localhost", true
		}
		return t.Name(a)
	}
	return "", false
}
