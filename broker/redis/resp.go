package redis

import (
	"bytes"
	"errors"
	"guard/broker"
	"strconv"
)

var (
	errFrame   = errors.New("not RESP")
	errTooLong = errors.New("longer than guard looks into")
)

const (
	maxLine = 64 << 10 // PROTO_INLINE_MAX_SIZE
	maxArgs = 1 << 20
	maxBulk = 512 << 20 // proto-max-bulk-len, as it is without being set
	// looked is how much of a command is kept to be looked at before any of it goes on.
	looked = 64 << 10
)

// number reads what Redis takes for one (string2ll): no sign but a minus, no zeros
// in front.
func number(b []byte) (int64, bool) {
	neg := len(b) > 1 && b[0] == '-'
	if neg {
		b = b[1:]
	}
	if len(b) == 0 || len(b) > 18 || b[0] == '0' && (len(b) > 1 || neg) {
		return 0, false
	}
	var n int64
	for _, c := range b {
		if c < '0' || c > '9' {
			return 0, false
		}
		n = n*10 + int64(c-'0')
	}
	if neg {
		n = -n
	}
	return n, true
}

// line finds the end of a header line at b[i:]: its text, and where the next
// begins; -1 where it is not all there.
func line(b []byte, i int) ([]byte, int, error) {
	k := bytes.IndexByte(b[i:], '\r')
	switch {
	case k < 0 && len(b)-i > maxLine || k > maxLine:
		return nil, 0, errFrame
	case k < 0 || i+k+1 >= len(b):
		return nil, -1, nil
	case b[i+k+1] != '\n':
		return nil, 0, errFrame
	}
	return b[i : i+k], i + k + 2, nil
}

// head is a header line with a number: "*3", "$5".
func head(b []byte, i int) (n int64, next int, err error) {
	// Nearly every one is of a digit or two.
	if len(b)-i >= 4 && b[i+2] == '\r' && b[i+1] >= '0' && b[i+1] <= '9' {
		if b[i+3] != '\n' {
			return 0, 0, errFrame
		}
		return int64(b[i+1] - '0'), i + 4, nil
	}
	l, next, err := line(b, i)
	if err != nil || next < 0 {
		if err == nil && len(b)-i > 24 {
			err = errFrame
		}
		return 0, next, err
	}
	if len(l) == 0 {
		return 0, 0, errFrame
	}
	n, ok := number(l[1:])
	if !ok {
		return 0, 0, errFrame
	}
	return n, next, nil
}

// request is one command of a client's, as far as it is there.
type request struct {
	argc int
	args [][]byte // those that are there whole; of a whole command all
	size int      // bytes of the command; 0: not all there
	// Where it is not all there: what was gone over, and what is missing of an
	// argument that has begun, with its line break.
	over int
	left int64
}

// parse reads the command at the start of b, which begins with '*'.
func (r *request) parse(b []byte) error {
	r.args, r.size, r.over, r.left = r.args[:0], 0, 0, 0
	n, i, err := head(b, 0)
	if err != nil || i < 0 {
		return err
	}
	if n > maxArgs {
		return errFrame
	}
	r.argc = int(max(n, 0))
	for range r.argc {
		r.over = i
		if i >= len(b) {
			return nil
		}
		if b[i] != '$' {
			return errFrame
		}
		n, next, err := head(b, i)
		if err != nil || next < 0 {
			return err
		}
		if n < 0 || n > maxBulk {
			return errFrame
		}
		end := next + int(n) + 2
		if end > len(b) {
			r.over, r.left = len(b), int64(end-len(b))
			return nil
		}
		if b[end-2] != '\r' || b[end-1] != '\n' {
			return errFrame
		}
		r.args = append(r.args, b[next:end-2])
		i = end
	}
	r.over, r.size = i, i
	return nil
}

// inline takes a line apart as Redis does (sdssplitargs).
func inline(l []byte) ([][]byte, error) {
	var args [][]byte
	for i := 0; ; {
		for i < len(l) && space(l[i]) {
			i++
		}
		if i == len(l) {
			return args, nil
		}
		var a []byte
		for ; i < len(l) && !space(l[i]); i++ {
			switch l[i] {
			case '"', '\'':
				quote := l[i]
				for i++; i < len(l) && l[i] != quote; i++ {
					if l[i] == '\\' && i+1 < len(l) {
						if quote == '\'' {
							if l[i+1] == '\'' {
								i++
							}
							a = append(a, l[i])
							continue
						}
						if v, err := strconv.ParseUint(string(l[i+2:min(i+4, len(l))]), 16, 8); l[i+1] == 'x' && i+3 < len(l) && err == nil {
							a = append(a, byte(v))
							i += 3
							continue
						}
						i++
						c := l[i]
						if k := bytes.IndexByte([]byte("nrtba"), c); k >= 0 {
							c = "\n\r\t\b\a"[k]
						}
						a = append(a, c)
						continue
					}
					a = append(a, l[i])
				}
				if i == len(l) || i+1 < len(l) && !space(l[i+1]) {
					return nil, errors.New("unbalanced quotes in request")
				}
			default:
				a = append(a, l[i])
			}
		}
		if a == nil {
			a = []byte{}
		}
		args = append(args, a)
	}
}

func space(c byte) bool { return c == ' ' || c >= '\t' && c <= '\r' || c == 0 }

