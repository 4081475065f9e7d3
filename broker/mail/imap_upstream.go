package mail

import (
	"bytes"
	"context"
	"encoding/base64"
	"errors"
	"strings"
	"time"

	"guard"
)

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
