package mysql

import (
	"errors"
	"fmt"
	"strings"
	"time"

	"guard"
)

// Commands (COM_*).
const (
	comQuit            = 0x01
	comInitDB          = 0x02
	comQuery           = 0x03
	comFieldList       = 0x04
	comStatistics      = 0x09
	comProcessInfo     = 0x0a
	comProcessKill     = 0x0c
	comPing            = 0x0e
	comChangeUser      = 0x11
	comStmtPrepare     = 0x16
	comStmtExecute     = 0x17
	comStmtLongData    = 0x18
	comStmtClose       = 0x19
	comStmtReset       = 0x1a
	comSetOption       = 0x1b
	comStmtFetch       = 0x1c
	comResetConnection = 0x1f
)

// conn is one connection that is logged in, or about to be.
type conn struct {
	h        *Handler
	client   *client
	up       *upstream
	host     string
	port     int
	pid      int
	exe      string
	cred     guard.Credential
	readOnly bool // the session's transactions are
	db       string
	system   bool // "mysql" was the default database at some time
	caps     uint32
	hide     rename
	filter   guard.Filter
	scrub    guard.Filter // of answers
	long     long
	prepared map[uint32]string // class, by statement
	did      tally
	out      []byte // not yet written to the client
	in       []byte // the command, for reuse
}

// long is the data of one parameter on its way: one stream, however it is cut.
type long struct {
	filter guard.Filter
	head   [6]byte // statement and parameter
	held   int
}

var errStopped = errors.New("stopped")

func (s *conn) action() string {
	if s.readOnly {
		return "db:read"
	}
	return "db:query"
}

func (s *conn) use(action string) guard.Use {
	return guard.Use{
		Session: s.h.Session, Credential: s.cred, Channel: guard.ChannelMySQL, Action: action, Resource: s.db,
		Host: s.host, Port: s.port, Path: "/" + s.db, PID: s.pid, Exe: s.exe, At: time.Now(),
	}
}

func (s *conn) refuse(u guard.Use, d guard.Decision) {
	s.did.refused++
	if s.h.Refused != nil {
		s.h.Refused(u, d)
	}
}

func (s *conn) open() guard.Filter {
	var home []string
	for _, c := range s.h.candidates(s.host, s.port) {
		home = append(home, c.Name)
	}
	return s.h.Open(guard.Origin{
		Channel: guard.ChannelMySQL, Source: "broker", PID: s.pid, Exe: s.exe, Host: s.host, Port: s.port, Home: home,
	})
}

// judge passes p, in place, through the leak line as a whole. The NUL that is put
// behind it, in what is left of p's room, ends what may be the beginning of a value.
func (s *conn) judge(p []byte) *serverError {
	if s.filter == nil {
		if s.filter = s.open(); s.filter == nil {
			return stopped(guard.Decision{Rule: "no filter", Reason: "there is no leak line"})
		}
	}
	f := s.filter
	s.filter = nil
	got := 0
	for step, in := range [][]byte{append(p, 0), nil} {
		how := guard.Pause
		if step == 1 {
			how = guard.End
		}
		out, d := f(in, how)
		if d.Action.Stops() {
			return stopped(d)
		}
		if got+len(out) > len(p)+1 {
			return stopped(guard.Decision{Rule: "length", Reason: "the filter changed its length"})
		}
		copy(p[min(got, len(p)):], out)
		if got += len(out); got == len(p)+1 {
			s.filter = f // nothing is held: the stream goes on
			return nil
		}
	}
	return stopped(guard.Decision{Rule: "length", Reason: "the filter changed its length"})
}

// begin sets what the scope asks for, before the client's first command.
func (s *conn) begin() *serverError {
	s.prepared = map[uint32]string{}
	s.system = strings.EqualFold(s.db, "mysql")
	if !s.readOnly {
		return nil
	}
	if err := s.ask("SET SESSION TRANSACTION READ ONLY"); err != nil {
		return refuse("the server did not make the session read-only", "db:read needs a server that knows SET SESSION TRANSACTION READ ONLY")
	}
	return nil
}

// ask sends a statement of guard's own, which the client hears nothing of.
func (s *conn) ask(sql string) error {
	p, _ := appendPacket(nil, append([]byte{comQuery}, sql...), 0)
	if _, err := s.up.c.Write(p); err != nil {
		return err
	}
	msg, _, err := readPacket(s.up.r, nil, 64<<10)
	if err != nil {
		return err
	}
	if len(msg) == 0 || msg[0] != 0 {
		return errFrame
	}
	return nil
}

