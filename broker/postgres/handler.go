// Package postgres serves an agent's PostgreSQL connections: the agent connects
// with a placeholder or with no password at all, guard logs in upstream.
//
// One connection, top to bottom (Handler.Serve):
//
//	SSLRequest, direct TLS  -> TLS with the session's certificate, or 'N'
//	GSSENCRequest           -> 'N'
//	CancelRequest           -> the upstream's own key, over a connection of its own
//	StartupMessage          -> credential of this host -> use line -> SCRAM login
//	                           upstream -> AuthenticationOk, ParameterStatus, a
//	                           BackendKeyData of guard's own, ReadyForQuery
//	bytes, both ways        -> client's through the leak line's filter; the
//	                           server's errors without the real user's name
//
// The client is never asked for a password, so none is ever received. Startup
// parameters go through the filter like queries, so that another host's
// placeholder, or a secret, is refused there too.
//
// Upstream, TLS is used where the server offers it. A certificate that no root
// vouches for is taken only if the login is bound to it (SCRAM-SHA-256-PLUS):
// the server then proves that it knows the password's verifier at this very
// connection. A server without TLS is taken only where Handler.Plain allows it.
//
// A server of this machine gets a plain connection from a client that chose one.
//
// Statements that make or change a role or its password are an action of their own,
// token:mint, and refused where it is not allowed, on their way: CREATE and ALTER of ROLE, USER and GROUP (but ALTER ROLE ... SET), ALTER
// DEFAULT PRIVILEGES, and writes to pg_authid, also in the code of DO and of functions
// that are made. The data of COPY is judged as one stream, however it is cut into messages.
//
// A credential that is for db:read alone gets transactions that only read, from the
// login on, and may send what is known to read (readonly.go, scope.go).
//
// What does not hold: a statement that code puts together while it runs is not looked
// into, and neither is what a function that is there already does:
// a login that may alter its own role should not be given to an agent. A value
// cut over several statements or parameters is not seen in one piece by the
// filter. An agent that may run any statement can read who it is (current_user).
//
// Goroutines: Serve starts two and waits for both.
package postgres

import (
	"context"
	"crypto/rand"
	"crypto/subtle"
	"crypto/tls"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgproto3"

	"guard"
	"guard/broker"
)

// Handler serves connections to PostgreSQL servers. Credentials, Use, Dial and
// Open are needed; without one of them every connection is refused.
type Handler struct {
	broker.Login

	mu   sync.Mutex
	live map[uint32]*link
}

// link is one connection that is up.
type link struct {
	key        [4]byte // guard's own, which the client got
	credential string  // its name
	host       string
	port       int
	up         *pgconn.HijackedConn
}

const (
	startupTimeout = 30 * time.Second
	maxStartup     = 10000 // MAX_STARTUP_PACKET_LENGTH

	codeCancel = 80877102
	codeSSL    = 80877103
	codeGSS    = 80877104
)

// Backends lists the server process ids of the live connections: what a
// graceful rotation spares.
func (h *Handler) Backends() []uint32 { return h.backends("") }

// BackendsOf lists those that use one credential.
func (h *Handler) BackendsOf(credential string) []uint32 { return h.backends(credential) }

func (h *Handler) backends(credential string) []uint32 {
	h.mu.Lock()
	defer h.mu.Unlock()
	var out []uint32
	for _, l := range h.live {
		if credential == "" || l.credential == credential {
			out = append(out, l.up.PID)
		}
	}
	slices.Sort(out)
	return out
}

// Serve serves one connection to its end, and closes it.
func (h *Handler) Serve(ctx context.Context, c net.Conn, host string, port int) {
	defer c.Close()
	host = broker.CanonicalHost(host)
	raw := c
	unhook := context.AfterFunc(ctx, func() { raw.Close() })
	defer unhook()
	_ = c.SetDeadline(time.Now().Add(startupTimeout))
	c, s, err := h.startup(ctx, c)
	if err != nil {
		return // not PostgreSQL, or gone
	}
	if s.cancel {
		h.cancel(ctx, s, host, port)
		return
	}
	if refusal := h.check(raw, s, host, port); refusal != nil {
		_ = say(c, refusal)
		return
	}
	up, cred, action, refusal := h.login(ctx, raw, s, host, port)
	if refusal != nil {
		_ = say(c, refusal)
		return
	}
	defer up.Conn.Close()
	unhookUp := context.AfterFunc(ctx, func() { up.Conn.Close() })
	defer unhookUp()

	l := &link{credential: cred.Name, host: host, port: port, up: up}
	id := h.add(l)
	defer h.remove(id)
	hide := rename{from: up.Config.User, to: s.params["user"]}
	if err := greet(c, s, up, id, l.key[:], hide); err != nil {
		return
	}
	_ = c.SetDeadline(time.Time{})
	pid, exe := broker.Process(raw)
	var did tally
	begin := time.Now()
	use := func(action string) guard.Use {
		return guard.Use{
			Session: h.Session, Credential: cred, Channel: guard.ChannelPostgres, Action: action, Resource: s.params["database"],
			Host: host, Port: port, Path: "/" + s.params["database"], PID: pid, Exe: exe, At: time.Now(),
		}
	}
	var only *scope
	if action == "db:read" {
		only = newScope(cred.Name, func(d guard.Decision) {
			did.refuse()
			if h.Refused != nil {
				d.Secret = cred.ID()
				h.Refused(use(action), d)
			}
		})
	}
	d := pump(c, up.Conn, func() guard.Filter {
		return h.Open(guard.Origin{
			Channel: guard.ChannelPostgres, Source: "broker", PID: pid, Exe: exe, Host: host, Port: port, Home: h.home(host, port),
		})
	}, h.minter(use, cred.Name), only, hide, &did)
	if h.Ended != nil {
		h.Ended(use(action), did.String(), time.Since(begin))
	}
	if d.Rule == rolesRule && h.Refused != nil {
		d.Secret = cred.ID()
		h.Refused(use("token:mint"), d)
	}
}

