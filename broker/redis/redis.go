// Package redis serves an agent's Redis connections (RESP2 and RESP3, Redis and
// Valkey): the agent connects with a placeholder or with no password at all,
// guard logs in upstream.
//
// One connection, top to bottom (Handler.Serve):
//
//	TLS                   -> with the session's certificate
//	bytes of the client's -> the leak line's filter, once a read -> commands
//	AUTH, HELLO AUTH      -> the placeholder, or an error; never sent on
//	the first command     -> credential of this host -> use line -> AUTH upstream
//	other commands        -> on as they are, in one write for all that came; or
//	                         refused, with an error in their place among the replies
//	bytes of the server's -> values and their SHA-256 become the placeholder's;
//	                         errors without the real user's name -> the client
//
// Replies are counted and not read: one for each command, but for pushes. A
// connection that subscribes (RESP2 has no other mark for what is no reply) is
// not counted from then on, and a command that is refused there ends it.
//
// Which commands read is in a table (commands.go), made stricter by what the
// server's COMMAND says; a command that neither knows is refused. Under a scope
// that reads: SORT and GEORADIUS without STORE, BITFIELD that gets, GETEX without
// options, EVAL_RO for EVAL. Refused under every scope: MONITOR, replication,
// MIGRATE, REPLICAOF and CLUSTER's and MODULE's changes, which would have the
// server send what it holds to a host that egress never sees; CONFIG SET of dir,
// dbfilename and TLS. What makes a password (ACL SETUSER, ACL GENPASS, CONFIG SET
// requirepass) is token:mint. In MULTI a command that guard refuses makes EXEC
// fail, as one that the server refuses does.
//
// Upstream, TLS is used where the client or a rediss:// URL does, and always to
// another machine; the certificate must be good.
//
// A script that names MIGRATE is refused (script.go), and so is FUNCTION RESTORE, whose
// scripts are not readable.
//
// What does not hold: a script may put that name together in ways that are not seen
// (where that matters, take MIGRATE from the login's ACL: -migrate); a value in
// pieces over several arguments is not seen in one piece; a cluster's nodes need a
// host of the credential each, since a redirection is to another one; INFO, KEYS and
// CLIENT LIST tell what they tell.
//
// Goroutines: Serve starts one, which reads the server's replies, and waits for it.
package redis

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"strconv"
	"strings"
	"sync"
	"time"

	"guard"
	"guard/broker"
	"guard/vault"
)

// Handler serves connections to Redis servers. Credentials, Decide, Use, Dial and
// Open are needed; without one of them every connection is refused.
type Handler struct {
	broker.Login

	wait time.Duration // for a server to log in to, in tests

	mu     sync.Mutex
	tables map[string]*table // by host:port: what the servers say of their commands
}

const (
	handshakeTimeout = 10 * time.Second
	maxRecorded      = 100 // refusals of one connection; more are counted
)

// Serve serves one connection to its end, and closes it.
func (h *Handler) Serve(ctx context.Context, c net.Conn, host string, port int) {
	defer c.Close()
	raw := c
	unhook := context.AfterFunc(ctx, func() { raw.Close() })
	defer unhook()
	l := &link{h: h, ctx: ctx, client: c, host: broker.CanonicalHost(host), port: port, begin: time.Now()}
	l.pid, l.exe = broker.Process(c)
	first := make([]byte, smallBuffer)
	n, err := c.Read(first)
	if n == 0 {
		return
	}
	if first[0] == 0x16 && h.GetCertificate != nil {
		t := tls.Server(broker.Preload(c, first[:n]), &tls.Config{GetCertificate: h.GetCertificate, MinVersion: tls.VersionTLS12})
		_ = c.SetDeadline(time.Now().Add(handshakeTimeout))
		if err := t.HandshakeContext(ctx); err != nil {
			return
		}
		_ = c.SetDeadline(time.Time{})
		l.client, l.secure, n = t, true, 0
	}
	if h.Credentials == nil || h.Decide == nil || h.Use == nil || h.Dial == nil || h.Open == nil {
		_, _ = l.client.Write(refusal("guard's Redis broker is not set up in this session", "tell the user; guard doctor says what is missing"))
		return
	}
	defer l.close()
	if l.filter = h.Open(l.origin()); l.filter == nil {
		return
	}
	l.serve(first[:n], err)
}

