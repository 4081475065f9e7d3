package mongo

import (
	"bytes"
	"encoding/binary"
	"errors"
	"math"
	"strings"
)

var errBSON = errors.New("malformed BSON")

// maxDepth is what servers take of documents in documents.
const maxDepth = 180

// elem is one element of a document: raw is its value.
type elem struct {
	kind byte
	name string
	raw  []byte
}

// size is how long the value at the start of b is.
func size(kind byte, b []byte) (int, error) {
	n := 0
	long := func(head, tail int) (int, error) {
		if len(b) < 4 {
			return 0, errBSON
		}
		k := int(int32(binary.LittleEndian.Uint32(b)))
		if k < 0 || k > math.MaxInt32-64 {
			return 0, errBSON
		}
		return head + k + tail, nil
	}
	var err error
	switch kind {
	case 0x01, 0x09, 0x11, 0x12: // double, date, timestamp, int64
		n = 8
	case 0x02, 0x0d, 0x0e: // string, code, symbol
		n, err = long(4, 0)
		if err == nil && (n < 5 || n > len(b) || b[n-1] != 0) {
			err = errBSON
		}
	case 0x03, 0x04: // document, array
		n, err = long(0, 0)
		if err == nil && (n < 5 || n > len(b) || b[n-1] != 0) {
			err = errBSON
		}
	case 0x05: // binary
		n, err = long(5, 0)
	case 0x06, 0x0a, 0x7f, 0xff: // undefined, null, max, min
	case 0x07: // ObjectId
		n = 12
	case 0x08:
		n = 1
	case 0x0b: // two C strings
		for range 2 {
			k := bytes.IndexByte(b[n:], 0)
			if k < 0 {
				return 0, errBSON
			}
			n += k + 1
		}
	case 0x0c: // DBPointer
		n, err = long(4, 12)
	case 0x0f: // code with scope
		n, err = long(0, 0)
	case 0x10:
		n = 4
	case 0x13:
		n = 16
	default:
		err = errBSON
	}
	if err == nil && n > len(b) {
		err = errBSON
	}
	return n, err
}

// document reads the elements of one at the start of b, and its length.
func document(b []byte) (es []elem, n int, err error) {
	if n, err = size(0x03, b); err != nil {
		return nil, 0, err
	}
	for p := b[4 : n-1]; len(p) > 0; {
		k := bytes.IndexByte(p[1:], 0)
		if k < 0 {
			return nil, 0, errBSON
		}
		e := elem{kind: p[0], name: string(p[1 : 1+k])}
		p = p[k+2:]
		m, err := size(e.kind, p)
		if err != nil {
			return nil, 0, err
		}
		e.raw, p = p[:m], p[m:]
		es = append(es, e)
	}
	return es, n, nil
}

func build(es ...elem) []byte {
	b := make([]byte, 4)
	for _, e := range es {
		b = append(append(append(b, e.kind), e.name...), 0)
		b = append(b, e.raw...)
	}
	b = append(b, 0)
	binary.LittleEndian.PutUint32(b, uint32(len(b)))
	return b
}

func str(name, v string) elem {
	b := binary.LittleEndian.AppendUint32(nil, uint32(len(v)+1))
	return elem{0x02, name, append(append(b, v...), 0)}
}

func i32(name string, v int32) elem {
	return elem{0x10, name, binary.LittleEndian.AppendUint32(nil, uint32(v))}
}

func f64(name string, v float64) elem {
	return elem{0x01, name, binary.LittleEndian.AppendUint64(nil, math.Float64bits(v))}
}

func boolean(name string, v bool) elem {
	if v {
		return elem{0x08, name, []byte{1}}
	}
	return elem{0x08, name, []byte{0}}
}

func bin(name string, v []byte) elem {
	b := binary.LittleEndian.AppendUint32(nil, uint32(len(v)))
	return elem{0x05, name, append(append(b, 0), v...)}
}

func sub(kind byte, name string, es ...elem) elem { return elem{kind, name, build(es...)} }

// text is the string that e is, "" where it is none.
func (e elem) text() string {
	if e.kind != 0x02 {
		return ""
	}
	return string(e.raw[4 : len(e.raw)-1])
}

// number is e where it is one.
func (e elem) number() (float64, bool) {
	switch e.kind {
	case 0x01:
		return math.Float64frombits(binary.LittleEndian.Uint64(e.raw)), true
	case 0x10:
		return float64(int32(binary.LittleEndian.Uint32(e.raw))), true
	case 0x12:
		return float64(int64(binary.LittleEndian.Uint64(e.raw))), true
	case 0x08:
		return float64(e.raw[0]), true
	}
	return 0, false
}

// data is what is in a binary.
func (e elem) data() []byte {
	switch e.kind {
	case 0x05:
		return e.raw[5:]
	case 0x02:
		return []byte(e.text())
	}
	return nil
}

func get(es []elem, name string) (elem, bool) {
	for _, e := range es {
		if e.name == name {
			return e, true
		}
	}
	return elem{}, false
}

func without(es []elem, names ...string) []elem {
	var out []elem
next:
	for _, e := range es {
		for _, n := range names {
			if e.name == n {
				continue next
			}
		}
		out = append(out, e)
	}
	return out
}

// anywhere says whether a key that f takes is in e, however deep.
func anywhere(e elem, depth int, f func(elem) bool) (bool, error) {
	if e.kind != 0x03 && e.kind != 0x04 {
		return false, nil
	}
	if depth > maxDepth {
		return true, errBSON
	}
	es, _, err := document(e.raw)
	if err != nil {
		return true, err
	}
	for _, x := range es {
		if f(x) {
			return true, nil
		}
		if in, err := anywhere(x, depth+1, f); in || err != nil {
			return true, err
		}
	}
	return false, nil
}

// rename replaces the real login by the client's in what the server says.
type rename struct{ from, to string }

// doc rewrites every string of a document.
func (r rename) doc(b []byte, depth int) ([]byte, error) {
	es, _, err := document(b)
	if err != nil || depth > maxDepth {
		return nil, errBSON
	}
	for i, e := range es {
		switch e.kind {
		case 0x02:
			es[i] = str(e.name, strings.ReplaceAll(e.text(), r.from, r.to))
		case 0x03, 0x04:
			if es[i].raw, err = r.doc(e.raw, depth+1); err != nil {
				return nil, err
			}
		}
	}
	return build(es...), nil
}
