package mail

import (
	"errors"
	"guard/broker"
	"io"
	"strconv"
	"strings"
	"time"

	"guard"
)

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
	for _, c := range []byte(t) {
		if c <= ' ' || c >= 0x7f {
			return false
		}
	}
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
		case errors.Is(upErr, errLogin) && try < 3 && broker.Wait(s.ctx, 150*time.Millisecond):
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