// run serves commands until one side ends.
func (s *conn) run() {
	for {
		msg, seq, err := readPacket(s.client.r, s.in[:0], maxCommand)
		s.in = msg
		if cap(msg) > 1<<20 {
			s.in = nil
		}
		if err != nil {
			if errors.Is(err, errTooBig) {
				s.client.seq = seq
				_ = s.client.fail(&serverError{code: 1153, state: "08S01", message: "guard reads commands of up to 64 MiB: send less at once"})
			}
			return
		}
		if len(msg) == 0 {
			return
		}
		s.client.seq = seq
		if err := s.command(msg); err != nil {
			return
		}
	}
}

// command serves one. An error ends the connection.
func (s *conn) command(msg []byte) error {
	class := "other"
	kind := msg[0]
	mints := false
	var accounts []account
	if kind != comStmtLongData {
		if err := s.endLong(); err != nil {
			return err
		}
	}
	switch kind {
	case comQuery, comStmtPrepare:
		sql, v, refusal := s.sql(msg[1:])
		if refusal != nil {
			return s.client.fail(refusal)
		}
		class, mints = v.class, v.mint
		accounts = v.minted
		if len(sql) != len(msg)-1 || len(sql) > 0 && &sql[0] != &msg[1] {
			msg = append([]byte{kind}, sql...)
		}
	case comInitDB:
		if refusal := s.choose(string(msg[1:])); refusal != nil {
			return s.client.fail(refusal)
		}
	case comProcessKill:
		r := reader{b: msg[1:]}
		id, ok := s.h.own(r.u32(), s.cred.Name, s.host, s.port)
		if r.bad || !ok {
			return s.client.fail(s.deny(refused(ruleCommand, "guard kills connections of this session only", "find its id with SELECT CONNECTION_ID()")))
		}
		msg = []byte{kind, byte(id), byte(id >> 8), byte(id >> 16), byte(id >> 24)}
	case comStmtExecute:
		r := reader{b: msg[1:]}
		class = s.prepared[r.u32()]
	case comStmtLongData:
		return s.longData(msg)
	case comStmtClose:
		r := reader{b: msg[1:]}
		delete(s.prepared, r.u32())
	case comQuit, comFieldList, comStatistics, comProcessInfo, comPing, comStmtReset, comSetOption, comStmtFetch, comResetConnection:
	default:
		return s.client.fail(s.deny(refused(ruleCommand, fmt.Sprintf("guard does not pass command 0x%02x on (replication, shutdown, another user)", kind), "connect anew for another user; the rest is for the user, outside the session")))
	}
	if refusal := s.judge(msg[1:]); refusal != nil {
		s.did.refused++
		return s.client.fail(refusal)
	}
	if mints { // after the leak line, which knows the password from then on
		if refusal := s.mint(accounts); refusal != nil {
			return s.client.fail(refusal)
		}
	}
	if err := s.send(msg); err != nil {
		return err
	}
	if kind == comQuit {
		return errStopped
	}
	return s.answer(kind, class)
}

func (s *conn) send(msg []byte) error {
	p, _ := appendPacket(make([]byte, 0, len(msg)+4+4*(len(msg)/maxPayload)), msg, 0)
	_, err := s.up.c.Write(p)
	return err
}

// deny records a refusal of the rules and says it.
func (s *conn) deny(d guard.Decision) *serverError {
	d.Secret = s.cred.ID()
	s.refuse(s.use(s.action()), d)
	return &serverError{code: codeDenied, state: stateDeny, message: "guard refused this: " + d.Reason + " (" + strings.Join(d.NextSteps, "; ") + "; layer: broker, rule: " + d.Rule + ")"}
}

// choose judges another default database.
func (s *conn) choose(db string) *serverError {
	was := s.db
	s.db = db
	if d := s.h.Decide(s.use(s.action())); !d.Allowed() {
		u := s.use(s.action())
		s.db = was
		d.Secret = s.cred.ID()
		s.refuse(u, d)
		return denied(d)
	}
	s.system = s.system || strings.EqualFold(db, "mysql")
	return nil
}

