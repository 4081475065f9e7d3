package mail

import (
	"context"
	"errors"
	"fmt"
	"guard/broker"
	"net"
	"strconv"
	"strings"
	"time"

	"guard"
)

// smtp is one submission.
type smtp struct {
	*link
	hello      string // the client's EHLO
	in         bool   // the upstream that there is was logged in to
	extensions []string
	mechs      []string
	from       string // the client's MAIL, not yet sent
	mail       bool   // a transaction is on
	to         int    // recipients that were accepted
	messages   int
	recipients int
}

// SMTP serves one connection to its end, and closes it.
func (h *Handler) SMTP(ctx context.Context, c net.Conn, host string, port int) {
	defer c.Close()
	unhook := context.AfterFunc(ctx, func() { c.Close() })
	defer unhook()
	l := h.start(ctx, c, host, port, "smtp", guard.ChannelSMTP, 465)
	if l == nil {
		return
	}
	if !h.ready() {
		_ = l.c.say("554 5.3.0 guard's mail broker is not set up in this session; guard doctor says what is missing")
		return
	}
	s := &smtp{link: l}
	defer func() {
		s.detach()
		if s.used && h.Ended != nil {
			h.Ended(s.use(s.cred, "mail:send", ""), fmt.Sprintf("%d messages to %d recipients, %d refused", s.messages, s.recipients, s.refusals), time.Since(s.begin))
		}
	}()
	if s.c.say("220 "+s.host+" ESMTP guard") != nil {
		return
	}
	for {
		line, err := s.c.line()
		if errors.Is(err, errLine) {
			_ = s.c.say("500 5.5.2 guard refuses lines that are longer than 16 KiB, or that have a lone CR or LF")
		}
		if err != nil || s.command(line) != nil {
			return
		}
	}
}

// command serves one command; an error ends the connection.
func (s *smtp) command(line string) error {
	if d, ok := s.clean(line); !ok {
		s.refusals++
		_ = s.c.say("554 5.7.1 " + stopped(d))
		return errStopped
	}
	verb, rest, _ := strings.Cut(line, " ")
	switch strings.ToUpper(verb) {
	case "EHLO", "HELO":
		return s.greet(strings.ToUpper(verb), rest)
	case "STARTTLS":
		if s.secure || s.h.GetCertificate == nil || rest != "" {
			return s.c.say("503 5.5.1 not now")
		}
		if err := s.c.say("220 2.0.0 go ahead"); err != nil {
			return err
		}
		if err := s.startTLS(); err != nil {
			if errors.Is(err, errInject) {
				_ = s.c.say("554 5.5.0 guard refuses commands behind STARTTLS")
			}
			return err
		}
		s.reset()
		s.hello = ""
		return nil
	case "AUTH":
		return s.auth(rest)
	case "MAIL":
		if s.hello == "" || s.mail {
			return s.c.say("503 5.5.1 EHLO first, and one MAIL at a time")
		}
		if len(rest) < 5 || !strings.EqualFold(rest[:5], "FROM:") {
			return s.c.say("501 5.5.4 want MAIL FROM:<address>")
		}
		s.from, s.mail = line, true
		return s.c.say("250 2.1.0 ok")
	case "RCPT":
		return s.rcpt(line, rest)
	case "DATA":
		if s.to == 0 {
			return s.c.say("503 5.5.1 no recipient was accepted")
		}
		return s.data()
	case "BDAT":
		_ = s.c.say("502 5.5.1 guard does not offer CHUNKING: use DATA")
		return errStopped // what follows is not to be taken for commands
	case "RSET":
		if s.up != nil {
			if code, _, err := s.ask("RSET"); err != nil || code != 250 {
				s.detach()
			}
		}
		s.reset()
		return s.c.say("250 2.0.0 ok")
	case "NOOP":
		return s.c.say("250 2.0.0 ok")
	case "QUIT":
		if s.up != nil {
			_, _, _ = s.ask("QUIT")
		}
		_ = s.c.say("221 2.0.0 bye")
		return errStopped
	}
	return s.c.say("502 5.5.1 guard does not know this command")
}

func (s *smtp) reset() { s.from, s.mail, s.to = "", false, 0 }

