// Package mysql serves an agent's MySQL and MariaDB connections: the agent connects
// with a placeholder or with no password at all, guard logs in upstream.
//
// One connection, top to bottom (Handler.Serve):
//
//	the server's greeting    -> greeting of guard's, with the server's version
//	SSLRequest               -> TLS with the session's certificate
//	HandshakeResponse        -> credential of this host -> use line -> login
//	                            upstream -> OK; what the client proves is not
//	                            looked at, but for placeholders of elsewhere
//	a command                -> whole, through the rules and the leak line's filter
//	the answer               -> with the value scrubbed, errors without the real
//	                            user's name -> the next command
//
// The protocol is one of question and answer, and so is Serve: a command that is
// refused is answered with an error, and the connection goes on.
//
// Upstream, TLS is used where the server offers it, and its certificate has to be
// one that a root vouches for. A server of this machine (Handler.Plain) may have
// another or none; it is then sent no password in clear text and none under a key
// that it gave itself, only the answers of mysql_native_password,
// caching_sha2_password and client_ed25519, from which the password cannot be read.
//
// A credential that is for db:read alone gets transactions that only read, by the
// server's word, and may send what is known to read (see read.go). Statements that
// make or change an account or a password are an action of their own, token:mint
// (see rules.go). LOCAL INFILE, replication, COM_CHANGE_USER, COM_SHUTDOWN,
// compression and charsets in which a backslash may be half of a character are
// refused or not offered.
//
// What does not hold: statements in the bodies of routines that are there already
// are not looked into, and under db:read functions of such routines run (in a
// transaction that only reads). A value cut over several statements or parameters
// is not seen in one piece by the filter. An agent can ask the server who it is
// (CURRENT_USER, SHOW GRANTS, which on MariaDB shows the password's hash).
// A grant for one database (db:read/NAME) holds for what is chosen by name (USE),
// not for a table that is named with its database.
//
// Goroutines: Serve starts none.
package mysql

import (
	"context"
	"fmt"
	"net"
	"sync"
	"time"

	"guard/broker"
)

// Handler serves connections to MySQL and MariaDB servers. Credentials, Decide, Use,
// Dial and Open are needed; without one of them every connection is refused.
type Handler struct {
	broker.Login

	mu   sync.Mutex
	live map[*link]bool
}

// link is one connection that is up.
type link struct {
	told       uint32 // the connection id that the client knows
	id         uint32 // the server's
	credential string
	host       string
	port       int
}

const startupTimeout = 30 * time.Second

// Serve serves one connection to its end, and closes it.
func (h *Handler) Serve(ctx context.Context, c net.Conn, host string, port int) {
	defer c.Close()
	host = broker.CanonicalHost(host)
	unhook := context.AfterFunc(ctx, func() { c.Close() })
	defer unhook()
	_ = c.SetDeadline(time.Now().Add(startupTimeout))
	if h.Credentials == nil || h.Decide == nil || h.Use == nil || h.Dial == nil || h.Open == nil {
		early(c, refuse("guard's MySQL broker is not set up in this session", "tell the user; guard doctor says what is missing"))
		return
	}
	if len(h.candidates(host, port)) == 0 {
		early(c, refuse(fmt.Sprintf("guard has no MySQL credential for %s:%d in this session", host, port), "the user can add one: guard run --allow NAME, or guard secret set NAME --kind mysql --host HOST"))
		return
	}
	// The server speaks first, and its version decides what clients send.
	up, err := h.reach(ctx, host, port)
	if err != nil {
		early(c, unreachable(err, host, port))
		return
	}
	cl, err := h.greet(ctx, c, up)
	if err != nil {
		up.close()
		if cl != nil && err == errCharset {
			_ = cl.fail(charsetRefusal())
		}
		return
	}
	pid, exe := broker.Process(c)
	s := &conn{h: h, client: cl, up: up, host: host, port: port, pid: pid, exe: exe, db: cl.db}
	defer func() { s.up.close() }()
	if refusal := s.check(); refusal != nil {
		_ = cl.fail(refusal)
		return
	}
	if refusal := s.login(ctx); refusal != nil {
		_ = cl.fail(refusal)
		return
	}
	if refusal := s.begin(); refusal != nil {
		_ = cl.fail(refusal)
		return
	}
	l := &link{told: up.id, id: s.up.id, credential: s.cred.Name, host: host, port: port}
	h.add(l)
	defer h.remove(l)
	if err := cl.welcome(up.status); err != nil {
		return
	}
	_ = cl.c.SetDeadline(time.Time{})
	_ = s.up.c.SetDeadline(time.Time{})
	begin := time.Now()
	s.run()
	if h.Ended != nil {
		h.Ended(s.use(s.action()), s.did.String(), time.Since(begin))
	}
}

func (h *Handler) add(l *link) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.live == nil {
		h.live = map[*link]bool{}
	}
	h.live[l] = true
}

func (h *Handler) remove(l *link) {
	h.mu.Lock()
	defer h.mu.Unlock()
	delete(h.live, l)
}

// own finds the server's id of one of the session's connections to host:port, by
// the one that its client was told or the server's own.
func (h *Handler) own(id uint32, credential, host string, port int) (uint32, bool) {
	h.mu.Lock()
	defer h.mu.Unlock()
	for _, told := range []bool{true, false} {
		for l := range h.live {
			if (told && l.told == id || !told && l.id == id) && l.credential == credential && l.host == host && l.port == port {
				return l.id, true
			}
		}
	}
	return 0, false
}
