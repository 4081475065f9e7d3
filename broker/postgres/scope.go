package postgres

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"

	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgproto3"

	"guard"
)

const readRule = "read-only"

// scope keeps one connection to reading. A statement that is refused is answered at its
// place among the others, by the server itself: in its stead goes a word that is no
// SQL, and the server's error about that becomes guard's. So a transaction fails as with any
// error, and what follows in a pipeline is skipped up to its Sync, without guard having
// to keep count.
type scope struct {
	credential string
	refused    func(d guard.Decision) // records it

	word string // that is no SQL; the client cannot guess it
	mu   sync.Mutex
	n    int
	said map[int]*pgproto3.ErrorResponse
}

const (
	// maxStatement bounds a statement, which is judged as a whole, in bytes.
	maxStatement = 16 << 20
	// maxSaid bounds the refusals that wait for their place.
	maxSaid = 256
)

func newScope(credential string, refused func(d guard.Decision)) *scope {
	var b [12]byte
	rand.Read(b[:])
	return &scope{credential: credential, refused: refused, word: "guard_refused_" + hex.EncodeToString(b[:]) + "_", said: map[int]*pgproto3.ErrorResponse{}}
}

// reads is the decision about a statement that does more than read.
func (s *scope) reads(why string) guard.Decision {
	return guard.Decision{
		Action: guard.Block, Rule: readRule, Reason: "this session may only read (db:read): " + why,
		NextSteps: []string{"ask the user to allow more: guard run --allow " + s.credential + ":db:query"},
	}
}

// message is what is sent in place of one with payload: itself, or one that fails.
func (s *scope) message(kind byte, payload []byte) (head [5]byte, send []byte) {
	why := ""
	name := 0 // of a statement, with its NUL
	switch kind {
	case 'Q':
		if n := len(payload) - 1; n < 0 || payload[n] != 0 {
			why = unclear + "the message has no end"
		} else {
			why = writes(payload[:n])
		}
	case 'P':
		if name = bytes.IndexByte(payload, 0) + 1; name == 0 {
			why = unclear + "the message has no end"
		} else if n := bytes.IndexByte(payload[name:], 0); n < 0 {
			why = unclear + "the message has no end"
		} else {
			why = writes(payload[name : name+n])
		}
	default: // 'F'
		why, kind = "it calls a function by its number", 'Q'
	}
	if why != "" {
		d := s.reads(why)
		if s.refused != nil {
			s.refused(d)
		}
		send = append(append([]byte(nil), payload[:name]...), s.keep(d)...)
		if send = append(send, 0); kind == 'P' {
			send = append(send, 0, 0) // no types
		}
		payload = send
	}
	head[0] = kind
	binary.BigEndian.PutUint32(head[1:], uint32(len(payload)+4))
	return head, payload
}

// keep stores a refusal until its place comes, and returns the word for it.
func (s *scope) keep(d guard.Decision) string {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.n++
	if len(s.said) < maxSaid {
		s.said[s.n] = answer(d)
	}
	return fmt.Sprintf("%s%d", s.word, s.n)
}

func answer(d guard.Decision) *pgproto3.ErrorResponse {
	e := refuse("42501", "guard refused this statement: "+d.Reason, strings.Join(d.NextSteps, "; "))
	e.Severity, e.SeverityUnlocalized = "ERROR", "ERROR"
	e.Detail = "layer: broker, rule: " + d.Rule
	return e
}

// replace looks at an error of the server's: nil, or what the client gets for it.
func (s *scope) replace(msg []byte) []byte {
	i := bytes.Index(msg, []byte(s.word))
	if i < 0 {
		return nil
	}
	n := 0
	for _, c := range msg[i+len(s.word):] {
		if c < '0' || c > '9' {
			break
		}
		n = n*10 + int(c-'0')
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	e := s.said[n]
	if e == nil {
		e = answer(s.reads("it is one of many that were refused"))
	}
	// Those before it were skipped.
	maps.DeleteFunc(s.said, func(k int, _ *pgproto3.ErrorResponse) bool { return k <= n })
	out, err := e.Encode(nil)
	if err != nil {
		return nil
	}
	return out
}

// broken says whether a ParameterStatus tells that the session is not what it has to be.
func (s *scope) broken(msg []byte) bool {
	f := bytes.Split(msg[5:], []byte{0})
	return len(f) >= 2 && !holds(string(f[0]), string(f[1]))
}

// holds says whether a setting that a session depends on has a value that it may have.
func holds(name, value string) bool {
	ok := reading[strings.ToLower(name)]
	return ok == nil || slices.Contains(ok, strings.ToLower(value))
}

// narrow makes the parameters of a login those of a session that reads. They are the
// session's defaults from then on: RESET and DISCARD go back to them.
func narrow(params map[string]string) *pgproto3.ErrorResponse {
	for k, v := range params {
		if k == "options" {
			if why := options(v); why != "" {
				return refuse("42501", "guard refused the login: this session may only read (db:read), and its options set "+why, "leave it out of the connection string and of PGOPTIONS")
			}
			continue
		}
		if !settable(token{quoted, k}) || !holds(k, v) {
			return refuse("42501", "guard refused the login: this session may only read (db:read), and the connection sets "+visible(k), "leave it out of the connection string")
		}
	}
	params["default_transaction_read_only"] = "on"
	return nil
}

// options reads what stands in PGOPTIONS; what is not allowed of it, in words.
func options(v string) string {
	if strings.ContainsRune(v, '\\') {
		return "something with a backslash"
	}
	f := strings.Fields(v)
	for i := 0; i < len(f); i++ {
		o := f[i]
		switch {
		case o == "-c" && i+1 < len(f):
			i++
			o = f[i]
		case strings.HasPrefix(o, "-c"), strings.HasPrefix(o, "--"):
			o = o[2:]
		default:
			return "more than -c NAME=VALUE"
		}
		name, value, ok := strings.Cut(o, "=")
		name = strings.ReplaceAll(name, "-", "_")
		if !ok || !settable(token{quoted, name}) || !holds(name, value) {
			return visible(name)
		}
	}
	return ""
}

// visible is a setting's name, where it is one.
func visible(name string) string {
	if name == "" {
		return "something that is no setting"
	}
	for i := range len(name) {
		if !isWord(name[i]) && name[i] != '.' {
			return "something that is no setting"
		}
	}
	return name[:min(len(name), maxWord)]
}

var errNotReadOnly = errors.New("the server did not make the session read-only")

// confirm asks the server whether the session is what it has to be.
func confirm(ctx context.Context, pg *pgconn.PgConn) error {
	for _, name := range []string{"default_transaction_read_only", "transaction_read_only", "standard_conforming_strings", "client_encoding"} {
		all, err := pg.Exec(ctx, "SHOW "+name).ReadAll()
		if err != nil || len(all) != 1 || len(all[0].Rows) != 1 || len(all[0].Rows[0]) != 1 || !holds(name, string(all[0].Rows[0][0])) {
			return errNotReadOnly
		}
	}
	return nil
}