// greet answers EHLO with what the server offers, as far as guard takes part.
func (s *smtp) greet(verb, name string) error {
	if name == "" || strings.ContainsAny(name, " \t") {
		return s.c.say("501 5.5.4 want EHLO name")
	}
	s.reset()
	s.hello = name
	if s.up == nil {
		if err := s.connect(); err != nil {
			return s.c.say("421 4.4.0 " + oneLine(s.failed(err)))
		}
	}
	if verb == "HELO" {
		return s.c.say("250 " + s.host)
	}
	out := []string{s.host}
	for _, e := range s.extensions {
		switch word, _, _ := strings.Cut(strings.ToUpper(e), " "); word {
		case "PIPELINING", "8BITMIME", "SMTPUTF8", "SIZE", "ENHANCEDSTATUSCODES", "DSN", "REQUIRETLS", "DELIVERBY", "MT-PRIORITY", "FUTURERELEASE":
			out = append(out, e)
		}
	}
	if !s.secure && s.h.GetCertificate != nil {
		out = append(out, "STARTTLS")
	}
	out = append(out, "AUTH "+mechanisms)
	for i := range out {
		sep := "-"
		if i == len(out)-1 {
			sep = " "
		}
		out[i] = "250" + sep + out[i]
	}
	return s.c.say(out...)
}

// pass hands a reply of the server's on.
func (s *smtp) pass(code int, lines []string) error {
	out := make([]string, len(lines))
	for i, l := range lines {
		sep := "-"
		if i == len(lines)-1 {
			sep = " "
		}
		out[i] = strconv.Itoa(code) + sep + s.scrubbed(l)
	}
	return s.c.say(out...)
}

func (s *smtp) auth(rest string) error {
	mech, initial, has := strings.Cut(rest, " ")
	if s.hello == "" || s.mail || s.chosen {
		return s.c.say("503 5.5.1 not now")
	}
	var gone error
	user, password, oauth, err := takeLogin(strings.ToUpper(mech), initial, has, func(text string) (string, error) {
		if gone = s.c.say("334 " + text); gone != nil {
			return "", gone
		}
		line, err := s.c.line()
		if err != nil {
			gone = err
			return "", err
		}
		if line == "*" {
			return "", errSASL
		}
		if d, ok := s.clean(line); !ok {
			s.refusals++
			_ = s.c.say("554 5.7.1 " + stopped(d))
			gone = errStopped
			return "", gone
		}
		return line, nil
	})
	switch {
	case gone != nil:
		return gone
	case errors.Is(err, errMechanism):
		return s.c.say("504 5.5.4 guard takes " + mechanisms)
	case err != nil:
		return s.c.say("501 5.5.2 the login is malformed, or was given up")
	}
	if words := s.identify(user, password); words != "" {
		return s.c.say("535 5.7.8 " + oneLine(words))
	}
	s.oauth = oauth
	// Where the scope names recipients, the login waits for one that it covers.
	if s.h.Decide(s.use(s.cred, "mail:send", "")).Allowed() {
		if code, words := s.login(""); code != 0 {
			s.chosen = false
			return s.c.say(fmt.Sprintf("%d %s", code, words))
		}
	}
	return s.c.say("235 2.7.0 guard logs in")
}

// login logs in upstream through the use line, for a recipient. code is 0 where that
// went well.
func (s *smtp) login(recipient string) (code int, words string) {
	for try := 1; ; try++ {
		if words := s.pick(); words != "" {
			return 530, "5.7.0 " + oneLine(words)
		}
		var upErr error
		sent := false
		d, err := s.h.Use(s.use(s.cred, "mail:send", recipient), func(v guard.Secret) (string, error) {
			sent = true
			upErr = s.authenticate(v)
			return outcome(upErr), upErr
		})
		switch {
		case err == nil:
			s.used, s.in = true, true
			s.hide = rename{from: s.cred.User, to: s.shown()}
			return 0, ""
		case !sent:
			s.refusals++
			return 554, "5.7.1 " + denied(d)
		case errors.Is(upErr, errLogin) && try < 3 && broker.Wait(s.ctx, 150*time.Millisecond):
			s.detach() // a rotation may be between the issuer's change and the vault's
			continue
		}
		s.detach()
		return 535, "5.7.8 " + oneLine(s.failed(upErr))
	}
}

// shown is the user as the client knows it.
func (l *link) shown() string {
	if l.user != "" {
		return l.user
	}
	return l.cred.Name
}

