package postgres

import (
	"encoding/binary"
	"io"

	"guard"
	"guard/broker"
)

// The streams of a client's bytes: what is in CopyData messages, one after the
// other, as the server puts them together; and everything else.
const (
	rest = iota
	copied
	streams
)

// sender takes a client's messages apart: a type byte, then a length that counts
// itself, then the payload.
type sender struct {
	weave   broker.Weave
	filters [streams]guard.Filter
	held    [streams]int
	run     [streams][]byte // not yet given to the filter

	head [5]byte
	n    int // bytes of head seen
	left int // of the payload
	sql  *roles
	name bool // in the name that goes before a Parse message's query

	scope *scope // nil: every statement may be sent
	whole bool   // this message is judged as one before anything of it is sent

	mint    minter
	minting bool   // this message makes or changes a role, and may
	text    []byte // of it, as far as maxText
}

// minter judges statements that make or change a role.
type minter struct {
	// allow says whether they may be sent.
	allow func() (guard.Decision, bool)
	// store records one and keeps what passwords stand in its text, before it is
	// sent.
	store func(text []byte) (guard.Decision, bool)
}

// A connection that does nothing holds two small buffers; one that is busy large ones.
const (
	smallBuffer = 4 << 10
	largeBuffer = 64 << 10
)

// maxText bounds how much of a message is looked through for passwords, in bytes.
const maxText = 64 << 10

// forward sends the client's messages through the filters. At the end of a
// message these are told of a pause: the client may wait for the answer. (What
// they keep then is the end of COPY data, since every message that is answered
// ends with bytes of the protocol's.)
func forward(up io.Writer, client io.Reader, open func() guard.Filter, mint minter, scope *scope) (guard.Decision, error) {
	s := &sender{weave: broker.Weave{Dst: up}, mint: mint, scope: scope}
	for i := range s.filters {
		if s.filters[i] = open(); s.filters[i] == nil {
			return guard.Decision{Rule: "no filter"}, errStopped
		}
	}
	buf := make([]byte, smallBuffer)
	for {
		n, err := client.Read(buf)
		d, serr := s.send(buf[:n])
		if serr == nil && err != nil {
			d, serr = s.step(guard.End)
		}
		if serr != nil {
			// What came before the secret is part of the same statement.
			return d, serr
		}
		if werr := s.weave.Flush(); werr != nil {
			return d, werr
		}
		if err != nil {
			return d, err
		}
		if n == len(buf) && n < largeBuffer {
			buf = make([]byte, largeBuffer)
		}
	}
}

func (s *sender) send(p []byte) (d guard.Decision, err error) {
	d.Action = guard.Pass
	for len(p) > 0 {
		if s.n < len(s.head) {
			n := copy(s.head[s.n:], p)
			s.n += n
			p = p[n:]
			if s.n < len(s.head) {
				break
			}
			t := s.head[0]
			size := int64(binary.BigEndian.Uint32(s.head[1:]))
			if size < 4 || size > 1<<30+64 {
				return d, errFrame
			}
			if s.whole = s.scope != nil && (t == 'Q' || t == 'P' || t == 'F'); s.whole && size > maxStatement {
				return s.scope.reads("guard reads statements of up to 16 MiB"), errStopped
			}
			switch {
			case s.whole:
			case t == 'd':
				s.weave.Raw(s.head[:]) // a length; the data around it is one stream
			default:
				s.take(rest, s.head[:])
			}
			s.left, s.sql, s.text = int(size)-4, nil, s.text[:0]
			if !s.whole && (t == 'Q' || t == 'P') {
				s.sql, s.name = newRoles(), t == 'P'
			}
		} else if n := min(s.left, len(p)); s.whole {
			s.left -= n
			s.text = append(s.text, p[:n]...)
			p = p[n:]
		} else {
			s.left -= n
			if s.head[0] == 'Q' || s.head[0] == 'P' {
				s.text = append(s.text, p[:min(n, maxText-len(s.text))]...)
			}
			if s.roles(p[:n]) && !s.minting {
				if d, s.minting = s.mint.allow(); !s.minting {
					return d, errStopped
				}
			}
			to := rest
			if s.head[0] == 'd' {
				to = copied
			}
			s.take(to, p[:n])
			p = p[n:]
		}
		if s.left > 0 {
			continue
		}
		s.n = 0
		if s.whole {
			head, payload := s.scope.message(s.head[0], s.text)
			s.take(rest, head[:])
			s.take(rest, payload)
			if s.whole = false; cap(s.text) > largeBuffer {
				s.text = nil
			}
		}
		if s.minting {
			// Judged first: the leak line knows the password from then on.
			if d, err = s.step(guard.Pause); err != nil {
				return d, err
			}
			if d, s.minting = s.mint.store(s.text); !s.minting {
				return d, errStopped
			}
			s.minting = false
		}
	}
	if s.n == 0 {
		return s.step(guard.Pause)
	}
	return s.step(guard.More)
}

// roles looks at a piece of a Query or Parse message.
func (s *sender) roles(p []byte) bool {
	for s.sql != nil {
		k := 0
		for k < len(p) && p[k] != 0 {
			k++
		}
		if !s.name {
			s.sql.feed(p[:k])
		}
		switch {
		case k == len(p) && s.left > 0:
			return s.sql.found()
		case s.name && k < len(p):
			s.name, p = false, p[k+1:]
		default: // the query has ended, or the message
			found := s.sql.end()
			s.sql = nil
			return found
		}
	}
	return false
}

// take collects bytes of a stream, so that small messages are judged together.
func (s *sender) take(stream int, p []byte) {
	s.weave.Payload(stream, uint64(len(p)), nil)
	s.run[stream] = append(s.run[stream], p...)
}

// step gives the filters what was collected, and tells those of a pause that hold
// something, or all of the end.
func (s *sender) step(step guard.Step) (guard.Decision, error) {
	for i := range s.filters {
		p := s.run[i]
		if s.run[i] = p[:0]; cap(p) > 2*largeBuffer {
			s.run[i] = nil
		}
		if len(p) > 0 {
			if d, err := s.filter(i, p, min(step, guard.Pause)); err != nil {
				return d, err
			}
		}
		if step == guard.End || step == guard.Pause && len(p) == 0 && s.held[i] > 0 {
			if d, err := s.filter(i, nil, step); err != nil {
				return d, err
			}
		}
	}
	return guard.Decision{Action: guard.Pass}, nil
}

func (s *sender) filter(i int, p []byte, step guard.Step) (guard.Decision, error) {
	out, d := s.filters[i](p, step)
	if d.Action.Stops() {
		return d, errStopped
	}
	s.held[i] += len(p) - len(out)
	s.weave.Release(i, out)
	return d, nil
}
