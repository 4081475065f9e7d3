package mongo

import (
	"encoding/binary"
	"fmt"
	"guard/broker"
	"io"
	"strings"

	"guard"
)

// message is one on the wire, with its header.
type message []byte

func (m message) id() int32 { return int32(binary.LittleEndian.Uint32(m[4:])) }

func (m message) to() int32 { return int32(binary.LittleEndian.Uint32(m[8:])) }

func (m message) op() int32 { return int32(binary.LittleEndian.Uint32(m[12:])) }

func readMessage(r io.Reader) (message, error) {
	var head [16]byte
	if _, err := io.ReadFull(r, head[:]); err != nil {
		return nil, err
	}
	n := int64(binary.LittleEndian.Uint32(head[:]))
	if n < 16 || n > maxMessage {
		return nil, errWire
	}
	// What is said to come is believed as it comes.
	b := append(make([]byte, 0, min(n, 64<<10)), head[:]...)
	for int64(len(b)) < n {
		k := min(n-int64(len(b)), 1<<20)
		at := len(b)
		b = append(b, make([]byte, k)...)
		if _, err := io.ReadFull(r, b[at:]); err != nil {
			return nil, err
		}
	}
	return b, nil
}

func frame(id, to, op int32, payload ...[]byte) message {
	b := make([]byte, 16)
	for _, p := range payload {
		b = append(b, p...)
	}
	for i, v := range []int32{int32(len(b)), id, to, op} {
		binary.LittleEndian.PutUint32(b[4*i:], uint32(v))
	}
	return b
}

// answer is a reply to m, in its own opcode.
func answer(m message, doc []byte) message {
	if m.op() == opQuery {
		return frame(1, m.id(), opReply, make([]byte, 16), []byte{1, 0, 0, 0}, doc)
	}
	return frame(1, m.id(), opMsg, make([]byte, 5), doc)
}

// parse reads a client's message; quiet: no reply is expected.
func parse(m message) (c *command, quiet bool, err error) {
	c = &command{seqs: map[string][][]byte{}}
	b := []byte(m[16:])
	var doc []byte
	switch m.op() {
	case opQuery:
		if len(b) < 5 {
			return nil, false, errWire
		}
		name, rest, ok := strings.Cut(string(b[4:]), "\x00")
		if !ok || !strings.HasSuffix(name, ".$cmd") || len(rest) < 8 {
			return nil, false, errWire
		}
		c.db = strings.TrimSuffix(name, ".$cmd")
		doc = b[4+len(name)+1+8:]
		if c.body, _, err = document(doc); err != nil || len(c.body) == 0 {
			return nil, false, errWire
		}
		if q, ok := get(c.body, "$query"); ok {
			if c.body, _, err = document(q.raw); err != nil || len(c.body) == 0 {
				return nil, false, errWire
			}
		}
	case opMsg:
		if len(b) < 5 {
			return nil, false, errWire
		}
		flags := binary.LittleEndian.Uint32(b)
		if flags&0xffff&^(flagChecksum|flagMore) != 0 { // bits that must be understood
			return nil, false, errWire
		}
		b = b[4:]
		if flags&flagChecksum != 0 {
			if len(b) < 4 {
				return nil, false, errWire
			}
			b = b[:len(b)-4]
		}
		for len(b) > 0 {
			kind := b[0]
			b = b[1:]
			switch kind {
			case 0:
				es, n, err := document(b)
				if err != nil || doc != nil || len(es) == 0 {
					return nil, false, errWire
				}
				doc, c.body, b = b[:n], es, b[n:]
			case 1:
				if len(b) < 5 {
					return nil, false, errWire
				}
				n := int(int32(binary.LittleEndian.Uint32(b)))
				if n < 5 || n > len(b) {
					return nil, false, errWire
				}
				name, docs, ok := strings.Cut(string(b[4:n]), "\x00")
				if _, twice := c.seqs[name]; !ok || twice {
					return nil, false, errWire
				}
				c.seqs[name] = nil
				for d := []byte(docs); len(d) > 0; {
					k, err := size(0x03, d)
					if err != nil {
						return nil, false, errWire
					}
					c.seqs[name] = append(c.seqs[name], d[:k])
					d = d[k:]
				}
				b = b[n:]
			default:
				return nil, false, errWire
			}
		}
		if doc == nil {
			return nil, false, errWire
		}
		db := 0
		for _, e := range c.body {
			if e.name == "$db" {
				c.db = e.text()
				db++
			}
		}
		if db != 1 || c.db == "" || strings.ContainsAny(c.db, "/\\. \"*<>:|?\x00") {
			return nil, false, errWire
		}
		quiet = flags&flagMore != 0
	default:
		return nil, false, errWire
	}
	c.name = c.body[0].name
	return c, quiet, nil
}

// failure is a reply that says no.
func failure(code int32, name, words string) []byte {
	return build(f64("ok", 0), str("errmsg", words), i32("code", code), str("codeName", name))
}

func denied(d guard.Decision) []byte {
	return failure(13, "Unauthorized", strings.Join(append([]string{"guard refused the use of credential " + d.Secret.Name + ": " + d.Reason}, append(d.NextSteps, fmt.Sprintf("layer: broker, rule: %s, request: %s", d.Rule, broker.RequestID(d)))...), "; "))
}
