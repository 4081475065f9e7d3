package mysql

import (
	"encoding/binary"
	"errors"
	"io"
)

// Capabilities (CLIENT_* of the protocol's documentation).
const (
	capLongPassword     = 1 << 0
	capFoundRows        = 1 << 1
	capLongFlag         = 1 << 2
	capConnectWithDB    = 1 << 3
	capODBC             = 1 << 6
	capIgnoreSpace      = 1 << 8
	capProtocol41       = 1 << 9
	capInteractive      = 1 << 10
	capSSL              = 1 << 11
	capTransactions     = 1 << 13
	capSecureConnection = 1 << 15
	capMultiStatements  = 1 << 16
	capMultiResults     = 1 << 17
	capPSMultiResults   = 1 << 18
	capPluginAuth       = 1 << 19
	capAuthLenEnc       = 1 << 21

	// capBoth are those that both sides of guard may have: a message means the same
	// with and without guard. Compression, LOCAL INFILE, query attributes, session
	// tracking, the newer end of results and MariaDB's own are not offered.
	capBoth = capLongPassword | capFoundRows | capLongFlag | capODBC | capIgnoreSpace | capProtocol41 | capInteractive |
		capTransactions | capMultiStatements | capMultiResults | capPSMultiResults
	// capNeeded are those without which guard talks to nobody.
	capNeeded = capProtocol41 | capSecureConnection
)

// Bits of the status that OK and EOF carry.
const (
	statusMoreResults = 0x0008
	statusCursor      = 0x0040
)

const (
	maxPayload = 1<<24 - 1
	// maxCommand bounds a command that is judged, in bytes: it is held whole.
	maxCommand = 64 << 20
)

var (
	errFrame  = errors.New("a message is malformed")
	errTooBig = errors.New("a message is too large")
)

// readPacket reads one message, of up to limit bytes, from as many packets as it
// takes, and appends it to buf. seq is the number of the last packet.
func readPacket(r io.Reader, buf []byte, limit int) (msg []byte, seq byte, err error) {
	var head [4]byte
	for first := true; ; first = false {
		if _, err := io.ReadFull(r, head[:]); err != nil {
			if !first && err == io.EOF {
				err = io.ErrUnexpectedEOF
			}
			return buf, seq, err
		}
		n := int(head[0]) | int(head[1])<<8 | int(head[2])<<16
		if !first && head[3] != seq+1 {
			return buf, seq, errFrame
		}
		seq = head[3]
		if len(buf)+n > limit {
			return buf, seq, errTooBig
		}
		have := len(buf)
		buf = append(buf, make([]byte, n)...)
		if _, err := io.ReadFull(r, buf[have:]); err != nil {
			return buf, seq, noEOF(err)
		}
		if n < maxPayload {
			return buf, seq, nil
		}
	}
}

func noEOF(err error) error {
	if err == io.EOF {
		return io.ErrUnexpectedEOF
	}
	return err
}

// appendPacket appends msg in packets that start with number seq, and returns the
// number after the last one.
func appendPacket(out, msg []byte, seq byte) ([]byte, byte) {
	for {
		n := min(len(msg), maxPayload)
		out = append(out, byte(n), byte(n>>8), byte(n>>16), seq)
		out = append(out, msg[:n]...)
		msg = msg[n:]
		seq++
		if n < maxPayload {
			return out, seq
		}
	}
}

// reader takes a message apart. bad: it had not what was asked for.
type reader struct {
	b   []byte
	bad bool
}

func (r *reader) take(n int) []byte {
	if n < 0 || n > len(r.b) {
		r.bad, r.b = true, nil
		return nil
	}
	out := r.b[:n]
	r.b = r.b[n:]
	return out
}

func (r *reader) u8() byte {
	if b := r.take(1); b != nil {
		return b[0]
	}
	return 0
}

func (r *reader) u16() uint16 {
	if b := r.take(2); b != nil {
		return binary.LittleEndian.Uint16(b)
	}
	return 0
}

func (r *reader) u32() uint32 {
	if b := r.take(4); b != nil {
		return binary.LittleEndian.Uint32(b)
	}
	return 0
}

// lenenc reads a length-encoded number.
func (r *reader) lenenc() uint64 {
	switch c := r.u8(); c {
	case 0xfb, 0xff:
		r.bad = true
		return 0
	case 0xfc:
		return uint64(r.u16())
	case 0xfd:
		if b := r.take(3); b != nil {
			return uint64(b[0]) | uint64(b[1])<<8 | uint64(b[2])<<16
		}
		return 0
	case 0xfe:
		if b := r.take(8); b != nil {
			return binary.LittleEndian.Uint64(b)
		}
		return 0
	default:
		return uint64(c)
	}
}

// text reads up to a NUL, which is taken.
func (r *reader) text() string {
	for i, c := range r.b {
		if c == 0 {
			return string(r.take(i + 1)[:i])
		}
	}
	r.bad = true
	return ""
}

// okPacket says that a login or a command went well.
func okPacket(status uint16) []byte {
	return []byte{0, 0, 0, byte(status), byte(status >> 8), 0, 0}
}

// serverError is an ERR packet.
type serverError struct {
	code    uint16
	state   string // 5 bytes
	message string
}

func (e *serverError) Error() string { return "the server said: error " + e.state }

func (e *serverError) packet() []byte {
	out := []byte{0xff, byte(e.code), byte(e.code >> 8), '#'}
	return append(append(out, e.state...), e.message...)
}

// early is the packet for a client that has not said what it speaks yet.
func (e *serverError) early() []byte {
	return append([]byte{0xff, byte(e.code), byte(e.code >> 8)}, e.message...)
}

func parseError(b []byte) *serverError {
	r := reader{b: b}
	r.u8()
	e := &serverError{code: r.u16(), state: "HY000"}
	if len(r.b) >= 6 && r.b[0] == '#' {
		e.state = string(r.take(6)[1:])
	}
	e.message = string(r.b)
	return e
}
