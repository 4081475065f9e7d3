package mail

import (
	"bufio"
	"bytes"
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"net"
	"strconv"
	"strings"
	"sync"
	"time"

	"guard"
)

// imap is one connection to an IMAP server.
type imap struct {
	*link
	reads    bool // the scope lets it read only
	mechs    []string
	caps     []string
	filter   guard.Filter
	held     int
	commands int

	mu sync.Mutex // writes to the client, a response at a time
}

// IMAP serves one connection to its end, and closes it.
func (h *Handler) IMAP(ctx context.Context, c net.Conn, host string, port int) {
	defer c.Close()
	unhook := context.AfterFunc(ctx, func() { c.Close() })
	defer unhook()
	l := h.start(ctx, c, host, port, "imap", guard.ChannelIMAP, 993)
	if l == nil {
		return
	}
	if !h.ready() {
		_ = l.c.say("* BYE guard's mail broker is not set up in this session; guard doctor says what is missing")
		return
	}
	s := &imap{link: l}
	var wg sync.WaitGroup
	defer func() {
		c.Close()
		s.detach()
		wg.Wait()
		if s.used && h.Ended != nil {
			h.Ended(s.use(s.cred, s.scope(), ""), fmt.Sprintf("%d commands, %d refused", s.commands, s.refusals), time.Since(s.begin))
		}
	}()
	if s.c.say("* OK ["+s.before()+"] guard") != nil {
		return
	}
	line, err := s.greet()
	if err != nil {
		return
	}
	if s.filter = h.Open(s.origin()); s.filter == nil {
		return
	}
	_ = s.up.SetDeadline(time.Time{})
	from := s.up.r // a client that is gone at once has s.up taken away
	wg.Go(func() {
		defer c.Close()
		_ = s.back(from)
	})
	if line != "" && s.command(line) != nil {
		return
	}
	for {
		line, err := s.c.line()
		if errors.Is(err, errLine) {
			s.tell("* BYE guard refuses lines that are longer than 16 KiB, or that have a lone CR or LF")
		}
		if err != nil || s.command(line) != nil {
			return
		}
	}
}

// scope is the action that the connection was allowed.
func (s *imap) scope() string {
	if s.reads {
		return "mail:read"
	}
	return "mail:write"
}

// before is what guard offers before the login.
func (s *imap) before() string {
	c := "CAPABILITY IMAP4rev1 SASL-IR LITERAL+ ID"
	if !s.secure && s.h.GetCertificate != nil {
		c += " STARTTLS"
	}
	for _, m := range strings.Fields(mechanisms) {
		c += " AUTH=" + m
	}
	return c
}

func (s *imap) tell(line string) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.c.say(line)
}

// greet serves what comes before the login, and ends with it. first is the command
// of a client that did not log in.
func (s *imap) greet() (first string, err error) {
	for {
		line, err := s.c.line()
		if err != nil {
			return "", err
		}
		if d, ok := s.clean(line); !ok {
			s.refusals++
			_ = s.c.say("* BYE " + stopped(d))
			return "", errStopped
		}
		tag, rest, _ := strings.Cut(line, " ")
		name, args, _ := strings.Cut(rest, " ")
		if !isTag(tag) {
			_ = s.c.say("* BAD want: TAG COMMAND")
			continue
		}
		switch strings.ToUpper(name) {
		case "CAPABILITY":
			err = s.c.say("* "+s.before(), tag+" OK done")
		case "NOOP":
			err = s.c.say(tag + " OK done")
		case "ID":
			err = s.c.say("* ID NIL", tag+" OK done")
		case "LOGOUT":
			_ = s.c.say("* BYE", tag+" OK done")
			return "", errStopped
		case "STARTTLS":
			if s.secure || s.h.GetCertificate == nil {
				err = s.c.say(tag + " BAD not now")
				break
			}
			if err = s.c.say(tag + " OK go ahead"); err == nil {
				if err = s.startTLS(); errors.Is(err, errInject) {
					_ = s.c.say("* BYE guard refuses commands behind STARTTLS")
				}
			}
		case "LOGIN":
			var user, password string
			if user, password, err = s.loginArgs(args); err == nil {
				if err = s.enter(tag, user, password, false); err == nil && s.up != nil {
					return "", nil
				}
			} else if errors.Is(err, errSASL) {
				err = s.c.say(tag + " BAD want: LOGIN user password")
			}
		case "AUTHENTICATE":
			mech, initial, has := strings.Cut(args, " ")
			user, password, oauth, lerr := takeLogin(strings.ToUpper(mech), initial, has, s.challenge)
			switch {
			case lerr == nil:
				if err = s.enter(tag, user, password, oauth); err == nil && s.up != nil {
					return "", nil
				}
			case errors.Is(lerr, errSASL):
				err = s.c.say(tag + " BAD the login is malformed, or was given up")
			case errors.Is(lerr, errMechanism):
				err = s.c.say(tag + " NO guard takes " + mechanisms)
			default:
				return "", lerr
			}
		default:
			// A client that does not log in: guard does, and the command is served.
			if err = s.enter("", "", "", false); err == nil && s.up != nil {
				return line, nil
			} else if err == nil {
				err = s.c.say(tag + " NO log in first")
			}
		}
		if err != nil {
			return "", err
		}
	}
}

