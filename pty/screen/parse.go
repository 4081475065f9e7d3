package screen

// param is one parameter of a control sequence.
type param struct {
	n   int  // -1: not given
	sub bool // after a colon
}

// seq is a control: a C0 byte, ESC with intermediates and a final byte, or a
// control sequence (ECMA-48 5.4).
type seq struct {
	raw     []byte // as it came, but for C0 controls inside it, which were done before
	csi     bool
	private byte // '<', '=', '>', '?' or 0
	inter   [2]byte
	n       int // intermediates
	bad     bool
	params  []param
	cur     int // digits
	digits  bool
	colon   bool
	any     bool
}

func (q *seq) start(csi bool) {
	q.csi, q.private, q.n, q.bad = csi, 0, 0, false
	q.inter = [2]byte{}
	q.params, q.cur, q.digits, q.colon, q.any = q.params[:0], 0, false, false, false
}

const maxParams = 64

// add takes a byte from 0x20 to 0x3f after CSI.
func (q *seq) add(b byte) {
	switch {
	case b >= '0' && b <= '9':
		q.bad = q.bad || q.n > 0
		if q.cur < 100000 {
			q.cur = q.cur*10 + int(b-'0')
		}
		q.digits, q.any = true, true
	case b == ';' || b == ':':
		q.bad = q.bad || q.n > 0
		q.push()
		q.colon, q.any = b == ':', true
	case b >= 0x3c:
		if q.any || q.private != 0 || q.n > 0 {
			q.bad = true
		}
		q.private = b
	default:
		if q.n < len(q.inter) {
			q.inter[q.n] = b
		} else {
			q.bad = true
		}
		q.n++
	}
}

func (q *seq) push() {
	if len(q.params) < maxParams {
		p := param{n: -1, sub: q.colon}
		if q.digits {
			p.n = q.cur
		}
		q.params = append(q.params, p)
	}
	q.cur, q.digits = 0, false
}

func (q *seq) end() {
	if q.any {
		q.push()
	}
}

// arg is parameter i, or def where there is none or it is 0.
func (q *seq) arg(i, def int) int {
	if i >= len(q.params) || q.params[i].n <= 0 {
		return def
	}
	return q.params[i].n
}

// calm says that the sequence neither moves the cursor nor changes what is shown.
func (q *seq) calm(final byte) bool {
	if !q.csi {
		return q.n == 0 && (final == '=' || final == '>' || final == '\\') || q.n == 1 && q.inter[0] == '(' && final == 'B'
	}
	switch final {
	case 'm', 'n', 'c', 'q', 't', 'x':
		return true
	case 'K':
		return q.private == 0 && q.n == 0 && q.arg(0, 0) == 0
	case 'u', 'p':
		return q.private != 0 || q.n > 0 && q.inter[0] == '$'
	case 'h', 'l':
		if q.private != '?' {
			return false
		}
		for _, p := range q.params {
			switch p.n {
			case 1, 12, 25, 66, 1000, 1002, 1003, 1004, 1005, 1006, 1015, 1016, 2004, 2026, 2027, 2031, 2048:
			default:
				return false
			}
		}
		return true
	}
	return false
}

// absolute says that what the sequence does depends on the row of the cursor,
// beyond the rows that are known.
func (q *seq) absolute(s *Screen, final byte) bool {
	below := s.m.rows - 1 - s.m.cur.row
	known := s.seen - below
	if !q.csi {
		return final == '8' || final == 'c' || final == 'M' && known < 1 || q.n == 1 && q.inter[0] == '#' && final == '8'
	}
	switch final {
	case 'A', 'F', 'k':
		return q.arg(0, 1) > known
	case 'B', 'E', 'e':
		return q.arg(0, 1) > below
	case 'H', 'J', 'S', 'T', '^', 'd', 'f', 'r', 'u', 'p', 'L', 'M':
		if final == 'J' && q.arg(0, 0) == 0 {
			return false
		}
		return q.private == 0 || final == 'J'
	case 'h', 'l':
		return q.private == '?' && !q.calm(final)
	}
	return false
}
