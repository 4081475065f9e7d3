package main

import (
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"strconv"
	"sync"

	"guard"
	"guard/broker"
	"guard/broker/dns"
	brokerhttp "guard/broker/http"
	"guard/supervisor/sandbox"
)

// tierWords says what a boundary holds.
func tierWords(t sandbox.Tier) string {
	switch t {
	case sandbox.Contained:
		return "boundary: contained. Own namespaces, no route out but the broker, no host process, keyring or agent socket in reach"
	case sandbox.Restricted:
		return "boundary: restricted. Landlock and seccomp: TCP to the broker only, no UDP and no Unix sockets, credential files hidden; the host's processes are in sight"
	case sandbox.Cooperative:
		return "boundary: cooperative. Proxy variables alone: the agent could ignore them, read the keychain and reach anything you can"
	}
	return "boundary: NONE. Nothing keeps the agent from your credentials; only its output on the terminal is scanned"
}

// serve is the broker of the session, until ctx ends.
func (s *session) serve(ctx context.Context, sb *sandbox.Sandbox, front net.Listener) error {
	names := dns.New(dns.Options{})
	egress := s.egress()
	egress.Ask = s.askEgress(ctx)
	line := s.useLine()
	line.Ask = s.askUse(ctx)
	asked := line.Decide // by who asks before it uses, which is not counted
	line.Decide = s.counted(asked)
	// Without --ca the system's roots do, which are read when the first upstream is
	// verified and not before every session.
	var roots *x509.CertPool
	if len(s.flags.ca) > 0 {
		var err error
		if roots, err = brokerhttp.Roots(s.flags.ca...); err != nil {
			return err
		}
	}
	pushed, closePushed := s.pushFormats()
	defer closePushed()
	pins, err := parsePins(s.flags.pins)
	if err != nil {
		return err
	}
	if egress.Proxy, err = networkProxy(s.app.getenv); err != nil {
		return err
	}
	cfg := brokerhttp.Config{
		Line: line, Egress: egress, Creds: s.credentials, Open: s.open, Formats: pushed, Scrub: s.scrub, CA: s.ca, Roots: roots, Session: s.info, Models: s.flags.modelHosts,
		Pins: pins, ClientCerts: s.flags.clientCerts,
	}
	cfg.Issuing = s.issuing()
	cfg.Creds = s.swapped
	sign, endSigning := s.signing(egress, roots, asked)
	defer endSigning()
	cfg.Sign = sign
	if front != nil {
		cfg.Token = s.token
	}
	server := &broker.Server{Name: names.Name, Synthetic: names.Synthetic, Egress: egress, Open: s.open}
	cfg.Tunnel = server.Dispatch
	proxy, err := brokerhttp.New(cfg)
	if err != nil {
		return err
	}
	server.HTTP = proxy.Handle
	if sb.TCP != nil {
		server.Listeners = append(server.Listeners, sb.TCP)
	}
	if front != nil {
		server.Listeners = append(server.Listeners, proxyListener{front})
	}
	login := s.login(line, egress, roots)
	login.Decide = asked
	keys, gateway := s.sshAgent(line, login, pushed)
	s.speaks = s.protocols(login, gateway)
	server.Handlers = s.handlers()
	server.Handlers[net.JoinHostPort(controlHost, strconv.Itoa(execPort))] = s.endsWithLock(s.execHandler(line))
	server.Handlers[net.JoinHostPort(controlHost, strconv.Itoa(taskPort))] = s.taskHandler()

	if keys != nil {
		server.Watch = keys.Watch
	}

	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	var wg sync.WaitGroup
	var first error
	var mu sync.Mutex
	part := func(name string, f func(context.Context) error) {
		wg.Go(func() {
			defer cancel() // one part that ends takes the session's network with it
			err := f(ctx)
			mu.Lock()
			defer mu.Unlock()
			if first == nil && err != nil && ctx.Err() == nil {
				first = fmt.Errorf("%s: %w", name, err)
			}
		})
	}
	part("proxy", proxy.Serve)
	part("vault", s.follow)
	part("project file", s.watchProject)
	if d := s.approvals.desk; d != nil {
		part("questions", d.Run)
	}
	part("logins", func(ctx context.Context) error { return s.keepLogins(ctx, proxy) })
	if len(server.Listeners) > 0 {
		part("broker", server.Serve)
	}
	if sb.DNSUDP != nil {
		part("dns", func(ctx context.Context) error { return names.Serve(ctx, sb.DNSUDP, sb.DNSTCP) })
	}
	if l := sb.Unix[sshSocket]; keys != nil && l != nil {
		part("ssh agent", func(ctx context.Context) error { return keys.Serve(ctx, l) })
	}
	for port, l := range sb.HostPort {
		part("host port", func(ctx context.Context) error { return s.serveHostPort(ctx, l, port, server.Watch) })
	}
	for _, p := range s.publish {
		l, err := net.Listen("tcp", net.JoinHostPort("127.0.0.1", strconv.Itoa(p.host)))
		if err != nil {
			cancel()
			wg.Wait()
			return fmt.Errorf("--publish: %w", err)
		}
		s.app.say("port %d of the session is at %s", p.inside, l.Addr())
		part("publish", func(ctx context.Context) error {
			return serveConns(ctx, l, func(ctx context.Context, c net.Conn) {
				in, err := sb.Dial(ctx, p.inside)
				if err != nil {
					return
				}
				defer in.Close()
				// What the agent answers leaves the session: it goes through the line.
				_ = broker.Pipe(ctx, in, c, s.line.Open(guard.Origin{Channel: guard.ChannelSocket, Source: "broker", Host: "localhost", Port: p.host}))
			})
		})
	}
	wg.Wait()
	return first
}