func isTag(t string) bool {
	return t != "" && len(t) <= 64 && t != "*" && t != "+" && !strings.ContainsAny(t, "(){}%*\"\\+ ]")
}

func (s *imap) challenge(text string) (string, error) {
	if err := s.c.say("+ " + text); err != nil {
		return "", err
	}
	line, err := s.c.line()
	if err != nil {
		return "", err
	}
	if line == "*" {
		return "", errSASL
	}
	if d, ok := s.clean(line); !ok {
		s.refusals++
		_ = s.c.say("* BYE " + stopped(d))
		return "", errStopped
	}
	return line, nil
}

// loginArgs reads two strings: atoms, quoted, or literals.
func (s *imap) loginArgs(args string) (user, password string, err error) {
	var got [2]string
	for i := range got {
		args = strings.TrimLeft(args, " ")
		switch n, sync, lit := literal(args); {
		case strings.HasPrefix(args, "\""):
			var b strings.Builder
			k := 1
			for ; k < len(args) && args[k] != '"'; k++ {
				if args[k] == '\\' && k+1 < len(args) {
					k++
				}
				b.WriteByte(args[k])
			}
			if k >= len(args) {
				return "", "", errSASL
			}
			got[i], args = b.String(), args[k+1:]
		case lit && strings.HasPrefix(args, "{"):
			if n > 1024 {
				return "", "", errSASL
			}
			if sync {
				if err := s.c.say("+ go ahead"); err != nil {
					return "", "", err
				}
			}
			b := make([]byte, n)
			if _, err := io.ReadFull(s.c.r, b); err != nil {
				return "", "", err
			}
			if args, err = s.c.line(); err != nil {
				return "", "", err
			}
			if d, ok := s.clean(string(b)); !ok {
				s.refusals++
				_ = s.c.say("* BYE " + stopped(d))
				return "", "", errStopped
			}
			got[i] = string(b)
		default:
			got[i], args, _ = strings.Cut(args, " ")
			args = " " + args
		}
	}
	if strings.TrimSpace(args) != "" || got[1] == "" {
		return "", "", errSASL
	}
	return got[0], got[1], nil
}

// literal reads "{n}" or "{n+}" at the end of a line.
func literal(line string) (n int64, sync, ok bool) {
	i := strings.LastIndexByte(line, '{')
	if i < 0 || !strings.HasSuffix(line, "}") {
		return 0, false, false
	}
	d := line[i+1 : len(line)-1]
	plus := strings.HasSuffix(d, "+")
	if d = strings.TrimSuffix(d, "+"); d == "" || len(d) > 10 {
		return 0, false, false
	}
	for _, c := range d {
		if c < '0' || c > '9' {
			return 0, false, false
		}
	}
	n, _ = strconv.ParseInt(d, 10, 64)
	return n, !plus, true
}

// enter logs in upstream and answers tag; "": nothing is answered. A refusal is
// answered, too, and s.up is nil after it.
func (s *imap) enter(tag, user, password string, oauth bool) error {
	no := func(words string) error {
		if tag == "" {
			return s.c.say("* NO " + words)
		}
		return s.c.say(tag + " NO [AUTHENTICATIONFAILED] " + words)
	}
	if tag != "" {
		if words := s.identify(user, password); words != "" {
			return no(oneLine(words))
		}
		s.oauth = oauth
	}
	for try := 1; ; try++ {
		if words := s.pick(); words != "" {
			return no(oneLine(words))
		}
		action := "mail:write"
		if s.reads = false; !s.h.Decide(s.use(s.cred, action, "")).Allowed() && s.h.Decide(s.use(s.cred, "mail:read", "")).Allowed() {
			action, s.reads = "mail:read", true
		}
		var upErr error
		sent := false
		d, err := s.h.Use(s.use(s.cred, action, ""), func(v guard.Secret) (string, error) {
			sent = true
			upErr = s.authenticate(v)
			return outcome(upErr), upErr
		})
		switch {
		case err == nil:
			s.used = true
			s.hide = rename{from: s.cred.User, to: s.shown()}
			if tag == "" {
				return nil
			}
			return s.c.say(tag + " OK [" + s.after() + "] guard logged in")
		case !sent:
			s.refusals++
			return no(denied(d))
		case errors.Is(upErr, errLogin) && try < 3 && pause(s.ctx, 150*time.Millisecond):
			s.detach()
			continue
		}
		s.detach()
		return no(oneLine(s.failed(upErr)))
	}
}

