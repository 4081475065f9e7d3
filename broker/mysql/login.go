package mysql

import (
	"bufio"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"strings"
	"time"

	"guard"
	"guard/broker"
	"guard/vault"
)

// upstream is the server's side of a connection.
type upstream struct {
	c         net.Conn
	r         *bufio.Reader
	stop      func() bool
	version   string
	id        uint32
	caps      uint32
	collation byte
	status    uint16
	nonce     []byte
	plugin    string
}

func (u *upstream) mariadb() bool { return strings.Contains(strings.ToLower(u.version), "mariadb") }

func (u *upstream) close() {
	u.stop()
	u.c.Close()
}

// reach connects, and reads the server's greeting.
func (h *Handler) reach(ctx context.Context, host string, port int) (*upstream, error) {
	dialed, cancel := context.WithTimeout(ctx, startupTimeout)
	defer cancel()
	c, err := h.Dial(dialed, host, port)
	if err != nil {
		return nil, err
	}
	u := &upstream{c: c, stop: context.AfterFunc(ctx, func() { c.Close() })}
	_ = c.SetDeadline(time.Now().Add(startupTimeout))
	msg, _, err := readPacket(c, nil, 64<<10)
	if err == nil {
		err = u.greeting(msg)
	}
	if err != nil {
		u.close()
		return nil, err
	}
	return u, nil
}

func (u *upstream) greeting(msg []byte) error {
	r := reader{b: msg}
	switch r.u8() {
	case 10:
	case 0xff:
		return parseError(msg)
	default:
		return errFrame
	}
	u.version = r.text()
	u.id = r.u32()
	u.nonce = append(u.nonce, r.take(8)...)
	r.u8()
	u.caps = uint32(r.u16())
	u.collation = r.u8()
	u.status = r.u16()
	u.caps |= uint32(r.u16()) << 16
	n := int(r.u8())
	r.take(10)
	u.nonce = append(u.nonce, r.take(min(max(13, n-8), len(r.b)))...)
	if len(r.b) > 0 {
		u.plugin, _, _ = strings.Cut(string(r.b), "\x00")
	}
	if r.bad || u.caps&capNeeded != capNeeded || len(u.nonce) < scrambleLen || len(u.version) > 200 {
		return errFrame
	}
	u.nonce = u.nonce[:scrambleLen]
	return nil
}

// candidates are the credentials of kind mysql that belong to host.
func (h *Handler) candidates(host string, port int) []guard.Credential {
	var out []guard.Credential
	for _, c := range h.Credentials() {
		if c.Kind == "mysql" && !c.Decoy && broker.MatchHost(c.Hosts, host, port) {
			out = append(out, c)
		}
	}
	return out
}

// places are what a client may give for its password: a placeholder, or that part
// of a URL.
func places(c guard.Credential) []string {
	out := []string{c.Placeholder}
	if part, _, ok := vault.Part(c.Placeholder); ok {
		out = append(out, part)
	}
	return out
}

func (s *conn) gave(c guard.Credential) bool {
	for _, p := range places(c) {
		if s.client.proves(p) {
			return true
		}
	}
	return false
}

// pick finds the credential for a host: the one whose placeholder the client gave,
// the only one, or of several that may be used the one whose login or name is the
// client's user.
func (s *conn) pick() (guard.Credential, *serverError) {
	found := s.h.candidates(s.host, s.port)
	var mine, may []guard.Credential
	var names []string
	for _, c := range found {
		if s.gave(c) {
			return c, nil
		}
		s.cred = c
		if s.h.Decide(s.use("db:query")).Allowed() || s.h.Decide(s.use("db:read")).Allowed() {
			may = append(may, c)
		}
	}
	if len(may) > 0 {
		found = may
	}
	for _, c := range found {
		if c.User == s.client.user || c.Name == s.client.user {
			mine = append(mine, c)
		}
		names = append(names, c.Name)
	}
	switch {
	case len(found) == 1:
		return found[0], nil
	case len(mine) == 1:
		return mine[0], nil
	case len(found) == 0:
		return guard.Credential{}, refuse(fmt.Sprintf("guard has no MySQL credential for %s:%d in this session", s.host, s.port), "the user can add one: guard run --allow NAME")
	}
	return guard.Credential{}, refuse(fmt.Sprintf("several credentials are for %s:%d", s.host, s.port), "connect as one of these users: "+strings.Join(names, ", "))
}

// check judges what the client said before it is logged in: a placeholder of
// another server's credential, and a secret in the names.
func (s *conn) check() *serverError {
	for _, c := range s.h.Credentials() {
		if home := broker.MatchHost(c.Hosts, s.host, s.port) && c.Kind == "mysql"; home && !c.Decoy || !s.gave(c) {
			continue
		}
		d := refused("placeholder", "the placeholder of "+c.Name+" is not for this server", "use the placeholder of a credential of this server, or none")
		if c.Decoy {
			d = refused("decoy", c.Name+" is not to be used: the user has been told", "go on without it")
		}
		d.Secret = c.ID()
		s.cred = c
		s.refuse(s.use("db:query"), d)
		return denied(d)
	}
	return s.judge([]byte(s.client.user + "\x00" + s.client.db))
}

