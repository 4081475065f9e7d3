package mail

import (
	"context"
	"encoding/base64"
	"errors"
	"strconv"
	"strings"
	"time"

	"guard"
)

// connect reaches the server, and learns what it offers; without a login.
func (s *smtp) connect() (err error) {
	up, err := s.dial()
	if err != nil {
		return err
	}
	s.attach(up)
	s.in = false
	defer func() {
		if err != nil {
			s.detach()
		}
	}()
	if code, _, err := s.reply(); err != nil || code != 220 {
		return errors.Join(err, errors.New("no greeting"))
	}
	if err := s.ehlo(); err != nil {
		return err
	}
	if s.direct {
		return nil
	}
	if !s.offers("STARTTLS") {
		if s.plain() {
			return nil
		}
		return errPlain
	}
	if code, _, err := s.ask("STARTTLS"); err != nil || code != 220 {
		return errPlain
	}
	t, err := s.upgrade(s.up)
	if err != nil {
		return err
	}
	s.up = t
	return s.ehlo()
}

func (s *smtp) offers(word string) bool {
	for _, e := range s.extensions {
		if strings.EqualFold(e, word) {
			return true
		}
	}
	return false
}

func (s *smtp) ehlo() error {
	code, lines, err := s.ask("EHLO " + s.hello)
	if err != nil || code != 250 || len(lines) == 0 {
		return errors.Join(err, errors.New("EHLO is not understood"))
	}
	s.extensions, s.mechs = nil, nil
	for _, e := range lines[1:] {
		s.extensions = append(s.extensions, e)
		if up := strings.ToUpper(e); strings.HasPrefix(up, "AUTH ") || strings.HasPrefix(up, "AUTH=") {
			s.mechs = append(s.mechs, strings.Fields(e[5:])...)
		}
	}
	return nil
}

// ask sends a command upstream and reads the reply.
func (s *smtp) ask(line string) (code int, lines []string, err error) {
	_ = s.up.SetDeadline(time.Now().Add(5 * time.Minute)) // RFC 5321, 4.5.3.2
	if err := s.up.say(line); err != nil {
		return 0, nil, err
	}
	return s.reply()
}

func (s *smtp) reply() (code int, lines []string, err error) {
	for len(lines) < 200 {
		line, err := s.up.line()
		if err != nil {
			return 0, nil, err
		}
		if len(line) < 3 {
			return 0, nil, errors.New("not a reply")
		}
		n, err := strconv.Atoi(line[:3])
		if err != nil || n < 200 || n > 599 {
			return 0, nil, errors.New("not a reply")
		}
		if len(line) == 3 {
			return n, append(lines, ""), nil
		}
		lines = append(lines, line[4:])
		if line[3] == ' ' {
			return n, lines, nil
		}
	}
	return 0, nil, errors.New("a reply without an end")
}

func (s *smtp) authenticate(v guard.Secret) error {
	if s.up == nil {
		if err := s.connect(); err != nil {
			return err
		}
	}
	s.in = false
	user, password := account(s.cred, s.user, v)
	defer clear(password)
	_, isTLS := s.up.Conn.(interface{ HandshakeContext(context.Context) error })
	a, err := chooseSASL(s.mechs, s.oauth, isTLS || s.plain(), s.host, s.port, user, password)
	if err != nil {
		return err
	}
	defer a.wipe()
	cmd := "AUTH " + a.mech
	if a.first != nil {
		cmd += " " + a.initial()
	}
	code, lines, err := s.ask(cmd)
	for n := 0; err == nil && code == 334 && n < 4; n++ {
		var c, answer []byte
		if c, err = base64.StdEncoding.DecodeString(lines[0]); err != nil {
			return errLogin
		}
		if answer, err = a.next(c); err != nil {
			_, _, _ = s.ask("*")
			return err
		}
		code, lines, err = s.ask(base64.StdEncoding.EncodeToString(answer))
		clear(answer)
	}
	switch {
	case err != nil:
		return err
	case code != 235 || !a.done():
		return errLogin
	}
	return nil
}
