package mysql

import (
	"io"

	"guard"
)

// relay moves one answer from the server to the client. It follows what the packets
// mean, so that it knows where the answer ends, what is an error, and what is a
// server's wish for a file.
type relay struct {
	s   *conn
	buf []byte
}

// flushAt is how many bytes of an answer are collected before they are written.
const flushAt = 64 << 10

// answer passes on what the server says to a command.
func (s *conn) answer(kind byte, class string) error {
	r := &relay{s: s}
	var err error
	switch kind {
	case comStmtClose:
		return nil
	case comQuery, comStmtExecute, comProcessInfo:
		err = r.results(kind, class)
	case comFieldList, comStmtFetch:
		_, _, err = r.rows()
	case comStmtPrepare:
		err = r.prepare(class)
	case comResetConnection:
		err = r.reset()
	default:
		var msg []byte
		if msg, err = r.packet(); err == nil {
			err = r.put(msg)
		}
	}
	if err != nil {
		return err
	}
	return r.flush()
}

// packet reads the next packet. One of the largest size goes on in the next.
// The bytes are valid until the next call.
func (r *relay) packet() ([]byte, error) {
	if len(r.s.out) > 0 && (len(r.s.out) >= flushAt || r.s.up.r.Buffered() == 0) {
		if err := r.flush(); err != nil {
			return nil, err
		}
	}
	var head [4]byte
	if _, err := io.ReadFull(r.s.up.r, head[:]); err != nil {
		return nil, err
	}
	n := int(head[0]) | int(head[1])<<8 | int(head[2])<<16
	if cap(r.buf) < n+5 { // one for clean
		r.buf = make([]byte, max(n+5, 512))
	}
	r.buf = r.buf[:n+4]
	copy(r.buf, head[:])
	if _, err := io.ReadFull(r.s.up.r, r.buf[4:]); err != nil {
		return nil, noEOF(err)
	}
	return r.buf[4:], nil
}

func (r *relay) flush() error {
	if len(r.s.out) == 0 {
		return nil
	}
	_, err := r.s.client.c.Write(r.s.out)
	if r.s.out = r.s.out[:0]; cap(r.s.out) > 4*flushAt {
		r.s.out = nil
	}
	return err
}

// put passes the packet that was read last on: as it is, or an error without the
// real user's name.
func (r *relay) put(msg []byte) error {
	seq := r.buf[3]
	if isErr(msg) {
		r.s.did.errors++
		e := parseError(msg)
		e.message = r.s.hide.text(e.message)
		r.s.out, _ = appendPacket(r.s.out, e.packet(), seq)
		return nil
	}
	r.plain(msg)
	return nil
}

func isErr(msg []byte) bool { return len(msg) > 2 && msg[0] == 0xff }
func isEOF(msg []byte) bool { return len(msg) > 0 && len(msg) < 9 && msg[0] == 0xfe }

// data passes a packet of a row on, and what of it goes on in further packets. A
// value of the vault's is masked in it.
func (r *relay) data(msg []byte) error {
	for {
		if err := r.clean(msg); err != nil {
			return err
		}
		r.plain(msg)
		if len(msg) < maxPayload {
			return nil
		}
		var err error
		if msg, err = r.packet(); err != nil {
			return err
		}
	}
}

// plain passes on what cannot be an error.
func (r *relay) plain(msg []byte) {
	n := len(msg)
	r.s.out = append(r.s.out, byte(n), byte(n>>8), byte(n>>16), r.buf[3])
	r.s.out = append(r.s.out, msg...)
}

// clean masks the credential's value in msg, in place. Each packet is looked at by
// itself: a value is not sent in two rows.
func (r *relay) clean(msg []byte) error {
	if r.s.h.Scrub == nil || len(msg) == 0 {
		return nil
	}
	if r.s.scrub == nil {
		if r.s.scrub = r.s.h.Scrub([]guard.SecretID{r.s.cred.ID()}); r.s.scrub == nil {
			return errStopped
		}
	}
	got := 0
	for i, in := range [2][]byte{append(msg, 0), nil} {
		step := guard.Pause
		if i == 1 {
			step = guard.End
		}
		out, d := r.s.scrub(in, step)
		if d.Action.Stops() || got+len(out) > len(msg)+1 {
			return errStopped
		}
		copy(msg[min(got, len(msg)):], out)
		if got += len(out); got == len(msg)+1 {
			if i == 1 {
				r.s.scrub = nil // it has ended
			}
			return nil
		}
	}
	return errStopped
}