// after is what the server offers after the login, without what guard does not pass.
func (s *imap) after() string {
	return "CAPABILITY " + strings.Join(s.passing(s.caps), " ")
}

func (s *imap) passing(caps []string) []string {
	var out []string
	for _, c := range caps {
		up := strings.ToUpper(c)
		if strings.HasPrefix(up, "AUTH=") || strings.HasPrefix(up, "COMPRESS") || strings.HasPrefix(up, "URLAUTH") ||
			up == "STARTTLS" || up == "LOGINDISABLED" || up == "UNAUTHENTICATE" || up == "SASL-IR" || up == "LOGIN-REFERRALS" {
			continue
		}
		out = append(out, c)
	}
	return out
}

// round sends a command upstream, before the login is done, and returns its tagged
// answer; untagged capabilities are kept.
func (s *imap) round(cmd string, answer func(challenge []byte) ([]byte, error)) (ok bool, err error) {
	_ = s.up.SetDeadline(time.Now().Add(timeout))
	if cmd != "" {
		if err := s.up.say("g " + cmd); err != nil {
			return false, err
		}
	}
	for range 200 {
		line, err := s.up.line()
		if err != nil {
			return false, err
		}
		if i := strings.Index(strings.ToUpper(line), "CAPABILITY "); i >= 0 {
			text, _, _ := strings.Cut(line[i+len("CAPABILITY "):], "]")
			s.caps = strings.Fields(text)
		}
		switch {
		case cmd == "":
			return strings.HasPrefix(line, "* OK"), nil
		case strings.HasPrefix(line, "+"):
			if answer == nil {
				return false, errLogin
			}
			c, err := base64.StdEncoding.DecodeString(strings.TrimSpace(line[1:]))
			if err != nil {
				return false, errLogin
			}
			a, err := answer(c)
			if err != nil {
				_ = s.up.say("*")
				return false, err
			}
			err = s.up.say(base64.StdEncoding.EncodeToString(a))
			clear(a)
			if err != nil {
				return false, err
			}
		case strings.HasPrefix(line, "g "):
			return strings.HasPrefix(line, "g OK"), nil
		}
	}
	return false, errLogin
}

func (s *imap) connect() (err error) {
	up, err := s.dial()
	if err != nil {
		return err
	}
	s.attach(up)
	defer func() {
		if err != nil {
			s.detach()
		}
	}()
	s.caps = nil
	if ok, err := s.round("", nil); !ok {
		return errors.Join(err, errors.New("no greeting"))
	}
	if err := s.learn(); err != nil || s.direct {
		return err
	}
	if !s.offers("STARTTLS") {
		if s.plain() {
			return nil
		}
		return errPlain
	}
	if ok, err := s.round("STARTTLS", nil); !ok {
		return errors.Join(err, errPlain)
	}
	t, err := s.upgrade(s.up)
	if err != nil {
		return err
	}
	s.up, s.caps = t, nil // what was said before TLS does not count
	return s.learn()
}

func (s *imap) learn() error {
	if len(s.caps) == 0 {
		if ok, err := s.round("CAPABILITY", nil); !ok {
			return errors.Join(err, errors.New("no capabilities"))
		}
	}
	s.mechs = nil
	for _, c := range s.caps {
		if m, ok := strings.CutPrefix(strings.ToUpper(c), "AUTH="); ok {
			s.mechs = append(s.mechs, m)
		}
	}
	return nil
}

func (s *imap) offers(word string) bool {
	for _, c := range s.caps {
		if strings.EqualFold(c, word) {
			return true
		}
	}
	return false
}

