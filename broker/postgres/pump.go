package postgres

import (
	"bytes"
	"encoding/binary"
	"errors"
	"guard/broker"
	"io"
	"net"
	"strings"
	"sync"
	"time"

	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgproto3"

	"guard"
)

// rename replaces the real login by the client's in what the server says.
type rename struct{ from, to string }

func (r rename) idle() bool { return r.from == "" || r.from == r.to }

func (r rename) text(s string) string {
	if r.idle() {
		return s
	}
	return string(r.words([]byte(s)))
}

// words replaces whole words only.
func (r rename) words(b []byte) []byte { return broker.ReplaceWord(b, r.from, r.to, inWord) }

func inWord(c byte) bool {
	return c == '_' || c == '$' || c >= 0x80 || c >= '0' && c <= '9' || c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z'
}

func say(c net.Conn, m pgproto3.BackendMessage) error {
	b, err := m.Encode(nil)
	if err == nil {
		_, err = c.Write(b)
	}
	return err
}

// greet tells the client that it is logged in.
func greet(c net.Conn, s *start, up *pgconn.HijackedConn, id uint32, key []byte, hide rename) error {
	var out []byte
	var err error
	add := func(m pgproto3.BackendMessage) {
		if err == nil {
			out, err = m.Encode(out)
		}
	}
	var unknown []string
	for k := range s.params {
		if strings.HasPrefix(k, "_pq_.") {
			unknown = append(unknown, k)
		}
	}
	if s.version != pgproto3.ProtocolVersion30 || len(unknown) > 0 {
		add(&pgproto3.NegotiateProtocolVersion{NewestMinorProtocol: 0, UnrecognizedOptions: unknown})
	}
	add(&pgproto3.AuthenticationOk{})
	for k, v := range up.ParameterStatuses {
		if k == "session_authorization" {
			v = hide.text(v)
		}
		add(&pgproto3.ParameterStatus{Name: k, Value: v})
	}
	add(&pgproto3.BackendKeyData{ProcessID: id, SecretKey: key})
	add(&pgproto3.ReadyForQuery{TxStatus: 'I'})
	if err == nil {
		_, err = c.Write(out)
	}
	return err
}

var (
	errStopped = errors.New("stopped by the leak line")
	errFrame   = errors.New("a message's length is impossible")
)

// pump moves bytes until one side ends or the filter stops, and returns the
// decision that stopped it.
func pump(client, up net.Conn, open func() guard.Filter, mint minter, scope *scope, hide rename, t *tally) (verdict guard.Decision) {
	var wg sync.WaitGroup
	verdict.Action = guard.Pass
	halt := make(chan struct{}) // closed before up is, when the filter stopped
	wg.Go(func() {
		d, err := forward(up, client, open, mint, scope)
		if errors.Is(err, errStopped) {
			verdict = d
			close(halt)
		}
		up.Close()
	})
	wg.Go(func() {
		defer client.Close()
		between, _ := back(client, up, hide, t, scope)
		select {
		case <-halt:
			// Into the middle of a server's message nothing can be said.
			if between {
				_ = say(client, stopped(verdict))
				// Closing on what the client still sends would take the words from it.
				broker.CloseWrite(client)
				_ = client.SetReadDeadline(time.Now().Add(linger))
				_, _ = io.Copy(io.Discard, client)
			}
		default:
		}
	})
	wg.Wait()
	return verdict
}

// linger is how long a client that was refused may take to hang up.
const linger = time.Second

// maxRewrite bounds an error or notice that is looked into.
const maxRewrite = 1 << 20

// back sends the server's messages to the client; errors, notices and the
// session_authorization setting name the client's user. It says whether it
// ended between two messages.
//
// In a scope, errors about what was refused become guard's, and a session whose settings are
// not what the scope needs has ended.
func back(client io.Writer, up io.Reader, hide rename, t *tally, scope *scope) (between bool, err error) {
	buf := make([]byte, smallBuffer)
	have := 0
	left := 0 // of a message that is passed on as it comes
	for {
		n, err := up.Read(buf[have:])
		if have += n; have == len(buf) && have < largeBuffer {
			buf = append(make([]byte, 0, largeBuffer), buf...)[:largeBuffer]
		}
		done := 0
		for done < have {
			if left > 0 {
				k := min(left, have-done)
				left -= k
				done += k
				continue
			}
			if have-done < 5 {
				break
			}
			size := int64(binary.BigEndian.Uint32(buf[done+1:])) + 1
			if size < 5 || size > 1<<30+64 {
				return false, errFrame
			}
			kind := buf[done]
			if kind == 'C' && size <= maxTag {
				if int64(have-done) < size {
					break // the rest comes with the next read
				}
				t.complete(buf[done+5 : done+int(size)])
			}
			if hide.idle() && scope == nil || kind != 'E' && kind != 'N' && kind != 'S' {
				t.error(kind)
				left = int(size)
				continue
			}
			if size > maxRewrite {
				return false, errFrame
			}
			if int64(have-done) < size {
				if need := done + int(size); need > len(buf) {
					buf = append(buf[:have], make([]byte, need-have)...)
				}
				break
			}
			t.error(kind)
			msg := buf[done : done+int(size)]
			var other []byte // to send instead
			if scope != nil && kind == 'S' && scope.broken(msg) {
				return false, errNotReadOnly
			}
			if scope != nil && kind == 'E' {
				other = scope.replace(msg)
			}
			if other == nil && !hide.idle() && bytes.Contains(msg, []byte(hide.from)) {
				other = hide.message(msg)
			}
			if other != nil {
				if _, err := client.Write(buf[:done]); err != nil {
					return false, err
				}
				if _, err := client.Write(other); err != nil {
					return false, err
				}
				copy(buf, buf[done+int(size):have])
				have -= done + int(size)
				done = 0
				continue
			}
			done += int(size)
		}
		if done > 0 {
			if _, werr := client.Write(buf[:done]); werr != nil {
				return false, werr
			}
			copy(buf, buf[done:have])
			have -= done
		}
		if err != nil {
			return left == 0 && have == 0, err
		}
	}
}

// message rewrites one of 'E', 'N', 'S'.
func (r rename) message(msg []byte) []byte {
	// The fields of 'E' and 'N' start with a letter that is no part of the text.
	var body []byte
	for i, field := range bytes.Split(msg[5:], []byte{0}) {
		if i > 0 {
			body = append(body, 0)
		}
		if len(field) > 0 && msg[0] != 'S' {
			body = append(body, field[0])
			field = field[1:]
		}
		body = append(body, r.words(field)...)
	}
	out := append([]byte{msg[0]}, binary.BigEndian.AppendUint32(nil, uint32(len(body)+4))...)
	return append(out, body...)
}