// status reads the status of OK or EOF.
func status(msg []byte) uint16 {
	r := reader{b: msg[1:]}
	if msg[0] == 0 {
		r.lenenc()
		r.lenenc()
	} else {
		r.u16()
	}
	return r.u16()
}

// results passes on what a statement gives: any number of results.
func (r *relay) results(kind byte, class string) error {
	for {
		msg, err := r.packet()
		if err != nil {
			return err
		}
		if len(msg) == 0 {
			return errFrame
		}
		more := false
		switch {
		case isErr(msg):
			return r.put(msg)
		case msg[0] == 0:
			affected := reader{b: msg[1:]}
			r.s.did.complete(class, int(min(affected.lenenc(), 1<<40)))
			more = status(msg)&statusMoreResults != 0
			if err := r.clean(msg); err != nil {
				return err
			}
			if err := r.put(msg); err != nil {
				return err
			}
		case msg[0] == 0xfb:
			// LOCAL INFILE was not agreed on: the server asks for a file of the agent's.
			d := refused(ruleCommand, "the server asked for a file of this machine (LOCAL INFILE)", "send the rows as INSERT statements")
			e := r.s.deny(d)
			r.s.out, _ = appendPacket(r.s.out, e.packet(), r.buf[3])
			_ = r.flush()
			return errStopped
		default:
			columns := reader{b: msg}
			if columns.lenenc(); columns.bad || len(columns.b) > 0 {
				return errFrame
			}
			r.plain(msg)
			st, _, err := r.rows() // their definitions
			if err != nil {
				return err
			}
			if st == failed {
				return nil
			}
			if st&statusCursor == 0 || kind != comStmtExecute {
				var n int
				if st, n, err = r.rows(); err != nil {
					return err
				}
				if st == failed {
					return nil
				}
				r.s.did.complete(class, n)
			} else {
				r.s.did.complete(class, 0)
			}
			more = st&statusMoreResults != 0
		}
		if !more {
			return nil
		}
	}
}

// failed takes the place of a status where an error came.
const failed = -1

// rows passes packets on up to the one that ends them, and returns its status.
func (r *relay) rows() (st, n int, err error) {
	for ; ; n++ {
		msg, err := r.packet()
		if err != nil {
			return 0, n, err
		}
		switch {
		case isErr(msg):
			return failed, n, r.put(msg)
		case isEOF(msg):
			return int(status(msg)), n, r.put(msg)
		}
		if err := r.data(msg); err != nil {
			return 0, n, err
		}
	}
}

// maxPrepared bounds the statements of one connection whose class is remembered.
const maxPrepared = 100_000

// prepare passes on the answer to COM_STMT_PREPARE.
func (r *relay) prepare(class string) error {
	msg, err := r.packet()
	if err != nil {
		return err
	}
	in := reader{b: msg}
	if isErr(msg) {
		return r.put(msg)
	}
	if in.u8() != 0 {
		return errFrame
	}
	id, columns, params := in.u32(), in.u16(), in.u16()
	if in.bad {
		return errFrame
	}
	if len(r.s.prepared) < maxPrepared {
		r.s.prepared[id] = class
	}
	if err := r.put(msg); err != nil {
		return err
	}
	for _, n := range []uint16{params, columns} {
		if n == 0 {
			continue
		}
		if st, _, err := r.rows(); err != nil || st == failed {
			return err
		}
	}
	return nil
}

// reset passes on the answer to COM_RESET_CONNECTION, after which the session's
// transactions have to be made read-only again.
func (r *relay) reset() error {
	msg, err := r.packet()
	if err != nil {
		return err
	}
	if !isErr(msg) {
		clear(r.s.prepared)
		if r.s.readOnly {
			if err := r.s.ask("SET SESSION TRANSACTION READ ONLY"); err != nil {
				return err
			}
		}
	}
	return r.put(msg)
}
