package http

import (
	"bytes"
	"slices"
	"strings"

	"guard"
	"guard/broker"
)

// frameSwap puts values where placeholders are in what a client says over a
// WebSocket, for credentials whose position that is. It runs behind the leak line,
// on the payload of data frames as one stream. A frame's length is on its way
// before its payload is, so a value must be as long as what stands for it.
type frameSwap struct {
	x     *exchange
	creds []guard.Credential
	held  []byte // may be the beginning of a placeholder
}

// frameSwap is nil where no credential of this host may be in a frame.
func (x *exchange) frameSwap() *frameSwap {
	s := &frameSwap{x: x}
	for _, c := range x.creds {
		if c.Placeholder != "" && !c.Decoy && x.isHome(c) && slices.Contains(c.In, guard.Position{Place: "frame"}) {
			s.creds = append(s.creds, c)
		}
	}
	if len(s.creds) == 0 {
		return nil
	}
	return s
}

// step returns what goes on now; at the end of a message, end is true and all of
// it does. An error ends the connection: the use was refused, or the value cannot
// be in a frame.
func (s *frameSwap) step(b []byte, end bool) ([]byte, error) {
	all := append(s.held, b...)
	for _, c := range s.creds {
		for _, st := range stands(c) {
			if !bytes.Contains(all, []byte(st.ph)) {
				continue
			}
			if err := s.swap(all, c, st); err != nil {
				return nil, err
			}
		}
	}
	keep := 0
	if !end {
		for _, c := range s.creds {
			for n := min(len(c.Placeholder)-1, len(all)); n > keep; n-- {
				if bytes.HasSuffix(all, []byte(c.Placeholder[:n])) {
					keep = n
					break
				}
			}
		}
	}
	s.held = append([]byte(nil), all[len(all)-keep:]...)
	return all[:len(all)-keep], nil
}

// swap is a use of c: what stands for its value in b becomes it.
func (s *frameSwap) swap(b []byte, c guard.Credential, st stand) error {
	x := s.x
	if err := x.plaintext(c); err != nil {
		return err
	}
	u := x.use(c)
	u.Action = "http:write" // what a message does is not to be seen
	_, err := x.p.cfg.Line.Use(u, func(v guard.Secret) (string, error) {
		is := st.of(string(v.Reveal()))
		// In JSON, as most messages are, these would end a string.
		if len(is) != len(st.ph) || strings.ContainsFunc(is, func(r rune) bool { return r < ' ' || r == '"' || r == '\\' || r == 0x7f }) {
			return "not sent", broker.ErrStopped
		}
		x.p.remember(x.meta.host, c.ID())
		for rest := b; ; {
			i := bytes.Index(rest, []byte(st.ph))
			if i < 0 {
				return "sent in a frame", nil
			}
			copy(rest[i:], is)
			rest = rest[i+len(is):]
		}
	})
	return err
}
