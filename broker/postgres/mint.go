package postgres

import (
	"bytes"
	"fmt"
	"strings"

	"guard"
)

// minter judges statements about roles for one connection.
func (h *Handler) minter(use func(action string) guard.Use, credential string) minter {
	return minter{
		allow: func() (guard.Decision, bool) {
			if h.Decide == nil || !h.Decide(use("token:mint")).Allowed() {
				return minted(credential), false
			}
			return guard.Decision{Action: guard.Pass}, true
		},
		store: func(text []byte) (guard.Decision, bool) {
			u := use("token:mint")
			found := passwords(text)
			sent := false
			d, err := h.Use(u, func(guard.Secret) (string, error) {
				sent = true
				for _, a := range found {
					if h.Minted == nil || a.password == "" {
						continue
					}
					if err := h.Minted(u, a.user, guard.NewSecret([]byte(a.password))); err != nil {
						return "failed", err
					}
				}
				return fmt.Sprintf("statement sent, %d passwords stored", len(found)), nil
			})
			if err == nil && sent {
				return guard.Decision{Action: guard.Pass}, true
			}
			if d = minted(credential); sent {
				d.Reason = "guard could not store the password that this statement sets, so it was not sent"
				d.NextSteps = []string{"tell the user"}
			}
			return d, false
		},
	}
}

// account is a role and a password of a statement.
type account struct{ user, password string }

// passwords finds PASSWORD 'literal' in a text, with the role that was named before
// it, also in code that is a string (DO). A verifier (SCRAM-SHA-256$..., md5...) is no
// password.
func passwords(text []byte) []account { return passwordsIn(text, 3) }

func passwordsIn(text []byte, depth int) (out []account) {
	user, last := "", ""
	for len(text) > 0 {
		var word string
		kind, n := byte(0), 1
		switch c := text[0]; {
		case bytes.HasPrefix(text, []byte("--")):
			if n = bytes.IndexByte(text, '\n') + 1; n == 0 {
				n = len(text)
			}
		case bytes.HasPrefix(text, []byte("/*")):
			if n = bytes.Index(text, []byte("*/")) + 2; n < 2 {
				n = len(text)
			}
		case c == '\'' || c == '"':
			word, n = literal(text, false)
			kind = c
		case (c == 'E' || c == 'e') && len(text) > 1 && text[1] == '\'':
			word, n = literal(text[1:], true)
			kind, n = '\'', n+1
		case c == '$':
			if tag := bytes.IndexByte(text[1:], '$') + 2; tag >= 2 {
				if body := bytes.Index(text[tag:], text[:tag]); body >= 0 {
					word, kind, n = string(text[tag:tag+body]), '\'', 2*tag+body
				}
			}
		case isWord(c):
			for n < len(text) && isWord(text[n]) {
				n++
			}
			word, kind = strings.ToLower(string(text[:n])), 'w'
		}
		text = text[n:]
		switch {
		case kind == 0:
			continue
		case (last == "role" || last == "user" || last == "group") && (kind == 'w' || kind == '"'):
			user = word
		case kind == '\'' && last == "password":
			if !strings.HasPrefix(word, "SCRAM-SHA-256$") && (len(word) != 35 || !strings.HasPrefix(word, "md5")) {
				out = append(out, account{user, word})
			}
		}
		if kind == '\'' && last != "password" && depth > 0 {
			out = append(out, passwordsIn([]byte(word), depth-1)...)
		}
		if last = word; kind != 'w' {
			last = ""
		}
	}
	return out
}

// literal reads a string or a quoted name, and says how long it is.
func literal(text []byte, escapes bool) (string, int) {
	var out []byte
	for i := 1; i < len(text); i++ {
		switch {
		case text[i] == '\\' && escapes && i+1 < len(text):
			i++
		case text[i] == text[0] && i+1 < len(text) && text[i+1] == text[0]:
			i++
		case text[i] == text[0]:
			return string(out), i + 1
		}
		out = append(out, text[i])
	}
	return "", len(text)
}