// login gets a credential through the use line and logs in upstream. If the server
// says that the password is wrong, a rotation may be between the issuer's change
// and the vault's: it asks for the credential again, twice.
func (s *conn) login(ctx context.Context) *serverError {
	for try := 1; ; try++ {
		cred, refusal := s.pick()
		if refusal != nil {
			return refusal
		}
		s.cred = cred
		use := s.use("db:query")
		if !s.h.Decide(use).Allowed() {
			if read := s.use("db:read"); s.h.Decide(read).Allowed() {
				use, s.readOnly = read, true
			}
		}
		var upErr error
		sent := false
		d, err := s.h.Use(use, func(value guard.Secret) (string, error) {
			sent = true
			upErr = s.connect(ctx, value)
			return outcome(upErr), upErr
		})
		if err == nil && sent {
			return nil
		}
		if !sent || upErr == nil {
			return denied(d)
		}
		var se *serverError
		if errors.As(upErr, &se) && se.code == 1045 && try < 3 && broker.Wait(ctx, 150*time.Millisecond) {
			s.up.close()
			up, err := s.h.reach(ctx, s.host, s.port)
			if err != nil {
				return unreachable(err, s.host, s.port)
			}
			s.up = up
			continue
		}
		return s.failure(upErr)
	}
}

func outcome(err error) string {
	var se *serverError
	switch {
	case err == nil:
		return "connected"
	case errors.As(err, &se):
		return fmt.Sprintf("failed, error %d", se.code)
	}
	return "failed"
}

func (h *Handler) plain(host string, port int) bool {
	if h.Plain != nil {
		return h.Plain(host, port)
	}
	ip := net.ParseIP(host)
	return host == "localhost" || ip != nil && ip.IsLoopback()
}

// connect logs in upstream, over TLS where there is any.
func (s *conn) connect(ctx context.Context, value guard.Secret) error {
	u := s.up
	plain := s.h.plain(s.host, s.port)
	caps := s.client.caps&capBoth&u.caps | capNeeded | capLongPassword | capPluginAuth
	if s.client.db != "" {
		caps |= capConnectWithDB
	}
	s.caps = caps
	maxPacket := max(s.client.maxPacket, 1<<24)
	head := func(caps uint32) []byte {
		out := []byte{
			byte(caps), byte(caps >> 8), byte(caps >> 16), byte(caps >> 24),
			byte(maxPacket), byte(maxPacket >> 8), byte(maxPacket >> 16), byte(maxPacket >> 24), s.client.collation,
		}
		return append(out, make([]byte, 23)...)
	}
	trusted := false
	seq := byte(1)
	switch {
	case u.caps&capSSL != 0:
		caps |= capSSL
		var out []byte
		out, seq = appendPacket(nil, head(caps), seq)
		if _, err := u.c.Write(out); err != nil {
			return err
		}
		t := tls.Client(u.c, s.h.UpstreamTLS(s.host))
		if err := t.HandshakeContext(ctx); err != nil {
			return err
		}
		u.c = t
		if trusted = s.h.Trusted(t.ConnectionState(), s.host) == nil; !trusted && !plain {
			return errUntrusted
		}
	case !plain:
		return errNoTLS
	}
	user := s.cred.User
	if user == "" {
		user = s.client.user
	}
	s.hide = rename{from: user, to: s.client.user}
	password := value.Reveal()
	for _, part := range vault.Parts(value) { // of a URL; the last one is as it is meant
		defer part.Wipe()
		password = part.Reveal()
	}
	plugin := u.plugin
	reply, err := answer(plugin, u.nonce, password, trusted)
	if err != nil { // the server will ask for another one, or say no
		plugin = pluginNative
		if reply, err = answer(plugin, u.nonce, password, trusted); err != nil {
			return err
		}
	}
	out := append(append(head(caps), user...), 0)
	out = append(append(out, byte(len(reply))), reply...)
	if caps&capConnectWithDB != 0 {
		out = append(append(out, s.client.db...), 0)
	}
	out = append(append(out, plugin...), 0)
	p, _ := appendPacket(nil, out, seq)
	clear(reply)
	if _, err := u.c.Write(p); err != nil {
		return err
	}
	clear(p)
	clear(out)
	u.r = bufio.NewReaderSize(u.c, 32<<10)
	for range 8 {
		msg, seq, err := readPacket(u.r, nil, 64<<10)
		if err != nil {
			return err
		}
		if len(msg) == 0 {
			return errFrame
		}
		reply = nil
		switch msg[0] {
		case 0:
			return nil
		case 0xff:
			return parseError(msg)
		case 0xfe:
			r := reader{b: msg[1:]}
			plugin = r.text()
			if r.bad {
				return errPlugin // the protocol of before 4.1
			}
			nonce := r.b
			if len(nonce) > 0 && nonce[len(nonce)-1] == 0 && len(nonce) != 32 {
				nonce = nonce[:len(nonce)-1]
			}
			u.nonce = append([]byte(nil), nonce...)
			if reply, err = answer(plugin, u.nonce, password, trusted); err != nil {
				return err
			}
		case 1:
			switch {
			case plugin == pluginCaching && len(msg) == 2 && msg[1] == 3:
				continue // OK follows
			case plugin == pluginCaching && len(msg) == 2 && msg[1] == 4:
				if reply, err = answer(pluginClear, nil, password, trusted); err != nil {
					return err
				}
			default:
				return errPlugin
			}
		default:
			return errFrame
		}
		p, _ := appendPacket(nil, reply, seq+1)
		clear(reply)
		_, err = u.c.Write(p)
		clear(p)
		if err != nil {
			return err
		}
	}
	return errFrame
}