func (s *imap) authenticate(v guard.Secret) error {
	if s.up == nil {
		if err := s.connect(); err != nil {
			return err
		}
	}
	user, password := account(s.cred, s.user, v)
	defer clear(password)
	_, isTLS := s.up.Conn.(interface{ HandshakeContext(context.Context) error })
	safe := isTLS || s.plain()
	ir := s.offers("SASL-IR")
	a, err := chooseSASL(s.mechs, s.oauth, safe, s.host, s.port, user, password)
	s.caps = nil
	var ok bool
	switch {
	case err == nil:
		defer a.wipe()
		cmd := "AUTHENTICATE " + a.mech
		sent := a.first == nil
		if !sent && ir {
			cmd, sent = cmd+" "+a.initial(), true
		}
		ok, err = s.round(cmd, func(c []byte) ([]byte, error) {
			if !sent {
				sent = true
				return bytes.Clone(a.first), nil
			}
			return a.next(c)
		})
		ok = ok && a.done()
	case safe && !s.oauth && !s.offers("LOGINDISABLED"):
		q := func(b string) string { return `"` + strings.NewReplacer(`\`, `\\`, `"`, `\"`).Replace(b) + `"` }
		if strings.ContainsAny(user+string(password), "\r\n\x00") {
			return errLogin
		}
		ok, err = s.round("LOGIN "+q(user)+" "+q(string(password)), nil)
	}
	if err != nil {
		return err
	}
	if !ok {
		return errLogin
	}
	return s.learn()
}

// What commands do. What is in neither is refused.
const (
	readers = " CAPABILITY NOOP ID ENABLE EXAMINE SELECT LIST LSUB XLIST STATUS NAMESPACE CHECK CLOSE UNSELECT SEARCH ESEARCH SORT THREAD FETCH IDLE LOGOUT GETQUOTA GETQUOTAROOT GETMETADATA GETANNOTATION MYRIGHTS GETACL LISTRIGHTS LANGUAGE COMPARATOR "
	writers = " STORE APPEND EXPUNGE COPY MOVE CREATE DELETE RENAME SUBSCRIBE UNSUBSCRIBE SETMETADATA SETANNOTATION REPLACE CATENATE "
)

// command serves one command after the login, with its literals.
func (s *imap) command(line string) error {
	tag, rest, _ := strings.Cut(line, " ")
	name, args, _ := strings.Cut(rest, " ")
	name = strings.ToUpper(name)
	if !isTag(tag) || name == "" {
		s.tell("* BAD want: TAG COMMAND")
		return errStopped
	}
	known := name
	if name == "UID" {
		sub, _, _ := strings.Cut(args, " ")
		known = strings.ToUpper(sub)
		if !strings.Contains(" SEARCH FETCH SORT THREAD STORE COPY MOVE EXPUNGE REPLACE ", " "+known+" ") {
			known = ""
		}
	}
	is := func(list string) bool { return known != "" && strings.Contains(list, " "+known+" ") }
	switch {
	case is(readers):
		if s.reads && name == "SELECT" {
			line = tag + " EXAMINE " + args
		}
	case is(writers) && !s.reads:
	case is(writers):
		d := s.h.Decide(s.use(s.cred, "mail:write", ""))
		if d.Allowed() {
			d = guard.Decision{Action: guard.Block, Rule: "scope", Reason: "this connection was allowed to read only"}
		}
		d.Secret = s.cred.ID()
		s.refused(s.cred, "mail:write", "", known, d)
		return s.refuse(tag, line, "[NOPERM] "+denied(d))
	default:
		s.refused(s.cred, s.scope(), "", "unknown", guard.Decision{Action: guard.Block, Rule: "imap command", Reason: "a command that guard does not pass"})
		return s.refuse(tag, line, "[CANNOT] guard refuses this command: it does not know it, or it gives others access, makes bearer URLs or changes the connection")
	}
	s.commands++
	if err := s.pass(line); err != nil {
		return err
	}
	for {
		n, _, ok := literal(line)
		if !ok {
			break
		}
		if err := s.passBytes(n); err != nil {
			return err
		}
		var err error
		if line, err = s.c.line(); err != nil {
			return err
		}
		if err := s.pass(line); err != nil {
			return err
		}
	}
	if name == "IDLE" {
		done, err := s.c.line()
		if err != nil {
			return err
		}
		if !strings.EqualFold(done, "DONE") {
			s.tell("* BYE guard wants DONE after IDLE")
			return errStopped
		}
		return s.pass("DONE")
	}
	return nil
}

// refuse answers a command that does not go on, and throws away the rest of it.
func (s *imap) refuse(tag, line, words string) error {
	if err := s.tell(tag + " NO " + words); err != nil {
		return err
	}
	for {
		n, sync, ok := literal(line)
		if !ok || sync { // the client waits, and is told no
			return nil
		}
		if _, err := io.CopyN(io.Discard, s.c.r, n); err != nil {
			return err
		}
		var err error
		if line, err = s.c.line(); err != nil {
			return err
		}
	}
}

// pass sends a line on. The server may answer it: so the filter keeps nothing of it,
// and what follows is another stream if it did.
func (s *imap) pass(line string) error {
	if err := s.put([]byte(line+"\r\n"), guard.More); err != nil || s.held == 0 {
		return err
	}
	if err := s.put(nil, guard.Pause); err != nil || s.held == 0 {
		return err
	}
	if err := s.put(nil, guard.End); err != nil {
		return err
	}
	s.held = 0
	if s.filter = s.h.Open(s.origin()); s.filter == nil {
		return errStopped
	}
	return nil
}

func (s *imap) passBytes(n int64) error {
	buf := make([]byte, 32<<10)
	for n > 0 {
		k, err := s.c.r.Read(buf[:min(n, int64(len(buf)))])
		if k > 0 {
			n -= int64(k)
			if err := s.put(buf[:k], guard.More); err != nil {
				return err
			}
		}
		if err != nil {
			return err
		}
	}
	return nil
}

func (s *imap) put(p []byte, step guard.Step) error {
	out, d := s.filter(p, step)
	if d.Action.Stops() {
		s.refusals++
		s.tell("* BYE " + stopped(d))
		s.up.Close() // what it has of the command has no end
		return errStopped
	}
	s.held += len(p) - len(out)
	if len(out) == 0 {
		return nil
	}
	_, err := s.up.Write(out)
	return err
}

// back sends the server's responses to the client, one at a time.
func (s *imap) back(r *bufio.Reader) error {
	for {
		if _, err := r.Peek(1); err != nil {
			return err
		}
		s.mu.Lock()
		err := s.response(r)
		s.mu.Unlock()
		if err != nil {
			return err
		}
	}
}

// response is a line with its literals.
func (s *imap) response(r *bufio.Reader) error {
	var f guard.Filter
	if s.h.Scrub != nil {
		f = s.h.Scrub([]guard.SecretID{s.cred.ID()})
	}
	put := func(p []byte, step guard.Step) error {
		if f != nil {
			out, d := f(p, step)
			if d.Action.Stops() {
				return errStopped
			}
			p = out
		}
		if len(p) == 0 {
			return nil
		}
		_, err := s.c.Write(p)
		return err
	}
	for first := true; ; first = false {
		line, err := r.ReadSlice('\n')
		whole := err == nil
		if errors.Is(err, bufio.ErrBufferFull) {
			err = nil // longer than is looked into: in pieces
		}
		if err != nil {
			return err
		}
		out := line
		switch {
		case first && whole && bytes.HasPrefix(bytes.ToUpper(line), []byte("* CAPABILITY ")):
			out = []byte(s.capabilities(string(line)))
		case first && whole && !s.fetched(line):
			out = []byte(s.hide.words(s.capabilities(string(line))))
		}
		if err := put(out, guard.More); err != nil {
			return err
		}
		if !whole {
			continue
		}
		n, _, ok := literal(strings.TrimSuffix(string(line), "\r\n"))
		if !ok {
			return put(nil, guard.End)
		}
		buf := make([]byte, min(n, 32<<10))
		for n > 0 {
			k, err := r.Read(buf[:min(n, int64(len(buf)))])
			n -= int64(k)
			if perr := put(buf[:k], guard.More); perr != nil {
				return perr
			}
			if err != nil {
				return err
			}
		}
	}
}

// fetched says whether a response holds data of messages or mailboxes, which stay as
// they are.
func (s *imap) fetched(line []byte) bool {
	if !bytes.HasPrefix(line, []byte("* ")) {
		return false
	}
	for _, p := range []string{"OK", "NO", "BAD", "BYE", "PREAUTH"} {
		if bytes.HasPrefix(line[2:], []byte(p+" ")) {
			return false
		}
	}
	return true
}

// capabilities rewrites a CAPABILITY response or response code.
func (s *imap) capabilities(line string) string {
	i := strings.Index(strings.ToUpper(line), "CAPABILITY ")
	if i < 0 {
		return line
	}
	i += len("CAPABILITY ")
	end := i + strings.IndexAny(line[i:]+"]", "]\r")
	return line[:i] + strings.Join(s.passing(strings.Fields(line[i:end])), " ") + line[end:]
}