// command is args on the wire.
func command(args ...[]byte) []byte {
	b := strconv.AppendInt([]byte{'*'}, int64(len(args)), 10)
	b = append(b, '\r', '\n')
	for _, a := range args {
		b = appendBulk(b, '$', a)
	}
	return b
}

func appendBulk(b []byte, kind byte, a []byte) []byte {
	b = strconv.AppendInt(append(b, kind), int64(len(a)), 10)
	b = append(b, '\r', '\n')
	b = append(b, a...)
	return append(b, '\r', '\n')
}

// walker finds where a server's values begin and end, and no more of them.
type walker struct {
	need int64 // values that are missing to the end of the one at the top
	skip int64 // bytes of a string, with its line break
	push bool  // the one at the top is no reply
}

// step goes over one header or piece of a string at b[i:]. It returns the new
// index, -1 where a header is not all there, and whether the value at the top
// is complete.
func (w *walker) step(b []byte, i int) (next int, whole bool, err error) {
	if w.skip > 0 {
		n := min(w.skip, int64(len(b)-i))
		w.skip -= n
		return i + int(n), w.skip == 0 && w.need == 0, nil
	}
	top := w.need == 0
	t := b[i]
	switch t {
	case '+', '-', ':', '_', '#', ',', '(':
		var next int
		if len(b)-i >= 4 && b[i+2] == '\r' && b[i+3] == '\n' && b[i+1] != '\r' { // ":1"
			next = i + 4
		} else if _, next, err = line(b, i); err != nil || next < 0 {
			return next, false, err
		}
		if top {
			w.push = false
			return next, true, nil
		}
		w.need--
		return next, w.need == 0, nil
	}
	n, next, err := head(b, i)
	if err != nil || next < 0 {
		return next, false, err
	}
	if n < -1 || n > 1<<32 {
		return 0, false, errFrame
	}
	if top {
		w.need, w.push = 1, t == '>'
	}
	switch t {
	case '$', '=', '!':
		w.need--
		if n >= 0 {
			w.skip = n + 2
		}
	case '*', '~', '>':
		w.need += max(n, 0) - 1
	case '%':
		w.need += 2*max(n, 0) - 1
	case '|': // attributes of the value that follows
		w.need += 2 * max(n, 0)
	default:
		return 0, false, errFrame
	}
	if w.need > 1<<40 {
		return 0, false, errFrame
	}
	return next, w.need == 0 && w.skip == 0, nil
}

// between says whether nothing has begun.
func (w *walker) between() bool { return w.need == 0 && w.skip == 0 }

// value is a reply that was read whole.
type value struct {
	kind  byte
	text  []byte
	null  bool
	items []value
}

const maxDepth = 32

// parseValue reads one whole reply.
func parseValue(b []byte, i, depth int) (v value, next int, err error) {
	if i >= len(b) || depth > maxDepth {
		return v, 0, errFrame
	}
	v.kind = b[i]
	l, next, err := line(b, i)
	if err != nil || next < 0 {
		return v, 0, errFrame
	}
	v.text = l[1:]
	per := 0
	switch v.kind {
	case '+', '-', ':', '_', '#', ',', '(':
		return v, next, nil
	case '*', '~', '>':
		per = 1
	case '%', '|':
		per = 2
	case '$', '=', '!':
	default:
		return v, 0, errFrame
	}
	n, ok := number(v.text)
	if !ok || n < -1 || n > int64(len(b)) {
		return v, 0, errFrame
	}
	v.text, v.null = nil, n < 0
	if per == 0 {
		if n < 0 {
			return v, next, nil
		}
		end := next + int(n)
		if end+2 > len(b) {
			return v, 0, errFrame
		}
		v.text = b[next:end]
		return v, end + 2, nil
	}
	for range int(max(n, 0)) * per {
		var item value
		if item, next, err = parseValue(b, next, depth+1); err != nil {
			return v, 0, err
		}
		v.items = append(v.items, item)
	}
	return v, next, nil
}

// appendTo writes v with its strings as hide has them.
func (v value) appendTo(b []byte, hide rename) []byte {
	switch v.kind {
	case '$', '=', '!':
		if !v.null {
			return appendBulk(b, v.kind, hide.words(v.text))
		}
	case '*', '~', '>', '%', '|':
		if !v.null {
			n := len(v.items)
			if v.kind == '%' || v.kind == '|' {
				n /= 2
			}
			b = strconv.AppendInt(append(b, v.kind), int64(n), 10)
			b = append(b, '\r', '\n')
			for _, x := range v.items {
				b = x.appendTo(b, hide)
			}
			return b
		}
	default:
		b = append(append(b, v.kind), hide.words(v.text)...)
		return append(b, '\r', '\n')
	}
	return append(b, v.kind, '-', '1', '\r', '\n')
}

// rename replaces the real login by the client's in what the server says.
type rename struct{ from, to string }

func (r rename) idle() bool { return r.from == "" || r.from == r.to || r.from == "default" }

// words replaces whole words only.
func (r rename) words(b []byte) []byte {
	if r.idle() {
		return b
	}
	return broker.ReplaceWord(b, r.from, r.to, inWord)
}

func inWord(c byte) bool {
	return c == '_' || c >= 0x80 || c >= '0' && c <= '9' || c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z'
}