// Refusals, in the server's words: error 1227 is that a privilege is missing.
const (
	codeDenied = 1227
	stateDeny  = "42000"
)

func refuse(message, hint string) *serverError {
	if hint != "" {
		message += " (" + hint + ")"
	}
	return &serverError{code: codeDenied, state: stateDeny, message: message}
}

// denied is the refusal of a decision.
func denied(d guard.Decision) *serverError {
	what := "guard refused this"
	if d.Secret.Name != "" {
		what = "guard refused the use of credential " + d.Secret.Name
	}
	return refuse(what+": "+d.Reason, fmt.Sprintf("%s; layer: broker, rule: %s, request: %s", strings.Join(d.NextSteps, "; "), d.Rule, broker.RequestID(d)))
}

// stopped is the refusal of what a client sent, by the leak line.
func stopped(d guard.Decision) *serverError {
	what := "guard stopped this statement: it holds a secret"
	if d.Secret.Name != "" {
		what += ", " + d.Secret.Name
	}
	hint := strings.Join(append([]string{d.Reason}, d.NextSteps...), "; ")
	if strings.Trim(hint, "; ") == "" {
		hint = "send the statement without the value"
	}
	return refuse(what, fmt.Sprintf("%s; layer: leak, rule: %s, request: %s", hint, d.Rule, broker.RequestID(d)))
}

func charsetRefusal() *serverError {
	return refuse("guard reads SQL in charsets in which a backslash is always one", "use utf8mb4 or latin1: SET NAMES utf8mb4; layer: broker, rule: "+ruleCharset)
}

func unreachable(err error, host string, port int) *serverError {
	at := fmt.Sprintf("%s:%d", host, port)
	var se *serverError
	switch {
	case errors.As(err, &se):
		return se // nobody has logged in: it names no user
	case errors.Is(err, errFrame):
		return &serverError{code: 2027, state: "HY000", message: "the server at " + at + " does not speak MySQL's protocol, version 10"}
	}
	return &serverError{code: 2003, state: "HY000", message: "guard could not reach the server at " + at + " (is it running, and does policy allow the host? guard policy explain tells)"}
}

// failure is what the upstream said to a login, without the real user's name.
func (s *conn) failure(err error) *serverError {
	at := fmt.Sprintf("%s:%d", s.host, s.port)
	var se *serverError
	switch {
	case errors.As(err, &se) && (se.code == 1045 || se.code == 1698 || se.code == 1524 || se.code == 3118 || se.code == 1862):
		e := refuse("the server at "+at+" refused guard's credential "+s.cred.Name, fmt.Sprintf("error %d; the user can look at it: guard secret show %s; it may have been rotated outside guard", se.code, s.cred.Name))
		e.code, e.state = 1045, "28000"
		return e
	case errors.As(err, &se):
		return &serverError{code: se.code, state: se.state, message: s.hide.text(se.message)}
	case errors.Is(err, errUntrusted):
		return refuse("guard cannot tell that the server at "+at+" is the right one", "its certificate is not trusted: give its root with --ca FILE")
	case errors.Is(err, errClear):
		return refuse("the server at "+at+" wants the password itself, and guard cannot tell that it is the right one", "give the root of its certificate with --ca FILE; caching_sha2_password wants this once after the server has started")
	case errors.Is(err, errNoTLS):
		return refuse("the server at "+at+" has no TLS", "guard talks without TLS to this machine's own servers only")
	case errors.Is(err, errPlugin):
		return refuse("the server at "+at+" wants a login that guard does not know", "guard knows mysql_native_password, caching_sha2_password, client_ed25519, and over trusted TLS sha256_password and mysql_clear_password")
	}
	return unreachable(err, s.host, s.port)
}
