package mysql

import (
	"bufio"
	"bytes"
	"guard/broker"
	"net"
	"strings"
	"testing"
	"time"

	"guard"
)

// sink is a connection that takes what is written.
type sink struct{ bytes.Buffer }

func (*sink) Close() error                     { return nil }
func (*sink) LocalAddr() net.Addr              { return nil }
func (*sink) RemoteAddr() net.Addr             { return nil }
func (*sink) SetDeadline(time.Time) error      { return nil }
func (*sink) SetReadDeadline(time.Time) error  { return nil }
func (*sink) SetWriteDeadline(time.Time) error { return nil }

// served is what a client is given of a server's bytes, as the answer to a command.
func served(kind byte, wire []byte, scrub func([]guard.SecretID) guard.Filter) ([]byte, error) {
	out, up := &sink{}, &sink{}
	s := &conn{
		h:      &Handler{Login: broker.Login{Credentials: func() []guard.Credential { return nil }, Scrub: scrub}},
		client: &client{c: out}, up: &upstream{c: up, r: bufio.NewReader(bytes.NewReader(wire))},
		hide: rename{from: "real", to: "agent-x"}, prepared: map[uint32]string{},
	}
	err := s.answer(kind, "SELECT")
	return out.Bytes(), err
}

// FuzzAnswer gives the client's side whatever a server may say: no panic, and no more
// than whole packets come out.
func FuzzAnswer(f *testing.F) {
	add := func(kind byte, msgs ...string) {
		var wire []byte
		for i, m := range msgs {
			wire, _ = appendPacket(wire, []byte(m), byte(i+1))
		}
		f.Add(kind, wire)
	}
	const def, eof = "\x03def\x00\x00\x00\x01a\x00\x0c\x3f\x00\x01\x00\x00\x00\x08\x81\x00\x00\x00\x00", "\xfe\x00\x00\x02\x00"
	add(comQuery, "\x00\x01\x00\x02\x00\x00\x00")
	add(comQuery, "\x01", def, eof, "\x011", "\xfb", eof)
	add(comQuery, "\x01", def, eof, "\x011", "\xfe\x00\x00\x0a\x00", "\x00\x00\x00\x02\x00\x00\x00")
	add(comQuery, "\xff\x15\x04#28000Access denied for user 'real'@'h'")
	add(comQuery, "\xfb/etc/passwd")
	add(comStmtExecute, "\x01", def, "\xfe\x00\x00\x42\x00")
	add(comStmtPrepare, "\x00\x01\x00\x00\x00\x01\x00\x01\x00\x00\x00\x00", def, eof, def, eof)
	add(comFieldList, def, eof)
	add(comPing, "\x00\x00\x00\x02\x00\x00\x00")
	add(comQuery, "")
	f.Fuzz(func(t *testing.T, kind byte, wire []byte) {
		out, _ := served(kind, wire, nil)
		if bytes.Contains(out, []byte("'real'")) && bytes.HasPrefix(wire[min(4, len(wire)):], []byte{0xff}) && len(wire) > 20 {
			t.Errorf("names the user: %q", out)
		}
		for len(out) > 0 {
			if len(out) < 4 {
				t.Fatal("half a packet")
			}
			n := 4 + int(out[0]) + int(out[1])<<8 + int(out[2])<<16
			if n > len(out) {
				t.Fatal("half a packet")
			}
			out = out[n:]
		}
		var u upstream
		_ = u.greeting(wire)
		_ = (&client{}).parse(wire, ^uint32(0))
	})
}

// FuzzSQL: no text makes the rules panic, and one that passes with db:read does so
// only if it begins with a word that is known to read.
func FuzzSQL(f *testing.F) {
	for _, s := range []string{"SELECT 1", "/*!40101 SET NAMES utf8 */", "SELECT 'a\\'; DELETE FROM t -- '", "SET @@session.sql_mode := ''", "CREATE USER a IDENTIFIED BY 'x'", "KILL QUERY 5", "WITH c AS (SELECT 1.0into @x) TABLE c", "/*M!100100 DELETE*/", "USE `a`"} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, sql []byte) {
		v := judge(sql, false, true)
		if v.write != "" {
			return
		}
		for _, way := range ways {
			stmts, _ := statements(sql, way.single, way.double)
			for _, s := range stmts {
				i := 0
				for at(s, i).sign("(") {
					i++
				}
				if !at(s, i).is(reading...) {
					t.Errorf("%q passes", sql)
				}
			}
		}
		if !v.mint && strings.Contains(strings.ToLower(string(sql)), "create user") && !strings.ContainsAny(string(sql), "'\"`#-/") && !strings.Contains(strings.ToLower(string(sql)), "show") {
			t.Errorf("%q passes", sql)
		}
	})
}

// A value that is in a row, however the rows are cut.
func TestAnswersAreScrubbed(t *testing.T) {
	const def, eof = "\x03def\x00\x00\x00\x01a\x00\x0c\x3f\x00\x01\x00\x00\x00\x08\x81\x00\x00\x00\x00", "\xfe\x00\x00\x02\x00"
	var wire []byte
	for i, m := range []string{"\x01", def, eof, string(rune(len(password))) + password, eof} {
		wire, _ = appendPacket(wire, []byte(m), byte(i+1))
	}
	out, err := served(comQuery, wire, func([]guard.SecretID) guard.Filter { return mask })
	if err != nil || bytes.Contains(out, []byte(password)) || len(out) != len(wire) {
		t.Errorf("%v: %q", err, out)
	}
	if out, _ := served(comQuery, wire, func([]guard.SecretID) guard.Filter { return nil }); bytes.Contains(out, []byte(password)) {
		t.Error("no filter, and the row came")
	}
}

// A message of 16 MiB and more is several packets.
func TestPackets(t *testing.T) {
	for _, n := range []int{0, 1, maxPayload - 1, maxPayload, maxPayload + 1, 2 * maxPayload} {
		msg := bytes.Repeat([]byte{7}, n)
		wire, next := appendPacket(nil, msg, 250)
		got, seq, err := readPacket(bytes.NewReader(wire), nil, 1<<26)
		if err != nil || !bytes.Equal(got, msg) || seq+1 != next {
			t.Errorf("%d: %d bytes, %v", n, len(got), err)
		}
		if _, _, err := readPacket(bytes.NewReader(wire[:len(wire)-1]), nil, 1<<26); err == nil {
			t.Errorf("%d: cut, and no error", n)
		}
		if n > 0 {
			if _, _, err := readPacket(bytes.NewReader(wire), nil, n-1); err != errTooBig {
				t.Errorf("%d: %v", n, err)
			}
		}
	}
	if _, _, err := readPacket(bytes.NewReader(append(append([]byte{255, 255, 255, 1}, make([]byte, maxPayload)...), 0, 0, 0, 9)), nil, 1<<26); err != errFrame {
		t.Errorf("a gap in the numbers: %v", err)
	}
}
