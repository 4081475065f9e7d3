package mail

// body finds the end of a message, and what is no clean one.
type body struct {
	done bool
	crlf bool // the last line ended in CR LF
	cr   bool // the last byte is a CR
	n    int  // bytes of this line
	dot  bool // it begins with a dot
	nul  bool // there was a byte of zero
}

func newBody() *body { return &body{crlf: true} }

const smuggled = "554 5.6.0 guard refuses a message with a line of one dot that is not between two CR LF: some servers take that for its end"

// feed goes over b up to the end of the message: how much of b is of it, and a reply
// where it is to be refused.
func (d *body) feed(b []byte) (n int, bad string) {
	for i, c := range b {
		alone := d.n == 1 && d.dot
		switch {
		case c == '\n' && d.cr:
			d.cr = false
			if alone && d.crlf {
				d.done = true
				return i + 1, bad
			}
			if alone {
				bad = smuggled
			}
			d.n, d.crlf = 0, true
			continue
		case d.cr: // a CR alone
			d.cr = false
			if alone {
				bad = smuggled
			}
			d.n, d.crlf = 0, false
		}
		alone = d.n == 1 && d.dot
		switch c {
		case 0:
			d.nul = true
			bad = "554 5.6.0 guard refuses a message with a byte of zero: some servers take it for its end"
			d.n++
		case '\r':
			d.cr = true
		case '\n':
			if alone {
				bad = smuggled
			}
			d.n, d.crlf = 0, false
		default:
			if d.n == 0 {
				d.dot = c == '.'
			}
			if d.n++; d.n > maxBodyLine {
				bad = "554 5.6.0 guard refuses a message with a line that is longer than 64 KiB: encode it as quoted-printable or base64"
			}
		}
	}
	return len(b), bad
}