func (l *link) origin() guard.Origin {
	return guard.Origin{
		Channel: guard.ChannelRedis, Source: "broker", PID: l.pid, Exe: l.exe, Host: l.host, Port: l.port, Home: l.h.home(l.host, l.port),
	}
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

// candidates are the Redis credentials for the host.
func (h *Handler) candidates(host string, port int) []guard.Credential {
	var found []guard.Credential
	for _, c := range h.Credentials() {
		if c.Kind == "redis" && broker.MatchHost(c.Hosts, host, port) {
			found = append(found, c)
		}
	}
	return found
}

// stands says whether password is c's placeholder, or the password's part of one
// that is a URL.
func stands(c guard.Credential, password string) bool {
	if password == "" || c.Placeholder == "" {
		return false
	}
	written, decoded, ok := vault.Part(c.Placeholder)
	return password == c.Placeholder || ok && (password == written || password == decoded)
}

// identify finds the credential whose placeholder a client logs in with. The
// refusal is an error reply, and recorded where it is about another credential.
func (l *link) identify(password string) (guard.Credential, []byte) {
	for _, c := range l.h.candidates(l.host, l.port) {
		if stands(c, password) {
			return c, nil
		}
	}
	for _, c := range l.h.Credentials() {
		if stands(c, password) {
			d := guard.Decision{Action: guard.Block, Rule: "placeholder at a foreign host", Secret: c.ID(),
				Reason:    fmt.Sprintf("%s is not a Redis credential for %s:%d", c.Name, l.host, l.port),
				NextSteps: []string{"guard secret show " + c.Name + " lists its hosts"}}
			l.refused(c, "db:query", "AUTH", d)
			return c, denied(d)
		}
	}
	return guard.Credential{}, []byte("-WRONGPASS guard: this is no placeholder of this session. Log in with the placeholder, or not at all: guard logs in by itself\r\n")
}

// pick is the credential of a client that did not log in: the only one.
func (l *link) pick() (guard.Credential, []byte) {
	all := l.h.candidates(l.host, l.port)
	if len(all) == 1 {
		return all[0], nil
	}
	if len(all) == 0 {
		return guard.Credential{}, refusal(fmt.Sprintf("guard has no Redis credential for %s:%d in this session", l.host, l.port), "the user can add one: guard run --allow NAME, or guard secret set NAME --kind redis --host HOST")
	}
	var names []string
	for _, c := range all {
		names = append(names, c.Name)
	}
	return guard.Credential{}, []byte(fmt.Sprintf("-NOAUTH guard: several credentials are for %s:%d: AUTH with the placeholder of one of %s\r\n", l.host, l.port, strings.Join(names, ", ")))
}

func (l *link) use(c guard.Credential, action string) guard.Use {
	db := strconv.Itoa(l.db)
	return guard.Use{
		Session: l.h.Session, Credential: c, Channel: guard.ChannelRedis, Action: action, Resource: db,
		Host: l.host, Port: l.port, Path: "/" + db, PID: l.pid, Exe: l.exe, At: time.Now(),
	}
}

// refused records a refusal. command is a name of the table's, never the client's text.
func (l *link) refused(c guard.Credential, action, command string, d guard.Decision) {
	l.did.refused++
	if l.h.Refused == nil || l.did.refused > maxRecorded {
		return
	}
	u := l.use(c, action)
	u.Method = command
	d.Secret = c.ID()
	l.h.Refused(u, d)
}

// refusal is an error reply: one line, whatever the words are.
func refusal(message, hint string) []byte {
	s := message
	if hint != "" {
		s += "; " + hint
	}
	return []byte("-NOPERM " + strings.Map(func(r rune) rune {
		if r < ' ' || r == 0x7f {
			return ' '
		}
		return r
	}, s) + "\r\n")
}

// denied is policy's refusal.
func denied(d guard.Decision) []byte {
	return refusal("guard refused the use of credential "+d.Secret.Name+": "+d.Reason,
		strings.Join(append(append([]string{}, d.NextSteps...), fmt.Sprintf("layer: broker, rule: %s, request: %s", d.Rule, broker.RequestID(d))), "; "))
}

// stopped is the leak line's refusal.
func stopped(d guard.Decision) []byte {
	m := "guard stopped this command: it holds a secret"
	if d.Secret.Name != "" {
		m += " (" + d.Secret.Name + ")"
	}
	steps := append([]string{d.Reason}, d.NextSteps...)
	return refusal(m, strings.TrimPrefix(strings.Join(append(steps, fmt.Sprintf("layer: leak, rule: %s, request: %s", d.Rule, broker.RequestID(d))), "; "), "; "))
}

var errStopped = errors.New("stopped")