// recipient is the address of a RCPT, its domain in lower case.
func recipient(rest string) (string, bool) {
	if len(rest) < 3 || !strings.EqualFold(rest[:3], "TO:") {
		return "", false
	}
	a := strings.TrimLeft(rest[3:], " ")
	end := strings.IndexByte(a, '>')
	if !strings.HasPrefix(a, "<") || end < 0 || strings.ContainsAny(a[1:end], "<\"\\ ,:;()[]\t") {
		return "", false // quoted and source-routed ones may be read in two ways
	}
	a = a[1:end]
	local, domain, ok := strings.Cut(a, "@")
	if local == "" || ok && (domain == "" || strings.Contains(domain, "@")) {
		return "", false
	}
	if ok {
		return local + "@" + strings.ToLower(domain), true
	}
	return local, true
}

func (s *smtp) rcpt(line, rest string) error {
	if !s.mail {
		return s.c.say("503 5.5.1 MAIL first")
	}
	to, ok := recipient(rest)
	if !ok {
		return s.c.say("501 5.1.3 guard wants RCPT TO:<address> with a plain address")
	}
	if words := s.pick(); words != "" {
		return s.c.say("530 5.7.0 " + oneLine(words))
	}
	if local, _, _ := strings.Cut(to, "@"); strings.Contains(local, "!") && !s.h.Decide(s.use(s.cred, "mail:send", "")).Allowed() {
		d := guard.Decision{Action: guard.Block, Rule: "scope", Reason: "the scope names recipients, and some servers take an address with ! for a route"}
		d.Secret = s.cred.ID()
		s.refused(s.cred, "mail:send", to, "RCPT", d)
		return s.c.say("550 5.7.1 " + denied(d))
	}
	if s.up == nil || !s.in {
		if code, words := s.login(to); code != 0 {
			return s.c.say(fmt.Sprintf("%d %s", code, words))
		}
	} else if d := s.h.Decide(s.use(s.cred, "mail:send", to)); !d.Allowed() {
		d.Secret = s.cred.ID()
		s.refused(s.cred, "mail:send", to, "RCPT", d)
		return s.c.say("550 5.7.1 " + denied(d))
	}
	if s.from != "" {
		code, lines, err := s.ask(s.from)
		if err != nil {
			return err
		}
		if code != 250 {
			s.reset()
			return s.pass(code, lines)
		}
		s.from = ""
	}
	code, lines, err := s.ask(line)
	if err != nil {
		return err
	}
	if code/100 == 2 {
		s.to++
	}
	return s.pass(code, lines)
}

// data sends a message through the filter as it comes.
func (s *smtp) data() error {
	code, lines, err := s.ask("DATA")
	if err != nil {
		return err
	}
	if code != 354 {
		return s.pass(code, lines)
	}
	if err := s.c.say("354 go ahead"); err != nil {
		return err
	}
	f, decoded := s.h.Open(s.origin()), s.decoded()
	if f == nil || decoded == nil {
		return errStopped
	}
	var refusal string
	put := func(p []byte, step guard.Step) error {
		if refusal != "" {
			return nil
		}
		out, d := f(p, step)
		if d.Action.Stops() {
			refusal = "554 5.7.1 " + stopped(d)
			return nil
		}
		_ = s.up.SetDeadline(time.Now().Add(5 * time.Minute))
		_, err := s.up.Write(out)
		return err
	}
	body := newBody()
	for !body.done {
		b, err := s.c.r.Peek(1)
		if err == nil {
			b, err = s.c.r.Peek(s.c.r.Buffered())
		}
		if err != nil {
			s.detach() // the server never sees the end of it
			return err
		}
		n, bad := body.feed(b)
		if bad != "" && refusal == "" {
			refusal = bad
		}
		if bad := decoded(b[:n], guard.More); bad != "" && refusal == "" {
			refusal = "554 5.7.1 " + bad
		}
		err = put(b[:n], guard.More)
		if _, derr := s.c.r.Discard(n); err == nil {
			err = derr
		}
		if err != nil {
			s.detach()
			return err
		}
	}
	if bad := decoded(nil, guard.End); bad != "" && refusal == "" {
		refusal = "554 5.7.1 " + bad
	}
	if err := put(nil, guard.End); err != nil {
		return err
	}
	n := s.to
	s.reset()
	if refusal != "" {
		s.refusals++
		s.detach() // a message whose end did not come is not delivered
		if err := s.c.say(refusal); err != nil || !body.nul {
			return err
		}
		return errStopped
	}
	code, lines, err = s.reply()
	if err != nil {
		return err
	}
	if code/100 == 2 {
		s.messages++
		s.recipients += n
	}
	return s.pass(code, lines)
}
