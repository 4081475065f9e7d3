package ssh

import (
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"errors"
	"fmt"
	"net"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	xssh "golang.org/x/crypto/ssh"

	"guard"
	"guard/broker"
)

// Gateway ends the session's ssh connections to the hosts of its keys, and logs in
// there itself: what goes to the server is seen, and judged.
type Gateway struct {
	Agent *Agent
	// Login is what guard's other protocols are given: Decide, Use, Refused, Dial and
	// Open are needed.
	Login broker.Login
	// Formats searches what a push sends for credentials by their form; its decisions have
	// rules that begin with pack.FormatRule. Optional.
	Formats guard.OpenFilter
	// SpoolDir is where pushes of more than 8 MiB lie while they are judged; "": where the
	// system has its temporary files.
	SpoolDir string

	host *HostKey
}

const (
	maxOpening2 = 30 * time.Second // for the client's and the server's key exchange and login
	maxChannels = 10               // of one connection, as sshd's MaxSessions
	maxBefore   = 256              // requests before a command
	defaultPort = 22
)

// HostKey is what a Gateway proves itself with to the session's clients.
type HostKey struct{ signer xssh.Signer }

// NewHostKey makes one, which is in memory only.
func NewHostKey() (*HostKey, error) {
	_, key, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		return nil, err
	}
	signer, err := xssh.NewSignerFromKey(key)
	if err != nil {
		return nil, err
	}
	return &HostKey{signer}, nil
}

// KnownHosts are the lines of a known_hosts file that have a client inside the session
// trust k in place of hosts ("host", "host:port", "*.example.com"). known is the user's own
// file: the names in it that a pattern of hosts matches get a line of their own, since some
// clients know no patterns.
func (k *HostKey) KnownHosts(hosts []string, known []byte) []byte {
	var names []string
	add := func(host string, port int) {
		n := host
		if port != defaultPort {
			n = "[" + host + "]:" + strconv.Itoa(port)
		}
		if !slices.Contains(names, n) {
			names = append(names, n)
		}
	}
	for _, h := range hosts {
		host, port := splitPort(h)
		add(broker.CanonicalHost(host), port)
	}
	for _, l := range ParseKnownHosts(known).lines {
		for _, n := range l.hosts {
			if l.marker == "" && !strings.ContainsAny(n, "|*?!") {
				if host, port := splitPort(n); matches(hosts, host, port) {
					add(broker.CanonicalHost(host), port)
				}
			}
		}
	}
	var out []byte
	for _, n := range names {
		out = fmt.Appendf(out, "%s %s", n, xssh.MarshalAuthorizedKey(k.signer.PublicKey()))
	}
	return out
}

// splitPort reads "host", "host:port" and "[host]:port".
func splitPort(s string) (host string, port int) {
	if h, p, err := net.SplitHostPort(s); err == nil {
		if n, err := strconv.Atoi(p); err == nil {
			return h, n
		}
	}
	return s, defaultPort
}

// NewGateway makes a gateway that proves itself with host. The agent signs no login from
// then on on connections that could come by the gateway, and do not.
func NewGateway(a *Agent, l broker.Login, host *HostKey) *Gateway {
	a.mu.Lock()
	a.gateway = host.signer.PublicKey()
	a.mu.Unlock()
	return &Gateway{Agent: a, Login: l, host: host}
}

// gate is one connection of a client.
type gate struct {
	g      *Gateway
	who    *conn // whose uses they are
	host   string
	port   int
	user   string
	chosen []byte // the key that the client chose; nil: none
}