// start is what a client said first.
type start struct {
	version uint32
	params  map[string]string
	cancel  bool
	secure  bool // by TLS
	pid     uint32
	key     []byte
}

// startup answers requests for encryption until the client says what it wants.
// Nothing is read beyond a request, so that bytes sent in clear text in advance
// cannot pass for encrypted ones (CVE-2021-23214).
func (h *Handler) startup(ctx context.Context, c net.Conn) (net.Conn, *start, error) {
	secure := false
	for range 4 {
		var head [8]byte
		if _, err := io.ReadFull(c, head[:1]); err != nil {
			return nil, nil, err
		}
		if head[0] == 0x16 && !secure && h.GetCertificate != nil { // direct TLS (PostgreSQL 17)
			t, err := h.encrypt(ctx, &prefixed{Conn: c, first: head[:1]})
			if err != nil {
				return nil, nil, err
			}
			c, secure = t, true
			continue
		}
		if _, err := io.ReadFull(c, head[1:]); err != nil {
			return nil, nil, err
		}
		size, code := binary.BigEndian.Uint32(head[:4]), binary.BigEndian.Uint32(head[4:])
		if size < 8 || size > maxStartup {
			return nil, nil, errors.New("not a PostgreSQL client")
		}
		body := make([]byte, size-8)
		if _, err := io.ReadFull(c, body); err != nil {
			return nil, nil, err
		}
		switch {
		case code == codeSSL && !secure && h.GetCertificate != nil:
			if _, err := c.Write([]byte{'S'}); err != nil {
				return nil, nil, err
			}
			t, err := h.encrypt(ctx, c)
			if err != nil {
				return nil, nil, err
			}
			c, secure = t, true
		case code == codeSSL || code == codeGSS:
			if _, err := c.Write([]byte{'N'}); err != nil {
				return nil, nil, err
			}
		case code == codeCancel && len(body) >= 8 && len(body) <= 260:
			return c, &start{cancel: true, pid: binary.BigEndian.Uint32(body), key: body[4:]}, nil
		case code>>16 == 3:
			params, err := parameters(body)
			if err != nil {
				return nil, nil, err
			}
			return c, &start{version: code, params: params, secure: secure}, nil
		default:
			_ = say(c, refuse("0A000", "guard speaks protocol version 3 only", ""))
			return nil, nil, errors.New("unknown protocol version")
		}
	}
	return nil, nil, errors.New("too many requests for encryption")
}

func (h *Handler) encrypt(ctx context.Context, c net.Conn) (net.Conn, error) {
	t := tls.Server(c, &tls.Config{GetCertificate: h.GetCertificate, NextProtos: []string{"postgresql"}, MinVersion: tls.VersionTLS12})
	return t, t.HandshakeContext(ctx)
}

// prefixed gives back a byte that was read to look at.
type prefixed struct {
	net.Conn
	first []byte
}

func (p *prefixed) Read(b []byte) (int, error) {
	if len(p.first) > 0 {
		n := copy(b, p.first)
		p.first = p.first[n:]
		return n, nil
	}
	return p.Conn.Read(b)
}

// NetConn is for broker.Process.
func (p *prefixed) NetConn() net.Conn { return p.Conn }

func parameters(b []byte) (map[string]string, error) {
	bad := errors.New("startup message is malformed")
	if len(b) == 0 || b[len(b)-1] != 0 {
		return nil, bad
	}
	fields := strings.Split(string(b[:len(b)-1]), "\x00")
	if fields[len(fields)-1] != "" || len(fields)%2 != 1 {
		return nil, bad
	}
	params := map[string]string{}
	for i := 0; i+1 < len(fields); i += 2 {
		if fields[i] == "" {
			return nil, bad
		}
		params[fields[i]] = fields[i+1]
	}
	if params["user"] == "" {
		return nil, bad
	}
	return params, nil
}