// sql judges a text by the rules, and returns what is to be sent of it.
func (s *conn) sql(text []byte) (out []byte, v verdict, refusal *serverError) {
	if !s.readOnly && !s.system && !interesting(text) {
		first, _ := statements(text[:min(len(text), 200)], true, true)
		return text, verdict{class: classOf(first)}, nil
	}
	v = judge(text, s.system, s.readOnly)
	switch {
	case v.charset:
		s.refuse(s.use(s.action()), refused(ruleCharset, "a charset in which SQL cannot be read"))
		return nil, v, charsetRefusal()
	case s.readOnly && v.write != "" && (!v.mint || s.h.Decide(s.use("token:mint")).Allowed()):
		return nil, v, s.deny(refused(ruleRead, "this session may only read (db:read): "+v.write, "ask the user to allow more: guard run --allow "+s.cred.Name+":db:query"))
	}
	for _, db := range v.use {
		if refusal := s.choose(db); refusal != nil {
			return nil, v, refusal
		}
	}
	if v.kills {
		out, refusal = s.kill(text, v)
		return out, v, refusal
	}
	return text, v, nil
}

// kill passes KILL on with the server's id of a connection of this session. With
// db:read nothing else is killed.
func (s *conn) kill(text []byte, v verdict) ([]byte, *serverError) {
	if real, ok := s.h.own(v.kill.id, s.cred.Name, s.host, s.port); ok {
		return fmt.Appendf(nil, "KILL %s %d", strings.ToUpper(v.kill.verb), real), nil
	}
	if !s.readOnly {
		return text, nil
	}
	return nil, s.deny(refused(ruleCommand, "guard kills connections of this session only", "write KILL QUERY and the number of SELECT CONNECTION_ID()"))
}

// mint judges a statement that makes or changes an account or a password, an
// action of its own. Allowed, the use is recorded, and what passwords stand in it go
// into the vault before it is sent.
func (s *conn) mint(accounts []account) *serverError {
	u := s.use("token:mint")
	if d := s.h.Decide(u); !d.Allowed() {
		d.Secret, d.Rule = s.cred.ID(), rulePassword
		d.Reason = "statements that make or change an account or a password are not allowed: they would outlive the session"
		d.NextSteps = []string{"ask the user to do it outside the session, or to allow it: guard run --allow " + s.cred.Name + " --allow " + s.cred.Name + ":token:mint"}
		s.refuse(u, d)
		return denied(d)
	}
	var failed error
	sent := false
	d, err := s.h.Use(u, func(guard.Secret) (string, error) {
		sent = true
		for _, a := range accounts {
			if s.h.Minted == nil || a.password == "" {
				continue
			}
			if failed = s.h.Minted(u, a.user, guard.NewSecret([]byte(a.password))); failed != nil {
				return "failed", failed
			}
		}
		return fmt.Sprintf("statement sent, %d passwords stored", len(accounts)), nil
	})
	switch {
	case err == nil && sent:
		return nil
	case failed != nil:
		return refuse("guard could not store the password that this statement sets, so it was not sent", "tell the user")
	}
	return denied(d)
}

// longData passes a part of a parameter on as far as its filter lets it. There is no
// answer to it, so that a refusal ends the connection.
func (s *conn) longData(msg []byte) error {
	if len(msg) < 7 {
		return errFrame
	}
	if s.long.filter == nil || [6]byte(msg[1:7]) != s.long.head {
		if err := s.endLong(); err != nil {
			return err
		}
		s.long = long{filter: s.open(), head: [6]byte(msg[1:7])}
		if s.long.filter == nil {
			return errStopped
		}
	}
	return s.pass(msg[7:], guard.More)
}

func (s *conn) pass(p []byte, step guard.Step) error {
	out, d := s.long.filter(p, step)
	if d.Action.Stops() {
		s.did.refused++
		_ = s.client.fail(stopped(d))
		return errStopped
	}
	if s.long.held += len(p) - len(out); s.long.held < 0 {
		return errStopped
	}
	if len(out) == 0 && (len(p) > 0 || step == guard.End) {
		return nil
	}
	return s.send(append(append([]byte{comStmtLongData}, s.long.head[:]...), out...))
}

// endLong sends what the filter kept of a parameter.
func (s *conn) endLong() error {
	if s.long.filter == nil {
		return nil
	}
	err := s.pass(nil, guard.End)
	s.long = long{}
	return err
}