// proxyListener is a proxy on the host's loopback, for tiers without a network
// of their own: every connection is meant for the proxy itself.
type proxyListener struct{ net.Listener }

func (l proxyListener) Accept() (net.Conn, error) {
	c, err := l.Listener.Accept()
	if err != nil {
		return nil, err
	}
	return proxyConn{c}, nil
}

type proxyConn struct{ net.Conn }

// Dst is the proxy's own address, by which the broker knows its clients.
func (c proxyConn) Dst() netip.AddrPort {
	a, _ := netip.ParseAddrPort(c.LocalAddr().String())
	return a
}

// NetConn lets the broker reach what is below.
func (c proxyConn) NetConn() net.Conn { return c.Conn }

// serveHostPort connects the session to a service on the host's loopback.
func (s *session) serveHostPort(ctx context.Context, l net.Listener, port int, watch func(up net.Conn, host string, port int) net.Conn) error {
	for _, host := range loopbackNames {
		if h := s.handlers()[net.JoinHostPort(host, strconv.Itoa(port))]; h != nil {
			return serveConns(ctx, l, func(ctx context.Context, c net.Conn) { h(ctx, c, host, port) })
		}
	}
	return serveConns(ctx, l, func(ctx context.Context, c net.Conn) {
		var d net.Dialer
		up, err := d.DialContext(ctx, "tcp", net.JoinHostPort("127.0.0.1", strconv.Itoa(port)))
		if err != nil {
			return
		}
		defer func() { up.Close() }()
		f := s.line.Open(guard.Origin{Channel: guard.ChannelSocket, Source: "broker", Host: "localhost", Port: port})
		if watch != nil {
			up = watch(up, "localhost", port)
		}
		_ = broker.Pipe(ctx, c, up, f)
	})
}

// serveConns hands each connection of l to f, until ctx ends, and waits for them.
func serveConns(ctx context.Context, l net.Listener, f func(context.Context, net.Conn)) error {
	var wg sync.WaitGroup
	defer wg.Wait()
	stop := context.AfterFunc(ctx, func() { l.Close() })
	defer stop()
	for {
		c, err := l.Accept()
		if err != nil {
			if ctx.Err() != nil || errors.Is(err, net.ErrClosed) {
				return nil
			}
			return err
		}
		wg.Go(func() {
			defer c.Close()
			stop := context.AfterFunc(ctx, func() { c.Close() })
			defer stop()
			f(ctx, c)
		})
	}
}