// check judges the startup parameters before anything is asked upstream.
func (h *Handler) check(raw net.Conn, s *start, host string, port int) *pgproto3.ErrorResponse {
	if h.Credentials == nil || h.Use == nil || h.Dial == nil || h.Open == nil {
		return refuse("42501", "guard's PostgreSQL broker is not set up in this session", "tell the user; guard doctor says what is missing")
	}
	if r := s.params["replication"]; r != "" && !slices.Contains([]string{"false", "off", "no", "0"}, strings.ToLower(r)) {
		return refuse("42501", "guard refuses replication connections", "a replication stream is the whole database; ask the user to take it outside the session")
	}
	pid, exe := broker.Process(raw)
	f := h.Open(guard.Origin{
		Channel: guard.ChannelPostgres, Source: "broker", PID: pid, Exe: exe, Host: host, Port: port, Home: h.home(host, port),
	})
	var all []byte
	for k, v := range s.params {
		all = append(all, k+"\x00"+v+"\x00"...)
	}
	out, d := f(all, guard.End)
	if d.Action.Stops() || string(out) != string(all) {
		return stopped(d)
	}
	return nil
}

// home names the credentials that belong to host.
func (h *Handler) home(host string, port int) []string {
	var names []string
	for _, c := range h.Credentials() {
		if broker.MatchHost(c.Hosts, host, port) {
			names = append(names, c.Name)
		}
	}
	return names
}

// pick finds the credential for a host: the only PostgreSQL one, or of several that
// may be used the one whose login or name is the client's user.
func (h *Handler) pick(host string, port int, user, db string) (guard.Credential, *pgproto3.ErrorResponse) {
	var found, mine []guard.Credential
	for _, c := range h.Credentials() {
		if c.Kind == "postgres" && broker.MatchHost(c.Hosts, host, port) {
			found = append(found, c)
		}
	}
	may := slices.DeleteFunc(slices.Clone(found), func(c guard.Credential) bool {
		return h.Decide == nil || h.may(guard.Use{Session: h.Session, Credential: c, Channel: guard.ChannelPostgres, Resource: db, Host: host, Port: port, At: time.Now()}) == ""
	})
	if len(may) > 0 {
		found = may
	}
	for _, c := range found {
		if c.User == user || c.Name == user {
			mine = append(mine, c)
		}
	}
	switch {
	case len(found) == 1:
		return found[0], nil
	case len(mine) == 1:
		return mine[0], nil
	case len(found) == 0:
		return guard.Credential{}, refuse("42501", fmt.Sprintf("guard has no PostgreSQL credential for %s:%d in this session", host, port), "the user can add one: guard run --allow NAME, or guard secret set NAME --kind postgres --host HOST")
	}
	var names []string
	for _, c := range found {
		names = append(names, c.Name)
	}
	return guard.Credential{}, refuse("42501", fmt.Sprintf("several credentials are for %s:%d", host, port), "connect as one of these users: "+strings.Join(names, ", "))
}

// may says which of db:query and db:read a login is for; "": neither.
func (h *Handler) may(u guard.Use) string {
	for _, u.Action = range []string{"db:query", "db:read"} {
		if h.Decide(u).Allowed() {
			return u.Action
		}
	}
	return ""
}

func (h *Handler) add(l *link) uint32 {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.live == nil {
		h.live = map[uint32]*link{}
	}
	rand.Read(l.key[:])
	for {
		var b [4]byte
		rand.Read(b[:])
		id := binary.BigEndian.Uint32(b[:]) & 0x7fffffff
		if _, taken := h.live[id]; !taken && id != 0 {
			h.live[id] = l
			return id
		}
	}
}

func (h *Handler) remove(id uint32) {
	h.mu.Lock()
	defer h.mu.Unlock()
	delete(h.live, id)
}

// cancel passes a cancel request on, with the upstream's key. Nothing is
// answered, whatever comes of it; that is the protocol.
func (h *Handler) cancel(ctx context.Context, s *start, host string, port int) {
	h.mu.Lock()
	l := h.live[s.pid]
	h.mu.Unlock()
	if l == nil || l.host != host || l.port != port || subtle.ConstantTimeCompare(l.key[:], s.key) != 1 {
		return
	}
	ctx, stop := context.WithTimeout(ctx, 10*time.Second)
	defer stop()
	up, err := h.Dial(ctx, host, port)
	if err != nil {
		return
	}
	defer up.Close()
	unhook := context.AfterFunc(ctx, func() { up.Close() })
	defer unhook()
	if l.up.TLSConfig != nil {
		if _, err := up.Write(binary.BigEndian.AppendUint32([]byte{0, 0, 0, 8}, codeSSL)); err != nil {
			return
		}
		var answer [1]byte
		if _, err := io.ReadFull(up, answer[:]); err != nil || answer[0] != 'S' {
			return
		}
		t := tls.Client(up, l.up.TLSConfig)
		if err := t.HandshakeContext(ctx); err != nil {
			return
		}
		up = t
	}
	msg, err := (&pgproto3.CancelRequest{ProcessID: l.up.PID, SecretKey: l.up.SecretKey}).Encode(nil)
	if err != nil {
		return
	}
	if _, err := up.Write(msg); err == nil {
		// The server closes when the signal is sent; the client waits for that.
		_, _ = io.Copy(io.Discard, up)
	}
}