// Serve is a broker.Handler: one connection to a host of the session's keys.
func (g *Gateway) Serve(ctx context.Context, c net.Conn, host string, port int) {
	if g.Login.Use == nil || g.Login.Decide == nil || g.Login.Dial == nil || g.Login.Open == nil || g.host == nil {
		return
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	t := &gate{g: g, who: &conn{a: g.Agent}, host: broker.CanonicalHost(host), port: port}
	t.who.pid, t.who.exe = broker.Process(c)
	// The agent signs for this connection as for one to a server: a client may have to
	// say which of several keys it wants.
	w := g.Agent.watchServer(c, t.host, port)
	defer w.forget()
	_ = c.SetDeadline(time.Now().Add(maxOpening2))
	sc, chans, reqs, err := xssh.NewServerConn(w, t.config())
	if err != nil {
		return // a scan, a client that does not trust guard, or none that speaks ssh
	}
	defer sc.Close()
	_ = c.SetDeadline(time.Time{})
	stop := context.AfterFunc(ctx, func() { sc.Close() })
	defer stop()
	t.user = sc.User()
	if p := sc.Permissions; p != nil {
		t.chosen = []byte(p.Extensions["key"])
	}
	var wg sync.WaitGroup
	defer wg.Wait()
	defer cancel() // first: what is under way ends with the client
	wg.Go(func() { t.global(reqs) })
	slots := make(chan struct{}, maxChannels)
	for nc := range chans {
		select {
		case slots <- struct{}{}:
		default:
			_ = nc.Reject(xssh.ResourceShortage, "guard: too many channels")
			continue
		}
		wg.Go(func() {
			defer func() { <-slots }()
			t.channel(ctx, nc)
		})
	}
}

// config lets a client in that the session's network led here, which is all the proof
// there is of the session: where one key is for this host without more, where there are
// several by the one that the agent signs with.
func (t *gate) config() *xssh.ServerConfig {
	keys := t.identities()
	c := &xssh.ServerConfig{
		NoClientAuth: true, ServerVersion: "SSH-2.0-guard", MaxAuthTries: 20,
		NoClientAuthCallback: func(xssh.ConnMetadata) (*xssh.Permissions, error) {
			if len(keys) > 1 {
				return nil, errors.New("there are several keys")
			}
			return nil, nil
		},
		PublicKeyCallback: func(_ xssh.ConnMetadata, key xssh.PublicKey) (*xssh.Permissions, error) {
			if _, ok := find(keys, key.Marshal()); !ok {
				return nil, errors.New("a key that is none of the session's")
			}
			return &xssh.Permissions{Extensions: map[string]string{"key": string(key.Marshal())}}, nil
		},
	}
	c.AddHostKey(t.g.host.signer)
	return c
}

// identities are the keys for this host that the session may use.
func (t *gate) identities() []identity {
	return slices.DeleteFunc(t.g.Agent.identities(t.who), func(id identity) bool {
		return !matches(id.cred.Hosts, t.host, t.port)
	})
}

// matches says whether a credential for hosts is for this one; no port means 22.
func matches(hosts []string, host string, port int) bool {
	for _, h := range hosts {
		if _, _, err := net.SplitHostPort(h); err != nil {
			h = net.JoinHostPort(h, strconv.Itoa(defaultPort))
		}
		if broker.MatchHost([]string{h}, host, port) {
			return true
		}
	}
	return false
}

// global answers requests that are for no channel.
func (t *gate) global(reqs <-chan *xssh.Request) {
	for r := range reqs {
		switch r.Type {
		case "tcpip-forward", "streamlocal-forward@openssh.com":
			t.refuse(t.use(actConnect), refusal("ssh forwarding", "a port or socket of the session was to be opened at "+place{t.host, t.port}.String(), "connect without -R"))
		}
		if r.WantReply {
			_ = r.Reply(false, nil)
		}
	}
}

// channel serves one channel: a command, a terminal, or a connection through the host.
func (t *gate) channel(ctx context.Context, nc xssh.NewChannel) {
	switch nc.ChannelType() {
	case "session":
		ch, reqs, err := nc.Accept()
		if err != nil {
			return
		}
		s := &sessionChannel{gate: t, ch: ch}
		s.serve(ctx, reqs)
	case "direct-tcpip", "direct-streamlocal@openssh.com":
		t.through(ctx, nc)
	default:
		_ = nc.Reject(xssh.UnknownChannelType, "guard: unknown channel type")
	}
}

// through relays a connection that the server makes for the client (ssh -L, -W, -D).
func (t *gate) through(ctx context.Context, nc xssh.NewChannel) {
	if u := t.use(actConnect); !t.clean(u, t.user, string(nc.ExtraData())) {
		_ = nc.Reject(xssh.Prohibited, words(t.leak(u)))
		return
	}
	up, u, d := t.dial(ctx, t.login)
	if d != nil {
		_ = nc.Reject(xssh.Prohibited, words(*d))
		return
	}
	defer up.Close()
	there, theirs, err := up.OpenChannel(nc.ChannelType(), nc.ExtraData())
	if err != nil {
		var open *xssh.OpenChannelError
		if errors.As(err, &open) {
			_ = nc.Reject(open.Reason, open.Message)
		} else {
			_ = nc.Reject(xssh.ConnectionFailed, "guard: the server is gone")
		}
		return
	}
	here, ours, err := nc.Accept()
	if err != nil {
		return
	}
	r := &relay{here: here, there: there, filter: t.filter(t.origin(u))}
	stop := context.AfterFunc(ctx, r.close)
	defer stop()
	defer r.wg.Wait()
	defer r.close()
	r.wg.Go(func() { xssh.DiscardRequests(ours); r.close() })
	r.wg.Go(func() { xssh.DiscardRequests(theirs) })
	if r.run() {
		t.leak(u)
	}
}

// login is a use of a key that is more than git's.
func (t *gate) login(c guard.Credential) guard.Use {
	u := t.who.use(c, actConnect)
	u.Host, u.Port, u.Method, u.Resource = t.host, t.port, "publickey", t.user
	return u
}

// use is a use of the key that would be asked for, for what is refused before.
func (t *gate) use(action string) guard.Use {
	u := t.login(guard.Credential{})
	u.Action = action
	if ids := t.identities(); len(ids) > 0 {
		u.Credential = ids[0].cred
		if id, ok := find(ids, t.chosen); ok {
			u.Credential = id.cred
		}
	}
	return u
}

// origin says where what the client sends goes.
func (t *gate) origin(u guard.Use) guard.Origin {
	o := guard.Origin{Channel: u.Channel, Source: "broker", PID: u.PID, Exe: u.Exe, Host: t.host, Port: t.port, Method: u.Method, Path: u.Path}
	if strings.HasPrefix(u.Method, "git-") {
		o.Channel = guard.ChannelGit
	}
	for _, id := range t.identities() {
		o.Home = append(o.Home, id.cred.Name)
	}
	return o
}

// refuse records d and tells the user.
func (t *gate) refuse(u guard.Use, d guard.Decision) { t.who.refuse(u, d) }

// clean says whether what a client says to the server besides its data holds nothing: the
// user's name, a command, variables, a terminal's name, a place to connect to. What
// it holds is recorded as a leak; a message cannot be masked, so nothing of it is sent.
func (t *gate) clean(u guard.Use, said ...string) bool {
	for _, text := range said {
		if text == "" {
			continue
		}
		out, d := t.g.Login.Open(t.origin(u))([]byte(text), guard.End)
		if d.Action.Stops() || string(out) != text {
			return false
		}
	}
	return true
}

// leak says that a connection was ended for what the client sent, which is recorded.
func (t *gate) leak(u guard.Use) guard.Decision {
	d := refusal("leak", "what was sent to "+place{t.host, t.port}.String()+" holds a secret, and the connection was ended", "send it without the secret")
	t.who.tell(u, d)
	return d
}
